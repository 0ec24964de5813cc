"""Statistics against scipy, closed forms and simulated coverage."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

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


def test_paired_few_draws_equal_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5))
    found = intervals.paired(a, b)
    want = scipy_stats.ttest_rel(a, b)
    assert found.method == "t" and found.draws == 5
    np.testing.assert_allclose(found.value, (a - b).mean())
    np.testing.assert_allclose(found.p, want.pvalue)
    np.testing.assert_allclose(
        [found.low, found.high], [*want.confidence_interval(0.95)]
    )


def test_few_draws_add_the_squares_of_both_half_widths():
    rng = np.random.default_rng(0)
    points, samples = rng.normal(0.1, 0.1, 3), rng.normal(0.1, 0.05, (4000, 3))
    found = intervals.estimate(points, samples, patients=40)
    t = scipy_stats.t.ppf(0.975, [2, 39])
    parts = scipy_stats.sem(points), samples.mean(1).std(ddof=1)
    half = np.hypot(*(t * parts))
    np.testing.assert_allclose(
        [found.low, found.high], points.mean() + [-half, half], rtol=1e-12
    )
    edge = intervals.estimate(points, samples, patients=40, level=1 - found.p)
    ends = np.array([edge.low, edge.high])  # p is where the interval reaches 0
    assert np.abs(ends).min() < 1e-8 and 0.01 < found.p < 0.9
    sure = intervals.estimate(points + 1e9, samples, patients=40)
    assert 0 < sure.p < 1e-17 and intervals.t_test(np.ones(3), None, 0) == 0


def test_pairs_on_the_same_images_are_narrower_than_their_parts():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=300)  # a difficulty that every run shares
    a = (hard + rng.normal(size=(12, 300)) * 0.3 > 0.0).astype(float)
    b = (hard + rng.normal(size=(12, 300)) * 0.3 > 0.1).astype(float)
    ids = np.arange(300)
    sa, sb = (intervals.means(x, ids, 2000, seed=4) for x in (a, b))
    both = intervals.paired(a.mean(1), b.mean(1), sa, sb)
    alone = intervals.estimate(a.mean(1), sa)
    assert both.method == alone.method == "crossed"
    assert both.high - both.low < 0.75 * (alone.high - alone.low)
    assert both.low > 0 and both.p < 0.01
    with pytest.raises(ValueError, match="not pairs"):
        intervals.paired(a.mean(1), b.mean(1)[:-1])


def test_one_draw_leaves_the_patients_and_none_leaves_nothing():
    values = np.random.default_rng(0).random((1, 100))
    samples = intervals.means(values, np.arange(100), 500)
    found = intervals.estimate(values.mean(1), samples)
    assert found.method == "patients" and found.low < found.value < found.high
    alone = intervals.estimate(np.array([0.5]))
    assert alone.method == "none" and np.isnan([alone.low, alone.high, alone.p]).all()
    with pytest.raises(ValueError, match="must be a number"):
        intervals.estimate(np.array([0.5, np.nan]))


def test_a_model_does_not_differ_from_itself():
    found = intervals.paired(np.arange(5.0), np.arange(5.0))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_p_value_counts_both_tails_and_is_never_zero():
    assert intervals.p_value(np.linspace(1, 2, 999)) == 2 / 1000
    assert intervals.p_value(np.linspace(-1, 1, 1000)) == 1
    samples = np.arange(-24.5, 975)  # 25 of 1000 below 0
    assert intervals.p_value(samples) == 2 * 26 / 1001


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


@pytest.mark.parametrize("n", [4, 5, 7, 40])
def test_iqm_is_the_trimmed_mean_of_rliable(n):
    scores = np.random.default_rng(n).random((3, n))
    want = scipy_stats.trim_mean(scores, 0.25, axis=1)
    np.testing.assert_allclose(intervals.iqm(scores), want)
    interval = intervals.iqm_interval(list(scores), 500)
    np.testing.assert_allclose(interval.value, intervals.iqm(scores.ravel()))
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize(("draws", "floor"), [(4, 0.92), (12, 0.92)])
def test_coverage_of_a_difference_over_draws_and_patients(draws, floor):
    """A crossed normal model whose true difference is 0.1 (facts: scaling.md 5)."""
    rng = np.random.default_rng(0)
    hits = alone = 0
    trials = 300
    for i in range(trials):
        by_draw = rng.normal(size=(draws, 1)) * 0.05
        by_patient = rng.normal(size=(1, 150)) * 0.4
        values = 0.1 + by_draw + by_patient + rng.normal(size=(draws, 150)) * 0.3
        samples = intervals.means(values, np.arange(150), 300, seed=i)
        found = intervals.estimate(values.mean(1), samples, patients=150, seed=i)
        hits += found.low <= 0.1 <= found.high
        only = intervals.estimate(values.mean(1))
        alone += only.low <= 0.1 <= only.high
    assert floor <= hits / trials <= 0.995
    assert alone < hits  # draws alone do not see the test set's own chance


def test_ten_thousand_resamples_of_twenty_runs_in_seconds():
    rng = np.random.default_rng(0)
    values = (rng.random((20, 1000)) < 0.8).astype(float)
    start = time.perf_counter()
    samples = intervals.means(values, np.arange(1000), 10_000)
    found = intervals.estimate(values.mean(1), samples)
    assert time.perf_counter() - start < 10
    assert found.method == "crossed" and samples.shape == (10_000, 20)
