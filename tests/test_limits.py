"""Limits of single runs: against definitions, references and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bigxfer.statistics import auroc, influence, limits, metrics
from bigxfer.statistics.influence import Patients
from bigxfer.statistics.limits import Score


def ranked(seed, n=60, positives=20, ties=False):
    rng = np.random.default_rng(seed)
    truth = (np.arange(n) < positives).astype(float)
    truth[-3:] = np.nan
    scores = rng.normal(size=n) + np.nan_to_num(truth)
    return truth, scores.round(1) if ties else scores


def derivative(statistic, n, step=1e-5):
    """d statistic(weights) / d weight of each image, by central differences."""
    up, down = 1 + step * np.eye(n), 1 - step * np.eye(n)
    return (statistic(up) - statistic(down)) / (2 * step)


@pytest.mark.parametrize("ties", [False, True])
def test_influences_are_derivatives_by_the_weights(ties):
    truth, scores = ranked(0, ties=ties)
    ranking = auroc.rank(truth, scores)
    got = influence.of_precision(truth, scores)
    want = derivative(lambda w: ranking.areas(w)[1], len(truth))
    np.testing.assert_allclose(got, want, atol=1e-8)
    got = influence.of_auroc(truth, scores)
    want = derivative(lambda w: ranking.areas(w)[0], len(truth))
    for y in (0, 1):  # enlarged within each class by sqrt(m / (m - 1))
        m = (truth == y).sum()
        np.testing.assert_allclose(
            got[truth == y], want[truth == y] * np.sqrt(m / (m - 1)), atol=1e-8
        )
    values, known = np.random.default_rng(1).random((2, 30))
    got = influence.of_mean(values * known, known)
    want = derivative(lambda w: w @ (values * known) / (w @ known), 30)
    np.testing.assert_allclose(got, want, atol=1e-8)


def test_the_variance_of_an_auroc_is_delongs():
    truth, scores = ranked(3)
    x, y = scores[truth == 1], scores[truth == 0]
    wins = (x[:, None] > y).astype(float)
    want = wins.mean(1).var(ddof=1) / len(x) + wins.mean(0).var(ddof=1) / len(y)
    got = (influence.of_auroc(truth, scores) ** 2).sum()
    assert got == pytest.approx(want)


def test_patients_with_equal_images_vary_as_their_patients_do():
    truth, scores = ranked(4)
    one = influence.of_auroc(truth, scores)
    many = np.repeat(truth, 3), np.repeat(scores, 3)
    alone = Patients.of(np.arange(60)).variance(one)
    thrice = Patients.of(np.repeat(np.arange(60), 3))
    assert thrice.images_each(np.ones(180, bool)) == 3
    # but for the sqrt(m / (m - 1)) of three times as many images
    assert thrice.variance(influence.of_auroc(*many)) == pytest.approx(alone, rel=0.04)


def test_mid_p_by_its_definition():
    """At a limit the tail beyond, with .65 of the observed number, is 2.5%."""
    for hits, n in ((0, 10), (1, 10), (6, 6), (45, 50), (130, 300)):
        low, high = limits.mid_p(hits, n)
        if hits:
            tail = stats.binom.sf(hits, n, low) + 0.65 * stats.binom.pmf(hits, n, low)
            assert tail == pytest.approx(0.025, abs=1e-9)
        if hits < n:
            tail = stats.binom.cdf(hits - 1, n, high)
            tail += 0.65 * stats.binom.pmf(hits, n, high)
            assert tail == pytest.approx(0.025, abs=1e-9)
        assert (low == 0) == (hits == 0) and (high == 1) == (hits == n)
    exact = stats.binomtest(45, 50).proportion_ci()
    low, high = limits.mid_p(45, 50)
    assert exact.low < low < high < exact.high
    wilson = stats.binomtest(45, 50).proportion_ci(method="wilson")
    np.testing.assert_allclose(limits.wilson(0.9, 50), wilson)


@pytest.mark.parametrize("n", [15, 30, 50, 100])
def test_proportions_cover_at_every_share(n):
    """By the binomial distribution: at least 93% at each share, 94 to 97% in the mean."""
    low, high = np.array([limits.mid_p(hits, n) for hits in range(n + 1)]).T[..., None]
    share = np.linspace(0.5, 1 - 1 / n, 500)
    chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, share)
    covered = (((low <= share) & (share <= high)) * chance).sum(axis=0)
    assert 0.93 <= covered.min() and 0.94 <= covered.mean() <= 0.97


def test_newcombe_by_its_definition():
    """Newcombe 2006, method 5: the distance is 1.96 standard errors at the limit."""
    for value, m, q in ((0.5, 10, 10), (0.9, 20, 80), (0.995, 15, 15), (1.0, 30, 30)):
        low, high = limits.newcombe(value, m, q)
        for end in (low, high):
            if end < 1:
                half = (m + q) / 2 - 1
                q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
                own = end * (1 - end) + half * (q1 - end**2) + half * (q2 - end**2)
                error = np.sqrt(own / (m * q))
                assert abs(value - end) == pytest.approx(1.95996 * error, rel=1e-4)
        assert low < value and (value < high or value == high == 1)


def test_hall_equals_student_without_skewness_and_leans_with_it():
    rng = np.random.default_rng(0)
    values = np.concatenate([x := rng.random(20), 1 - x])  # symmetric
    ids = Patients.of(np.arange(40))
    got = limits.mean(values.mean(), influence.of_mean(values, np.ones(40)), ids)
    want = stats.ttest_1samp(values, 0).confidence_interval()
    np.testing.assert_allclose([got.low, got.high], want, rtol=1e-6)
    values = rng.exponential(size=40)
    got = limits.mean(values.mean(), influence.of_mean(values, np.ones(40)), ids)
    assert got.high - got.value > 1.2 * (got.value - got.low)


def test_the_limits_of_a_mean_of_independent_metrics_add_as_squares():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50)) * np.repeat([[1, 0], [0, 1]], 25, axis=1)
    scores = [Score(0.8, 0.7, 0.85, sums=a), Score(0.6, 0.5, 0.75, sums=b)]
    got = limits.average(scores)
    assert got.low == pytest.approx(0.7 - np.hypot(0.1, 0.1) / 2)
    assert got.high == pytest.approx(0.7 + np.hypot(0.05, 0.15) / 2)
    same = limits.average([scores[0], scores[0]])
    np.testing.assert_allclose([same.low, same.high], [0.7, 0.85])


def run(labels, logits, patients=None):
    names = [f"c{i}" for i in range(logits.shape[1])]
    ids = np.arange(len(logits)) if patients is None else patients
    return metrics.compute(labels, logits, names, ids)["metrics"]


def test_a_perfect_run_is_not_known_to_be_perfect():
    """Percentiles of a bootstrap said 1.000 [1.000, 1.000]."""
    labels = np.arange(60) % 3
    found = run(labels, 9.0 * np.eye(3)[labels])
    for name in ("accuracy", "auroc_macro", "auroc_micro", "auprc/c0", "auroc/c1"):
        entry = found[name]
        assert entry["value"] == entry["high"] == 1.0 and 0.6 < entry["low"] < 0.99
    balanced = found["balanced_accuracy"]
    assert balanced["low"] == pytest.approx(1 - (1 - limits.mid_p(20, 20)[0]) / 3**0.5)


def test_few_patients_have_a_reason_and_no_interval():
    labels = np.array([0] * 40 + [1] * 4)
    logits = np.random.default_rng(0).normal(size=(44, 2))
    found = run(labels, logits)
    want = "4 patients with a positive label of c1; an interval needs 5"
    assert found["auroc/c1"]["low"] is None and found["auroc/c1"]["reason"] == want
    for name in ("auroc_macro", "auprc_macro", "balanced_accuracy"):
        assert want in found[name]["reason"] and found[name]["value"] is not None
    assert found["accuracy"]["low"] is not None
    one = run(labels, logits, np.zeros(44))
    for name in ("accuracy", "loss", "auroc_micro", "auroc_macro"):
        assert one[name]["low"] is None
        assert one[name]["reason"] == "1 patient in the test split; an interval needs 5"
    assert "no interval" in found["ece"]["reason"] and found["ece"]["low"] is None


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(2, 4), st.booleans(), st.floats(0, 8),
    st.integers(1, 3),
)  # fmt: skip
def test_limits_stay_in_range_and_have_a_width(seed, k, multi, skill, images):
    rng = np.random.default_rng(seed)
    n = 30 * images
    labels = np.repeat(rng.integers(0, k, 30), images)
    logits = rng.normal(size=(n, k)) + skill * np.eye(k)[labels]
    if multi:
        labels = np.eye(k)[labels]
        labels[rng.random(labels.shape) < 0.1] = np.nan
    found = run(labels, logits, np.repeat(np.arange(30), images))
    for name, entry in found.items():
        if entry["low"] is None:
            assert "interval" in entry["reason"] or "no" in entry["reason"]
            continue
        highest = {"loss": np.inf, "brier": 2.0}.get(name, 1.0)
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= highest, name
        assert entry["low"] < entry["high"]


@pytest.mark.parametrize("images", [1, 4])
def test_coverage_at_a_high_auroc(images):
    """30 patients at an AUROC of .985, where percentiles cover a half."""
    rng, patients, hits = np.random.default_rng(0), 30, {}
    gap = 3.1
    truth = {
        "auroc/c1": stats.norm.cdf(gap / 2**0.5),
        "accuracy": stats.norm.cdf(gap / 2),
    }
    trials = 100
    for _ in range(trials):
        labels = np.repeat(np.arange(patients) % 2, images)
        share = np.sqrt(0.5)  # of the spread, that a patient's images have in common
        noise = share * np.repeat(rng.normal(size=patients), images)
        noise += np.sqrt(1 - share**2) * rng.normal(size=patients * images)
        score = (noise + gap * labels) - gap / 2
        logits = np.stack([0 * score, score], 1)
        found = run(labels, logits, np.repeat(np.arange(patients), images))
        for name, value in truth.items():
            inside = found[name]["low"] <= value <= found[name]["high"]
            hits[name] = hits.get(name, 0) + inside
    for name, count in hits.items():
        assert count / trials > 0.92, name


def test_average_precision_without_skill_is_covered():
    """Of images in no order it is too high by (1 - share) H(n) / n, 0.05 of 50 images."""
    rng, inside = np.random.default_rng(0), 0
    people, ones = Patients.of(np.arange(50)), np.ones((1, 50))
    for _ in range(300):
        scores = []
        for share in (0.5, 0.35, 0.25):
            truth, odds = (rng.random(50) < share).astype(float), rng.normal(size=50)
            value = float(auroc.rank(truth, odds).areas(ones)[1][0])
            effect = influence.of_precision(truth, odds)
            scores.append(limits.precision(value, effect, truth, people))
        mean = limits.average(scores)
        inside += mean.low <= 1.1 / 3 <= mean.high
    assert inside / 300 > 0.93
