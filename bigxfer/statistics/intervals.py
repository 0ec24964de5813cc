"""Intervals and tests over test patients and few-shot draws.

The design is crossed: every run scores every patient, so patients and draws are
resampled independently of each other (Owen & Eckles, arXiv 1106.2125), and two
models are compared on the same resamples. Draws alone would cover 60 to 70% at a
nominal 95%, patients alone 87 to 94%.

Names of shapes: r resamples, n test images, d draws. The same seed always gives the
same resamples of the same patients, which is what pairs two calls.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

CHUNK = 1 << 17  # weights made at once: 1 MB, which stays in the cache of a core
SMALLEST = -300.0  # the logarithm of the least tail that a p is told for
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
    rows = max(1, CHUNK // max(len(patient), count))
    for start in range(0, resamples, rows):
        c = min(rows, resamples - start)
        drawn = rng.integers(count, size=(c, count))
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


def over_draws(samples: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means [r] over draws resampled anew in every row of samples [r, d]."""
    r, d = samples.shape
    # Another stream than that of the patients, so that the two stay independent.
    rng = np.random.default_rng([seed, 1])
    rows = np.arange(r)[:, None]
    return samples[rows, rng.integers(d, size=(r, d))].mean(axis=1)


def percentile(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of samples [r], without its NaN; NaN if none is left."""
    kept = samples[np.isfinite(samples)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(samples: np.ndarray) -> float:
    """Two-sided bootstrap p of "no effect" from resampled effects [r].

    Twice the smaller tail at 0, with one added to both counts so that no finite
    number of resamples yields 0 (Davison & Hinkley 1997, section 4.2).
    """
    kept = samples[np.isfinite(samples)]
    if not len(kept):
        return float("nan")
    tail = min(np.sum(kept <= 0), np.sum(kept >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(kept) + 1)))


def t_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of values [d]; NaN where d < 2."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return float("nan"), float("nan")
    se = values.std(ddof=1) / np.sqrt(len(values))
    half = se * scipy.special.stdtrit(len(values) - 1, (1 + level) / 2)
    return float(values.mean() - half), float(values.mean() + half)


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means with its interval and its p against 0."""

    value: float
    low: float
    high: float
    p: float
    draws: int
    method: str  # "t", "patients", "draws", "crossed", or "none" if nothing varies


def estimate(
    points: np.ndarray,
    samples: np.ndarray | None = None,
    patients: int = 0,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The mean over draws, with an interval over draws and test patients.

    points [d] are the metric of each draw on the whole test set; samples [r, d] the
    same on resampled patients (one resample a row, shared by all draws), or None
    where no predictions are kept; `patients` their number, 0 for many. From FEW
    draws on the interval is the percentile one of the crossed bootstrap. Below, it
    is Student's over draws and over patients, the half-widths squared and added;
    in simulations of 95% it covered 94 to 99% from 2 draws on.
    One draw leaves only the patients. Raises ValueError for NaN points.
    """
    points = np.asarray(points, float)
    d = len(points)
    if not d or not np.isfinite(points).all():
        raise ValueError(f"the metric of every draw must be a number: {points}")
    value = float(points.mean())
    if samples is not None:
        samples = samples[np.isfinite(samples).all(axis=1)]
        if not len(samples):
            samples = None
    if d < 2 and samples is None:
        return Estimate(value, float("nan"), float("nan"), float("nan"), d, "none")
    if d < 2 and samples is not None:
        effect, method = samples[:, 0], "patients"
    elif d < FEW:
        low, high, p = _mover(points, samples, patients, level)
        return Estimate(value, low, high, p, d, "t")
    elif samples is None:
        indices = np.random.default_rng([seed, 1]).integers(d, size=(10_000, d))
        effect, method = points[indices].mean(axis=1), "draws"
    else:
        effect, method = over_draws(samples, seed), "crossed"
    return Estimate(value, *percentile(effect, level), p_value(effect), d, method)


def _mover(
    points: np.ndarray, samples: np.ndarray | None, patients: int, level: float
) -> tuple[float, float, float]:
    """(low, high, p): Student's half-widths over draws and over patients, squared
    and added (MOVER: Zou & Donner 2008, Statistics in Medicine 27:1693).

    Each part keeps its own degrees of freedom. Satterthwaite's, of the sum, are many
    where few draws happen to lie close together, and then cover 85 to 92%
    (benchmarks/coverage.py).
    """
    parts = variances(points, samples, patients)
    mean = float(points.mean())
    half = _half(parts, (1 - level) / 2)
    return mean - half, mean + half, _p(mean, parts)


def variances(
    points: np.ndarray, samples: np.ndarray | None, patients: int
) -> list[tuple[float, int]]:
    """[(variance of the mean, degrees of freedom)] of the draws and of the patients."""
    d, parts = len(points), []
    if d > 1:
        parts.append((points.var(ddof=1) / d, d - 1))
    if samples is not None:
        samples = samples[np.isfinite(samples).all(axis=1)]
        freedom = max((patients or len(samples)) - 1, 1)
        parts.append((samples.mean(axis=1).var(ddof=1), freedom))
    return parts


def t_test(points: np.ndarray, samples: np.ndarray | None, patients: int) -> float:
    """p of a mean of 0 from the same variances; NaN where there are none.

    The p of a bootstrap is no less than 2 / (resamples + 1), and Holm multiplies it by
    the number of pairs: of many pairs none could ever be told apart.
    """
    parts = variances(points, samples, patients)
    return _p(float(points.mean()), parts) if parts else float("nan")


def _half(parts: list[tuple[float, int]], tail: float) -> float:
    """Half the width of the interval that leaves `tail` on either side."""
    return math.hypot(*(np.sqrt(v) * scipy.special.stdtrit(f, tail) for v, f in parts))


def _p(mean: float, parts: list[tuple[float, int]]) -> float:
    """Twice the tail whose interval around the mean just reaches 0."""
    if not mean or not sum(v for v, _ in parts):  # a model less itself, say
        return 0.0 if mean else 1.0

    def reach(log_tail: float) -> float:
        return _half(parts, np.exp(log_tail)) - abs(mean)

    if reach(SMALLEST) < 0:
        return 0.0
    from scipy.optimize import brentq  # here: 20 MB that no run needs

    return float(2 * np.exp(brentq(reach, SMALLEST, np.log(0.5), xtol=1e-10)))


def paired(
    a: np.ndarray,
    b: np.ndarray,
    samples_a: np.ndarray | None = None,
    samples_b: np.ndarray | None = None,
    patients: int = 0,
    seed: int = 0,
) -> Estimate:
    """a - b on the same draws and the same test images, as `estimate` takes them.

    Entry i of both is the same draw, and row j of both the same resample.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} draws are not pairs")
    both = samples_a is not None and samples_b is not None
    samples = samples_a - samples_b if both else None
    return estimate(a - b, samples, patients, seed)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values of one family; NaN stays out of it."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The interquartile mean: the mean without the int(n/4) least and most.

    As in rliable (arXiv 2108.13264), which takes scipy's trim_mean at 0.25.
    """
    scores = np.sort(np.asarray(scores, float), axis=axis)
    n = scores.shape[axis]
    return np.take(scores, range(n // 4, n - n // 4), axis=axis).mean(axis=axis)


def iqm_interval(
    tasks: Sequence[np.ndarray], resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """The IQM over all draws of all tasks, by a bootstrap stratified by task.

    tasks: for each task its scores [d], or paired differences of scores.
    """
    rng = np.random.default_rng([seed, 2])
    tasks = [np.asarray(t, float) for t in tasks]
    drawn = [t[rng.integers(len(t), size=(resamples, len(t)))] for t in tasks]
    samples = iqm(np.concatenate(drawn, axis=1))
    value = float(iqm(np.concatenate(tasks)))
    draws = min(len(t) for t in tasks)
    return Estimate(value, *percentile(samples), p_value(samples), draws, "draws")
