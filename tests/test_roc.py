"""ROC and precision-recall curves: scikit-learn's values, and the coverage of their bands."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import precision_recall_curve, roc_curve

from bigxfer.statistics import roc
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
