"""Predictions of a model on a split, to predictions.npz and to metrics."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from bigxfer.data.dataset import Dataset
from bigxfer.data.manifest import Manifest
from bigxfer.runs import predictions
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import by_group, metrics
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


def beside(
    folder: Path,
    name: str,
    other: Dataset,
    found: tuple[np.ndarray, np.ndarray],
    own: Predictions,
) -> dict[str, Any]:
    """What result.json says of a set of data.external, whose predictions it saves.

    found: (rows, logits) of the set; own: the predictions of the run's test split. The
    gaps are `other` less `own`, on the classes that both can be judged by.
    """
    part, logits = other.manifest.select(found[0]), found[1]
    if jax.process_index() == 0:
        predictions.save(folder / predictions.external(name), part, logits)
    told = vars(predictions.of(part, logits))
    return {**by_group.against(told, vars(own)), "data": other.report}
