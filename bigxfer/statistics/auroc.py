"""AUROC and average precision on thousands of resamples, from one sorting.

Names of shapes: r resamples, n test images.
"""

from dataclasses import dataclass, replace

import numpy as np


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return float64 [n, classes] of 0, 1 and NaN, of labels int [n] or [n, classes]."""
    if labels.ndim == 2:
        return labels.astype(np.float64)
    return (labels[:, None] == np.arange(classes)).astype(np.float64)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, NaN where below is 0."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    return np.divide(above, below, out=out, where=below > 0)


@dataclass(frozen=True)
class Ranking:
    """One class's images sorted once, so that every resample costs two cumulative sums.

    positive, negative: rows by falling score. For each positive: `above` and `reach`,
    the negatives that score more, and at least as much; `reach_positive`, the
    positives that score at least as much.
    """

    positive: np.ndarray
    negative: np.ndarray
    above: np.ndarray
    reach: np.ndarray
    reach_positive: np.ndarray

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(AUROC [r], average precision [r]) for weights [r, n]; NaN where undefined.

        AUROC is the share of (positive, negative) pairs in the right order, ties a
        half. Average precision sums precision times the step of recall at distinct
        scores, which is the mean precision over positives; no interpolation. Both
        need a positive and a negative.
        """
        w = weights[:, self.positive]
        tp, fp = _cumulative(w), _cumulative(weights[:, self.negative])
        positives, negatives = tp[:, -1], fp[:, -1]
        # A tie is half a loss, so the mean of both counts.
        ahead, reached = fp[:, self.above], fp[:, self.reach]
        lost = np.einsum("rp,rp->r", w, ahead + reached) / 2
        hits = tp[:, self.reach_positive]
        # Where hits are 0 the positive itself has weight 0.
        precision = hits / np.maximum(hits + reached, np.finfo(float).tiny)
        auroc = 1 - ratio(lost, positives * negatives)
        ap = ratio(np.einsum("rp,rp->r", w, precision), positives)
        # Without a negative every order is perfect, and 1 would say nothing.
        return auroc, np.where(negatives > 0, ap, np.nan)


def micro(truth: np.ndarray, scores: np.ndarray) -> Ranking:
    """All entries of truth and scores [n, k] in one order, for weights of the n rows."""
    ranking, k = rank(truth.ravel(), scores.ravel()), truth.shape[1]
    # Entry e lies in row e // k, whose weight it has.
    return replace(
        ranking, positive=ranking.positive // k, negative=ranking.negative // k
    )


def rank(truth: np.ndarray, scores: np.ndarray) -> Ranking:
    """The Ranking of truth [n] (0, 1, NaN) by scores [n], higher for positive."""
    positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    positive = positive[np.argsort(-scores[positive], kind="stable")]
    negative = negative[np.argsort(-scores[negative], kind="stable")]
    p, q = -scores[positive], -scores[negative]  # ascending
    return Ranking(
        positive,
        negative,
        above=np.searchsorted(q, p, side="left"),
        reach=np.searchsorted(q, p, side="right"),
        reach_positive=np.searchsorted(p, p, side="right"),
    )


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """[r, m] -> [r, m + 1]: entry i is the sum of the first i."""
    # One entry more, so that "none of them" has an index.
    out = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=out[:, 1:])
    return out


def log_odds(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """float64 [n, k]: log(p / (1 - p)) of the probability of each class.

    What every ranking and every threshold goes by. Where the largest logit is 37 above
    the others its probability is 1 in float64, and even its logarithm is 0, so that
    such images would be tied; log-odds tell them apart. They are exact functions of the
    gaps between an image's logits: rows that differ by a shift, or by the order of the
    other classes, tie exactly. A multi-label logit is its own log-odds.
    """
    logits = np.asarray(logits, np.float64)
    if labels.ndim == 2:
        return logits
    gaps = logits - logits.max(axis=1, keepdims=True)
    largest = gaps == 0
    # All but one largest. Sorted, so that the same gaps in another order sum alike.
    others = np.sort(gaps, axis=1)[:, :-1]
    total = np.exp(others).sum(axis=1, keepdims=True)
    odds = gaps - np.log1p(total - np.where(largest, 0, np.exp(gaps)))
    return np.where(largest, -np.logaddexp.reduce(others, axis=1, keepdims=True), odds)
