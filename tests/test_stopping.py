"""SIGTERM and SIGINT to a run of one process; tests/test_runs.py has the mains."""

import logging
import os
import signal
import threading

import pytest

from bigxfer import config, presets
from bigxfer.runs import evaluate, folders, job
from bigxfer.training import loop, stopping

pytestmark = pytest.mark.usefixtures("single_device")

STEPS = 12
BOTH = pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """(a run, what was compiled for it, the folder of an undisturbed one)."""
    folder = tmp_path_factory.mktemp("toy")
    shape = f"model=R1-1x0.125,res=32,batch=8,steps={STEPS},phantom=32"
    run = presets.load(f"configs/covidx_small.py:{shape}")
    run.init.kind, run.keep, run.data.cache = "random", "all", str(folder / "cache")
    run.model.blocks = (1,)
    run.eval.resamples, run.log.every = 0, 1
    run, shared = config.resolve(run), {}
    job.execute(run, folder / "whole", shared=shared)
    return run, shared, folder / "whole"


@pytest.fixture
def send_at(monkeypatch):
    """send_at(step, number): this process gets the signal once that step is done."""
    sent, add = {}, loop.Watch.add

    def adding(watch, step, measured):
        add(watch, step, measured)
        if number := sent.pop(step, None):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.Watch, "add", adding)
    return sent.__setitem__


def execute(toy, folder):
    """As the mains do it."""
    run, shared, _ = toy
    with stopping.listen() as stop:
        return job.execute(run, folder, stop, shared)


@BOTH
def test_the_step_is_saved_and_the_run_goes_on_to_the_same_bits(
    toy, tmp_path, send_at, caplog, number, status
):
    caplog.set_level(logging.INFO, "bigxfer")
    for step in (5, STEPS):  # the last one too: evaluation is still to come
        send_at(step, number)
        caplog.clear()
        with pytest.raises(stopping.Preempted) as stopped:
            execute(toy, tmp_path)
        assert stopped.value.code == status
        said = [m for m in caplog.messages if "asked to stop" in m]
        assert len(said) == 1 and f"saved step {step} of {STEPS}" in said[0]
        assert not (tmp_path / "result.json").exists()
    caplog.clear()
    execute(toy, tmp_path)
    assert f"resumed from step {STEPS}" in caplog.messages
    for name in ("params.npz", "predictions.npz", "metrics.jsonl"):
        whole = (toy[2] / name).read_bytes()
        assert (tmp_path / name).read_bytes() == whole, name


@BOTH
def test_outside_of_training_it_leaves_at_once(
    toy, tmp_path, monkeypatch, caplog, number, status
):
    """While it evaluates, say: nothing is lost that was not to be done again."""
    caplog.set_level(logging.INFO, "bigxfer")
    judge = evaluate.judge

    def judging(*args):
        os.kill(os.getpid(), number)
        return judge(*args)

    monkeypatch.setattr(evaluate, "judge", judging)
    with pytest.raises(stopping.Preempted) as stopped:
        execute(toy, tmp_path)
    assert stopped.value.code == status and not (tmp_path / "result.json").exists()
    assert sum("asked to stop outside of training" in m for m in caplog.messages) == 1
    monkeypatch.setattr(evaluate, "judge", judge)
    execute(toy, tmp_path)
    assert (tmp_path / "params.npz").read_bytes() == (
        toy[2] / "params.npz"
    ).read_bytes()


def test_handlers_are_put_back_and_a_second_signal_is_as_usual():
    before = {n: signal.getsignal(n) for n in stopping.STATUS}
    stopped = pytest.raises(stopping.Preempted)
    with stopped, stopping.listen() as stop, stop.training():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop(1) and stop.status == 75
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == stop.ask
    assert {n: signal.getsignal(n) for n in stopping.STATUS} == before


def test_outside_of_the_main_thread_there_are_no_handlers():
    found = []

    def run():
        with stopping.listen() as stop:
            found.append(stop(1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_second_command_waits_for_the_first_and_names_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, "bigxfer")
    order = []

    def second():
        with folders.alone(tmp_path, True):
            order.append("second")

    with folders.alone(tmp_path, True):
        thread = threading.Thread(target=second)
        thread.start()
        while not caplog.messages:
            thread.join(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and list(tmp_path.iterdir()) == []
    assert f"process {os.getpid()} on" in caplog.messages[0]
