"""`python -m bigxfer.study fit` on simulated tables whose laws are known."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigxfer.scaling import crossings, curves, surfaces
from bigxfer.study.commands import fit
from bigxfer.tables import table
from bigxfer.tables.cells import PredictionReader

ROOT = Path(__file__).parents[1]
SHOTS = (1, 5, 10, 50, 100, 500)


def run(upstream="nih", shots="5", seed=0, error=0.3, **more):
    """One row of a table; its folder does not exist."""
    row = dict.fromkeys(table.COLUMNS) | {
        "study": "toy",
        "kind": "transfer",
        "upstream": upstream,
        "model": "R50x1",
        "params": 23_500_352,
        "init": "pretrained",
        "target": "covidx",
        "shots": shots,
        "seed": seed,
        "protocol": "cosine",
        "steps": 100,
        "images": 6400,
        "flops": 1e12,
        "device_seconds": 36.0,
        "synthetic": False,
        "digest": table.name_digest(f"{upstream} {shots} {seed} {more}"),
        "commit": "abc",
        "folder": f"runs/{upstream}-{shots}-{seed}-{len(more)}",
    }
    return row | {"auroc_macro": 1 - error} | more


def study(laws_of, draws=5, noise=0.03, shots=SHOTS):
    """Rows of errors law(shots) with relative noise, most of it shared by a draw."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, noise, (draws, len(shots)))
    own = rng.normal(0, 0.01, (len(laws_of), draws, len(shots)))
    return [
        run(name, str(s), d, law(s) * (1 + shared[d, i] + own[k, d, i]))
        for k, (name, law) in enumerate(laws_of.items())
        for d in range(draws)
        for i, s in enumerate(shots)
    ]


def fitted(rows, x="shots", **how):
    grouped, notes = curves.curves(rows, x, "auroc_macro")
    return [curves.law(c, PredictionReader(**how)) for c in grouped], grouped, notes


def test_a_planted_power_law_comes_back():
    (law,), _, _ = fitted(study({"nih": lambda s: 0.5 * s**-0.3}))
    assert law.fit is not None and law.band is not None and law.slope is not None
    assert law.fit.form.name == "M1"  # among equals the one of fewest parameters
    for name, truth in (("b", 0.5), ("c", 0.3)):
        value, low, high = law.band.parameters[name]
        assert low < truth < high and abs(value - truth) < 0.03
    assert law.slope[1] < 0.3 < law.slope[2]
    assert law.cutoff == 50 and law.words.startswith("5 draws; the choice of test")
    _, low, high = law.band.predict(np.array([2000.0]))
    # the held-out miss stands on both sides, and grows: 4x beyond data held out 10x apart
    least = 2 * law.scores[0].largest * (1 + np.log(4) / np.log(10))
    assert low[0] < 0.5 * 2000**-0.3 < high[0] and np.log(high[0] / low[0]) > least


def test_below_six_scales_there_is_a_slope_and_no_law():
    (law,), _, notes = fitted([*study({"nih": lambda s: 0.5 / s}, shots=(1, 5, 10))])
    assert law.fit is None and law.band is None and notes == []
    assert law.reason == "3 of the 6 scales that a forecast needs"
    assert law.slope is not None and law.slope[1] < 1 < law.slope[2] < 1.2
    (law,), _, notes = fitted(
        [*study({"nih": lambda s: 0.5 / s}, shots=(1, 5)), run(shots="full")]
    )
    assert law.fit is None and law.slope is not None
    assert notes == [
        "1 of 11 transfers are not on this axis: full data is no number of shots."
    ]
    (law,), _, _ = fitted(study({"nih": lambda s: 0.5 / s}, 1, shots=(1, 5, 10)))
    assert law.slope is None  # one draw, and three scales for a line
    long = (1, 2, 5, 10, 25, 50, 100, 250)
    (law,), _, _ = fitted(study({"nih": lambda s: 0.5 / s}, 1, shots=long))
    assert law.band is not None
    assert law.words == "the scatter of the scales about the law"


@pytest.mark.parametrize(
    "truth", [lambda s: 0.2 * s**0.1, lambda s: 0.3 * s**-0.3 * (1 + (s / 40) ** 0.9)]
)
def test_errors_that_rise_have_no_falling_law(truth):
    """Rising throughout, or after a fall: a flat line would miss them."""
    (law,), _, _ = fitted(study({"nih": truth}))
    assert law.fit is None and law.reason.startswith("no falling law: ")


def test_no_difference_between_scales_is_said_within_the_margin():
    (law,), _, _ = fitted(study({"nih": lambda s: 0.2 + 0 * s}, noise=0.01))
    assert law.flat == 0.02
    (law,), _, _ = fitted(study({"nih": lambda s: 0.2 + 0 * s}, noise=0.2))
    assert law.flat is None  # neither shown to be flat
    rows = study({"nih": lambda s: 0.2 - 0.03 * (s > 400)}, noise=0.005)
    assert fitted(rows)[0][0].flat is None


def test_a_perfect_cell_counts_as_half_an_error_and_a_missing_run_is_not_missed():
    rows = study({"nih": lambda s: 0.5 * s**-0.3})
    rows = [r | {"auroc_macro": 1.0} if r["shots"] == "500" else r for r in rows]
    rows = [r | {"test_images": 50} for r in rows]
    (law,), _, notes = fitted(rows[1:])
    assert list(law.curve.x) == list(SHOTS) and law.scatter is not None
    assert law.scatter.mean[-1] == 0.01
    assert [len(runs) for runs in law.curve.runs] == [4, 5, 5, 5, 5, 5]
    assert notes == [
        "1 cells without any error count as half an error: no law reaches 0."
    ]


def test_all_upstream_seeds_are_taken_as_a_factor():
    """Three upstream seeds that differ: the slope's interval is that of three, and wide."""
    rng = np.random.default_rng(3)
    rows = []
    for source in range(3):
        slope = 0.3 + rng.normal(0, 0.05)
        one = study({"nih": lambda s, c=slope: 0.5 * s**-c})
        rows += [
            r | {"upstream_seed": source, "folder": f"{r['folder']}-{source}",
                 "digest": table.name_digest(f"{r['digest']} {source}")}
            for r in one
        ]  # fmt: skip
    (law,), _, notes = fitted(rows)
    assert notes == [] and law.words.startswith("3 upstream seeds and 5 draws; ")
    assert law.curve.errors().shape == (3, 5, 6)
    (first,), _, _ = fitted([r for r in rows if r["upstream_seed"] == 0])
    assert law.slope is not None and first.slope is not None
    width, alone = (s[2] - s[1] for s in (law.slope, first.slope))
    assert width > 2 * alone and law.slope[1] < 0.3 < law.slope[2]


def test_what_reaches_a_metric_is_answered_or_said_to_lie_beyond():
    truth = {"nih": lambda s: 0.5 * s**-0.3}
    (law,), _, _ = fitted(study(truth))
    inside, beyond, never = (law.reach(e) for e in (0.2, 0.07, 0.02))
    assert inside.low < (0.5 / 0.2) ** (1 / 0.3) < inside.high < 60
    assert 500 < beyond.low < (0.5 / 0.07) ** (1 / 0.3) < beyond.high < 5000
    assert never.value == never.high == np.inf
    assert never.sentence("shots").startswith("not within 10x of the data, up to 5,000")
    assert law.reach(0.6).sentence("shots").startswith("at 1 shots already")
    (few,), _, _ = fitted(study(truth, shots=(1, 5, 10, 100)))
    read = few.reach(0.2)  # without a law: between the measured means
    assert read.low < (0.5 / 0.2) ** (1 / 0.3) < read.high < 60
    assert few.reach(0.07).sentence("shots") == ("not within the data, up to 100 shots")


def test_crossings_are_told_or_said_not_to_be():
    rows = study(
        {
            "a": lambda s: 0.5 * s**-0.3,
            "b": lambda s: 0.4 * s**-0.2,  # equal at (5/4)^10 = 9.3
            "c": lambda s: 0.7 * s**-0.2,
            "d": lambda s: 0.702 * s**-0.2,
        }
    )
    _, grouped, _ = fitted(rows)
    every = crossings.crossings(grouped, PredictionReader())
    found = {tuple(sorted((c.a, c.b))): c for c in every}
    ab, bc, cd = found["a", "b"], found["b", "c"], found["c", "d"]
    assert ab.verdict == "overtakes" and len(found) == 6
    (over,) = ab.overtakings
    assert over.low < 1.25**10 < over.high < 50 and over.low > 1
    assert ab.sentence("shots").startswith("a overtakes b at ")
    assert bc.verdict == "ahead"
    assert bc.sentence("shots").startswith("b is ahead of c at 1, 5")
    assert cd.sentence("shots").endswith(" are not told apart from 1 to 500 shots")
    assert cd.basis.startswith("over 5 draws") and cd.pairs == 6
    one = crossings.crossings(
        fitted(study({"a": lambda s: 1 / s / 2, "b": lambda s: 0.4}, 1))[1],
        PredictionReader(),
    )
    assert one[0].found is None and one[0].basis.startswith("fewer than two common")


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_command_writes_json_and_csv(tmp_path, form):
    rows = study({"a": lambda s: 0.5 * s**-0.3, "b": lambda s: 0.4 * s**-0.2})
    table.save([r | {"synthetic": True} for r in rows], tmp_path)
    call = [sys.executable, "-m", "bigxfer.study", "fit", "--out", str(tmp_path)]
    call += ["--table", str(tmp_path / f"table.{form}")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SYNTHETIC") and "a overtakes b at " in done.stdout
    assert "auroc_macro 0.9 at 2" in done.stdout  # 0.1 = 0.5 (212)^-0.3
    about = json.loads((tmp_path / "fits.json").read_text())
    assert about["synthetic"] and about["error"] == "1 - auroc_macro"
    first = about["fits"][0]
    assert first["line"] == "a" and first["chosen"] == "M1"
    with (tmp_path / "fits.csv").open() as file:
        got = {(r["line"], r["parameter"]): r for r in csv.DictReader(file)}
    c = first["parameters"]["c"]
    assert float(got["a", "c"]["low"]) == c["low"] < 0.3 < c["high"]
    assert not c["at_bound"] and about["reach"] == 0.9
    assert first["reach_low"] < 5 ** (1 / 0.3) < first["reach_high"] < 500
    with (tmp_path / "crossovers.csv").open() as file:
        (pair,) = csv.DictReader(file)
    assert (pair["ahead"], pair["behind"]) == ("a", "b")
    assert 0 < float(pair["low"]) < float(pair["at"]) < float(pair["high"]) < 500


def test_a_wrong_table_is_named(tmp_path):
    base = [sys.executable, "-m", "bigxfer.study", "fit", "--out", str(tmp_path)]
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    table.save([run(kind="upstream")], tmp_path / "up")
    for more, said in (
        ([], "--table FILE or --config FILE"),
        (["--table", str(tmp_path / "no.parquet")], "no table at"),
        (["--table", str(tmp_path / "table.csv")], "lacks the columns study, kind"),
        (["--table", str(tmp_path / "up" / "table.csv")], "no finished transfer"),
        (["--config", "configs/study_x.py"], "study_x/table.parquet"),
    ):
        done = subprocess.run(
            base + more, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def surface_rows(upstreams, sizes=(100, 1000, 10_000, 100_000), shots=(1, 5, 25, 125)):
    """Rows under 0.5 (0.1 exp(2 distance) + n^-0.3) s^-0.2, 5 draws of 2% noise."""
    rng = np.random.default_rng(0)
    rows = []
    for name, distance in upstreams.items():
        for n in sizes:
            for s in shots:
                truth = (0.1 * np.exp(2 * distance) + n**-0.3) * s**-0.2
                for seed in range(5):
                    error = truth * np.exp(rng.normal(0, 0.02))
                    sizes_of = {"upstream_size": n, "upstream_examples": 9 * n}
                    ends = {"upstream_distance": distance, "target_distance": 0.0}
                    rows.append(run(name, str(s), seed, error, **sizes_of, **ends))
    return rows


def test_a_two_way_law_and_the_distance_of_domains_come_back():
    rows = surface_rows({"near": 0.0, "mid": 0.4, "far": 0.8})
    axes = ("upstream_size", "shots")
    found, notes = surfaces.fitted(rows, axes, "auroc_macro", PredictionReader(), {})
    assert notes == [] and [law.curve.about["line"] for law in found] == [
        "far",
        "mid",
        "near",
        "all upstreams",
    ]
    for law, truth in (
        (found[2], {"delta": 1, "gap": 0.1, "alpha": 0.3, "beta": 0.2}),
        (
            found[3],
            {"delta": 1, "gap": 0.1, "alpha": 0.3, "beta": 0.2, "kappa": 2},
        ),
    ):
        assert law.band is not None and law.cutoff == 10_000
        for name, value in truth.items():
            at, low, high = law.band.parameters[name]
            assert low < value < high, name
            assert abs(at - value) < 0.25 * value
    known = {("near", "covidx"): 0.0, ("mid", "covidx"): 4.0, ("far", "covidx"): 8.0}
    real = [r | {"upstream_distance": None, "target_distance": None} for r in rows]
    *_, pooled = surfaces.fitted(real, axes, "auroc_macro", PredictionReader(), known)[
        0
    ]
    assert pooled.fit is not None and found[3].fit is not None
    kappa = found[3].fit.parameters["kappa"]
    assert pooled.fit.parameters["kappa"] == pytest.approx(kappa / 10, rel=1e-3)
    assert (
        len(surfaces.fitted(real, axes, "auroc_macro", PredictionReader(), {})[0]) == 3
    )


def test_a_joint_law_of_size_and_data_comes_back_and_too_few_sizes_are_said():
    rng = np.random.default_rng(0)
    rows = [
        run(
            shots=str(s),
            seed=seed,
            error=(0.05 + 400 * n**-0.5 + 0.3 * s**-0.4) * np.exp(rng.normal(0, 0.01)),
            model=f"R{n}",
            params=n,
        )
        for n in (10**6, 4 * 10**6, 16 * 10**6, 64 * 10**6)
        for s in (1, 4, 16, 64, 256)
        for seed in range(5)
    ]
    axes = ("params", "shots")
    (law,), _ = surfaces.fitted(rows, axes, "auroc_macro", PredictionReader(), {})
    assert law.band is not None and law.fit is not None
    assert law.fit.form.name == "joint" and law.cutoff == 16e6
    for name, value in (("floor", 0.05), ("alpha", 0.5), ("beta", 0.4), ("b", 0.3)):
        _, low, high = law.band.parameters[name]
        assert low < value < high, name
    few = [r for r in rows if r["params"] < 16e6 and r["shots"] in ("1", "4")]
    (law,), _ = surfaces.fitted(few, axes, "auroc_macro", PredictionReader(), {})
    assert law.fit is None and law.reason.startswith("2 and 2 values of the scales")


def test_the_command_fits_surfaces_and_names_a_wrong_distance(tmp_path):
    rows = surface_rows({"near": 0.0, "far": 0.8}, (100, 1000, 10_000), (1, 5))
    table.save(rows, tmp_path)
    csv_file = tmp_path / "distances.csv"
    csv_file.write_text("upstream,target,distance\nnear,covidx,0\nfar,covidx,x\n")
    call = [sys.executable, "-m", "bigxfer.study", "fit", "--out", str(tmp_path)]
    call += ["--table", str(tmp_path / "table.parquet"), "--x", "upstream_size,shots"]

    def command(*more):
        return subprocess.run(
            [*call, *more], cwd=ROOT, capture_output=True, text=True, check=False
        )

    done = command("--distances", str(csv_file))
    assert done.returncode == 1 and "line 3: distance 'x' is no number" in done.stderr
    done = command()
    assert done.returncode == 0, done.stderr
    assert "covidx R50x1 all upstreams: " in done.stdout and "kappa" in done.stdout
    about = json.loads((tmp_path / "fits.json").read_text())
    assert about["fits"][-1]["scales"][0] == [100, 1, 0] and not about["crossovers"]
    with (tmp_path / "fits.csv").open() as file:
        assert {r["parameter"] for r in csv.DictReader(file)} >= {"alpha", "kappa"}


def test_the_pairs_of_the_command_are_those_of_the_laws():
    assert set(fit.PAIRS.values()) == set(surfaces.FORMS)
    assert set(surfaces.FIXED) == set(surfaces.FORMS)
