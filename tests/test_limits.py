"""Limits of single runs: against definitions, references and simulated coverage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

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


@pytest.mark.parametrize("metric", ["auroc/a", "auprc/a", "auroc_micro"])
def test_patients_without_a_known_label_change_no_limits(metric):
    """Counted among the p of a variance's p / (p - 1), they would narrow the limits."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(12), 3)
    truth = np.repeat(np.arange(12) % 2, 3).astype(float)[:, None]
    logits = (
        truth + np.repeat(rng.normal(size=12), 3)[:, None] + rng.normal(size=(36, 1))
    )
    alone = metrics.scores(truth, logits, ["a"], patients)[metric]
    more = (
        np.concatenate([truth, np.full((50, 1), np.nan)]),
        np.concatenate([logits, rng.normal(size=(50, 1))]),
    )
    both = metrics.scores(*more, ["a"], np.r_[patients, 100:150])[metric]
    assert np.isfinite(alone.low) and both.low > 0
    assert (both.low, both.high) == pytest.approx((alone.low, alone.high), abs=1e-12)


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
    ids, every = Patients.of(np.arange(40)), np.ones(40)
    got = limits.mean(values.mean(), influence.of_mean(values, every), every, ids)
    want = stats.ttest_1samp(values, 0).confidence_interval()
    np.testing.assert_allclose([got.low, got.high], want, rtol=1e-6)
    values = rng.exponential(size=40)
    got = limits.mean(values.mean(), influence.of_mean(values, every), every, ids)
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


# ---- several images a patient: each formula again, from its parts


def jackknife(effect, who, known=None):
    """(sums of the effects within patients, the variance over the `known` or all)."""
    who = who.astype(str)  # patients go by their names
    sums = np.array([effect[who == one].sum() for one in np.unique(who)])
    n = known or len(sums)
    return sums, (sums**2).sum() * n / (n - 1)


def korn_graubard(patients):
    return (1.959964 / stats.t.ppf(0.975, patients - 1)) ** 2


def kish(who, count):
    """The images of a patient, as an image sees them."""
    sizes = np.array([count[who == one].sum() for one in np.unique(who)])
    return (sizes**2).sum() / sizes.sum()


@pytest.mark.parametrize("alike", ["nearly", "wholly", "perfect", "apart"])
def test_a_proportion_of_several_images_a_patient(alike):
    who = np.repeat(np.arange(8), 2)
    hit = {
        "nearly": [1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1],
        "wholly": [1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1],
        "perfect": [1] * 16,
        "apart": [1, 0] * 8,
    }[alike]
    hit, known = np.array(hit), np.arange(16) < 14  # the last patient is not known
    found = limits.proportion(hit, known, Patients.of(who))
    value = hit[:14].mean()
    sums, variance = jackknife((hit[:14] - value) / 14, who[:14])
    plain = value * (1 - value) / 14
    effect = {"nearly": variance / (plain or 1), "apart": 1}.get(alike, 2)
    assert 1 <= effect <= 2
    n = 14 / effect * korn_graubard(7)
    assert (found.low, found.high) == pytest.approx(limits.mid_p(value * n, n))
    assert found.value == value and found.one == pytest.approx(1 / 49)
    np.testing.assert_allclose(found.sums, [*sums, 0], atol=1e-12)
    five = limits.proportion(hit, known, Patients.of(who % 5))
    four = limits.proportion(hit, known, Patients.of(who % 4))
    assert five.low < five.high and np.isnan(four.low) and four.one == 1 / 16


def clustered():
    """(truth, odds, who): 12 patients with 1 to 3 images that are alike; one unknown.

    5 patients have the finding.
    """
    rng = np.random.default_rng(2)
    who = np.repeat(np.arange(12), 1 + np.arange(12) % 3)
    truth = (who % 2 == 0).astype(float)
    odds = rng.normal(size=12)[who] + 0.8 * rng.normal(size=24) + truth
    truth[0] = np.nan
    return truth, odds, who


def test_an_auroc_of_several_images_a_patient():
    truth, odds, who = clustered()
    effect = influence.of_auroc(truth, odds)
    found = limits.auroc(0.8, effect, truth, Patients.of(who))
    sums, variance = jackknife(effect, who, 11)
    alike = variance / (effect**2).sum()
    assert 1 < alike < kish(who, ~np.isnan(truth))
    each = korn_graubard(11) / alike
    want = limits.newcombe(0.8, (truth == 1).sum() * each, (truth == 0).sum() * each)
    assert (found.low, found.high) == pytest.approx(want)
    # one patient more moves it by at most a quarter of 1 / 5 or of 1 / 6
    assert found.one == pytest.approx((0.25 / 5) ** 2 + (0.25 / 6) ** 2)
    np.testing.assert_allclose(found.sums, sums)
    perfect = limits.auroc(1.0, 0 * effect, truth, Patients.of(who))
    each = korn_graubard(11) / kish(who, ~np.isnan(truth))
    want = limits.newcombe(1.0, (truth == 1).sum() * each, (truth == 0).sum() * each)
    assert (perfect.low, perfect.high) == pytest.approx(want)
    few = np.where(who == 2, np.nan, truth)  # four with the finding
    assert np.isnan(limits.auroc(0.8, effect, few, Patients.of(who)).low)
    few = np.where(who == 2, np.nan, 1 - truth)
    assert np.isnan(limits.auroc(0.8, effect, few, Patients.of(who)).low)


def test_a_micro_auroc_of_several_labels_an_image():
    first, _, who = clustered()
    truth = np.stack([first, 1 - first, first * (who % 3 == 0)], 1)
    known = ~np.isnan(truth)
    pairs, images = known.sum(1), 23
    positives, negatives = (truth == 1).sum(), (truth == 0).sum()
    rng, people = np.random.default_rng(0), Patients.of(who)
    one = (1 / min(positives, images) ** 2 + 1 / min(negatives, images) ** 2) / 16
    for size in (1e-3, 1e-2, 1.0):  # at least 1, between, at most all pairs alike
        effect = size * rng.normal(size=24)
        found = limits.auroc_micro(0.8, effect, truth, people)
        sums, variance = jackknife(effect, who, 11)
        plain = limits.hanley_mcneil(0.8, positives, negatives)
        effect = np.clip(variance / plain, 1, kish(who, pairs))
        each = korn_graubard(11) / effect
        want = limits.newcombe(0.8, positives * each, negatives * each)
        assert (found.low, found.high) == pytest.approx(want), size
        assert found.one == pytest.approx(one)
        np.testing.assert_allclose(found.sums, sums)
    perfect = limits.auroc_micro(1.0, np.zeros(24), truth, people)
    each = korn_graubard(11) / kish(who, pairs)
    want = limits.newcombe(1.0, positives * each, negatives * each)
    assert perfect.low == pytest.approx(want[0])
    for rows, finite in ((5, True), (4, False)):  # positive labels, or patients
        few = np.where(np.arange(60) < rows, 1.0, 0.0).reshape(20, 3)
        ids = Patients.of(np.arange(20))
        zero = np.zeros(20)
        assert np.isfinite(limits.auroc_micro(0.8, zero, few, ids).low) == finite
        assert np.isfinite(limits.auroc_micro(0.8, zero, 1 - few, ids).low) == finite
        ids = Patients.of(np.arange(20) % rows)
        half = np.arange(60).reshape(20, 3) % 2
        assert np.isfinite(limits.auroc_micro(0.8, zero, half, ids).low) == finite


@pytest.mark.parametrize("size", [0.0, 0.3, 3.0])
def test_an_average_precision_of_several_images_a_patient(size):
    """Wilson's limits of as many images as vary as much; the lower one less the bias."""
    truth, odds, who = clustered()
    effect = size * influence.of_precision(truth, odds)
    found = limits.precision(0.7, effect, truth, Patients.of(who))
    sums, variance = jackknife(effect, who, 11)
    positive, known, m = truth == 1, ~np.isnan(truth), 11
    assert positive.sum() == m and known.sum() == 23
    alike = variance / (effect**2).sum() if size else np.inf
    n = 1.5 * m / np.clip(alike, 1, kish(who, positive))
    if size:
        n = min(n, 0.21 / variance * korn_graubard(5))
    images = 23 / np.clip(alike, 1, kish(who, known))
    bias = 0.3 * (np.log(images) + 0.5772157) / images

    assert found.low == pytest.approx(limits.wilson(0.7 - bias, max(n, 1))[0])
    assert found.high == pytest.approx(limits.wilson(0.7, max(n, 1))[1])
    assert found.one == pytest.approx((0.25 / 5) ** 2)
    np.testing.assert_allclose(found.sums, sums)
    few = np.where(who == 2, np.nan, truth)  # four with the finding
    assert np.isnan(limits.precision(0.7, effect, few, Patients.of(who)).low)
    few = np.where(who == 2, np.nan, 1 - truth)
    assert np.isnan(limits.precision(0.7, effect, few, Patients.of(who)).low)


def test_halls_limits_are_where_his_transformation_is_students():
    """Hall 1992: t + g t^2 / 3 sqrt(n) + g^2 t^3 / 27 n + g / 6 sqrt(n), g the skewness."""
    values = np.random.default_rng(0).exponential(size=12)
    n, mean, g = 12, values.mean(), stats.skew(values) * (11 / 12) ** 1.5
    error = values.std(ddof=1) / n**0.5

    def transformed(mu):
        t = (mean - mu) / error
        cubic = t + g * t**2 / (3 * n**0.5) + g**2 * t**3 / (27 * n)
        return cubic + g / (6 * n**0.5)

    t = stats.t.ppf(0.975, 11)
    low, high = (
        optimize.brentq(lambda mu, end=end: transformed(mu) - end, -9, 9)
        for end in (t, -t)
    )
    every = np.ones(12)
    effect = influence.of_mean(values, every)
    found = limits.mean(mean, effect, every, Patients.of(np.arange(12)))
    # A loss has no largest effect of a patient to add to a difference's variance.
    assert found.one == 0
    assert (found.low, found.high) == pytest.approx((low, high))
    held = limits.mean(
        mean, effect, every, Patients.of(np.arange(12)), highest=high - 0.1
    )
    assert held.low == found.low and held.high == high - 0.1
    for patients, finite in ((5, True), (4, False)):
        people = Patients.of(np.arange(12) % patients)
        assert np.isfinite(limits.mean(mean, effect, every, people).low) == finite


def test_patients_without_a_label_do_not_narrow_the_limits_of_a_loss():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (30, 2)).astype(float)
    logits = rng.normal(size=(60, 2))
    alone = run(labels, logits[:30])["loss"]
    unknown = np.concatenate([labels, np.full((30, 2), np.nan)])
    together = run(unknown, logits)["loss"]
    assert together == pytest.approx(alone)


def test_a_brier_score_is_at_most_2_of_three_classes_and_1_else():
    """Five confident images of six are wrong."""
    labels, called = np.array([0, 1, 0, 1, 0, 1]), np.array([1, 0, 1, 0, 1, 1])
    two, three = (90.0 * np.eye(k)[called] for k in (2, 3))
    assert run(labels, three)["brier"]["high"] == 2
    assert run(labels, two)["brier"]["high"] == 1
    assert run(np.eye(2)[labels], two - 45)["brier"]["high"] == 1
    assert run(labels, three)["loss"]["high"] > 90


def test_the_limits_of_a_mean_take_in_how_metrics_vary_together():
    sums = np.random.default_rng(0).normal(size=(3, 40))
    sums[1] += sums[0]
    sums[2] = 0  # of a perfect class nothing is known to vary
    ends = [(0.8, 0.7, 0.85), (0.6, 0.5, 0.75), (1.0, 0.9, 1.0)]
    scores = [
        Score(*e, sums=s, one=0.09 * (i + 1))
        for i, (e, s) in enumerate(zip(ends, sums))
    ]
    found = limits.average(scores)
    r = sums[0] @ sums[1] / np.sqrt((sums[0] @ sums[0]) * (sums[1] @ sums[1]))
    below = 0.1**2 + 0.1**2 + 0.1**2 + 2 * r * 0.1 * 0.1
    above = 0.05**2 + 0.15**2 + 2 * r * 0.05 * 0.15
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - np.sqrt(below) / 3)
    assert found.high == pytest.approx(0.8 + np.sqrt(above) / 3)
    assert found.one == pytest.approx(0.09 * 6 / 9)
    np.testing.assert_allclose(found.sums, sums.mean(0))
    without = limits.average([*scores, Score(0.4)])
    assert without.value == pytest.approx(0.7) and np.isnan(without.low)


def test_a_root_takes_about_ten_calls():
    calls = []

    def f(x):
        calls.append(x)
        return x**5 - 0.3

    assert limits.root(f, 0, 1) == pytest.approx(0.3**0.2, abs=1e-12)
    assert len(calls) <= 15
    assert limits.root(lambda x: 1 - (1 - x) ** 5 - 0.3, 0, 1) == pytest.approx(
        1 - 0.7**0.2, abs=1e-12
    )
    # where there is none within, the end that is nearer to it
    assert limits.root(lambda x: x + 1, 2, 4) == pytest.approx(2)
    assert limits.root(lambda x: x - 9, 2, 4) == pytest.approx(4)
    assert limits.root(lambda x: x - 2, 2, 4) == pytest.approx(2)


def test_wilson_at_the_ends_and_the_entries_of_a_result():
    z2 = 1.959964**2
    assert limits.wilson(0.0, 10) == pytest.approx((0, z2 / (10 + z2)))
    assert limits.wilson(1.0, 10) == pytest.approx((10 / (10 + z2), 1))
    known = {"value": 0.5, "low": 0.4, "high": 0.7}
    assert Score(0.5, 0.4, 0.7, "few").entry() == known
    none = {"low": None, "high": None}
    assert Score(0.5, reason="few").entry() == {"value": 0.5, **none, "reason": "few"}
    assert Score(0.5).entry("absent") == {"value": 0.5, **none}
    assert Score(np.nan).entry("absent") == {"value": None, **none, "reason": "absent"}


def test_a_class_with_few_on_either_side_says_which():
    labels = np.zeros((30, 3))
    labels[:4, 0], labels[:26, 1], labels[:5, 2] = 1, 1, 1
    found = run(labels, np.random.default_rng(0).normal(size=(30, 3)))
    needed = "; an interval needs 5"
    lines = [
        f"4 patients with a positive label of c0{needed}",
        f"4 patients with a negative label of c1{needed}",
    ]
    for i, line in enumerate(lines):
        assert found[f"auroc/c{i}"]["reason"] == found[f"auprc/c{i}"]["reason"] == line
    for name in ("auroc_macro", "auprc_macro", "balanced_accuracy"):
        assert found[name]["reason"] == "; ".join(lines)
    for name in ("auroc/c2", "auprc/c2", "auroc_micro", "loss"):
        assert found[name]["low"] < found[name]["high"]
    alike = run(np.arange(30) % 2, np.zeros((30, 2)))["loss"]
    assert alike["reason"] == "no interval: all patients have the same value"
    five = run(np.arange(10) % 2, np.random.default_rng(0).normal(size=(10, 2)))
    assert all(e["low"] is not None for name, e in five.items() if name != "ece")
