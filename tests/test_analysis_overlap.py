import numpy as np
import pytest

from bigxfer.analysis import overlap
from bigxfer.statistics import auroc


def drawn(seed=0, n=300):
    """(truth [n, 3] with unknowns, scores [n, 3], weights [2, n])."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 3)) < [0.5, 0.4, 0.3]).astype(float)
    truth[:, 1] = np.where(rng.random(n) < 0.5, truth[:, 0], truth[:, 1])
    truth[rng.random((n, 3)) < 0.1] = np.nan
    scores = rng.normal(size=(n, 3)) + np.nan_to_num(truth)
    weights = np.stack([np.ones(n), rng.integers(0, 3, n)])
    return truth, scores, weights


def repeated(weights, *columns):
    times = weights.astype(int)
    return [np.repeat(c, times, axis=0) for c in columns]


def test_co_occurrence_is_numpys_correlation():
    truth, _, weights = drawn()
    found = overlap.co_occurrence(truth)(weights)
    for w, matrix in zip(weights, found, strict=True):
        (rows,) = repeated(w, truth)
        for i in range(3):
            for j in range(3):
                both = rows[np.isfinite(rows[:, [i, j]]).all(axis=1)]
                want = np.corrcoef(both[:, i], both[:, j])[0, 1]
                assert matrix[i, j] == pytest.approx(want)
    assert found[0, 0, 1] > 0.3 > abs(found[0, 0, 2])
    constant = np.ones((5, 2))
    assert np.isnan(overlap.co_occurrence(constant)(np.ones((1, 5)))).all()


def test_mistaken_is_a_mean_over_the_images_that_show_one_alone():
    truth, scores, weights = drawn()
    p = 1 / (1 + np.exp(-scores))
    found = overlap.mistaken(truth, p)(weights)
    for w, matrix in zip(weights, found, strict=True):
        y, q = repeated(w, truth, p)
        only = (y[:, 0] == 1) & (y[:, 2] == 0)
        assert matrix[0, 2] == pytest.approx(q[only, 2].mean())
        assert matrix[1, 1] == pytest.approx(q[y[:, 1] == 1, 1].mean())


def test_agreement_is_numpys_correlation_on_images_of_neither():
    truth, scores, weights = drawn()
    scores[:, 2] += 2 * scores[:, 0]
    found = overlap.agreement(scores, truth)(weights)
    for w, matrix in zip(weights, found, strict=True):
        y, x = repeated(w, truth, scores)
        neither = (y[:, 0] == 0) & (y[:, 2] == 0)
        want = np.corrcoef(x[neither, 0], x[neither, 2])[0, 1]
        assert matrix[0, 2] == pytest.approx(want)
    assert found[0, 0, 2] > 0.7


def test_probes_find_the_evidence_that_two_classes_share():
    """Class 1 is marked as class 0 is, class 2 otherwise; 3 is normal."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 800)
    features = rng.normal(size=(800, 6))
    features[:, 0] += 3 * (label < 2)
    features[:, 1] += 3 * (label == 2)
    truth = auroc.one_hot(label, 4)
    half = np.arange(800) < 400
    parts = features[half], truth[half], features[~half], truth[~half]
    patients = np.arange(400).astype(str)
    value, low, high = overlap.measured(overlap.shared(*parts), patients)
    assert low[0, 0] > 0.7 and low[0, 1] > 0.85 and low[1, 0] > 0.85
    assert low[0, 2] < 0.5 or value[0, 2] < 0.6  # evidence of its own
    assert (low <= value).all() and (value <= high).all()


def test_a_patient_shows_what_any_image_shows():
    truth = np.array([[1, 0], [0, 0], [np.nan, 1], [0, np.nan], [np.nan, np.nan]])
    found = overlap.by_patient(truth, np.array(["b", "a", "b", "a", "c"]))
    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [np.nan, np.nan]])
