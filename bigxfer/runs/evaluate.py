"""Predictions of a model on a split, to predictions.npz and to metrics."""

import numpy as np

from bigxfer.data.dataset import Dataset
from bigxfer.data.manifest import Manifest
from bigxfer.statistics import metrics
from bigxfer.training import loop


def points(manifest: Manifest, rows: np.ndarray, logits: np.ndarray) -> dict:
    """{metric: value} without intervals, NaN where it cannot be computed."""
    part = manifest.select(rows)
    about = part.labels, logits, part.classes, part.patient
    found = metrics.compute(*about, limits=False)["metrics"]
    none = float("nan")
    return {k: none if v["value"] is None else v["value"] for k, v in found.items()}


def check_select(name: str, data: Dataset) -> None:
    """ValueError where the metric cannot be computed on the validation split.

    Only its labels decide that, so that random logits tell before anything is compiled.
    """
    rows, classes = data.rows["valid"], len(data.manifest.classes)
    logits = np.random.default_rng(0).normal(size=(len(rows), classes))
    loop.better(name, points(data.manifest, rows, logits), {})
