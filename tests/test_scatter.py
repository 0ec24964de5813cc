"""Replicates of mean errors: their deviations by hand, missing runs and perfect cells."""

import numpy as np
import pytest

from bigxfer.scaling.scatter import scatter

X = np.array([1.0, 10.0])  # of two scales any deviations are a power
HALF = np.array([0.005, 0.005])


def runs(upstreams, draws, seed=0):
    rng = np.random.default_rng(seed)
    moved = rng.normal(0, 0.02, (upstreams, 1, 2)) + rng.normal(0, 0.03, (1, draws, 2))
    return 0.3 + moved + rng.normal(0, 0.01, (upstreams, draws, 2))


def test_deviations_of_both_factors_add_up():
    errors = runs(3, 4)
    found = scatter(X, errors, HALF, 4000, None)
    mean = errors.mean((0, 1))
    of_upstreams = errors.mean(1).var(0, ddof=1) / 3
    of_draws = errors.mean(0).var(0, ddof=1) / 4
    want = np.sqrt(of_upstreams + of_draws) / mean
    assert found.mean == pytest.approx(mean) and found.sigma == pytest.approx(want)
    assert found.words == "3 upstream seeds and 4 draws"
    # Student's t has the variance f / (f - 2) with f degrees; of 2 it has none
    moved = np.log(scatter(X, runs(1, 12), HALF, 20_000, None).curves)
    sigma = scatter(X, runs(1, 12), HALF, 2, None).sigma
    assert moved.std(0) == pytest.approx(sigma * np.sqrt(11 / 9), rel=0.05)


def test_two_runs_say_nothing_and_one_factor_is_named_alone():
    assert scatter(X, runs(1, 2), HALF, 10, None).curves is None
    assert scatter(X, runs(2, 2), HALF, 10, None).sigma is None
    errors = np.concatenate([runs(1, 2), runs(1, 2)], axis=2)  # at four scales
    assert scatter(np.arange(1.0, 5), errors, np.ones(4), 10, None).curves is None
    assert scatter(X, runs(1, 3), HALF, 10, None).words == "3 draws"
    found = scatter(X, runs(3, 1), HALF, 10, None)
    assert found.words == "3 upstream seeds" and found.curves.shape == (10, 2)
    # beside three draws two upstreams count, with one degree of freedom
    both = scatter(X, runs(2, 3), HALF, 10, None)
    errors = runs(2, 3)
    want = errors.mean(1).var(0, ddof=1) / 2 + errors.mean(0).var(0, ddof=1) / 3
    assert both.sigma == pytest.approx(np.sqrt(want) / errors.mean((0, 1)))


def test_a_missing_run_is_left_out_of_its_means():
    errors = runs(1, 4)
    errors[0, 3, 1] = np.nan
    found = scatter(X, errors, HALF, 10, None)
    assert found.mean == pytest.approx(
        [errors[0, :, 0].mean(), errors[0, :3, 1].mean()]
    )
    want = [errors[0, :, 0].std(ddof=1) / 2, errors[0, :3, 1].std(ddof=1) / 3**0.5]
    assert found.sigma == pytest.approx(want / found.mean)


def test_a_scale_with_two_runs_takes_the_deviation_of_the_others():
    """Three scales of equal deviation, and a fourth whose two runs are equal by luck."""
    errors = np.full((1, 3, 4), np.nan)
    errors[0, :, :3] = 0.3 + 0.03 * np.array([-1, 0, 1])[:, None]
    errors[0, :2, 3] = 0.3
    found = scatter(np.array([1.0, 2, 4, 8]), errors, np.full(4, 0.01), 10, None)
    assert found.sigma == pytest.approx([0.1 / 3**0.5] * 3 + [0.1 / 2**0.5])


def test_runs_that_agree_at_every_scale_do_not_vary():
    """Three runs at one scale and two at the other, all of one mean error."""
    errors = np.full((1, 3, 2), 0.3)
    errors[0, 2, 1] = np.nan
    found = scatter(X, errors, HALF, 50, None)
    assert found.curves == pytest.approx(0.3) and found.sigma == pytest.approx(1.0)
    # upstream seeds that agree add nothing to what the draws say
    errors = np.repeat(runs(1, 3), 3, axis=0)
    errors[2, :, 1] = np.nan
    both, alone = (scatter(X, e, HALF, 5, None).sigma for e in (errors, errors[:1]))
    assert both == pytest.approx(alone)


def test_deviations_are_a_power_of_two_scales_and_of_no_third_input():
    x = np.array([[1, 1, 0.5], [2, 3, 3], [4, 1, 0.1], [8, 5, 9], [9, 1, 0.2]])
    errors = 0.3 + np.random.default_rng(1).normal(0, 0.02, (1, 4, 5))
    three, two = (scatter(x[:, :n], errors, np.ones(5), 5, None) for n in (3, 2))
    assert three.sigma == pytest.approx(two.sigma)


def test_a_perfect_cell_counts_half_an_error_and_is_told_as_unsure():
    errors = runs(1, 4)
    errors[:, :, 1] = 0
    found = scatter(X, errors, HALF, 500, None)
    assert found.mean[1] == 0.005 and found.sigma[1] == 1.0 and found.sigma[0] < 0.2


@pytest.mark.parametrize(
    "upstreams, draws, runs_left", [(1, 4, 4), (1, 4, 2), (3, 5, 5)]
)
def test_replicates_of_a_perfect_cell_vary_however_many_draws_agree(
    upstreams, draws, runs_left
):
    """None of n images wrong: up to 1 - 0.025 ** (1 / n) of them may be, at 97.5%."""
    errors = runs(upstreams, draws)
    errors[:, :, 1] = 0
    errors[:, runs_left:, 1] = np.nan
    n = 100
    found = scatter(X, errors, np.full(2, 0.5 / n), 20_000, None)
    low, high = np.quantile(found.curves[:, 1], [0.025, 0.975])
    assert high == pytest.approx(1 - 0.025 ** (1 / n), rel=0.06)
    assert low < 0.1 / n
    assert np.log(found.curves[:, 1]).std() == pytest.approx(found.sigma[1], rel=0.02)
    # the other cell has its own draws' deviations, and nothing of this one's
    alone = np.log(found.curves[:, 0]).std()
    assert alone < 0.5 * np.log(found.curves[:, 1]).std()


def test_resampled_patients_set_the_replicates():
    errors = runs(1, 4)
    errors[:, :, 1] = 0
    resampled = np.tile([[0.2, 0.1]], (300, 1))
    resampled[0, 0] = 0  # no error among these patients: a thousandth of the mean
    found = scatter(X, errors, HALF, 7, resampled)
    moved = scatter(X, errors, HALF, 300, np.ones((300, 2))).curves
    want = resampled[:, 0] * moved[:, 0]
    want[0] = 1e-3 * errors[0, :, 0].mean() * moved[0, 0]
    assert found.curves[:, 0] == pytest.approx(want)
    # of a perfect cell the resampled error is 0 for all: half an error stays
    assert found.curves[:, 1] == pytest.approx(moved[:, 1])
