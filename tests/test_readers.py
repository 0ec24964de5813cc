"""The readers of the main job: official layouts, counts, and bad label files."""

import csv
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigxfer.config import Data
from bigxfer.data import readers
from bigxfer.data.labels import CHEXPERT14, NIH14
from bigxfer.data.readers import DataError, covidx

SHARED = Path(__file__).parents[2] / "shared" / "data"
SAMPLES = SHARED / "csv_samples"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data here")


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


COVID_TRAIN = [
    "3 SARS-Fig8a-day0.jpeg negative cohen",
    "COVID 1 COVID(1).png positive sirm",
    "ANON196 CR.1.2.840.png positive actmed",
    "COVID-00001 COVID-00001.JPG positive fig1",
    "3 SARS-Fig8a-day0.jpeg negative cohen",
    "8b0a b0.png negative rnsa",
]
COVID_TEST = ["47c7-4998 47c7-4998.png negative", "S-1 MIDRC-1C.png positive ricord"]


def covid(root):
    write(root / "labels" / "train_COVIDx8B.txt", "\n".join(COVID_TRAIN) + "\n")
    write(root / "labels" / "test_COVIDx8B.txt", "\n".join(COVID_TEST) + "\n")


def own(root):
    rows = ["a.png,1,0,p1,train,PA,7", "b.png,,1,p1,train,,8", "c.png,0,0,p2,test,L,9"]
    write(
        root / "metadata.csv",
        "\n".join(["file,Edema,Mass,patient,split,view,age", *rows]),
    )


def test_chexpert_layout_labels_and_split(tmp_path):
    chexpert(tmp_path)
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


def test_covidx_lines_of_three_four_and_five_tokens(tmp_path):
    covid(tmp_path)
    m = read("covidx", tmp_path)
    assert m.classes == ("negative", "positive") and m.notes["rnsa_read_as_rsna"] == 1
    assert m.notes["duplicate_lines_dropped"] == 1 and len(m) == 7
    row = list(m.path).index("train/COVID(1).png")
    assert m.patient[row] == "covidx-COVID 1" and m.source[row] == "sirm"
    assert list(m.split) == ["train"] * 5 + ["test"] * 2
    assert list(m.source[-3:]) == ["rsna", "", "ricord"]
    assert list(m.labels) == [0, 1, 1, 1, 0, 0, 1]


def test_covidx_kaggle_layout_and_the_choice_of_a_version(tmp_path):
    write(tmp_path / "train.txt", "\n".join(COVID_TRAIN))
    write(tmp_path / "test.txt", "\n".join(COVID_TEST))
    write(tmp_path / "val.txt", "7 v.png positive bimcv")
    m = read("covidx", tmp_path)
    assert Counter(m.split) == {"train": 5, "test": 2, "valid": 1}
    covid(tmp_path)
    with pytest.raises(DataError, match="'8B'.*config.data.version"):
        read("covidx", tmp_path)
    assert len(read("covidx", tmp_path, version="8B")) == 7
    with pytest.raises(DataError, match="train_COVIDx9A.txt"):
        read("covidx", tmp_path, version="9A")


TABLES = {  # facts of labels/*.txt at 6599980: class counts of train and test
    "1": ((7966, 8514, 66), (100, 100, 10)),
    "2": ((7966, 5451, 152), (100, 100, 31)),
    "3": ((7966, 5451, 253), (100, 100, 100)),
    "4": ((7966, 5459, 473), (100, 100, 100)),
    "5": ((7966, 5475, 517), (100, 100, 100)),
    "6": ((13794, 517), (100, 100)),
    "7A": ((7966, 5475, 1670), (100, 100, 100)),
    "7B": ((13794, 1670), (100, 100)),
    "8A": ((7966, 5475, 2158), (100, 100, 200)),
    "8B": ((13794, 2158), (200, 200)),
    "9A": ((8085, 5555, 16490), (100, 100, 200)),
    "9B": ((13992, 16490), (200, 200)),
    "Sev": ((175, 584), (52, 98)),
}


@pytest.mark.parametrize("version", TABLES)
def test_covidx_counts_of_every_version(tmp_path, version):
    train, test = TABLES[version]
    three, severity = len(train) == 3, version == "Sev"
    classes = covidx.SPACES[2 if severity else 0 if three else 1]
    rng = random.Random(version)
    repeats = 3079 if version == "1" else 0
    for split, counts in (("train", train), ("test", test)):
        rows = []
        for name, count in zip(classes, counts):
            for i in range(
                count - repeats * (name == "pneumonia" and split == "train")
            ):
                blank = version[0] in "78" and rng.random() < 0.08
                source = "" if version in "12" else f" {rng.choice(covidx.SOURCES)}"
                patient = f"{name} {i}" if blank else f"{name}-{i}"
                suffix = rng.choice(["png", "jpg", "JPG", "jpeg", "PNG"])
                rows.append(f"{patient} {name}({i}).{suffix} {name}{source}")
        if split == "train":
            pneumonia = [row for row in rows if row.endswith("pneumonia")]
            rows += pneumonia[:repeats]
        rng.shuffle(rows)
        number = "" if version == "1" else version
        write(tmp_path / f"{split}_COVIDx{number}.txt", "\n".join(rows) + "\n")
    m = read("covidx", tmp_path, version=version)
    have = Counter((s, m.classes[k]) for s, k in zip(m.split, m.labels))
    for split, counts in (("train", train), ("test", test)):
        for name, count in zip(classes, counts):
            dropped = repeats * (name == "pneumonia" and split == "train")
            assert have[split, name] == count - dropped
    assert m.notes["duplicate_lines_dropped"] == repeats


@real
@pytest.mark.parametrize("version", ["5", "8A", "8B", "9B"])
def test_covidx_official_excerpts(tmp_path, version):
    for split in ("train", "test"):
        sample = SAMPLES / f"covidx_{split}_COVIDx{version}.excerpt.txt"
        write(tmp_path / f"{split}_COVIDx{version}.txt", sample.read_text())
    m = read("covidx", tmp_path)
    assert set(m.split) == {"train", "test"} and len(m) > 30
    assert "rnsa" not in m.source and set(m.source) - {""} <= set(covidx.SOURCES)
    blank = [patient for patient in m.patient if " " in patient]
    assert bool(blank) == (version in ("8A", "8B"))


def test_folder(tmp_path):
    for path in ("train/cat/1.jpg", "train/dog/a/2.PNG", "test/cat/1.jpg"):
        write(tmp_path / path, "")
    write(tmp_path / "train/cat/Thumbs.db", "")
    m = read("folder", tmp_path)
    assert m.classes == ("cat", "dog") and list(m.labels) == [0, 1, 0]
    assert list(m.split) == ["train", "train", "test"]
    assert len(set(m.patient)) == 3 and "unknown" in m.notes["patients"]
    assert m.notes["files_that_are_no_image"] == 1
    plain = read("folder", tmp_path / "train")
    assert list(plain.path) == ["cat/1.jpg", "dog/a/2.PNG"] and set(plain.split) == {""}
    (tmp_path / "train" / "eel").mkdir()
    with pytest.raises(DataError, match="eel.*no image"):
        read("folder", tmp_path)


def test_csv_with_a_column_a_class(tmp_path):
    own(tmp_path)
    m = read("csv", tmp_path)
    assert m.classes == ("Edema", "Mass") and m.notes["columns_not_read"] == ["age"]
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
    assert list(m.view) == ["PA", "AP", "AP"] and m.notes["views_dropped"] == {"L": 1}
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


WRONG = [  # reader, file, what is replaced, by what, what the message says
    ("chexpert", "train.csv", "AP/PA", "View", "line 1: no column 'AP/PA'"),
    ("chexpert", "train.csv", ",-1.0", ",-2.0", "line 4: Pneumonia is '-2.0'"),
    ("chexpert", "train.csv", "patient00002", "p2", "line 4: Path is 'CheX"),
    ("chexpert", "train.csv", "study1/view2_lateral", "study1/view1_frontal", "line 3"),
    ("chexpert", "train.csv", "Lateral,,", "Oblique,,", "line 3: .*'Oblique '"),
    ("nih", "Data_Entry_2017_v2020.csv", "Emphysema", "Emph", "line 2: .*'Emph'"),
    ("nih", "Data_Entry_2017_v2020.csv", ",0,2,81", ",0,3,81", "line 4: Patient ID"),
    ("nih", "Data_Entry_2017_v2020.csv", ",0.171,0.171", "", "line 4: 9 fields"),
    ("nih", "test_list.txt", "00000002_000", "00000001_000", "line 1: .*twice"),
    ("covidx", "train_COVIDx8B.txt", "fig1", "fig2", "line 4: .*fig2"),
    ("covidx", "train_COVIDx8B.txt", "positive fig1", "", "line 4: .*COVID-00001"),
    ("covidx", "test_COVIDx8B.txt", "positive", "COVID-19", "line 2: .*'COVID-19'"),
    ("csv", "metadata.csv", "patient", "person", "no column 'patient_id' or 'patient'"),
    ("csv", "metadata.csv", ",p2,", ",,", "line 4: patient is empty"),
    ("csv", "metadata.csv", "b.png", "a.png", "line 3: file 'a.png' stands on line 2"),
    ("csv", "metadata.csv", ",test,", ",tset,", "line 4: split is 'tset'"),
]
LAYOUTS = {"chexpert": chexpert, "nih": nih, "covidx": covid, "csv": own}


@pytest.mark.parametrize("reader,file,old,new,message", WRONG)
def test_bad_cells_are_named(tmp_path, reader, file, old, new, message):
    LAYOUTS[reader](tmp_path)
    (path,) = tmp_path.rglob(file)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=f"{file}.*{message}"):
        read(reader, tmp_path)


def test_an_image_in_neither_official_list_is_named(tmp_path):
    nih(tmp_path)
    write(tmp_path / "train_val_list.txt", "00000001_000.png\n")
    with pytest.raises(DataError, match="v2020.csv, line 3: 00000001_001.*neither"):
        read("nih", tmp_path)


@st.composite
def damage(draw, text: bytes) -> bytes:
    """The label file permuted by lines, cut off, or with bytes put over it."""
    kind = draw(st.sampled_from(["permute", "truncate", "garble", "drop", "repeat"]))
    lines = text.splitlines(keepends=True)
    if kind == "permute":
        return b"".join(draw(st.permutations(lines)))
    if kind in ("drop", "repeat"):
        i = draw(st.integers(0, len(lines) - 1))
        return b"".join(lines[:i] + lines[i:][kind == "drop" :] + lines[i : i + 1])
    at = draw(st.integers(0, len(text)))
    if kind == "truncate":
        return text[:at]
    junk = draw(st.one_of(st.binary(max_size=9), st.sampled_from([b'"', b"\r", b"\n"])))
    return text[:at] + junk + text[at + draw(st.integers(0, 9)) :]


@pytest.mark.parametrize(
    "reader,file",
    [
        ("chexpert", "train.csv"),
        ("nih", "Data_Entry_2017_v2020.csv"),
        ("nih", "test_list.txt"),
        ("covidx", "train_COVIDx8B.txt"),
        ("csv", "metadata.csv"),
    ],
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(choice=st.data())
def test_any_damage_reads_or_is_named(tmp_path_factory, reader, file, choice):
    root = tmp_path_factory.mktemp("damaged")
    LAYOUTS[reader](root)
    (path,) = root.rglob(file)
    path.write_bytes(choice.draw(damage(path.read_bytes())))
    try:
        read(reader, root).validate()
    except DataError as error:
        assert ", line " in str(error) and str(root) in str(error)
