"""metadata.csv of one's own images: file, label (or a 0/1 column a class), patient."""

from pathlib import Path

import numpy as np

from bigxfer.config import Data
from bigxfer.data.labels import canonical
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.tables import DataError, Table, build, find, read_csv

KNOWN = ("file", "path", "label", "patient_id", "patient", "split", "source", "view")
ONE_HOT = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "": np.nan}
SPLITS = {
    "train": "train",
    "valid": "valid",
    "test": "test",
    "": "",
    "val": "valid",
    "validation": "valid",
    "validate": "valid",
}
UNKNOWN = ("unknown", "Unknown", "nan", "NaN", "None", "UNK")


def read(root: str | Path, data: Data) -> Manifest:
    """root/metadata.csv, or the only CSV file in root.

    Columns: `file` or `path` (relative to root), `patient_id` or `patient`, then
    `label` (int32 [n], classes sorted) or one column a class (float32 [n, classes]):
    those of data.labels or, where that is empty, each column of another name whose
    cells are all 0, 1 or blank. Blank is NaN, or 0 where data.blank is negative.
    Optional: `split`, `source`, `view`. Raises DataError with file, line and column.
    """
    root = Path(root)
    table = read_csv(find_table(root))
    file = table.column("file", "path")
    patient = table.column("patient_id", "patient")
    for name in (file, patient):
        table.check_filled(name)
    table.check_unique(file)
    if "label" in table.columns:
        classes, labels, notes = single(table)
    else:
        classes, labels, notes = multi(table, data)
    views = table.columns.get("view", [])
    return build(
        name="csv",
        root=root,
        classes=classes,
        labels=labels,
        path=table[file],
        patient=table[patient],
        source=table.columns.get("source", []),
        view=["" if view in UNKNOWN else view for view in views],
        split=table.values("split", SPLITS) if "split" in table.columns else [],
        notes={"table": table.path.name, **notes},
    )


def find_table(root: Path) -> Path:
    """metadata.csv, or the only CSV file there is."""
    tables = sorted(root.glob("*.csv"))
    if not (root / "metadata.csv").exists() and len(tables) == 1:
        return tables[0]
    return find(root, "metadata.csv")


def single(table: Table) -> tuple[tuple[str, ...], np.ndarray, dict]:
    table.check_filled("label")
    classes = tuple(sorted(set(table["label"])))
    index = {name: float(i) for i, name in enumerate(classes)}
    labels = table.numbers(["label"], index)[:, 0].astype(np.int32)
    return classes, labels, {"labels": "one of the column label"}


def multi(table: Table, data: Data) -> tuple[tuple[str, ...], np.ndarray, dict]:
    others = [name for name in table.columns if name and name not in KNOWN]
    if data.labels:
        wanted = {canonical(name) for name in data.labels}
        classes = tuple(name for name in others if canonical(name) in wanted)
    else:
        classes = tuple(
            name
            for name in others
            if (cells := set(table[name])) <= ONE_HOT.keys() and cells != {""}
        )
    if not classes:
        raise DataError(
            f"{table.path}, line 1: no column 'label', and no column of 0, 1 and blank"
            f" for a class (of {others}, config.data.labels={data.labels})"
        )
    labels = table.numbers(classes, ONE_HOT)
    if data.blank == "negative":
        labels = np.nan_to_num(labels)
    notes = {
        "labels": f"the 0/1 columns {list(classes)}",
        "columns_not_read": [name for name in others if name not in classes],
        "blank": data.blank,
    }
    return classes, labels, notes
