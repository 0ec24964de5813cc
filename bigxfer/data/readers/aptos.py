"""APTOS 2019, Kaggle's blindness detection."""

from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.eyepacs import GRADES, LEVELS
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, build, find, read_csv

NAME = r"[0-9a-f]{12}"


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n], the grade of train.csv; no patients, no labelled test set."""
    root = Path(root)
    table = read_csv(find(root, "train.csv"), ("id_code", "diagnosis"))
    table.check_unique("id_code")
    table.groups("id_code", NAME, "12 hex digits")
    return build(
        name="aptos",
        root=root,
        classes=GRADES,
        labels=table.values("diagnosis", LEVELS),
        columns=Columns(
            id=table["id_code"],
            path=[f"train_images/{name}.png" for name in table["id_code"]],
            patient=[f"aptos-{name}" for name in table["id_code"]],
        ),
        notes={"patients": NOBODY, "split": "none is official"},
    )
