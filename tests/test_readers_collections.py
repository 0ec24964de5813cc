"""MedMNIST+, MedFMC and MedIMeta, on files of the official form that these tests write."""

import os
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from test_readers import read, write
from test_readers_kinds import link, rows

from bigxfer.config import Data
from bigxfer.data import npz, readers, split
from bigxfer.data.labels import NIH14
from bigxfer.data.pixels import cache, decode
from bigxfer.data.readers import DataError, medfmc, medmnist

RNG = np.random.default_rng(0)
COUNTS = {"train": 5, "val": 3, "test": 4}


def mnist(
    root, name="pneumoniamnist", side=28, channels=1, width=1, classes=2, **other
):
    """A file of MedMNIST+ with the arrays and dtypes of the published ones."""
    arrays = {}
    for part, n in COUNTS.items():
        shape = (n, side, side) + (channels,) * (channels > 1)
        arrays[f"{part}_images"] = RNG.integers(0, 256, shape, dtype=np.uint8)
        marks = np.arange(n)[:, None] + np.arange(width)
        arrays[f"{part}_labels"] = (marks % classes).astype(np.uint8)
    root.mkdir(exist_ok=True)
    np.savez_compressed(root / f"{name}.npz", **arrays | other)
    return arrays


# MedMNIST+


def test_medmnist_has_official_splits_and_no_patients(tmp_path):
    arrays = mnist(tmp_path)
    m = read("medmnist", tmp_path)
    assert m.name == "pneumoniamnist" and m.classes == ("normal", "pneumonia")
    assert Counter(m.split) == {"train": 5, "valid": 3, "test": 4}
    want = np.concatenate([arrays[f"{part}_labels"][:, 0] for part in COUNTS])
    assert m.labels.tolist() == want.tolist() and m.labels.dtype == np.int32
    assert m.remarks() == [
        "pneumoniamnist: patients unknown: each image counts as a patient of its own"
    ]
    assert "MedMNIST 3.0.2 has [4708, 524, 624]" in m.notes["counts"]
    official = split.assign(m, Data(reader="medmnist", split="official"))
    assert Counter(official.split) == {"train": 5, "valid": 3, "test": 4}


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_of_medmnist_are_those_of_the_file(tmp_path, side, channels):
    name = "pneumoniamnist" if side == 28 else f"pneumoniamnist_{side}"
    arrays = mnist(tmp_path, name, side, channels)
    m = read("medmnist", tmp_path)
    built = cache.build(m, tmp_path / "cache", side, channels, workers=1)
    want = np.concatenate([arrays[f"{part}_images"] for part in COUNTS])
    got = built.images[:]
    np.testing.assert_array_equal(got, want.reshape(got.shape))


def test_chestmnist_has_the_fourteen_findings_of_nih(tmp_path):
    arrays = mnist(tmp_path, "chestmnist_64", 64, width=14)
    m = read("medmnist", tmp_path)
    assert m.classes == NIH14 and m.multilabel
    want = np.concatenate([arrays[f"{part}_labels"] for part in COUNTS])
    np.testing.assert_array_equal(m.labels, want)


def test_a_medmnist_image_is_called_the_same_at_every_size(tmp_path):
    mnist(tmp_path / "a", "breastmnist")
    mnist(tmp_path / "b", "breastmnist_128", 128)
    small, large = read("medmnist", tmp_path / "a"), read("medmnist", tmp_path / "b")
    assert small.id.tolist() == large.id.tolist()
    assert small.patient.tolist() == large.patient.tolist()


def test_which_file_of_medmnist_is_read(tmp_path):
    mnist(tmp_path, "pneumoniamnist")
    mnist(tmp_path, "retinamnist_64", 64, 3, classes=5)
    write(tmp_path / "organmnist3d.npz", "not a 2-D set")
    with pytest.raises(
        DataError, match=r"found \['pneumoniamnist', 'retinamnist_64'\]; set"
    ):
        read("medmnist", tmp_path)
    m = read("medmnist", tmp_path, version="retinamnist_64")
    assert m.classes == ("0", "1", "2", "3", "4")
    with pytest.raises(DataError, match="bigxfer.data.fetch medmnist:bloodmnist --out"):
        read("medmnist", tmp_path, version="bloodmnist")
    with pytest.raises(DataError, match="'organmnist3d' is no 2-D set.*organamnist"):
        read("medmnist", tmp_path, version="organmnist3d")


@pytest.mark.parametrize(
    "bad, message",
    [
        (
            {"val_labels": np.full((3, 1), 7, np.uint8)},
            r"val_labels\[0, 0\] is 7; 0 to 1",
        ),
        ({"val_labels": np.zeros((2, 1), np.uint8)}, r"val_images has the shape \(3, "),
        ({"val_labels": np.zeros(3, np.uint8)}, r"shape \(3,\); \(n, 1\) expected"),
        ({"val_labels": np.zeros((3, 14), np.uint8)}, r"\(n, 1\) expected"),
        (
            {"val_images": np.zeros((3, 9), np.uint8)},
            r"val_images has the shape \(3, 9\)",
        ),
    ],
)
def test_a_medmnist_file_of_another_form_is_named(tmp_path, bad, message):
    mnist(tmp_path, **bad)
    with pytest.raises(DataError, match=f"pneumoniamnist.npz: .*{message}"):
        read("medmnist", tmp_path)


def test_a_medmnist_file_that_lacks_a_split_or_is_damaged_is_named(tmp_path):
    mnist(tmp_path)
    path = tmp_path / "pneumoniamnist.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match="pneumoniamnist.npz is a damaged npz.*fetch it"
    ):
        read("medmnist", tmp_path)
    np.savez(path, train_images=np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(DataError, match="holds no array 'train_labels'"):
        read("medmnist", tmp_path)


def test_the_table_of_medmnist_is_whole():
    sums = [md5 for known in medmnist.SETS.values() for md5 in known.md5]
    assert len(medmnist.SETS) == 12 and len(set(sums)) == 48
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in sums)
    nih = medmnist.SETS["chestmnist"].images
    assert sum(nih) == 112_120  # all of ChestX-ray14
    assert not any("," in c for s in medmnist.SETS.values() for c in s.classes)


# Rows of a npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_an_npz_in_any_order(tmp_path, save):
    images = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)
    save(tmp_path / "a.npz", x=images, y=np.arange(3))
    found = npz.Rows(str(tmp_path / "a.npz"), "x")
    assert found.shape == (7, 5, 4) and found.dtype == np.uint8
    for row in (3, 5, 1, 1, 6, 0):
        np.testing.assert_array_equal(found[row], images[row])
    np.testing.assert_array_equal(found.all(), images)
    for row in (-1, 7):
        with pytest.raises(IndexError, match="out of range of 7"):
            found[row]


def test_an_npz_that_changes_is_opened_again(tmp_path):
    path = tmp_path / "a.npz"
    for value, stamp in ((1, 10), (2, 20)):
        np.savez(path, x=np.full((2, 4, 4), value, np.uint8))
        os.utime(path, (stamp, stamp))
        assert (decode.load(tmp_path, "a.npz#x:1", 4, 1) == value).all()


def test_a_damaged_row_of_an_npz_is_a_reason_and_no_crash(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=RNG.integers(0, 256, (4, 64, 64), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[5000:9000] = b"\xff" * 4000
    path.write_bytes(data)
    with pytest.raises(decode.DecodeError, match="damaged"):
        decode.load(tmp_path, "a.npz#x:3", 8, 1)
    with pytest.raises(decode.DecodeError, match="no array 'z'"):
        decode.load(tmp_path, "a.npz#z:0", 8, 1)
    np.savez(path, x=np.asfortranarray(np.zeros((4, 8, 8), np.uint8)))
    with pytest.raises(decode.DecodeError, match="not stored row by row"):
        decode.load(tmp_path, "a.npz#x:0", 8, 1)


# MedFMC

SLIDE = "2019-08976-1-1-1_2019-05-28 23_07_27"  # file names hold blanks


def fmc(root):
    chest = [f"5DDCA0282090{i}.png {marks(19, i)}" for i in range(4)]
    colon = [f"{SLIDE}-lv1-54636-8351-5285-{i}p0001.png {i % 2}" for i in range(3)]
    colon.append("2019-06-11 01_00_50-lv1-1956-12720-11095-7901p0079.png 1")
    endo = [
        f"13333_2021.1{i}_0007_5729749{i}.png {marks(4, i, ' ')}" for i in (0, 1, 1, 2)
    ]
    endo[2] = "13333_2021.11_0007_57297499.png 0 0 0 0"
    for name, lines in {"chest": chest, "colon": colon, "endo": endo}.items():
        write(root / name / "trainval.txt", "\n".join(lines[:3]) + "\n")
        write(root / name / "test_WithLabel.txt", lines[3])
        write(root / name / f"{name}_1-shot_train_exp1.txt", lines[0])
        (root / name / "images").mkdir()


def marks(n, positive, mark=","):
    return mark.join(str(int(i == positive)) for i in range(n))


def test_medfmc_reads_three_sets(tmp_path):
    fmc(tmp_path)
    m = read("medfmc", tmp_path, version="chest")
    assert m.labels.shape == (4, 19) and m.labels.argmax(1).tolist() == [0, 1, 2, 3]
    assert m.classes[:2] == ("pleural_effusion", "nodule")
    assert list(m.split) == ["train"] * 3 + ["test"]
    assert m.path[0] == "chest/images/5DDCA02820900.png"
    assert not m.known_patients().any()
    m = read("medfmc", tmp_path, version="colon")
    assert m.classes == ("negative", "positive") and m.labels.tolist() == [0, 1, 0, 1]
    assert set(m.patient[:3]) == {f"medfmc-{SLIDE}"}
    assert m.patient[3] == "medfmc-2019-06-11 01_00_50" and m.known_patients().all()
    m = read("medfmc", tmp_path, version="endo")
    assert m.labels[0].tolist() == [1, 0, 0, 0] and m.labels[2].sum() == 0
    assert m.patient[1] == m.patient[2] == "medfmc-13333_2021.11_0007"
    own = read("medfmc", tmp_path / "endo", version="endo")  # the set's own folder
    assert own.path[0] == "images/13333_2021.10_0007_57297490.png"


@pytest.mark.parametrize("version", ["", "jaundice"])
def test_medfmc_needs_the_name_of_a_set(tmp_path, version):
    fmc(tmp_path)
    with pytest.raises(DataError, match=r"it may be \['chest', 'colon', 'endo'\]"):
        read("medfmc", tmp_path, version=version)


@pytest.mark.parametrize(
    "name, line",
    [
        ("chest", f"5DDC.png {marks(18, 0)}"),  # a mark too few
        ("chest", f"5DDC.png {marks(19, 0).replace('1', '2')}"),
        ("chest", marks(19, 0)),
        ("colon", f"{SLIDE}-lv1-1-2-3-4p0001.png"),  # test_WithoutLabel.txt
        ("colon", "other.png 1"),  # a name that tells no slide
        ("endo", "13333_2021.12_0007_1.png 1 0 0"),
        ("endo", "13333.png 1 0 0 0"),
    ],
)
def test_a_line_of_medfmc_of_another_form_is_named(tmp_path, name, line):
    fmc(tmp_path)
    path = tmp_path / name / "test_WithLabel.txt"
    path.write_text(f"{path.read_text()}\n\n{line}\n")
    with pytest.raises(
        DataError, match="test_WithLabel.txt, line 3: .* expected as in"
    ):
        read("medfmc", tmp_path, version=name)


def test_an_image_of_medfmc_on_two_lists_is_an_error(tmp_path):
    fmc(tmp_path)
    first = (tmp_path / "colon" / "trainval.txt").read_text().splitlines()[0]
    write(tmp_path / "colon" / "test_WithLabel.txt", first)
    with pytest.raises(DataError, match="line 1: .*listed in trainval.txt, line 1 too"):
        read("medfmc", tmp_path, version="colon")


def test_the_lines_of_medfmc_may_end_as_windows_writes_them(tmp_path):
    fmc(tmp_path)
    clean = rows(read("medfmc", tmp_path, version="endo"))
    path = tmp_path / "endo" / "trainval.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert rows(read("medfmc", tmp_path, version="endo")) == clean


def test_every_example_of_medfmc_is_a_line():
    for name, known in medfmc.SETS.items():
        text = known.example.replace("1,0,0, ... (19 marks of 0 and 1)", marks(19, 0))
        match = known.line.fullmatch(text)
        assert match and re.fullmatch(known.patient, match[1]), name


# MedIMeta

INFO = """\
id: oct
name: OCT
tasks:
  - task_name: Disease
    task_target: MULTICLASS_CLASSIFICATION
    labels: {0: CNV, 1: DME, 2: DRUSEN}
  - task_name: findings
    task_target: MULTILABEL_CLASSIFICATION
    labels: {0: a, 1: b}
  - task_name: age
    task_target: REGRESSION
    labels: {0: years}
"""


def imeta(root, hdf5=False):
    top = root / "oct"
    write(top / "info.yaml", INFO)
    (top / "task_labels").mkdir()
    np.save(top / "task_labels" / "Disease.npy", np.array([0, 1, 2, 0, 1]))
    np.save(top / "task_labels" / "findings.npy", np.eye(2, dtype=int)[[0, 1, 0, 1, 0]])
    names = [f"images/{i:06d}.tiff" for i in range(5)]
    write(top / "splits" / "train.txt", "\n".join(names[:2]))
    write(top / "splits" / "val.txt", names[2])
    write(top / "splits" / "test.txt", names[3])
    pixels = RNG.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    (top / "images").mkdir()
    for name, image in zip(names, pixels):
        Image.fromarray(image).save(top / name)
    if hdf5:
        h5py = pytest.importorskip("h5py")
        with h5py.File(top / "images.hdf5", "w") as file:
            file["images"] = pixels[
                ..., None
            ]  # of the early releases: a channel of one
    return pixels


def annotations(root, people):
    lines = [f"images/{i:06d}.tiff,{p}" for i, p in enumerate(people)]
    write(root / "oct" / "annotations.csv", "\n".join(["filepath,patient_id", *lines]))


@pytest.mark.parametrize("hdf5", [False, True])
def test_medimeta_reads_a_task(tmp_path, hdf5):
    pixels = imeta(tmp_path, hdf5)
    m = read("medimeta", tmp_path, version="oct/Disease")
    assert m.classes == ("CNV", "DME", "DRUSEN") and m.labels.tolist() == [
        0,
        1,
        2,
        0,
        1,
    ]
    assert list(m.split) == ["train", "train", "valid", "test", ""]
    assert m.notes["split"] == "splits" and not m.known_patients().any()
    assert m.path[1] == ("oct/images.hdf5#1" if hdf5 else "oct/images/000001.tiff")
    np.testing.assert_array_equal(
        decode.load(tmp_path, m.path[1], 8, 1)[..., 0], pixels[1]
    )
    m = read("medimeta", tmp_path, version="oct/findings")
    assert m.multilabel and m.labels[:2].tolist() == [[1, 0], [0, 1]]


def test_the_patients_and_the_original_split_of_medimeta(tmp_path):
    imeta(tmp_path)
    annotations(tmp_path, ["7", "7", "8", "9", "9"])
    m = read("medimeta", tmp_path, version="oct/Disease")
    assert list(m.patient) == ["oct-7", "oct-7", "oct-8", "oct-9", "oct-9"]
    assert m.known_patients().all()
    (tmp_path / "oct" / "splits").rename(tmp_path / "oct" / "original_splits")
    m = read("medimeta", tmp_path, version="oct/Disease")
    assert m.notes["split"] == "original_splits" and m.split[0] == "train"
    annotations(tmp_path, ["7", "7", "8", "9"])
    with pytest.raises(DataError, match="no row for images/000004.tiff"):
        read("medimeta", tmp_path, version="oct/Disease")
    annotations(tmp_path, ["7", "07", "8", "9", "nan"])
    with pytest.raises(DataError, match="patient_id is 'nan', which is nobody"):
        read("medimeta", tmp_path, version="oct/Disease")


@pytest.mark.parametrize(
    "version, message",
    [
        ("", r"there is no folder '' with info.yaml \(there are \['oct'\]\)"),
        ("cxr/Disease", "no folder 'cxr'"),
        ("oct", "no task ''.*'oct/Disease'"),
        ("oct/age", "task_target 'REGRESSION'"),
    ],
)
def test_medimeta_names_the_tasks_there_are(tmp_path, version, message):
    imeta(tmp_path)
    with pytest.raises(DataError, match=message):
        read("medimeta", tmp_path, version=version)


def test_what_is_wrong_in_a_task_of_medimeta_is_named(tmp_path):
    imeta(tmp_path, hdf5=True)
    labels = tmp_path / "oct" / "task_labels" / "Disease.npy"

    def refused(message):
        with pytest.raises(DataError, match=message):
            read("medimeta", tmp_path, version="oct/Disease")

    np.save(labels, np.array([0, 1, 3, 0, 1]))
    refused(r"Disease.npy: \[2\] is 3; 0 to 2 expected")
    np.save(labels, np.zeros((5, 3), int))
    refused(r"has the shape \(5, 3\); \(5,\) expected")
    np.save(labels, np.array([0, 1, 2]))
    refused("test.txt, line 1: images/000003.tiff has no label")
    labels.write_bytes(b"\x93NUMPY")
    refused("Disease.npy: no readable npy file")
    np.save(labels, np.array([0, 1, 2, 0, 1]))
    write(tmp_path / "oct" / "splits" / "test.txt", "images/000002.tiff\n")
    refused("test.txt, line 1: images/000002.tiff is listed twice")
    write(tmp_path / "oct" / "splits" / "test.txt", "images/000003.tiff\n")
    np.save(labels, np.array([0, 1, 2, 0, 1, 0]))
    refused("images.hdf5 holds 5 images, its task has 6 labels")
    for text, message in (("- 1", "a list 'tasks'"), ("tasks: [", "not YAML")):
        write(tmp_path / "oct" / "info.yaml", text)
        refused(message)


# Of all three


@pytest.mark.parametrize("reader", ["medmnist", "medfmc", "medimeta"])
def test_a_missing_root_says_how_to_obtain_the_set(tmp_path, reader):
    with pytest.raises(DataError, match=f"To obtain {reader}: .*docs/datasets.md"):
        readers.read(Data(reader=reader, root=str(tmp_path / "none")))


def test_litter_and_links_change_nothing(tmp_path):
    makers = {
        "medmnist": (mnist, "pneumoniamnist", "pneumoniamnist.npz"),
        "medfmc": (fmc, "endo", "endo"),
        "medimeta": (imeta, "oct/Disease", "oct"),
    }
    for reader, (make, version, moved) in makers.items():
        root = tmp_path / reader
        make(root)
        clean = rows(read(reader, root, version=version))
        for name in (".DS_Store", "._pneumoniamnist.npz", "__MACOSX/oct/._info.yaml"):
            write(root / name, "")
        (root / moved).rename(tmp_path / f"{reader}-elsewhere")
        link(root / moved, tmp_path / f"{reader}-elsewhere")
        assert rows(read(reader, root, version=version)) == clean, reader
