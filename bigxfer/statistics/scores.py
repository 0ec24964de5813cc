"""Every metric of one run with its limits over patients, from limits.py.

Names of shapes: n test images, k classes, p patients.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bigxfer.statistics import influence, limits
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import LEAST, Score

BINNED = (
    "no interval: an error in bins lies above the truth in small sets, by an amount that"
    " no resampling shows"
)
ALIKE = "no interval: all patients have the same value"


@dataclass(frozen=True)
class Judged:
    """What all metrics of a run are computed from."""

    classes: Sequence[str]
    truth: np.ndarray  # [n, k] of 1, 0 and NaN
    odds: np.ndarray  # [n, k], by which images are ranked
    called: np.ndarray  # bool [n, k]: what the net says is there
    means: Mapping[str, tuple[np.ndarray, np.ndarray]]  # metric -> sums, counts [n]
    single: bool  # one class an image
    patients: Patients


def score_all(run: Judged, values: Mapping[str, float]) -> dict[str, Score]:
    """{metric: Score} of the metrics whose values are given; NaN values have none."""
    by_name = {name: Score(value) for name, value in values.items()}
    for name, (sums, counts) in run.means.items():
        by_name[name] = _mean(run, name, sums, counts, values[name])
    shares = _shares(run)
    if run.single:
        right = (run.called & (run.truth == 1)).any(axis=1)
        known = np.ones(len(right), bool)
        by_name["accuracy"] = limits.proportion(right, known, run.patients)
    by_name["balanced_accuracy"] = limits.average(shares)
    for kind, rate, effect in (
        ("auroc", limits.auroc, influence.of_auroc),
        ("auprc", limits.precision, influence.of_precision),
    ):
        each = []
        for i, name in enumerate(run.classes):
            truth, value = run.truth[:, i], values[f"{kind}/{name}"]
            score = Score(value)
            if math.isfinite(value):
                args = effect(truth, run.odds[:, i]), truth, run.patients
                score = rate(value, *args)
            each.append(score)
            by_name[f"{kind}/{name}"] = score
        by_name[f"{kind}_macro"] = limits.average(each)
    by_name["auroc_micro"] = _micro(run, values["auroc_micro"])
    reasons = why_none(run)
    return {
        name: _told(score, values[name], reasons.get(name, ""))
        for name, score in by_name.items()
    }


def _told(score: Score, value: float, reason: str) -> Score:
    """The score at the metric's own value, with a reason where it has no limits."""
    if not math.isfinite(score.low):
        score = score._replace(low=math.nan, high=math.nan, reason=reason or ALIKE)
    return score._replace(value=value)


def _mean(
    run: Judged, name: str, sums: np.ndarray, counts: np.ndarray, value: float
) -> Score:
    """A loss or a Brier score, which is at most 2 over several classes, or 1."""
    if not counts.sum():
        return Score(math.nan)
    highest = math.inf
    if name == "brier":
        highest = 2.0 if run.single and len(run.classes) > 2 else 1.0
    effect = influence.of_mean(sums, counts)
    return limits.mean(value, effect, counts, run.patients, highest)


def _shares(run: Judged) -> list[Score]:
    """Return the shares whose mean is the balanced accuracy: recalls, of both sides
    where an image may have several classes."""
    shares = []
    for truth, called in zip(run.truth.T, run.called.T, strict=True):
        shares.append(limits.proportion(called, truth == 1, run.patients))
        if not run.single:
            shares.append(limits.proportion(~called, truth == 0, run.patients))
    return shares


def _micro(run: Judged, value: float) -> Score:
    if not math.isfinite(value):
        return Score(value)
    each = influence.of_auroc(run.truth.ravel(), run.odds.ravel())
    # The pairs of an image share its patient, so their influences go together.
    sums = each.reshape(run.truth.shape).sum(axis=1)
    return limits.auroc_micro(value, sums, run.truth, run.patients)


def why_none(run: Judged) -> dict[str, str]:
    """{metric: why it has no interval} of the metrics that have none."""
    reasons = {"ece": BINNED}
    lines, recalls = [], []
    for name, truth in zip(run.classes, run.truth.T, strict=True):
        lacks = {y: run.patients.having(truth == y) for y in (1, 0)}
        line = few(name, lacks)
        if line:
            reasons[f"auroc/{name}"] = reasons[f"auprc/{name}"] = line
            lines.append(line)
        # A recall needs patients with the class; with findings both sides count.
        if line := few(name, {1: lacks[1]} if run.single else lacks):
            recalls.append(line)
    if lines:
        reasons["auroc_macro"] = reasons["auprc_macro"] = "; ".join(lines)
    if recalls:
        reasons["balanced_accuracy"] = "; ".join(recalls)
    if run.patients.count < LEAST:
        whole = f"{_patients(run.patients.count)} in the test split; {NEEDED}"
        # One reason for all: the same would stand at each class.
        plain = ("loss", "brier", "accuracy", "auroc_micro", *reasons)
        reasons |= dict.fromkeys(plain, whole)
    reasons.setdefault("auroc_micro", f"fewer than {LEAST} positive or negative labels")
    return reasons


NEEDED = f"an interval needs {LEAST}"


def few(name: str, having: Mapping[int, int]) -> str:
    """ "2 patients with a positive label of Hernia; an interval needs 5", or ""."""
    words = {1: "positive", 0: "negative"}
    lacking = [
        f"{_patients(count)} with a {words[y]} label"
        for y, count in having.items()
        if count < LEAST
    ]
    return f"{' and '.join(lacking)} of {name}; {NEEDED}" if lacking else ""


def _patients(count: int) -> str:
    return f"{count} patient{'s' * (count != 1)}"
