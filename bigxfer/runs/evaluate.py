"""Predictions of a model on a split, to predictions.npz and to metrics."""

import numpy as np

from bigxfer.data.manifest import Manifest
from bigxfer.statistics import metrics


def points(manifest: Manifest, rows: np.ndarray, logits: np.ndarray) -> dict:
    """{metric: value} without intervals, NaN where it cannot be computed."""
    part = manifest.select(rows)
    found = metrics.compute(
        part.labels, logits, part.classes, part.patient, resamples=0
    )["metrics"]
    none = float("nan")
    return {k: none if v["value"] is None else v["value"] for k, v in found.items()}
