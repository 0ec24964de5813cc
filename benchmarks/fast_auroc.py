"""The macro AUROC of many heads on the same images, by sorting alone: for heads.py.

bigxfer reports what metrics.compute gives, which is exact and has intervals; this is its
point value to about 1e-6, a hundred times as fast.
"""

import numpy as np

TOP = np.int32(0x7FFFFFFF)


def macro_auroc(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the macro AUROC float64 [heads] of scores [heads, n, k], truth [n, k].

    Truth is 0, 1 or NaN (unknown, left out). Equal scores count a half. A class without
    a positive or a negative image is left out of the mean; without any left it is NaN.
    Scores are compared as float32 without their last bit.
    """
    areas = []
    for i, y in enumerate(truth.T):
        known = ~np.isnan(y)
        if (y == 1).any() and (y == 0).any():
            mine = scores[:, :, i] if known.all() else scores[:, known, i]
            areas.append(_areas(mine, y[known] == 1))
    if not areas:
        return np.full(len(scores), np.nan)
    return np.mean(areas, axis=0)


def _areas(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """AUROC [heads] of scores [heads, n], positive bool [n], by one sort a head.

    A float32 is made an int32 of the same order, and its last bit says whether the
    image is positive: the places of the ones after sorting are their ranks. A positive
    that ties with one negative alone comes after it, and half is taken off; where three
    or more tie, the areas of both orders are averaged.
    """
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.int32)  # no -0.0
    ordered = (bits ^ ((bits >> 31) & TOP)) & ~np.int32(1)
    keys = np.sort(ordered | positive, axis=1)
    pairs = positive.sum() * (~positive).sum()
    area = _area_of_sorted(keys, int(positive.sum()))
    ties = (keys[:, 1:] ^ keys[:, :-1]) == 1
    tied = ties.any(axis=1).nonzero()[0]
    if len(tied):
        area[tied] -= ties[tied].sum(axis=1) / (2 * pairs)
        three = (keys[tied, 2:] | 1) == (keys[tied, :-2] | 1)
        if len(many := tied[three.any(axis=1)]):
            first = _area_of_sorted(keys[many], int(positive.sum()))
            other = np.sort(ordered[many] | ~positive, axis=1) ^ 1
            area[many] = (first + _area_of_sorted(other, int(positive.sum()))) / 2
    return area


def _area_of_sorted(keys: np.ndarray, positives: int) -> np.ndarray:
    """The share of (positive, negative) pairs with the negative first; keys [h, n]."""
    heads, n = keys.shape
    places = np.flatnonzero((keys & 1).astype(bool))
    ranks = (
        places.reshape(heads, positives).sum(axis=1) - n * np.arange(heads) * positives
    )
    below = ranks - positives * (positives - 1) // 2
    return below / (positives * (n - positives))


def odds(scores: np.ndarray) -> np.ndarray:
    """Return the log-odds of each class under softmax, float32, of scores [..., k].

    As auroc.log_odds, for ranking: a gap of more than 87 counts as 87.
    """
    z = np.moveaxis(np.asarray(scores, np.float32), -1, 0)  # classes first: whole rows
    z = z - z.max(axis=0)
    e, out = np.exp(z), np.empty_like(z)
    for i in range(len(z)):  # the sum of the other classes, without cancellation
        others = sum(e[j] for j in range(len(z)) if j != i)
        np.log(np.maximum(others, np.finfo(np.float32).tiny), out=out[i])
    return np.moveaxis(np.subtract(z, out, out=out), 0, -1)
