"""How far the mean errors of a line may lie from the true ones: replicates of a curve.

Three crossed random factors move a mean curve: upstream seeds, few-shot draws (at full
data: fine-tunings) and test patients. Each moves it on its own, whole curves at a time,
because the points of one seed, draw or patient go together.

Names of shapes: U upstream seeds, D draws, k scales, r replicates.
"""

from dataclasses import dataclass

import numpy as np

from bigxfer.scaling.bootstrap import FAR, FEWEST, smooth_sigma, t_deviations
from bigxfer.scaling.forms import Array

# sd of the logarithm of a perfect cell's mean error: its 95% reach up to 3.5 errors, where
# the exact limit of none seen is 3.7 (Clopper and Pearson 1934, Biometrika 26:404)
UNSEEN = 1.0


@dataclass(frozen=True)
class Scatter:
    """The mean errors of a line [k], their relative standard deviations [k] as a power
    of the scale, and replicates of the means [r, k]; None where nothing varies."""

    mean: Array
    sigma: Array | None
    curves: Array | None
    words: str  # the factors that the replicates cover


def scatter(
    x: Array, errors: Array, half: Array, replicates: int, resampled: Array | None
) -> Scatter:
    """Replicates of the mean over upstream seeds and draws of errors [U, D, k].

    NaN marks a missing run. x [k] or [k, inputs]. A mean of 0 counts as half an error,
    `half` [k]: no law reaches 0, and leaving the cell out would keep only the unlucky
    test sets. `resampled` [r, k] are the mean errors on resampled test patients, and
    then set the number of replicates.

    The draws of a perfect cell agree, and do not say how far it may lie from the truth: its
    replicates have the deviation UNSEEN, which more draws on the same test set leave as it is.

    The deviations over upstream seeds and over draws add up. Each holds what is left of
    single runs, which is counted twice: mildly conservative (arXiv 1106.2125).
    """
    mean = _mean(errors, (0, 1))
    perfect = mean <= 0
    mean = np.where(perfect, half, mean)
    factors = [_mean(errors, (1,)), _mean(errors, (0,))]
    # two of one factor alone say next to nothing: then the scatter about a law does
    several = max(errors.shape[:2]) >= FEWEST
    factors = [f for f in factors if several and len(f) > 1]
    rng = np.random.default_rng([0, 1])
    size = replicates if resampled is None else len(resampled)
    moved, variance = np.zeros((size, len(mean))), np.zeros(len(mean))
    for values in factors:
        pooled = _pooled(x, values / mean)
        moved += t_deviations(values / mean, size, rng, pooled)
        variance += pooled**2 / np.maximum(np.isfinite(values).sum(0), 1)
    names = ("upstream seeds", "draws")
    counts = zip((errors.shape[0], errors.shape[1]), names, strict=True)
    words = [f"{n} {name}" for n, name in counts if n > 1]
    if not factors:
        return Scatter(mean, None, None, "")
    curves = np.tile(mean, (size, 1)) if resampled is None else resampled
    curves = np.maximum(curves, 1e-3 * mean)  # no error in any resampled image
    unseen = UNSEEN * rng.standard_normal(moved.shape)
    moved = np.where(perfect, unseen, np.clip(moved, -FAR, FAR))
    curves = np.where(perfect, mean, curves) * np.exp(moved)
    # Where all runs agree the weights of a fit are equal; only their ratios count.
    variance = variance if variance.any() else np.ones_like(variance)
    sigma = np.where(perfect, UNSEEN, np.sqrt(variance))
    return Scatter(mean, sigma, curves, " and ".join(words))


def _mean(values: Array, axes: tuple[int, ...]) -> Array:
    """The mean over axes of what is present, NaN where nothing is."""
    present = np.isfinite(values)
    total = np.where(present, values, 0.0).sum(axes)
    count = present.sum(axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _pooled(x: Array, values: Array) -> Array:
    """The standard deviation [k] of one of the values [n, k], as a power of x.

    Only scales with FEWEST values or more say what it is, where there are any. 0 where
    the values of each scale agree, 1 where no scale has two.
    """
    count = np.isfinite(values).sum(0)
    squares = np.where(np.isfinite(values), values - _mean(values, (0,)), 0.0) ** 2
    sd = np.sqrt(squares.sum(0) / np.maximum(count - 1, 1))
    if count.max() > 1 and not sd.any():
        return np.zeros_like(sd)
    enough = count >= min(FEWEST, count.max())
    return smooth_sigma(x if x.ndim == 1 else x[:, :2], np.where(enough, sd, np.nan))
