"""Three crossed factors: parts, intervals and tests, with known truth."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Part, Side


def crossed_study(rng, u, d, p, sd, patients=(0.3, 0.2, 0.2, 0.3)):
    """Two sides of points [u, d] and influences [p, u, d]; the true difference is 0.

    sd: of upstream seeds, draws, runs. patients: sd of what is common to all runs of a
    side, of a patient with a seed, with a draw, with a run.
    """
    draw = rng.normal(0, sd[1], d)
    out = []
    for sign in (1, -1):
        values = rng.normal(0, patients[0], (p, 1, 1))
        values = values + rng.normal(0, patients[1], (p, u, 1))
        values = values + rng.normal(0, patients[2], (p, 1, d))
        values = values + rng.normal(0, patients[3], (p, u, d))
        own = rng.normal(0, sd[0], (u, 1)) + rng.normal(0, sd[2], (u, d)) + draw
        own = own + rng.normal(0, sd[1], d)
        points = own + values.mean(0)
        out.append(Side(points, (values - values.mean(0)) / p, sign))
    return out


def test_parts_add_up_to_the_variance_of_the_difference():
    rng = np.random.default_rng(0)
    shape, sd = (4, 6, 80), (0.03, 0.05, 0.04)
    effects, totals, by_factor = [], [], {}
    for _ in range(600):
        sides = crossed_study(rng, *shape, sd)
        effects.append(sum(s.sign * s.points.mean() for s in sides))
        parts = crossed.parts(sides)
        totals.append(sum(p.low for p in parts))
        for part in parts:
            by_factor.setdefault(part.factor, []).append(part.low)
    assert np.mean(totals) == pytest.approx(np.var(effects), rel=0.15)
    # each factor alone: 2 sides, 4 seeds, 6 draws, 80 patients
    upstreams = 2 * np.mean(by_factor["upstreams"])  # one part a side
    assert upstreams == pytest.approx(2 * (0.03**2 + 0.2**2 / 80) / 4, rel=0.15)
    draws = 2 * (0.05**2 + 0.2**2 / 80) / 6
    assert np.mean(by_factor["draws"]) == pytest.approx(draws, rel=0.15)
    residual = 2 * (0.04**2 + 0.3**2 / 80) / 24
    assert np.mean(by_factor["residual"]) == pytest.approx(residual, rel=0.05)
    assert np.mean(by_factor["patients"]) == pytest.approx(2 * 0.3**2 / 80, rel=0.1)


def anova(x):
    """Mean squares of x [U, D] by least squares: seeds, draws, what is left of the runs."""
    u, d = x.shape
    row, column = np.indices((u, d)).reshape(2, -1)
    one, rows, columns = np.ones((u * d, 1)), np.eye(u)[row], np.eye(d)[column]

    def left(*blocks):
        design = np.hstack([one, *blocks])
        fitted = design @ np.linalg.lstsq(design, x.ravel())[0]
        return ((x.ravel() - fitted) ** 2).sum()

    both = left(rows, columns)
    seeds = (left(columns) - both) / max(u - 1, 1)
    draws = (left(rows) - both) / max(d - 1, 1)
    return seeds, draws, both / max((u - 1) * (d - 1), 1)


@pytest.mark.parametrize("u, d", [(3, 4), (2, 5), (4, 2), (1, 3), (3, 1), (1, 1)])
def test_parts_of_one_side_are_those_of_an_analysis_of_variance(u, d):
    """Table of mean squares: Searle, Casella and McCulloch 1992, section 4.7."""
    rng, p = np.random.default_rng(u + 10 * d), 30
    points = rng.normal(0, 1, (u, 1)) + rng.normal(0, 1, d) + rng.normal(0, 1, (u, d))
    sums = rng.normal(0, 1, (p, u, 1)) + rng.normal(0, 1, (p, 1, d))
    sums = sums + rng.normal(0, 0.5, (p, u, d)) + rng.normal(0, 3, (p, 1, 1))
    seeds, draws, runs = (square / (u * d) for square in anova(points))
    found = {part.factor: part for part in crossed.parts([Side(points)])}
    names = ["upstreams"] * (u > 1) + ["draws"] * (d > 1)
    assert list(found) == names + ["residual"] * (u > 1 and d > 1)
    for name, square, freedom in (("upstreams", seeds, u - 1), ("draws", draws, d - 1)):
        if name in found:
            assert found[name].square == pytest.approx(square)
            assert found[name].low == pytest.approx(max(square - runs, 0))
            assert found[name].high == found[name].low
            assert found[name].freedom == freedom
    if "residual" in found:
        assert found["residual"].low == pytest.approx(runs)
        assert found["residual"].freedom == (u - 1) * (d - 1)
    of_each = np.array([anova(x) for x in sums]) / (u * d)
    of_each *= [u > 1, d > 1, u > 1 and d > 1]
    own = sums.mean((1, 2)) ** 2 - of_each @ [1, 1, -1]
    want = own.sum() * p / (p - 1)
    assert want > 0 and crossed.patients([Side(points)], [sums]) == pytest.approx(want)


def test_patients_of_two_sides_share_their_draws():
    """The draws' part is that of the difference, seeds and runs have a part a side."""
    rng, p, d = np.random.default_rng(0), 40, 4
    sums, sides, want = [], [], 0.0
    common = rng.normal(0, 1, (p, 1, d))
    for sign, u in ((1, 3), (-1, 2)):
        x = common + rng.normal(0, 1, (p, u, d)) + rng.normal(0, 3, (p, 1, 1))
        sums.append(x)
        sides.append(Side(np.zeros((u, d)), x, sign))
        for one in x:
            seeds, _, runs = anova(one)
            want -= (seeds - runs) / (u * d)
    apart = sums[0].mean(1) - sums[1].mean(1)
    want += (apart.mean(1) ** 2).sum() - (apart.var(1, ddof=1) / d).sum()
    assert crossed.patients(sides, sums) == pytest.approx(want * p / (p - 1))


def test_no_interval_is_narrower_than_t_of_any_factors_own_means():
    """Also where the variance of two seeds, less what runs add to it, comes out as 0."""
    rng, cut = np.random.default_rng(6), 0
    for _ in range(60):
        sides = crossed_study(rng, 2, 6, 50, (0.005, 0.01, 0.02))
        a, b = (side.points.mean(1) for side in sides)
        parts = crossed.parts(sides)
        cut += any(part.low == 0 for part in parts if part.factor == "upstreams")
        value = a.mean() - b.mean()
        seeds = stats.ttest_ind(a, b, equal_var=False).pvalue
        draws = stats.ttest_rel(*(side.points.mean(0) for side in sides)).pvalue
        assert crossed.p_value(value, parts) > max(seeds, draws) * (1 - 1e-6)
    assert cut > 10


def test_small_p_of_two_seeds_are_as_rare_as_they_say():
    """One side, as of two ways to transfer from the same upstreams; no true effect."""
    rng, size, shape = np.random.default_rng(1), 4000, (2, 10)
    points = rng.normal(0, 0.04, (size, 2, 1)) + rng.normal(0, 0.01, (size, 1, 10))
    points += rng.normal(0, 0.02, (size, *shape))
    told = 0
    for x in points:
        told += abs(x.mean()) > crossed.reach(crossed.parts([Side(x)]), 0.0005, True)
    assert told <= stats.binom.ppf(0.999, size, 0.001)


@pytest.mark.parametrize("seeds, most", [((2, 2), 1.0), ((2, 5), 1.6), ((3, 5), 2.0)])
def test_two_seeds_beside_more_of_a_steadier_side(seeds, most):
    """Full data; the seeds of the side with fewer differ three times as much."""
    rng, size = np.random.default_rng(2), 40_000
    values = [rng.normal(0, sd, (size, u)) for u, sd in zip(seeds, (3, 1), strict=True)]
    parts = [
        Part.even("upstreams", x.var(1, ddof=1) / u, u - 1)
        for x, u in zip(values, seeds, strict=True)
    ]
    effect = np.abs(values[0].mean(1) - values[1].mean(1))
    for level in (0.05, 0.01, 0.001):
        told = np.mean(effect > crossed.reach(parts, level / 2, True))
        assert told <= most * level + 3 * np.sqrt(level / size)


def test_parts_of_a_larger_study():
    part = Part("upstreams", 1.0, 2.0, 3, 4.0).enlarged(2)
    assert part == Part("upstreams", 0.5, 1.0, 6, 2.0)
    assert Part.even("patients", 1.0, 9).enlarged(3).square is None
    cut = Part.less("draws", 1.0, 3.0, 4)
    assert (cut.low, cut.high, cut.square) == (0, 0, 1)


def test_two_of_each_are_enough_for_a_residual():
    """Of two rows the interaction is half the variance of their difference."""
    points = np.random.default_rng(5).normal(size=(2, 5))
    want = np.var(points[0] - points[1], ddof=1) / 2 / 10
    for side in (Side(points), Side(points.T)):
        found = {part.factor: part.low for part in crossed.parts([side])}
        assert found["residual"] == pytest.approx(want)


def test_one_factor_alone_is_students_t():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 7))
    sides = [Side(a[None]), Side(b[None], sign=-1)]
    parts = crossed.parts(sides)
    want = stats.ttest_rel(a, b)
    value = (a - b).mean()
    np.testing.assert_allclose(
        crossed.interval(value, parts), want.confidence_interval()
    )
    assert crossed.p_value(value, parts) == pytest.approx(want.pvalue, rel=1e-6)
    assert crossed.tail_beyond(value, parts) == pytest.approx(want.pvalue / 2, rel=1e-6)
    alone = crossed.parts([Side(a[:, None])])  # upstream seeds at full data
    want = stats.ttest_1samp(a, 0)
    np.testing.assert_allclose(
        crossed.interval(a.mean(), alone), want.confidence_interval()
    )


def test_two_upstreams_at_full_data_are_welchs_t():
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, 4), rng.normal(1, 4, 4)
    parts = crossed.parts([Side(a[:, None]), Side(b[:, None], sign=-1)])
    want = stats.ttest_ind(a, b, equal_var=False)
    value = a.mean() - b.mean()
    np.testing.assert_allclose(
        crossed.interval(value, parts), want.confidence_interval()
    )
    assert crossed.p_value(value, parts) == pytest.approx(want.pvalue, rel=1e-6)


def test_known_variances_are_the_normal_distribution():
    parts = [Part.even("a", 0.3**2, 1e9), Part.even("b", 0.4**2, 1e9)]
    low, high = crossed.interval(1.0, parts)
    np.testing.assert_allclose([low, high], 1 + 0.5 * stats.norm.ppf([0.025, 0.975]))
    tails = stats.norm.sf([0.8 / 0.5, 1.2 / 0.5])
    assert crossed.outside(1.0, parts, 0.2) == pytest.approx(1 - tails[0], rel=1e-5)
    inside = crossed.outside(0.1, [Part.even("a", 0.02**2, 1e9)], 0.15)
    assert inside == pytest.approx(stats.norm.sf(2.5), rel=1e-5)  # the nearer margin
    power = crossed.detectable(parts)
    assert power == pytest.approx(0.5 * (1.959964 + 0.841621), rel=1e-5)


def test_a_p_is_where_the_interval_reaches_the_null():
    parts = [
        Part.even("upstreams", 0.02**2, 2),
        Part.even("draws", 0.01**2, 4),
        Part("patients", 0.01**2, 0.03**2, 90),
    ]
    for value in (0.04, -0.04):
        p = crossed.p_value(value, parts)
        low, high = crossed.interval(value, parts, level=1 - p)
        assert (low if value > 0 else high) == pytest.approx(0, abs=1e-9)
    assert crossed.p_value(0.04, parts) < crossed.p_value(-0.04, parts)
    assert crossed.p_value(1e9, parts) < 1e-9
    assert crossed.p_value(0, parts) == pytest.approx(1)
    assert (
        np.isnan(crossed.p_value(0.1, [])) and np.isnan(crossed.interval(0.1, [])).all()
    )
    same = [Part.even("draws", 0.0, 4)]
    assert crossed.p_value(0.0, same) == 1 and crossed.p_value(0.1, same) == 0


def test_one_patient_more_keeps_two_equal_runs_from_being_known_equal():
    sums = np.zeros((50, 1, 1))
    sides = [Side(np.array([[0.9]]), sums), Side(np.array([[0.9]]), sums, -1)]
    low, high = crossed.interval(0.0, crossed.parts(sides, one=1 / 50**2))
    assert high == pytest.approx(-low) and high == pytest.approx(2.01 / 50, rel=1e-3)


def test_the_tail_of_two_single_runs_is_the_probability_of_a_false_claim():
    """arXiv 2505.04720: with x and y images that one run alone has right the shares are
    Dirichlet(x + 1, y + 1, n - x - y + 2), so "not better" is Beta(x + 1, y + 1) < 1/2."""
    for n, x, y in (
        (50, 8, 3),
        (100, 30, 18),
        (300, 12, 3),
        (100, 3, 0),
        (300, 20, 20),
    ):
        rights = [np.repeat(right, (x, y, n - x - y)) for right in ([1.0, 0, 1], [0.0, 1, 1])]  # fmt: skip
        sides = [
            Side(np.array([[r.mean()]]), (r - r.mean())[:, None, None] / n, sign)
            for r, sign in zip(rights, (1, -1), strict=True)
        ]
        told = crossed.tail_beyond((x - y) / n, crossed.parts(sides, 1 / n**2))
        assert told == pytest.approx(stats.beta.cdf(0.5, x + 1, y + 1), abs=0.005)


@pytest.mark.parametrize("spread, false", [(20, 0.03), (2, 0.0464), (1, 0.0919)])
def test_a_false_claim_is_told_too_low_where_true_differences_are_small(spread, false):
    """As Difference and the page say it; the standard error is 1."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, spread, 2_000_000)
    seen = truth + rng.normal(0, 1, truth.shape)
    at = stats.norm.isf(0.03)
    part = [Part.even("patients", 1.0, 1e9)]
    assert crossed.tail_beyond(at, part) == pytest.approx(0.03, rel=1e-6)
    near = np.abs(np.abs(seen) - at) < 0.1
    assert np.mean(seen[near] * truth[near] < 0) == pytest.approx(false, abs=0.004)


@pytest.mark.parametrize(
    "u, d, sd, least",
    [
        (1, 3, (0, 0.05, 0.02), 0.92),
        (3, 3, (0.04, 0.05, 0.02), 0.94),
        (5, 5, (0.04, 0.02, 0.02), 0.93),
        (3, 10, (0.04, 0.02, 0.02), 0.93),
    ],
)
def test_coverage_and_width(u, d, sd, least):
    rng, inside, width, effects = np.random.default_rng(2), 0, [], []
    trials = 300
    for _ in range(trials):
        sides = crossed_study(rng, u, d, 60, sd)
        value = sum(s.sign * s.points.mean() for s in sides)
        low, high = crossed.interval(value, crossed.parts(sides))
        inside += low <= 0 <= high
        width.append(high - low)
        effects.append(value)
    assert least <= inside / trials <= 0.995
    ideal = 2 * 1.96 * np.std(effects)
    if u >= 5 and d >= 5:
        assert np.mean(width) / ideal < 1.4


def test_the_benchmark_decides_as_the_code_does(monkeypatch):
    """benchmarks/coverage_claims.py takes many effects at once."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import coverage_claims

    rng = np.random.default_rng(0)
    value, several = rng.normal(0, 0.02, 40), 10.0 ** rng.uniform(-5, -3, (3, 40))
    names = zip(("upstreams", "upstreams", "draws"), several, (2, 3, 9), strict=True)
    parts = [Part.even(*of) for of in names]
    tails = coverage_claims.tails_beyond(value, parts)
    within = coverage_claims._outside(value, parts)
    for i, v in enumerate(value):
        one = [Part.even(p.factor, p.low[i], p.freedom) for p in parts]
        assert tails[i] == pytest.approx(crossed.tail_beyond(v, one), rel=1e-9)
        margin = coverage_claims.MARGIN
        assert within[i] == pytest.approx(crossed.outside(v, one, margin), rel=1e-9)
