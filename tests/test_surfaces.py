"""Surfaces: which lie where, how far a domain is, and what is too few for a law."""

import numpy as np
import pytest

from bigxfer.scaling import curves, surfaces
from bigxfer.scaling.curves import Curve
from bigxfer.scaling.forms import JOINT, TWO_WAY, TWO_WAY_FLOOR


class NoPredictions:
    def samples(self, rows, metric):
        return None, 0


def surface(first, second, draws=4, law=None):
    """Runs at every pair of scales, with errors of a law and a little noise."""
    x = np.array([(n, s) for n in first for s in second], float)
    error = (law or (lambda n, s: 0.4 * (n / 1e4) ** -0.2 * s**-0.2))(*x.T)
    noise = np.random.default_rng(0).normal(0, 0.02, (draws, 1))
    runs = [
        {
            (-1, d): {"accuracy": 1 - e * np.exp(noise[d, 0]), "shots": "5"}
            for d in range(draws)
        }
        for e in error
    ]
    return Curve({"line": "a"}, x, runs, "accuracy")


def fitted(curve, *forms):
    return surfaces.law(curve, forms or (TWO_WAY,), NoPredictions())


def test_a_law_takes_three_values_of_a_scale_and_two_of_the_other():
    few = "values of the scales: it takes 2 and 3 or more"
    assert fitted(surface([1e4, 1e5], [1, 5])).reason == f"2 and 2 {few}"
    assert fitted(surface([1e4, 1e5, 1e6], [1])).reason == f"3 and 1 {few}"
    assert fitted(surface([1e4], [1, 5, 10])).reason == f"1 and 3 {few}"
    # held out is the largest third of the first scale that has three values
    assert fitted(surface([1e4, 1e5, 1e6], [1, 5, 10, 50])).cutoff == 1e5
    assert fitted(surface([1e4, 1e5], [1, 5, 10, 50])).cutoff == 10


def test_forms_with_more_parameters_than_scales_below_the_cutoff_are_left_out():
    four = fitted(surface([1e4, 1e5, 1e6], [1, 5]), TWO_WAY, TWO_WAY_FLOOR)
    assert four.left_out == {
        "two_way_floor": "5 parameters, 4 scales up to 100000",
    }
    assert [score.form for score in four.scores] == [TWO_WAY]
    none = fitted(surface([1e4, 1e5, 1e6], [1, 5]), JOINT)
    assert none.reason == "4 scales up to 100000 are too few for any law"
    assert none.left_out == {"joint": "5 parameters, 4 scales up to 100000"}


def test_without_draws_it_takes_two_scales_more_than_parameters():
    """Their scatter about the law then stands for that of the errors."""
    six = fitted(surface([1e4, 1e5, 1e6], [1, 5], draws=1))
    assert six.reason == "" and six.band is not None
    assert len(six.band.theta) == curves.REPLICATES
    five = surface([1e4, 1e5, 1e6], [1, 5], draws=1)
    five = Curve(five.about, five.x[:-1], five.runs[:-1], "accuracy")
    told = fitted(five)
    assert told.band is None and told.fit is not None
    assert told.reason == (
        "no interval: it takes 3 draws, or 2 scales more than parameters"
    )


def test_the_distance_is_as_given_or_of_the_phantoms_domains():
    row = {"upstream": "u", "target": "t"}
    phantom = row | {"upstream_distance": 0.2, "target_distance": 0.7}
    assert surfaces.distance(phantom, {}) == pytest.approx(0.5)
    assert surfaces.distance(phantom, {("u", "t"): 3.0}) == 3
    turned = row | {"upstream_distance": 0.7, "target_distance": 0.2}
    assert surfaces.distance(turned, {("u", "other"): 3.0}) == pytest.approx(0.5)
    for ends in ((None, 0.2), (0.2, None), (None, None)):
        real = row | dict(zip(("upstream_distance", "target_distance"), ends))
        assert surfaces.distance(real, {}) is None
        assert surfaces.distance(real, {("u", "t"): 0.0}) == 0


def test_a_file_of_distances(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("upstream,target,distance\nnih,covid,0.5\ntiny,covid,2\n")
    known = {("nih", "covid"): 0.5, ("tiny", "covid"): 2.0}
    assert surfaces.read_distances(path) == known
    path.write_text("upstream,distance\n")
    with pytest.raises(ValueError, match="lacks the columns target"):
        surfaces.read_distances(path)
    for text in ("far", "inf", ""):
        path.write_text(f"upstream,target,distance\na,b,1\nnih,covid,{text}\n")
        with pytest.raises(ValueError, match=f"line 3: distance '{text}' is no number"):
            surfaces.read_distances(path)
