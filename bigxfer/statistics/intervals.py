"""Bootstraps over test patients, Student's interval, and Holm's adjustment.

Names of shapes: r resamples, n test images, d draws. The same seed always gives the
same resamples of the same patients, which is what pairs two calls. Intervals of metrics
are in limits.py, those over several random factors in crossed.py.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

CHUNK = 1 << 17  # weights made at once: 1 MB, which stays in the cache of a core
FEW = 10  # below so many draws a bootstrap of them is too narrow, and t is used


def patient_weights(
    patients: Sequence[str] | np.ndarray, resamples: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yields float64 weights [c, n], `resamples` rows in all, in bounded chunks.

    A row says how often each image counts where as many patients as there are were
    drawn with replacement; the images of one patient always move together.
    """
    _, patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if not len(patient):
        raise ValueError("no patient to resample")
    count = int(patient.max()) + 1
    rng = np.random.default_rng(seed)
    # The size of a chunk changes no weight: the numbers are drawn row by row.
    rows = max(1, CHUNK // max(len(patient), count))
    for start in range(0, resamples, rows):
        c = min(rows, resamples - start)
        drawn = rng.integers(count, size=(c, count))
        # Each row gets numbers of its own, so that one bincount serves all.
        drawn += np.arange(c)[:, None] * count
        weights = np.bincount(drawn.ravel(), minlength=c * count).reshape(c, count)
        yield weights.astype(np.float64)[:, patient]


def resample(
    statistic: Callable[[np.ndarray], np.ndarray],
    patients: Sequence[str] | np.ndarray,
    resamples: int,
    seed: int = 0,
) -> np.ndarray:
    """statistic(weights [c, n]) -> [c, ...], over all resamples of the patients."""
    chunks = patient_weights(patients, resamples, seed)
    return np.concatenate([statistic(weights) for weights in chunks])


def means(values: np.ndarray, patients: np.ndarray, resamples: int, seed: int = 0):
    """Resampled means [r, d] of values [d, n], such as 0 and 1 for wrong and right."""
    return resample(
        lambda w: w @ values.T / w.sum(1, keepdims=True), patients, resamples, seed
    )


def percentile(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of samples [r], without its NaN; NaN if none is left."""
    kept = samples[np.isfinite(samples)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of values [d]; NaN where d < 2."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan"), float("nan")
    se = values.std(ddof=1) / np.sqrt(len(values))
    half = se * scipy.special.stdtrit(len(values) - 1, (1 + level) / 2)
    return float(values.mean() - half), float(values.mean() + half)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values of one family; NaN stays out of it."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    # accumulate: a larger p is never told before a smaller one.
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted
