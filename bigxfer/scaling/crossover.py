"""The scale at which A overtakes B: shots, or upstream examples.

    result = crossover(shots, errors_a, errors_b)
    print(result)     # A overtakes B at 18 (95% interval 6 to above 250) ...

D(n) = error of B - error of A, on the same target patients and the same draws; A
overtakes B where D rises through 0 for good. With a few hundred patients a crossing is known to
a factor of ten at best, so an interval that is open at one end, or at both, is a normal
result, and a crossing outside the measured scales is never reported as measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.scaling.bootstrap import refit, smooth_sigma, t_deviations
from bigxfer.scaling.fit import fit
from bigxfer.scaling.forms import Array, Form
from bigxfer.statistics.intervals import means


@dataclass(frozen=True)
class Crossover:
    """The scale from which A stays ahead of B, up to the largest measured.

    `value` and the interval `low`, `high` are scales x; 0 means below the smallest
    measured scale, inf above the largest. `inside` is the share of replicates with a
    crossing within the data. `difference` [k, 3] is D with its pointwise interval;
    `sign_changes` counts those of the observed D (1 is a clean crossing, more may be
    noise or several); `by` says how the crossing was found.
    """

    x: Array
    difference: Array
    value: float
    low: float
    high: float
    inside: float
    sign_changes: int
    by: str
    level: float

    @property
    def measured(self) -> bool:
        """Whether the crossing lies within the data."""
        return bool(0 < self.value < np.inf)

    def __str__(self) -> str:
        first, last = (f"{end:.3g}" for end in (self.x.min(), self.x.max()))
        low = f"{self.low:.3g}" if self.low > 0 else f"below {first}"
        high = f"{self.high:.3g}" if self.high < np.inf else f"above {last}"
        interval = f"{self.level:.0%} interval {low} to {high}"
        if self.low == self.high:  # every replicate agrees on one side
            interval = f"{self.level:.0%} interval wholly outside {first} to {last}"
        if self.measured:
            text = f"A overtakes B at {self.value:.3g}"
        elif self.value == 0:
            text = f"not within the data: A is ahead of B from {first} to {last}"
        else:
            text = f"not within the data: A is behind B at {last}"
        if self.sign_changes > 1:
            interval += f"; the observed D changes sign {self.sign_changes} times"
        inside = f"{self.inside:.0%} of replicates cross inside"
        return f"{text} ({interval}; {inside}; by {self.by})"


def crossover(
    x: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    form: Form | None = None,
    patients: ArrayLike | None = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Crossover:
    """Crossed paired bootstrap of the crossing of errors a and b.

    a, b: errors [draws, k], or [draws, k, images] on the same test images; row r of
    both is the same support draw, NaN where a run is missing. x [k] > 0. `patients`
    [images] names the patient of each image (default: each image its own).
    form None: D is interpolated in ln x; else the crossing
    is that of two fits of `form`, narrower by half where the form holds. Either is
    repeated in each replicate. There is no straight line of D on ln x here: where D
    bends, as between two power laws, its 95% interval covers 0 to 85%.
    Raises ValueError for shapes that do not pair, fewer than 2 draws or scales.
    """
    x = np.asarray(x, float)
    both = np.stack(_paired(x, a, b))
    mean, deviation = crossed_replicates(both, replicates, seed, patients)
    # the undisturbed curves ride along as replicate 0
    curves = np.concatenate([_over_draws(_over_images(both))[None], mean])
    deviation = np.concatenate([np.zeros_like(deviation[:1]), deviation])
    if form is not None:
        if not (curves[0] > 0).all():
            raise ValueError("crossover: a law needs mean errors above 0; form=None")
        curves = np.maximum(curves, 1e-3 * curves[0])  # no error in any resampled image
        curves = curves * np.exp(deviation / curves)
        return from_replicates(x, curves[:, 0], curves[:, 1], form=form, level=level)
    curves = curves + deviation
    return from_replicates(x, curves[:, 0], curves[:, 1], level=level)


def from_replicates(
    x: ArrayLike, a: Array, b: Array, *, form: Form | None = None, level: float = 0.95
) -> Crossover:
    """Crossing from replicates of two error curves a, b [1 + replicates, k].

    Row 0 holds the estimates, the other rows paired replicates of any metric (say
    1 - AUROC from a bootstrap over patients). `form` as in `crossover`.
    """
    x = np.asarray(x, float)
    a, b = a[:, order := np.argsort(x)], b[:, order]
    x, d = x[order], b - a
    if form is None:
        by, grid, fitted = "interpolation", np.log(x), d
    else:
        by = f"two fits of {form.name}"
        grid = np.linspace(np.log(x[0]), np.log(x[-1]), 201)
        fitted = _refitted(form, x, b, grid) - _refitted(form, x, a, grid)
    root = lasting_lead(grid, fitted)
    tail = (1 - level) / 2
    # quantiles that are replicates: no averaging with an infinite one
    low = np.quantile(root[1:], tail, method="lower")
    high = np.quantile(root[1:], 1 - tail, method="higher")
    band = np.quantile(d[1:], [tail, 1 - tail], axis=0)
    signs = np.sign(d[0])[d[0] != 0]
    return Crossover(
        x=x,
        difference=np.stack([d[0], *band], 1),
        value=float(np.exp(root[0])),
        low=float(np.exp(low)),
        high=float(np.exp(high)),
        inside=float(np.mean(np.isfinite(root[1:]))),
        sign_changes=int(np.sum(signs[1:] != signs[:-1])),
        by=by,
        level=level,
    )


def lasting_lead(grid: Array, d: Array) -> Array:
    """Where each row of d [m, n] becomes positive for good, on ascending grid [n].

    -> [m]; -inf where d > 0 throughout, inf where d <= 0 at the end.
    """
    above = d > 0
    last = d.shape[1] - 1 - np.argmin(above[:, ::-1], 1)  # the last point not above
    rows, right = np.arange(len(d)), np.minimum(last + 1, d.shape[1] - 1)
    crosses = above[:, -1] & ~above.all(1)
    rise = np.where(crosses, d[rows, right] - d[rows, last], 1.0)
    root = grid[last] - d[rows, last] / rise * (grid[right] - grid[last])
    return np.where(crosses, root, np.where(above[:, -1], -np.inf, np.inf))


def crossed_replicates(
    errors: Array,
    replicates: int,
    seed: int,
    patients: ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Resample patients and draws independently, the same for all models and scales.

    errors [models, draws, k] or [models, draws, k, images] -> (mean over draws and
    resampled patients, t-distributed deviation of that mean over draws), both
    [replicates, models, k]. Adding both is mildly conservative (arXiv 1106.2125).
    """
    models, draws, k = errors.shape[:3]
    if draws < 2:
        raise ValueError("crossover: one draw gives no interval; repeat with others")
    point = _over_images(errors)
    rng = np.random.default_rng([seed, 1])  # apart from the stream of the patients
    if errors.ndim == 4:
        images = errors.shape[3]
        names = np.arange(images) if patients is None else np.asarray(patients)
        if len(names) != images:
            raise ValueError(f"crossover: {len(names)} patients for {images} images")
        flat = np.where(np.isfinite(errors), errors, 0.0).reshape(-1, images)
        table = means(flat, names, replicates, seed).reshape(-1, models, draws, k)
        table = np.where(np.isfinite(point), table, np.nan)
    else:
        table = np.broadcast_to(point, (replicates, models, draws, k))
    return _over_draws(table), t_deviations(point.swapaxes(0, 1), replicates, rng)


# ---- inside ------------------------------------------------------------------------


def _paired(x: Array, a: ArrayLike, b: ArrayLike) -> Sequence[Array]:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim not in (2, 3) or a.shape[1] != len(x):
        raise ValueError(
            f"crossover: a {a.shape} and b {b.shape} must both be [draws, {len(x)}] or "
            f"[draws, {len(x)}, images], paired row by row"
        )
    if len(np.unique(x)) < 2 or not (np.isfinite(x) & (x > 0)).all():
        raise ValueError("crossover: x needs two different positive scales at least")
    missing = ~(np.isfinite(a) & np.isfinite(b))
    if a.ndim == 3:
        missing = np.broadcast_to(missing.any(2, keepdims=True), a.shape)
    empty = missing.reshape(len(a), len(x), -1).all((0, 2))
    if empty.any():
        raise ValueError(f"crossover: no draw has both at x = {x[empty][0]:g}")
    return np.where(missing, np.nan, a), np.where(missing, np.nan, b)


def _over_images(errors: Array) -> Array:
    return errors if errors.ndim == 3 else errors.mean(-1)


def _over_draws(table: Array) -> Array:
    """[..., draws, k] with NaN -> [..., k]."""
    present = np.isfinite(table)
    return np.where(present, table, 0.0).sum(-2) / np.maximum(present.sum(-2), 1)


def _refitted(form: Form, x: Array, curves: Array, grid: Array) -> Array:
    """Fit row 0 of curves [m, k], refit the others -> y on exp(grid) [m, n]."""
    law = fit(form, x, curves[0], sigma=smooth_sigma(x, np.log(curves[1:]).std(0)))
    theta = refit(law, curves[1:])
    return np.exp(form.log_y(np.concatenate([law.theta[None], theta]), np.exp(grid)))
