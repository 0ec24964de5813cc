"""How long it takes to start: --help, the first step of R50x1, compiling R152x1.

    python benchmarks/startup.py [--rounds 2] [--out FILE.json]

help: `python -m bigxfer.train --help`. first step: `python -m bigxfer.transfer` of R50x1
at 224 px, batch 8, one step on the phantom (SYNTHETIC), from the command to the line that
says it has trained; "cold" with an empty JAX_COMPILATION_CACHE_DIR, "warm" with the one
that this left. compile: tracing and compiling the step of `fit` without a cache, R50x1
and R152x1 in turns, a process each; the ratio is R152x1's to the mean of R50x1's before
and after it, since the machine's speed changes from one minute to the next.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import machine

from launch.shares import TUNABLES

HERE = Path(__file__).parent
CONFIG = "configs/covidx_hyperrule.py:model=R50x1,res=224,batch=8,steps=1,phantom=120"


def help_seconds() -> float:
    began = time.perf_counter()
    call = [sys.executable, "-m", "bigxfer.train", "--help"]
    subprocess.run(call, cwd=HERE.parent, check=True, capture_output=True)
    return time.perf_counter() - began


def first_step(scratch: Path) -> float:
    """Seconds from the command to its first step done."""
    place = tempfile.mkdtemp(dir=scratch)
    call = [sys.executable, "-m", "bigxfer.transfer", f"--config={CONFIG}"]
    call += ["--config.init.kind=random", "--config.optim.schedule=constant"]
    call += ["--config.optim.lr=0.001"]
    call += [f"--config.data.cache={scratch / 'data'}", f"--workdir={place}/run"]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla")}
    began = time.perf_counter()
    quiet, pipe = subprocess.DEVNULL, subprocess.PIPE
    run = subprocess.Popen(
        call, cwd=HERE.parent, env=env, stdout=quiet, stderr=pipe, text=True
    )
    assert run.stderr
    took, said = 0.0, []
    for line in run.stderr:
        said.append(line)
        if "trained for" in line:
            took = time.perf_counter() - began
    if run.wait() or not took:
        raise RuntimeError("".join(said)[-2000:])
    return took


def compile_seconds(net: str) -> float:
    call = [sys.executable, "-W", "ignore", __file__, "--compile", net]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def compile_here(net: str) -> float:
    """In this process: seconds to trace and compile the step at 224 px, batch 8."""
    import jax
    import train_step_jax as ours

    from bigxfer import cli
    from bigxfer.training import sharding

    cli.set_xla_flags()
    jax.config.update("jax_enable_compilation_cache", False)
    run = ours.settings({"model": net, "res": 224, "batch": 8, "dtype": "float32"})
    return ours.train(run, sharding.make(1, 8))[1]["compile_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results/startup.json")
    parser.add_argument("--compile", default="", help="in this process, a net")
    args = parser.parse_args()
    if args.compile:
        print(compile_here(args.compile))
        return
    os.environ.setdefault("GLIBC_TUNABLES", TUNABLES)
    os.environ["PYTHONPATH"] = str(HERE.parent)
    about = machine.about()
    times: dict[str, list[float]] = {"help": [help_seconds() for _ in range(5)]}
    with tempfile.TemporaryDirectory() as scratch:
        first_step(Path(scratch))  # draws the phantom
        (Path(scratch) / "xla").rename(Path(scratch) / "xla_first")
        times["first step, cold"] = [first_step(Path(scratch))]
        warm = [first_step(Path(scratch)) for _ in range(args.rounds)]
        times["first step, warm"] = warm
    shallow, deep = [compile_seconds("R50x1")], []
    for _ in range(args.rounds):
        deep.append(compile_seconds("R152x1"))
        shallow.append(compile_seconds("R50x1"))
    times |= {"compile R50x1": shallow, "compile R152x1": deep}
    around = map(statistics.mean, pairwise(shallow))
    ratios = [there / here for there, here in zip(deep, around, strict=True)]
    print("| what | median | all |\n|---|---|---|")
    for name, found in times.items():
        each = ", ".join(f"{s:.2f}" for s in found)
        print(f"| {name} | {statistics.median(found):.2f} s | {each} |")
    each = ", ".join(f"{r:.2f}" for r in ratios)
    print(f"| R152x1 over R50x1 | {statistics.median(ratios):.2f} | {each} |")
    machine.save(args.out, {"about": about, "seconds": times, "ratios": ratios})


if __name__ == "__main__":
    main()
