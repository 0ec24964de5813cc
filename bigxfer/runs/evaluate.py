"""Predictions of a model on a split, to predictions.npz and to metrics."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from bigxfer.data.dataset import Dataset
from bigxfer.data.manifest import Manifest
from bigxfer.runs import predictions
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import by_group, metrics, operating_point
from bigxfer.training import feed, loop

if TYPE_CHECKING:
    from bigxfer.data.loader import Loader
    from bigxfer.runs.heads import OfRun
    from bigxfer.runs.job import Job


def points(manifest: Manifest, rows: np.ndarray, logits: np.ndarray) -> dict:
    """{metric: value} without intervals, NaN where it cannot be computed."""
    split = manifest.select(rows)
    inputs = split.labels, logits, split.classes, split.patient
    values = metrics.compute(*inputs, limits=False)["metrics"]
    none = float("nan")
    return {k: none if v["value"] is None else v["value"] for k, v in values.items()}


def check_select(name: str, data: Dataset) -> None:
    """ValueError where the metric cannot be computed on the validation split."""
    # Only labels decide that: random logits tell before anything is compiled.
    rows, classes = data.rows["valid"], len(data.manifest.classes)
    logits = np.random.default_rng(0).normal(size=(len(rows), classes))
    loop.better(name, points(data.manifest, rows, logits), {})


def judge(
    job: "Job",
    fitted: "OfRun | None",
    by_net: "Callable[[Loader], tuple[np.ndarray, np.ndarray]] | None",
    held: np.ndarray | None,
) -> dict:
    """Predict each split that counts, write it, and compute what is reported.

    A fitted head has predicted the run's own splits; the net predicts all else. `held`:
    logits [m, classes] of the training images, each without its fold, or None. They or
    validation fix the operating point.
    """
    manifest, judged = job.data.manifest, {}
    for name in job.judged:
        rows = job.data.rows[name]
        if fitted:
            logits = fitted.logits[name]
        else:
            rows, logits = cast(Callable, by_net)(job.loader(name))
        judged[name] = manifest.select(rows), logits
    if held is not None:
        judged["folds"] = manifest.select(job.data.rows["train"]), held
    # Every process has all logits, and they share the folder: one writes.
    if jax.process_index() == 0:
        for name, predicted in judged.items():
            predictions.save(job.folder / predictions.FILES[name], *predicted)
    test, logits = judged["test"]
    # Named when intervals were bootstrapped; today only 0 or not matters.
    limits = job.run.eval.resamples > 0
    out = metrics.compute(test.labels, logits, test.classes, test.patient, limits)
    out |= {"head": fitted.said} if fitted else {}
    if limits and (groups := by_group.judge(vars(predictions.of(test, logits)))):
        out["groups"] = groups
    for name, other in job.data.external.items():
        # external.py puts all that a further set is judged on into its "test".
        loader = feed.loader(other, "test", job.run)
        predicted = cast(Callable, by_net)(loader)
        of_test = predictions.of(test, logits)
        compared = beside(job.folder, name, other, predicted, of_test)
        out.setdefault("external", {})[name] = compared
    if fixing := judged.get("valid") or judged.get("folds"):
        out["operating_point"] = operating_point.judge(
            fixing[0].labels,
            fixing[1],
            test.labels,
            logits,
            test.classes,
            test.patient,
        )
    return out


def beside(
    folder: Path,
    name: str,
    other: Dataset,
    predicted: tuple[np.ndarray, np.ndarray],
    of_test: Predictions,
) -> dict[str, Any]:
    """What result.json says of a set of data.external, whose predictions it saves.

    predicted: (rows, logits) of the set; of_test: the predictions of the run's test split.
    The gaps are `other` less `of_test`, on the classes that both can be judged by.
    """
    rows, logits = predicted
    split = other.manifest.select(rows)
    if jax.process_index() == 0:
        predictions.save(folder / predictions.external(name), split, logits)
    of_other = vars(predictions.of(split, logits))
    return {**by_group.against(of_other, vars(of_test)), "data": other.report}
