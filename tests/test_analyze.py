"""The whole command on a toy run of the phantom, and its errors."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_run import make_run, predicted
from test_split import manifest

from bigxfer import analyze, config, presets
from bigxfer.analysis import ensembles, reliability
from bigxfer.data.dataset import Dataset
from bigxfer.runs import job
from bigxfer.runs.finished import WithData
from bigxfer.statistics import calibration
from bigxfer.study import grid

ROOT = Path(__file__).parents[1]


def call(*args):
    command = [sys.executable, "-m", "bigxfer.analyze", *map(str, args)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_help_is_quick_and_says_what_there_is():
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = call("--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 0.5
    assert done.returncode == 0
    for name in analyze.WHAT:
        assert f"\n{name} " in done.stdout


def test_errors_come_before_compute(tmp_path):
    done = call("--run", tmp_path, "--out", tmp_path / "o")
    assert done.returncode == 1 and "no finished run (no config.json)" in done.stderr
    done = call("--run", tmp_path, "--out", tmp_path / "o", "--what", "similarty")
    assert "--what similarty: there are similarity" in done.stderr
    study = "configs/study_demo.py"
    done = call("--config", study, "--runs", tmp_path, "--out", tmp_path / "o")
    assert f"none of the 74 transfers of {study} is in {tmp_path}" in done.stderr
    done = call("--config", "configs/covidx_small.py", "--out", tmp_path / "o")
    assert "it is no study" in done.stderr
    done = call("--config", study, "--run", tmp_path, "--out", tmp_path / "o")
    assert done.returncode == 2 and "not allowed with" in done.stderr
    assert not (tmp_path / "o").exists()


def test_a_study_is_its_finished_transfers(tmp_path):
    """Of the study's 74 transfers two, in its order."""
    nodes = [n for n in grid.nodes("configs/study_demo.py") if n.kind == "transfer"]
    for node in (nodes[7], nodes[3]):
        node.folder(tmp_path).mkdir()
        for name in ("config.json", "result.json"):
            text = json.dumps({"digest": node.digest})
            (node.folder(tmp_path) / name).write_text(text)
    found = analyze.transfers("configs/study_demo.py", tmp_path)
    assert found == [nodes[3].folder(tmp_path), nodes[7].folder(tmp_path)]


def toy(folder, seed, cache):
    run = config.Run(kind="upstream", seed=seed)
    run.model = presets.bit("R1-1x0.25", groups=4)
    run.data.reader, run.data.cache = "covidx", str(cache)
    run.data.resize, run.data.crop, run.data.augment = 32, 32, "crop"
    run.data.phantom.images, run.data.phantom.pixels = 100, 32
    run.optim.schedule, run.optim.steps = "constant", 4
    run.optim.batch, run.optim.lr, run.eval.resamples = 16, 0.05, 20
    run.eval.batch, run.eval.every = 64, 2
    job.execute(config.resolve(run), folder)


@pytest.mark.slow
def test_every_analysis_writes_plots_and_tables(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("saliency")
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    toy(a, 0, tmp_path / "cache")
    toy(b, 1, tmp_path / "cache")
    done = call("--run", a, "--against", b, "--out", out, "--images", 80)
    assert done.returncode == 0, done.stderr
    names = [
        "similarity_layers",
        "similarity_matrix",
        "similarity_scatter",
        "gradcam_sanity",
        "gradcam_overlays",
        "gradcam_pointing",
        "smoothgrad_sanity",
        "smoothgrad_overlays",
        "smoothgrad_pointing",
        "calibration_reliability",
        "calibration_referral",
        "embedding",
        "weights_moved",
        "filters",
        "reuse",
        "convergence_curves",
        "convergence_overfit",
        "overlap",
    ]
    for name in names:
        assert (out / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "SYNTHETIC" in (out / f"{name}.svg").read_text()
        with open(out / f"{name}.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows and all(row["synthetic"] == "True" for row in rows), name
    found = json.loads((out / "analysis.json").read_text())
    assert found["synthetic"] and "SYNTHETIC" in done.stdout
    assert set(found) == {"run", "synthetic", *analyze.WHAT}
    with open(out / "similarity_matrix.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    itself = [
        float(c["cka_debiased"])
        for c in cells
        if c["pair"] == "trained and itself" and c["row"] == c["column"]
    ]
    np.testing.assert_allclose(itself, 1, atol=1e-9)
    # few steps: the low layers are still like the start, far above noise
    assert found["similarity"]["trained and its start"]["stem"] > 0.5
    # 4 steps on 100 images: weights moved a little, and all starts are worth the same
    moved = found["weights"]["a relative"]
    assert 0 < moved["root_block"] < 0.5 and moved["head"] is None
    assert found["weights"]["first layer"]["a"]["cka_debiased"] > 0.5
    blocks = ["trained", "root_block", "block1/unit01", "block2/unit01", "group_norm"]
    assert list(found["reuse"]) == blocks
    assert found["convergence"]["random"]["runs"] == 2
    assert "no dropout" in found["dropout"]["not done"]
    assert any("COVID-19" in pair for pair in found["overlap"])
    run = found["calibration"]["run"]
    assert run["loss"]["value"] > 0
    # 11 validation images and a net that knows nothing: no temperature is made up
    assert isinstance(run["temperature"], float) or run["temperature"][:4] == "none"


def test_calibration_needs_predictions_alone(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 2)) * 2
    p = calibration.probabilities(np.zeros(400), logits)
    labels = (rng.random(400) < p[:, 1]).astype(int)
    for name in ("one", "two"):
        predicted(tmp_path / name, labels, 3 * logits, ["a", "b"])
    out = tmp_path / "out"
    out.mkdir()
    found = reliability.write([tmp_path / "one", tmp_path / "two"], out)
    assert found["run"]["temperature"] == pytest.approx(3, rel=0.2)
    before, after = (v["ece"]["value"] for k, v in found.items() if k[:3] == "run")
    assert after < before / 2
    assert found["ensemble of 2"]["loss"] == found["run"]["loss"]
    assert "SYNTHETIC" not in (out / "calibration_referral.svg").read_text()
    (tmp_path / "one" / "predictions_valid.npz").unlink()
    with pytest.raises(ValueError, match="predictions of neither validation nor folds"):
        reliability.write([tmp_path / "one"], out)


def test_dropout_is_judged_beside_one_pass(tmp_path, monkeypatch):
    """A net whose dropout only adds noise: a softer ensemble, of equal ranks."""
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = np.stack([-2.0 * labels, 2.0 * labels - 1], 1) + rng.normal(size=(300, 2))
    rows = {"test": np.arange(100, 300)[::-1], "valid": np.arange(100)}
    part = manifest(np.arange(300), labels)
    data = Dataset(part, np.arange(300), rows, {})
    about = {"config": config.to_dict(config.Run())}
    result = {"metrics": {"accuracy": None}}
    run = WithData(tmp_path / "run", about, result, None, {}, data)

    def passes(model, variables, pixels, crop, number):
        return [logits[pixels] + rng.normal(size=(len(pixels), 2)) for _ in range(30)]

    monkeypatch.setattr(ensembles, "mc_dropout", passes)
    plain = lambda run: lambda variables, rows: logits[rows]
    monkeypatch.setattr(reliability.features, "predictor", plain)
    found = reliability.dropout(run, tmp_path)
    once, many = found["one pass"], found["20 passes with dropout"]
    want = calibration.loss(labels[100:], logits[100:])
    assert once["loss"]["value"] == pytest.approx(want)
    assert many["loss"]["value"] != once["loss"]["value"]
    assert (tmp_path / "dropout_referral.csv").exists()
    assert 0.5 < found["referral"]["one pass, half kept"]["value"] <= 1


def test_what_was_asked_for_and_cannot_be_is_an_error(tmp_path):
    run = make_run(tmp_path / "run")
    done = call("--run", run, "--out", tmp_path / "o", "--what", "convergence")
    assert done.returncode == 1 and "--config.eval.every=STEPS" in done.stderr
