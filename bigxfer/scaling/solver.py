"""Robust least squares with bounds, for many problems of one law at once.

scipy.optimize solves one problem a call; a bootstrap of a multi-start fit is thousands
of tiny ones, so here every array has a leading axis of problems.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigxfer.scaling.forms import Array, Form


@dataclass(frozen=True)
class Objective:
    """sum of weight * Huber(scale * (link(predicted) - target)) within bounds [p]."""

    form: Form
    x: Array
    scale: Array
    delta: float
    link: Callable[[Array], Array]
    low: Array
    high: Array

    def residual(self, theta: Array, target: Array) -> Array:
        """theta [m, p], target [m, n] -> [m, n]."""
        predicted = self.form.log_y(theta, self.x)
        if self.link is not np.log:
            predicted = self.link(np.exp(predicted))
        return self.scale * (predicted - target)

    def cost(self, residual: Array, weight: Array) -> Array:
        size = np.abs(residual)
        # Huber's loss: size^2 / 2 inside, delta (size - delta / 2) beyond.
        inside = np.minimum(size, self.delta)
        total = np.sum(weight * inside * (size - inside / 2), -1)
        # Where a law overflows, a step is refused like any that is worse.
        return np.where(np.isfinite(total), total, np.inf)

    def jacobian(self, theta: Array, target: Array) -> Array:
        """Central differences -> [m, n, p]; the step keeps truncation near 1e-12.

        All 2 p disturbed curves are computed in one call: a curve has a handful of
        points, so that the calls cost more than the numbers.
        """
        m, p = theta.shape
        step = 1e-6 * np.clip(self.high - self.low, 1e-9, 1.0)
        shift = np.concatenate([np.diag(step), -np.diag(step)])
        disturbed = (theta + shift[:, None]).reshape(2 * p * m, p)
        both = self.residual(disturbed, np.tile(target, (2 * p, 1)))
        plus, minus = both.reshape(2, p, m, -1)
        return np.moveaxis((plus - minus) / (2 * step[:, None, None]), 0, -1)


def minimise(
    objective: Objective, target: Array, weight: Array, theta: Array, iterations=200
) -> tuple[Array, Array]:
    """Projected Levenberg-Marquardt on m problems at once.

    target, weight [m, n], theta [m, p] starts -> (theta [m, p], cost [m]).
    """
    with np.errstate(all="ignore"):
        # A guess may have no number: a logarithm of what is below 0.
        theta = np.clip(np.nan_to_num(theta), objective.low, objective.high)
        cost = objective.cost(objective.residual(theta, target), weight)
        damping = np.full(len(theta), 1e-2)
        quiet = np.zeros(len(theta), int)
        for _ in range(iterations):
            # Only problems that still move; three quiet steps in a row are an end.
            active = np.flatnonzero((quiet < 3) & (damping < 1e12))
            if not len(active):
                break
            t, w = target[active], weight[active]
            new = _step(objective, theta[active], t, w, damping[active])
            new_cost = objective.cost(objective.residual(new, t), w)
            old = cost[active]
            better = new_cost < old
            theta[active[better]] = new[better]
            cost[active[better]] = new_cost[better]
            # a step that changes nothing is quiet too, whichever way it rounds
            small = np.abs(old - new_cost) <= 1e-12 * old + 1e-300
            quiet[active] = np.where(small, quiet[active] + 1, quiet[active] * ~better)
            damping[active] *= np.where(better, 0.2, 5.0)
            damping[active] = np.maximum(damping[active], 1e-12)
    return theta, cost


def _step(objective: Objective, theta, target, weight, damping) -> Array:
    r = objective.residual(theta, target)
    jac = np.nan_to_num(objective.jacobian(theta, target), posinf=0, neginf=0)
    size = np.maximum(np.abs(r), 1e-300)
    psi = np.nan_to_num(weight * np.clip(r, -objective.delta, objective.delta))
    majorant = weight * np.minimum(1.0, objective.delta / size)
    # the true curvature of Huber's loss is 0 outside delta; a little of the majorant
    # keeps the system solvable when most points are outside
    curvature = np.where(size <= objective.delta, weight, 1e-3 * majorant)
    gradient = np.einsum("mn,mnp->mp", psi, jac)
    hessian = np.einsum("mn,mnp,mnq->mpq", curvature, jac, jac)
    # Of the majorant: it is above 0 where all points lie outside delta, too.
    damp = np.einsum("mn,mnp->mp", majorant, jac**2) + 1e-30
    # At a bound, and pushed beyond it: such a parameter takes no part in the step.
    held = (theta <= objective.low) & (gradient >= 0)
    held |= (theta >= objective.high) & (gradient <= 0)
    held |= objective.low == objective.high
    p = theta.shape[1]
    hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
    hessian[:, range(p), range(p)] += np.where(held, 1.0, damping[:, None] * damp)
    # scaled to a unit diagonal: intercepts and slopes differ by orders of magnitude
    unit = np.sqrt(np.maximum(np.einsum("mpp->mp", hessian), 1e-300))
    matrix = hessian / unit[:, :, None] / unit[:, None, :]
    matrix[:, range(p), range(p)] += 1e-14
    step = np.linalg.solve(matrix, (np.where(held, 0.0, -gradient) / unit)[..., None])
    return np.clip(theta + step[..., 0] / unit, objective.low, objective.high)
