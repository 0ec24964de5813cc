"""Where A overtakes B: told at both ends, places, families, double crossings."""

import math

import numpy as np
import pytest
from scipy import stats

from bigxfer.scaling.crossover import Crossover, crossover, decide
from bigxfer.scaling.reach import Reach, beyond, lasting_lead, rounded, within
from bigxfer.scaling.scatter import Scatter
from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Side
from bigxfer.tables.differences import Difference

SHOTS = np.array([1.0, 5, 10, 50, 100, 500])


def lines(d, se=0.01, draws=5, seed=None):
    """A pair whose difference is d [k], with noise of known size unless seed is None."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, se * math.sqrt(draws), (draws, len(d)))
    if seed is None:  # the same spread at each scale, and no luck
        noise = se * math.sqrt(draws) * stats.zscore(np.arange(draws), ddof=1)
        noise = np.tile(noise[:, None], len(d))
    found, tails = [], []
    for column in (d + noise).T:
        parts = crossed.parts([Side(column[None])])
        value = float(column.mean())
        ends = crossed.interval(value, parts)
        nan = math.nan
        found.append(Difference(value, *ends, nan, nan, nan, tuple(parts), "", ""))
        tails.append(crossed.tail_beyond(value, parts))
    return crossover(SHOTS[: len(d)], found, tails)


def slope(at=20.0, by=0.04):
    return by * np.log(SHOTS / at)


def test_a_crossing_is_told_with_a_closed_interval():
    pair = lines(slope(by=0.06))
    ((over,),) = decide([pair])
    assert over.leads == 1 and over.at == pytest.approx(20, rel=1e-6)
    assert 1 < over.low < 20 < over.high < 500
    ((other,),) = decide([lines(-slope(by=0.06))])
    assert other.leads == -1 and other.low == pytest.approx(over.low)
    assert other.high == pytest.approx(over.high)


def test_the_interval_ends_where_that_of_the_difference_leaves_0():
    """With equal noise: where a t interval about the straight line touches 0."""
    pair = lines(slope(by=0.06), se=0.01)
    half = stats.t.ppf(0.975, 4) * 0.01
    ((over,),) = decide([pair])
    ends = 20 * np.exp(np.array([-half, half]) / 0.06)
    assert [over.low, over.high] == pytest.approx(ends, rel=1e-6)


def test_noise_is_no_crossing_and_a_lead_is_none():
    """Signs change, and both ends are not told; or one end alone is."""
    weak = lines(slope(by=0.004))
    assert decide([weak]) == [[]] and weak.ahead(1) == [0] * 6
    assert lines(np.array([1, -1, 1, -1, 1, -1]) * 0.005).sign_changes == 5
    late = lines(np.array([-0.001, 0.001, -0.001, 0.02, 0.2, 0.3]))
    assert decide([late]) == [[]] and late.ahead(1) == [0, 0, 0, 0, 1, 1]


def test_two_crossings_are_said():
    twice = lines(np.array([0.2, 0.2, -0.2, -0.2, 0.2, 0.2]))
    ((first, second),) = decide([twice])
    assert (first.leads, second.leads) == (-1, 1)
    assert 5 < first.low < first.at < first.high < 10
    assert 50 < second.low < second.at < second.high < 100


def test_the_family_is_accounted_for():
    pair = lines(slope(by=0.04), se=0.02)
    assert decide([pair])[0] and 0.05 / 40 < pair.p() < 0.05
    flat = [lines(np.full(6, 0.001)) for _ in range(39)]
    assert decide([pair, *flat]) == [[]] * 40


def test_equal_lines_cross_in_few_studies():
    """No true difference at any scale: a study tells a crossing in 5% of cases at most,
    and of a pair with a true lead at the largest scale too."""
    told = leads = 0
    for seed in range(30):
        told += any(decide([lines(np.zeros(6), seed=[seed, i]) for i in range(3)]))
        late = [0, 0, 0, 0, 0, 1.0]
        leads += bool(decide([lines(np.array(late), seed=[seed, 99])])[0])
    assert told <= 1 and leads <= 5  # 1.5 are expected at most; 6 have a chance of 1%


def test_scales_in_any_order_and_bad_input():
    pair = lines(slope(by=0.06))
    rows = [Difference(*d, *[math.nan] * 3, (), "", "") for d in pair.difference[::-1]]
    turned = crossover(SHOTS[::-1], rows, pair.tails[::-1])
    assert isinstance(turned, Crossover) and (turned.x == pair.x).all()
    assert decide([turned]) == decide([pair])
    with pytest.raises(ValueError, match="two different scales"):
        crossover(SHOTS[:1], rows[:1], [0.1])
    nothing = Difference(0.1, *[math.nan] * 5, (), "", "")
    with pytest.raises(ValueError, match="without an interval"):
        crossover(SHOTS[:2], [nothing] * 2, [0.1, 0.1])


def test_lasting_lead():
    grid = np.array([0.0, 1.0, 2.0, 3.0])
    d = np.array([[-1.0, 1, 1, 1], [-1, 1, -1, 3], [1, 1, -1, -1], [1, 1, 1, 1.0],
                  [-1, -1, -1, -1], [1, -1, 0, 2], [1, 1, 1, -1]])  # fmt: skip
    root = lasting_lead(grid, d)
    assert root == pytest.approx([0.5, 2.25, np.inf, -np.inf, np.inf, 2.0, np.inf])


def test_sign_changes_pass_over_zeros():
    """Counted by hand: + 0 - - 0 0 + changes twice."""
    value = np.array([2.0, 0, -1, -3, 0, 0, 1])
    ends = np.stack([value, value - 1, value + 1], axis=1)
    assert Crossover(np.arange(1.0, 8), ends, np.full(7, 0.5)).sign_changes == 2
    same = Crossover(np.arange(1.0, 4), abs(ends[:3]), np.full(3, 0.5))
    assert same.sign_changes == 0


def test_the_p_of_a_crossing_by_hand():
    """Bonferroni over k - 1 scales at each end; of the two ends the less clear one."""
    value = np.array([-2.0, -3, 1, 2])
    table = np.stack([value, value - 1, value + 1], axis=1)
    pair = Crossover(SHOTS[:4], table, np.array([0.02, 0.001, 0.01, 0.003]))
    assert pair.p(1) == pair.p() == pytest.approx(3 * 0.003) and pair.p(-1) == 1
    assert pair.ahead(2) == [0, -1, 0, 1]  # 0.003 * 2 * 2 * 4 is 0.048
    assert pair.ahead(3) == [0, -1, 0, 0] and pair.ahead(7) == [0] * 4


def power_laws(factors):
    """Curves of error x^-0.5, each times a factor."""
    x = np.array([1.0, 4, 25, 100])
    mean = x**-0.5
    return x, Scatter(mean, None, mean * np.asarray(factors)[:, None], "draws")


def test_the_scale_that_reaches_an_error_within_the_data():
    """Between power laws the place is exact: x = (factor / error)^2."""
    factors = np.linspace(0.9, 1.1, 101)
    x, scattered = power_laws(factors)
    found = within(x, scattered, 0.125)
    assert (found.value, found.first, found.end) == (pytest.approx(64), 1, 100)
    # the 2.5% and 97.5% quantiles, rounded outward to a replicate
    assert found.low == pytest.approx(64 * factors[2] ** 2) and not found.ahead
    assert found.high == pytest.approx(64 * factors[98] ** 2)
    assert within(x, Scatter(scattered.mean, None, None, ""), 0.1) is None
    assert within(x[:1], scattered, 0.1) is None
    two = within(x[:2], Scatter(x[:2] ** -0.5, None, scattered.curves[:, :2], ""), 0.8)
    assert two.value == pytest.approx(1 / 0.64)


def test_the_scale_that_reaches_an_error_beyond_the_data():
    class Law:
        def predict(self, x):
            return x**-0.5, 0.8 * x**-0.5, 1.2 * x**-0.5

    found = beyond(np.array([1.0, 100]), Law(), 0.05)
    want = 400 * np.array([1, 0.64, 1.44])
    assert [found.value, found.low, found.high] == pytest.approx(want, rel=1e-3)
    assert (found.first, found.end, found.ahead) == (1, 1000, True)
    assert beyond(np.array([1.0, 10]), Law(), 0.05).value == np.inf


@pytest.mark.parametrize(
    "ends, words",
    [
        ((1234.5, 900, 2000), "at 1,230 shots (95% interval 900 to 2,000)"),
        ((5, 0, np.inf), "at 5 shots (95% interval below 1 to above 1,000)"),
        ((np.inf, np.inf, np.inf), "not within 10x of the data, up to 1,000 shots"),
        ((0, 0, 0), "at 1 shots already, the smallest scale"),
        ((0, 0, 3), "at 1 shots already (95% interval below 1 to 3)"),
        (
            (np.inf, 30, np.inf),
            "not within 10x of the data, up to 1,000 shots (95% interval 30 to above 1,000)",
        ),
    ],
)
def test_a_reach_in_words(ends, words):
    assert Reach(*ends, first=1, end=1000, ahead=True).sentence("shots") == words
    within_data = Reach(*ends, first=1, end=1000, ahead=False).sentence("shots")
    assert within_data == words.replace("within 10x of", "within")


def test_scales_have_no_exponent():
    assert [rounded(x) for x in (2.0, 1013.0, 23.5e6, 0.99996e6, 1.2345e9)] == [
        "2",
        "1,010",
        "23.5 million",
        "1 million",
        "1.23 billion",
    ]
