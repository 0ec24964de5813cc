"""A training step and a forward pass of BiT, beside timm's in PyTorch.

    python benchmarks/train_step.py [--torch-python PYTHON] [--ways eager ...]
        [--cases R26x0.25@64 ...] [--dtypes float32 bfloat16] [--processes 2]
        [--turns 5] [--seconds 2] [--threads 0] [--apart]
        [--norms plain closed] [--out FILE.json]

PYTHON has torch and timm. A process a way, all alive at once on a CPU, which take turns
of a few steps (one after the other on a GPU, whose memory they would share, and with
--apart, for nets of which two do not fit); all of it again with new processes. They
have the same allocator settings; ours does the very step that `fit` runs, random crop
and flip of uint8 images included, PyTorch's forward, backward and SGD with momentum on
floats that lie ready. The table has medians over all turns; ratios are taken within a
round of turns, with the 95% interval of their median. FLOP are 3 times (forward: once)
those of XLA's count of a forward pass, the same number for all ways; the peak is the
best matrix product that any way measured in that dtype.
--norms adds ours with a named form of group norm beside the one that parts.py picks:
as it is written, or with its gradient in closed form. Memory is the process's peak (the allocator's on a GPU), compiling included where
there is no second process; compile time is the first process's, nothing cached.

On a loaded machine compare CPU time at --threads 1 (the share of the peak is by CPU time
there): each way on one core, where no thread waits for another.

Without a GPU the cases that need one are left out; the script means to be ready for one
(an H200 holds all of them) but was not run on any.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
from turns import Worker, median

from launch.shares import TUNABLES  # what the launchers set, for both sides

HERE = Path(__file__).parent
CPU = {"R26x0.25@64": 64, "R26x0.5@64": 64, "R50x1@224": 8}  # images a step
GPU = {"R50x1@224": 256, "R101x3@224": 128, "R152x4@224": 64}
MODES, CLOCKS = ("forward", "train", "matmul"), ("seconds", "cpu_seconds")
NORMS = ("plain", "closed")  # forms of group norm: train_step_jax.py
TORCH = ("eager", "eager channels_last", "compile channels_last")


def call(way: str, python: str, case: dict) -> list[str]:
    script = HERE / f"train_step_{'jax' if way.startswith('bigxfer') else 'torch'}.py"
    return [python, "-W", "ignore", str(script), json.dumps({**case, "way": way})]


def measure(calls: Mapping[str, list[str]], env: dict, turns: int) -> dict[str, Any]:
    """{way: {mode: {**what is known of it, "turns": [...]}}} of new processes."""
    found: dict[str, Any] = {way: {} for way in calls}
    with ExitStack() as stack:
        workers = {w: stack.enter_context(Worker(c, env)) for w, c in calls.items()}
        for mode in MODES:
            for way, worker in workers.items():
                found[way][mode] = worker.ask(mode) | {"turns": []}
            for _ in range(min(turns, 3) if mode == "matmul" else turns):
                for way, worker in workers.items():
                    found[way][mode]["turns"].append(worker.ask("turn"))
    return found


def per_image(processes: Iterable[dict], mode: str, clock: str) -> list[float]:
    """Of all turns of a way: seconds by that clock."""
    known = (process[mode] for process in processes)
    return [turn[clock] / k["batch"] for k in known for turn in k["turns"]]


def summary(found: dict[str, list[dict]], clock: str) -> list[dict[str, Any]]:
    """A row for each mode and way, from {way: its processes}; the peak by that clock."""
    peak = 0.0
    for processes in found.values():
        for process in processes:
            known = process["matmul"]
            times = [turn[clock] for turn in known["turns"]]
            peak = max(peak, known["flops"] / statistics.median(times))
    flops = found["bigxfer"][0]["forward"]["flops"]  # of an image
    rows = []
    for mode, passes in (("train", 3), ("forward", 1)):
        ours = {c: per_image(found["bigxfer"], mode, c) for c in CLOCKS}
        for way, processes in found.items():
            its = {c: per_image(processes, mode, c) for c in CLOCKS}
            ratios = {
                c: median(a / b for a, b in zip(ours[c], its[c], strict=True))
                for c in CLOCKS
            }
            seconds, cpu_seconds = (statistics.median(its[c]) for c in CLOCKS)
            known = [process[mode] for process in processes]
            peaks = [max(t["peak_bytes"] for t in k["turns"]) for k in known]
            rows.append(
                {
                    "mode": mode,
                    "way": way,
                    "images_per_s": 1 / seconds,
                    "ours_over_it": ratios["seconds"],
                    "ours_over_it_cpu": ratios["cpu_seconds"],
                    "cpu_ms_per_image": 1e3 * cpu_seconds,
                    "of_peak": passes * flops / statistics.median(its[clock]) / peak,
                    "peak_gb": min(peaks) / 1e9,
                    "compile_s": known[0]["compile_seconds"],
                    "batch": known[0]["batch"],
                    "matmul_peak": peak,
                }
            )
    return rows


def table(rows: list[dict]) -> str:
    head = "case | dtype | mode | way | images/s | ours/it, time | CPU | CPU-ms/image"
    lines = [f"| {head} | of peak | peak GB | compile s |", "|---" * 11 + "|"]
    for r in rows:
        time, cpu = (
            "" if r["way"] == "bigxfer" else "{:.2f} ({:.2f} to {:.2f})".format(*r[key])
            for key in ("ours_over_it", "ours_over_it_cpu")
        )
        lines.append(
            f"| {r['case']} b{r['batch']} | {r['dtype']} | {r['mode']} | {r['way']}"
            f" | {r['images_per_s']:,.1f} | {time} | {cpu}"
            f" | {r['cpu_ms_per_image']:.2f} | {r['of_peak']:.0%}"
            f" | {r['peak_gb']:.2f} | {r['compile_s']:.1f} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch-python", default="", help="a Python with torch, timm")
    parser.add_argument("--cases", nargs="*", help="such as R50x1@224, or R50x1@224:16")
    parser.add_argument("--ways", nargs="*", default=TORCH, choices=TORCH)
    parser.add_argument("--norms", nargs="*", default=(), choices=NORMS)
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--processes", type=int, default=2, help="of each way")
    parser.add_argument("--turns", type=int, default=5, help="of each process")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--apart", action="store_true", help="no two alive at once")
    parser.add_argument("--threads", type=int, default=0, help="cores; 0: all")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.threads:  # for all ways: both count their threads by the cores they may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    found: dict[str, Any] = {"about": machine.about(), "allocator": TUNABLES}
    on = "gpu" if found["about"]["gpu"] else "cpu"
    apart = args.apart or on == "gpu"
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
                calls = {w: call(w, python, case) for w, python in ways.items()}
                groups = [{w: calls[w]} for w in ways] if apart else [calls]
                timed: dict[str, list[dict]] = {way: [] for way in ways}
                for _ in range(args.processes):
                    for group in groups:
                        for way, process in measure(group, env, args.turns).items():
                            timed[way].append(process)
                sizes = {p["forward"]["parameters"] for w in timed.values() for p in w}
                assert len(sizes) == 1, f"not the same net: {sizes} parameters"
                rows = summary(timed, clock)
                for row in rows:
                    row |= {"case": name, "dtype": dtype}
                found["turns"][f"{name} {dtype}"] = timed
                found["rows"] += rows
                print(table(rows), flush=True)
    out = args.out or HERE / "results" / f"train_step_{on}.json"
    machine.save(out, found)
    print(table(found["rows"]))


if __name__ == "__main__":
    main()
