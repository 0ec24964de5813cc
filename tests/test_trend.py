"""Slopes, flatness and rises against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from bigxfer.scaling import trend
from bigxfer.scaling.scatter import Scatter

X = np.array([1.0, 5, 10, 50, 100])


def scattered(curves, sigma=None):
    curves = np.asarray(curves, float)
    return Scatter(curves.mean(0), sigma, curves, "draws")


def test_the_slope_of_one_draw_is_that_of_a_linear_regression():
    errors = np.array([0.5, 0.31, 0.2, 0.16, 0.09])
    line = stats.linregress(np.log(X), np.log(errors))
    half = stats.t.ppf(0.975, 3) * line.stderr
    found = trend.slope(X, Scatter(errors, None, None, ""))
    assert found == pytest.approx((-line.slope, -line.slope - half, -line.slope + half))
    # two degrees of freedom are enough, one is not
    assert trend.slope(X[:4], Scatter(errors[:4], None, None, "")) is not None
    assert trend.slope(X[:3], Scatter(errors[:3], None, None, "")) is None


def test_the_slope_of_replicates_has_their_percentiles():
    powers = np.linspace(0.2, 0.6, 201)
    curves = X ** -powers[:, None]
    mean = X**-0.37
    found = trend.slope(X, Scatter(mean, np.array([1.0, 9, 2, 1, 4]), curves, "draws"))
    assert found == pytest.approx((0.37, *np.quantile(powers, [0.025, 0.975])))
    sigma = np.array([0.1, 0.3, 0.1, 0.2, 0.1])
    mean = np.array([0.5, 0.31, 0.2, 0.16, 0.09])
    found = trend.slope(X, Scatter(mean, sigma, curves, "draws"))
    want = np.polyfit(np.log(X), np.log(mean), 1, w=1 / sigma)[0]
    assert found[0] == pytest.approx(-want)


def test_flat_is_within_the_margin_of_every_pair():
    """The second scale lies 0 to 0.1 below the first: its 95th percentile is 0.095."""
    low = 0.4 - np.linspace(0, 0.1, 101)
    curves = np.stack([np.full(101, 0.4), low, low], axis=1)
    assert trend.flat(scattered(curves), 0.096) == 0.096
    assert trend.flat(scattered(curves), 0.0945) is None
    assert trend.flat(scattered(curves[:, ::-1]), 0.0945) is None
    assert trend.flat(Scatter(curves[0], None, None, ""), 1.0) is None
    assert trend.flat(scattered(np.ones((9, 2))), 0.0) is None  # no margin, no verdict


def test_a_rise_is_told_beyond_chance_over_all_pairs():
    """Of three pairs a twentieth is left to each: below 1.67% of replicates."""
    for falls, told in ((16, True), (17, False)):
        curves = np.tile([0.3, 0.5, 0.2], (1000, 1))
        curves[:falls, 0] = 0.5  # not above: no rise from the first to the second
        words = trend.rises(X[:3], scattered(curves), (0.1, 0.0, 0.2))
        assert words == "the error is larger at 5 than at 1" * told
    assert trend.rises(X, Scatter(X, None, None, ""), (0.1, 0.0, 0.2)) == ""
    assert trend.rises(X, Scatter(X, None, None, ""), None) == ""
    for fall in ((0.0, -0.1, 0.1), (-0.25, -0.5, -0.125)):
        words = trend.rises(X, Scatter(X, None, None, ""), fall)
        assert words.startswith("errors grow with the power")
    assert words == "errors grow with the power 0.25 [0.12, 0.5]"
