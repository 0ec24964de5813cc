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

from collections.abc import Sequence

import numpy as np
import scipy  # scipy.special

from bigxfer.statistics import auroc, influence, limits, metrics
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import Score, Z
from bigxfer.statistics.proportions import mid_p
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
    odds = auroc.log_odds(labels, logits)
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
    values = np.interp(GRID, fpr, tpr)
    falling = -np.sort(-odds[negative])
    # 1e-9: 0.7 of 90 is 62.99999999999999 in floats, and would be the 62nd.
    at = np.floor(GRID * n + 1e-9).astype(int)
    cut = falling[np.minimum(at, n - 1)]
    above = odds > cut[:, None]  # [g, n]
    # The threshold is estimated from the negatives; the slope says what that adds.
    slopes = _slopes(fpr, tpr, having[0])[:, None]
    effects = np.where(
        positive, (above - values[:, None]) / m, -slopes * (above - GRID[:, None]) / n
    )
    effects *= positive | negative  # an image whose label is unknown has none
    reasons = _reasons(few(name, having), having[0], "without")
    return _limited(values, effects, positive[None], patients, reasons)


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
    # 1e-9: 0.55 of 100 is 55.00000000000001 in floats, and would be the 56th.
    at = np.ceil(GRID * m - 1e-9).astype(int)
    cut = falling[np.maximum(at, 1) - 1]
    called = odds >= cut[:, None]  # [g, n]
    hits, wrong = (
        (called @ side.astype(float))[:, None] for side in (positive, negative)
    )
    values = hits / (hits + wrong)
    # Half a count where nothing is wrong, since the influence is on a logarithm.
    share = np.maximum(wrong, 0.5) / n
    # The slope of log(wrong) by the recall.
    bend = _slopes(tpr, fpr, having[1])[:, None] / share
    effects = np.where(
        positive,
        (1 + bend * (called - hits / m)) / m,
        called / -np.maximum(wrong, 1),
    )
    # An image whose label is unknown has none.
    effects *= values * (1 - values) * (positive | negative)
    reasons = _reasons(few(name, having), having[1], "with")
    return _limited(values[:, 0], effects, called, patients, reasons)


def prevalence(labels: np.ndarray, classes: int) -> np.ndarray:
    """The share of positives among the known labels of each class [k]; NaN of none known.

    It is the precision that a classifier without skill has at every recall.
    """
    truth = auroc.one_hot(labels, classes)
    known = np.isfinite(truth).sum(axis=0)
    return auroc.ratio(np.nansum(truth, axis=0), known)


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


def _slopes(x: np.ndarray, y: np.ndarray, patients: int) -> np.ndarray:
    """dy / dx at each x of GRID [g], between two places a standard error or more apart."""
    # Within a standard error the steps of a curve are noise.
    wide = np.maximum(SPREAD, 2 * np.sqrt(GRID * (1 - GRID) / patients))
    low, high = np.maximum(GRID - wide, 0.0), np.minimum(GRID + wide, 1.0)
    return (np.interp(high, x, y) - np.interp(low, x, y)) / (high - low)


def _reasons(scarce: str, patients: int, side: str) -> list[str]:
    """Why each place has no limits: its threshold rests on too few patients; or ""."""
    beyond = f"fewer than {BEYOND} patients {side} the finding beyond the threshold"
    return [scarce or (beyond if g * patients < BEYOND else "") for g in GRID]


def _limited(
    values: np.ndarray,
    effects: np.ndarray,
    counted: np.ndarray,
    patients: Patients,
    reasons: Sequence[str],
) -> list[Score]:
    """Mid-P limits of as many images as vary as much as the influences do.

    values [g] at the places, effects [g, n] of the images, counted: bool [g, n] or
    [1, n], the images that a value is a share of.
    """
    sums = patients.table(effects)
    sizes = patients.table(counted)
    # As if the images of a patient were all alike; the influences may say less.
    worth = counted.sum(axis=1) / np.maximum(influence.images_each(sizes), 1.0)
    t = -scipy.special.stdtrit(patients.count - 1, 0.025)
    spread = influence.variances(sums, patients.count)
    within = (values > 0) & (values < 1)
    by_spread = np.full(len(values), np.inf)
    np.divide(values * (1 - values), spread, out=by_spread, where=spread > 0)
    worth = np.where(within, np.minimum(worth, by_spread * (Z / t) ** 2), worth)
    worth = np.maximum(worth, 1.0)
    low, high = mid_p(values * worth, worth)
    return [
        Score(float(values[g]), reason=reason, sums=sums[g])
        if reason
        # Of a share of 0 or 1 no image's weight moves it: limits of the count alone.
        else Score(
            float(values[g]),
            float(low[g]),
            float(high[g]),
            sums=sums[g] if within[g] else np.zeros_like(sums[g]),
        )
        for g, reason in enumerate(reasons)
    ]
