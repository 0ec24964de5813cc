"""Where A overtakes B: exactness, pairing, censoring, refitted laws."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bigxfer.scaling import forms
from bigxfer.scaling.crossover import crossover, from_replicates, lasting_lead

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
    assert got.inside > 0.95
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
    assert str(got).startswith("not within the data: A is behind B at 250")
    ahead = crossover(SHOTS, *study(at=1e-4))
    assert ahead.value == 0 and "A is ahead of B" in str(ahead)
    a, b = study()  # B overtakes A: A never takes the lead for good
    swapped = crossover(SHOTS, b, a)
    assert swapped.low == swapped.high == np.inf and "wholly outside" in str(swapped)


def test_open_intervals_are_normal():
    half = crossover(SHOTS, *study(at=180, noise=0.02))
    assert half.low > 1 and half.high == np.inf and "to above 250" in str(half)
    ends = [0, -1]
    a, b = study(noise=0.2, seed=1)
    wide = crossover(SHOTS[ends], a[:, ends], b[:, ends])
    assert wide.low == 0 and wide.high == np.inf
    assert "below 1 to above 250" in str(wide)


def test_two_scales_are_fiellers_interval():
    """With two scales the crossing is the zero of a line, for which Fieller's interval,
    the scales where a t test does not reject D = 0, is exact."""
    shots = np.array([5.0, 50.0])
    rng = np.random.default_rng(3)
    d = np.array([-0.02, 0.03]) + rng.normal(0, 0.008, (5, 2))
    grid = np.geomspace(5, 50, 2001)
    share = np.log(grid / 5) / np.log(10)
    line = d[:, :1] * (1 - share) + d[:, 1:] * share
    kept = grid[stats.ttest_1samp(line, 0).pvalue > 0.05]
    got = crossover(shots, np.zeros((5, 2)), d, replicates=40_000)
    assert 5 < kept[0] and kept[-1] < 50
    assert np.log([got.low, got.high]) == pytest.approx(np.log(kept[[0, -1]]), abs=0.06)


def test_lasting_lead():
    grid = np.array([0.0, 1.0, 2.0, 3.0])
    d = np.array([[-1.0, 1, 1, 1], [-1, 1, -1, 3], [1, 1, -1, -1], [1, 1, 1, 1.0],
                  [-1, -1, -1, -1], [1, -1, 0, 2]])  # fmt: skip
    root = lasting_lead(grid, d)
    assert root == pytest.approx([0.5, 2.25, np.inf, -np.inf, np.inf, 2.0])


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
    with pytest.raises(ValueError, match="mean errors above 0"):
        crossover(SHOTS, a * 0, b, form=forms.M2)
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
    # at 16 to 40 letters the forest leads as well; a line of D on ln n would give 75
    assert got.sign_changes >= 2 and "changes sign" in str(got)
    assert 128 < got.low < got.high < 216


def test_a_curved_difference_is_not_read_as_a_line():
    """Synthetic D that is flat, then rises: a line's zero would be far too low."""
    rng = np.random.default_rng(9)
    d = -0.02 + 0.4 * (np.log(SHOTS) > 4) * (np.log(SHOTS) - 4)
    b = 0.5 + rng.normal(0, 0.003, (5, len(SHOTS)))
    got = crossover(SHOTS, b - d, b)
    assert 50 <= got.low <= got.high <= 100
    turned = crossover(SHOTS[::-1], (b - d)[:, ::-1], b[:, ::-1])
    assert turned.value == got.value and (np.diff(turned.x) > 0).all()
