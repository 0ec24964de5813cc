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
from jax.sharding import Mesh

from bigxfer import config, host, models
from bigxfer.config import Run
from bigxfer.data.dataset import Dataset
from bigxfer.protocols import freeze, init, optim, phases, probe
from bigxfer.training import loop, memory, on_device, predictor, sharding
from bigxfer.training.log import Log


@dataclass(frozen=True)
class Programs:
    """For runs of one shape, on one mesh."""

    model: models.Model
    mesh: Mesh
    scratch: Callable  # (seed) -> State, made on its shards
    begin: Callable  # (seed, variables) -> State
    step: Any  # compiled; None where only a head is fitted
    flops: float  # of a mean step; of an image where only a head is fitted
    predict: predictor.Predict
    features: predictor.Predict | None  # what the head that is fitted sees

    def start(self, run: Run) -> loop.State:
        """The state at step 0. No device ever holds it whole if it is sharded."""
        seed = jnp.int32(run.seed)
        if run.init.kind == "random":
            return self.scratch(seed)
        shape, key = (1, run.data.crop, run.data.crop, 3), jax.random.key(run.seed)
        return self.begin(seed, init.start(run.init, self.model, key, shape))


Shared = dict[str, Programs]


def get(
    run: Run, plan: optim.Plan, data: Dataset, log: Log, shared: Shared
) -> Programs:
    """The programs of this run, from `shared` if one of its shape was there before."""
    mesh = sharding.make(run.mesh.fsdp, run.optim.batch)
    classes, multilabel = len(data.manifest.classes), data.manifest.multilabel
    kept = config.values(run, "program")
    pool = len(data.rows["train"]) if run.data.resident else 0
    key = json.dumps([kept, vars(plan), classes, multilabel, str(mesh), pool])
    if key in shared:
        log.say("compiled for a run of the same shape")
    else:
        batch = example(run, data, mesh)
        shared[key] = build(run, plan, classes, multilabel, mesh, batch, log)
    return shared[key]


def example(run: Run, data: Dataset, mesh: Mesh) -> dict:
    """A batch, or of what need not be there its shape."""
    here, of = jax.process_index(), jax.process_count()
    loader = data.loader("train", run.optim.batch, run.seed, here, of)
    batch = sharding.to_global(mesh, loader.batch(0))
    if run.data.resident:
        shape, place = on_device.shape_of(len(loader), loader, mesh), batch["index"]
        spread = sharding.batch(mesh)
        pool = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=spread)
        rest = {k: v for k, v in batch.items() if k != "images"}
        return {**rest, "place": place, "pool": pool}
    return batch


def build(
    run: Run,
    plan: optim.Plan,
    classes: int,
    multilabel: bool,
    mesh: Mesh,
    batch: dict,
    log: Log,
) -> Programs:
    """Traces and compiles; ConfigError or ValueError for what cannot be."""
    model = models.build(run.model, classes)
    shape = (1, run.data.crop, run.data.crop, 3)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))
    init.check(run.init, model, variables)  # before what takes minutes
    shapes = variables["params"]
    stages = phases.stages(run.optim, run.freeze, run.phase, plan, model, shapes)
    for stage in stages if any(stage.fixed for stage in stages) else ():
        what = freeze.line(stage.fixed, model, shapes)
        log.say(f"from step {stage.start} on, {what}")

    def begin(seed: jax.Array, variables: dict) -> loop.State:
        params, stats = variables["params"], variables.get("batch_stats", {})
        return loop.State(jnp.int32(0), seed, params, stats, stages[0].tx.init(params))

    def scratch(seed: jax.Array) -> loop.State:
        return begin(seed, model.init(jax.random.key(seed), shape))

    state = jax.eval_shape(scratch, jnp.int32(0))
    placement = sharding.place_state(mesh, state)
    step, features = None, None
    if run.freeze.head == "trained":
        about = run, plan, classes, multilabel, mesh
        step, flops = compile_step(*about, placed(state, placement), batch, stages, log)
    else:
        net = probe.Features(model)
        features = predictor.make_predict(net, run, mesh)
        image = jax.ShapeDtypeStruct((*shape[:3], run.data.channels), jnp.float32)
        forward = jax.jit(lambda v, x: net.apply(v, x, False)[0])
        flops = (forward.lower(variables, image).cost_analysis() or {}).get("flops", 0)
    return Programs(
        model,
        mesh,
        jax.jit(scratch, out_shardings=placement),
        jax.jit(begin, out_shardings=placement),
        step,
        flops,
        predictor.make_predict(model, run, mesh),
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
    run: Run,
    plan: optim.Plan,
    classes: int,
    multilabel: bool,
    mesh: Mesh,
    state: loop.State,
    batch: dict,
    stages: list[phases.Stage],
    log: Log,
) -> tuple[Any, float]:
    """(compiled step, FLOPs of a mean step), in micro-batches that fit the device."""
    began = time.monotonic()
    batch = placed(batch, jax.tree.map(lambda a: a.sharding, batch))
    placement = jax.tree.map(lambda a: a.sharding, state)
    out = (placement, sharding.replicated(mesh))
    rate = optim.schedule(plan)

    def lower(micro: int, stages: list[phases.Stage] = stages) -> Any:
        about = rate, plan, run, classes, multilabel, micro
        steps = [loop.make_step(s.model, s.tx, *about) for s in stages]
        step = phases.switch(stages, steps)
        step = on_device.taking(step, mesh) if run.data.resident else step
        return jax.jit(step, donate_argnums=0, out_shardings=out).lower(state, batch)

    whole = lower(run.optim.batch)
    alone = (
        [whole] if len(stages) == 1 else [lower(run.optim.batch, [s]) for s in stages]
    )
    costs = [(low.cost_analysis() or {}).get("flops", 0.0) for low in alone]
    flops = phases.mean_cost(stages, costs, plan.steps)
    asked = run.optim.micro_batch
    if not asked and not state.stats:
        asked = memory.cache_sized(run.optim.batch, run.data.crop, mesh)
    step, micro = memory.fit_memory(
        lambda m: (whole if m == run.optim.batch else lower(m)).compile(),
        run.optim.batch,
        asked,
        mesh,
        run.mesh.memory_gb,
    )
    host.give_back()
    seconds = time.monotonic() - began
    log.say(f"compiled in {seconds:.1f} s; {flops:.3g} FLOP a step in {micro}s")
    return step, flops
