"""predictions.npz of a run folder: the one way to write and read it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer import tree
from bigxfer.data.manifest import Manifest

FILES = {
    "test": "predictions.npz",
    "valid": "predictions_valid.npz",
    "folds": "predictions_folds.npz",  # training images, each without its fold
}

PEOPLE = {"sex": "sexes", "age": "ages"}  # column of the manifest -> field


@dataclass(frozen=True)
class Predictions:
    """What a run predicted for the n images of one split."""

    ids: np.ndarray  # str [n], as patients, sources and views
    patients: np.ndarray
    sources: np.ndarray
    views: np.ndarray
    labels: np.ndarray  # int32 [n], or float32 [n, classes] of 0, 1, NaN = unknown
    logits: np.ndarray  # float64 [n, classes]
    classes: tuple[str, ...]
    # None where the set tells neither, or the run is from before they were read.
    sexes: np.ndarray | None = None  # str [n]: "F", "M" or ""
    ages: np.ndarray | None = None  # str [n]: years or ""

    def select(self, rows: np.ndarray) -> "Predictions":
        """Those of these rows (indices or a boolean mask), in this order."""
        # None stays None: it cannot be indexed.
        known = {k: v for k, v in vars(self).items() if v is not None}
        columns = {k: v[rows] for k, v in known.items() if k != "classes"}
        return Predictions(**columns, classes=self.classes)


def external(name: str) -> str:
    """The file of the predictions on a set of data.external."""
    return f"predictions_external_{name}.npz"


def of(manifest: Manifest, logits: np.ndarray) -> Predictions:
    """The predictions of a manifest's images; logits [n, classes] in their order."""
    return Predictions(
        ids=manifest.id.astype(str),
        patients=manifest.patient.astype(str),
        sources=manifest.source.astype(str),
        views=manifest.view.astype(str),
        labels=manifest.labels,
        logits=np.asarray(logits, np.float64),
        classes=tuple(manifest.classes),
        **{PEOPLE[name]: c.astype(str) for name, c in manifest.people().items()},
    )


def read(path: Path) -> Predictions:
    """Read one file, of a run or not; Finished.predictions compares its sum as well.

    Raises FileNotFoundError where it is not there, ValueError where it is damaged or
    holds no predictions.
    """
    arrays = tree.load_npz(path)
    fields = Predictions.__dataclass_fields__
    lacks = [name for name in fields if name not in arrays]
    if missing := [name for name in lacks if name not in PEOPLE.values()]:
        raise ValueError(f"{path} lacks {missing}: it is no predictions.npz of a run")
    columns = {name: arrays[name] for name in fields if name not in lacks}
    n, classes = len(columns["ids"]), tuple(columns.pop("classes").tolist())
    # Saved as the net gave them, float32; all statistics are in float64.
    columns["logits"] = columns["logits"].astype(np.float64)
    if columns["logits"].shape != (n, len(classes)) or any(
        len(column) != n for column in columns.values()
    ):
        raise ValueError(f"{path}: its columns are of different lengths")
    return Predictions(**columns, classes=classes)


def save(path: Path, manifest: Manifest, logits: np.ndarray) -> None:
    """Write the logits [n, classes] of a manifest's images, as the net gave them."""
    # In their own dtype, which takes half of the disk of float64.
    columns = vars(of(manifest, logits)) | {"logits": logits}
    arrays = {name: column for name, column in columns.items() if column is not None}
    tree.save_npz(path, arrays | {"classes": np.asarray(manifest.classes)})
