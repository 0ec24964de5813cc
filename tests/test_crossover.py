"""Where A overtakes B: exactness, pairing, censoring, refitted laws."""

import csv
from pathlib import Path

import numpy as np
import pytest

from bigxfer.study import forms
from bigxfer.study.crossover import (
    crossover,
    fieller,
    from_replicates,
    last_crossing,
)

DATA = Path(__file__).parents[2] / "shared" / "data" / "scaling_data"
SHOTS = np.array([1.0, 2, 5, 10, 25, 50, 100, 250])


def study(slope=0.02, at=20.0, draws=5, noise=0.005, shared=0.05, seed=0):
    """Synthetic errors [draws, k] of A and B that cross at `at`, with shared noise."""
    rng = np.random.default_rng(seed)
    base = 0.5 * SHOTS**-0.2 + rng.normal(0, shared, (draws, len(SHOTS)))
    a = base + rng.normal(0, noise, base.shape)
    b = base + slope * np.log(SHOTS / at) + rng.normal(0, noise, base.shape)
    return a, b


@pytest.mark.parametrize("draws", [5, 30])
def test_finds_a_planted_crossing(draws):
    a, b = study(draws=draws)
    got = crossover(SHOTS, a, b)
    assert got.measured and got.low < 20 < got.high < 60
    assert got.low < got.value < got.high
    assert got.inside > 0.95 and got.reversed == 0
    assert "A overtakes B at" in str(got)


def test_pairing_removes_shared_noise():
    a, b = study(draws=12)
    paired = crossover(SHOTS, a, b)
    mixed = crossover(SHOTS, a, b[np.random.default_rng(1).permutation(12)])
    assert np.log(mixed.high / mixed.low) > 2 * np.log(paired.high / paired.low)


def test_not_within_the_data_is_said():
    a, b = study(at=1e6)
    got = crossover(SHOTS, a, b)
    assert not got.measured and got.value == np.inf
    assert str(got).startswith("not within the data: A is behind B from 1 to 250")
    ahead = crossover(SHOTS, *study(at=1e-4))
    assert ahead.value == 0 and "A is ahead of B" in str(ahead)
    falling = crossover(SHOTS, b=a, a=study()[0] * 0 + a[:1])
    assert isinstance(str(falling), str)
    a, b = study()
    swapped = crossover(SHOTS, b, a)
    assert np.isnan(swapped.value) and "B overtakes A instead" in str(swapped)
    assert (swapped.low, swapped.high) == (0.0, np.inf)


def test_open_intervals_are_normal():
    half = crossover(SHOTS, *study(at=180, noise=0.02))
    assert half.low > 1 and half.high == np.inf and "to above 250" in str(half)
    flat = [
        crossover(SHOTS, *study(slope=0.0, noise=0.02, seed=s), replicates=500)
        for s in range(20)
    ]
    assert sum(f.low > 0 and f.high < np.inf for f in flat) <= 2
    both = [f for f in flat if f.low == 0 and f.high == np.inf]
    assert len(both) > 10 and "below 1 to above 250" in str(both[0])


def test_agrees_with_fieller_where_noise_is_equal():
    a, b = study(noise=0.01, shared=0.02, seed=3)
    got = crossover(SHOTS, a, b, replicates=20_000)
    low, high = fieller(SHOTS, a, b)
    assert np.log([got.low, got.high]) == pytest.approx(np.log([low, high]), abs=0.6)
    assert fieller(SHOTS, *study(slope=0.0, noise=0.05)) == (0.0, np.inf)


def test_fieller_inverts_the_t_test():
    """At each end of the interval the t statistic of D is exactly its quantile."""
    from scipy import stats

    a, b = study(noise=0.01, seed=4)
    lines = np.array([np.polyfit(np.log(SHOTS), d, 1) for d in b - a])
    for end in fieller(SHOTS, a, b):
        d = lines[:, 0] * np.log(end) + lines[:, 1]
        assert stats.ttest_1samp(d, 0).pvalue == pytest.approx(0.05, rel=1e-6)


def test_last_crossing():
    grid = np.array([0.0, 1.0, 2.0, 3.0])
    d = np.array([[-1.0, 1, 1, 1], [-1, 1, -1, 3], [1, 1, -1, -1], [1, 1, 1, 1.0],
                  [-1, -1, -1, -1]])  # fmt: skip
    root, falling = last_crossing(grid, d)
    assert root == pytest.approx([0.5, 2.25, 1.5, -np.inf, np.inf])
    assert falling.tolist() == [False, False, True, False, False]


def test_patients_add_their_noise():
    """With images, the interval of D has both variances, and clusters widen it."""
    rng = np.random.default_rng(5)
    people, draws = 150, 6
    one = rng.normal(0, 0.3, people)[None, None] + 0 * SHOTS[None, :, None]
    a = 0.3 + rng.normal(0, 0.02, (draws, len(SHOTS), 1)) + 0 * one
    b = a + 0.02 * np.log(SHOTS / 20)[None, :, None] + one
    got = crossover(SHOTS, a, b)
    width = got.difference[:, 2] - got.difference[:, 1]
    assert width == pytest.approx(3.92 * one[0, 0].std() / np.sqrt(people), rel=0.1)
    doubled = crossover(SHOTS, np.repeat(a, 2, 2), np.repeat(b, 2, 2))
    grouped = crossover(
        SHOTS, np.repeat(a, 2, 2), np.repeat(b, 2, 2), patients=np.arange(300) // 2
    )
    again = grouped.difference[:, 2] - grouped.difference[:, 1]
    assert again == pytest.approx(width, rel=0.1)
    assert (doubled.difference[:, 2] - doubled.difference[:, 1] < 0.8 * width).all()


def test_refits_a_law_in_each_replicate():
    """M2 curves that cross once; the line is wrong here, the laws are right."""
    rng = np.random.default_rng(6)
    truth_a, truth_b = 0.02 + 0.9 * SHOTS**-0.5, 0.1 + 0.5 * SHOTS**-0.4
    grid = np.linspace(0, np.log(250), 10_000)
    d = 0.08 + 0.5 * np.exp(-0.4 * grid) - 0.9 * np.exp(-0.5 * grid)
    at = np.exp(grid[np.argmax(d > 0)])
    noise = rng.normal(0, 0.02, (2, 5, len(SHOTS)))
    a, b = truth_a * np.exp(noise[0]), truth_b * np.exp(noise[1])
    got = crossover(SHOTS, a, b, form=forms.M2, replicates=300)
    assert got.low < at < got.high and got.measured
    assert got.value == pytest.approx(at, rel=0.3)


def test_replicates_of_any_metric():
    rng = np.random.default_rng(7)
    a, b = (v.mean(0) for v in study(noise=1e-3))
    noise = rng.normal(0, 0.004, (2, 501, len(SHOTS)))
    noise[:, 0] = 0
    got = from_replicates(SHOTS, a + noise[0], b + noise[1])
    assert got.low < 20 < got.high


def test_missing_runs_and_bad_input():
    a, b = study()
    a[2, 3] = np.nan
    assert crossover(SHOTS, a, b).measured
    with pytest.raises(ValueError, match="paired row by row"):
        crossover(SHOTS, a, b[:3])
    with pytest.raises(ValueError, match="one draw"):
        crossover(SHOTS, b[:1], b[:1])
    with pytest.raises(ValueError, match="two different positive scales"):
        crossover(SHOTS * 0, a, b)
    a[:, 3] = np.nan
    with pytest.raises(ValueError, match="no draw has both at x = 10"):
        crossover(SHOTS, a, b)


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/scaling_data")
def test_a_crossing_of_lcdb():
    """Measured learning curves: LDA leads on few letters, a forest on many."""
    with open(DATA / "lcdb11_error_subset.csv") as file:
        table = [r for r in csv.DictReader(file) if r["dataset"] == "letter"]
    curves = {}
    for name in ("LDA", "ens.RandomForest"):
        ours = {float(r["n_train"]): r for r in table if r["learner"] == name}
        curves[name] = {k: (float(r["test_err_mean"]), float(r["test_err_spread"]))
                        for k, r in ours.items()}  # fmt: skip
    x = np.array(sorted(set.intersection(*map(set, curves.values()))))
    rng = np.random.default_rng(8)
    replicates = []
    for name in ("ens.RandomForest", "LDA"):
        mean, error = np.array([curves[name][n] for n in x]).T
        noise = rng.normal(size=(501, len(x))) * error
        noise[0] = 0
        replicates.append(mean + noise)
    got = from_replicates(x, *replicates)
    # at 16 to 40 letters the forest leads as well: no line, and the line's crossing at
    # 75 would be wrong with confidence
    assert got.misfit < 0.05 and got.by.startswith("interpolation")
    assert got.sign_changes >= 2 and "changes sign" in str(got)
    assert 128 < got.low < got.high < 216


def test_a_curved_difference_is_not_read_as_a_line():
    """Synthetic D that is flat, then rises: the line's zero would be far too low."""
    rng = np.random.default_rng(9)
    d = -0.02 + 0.4 * (np.log(SHOTS) > 4) * (np.log(SHOTS) - 4)
    b = 0.5 + rng.normal(0, 0.003, (5, len(SHOTS)))
    got = crossover(SHOTS, b - d, b)
    truth = np.exp(4 + 0.02 / 0.4)
    assert got.by.startswith("interpolation")
    assert got.low <= truth * 1.1 and got.high >= 50
