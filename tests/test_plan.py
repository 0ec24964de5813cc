"""`study plan`: its variances and designs against simulations with known truth."""

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import gamma
from test_differences import study as simulated

from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Part
from bigxfer.study import design, grid
from bigxfer.study.commands import plan
from bigxfer.study.design import Design, Goal, Share, Variances
from bigxfer.study.pilot import of_pilot, variances
from bigxfer.tables import cells, table

ROOT = Path(__file__).parents[1]
METRIC = "auroc_macro"


@pytest.fixture
def planning(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import planning

    return planning


@pytest.fixture
def command(capsys):
    """What `study plan` prints, or the line of its error."""

    def call(*args):
        parser = argparse.ArgumentParser()
        plan.add(parser.add_subparsers())
        parsed = parser.parse_args(["plan", *map(str, args)])
        try:
            parsed.call(parsed)
        except ValueError as error:
            return f"error: {error}"
        return capsys.readouterr().out

    return call


def test_variances_of_a_pilot_are_those_it_was_drawn_from(planning):
    sd, pilot, rng = (0.03, 0.04, 0.02), Design(4, 6, 60), np.random.default_rng(0)
    truth = planning.true_variances(sd)
    found = [variances(planning.simulate(rng, pilot, sd), 60, True) for _ in range(300)]
    for get in (
        lambda v: v.upstreams[0],
        lambda v: v.upstreams[1],
        lambda v: v.draws,
        lambda v: v.runs[0],
        lambda v: v.patients,
    ):
        mean = np.mean([get(v).at(60) for v in found])
        assert mean == pytest.approx(get(truth).at(60), rel=0.12)
        falls = np.mean([get(v).patients for v in found])
        assert falls == pytest.approx(get(truth).patients, rel=0.3, abs=0.001)


def test_upper_limits_of_a_pilot_hold_also_where_an_estimate_is_0(planning):
    sd, few, rng = (0.03, 0.015, 0.01), Design(3, 5, 200), np.random.default_rng(0)
    truth = planning.true_variances(sd)
    pilots = [variances(planning.simulate(rng, few, sd), 200, True) for _ in range(250)]
    assert any(v.draws.own == 0 for v in pilots)
    upper = [v.upper(0.8) for v in pilots]
    for get in (
        lambda v: v.upstreams[0],
        lambda v: v.draws,
        lambda v: v.runs[1],
        lambda v: v.patients,
    ):
        assert min(get(v).own for v in upper) >= 0
        holds = np.mean([get(v).own >= get(truth).own for v in upper])
        assert 0.7 < holds < 0.88


def test_one_factor_has_the_mean_width_of_students_interval_and_the_power_of_nct():
    v, d = Variances((Share(0.04**2),), None, (), Share(0.0)), Design(4, 1, 100)
    t, se = stats.t.ppf(0.975, 3), 0.04 / 2
    shrinks = np.sqrt(2 / 3) * gamma(2) / gamma(1.5)  # E s over sigma, of 4 values
    assert Goal(half_width=0.1).reached(v, d) == pytest.approx(
        t * se * shrinks, rel=2e-3
    )
    told = stats.nct(3, Goal(effect=0.1).reached(v, d) / se)
    assert told.sf(t) + told.cdf(-t) == pytest.approx(0.8, abs=2e-3)


def test_a_plan_expects_what_few_seeds_find(planning):
    """Three seeds whose variance often comes out as 0, or as several times the truth."""
    sd, d, size = (0.01, 0.04, 0.01), Design(3, 11, 1600), 4000
    truth, rng = planning.true_variances(sd), np.random.default_rng(0)
    shapes = (1, 1), (3, 1), (1, 11), (3, 11)
    points = np.zeros((2, size, 3, 11))
    for own, patients, shape in zip((0, *sd), planning.PATIENTS, shapes, strict=True):
        spread = np.hypot(own, patients / np.sqrt(d.patients))
        points += rng.normal(0, spread, (2, size, *shape))
    seeds, draws = points.mean(-1, keepdims=True), points.mean(-2, keepdims=True)
    left = points - seeds - draws + points.mean((-1, -2), keepdims=True)
    rests = (left**2).sum((-1, -2)) / 20 / 33
    parts = [
        Part.less("upstreams", own, rest, 2)
        for own, rest in zip(seeds[..., 0].var(-1, ddof=1) / 3, rests, strict=True)
    ]
    apart = points[0] - points[1]
    draws = apart.mean(-2).var(-1, ddof=1) / 11
    parts += [
        Part.less("draws", draws, sum(rests), 10),
        Part.even("residual", sum(rests), 40),
        Part.even("patients", truth.patients.own / 1600, 1599),
    ]
    half = crossed.reach(parts, 0.025, True)
    wanted = Goal(half_width=0.05).reached(truth, d)
    assert half.mean() == pytest.approx(wanted, rel=0.01)
    effect = Goal(effect=0.07).reached(truth, d)
    power = np.mean(np.abs(apart.mean((-1, -2)) + effect) > half)
    assert power == pytest.approx(0.8, abs=0.02)


def test_a_planned_study_reaches_its_half_width_and_its_power(planning):
    sd = planning.SPREADS["seeds differ most"]
    truth = planning.true_variances(sd)
    for goal, least, most in (
        (Goal(half_width=0.06), 0.057, 0.061),
        (Goal(effect=0.08), 0.72, 0.9),
    ):
        found = design.reaching(truth, goal, [800])
        assert all(reached <= goal.wanted for _, reached in found)
        d = planning.smallest(found)
        half, power = planning.measured(d, sd, goal.effect, 150)
        assert least < (half if goal.half_width else power) < most, (goal, d)
        fewer = Design(d.upstreams - 1, d.draws, d.patients)
        assert goal.reached(truth, fewer) > goal.wanted


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seeds differ most", "draws differ most"])
def test_two_thousand_planned_studies(planning, name):
    sd = planning.SPREADS[name]
    for goal in (Goal(half_width=0.05), Goal(effect=0.07)):
        found = design.reaching(planning.true_variances(sd), goal, [1600])
        d = planning.smallest(found)
        half, power = planning.measured(d, sd, goal.effect, 2000)
        if goal.half_width:
            assert 0.9 * goal.half_width < half < 1.02 * goal.half_width
        else:
            assert 0.77 < power < 0.9  # a draw or seed less would have less than 0.8
    share, count, _ = planning.assured(
        Design(5, 10, 200), sd, Goal(half_width=0.05), 0.8, 300
    )
    assert share > 0.7 and count > 200


def test_no_design_in_the_list_can_spare_anything():
    v = Variances.given({"upstreams": 0.02, "draws": 0.03, "runs": 0.01, "patients": 1})
    goal = Goal(half_width=0.04)
    found = [d for d, _ in design.reaching(v, goal, [4000, 8000])]
    assert len(found) > 3
    for d in found:
        assert goal.reached(v, d) <= 0.04
        for less in (
            Design(d.upstreams - 1, d.draws, d.patients),
            Design(d.upstreams, d.draws - 1, d.patients),
        ):
            if min(less.upstreams, less.draws) > 1:
                assert goal.reached(v, less) > 0.04
    # 0.04 is out of reach where patients alone have 1.96 / sqrt(1000) = 0.06
    assert design.reaching(v, goal, [1000]) == []


def test_an_uncertain_variance_asks_for_more():
    few = Share(1.0, square=(1.0, 0.0), freedom=2)
    many = Share(1.0, square=(1.0, 0.0), freedom=200)
    assert few.upper(0.0) is few
    # chi2 of 2 degrees is -2 ln(0.8) = 0.446 at 20%
    assert few.upper(0.8).own == pytest.approx(2 / 0.4463, rel=1e-3)
    assert 1 < many.upper(0.8).own < 1.1


def test_what_a_design_adds():
    side = plan.Priced(False, seeds=3, draws=5, upstream=10.0, transfer=1.0)
    assert side.adds(Design(3, 5, 100), False) == (0, 0, 0)
    assert side.adds(Design(5, 10, 100), False) == (2, 50 - 15, 20.0 + 35.0)
    assert side.adds(Design(2, 10, 100), False) == (0, 10, 10.0)
    scratch = plan.Priced(True, seeds=1, draws=5, upstream=0.0, transfer=1.0)
    assert scratch.adds(Design(9, 8, 100), False) == (0, 3, 3.0)
    trained = plan.Priced(True, seeds=3, draws=1, upstream=0.0, transfer=1.0)
    assert trained.adds(Design(9, 1, 100), True) == (0, 6, 6.0)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    root = tmp_path_factory.mktemp("pilot")
    skill = {"nih": 1.2, "chexpert": 0.9, "scratch": 0.5}
    rows = simulated(root, skill, sources=3, draws=3, shots=("5", "full"))
    return [r | {"device_seconds": 360.0} for r in rows]


def saved(rows, folder):
    table.save(rows, folder)
    return folder / "table.parquet"


def test_from_a_table_to_a_plan(pilot, tmp_path, command):
    path = saved(pilot, tmp_path)
    out = command("--table", path, "--shots", "5", "--half-width", "0.08")
    first = out.splitlines()[0]
    assert " on phantom-covidx, R50x1, shots 5, the widest of 3 pairs" in first
    assert "Pilot: 3 upstream seeds, 3 draws, 120 test patients." in out
    lines = [line.split() for line in out.splitlines() if "unknown" in line]
    assert lines and all(float(line[3]) <= 0.08 for line in lines)
    # upstreams are no rows of this table: their hours are not known
    sides = "--a", "nih", "--b", "scratch"
    out = command("--table", path, "--shots", "5", *sides, "--effect", "0.3")
    assert out.startswith("nih minus scratch on")
    assert "told from none in 80% of such studies (Holm over 3)" in out
    out = command("--table", path, "--shots", "full", "--half-width", "0.12")
    assert " -" in out and "a draw" not in out
    out = command("--table", path, "--half-width", "0.12")
    assert out == "error: say which: --shots 5 or full"
    out = command("--table", path, "--shots", "5", "--a", "x", "--half-width", "0.1")
    assert out == "error: no line 'x'; there are chexpert, nih, scratch"


def test_hours_are_those_of_the_pilots_runs(pilot):
    rows = [r for r in pilot if r["shots"] == "5"]
    group = cells.group(rows, METRIC, "upstream")
    a, b = group["nih",], group["scratch",]
    found = of_pilot(a, b, METRIC, cells.PredictionReader())
    hours = {r["digest"]: 0.1 for r in rows} | {f"nih{u}": 2.0 for u in range(3)}
    nih, scratch = plan._priced(found, hours)
    assert (nih.seeds, nih.draws, nih.upstream) == (3, 3, 2.0)
    assert (scratch.scratch, scratch.upstream) == (True, 0.0)
    assert nih.transfer == pytest.approx(0.1) == scratch.transfer


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda r: r["upstream_seed"] in (None, 0), "one upstream seed on a side.*two more"),
        (lambda r: r["seed"] == 0, "one draw that both sides share.*two more seeds"),
        (lambda r: (r["upstream"] == "nih") == (r["seed"] == 1), "share no draw"),
    ],
)  # fmt: skip
def test_what_a_pilot_cannot_tell_is_said_with_what_to_run(pilot, change, message):
    rows = [r for r in pilot if r["shots"] == "5" and change(r)]
    group = cells.group(rows, METRIC, "upstream")
    with pytest.raises(ValueError, match=message):
        of_pilot(group["nih",], group["scratch",], METRIC, cells.PredictionReader())


def test_a_pilot_without_predictions_or_limits_is_said(pilot):
    lost = {f"{METRIC}_low": None, f"{METRIC}_high": None, "folder": "nowhere"}
    rows = [r | lost for r in pilot if r["shots"] == "5"]
    group = cells.group(rows, METRIC, "upstream")
    with pytest.raises(ValueError, match="test patients differ.*predictions kept"):
        of_pilot(group["nih",], group["scratch",], METRIC, cells.PredictionReader())
    kept = [r | {"folder": "nowhere"} for r in pilot if r["shots"] == "5"]
    group = cells.group(kept, METRIC, "upstream")
    found = of_pilot(group["nih",], group["scratch",], METRIC, cells.PredictionReader())
    assert found.patients == 120 and found.variances.patients.own > 0


SD = ("--sd", "upstreams=.02", "draws=.03", "runs=.01", "patients=.6")


def test_from_given_deviations_with_the_costs_of_a_config(command):
    out = command(
        *SD, "--patients", "2000", "--half-width", "0.04", "--shots", "5",
        "--config", "configs/study_demo.py", "--tflops", "0.05",
    )  # fmt: skip
    lines = [x.split() for x in out.splitlines() if x.strip()[:1].isdigit()]
    assert lines and "unknown" not in out
    u, n = int(lines[0][0]), int(lines[0][1])
    assert (int(lines[0][4]), int(lines[0][5])) == (2 * u, 2 * u * n)
    study = grid.nodes("configs/study_demo.py")
    assert {n.run.data.shots for n in study if n.kind == "transfer"} >= {"5"}


@pytest.mark.parametrize(
    "args, message",
    [
        (("--half-width", "0.1", "--effect", "0.1"), "one of them"),
        ((), "one of them"),
        ((*SD, "--half-width", "2"), r"--half-width 2 is not within"),
        ((*SD, "--half-width", ".1"), "--sd needs --patients"),
        (("--sd", "upstreams=.1", "--half-width", ".1"), "--sd needs upstreams="),
        (("--sd", "upstreams=x", "--half-width", ".1"), "FACTOR=NUMBER"),
        (("--half-width", ".1"), "give --table FILE or --config FILE"),
        ((*SD, "--patients", "10", "--half-width", ".01"), "No study of up to 30"),
    ],
)
def test_bad_arguments_are_one_line(args, message, command):
    said = command(*args)
    assert re.search(message, said), said
