"""Phases of one run: first the head alone, then all (3 + 50), or layer by layer.

A phase fixes the lowest share of the layers; the last phase is the one that
config.freeze describes. Layers are only ever released. One step function serves the
whole run and picks the phase by the number of the step, so that the loop, its
checkpoints and a resume know nothing of phases, and each costs what its own step does.

The optimizer starts anew in each phase (momentum, Adam's averages and their count), as
after a second `compile` in Keras; the schedule is that of the whole run.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bigxfer import tree
from bigxfer.config import ConfigError, Freeze, Optim, Phase
from bigxfer.models import Model
from bigxfer.protocols import freeze, optimizer
from bigxfer.protocols.optim import Plan
from bigxfer.tree import Tree


@dataclass(frozen=True)
class Stage:
    """What trains from step `start` on, and how."""

    start: int
    fixed: list[str]  # layers
    model: Model  # in which they are fixed
    tx: optax.GradientTransformation  # of one form of state in all stages


def stages(
    cfg: Optim,
    frozen: Freeze,
    phase: Phase,
    plan: Plan,
    model: Model,
    params: Tree,
) -> list[Stage]:
    """The stages of a run, at least one; params: arrays or shape structs.

    Raises ConfigError where a phase would fix again what one before it trained, or is
    shorter than a step.
    """
    rate = optimizer.schedule(plan)
    count_by = frozen.count_by
    sections = [Freeze(bottom=share, count_by=count_by) for share in phase.bottom]
    fixed = [freeze.fixed(f, model, params) for f in (*sections, frozen)]
    starts = [0, *(round(end * plan.steps) for end in phase.until)]
    # Two ends may round to one step in a short run.
    if starts != sorted(set(starts)) or starts[-1] >= plan.steps:
        raise ConfigError(
            f"config.phase.until={phase.until} of {plan.steps} steps: the phases would"
            f" start at {starts}; each needs a step of its own"
        )
    for before, after in itertools.pairwise(fixed):
        if again := set(after) - set(before):
            raise ConfigError(
                f"config.phase.bottom={phase.bottom}: a phase fixes {sorted(again)[:3]},"
                " which train before it; phases only release layers"
            )
    held = [freeze.hold(model, layers, frozen.batch_norm) for layers in fixed]
    if len(fixed) == 1:
        labels = freeze.labels(fixed[0], params)
        tx = optimizer.build(cfg, rate, labels, model.head)
        return [Stage(0, fixed[0], held[0], tx)]
    groups = release(fixed, params)
    planned = []
    for number, start in enumerate(starts):
        # An optimizer that is made anew counts its steps from 0.
        shifted = counted_from(rate, start)
        optimizers = [
            optimizer.build(cfg, shifted, labels, model.head) if labels else None
            for labels in groups
        ]
        tx = in_stage(optimizers, number, start)
        planned.append(Stage(start, fixed[number], held[number], tx))
    return planned


def counted_from(rate: Callable, start: int) -> Callable:
    """The run's schedule for an optimizer that counts from `start`."""
    return lambda count: rate(count + start)


def release(fixed: list[list[str]], params: Tree) -> list[Tree | None]:
    """For each stage the labels of the leaves that train from it on; None: none do."""
    groups: list[Tree | None] = []
    trained: set[str] = set()
    for layers in fixed:
        flat = tree.flatten(freeze.labels(layers, params))
        new = {n for n, label in flat.items() if label == "train"} - trained
        trained |= new
        group = {n: "train" if n in new else "freeze" for n in flat}
        groups.append(tree.unflatten(group) if new else None)
    return groups


def in_stage(
    optimizers: list[Any], stage: int, start: int
) -> optax.GradientTransformation:
    """The optimizers of the first groups, up to that of `stage`; the others wait.

    At step `start` their state is made anew.
    """

    def init(params: Any) -> Any:
        # Of all groups, whatever the stage: the branches of lax.switch and every
        # checkpoint have one form of state.
        states = [tx.init(params) if tx else () for tx in optimizers]
        return {"step": jnp.int32(0), "groups": states}

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        new, states = state["step"] == start, list(state["groups"])
        total = jax.tree.map(jnp.zeros_like, updates)
        for number, tx in enumerate(optimizers[: stage + 1]):
            if tx:
                # By the number of the step, not once outside: a resume finds it too.
                fresh = tx.init(params)
                old = jax.tree.map(
                    lambda a, b: jnp.where(new, a, b), fresh, states[number]
                )
                more, states[number] = tx.update(updates, old, params)
                total = jax.tree.map(jnp.add, total, more)
        return total, {"step": state["step"] + 1, "groups": states}

    return optax.GradientTransformation(init, update)


def switch(stages: list[Stage], steps: list[Callable]) -> Callable:
    """Return step(state, batch), which does the step of the stage of state.step."""
    if len(steps) == 1:
        return steps[0]
    starts = jnp.asarray([stage.start for stage in stages[1:]])

    def step(state: Any, batch: dict) -> Any:
        # right: the step that a stage starts at is its own
        number = jnp.searchsorted(starts, state.step, side="right")
        return jax.lax.switch(number, steps, state, batch)

    return step


def mean_cost(stages: list[Stage], costs: list[float], steps: int) -> float:
    """The mean over the run's steps of what a step of each stage costs."""
    ends = [*(stage.start for stage in stages[1:]), steps]
    lengths = [end - stage.start for stage, end in zip(stages, ends)]
    return sum(c * n for c, n in zip(costs, lengths)) / steps
