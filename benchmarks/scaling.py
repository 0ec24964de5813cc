"""Scaling over devices: virtual ones measured, bytes read from the program, a model.

    python benchmarks/scaling.py [--model R26x0.25] [--res 64] [--devices 1 2 4 8]
        [--sharded R152x4] [--out FILE.json]

1. Weak scaling (16 images a device) and strong (64 in all), as data parallelism and
   with parameters sharded over all devices (fsdp): a process for each. The devices
   of a CPU are threads: beyond its cores only the cost of splitting is to be seen. On
   GPUs the devices are real ones, as far as there are any.
2. Bytes that each device's collectives give out in a step, by the shapes in the
   compiled program. Data parallelism should sum each gradient once: 4 bytes a
   parameter.
3. --sharded: what the state of that net takes on each of 4 devices at fsdp=4, by the
   shardings that a run would use (nothing is allocated or compiled).
4. JUWELS Booster and a TPU v5e pod on paper: scaling_model.py, with its assumptions.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hlo_bytes
import machine
import scaling_model

from bigxfer import cli

HERE = Path(__file__).parent
WEAK, STRONG = 16, 64  # images: of a device, of all
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


def communicated(program: str) -> dict[str, dict[str, int]]:
    """{collective: {"ops", "bytes"}} of the results of all collectives of an HLO text.

    An asynchronous pair is counted at its end, "-done", whose result is the data.
    """
    found: dict[str, dict[str, int]] = {}
    names = "|".join(COLLECTIVES)
    for line in program.splitlines():
        match = re.search(rf"= (.*?) ({names})(-start|-done)?\(", line)
        if not match or match[3] == "-start":
            continue
        entry = found.setdefault(match[2], {"ops": 0, "bytes": 0})
        entry["ops"] += 1
        entry["bytes"] += hlo_bytes.size(match[1])
    return found


def in_process(name: str, devices: int, *args: Any) -> dict[str, Any]:
    """`one` or `sharded` in a process of so many virtual devices."""
    flags = f"{cli.xla_flags()} --xla_force_host_platform_device_count={devices}"
    paths = f"{HERE}:{HERE.parent}"
    env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths}
    code = "import json, sys, scaling; a = json.loads(sys.argv[1])\n"
    code += f"print(json.dumps(scaling.{name}(*a)))"
    call = [sys.executable, "-W", "ignore", "-c", code, json.dumps([*args, devices])]
    done = subprocess.run(call, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{name} {args} on {devices} devices:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def one(
    model: str, res: int, batch: int, fsdp: int, seconds: float, devices: int
) -> dict[str, Any]:
    """The step of `fit` on the devices of this process."""
    import jax.numpy as jnp
    import train_step_jax as ours

    from bigxfer import config, optim, programs, sharding, tree
    from bigxfer.log import Log

    case = {"model": model, "res": res, "batch": batch, "dtype": "float32"}
    run = ours.settings(case)
    run.optim.micro_batch = batch  # in one piece, so that all programs do the same
    run.mesh.fsdp = fsdp
    run = config.resolve(run)
    mesh = sharding.make(fsdp, batch)
    assert mesh.size == devices, f"{mesh.size} devices, {devices} asked for"
    rows = sharding.to_global(mesh, ours.example(batch, run.data.resize))
    plan, log = optim.plan(run.optim, 10_000), Log(Path(), run.log, primary=False)
    made = programs.build(run, plan, ours.CLASSES, False, mesh, rows, log)
    state = made.scratch(jnp.int32(0))
    memory = made.step.memory_analysis()

    def steps(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state, metrics = made.step(state, rows)
        metrics["loss"].block_until_ready()

    wall, cpu = machine.blocks(steps, seconds)
    return {
        "seconds": wall,
        "cpu_seconds": cpu,
        "communicated": communicated(made.step.as_text()),
        "parameter_bytes": 4 * tree.count(state.params),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


def sharded(model: str, res: int, devices: int) -> dict[str, Any]:
    """Bytes of a state of SGD with momentum on one device, fsdp over all of them."""
    import math

    import jax
    import optax

    from bigxfer import models, presets, sharding

    net = models.build(presets.bit(model), 1000)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), (1, res, res, 3)))
    state = params, jax.eval_shape(optax.trace(0.9).init, params)

    def held(fsdp: int) -> int:
        place = sharding.place_state(sharding.make(fsdp), state)
        sizes = jax.tree.map(
            lambda leaf, p: 4 * math.prod(p.shard_shape(leaf.shape)), state, place
        )
        return sum(jax.tree.leaves(sizes))

    return {"model": model, "one": held(1), "fsdp": held(devices), "devices": devices}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A process for each number of devices and kind of scaling."""
    cases = [("weak", n, n * WEAK, 1) for n in args.devices]
    cases += [("strong", n, STRONG, 1) for n in args.devices]
    cases += [("strong, fsdp", n, STRONG, n) for n in args.devices if n > 1]
    rows = []
    for kind, n, batch, fsdp in cases:
        found = in_process("one", n, args.model, args.res, batch, fsdp, args.seconds)
        rows.append({"kind": kind, "devices": n, "batch": batch, **found})
        print(kind, n, f"{found['seconds']:.3f} s a step", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    head = "| scaling | devices | images | ms a step | CPU-ms | CPU-ms an image, x of 1"
    more = (
        "collectives | MB given out | of the parameters | state and batch MB | temp MB"
    )
    lines = [f"{head} | {more} |", "|---" * 11 + "|"]
    first = rows[0]["cpu_seconds"] / rows[0]["batch"]
    for r in rows:
        sizes = r["communicated"].values()
        total = sum(entry["bytes"] for entry in sizes)
        said = ", ".join(f"{e['ops']} {n}" for n, e in r["communicated"].items())
        lines.append(
            f"| {r['kind']} | {r['devices']} | {r['batch']} | {1e3 * r['seconds']:.0f}"
            f" | {1e3 * r['cpu_seconds']:.0f}"
            f" | {r['cpu_seconds'] / r['batch'] / first:.2f} | {said or 'none'}"
            f" | {total / 1e6:.2f} | {total / r['parameter_bytes']:.2f}"
            f" | {r['argument_bytes'] / 1e6:.1f} | {r['temporary_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="R26x0.25")
    parser.add_argument("--res", type=int, default=64)
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--sharded", default="R152x4")
    parser.add_argument("--out", type=Path, default=HERE / "results/scaling.json")
    args = parser.parse_args()
    about = {"about": machine.about(), "model": args.model, "res": args.res}
    rows = measure(args)
    state = in_process("sharded", 4, args.sharded, 224)
    paper = {"assumed": scaling_model.ASSUMED, "rows": scaling_model.rows()}
    machine.save(args.out, {**about, "measured": rows, "state": state, "paper": paper})
    print(table(rows))
    print(
        f"\n{state['model']}, parameters and momentum: {state['one'] / 1e9:.2f} GB on"
        f" one device, {state['fsdp'] / 1e9:.2f} GB on each of {state['devices']}\n"
    )
    print(scaling_model.assumptions())
    print(scaling_model.table(paper["rows"]))


if __name__ == "__main__":
    main()
