"""The commands that launch.tpu prints, and what --go does with a gcloud of our own."""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bigxfer.study import grid
from launch import tpu

ROOT = Path(__file__).parents[1]
STUDY = "configs/study_demo.py"
NEEDED = {
    "config": STUDY,
    "project": "p",
    "zone": "us-west4-a",
    "type": "v5litepod-8",
    "nfs": "10.0.0.2:/share",
    "repo": "https://example.org/x.git",
}


def call(*more, environ=None, leave_out=()):
    names = {k: v for k, v in NEEDED.items() if k not in leave_out}
    flags = [f"--{name}={value}" for name, value in names.items()]
    return subprocess.run(
        [sys.executable, "-m", "launch.tpu", *flags, *more],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


def commands(text):
    """The words of every gcloud call in a shell text; commands span lines in quotes."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, "#"
    found: list[list[str]] = []
    for word in lexer:
        if word == "gcloud":
            found.append([])
        found[-1].append(word)
    return found


def test_a_study_over_slices_is_printed():
    done = call("--slices=2", "--spot")
    assert done.returncode == 0, done.stderr
    found = commands(done.stdout)
    assert len(found) == 10 and all("--zone=us-west4-a" in words for words in found)
    create, describe, setup, work, delete = (" ".join(words) for words in found[5:])
    assert create == (
        "gcloud compute tpus queued-resources create bigxfer-1 --node-id=bigxfer-1"
        " --accelerator-type=v5litepod-8 --runtime-version=v2-alpha-tpuv5-lite --spot"
        " --project=p --zone=us-west4-a"
    )
    assert "describe bigxfer-1 --format=value(state.state)" in describe
    assert setup.startswith("gcloud compute tpus tpu-vm ssh bigxfer-1 --worker=all")
    assert "mount 10.0.0.2:/share /mnt/bigxfer" in setup
    assert "| sh" not in setup
    for line in (line for line in setup.splitlines() if "pip install" in line):
        assert "--require-hashes" in line
        wanted = line.partition("--require-hashes ")[2].partition(" --")[0].split()
        assert set(wanted[::2]) == {"-r"}  # nothing is asked for by its name
        for file in wanted[1::2]:
            lock = (ROOT / file.strip("'")).read_text()
            assert re.search(r"^\S+==.* \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert "-r requirements.lock -r launch/requirements-tpu.lock" in setup
    assert f"launch.local --config {STUDY} --runs /mnt/bigxfer/runs" in work
    assert "queued-resources delete bigxfer-1 --force --quiet" in delete


def test_one_run_over_all_hosts(tmp_path):
    """The shell of the hosts, run with a metadata server and a python of our own."""
    digest = next(n.digest for n in grid.nodes(STUDY) if n.kind == "upstream")
    done = call("--type=v5litepod-64", f"--only={digest}")
    assert done.returncode == 0, done.stderr
    work = commands(done.stdout)[3]
    (command,) = [w for w in work if w.startswith("--command=")]
    script = command.removeprefix("--command=")
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    seen = "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS: $@"
    for host, what in (("0", "launch.local"), ("2", "launch.worker")):
        home = tmp_path / host
        (home / "bigxfer" / ".venv" / "bin").mkdir(parents=True)
        unfinished = '[ "$1" = -c ] && exit 1'
        executable(home / "bigxfer" / tpu.PYTHON, f'{unfinished}\necho "{seen}"')
        ends = "x:y:10.0.0.7,x:y:10.0.0.8,x:y:10.0.0.9"
        executable(
            home / "curl",
            f'case "$*" in *endpoints) echo {ends};; *) echo {host};; esac',
        )
        local = script.replace(f"seq {tpu.ROUNDS}", "seq 1")
        path = f"{home}:{os.environ['PATH']}"
        said = subprocess.run(
            ["bash", "-c", local],
            cwd=home,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.startswith(f"{host} of 3 at 10.0.0.7:8476: -m {what} ")
        assert said.stdout.strip().endswith(f"--only {digest}")


GCLOUD = """
cd {folder}
echo "$*" | head -n 1 >> calls
case "$*" in
*" describe "*) [ -f state ] && cat state || exit 1;;
*" create "*) if [ -f taken ]; then echo ACTIVE > state
              else echo SUSPENDED > state; touch taken; fi;;
*" delete "*) rm -f state;;
*launch.local*) if [ -f worked ]; then exit 0; else touch worked; exit 255; fi;;
esac
"""


def test_go_asks_again_for_what_was_taken_away(tmp_path, monkeypatch):
    executable(tmp_path / "gcloud", GCLOUD.format(folder=tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(tpu.time, "sleep", lambda seconds: None)
    assert tpu.keep(tpu.Slice("s-0", "p", "z", "v4-8", True, "setup", "launch.local"))
    verbs = [line.split()[3] for line in (tmp_path / "calls").read_text().splitlines()]
    assert verbs == [
        *("describe", "create", "describe", "delete"),  # suspended at once
        *("describe", "create", "describe", "ssh", "ssh"),  # the connection broke
        *("describe", "ssh", "ssh", "delete"),
    ]


def executable(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("more", "leave_out", "said"),
    [
        ((), ("nfs", "zone"), "--zone --nfs: missing"),
        (("--only=00",), (), "has no run 00"),
        (("--slices=2", "--only={}"), (), "one run, on one slice"),
        (("--config=nowhere.py",), (), "no config file nowhere.py"),
    ],
)
def test_mistakes_are_one_line(more, leave_out, said):
    digest = grid.nodes(STUDY)[-1].digest
    done = call(*(m.format(digest) for m in more), leave_out=leave_out)
    assert done.returncode == 1 and said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
