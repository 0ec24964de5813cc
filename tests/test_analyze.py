"""The whole command on a toy run of the phantom, and its errors."""

import csv
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigxfer import analyze, config, job, presets, tree
from bigxfer.analysis import calibration, reliability

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
    assert not (tmp_path / "o").exists()


def toy(folder, seed, cache):
    run = config.Run(kind="upstream", seed=seed)
    run.model = presets.bit("R1-1x0.25", groups=4)
    run.data.reader, run.data.cache = "covidx", str(cache)
    run.data.resize, run.data.crop, run.data.augment = 32, 32, "crop"
    run.data.phantom.images, run.data.phantom.pixels = 100, 32
    run.optim.schedule, run.optim.steps = "constant", 4
    run.optim.batch, run.optim.lr, run.eval.resamples = 16, 0.05, 20
    run.eval.batch = 64
    job.execute(config.resolve(run), folder)


@pytest.mark.slow
def test_every_analysis_writes_plots_and_tables(tmp_path):
    pytest.importorskip("matplotlib")
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
        "calibration_reliability",
        "calibration_referral",
        "embedding",
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
    run = found["calibration"]["run"]
    assert run["loss"]["value"] > 0
    # 11 validation images and a net that knows nothing: no temperature is made up
    assert isinstance(run["temperature"], float) or run["temperature"][:4] == "none"


def predictions(folder, labels, logits, result):
    folder.mkdir()
    ids = np.arange(len(labels)).astype(str)
    for name in ("predictions.npz", "predictions_valid.npz"):
        columns = {"ids": ids, "patients": ids, "sources": ids, "views": ids}
        values = {"labels": labels, "logits": logits, "classes": np.array(["a", "b"])}
        tree.save_npz(folder / name, {**columns, **values})
    (folder / "result.json").write_text(json.dumps(result))


def test_calibration_needs_predictions_alone(tmp_path):
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 2)) * 2
    p = calibration.probabilities(np.zeros(400), logits)
    labels = (rng.random(400) < p[:, 1]).astype(int)
    for name in ("one", "two"):
        predictions(tmp_path / name, labels, 3 * logits, {"synthetic": False})
    out = tmp_path / "out"
    out.mkdir()
    found = reliability.report([tmp_path / "one", tmp_path / "two"], out)
    assert found["run"]["temperature"] == pytest.approx(3, rel=0.2)
    before, after = (v["ece"]["value"] for k, v in found.items() if k[:3] == "run")
    assert after < before / 2
    assert found["ensemble of 2"]["loss"] == found["run"]["loss"]
    assert "SYNTHETIC" not in (out / "calibration_referral.svg").read_text()
    (tmp_path / "one" / "predictions_valid.npz").unlink()
    with pytest.raises(ValueError, match="fitted on validation only"):
        reliability.report([tmp_path / "one"], out)
