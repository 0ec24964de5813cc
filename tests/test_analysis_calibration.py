from contextlib import suppress

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve
from test_analysis_gradcam import made

from bigxfer.analysis import ensembles
from bigxfer.runs import predictions
from bigxfer.statistics import auroc, calibration, metrics


@pytest.fixture(scope="module")
def golden():
    """The recipe of facts/protocols.md: labels, logits and probabilities of 300."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    a = y + rng.normal(size=300)
    return y, np.stack([0 * a, a], 1)


def draw(n, sharpness, classes=4, seed=0):
    """Labels drawn from softmax(logits), and the logits times `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, classes))
    p = calibration.probabilities(np.zeros(n), logits)
    labels = (p.cumsum(1) < rng.random((n, 1))).sum(1)
    return labels, logits * sharpness


def test_ece_equals_the_golden_and_that_of_metrics(golden):
    y, logits = golden
    p = calibration.probabilities(y, logits)
    assert calibration.ece(y, p) == pytest.approx(0.0497538911, abs=1e-9)
    names, rows = ["a", "b"], np.arange(300)
    want = metrics.compute(y, logits, names, rows, 0)["metrics"]["ece"]["value"]
    assert calibration.ece(y, p) == pytest.approx(want)
    many = np.stack([y, 1 - y], 1).astype(float)
    many[:50, 0] = np.nan
    want = metrics.compute(many, logits, names, rows, 0)["metrics"]
    p = calibration.probabilities(many, logits)
    assert calibration.ece(many, p) == pytest.approx(want["ece"]["value"])
    assert calibration.loss(many, logits) == pytest.approx(want["loss"]["value"])


def test_the_reliability_table_is_scikit_learns(golden):
    y, logits = golden
    p = calibration.probabilities(y, logits)[:, 1]
    table = calibration.binned(p, y.astype(float), 10)
    frequency, confidence = calibration_curve(y, p, n_bins=10)
    np.testing.assert_allclose([r["frequency"] for r in table], frequency)
    np.testing.assert_allclose([r["confidence"] for r in table], confidence)
    assert sum(r["count"] for r in table) == 300


def test_adaptive_bins_hold_equal_counts_and_keep_ties_together():
    c = np.random.default_rng(0).random(150)
    table = calibration.equal_counts(c, np.ones(150))
    assert {r["count"] for r in table} == {10}
    assert calibration.error(table) == pytest.approx(1 - c.mean())
    tied = calibration.equal_counts(np.repeat([0.2, 0.8], 50), np.zeros(100))
    assert [r["count"] for r in tied] == [50, 50]


def test_adaptive_ece_is_smaller_for_calibrated_predictions():
    labels, logits = draw(5000, 1.0)
    sharp = calibration.probabilities(labels, 3 * logits)
    honest = calibration.adaptive_ece(labels, calibration.probabilities(labels, logits))
    assert honest < 0.03
    assert calibration.adaptive_ece(labels, sharp) > 0.1


def test_the_temperature_is_that_of_scikit_learn_and_of_the_truth():
    labels, logits = draw(4000, 3.0)
    found = calibration.temperature(labels, logits)
    assert found == pytest.approx(3.0, rel=0.06)
    from scipy.optimize import minimize
    from sklearn.metrics import log_loss

    def nll(t):
        return log_loss(labels, calibration.probabilities(labels, logits / t[0]))

    want = minimize(nll, [1.0], method="Nelder-Mead").x[0]
    assert found == pytest.approx(want, rel=1e-3)


def test_a_temperature_for_many_labels_ignores_unknown_ones():
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(3000, 3))
    labels = (rng.random((3000, 3)) < calibration.probabilities(logits, logits)) * 1.0
    want = calibration.temperature(labels[:2000], logits[:2000] * 2)
    hidden = labels.copy()
    hidden[2000:] = np.nan
    assert calibration.temperature(hidden, logits * 2) == pytest.approx(want)
    assert want == pytest.approx(2, rel=0.1)


def test_no_temperature_is_made_up():
    y, perfect = np.array([0, 1, 0, 1]), np.eye(2)[[0, 1, 0, 1]] * 5
    with pytest.raises(ValueError, match="all right"):
        calibration.temperature(y, perfect)
    with pytest.raises(ValueError, match="no known label"):
        calibration.temperature(np.full((3, 2), np.nan), np.zeros((3, 2)))


def test_an_ensemble_is_the_mean_of_probabilities():
    labels, logits = draw(200, 1.0)
    other = logits[:, ::-1]
    found = ensembles.ensemble(labels, [logits, other])
    want = (
        calibration.probabilities(labels, logits)
        + calibration.probabilities(labels, other)
    ) / 2
    np.testing.assert_allclose(calibration.probabilities(labels, found), want)
    many = np.zeros((200, 4))
    found = ensembles.ensemble(many, [logits, other])
    want = (
        calibration.probabilities(many, logits) + calibration.probabilities(many, other)
    ) / 2
    np.testing.assert_allclose(calibration.probabilities(many, found), want)


def test_ensembles_align_by_id_and_refuse_others():
    labels, logits = draw(20, 1.0)
    ids = np.arange(20).astype(str)
    rest = ids, ids, ids
    a = predictions.Predictions(ids, *rest, labels, logits, tuple("abcd"))
    turned = np.arange(20)[::-1]
    b = predictions.Predictions(
        ids[turned], *rest, labels[turned], logits[turned], tuple("abcd")
    )
    for found in ensembles.aligned([a, b]):
        np.testing.assert_array_equal(found, logits)
    c = predictions.Predictions(ids, *rest, labels, logits, tuple("abce"))
    with pytest.raises(ValueError, match="run 2 was judged on other images or classes"):
        ensembles.aligned([a, c])
    d = predictions.Predictions(ids, *rest, 3 - labels, logits, tuple("abcd"))
    with pytest.raises(ValueError, match="run 2 has other labels"):
        ensembles.aligned([a, d])


def test_mc_dropout_varies_and_leaves_batch_norm_alone():
    model, variables, _ = made("smallcnn")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), np.uint8)
    passes = ensembles.mc_dropout(model, variables, pixels, 32, passes=3)
    assert len(passes) == 3 and passes[0].shape == (3, 3)
    assert not np.array_equal(passes[0], passes[1])
    alone = ensembles.mc_dropout(model, variables, pixels[:1], 32, passes=1)
    assert np.isfinite(alone[0]).all()
    again = ensembles.mc_dropout(model, variables, pixels, 32, passes=1)
    more = ensembles.mc_dropout(model, variables, pixels, 32, passes=1, seed=1)
    assert not np.array_equal(again[0], more[0])
    bit, variables, _ = made("cbr_tiny")
    with pytest.raises(ValueError, match="no dropout"):
        ensembles.mc_dropout(bit, variables, pixels, 32, passes=2)
    assert jax.tree.all(jax.tree.map(lambda x: bool(np.isfinite(x).all()), variables))


def test_referral_rises_where_uncertainty_knows():
    labels, logits = draw(1000, 1.0)
    p = calibration.probabilities(labels, logits)
    unsure = ensembles.uncertainty(labels, logits)
    patients = np.arange(1000).astype(str)
    curve = ensembles.referral(labels, p, patients, unsure)
    assert curve[-1]["coverage"] == 1 and curve[-1]["images"] == 1000
    assert curve[-1]["accuracy"] == pytest.approx(curve[0]["chance"])
    assert curve[0]["accuracy"] > curve[-1]["accuracy"] + 0.1
    assert curve[0]["low"] <= curve[0]["accuracy"] <= curve[0]["high"]
    blind = ensembles.referral(labels, p, patients, np.arange(1000.0))
    assert abs(blind[9]["accuracy"] - blind[9]["chance"]) < 0.05
    right = np.eye(4)[labels[:20]]  # all right: 20 of 20 is not [1, 1]
    sure = ensembles.referral(labels[:20], right, patients[:20], unsure[:20])
    want = stats.beta.ppf(0.025 / 0.65, 20, 1)  # of the tail .65 of 20 of 20 count
    assert sure[-1]["low"] == pytest.approx(want) and sure[-1]["high"] == 1
    assert np.isnan(sure[0]["low"])  # two patients
    many = np.where(np.eye(4)[labels] > 0, 1.0, np.where(p > 0.2, np.nan, 0.0))
    curve = ensembles.referral(many, p, patients, unsure)
    assert all(row["low"] < row["accuracy"] < row["high"] for row in curve[5:])


def test_entropy():
    single, many = np.zeros(1, int), np.zeros((1, 2))
    assert ensembles.uncertainty(single, np.zeros((1, 4))) == pytest.approx(np.log(4))
    half_and_sure = np.array([[0.0, 900.0]])
    assert ensembles.uncertainty(many, half_and_sure) == pytest.approx(np.log(2) / 2)


def test_the_sure_are_told_apart():
    """Beyond a gap of 37, where probabilities are 1 in float64."""
    gaps = np.array([20.0, 40.0, 60.0, 90.0])
    single, many = np.zeros(4, int), np.zeros((4, 1))
    logits = np.stack([gaps, 0 * gaps], 1)
    for labels, values in ((single, logits), (many, gaps[:, None])):
        assert (np.diff(ensembles.uncertainty(labels, values)) < 0).all()
        together = ensembles.ensemble(labels, [values, values + 0.0])
        odds = auroc.log_odds(labels, together)[:, 0]
        np.testing.assert_allclose(odds, gaps, rtol=1e-12)


def overconfident(n, seed, true=2.0, multilabel=False):
    """(labels, logits, patients) of a net whose logits are `true` times too large."""
    rng = np.random.default_rng(seed)
    fair = rng.normal(0, 2, (n, 3))
    patients = np.array([str(k) for k in range(n)])
    if multilabel:
        labels = (rng.random((n, 3)) < expit(fair)).astype(np.float32)
    else:
        p = softmax(fair, axis=1)
        labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).astype(np.int32)
    return labels, fair * true, patients


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_interval_of_a_temperature_narrows_around_it(multilabel):
    widths = []
    for n in (40, 400):
        data = overconfident(n, 0, multilabel=multilabel)
        low, high = calibration.temperature_interval(*data)
        assert low < calibration.temperature(*data[:2]) < high
        widths.append(np.log(high / low))
    assert widths[0] > 2 * widths[1]


def test_images_of_few_patients_say_less():
    labels, logits, patients = overconfident(80, 0)
    alone = calibration.temperature_interval(labels, logits, patients)
    pairs = calibration.temperature_interval(
        labels.repeat(2), logits.repeat(2, axis=0), patients.repeat(2)
    )  # every image twice: no more is known
    np.testing.assert_allclose(pairs, alone, rtol=1e-4)


@pytest.mark.parametrize("patients", [[str(k) for k in range(8)], ["one"] * 8])
def test_few_images_that_bound_no_temperature_give_none(patients):
    labels, logits, _ = overconfident(8, 0)
    calibration.temperature(labels, logits)
    with pytest.raises(ValueError, match="8 images of . patients are too"):
        calibration.temperature_interval(labels, logits, np.array(patients))


@pytest.mark.parametrize("n, multilabel", [(40, False), (90, False), (40, True)])
def test_the_interval_of_a_temperature_covers_the_truth(n, multilabel):
    """The truth is 2; three standard errors of 300 simulations about 95%."""
    hits = []
    for seed in range(300):
        data = overconfident(n, seed, multilabel=multilabel)
        with suppress(ValueError):
            low, high = calibration.temperature_interval(*data)
            hits.append(low <= 2 <= high)
    assert len(hits) > 270 and abs(np.mean(hits) - 0.95) < 0.04


def test_bins_by_hand():
    """Bins are closed above; those of equal counts keep equal values together."""
    c = np.array([0.2, 0.25, 0.5, 0.5, 0.5, 0.9, 1.0])
    hit = np.array([0.0, 1, 1, 0, 1, 1, 1])
    table = calibration.binned(c, hit, 2)
    assert [r["count"] for r in table] == [5, 2]
    assert [(r["low"], r["high"]) for r in table] == [(0, 0.5), (0.5, 1)]
    assert [r["frequency"] for r in table] == pytest.approx([0.6, 1])
    assert [r["confidence"] for r in table] == pytest.approx([0.39, 0.95])
    # 5 images that are right by 0.21 too often, 2 by 0.05
    assert calibration.error(table) == pytest.approx((5 * 0.21 + 2 * 0.05) / 7)
    even = calibration.equal_counts(c, hit, 3)  # cut at 2 and 5
    assert [r["count"] for r in even] == [2, 3, 2]
    assert [(r["low"], r["high"]) for r in even] == [(0.2, 0.25), (0.5, 0.5), (0.9, 1)]
    tied = calibration.equal_counts(c, hit, 2)  # the cut at 4 falls among equal ones
    assert [r["count"] for r in tied] == [2, 5]
    p = np.array([[0.3, 0.7], [0.6, 0.4], [0.9, 0.1]])
    labels = np.array([1, 1, 0])
    assert calibration.ece(labels, p) == pytest.approx((0.3 + 0.6 + 0.1) / 3)
    assert calibration.adaptive_ece(labels, p) == pytest.approx((0.3 + 0.6 + 0.1) / 3)


def test_the_interval_of_a_temperature_by_its_definition():
    """Scores and curvature by numerical derivatives of the loss in 1 / T."""
    rng = np.random.default_rng(3)
    for multilabel in (False, True):
        truth = rng.integers(0, 3, 60)
        logits = 2 * np.eye(3)[truth] + 2 * rng.normal(size=(60, 3))
        labels = truth
        if multilabel:
            labels = np.where(rng.random((60, 3)) < 0.1, np.nan, np.eye(3)[truth])
        people = np.arange(60) // 2
        best = 1 / calibration.temperature(labels, logits)
        known = np.isfinite(labels).sum(1) if multilabel else np.ones(60)

        def losses(inverse, labels=labels, logits=logits, known=known):
            """The sum over each image's labels."""
            rows = [
                calibration.loss(labels[i : i + 1], inverse * logits[i : i + 1])
                for i in range(60)
            ]
            return np.array(rows) * known

        h = 1e-4
        slope = (losses(best + h) - losses(best - h)) / (2 * h)
        curve = ((losses(best + h) + losses(best - h) - 2 * losses(best)) / h**2).sum()
        scores = np.bincount(people, slope)
        error = np.sqrt((scores**2).sum() * 30 / 29) / curve
        half = stats.t.ppf(0.95, 29) * error
        found = calibration.temperature_interval(labels, logits, people, level=0.9)
        assert found == pytest.approx((1 / (best + half), 1 / (best - half)), rel=1e-3)
