"""What a source gives away, by hand: shares of classes with one mean image added."""

import numpy as np
import pytest

from bigxfer.statistics import by_source

SOURCES = np.array(["x", "x", "x", "y", "z"])


@pytest.fixture
def told(monkeypatch):
    """The logits that `guessed` hands to the metrics, in place of its result."""

    def compute(labels, logits, classes, patients):
        return {"metrics": {"auroc_macro": logits}}

    monkeypatch.setattr(by_source.metrics, "compute", compute)


def part(labels, sources):
    n = len(sources)
    about = {"sources": np.array(sources), "patients": np.arange(n).astype(str)}
    return about | {
        "labels": np.array(labels),
        "logits": np.zeros((n, 2)),
        "classes": "ab",
    }


def test_one_class_an_image(told):
    valid = part([0, 1, 1, 1, 0], SOURCES)
    found = by_source.guessed(
        "sources", part([0, 1, 0, 1], ["x", "y", "z", "w"]), valid
    )
    mean = np.array([2.5, 3.5]) / 6  # of five images, with half an image a class added
    counts = {"x": ([1, 2], 3), "y": ([0, 1], 1), "z": ([1, 0], 1), "w": ([0, 0], 0)}
    want = [(np.array(k) + mean) / (n + 1) for k, n in counts.values()]
    np.testing.assert_allclose(found, np.log(want))


def test_several_labels_an_image_some_unknown(told):
    nan = np.nan
    valid = part([[0, 1], [1, nan], [0, 0], [nan, 1], [1, 1]], SOURCES)
    found = by_source.guessed("sources", part([[0, 1.0]] * 3, ["x", "y", "w"]), valid)
    mean = np.array([2.5 / 5, 3.5 / 5])
    share = np.array([[(1 + 0.5) / 4, (1 + 0.7) / 3], [0.5, (1 + 0.7) / 2], mean])
    np.testing.assert_allclose(found, np.log(share / (1 - share)))


def test_the_largest_sources_and_those_of_one_class():
    test = part([0, 1, 0, 1, 1], ["x", "x", "", "y", "y"])
    assert by_source.one_class(test) == [("y", "b", 2)]
    assert list(by_source.within(test, 2)) == ["x", "y"]
    assert list(by_source.within(test, 3)) == ["x", "y", ""]
    assert by_source.within(test, 1)["x"]["images"] == 2
    assert by_source.one_class(part([[0, 1.0]], ["x"])) == []
