"""Whatever is wrong with a label file is told with file, line and field."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readers import chexpert, nih, own, read, write
from test_readers_covidx import covid
from test_readers_more import aptos, eyepacs, histopathology, mimic, pad, protein

from bigxfer.data.readers import DataError, padchest

LAYOUTS = {  # reader -> what writes its official layout
    "chexpert": chexpert,
    "nih": nih,
    "covidx": covid,
    "csv": own,
    "mimic": mimic,
    "padchest": pad,
    "eyepacs": eyepacs,
    "aptos": aptos,
    "histopathology": histopathology,
    "proteins": protein,
}
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
    ("mimic", "metadata.csv", "10000032", "1000032", "line 2: subject_id"),
    ("mimic", "chexpert.csv", "-1.0", "-3.0", "line 3: Atelectasis is '-3.0'"),
    (
        "mimic",
        "chexpert.csv",
        "10000032,50000001",
        "10000033,50000002",
        "line 3",
    ),
    ("mimic", "split.csv", "validate", "valid", "line 4: split is 'valid'"),
    ("padchest", padchest.TABLE, "['normal']", "['normal'", "line 3: Labels"),
    ("padchest", padchest.TABLE, "54", "x", "line 3: ImageDir"),
    ("eyepacs", "trainLabels.csv", ",4", ",5", "line 3: level is '5'"),
    ("eyepacs", "trainLabels.csv", "10_right", "10_r", "line 3: image"),
    ("aptos", "train.csv", ",4", ",", "line 3: diagnosis is ''"),
    ("histopathology", "train_labels.csv", ",1", ",2", "line 3: label"),
    ("proteins", "train.csv", ",27", ",28", "line 4: Target is '28'"),
]


@pytest.mark.parametrize("reader,file,old,new,message", WRONG)
def test_bad_cells_are_named(tmp_path, reader, file, old, new, message):
    LAYOUTS[reader](tmp_path)
    (path,) = tmp_path.rglob(f"*{file}")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=f"{file}.*{message}"):
        read(reader, tmp_path)


def test_an_image_in_neither_official_list_is_named(tmp_path):
    nih(tmp_path)
    write(tmp_path / "train_val_list.txt", "00000001_000.png\n")
    with pytest.raises(DataError, match="v2020.csv, line 3: 00000001_001.*neither"):
        read("nih", tmp_path)


TABLES = [
    ("chexpert", "train.csv"),
    ("nih", "Data_Entry_2017_v2020.csv"),
    ("nih", "test_list.txt"),
    ("covidx", "train_COVIDx8B.txt"),
    ("csv", "metadata.csv"),
    ("mimic", "metadata.csv"),
    ("mimic", "chexpert.csv"),
    ("mimic", "split.csv"),
    ("padchest", padchest.TABLE),
    ("eyepacs", "retinopathy_solution.csv"),
    ("aptos", "train.csv"),
    ("histopathology", "train_labels.csv"),
    ("proteins", "train.csv"),
]
JUNK = [b'"', b"\r", b"\n", b",", b"\0", b"\xff", b" "]


@st.composite
def damage(draw, text: bytes) -> bytes:
    """The label file with bytes put over it, cut off, repeated, or permuted by lines."""
    kind = draw(st.sampled_from(["permute", "truncate", "garble", "repeat"]))
    at = draw(st.integers(0, len(text)))
    if kind == "truncate":
        return text[:at]
    if kind == "garble":
        junk = draw(st.binary(max_size=9) | st.sampled_from(JUNK))
        text = text[:at] + junk + text[at + draw(st.integers(0, 9)) :]
    lines = text.splitlines(keepends=True)
    if kind == "repeat" and lines:
        lines.append(draw(st.sampled_from(lines)))
    if kind == "permute":
        lines = draw(st.permutations(lines))
    return b"".join(lines)


@pytest.mark.parametrize("reader,file", TABLES)
@settings(max_examples=60, deadline=None)
@given(choice=st.data())
def test_any_damage_reads_or_is_named(reader, file, choice):
    with TemporaryDirectory() as folder:
        LAYOUTS[reader](Path(folder))
        (path,) = Path(folder).rglob(f"*{file}")
        path.write_bytes(choice.draw(damage(path.read_bytes())))
        try:
            read(reader, folder).validate()
        except DataError as error:
            assert " line " in str(error) or "no image at all" in str(error)
            assert folder in str(error)
