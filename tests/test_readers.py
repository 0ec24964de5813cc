"""The readers of the main job: official layouts, counts, and bad label files."""

import csv
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bigxfer.config import Data
from bigxfer.data import readers
from bigxfer.data.labels import CHEXPERT14, NIH14
from bigxfer.data.readers import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
SAMPLES = SHARED / "csv_samples"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


def read(reader, root, **fields):
    return readers.read(Data(reader=reader, root=str(root), views=(), **fields))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def chexpert_row(path, view, marks):
    first, second = ("Lateral", "") if view == "L" else ("Frontal", view)
    cells = ",".join(marks.get(name, "") for name in CHEXPERT14)
    return f"CheXpert-v1.0-small/{path},Female,50,{first},{second},{cells}\n"


CHEXPERT_HEAD = ",".join(
    ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT14)
)


def chexpert(root):
    top = root / "CheXpert-v1.0-small"
    rows = [
        chexpert_row("train/patient00001/study1/view1_frontal.jpg", "PA", HEALTHY),
        chexpert_row("train/patient00001/study1/view2_lateral.jpg", "L", HEALTHY),
        chexpert_row("train/patient00002/study3/view1_frontal.jpg", "AP", ILL),
    ]
    write(top / "train.csv", f"{CHEXPERT_HEAD}\n{''.join(rows)}")
    valid = chexpert_row("valid/patient00003/study1/view1_frontal.jpg", "AP", {})
    write(top / "valid.csv", f"{CHEXPERT_HEAD}\n{valid}")


HEALTHY = {"No Finding": "1.0", "Edema": "0.0", "Support Devices": "1.0"}
ILL = {"Edema": "1.0", "Pneumonia": "-1.0", "Fracture": "0.0"}

NIH_HEAD = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
    "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def nih(root, tail=""):
    rows = [
        "00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143",
        "00000001_001.png,No Finding,1,1,58,M,AP,2682,2749,0.143,0.143",
        "00000002_000.png,Pleural_Thickening,0,2,81,M,PA,2500,2048,0.171,0.171",
    ]
    text = "".join(f"{row}{tail}\n" for row in [NIH_HEAD, *rows])
    write(root / "Data_Entry_2017_v2020.csv", text)
    write(root / "train_val_list.txt", "00000001_000.png\n00000001_001.png\n")
    write(root / "test_list.txt", "00000002_000.png")
    (root / "images").mkdir()


def own(root):
    rows = ["a.png,1,0,p1,train,PA,7", "b.png,,1,p1,train,,8", "c.png,0,0,p2,test,L,9"]
    write(
        root / "metadata.csv",
        "\n".join(["file,Edema,Mass,patient,split,view,age", *rows]),
    )


def test_chexpert_layout_labels_and_split(tmp_path):
    chexpert(tmp_path)
    top = tmp_path / "CheXpert-v1.0-small"
    m = read("chexpert", tmp_path)
    assert m.classes == CHEXPERT14 and m.labels.shape == (4, 14)
    assert m.path[0].startswith("CheXpert-v1.0-small/train/patient00001/")
    assert list(m.view) == ["PA", "L", "AP", "AP"]
    assert list(m.split) == ["train"] * 3 + ["test"]
    assert m.patient[0] == m.patient[1] == "chexpert-patient00001"
    column = {name: m.labels[:, i] for i, name in enumerate(m.classes)}
    np.testing.assert_equal(column["Pneumonia"], [0, 0, np.nan, np.nan])
    np.testing.assert_equal(column["Support Devices"], [1, 1, np.nan, np.nan])
    np.testing.assert_equal(column["No Finding"], [1, 1, 0, np.nan])
    inside = read("chexpert", tmp_path / "CheXpert-v1.0-small")
    assert inside.path[0] == "train/patient00001/study1/view1_frontal.jpg"
    assert list(inside.id) == list(m.id)
    small, full = "CheXpert-v1.0-small", "CheXpert-v1.0"
    for name in ("train.csv", "valid.csv"):
        write(
            tmp_path / "big" / full / name,
            (top / name).read_text().replace(small, full),
        )
    big = read("chexpert", tmp_path / "big")
    assert big.path[0].startswith(f"{full}/train/") and list(big.id) == list(m.id)


def test_chexpert_policies_are_settings(tmp_path):
    chexpert(tmp_path)
    ones = read("chexpert", tmp_path, uncertain="ones", blank="negative")
    assert ones.labels[2, CHEXPERT14.index("Pneumonia")] == 1
    assert not np.isnan(ones.labels).any()
    zeros = read("chexpert", tmp_path, uncertain="zeros")
    assert zeros.labels[2, CHEXPERT14.index("Pneumonia")] == 0
    assert np.isnan(zeros.labels[2, CHEXPERT14.index("Atelectasis")])
    assert zeros.notes["uncertain"] == "zeros" and zeros.notes["blank"] == "unknown"


@real
def test_chexpert_sample_counts_are_those_of_its_cells(tmp_path):
    text = (SAMPLES / "chexpert_train.synthetic.csv").read_text()
    write(tmp_path / "train.csv", text)
    valid = (SAMPLES / "chexpert_valid.synthetic.csv").read_text()
    write(tmp_path / "valid.csv", valid)
    m = read("chexpert", tmp_path)
    rows = [*csv.DictReader(text.splitlines()), *csv.DictReader(valid.splitlines())]
    assert len(m) == len(rows)
    for i, name in enumerate(CHEXPERT14):
        assert (m.labels[:, i] == 1).sum() == sum(row[name] == "1.0" for row in rows)
    assert len(set(m.patient)) == len({r["Path"].split("/")[2] for r in rows})


@pytest.mark.slow
def test_a_chexpert_sized_file_takes_under_five_seconds(tmp_path):
    rng = random.Random(0)
    rows = [
        [rng.choice(["1.0", "0.0", "-1.0", "", "", ""]) for _ in CHEXPERT14]
        for _ in range(97)
    ]
    with open(tmp_path / "train.csv", "w") as file:
        file.write(CHEXPERT_HEAD + "\n")
        for i in range(223_414):
            path = f"train/patient{i // 4:05d}/study{i % 4}/view1_frontal.jpg"
            cells = ",".join(rows[i % 97])
            file.write(f"CheXpert-v1.0-small/{path},Male,40,Frontal,AP,{cells}\n")
    start = time.process_time()
    assert len(read("chexpert", tmp_path)) == 223_414
    assert time.process_time() - start < 5


@pytest.mark.parametrize("tail", ["", ","])
def test_nih_layout(tmp_path, tail):
    nih(tmp_path, tail)
    m = read("nih", tmp_path)
    assert m.classes == NIH14 and m.path[0] == "images/00000001_000.png"
    assert list(m.patient) == ["nih-00000001"] * 2 + ["nih-00000002"]
    assert list(m.split) == ["train", "train", "test"]
    assert list(m.view) == ["PA", "AP", "PA"]
    positive = [[NIH14[i] for i in np.flatnonzero(row)] for row in m.labels]
    assert positive == [["Cardiomegaly", "Emphysema"], [], ["Pleural_Thickening"]]


def test_nih_kaggle_folders_are_found_without_looking_at_each_file(tmp_path):
    nih(tmp_path)
    (tmp_path / "images").rmdir()
    write(tmp_path / "images_001" / "images" / "00000001_000.png", "")
    write(tmp_path / "images_012" / "images" / "00000002_000.png", "")
    m = read("nih", tmp_path)
    assert m.path[0] == "images_001/images/00000001_000.png"
    assert m.path[2] == "images_012/images/00000002_000.png"
    assert m.path[1] == "images/00000001_001.png"  # absent: the cache says so


@real
def test_nih64_reads_as_it_is():
    m = read("nih", SHARED / "nih64")
    count = dict(zip(m.classes, m.labels.sum(axis=0)))
    assert (len(m), len(set(m.patient))) == (915, 259)
    assert (count["Effusion"], count["Pneumonia"], count["Hernia"]) == (140, 4, 9)
    assert (m.labels.sum(axis=1) == 0).sum() == 465
    train, test = (set(m.patient[m.split == s]) for s in ("train", "test"))
    assert (len(train), len(test)) == (191, 68) and not train & test
    assert all((Path(m.root) / path).is_file() for path in m.path)


@real
def test_nih_official_sample(tmp_path):
    sample = SAMPLES / "nih_Data_Entry_2017_v2020.head.csv"
    write(tmp_path / "Data_Entry_2017_v2020.csv", sample.read_text())
    (tmp_path / "images").mkdir()
    m = read("nih", tmp_path)
    rows = list(csv.reader(sample.read_text().splitlines()))[1:]
    assert len(m) == len(rows) and set(m.split) == {""}
    listed = Counter(f for row in rows for f in row[1].split("|"))
    assert dict(zip(NIH14, m.labels.sum(axis=0))) == {n: listed[n] for n in NIH14}


def test_folder(tmp_path):
    for path in ("train/cat/1.jpg", "train/dog/a/2.PNG", "test/cat/1.jpg"):
        write(tmp_path / path, "")
    write(tmp_path / "train/cat/Thumbs.db", "")
    m = read("folder", tmp_path)
    assert m.classes == ("cat", "dog") and list(m.labels) == [0, 1, 0]
    assert list(m.split) == ["train", "train", "test"]
    assert len(set(m.patient)) == 3 and "unknown" in m.notes["patients"]
    left = m.notes["dropped"]
    assert list(left) == ["litter (hidden files, __MACOSX and the like)"]
    assert left.popitem()[1] == {"count": 1, "first": ["train/cat/Thumbs.db"]}
    plain = read("folder", tmp_path / "train")
    assert list(plain.path) == ["cat/1.jpg", "dog/a/2.PNG"] and set(plain.split) == {""}
    (tmp_path / "train" / "eel").mkdir()
    with pytest.raises(DataError, match="eel.*no image"):
        read("folder", tmp_path)


def test_csv_with_a_column_a_class(tmp_path):
    own(tmp_path)
    m = read("csv", tmp_path)
    assert m.classes == ("Edema", "Mass") and list(m.age) == ["7", "8", "9"]
    np.testing.assert_equal(m.labels, [[1, 0], [np.nan, 1], [0, 0]])
    assert list(m.patient) == ["p1", "p1", "p2"] and list(m.view) == ["PA", "", "L"]
    assert read("csv", tmp_path, blank="negative").labels[1, 0] == 0
    assert read("csv", tmp_path, labels=("Mass",)).classes == ("Mass",)
    with pytest.raises(DataError, match="line 2: age is '7'"):
        read("csv", tmp_path, labels=("Mass", "age"))


@real
def test_covid_cxr_reads_as_it_is():
    m = read("csv", SHARED / "covid_cxr")
    assert (len(m), len(set(m.patient))) == (1277, 916)
    have = Counter((s, m.classes[k]) for s, k in zip(m.split, m.labels))
    assert have["test", "covid19"] == 129 and have["train", "normal"] == 284
    assert Counter(m.view) == {"AP": 597, "PA": 448, "": 232}


def test_views_classes_and_synthetic(tmp_path):
    chexpert(tmp_path)
    write(tmp_path / "SYNTHETIC.txt", "drawn")
    data = Data(root=str(tmp_path), labels=("Effusion", "Edema"))
    m = readers.read(data)
    assert m.synthetic and m.classes == ("Effusion", "Edema")
    assert list(m.view) == ["PA", "AP", "AP"] and "(L 1) left out: 1" in m.remarks()[0]
    assert m.labels[1, 1] == 1
    with pytest.raises(DataError, match="'Edemma'; did you mean Edema"):
        read("chexpert", tmp_path, labels=("Edemma",))
    with pytest.raises(DataError, match="views.*'PA': 1"):
        readers.read(Data(root=str(tmp_path), views=("LL",)))


def test_unknown_reader_and_missing_root(tmp_path):
    with pytest.raises(DataError, match="'chexprt'; did you mean chexpert"):
        read("chexprt", tmp_path)
    with pytest.raises(DataError, match="nowhere.*register at"):
        read("chexpert", tmp_path / "nowhere")
    with pytest.raises(DataError, match="looked for train.csv or CheXpert"):
        read("chexpert", tmp_path)
