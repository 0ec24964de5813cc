import csv
import json
import math

import numpy as np
import pytest
from make_run import make_run
from scipy import stats

from bigxfer import config
from bigxfer.analysis import convergence, learning_curves
from bigxfer.analysis.learning_curves import LearningCurve


def curve(*values):
    return LearningCurve(np.arange(1, len(values) + 1) * 10, np.array(values))


def test_a_curve_is_read_from_metrics(tmp_path):
    rows = [
        {"step": 5, "loss": 1.0},
        {"step": 10, "valid/auroc_macro": 0.6},
        {"step": 20, "valid/auroc_macro": None},
        {"step": 30, "valid/auroc_macro": 0.7},
    ]
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = learning_curves.read(tmp_path / "metrics.jsonl")
    assert found.steps.tolist() == [10, 30] and found.values.tolist() == [0.6, 0.7]
    file.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(ValueError, match="1 validations of auroc_macro"):
        learning_curves.read(tmp_path / "metrics.jsonl")


def test_steps_to_a_target():
    assert learning_curves.steps_to(curve(0.5, 0.9, 0.8, 0.95), 0.9) == 20
    assert learning_curves.steps_to(curve(0.5, 0.6), 0.9) == math.inf


def test_speed_up():
    random = curve(0.5, 0.6, 0.7, 0.8, 0.7)
    assert learning_curves.speed_up(random, curve(0.8, 0.9)) == 4
    assert learning_curves.speed_up(random, curve(0.5, 0.6, 0.7)) == 0
    assert learning_curves.speed_up(random, random) == 1
    found = learning_curves.speed_ups(
        [random] * 3, [curve(0.8), curve(0.7, 0.7, 0.7, 0.9), curve(0.5)]
    )
    assert found["value"] == pytest.approx(2)  # geometric mean of 4 and 1
    assert found["never"] == 1
    want = np.exp(stats.t.interval(0.95, 1, np.log(2), np.log(4) / 2))  # of two: wide
    np.testing.assert_allclose([found["low"], found["high"]], want)
    none = learning_curves.speed_ups([random], [curve(0.1)])
    assert none["never"] == 1 and math.isnan(none["low"])


def test_overfit_onset():
    assert learning_curves.overfit_onset(curve(0.5, 0.8, 0.7)) == 20
    assert learning_curves.overfit_onset(curve(0.5, 0.7, 0.8)) == math.inf
    assert learning_curves.overfit_onset(curve(0.8, 0.8)) == math.inf


def learnt(folder, seed, values, **fields):
    """A finished run's folder with a validation every 10 steps."""
    about = json.loads((make_run(folder, **fields) / "config.json").read_text())
    about["config"]["seed"] = seed
    (folder / "config.json").write_text(json.dumps(about))
    rows = [
        {"step": 10 * i, "valid/auroc_macro": value}
        for i, value in enumerate(values, 1)
    ]
    file = folder / "metrics.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_runs_that_differ_in_their_start_alone_are_pairs(tmp_path):
    """Two seeds at random and pretrained, and a pretrained run without a twin."""
    pytest.importorskip("matplotlib")
    pretrained = {"init__kind": "pretrained", "init__checkpoint": "x.npz"}
    folders = [
        learnt(tmp_path / "r0", 0, [0.5, 0.6, 0.7, 0.8]),
        learnt(tmp_path / "r1", 1, [0.5, 0.6, 0.8, 0.9]),
        learnt(tmp_path / "p0", 0, [0.8, 0.9, 0.85, 0.85], **pretrained),
        learnt(tmp_path / "p1", 1, [0.7, 0.8, 0.85, 0.85], **pretrained),
        learnt(tmp_path / "p2", 2, [0.7, 0.8, 0.85, 0.95], **pretrained),
    ]
    found = convergence.write(folders, "auroc_macro", 0.0, tmp_path)
    assert found["target"] == 0.8  # which the least of them reaches
    assert found["random"]["never"] == 0
    assert found["random"]["steps to the target"] == pytest.approx(np.sqrt(40 * 30))
    batch = config.Run().optim.batch
    images = np.cbrt(10 * 20 * 20) * batch
    assert found["pretrained"]["images to the target"] == pytest.approx(images)
    assert found["pretrained"]["runs that fall after their best"] == 1
    pairs = found["pretrained against random"]
    assert pairs["pairs"] == 2 and pairs["pairs that never get there"] == 1
    assert pairs["speed-up"]["value"] == 4  # 40 steps to 0.8, against 10
    assert pairs["gain on test"]["value"] == 0  # all folders have one prediction
    with open(tmp_path / "convergence_runs.csv", newline="") as file:
        runs = {row["run"]: row for row in csv.DictReader(file)}
    assert (
        runs["p0"]["overfit_onset"] == "20" and runs["r0"]["overfit_onset"] == "never"
    )
    for name in ("curves", "speedup", "overfit"):
        assert (tmp_path / f"convergence_{name}.png").read_bytes()[:4] == b"\x89PNG"
    high = convergence.write(folders, "auroc_macro", 0.92, tmp_path)
    assert high["random"]["never"] == 2 and high["pretrained"]["never"] == 2
    rows = (folders[0] / "metrics.jsonl").read_text().replace("auroc_macro", "loss")
    (folders[0] / "metrics.jsonl").write_text(rows)
    falls = learning_curves.read(folders[0] / "metrics.jsonl", "loss")  # less is better
    assert falls.values.tolist() == [-0.5, -0.6, -0.7, -0.8]
    assert learning_curves.overfit_onset(falls) == 10
    with pytest.raises(ValueError, match="no metric 'auroc'"):
        convergence.write(folders, "auroc", 0.0, tmp_path)


def test_curves_are_averaged_over_the_runs_of_a_net_first(tmp_path):
    """Net A is 0.6 in one run and 0.8 in another, net B 0.9: the mean is 0.8."""
    other = {"model": "R1-1x0.5"}
    runs = [
        convergence.read(learnt(tmp_path / "a0", 0, [0.5, 0.6]), "auroc_macro"),
        convergence.read(learnt(tmp_path / "a1", 1, [0.5, 0.8]), "auroc_macro"),
        convergence.read(
            learnt(tmp_path / "b0", 0, [0.5, 0.9], **other), "auroc_macro"
        ),
    ]
    first, last = convergence.bands(runs)
    assert last["mean"] == pytest.approx(0.8) and last["units"] == 2
    assert first["low"] == first["high"] == 0.5
    from scipy.stats import t  # an independent quantile

    half = t.ppf(0.975, 1) * np.std([0.7, 0.9], ddof=1) / np.sqrt(2)
    assert last["high"] == pytest.approx(0.8 + half)
    alone = convergence.bands(runs[:2])
    assert alone[1]["units"] == 2 and alone[1]["mean"] == pytest.approx(0.7)


def test_the_start_in_words():
    def start(**fields):
        return convergence.origin(config.Init(**fields))

    assert start() == "random"
    of = "configs/study_demo.py:model=R26x0.25,upstream=nih"
    found = start(kind="pretrained", upstream=of, how="mean_var", upto="block2")
    assert found == "pretrained study_demo upstream=nih mean_var up to block2"
