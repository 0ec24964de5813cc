"""COVIDx: every version, from label files in the official format."""

import random
from collections import Counter

import pytest
from test_readers import SAMPLES, read, real, write

from bigxfer.data.readers import DataError, covidx

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


def test_covidx_lines_of_three_four_and_five_tokens(tmp_path):
    covid(tmp_path)
    m = read("covidx", tmp_path)
    assert m.classes == ("negative", "positive") and m.notes["rnsa_read_as_rsna"] == 1
    assert m.notes["dropped"]["lines that list a file again"]["count"] == 1
    assert len(m) == 7
    row = list(m.path).index("train/COVID(1).png")
    assert m.patient[row] == "covidx-COVID 1" and m.source[row] == "sirm"
    assert list(m.split) == ["train"] * 5 + ["test"] * 2
    assert list(m.source[-3:]) == ["rsna", "", "ricord"]
    assert list(m.labels) == [0, 1, 1, 1, 0, 0, 1]


def test_a_file_with_two_labels_is_named_with_both_lines(tmp_path):
    covid(tmp_path)
    path = tmp_path / "labels" / "train_COVIDx8B.txt"
    path.write_text(path.read_text() + "3 SARS-Fig8a-day0.jpeg positive cohen\n")
    with pytest.raises(
        DataError, match="line 7: SARS.*'positive', and 'negative' in"
    ) as e:
        read("covidx", tmp_path)
    assert "train_COVIDx8B.txt, line 1;" in str(e.value)


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
    for version in ("9A", "1"):  # Kaggle's train.txt is not version 1
        with pytest.raises(DataError, match=f"train_COVIDx{version}.txt"):
            read("covidx", tmp_path, version=version)


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
    left = m.notes.get("dropped", {}).get("lines that list a file again", {})
    assert left.get("count", 0) == repeats


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("version", TABLES)
def test_two_labels_of_one_file_in_every_version(tmp_path, version, split):
    """In the official form: the classes, sources and blanks of that version."""
    three, severity = len(TABLES[version][0]) == 3, version == "Sev"
    classes = covidx.SPACES[2 if severity else 0 if three else 1]
    source = "" if version in "12" else " cohen"
    number = "" if version == "1" else version
    paths = {s: tmp_path / f"{s}_COVIDx{number}.txt" for s in ("train", "test")}
    for path in paths.values():  # the same file in train and test is no conflict
        rows = [f"{k} {k}.png {label}{source}" for k, label in enumerate(classes)]
        write(path, "\n".join(rows) + f"\n9 8.png {classes[0]}{source}\n")
    assert len(read("covidx", tmp_path, version=version)) == 2 * (len(classes) + 1)
    with paths[split].open("a") as file:
        file.write(f"9 8.png {classes[1]}{source}\n")
    with pytest.raises(DataError) as error:
        read("covidx", tmp_path, version=version)
    wrong = f"{paths[split]}, line {len(classes) + 2}: 8.png is {classes[1]!r}"
    assert wrong in str(error.value)
    assert f"{classes[0]!r} in {paths[split]}, line {len(classes) + 1};" in str(
        error.value
    )


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


def test_a_first_label_of_no_version_is_named(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.txt", "1 a.png healthy\n")
    with pytest.raises(DataError, match="'healthy' is not of .'normal', 'pneumonia'"):
        read("covidx", tmp_path)


def test_the_first_line_tells_the_version_and_a_later_one_has_to_fit(tmp_path):
    write(tmp_path / "train.txt", "1 a.png negative\n2 b.png healthy\n")
    write(tmp_path / "test.txt", "3 c.png positive\n")
    with pytest.raises(DataError, match="line 2: .*'healthy' is not of .'negative'"):
        read("covidx", tmp_path)
