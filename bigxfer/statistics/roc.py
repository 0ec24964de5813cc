"""ROC and precision-recall curves at fixed places, with limits over patients.

A curve is read at GRID false positive rates, or recalls, so that the curves of several
runs have a mean and an interval at each place. The interval at a place takes in that the
threshold is itself estimated: from the negatives for the sensitivity at a false positive
rate, from the positives for the precision at a recall. The variance is the sum over
patients of squared influences (influence.py), with the slope of the curve by differences;
the limits are mid-P of as many images as vary as much, so that they stay within 0 and
1 and never have width zero (coverage: tests/test_roc.py). They hold for one place at a time.

Names of shapes: n test images, k classes, g places of GRID.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy  # scipy.special

from bigxfer.statistics import auroc, limits, metrics
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import Score, Z
from bigxfer.statistics.scores import few

# Rounded, since arange gives 0.30000000000000004.
GRID = np.array([0.01, 0.02, 0.05, *np.arange(0.1, 0.96, 0.05)]).round(2)
BEYOND = 3  # patients beyond a place's threshold: of fewer there are no limits
SPREAD = 0.05  # of the places between which a slope is taken, at least, to either side
MACRO = "macro"
MOST = 20  # classes: of more there are no curves, which take a millisecond a place


def name_of(kind: str, label: str, place: int) -> str:
    """How a point is called among others: kind is "roc" or "pr", label a class or MACRO."""
    return f"{kind}/{label}/{place}"


def scores(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
) -> dict[str, Score]:
    """{name_of(kind, class or MACRO, place): Score} of one run's test predictions.

    roc: the sensitivity at a false positive rate of GRID; pr: the precision at such a
    recall. MACRO is the mean over all classes; a class that lacks one side has no curve, and
    then there is no mean. {} of more than MOST classes. Raises ValueError as metrics.compute.
    """
    labels, logits = metrics.checked(labels, logits, classes, patients)
    if len(classes) > MOST:
        return {}
    truth = auroc.one_hot(labels, len(classes))
    odds = metrics.log_odds(labels, logits)
    people = Patients.of(patients)
    by_name: dict[str, Score] = {}
    for kind, curve in (("roc", sensitivity), ("pr", precision)):
        each = []
        for i, name in enumerate(classes):
            points = curve(truth[:, i], odds[:, i], people, name)
            each.append(points)
            named = {name_of(kind, name, g): score for g, score in enumerate(points)}
            by_name |= named
        # A mean over the classes that have a curve would be of another thing.
        if all(each):
            for g, points in enumerate(zip(*each, strict=True)):
                reasons = dict.fromkeys(p.reason for p in points if p.reason)
                mean = limits.average(points)._replace(reason="; ".join(reasons))
                by_name[name_of(kind, MACRO, g)] = mean
    return by_name


def sensitivity(
    truth: np.ndarray, odds: np.ndarray, patients: Patients, name: str = ""
) -> list[Score]:
    """The sensitivity at each false positive rate of GRID; [] where one side is missing.

    truth [n] is 1, 0 or NaN; odds [n] are higher for positive. Between thresholds a
    curve is straight, as in the AUROC that counts ties as a half.
    """
    fpr, tpr = rates(truth, odds)
    if not len(fpr):
        return []
    positive, negative = truth == 1, truth == 0
    m, n = int(positive.sum()), int(negative.sum())
    having = {1: patients.having(positive), 0: patients.having(negative)}
    falling = -np.sort(-odds[negative])
    points, scarce = [], few(name, having)
    for place in GRID:
        reason = scarce or _edge(place, having[0], "without")
        value = float(np.interp(place, fpr, tpr))
        # 1e-9: 0.7 of 90 is 62.99999999999999 in floats, and would be the 62nd.
        cut = falling[min(math.floor(place * n + 1e-9), n - 1)]
        effect = np.zeros(len(truth))
        effect[positive] = ((odds > cut)[positive] - value) / m
        # The threshold is estimated from the negatives; the slope says what that adds.
        beyond = (odds[negative] > cut) - place
        effect[negative] = -_slope(place, fpr, tpr, having[0]) * beyond / n
        points.append(_limited(value, effect, positive, patients, reason))
    return points


def precision(
    truth: np.ndarray, odds: np.ndarray, patients: Patients, name: str = ""
) -> list[Score]:
    """The precision at each recall of GRID, as scikit-learn's curve has it; [] as above.

    It is that of the highest threshold that reaches the recall.
    """
    fpr, tpr = rates(truth, odds)
    if not len(fpr):
        return []
    positive, negative = truth == 1, truth == 0
    m, n = int(positive.sum()), int(negative.sum())
    having = {1: patients.having(positive), 0: patients.having(negative)}
    falling = -np.sort(-odds[positive])
    points, scarce = [], few(name, having)
    for place in GRID:
        reason = scarce or _edge(place, having[1], "with")
        # 1e-9: 0.55 of 100 is 55.00000000000001 in floats, and would be the 56th.
        cut = falling[max(math.ceil(place * m - 1e-9), 1) - 1]
        called = odds >= cut
        hits, wrong = (float(called[side].sum()) for side in (positive, negative))
        # Half a count where nothing is wrong, since the influence is on a logarithm.
        value, share = hits / (hits + wrong), max(wrong, 0.5) / n
        bend = _slope(place, tpr, fpr, having[1]) / share  # of log(wrong) by the recall
        effect = np.zeros(len(truth))
        effect[positive] = (1 + bend * (called[positive] - hits / m)) / m
        effect[negative] = called[negative] / -max(wrong, 1)
        effect *= value * (1 - value)
        points.append(_limited(value, effect, called, patients, reason))
    return points


def rates(truth: np.ndarray, odds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rates, sensitivities) at all thresholds, both rising from 0 to 1.

    Both empty where there is no positive, or no negative.
    """
    known = np.isfinite(truth)
    y, s = truth[known], odds[known]
    order = np.argsort(-s, kind="stable")
    y, s = y[order], s[order]
    # A threshold takes all images of one score, or none.
    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # of each score
    hits = np.concatenate([[0], np.cumsum(y)[last]]) if len(s) else np.zeros(1)
    wrong = np.concatenate([[0], last + 1 - hits[1:]]) if len(s) else np.zeros(1)
    if not hits[-1] or not wrong[-1]:
        return np.empty(0), np.empty(0)
    return wrong / wrong[-1], hits / hits[-1]


def _slope(place: float, x: np.ndarray, y: np.ndarray, patients: int) -> float:
    """dy / dx at x = place, between two places a standard error of x or more apart."""
    # Within a standard error the steps of a curve are noise.
    wide = max(SPREAD, 2 * math.sqrt(place * (1 - place) / patients))
    low, high = max(place - wide, 0.0), min(place + wide, 1.0)
    ends = np.interp([low, high], x, y)
    return float((ends[1] - ends[0]) / (high - low))


def _edge(place: float, patients: int, side: str) -> str:
    """Why a place has no limits: its threshold rests on too few patients."""
    if place * patients >= BEYOND:
        return ""
    return f"fewer than {BEYOND} patients {side} the finding beyond the threshold"


def _limited(
    value: float,
    effect: np.ndarray,
    counted: np.ndarray,
    patients: Patients,
    reason: str,
) -> Score:
    """Mid-P limits of as many images as vary as much as the influences do.

    counted: bool [n], the images that the value is a share of.
    """
    sums = patients.sums(effect)
    if reason:
        return Score(value, reason=reason, sums=sums)
    # As if the images of a patient were all alike; the influences may say less.
    worth = float(counted.sum()) / max(patients.images_each(counted), 1.0)
    spread, t = limits.variance(sums), -scipy.special.stdtrit(patients.count - 1, 0.025)
    if not 0 < value < 1:  # no image's weight moves it: limits of the count alone
        sums = np.zeros_like(sums)
    elif spread:
        worth = min(worth, value * (1 - value) / spread * (Z / t) ** 2)
    worth = max(worth, 1.0)
    return Score(value, *limits.mid_p(value * worth, worth), sums=sums)
