"""Fit a law to errors at several scales, with intervals and held-out model choice.

    law = fit(M2, shots, errors)              # errors [shots] or [draws, shots]
    intervals = bootstrap(law)                # in bootstrap.py
    intervals.parameters["c"]                 # (value, low, high)
    choose(CURVES.values(), sizes, errors)[0] # the form that extrapolates

Residuals are ln(predicted) - ln(observed), so relative errors; the loss is Huber's.
Many starts, and all replicates of a bootstrap, are solved at once by one batched
Levenberg-Marquardt iteration.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigxfer.scaling.forms import Array, Form
from bigxfer.scaling.solver import Objective, minimise

# Huber's threshold in relative error: between the scatter of few-shot means (up to 0.1
# in the published runs of arXiv 2106.00116) and that of a failed run. Chinchilla's
# 1e-3 suits single runs of language models and is nearly an L1 fit here.
DELTA = 0.1
# A restart looks for a better optimum, and costs as much as the first search. It is left
# out where this share of the starts already ended at the same one.
SETTLED = 0.75
# A form of more parameters is taken only if it misses the held-out scales by less than
# this share of what the simpler form misses them by: one or two held-out scales are few,
# and of five forms one is lucky (benchmarks/fits_published.py, learning curves).
CLEAR = 0.5
TIE = 1e-4  # a gain in ln y below it is rounding


@dataclass(frozen=True)
class Fit:
    """One fitted law.

    theta [p]; objective value; `agreement`, the share of starts that ended at this
    optimum (near 0: trust it little, raise `starts`); `basins` [k, p], the best
    distinct optima, from which replicates are refitted; the data, for the bootstrap.
    """

    form: Form
    theta: Array
    value: float
    agreement: float
    basins: Array
    objective: Objective
    y: Array

    @property
    def parameters(self) -> dict[str, float]:
        return {k: float(v) for k, v in self.form.natural(self.theta).items()}

    @property
    def at_bounds(self) -> list[str]:
        """The parameters that ended at a bound of the search, which is no result."""
        low, high = self.objective.low, self.objective.high
        near = 1e-6 * (high - low)
        held = (self.theta <= low + near) | (self.theta >= high - near)
        names = self.form.natural(self.theta)
        return [name for name, at in zip(names, held & (low < high), strict=True) if at]

    def predict(self, x: ArrayLike) -> Array:
        """x [n] or [n, inputs] -> predicted y [n]."""
        return np.exp(self.form.log_y(self.theta[None], np.asarray(x, float))[0])

    def rmse(self, x: ArrayLike, y: ArrayLike) -> float:
        """Root mean square of ln(predicted) - ln(y)."""
        return float(np.sqrt(np.mean(np.log(self.predict(x) / np.asarray(y)) ** 2)))


def fit(
    form: Form,
    x: ArrayLike,
    y: ArrayLike,
    *,
    sigma: ArrayLike | None = None,
    delta: float = DELTA,
    link: Callable[[Array], Array] = np.log,
    starts: int = 64,
) -> Fit:
    """Fit `form` to y [n], or to the mean over draws of y [draws, n] (NaN: missing).

    x [n] or [n, inputs] > 0; sigma [n] are standard deviations of ln y (a point of
    twice the sigma counts for a quarter); `link` is the scale of the residuals.
    Raises ValueError for data that are not positive, or fewer than the parameters.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    curve = _checked(form, x, y)
    scale = np.ones(len(curve))
    if sigma is not None:
        sigma = np.asarray(sigma, float)
        if sigma.shape != curve.shape or not (sigma > 0).all():
            raise ValueError("fit: sigma must be positive, one for each scale")
        # By the median: delta stays a relative error at any level of sigma.
        scale = np.median(sigma) / sigma
    columns = form.columns(x)
    low, high = np.array(form.bounds(curve, *columns), float).T
    objective = Objective(form, x, scale, delta, link, low, high)
    rng = np.random.default_rng(0)  # the same data give the same fit
    theta, cost = _restart(objective, curve, form.starts(rng, starts, curve, *columns))
    for _ in range(3):  # fresh restarts, around the best and anywhere
        if _agreement(cost) >= SETTLED:
            break
        spread = rng.normal(0, 0.3, (starts, theta.shape[1])) * np.maximum(
            0.1, np.abs(theta[0])
        )
        fresh = form.starts(rng, starts, curve, *columns)
        # Half near the best, for a basin that was missed narrowly; half anywhere.
        fresh[::2] = (theta[0] + spread)[::2]
        more, more_cost = _restart(objective, curve, fresh)
        improved = more_cost[0] < cost[0] * (1 - 1e-6) - 1e-15
        order = np.argsort(np.append(cost, more_cost), kind="stable")
        theta = np.concatenate([theta, more])[order]
        cost = np.append(cost, more_cost)[order]
        if not improved:
            break
    distinct = np.append(True, np.diff(cost) > 1e-3 * cost[1:] + 1e-15)
    basins = theta[distinct & np.isfinite(cost)][:3]
    value, agreement = float(cost[0]), _agreement(cost)
    return Fit(form, theta[0], value, agreement, basins, objective, y)


def _agreement(cost: Array) -> float:
    """The share of starts, the best first, that ended at the best one's cost."""
    return float(np.mean(cost <= cost[0] * (1 + 1e-6) + 1e-15))


def _checked(form: Form, x: Array, y: Array) -> Array:
    columns = form.columns(x)
    if y.shape[-1] != len(x) or y.ndim > 2:
        raise ValueError(f"fit: y has shape {y.shape}, x {x.shape}")
    if not np.isfinite(x).all() or not all((c > 0).all() for c in columns[:2]):
        raise ValueError(
            "fit: every x must be positive and finite (a distance: finite)"
        )
    curve = y if y.ndim == 1 else draw_mean(y)
    bad = np.flatnonzero(~(np.isfinite(curve) & (curve > 0)))
    if len(bad):
        raise ValueError(
            f"fit: y at x = {x[bad[0]]} is {curve[bad[0]]}: errors must be positive; "
            "drop the scale, or give the error with half a count added"
        )
    distinct = len(np.unique(x, axis=0))
    if distinct < len(form.parameters):
        raise ValueError(
            f"fit: {form.name} has {len(form.parameters)} parameters and the data only "
            f"{distinct} different scales; take a form with fewer"
        )
    return curve


def draw_mean(y: Array) -> Array:
    """Mean over draws [draws, n] -> [n]; NaN only where no draw is present."""
    present = np.isfinite(y)
    count = present.sum(0)
    total = np.where(present, y, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _restart(objective: Objective, curve: Array, start: Array) -> tuple[Array, Array]:
    """Solve from every start [m, p] -> (theta, cost), the best first."""
    target = np.tile(objective.link(curve), (len(start), 1))
    theta, cost = minimise(objective, target, np.ones_like(target), start)
    order = np.argsort(cost, kind="stable")
    return theta[order], cost[order]


# ---- choice of form, and inversion -------------------------------------------------


@dataclass(frozen=True)
class Score:
    """How a form extrapolates after a fit up to the cutoff: RMSE of ln y above it, the
    largest miss there, RMSE up to it."""

    form: Form
    held_out: float
    in_sample: float
    law: Fit  # up to the cutoff
    largest: float

    @property
    def agreement(self) -> float:
        return self.law.agreement


def choose(
    forms: Iterable[Form],
    x: ArrayLike,
    y: ArrayLike,
    cutoff: float | None = None,
    *,
    axis: int = 0,
    sigma: ArrayLike | None = None,
    **how,
) -> list[Score]:
    """Fit each form where input `axis` is <= cutoff, score it above; the chosen first.

    The simplest form is chosen unless another gains clearly (`simplest`). The default
    cutoff is half the largest scale (arXiv 2209.06640, section 4). Forms with more
    parameters than scales below the cutoff are left out. `sigma` and `how` go to `fit`.
    Raises ValueError when nothing can be held out.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    first = x if x.ndim == 1 else x[:, axis]
    cutoff = first.max() / 2 if cutoff is None else cutoff
    small = first <= cutoff
    if small.all() or not small.any():
        raise ValueError(f"choose: cutoff {cutoff} leaves one side without data")
    curve = y if y.ndim == 1 else draw_mean(y)
    noise = None if sigma is None else np.asarray(sigma, float)[small]
    scores = []
    for form in forms:
        if len(np.unique(x[small], axis=0)) < len(form.parameters):
            continue
        law = fit(form, x[small], y[..., small], sigma=noise, **how)
        inside = law.rmse(x[small], curve[small])
        outside = law.rmse(x[~small], curve[~small])
        off = float(np.abs(np.log(law.predict(x[~small]) / curve[~small])).max())
        scores.append(Score(form, outside, inside, law, off))
    if not scores:
        raise ValueError(f"choose: too few scales below the cutoff {cutoff}")
    # The larger of the two: a law that misses what it was fitted to foretells by luck.
    misses = np.array([[max(s.held_out, s.in_sample)] for s in scores])
    first = simplest([len(s.form.parameters) for s in scores], misses)[0]
    others = [s for i, s in enumerate(scores) if i != first]
    return [scores[first], *sorted(others, key=lambda s: s.held_out)]


def simplest(parameters: Sequence[int], misses: Array) -> NDArray[np.int64]:
    """The form to take, by the misses [forms, n] of n data sets -> index [n].

    From few parameters to many: a form replaces the one taken before where it misses by
    less than CLEAR of that, or, of as many parameters, by less at all.
    """
    order = np.argsort(parameters, kind="stable")
    taken = np.full(misses.shape[1], order[0])
    for i in order[1:]:
        before = np.take_along_axis(misses, taken[None], 0)[0]
        equal = np.array(parameters)[taken] == parameters[i]
        clear = misses[i] < np.where(equal, 1.0, CLEAR) * before - TIE
        taken = np.where(clear, i, taken)
    return taken


def inverse(law: Fit, y: ArrayLike) -> Array:
    """The x at which a falling curve reaches y [n] -> [n]; inf where it never does.

    With `law` fitted from scratch, inverse(law, transferred error) - D_F is the
    effective data transferred D_T of arXiv 2102.01293.
    """
    y = np.asarray(y, float)
    # Of ln x, wider than any scale; 80 halvings reach the last bit of a float64.
    low, high = np.full(y.shape, -50.0), np.full(y.shape, 150.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = law.predict(np.exp(middle)) > y
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(high > 149.0, np.inf, np.where(low < -49.0, 0.0, np.exp(high)))
