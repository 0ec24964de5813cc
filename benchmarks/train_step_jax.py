"""Our side of train_step.py: one process, one case; it answers as turns.serve does.

python benchmarks/train_step_jax.py '{"model": "R26x0.25", "res": 64, "batch": 64,
    "dtype": "float32", "seconds": 2, "cache": FOLDER, "way": "bigxfer"}'
"""

import json
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import turns

from bigxfer import cli, config, models, presets, tree
from bigxfer.data import augment
from bigxfer.data.loader import Loader
from bigxfer.models import parts, parts_cpu
from bigxfer.protocols import optim
from bigxfer.training import compiled, feed, sharding
from bigxfer.training.log import RunLog
from bigxfer.training.task import Task

CLASSES = 1000


def settings(case: dict) -> config.Run:
    """BiT's fine-tuning at a constant rate."""
    run = config.Run(kind="transfer")
    run.model = presets.bit(case["model"], dtype=case["dtype"])
    presets.set_res(run.data, case["res"])
    rate = {"schedule": "constant", "lr": 1e-3, "steps": 1000}
    fits = -1 if jax.default_backend() == "gpu" else 0
    run.optim = config.Optim(batch=case["batch"], micro_batch=fits, **rate)
    return config.resolve(run)


def example(batch: int, side: int) -> dict[str, np.ndarray]:
    """What the loader would give: uint8 noise."""
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (batch, side, side, 3), np.uint8),
        "labels": rng.integers(0, CLASSES, batch).astype(np.int32),
        "mask": np.ones(batch, np.float32),
        "index": np.arange(batch, dtype=np.int32),
        "position": np.arange(batch, dtype=np.int32),
    }


def forward(run: config.Run, mesh: jax.sharding.Mesh) -> tuple[turns.Steps, dict]:
    """The compiled prediction, and what is known of the net."""
    model, crop, batch = (
        models.build(run.model, CLASSES),
        run.data.crop,
        run.optim.batch,
    )
    place = sharding.replicated(mesh)

    def predict(variables: Any, images: jax.Array) -> jax.Array:
        return model.apply(variables, augment.eval_view(images, crop), train=False)[0]

    begin = jax.jit(
        lambda: model.init(jax.random.key(0), (1, crop, crop, 3)), out_shardings=place
    )
    variables = begin()
    images = sharding.to_global(mesh, example(batch, crop))["images"]
    one = jax.ShapeDtypeStruct((1, crop, crop, 3), jnp.uint8)
    cost = jax.jit(predict).lower(jax.eval_shape(begin), one).cost_analysis()
    began = time.perf_counter()
    program = jax.jit(predict, out_shardings=place).lower(variables, images).compile()

    def steps(n: int) -> None:
        # one at a time, as evaluate.py does: two devices of a CPU can else lock
        for _ in range(n):
            program(variables, images).block_until_ready()

    return steps, {
        "batch": batch,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "compile_seconds": time.perf_counter() - began,
        "flops": cost["flops"],
        "parameters": tree.count(variables["params"]),
    }


def build(
    run: config.Run, mesh: jax.sharding.Mesh, classes: int = CLASSES, channels: int = 3
) -> compiled.Programs:
    """The programs of a run with exclusive classes, as transfer.py compiles them."""
    plan, log = optim.plan(run.optim, 10_000), RunLog(Path(), run.log, primary=False)
    n, side = run.optim.batch, run.data.resize
    blank = np.broadcast_to(np.uint8(0), (n, side, side, channels))  # only a shape
    loader = Loader(blank, np.zeros(n, np.int32), np.arange(n), n, 0)
    task, model = (
        Task(run, plan, classes, False, mesh),
        models.build(run.model, classes),
    )
    return compiled.build(task, model, feed.Feed(loader, mesh), log)


def train(run: config.Run, mesh: jax.sharding.Mesh) -> tuple[turns.Steps, dict]:
    """The step of `fit`, as transfer.py compiles it."""
    batch = sharding.to_global(mesh, example(run.optim.batch, run.data.resize))
    began = time.perf_counter()
    made = build(run, mesh)
    compiling = time.perf_counter() - began
    state = made.scratch(jnp.int32(0))

    def steps(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state, metrics = made.step(state, batch)
        metrics["loss"].block_until_ready()

    return steps, {"batch": run.optim.batch, "compile_seconds": compiling}


def matmul(dtype: str, mesh: jax.sharding.Mesh) -> tuple[turns.Steps, dict]:
    """A large square product, its rows spread over the devices."""
    n = 8192 if jax.default_backend() == "gpu" else 2048
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (n, n), jnp.dtype(dtype)) for key in keys)
    a = jax.device_put(a, sharding.batch(mesh))
    b = jax.device_put(b, sharding.replicated(mesh))
    product = jax.jit(jnp.dot)

    def products(k: int) -> None:
        for _ in range(k):
            out = product(a, b)
        out.block_until_ready()

    return products, {"flops": 2 * n**3}


def peak_bytes() -> int:
    """Of the device's allocator, or on a CPU of this process."""
    stats = jax.local_devices()[0].memory_stats() or {}
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return stats.get("peak_bytes_in_use", own)


def main() -> None:
    case = json.loads(sys.argv[1])
    cli.set_xla_flags()
    jax.config.update("jax_compilation_cache_dir", f"{case['cache']}/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if norm := case["way"].partition(" ")[2]:  # "bigxfer": what parts.py picks
        closed, plain = parts_cpu.group_norm_relu, parts.group_norm_relu_plain
        form = {"plain": plain, "closed": closed}[norm]
        parts.group_norm_relu = lambda x, *how: form(x, *how, parts.GN_EPS)
    run = settings(case)
    mesh = sharding.make(1, run.optim.batch)
    makes = {
        "forward": partial(forward, run, mesh),
        "train": partial(train, run, mesh),
        "matmul": partial(matmul, case["dtype"], mesh),
    }
    turns.serve(makes, case["seconds"], peak_bytes)


if __name__ == "__main__":
    main()
