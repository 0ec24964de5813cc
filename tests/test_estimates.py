"""What is averaged in a cell, and the words for what its interval covers."""

import numpy as np
import pytest

from bigxfer.statistics.crossed import Side
from bigxfer.tables import differences, estimates
from bigxfer.tables.estimates import Grid


def row(source=None, seed=0, shots="5", upstream="nih", **more):
    upstream = "scratch" if source is None else upstream
    about = {"upstream": upstream, "upstream_seed": source, "seed": seed}
    return {**about, "shots": shots, "accuracy": 0.5, **more}


def grid(upstreams, draws, runs=1):
    """`runs` at each place; no draws: full data."""
    places = [
        [[row()] * runs for _ in range(draws or 1)] for _ in range(max(upstreams, 1))
    ]
    return Grid(places, tuple(range(draws)), tuple(range(upstreams)))


@pytest.mark.parametrize(
    "sides, patients, words",
    [
        ([grid(3, 4)], "9 patients", "over 3 upstream seeds, 4 draws and 9 patients"),
        ([grid(3, 4), grid(5, 4)], "", "over 3 and 5 upstream seeds and 4 draws; P"),
        ([grid(3, 4), grid(3, 4)], "9", "over 3 upstream seeds, 4 draws and 9"),
        ([grid(3, 4), grid(0, 4)], "9", "over 3 upstream seeds, 4 draws and 9"),
        ([grid(1, 4)], "9", "over 4 draws and 9; about this one upstream"),
        (
            [grid(1, 4), grid(1, 4)],
            "9",
            "over 4 draws and 9; about these two upstreams",
        ),
        ([grid(1, 4), grid(0, 4)], "9", "over 4 draws and 9; about this one upstream"),
        ([grid(0, 1)], "9", "over 9; about this one draw"),
        ([grid(0, 1)], "", "about this one draw; P"),
        ([grid(0, 0)], "9", "over 9; about this one training"),
        ([grid(0, 0), grid(0, 0)], "9", "over 9; with one training a side"),
        ([grid(2, 0, runs=2)], "9", "over 2 upstream seeds and 9"),
    ],
)
def test_what_an_interval_covers(sides, patients, words):
    lost = "the choice of test patients is not covered"
    assert estimates.covers(sides, patients) == words.replace("P", lost)


def test_trainings_at_full_data_are_counted():
    runs = [[[row(shots="full")]] for _ in range(3)]
    of_scratch, of_one = Grid(runs, (), ()), Grid(runs[:2], (), (7,))
    assert estimates.covers([of_scratch], "9") == "over 3 trainings at full data and 9"
    words = "over 3 trainings at full data and 9; about this one upstream"
    assert estimates.covers([of_scratch, of_one], "9") == words


@pytest.mark.parametrize(
    "pair, why",
    [
        ((grid(3, 4), grid(0, 4)), ""),
        ((grid(3, 4), grid(1, 4)), "one upstream seed"),
        ((grid(3, 1), grid(3, 1)), "one draw"),
        ((grid(3, 2), grid(3, 2)), ""),
        ((grid(0, 0), grid(2, 0)), "one training"),
        ((grid(2, 0), grid(2, 0)), ""),
    ],
)
def test_why_there_is_no_p(pair, why):
    said = differences._lacks(pair, True)
    assert said.startswith(why) and bool(said) == bool(why)
    if not why:
        assert "no predictions" in differences._lacks(pair, False)


def test_the_seed_draws_images_at_few_shots_and_at_a_fraction():
    assert estimates.drawn([row(), row(shots="full")])
    assert not estimates.drawn([row(shots="full"), row(shots="full", fraction=1.0)])
    assert not estimates.drawn([row(shots="full", fraction=None)])
    assert estimates.drawn([row(shots="full", fraction=0.5)])


def test_a_grid_is_made_complete_by_leaving_out_what_lacks_most():
    """By hand: a draw that two of three upstreams lack, or an upstream that lacks most."""

    def runs(*places):
        return {(u, d): row(u, d) for u, d in places}

    every = [(u, d) for u in range(3) for d in range(4)]
    (whole,) = estimates.grids([runs(*every)])
    assert (whole.upstreams, whole.draws) == ((0, 1, 2), (0, 1, 2, 3))
    lacks_draw = [p for p in every if p not in ((0, 2), (1, 2))]
    (out,) = estimates.grids([runs(*lacks_draw)])
    assert (out.upstreams, out.draws) == ((0, 1, 2), (0, 1, 3)) and len(out.rows) == 9
    lacks_source = [p for p in every if p[0] != 1 or p[1] == 0]
    (out,) = estimates.grids([runs(*lacks_source)])
    assert (out.upstreams, out.draws) == ((0, 2), (0, 1, 2, 3))
    # one run of twelve: a third of its draw, a quarter of its upstream
    (out,) = estimates.grids([runs(*(p for p in every if p != (2, 1)))])
    assert (out.upstreams, out.draws) == ((0, 1, 2), (0, 2, 3))
    # two cells share draws, and an upstream seed of one is not that of the other
    a, b = estimates.grids([runs(*every), runs(*lacks_source)])
    assert a.draws == b.draws == (0, 1, 2, 3)
    assert (a.upstreams, b.upstreams) == ((0, 1, 2), (0, 2))
    # the last upstream of a cell is never left out, though it lacks half its draws
    many = runs(*((u, d) for u in range(5) for d in range(4)))
    a, b = estimates.grids([many, runs((0, 0), (0, 1), (1, 2), (1, 3))])
    assert a.draws == b.draws == (0, 1) and (b.upstreams, len(b.rows)) == ((0,), 2)
    a, b = estimates.grids([runs((0, 0), (0, 1), (0, 2)), runs((0, 0), (1, 1), (1, 2))])
    assert a.draws == b.draws and a.rows and b.rows and len(b.upstreams) == 1


def test_at_full_data_a_place_is_an_upstream_or_a_training():
    def runs(*seeds):
        return {(u, s): row(u, s, shots="full") for u, s in seeds}

    (two,) = estimates.grids([runs((0, 0), (0, 1), (7, 0))])
    assert [len(line[0]) for line in two.places] == [2, 1] and two.draws == ()
    assert two.upstreams == (0, 7) and not two.one_upstream
    (one,) = estimates.grids([runs((7, 0), (7, 1), (7, 2))])
    assert [len(line[0]) for line in one.places] == [1, 1, 1] and one.one_upstream
    scratch = {(-1, s): row(None, s, shots="full") for s in range(2)}
    (none,) = estimates.grids([scratch])
    assert len(none.places) == 2 and none.upstreams == ()


def test_the_variances_of_limits_and_the_patients_share():
    """By hand: half widths of 1.96 and 3.92 standard errors of 0.01."""
    z = 1.959964
    limits = [(0.8, 0.8 - 0.01 * z, 0.8 + 0.02 * z), (0.7, 0.7 - 0.03 * z, 0.7)]
    low, high = estimates.spread(limits)
    assert low == pytest.approx((1e-4 + 9e-4) / 2) and high == pytest.approx(2e-4)
    assert estimates.own_share(Side(np.array([[0.5, 0.6]]))) == 1
    # two runs that err alike on all patients share all of the variance
    sums = np.random.default_rng(0).normal(size=(200, 1, 1))
    alike = Side(np.array([[0.5, 0.5]]), np.tile(sums, (1, 1, 2)))
    assert estimates.own_share(alike) == pytest.approx(1)
    assert estimates.own_share(Side(np.array([[0.5]]), 0 * sums)) == 1
