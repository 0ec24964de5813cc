"""Phases by hand: what a step costs, which step a state takes, when a rate begins."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from bigxfer.protocols import phases
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
