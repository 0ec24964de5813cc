"""Statistics against scipy, closed forms and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bigxfer.scaling.bootstrap import bootstrap
from bigxfer.scaling.fit import fit
from bigxfer.scaling.forms import M1
from bigxfer.statistics import intervals


def test_weights_draw_whole_patients():
    patients = np.array(["a", "b", "a", "c", "c", "c"])
    weights = np.concatenate(list(intervals.patient_weights(patients, 2000, seed=1)))
    assert weights.shape == (2000, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 3], weights[:, 5])
    a, b, c = weights[:, 0], weights[:, 1], weights[:, 3]
    np.testing.assert_array_equal(a + b + c, 3)  # as many patients as there are
    np.testing.assert_allclose([a.mean(), b.mean(), c.mean()], 1, atol=0.06)
    np.testing.assert_allclose(a.var(), 1 - 1 / 3, atol=0.06)  # multinomial


def test_weights_come_in_bounded_chunks_that_differ(monkeypatch):
    (whole,) = intervals.patient_weights(np.arange(100), 25, seed=3)
    monkeypatch.setattr(intervals, "CHUNK", 1000)
    chunks = list(intervals.patient_weights(np.arange(100), 25, seed=3))
    assert [len(c) for c in chunks] == [10, 10, 5]
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    assert len(np.unique(np.concatenate(chunks), axis=0)) == 25


def test_the_mean_and_its_standard_error_by_bootstrap():
    values = np.random.default_rng(0).normal(size=(1, 400))
    samples = intervals.means(values, np.arange(400), 4000)[:, 0]
    np.testing.assert_allclose(samples.std(), values.std() / 20, rtol=0.05)
    low, high = intervals.percentile(samples)
    want = scipy_stats.bootstrap(
        (values[0],),
        np.mean,
        n_resamples=4000,
        method="percentile",
        random_state=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose([low, high], want, atol=0.012)


def test_t_interval_equals_scipy():
    values = np.array([0.71, 0.74, 0.69, 0.80, 0.75])
    want = scipy_stats.t.interval(
        0.95, 4, loc=values.mean(), scale=scipy_stats.sem(values)
    )
    np.testing.assert_allclose(intervals.t_interval(values), want)
    assert np.isnan(intervals.t_interval(values[:1])).all()


def test_holm_by_hand():
    # Holm (1979): sorted p times m, m-1, ..., made monotone.
    np.testing.assert_allclose(
        intervals.holm([0.01, 0.04, np.nan, 0.03, 0.005]),
        [0.03, 0.06, np.nan, 0.06, 0.02],
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p):
    adjusted = intervals.holm(p)
    assert (adjusted >= p).all() and (adjusted <= 1).all()
    order, rejected = np.argsort(p, kind="stable"), set()
    for i, j in enumerate(order):
        if p[j] * (len(p) - i) > 0.05:
            break
        rejected.add(j)
    assert rejected == set(np.flatnonzero(adjusted <= 0.05))


def test_percentiles_by_hand():
    samples = np.arange(201.0)[::-1]
    assert intervals.percentile(np.append(samples, np.nan), 0.5) == (50, 150)
    assert intervals.percentile(samples) == pytest.approx((5, 195))
    assert np.isnan(intervals.percentile(np.full(3, np.nan))).all()


def test_t_intervals_of_two_draws_and_of_another_level():
    # se = 1 and t = tan(pi * level / 2) with one degree of freedom
    ends = intervals.t_interval([3.0, 5.0], 0.9)
    np.testing.assert_allclose(ends, [4 - 6.313752, 4 + 6.313752], rtol=1e-6)


def test_no_patient_is_an_error():
    with pytest.raises(ValueError, match="no patient"):
        next(intervals.patient_weights([], 3))


def test_a_chunk_has_one_row_at_least(monkeypatch):
    monkeypatch.setattr(intervals, "CHUNK", 10)
    chunks = intervals.patient_weights(np.arange(100), 3, seed=3)
    assert [len(c) for c in chunks] == [1, 1, 1]


def test_ten_groups_are_resampled_and_nine_have_a_t():
    """The simulated coverage of a bootstrap of few groups is too low."""
    x = np.geomspace(1, 100, 10)
    y = 0.5 * x**-0.3 * np.exp(0.01 * np.cos(np.arange(10)))
    how = [bootstrap(fit(M1, x[:n], y[:n]), replicates=20).method for n in (9, 10)]
    assert how == ["t over residuals", "points resampled"]
