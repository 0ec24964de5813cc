"""CheXpert (1901.07031), the small and the full set: 14 findings a study."""

import re
from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.labels import CHEXPERT14, policy
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.tables import Columns, Table, build, find, read_csv

# The small and the full set have the same table but for this.
TOP = ("CheXpert-v1.0-small", "CheXpert-v1.0")  # Path in the files starts with it
PATH = (  # of train.csv and valid.csv
    rf"(?:(?:{'|'.join(map(re.escape, TOP))})/)?"
    r"((?:train|valid|test)/(patient\d+)/study\d+/view\d+_\w+\.(?:jpg|png))"
)
VIEW = "Frontal/Lateral AP/PA"
VIEWS = {  # (Frontal/Lateral, AP/PA) -> view; LL and RL stand 17 times in train.csv
    **{f"Frontal {view}": view for view in ("AP", "PA", "LL", "RL")},
    "Frontal ": "",
    "Lateral ": "L",
}


def read(root: str | Path, data: Data) -> Manifest:
    """train.csv as "train", valid.csv (labelled by radiologists) as "test".

    root is the folder of train.csv or the one above it. Labels float32 [n, 14] by
    labels.policy. Raises DataError with file, line and field.
    """
    first = find(Path(root), "train.csv", *(f"{name}/train.csv" for name in TOP))
    top = first.parent
    prefix = "" if top == Path(root) else f"{top.name}/"
    tables = {"train": read_table(top / "train.csv")}
    if (top / "valid.csv").exists():
        tables["test"] = read_table(top / "valid.csv")
    paths, patients, views, splits, raw = [], [], [], [], []
    people: dict[str, list[str]] = {"sex": [], "age": []}
    for split, table in tables.items():
        path, patient = table.groups("Path", PATH, "patientN/studyN/viewN_x.jpg")
        table.check_unique("Path", path)
        # "patient1" beside "patient00001" would put one person on two sides.
        table.check_spellings("Path", patient)
        paths += path
        patients += [f"chexpert-{name}" for name in patient]
        views += read_views(table)
        splits += [split] * len(table)
        for name, column in table.people("Sex", "Age").items():
            people[name] += column
        raw.append(table.marks(CHEXPERT14))
    labels, notes = policy(np.concatenate(raw), CHEXPERT14, data.uncertain, data.blank)
    notes["split"] = "train.csv is train, valid.csv is test"
    return build(
        name="chexpert",
        root=Path(root),
        classes=CHEXPERT14,
        labels=labels,
        columns=Columns(
            id=paths,
            path=[prefix + path for path in paths],
            patient=patients,
            view=views,
            split=splits,
            people={name: c for name, c in people.items() if len(c) == len(paths)},
        ),
        notes=notes,
    )


def read_table(path: Path) -> Table:
    return read_csv(path, ("Path", "Frontal/Lateral", "AP/PA", *CHEXPERT14))


def read_views(table: Table) -> list[str]:
    """AP, PA, LL or RL of frontal images, L of lateral ones."""
    pairs = zip(table["Frontal/Lateral"], table["AP/PA"])
    joined = Table(table.path, {VIEW: list(map(" ".join, pairs))}, table.lines)
    return joined.values(VIEW, VIEWS)
