"""--dry-run: what would be done is said, and nothing is."""

import csv

import numpy as np
import pytest
from PIL import Image

from bigxfer import config, presets, train, transfer
from launch import local


@pytest.fixture
def root(tmp_path):
    """A folder of 30 images of 30 patients in two classes."""
    root = tmp_path / "data"
    root.mkdir()
    rng = np.random.default_rng(0)
    with open(root / "metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "patient_id", "split"])
        for i in range(30):
            image = Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8))
            image.save(root / f"{i}.png")
            split = "test" if i >= 20 else "valid" if i >= 14 else "train"
            table.writerow([f"{i}.png", "ab"[i % 2], f"p{i}", split])
    return root


def asked(root, kind):
    run = config.Run(kind=kind)
    run.model = presets.bit("R1-1-1-1x0.25")
    run.optim = presets.small_schedule(7)
    run.data.reader, run.data.root, run.data.views = "csv", str(root), ()
    run.data.cache = str(root.parent / "cache")
    presets.set_res(run.data, 32)
    return run


def test_of_an_upstream(root, capsys):
    folder = root.parent / "run"
    train.main(asked(root, "upstream"), set(), str(folder), dry=True)
    said = capsys.readouterr().out
    assert "14 train, 6 valid, 10 test images" in said and "classes  a, b" in said
    assert "R1-1-1-1x0.25, 5" in said and "7 steps" in said and "not begun" in said
    assert not folder.exists()


def test_of_a_transfer_whose_upstream_is_missing(root, capsys, monkeypatch):
    """The phantom's upstream is named, not trained; the digest is that of the real run."""
    run = asked(root, "transfer")
    run.init.kind = "pretrained"
    run.init.upstream = "configs/upstream_nih.py:model=R1-1-1-1x0.25,res=32"
    monkeypatch.chdir(root.parent)
    source = config.resolve(presets.load(run.init.upstream))
    npz, digest = transfer.upstream(run, True, None, dry=True)
    assert "would be trained on the phantom first" in capsys.readouterr().out
    standin = config.resolve(presets.standin(source, set()))
    assert npz == "" and digest == config.digest(standin)
    assert not (root.parent / "runs").exists()


def test_what_is_wrong_is_an_error_of_the_rehearsal_too(root):
    (root / "metadata.csv").write_text("file,label\n1.png,a\n")
    with pytest.raises(ValueError, match="patient"):
        train.main(asked(root, "upstream"), set(), str(root / "run"), dry=True)


def test_of_a_study(root, capsys):
    from bigxfer.study import grid

    states = grid.states(grid.nodes("configs/study_demo.py"), root.parent / "runs")
    lines = local.rehearsal(states).splitlines()
    assert len(lines) == len(states) + 1
    assert lines[-1].startswith(f"{len(states)} of {len(states)} would be done")
    assert states[-1].node.digest in lines[-2] and str(states[-1].node) in lines[-2]
    assert not (root.parent / "runs").exists()
