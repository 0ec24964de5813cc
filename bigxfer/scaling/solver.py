"""Robust least squares with bounds, for many problems of one law at once.

scipy.optimize solves one problem a call; a bootstrap of a multi-start fit is thousands
of tiny ones, so here every array has a leading axis of problems.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bigxfer.scaling.forms import Array, Form


@dataclass(frozen=True)
class Objective:
    """sum of weight * Huber(scale * (link(predicted) - target)) within bounds.

    scale [n], and low and high [p], for all problems, or [m, n] and [m, p], of each.
    """

    form: Form
    x: Array
    scale: Array
    delta: float
    link: Callable[[Array], Array]
    low: Array
    high: Array

    def of(self, problems: NDArray) -> "Objective":
        """The objective of some problems, by their places or by a mask [m]."""
        own = {
            name: getattr(self, name)[problems]
            for name in ("scale", "low", "high")
            if getattr(self, name).ndim > 1
        }
        return replace(self, **own)

    def predict(self, theta: Array) -> Array:
        """theta [m, p] -> link(y) [m, n]."""
        predicted = self.form.log_y(theta, self.x)
        return predicted if self.link is np.log else self.link(np.exp(predicted))

    def residual(self, theta: Array, target: Array) -> Array:
        """theta [m, p], target [m, n] -> [m, n]."""
        return self.scale * (self.predict(theta) - target)

    def cost(self, residual: Array, weight: Array) -> Array:
        size = np.abs(residual)
        # Huber's loss: size^2 / 2 inside, delta (size - delta / 2) beyond.
        inside = np.minimum(size, self.delta)
        total = (weight * inside * (size - inside / 2)).sum(-1)
        # Where a law overflows, a step is refused like any that is worse.
        return np.where(np.isfinite(total), total, np.inf)

    def jacobian(self, theta: Array, predicted: Array) -> Array:
        """Derivatives of the residuals [p, m, n] at theta [m, p], which predicts [m, n]."""
        slopes = self.form.slopes
        if slopes is None or self.link is not np.log:
            return self.differences(theta)
        out = np.empty((theta.shape[1], *predicted.shape))
        columns = self.form.columns(self.x)
        for k, slope in enumerate(slopes(predicted, *columns, *theta.T[..., None])):
            np.multiply(self.scale, slope, out=out[k])
        return out

    def differences(self, theta: Array) -> Array:
        """`jacobian` by central differences; the step keeps truncation near 1e-12.

        All 2 p disturbed curves are computed in one call: a curve has a handful of
        points, so that the calls cost more than the numbers.
        """
        m, p = theta.shape
        step = 1e-6 * np.clip(self.high - self.low, 1e-9, 1.0)
        shift = np.eye(p)[:, None] * step  # [p, 1 or m, p]
        disturbed = np.concatenate([theta + shift, theta - shift]).reshape(-1, p)
        plus, minus = self.scale * self.predict(disturbed).reshape(2, p, m, -1)
        return (plus - minus) / (2 * np.atleast_2d(step).T[..., None])


def minimise(
    objective: Objective, target: Array, weight: Array, theta: Array, iterations=200
) -> tuple[Array, Array]:
    """Projected Levenberg-Marquardt on m problems at once.

    target, weight [m, n], theta [m, p] starts -> (theta [m, p], cost [m]).
    """
    with np.errstate(all="ignore"):
        # A guess may have no number: a logarithm of what is below 0.
        theta = np.clip(np.nan_to_num(theta), objective.low, objective.high)
        state = theta.copy(), objective.predict(theta)
        cost = objective.cost(objective.scale * (state[1] - target), weight)
        ends, costs, places = theta, cost.copy(), np.arange(len(theta))
        damping = np.full(len(theta), 1e-2)
        # A curve that has no number at its start has no derivatives to leave it by.
        quiet = np.where(np.isnan(state[1]).any(1), 3, 0)
        for _ in range(iterations):
            # Only problems that still move; three quiet steps in a row are an end.
            active = (quiet < 3) & (damping < 1e12)
            if not active.all():
                ends[places], costs[places] = state[0], cost
                places, cost, damping = places[active], cost[active], damping[active]
                target, weight, quiet = target[active], weight[active], quiet[active]
                state = state[0][active], state[1][active]
                objective = objective.of(active)
            if not len(places):
                break
            new = _step(objective, *state, target, weight, damping)
            predicted = objective.predict(new)
            new_cost = objective.cost(objective.scale * (predicted - target), weight)
            better = new_cost < cost
            # a step that changes nothing is quiet too, whichever way it rounds
            small = np.abs(cost - new_cost) <= 1e-12 * cost + 1e-300
            quiet = np.where(small, quiet + 1, quiet * ~better)
            np.copyto(state[0], new, where=better[:, None])
            np.copyto(state[1], predicted, where=better[:, None])
            np.copyto(cost, new_cost, where=better)
            damping = np.maximum(damping * np.where(better, 0.2, 5.0), 1e-12)
        ends[places], costs[places] = state[0], cost
    return ends, costs


def _step(objective: Objective, theta, predicted, target, weight, damping) -> Array:
    r = objective.scale * (predicted - target)
    jac = objective.jacobian(theta, predicted)
    if not np.isfinite(jac).all():
        jac = np.nan_to_num(jac, posinf=0, neginf=0)
    size = np.maximum(np.abs(r), 1e-300)
    psi = weight * np.clip(r, -objective.delta, objective.delta)
    majorant = weight * np.minimum(1.0, objective.delta / size)
    # the true curvature of Huber's loss is 0 outside delta; a little of the majorant
    # keeps the system solvable when most points are outside
    curvature = np.where(size <= objective.delta, weight, 1e-3 * majorant)
    gradient = np.einsum("mn,pmn->mp", psi, jac)
    hessian = np.einsum("pmn,qmn->mpq", curvature * jac, jac)
    # Of the majorant: it is above 0 where all points lie outside delta, too.
    damp = np.einsum("mn,pmn->mp", majorant, jac**2) + 1e-30
    # At a bound, and pushed beyond it: such a parameter takes no part in the step.
    low, high = objective.low, objective.high
    held = ((theta <= low) & (gradient >= 0)) | ((theta >= high) & (gradient <= 0))
    held |= low == high
    p = theta.shape[1]
    added = damping[:, None] * damp
    if held.any():
        hessian[held[:, :, None] | held[:, None, :]] = 0.0
        gradient[held], added[held] = 0.0, 1.0
    diagonal = hessian.reshape(-1, p * p)[:, :: p + 1]  # a view
    diagonal += added
    # scaled to a unit diagonal: intercepts and slopes differ by orders of magnitude
    unit = np.sqrt(np.maximum(diagonal, 1e-300))
    hessian /= unit[:, :, None] * unit[:, None, :]
    diagonal += 1e-14
    step = np.linalg.solve(hessian, (-gradient / unit)[..., None])[..., 0]
    return np.clip(theta + step / unit, low, high)
