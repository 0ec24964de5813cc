"""A training step and a forward pass of BiT, beside timm's in PyTorch.

    python benchmarks/train_step.py [--torch-python PYTHON] [--ways eager ...]
        [--cases R26x0.25@64 ...] [--dtypes float32 bfloat16] [--rounds 3]
        [--seconds 4] [--threads 0] [--norms plain closed kernel] [--out FILE.json]

PYTHON has torch and timm. One process a way and round, the ways in turns, with the
same allocator settings; ours does the very step that `fit` runs, random crop and flip
of uint8 images included, PyTorch's forward, backward and SGD with momentum on floats
that lie ready. The table has medians over the rounds. FLOP are 3 times (forward: once)
those of XLA's count of a forward pass, the same number for all ways; the peak is the
best matrix product that any way measured in that dtype. --norms adds ours with other
forms of group norm (norms.py) beside the one that parts.py picks. Memory is the
process's peak (the allocator's on a GPU); compile time is the first round's, nothing
cached.

Take an idle machine. On a loaded one compare CPU time at --threads 1 (the share of the
peak is by CPU time there): each way on one core, where no thread waits for another.

Without a GPU the cases that need one are left out; the script means to be ready for one
(an H200 holds all of them) but was not run on any.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import norms

from launch.shares import TUNABLES  # what the launchers set, for both sides

HERE = Path(__file__).parent
CPU = {"R26x0.25@64": 64, "R26x0.5@64": 64, "R50x1@224": 8}  # images a step
GPU = {"R50x1@224": 256, "R101x3@224": 128, "R152x4@224": 64}
TORCH = ("eager", "eager channels_last", "compile channels_last")


def measure(way: str, python: str, env: dict[str, str], case: dict) -> dict[str, Any]:
    """What a worker of one way prints; raises with its last words if it fails."""
    ours = way.partition(" ")[0] == "bigxfer"
    script = HERE / f"train_step_{'jax' if ours else 'torch'}.py"
    call = [python, "-W", "ignore", str(script), json.dumps({**case, "way": way})]
    done = subprocess.run(call, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} {case}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def median(turns: list[dict], *keys: str) -> float:
    values = []
    for value in turns:
        for key in keys:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def summary(turns: dict[str, list[dict]], clock: str) -> list[dict[str, Any]]:
    """A row for each way and mode; the share of the peak by that clock."""
    peak = max(t["matmul"][clock] for found in turns.values() for t in found)
    flops = turns["bigxfer"][0]["flops"]  # of an image
    rows = []
    for mode, times in (("train", 3), ("forward", 1)):
        ours = median(turns["bigxfer"], mode, "seconds")
        ours_cpu = median(turns["bigxfer"], mode, "cpu_seconds")
        for way, found in turns.items():
            rate = 1 / median(found, mode, "seconds")
            cpu = median(found, mode, "cpu_seconds")
            rows.append(
                {
                    "mode": mode,
                    "way": way,
                    "images_per_s": rate,
                    "ours_over_it": ours * rate,
                    "ours_over_it_cpu": ours_cpu / cpu,
                    "cpu_ms_per_image": 1e3 * cpu,
                    "of_peak": times * flops / median(found, mode, clock) / peak,
                    "peak_gb": min(t[mode]["peak_bytes"] for t in found) / 1e9,
                    "compile_s": found[0][mode]["compile_seconds"],
                    "batch": found[0]["batch"],
                    "matmul_peak": peak,
                }
            )
    return rows


def table(rows: list[dict]) -> str:
    head = "case | dtype | mode | way | images/s | ours/it, time | CPU | CPU-ms/image"
    lines = [f"| {head} | of peak | peak GB | compile s |", "|---" * 11 + "|"]
    for r in rows:
        lines.append(
            f"| {r['case']} b{r['batch']} | {r['dtype']} | {r['mode']} | {r['way']}"
            f" | {r['images_per_s']:,.1f} | {r['ours_over_it']:.2f}"
            f" | {r['ours_over_it_cpu']:.2f} | {r['cpu_ms_per_image']:.2f}"
            f" | {r['of_peak']:.0%} | {r['peak_gb']:.2f} | {r['compile_s']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch-python", default="", help="a Python with torch, timm")
    parser.add_argument("--cases", nargs="*", help="such as R50x1@224, or R50x1@224:16")
    parser.add_argument("--ways", nargs="*", default=TORCH, choices=TORCH)
    parser.add_argument("--norms", nargs="*", default=(), choices=norms.NAMES)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a measurement")
    parser.add_argument("--threads", type=int, default=0, help="cores; 0: all")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:  # for all ways: both count their threads by the cores they may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    found: dict[str, Any] = {"about": machine.about(), "allocator": TUNABLES}
    on = "gpu" if found["about"]["gpu"] else "cpu"
    cases = GPU if on == "gpu" else CPU
    if on == "cpu":
        print(f"no GPU here: {', '.join(GPU.keys() - CPU.keys())} are left out")
    if not args.torch_python:
        print("PyTorch is left out: --torch-python names no Python that has it")
    if args.cases:
        words = (case.partition(":") for case in args.cases)
        cases = {name: int(batch or cases.get(name, 64)) for name, _, batch in words}
    clock = "cpu_seconds" if args.threads == 1 else "seconds"
    ours = ("bigxfer", *(f"bigxfer {norm}" for norm in args.norms))
    ways = dict.fromkeys(ours, sys.executable)
    # compiling by torch takes minutes on a busy CPU: --ways leaves it out
    ways |= dict.fromkeys(args.ways if args.torch_python else (), args.torch_python)
    found |= {"turns": {}, "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        env = os.environ | {
            "GLIBC_TUNABLES": TUNABLES,
            "PYTHONPATH": f"{HERE.parent}:{HERE.parent / 'tests'}",
            "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor",
        }
        for name, batch in cases.items():
            model, _, res = name.partition("@")
            for dtype in args.dtypes:
                case = {"model": model, "res": int(res), "batch": batch, "dtype": dtype}
                case |= {"seconds": args.seconds, "cache": scratch}
                turns: dict[str, list[dict]] = {way: [] for way in ways}
                for _ in range(args.rounds):
                    for way, python in ways.items():
                        turns[way].append(measure(way, python, env, case))
                sizes = {t["parameters"] for found in turns.values() for t in found}
                assert len(sizes) == 1, f"not the same net: {sizes} parameters"
                rows = summary(turns, clock)
                for row in rows:
                    row |= {"case": name, "dtype": dtype}
                found["turns"][f"{name} {dtype}"] = turns
                found["rows"] += rows
                print(table(rows), flush=True)
    out = args.out or HERE / "results" / f"train_step_{on}.json"
    machine.save(out, found)
    print(table(found["rows"]))


if __name__ == "__main__":
    main()
