"""Influences and variances by hand, and against scikit-learn's derivative."""

import numpy as np
import pytest
from sklearn import metrics as sk

from bigxfer.statistics import influence
from bigxfer.statistics.influence import Patients


def test_patients_are_numbered_by_name_and_their_images_go_together():
    people = Patients.of(np.array(["b", "a", "b", "c"]))
    assert people.count == 3 and people.index.tolist() == [1, 0, 1, 2]
    assert people.sums(np.array([1.0, 2, 3, 4])).tolist() == [2, 4, 4]
    assert people.having(np.array([True, False, True, False])) == 1
    assert people.having(np.zeros(4, bool)) == 0
    # squares of the images of a patient over their sum: (2 * 2 + 1) / 3
    assert people.images_each(np.array([1, 1, 1, 0])) == pytest.approx(5 / 3)
    assert people.images_each(np.array([0, 1, 0, 0])) == 1
    assert people.images_each(np.zeros(4)) == 0


def test_variances_by_hand():
    assert influence.variance(np.array([1.0, -1.0])) == pytest.approx(2 * 2 / 1)
    assert influence.variance(np.array([1.0, 1.0, -2.0])) == pytest.approx(6 * 3 / 2)
    assert influence.variance(np.array([3.0])) == 9
    values = np.array([0.3, 0.9, 0.1, 0.4])  # of a mean: s^2 / n
    each = influence.of_mean(values, np.ones(4))
    assert influence.variance(each) == pytest.approx(values.var(ddof=1) / 4)
    people = Patients.of(np.array(["a", "a", "b", "b"]))
    assert people.variance(each) == pytest.approx(
        values.reshape(2, 2).mean(1).var(ddof=1) / 2
    )


def test_the_influence_on_a_ratio_is_its_derivative():
    values, known = np.array([0.5, 2.0, 0.0, 1.0]), np.array([1.0, 3, 0, 2])
    found = influence.of_mean(values, known)
    for i in range(4):
        w = np.ones(4)
        w[i] += 1e-6
        slope = ((w @ values) / (w @ known) - 3.5 / 6) / 1e-6
        assert found[i] == pytest.approx(slope, abs=1e-6)


def test_influences_on_ranking_are_scikit_learns_derivatives():
    truth = np.array([1.0, 0, 1, 0, 0, 1, 1, np.nan, 0])
    scores = np.array([3.0, 3, 1, 2, 0, 2, 5, 9, 2])
    known = ~np.isnan(truth)
    m = {1: 4, 0: 4}
    area = influence.of_auroc(truth, scores)
    precision = influence.of_precision(truth, scores)
    assert area[7] == precision[7] == 0
    for i in np.flatnonzero(known):
        w = np.ones(9)
        w[i] += 1e-6
        args = truth[known], scores[known]
        for found, rate, larger in (
            (
                area,
                sk.roc_auc_score,
                np.sqrt(m[int(truth[i])] / (m[int(truth[i])] - 1)),
            ),
            (precision, sk.average_precision_score, 1.0),
        ):
            slope = (rate(*args, sample_weight=w[known]) - rate(*args)) / 1e-6
            assert found[i] == pytest.approx(larger * slope, abs=1e-5)


def test_one_positive_varies_by_its_negatives_alone():
    """DeLong: with one positive its own part has no variance that could be told."""
    truth, scores = np.array([1.0, 0, 0, 0]), np.array([2.0, 1, 3, 1])
    found = influence.of_auroc(truth, scores)
    places = np.array([1.0, 0, 1])
    assert found[0] == 0
    assert (found[1:] ** 2).sum() == pytest.approx(places.var(ddof=1) / 3)
