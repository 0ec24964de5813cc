"""Garbled by people and programs, a set is read as it was written, or an error says where.

Hypothesis writes a clean set, garbles it in one or several of the ways that public bug
reports tell of, and compares: never fewer rows, other classes or other labels in silence.
"""

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_readers import read, write
from test_readers_kinds import LITTER

from bigxfer.data.readers import DataError

ROWS = 12
SPLITS = ("train", "valid", "test")
FORMS = {  # of a true cell -> how programs and people write it
    "1": ("1.0", "1.00", "True", "TRUE", "yes", "Yes", "1.", "+1"),
    "0": ("0.0", "0.00", "False", "no", "-0"),
    "": ("nan", "NaN", "N/A", "<NA>", "None"),
    "train": ("Train", "training", "TRAIN"),
    "valid": ("val", "Validation", "validate"),
    "test": ("Test", "testing", "TEST"),
    "PA": ("pa", "P.A.", "Posteroanterior", "PA view", "PA erect"),
    "AP": ("ap", "AP portable", "anteroposterior"),
    "L": ("LATERAL", "lateral", "LL"),
}
SLIPS = {
    **dict.fromkeys(("Edema", "Mass"), ("maybe", "2", "O", "0.5", "1;0")),
    "split": ("trn", "2", "unlabelled"),
    "label": ("", "nan", "COVID"),
    "patient_id": ("", "ANONYMOUS", "0003"),
    "file": ("", "img/5.png"),
}


def spelled(name, cell):
    """A cell of this column as programs and people write it."""
    if name == "file":
        forms = (f"./{cell}", cell.replace("/", "//"), cell.replace("/", "\\"))
        return st.sampled_from((*forms, cell.replace("img/", "img/../img/")))
    if name == "label":
        return st.sampled_from((cell.upper(), f" {cell} ", f"{cell}\u00a0", "", "nan"))
    if name == "patient_id":
        return st.sampled_from(
            (f"{cell}.0", f"0{cell}", f" {cell} ", "", "nan", "Unknown")
        )
    return st.sampled_from(FORMS[cell])


@st.composite
def tables(draw, head):
    """(clean, garbled): lists of rows, dicts of the columns of head."""
    multi = "label" not in head
    clean = []
    for i in range(ROWS):
        row = {
            "file": f"img/{i}.png",
            "patient_id": str(i // 2),
            "label": ("covid", "normal", "flu")[i % 3],
            "split": SPLITS[i // 2 % 3],
            "view": ("PA", "AP", "L")[i % 3],
        }
        row |= {"Edema": "10"[i % 2], "Mass": ("1", "0", "")[i % 3]} if multi else {}
        clean.append({name: row[name] for name in head})
    garbled = [dict(row) for row in clean]
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(head))
        for i in draw(st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=3)):
            garbled[i][name] = draw(spelled(name, clean[i][name]))
    if draw(st.booleans()):  # a slip, that no rule could read
        name = draw(st.sampled_from([n for n in head if n in SLIPS]))
        garbled[draw(st.integers(0, ROWS - 1))][name] = draw(
            st.sampled_from(SLIPS[name])
        )
    if draw(st.booleans()):
        again = dict(draw(st.sampled_from(clean)))
        again["file"] = draw(spelled("file", again["file"]) | st.just(again["file"]))
        garbled.insert(draw(st.integers(0, ROWS)), again)
    return clean, garbled


def content(m):
    """What must be as it was written; patients only by who shares one."""
    same = {p: m.patient == p for p in m.patient}
    groups = frozenset(
        frozenset(map(os.path.normpath, m.path[mask])) for mask in same.values()
    )
    labels = m.labels if m.multilabel else m.labels[:, None]
    rows = sorted(
        (os.path.normpath(path), *np.nan_to_num(label, nan=9).tolist(), split, view)
        for path, label, split, view in zip(m.path, labels, m.split, m.view)
    )
    return m.classes, rows, groups


def put(folder, head, rows):
    lines = [",".join(head), *(",".join(row[name] for name in head) for row in rows)]
    write(Path(folder) / "metadata.csv", "\n".join(lines) + "\n")
    return folder


def check(head, clean, garbled):
    with TemporaryDirectory() as folder:
        want = content(read("csv", put(folder, head, clean)))
        try:
            found = read("csv", put(folder, head, garbled))
        except DataError as error:
            assert "metadata.csv" in str(error) and "line " in str(error)
            return
        assert content(found) == want


few = settings(max_examples=100, deadline=None)


@few
@given(pair=tables(("file", "patient_id", "label", "split", "view")))
def test_a_garbled_table_with_a_label_reads_as_written_or_is_named(pair):
    check(("file", "patient_id", "label", "split", "view"), *pair)


@few
@given(pair=tables(("file", "patient_id", "Edema", "Mass", "split", "view")))
def test_a_garbled_table_of_findings_reads_as_written_or_is_named(pair):
    check(("file", "patient_id", "Edema", "Mass", "split", "view"), *pair)


CLASSES = ("covid", "normal")
PARTS = {
    "train": ("train", "Train", "training", "TRAIN"),
    "valid": ("val", "Valid", "validation"),
    "test": ("test", "Test", "Testing"),
}


@settings(max_examples=25, deadline=None)
@given(choice=st.data())
def test_a_garbled_folder_reads_as_written_or_is_named(choice):
    kinds = ["litter", "rename", "link", "loop", "beside", "case", "twice"]
    todo = choice.draw(st.sets(st.sampled_from(kinds), min_size=1, max_size=3))
    part = choice.draw(st.sampled_from(sorted(PARTS)))
    name = choice.draw(st.sampled_from(CLASSES))
    with TemporaryDirectory() as outer:
        root, other = Path(outer) / "root", Path(outer) / "other"
        names = {p: PARTS[p][0] for p in PARTS}
        if "rename" in todo:
            names = {p: choice.draw(st.sampled_from(PARTS[p])) for p in PARTS}
        for p in PARTS:
            for c in CLASSES:
                write(root / names[p] / c / "1.png", "")
                write(root / names[p] / c / "deep" / "2.png", "")
        folder = root / names[part] / name
        if "litter" in todo:
            spot = choice.draw(st.sampled_from([root, folder.parent, folder]))
            write(spot / choice.draw(st.sampled_from(LITTER)), "")
        if "link" in todo:  # the class moves elsewhere; a link takes its place
            other.mkdir()
            folder.rename(other / "moved")
            folder.symlink_to(other / "moved")
        if "loop" in todo:
            (folder / "deep" / "up").symlink_to(
                choice.draw(st.sampled_from(["..", root]))
            )
        if "case" in todo:
            write(root / names[part] / name.title() / "3.png", "")
        if "beside" in todo:
            write(
                root / choice.draw(st.sampled_from([name, name.upper()])) / "4.png", ""
            )
        if "twice" in todo:
            (folder / "5.png").symlink_to(folder.resolve() / "deep" / "2.png")
        try:
            m = read("folder", root)
        except DataError as error:
            assert todo & {"case", "beside", "twice"} and str(root) in str(error)
            return
        assert not todo & {"case", "beside", "twice"}
        assert m.classes == CLASSES and len(m) == 12
        count = Counter(zip(m.split, m.labels.tolist(), strict=True))
        assert count == {(p, k): 2 for p in PARTS for k in range(2)}
