"""predictions.npz of a run folder: the one way to write and read it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigxfer import tree
from bigxfer.data.manifest import Manifest


@dataclass(frozen=True)
class Predictions:
    """One predictions.npz of a run folder."""

    ids: np.ndarray
    patients: np.ndarray
    sources: np.ndarray
    views: np.ndarray
    labels: np.ndarray
    logits: np.ndarray  # float64
    classes: tuple[str, ...]


def read(path: Path) -> Predictions:
    """Raises FileNotFoundError or ValueError for what is no predictions file."""
    found = tree.load_npz(path)
    missing = [k for k in Predictions.__dataclass_fields__ if k not in found]
    if missing:
        raise ValueError(f"{path} lacks {missing}: it is no predictions.npz of a run")
    found["classes"] = tuple(found["classes"].tolist())
    found["logits"] = found["logits"].astype(np.float64)
    return Predictions(**found)


def save(path: Path, part: Manifest, logits: np.ndarray) -> None:
    """Writes predictions.npz: ids, patients, sources, views, labels, logits, classes."""
    tree.save_npz(
        path,
        {
            "ids": part.id.astype(str),
            "patients": part.patient.astype(str),
            "sources": part.source.astype(str),
            "views": part.view.astype(str),
            "labels": part.labels,
            "logits": logits,
            "classes": np.asarray(part.classes),
        },
    )
