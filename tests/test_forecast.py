"""The band of a forecast, by hand, and the choice of a form in each replicate."""

import numpy as np
import pytest

from bigxfer.scaling import forms
from bigxfer.scaling.fit import fit
from bigxfer.scaling.forecast import Forecast, forecast, forecasts
from bigxfer.scaling.scatter import Scatter

X = np.array([1.0, 2, 5, 10, 20, 50, 100])


def test_the_band_is_that_of_all_replicates_widened_by_the_miss():
    law = fit(forms.M1, X, 0.6 * X**-0.3)
    b = np.log(0.6) + np.linspace(-0.2, 0.2, 101)
    theta = np.stack([b, np.full(101, 0.3)], axis=1)
    refits = [(forms.M1, theta[:50]), (forms.M1, theta[50:])]
    args = law, theta, [], refits, 0.05, (10.0, 100.0)
    for level in (0.95, 0.8):
        some = Forecast(*args, level)
        value, low, high = some.predict([50.0, 1000.0])
        assert value == pytest.approx(0.6 * np.array([50, 1000]) ** -0.3, rel=1e-4)
        # 1000 lies as far beyond the largest scale as the cutoff lies below it
        wider = np.exp([0.05, 0.10])
        ends = np.quantile(b, [0.5 - level / 2, 0.5 + level / 2])
        power = np.array([50.0, 1000.0]) ** -0.3
        assert low == pytest.approx(np.exp(ends[0]) * power / wider, rel=1e-5)
        assert high == pytest.approx(np.exp(ends[1]) * power * wider, rel=1e-5)
        assert some.parameters["b"][1:] == pytest.approx(np.exp(ends), rel=1e-5)
    # a floor below 0 has reached no error by then
    sunk = np.tile([0.6, 0.3, -0.5], (101, 1))
    below = [(forms.M1, refits[0][1]), (forms.M2, sunk)]
    _, low, high = Forecast(law, theta, [], below, 0.0, (10.0, 100.0)).predict([1000.0])
    assert low == 0 and 0 < high < 0.1
    # the value lies within, even where all replicates are to one side of it
    above = [(forms.M1, theta[90:])]
    value, low, _ = Forecast(law, theta, [], above, 0.0, (10.0, 100.0)).predict([50.0])
    assert low == pytest.approx(value, rel=1e-6)


def test_every_replicate_chooses_and_a_form_needs_more_scales_than_parameters():
    rng = np.random.default_rng(0)
    mean = 0.05 + 0.5 * X**-0.8
    curves = mean * np.exp(rng.normal(0, 0.01, (20, 7)))
    some = forecast(
        forms.CURVES.values(), X, Scatter(mean, 0 * X + 0.01, curves, ""), 20
    )
    assert some.fit.form is forms.M2 and some.ends == (20, 100)
    assert sum(len(theta) for _, theta in some.refits) == len(some.theta) == 20
    assert some.refits[0][0] is forms.M2 and len(some.refits[0][1]) > 10
    two = Scatter(mean, 0 * X + 0.01, curves, "")
    only = forecast(
        [forms.M1, forms.M2], X, two, 5
    )  # three scales for three parameters
    assert [score.form for score in only.scores] == [forms.M1]
    for sigma, some in ((None, None), (None, curves), (0 * X + 0.01, None)):
        with pytest.raises(ValueError, match="scatter"):
            forecast([forms.M1], X, Scatter(mean, sigma, some, ""), 20)


def test_a_curve_among_others_has_the_forecast_that_it_has_alone():
    rng = np.random.default_rng(0)
    means = 0.6 * X**-0.3, 0.05 + 0.5 * X**-0.8, 0.3 + 0.2 / X
    all_of = [
        Scatter(m, s + 0 * X, m * np.exp(rng.normal(0, s, (5, 7))), "")
        for m, s in zip(means, (0.01, 0.02, 0.05), strict=True)
    ]
    together = forecasts([forms.M1, forms.M2], X, all_of, 20)
    assert [len(some.refits) for some in together] != [1, 1, 1]
    for some, scatter in zip(together, all_of, strict=True):
        alone = forecast([forms.M1, forms.M2], X, scatter, 20)
        np.testing.assert_array_equal(some.theta, alone.theta)
        assert some.fit.form is alone.fit.form and some.miss == alone.miss
        for mine, its in zip(some.refits, alone.refits, strict=True):
            assert mine[0] is its[0]
            np.testing.assert_array_equal(mine[1], its[1])
