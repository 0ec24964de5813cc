"""Metrics against scikit-learn, to 1e-12, with ties, NaN labels and weights."""

import time
import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn import metrics as sk

from bigxfer.statistics import auroc, intervals, metrics, operating_point

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def values(out):
    return {name: entry["value"] for name, entry in out["metrics"].items()}


def single(seed, n=60, k=3, ties=True):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k))
    if ties:
        logits = logits.round(0)
    return np.concatenate([np.arange(k), rng.integers(0, k, n - k)]), logits


def multi(seed, n=80, k=3):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, k)) < 0.3).astype(np.float32)
    labels[:2] = [[0] * k, [1] * k]
    labels[2:][rng.random((n - 2, k)) < 0.25] = np.nan
    return labels, rng.normal(size=(n, k)).round(1).astype(np.float32)


def binned_ece(confidence, hit):
    """The definition of arXiv 1706.04599, bin by bin."""
    total = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if i == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_single_label_equals_scikit_learn(k, ties):
    labels, logits = single(k, k=k, ties=ties)
    p = softmax(logits, axis=1)
    q = p.round(12)  # (0, 1, 2) and (1, 0, 2) tie, but for the rounding of their sums
    names = [f"c{i}" for i in range(k)]
    found = values(
        metrics.compute(labels, logits, names, np.arange(len(labels)), False)
    )
    want = {
        "loss": sk.log_loss(labels, p),
        "accuracy": sk.accuracy_score(labels, p.argmax(1)),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, p.argmax(1)),
        "auroc_macro": sk.roc_auc_score(
            labels, q if k > 2 else q[:, 1], multi_class="ovr", average="macro"
        ),
        "auprc_macro": sk.average_precision_score(np.eye(k)[labels], q),
        "auroc_micro": sk.roc_auc_score(np.eye(k)[labels], q, average="micro"),
        "brier": sk.brier_score_loss(labels, p if k > 2 else p[:, 1]),
        "ece": binned_ece(p.max(1), p.argmax(1) == labels),
    }
    for i, name in enumerate(names):
        want[f"auroc/{name}"] = sk.roc_auc_score(labels == i, q[:, i])
        want[f"auprc/{name}"] = sk.average_precision_score(labels == i, q[:, i])
    assert found.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, err_msg=name, **CLOSE)


def test_multi_label_equals_scikit_learn_on_known_labels():
    labels, logits = multi(0)
    p = expit(logits.astype(np.float64))
    out = metrics.compute(labels, logits, ["a", "b", "c"], np.arange(80), False)
    found, known = values(out), ~np.isnan(labels)
    assert "accuracy" not in found
    np.testing.assert_allclose(
        found["loss"], sk.log_loss(labels[known], p[known]), **CLOSE
    )
    np.testing.assert_allclose(
        found["brier"], sk.brier_score_loss(labels[known], p[known]), **CLOSE
    )
    np.testing.assert_allclose(
        found["auroc_micro"], sk.roc_auc_score(labels[known], p[known]), **CLOSE
    )
    each = {"auroc": [], "auprc": [], "balanced": [], "ece": []}
    for i, name in enumerate("abc"):
        y, q = labels[known[:, i], i].astype(float), p[known[:, i], i]
        each["auroc"].append(sk.roc_auc_score(y, q))
        each["auprc"].append(sk.average_precision_score(y, q))
        each["balanced"].append(sk.balanced_accuracy_score(y, q > 0.5))
        each["ece"].append(binned_ece(q, y))
        np.testing.assert_allclose(found[f"auroc/{name}"], each["auroc"][-1], **CLOSE)
        np.testing.assert_allclose(found[f"auprc/{name}"], each["auprc"][-1], **CLOSE)
        assert out["counts"][name] == {
            "positive": int(np.sum(y == 1)),
            "negative": int(np.sum(y == 0)),
            "unknown": int(np.sum(~known[:, i])),
        }
    for name, key in (
        ("auroc_macro", "auroc"),
        ("auprc_macro", "auprc"),
        ("balanced_accuracy", "balanced"),
        ("ece", "ece"),
    ):
        np.testing.assert_allclose(found[name], np.mean(each[key]), **CLOSE)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 3)),
        min_size=2,
        max_size=30,
    )
)
def test_weighted_areas_equal_scikit_learn(rows):
    truth = np.array([float(r[0]) for r in rows])
    scores = np.array([float(r[1]) for r in rows])
    weights = np.array([[float(r[2]) for r in rows]])
    (area,), (ap,) = auroc.rank(truth, scores).areas(weights)
    kept = weights[0] > 0
    if len(set(truth[kept])) < 2:
        assert np.isnan(area) and np.isnan(ap)
        return
    w = weights[0]
    np.testing.assert_allclose(
        area, sk.roc_auc_score(truth, scores, sample_weight=w), **CLOSE
    )
    np.testing.assert_allclose(
        ap, sk.average_precision_score(truth, scores, sample_weight=w), **CLOSE
    )


@pytest.mark.parametrize("make", [single, multi])
def test_resampled_metrics_are_those_of_repeated_images(make):
    """The weighted path against literally repeating the rows of each resample."""
    labels, logits = make(3)
    n, names = len(labels), ["a", "b", "c"]
    patients = np.array([f"p{i // 2}" for i in range(n)])
    found = metrics.resampled(labels, logits, names, patients, 50, seed=7)
    (weights,) = intervals.patient_weights(patients, 50, seed=7)
    for i, w in enumerate(weights):
        rows = np.repeat(np.arange(n), w.astype(int))
        out = metrics.compute(labels[rows], logits[rows], names, rows, limits=False)
        for name, want in values(out).items():
            want = np.nan if want is None else want
            np.testing.assert_allclose(found[name][i], want, err_msg=name, rtol=1e-9)
    for name, want in found.items():
        alone = metrics.resampled(
            labels, logits, names, patients, 50, seed=7, only=name
        )
        np.testing.assert_array_equal(alone[name], want, err_msg=name)


def test_an_absent_class_is_null_with_its_reason():
    labels, logits = single(0)
    labels[labels == 2] = 1
    found = metrics.compute(labels, logits, ["a", "b", "c"], np.arange(60))
    for name in ("auroc/c", "auprc/c", "auroc_macro", "auprc_macro"):
        entry = found["metrics"][name]
        assert entry["value"] is entry["low"] is entry["high"] is None
        assert "no positive label of c" in entry["reason"]
    assert "of c" in found["metrics"]["balanced_accuracy"]["reason"]
    assert found["metrics"]["auroc/a"]["value"] is not None
    assert found["metrics"]["loss"]["low"] is not None


def test_a_class_without_a_known_label_is_null_with_its_reason():
    labels, logits = multi(0)
    labels[:, 1] = np.nan
    found = metrics.compute(labels, logits, ["a", "b", "c"], np.arange(80))
    assert (
        "no positive and no negative label of b"
        in (found["metrics"]["auroc_macro"]["reason"])
    )
    assert "no known label of b" in found["metrics"]["ece"]["reason"]
    assert found["metrics"]["brier"]["value"] is not None


def test_intervals_follow_the_patients():
    labels, logits = single(5, n=50)
    repeated = [np.repeat(x, 8, axis=0) for x in (labels, logits)]

    def width(patients):
        out = metrics.compute(*repeated, ["a", "b", "c"], patients)
        entry = out["metrics"]["accuracy"]
        return entry["high"] - entry["low"]

    of_patients = width(np.repeat(np.arange(50), 8))
    of_images = width(np.arange(400))
    assert 2.0 < of_patients / of_images < 4.0  # sqrt(8) = 2.8


def test_bad_input_is_named():
    labels, logits = single(0)
    ids = np.arange(60)
    with pytest.raises(ValueError, match="do not fit"):
        metrics.compute(labels, logits[:, :2], ["a", "b", "c"], ids)
    with pytest.raises(ValueError, match="row 4 are not finite"):
        bad = logits.copy()
        bad[4, 1] = np.nan
        metrics.compute(labels, bad, ["a", "b", "c"], ids)
    with pytest.raises(ValueError, match="row 5 has the label 3"):
        bad = labels.copy()
        bad[5] = 3
        metrics.compute(bad, logits, ["a", "b", "c"], ids)
    with pytest.raises(ValueError, match="empty"):
        metrics.compute(labels[:0], logits[:0], ["a", "b", "c"], ids[:0])


def test_thresholds_equal_those_of_the_roc_curve():
    labels, logits = multi(1, n=200)
    for i in range(3):
        known = ~np.isnan(labels[:, i])
        y, p = labels[known, i], expit(logits[known, i].astype(np.float64))
        fpr, tpr, thresholds = sk.roc_curve(y, p, drop_intermediate=False)
        all_p = expit(logits[:, i].astype(np.float64))
        youden = operating_point.choose(labels[:, i], all_p)
        best = (tpr - fpr).max()
        at = np.flatnonzero(thresholds == youden)[0]
        np.testing.assert_allclose(tpr[at] - fpr[at], best)
        assert (
            operating_point.choose(labels[:, i], all_p, 0.9)
            == (thresholds[np.flatnonzero(tpr >= 0.9)[0]])
        )


def test_the_operating_point_is_fixed_on_validation():
    valid_labels, valid_logits = multi(1, n=200)
    labels, logits = multi(2, n=150)
    point = operating_point.judge(
        valid_labels, valid_logits, labels, logits, "abc", np.arange(150), 0.9
    )
    flipped = operating_point.judge(
        valid_labels, valid_logits, 1 - labels, logits, "abc", np.arange(150), 0.9
    )
    for i, name in enumerate("abc"):
        assert flipped[name]["threshold"] == point[name]["threshold"]
        known = ~np.isnan(labels[:, i])
        called = expit(logits[:, i].astype(np.float64)) >= point[name]["threshold"]
        tn, fp, fn, tp = sk.confusion_matrix(
            labels[known, i], called[known].astype(int)
        ).ravel()
        sensitivity = point[name]["sensitivity"]
        np.testing.assert_allclose(sensitivity["value"], tp / (tp + fn))
        np.testing.assert_allclose(point[name]["specificity"]["value"], tn / (tn + fp))
        assert sensitivity["low"] <= sensitivity["value"] <= sensitivity["high"]
        assert sensitivity["low"] < sensitivity["high"]


def test_an_operating_point_needs_both_labels_in_validation():
    labels, logits = multi(1)
    valid = labels.copy()
    valid[:, 0] = 0
    point = operating_point.judge(valid, logits, labels, logits, "abc", np.arange(80))
    assert point["a"]["threshold"] is None
    assert point["a"]["reason"] == "no positive or no negative label of a to fix it by"
    assert point["b"]["threshold"] is not None


def test_saturated_probabilities_still_rank():
    """Sigmoids of 40 and 50 are both 1 in float64; their logits are not equal."""
    labels = np.array([[0.0], [1.0]])
    logits = np.array([[40.0], [50.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = metrics.compute(labels, logits, ["a"], np.arange(2), False)
    assert out["metrics"]["auroc/a"]["value"] == 1


def exact_probabilities(logits):
    """Softmax to 80 digits, as integers of units of 1e-80 that rank exactly."""
    with localcontext(prec=100):
        rows = [[Decimal(float(z)).exp() for z in row] for row in logits]
        return [[int(e / sum(row) * 10**80) for e in row] for row in rows]


def pairs_in_order(truth, scores):
    """The AUROC by counting all pairs of a positive and a negative."""
    right = total = 0.0
    for p, positive in zip(scores, truth):
        for n, negative in zip(scores, truth):
            if positive == 1 and negative == 0:
                total += 1
                right += 1.0 if p > n else 0.5 if p == n else 0.0
    return right / total


def saturated(k):
    """Labels and logits of 90 images, most with the first class more than 37 ahead."""
    labels, logits = single(k, n=90, k=k, ties=False)
    logits = 20 * logits + 15 * np.eye(k)[labels] + 40 * (np.arange(k) == 0)
    return labels, logits.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("k", [2, 3])
def test_saturated_softmax_still_ranks(k):
    """Against probabilities of 80 digits; float64's are 1 where they are 1 - 1e-17."""
    labels, logits = saturated(k)
    names = [f"c{i}" for i in range(k)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = values(metrics.compute(labels, logits, names, np.arange(90), False))
    exact, p = np.array(exact_probabilities(logits), object), softmax(logits, axis=1)
    truth = np.eye(k)[labels]
    want = [pairs_in_order(truth[:, i], exact[:, i]) for i in range(k)]
    for name, area in zip(names, want):
        assert found[f"auroc/{name}"] == pytest.approx(area, abs=1e-12)
    assert found["auroc_macro"] == pytest.approx(np.mean(want), abs=1e-12)
    micro = pairs_in_order(truth.ravel(), exact.ravel())
    assert found["auroc_micro"] == pytest.approx(micro, abs=1e-12)
    tied = sk.roc_auc_score(truth, p, average="macro")
    assert abs(tied - np.mean(want)) > 1e-3  # the case is one that float64 gets wrong


def test_log_odds_tie_where_probabilities_do():
    """Rows that differ by a shift, or by the order of the others, have equal odds."""
    logits = np.array([[0.25, 1.0, -2.0, 5.0], [5.0, 0.25, 1.0, -2.0]])
    logits = np.concatenate([logits, logits + 64.0])
    odds = auroc.log_odds(np.zeros(4, int), logits)
    turned = np.concatenate([odds[::2], np.roll(odds[1::2], -1, axis=1)])
    assert (turned == turned[0]).all()
    p = softmax(logits[0])
    np.testing.assert_allclose(odds[0], np.log(p / (1 - p)), rtol=1e-13)


def test_a_threshold_beyond_what_a_probability_can_say():
    """Of images that are all called with probability 1, those with the finding."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    gaps = 45 + 10 * labels + rng.random(60)
    point = operating_point.judge(
        labels, np.stack([0 * gaps, gaps], 1), labels, np.stack([-gaps, 0 * gaps], 1),
        ["a", "b"], np.arange(60),
    )["b"]  # fmt: skip
    assert point["threshold"] == 1.0 and 55 <= point["log_odds"] < 56
    assert point["sensitivity"]["value"] == point["specificity"]["value"] == 1.0


@pytest.mark.slow
def test_ten_thousand_images_fourteen_classes_in_seconds():
    rng = np.random.default_rng(0)
    labels = (rng.random((10_000, 14)) < 0.1).astype(np.float32)
    logits = rng.normal(size=(10_000, 14))
    start = time.perf_counter()
    metrics.compute(labels, logits, [f"c{i}" for i in range(14)], np.arange(10_000))
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(
    "scores, area, precision", [([2, 1], 1, 1), ([1, 2], 0, 0.5), ([1, 1], 0.5, 0.5)]
)
def test_areas_of_one_pair_by_hand(scores, area, precision):
    ranking = auroc.rank(np.array([1.0, 0.0]), np.array(scores, float))
    weights = np.array([[1.0, 1.0], [1, 0], [0, 1]])
    areas, precisions = ranking.areas(weights)
    np.testing.assert_equal(areas, [area, np.nan, np.nan])
    np.testing.assert_equal(precisions, [precision, np.nan, np.nan])


@pytest.mark.parametrize("kind, most", [("two", 1), ("three", 2), ("multi", 1)])
def test_a_brier_score_has_its_range(kind, most):
    """Nets that are sure and wrong for nearly all: the limits end where the score does."""
    k = 3 if kind == "three" else 2
    labels = np.arange(24) % k
    logits = 12.0 * np.eye(k)[(labels + 1) % k]
    logits[:2] *= 0.05  # two patients where it is less sure
    if kind == "multi":
        labels = np.eye(k)[labels]
        logits = 6 * logits - 30 + 25 * (np.arange(24) < 2)[:, None]
    names = ["a", "b", "c"][:k]
    found = metrics.compute(labels, logits, names, np.arange(24))["metrics"]["brier"]
    assert most / 2 < found["low"] < found["value"] < found["high"] <= most


def test_a_sensitivity_that_is_reached_exactly_is_enough():
    truth, odds = np.array([1.0, 1, 1, 1, 0]), np.array([4.0, 3, 2, 1, 0])
    assert operating_point.choose(truth, odds, 0.75) == 2
    assert (
        operating_point.choose(truth, odds, 0.76)
        == operating_point.choose(truth, odds)
        == 1
    )
