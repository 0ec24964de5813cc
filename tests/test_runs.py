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

import numpy as np
import pytest
from conftest import COMPILE_FAST

ROOT = Path(__file__).parents[1]
SHAPE = "model=R1-1-1-1x0.25,res=32,batch=16,phantom=64"
UPSTREAM = f"configs/upstream_chexpert.py:{SHAPE}"
TARGET = f"configs/covidx_hyperrule.py:{SHAPE}"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def command(main, config, folder, cache, *flags):
    return [
        *(sys.executable, "-m", f"bigxfer.{main}", "--config", config),
        *(f"--workdir={folder}", f"--config.data.cache={cache}"),
        *("--config.log.every=1", "--config.eval.resamples=50", *flags),
    ]


def environment(devices=1, **more):
    flags = f"--xla_force_host_platform_device_count={devices} {COMPILE_FAST}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **more}


def call(*args, devices=1, **more):
    done = subprocess.run(
        command(*args),
        cwd=ROOT,
        env=environment(devices, **more),
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
    call("transfer", TARGET + ",steps=8", down, cache, *flags)  # done is not done again
    assert files == {f.name: f.stat().st_mtime_ns for f in down.iterdir()}


def test_killed_and_resumed_is_bit_identical(tmp_path, cache):
    """kill -9 at a random step, twice, then the same command to the end."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config, often = UPSTREAM + ",steps=40", "--config.checkpoints=4"
    call("train", config, whole, cache)  # no checkpoint: it is over too soon
    rng = np.random.default_rng()
    for _ in range(2):
        at = int(rng.integers(12, 36))
        process = subprocess.Popen(
            command("train", config, killed, cache, often),
            cwd=ROOT,
            env=environment(),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        while process.poll() is None:
            done = (killed / "metrics.jsonl").exists() and len(losses_so_far(killed))
            if done >= at:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.01)
    said = call("train", config, killed, cache, often)
    assert re.search(r"resumed from step \d+", said)
    assert "damaged" not in said
    names = ("params.npz", "predictions.npz")
    for name in names:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    np.testing.assert_array_equal(losses(whole), losses(killed))


def losses_so_far(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def test_shards_and_processes_do_not_change_the_losses(tmp_path, cache):
    """1 device; 8 with the parameters on 4 shards; 2 processes; at the HyperRule's rate.

    So small a rate keeps rounding small: tests/test_devices.py shows what holds at any.
    """
    config = TARGET + ",steps=50"
    flags = ["--config.init.kind=random", "--config.optim.weight_decay=0.001"]
    one = tmp_path / "one"
    call("transfer", config, one, cache, *flags)
    sharded, two = tmp_path / "sharded", tmp_path / "two"
    call("transfer", config, sharded, cache, *flags, "--config.mesh.fsdp=4", devices=8)
    two_processes(command("transfer", config, two, cache, *flags))
    reference = losses(one)
    for folder in (sharded, two):
        found, name = losses(folder), folder.name
        np.testing.assert_allclose(found[:10], reference[:10], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(found, reference, rtol=1e-3, err_msg=name)
        with np.load(folder / "predictions.npz") as predictions:
            ids = predictions["ids"]
        assert len(set(ids)) == len(ids)


def two_processes(arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=environment(
                JAX_COORDINATOR_ADDRESS=address,
                JAX_NUM_PROCESSES="2",
                JAX_PROCESS_ID=str(i),
            ),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
