"""What people's folders and label files are like: links, litter, spellings, one patient.

Each test is a kind of input that public bug reports tell of. The right value is that of
the clean set, or an error that says where.
"""

import io
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_readers import chexpert, nih, own, read, write
from test_readers_more import eyepacs, mimic, pad

from bigxfer.config import Data
from bigxfer.data import readers, split
from bigxfer.data.readers import DataError, files, padchest, spellings
from bigxfer.statistics import metrics

CASES = Path(__file__).parents[2] / "shared" / "cases"
cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs ../shared/cases")


def images(root, *paths):
    for path in paths:
        write(root / path, "")


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def rows(manifest):
    """What must not change: paths, patients, classes, labels, splits and views."""
    return manifest.hash()


# Links


@cases
def test_the_linked_folders_of_the_case_are_walked(tmp_path):
    for name in ("A_symlink", "A_elsewhere"):
        shutil.copytree(CASES / name, tmp_path / name, symlinks=True)
    for flat in (tmp_path / "A_symlink").glob("*/siteB"):
        if not flat.is_symlink():  # a copy that could not make links wrote their text
            target = flat.read_text()
            os.remove(flat)
            flat.symlink_to(target)
    m = read("folder", tmp_path / "A_symlink")
    assert len(m) == 52 and Counter(m.labels.tolist()) == {0: 26, 1: 26}
    assert all((Path(m.root) / path).is_file() for path in m.path)


def test_links_of_every_kind(tmp_path):
    root = tmp_path / "root"
    images(root, "a/1.png", "a/deep/2.png", "b/3.png")
    images(tmp_path / "elsewhere", "x/4.png", "5.png")
    plain = rows(read("folder", root))
    link(
        root / "a" / "up", ".."
    )  # loops: to the folder that holds it, to itself, above
    link(root / "a" / "deep" / "self", ".")
    link(root / "b" / "all", tmp_path)
    m = read("folder", root)
    assert rows(m) == plain
    assert "links to a folder that they lie in left out: 3" in m.remarks()[1]
    link(root / "b" / "more", "../../elsewhere/x")
    link(root / "b" / "6.png", "../../elsewhere/5.png")
    link(root / "c", tmp_path / "elsewhere" / "y")
    images(tmp_path / "elsewhere", "y/7.png")
    m = read("folder", root)
    assert list(m.path) == [
        *("a/1.png", "a/deep/2.png"),
        *("b/3.png", "b/6.png", "b/more/4.png", "c/7.png"),
    ]
    assert m.classes == ("a", "b", "c")


def test_a_class_elsewhere_that_links_back_is_walked_once(tmp_path):
    root = tmp_path / "root"
    images(root, "test/b/3.png")
    images(tmp_path, "other/1.png", "other/deep/2.png")
    link(root / "test" / "a", tmp_path / "other")
    for k, target in enumerate([root, root / "test", tmp_path / "other"]):
        link(tmp_path / "other" / "deep" / f"up{k}", target)
    m = read("folder", root)
    assert list(m.path) == ["test/a/1.png", "test/a/deep/2.png", "test/b/3.png"]


@pytest.mark.parametrize(
    "way, target",
    [
        ("b/again", "../a/deep"),  # a folder of another class
        ("b/8.png", "../a/1.png"),  # a file of another class
        ("b/9.png", "3.png"),  # a file beside it
        ("c", "a"),  # a class
    ],
)
def test_the_same_image_twice_by_a_link_is_an_error(tmp_path, way, target):
    images(tmp_path, "a/1.png", "a/deep/2.png", "b/3.png")
    link(tmp_path / way, target)
    with pytest.raises(DataError, match=f"{way}.* are the same by a link"):
        read("folder", tmp_path)


def test_a_link_to_nothing_is_named(tmp_path):
    images(tmp_path, "a/1.png", "b/3.png")
    link(tmp_path / "b" / "site", "/no/such/folder")
    with pytest.raises(DataError, match="b/site is a link to nothing"):
        read("folder", tmp_path)
    (tmp_path / "b" / "site").rename(tmp_path / "b" / "4.png")
    assert (
        "b/4.png" in read("folder", tmp_path).path
    )  # the cache says that it is absent


def test_a_link_is_a_folder_for_the_other_readers(tmp_path):
    sets = tmp_path / "sets"
    listed = listing_sets(sets)
    clean = {reader: rows(read(reader, sets / reader)) for reader in listed}
    for reader, folder in listed.items():
        if folder:
            moved = tmp_path / "moved" / reader
            moved.parent.mkdir(exist_ok=True)
            (sets / reader / folder).rename(moved)
            link(sets / reader / folder, moved)
        assert rows(read(reader, sets / reader)) == clean[reader], reader


# Litter


def listing_sets(root):
    """One set of each reader that lists files; {reader: its folder of images}."""
    images(root / "folder", "a/1.png", "b/2.png")
    images(root / "catsdogs", "PetImages/Cat/1.jpg", "PetImages/Dog/2.jpg")
    images(root / "tuberculosis", "MontgomerySet/CXR_png/MCUCXR_0001_1.png")
    images(root / "tuberculosis", "MontgomerySet/CXR_png/MCUCXR_0002_0.png")
    synset = "train/n01440764"
    images(root / "imagenet", f"{synset}/n01440764_1.JPEG", "train/n2/x.JPEG")
    (root / "imagenet" / "train" / "n2").rename(root / "imagenet/train/n01443537")
    images(root / "imagenet", "val/n01440764/ILSVRC2012_val_00000001.JPEG")
    nih(root / "nih")
    images(root / "nih", "images/00000001_000.png")
    (root / "nih" / "images").rename(root / "nih" / "images_001")
    own(root / "csv")
    (root / "csv" / "metadata.csv").rename(root / "csv" / "mine.csv")
    tar(
        root / "imagenet21k" / "n00004475.tar", ["n00004475_1.JPEG", "n00004475_2.JPEG"]
    )
    return {
        "folder": "a",
        "catsdogs": "PetImages/Cat",
        "tuberculosis": "MontgomerySet/CXR_png",
        "imagenet": synset,
        "nih": "images_001",
        "csv": "",
        "imagenet21k": "",
    }


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 4
            file.addfile(info, io.BytesIO(b"data"))


LISTING = (
    *("folder", "catsdogs", "tuberculosis", "imagenet", "nih", "csv", "imagenet21k"),
)
LITTER = (
    *(".DS_Store", "._1.png", "Thumbs.db", "desktop.ini", "Icon\r", "@eaDir/1.png"),
    *(".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/a/._1.png", "__MACOSX/._1.jpg"),
    *("._n01440764_1.JPEG", "._MCUCXR_0001_1.png", "._mine.csv", "._n00004475.tar"),
    *("lost+found/x.png", ".Trash-1000/files/1.png", ".nfs0001"),
)


@pytest.mark.parametrize("reader", LISTING)
def test_litter_is_no_class_no_image_and_no_error(tmp_path, reader):
    folder = listing_sets(tmp_path)[reader]
    root = tmp_path / reader
    clean = read(reader, root)
    images(root, *LITTER, *(f"{folder}/{name}" for name in LITTER if folder))
    assert rows(read(reader, root)) == rows(clean)
    if reader == "folder":
        count = 2 * 15  # entries of root and of its folder a: a litter folder is one
        assert f"like) left out: {count} (a/" in read(reader, root).remarks()[1]


def test_litter_within_a_tar_is_left_out_and_said(tmp_path):
    name = "n00004475_1.JPEG"
    tar(tmp_path / "n00004475.tar", [f"./{name}", f"./._{name}", f"__MACOSX/._{name}"])
    m = read("imagenet21k", tmp_path)
    assert len(m) == 1 and "left out: 2 (n00004475.tar" in m.remarks()[1]


@cases
def test_the_litter_of_the_case(tmp_path):
    m = read("folder", CASES / "B_litter")
    assert len(m) == 24 and m.classes == ("covid", "normal")
    assert "left out: 9 (covid/.DS_Store" in m.remarks()[1]


# Class folders and splits


@pytest.mark.parametrize(
    "train, valid, test",
    [
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "VALID", "TEST"),
        ("Training", "", "Testing"),
    ],
)
def test_split_folders_have_several_names(tmp_path, train, valid, test):
    parts = {"train": train, "valid": valid, "test": test}
    for name in filter(None, parts.values()):
        images(tmp_path, f"{name}/a/1.png", f"{name}/b/2.png")
    m = read("folder", tmp_path)
    assert m.classes == ("a", "b")
    assert Counter(m.split) == {part: 2 for part, name in parts.items() if name}


def test_two_folders_of_one_split_are_an_error(tmp_path):
    for name in ("train", "Training", "test"):
        images(tmp_path, f"{name}/a/1.png", f"{name}/b/2.png")
    with pytest.raises(
        DataError, match="Training/ and train/ are both the train split"
    ):
        read("folder", tmp_path)


def test_what_lies_beside_the_splits_is_said_or_an_error(tmp_path):
    for name in ("train", "test"):
        images(tmp_path, f"{name}/a/1.png", f"{name}/b/2.png")
    clean = rows(read("folder", tmp_path))
    images(tmp_path, "masks/1.png", "masks/2.png", "train/loose.png", "cover.jpg")
    images(tmp_path, "val/unlabelled.png", "notes/read.txt")
    m = read("folder", tmp_path)
    assert rows(m) == clean
    assert "images that lie in no class folder left out: 5" in m.remarks()[1]
    images(tmp_path, "A/9.png")
    with pytest.raises(DataError, match="A: a class folder beside train/ and test/"):
        read("folder", tmp_path)


def test_classes_may_be_called_as_splits_are(tmp_path):
    images(tmp_path, "valid/1.png", "invalid/2.png")
    m = read("folder", tmp_path)
    assert m.classes == ("invalid", "valid") and set(m.split) == {""}


@pytest.mark.parametrize("pair", [("Covid", "covid"), ("1", "01"), ("B 12", "b  12")])
def test_class_folders_that_look_like_one_are_an_error(tmp_path, pair):
    first, second = pair
    images(tmp_path, f"train/{first}/1.png", f"test/{second}/2.png", "train/x/3.png")
    with pytest.raises(DataError, match="class folder.*two spellings") as error:
        read("folder", tmp_path)
    assert all(repr(name) in str(error.value) for name in pair)


def test_a_wrong_file_name_is_not_passed_over_for_its_case(tmp_path):
    images(tmp_path, "MontgomerySet/CXR_png/MCUCXR_0001_1.PNG")
    images(tmp_path, "MontgomerySet/CXR_png/MCUCXR_0002_0.png")
    assert list(read("tuberculosis", tmp_path).labels) == [1, 0]
    images(tmp_path / "pets", "PetImages/Cat/1.JPG", "PetImages/Dog/2.jpeg")
    assert len(read("catsdogs", tmp_path / "pets")) == 2
    images(tmp_path / "pets", "PetImages/Dog/copy of 2.jpeg")
    assert "other names left out: 1" in read("catsdogs", tmp_path / "pets").remarks()[1]


# Cells of 0 and 1


def table(root, head, *lines):
    write(root / "metadata.csv", "\n".join([head, *lines]) + "\n")
    return root


def findings(root, cells):
    """A table with the column Edema of these cells, and Mass of 1 and 0."""
    lines = [f"{i}.png,p{i},{cell},{i % 2}" for i, cell in enumerate(cells)]
    return table(root, "file,patient_id,Edema,Mass", *lines)


@pytest.mark.parametrize("yes", ["1", "1.0", "1.00", "1.", "+1", "True", "TRUE", "yes"])
@pytest.mark.parametrize("no", ["0", "0.00", "False", "No", "-0.0"])
def test_one_and_zero_in_any_form(tmp_path, yes, no):
    m = read("csv", findings(tmp_path, [yes, no, "", "1", "0", "NaN", "n/a"]))
    assert m.classes == ("Edema", "Mass")
    nan = np.nan
    np.testing.assert_equal(m.labels[:, 0], [1, 0, nan, 1, 0, nan, nan])


@pytest.mark.parametrize(
    "policy, value", [("ignore", np.nan), ("zeros", 0), ("ones", 1)]
)
@pytest.mark.parametrize("mark", ["-1", "-1.0", "-1.00"])
def test_uncertain_cells_are_by_the_config(tmp_path, policy, value, mark):
    root = findings(tmp_path, [mark, "1", ""])
    m = read("csv", root, uncertain=policy)
    np.testing.assert_equal(m.labels[:, 0], [value, 1, np.nan])
    assert m.notes["uncertain"] == policy
    m = read("csv", root, uncertain=policy, blank="negative")
    np.testing.assert_equal(m.labels[:, 0], [value, 1, 0])


@pytest.mark.parametrize("bad", ["2", "maybe", "0.5", "1 0", "O"])
def test_one_bad_cell_does_not_take_the_class_with_it(tmp_path, bad):
    cells = ["1", "0"] * 8
    cells[5] = bad
    with pytest.raises(DataError, match=f"csv, line 7: Edema is '{bad}'"):
        read("csv", findings(tmp_path, cells))
    with pytest.raises(DataError, match=f"csv, line 7: Edema is '{bad}'"):
        read("csv", tmp_path, labels=("Edema",))
    assert read("csv", tmp_path, labels=("Mass",)).classes == ("Mass",)


def test_numbers_with_some_ones_among_them_are_no_class(tmp_path):
    m = read("csv", findings(tmp_path, ["5", "1", "7", "0"] * 4))
    assert m.classes == ("Mass",)
    assert "Edema: '5' on line 2" in m.remarks()[0]


def test_a_column_that_is_no_class_is_said(tmp_path):
    head = "file,patient_id,Mass,age,sex,note"
    lines = [f"{i}.png,p{i},{i % 2},{60 + i},{'FM'[i % 2]}," for i in range(8)]
    m = read("csv", table(tmp_path, head, *lines))
    assert m.classes == ("Mass",)
    (line,) = m.remarks()
    assert line == "csv: columns that are no class left out: 1 (note: empty)"
    assert list(m.sex[:2]) == ["F", "M"] and list(m.age[:2]) == ["60", "61"]
    lines = [f"{i}.png,p{i},F" for i in range(8)]
    with pytest.raises(DataError, match="no column of 0, 1"):  # all female: no class
        read("csv", table(tmp_path, "file,patient_id,sex", *lines))


@cases
def test_the_marks_of_the_case():
    m = read("csv", CASES / "E_uncertain")
    assert m.classes == ("Covid", "Edema", "Effusion", "Fracture", "Smoker", "male")
    assert (m.labels == 1).sum(0).tolist() == [24, 23, 24, 36, 36, 36]
    assert np.isnan(m.labels).sum(0).tolist() == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "layout, file", [(chexpert, "train.csv"), (mimic, "chexpert.csv")]
)
def test_chexperts_marks_have_the_same_forms(tmp_path, layout, file):
    layout(tmp_path)
    reader = layout.__name__
    clean = rows(read(reader, tmp_path))
    (path,) = tmp_path.rglob(f"*{file}")
    path.write_text(path.read_text().replace("1.0,", "1.00,"))
    assert rows(read(reader, tmp_path)) == clean


# Names that look like one


PAIRS = [
    *(("12", "12.0"), ("007", "7"), ("P1", "p1"), ("P01", "P1"), ("a b", "A  b")),
    ("\uff11\uff12", "12"),  # full-width digits
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("column", ["patient_id", "label", "source"])
def test_two_spellings_of_one_name_are_an_error(tmp_path, column, pair):
    first, second = pair
    values = {"patient_id": "x{}", "label": "c{}", "source": "s"}
    lines = []
    for i, name in enumerate([first, "zz", second]):
        cells = {k: v.format(i) for k, v in values.items()} | {column: name}
        lines.append(f"{i}.png," + ",".join(cells.values()))
    with pytest.raises(
        DataError, match=rf"csv: {column} .*\(line 4\).*\(line 2\)"
    ) as e:
        read("csv", table(tmp_path, "file,patient_id,label,source", *lines))
    assert all(repr(name) in str(e.value) for name in pair)


@pytest.mark.parametrize("values", [("1.05", "1.5"), ("10", "1"), ("A-1", "A1")])
def test_names_that_only_resemble_are_two(tmp_path, values):
    lines = [f"{i}.png,{v},{'xy'[i % 2]}" for i, v in enumerate(values)]
    assert (
        len(set(read("csv", table(tmp_path, "file,patient,label", *lines)).patient))
        == 2
    )


def test_class_columns_that_look_like_one_are_an_error(tmp_path):
    root = table(tmp_path, "file,patient_id,Edema,edema ", "a.png,p,1,0", "b.png,q,0,1")
    with pytest.raises(DataError, match="column 'edema'.*'Edema'.*two spellings"):
        read("csv", root)


def test_the_patients_of_other_readers_have_one_spelling(tmp_path):
    chexpert(tmp_path / "c")
    (path,) = tmp_path.rglob("train.csv")
    text = path.read_text()
    path.write_text(text.replace("patient00002", "patient1"))
    with pytest.raises(DataError, match=r"'patient1' \(line 4\).*'patient00001'"):
        read("chexpert", tmp_path / "c")
    first = "train/patient00001/study1/view1_frontal.jpg"
    path.write_text(
        text + text.splitlines()[1].replace(f"CheXpert-v1.0-small/{first}", first)
    )
    with pytest.raises(DataError, match="line 5: Path 'train/.* line 2 too"):
        read("chexpert", tmp_path / "c")
    eyepacs(tmp_path / "e")
    path = tmp_path / "e" / "trainLabels.csv"
    path.write_text(path.read_text().replace("10_right", "010_right"))
    with pytest.raises(DataError, match=r"image '010' \(line 3\).*'10' \(line 2\)"):
        read("eyepacs", tmp_path / "e")
    pad(tmp_path / "p")
    path = tmp_path / "p" / padchest.TABLE
    path.write_text(path.read_text().replace(",p2,PA", ",P2,PA"))
    with pytest.raises(DataError, match="PatientID 'P2'.*'p2'"):
        read("padchest", tmp_path / "p")


@cases
def test_the_spellings_of_the_case():
    with pytest.raises(DataError, match=r"'0.0' \(line 3\) and '0' \(line 2\)"):
        read("csv", CASES / "G_case")


# Paths


@pytest.mark.parametrize(
    "other", ["./img/0.png", "img//0.png", "img/./0.png", "img/../img/0.png", "ROOT"]
)
def test_one_file_under_two_paths_is_an_error(tmp_path, other):
    other = other.replace("ROOT", str(tmp_path / "img" / "0.png"))
    lines = ["img/0.png,p0,a", "img/1.png,p1,b", f"{other},p0,a"]
    root = table(tmp_path, "file,patient_id,label", *lines)
    with pytest.raises(DataError, match="line 4: file 'img/0.png' stands on line 2"):
        read("csv", root)


def test_paths_have_one_spelling(tmp_path):
    lines = [f"./img//{i}.png,p{i},{'ab'[i % 2]}" for i in range(3)]
    lines.append("img\\3.png,p3,b")  # as Windows writes it
    lines.append(f"{tmp_path}/img/4.png,p4,b")
    m = read("csv", table(tmp_path, "file,patient_id,label", *lines))
    assert list(m.path) == [f"img/{i}.png" for i in range(5)]


@cases
def test_the_path_of_the_case():
    with pytest.raises(DataError, match="line 74: file 'img/000.png' stands on line 2"):
        read("csv", CASES / "H_dotslash")


# Views, splits and columns of a table


@pytest.mark.parametrize(
    "text, view",
    [
        *(("pa", "PA"), ("P.A.", "PA"), ("Posteroanterior", "PA"), ("PA erect", "PA")),
        *(("postero-anterior view", "PA"), ("AP Erect", "AP"), ("AP semi erect", "AP")),
        *(("Chest AP", "AP"), ("AP portable", "AP"), ("AP_horizontal", "AP Supine")),
        *(("ap supine", "AP Supine"), ("LATERAL", "L"), ("left lateral", "L")),
        *(("nan", ""), ("Unknown", ""), ("", ""), ("LAO", "LAO"), ("erect", "erect")),
    ],
)
def test_spellings_of_views(text, view):
    assert spellings.view(text) == view


def test_views_that_are_left_out_are_said_and_leave_no_class_empty(tmp_path):
    views = ["pa", "AP Erect", "Lateral", "", "supine?"]
    lines = [f"{i}.png,p{i},{'ab'[i % 2]},{views[i % 5]}" for i in range(10)]
    root = table(tmp_path, "file,patient_id,label,view", *lines)
    m = readers.read(Data(reader="csv", root=str(root)))
    assert Counter(m.view) == {"PA": 2, "AP": 2}
    (line,) = m.remarks()
    assert "other views than PA, AP (unknown 2, L 2, supine? 2) left out: 6" in line
    lines = [f"{i}.png,p{i},{'ab'[i % 2]},{'PL'[i % 2]}A" for i in range(4)]
    root = table(tmp_path, "file,patient_id,label,view", *lines)
    with pytest.raises(DataError, match=r"\(LA 2\) no image of 'b' is left"):
        readers.read(Data(reader="csv", root=str(root)))
    assert len(readers.read(Data(reader="csv", root=str(root), labels=("a",)))) == 2


@cases
def test_the_views_of_the_case():
    data = Data(reader="csv", root=str(CASES / "I_views"))
    with pytest.raises(DataError, match="no image of 'pneumonia' is left"):
        readers.read(data)
    count = Counter(read("csv", CASES / "I_views").view)
    assert count == {"PA": 24, "AP": 24, "AP Supine": 8, "L": 8, "": 8}


def test_a_class_without_a_split_is_an_error(tmp_path):
    lines = [
        f"{i}.png,p{i},{'abc'[i % 3]},{['train', 'Test', ''][i % 3]}" for i in range(9)
    ]
    m = read("csv", table(tmp_path, "file,patient_id,label,split", *lines))
    with pytest.raises(ValueError, match="images without a split no image of 'c'"):
        split.assign(m, Data(reader="csv", split="official", valid=0.0))


def test_cells_of_the_column_split(tmp_path):
    cells = ["TRAIN", "Training", "val", "Validation", "test", "Testing", "NaN", ""]
    lines = [f"{i}.png,p{i},{'ab'[i % 2]},{cell}" for i, cell in enumerate(cells)]
    m = read("csv", table(tmp_path, "file,patient_id,label,split", *lines))
    assert list(m.split) == [*["train"] * 2, *["valid"] * 2, *["test"] * 2, "", ""]
    out = split.assign(m, Data(reader="csv", split="official"))
    assert "csv: images without a split left out: 2" in out.remarks()


def test_which_table_is_read(tmp_path):
    root = table(tmp_path, "file,patient_id,label", "a.png,p,x", "b.png,q,y")
    write(root / "other.csv", "nothing of ours")
    assert read("csv", root).notes["table"] == "metadata.csv"
    (root / "metadata.csv").rename(root / "mine.csv")
    with pytest.raises(DataError, match="looked for metadata.csv, found none"):
        read("csv", root)  # two tables: neither is taken
    (root / "other.csv").unlink()
    assert read("csv", root).notes["table"] == "mine.csv"


def test_columns_may_begin_with_capitals(tmp_path):
    lines = ["a.png,p,x,train", "b.png,q,y,test"]
    root = table(tmp_path, "File,Patient_ID,Label,Split", *lines)
    m = read("csv", root)
    assert m.classes == ("x", "y") and list(m.split) == ["train", "test"]


def test_a_missing_column_names_the_one_that_may_be_it(tmp_path):
    root = table(tmp_path, "filename,label,patient_id", "a.png,x,p")
    with pytest.raises(DataError) as error:
        read("csv", root)
    assert str(error.value).endswith(
        "metadata.csv, line 1: no column 'file' or 'path' among filename, label,"
        " patient_id; rename 'filename', if that is it"
    )


@pytest.mark.parametrize("cell", ["nan", "NULL", "n/a"])
def test_a_label_that_programs_write_for_none_is_an_error(tmp_path, cell):
    root = table(tmp_path, "file,patient_id,label", "a.png,p,x", f"b.png,q,{cell}")
    with pytest.raises(DataError, match=f"csv, line 3: label is '{cell}', no class"):
        read("csv", root)


# Patients that are nobody


@pytest.mark.parametrize("name", ["ANONYMOUS", "0", "unknown", "p1"])
def test_one_patient_for_all_is_unknown(tmp_path, name):
    lines = [
        f"{i}.png,{'ab'[i % 2]},{name},{['train', 'test'][i % 2]}" for i in range(8)
    ]
    m = read("csv", table(tmp_path, "file,label,patient_id,split", *lines))
    assert m.notes["patients"] == f"unknown: all images bear the patient_id '{name}'"
    assert (
        f"csv: patients unknown: all images bear the patient_id '{name}'" in m.remarks()
    )
    assert not m.known_patients().any() and split.check(m) == []
    with pytest.raises(ValueError, match=f"all images are of one, '{name}'"):
        split.assign(m, Data(reader="csv", split="patient"))


@pytest.mark.parametrize("word", ["nan", "Unknown", "ANONYMOUS", "-", "None"])
def test_nobody_among_patients_is_an_error(tmp_path, word):
    root = table(tmp_path, "file,label,patient_id", "a.png,x,p1", f"b.png,y,{word}")
    with pytest.raises(
        DataError, match=f"line 3: patient_id is '{word}', which is nobody"
    ):
        read("csv", root)


# What is listed for bigxfer.predict


def test_the_images_of_a_folder_for_predict(tmp_path, capsys):
    from bigxfer.data.images import listed

    images(tmp_path / "in", "a.png", "sub/b.JPG", "sub/notes.txt", *LITTER)
    images(tmp_path / "out", "c.png")
    link(tmp_path / "in" / "more", tmp_path / "out")
    link(tmp_path / "in" / "loop", tmp_path / "in")
    write(tmp_path / "in" / "1.2.840", "\0" * 128 + "DICM")
    _, found = listed(tmp_path / "in")
    assert found == ["1.2.840", "a.png", "more/c.png", "sub/b.JPG"]
    said = capsys.readouterr().err
    assert "1 files" in said and "like) passed over: 15 (such as" in said


def test_is_dicom_by_content(tmp_path):
    write(tmp_path / "x", "\0" * 128 + "DICM")
    assert files.is_dicom(tmp_path / "x") and not files.is_dicom(tmp_path / "y")


def test_one_patient_for_all_has_no_interval_and_the_reason():
    """Its resamples are all the same: an interval of them would have no width."""
    logits = np.random.default_rng(0).normal(size=(18, 3))
    labels, people = np.arange(18) % 3, np.array(["ANONYMOUS"] * 18)
    found = metrics.compute(labels, logits, ("a", "b", "c"), people)["metrics"]
    for entry in found.values():
        assert entry["value"] is not None and entry["low"] is entry["high"] is None
        assert "1 patient in the test split" in entry["reason"]
