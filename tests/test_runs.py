"""Whole runs of the command lines, in subprocesses, on a small phantom."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import COMPILE_FAST

import bigxfer.config
from bigxfer import presets, transfer
from bigxfer.runs import job
from bigxfer.training import sharding

ROOT = Path(__file__).parents[1]
SHAPE = "model=R1-1x0.25,res=32,batch=16,phantom=64"
UPSTREAM = f"configs/upstream_chexpert.py:{SHAPE}"
TARGET = f"configs/covidx_hyperrule.py:{SHAPE}"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def command(main, config, folder, cache, *flags):
    return [
        *(sys.executable, "-m", f"bigxfer.{main}", "--config", config),
        *(f"--workdir={folder}", f"--config.data.cache={cache}"),
        # One block: each of these many processes traces its net anew.
        *("--config.model.blocks=1", "--config.log.every=1"),
        *("--config.eval.resamples=50", *flags),
    ]


def environment(**more):
    flags = f"--xla_force_host_platform_device_count=1 {COMPILE_FAST}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def call(*args):
    done = subprocess.run(
        command(*args),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def losses(folder):
    lines = [json.loads(s) for s in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted(set(steps)), "each step stands once"
    return np.array([line["loss"] for line in lines if "loss" in line])


def test_upstream_and_transfer_write_what_the_design_says(tmp_path, cache):
    up, down = tmp_path / "up", tmp_path / "down"
    said = call("train", UPSTREAM + ",steps=8", up, cache)
    assert "SYNTHETIC" in said
    for name in ("config.json", "metrics.jsonl", "params.npz", "predictions.npz"):
        assert (up / name).exists()
    assert not (up / "checkpoints").exists()
    result = json.loads((up / "result.json").read_text())
    assert result["synthetic"] is True
    assert set(result["cost"]) >= {"steps", "images", "flops", "device_seconds"}
    assert "accuracy" not in result["metrics"]  # multi-label
    assert result["metrics"]["loss"]["low"] < result["metrics"]["loss"]["high"]

    flags = (f"--config.init.checkpoint={up}", "--config.data.shots=5")
    call("transfer", TARGET + ",steps=8", down, cache, *flags)
    about = json.loads((down / "config.json").read_text())
    assert about["config"]["init"]["digest"] == result["digest"]
    assert len(about["data"]["drawn"]) == 15
    assert list(about["data"]["positives"].values()) == [5, 5, 5]
    leaks = json.loads((down / "result.json").read_text())["leaks"]
    assert leaks["upstream"]["checked"] and leaks["upstream"]["patients"] == 0
    with np.load(down / "predictions.npz") as predictions:
        n = len(predictions["ids"])
        assert predictions["logits"].shape == (n, 3)
        assert len(set(predictions["ids"])) == n == about["data"]["counts"]["test"]
    assert (down / "params.npz").exists()  # for predict and export

    files = {f.name: f.stat().st_mtime_ns for f in down.iterdir()}
    (down / "checkpoints" / "8").mkdir(parents=True)  # of a kill before it was removed
    run = presets.load(TARGET + ",steps=8")
    run.init.checkpoint, run.data.shots, run.model.blocks = str(up), "5", (1,)
    run.data.cache, run.log.every, run.eval.resamples = str(cache), 1, 50
    transfer.main(run, presets.arg_keys(run.arg), str(down))  # done is not done again
    assert files == {f.name: f.stat().st_mtime_ns for f in down.iterdir()}


def start(arguments, **more):
    """A process whose words are to be had by `communicate`."""
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment(**more),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def send_at(step, folder, process, number):
    """The signal, once the run in this folder has written that step or a later one."""
    path = folder / "metrics.jsonl"
    while not path.exists() or len(path.read_text().splitlines()) < step:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    process.send_signal(number)


def test_stopped_killed_and_resumed_is_bit_identical(tmp_path, cache):
    """A signal at a random step, twice, then the same command to the end.

    SIGINT comes to two processes below.
    """
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config, often = UPSTREAM + ",steps=60", "--config.checkpoints=6"
    call("train", config, whole, cache)  # no checkpoint: it is over too soon
    rng = np.random.default_rng()
    signals = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75}
    for least, (number, status) in zip((15, 40), signals.items(), strict=True):
        process = start(command("train", config, killed, cache, often))
        send_at(least + int(rng.integers(8)), killed, process, number)
        said = process.communicate(timeout=300)[1]
        assert process.returncode == status, said[-3000:]
        asked = re.findall(r"asked to stop: saved step (\d+) of 60;.*", said)
        assert len(asked) == (number != signal.SIGKILL) and "Traceback" not in said
        if asked:
            assert least <= int(asked[0]) < 60
            assert (killed / "checkpoints" / asked[0] / "record").exists()
    said = call("train", config, killed, cache, often)
    assert f"resumed from step {asked[0]}" in said and "damaged" not in said
    for name in ("params.npz", "predictions.npz"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    np.testing.assert_array_equal(losses(whole), losses(killed))


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, cache):
    """The losses of a transfer on one device.

    At the HyperRule's rate, which is so small that rounding stays small:
    tests/test_devices.py shows what holds at any.
    """
    return train_here(tmp_path_factory.mktemp("one") / "run", cache, devices=1)


def train_here(folder, cache, devices, fsdp=1):
    """The losses of the transfer in this process, on so many of its devices."""
    run = presets.load(TARGET + ",steps=50")
    run.data.cache, run.log.every, run.eval.resamples = str(cache), 1, 0
    run.init.kind, run.optim.weight_decay = "random", 0.001
    run.mesh.fsdp, run.model.blocks = fsdp, (1,)
    several = jax.devices()[:devices]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: several)
        job.execute(bigxfer.config.resolve(run), folder)
    with np.load(folder / "predictions.npz") as predictions:
        ids = predictions["ids"]
    assert len(set(ids)) == len(ids)
    return losses(folder)


def test_shards_do_not_change_the_losses(tmp_path, cache, one_device, monkeypatch):
    """On two by two devices; leaves of a toy net are small, but some are to be split."""
    placed, place = [], sharding.place_state

    def placing(mesh, shapes):
        placed.append(place(mesh, shapes))
        return placed[-1]

    monkeypatch.setattr(sharding, "SMALL", 2**8)
    monkeypatch.setattr(sharding, "place_state", placing)
    same_as(one_device, train_here(tmp_path, cache, devices=4, fsdp=2))
    leaves = jax.tree.leaves(placed)
    assert {leaf.is_fully_replicated for leaf in leaves} == {True, False}


def same_as(one, other):
    """To rounding, which grows from step to step."""
    np.testing.assert_allclose(other[:10], one[:10], rtol=1e-5)
    np.testing.assert_allclose(other, one, rtol=1e-3)


@pytest.mark.parametrize(
    ("number", "rank", "statuses"),
    [
        (signal.SIGINT, 1, [75, 130]),
        pytest.param(signal.SIGTERM, 0, [75, 75], marks=pytest.mark.slow),
    ],
)
def test_two_processes_stop_at_one_step_and_go_on_to_the_same_bits(
    tmp_path, cache, one_device, number, rank, statuses
):
    """The signal comes to one of them only."""
    flags = ("--config.init.kind=random", "--config.optim.weight_decay=0.001")
    whole, stopped = (
        command("transfer", TARGET + ",steps=50", tmp_path / name, cache, *flags)
        for name in ("whole", "stopped")
    )
    assert ends(two_processes(whole)) == [0, 0]
    same_as(one_device, losses(tmp_path / "whole"))
    both = two_processes(stopped)
    send_at(5, tmp_path / "stopped", both[rank], number)
    assert ends(both) == statuses
    assert ends(two_processes(stopped)) == [0, 0]
    for name in ("predictions.npz", "metrics.jsonl"):
        found = [(tmp_path / f / name).read_bytes() for f in ("whole", "stopped")]
        assert found[0] == found[1], name


def two_processes(arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    names = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [start(arguments, **names, JAX_PROCESS_ID=str(rank)) for rank in range(2)]


def ends(processes):
    """Their exit statuses; the first says that it was asked to stop, where it was."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    statuses = [process.returncode for process in processes]
    assert all(status in (0, 75, 130) for status in statuses), "\n".join(said)[-5000:]
    assert said[0].count("asked to stop: saved step") == bool(statuses[0])
    return statuses
