"""NIH ChestX-ray14 (1705.02315): 14 findings an image, from reports, no blanks."""

from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.labels import NIH14
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import files
from bigxfer.data.readers.tables import (
    SEE,
    Columns,
    DataError,
    Table,
    build,
    find,
    lines,
    read_csv,
)

# The second is the release of 2017, whose rows end with a comma.
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def read(root: str | Path, data: Data) -> Manifest:
    """Labels float32 [n, 14], 0 where a finding is not listed (NIH has no blanks).

    Takes the official folder images/ and Kaggle's images_001 ... images_012. The
    two lists give the split "train" (train_val) and "test"; without them it is "".
    Raises DataError with file, line and field.
    """
    root = Path(root)
    name = "Image Index"
    table = read_csv(
        find(root, *TABLES), (name, "Finding Labels", "Patient ID", "View Position")
    )
    table.check_unique(name)
    # The patient is read from the name, so a name of another form would be a wrong patient.
    table.groups(name, r"\d{8}_\d{3}\.png", "00000001_000.png")
    folders = image_folders(root)
    split, notes, beyond = read_split(root, table)
    return build(
        name="nih",
        root=root,
        classes=NIH14,
        labels=findings(table),
        columns=Columns(
            id=table[name],
            path=[f"{folders.get(file, 'images')}/{file}" for file in table[name]],
            patient=patients(table),
            source=["nih"] * len(table),
            # Nothing else stands in the table; a third value would be a damaged row.
            view=table.values("View Position", {"PA": "PA", "AP": "AP"}),
            split=split,
            people=table.people("Patient Gender", "Patient Age"),
        ),
        notes={"labels": "a finding that is not listed is 0", **notes},
        dropped={"images that are listed but not in the table": beyond},
    )


def findings(table: Table) -> np.ndarray:
    """ "A|B" or "No Finding" -> float32 [n, 14] of 0 and 1."""
    index = {name: i for i, name in enumerate(NIH14)}
    labels = np.zeros((len(table), len(NIH14)), np.float32)
    for row, text in enumerate(table["Finding Labels"]):
        if text == "No Finding":
            continue
        # By whole names: a substring finds one name within another.
        for finding in text.split("|"):
            if finding not in index:
                table.fail(row, f"Finding Labels has {finding!r}, outside {NIH14}")
            labels[row, index[finding]] = 1
    return labels


def patients(table: Table) -> list[str]:
    """ "nih-00000001": the first eight digits of the name, checked against the ID."""
    out = []
    for row, (name, number) in enumerate(
        zip(table["Image Index"], table["Patient ID"])
    ):
        # The two columns say the same; where they differ, rows have slipped.
        if number.zfill(8) != name[:8]:
            table.fail(row, f"Patient ID {number!r} is not that of the image {name}")
        out.append(f"nih-{name[:8]}")
    return out


def image_folders(root: Path) -> dict[str, str]:
    """{file: folder} of Kaggle's twelve folders; {} where there is one images/."""
    if (root / "images").is_dir():
        return {}
    folders = {}
    for top in sorted(root.glob("images_*")):
        # Kaggle's archive has images_001/images/.
        inner = top / "images" if (top / "images").is_dir() else top
        if inner.is_dir():
            where = inner.relative_to(root).as_posix()
            folders.update(dict.fromkeys(files.names(inner), where))
    if not folders:
        raise DataError(f"{root}: looked for images/ or images_001/ ..., none; {SEE}")
    return folders


def read_split(root: Path, table: Table) -> tuple[list[str], dict, list[str]]:
    """(the official split of each row, notes on it, files that only the lists know)."""
    there = [name for name in LISTS if (root / name).is_file()]
    if not there:
        return [""] * len(table), {"split": "no official lists found"}, []
    split: dict[str, str] = {}
    for name, value in LISTS.items():
        path = find(root, name)
        for number, line in enumerate(lines(path), 1):
            file = line.strip()
            if not file:
                continue
            # On both lists it would train and test.
            if file in split:
                raise DataError(f"{path}, line {number}: {file} is listed twice")
            split[file] = value
    rows = table["Image Index"]
    for row, file in enumerate(rows):
        if file not in split:
            table.fail(row, f"{file} is in neither of {', '.join(LISTS)}")
    beyond = sorted(split.keys() - set(rows))
    notes = {"split": "official lists, train_val as train"}
    return [split[file] for file in rows], notes, beyond
