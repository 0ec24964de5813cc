"""The processes of one run: how they find each other, wait, and fail together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_sharding import two_processes

from bigxfer.training import processes

ROOT = Path(__file__).parents[1]

ENVIRONMENTS = [
    ({}, None),
    ({"SLURM_NTASKS": "4"}, None),  # sbatch without srun
    ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, None),
    ({"SLURM_STEP_NODELIST": "n1"}, None),
    # the shell of an salloc of two tasks
    (
        {
            "SLURM_NTASKS": "2",
            "SLURM_STEP_NODELIST": "n1",
            "SLURM_STEP_NUM_TASKS": "1",
        },
        None,
    ),
    ({"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}, {}),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ({"JAX_COORDINATOR_ADDRESS": "h:1"}, None),
    (
        {
            "JAX_COORDINATOR_ADDRESS": "h:1",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": "0",
        },
        {"coordinator": "h:1", "processes": 2, "process": 0},
    ),
]


@pytest.mark.parametrize("environ, want", ENVIRONMENTS)
def test_arguments_of_join(environ, want):
    assert processes.arguments(environ) == want


def test_join_wants_all_or_nothing():
    with pytest.raises(ValueError, match="or none"):
        processes.join("h:1", 2)


@pytest.fixture
def left(monkeypatch):
    """What `leave` was called with, in place of the end of this program."""
    calls = []
    monkeypatch.setattr(processes, "leave", lambda *said: calls.append(said))
    return calls


def test_a_wait_that_is_too_long_says_for_whom(left):
    with processes.guarded(0.05, lambda: "nobody came"):
        time.sleep(0.2)
    assert left == [("error: after 0.05 s nobody came", 1)]


def test_a_wait_that_ends_in_time_says_nothing(left):
    before = signal.set_wakeup_fd(-1)
    with processes.guarded(60, lambda: "nobody came"):
        pass
    assert left == [] and signal.set_wakeup_fd(before) == before == -1


def test_ctrl_c_ends_a_wait_though_no_handler_runs(left):
    """jax waits in C++: Python's handler would run only after it."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with processes.guarded(60, lambda: "nobody came"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left == [("stopped by Ctrl-C before anything had begun", 130)]


def test_who_is_missing():
    with socket.create_server(("127.0.0.1", 0)) as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        assert "another one has not come" in processes.missing(address, 1)
    assert f"does not answer at {address}" in processes.missing(address, 1)
    assert processes.missing(address, 0) == "another process of this run has not come"
    assert processes.missing(None, None) == processes.missing(address, 0)


ALONE = "from bigxfer.training import processes; processes.join({!r}, 3, {}, wait=3)"


@pytest.mark.slow
def test_processes_that_wait_in_vain_end_with_a_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", ALONE.format(address, process)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
        )
        for process in (0, 1)
    ]  # fmt: skip
    for child in children:
        said = child.communicate(timeout=60)[1]
        assert child.returncode == 1, said
        assert said.count("\n") == 1 and said.startswith("error: after 3 s "), said
        assert f"of 3, the first at {address}" in said


TURNS = """
import sys
from bigxfer.training import processes
address, process, bad = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
processes.join(address, 2, process)
def make():
    if process == bad:
        raise OSError("no such folder")
    return 5
try:
    print(processes.in_turn(make))
except (OSError, ValueError) as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("bad", [0, 1])
def test_what_fails_in_one_process_is_told_by_all(bad):
    out = [text.strip().splitlines()[-1] for text in two_processes(TURNS, bad)]
    assert out[bad] == "OSError: no such folder"
    told = f"ValueError: process {bad} of this run failed: OSError: no such folder"
    assert out[1 - bad] == told


def test_ctrl_c_before_the_handlers_stand(tmp_path):
    """In the config's own code, say, or while jax is imported."""
    file = tmp_path / "c.py"
    file.write_text(
        "import os, signal\n"
        "def get_config(arg=''):\n    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    code = (  # a suite in the background of a shell is started with Ctrl-C ignored
        "import runpy, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "runpy.run_module('bigxfer.train', run_name='__main__', alter_sys=True)"
    )
    call = [sys.executable, "-c", code, "--config", str(file)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "stopped by Ctrl-C before anything had begun\n"
