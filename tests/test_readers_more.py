"""The further readers, on small fixtures in the official layouts."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bigxfer.config import Data
from bigxfer.data import readers
from bigxfer.data.labels import CHEXPERT14, PADCHEST27
from bigxfer.data.readers import DataError, padchest, proteins
from bigxfer.data.readers import csv as own_csv

SHARED = Path(__file__).parents[2] / "shared" / "data"
SAMPLES = SHARED / "csv_samples"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


def read(reader, root, **fields):
    return readers.read(Data(reader=reader, root=str(root), views=(), **fields))


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


ALPHABETICAL = ",".join(sorted(CHEXPERT14))
META = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition"


def mimic(root):
    """Two patients; the study 50000003 has no label row."""
    images = [
        "aaaa-01,10000032,50000001,CHEST,PA",
        "aaaa-02,10000032,50000001,CHEST,LATERAL",
        "bbbb-01,10000033,50000002,CHEST,AP",
        "cccc-01,10000033,50000003,CHEST,AP",
    ]
    labels = ["10000033,50000002,1.0" + "," * 13, "10000032,50000001,-1.0" + "," * 13]
    splits = ["aaaa-01,1,1,train", "aaaa-02,1,1,train", "bbbb-01,1,1,validate"]
    splits.append("cccc-01,1,1,test")
    stem = "mimic-cxr-2.0.0-"
    write(root / f"{stem}metadata.csv", "\n".join([META, *images]))
    head = f"subject_id,study_id,{ALPHABETICAL}"
    write(root / f"{stem}chexpert.csv", "\n".join([head, *labels]))
    head = "dicom_id,study_id,subject_id,split"
    write(root / f"{stem}split.csv", "\n".join([head, *splits]))


def test_mimic_joins_images_to_studies(tmp_path):
    mimic(tmp_path)
    m = read("mimic", tmp_path)
    assert m.path[0] == "files/p10/p10000032/s50000001/aaaa-01.jpg"
    assert list(m.view) == ["PA", "L", "AP"]
    assert list(m.split) == ["train", "train", "valid"]
    assert m.patient[1] == "mimic-10000032" and m.classes == CHEXPERT14
    atelectasis = m.labels[:, CHEXPERT14.index("Atelectasis")]
    np.testing.assert_equal(atelectasis, [np.nan, np.nan, 1])
    (line,) = m.remarks()
    assert line == "mimic: images of studies without a label row left out: 1"
    assert read("mimic", tmp_path, uncertain="ones").labels[0, 8] == 1
    with pytest.raises(DataError, match="looked for mimic-cxr-2.0.0-negbio.csv.gz"):
        read("mimic", tmp_path, version="negbio")


def test_mimic_reads_gz_and_names_a_cut_one(tmp_path):
    mimic(tmp_path)
    path = tmp_path / "mimic-cxr-2.0.0-metadata.csv"
    data = gzip.compress(path.read_bytes())
    path.unlink()
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(data)
    assert len(read("mimic", tmp_path)) == 3
    packed.write_bytes(data[:-20])
    with pytest.raises(DataError, match="metadata.csv.gz, after line .*damaged gzip"):
        read("mimic", tmp_path)


@real
def test_mimic_sample(tmp_path):
    for kind in ("metadata", "negbio"):
        text = (SAMPLES / f"mimic-cxr-2.0.0-{kind}.synthetic.csv").read_text()
        write(tmp_path / f"mimic-cxr-2.0.0-{kind}.csv", text)
    m = read("mimic", tmp_path, version="negbio", uncertain="ones", blank="negative")
    lines = (SAMPLES / "mimic-cxr-2.0.0-negbio.synthetic.csv").read_text().splitlines()
    assert len(m) == len(lines) - 1 and set(m.split) == {""}
    # the first row: Support Devices blank, Atelectasis -1.0, Consolidation 0.0
    first = dict(zip(m.classes, m.labels[list(m.patient).index("mimic-346b3f01")]))
    assert first["Atelectasis"] == 1 and first["Consolidation"] == 0


PAD_HEAD = ",ImageID,ImageDir,PatientID,Projection,Labels"
PAD_ROWS = [
    "0,a.png,3,p1,PA,\"['COPD signs', 'laminar atelectasis']\"",
    "1,b.png,54,p1,AP_horizontal,['normal']",
    "2,c.png,3,p2,L,",
    "3,d.png,3,p2,PA,['exclude']",
    "4,e.png,3,p3,PA,['unchanged']",
    "5,f.png,3,p3,PA,\"['air bronchogram', ' hemidiaphragm elevation', '']\"",
]


def pad(root):
    write(root / padchest.TABLE, "\n".join([PAD_HEAD, *PAD_ROWS]) + "\n")


def test_padchest_labels_synonyms_and_dropped_rows(tmp_path):
    pad(tmp_path)
    (tmp_path / "3").mkdir()
    m = read("padchest", tmp_path)
    assert list(m.path) == ["3/a.png", "54/b.png", "3/f.png"]
    found = [{PADCHEST27[i] for i in np.flatnonzero(row)} for row in m.labels]
    last = {"Consolidation", "Infiltration", "Hemidiaphragm Elevation"}
    assert found == [{"Atelectasis"}, set(), last]
    assert list(m.view) == ["PA", "AP Supine", "PA"]
    assert [left["count"] for left in m.notes["dropped"].values()] == [1, 1, 1]
    (tmp_path / "3").rmdir()
    assert read("padchest", tmp_path).path[0] == "a.png"


def test_padchest_single_keeps_rows_with_one_finding(tmp_path):
    pad(tmp_path)
    m = read("padchest", tmp_path, version="single")
    assert list(m.id) == ["a.png"] and m.labels.dtype == np.int32
    assert m.classes[m.labels[0]] == "Atelectasis"
    left = m.notes["dropped"]["images of none or several of the 27"]
    assert left["count"] == 2
    with pytest.raises(DataError, match="'single' or ''"):
        read("padchest", tmp_path, version="other")


@real
def test_padchest_real_rows(tmp_path):
    text = (SAMPLES / "padchest_10rows.csv").read_text()
    write(tmp_path / padchest.TABLE, text)
    m = read("padchest", tmp_path)
    assert len(m) == 10 and len(set(m.patient)) == 10 and set(m.view) == {"PA"}
    positive = dict(zip(m.classes, m.labels.sum(axis=0)))
    # as the predecessor counts: substrings of the whole cell
    for name in ("Scoliosis", "Pneumonia", "Air Trapping", "Hemidiaphragm Elevation"):
        rows = text.splitlines()[1:]
        cells = [row.split('"[[')[0].lower() for row in rows]
        assert positive[name] == sum(name.lower() in cell for cell in cells)
    assert positive["Infiltration"] == 1 and positive["Pleural_Thickening"] == 1


def test_tuberculosis_sets_and_layouts(tmp_path):
    for i in range(4):
        inner = tmp_path / "ChinaSet_AllFiles" / "ChinaSet_AllFiles" / "CXR_png"
        write(inner / f"CHNCXR_{i:04d}_{i % 2}.png")
    write(tmp_path / "MontgomerySet" / "CXR_png" / "MCUCXR_0001_1.png")
    write(tmp_path / "MontgomerySet" / "CXR_png" / "Thumbs.db")
    m = read("tuberculosis", tmp_path)
    assert Counter(m.source) == {"shenzhen": 4, "montgomery": 1}
    assert list(m.labels) == [0, 1, 0, 1, 1] and len(set(m.patient)) == 5
    assert (tmp_path / m.path[0]).exists()
    assert len(read("tuberculosis", tmp_path, version="montgomery")) == 1
    write(tmp_path / "MontgomerySet" / "CXR_png" / "MCUCXR_0002_7.png")
    with pytest.raises(DataError, match="MCUCXR_0002_7.png.*expected"):
        read("tuberculosis", tmp_path)


def eyepacs(root):
    write(root / "trainLabels.csv", "image,level\n10_left,0\n10_right,4\n13_left,1\n")
    rows = "image,level,Usage\n1_left,2,Private\n1_right,0,Private\n2_left,3,Public\n"
    write(root / "retinopathy_solution.csv", rows)


def test_eyepacs_both_eyes_are_one_patient(tmp_path):
    eyepacs(tmp_path)
    m = read("eyepacs", tmp_path)
    assert list(m.labels) == [0, 4, 1, 2, 0, 3]
    assert list(m.split) == ["train"] * 3 + ["test", "test", "valid"]
    assert m.patient[0] == m.patient[1] == "eyepacs-10"
    assert m.path[3] == "test/1_left.jpeg"


def aptos(root):
    write(root / "train.csv", "id_code,diagnosis\n000c1434d8d7,2\n001639a390f0,4\n")


def test_aptos(tmp_path):
    aptos(tmp_path)
    m = read("aptos", tmp_path)
    assert list(m.labels) == [2, 4] and m.path[0] == "train_images/000c1434d8d7.png"


def histopathology(root):
    write(root / "train_labels.csv", f"id,label\n{'a' * 40},0\n{'b' * 40},1\n")


def test_histopathology(tmp_path):
    histopathology(tmp_path)
    m = read("histopathology", tmp_path)
    assert list(m.labels) == [0, 1] and m.path[1] == f"train/{'b' * 40}.tif"


UUID = "00070df0-bbc3-11e8-b2bc-ac1f6b6435d{}"


def protein(root):
    targets = ["25 0", "0", "27", "25"]
    rows = [f"{UUID.format(i)},{target}" for i, target in enumerate(targets)]
    write(root / "train.csv", "\n".join(["Id,Target", *rows]))


def test_proteins_many_or_single(tmp_path):
    protein(tmp_path)
    m = read("proteins", tmp_path)
    assert m.classes == proteins.PLACES and len(m.classes) == 28
    assert [list(np.flatnonzero(row)) for row in m.labels] == [[0, 25], [0], [27], [25]]
    assert m.path[0] == f"train/{UUID.format(0)}_{{red,green,blue}}.png"
    single = read("proteins", tmp_path, version="single")
    assert single.classes == ("Nucleoplasm", "Cytosol", "Rods & rings")
    assert list(single.labels) == [0, 2, 1]
    assert single.notes["dropped"]["images with several places"]["count"] == 1


def test_cats_and_dogs_of_both_origins(tmp_path):
    for name in (
        "Cat/2.jpg",
        "Cat/10.jpg",
        "Cat/666.jpg",
        "Dog/0.jpg",
        "Dog/11702.jpg",
    ):
        write(tmp_path / "a" / "PetImages" / name)
    write(tmp_path / "a" / "PetImages" / "Cat" / "Thumbs.db")
    m = read("catsdogs", tmp_path / "a")
    assert list(m.path) == [
        f"PetImages/{n}" for n in ("Cat/2.jpg", "Cat/10.jpg", "Dog/0.jpg")
    ]
    assert list(m.labels) == [0, 0, 1] and "empty left out: 2" in m.remarks()[1]
    for name in ("cat.0.jpg", "dog.3.jpg"):
        write(tmp_path / "b" / "train" / name)
    assert list(read("catsdogs", tmp_path / "b").path) == [
        "train/cat.0.jpg",
        "train/dog.3.jpg",
    ]


def test_imagenet_folders_and_flat_validation(tmp_path):
    for synset, n in (("n01440764", 2), ("n01443537", 1)):
        for i in range(n):
            write(tmp_path / "train" / synset / f"{synset}_{i}.JPEG")
    write(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match="LOC_val_solution.csv"):
        read("imagenet", tmp_path)
    rows = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01443537 1 2 3 4 \n"
    write(tmp_path / "LOC_val_solution.csv", rows)
    m = read("imagenet", tmp_path)
    assert m.classes == ("n01440764", "n01443537") and list(m.labels) == [0, 0, 1, 1]
    assert list(m.split) == ["train"] * 3 + ["test"]
    assert m.path[3] == "val/ILSVRC2012_val_00000001.JPEG"
    write(tmp_path / "val" / "n01440764" / "ILSVRC2012_val_00000002.JPEG")
    assert read("imagenet", tmp_path).path[3].startswith("val/n01440764/")


@pytest.mark.parametrize(
    "names, wanted",
    [
        (["metadata.csv"], "metadata.csv"),
        (["metadata.csv", "other.csv"], "metadata.csv"),
        (["mine.csv"], "mine.csv"),
        (["a.csv", "b.csv"], None),
        ([], None),
    ],
)
def test_the_table_of_ones_own_images(tmp_path, names, wanted):
    """metadata.csv where it is there; else the only CSV file, and never one of two."""
    for name in names:
        table = "file,label,patient\n" if name == wanted else "nothing\n"
        write(tmp_path / name, table + "a.png,x,p\nb.png,y,q\n")
    if wanted:
        assert read("csv", tmp_path).notes["table"] == wanted
    else:
        with pytest.raises(DataError, match="looked for metadata.csv"):
            read("csv", tmp_path)


@pytest.mark.parametrize("bad, refused", [(1, True), (2, False)])
def test_a_column_of_marks_with_a_slip_is_refused_and_another_is_no_class(
    tmp_path, bad, refused
):
    """A quarter of the filled cells is a slip; more is another kind of column."""
    cells = ["o"] * bad + ["1"] * (4 - bad) + [""]
    rows = [f"{i}.png,p{i},{cell},{i % 2}" for i, cell in enumerate(cells)]
    write(tmp_path / "metadata.csv", "\n".join(["file,patient,Edema,Mass", *rows]))
    if refused:
        with pytest.raises(DataError, match="line 2: Edema is 'o'"):
            read("csv", tmp_path)
    else:
        m = read("csv", tmp_path)
        assert m.classes == ("Mass",) and "Edema: 'o' on line 2" in str(m.notes)


def test_a_path_has_one_spelling(tmp_path):
    root = tmp_path / "set"
    write(root / "x\\a.png")  # on Linux a name may hold a backslash
    for cell, want in (
        ("x/a.png", "x/a.png"),
        ("./x//a.png", "x/a.png"),
        ("x/./a.png", "x/a.png"),
        ("x\\b.png", "x/b.png"),
        ("x\\a.png", "x\\a.png"),
        (f"{root}/x/a.png", "x/a.png"),
        ("/elsewhere/a.png", "/elsewhere/a.png"),
    ):
        assert own_csv.relative(root, cell) == want
