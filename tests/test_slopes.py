"""Slopes over upstream images and width: exact on planted lines, honest on noise."""

import math

import numpy as np
import pytest

from bigxfer.statistics.limits import Score
from bigxfer.tables import slopes

SIZES, WIDTHS = (705, 2820, 11280, 45120), (0.125, 0.25, 0.5)


class Scored:
    """Stands in for a PredictionReader: influences [p] of each folder."""

    def __init__(self, of):
        self.of = of

    def scores(self, rows, metric):
        return [Score(0.7, sums=self.of[row["folder"]], one=0.0) for row in rows]

    def patients(self, rows):
        return len(next(iter(self.of.values())))


def study(
    rng, seeds=5, images=0.01, width=0.02, seed_sd=0.0, run_sd=0.0, p=200, sd=0.0
):
    rows, influences = [], {}
    patient = rng.normal(0, 1, (p, 3))  # what each does to a, b and c of all runs
    for seed in range(seeds):
        off = rng.normal(0, seed_sd)
        for n in SIZES:
            for w in WIDTHS:
                x, z = math.log(n / SIZES[0], 4), math.log2(w / WIDTHS[0])
                each = sd * (patient[:, 0] + x * patient[:, 1] + z * patient[:, 2]) / p
                value = 0.7 + off * x + images * x + width * z + each.sum()
                row = {"upstream_size": n, "width": w, "upstream_seed": seed}
                row |= {"folder": f"{seed} {n} {w}"}
                row["auroc_macro"] = value + rng.normal(0, run_sd)
                rows.append(row)
                influences[row["folder"]] = each - each.mean()
    return rows, Scored(influences)


def found(rows, scored, margin=0.005):
    return slopes.slopes(rows, "auroc_macro", scored, margin)


def test_planted_slopes_come_back_in_the_units_that_are_said():
    images, width = found(*study(np.random.default_rng(0), run_sd=1e-9))
    assert images.scale == "fourfold upstream images"
    assert images.value == pytest.approx(0.01, abs=1e-7)
    assert width.value == pytest.approx(0.02, abs=1e-7)
    assert (images.seeds, images.cells, images.patients) == (5, 12, 200)
    assert images.verdict == width.verdict == "rises"


def test_it_is_the_mean_of_numpys_fits_of_each_seed():
    rows, scored = study(np.random.default_rng(1), seed_sd=0.01, run_sd=0.01)
    each = []
    for seed in range(5):
        own = [r for r in rows if r["upstream_seed"] == seed]
        x = [[1, math.log(r["upstream_size"]), math.log(r["width"])] for r in own]
        b = np.linalg.lstsq(np.array(x), [r["auroc_macro"] for r in own], rcond=None)[0]
        each.append(b[1:] * np.log([4, 2]))
    assert [s.value for s in found(rows, scored)] == pytest.approx(
        np.mean(each, axis=0)
    )


def test_intervals_of_known_truth_cover_it():
    """Seeds, runs and patients vary, 400 studies: 95% within what chance allows."""
    hit, rng = [], np.random.default_rng(2)
    for _ in range(400):
        one = study(rng, images=0, width=0, seed_sd=0.006, run_sd=0.01, p=60, sd=0.03)
        hit.append([s.low <= 0 <= s.high for s in found(*one)])
    assert np.all(np.mean(hit, axis=0) > 0.92), np.mean(hit, axis=0)


def test_a_flat_slope_is_shown_and_an_unsure_one_is_not():
    rng = np.random.default_rng(3)
    flat, _ = found(*study(rng, images=0, run_sd=0.001))
    unsure, _ = found(*study(rng, images=0.002, seed_sd=0.02))
    assert (flat.verdict, unsure.verdict) == ("is flat", "is not told from none")


def test_a_seed_without_a_cell_is_left_out_and_one_seed_gives_no_p():
    rows, scored = study(np.random.default_rng(4), seeds=3, run_sd=0.01)
    images, _ = found(rows[:-1], scored)
    assert (images.seeds, images.left_out) == (2, 11)
    images, _ = found(rows[:12], scored)
    assert images.seeds == 1 and math.isnan(images.p) and images.verdict == ""


@pytest.mark.parametrize("kept", ["none", "all but one"])
def test_without_the_predictions_of_every_run_there_is_no_p(kept):
    rows, scored = study(np.random.default_rng(4), run_sd=0.01, sd=0.1)
    if kept == "none":
        scored.scores = lambda rows, metric: None
    else:
        scored.of[rows[0]["folder"]] = None
    images, width = found(rows, scored)
    assert math.isnan(images.p) and math.isnan(width.p) and images.patients == 0


def test_what_gives_no_slope_is_refused():
    rows, scored = study(np.random.default_rng(5), seeds=2)
    with pytest.raises(ValueError, match="two runs of a seed"):
        found([*rows, rows[0]], scored)
    diagonal = [
        r
        for r in rows
        if (r["upstream_size"], r["width"])
        in {(705, 0.125), (2820, 0.25), (11280, 0.5)}
    ]
    with pytest.raises(ValueError, match="change together"):
        found(diagonal, scored)
    assert [
        s.scale for s in found([r for r in rows if r["width"] == 0.25], scored)
    ] == ["fourfold upstream images"]


def test_the_verdicts_of_a_slope():
    def told(value, holm, outside):
        known = (value, 0.0, 0.0, 0.0, 0.0, 5, 12, 200, 0)
        return slopes.Slope("x", *known, holm, outside).verdict

    assert told(0.1, 0.049, 0.5) == "rises" and told(-0.1, 0.049, 0.5) == "falls"
    assert told(0.1, 0.049, 0.049) == told(0.1, 0.5, 0.049) == "is flat"
    assert told(0.1, 0.051, 0.051) == "is not told from none"
    assert told(0.1, math.nan, 0.049) == ""
