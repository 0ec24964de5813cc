"""One run from its resolved config to its result.json.

train.py and transfer.py differ in where the parameters start; the rest of their
story is told here once.
"""

import json
import os
import subprocess
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer import checkpoint, config, evaluate, loop, metrics, models, optim, sharding
from bigxfer import tree as trees
from bigxfer.config import Run
from bigxfer.data import dataset
from bigxfer.data.dataset import Dataset
from bigxfer.log import Log
from bigxfer.protocols import init

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def execute(run: Run, folder: Path) -> dict:
    """Trains, evaluates and writes the run folder; returns its result.

    A finished run is not done again, a half-done one resumes. Raises ValueError
    where the folder holds another config's run or other data.
    """
    digest = config.digest(run)
    if done := finished(folder, digest):
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
        write_config(folder, about)

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
        write_json(folder / "result.json", result)
    sharding.barrier()
    saved.delete()
    return result


def finished(folder: Path, digest: str) -> dict | None:
    """The result of the run in this folder, None if there is none yet."""
    for name in ("result.json", "config.json"):
        if (folder / name).exists():
            found = json.loads((folder / name).read_text())
            if found["digest"] != digest:
                raise ValueError(
                    f"{folder} holds another config's run ({found['digest']}, not"
                    f" {digest}); take another --workdir, or move that run away"
                )
            if name == "result.json":
                return found
    return None


def start(run: Run, plan: optim.Plan, model: models.Model, mesh: Any) -> tuple:
    """(state, its shardings, optimizer, learning rate of a step).

    The state is made on its shards: no device ever holds it whole.
    """
    shape = (1, run.data.crop, run.data.crop, 3)
    key = jax.random.key(run.seed)
    rate = optim.schedule(plan)
    abstract = jax.eval_shape(lambda: model.init(key, shape))["params"]
    labels = trees.label(abstract, {".*": "train"})
    tx = optim.optimizer(run.optim, rate, labels, model.head)

    def new(variables: dict) -> loop.State:
        params, stats = variables["params"], variables.get("batch_stats", {})
        return loop.State(jnp.int32(0), params, stats, tx.init(params))

    if run.init.kind == "random":

        def make() -> loop.State:
            return new(model.init(key, shape))

        placement = sharding.place_state(mesh, jax.eval_shape(make))
        return jax.jit(make, out_shardings=placement)(), placement, tx, rate
    variables = init.start(run.init, model, key, shape)
    placement = sharding.place_state(mesh, jax.eval_shape(new, variables))
    return jax.jit(new, out_shardings=placement)(variables), placement, tx, rate


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
    """What config.json holds besides the config."""
    return {
        "digest": digest,
        "config": config.to_dict(run),
        "commit": commit(),
        "manifest_hash": data.manifest.hash(),
        "classes": data.manifest.classes,
        "synthetic": data.manifest.synthetic,
        "plan": vars(plan),
        "data": data.report,
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }


def commit() -> str:
    """The commit of this source tree, "-dirty" where it was changed since."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        call = ["git", "-C", str(here), *args]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = "-dirty" if git("status", "--porcelain", "--", ".") else ""
    return git("rev-parse", "HEAD") + changed or "unknown"


def write_config(folder: Path, about: dict) -> None:
    """Writes config.json, or checks that the one there was made of this data."""
    path = folder / "config.json"
    if path.exists():
        before = json.loads(path.read_text())["manifest_hash"]
        if before != about["manifest_hash"]:
            raise ValueError(
                f"{folder} was begun with other data (manifest {before[:12]}, now"
                f" {about['manifest_hash'][:12]}); resume with the same data, or take"
                " another --workdir"
            )
    write_json(path, about)


def write_json(path: Path, value: dict) -> None:
    """Atomically; NaN is an error, since JSON has none."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    part.replace(path)
