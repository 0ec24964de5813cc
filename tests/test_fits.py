"""Scaling-law fits: planted parameters, other optimisers, and published results."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from bigxfer.scaling import forms
from bigxfer.scaling.bootstrap import Intervals, bootstrap, smooth_sigma, t_deviations
from bigxfer.scaling.choice import choose, simplest
from bigxfer.scaling.fit import draw_mean, fit, inverse

FOLDERS = (  # where the published data lie; some may not be passed on
    Path(__file__).parent / "data" / "scaling",
    Path(__file__).parents[2] / "shared" / "data" / "scaling_data",
)

SHOTS = np.array([1.0, 2, 5, 10, 25, 50, 100, 250, 500, 1000])
SIZES = np.array([1e4, 3e4, 1e5, 3e5, 1e6])
GRID = np.array([(n, s) for n in SIZES for s in (1.0, 5, 10, 100, 500)])
FAR = np.array([(n, s, d) for n, s in GRID for d in (0.0, 0.5, 1.0)])


def raw(x):
    return x


# form, inputs, natural parameters
PLANTED = [
    (forms.M1, SHOTS, {"b": 0.6, "c": 0.3}),
    (forms.M2, SHOTS, {"b": 0.5, "c": 0.4, "floor": 0.08}),
    (forms.M3, SHOTS, {"b": 0.5, "c": 0.4, "g": 0.01}),
    (forms.M4, SHOTS, {"b": 2.0, "c": 0.8, "floor": 0.05, "a": 0.7, "top": 0.6}),
    (forms.SATURATING, SHOTS, {"b": 2.0, "c": 0.7, "shift": 8.0, "floor": 0.06}),
    (forms.RECTIFIED, SHOTS, {"floor": 0.05, "height": 0.5, "beta": 0.9, "half": 20.0}),
    (
        forms.BROKEN,
        np.geomspace(1, 1e4, 24),
        {"floor": 0.02, "b": 0.5, "c0": 0.05, "c1": 0.6, "d": 60.0, "f": 0.3},
    ),
    (forms.JOINT, GRID, {"floor": 0.1, "a": 5.0, "alpha": 0.3, "b": 0.4, "beta": 0.35}),
    (forms.OVERTRAINING, GRID, {"a": 5.0, "b": 9.0, "c": 0.25, "floor": 0.2}),
    (forms.METRIC, np.linspace(2, 5, 8), {"top": 0.86, "k": 2.2, "gamma": 0.7}),
    (forms.TWO_WAY, GRID, {"delta": 2.0, "gap": 0.01, "alpha": 0.4, "beta": 0.2}),
    (
        forms.TWO_WAY_FLOOR,
        GRID,
        {"delta": 2.0, "gap": 0.05, "alpha": 0.3, "beta": 0.4, "floor": 0.02},
    ),
    (
        forms.TWO_WAY_DISTANCE,
        FAR,
        {"delta": 2.0, "gap": 0.01, "alpha": 0.4, "beta": 0.2, "kappa": 1.5},
    ),
    (forms.TRANSFERRED, GRID[:, ::-1], {"k": 1.9e4, "alpha": 0.18, "beta": 0.38}),
]


def theta_of(form, natural):
    names = form.parameters
    values = [natural[n.removeprefix("ln ")] for n in names]
    return np.array([np.log(v) if n[:3] == "ln " else v for n, v in zip(names, values)])


def curve(form, x, natural):
    return np.exp(form.log_y(theta_of(form, natural)[None], x)[0])


@pytest.mark.parametrize(
    "form,x,natural", PLANTED, ids=lambda p: getattr(p, "name", "")
)
def test_recovers_planted_parameters(form, x, natural):
    law = fit(form, x, curve(form, x, natural), starts=128)
    assert law.parameters == pytest.approx(natural, rel=2e-3, abs=2e-4)
    assert law.agreement > 0.02
    assert law.value < 1e-10


@pytest.mark.parametrize("power", [0.3, 0.7, 3.0])
def test_m4_solves_its_equation(power):
    b, c, floor, top = 2.0, 0.8, 0.05, 0.6
    theta = np.array([[np.log(b), c, floor, power, top]])
    y = np.exp(forms.M4.log_y(theta, SHOTS)[0])

    def gap(e, x):
        return np.log(e - floor) - power * np.log(top - e) - np.log(b * x**-c)

    roots = [
        optimize.brentq(gap, floor + 1e-13, top - 1e-13, args=(x,), xtol=1e-15)
        for x in SHOTS
    ]
    assert y == pytest.approx(roots, rel=1e-8)


def test_forms_equal_their_published_equations():
    x = SHOTS
    p = {"floor": 0.02, "b": 0.5, "c0": 0.05, "c1": 0.6, "d": 60.0, "f": 0.3}
    bnsl = 0.02 + 0.5 * x**-0.05 * (1 + (x / 60.0) ** (1 / 0.3)) ** (-0.6 * 0.3)
    assert curve(forms.BROKEN, x, p) == pytest.approx(bnsl, rel=1e-12)
    p = {"floor": 0.05, "height": 0.5, "beta": 0.9, "half": 20.0}
    low, high, big_b = 0.05, 0.55, -0.9 * np.log(20.0)
    published = low + (high - low) / (1 + np.exp(0.9 * np.log(x) + big_b))
    assert curve(forms.RECTIFIED, x, p) == pytest.approx(published, rel=1e-12)
    p = {"b": 0.5, "c": 0.4, "g": 0.01}
    assert curve(forms.M3, x, p) == pytest.approx(0.5 * (1 / x + 0.01) ** 0.4)


@pytest.mark.parametrize("delta", [1e-3, 0.1, np.inf])
def test_optimum_is_scipys(delta):
    """An independent optimiser of the same Huber loss finds nothing better."""
    rng = np.random.default_rng(1)
    y = (0.08 + 0.5 * SHOTS**-0.4) * np.exp(rng.normal(0, 0.05, len(SHOTS)))
    law = fit(forms.M2, SHOTS, y, delta=delta)

    def cost(theta):
        predicted = np.exp(theta[0]) * SHOTS ** -theta[1] + theta[2]
        size = np.abs(np.log(predicted / y))
        inside = np.minimum(size, delta)
        return np.sum(inside * (size - inside / 2))

    best = min(
        (
            optimize.minimize(
                cost, [b, c, e], method="Nelder-Mead", bounds=[(-9, 9), (0, 9), (0, 1)],
                options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000},
            )
            for b, c, e in [(-1, 0.3, 0.01), (-0.5, 0.6, 0.1), (0, 1.0, 0.05)]
        ),
        key=lambda r: r.fun,
    )  # fmt: skip
    assert law.value <= best.fun * (1 + 1e-8)
    if delta > 1e-3:
        assert law.theta == pytest.approx(best.x, abs=2e-4)


def test_a_failed_run_moves_huber_little():
    y = curve(forms.M2, SHOTS, {"b": 0.5, "c": 0.4, "floor": 0.08})
    y[6] *= 3
    robust = fit(forms.M2, SHOTS, y).parameters["c"]
    squares = fit(forms.M2, SHOTS, y, delta=np.inf).parameters["c"]
    assert abs(robust - 0.4) < 0.05 < abs(squares - 0.4)


def test_a_noisy_point_loses_weight():
    """Not gains it, as where 1/sd^2 is handed on as a standard deviation."""
    y = curve(forms.M2, SHOTS, {"b": 0.5, "c": 0.4, "floor": 0.08})
    y[0] *= 1.2
    sigma = np.where(SHOTS == 1, 1.0, 0.01)
    weighted = fit(forms.M2, SHOTS, y, sigma=sigma, delta=np.inf).parameters["c"]
    equal = fit(forms.M2, SHOTS, y, delta=np.inf).parameters["c"]
    assert abs(weighted - 0.4) < 1e-3 < abs(equal - 0.4)


def test_t_deviations_are_the_t_interval():
    y = np.random.default_rng(0).normal(size=(5, 3))
    contrast = np.array([1.0, -2.0, 0.5])
    draws = t_deviations(y, 200_000, np.random.default_rng(1)) @ contrast
    z = y @ contrast
    want = stats.t.ppf([0.025, 0.975], 4) * stats.sem(z)
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx(want, rel=0.03)


@pytest.mark.parametrize("draws", [5, 40])
def test_interval_holds_the_truth_and_shrinks(draws):
    natural = {"b": 0.5, "c": 0.4, "floor": 0.08}
    rng = np.random.default_rng(2)
    y = curve(forms.M2, SHOTS, natural)
    y = y * np.exp(rng.normal(0, 0.05, (draws, len(SHOTS))))
    y[1, 3] = np.nan  # a missing run
    got = bootstrap(fit(forms.M2, SHOTS, y))
    assert got.method == "t over draws"
    for name, truth in natural.items():
        value, low, high = got.parameters[name]
        assert low < truth < high and low <= value <= high
    value, low, high = got.predict([2000.0])
    assert low[0] < 0.08 + 0.5 * 2000**-0.4 < high[0]
    width = got.parameters["c"][2] - got.parameters["c"][1]
    assert width < 0.25 if draws == 5 else width < 0.06


def test_test_patients_widen_the_interval():
    """Draws that agree leave the noise of the patients, and both add."""
    rng = np.random.default_rng(6)
    y = np.tile(0.6 * SHOTS**-0.3, (5, 1))
    patients = y[0] * np.exp(rng.normal(0, 0.1, (4000, 1)))  # moves b, not c
    law = fit(forms.M1, SHOTS, y * np.exp(rng.normal(0, 1e-4, y.shape)))
    got = bootstrap(law, resampled=patients)
    assert got.theta.shape == (4000, 2) and got.method.endswith("patients resampled")
    b, c = got.theta.T
    assert b.std() == pytest.approx(0.1, rel=0.05) and c.std() < 1e-3
    assert bootstrap(law).theta[:, 0].std() < 1e-3


def test_bootstrap_resamples_whole_runs():
    """Copies of a run add nothing: grouped intervals ignore them, pointwise shrink."""
    rng = np.random.default_rng(3)
    x = np.tile(SHOTS, 2)
    y = 0.6 * x**-0.3 * np.exp(rng.normal(0, 0.05, len(x)))
    alone = bootstrap(fit(forms.M1, x, y)).parameters["c"]
    copied = fit(forms.M1, np.repeat(x, 4), np.repeat(y, 4))
    grouped = bootstrap(copied, np.repeat(np.arange(len(x)), 4)).parameters["c"]
    naive = bootstrap(copied).parameters["c"]
    width = [high - low for _, low, high in (alone, grouped, naive)]
    assert width[1] == pytest.approx(width[0], rel=0.15)
    assert width[2] < 0.65 * width[0]


def test_residual_t_matches_linear_regression():
    """Few single points of a linear law: scipy's regression interval of the slope."""
    x = np.array([1.0, 3, 10, 30, 100, 300])
    noise = np.random.default_rng(4).normal(0, 0.05, 6)
    y = 0.6 * x**-0.3 * np.exp(noise)
    law = fit(forms.M1, x, y, delta=np.inf)
    got = bootstrap(law, replicates=20_000)
    line = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, 4) * line.stderr
    _, low, high = got.parameters["c"]
    assert got.method == "t over residuals"
    assert (low, high) == pytest.approx((-line.slope - half, -line.slope + half), 0.05)


def test_choose_prefers_what_extrapolates():
    """A flat start is read as a small exponent by M1; the rectified law is planted."""
    natural = {"floor": 0.02, "height": 0.5, "beta": 0.9, "half": 20.0}
    y = curve(forms.RECTIFIED, SHOTS, natural)
    every = [*forms.CURVES.values(), *forms.FLEXIBLE.values()]
    scores = choose(every, SHOTS, y, sigma=np.full(len(SHOTS), 0.1))
    named = {s.form.name: s for s in scores}
    assert scores[0].form is forms.RECTIFIED and scores[0].held_out < 1e-4
    assert named["M1"].held_out > 0.15
    wide = choose(every, SHOTS, y, cutoff=30)
    five_scales = {*forms.CURVES, "M4"}  # the broken law has six parameters
    assert {s.form.name for s in wide} == five_scales


def test_the_simpler_form_stays_unless_another_gains_clearly():
    """Misses of forms with 2, 3, 3 and 4 parameters, a column a data set."""
    misses = np.array(
        [[0.10, 0.10, 0.1], [0.06, 0.04, 0.04], [0.09, 0.02, 0.3], [0.02, 0.019, 0.3]]
    )
    assert list(simplest([2, 3, 3, 4], misses)) == [3, 2, 1]
    assert list(simplest([4, 3, 3, 2], misses[::-1])) == [0, 1, 2]
    # less than half by more than rounding, which is 1e-4
    near = np.array([[0.1, 0.1], [0.04985, 0.04995]])
    assert list(simplest([2, 3], near)) == [1, 0]


def test_a_parameter_at_its_bound_is_named():
    y = np.full(len(SHOTS), 0.3) * SHOTS**0.05
    assert fit(forms.M1, SHOTS, y).at_bounds == ["c"]
    assert fit(forms.M2, SHOTS, 0.6 * SHOTS**-0.3).at_bounds == ["floor"]
    assert fit(forms.M1, SHOTS, 0.6 * SHOTS**-0.3).at_bounds == []


def test_a_scale_with_one_draw_has_the_pooled_deviation():
    """It was without any noise: a band through it was as narrow as if it were exact."""
    y = np.random.default_rng(0).normal(1, 0.1, (5, 4))
    y[1:, 3] = np.nan
    moved = t_deviations(y, 20_000, np.random.default_rng(1), np.full(4, 0.1))
    t4 = stats.t.ppf(0.975, 4)
    assert np.quantile(moved[:, 3], 0.975) == pytest.approx(0.1 * t4, rel=0.05)
    assert np.quantile(moved[:, 0], 0.975) == pytest.approx(
        t4 * stats.sem(y[:, 0]), rel=0.05
    )


def test_inverse_gives_effective_data():
    """Data transferred as planted, from a scratch law and transferred errors."""
    d_f = np.array([10.0, 30, 100, 300])
    d_t = 50 * d_f**0.2
    scratch = fit(forms.M2, SHOTS, 0.05 + 0.6 * SHOTS**-0.4)
    transferred = 0.05 + 0.6 * (d_f + d_t) ** -0.4
    assert inverse(scratch, transferred) - d_f == pytest.approx(d_t, rel=1e-3)
    assert inverse(scratch, [0.04]) == np.inf


@pytest.mark.parametrize("kappa", [0.0, 1.5])
def test_distance_as_a_covariate(kappa):
    natural = {"delta": 2.0, "gap": 0.02, "alpha": 0.4, "beta": 0.2, "kappa": kappa}
    rng = np.random.default_rng(5)
    y = curve(forms.TWO_WAY_DISTANCE, FAR, natural)
    y = y * np.exp(rng.normal(0, 0.05, (5, len(FAR))))
    law = fit(forms.TWO_WAY_DISTANCE, FAR, y)
    _, low, high = bootstrap(law, replicates=300).parameters["kappa"]
    assert low < kappa < high
    assert (low > 0) == (kappa > 0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="x = 5.0 is 0.0: errors must be positive"):
        fit(forms.M1, [1, 5, 10], [0.5, 0.0, 0.1])
    with pytest.raises(ValueError, match="M4 has 5 parameters.* only 3"):
        fit(forms.M4, [1, 5, 10], [0.5, 0.2, 0.1])
    with pytest.raises(ValueError, match="joint takes 2 inputs"):
        fit(forms.JOINT, [1, 5, 10], [0.5, 0.2, 0.1])
    with pytest.raises(ValueError, match="x must be positive"):
        fit(forms.M1, [0, 5, 10], [0.5, 0.2, 0.1])
    with pytest.raises(ValueError, match="sigma"):
        fit(forms.M1, [1, 5, 10], [0.5, 0.2, 0.1], sigma=[1, 0, 1])
    with pytest.raises(ValueError, match="nothing to judge the scatter"):
        bootstrap(fit(forms.M2, [1, 5, 10], [0.5, 0.2, 0.1]))
    with pytest.raises(ValueError, match="one draw"):
        bootstrap(fit(forms.M2, [1, 5, 10], [[0.5, 0.2, 0.1]]))
    with pytest.raises(ValueError, match="not below chance"):
        fit(forms.m4(0.5), SHOTS, 0.6 * SHOTS**-0.1)
    with pytest.raises(ValueError, match="one side without data"):
        choose([forms.M1], [1, 5, 10], [0.5, 0.2, 0.1], cutoff=10)


def test_smooth_sigma_and_missing():
    assert smooth_sigma([1, 10, 100], [0.4, 0.2, 0.1]) == pytest.approx([0.4, 0.2, 0.1])
    assert smooth_sigma([1, 10, 100], [0.4, 0, 0.1])[1] == pytest.approx(0.2)
    y = np.array([[1.0, np.nan], [3.0, np.nan]])
    assert draw_mean(y)[0] == 2.0 and np.isnan(draw_mean(y)[1])


# ---- published data ----------------------------------------------------------------


def folder_of(name):
    """The folder that has the file; the test is skipped where none has it."""
    for folder in FOLDERS:
        if list(folder.glob(name)):
            return folder
    pytest.skip(f"needs ../shared/data/scaling_data/{name}")


def rows(name):
    with open(folder_of(name) / name) as file:
        return list(csv.DictReader(file))


def column(table, name):
    return np.array([float(row[name]) for row in table])


def expected(name):
    return json.loads((folder_of(name) / "expected.json").read_text())[name]


def chinchilla(drop_largest):
    table = rows("chinchilla_fig4_extracted.csv")
    n, flop = column(table, "Model Size"), column(table, "Training FLOP")
    loss = column(table, "loss")
    keep = loss < np.sort(loss)[-5] if drop_largest else loss > 0
    return np.stack([n, flop / (6 * n)], 1)[keep], loss[keep]


@pytest.mark.parametrize(
    "drop,key", [(True, "optimum_drop5"), (False, "optimum_all_245_rows_own_fit")]
)
def test_chinchilla_optimum(drop, key):
    x, loss = chinchilla(drop)
    want = expected("chinchilla_fig4_extracted.csv")[key]
    law = fit(forms.JOINT, x, loss, delta=1e-3)
    names = {"a": "A", "b": "B", "floor": "E", "alpha": "alpha", "beta": "beta"}
    got = {names[k]: v for k, v in law.parameters.items()}
    assert law.value == pytest.approx(want.pop("objective"), rel=1e-6)
    assert got == pytest.approx(want, rel=3e-4)
    if drop:
        paper = expected("chinchilla_fig4_extracted.csv")["paper_reported"]
        assert got == pytest.approx(paper, rel=0.03)


@pytest.mark.slow
def test_chinchilla_bootstrap():
    """Standard errors and 95% intervals of the replication (4000 bootstraps there)."""
    x, loss = chinchilla(True)
    want = expected("chinchilla_fig4_extracted.csv")
    got = bootstrap(fit(forms.JOINT, x, loss, delta=1e-3), replicates=1000)
    sd = dict(zip(forms.JOINT.parameters, got.theta.std(0)))
    errors = want["notebook_se_4000_bootstraps"]
    assert sd["floor"] == pytest.approx(errors["E"], rel=0.15)
    assert sd["alpha"] == pytest.approx(errors["alpha"], rel=0.15)
    assert sd["beta"] == pytest.approx(errors["beta"], rel=0.15)
    for name, key in (("alpha", "alpha"), ("beta", "beta"), ("floor", "E")):
        interval = want["notebook_percentile_ci95"][key]
        assert got.parameters[name][1:] == pytest.approx(interval, rel=0.03)
    alpha, beta = got.theta[:, 2], got.theta[:, 4]
    exponent = beta / (alpha + beta)
    assert exponent.mean() == pytest.approx(want["a_exponent"]["value"], abs=0.004)
    assert exponent.std() == pytest.approx(want["a_exponent"]["se"], rel=0.15)


def test_overtraining_testbed():
    want = expected("overtrain_testbed_104.csv")
    for corpus, key in (("rpj", "rpj"), ("c4_original", "c4"), ("rw_original", "rw")):
        table = [r for r in rows("overtrain_testbed_104.csv")
                 if r["train_dataset"] == corpus]  # fmt: skip
        n, m = column(table, "N"), column(table, "token_multiplier")
        loss = column(table, "loss_c4_val")
        x = np.stack([n, m], 1)
        small = (m == 20) & (n < 1e9) | (m == 320) & (n < 2e7)
        assert small.sum() == 5
        law = fit(forms.OVERTRAINING, x[small], loss[small], link=raw, delta=np.inf)
        ours = {"al": law.parameters["a"], "be": law.parameters["b"]}
        ours |= {"b": -law.parameters["c"], "E": law.parameters["floor"]}
        assert ours == pytest.approx(want[f"own_fit_{key}"], rel=2e-3)
        if key != "rpj":
            continue
        error = column(table, "err_avg17")
        six = small | (m == 20) & (n > 1e9) & (n < 2e9)
        metric = fit(forms.METRIC, loss[six], error[six], link=raw, delta=np.inf)
        for size, tokens, tag in ((1.4e9, 640, "1.4B_M640"), (6.9e9, 20, "6.9B_M20")):
            i = np.flatnonzero((m == tokens) & (np.abs(n / size - 1) < 0.1))[0]
            predicted = law.predict(x[[i]])
            percent = want["relative_error_percent"]
            off = 100 * abs(predicted[0] / loss[i] - 1)
            assert off == pytest.approx(percent[f"loss_{tag}"], abs=6e-5)
            off = 100 * abs(metric.predict(predicted)[0] / error[i] - 1)
            assert off == pytest.approx(percent[f"err_{tag}"], abs=6e-5)


def test_broken_law_on_4_digit_addition():
    table = rows("bnsl_4digit_addition.csv")
    x, y = column(table, "train_size"), column(table, "test_cross_entropy")
    seen = np.array([row["split"] == "fit" for row in table])
    want = expected("bnsl_4digit_addition.csv")
    how = {"link": np.log1p, "delta": np.inf}
    law = fit(forms.BROKEN, x[seen], y[seen], **how, starts=256)
    names = {"floor": "a", "b": "b", "c0": "c0", "c1": "c1", "d": "d1", "f": "f1"}
    for ours, theirs in names.items():
        assert law.parameters[ours] == pytest.approx(want["own_fit"][theirs], rel=2e-3)
    held_out = law.rmse(x[~seen], y[~seen])
    assert held_out == pytest.approx(want["own_fit"]["rmsle_extrapolate"], abs=1e-4)
    offset = fit(forms.M2, x[seen], y[seen], delta=np.inf).rmse(x[~seen], y[~seen])
    assert offset == pytest.approx(
        want["power_law_plus_offset_rmsle_extrapolate"], abs=0.01
    )


def translation(model):
    table = [r for r in rows("rnsl_benchmark_nmt.csv") if r["Model"] == model]
    seen = np.array([r["Training"] == "1" for r in table])
    return column(table, "Seen Examples"), column(table, "Loss"), seen


def test_translation_curves():
    want = expected("rnsl_benchmark_nmt.csv")["own_global_optimum"]
    for model, optimum in want.items():
        x, y, seen = translation(model)
        for form, key in ((forms.M1, "M1"), (forms.M2, "M2_log_y"), (forms.M3, "M3")):
            law = fit(form, x[seen], y[seen], delta=np.inf, starts=32)
            off = law.rmse(x[~seen], y[~seen])
            assert off == pytest.approx(optimum[key], abs=6e-4), (model, key)


def test_published_m2_is_a_local_minimum():
    """The published M2 minimises ln(y - floor), by profile over the floor: an interior
    local minimum that gives the published error, and in 3 of 5 curves a lower value at
    floor 0. This is why `fit` takes residuals of ln y."""
    want = expected("rnsl_benchmark_nmt.csv")["own_global_optimum"]
    at_zero = 0
    for model, optimum in want.items():
        x, y, seen = translation(model)
        floors = np.linspace(0, y[seen].min() - 1e-3, 4000)
        cost, error = [], []
        for floor in floors:
            z = np.log(y[seen] - floor)
            line = np.polyfit(np.log(x[seen]), z, 1)
            cost.append(np.sum((np.polyval(line, np.log(x[seen])) - z) ** 2))
            predicted = floor + np.exp(np.polyval(line, np.log(x[~seen])))
            error.append(abs(np.log(predicted / y[~seen]))[0])
        cost = np.array(cost)
        interior = 1 + np.flatnonzero(
            (cost[1:-1] < cost[:-2]) & (cost[1:-1] < cost[2:])
        )
        best = interior[cost[interior].argmin()]
        key = "M2_log_excess_interior_minimum"
        assert error[best] == pytest.approx(optimum[key], abs=1.1e-3), model
        at_zero += cost[0] < cost[best]
    assert at_zero == 3


def finetuning(names=("flan", "gigaword", "wmt19")):
    for name in names:
        for row in rows(f"finetune_{name}.csv"):
            sizes = [k for k in row if k.isdigit() and k != "0"]
            yield np.array(sizes, float), np.array([float(row[s]) for s in sizes])


def test_finetuning_in_sample_on_gigaword():
    want = expected("finetune_*.csv")
    error = [fit(forms.RECTIFIED, x, y, delta=np.inf, starts=16).rmse(x, y)
             for x, y in finetuning(["gigaword"])]  # fmt: skip
    assert len(error) == 30
    assert np.mean(error) == pytest.approx(
        want["own_mean_rmse_log_all_sizes"]["gigaword"], abs=1e-4
    )


@pytest.mark.slow
def test_finetuning_all_90_curves():
    want = expected("finetune_*.csv")
    inside, outside = {}, {}
    for form in (forms.RECTIFIED, forms.M1, forms.M2, forms.M3):
        for x, y in finetuning():
            small = x <= 51200
            law = fit(form, x, y, delta=np.inf, starts=32)
            inside.setdefault(form.name, []).append(law.rmse(x, y))
            law = fit(form, x[small], y[small], delta=np.inf, starts=32)
            outside.setdefault(form.name, []).append(law.rmse(x[~small], y[~small]))
    mean = want["own_mean_rmse_log_all_sizes"]
    for name, error in inside.items():
        assert np.mean(error) == pytest.approx(mean[f"{name}_all"], abs=1e-4)
        both = [np.mean(outside[name]), np.median(outside[name])]
        key = "own_extrapolation_fit_le_51200_test_gt_51200_mean_median"
        assert both == pytest.approx(want[key][name], abs=3e-4)
    for k, name in enumerate(("flan", "gigaword", "wmt19")):
        third = np.mean(inside["rectified"][30 * k : 30 * k + 30])
        assert third == pytest.approx(mean[name], abs=1e-4)
        # no worse than the authors' own fits
        assert third <= want["published_mean_rmsd_log"][name]
    table = np.array([outside[n] for n in ("rectified", "M1", "M2", "M3")])
    assert (table.argmin(0) == 0).sum() >= 62


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_an_interval_has_its_level(level):
    """numpy's percentiles of the replicates, whatever the level."""
    law = fit(forms.M1, SHOTS, curve(forms.M1, SHOTS, {"b": 0.6, "c": 0.3}))
    theta = [np.log(0.6), 0.3] + np.random.default_rng(0).normal(0, 0.1, (999, 2))
    some = Intervals(law, theta, "by hand", level)
    ends = [50 - 50 * level, 50 + 50 * level]
    for name, column in (("b", np.exp(theta[:, 0])), ("c", theta[:, 1])):
        assert some.parameters[name][1:] == pytest.approx(np.percentile(column, ends))
    value, low, high = some.predict([7.0])
    errors = np.exp(theta[:, 0]) * 7.0 ** -theta[:, 1]
    assert value == pytest.approx(0.6 * 7**-0.3, rel=1e-4)
    assert [low[0], high[0]] == pytest.approx(np.percentile(errors, ends))


def test_what_a_search_may_find():
    """The bounds, by which a parameter is said to have ended at one."""
    y, x = np.array([0.5, 0.2, 0.1]), np.array([1.0, 10, 100])
    log, power, floor, z = (-300, 300), (0, 10), (0, 0.5), np.log(100)
    gap = (-100, 50)
    want = {
        forms.M1: [log, power],
        forms.M2: [log, power, floor],
        forms.M3: [log, power, (-z - 15, 5)],
        forms.M4: [log, power, (0, 0.1), (0.01, 20), (0.501, 5)],
        forms.m4(0.7): [log, power, (0, 0.1), (0.01, 20), (0.7, 0.7)],
        forms.SATURATING: [log, power, (-15, z + 5), floor],
        forms.RECTIFIED: [floor, log, power, (-15, z + 15)],
        forms.BROKEN: [floor, log, (-5, 10), (-20, 20), (-3, z + 3), (-6, 3)],
        forms.METRIC: [(0.5, 5), log, power],
        forms.JOINT: [floor, log, power, log, power],
        forms.OVERTRAINING: [log, log, power, floor],
        forms.TWO_WAY: [log, gap, power, power],
        forms.TWO_WAY_FLOOR: [log, gap, power, power, floor],
        forms.TWO_WAY_DISTANCE: [log, gap, power, power, (-100, 100)],
        forms.TRANSFERRED: [log, (-10, 10), (-10, 10)],
    }
    for form, bounds in want.items():
        found = np.array(form.bounds(y, *[x] * len(form.inputs)), float)
        np.testing.assert_allclose(found, np.array(bounds, float), err_msg=form.name)
        assert len(bounds) == len(form.parameters)


def test_a_metric_above_its_top_is_no_error_of_ours():
    theta = np.array([[0.5, 0.0, 0.1]])  # top - exp(-0.1 x) is below 0
    assert forms.METRIC.log_y(theta, np.array([1.0]))[0, 0] == pytest.approx(
        np.log(1e-12)
    )


def test_a_curve_that_is_reached_everywhere_or_nowhere():
    law = fit(forms.M1, SHOTS, 0.6 * SHOTS**-0.3)
    x = inverse(law, [0.3, 0.6 * 1e-3**-0.3, 1e-30])
    assert x[:2] == pytest.approx([2 ** (1 / 0.3), 1e-3], rel=1e-6)
    assert x[2] == np.inf
    flat = fit(forms.M2, SHOTS, 0.05 + 0.6 * SHOTS**-0.4)
    assert inverse(flat, [1e40])[0] == 0 and inverse(flat, [0.04])[0] == np.inf


def test_few_points_are_judged_by_their_residuals_and_ten_are_resampled():
    y = 0.6 * SHOTS**-0.3 * np.exp(np.random.default_rng(0).normal(0, 0.05, 10))

    def method(n, groups=None):
        law = fit(forms.M1, SHOTS[:n], y[:n], starts=8)
        return bootstrap(law, groups, replicates=3).method

    assert method(10) == "points resampled" and method(9) == "t over residuals"
    assert method(10, np.arange(10)) == "groups resampled"
    assert method(10, np.arange(10) // 2) == method(3) == "t over residuals"
    with pytest.raises(ValueError, match="2 points and 2 parameters"):
        method(2)


def test_the_loss_of_a_fit_is_hubers_at_a_tenth():
    assert fit(forms.M1, SHOTS, 0.6 * SHOTS**-0.3, starts=8).objective.delta == 0.1
