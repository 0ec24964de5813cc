"""Curves of a line: its errors by seed and draw, its replicates, what it takes for a law."""

import numpy as np
import pytest

from bigxfer.scaling import curves
from bigxfer.scaling.curves import Curve


class Samples:
    """Stands in for a PredictionReader: resampled metrics [r, runs]."""

    def __init__(self, values=None, patients=0):
        self.found = values, patients

    def samples(self, rows, metric):
        return self.found


def row(value, source=None, seed=0, shots="5", **more):
    known = {"accuracy": value, "upstream_seed": source, "seed": seed, "shots": shots}
    return known | {"target": "t", "model": "m", "upstream": "u", "folder": "f"} | more


def curve(*scales, x=None):
    """{(upstream seed, seed): value} at each scale."""
    runs = [{key: row(value, *key) for key, value in of.items()} for of in scales]
    x = np.arange(1.0, len(scales) + 1) if x is None else x
    return Curve({}, x, runs, "accuracy")


def test_errors_stand_by_upstream_seed_and_draw():
    found = curve({(3, 0): 0.9, (3, 1): 0.8, (7, 1): 0.6}, {(7, 0): 0.7}).errors()
    nan = np.nan
    first, second = [[0.1, 0.2], [nan, 0.4]], [[nan, nan], [0.3, nan]]
    np.testing.assert_allclose(found, np.stack([first, second], axis=2))


def test_at_full_data_the_trainings_of_an_upstream_are_one():
    def full(*scales):
        some = curve(*scales)
        for runs in some.runs:
            for one in runs.values():
                one["shots"] = "full"
        return some.errors()

    found = full({(3, 0): 0.9, (3, 5): 0.8, (7, 1): 0.6}, {(7, 0): 0.7})
    nan = np.nan
    np.testing.assert_allclose(found, [[[0.15, nan]], [[0.4, 0.3]]])
    one = full({(3, 0): 0.9, (3, 5): 0.8}, {(3, 5): 0.7})  # of one they are draws
    np.testing.assert_allclose(one, [[[0.1, nan], [0.2, 0.3]]])


def test_replicates_are_of_the_runs_of_each_scale():
    of = {(0, d): 0.8 for d in range(3)}
    some = curve(of, {**of, (0, 3): 0.8}, of)
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 0.9, (600, 10))
    found = some.scatter(Samples(values, 12))
    want = [(1 - values[:500, a:b]).mean(1) for a, b in ((0, 3), (3, 7), (7, 10))]
    # the draws agree, so that the patients alone move the curve
    np.testing.assert_allclose(found.curves, np.stack(want, axis=1))
    assert found.words == "4 draws and 12 test patients"
    lost = some.scatter(Samples())
    assert lost.words == "4 draws; the choice of test patients is not covered"
    values[4, 2] = np.nan
    assert some.scatter(Samples(values, 12)).words == lost.words
    single = curve({(0, 0): 0.8}, {(0, 0): 0.9}).scatter(Samples())
    assert single.curves is None and single.words == ""


def test_no_error_counts_half_an_image_or_half_the_least_error():
    some = curve({(0, 0): 1.0}, {(0, 0): 0.9}, {(0, 0): 0.6})
    assert some.scatter(Samples()).mean == pytest.approx([0.05, 0.1, 0.4])
    some.runs[0][0, 0]["test_images"] = 200
    assert some.scatter(Samples()).mean == pytest.approx([0.0025, 0.1, 0.4])
    none = curve({(0, 0): 1.0}, {(0, 0): 1.0})
    assert none.scatter(Samples()).mean == pytest.approx([0.5, 0.5])


def test_what_gives_no_law():
    assert curves.law(curve({(0, 0): 0.9}), Samples()).reason == "one scale"
    none = curve({(0, 0): 1.0}, {(0, 0): 1.0})
    assert curves.law(none, Samples()).reason == "no error at any scale"
    some = curve(*({(0, 0): v} for v in (0.5, 0.6, 0.7, 0.8, 0.85)))
    found = curves.law(some, Samples())
    assert found.reason == "5 of the 6 scales that a forecast needs"
    assert found.slope is not None


def test_the_largest_third_is_held_out_and_one_scale_at_least():
    scales = np.arange(1.0, 10)
    ends = [curves.cutoff(scales[:n]) for n in (2, 3, 5, 6, 8, 9)]
    assert ends == [1, 2, 4, 4, 6, 6]


def test_a_place_along_a_scale():
    assert curves.scale({"shots": "5"}, "shots") == 5
    assert curves.scale({"x": 0.5}, "x") == 0.5
    for value in (None, "full", "0", 0, -1, float("nan")):
        assert curves.scale({"x": value}, "x") is None


def test_runs_are_grouped_by_what_is_fixed_and_perfect_cells_are_counted():
    rows = [
        row(1.0, 0, 0, "5", line="b"),
        row(1.0, 0, 1, "5", line="b"),
        row(1.0, 0, 0, "10", line="b"),
        row(0.9, 0, 1, "10", line="b"),
        row(0.7, 0, 0, "1", line="a"),
    ]
    found, notes = curves.grouped(rows, ("target", "line"), ("shots",), "accuracy")
    assert [c.about["line"] for c in found] == ["a", "b"]
    assert found[1].x.tolist() == [5, 10] and len(found[1].runs[0]) == 2
    assert notes == [
        "1 cells without any error count as half an error: no law reaches 0."
    ]
    assert curves.grouped(rows[4:], ("line",), ("shots",), "accuracy")[1] == []
    two, _ = curves.grouped(rows[4:], ("line",), ("shots", "seed"), "accuracy")
    assert two[0].x.tolist() == [[1, 0]]
