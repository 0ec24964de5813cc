"""Fit a law to errors at several scales.

    law = fit(M2, shots, errors)              # errors [shots] or [draws, shots]
    intervals = bootstrap(law)                # in bootstrap.py
    intervals.parameters["c"]                 # (value, low, high)
    choose(CURVES.values(), sizes, errors)[0] # the form that extrapolates: choice.py

Residuals are ln(predicted) - ln(observed), so relative errors; the loss is Huber's.
Many starts, and all replicates of a bootstrap, are solved at once by one batched
Levenberg-Marquardt iteration.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.scaling.forms import Array, Form
from bigxfer.scaling.solver import Objective, minimise

# Huber's threshold in relative error: between the scatter of few-shot means (up to 0.1
# in the published runs of arXiv 2106.00116) and that of a failed run. Chinchilla's
# 1e-3 suits single runs of language models and is nearly an L1 fit here.
DELTA = 0.1
# A restart looks for a better optimum, and costs as much as the first search. It is left
# out where this share of the starts already ended at the same one.
SETTLED = 0.75


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
    sigmas = None if sigma is None else [sigma]
    return fits(form, x, [y], sigmas=sigmas, delta=delta, link=link, starts=starts)[0]


def fits(
    form: Form,
    x: ArrayLike,
    ys: Sequence[ArrayLike],
    *,
    sigmas: Sequence[ArrayLike] | None = None,
    delta: float = DELTA,
    link: Callable[[Array], Array] = np.log,
    starts: int = 64,
) -> list[Fit]:
    """`fit` of several y at the same x, each with its own sigma: all searched at once."""
    x, data = np.asarray(x, float), [np.asarray(y, float) for y in ys]
    curves = np.array([_checked(form, x, y) for y in data])
    scale = np.ones_like(curves)
    if sigmas is not None:
        scale = np.array([_scale(sigma, curves[0].shape) for sigma in sigmas])
    columns = form.columns(x)
    bounds = np.array([form.bounds(curve, *columns) for curve in curves], float)
    all_of = Objective(form, x, scale, delta, link, bounds[..., 0], bounds[..., 1])
    # The same data give the same fit, alone or among others.
    rngs = [np.random.default_rng(0) for _ in data]

    def anywhere(i: int) -> Array:
        return form.starts(rngs[i], starts, curves[i], *columns)

    open_ = list(range(len(data)))
    found = _restart(all_of, curves, np.array([anywhere(i) for i in open_]))
    for _ in range(3):  # fresh restarts, around the best and anywhere
        open_ = [i for i in open_ if _agreement(found[i][1]) < SETTLED]
        if not open_:
            break
        fresh = []
        for i in open_:
            best = found[i][0][0]
            spread = rngs[i].normal(0, 0.3, (starts, len(best)))
            fresh.append(anywhere(i))
            # Half near the best, for a basin that was missed narrowly; half anywhere.
            near = best + spread * np.maximum(0.1, np.abs(best))
            fresh[-1][::2] = near[::2]
        more = _restart(all_of.of(np.array(open_)), curves[open_], np.array(fresh))
        improved = []
        for i, (theta, cost) in zip(open_, more, strict=True):
            before = found[i][1]
            if cost[0] < before[0] * (1 - 1e-6) - 1e-15:
                improved.append(i)
            order = np.argsort(np.append(before, cost), kind="stable")
            thetas = np.concatenate([found[i][0], theta])[order]
            found[i] = thetas, np.append(before, cost)[order]
        open_ = improved
    return [
        _settled(form, *found[i], _own(all_of, i), data[i]) for i in range(len(data))
    ]


def _scale(sigma: ArrayLike, shape: tuple[int, ...]) -> Array:
    sigma = np.asarray(sigma, float)
    if sigma.shape != shape or not (sigma > 0).all():
        raise ValueError("fit: sigma must be positive, one for each scale")
    # By the median: delta stays a relative error at any level of sigma.
    return np.median(sigma) / sigma


def _own(objective: Objective, i: int) -> Objective:
    """The objective of one problem, for as many data sets of it as one likes."""
    one = objective.of(np.array([i]))
    return replace(one, scale=one.scale[0], low=one.low[0], high=one.high[0])


def _settled(
    form: Form, theta: Array, cost: Array, objective: Objective, y: Array
) -> Fit:
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


def _restart(
    objective: Objective, curves: Array, start: Array
) -> list[tuple[Array, Array]]:
    """Solve curves [s, n] from their starts [s, m, p] -> s times (theta [m, p],
    cost [m]), the best first."""
    s, m, p = start.shape
    target = np.repeat(objective.link(curves), m, axis=0)
    every = objective.of(np.repeat(np.arange(s), m))
    theta, cost = minimise(every, target, np.ones_like(target), start.reshape(-1, p))
    out = []
    for thetas, costs in zip(theta.reshape(s, m, p), cost.reshape(s, m), strict=True):
        order = np.argsort(costs, kind="stable")
        out.append((thetas[order], costs[order]))
    return out


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
