"""Phases by hand: what a step costs, which step a state takes, when a rate begins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bigxfer.config import ConfigError, Freeze, Optim, Phase
from bigxfer.protocols import phases
from bigxfer.protocols.optim import Plan
from bigxfer.protocols.phases import Stage


def at(*starts):
    return [Stage(start, [], None, None) for start in starts]


def test_the_mean_cost_of_a_step():
    assert phases.mean_cost(at(0), [3.0], 10) == 3
    # 2 steps of 1, 3 of 4, 5 of 10
    cost = phases.mean_cost(at(0, 2, 5), [1.0, 4.0, 10.0], 10)
    assert cost == pytest.approx((2 + 12 + 50) / 10)


class State(NamedTuple):
    step: jax.Array


def test_a_state_takes_the_step_of_its_stage():
    steps = [lambda state, batch, n=n: jnp.int32(n) + batch for n in range(3)]
    step = phases.switch(at(0, 2, 5), steps)
    taken = [int(step(State(jnp.int32(done)), jnp.int32(0))) for done in range(7)]
    assert taken == [0, 0, 1, 1, 1, 2, 2]
    assert phases.switch(at(0), steps[:1]) is steps[0]


def test_a_later_optimizer_counts_on_from_its_start():
    rate = phases.counted_from(lambda step: 10.0 * step, 7)
    assert rate(0) == 70 and rate(2) == 90


class Net:
    head = "head/.*"

    def layers(self):
        return ["a", "b", "head"]


PARAMS = {name: {"kernel": np.zeros(2, np.float32)} for name in ("a", "b", "head")}


def staged(until, bottom, steps=4, last=0.0):
    phase, plan = Phase(until, bottom), Plan(steps, 0, (), 0.1, 0.0, "constant")
    return phases.stages(Optim(), Freeze(bottom=last), phase, plan, Net(), PARAMS)


def test_stages_begin_where_the_shares_of_the_run_end():
    (whole,) = staged((), (), last=0.5)
    assert (whole.start, whole.fixed) == (0, ["a"])
    found = staged((0.3, 0.7), (1.0, 0.5), steps=10)
    assert [(s.start, s.fixed) for s in found] == [(0, ["a", "b"]), (3, ["a"]), (7, [])]
    assert [s.start for s in staged((0.75,), (1.0,))] == [0, 3]
    for until in ((0.9,), (0.1,), (0.4, 0.45)):  # at the end, the start, or one step
        with pytest.raises(ConfigError, match="each needs a step of its own"):
            staged(until, (1.0,) * len(until))
    with pytest.raises(ConfigError, match=r"fixes \['b'\], which train before it"):
        staged((0.25, 0.5), (0.5, 1.0))


def test_each_stage_trains_what_it_releases_and_none_twice():
    groups = phases.release([["a", "b"], ["a", "b"], ["a"], []], PARAMS)
    trained = [
        group and [n for n, v in group.items() if v["kernel"] == "train"]
        for group in groups
    ]
    assert trained == [["head"], None, ["b"], ["a"]]
