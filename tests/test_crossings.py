"""Crossings of lines in words, and which line is called a."""

import math

import numpy as np

from bigxfer.scaling import crossings
from bigxfer.scaling.crossings import Crossing
from bigxfer.scaling.crossover import Crossover, Overtaking
from bigxfer.scaling.curves import Curve
from bigxfer.statistics.crossed import Part
from bigxfer.tables.differences import Difference

X = np.array([1.0, 10, 1000])


def found(value, tails=0.001):
    value = np.array(value, float)
    ends = np.stack([value, value - 0.01, value + 0.01], axis=1)
    return Crossover(X, ends, np.broadcast_to(tails, 3))


def crossing(value, pairs=1, over=(), **kw):
    return Crossing(
        {}, "nih", "scratch", found(value, **kw), "over 3 draws", pairs, over
    )


def test_an_overtaking_in_words():
    first = Overtaking(1, 12.345, 3, 45.6)
    one = crossing([-1, -1, 1], over=[first])
    words = "nih overtakes scratch at 12.3 shots (95% interval 3 to 45.6"
    assert one.verdict == "overtakes" and one.sentence("shots") == words + ")"
    three = crossing([-1, -1, 1], pairs=3, over=[first])
    assert three.sentence("shots") == words + ", told over 3 pairs)"
    two = crossing([-1, -1, 1], pairs=2, over=[first])
    assert two.sentence("shots") == words + ", told over 2 pairs)"
    twice = crossing([1, -1, 1], over=[Overtaking(-1, 2, 1, 3), first])
    assert twice.verdict == "crosses twice"
    assert twice.sentence("shots") == (
        "scratch overtakes nih at 2 shots (95% interval 1 to 3) and nih overtakes scratch"
        " again at 12.3 shots (95% interval 3 to 45.6)"
    )


def test_a_lead_in_words():
    lead = crossing([-0.1, 0.2, 0.2], tails=[0.4, 0.001, 0.001])
    assert lead.verdict == "ahead" and lead.sentence("images") == (
        "nih is ahead of scratch at 10, 1,000 images; no overtaking is told"
    )
    behind = crossing([-0.1, -0.2, 0.2], tails=[0.001, 0.4, 0.4])
    assert behind.sentence("images").startswith("scratch is ahead of nih at 1 images;")
    # 0.001 * 2 * 3 scales * 8 pairs is 0.048, and of 9 pairs 0.054
    assert crossing([1, 1, 1], pairs=8).verdict == "ahead"
    open_one = crossing([1, 1, 1], pairs=9)
    assert open_one.verdict == "not told apart" and open_one.sentence("images") == (
        "nih and scratch are not told apart from 1 to 1,000 images"
    )
    none = Crossing({}, "nih", "scratch", None, "too few")
    assert none.verdict == "" and none.sentence("x").endswith("no crossover, too few")


def test_the_line_that_leads_at_the_largest_scale_is_a(monkeypatch):
    """Differences by hand: of b from a 0.1, 0.2 and -0.3 at three common scales."""
    values = {1.0: 0.1, 10.0: 0.2, 1000.0: -0.3, 50.0: math.nan}

    def difference(a, b, metric, predictions):
        value = values[a["x"]]
        parts = (Part.even("draws", 0.01**2, 4),)
        ends = value - 0.02, value + 0.03
        covers = "over draws" if a["x"] == 1000 else "over fewer"
        return Difference(value, *ends, 0.5, 0.5, 0.5, parts, covers, "")

    monkeypatch.setattr(crossings.differences, "difference", difference)

    def curve(line, scales):
        runs = [{"x": x} for x in scales]
        return Curve({"line": line, "target": "t"}, np.array(scales), runs, "accuracy")

    scales = [1.0, 10.0, 50.0, 1000.0]
    a, b = curve("nih", scales), curve("scratch", [*scales, 5000.0])
    (one,) = crossings.crossings([a, b], None)
    assert (one.a, one.b, one.about) == ("scratch", "nih", {"target": "t"})
    np.testing.assert_allclose(one.found.difference[:, 0], [-0.1, -0.2, 0.3])
    np.testing.assert_allclose(one.found.difference[2], [0.3, 0.27, 0.32])
    assert one.found.x.tolist() == [1, 10, 1000] and one.basis == "over draws"
    assert one.overtakings and one.pairs == 1
    values[1000.0] = 0.0  # a tie: the names keep their order
    assert crossings.crossing(a, b, None).a == "nih"
    few = crossings.crossing(a, curve("scratch", [10.0, 50.0]), None)
    assert few.found is None and "two common scales" in few.basis
    two = crossings.crossing(a, curve("scratch", [1.0, 10.0]), None)
    assert (two.a, two.b) == ("nih", "scratch") and len(two.found.x) == 2
    other = curve("nih", scales)
    other.about["target"] = "u"
    assert crossings.crossings([a, other], None) == []
