"""Scaling over devices and processes: measured, bytes from the program, a model.

    python benchmarks/scaling.py [--model R26x0.25] [--res 64] [--devices 1 2 4 8]
        [--sharded R152x4] [--out FILE.json]

1. Weak scaling (16 images a device) and strong (64 in all), as data parallelism over the
   virtual devices of one process, as that over processes of one device each, and with
   parameters sharded over all devices (fsdp). All of a kind live at once and take turns,
   the first of them alone on one device. The devices of a CPU are threads: beyond its
   cores only the cost of splitting is to be seen. On GPUs the devices are real ones, as
   far as there are any.
2. Bytes that each device's collectives give out in a step, by the shapes in the
   compiled program. Data parallelism should sum each gradient once: 4 bytes a
   parameter.
3. --sharded: what the state of that net takes on each of 4 devices at fsdp=4, by the
   shardings that a run would use (nothing is allocated or compiled).
4. JUWELS Booster and a TPU v5e pod on paper: scaling_model.py, with its assumptions.
"""

import argparse
import json
import math
import os
import re
import socket
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
import scaling_model
import turns

from bigxfer import cli
from launch import shares

HERE = Path(__file__).parent
WEAK, STRONG = 16, 64  # images: of a device, of all
SIZES = {"bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8}
SIZES |= {"u64": 8, "pred": 1, "u8": 1, "s8": 1, "u16": 2, "s16": 2, "token": 0}
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


def size(types: str) -> int:
    """Bytes of an HLO array's type, or of a tuple's; KeyError for a dtype not in SIZES."""
    return sum(
        SIZES[dtype] * math.prod(int(n) for n in shape.split(",") if n)
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", types)
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
        entry["bytes"] += size(match[1])
    return found


class Together:
    """Processes that are one run; answers as a turns.Worker does, for all of them."""

    def __init__(self, stack: ExitStack, processes: int, devices: int, case: dict):
        flags = f"{cli.xla_flags()} --xla_force_host_platform_device_count={devices}"
        env = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
        env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # others are on the GPU, too
        if processes > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                env["JAX_COORDINATOR_ADDRESS"] = f"localhost:{free.getsockname()[1]}"
            env["JAX_NUM_PROCESSES"] = str(processes)
        code = "import json, sys, scaling; scaling.work(**json.loads(sys.argv[1]))"
        call = [sys.executable, "-W", "ignore", "-c", code, json.dumps(case)]
        self.workers = []
        for k, share in enumerate(shares.share_out(env, processes)):
            worker = turns.Worker(call, share | {"JAX_PROCESS_ID": str(k)})
            self.workers.append(stack.enter_context(worker))

    def ask(self, what: str) -> dict[str, Any]:
        """The first process's answer, with the CPU-seconds of all."""
        for worker in self.workers:
            worker.tell(what)
        found = [worker.answer() for worker in self.workers]
        if what == "turn":
            found[0]["cpu_seconds"] = sum(f["cpu_seconds"] for f in found)
        return found[0]


def work(model: str, res: int, batch: int, fsdp: int, seconds: float) -> None:
    """Serves the step of `fit` on all devices of all processes, this one among them."""
    import train_step_jax as ours

    from bigxfer.training import processes

    cli.set_xla_flags()  # and the cores, where each process has its own
    processes.join_by_environment()
    case = {"model": model, "res": res, "batch": batch, "dtype": "float32"}

    def step() -> tuple[turns.Steps, dict[str, Any]]:
        return made(ours.settings(case), fsdp)

    turns.serve({"step": step}, seconds, ours.peak_bytes)


def made(run: Any, fsdp: int) -> tuple[turns.Steps, dict[str, Any]]:
    """The steps of this run, and what its program says."""
    import jax
    import jax.numpy as jnp
    import train_step_jax as ours
    from jax.experimental import multihost_utils

    from bigxfer import config, tree
    from bigxfer.training import sharding

    batch = run.optim.batch
    run.optim.micro_batch = batch  # in one piece, so that all programs do the same
    run.mesh.fsdp = fsdp
    run = config.resolve(run)
    mesh = sharding.make(fsdp, batch)
    here = ours.example(batch // jax.process_count(), run.data.resize)
    rows = sharding.to_global(mesh, here)
    program = ours.build(run, mesh)
    state = program.scratch(jnp.int32(0))
    memory = program.step.memory_analysis()

    def steps(n: int) -> None:
        nonlocal state
        if jax.process_count() > 1:  # as many as the first says: each has its own clock
            n = int(multihost_utils.broadcast_one_to_all(jnp.int32(n)))
        for _ in range(n):
            state, metrics = program.step(state, rows)
        metrics["loss"].block_until_ready()

    return steps, {
        "devices": mesh.size,
        "communicated": communicated(program.step.as_text()),
        "parameter_bytes": 4 * tree.count(state.params),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


def sharded(model: str, res: int, devices: int) -> dict[str, Any]:
    """Bytes of a state of SGD with momentum on one device, and with fsdp over several."""
    import math

    import jax
    import optax
    from jax.sharding import AbstractMesh, AxisType

    from bigxfer import models, presets
    from bigxfer.training import sharding

    net = models.build(presets.bit(model), 1000)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), (1, res, res, 3)))
    state = params, jax.eval_shape(optax.trace(0.9).init, params)

    def held(fsdp: int) -> int:
        mesh = AbstractMesh((1, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2)
        place = sharding.place_state(mesh, state)
        sizes = jax.tree.map(
            lambda leaf, p: 4 * math.prod(p.shard_shape(leaf.shape)), state, place
        )
        return sum(jax.tree.leaves(sizes))

    return {"model": model, "one": held(1), "fsdp": held(devices), "devices": devices}


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of devices and kind of scaling."""
    rows = []
    for kind in ("weak", "strong", "weak, processes", "strong, processes", "fsdp"):
        with ExitStack() as stack:
            found, alive = [], []
            for n in args.devices:
                batch = n * WEAK if kind.startswith("weak") else STRONG
                case = {"model": args.model, "res": args.res, "batch": batch}
                case |= {"fsdp": n if kind == "fsdp" else 1, "seconds": args.seconds}
                split = (n, 1) if "processes" in kind else (1, n)
                together = Together(stack, *split, case)
                row = {"kind": kind, "batch": batch, **together.ask("step")}
                assert row["devices"] == n, f"{row['devices']} devices, {n} asked for"
                found.append(row | {"turns": []})
                alive.append(together)
            for _ in range(args.turns):
                for row, together in zip(found, alive, strict=True):
                    row["turns"].append(together.ask("turn"))
        rows += found
        print(table(found), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    head = "| scaling | devices | images | ms a step | CPU-ms | CPU-ms an image, x of its first"
    more = (
        "collectives | MB given out | of the parameters | state and batch MB | temp MB"
    )
    lines = [f"{head} | {more} |", "|---" * 11 + "|"]
    kind, first = "", []
    for r in rows:
        wall, cpu = ([t[c] for t in r["turns"]] for c in ("seconds", "cpu_seconds"))
        each = [seconds / r["batch"] for seconds in cpu]
        if r["kind"] != kind:
            kind, first = r["kind"], each
        ratios = (a / b for a, b in zip(each, first, strict=True))  # in a round
        sizes = r["communicated"].values()
        total = sum(entry["bytes"] for entry in sizes)
        said = ", ".join(f"{e['ops']} {n}" for n, e in r["communicated"].items())
        lines.append(
            f"| {r['kind']} | {r['devices']} | {r['batch']}"
            f" | {1e3 * statistics.median(wall):.1f} | {1e3 * statistics.median(cpu):.1f}"
            f" | {statistics.median(ratios):.2f} | {said or 'none'}"
            f" | {total / 1e6:.2f} | {total / r['parameter_bytes']:.2f}"
            f" | {r['argument_bytes'] / 1e6:.1f} | {r['temporary_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="R26x0.25")
    parser.add_argument("--res", type=int, default=64)
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--turns", type=int, default=5, help="of each")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--sharded", default="R152x4")
    parser.add_argument("--out", type=Path, default=HERE / "results/scaling.json")
    args = parser.parse_args()
    about = {"about": machine.about(), "model": args.model, "res": args.res}
    rows = measure(args)
    state = sharded(args.sharded, 224, 4)
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
