"""One run from its resolved config to its result.json.

train.py and transfer.py differ in where the parameters start; the rest of their
story is told here once.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer import (
    checkpoint,
    config,
    evaluate,
    folders,
    loop,
    metrics,
    models,
    optim,
    sharding,
)
from bigxfer import tree as trees
from bigxfer.config import Run
from bigxfer.data import dataset
from bigxfer.data.dataset import Dataset
from bigxfer.log import Log
from bigxfer.protocols import init


def execute(run: Run, folder: Path) -> dict:
    """Trains, evaluates and writes the run folder; returns its result.

    A finished run is not done again, a half-done one resumes. Raises ValueError
    where the folder holds another config's run or other data.
    """
    digest = config.digest(run)
    if done := folders.finished(folder, digest):
        return done
    started = time.monotonic()
    mesh = sharding.make(run.mesh.fsdp)
    primary = jax.process_index() == 0
    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder, run.log, primary)

    data = sharding.in_turn(partial(dataset.open, run.data, run.seed, log.say))
    kinds = data.manifest
    train = len(data.rows["train"])
    plan = optim.plan(run.optim, train, run.data.resize**2)
    log.say(
        f"{kinds.name}: {train} training images of {len(kinds.classes)} classes,"
        f" {len(data.rows['valid'])} validation, {len(data.rows['test'])} test;"
        f" {plan}"
    )
    about = provenance(run, digest, plan, data)
    if primary:
        folders.write_config(folder, about)

    model = models.build(run.model, len(kinds.classes))
    state, placement, tx, rate = start(run, plan, model, mesh)
    log.parameters(state.params)
    loader = partial(
        data.loader, process=jax.process_index(), of=jax.process_count(), seed=run.seed
    )
    batches = loader("train", batch=run.optim.batch)
    predict = evaluate.make_predict(model, run, mesh)

    def validate(state: loop.State) -> dict[str, float]:
        part = loader("valid", batch=run.eval.batch)
        return evaluate.points(kinds, *predict(loop.variables(state), part))

    build = partial(
        loop.make_step,
        model,
        tx,
        rate,
        plan,
        run,
        len(kinds.classes),
        kinds.multilabel,
    )
    step, flops = compile_step(run, build, state, placement, mesh, batches, log)
    saved = checkpoint.Checkpoints(folder / "checkpoints", digest)
    state, clock = loop.fit(run, plan, state, step, batches, mesh, saved, log, validate)

    result = {
        **judge(run, data, loop.variables(state), predict, loader, folder, primary),
        "cost": {
            "steps": plan.steps,
            "images": plan.steps * run.optim.batch,
            "flops": flops * plan.steps,
            "device_seconds": clock.train * jax.device_count(),
            "waiting_for_data": clock.waiting / max(clock.train, 1e-9),
            "parameters": trees.count(state.params),
            "wall_seconds": time.monotonic() - started,
        },
        "synthetic": kinds.synthetic,
        "digest": digest,
        "commit": about["commit"],
    }
    params = sharding.to_host({"params": state.params, "batch_stats": state.stats})
    if primary:
        if run.keep == "all" or run.keep == run.kind:
            flat = {**params["params"], "batch_stats": params["batch_stats"]}
            trees.save_npz(folder / "params.npz", flat)
        folders.write_json(folder / "result.json", result)
    sharding.barrier()
    saved.delete()
    return result


def start(run: Run, plan: optim.Plan, model: models.Model, mesh: Any) -> tuple:
    """(state, its shardings, optimizer, learning rate of a step).

    The state is made on its shards: no device ever holds it whole.
    """
    shape = (1, run.data.crop, run.data.crop, 3)
    rate = optim.schedule(plan)
    key = jax.random.key(run.seed)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), shape))
    labels = trees.label(variables["params"], {".*": "train"})
    tx = optim.optimizer(run.optim, rate, labels, model.head)

    def state(seed: jax.Array, variables: dict) -> loop.State:
        params, stats = variables["params"], variables.get("batch_stats", {})
        return loop.State(jnp.int32(0), seed, params, stats, tx.init(params))

    def scratch(seed: jax.Array) -> loop.State:
        return state(seed, model.init(jax.random.key(seed), shape))

    seed = jnp.int32(run.seed)
    placement = sharding.place_state(mesh, jax.eval_shape(scratch, seed))
    if run.init.kind == "random":
        made = jax.jit(scratch, out_shardings=placement)(seed)
    else:
        variables = init.start(run.init, model, key, shape)
        made = jax.jit(state, out_shardings=placement)(seed, variables)
    return made, placement, tx, rate


def compile_step(
    run: Run,
    build: Any,
    state: loop.State,
    placement: loop.State,
    mesh: Any,
    batches: Any,
    log: Log,
) -> tuple[Any, float]:
    """(compiled step, FLOPs of one step), in micro-batches that fit the device."""
    began = time.monotonic()
    example = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding),
        sharding.to_global(mesh, batches.batch(0)),
    )
    out = (placement, sharding.replicated(mesh))

    def lower(micro: int) -> Any:
        step = build(micro_batch=micro)
        return jax.jit(step, donate_argnums=0, out_shardings=out).lower(state, example)

    whole = lower(run.optim.batch)
    flops = (whole.cost_analysis() or {}).get("flops", float("nan"))
    step, micro = sharding.fit_memory(
        lambda m: (whole if m == run.optim.batch else lower(m)).compile(),
        run.optim.batch,
        run.optim.micro_batch,
        mesh,
        run.mesh.memory_gb,
    )
    log.say(f"compiled in {time.monotonic() - began:.1f} s, micro-batch {micro}")
    return step, flops


def judge(
    run: Run,
    data: Dataset,
    variables: dict,
    predict: evaluate.Predict,
    loader: Any,
    folder: Path,
    primary: bool,
) -> dict:
    """Predicts validation and test, writes both, and computes what is reported."""
    kept: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, file in (("valid", "predictions_valid.npz"), ("test", "predictions.npz")):
        if len(data.rows[name]):
            kept[name] = predict(variables, loader(name, batch=run.eval.batch))
            if primary:
                evaluate.save(folder / file, data.manifest, *kept[name])
    rows, logits = kept["test"]
    part = data.manifest.select(rows)
    out = metrics.compute(
        part.labels, logits, part.classes, part.patient, run.eval.resamples
    )
    if "valid" in kept:
        valid = data.manifest.select(kept["valid"][0])
        out["operating_point"] = metrics.operating_point(
            valid.labels,
            kept["valid"][1],
            part.labels,
            logits,
            part.classes,
            part.patient,
            resamples=run.eval.resamples,
        )
    return out


def provenance(run: Run, digest: str, plan: optim.Plan, data: Dataset) -> dict:
    """What config.json holds."""
    return {
        "digest": digest,
        "config": config.to_dict(run),
        "commit": folders.commit(),
        "manifest_hash": data.manifest.hash(),
        "classes": data.manifest.classes,
        "synthetic": data.manifest.synthetic,
        "plan": vars(plan),
        "data": data.report,
        "versions": folders.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }


def start_processes() -> None:
    """Joins the processes of one run where the environment says that there are any."""
    if (found := sharding.arguments(os.environ)) is not None:
        sharding.start(**found)


def report(result: dict, folder: Path) -> None:
    """Prints what a run found, with its intervals, and where it lies."""
    if jax.process_index():
        return
    mark = "SYNTHETIC " if result["synthetic"] else ""
    print(f"\n{mark}test metrics with 95% intervals over patients")
    for name, m in result["metrics"].items():
        if m["value"] is None:
            print(f"  {name:28} -      {m['reason']}")
        else:
            print(f"  {name:28} {m['value']:.3f}  [{m['low']:.3f}, {m['high']:.3f}]")
    print(f"run folder: {folder}")
