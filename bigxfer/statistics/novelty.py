"""Whether an image is unlike the training set: a distance between features, and its alarms.

The distance is Mahalanobis's from the mean of the training images (Lee et al. 2018,
1807.03888, without classes), of features divided by their length (Mueller and Hein 2025,
2505.18032), with the covariance shrunk by Ledoit and Wolf's rule (2004, Journal of
Multivariate Analysis 88:365), since there may be fewer images than features. The threshold is an order
statistic of validation distances, so that its rate of false alarms is known.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

RATE = 0.05  # of images like the training set that may be flagged
LEAST_TRAINING = 10  # images; of fewer a covariance says nothing
LEAST_VALIDATION = 40  # images; of fewer the rate of alarms is anything below 15%


@dataclass(frozen=True)
class Known:
    """The features of a training set, and how far from them validation images lie."""

    mean: np.ndarray  # float32 [features], of features of length 1
    precision: np.ndarray  # float32 [features, features], the inverse covariance
    threshold: float  # a distance; above it an image is flagged
    training: int  # images
    validation: int  # images
    patients: int  # of the validation images

    def distances(self, features: np.ndarray) -> np.ndarray:
        """float [n] of features [n, f], in multiples of the threshold."""
        return distances(features, self.mean, self.precision) / self.threshold

    def false_alarms(self) -> tuple[float, float, float]:
        """(rate, low, high): how many images like the validation images are flagged.

        The share above the k-th of n independent values is Beta(n + 1 - k, k). Images of
        one patient are alike: the limits are those of as many images as patients.
        """
        alarms = 1 - rank(self.validation) / (self.validation + 1)
        worth = self.patients + 1
        ends = [
            float(special.betaincinv(alarms * worth, (1 - alarms) * worth, tail))
            for tail in (0.025, 0.975)
        ]
        return alarms, ends[0], ends[1]


def rank(images: int) -> int:
    """Return which of `images` distances, from the smallest up, is the threshold."""
    return math.ceil((1 - RATE) * (images + 1))


def check(training: int, validation: int) -> None:
    """Raise ValueError where these numbers of images are too few."""
    if training < LEAST_TRAINING or validation < LEAST_VALIDATION:
        raise ValueError(
            f"it has {training} training and {validation} validation images, and"
            f" {LEAST_TRAINING} and {LEAST_VALIDATION} are needed"
        )


def fit(training: np.ndarray, validation: np.ndarray, patients: np.ndarray) -> Known:
    """Fit features float [n, f] of both; patients [m] are those of `validation`.

    Raises ValueError where there are too few images.
    """
    check(len(training), len(validation))
    from sklearn.covariance import ledoit_wolf  # slow to import

    unit = of_length_one(training)
    mean = unit.mean(axis=0).astype(np.float32)  # as kept: the threshold is of these
    covariance, _ = ledoit_wolf(unit - unit.mean(axis=0), assume_centered=True)
    precision = np.linalg.inv(covariance).astype(np.float32)
    ranked = np.sort(distances(validation, mean, precision))
    return Known(
        mean,
        precision,
        float(ranked[rank(len(ranked)) - 1]),
        len(training),
        len(validation),
        len(np.unique(patients.astype(str))),
    )


def of_length_one(features: np.ndarray) -> np.ndarray:
    values = np.asarray(features, np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def distances(
    features: np.ndarray, mean: np.ndarray, precision: np.ndarray
) -> np.ndarray:
    away = of_length_one(features) - mean
    squares = np.einsum(
        "ij,jk,ik->i", away, precision.astype(np.float64), away, optimize=True
    )
    return np.sqrt(np.maximum(squares, 0))
