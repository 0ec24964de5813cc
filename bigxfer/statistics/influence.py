"""What one image adds to a metric: influence functions, from which variances follow.

The influence of an image is the derivative of the metric by the image's weight, with all
weights at 1. Influences sum to 0. Summed within patients and squared they give the
variance over patients (the infinitesimal jackknife: Efron 1981, Biometrika 68:589; for
AUROC with several images a patient: Obuchowski 1997, Biometrics 53:567). Products of the
influences of two runs on the same patients give their covariance.

Names of shapes: n test images, p patients.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Patients:
    """Which patient each image is of."""

    index: np.ndarray  # int [n], 0 to count - 1
    count: int

    @classmethod
    def of(cls, names: np.ndarray) -> "Patients":
        """The patients by their names [n]; they are numbered in the names' order."""
        # In the names' order, so that two runs on the same patients have sums in one.
        unique, index = np.unique(np.asarray(names, dtype=str), return_inverse=True)
        return cls(index, len(unique))

    def sums(self, influence: np.ndarray) -> np.ndarray:
        """Influences [n] summed within patients [p]."""
        return np.bincount(self.index, influence, self.count)

    def table(self, columns: np.ndarray) -> np.ndarray:
        """Each row of [g, n] summed within patients: float64 [g, p], `sums` of each."""
        g = len(columns)
        # One call for all rows: a row's patients are numbered after those before it.
        places = self.index + self.count * np.arange(g)[:, None]
        flat = np.bincount(places.ravel(), columns.ravel(), g * self.count)
        return flat.reshape(g, self.count)

    def having(self, rows: np.ndarray) -> int:
        """How many patients have at least one of the rows (bool [n])."""
        return int(np.count_nonzero(np.bincount(self.index[rows])))

    def images_each(self, rows: np.ndarray) -> float:
        """Images of a patient among the rows (bool, or counts [n]), the mean over images.

        It is the factor by which patients whose images are all alike enlarge a variance
        (Kish 1965, Survey Sampling, section 5.4).
        """
        return float(images_each(np.bincount(self.index, rows)))

    def variance(self, influence: np.ndarray) -> float:
        """The variance over patients of the metric with these influences [n]."""
        return variance(self.sums(influence))


def images_each(sizes: np.ndarray) -> np.ndarray:
    """`Patients.images_each` of sizes [..., p], the images of each patient: [...]."""
    return (sizes**2).sum(-1) / np.maximum(sizes.sum(-1), 1)


def variances(sums: np.ndarray, count: int) -> np.ndarray:
    """The variances [...] over `count` patients of metrics with these sums [..., p]."""
    # As of any sample: without count / (count - 1) 5 patients give a fifth too little.
    return (sums**2).sum(-1) * count / max(count - 1, 1)


def variance(sums: np.ndarray, count: int | None = None) -> float:
    """The variance of a metric from its influences summed within patients [p].

    `count`: how many of them the metric knows; all by default.
    """
    return float(variances(sums, len(sums) if count is None else count))


def of_mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Influences [n] on the sum of `values` over the sum of `known`, both [n].

    `known` counts the values of an image: 1 or 0, or several where it has several.
    """
    total = known.sum()
    return (values - known * (values.sum() / total)) / total


def of_auroc(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Influences [n] on the AUROC of truth [n] (0, 1, NaN) by scores [n].

    Those of the m positives are enlarged by sqrt(m / (m - 1)), those of the negatives
    likewise, so that the variance is DeLong's (1988, Biometrics 44:837).
    """
    positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    high = _share_below(scores[positive], scores[negative])
    low = 1 - _share_below(scores[negative], scores[positive])
    out = np.zeros(len(scores))
    for rows, place in ((positive, high), (negative, low)):
        m = len(rows)
        out[rows] = (place - place.mean()) / np.sqrt(m * max(m - 1, 1))
    return out


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each of `values` the share of `others` that score less, ties a half."""
    order = np.sort(others)
    # The mean of both sides counts a tie as a half, as the AUROC does.
    below = np.searchsorted(order, values, side="left")
    return (below + np.searchsorted(order, values, side="right")) / (2 * len(others))


def of_precision(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Influences [n] on the average precision of truth [n] (0, 1, NaN) by scores [n].

    Average precision is the mean over positives of hits / called, both counted at the
    positive's own score. An image counts among the called of every positive that scores
    no more than it does.
    """
    positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    positive = positive[np.argsort(scores[positive], kind="stable")]
    s, m = scores[positive], len(positive)
    hits = m - np.searchsorted(s, s, side="left")
    wrong = np.sort(scores[negative])
    # `left`: what ties with a positive is called at its threshold.
    called = hits + len(wrong) - np.searchsorted(wrong, s, side="left")
    precision = hits / called
    out = np.zeros(len(scores))

    def below(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Sums of the weights [m] of the positives that score no more than the rows."""
        sums = np.concatenate([[0], np.cumsum(weights)])
        return sums[np.searchsorted(s, scores[rows], side="right")]

    # Its own precision, and what it adds at the positives below it.
    out[positive] = precision - precision.mean()
    out[positive] += below((called - hits) / called**2, positive)
    out[negative] = -below(hits / called**2, negative)
    return out / m
