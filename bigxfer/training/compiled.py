"""What is compiled for a run: how its state begins, the step, the predictions.

Runs of one shape share one set of programs: seeds are arguments of the compiled
functions, and shots, fractions and where the parameters come from change no program.
Tracing and lowering are half of the time of a few-shot run on the CPU, so a worker that
does many keeps the programs it has made.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from bigxfer import host, models
from bigxfer.config import Run
from bigxfer.models import Model
from bigxfer.protocols import freeze, init, phases, probe
from bigxfer.training import loop, memory, predictor, sharding
from bigxfer.training.feed import Feed
from bigxfer.training.log import RunLog
from bigxfer.training.task import Task


@dataclass(frozen=True)
class Programs:
    """For runs of one shape, on one mesh."""

    model: Model
    scratch: Callable  # (seed) -> State, made on its shards
    begin: Callable  # (seed, variables) -> State
    step: Any  # compiled; None where only a head is fitted
    flops: float  # of a mean step; of an image where only a head is fitted
    predict: predictor.Predict
    features: predictor.Predict | None  # what the head that is fitted sees

    def first_state(self, run: Run) -> loop.State:
        """The state at step 0. No device ever holds it whole if it is sharded."""
        seed = jnp.int32(run.seed)
        # Drawn on its shards: no host or device holds a large net whole.
        if run.init.kind == "random":
            return self.scratch(seed)
        shape, key = (1, run.data.crop, run.data.crop, 3), jax.random.key(run.seed)
        return self.begin(seed, init.start(run.init, self.model, key, shape))


Shared = dict[str, Programs]


def get(run: Run, task: Task, feed: Feed, log: RunLog, shared: Shared) -> Programs:
    """The programs of this run, from `shared` if one of its shape was there before.

    Raises what an impossible start would raise, before the minutes of compiling.
    """
    shapes = {name: [*s.shape, str(s.dtype)] for name, s in feed.shapes.items()}
    # With the batch's shapes, which the resident pool's size enters.
    key = task.key + json.dumps(shapes)
    if key in shared:
        log.say("compiled for a run of the same shape")
        return shared[key]
    model = models.build(task.run.model, task.classes)
    # The programs do not read run.init: runs with other starts share them.
    init.check(run.init, model, task.variables(model))
    shared[key] = build(task, model, feed, log)
    return shared[key]


def build(task: Task, model: Model, feed: Feed, log: RunLog) -> Programs:
    """Traces and compiles; ConfigError or ValueError for what cannot be."""
    run, variables = task.run, task.variables(model)
    shapes = variables["params"]
    stages = phases.stages(run.optim, run.freeze, run.phase, task.plan, model, shapes)
    for stage in stages if any(stage.fixed for stage in stages) else ():
        what = freeze.line(stage.fixed, model, shapes)
        log.say(f"from step {stage.start} on, {what}")

    def begin(seed: jax.Array, variables: dict) -> loop.State:
        params, stats = variables["params"], variables.get("batch_stats", {})
        return loop.State(jnp.int32(0), seed, params, stats, stages[0].tx.init(params))

    def scratch(seed: jax.Array) -> loop.State:
        return begin(seed, model.init(jax.random.key(seed), task.image_shape))

    state = jax.eval_shape(scratch, jnp.int32(0))
    placement = sharding.place_state(task.mesh, state)
    step, features = None, None
    if run.freeze.head == "trained":
        step, flops = compile_step(task, stages, feed, placed(state, placement), log)
    else:
        # Without the head, whose input is what a head is fitted to.
        net = probe.Headless(model)
        features = predictor.make_predict(net, run, task.mesh)
        image = jax.ShapeDtypeStruct(
            (*task.image_shape[:3], run.data.channels), jnp.float32
        )
        forward = jax.jit(lambda v, x: net.apply(v, x, False)[0])
        flops = (forward.lower(variables, image).cost_analysis() or {}).get("flops", 0)
    return Programs(
        model,
        jax.jit(scratch, out_shardings=placement),
        jax.jit(begin, out_shardings=placement),
        step,
        flops,
        predictor.make_predict(model, run, task.mesh),
        features,
    )


def placed(shapes: Any, placement: Any) -> Any:
    """Shape structs with their shardings."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        shapes,
        placement,
    )


def compile_step(
    task: Task, stages: list[phases.Stage], feed: Feed, state: loop.State, log: RunLog
) -> tuple[Any, float]:
    """(compiled step, FLOPs of a mean step), in micro-batches that fit the device.

    state: shape structs with their shardings.
    """
    began, o = time.monotonic(), task.run.optim
    log.say(
        "compiling, which takes seconds for a small net and minutes for a large one"
    )
    placement = jax.tree.map(lambda a: a.sharding, state)
    out = (placement, sharding.replicated(task.mesh))

    def lower(micro: int, stages: list[phases.Stage] = stages) -> Any:
        steps = [loop.make_step(task, stage, micro) for stage in stages]
        step = feed.wrap(phases.switch(stages, steps))
        program = jax.jit(step, donate_argnums=0, out_shardings=out)
        # Lowered from shapes: no batch is read to compile.
        return program.lower(state, feed.shapes)

    whole = lower(o.batch)
    # In one program the stages are branches, whose costs XLA does not tell apart.
    alone = [whole] if len(stages) == 1 else [lower(o.batch, [s]) for s in stages]
    costs = [(low.cost_analysis() or {}).get("flops", 0.0) for low in alone]
    flops = phases.mean_cost(stages, costs, task.plan.steps)
    asked = o.micro_batch
    # Batch norm takes its moments over a micro-batch: another size is another training.
    if not asked and not state.stats:
        asked = memory.cache_sized(o.batch, task.run.data.crop, task.mesh)
    step, micro = memory.fit_memory(
        # Lowering takes long: what was lowered for its cost serves again.
        lambda m: (whole if m == o.batch else lower(m)).compile(),
        o.batch,
        asked,
        task.mesh,
        task.run.mesh.memory_gb,
    )
    # What the compiler freed stays in the heap: 90 MB of 622 for R26x0.25 (NOTES.md).
    host.give_back()
    seconds = time.monotonic() - began
    parts = "" if micro == o.batch else f", {micro} images at a time"
    log.say(f"compiled in {seconds:.1f} s; {flops:.3g} FLOP a step{parts}")
    return step, flops
