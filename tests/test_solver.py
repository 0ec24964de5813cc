"""The batched solver: its steps are few, its costs Huber's, its bounds hold."""

import numpy as np
import pytest
from scipy import optimize

from bigxfer.scaling import forms
from bigxfer.scaling.solver import Objective, minimise

X = np.array([1.0, 2, 5, 10, 20, 50, 100])


def objective(form, low, high, delta=0.1, link=np.log):
    scale = np.array([1, 1, 2, 1, 0.5, 1, 1.0])
    return Objective(form, X, scale, delta, link, np.array(low), np.array(high))


def noisy(count, floor=0.0):
    """Curves [count, 7] of power laws, one point of each far off."""
    rng = np.random.default_rng(0)
    y = (0.6 * X**-0.4 + floor) * np.exp(rng.normal(0, 0.05, (count, 7)))
    y[np.arange(count), np.arange(count) % 7] *= 1.5
    return y


def test_residuals_and_costs_are_hubers_by_scipy():
    of = objective(forms.M1, [-9, 0], [9, 5])
    theta, target = np.array([[-0.5, 0.4], [0.1, 0.9]]), np.log(noisy(2))
    predicted = theta[:, :1] - theta[:, 1:] * np.log(X)
    residual = of.residual(theta, target)
    np.testing.assert_allclose(residual, of.scale * (predicted - target))
    weight = np.array([[1, 1, 1, 1, 1, 1, 1], [0, 2, 1, 3, 0, 1, 1.0]])
    huber = 0.01 * 0.5 * special_huber(residual / 0.1)
    np.testing.assert_allclose(of.cost(residual, weight), (weight * huber).sum(1))
    assert of.cost(residual * np.nan, weight).tolist() == [np.inf, np.inf]
    plain = objective(forms.M1, [-9, 0], [9, 5], link=lambda y: y)
    want = of.scale * (np.exp(predicted) - noisy(2))
    np.testing.assert_allclose(plain.residual(theta, noisy(2)), want)


def special_huber(z):
    """rho of scipy.optimize.least_squares: z^2 within 1, 2 |z| - 1 beyond."""
    return np.where(np.abs(z) <= 1, z**2, 2 * np.abs(z) - 1)


def test_derivatives_are_those_by_hand():
    of = objective(forms.M1, [-9, 0], [9, 5])
    theta = np.array([[-0.5, 0.4], [0.1, 0.9]])
    want = np.stack([np.tile(of.scale, (2, 1)), np.tile(-of.scale * np.log(X), (2, 1))])
    np.testing.assert_allclose(of.jacobian(theta, of.predict(theta)), want)
    np.testing.assert_allclose(of.differences(theta), want, rtol=1e-7)
    plain = objective(forms.M1, [-9, 0], [9, 5], link=lambda y: y)
    found = plain.jacobian(theta, plain.predict(theta))
    np.testing.assert_allclose(found, want * plain.predict(theta), rtol=1e-7)


WITH_SLOPES = [form for form in vars(forms).values() if getattr(form, "slopes", None)]


@pytest.mark.parametrize("form", WITH_SLOPES, ids=lambda form: form.name)
def test_derivatives_are_the_limits_of_differences(form):
    rng = np.random.default_rng(1)
    x = np.exp(rng.uniform(0, 4, (7, len(form.inputs))))
    low, high = np.array(form.bounds(np.full(7, 0.5), *x.T)).T
    of = Objective(form, x, np.linspace(0.5, 2, 7), 0.1, np.log, low, high)
    # Within the bounds, and small enough for no term to drown the others.
    theta = np.clip(rng.uniform(0.05, 0.9, (40, len(form.parameters))), low, high)
    found = of.jacobian(theta, of.predict(theta))
    assert found.shape == (len(form.parameters), 40, 7)
    np.testing.assert_allclose(found, of.differences(theta), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bound", [5.0, 0.3])
def test_a_power_law_takes_few_steps_to_scipys_optimum(bound):
    """From one start; the exponent free, or held at a bound below the best one."""
    of, y = objective(forms.M1, [-9, 0], [9, bound]), noisy(9)
    start = np.tile([0.5, 0.2], (9, 1))
    theta, cost = minimise(of, np.log(y), np.ones((9, 7)), start, iterations=12)
    for i in range(9):

        def residual(t, i=i):
            return of.scale * (t[0] - t[1] * np.log(X) - np.log(y[i]))

        how = {"loss": "huber", "f_scale": 0.1, "xtol": 1e-14, "ftol": 1e-14}
        best = optimize.least_squares(
            residual, [0.5, 0.2], bounds=([-9, 0], [9, bound]), gtol=1e-14, **how
        )
        assert cost[i] <= best.cost * (1 + 1e-7)
        assert theta[i] == pytest.approx(best.x, abs=1e-4)


def test_a_start_outside_and_a_parameter_without_room():
    of, y = objective(forms.M2, [-9, 0.4, 0.1], [9, 0.4, 9]), noisy(3, floor=0.1)
    start = np.array([[99, 9, -5], [-1, np.nan, 0.2], [0, 0, 1.0]])
    theta, cost = minimise(of, np.log(y), np.ones((3, 7)), start, iterations=30)
    assert (theta[:, 1] == 0.4).all() and (theta[:, 2] >= 0.1).all()
    for i in range(3):

        def residual(t, i=i):
            log_y = np.log(np.exp(t[0]) * X**-0.4 + t[1])
            return of.scale * (log_y - np.log(y[i]))

        best = optimize.least_squares(
            residual, [0, 0.2], bounds=([-9, 0.1], [9, 9]), loss="huber", f_scale=0.1
        )
        assert cost[i] <= best.cost * (1 + 1e-6)


def test_weights_count_points_as_often():
    of, y = objective(forms.M1, [-9, 0], [9, 5], delta=np.inf), noisy(1)
    weight = np.array([[0, 3, 1, 2, 1, 0, 1.0]])
    theta, _ = minimise(of, np.log(y), weight, np.array([[0, 0.3]]), iterations=12)
    root = of.scale * np.sqrt(weight[0])
    slope, level = np.polyfit(np.log(X), np.log(y[0]), 1, w=root)
    assert theta[0] == pytest.approx([level, -slope], abs=1e-6)
