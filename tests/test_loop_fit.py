"""What `fit` does at which step, with a step, a clock and checkpoints by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bigxfer import config
from bigxfer.protocols.optim import Plan
from bigxfer.training import loop
from bigxfer.training.stopping import Preempted


def state(step=0):
    return loop.State(np.int32(step), np.int32(0), {}, {}, ())


class Checkpoints:
    """Notes what is asked of it; `found` is what restore_latest gives."""

    def __init__(self, found=None, steps=()):
        self.found, self.there, self.waits = found, list(steps), 0
        self.saved, self.marked = {}, []

    def restore_latest(self, like, warn):
        return self.found

    def restore(self, step, like):
        return state(step), {}

    def save(self, step, tree, extra):
        assert int(tree.step) == step
        self.saved[step] = extra

    def mark_best(self, step):
        self.marked.append(step)

    def wait(self):
        self.waits += 1

    def steps(self):
        return self.there

    def latest(self):
        return max(self.there, default=None)


class Log:
    def __init__(self, every):
        self.every, self.rewound = every, None
        self.lines, self.said = [], []

    def scalars(self, step, values):
        self.lines.append((step, *values))

    def say(self, text):
        self.said.append(text)

    warn = say

    def rewind(self, *args):
        self.rewound = args

    def sum(self):
        return "sum"


@pytest.fixture
def fit(monkeypatch):
    """fit(steps, ...) -> what it did; a step takes `seconds`, a validation 1000 s."""
    now, processes = [0.0], [1]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(jax, "process_count", lambda: processes[0])

    def run(
        steps, *, seconds=0.0, log_every=100, scores=None, losses=None, stop_at=0,
        found=None, there=(), several=1, checkpoints=0, every=0, select="",
    ):  # fmt: skip
        cfg = config.Run(log=config.Log(every=log_every), checkpoints=checkpoints)
        cfg.eval = replace(cfg.eval, every=every, select=select)
        done = SimpleNamespace(batches=[], validated=[], updates=[], progress=None)
        now[0], processes[0] = 0.0, several

        def step(old, batch):
            now[0] += seconds
            done.batches.append(batch["step"])
            number = int(old.step) + 1
            loss, length = (losses or {}).get(number, (0.5 * number, 1.0))
            measured = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(length)}
            return state(number), measured

        def validate(current):
            now[0] += 1000
            done.validated.append(int(current.step))
            return scores[int(current.step)]

        def progress(log, *args):
            done.progress = args
            return SimpleNamespace(update=lambda *a: done.updates.append(a))

        monkeypatch.setattr(loop, "Progress", progress)
        done.checkpoints, done.log = Checkpoints(found, there), Log(log_every)
        feed = SimpleNamespace(
            batch=lambda number: {"step": number}, place=lambda batch: batch
        )
        stop = type("Stop", (), {"status": 75, "__call__": lambda _, n: n == stop_at})()
        plan = Plan(steps, 0, (), 0.1, 0.0, "constant")
        session = loop.Session(cfg, plan, done.checkpoints, done.log)
        try:
            done.state, done.clock = loop.fit(
                session, state(), step, feed, validate, stop
            )
        except (Preempted, FloatingPointError) as error:
            done.error = error
        return done

    return run


def saves(done):
    return [*done.checkpoints.saved]


def test_a_run_saves_four_times_but_no_two_within_20_seconds(fit):
    assert saves(fit(8)) == []  # it takes no time
    assert saves(fit(8, seconds=10)) == [4, 8]  # 20 s after is not yet more than 20
    assert saves(fit(8, seconds=21)) == [2, 4, 6, 8]
    assert saves(fit(3, seconds=21)) == [1, 2, 3]
    assert saves(fit(9, seconds=30)) == [2, 4, 6, 8, 9]
    assert saves(fit(8, several=2)) == [2, 4, 6, 8]  # whose clocks may differ


def test_checkpoints_that_are_asked_for_are_made(fit, monkeypatch):
    assert saves(fit(10, checkpoints=3)) == [3, 6, 9, 10]
    assert saves(fit(3, checkpoints=5)) == [1, 2, 3]
    monkeypatch.setattr(loop, "MOST_STEPS_BETWEEN_CHECKPOINTS", 4)
    assert saves(fit(10, checkpoints=2)) == [4, 8, 10]


def test_metrics_are_logged_at_their_steps_and_progress_told(fit):
    done = fit(7, log_every=3)
    assert done.batches == list(range(7)) and int(done.state.step) == 7
    assert [line[0] for line in done.log.lines] == [3, 6]
    assert done.updates == [(3, 1.5), (6, 3.0), (7, 3.5)]
    assert done.progress == (0, 7, config.Run().optim.batch)
    assert done.log.rewound == (0,) and done.checkpoints.waits == 1


def test_validation_without_and_with_a_choice(fit):
    scores = {
        n: {"accuracy": a, "loss": 1.0} for n, a in ((3, 0.5), (6, 0.8), (7, 0.8))
    }
    plain = fit(7, scores=scores, checkpoints=1, every=3)
    assert plain.validated == [3, 6] and saves(plain) == [7]
    assert plain.log.lines == [(n, "valid/accuracy", "valid/loss") for n in (3, 6)]
    chosen = fit(7, scores=scores, checkpoints=1, select="accuracy", every=3)
    assert chosen.validated == [3, 6, 7] and saves(chosen) == [3, 6, 7]
    assert chosen.checkpoints.marked == [3, 6]  # a tie keeps the earlier one
    assert int(chosen.state.step) == 6
    assert "best accuracy at step 6" in chosen.log.said
    best = [extra["best"] for extra in chosen.checkpoints.saved.values()]
    assert [b["step"] for b in best] == [3, 6, 6] and best[2]["accuracy"] == 0.8
    last = fit(3, scores=scores, select="accuracy", every=0)
    assert last.validated == [3] and last.checkpoints.marked == [3]


def test_the_clock_counts_steps_and_not_validation(fit):
    scores = {n: {"loss": 1.0} for n in range(9)}
    done = fit(8, seconds=10, scores=scores, checkpoints=4, every=3)
    train = [extra["clock"]["train"] for extra in done.checkpoints.saved.values()]
    assert saves(done) == [2, 4, 6, 8] and train == [20, 40, 60, 80]
    assert done.clock.train == 80 and done.clock.waiting >= 0
    (line,) = [text for text in done.log.said if "trained for" in text]
    assert line.startswith("trained for 80.0 s, ")


def test_what_is_said_of_waiting():
    log = Log(1)
    session = loop.Session(config.Run(), None, Checkpoints(), log)
    loop.chosen(session, state(), loop.Clock(80.0, 8.0), {})
    loop.chosen(session, state(), loop.Clock(), {})
    assert log.said == [
        "trained for 80.0 s, 10.00% of it waiting for data",
        "trained for 0.0 s, 0.00% of it waiting for data",
    ]


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_that_goes_on(fit, kept):
    extra = {"best": {"step": 2, "loss": 0.5}, "log": "sum at 4"}
    extra["clock"] = {"train": 100.0, "waiting": 7.0}
    there = [2, 4] if kept else [4]
    done = fit(6, seconds=1, found=(4, state(4), extra), there=there, checkpoints=1)
    assert done.batches == [4, 5] and done.progress[0] == 4
    assert done.log.rewound == (4, "sum at 4")
    assert done.log.said[0] == "resumed from step 4"
    assert done.checkpoints.marked == [2] * kept
    assert done.clock.train == 102 and 7 <= done.clock.waiting < 60
    assert int(done.state.step) == 2  # the best one's
    saved = done.checkpoints.saved[6]
    assert saved["log"] == "sum" and saved["best"] == extra["best"]


@pytest.mark.parametrize(("loss", "length"), [(math.nan, 1.0), (1.0, math.inf)])
@pytest.mark.parametrize("there", [[], [4]])
def test_what_is_not_finite_ends_the_run(fit, loss, length, there):
    done = fit(8, losses={5: (loss, length)}, there=there)
    assert isinstance(done.error, FloatingPointError) and not saves(done)
    assert f"the loss is {loss} and the gradient's norm {length} at step 5" in str(
        done.error
    )
    kept = "step 4" if there else "none"
    assert f"last good checkpoint is {kept};" in str(done.error)
    logged = [line[0] for line in done.log.lines]
    assert logged == ([5] if math.isnan(loss) else []) and not done.updates


def test_a_run_that_is_stopped_saves_its_step(fit):
    done = fit(8, stop_at=3)
    assert isinstance(done.error, Preempted) and done.error.step == 3
    assert done.error.code == 75 and saves(done) == [3] and done.checkpoints.waits == 1
    assert done.log.said == [
        "asked to stop: saved step 3 of 8; the same command goes on from it"
    ]
