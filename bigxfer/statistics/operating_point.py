"""Sensitivity and specificity at a threshold that other images have fixed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

from bigxfer.statistics import auroc, limits, metrics, scores
from bigxfer.statistics.influence import Patients


def judge(
    fixing_labels: np.ndarray,
    fixing_logits: np.ndarray,
    test_labels: np.ndarray,
    test_logits: np.ndarray,
    classes: Sequence[str],
    test_patients: np.ndarray,
    sensitivity: float | None = None,
) -> dict[str, Any]:
    """{class: {"threshold", "log_odds", "sensitivity": {value, low, high}, "specificity"}}.

    The threshold on the class's probability (positive at or above it) is fixed on the
    images of `fixing_`, validation or the folds of the shots: where sensitivity +
    specificity is largest (Youden 1950), or, where `sensitivity` is given, the highest one
    that reaches it. Test labels play no part in it. "log_odds" is the same threshold where
    the probability is too close to 1 to say which (see auroc.log_odds). A class that
    these images lack has threshold None and a "reason".
    """
    # In place of patients, whom no threshold needs.
    rows = np.arange(len(fixing_labels))
    fixing = metrics.checked(fixing_labels, fixing_logits, classes, rows)
    test = metrics.checked(test_labels, test_logits, classes, test_patients)
    truths = [auroc.one_hot(labels, len(classes)) for labels, _ in (fixing, test)]
    odds = [auroc.log_odds(labels, logits) for labels, logits in (fixing, test)]
    patients = Patients.of(test_patients)
    by_class: dict[str, Any] = {}
    for i, name in enumerate(classes):
        threshold = choose(truths[0][:, i], odds[0][:, i], sensitivity)
        if threshold is None:
            reason = f"no positive or no negative label of {name} to fix it by"
            by_class[name] = {"threshold": None, "reason": reason}
            continue
        # At or above: the threshold is a score of one of these, and finds its image.
        called, truth = odds[1][:, i] >= threshold, truths[1][:, i]
        probability = float(scipy.special.expit(threshold))
        by_class[name] = {"threshold": probability, "log_odds": threshold}
        for kind, hit, y in (("sensitivity", called, 1), ("specificity", ~called, 0)):
            word = "positive" if y else "negative"
            score = limits.proportion(hit, truth == y, patients)
            if not math.isfinite(score.low):
                having = {y: patients.having(truth == y)}
                score = score._replace(reason=scores.few(name, having))
            absent = f"no {word} label of {name} in the test split"
            by_class[name][kind] = score.entry(absent)
    return by_class


def choose(
    truth: np.ndarray, odds: np.ndarray, sensitivity: float | None = None
) -> float | None:
    """The threshold of `judge` on truth [n] (0, 1, NaN), log-odds [n]."""
    positive, negative = np.sort(odds[truth == 1]), np.sort(odds[truth == 0])
    if not len(positive) or not len(negative):
        return None
    # Between two scores all thresholds call alike. Descending, since argmax takes the
    # first of equal ones: the highest.
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    detected = 1 - np.searchsorted(positive, thresholds) / len(positive)
    rejected = np.searchsorted(negative, thresholds) / len(negative)
    if sensitivity is not None:
        return float(thresholds[np.argmax(detected >= sensitivity)])
    return float(thresholds[np.argmax(detected + rejected)])
