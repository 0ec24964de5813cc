"""launch.local on a toy study, disturbed and undisturbed."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import COMPILE_FAST

from bigxfer import cli, host
from bigxfer.runs import folders
from bigxfer.study import claims, grid
from launch import shares

ROOT = Path(__file__).parents[1]
# And where it lies, and the commit, which others may change while this runs.
TIMES = {"device_seconds", "changed_ns", "folder", "commit"}


def toy(folder, shots=("1", "5"), upstream_steps=40):
    """A study of an upstream and, for each number of shots, two transfers."""
    path = folder / "study_toy.py"
    path.write_text(
        textwrap.dedent(f'''
        """SYNTHETIC, and of no use but to be run."""
        from bigxfer import presets

        SHAPE = "model=R1-1x0.25,res=32,batch=16,phantom=64"
        UPSTREAM = f"{{__file__}}:upstream"

        def get_config(arg=""):
            if arg:
                name = "upstream_chexpert.py"
                more = "recipe=small,steps={upstream_steps}"
            else:
                name, more = "covidx_small.py", "steps=20"
            run = presets.load(f"configs/{{name}}:{{SHAPE}},{{more}}")
            run.init.upstream = "" if arg else UPSTREAM
            run.data.cache = "{folder / "cache"}"
            run.eval.resamples, run.log.every = 50, 1
            return run

        def sweep(arg=""):
            for shots in {shots}:
                for kind in ("pretrained", "random"):
                    yield {{"data.shots": shots, "init.kind": kind}}
        ''')
    )
    return path


def environment(**more):
    flags = f"--xla_force_host_platform_device_count=1 {COMPILE_FAST}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def command(config, runs, *more):
    names = ("--config", str(config), "--runs", str(runs))
    return [sys.executable, "-m", "launch.local", *names, *more]


def call(config, runs, *more, status=0):
    done = subprocess.run(
        command(config, runs, *more),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr[-3000:]
    return done.stdout + done.stderr


def table(runs):
    """{digest: row} without its times."""
    with (runs / "study_toy" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["digest"]: {k: v for k, v in row.items() if k not in TIMES} for row in rows
    }


def workers(runs):
    """(pid, birth) of every worker that the tries know of."""
    found = [t for p in runs.glob("**/tries") for t in claims.read(p.parent)]
    owners = [t.owner for t in found if "worker" in t.owner]
    return {(o["worker"], o["worker_born"]) for o in owners}


@pytest.mark.slow
def test_ten_kills_of_the_launcher_change_nothing(tmp_path):
    config, whole, killed = (
        toy(tmp_path),
        tmp_path / "1" / "runs",
        tmp_path / "2" / "runs",
    )
    began = time.monotonic()
    assert "[7/7]" in call(config, whole, "--workers=2")
    took = time.monotonic() - began
    rng = np.random.default_rng()
    done = {}
    for kill in range(10):
        process = subprocess.Popen(
            command(config, killed, "--workers=2"),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0.2, took / 4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 10
        while any(claims.running(*worker) for worker in workers(killed)):
            assert time.monotonic() < deadline, "a worker outlives its launcher"
            time.sleep(0.05)
        now = {p: p.stat().st_mtime_ns for p in killed.glob("*/result.json")}
        assert done.items() <= now.items(), "what was done was done again"
        print(f"kill {kill}: {len(now)} done")
        done = now
    call(config, killed, "--workers=2")
    now = {p: p.stat().st_mtime_ns for p in killed.glob("*/result.json")}
    assert done.items() <= now.items()
    assert table(whole) == table(killed) and len(table(whole)) == 5
    for digest in table(whole):
        for name in ("predictions.npz", "metrics.jsonl"):
            one, other = whole / digest / name, killed / digest / name
            assert one.read_bytes() == other.read_bytes(), (digest, name)


@pytest.mark.slow
def test_sigterm_saves_the_step_and_the_run_goes_on_from_it(tmp_path):
    config = toy(tmp_path, shots=("1",), upstream_steps=120)
    runs = tmp_path / "runs"
    node = next(n for n in grid.nodes(str(config)) if n.kind == "upstream")
    folder = node.folder(runs)
    process = subprocess.Popen(
        command(config, runs), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL
    )
    while folders.progress(folder)[0] < 7:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(timeout=60) == 1
    step = claims.saved(folder)
    assert 7 <= step < 30, "between two of its regular checkpoints"
    (tried,) = claims.read(folder)
    assert tried.end == {"how": "released", "kind": "", "message": "", "saved": step}
    assert folders.progress(folder) == (step, 120)
    call(config, runs)
    assert f"resumed from step {step}" in (folder / "log.txt").read_text()
    lines = [json.loads(s) for s in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 121))


@pytest.mark.slow
def test_a_run_that_cannot_be_is_given_up(tmp_path):
    config, runs = toy(tmp_path, shots=("1",)), tmp_path / "runs"
    text = config.read_text()
    config.write_text(
        text.replace('"configs/{name}:', '"configs/{name}:root=/nowhere,')
    )
    said = call(config, runs, status=1)
    assert "DataError" in said or "FileNotFoundError" in said
    assert "/nowhere" in said and "given up" in said
    states = grid.states(grid.nodes(str(config)), runs)
    assert {state.state for state in states} == {"given up"}
    assert [len(state.tries) for state in states if state.node.kind == "cache"] == [
        3,
        3,
    ]


def test_workers_share_out_the_cores_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(shares, "count_gpus", lambda: 0)
    monkeypatch.setattr(host, "cores", lambda: [0, 2, 5])
    given = {"PATH": "x", "GLIBC_TUNABLES": "mine"}
    assert shares.share_out(given, 1) == [given]
    assert [e[cli.CORES] for e in shares.share_out(given, 2)] == ["0,5", "2"]
    assert shares.share_out(given, 4) == [given] * 4  # too many to share the cores
    (alone,) = shares.share_out({"PATH": "x"}, 1)
    assert alone == {"PATH": "x", "GLIBC_TUNABLES": shares.TUNABLES}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no core affinity")
def test_a_worker_keeps_to_its_cores_and_has_the_flags():
    code = (
        "import os; from bigxfer import cli; cli.set_xla_flags();"
        "print(len(os.sched_getaffinity(0)), os.environ['XLA_FLAGS'])"
    )
    core = min(os.sched_getaffinity(0))
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    call = [sys.executable, "-c", code]
    done = subprocess.run(
        call,
        env={**env, cli.CORES: str(core)},
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.decode().strip() == f"1 {cli.CPU_FLAGS[0, 10]}"
