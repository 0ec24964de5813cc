"""What a run chose from a grid, by the labels that it may use (config.eval.select_on)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigxfer import config
from bigxfer.data import split
from bigxfer.data.manifest import Manifest
from bigxfer.statistics import metrics


@dataclass(frozen=True)
class Choice:
    """One value of a grid; `scores` has one of each, NaN where the training diverged."""

    what: str  # penalty, neighbours or rate
    value: float
    of: tuple[float, ...]
    scores: tuple[float, ...]
    metric: str  # what the scores are; "loss" is a head's own
    folds: int  # within the training images; 0: judged on validation

    def said(self) -> dict[str, Any]:
        """Return what result.json says of it."""
        ends = {min(self.of): "lowest", max(self.of): "highest"}
        # JSON has no NaN.
        finite = [s if math.isfinite(s) else None for s in self.scores]
        return {**vars(self), "scores": finite, "edge": ends.get(self.value, "")}


def best(
    what: str, of: Sequence[float], scores: Sequence[float], metric: str, folds: int
) -> Choice:
    """The value of the best score; the first of those that are equal.

    Raises ValueError where no score is finite.
    """
    ranked = metrics.sign(metric) * np.asarray(scores, float)
    if not np.isfinite(ranked).any():
        raise ValueError(
            f"no {what} of {tuple(of)} gives a finite {metric}; take other values for"
            " --config.optim.tune"
        )
    # Penalties come strongest first: of equal ones the strongest is taken.
    value = of[int(np.nanargmax(ranked))]
    return Choice(what, value, tuple(of), tuple(map(float, scores)), metric, folds)


def fold_of(training: Manifest) -> tuple[np.ndarray, int]:
    """(the fold int [n] of each training image, how many), by patient.

    Raises ValueError where all images are of one patient.
    """
    folds = min(config.FOLDS, len(set(training.patient)))
    if folds < 2:
        raise ValueError(
            f"the {len(training)} training images are of one patient: no folds can be made"
            " of them; set --config.eval.select_on=none"
        )
    return split.folds(training, folds, seed=0), folds


def words(result: dict[str, Any]) -> str:
    """What a result.json says was chosen, by which labels, and whether at an end."""
    # A run from before config.optim.tune.
    if "tuned" not in result and "head" in result:
        return "Whether its penalty was chosen is not recorded"
    if not (tuned := result.get("tuned")):
        return "Untuned: no label chose the rate or the penalty"
    value, many, folds = tuned["value"], len(tuned["of"]), tuned["folds"]
    how = f"by {folds} folds of the shots" if folds else "on validation"
    line = f"Tuned: {tuned['what']} {value:.4g} of {many}, chosen {how}"
    edge = (
        f"; it is the {tuned['edge']} of them, and a wider grid may give a better one"
    )
    return line + edge * bool(tuned["edge"])
