"""Kaggle's histopathologic-cancer-detection: PatchCamelyon without its duplicates."""

from pathlib import Path

from bigxfer.config import Data
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers.folder import NOBODY
from bigxfer.data.readers.tables import Columns, build, find, read_csv


def read(root: str | Path, data: Data) -> Manifest:
    """Labels int32 [n] of train_labels.csv; images train/ID.tif. No slides are told."""
    root = Path(root)
    table = read_csv(find(root, "train_labels.csv"), ("id", "label"))
    table.check_unique("id")
    table.groups("id", r"[0-9a-f]{40}", "40 hex digits")
    return build(
        name="histopathology",
        root=root,
        classes=("normal", "tumour"),
        labels=table.values("label", {"0": 0, "1": 1}),
        columns=Columns(
            id=table["id"],
            path=[f"train/{name}.tif" for name in table["id"]],
            patient=[f"histopathology-{name}" for name in table["id"]],
        ),
        notes={"patients": NOBODY, "split": "none is official"},
    )
