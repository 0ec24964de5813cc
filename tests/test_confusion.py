"""Confusion matrices by hand: shares of each class, and where they have no limits."""

import numpy as np
import pytest

from bigxfer.statistics import confusion, limits
from bigxfer.statistics.confusion import name_of


def scores(labels, called, people, classes=3):
    logits = np.eye(classes)[called]
    names = [f"c{i}" for i in range(classes)]
    return confusion.scores(np.array(labels), logits, names, np.array(people))


def test_shares_of_a_class_and_their_limits():
    labels, called = [0] * 6 + [1] * 4, [0, 0, 0, 1, 1, 2, 1, 1, 1, 0]
    found = scores(labels, called, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    values = {name_of(0, j): v / 6 for j, v in enumerate((3, 2, 1))}
    values |= {name_of(1, j): v / 4 for j, v in enumerate((1, 3, 0))}
    assert {name: s.value for name, s in found.items()} == pytest.approx(values)
    # five patients have the first class, with two images of one of them
    people = limits.Patients.of(np.array([0, 0, 1, 2, 3, 4]))
    want = limits.proportion(np.array(called[:6]) == 1, np.ones(6, bool), people)
    one = found[name_of(0, 1)]
    assert (one.low, one.high, one.reason) == (want.low, want.high, "")
    assert one.low < one.value < one.high
    four = found[name_of(1, 1)]
    assert four.reason == "fewer than 5 patients with c1" and np.isnan(four.low)


def test_what_has_no_matrix():
    people = range(40)
    assert scores(np.arange(40) % 12, np.arange(40) % 12, people, 12)
    assert scores(np.arange(40) % 13, np.arange(40) % 13, people, 13) == {}
    findings = np.eye(3)[np.arange(40) % 3]
    assert scores(findings, np.arange(40) % 3, people) == {}
