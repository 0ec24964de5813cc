"""Fit a law to errors at several scales, with intervals and held-out model choice.

    law = fit(M2, shots, errors)              # errors [shots] or [draws, shots]
    found = bootstrap(law)                    # in intervals.py
    found.parameters["c"]                     # (value, low, high)
    found.predict([100.0, 1000.0])            # value, low, high, each [2]
    choose(CURVES.values(), sizes, errors)[0] # the form that extrapolates best

Residuals are ln(predicted) - ln(observed), so relative errors; the loss is Huber's.
Many starts, and all replicates of a bootstrap, are solved at once by one batched
Levenberg-Marquardt iteration.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.scaling.forms import Array, Form
from bigxfer.scaling.solver import Objective, minimise

# Huber's threshold in relative error: between the scatter of few-shot means (up to 0.1
# in the published runs of arXiv 2106.00116) and that of a failed run. Chinchilla's
# 1e-3 suits single runs of language models and is nearly an L1 fit here.
DELTA = 0.1


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
    seed: int = 0,
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
        scale = np.median(sigma) / sigma
    columns = form.columns(x)
    low, high = np.array(form.bounds(curve, *columns), float).T
    objective = Objective(form, x, scale, delta, link, low, high)
    rng = np.random.default_rng(seed)
    theta, cost = _restart(objective, curve, form.starts(rng, starts, curve, *columns))
    for _ in range(3):  # fresh restarts, around the best and anywhere
        spread = rng.normal(0, 0.3, (starts, theta.shape[1])) * np.maximum(
            0.1, np.abs(theta[0])
        )
        fresh = form.starts(rng, starts, curve, *columns)
        fresh[::2] = (theta[0] + spread)[::2]
        more, more_cost = _restart(objective, curve, fresh)
        improved = more_cost[0] < cost[0] * (1 - 1e-6) - 1e-15
        order = np.argsort(np.append(cost, more_cost), kind="stable")
        theta = np.concatenate([theta, more])[order]
        cost = np.append(cost, more_cost)[order]
        if not improved:
            break
    agreement = float(np.mean(cost <= cost[0] * (1 + 1e-6) + 1e-15))
    distinct = np.append(True, np.diff(cost) > 1e-3 * cost[1:] + 1e-15)
    basins = theta[distinct & np.isfinite(cost)][:3]
    return Fit(form, theta[0], float(cost[0]), agreement, basins, objective, y)


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
    """How a form extrapolates: RMSE of ln y above the cutoff after a fit below it."""

    form: Form
    held_out: float
    in_sample: float
    agreement: float


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
    """Fit each form where input `axis` is <= cutoff, score it above; best first.

    The default cutoff is half the largest scale (arXiv 2209.06640, section 4). Forms
    with more parameters than scales below the cutoff are left out. `sigma` and `how`
    go to `fit`. Raises ValueError when nothing can be held out.
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
        scores.append(Score(form, outside, inside, law.agreement))
    if not scores:
        raise ValueError(f"choose: too few scales below the cutoff {cutoff}")
    return sorted(scores, key=lambda s: s.held_out)


def inverse(law: Fit, y: ArrayLike) -> Array:
    """The x at which a falling curve reaches y [n] -> [n]; inf where it never does.

    With `law` fitted from scratch, inverse(law, transferred error) - D_F is the
    effective data transferred D_T of arXiv 2102.01293.
    """
    y = np.asarray(y, float)
    low, high = np.full(y.shape, -50.0), np.full(y.shape, 150.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = law.predict(np.exp(middle)) > y
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(high > 149.0, np.inf, np.where(low < -49.0, 0.0, np.exp(high)))
