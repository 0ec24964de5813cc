"""ROC and precision-recall curves: scikit-learn's values, and the coverage of their bands."""

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.metrics import precision_recall_curve, roc_curve

from bigxfer.statistics import limits, roc
from bigxfer.statistics.influence import Patients


@pytest.mark.parametrize("ties", [False, True])
def test_the_values_are_scikit_learns(ties):
    rng = np.random.default_rng(0)
    truth = rng.choice([0.0, 1.0, np.nan], 200, p=[0.5, 0.4, 0.1])
    odds = rng.normal(size=200) + np.nan_to_num(truth)
    odds = odds.round(1) if ties else odds
    people = Patients.of(np.arange(200).astype(str))
    known = np.isfinite(truth)
    fpr, tpr, _ = roc_curve(truth[known], odds[known], drop_intermediate=False)
    want = np.interp(roc.GRID, fpr, tpr)
    got = [p.value for p in roc.sensitivity(truth, odds, people)]
    np.testing.assert_allclose(got, want, atol=1e-12)
    precision, recall, _ = precision_recall_curve(truth[known], odds[known])
    want = [precision[np.flatnonzero(recall >= r - 1e-9)[-1]] for r in roc.GRID]
    got = [p.value for p in roc.precision(truth, odds, people)]
    np.testing.assert_allclose(got, want, atol=1e-12)


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_mean_is_of_all_classes_and_lacks_what_one_lacks(multilabel):
    rng = np.random.default_rng(1)
    labels, patients = rng.integers(3, size=90), np.arange(90).astype(str)
    logits, classes = rng.normal(size=(90, 3)), ["a", "b", "c"]
    if multilabel:
        labels = np.eye(3)[labels]
    found = roc.scores(labels, logits, classes, patients)
    for kind in ("roc", "pr"):
        for place in (0, 5, 19):
            each = [found[roc.name_of(kind, name, place)].value for name in classes]
            mean = found[roc.name_of(kind, roc.MACRO, place)]
            assert mean.value == pytest.approx(np.mean(each))
            assert np.isfinite(mean.low) == (place > 0)
    few = np.where(np.arange(90) < 3, 2, np.arange(90) % 2)
    found = roc.scores(few, logits, classes, patients)
    lacks = found[roc.name_of("pr", roc.MACRO, 12)]
    assert "3 patients with a positive label of c" in lacks.reason
    assert np.isnan(lacks.low)
    found = roc.scores(np.arange(90) % 2, logits, classes, patients)
    assert roc.name_of("roc", "a", 0) in found
    assert roc.name_of("roc", roc.MACRO, 0) not in found


def test_images_of_one_patient_that_are_alike_count_once():
    rng = np.random.default_rng(2)
    truth = (np.arange(80) % 2).astype(float)
    odds = rng.normal(size=80) + truth
    once = roc.sensitivity(truth, odds, Patients.of(np.arange(80).astype(str)))
    twice = roc.sensitivity(
        np.tile(truth, 2), np.tile(odds, 2), Patients.of(np.tile(np.arange(80), 2))
    )
    for a, b in zip(once[4:], twice[4:], strict=True):
        assert b.high - b.low == pytest.approx(a.high - a.low, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "patients, each, share, shift",
    [(100, 1, 0.3, 1.0), (400, 2, 0.1, 1.5), (200, 3, 0.3, 0.5), (100, 1, 0.5, 3.0)],
)
def test_the_bands_cover_a_known_curve(patients, each, share, shift):
    """Two normals `shift` apart, images of a patient correlated by 0.7: 400 studies."""
    rng = np.random.default_rng(0)
    cut = norm.isf(roc.GRID) + shift
    called = share * roc.GRID
    true = {
        "roc": norm.sf(norm.isf(roc.GRID) - shift),
        "pr": called / (called + (1 - share) * norm.sf(cut)),
    }
    covered = {kind: np.zeros((2, len(roc.GRID))) for kind in true}
    who = np.repeat(np.arange(patients), each)
    people = Patients.of(who)
    for _ in range(400):
        y = (rng.random(patients) < share).astype(float)[who]
        own = rng.normal(size=patients)[who]
        odds = np.sqrt(0.7) * own + np.sqrt(0.3) * rng.normal(size=len(y)) + shift * y
        for kind, curve in (("roc", roc.sensitivity), ("pr", roc.precision)):
            low, high = np.array([(p.low, p.high) for p in curve(y, odds, people)]).T
            inside = (low <= true[kind]) & (true[kind] <= high)
            covered[kind] += np.array([inside, np.isfinite(low)])
    for inside, known in covered.values():
        kept = known > 200  # places that have a band in most studies
        at = inside[kept] / known[kept]
        assert at.min() > 0.88 and at.mean() > 0.94


def points(odds, truth, patients=None):
    """{kind: the Scores of its curve} of an image a patient."""
    people = Patients.of(np.arange(len(odds)) if patients is None else patients)
    curves = {"roc": roc.sensitivity, "pr": roc.precision}
    return {kind: curve(truth, odds, people) for kind, curve in curves.items()}


@pytest.mark.parametrize("n", [20, 90])
def test_influences_are_those_of_the_images_beyond_the_threshold(n):
    """n of each side without ties: at a place of whole counts both sides sum to 0."""
    rng = np.random.default_rng(3)
    truth = (np.arange(2 * n) % 2).astype(float)
    odds = rng.permutation(2 * n) + 0.4 * n * truth
    names = np.argsort([str(i) for i in range(2 * n)])  # as patients are sorted
    found = points(odds, truth)
    high, low = odds[truth == 1], np.sort(odds[truth == 0])[::-1]
    fpr, tpr, _ = roc_curve(truth, odds, drop_intermediate=False)
    for g, place in enumerate(roc.GRID[4:], 4):
        k = round(n * place)
        if abs(n * place - k) > 1e-9 or found["roc"][g].value == 1:
            continue
        effect = np.empty(2 * n)
        effect[names] = found["roc"][g].sums
        want = ((high > low[k]) - (high > low[k]).mean()) / n
        np.testing.assert_allclose(effect[truth == 1], want, atol=1e-12)
        wide = max(0.05, 2 * np.sqrt(place * (1 - place) / n))
        ends = np.clip([place - wide, place + wide], 0, 1)
        slope = np.diff(np.interp(ends, fpr, tpr))[0] / np.diff(ends)[0]
        want = -slope * ((odds[truth == 0] > low[k]) - place) / n
        np.testing.assert_allclose(effect[truth == 0], want, atol=1e-12)
        assert effect[truth == 0].sum() == pytest.approx(0, abs=1e-12)


def test_the_influence_on_a_precision_is_that_on_its_log_odds():
    """p = h / (h + w): d log(h / w) = dh / h - dw / w, and the threshold moves w."""
    rng = np.random.default_rng(5)
    truth = (np.arange(40) % 2).astype(float)
    odds = rng.permutation(40) + 8.0 * truth
    names = np.argsort([str(i) for i in range(40)])
    found = points(odds, truth)["pr"]
    high = np.sort(odds[truth == 1])[::-1]
    fpr, tpr, _ = roc_curve(truth, odds, drop_intermediate=False)
    for g, place in ((5, 0.2), (13, 0.6), (20, 0.95)):
        assert roc.GRID[g] == place
        hits = round(20 * place)
        called = odds >= high[hits - 1]
        wrong = called[truth == 0].sum()
        effect = np.empty(40)
        effect[names] = found[g].sums
        wide = 2 * np.sqrt(place * (1 - place) / 20)
        ends = np.clip([place - wide, place + wide], 0, 1)
        slope = np.diff(np.interp(ends, tpr, fpr))[0] / np.diff(ends)[0]
        bend = slope / (max(wrong, 0.5) / 20)
        value = hits / (hits + wrong)
        want = (1 + bend * (called[truth == 1] - place)) / 20
        np.testing.assert_allclose(
            effect[truth == 1], value * (1 - value) * want, atol=1e-12
        )
        want = called[truth == 0] / -max(wrong, 1) * value * (1 - value)
        np.testing.assert_allclose(effect[truth == 0], want, atol=1e-12)


def test_limits_at_a_place_are_those_of_as_many_images_as_vary_as_much():
    rng = np.random.default_rng(6)
    truth = (np.arange(60) % 2).astype(float)
    odds, who = rng.normal(size=60) + 1.5 * truth, np.arange(60) // 4
    people = Patients.of(who)
    for kind, curve in points(odds, truth, who).items():
        for g, point in enumerate(curve):
            if roc.GRID[g] * 15 < 3:
                side = "without" if kind == "roc" else "with"
                assert point.reason == (
                    f"fewer than 3 patients {side} the finding beyond the threshold"
                )
                assert np.isnan(point.low)
                continue
            cut = np.sort(odds[truth == 1])[::-1][
                int(np.ceil(roc.GRID[g] * 30 - 1e-9)) - 1
            ]
            counted = truth == 1 if kind == "roc" else odds >= cut
            worth = counted.sum() / people.images_each(counted)
            if 0 < point.value < 1:
                variance = (point.sums**2).sum() * 15 / 14
                share = (1.959964 / t.ppf(0.975, 14)) ** 2
                own = point.value * (1 - point.value) / variance * share
                worth = max(min(worth, own), 1)
            else:
                assert not point.sums.any()
            want = limits.mid_p(point.value * worth, worth)
            assert (point.low, point.high) == pytest.approx(want), (kind, g)
    # exactly at the least number of patients there are limits
    for count, finite in ((30, True), (29, False)):
        truth = (np.arange(2 * count) % 2).astype(float)
        some = points(rng.normal(size=2 * count) + truth, truth)
        for curve in some.values():
            assert np.isfinite(curve[roc.GRID.tolist().index(0.1)].low) == finite


def test_curves_of_more_than_20_classes_are_left_out():
    rng = np.random.default_rng(0)
    for classes, there in ((20, True), (21, False)):
        labels = np.arange(42) % classes
        names = [str(i) for i in range(classes)]
        logits = rng.normal(size=(42, classes))
        found = roc.scores(labels, logits, names, np.arange(42))
        assert bool(found) == there


def test_the_precision_without_skill_is_the_share_of_the_known_labels():
    assert roc.prevalence(np.array([0, 0, 1, 2]), 3).tolist() == [0.5, 0.25, 0.25]
    findings = np.array([[1, 0, np.nan], [0, 0, np.nan], [1, np.nan, np.nan]])
    shares = roc.prevalence(findings, 3)
    assert shares[:2].tolist() == [2 / 3, 0] and np.isnan(shares[2])
