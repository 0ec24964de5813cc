"""`study watch`: what its live table says, and that it ends with the study."""

import argparse
import io
from pathlib import Path

from rich.console import Console

from bigxfer import config
from bigxfer.study import grid
from bigxfer.study.commands import watch


def standing(state, digest="a", **fields):
    run = config.Run(kind="transfer", seed=fields.pop("seed", 0))
    run.data.reader, run.data.shots = "covidx", "5"
    return grid.Standing(grid.Node(run, digest, (), "nih"), state, [], **fields)


def drawn(states, width=120):
    console = Console(file=io.StringIO(), width=width)
    console.print(watch.picture(states))
    return console.file.getvalue()


def test_it_counts_by_net_and_start_and_names_what_runs_and_failed():
    states = [
        standing("done"),
        standing("done"),
        standing("running", seed=3, step=7, steps=60, where="node1 77"),
        standing("failed", seed=4, error="ValueError: no"),
        standing("unchecked"),
    ]
    said = drawn(states)
    assert "2 of 5 done" in said
    (row,) = [
        line for line in said.splitlines() if "covidx" in line and "draw" not in line
    ]
    assert row.split("│")[2:6] == ["    2 ", "       1 ", "     1 ", "         "], row
    flat = " ".join(said.replace("│", " ").split())
    assert "draw 3, running, step 7 of 60, node1 77" in flat
    assert "draw 4, failed, ValueError: no" in flat
    many = drawn([standing("running")] * 20)
    assert "and 8 more" in many


def test_it_ends_when_all_runs_have_ended(monkeypatch, capsys):
    looks = [["running", "ready"], ["done", "running"], ["done", "given up"]]
    asked = []
    monkeypatch.setattr(grid, "nodes", lambda path: [])

    def states(study, runs, done):
        asked.append(runs)
        return [standing(state) for state in looks[len(asked) - 1]]

    monkeypatch.setattr(grid, "states", states)
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, as good as a terminal
    watch.show(argparse.Namespace(config="x", runs=Path("here"), every=0.0))
    assert asked == [Path("here")] * 3
    assert "1 of 2 done" in capsys.readouterr().out


def test_without_a_terminal_it_prints_a_line_for_each_change(monkeypatch, capsys):
    looks = [["running", "ready"]] * 2 + [["done", "failed"], ["done", "given up"]]
    asked = []
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(grid, "nodes", lambda path: [])

    def states(study, runs, done):
        asked.append(runs)
        return [standing(state, error="no") for state in looks[len(asked) - 1]]

    monkeypatch.setattr(grid, "states", states)
    watch.show(argparse.Namespace(config="x", runs=Path("here"), every=0.0))
    said = capsys.readouterr().out.splitlines()
    assert [line[10:] for line in said if "of 2" in line] == [
        "1 running, 1 ready, of 2",
        "1 done, 1 failed, of 2",
        "1 done, 1 given up, of 2",
    ]
    assert len(said) == 3 + 2 and "failed, no" in said[2] and "given up, no" in said[4]


def test_ctrl_c_leaves_the_table_and_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(grid, "nodes", lambda path: [])
    monkeypatch.setattr(grid, "states", lambda *_: [standing("running")])

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    monkeypatch.setenv("FORCE_COLOR", "1")
    watch.show(argparse.Namespace(config="x", runs=Path("here"), every=5.0))
    assert "0 of 1 done" in capsys.readouterr().out
