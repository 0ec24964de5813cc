"""--dry-run: what would be done is said, and nothing is."""

import argparse
import csv
import hashlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from make_run import make_run
from PIL import Image

from bigxfer import analyze, audit, config, export, predict, presets, train, transfer
from bigxfer.data import fetch
from bigxfer.study import __main__ as study
from bigxfer.tables import table
from launch import local

NOTHING = "nothing was done: the same command without --dry-run does it"


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


def content(folder):
    """{path: its bytes, as their sum} of all that lies beneath a folder."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def said(monkeypatch, capsys, main, *words):
    """What a command that takes --dry-run prints with it."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words), "--dry-run"])
    main()
    got = capsys.readouterr()
    return got.out + got.err


def test_of_an_audit(root, capsys, monkeypatch):
    out = root.parent / "audit"
    monkeypatch.setattr(
        audit, "flags", SimpleNamespace(FLAGS={"against": SimpleNamespace(present=0)})
    )
    audit.main(asked(root, "transfer"), set(), str(out), dry=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].endswith(": 30 images that decode") and lines[-1] == NOTHING
    assert lines[-3:-1] == [
        f"would write {out / f'audit.{e}'}" for e in ("json", "html")
    ]
    assert not out.exists()


def test_of_what_takes_a_finished_run(root, tmp_path, capsys, monkeypatch):
    run, out = make_run(tmp_path / "runs" / "run"), tmp_path / "out"
    (tmp_path / "net.jaxexport").write_bytes(b"old")
    before = content(tmp_path)

    def ask(main, *words):
        lines = said(monkeypatch, capsys, main, *words).splitlines()
        assert content(tmp_path) == before and lines[-1] == NOTHING
        return lines

    def predicting(*words):
        # The argv of the command, read by its own parser.
        return ask(
            lambda: predict.main(predict.arguments()), "--run", run, "--images", *words
        )

    def exporting(*words):
        return ask(lambda: export.main(export.arguments()), "--run", run, *words)

    lines = predicting(root, "--out", out / "p.csv", "--heatmaps", out / "maps")
    assert lines[-4].startswith("would read 30 of 30 images; by")
    assert lines[-3:-1] == [f"would write {out / n}" for n in ("p.csv", "maps")]
    with pytest.raises(ValueError, match=r"ends in \.npz or \.parquet"):
        predicting(root, "--features", out / "f.txt")
    lines = exporting("--to", "stablehlo", "--out", tmp_path / "net.jaxexport")
    assert lines[-3] == f"would replace {tmp_path / 'net.jaxexport'}"
    with pytest.raises(ValueError, match="take --to stablehlo"):
        exporting("--to", "timm", "--out", out / "net.safetensors")
    with pytest.raises(NotADirectoryError, match=r"params\.npz is no folder"):
        exporting("--to", "stablehlo", "--out", run / "params.npz" / "net")
    lines = ask(
        *(analyze.main, "--run", run, "--out", out, "--what", "calibration,convergence")
    )
    assert (
        lines[-3]
        == f"would do calibration, convergence, with plots and tables in {out}"
    )
    with pytest.raises(SystemExit, match="--what calibrations: there are"):
        ask(analyze.main, "--run", run, "--out", out, "--what", "calibrations")


def test_of_a_studys_commands(tmp_path, capsys, monkeypatch):
    runs, old = tmp_path / "runs", tmp_path / "old"
    make_run(runs / "run")
    table.save(table.collect([runs], old).rows, old)
    before = content(tmp_path)

    def ask(*words):
        lines = said(monkeypatch, capsys, study.main, *words).splitlines()
        assert content(tmp_path) == before and lines[-1] == NOTHING
        return lines

    lines = ask(
        "collect", "--runs", runs, "--out", old, "--long", tmp_path / "long.csv"
    )
    assert lines[-5] == "would write a table of 1 rows"
    assert lines[-4] == f"would replace {old / 'table.csv'}"
    lines = ask("fit", "--table", old / "table.csv", "--out", tmp_path / "fits")
    assert lines[0].startswith("would fit laws along shots to 1 transfers")
    assert lines[3] == f"would write {tmp_path / 'fits' / 'crossovers.csv'}"
    lines = ask("report", "--table", old / "table.parquet")
    assert lines[:2] == ["would report 1 runs", f"would write {old / 'report.html'}"]
    lines = ask("report", "--runs", runs)
    assert f"would write {runs / 'report' / 'table.parquet'}" in lines
    with pytest.raises(SystemExit, match="must end in .html"):
        ask("report", "--table", old / "table.csv", "--out", tmp_path / "page.txt")


def test_of_a_download(tmp_path, capsys, monkeypatch):
    name = "pneumoniamnist_64"
    lines = said(
        *(
            monkeypatch,
            capsys,
            fetch.main,
            f"medmnist:{name}",
            "--out",
            tmp_path / "new",
        )
    ).splitlines()
    assert lines[0] == f"would download {fetch.ADDRESS.format(name=name)}"
    assert lines[1:] == [f"would write {tmp_path / 'new' / name}.npz", NOTHING]
    assert not (tmp_path / "new").exists()


def test_every_command_of_a_study_that_writes_takes_it():
    words = argparse.ArgumentParser().add_subparsers()
    for command in study.COMMANDS:
        command.add(words)
    taking = {
        name for name, p in words.choices.items() if "--dry-run" in p.format_help()
    }
    assert taking == {"collect", "fit", "report"}
