"""Runs per hour of a few-shot grid: one worker for all, or one process a run.

    python benchmarks/study_throughput.py [--model R1-1-1-1x0.25] [--res 48] [--steps 60]
        [--targets covidx ...] [--draws 2] [--alone 6] [--out FILE.json]

Synthetic: four targets (the phantom as CheXpert, NIH, COVIDx and natural images), 1, 5
and 10 shots, all from one upstream, at the size of configs/study_demo.py. Three ways:

  alone   python -m bigxfer.transfer, one process a run: what the predecessor does
  shared  one worker, whose runs of one shape share what is compiled (launch/worker.py)
  ridge   the same, with freeze.head=ridge: features once, no training

`alone` does every n-th run of the grid, --alone of them, each right before `shared` and
`ridge` do theirs, so all three see the same load. The metrics of `shared` must equal
those of `alone` to 1e-6. CPU-seconds count children too and are what to read on a busy
machine. The last table says where the CPU-seconds of a shared run go, after the first
of its target, and of a first one.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import machine

from bigxfer import cli, config, presets

HERE = Path(__file__).parent
TARGETS = ("covidx", "chexpert", "nih", "folder")
SHOTS = ("1", "5", "10")
EQUAL = 1e-6


def settings(args: argparse.Namespace, reader: str, shots: str, seed: int) -> dict:
    """The fields of a run that differ from configs/covidx_small.py, as flags have them."""
    return {
        "data.reader": reader,
        "data.split": "patient",
        "data.shots": shots,
        "data.cache": f"{args.scratch}/cache",
        "data.phantom.severity": 2.0,
        "optim.lr": 0.002,
        "seed": seed,
    }


def name_of(args: argparse.Namespace) -> str:
    shape = f"model={args.model},res={args.res},batch=32,steps={args.steps}"
    return f"configs/covidx_small.py:{shape},phantom={args.images}"


def load(args: argparse.Namespace, fields: dict[str, Any]) -> config.Run:
    run = presets.load(name_of(args))
    for dotted, value in fields.items():
        *sections, last = dotted.split(".")
        part = run
        for section in sections:
            part = getattr(part, section)
        setattr(part, last, value)
    return config.resolve(run)


def cpu() -> float:
    """CPU-seconds of this process, its threads and the children it waited for."""
    mine, theirs = (
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def clocked(do: Callable[..., object], *args: Any) -> dict[str, float]:
    began, worked = time.perf_counter(), cpu()
    do(*args)
    return {"seconds": time.perf_counter() - began, "cpu_seconds": cpu() - worked}


def alone(args: argparse.Namespace, fields: dict[str, Any], folder: Path) -> None:
    """As a user starts it."""
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    call = [sys.executable, "-W", "ignore", "-m", "bigxfer.transfer"]
    call += [f"--config={name_of(args)}", *flags, f"--workdir={folder}"]
    done = subprocess.run(
        call, capture_output=True, text=True, check=False, cwd=HERE.parent
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(call)}\n{done.stderr[-2000:]}")


class Where:
    """CPU-seconds inside named functions, less those of named ones called within."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.inner = [0.0]  # of the calls under way: what was spent further in

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Replaces owner.name by a function that is clocked under this label."""
        do = getattr(owner, name)

        @wraps(do)
        def clocked(*args: Any, **options: Any) -> Any:
            self.inner.append(0.0)
            began = cpu()
            try:
                return do(*args, **options)
            finally:
                whole, within = cpu() - began, self.inner.pop()
                self.spent[label] = self.spent.get(label, 0) + whole - within
                self.inner[-1] += whole

        setattr(owner, name, clocked)

    def take(self) -> dict[str, float]:
        spent, self.spent = self.spent, {}
        return spent


def watch_all() -> Where:
    """The parts of job.execute that a table of costs should name."""
    from bigxfer import checkpoint, folders, job, log, loop, metrics, programs
    from bigxfer.data import dataset

    where = Where()
    for owner, name, label in (
        (dataset, "open", "data: read, split, open the cache, draw"),
        (programs, "build", "trace and compile the step"),
        (programs.Programs, "start", "initial state, upstream's weights"),
        (log.Log, "parameters", "table of parameters"),
        (folders, "commit", "git commit and status"),
        (job, "find_leaks", "leak check"),
        (loop, "fit", "training steps"),
        (job, "fit_head", "features and ridge head"),
        (checkpoint.Checkpoints, "__init__", "checkpoints"),
        (checkpoint.Checkpoints, "save", "checkpoints"),
        (checkpoint.Checkpoints, "wait", "checkpoints"),
        (checkpoint.Checkpoints, "delete", "checkpoints"),
        (job, "judge", "predictions"),
        (metrics, "compute", "metrics and bootstrap"),
        (metrics, "operating_point", "operating points and bootstrap"),
        (job, "finish", "writing the result"),
        (job, "execute", "the rest"),
    ):
        where.watch(owner, name, label)
    return where


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All runs of the grid; the records of each way."""
    from bigxfer import folders, job
    from bigxfer.data import dataset

    scratch = Path(args.scratch)
    for reader in args.targets:  # drawing and decoding are no part of a run
        dataset.open(load(args, settings(args, reader, "full", 0)).data, 0, print)
    source = load(args, settings(args, "folder", "full", 0) | {"init.kind": "random"})
    source.keep = "all"
    job.execute(source, scratch / "upstream")
    file, digest = folders.find_parameters(scratch / "upstream")
    where, shared = watch_all(), {}
    grid = [(t, s, d) for d in range(args.draws) for s in SHOTS for t in args.targets]
    every = max(1, len(grid) // args.alone)
    records: list[dict[str, Any]] = []
    for number, (reader, shots, seed) in enumerate(grid):
        fields = settings(args, reader, shots, seed) | {"init.checkpoint": file}
        run = load(args, fields)
        run.init.digest = digest
        for way in ("alone", "shared", "ridge"):
            folder = scratch / f"{way}-{number}"
            if way == "alone":
                if number % every:
                    continue
                times = clocked(alone, args, fields, folder)
            else:
                run.freeze.bottom = 1.0 if way == "ridge" else 0.0
                run.freeze.head = "ridge" if way == "ridge" else "trained"
                where.take()
                times = clocked(job.execute, run, folder, None, shared)
            result = json.loads((folder / "result.json").read_text())
            about = {"way": way, "target": reader, "shots": shots, "seed": seed}
            record = {**about, **times, "metrics": result["metrics"]}
            record["first"] = number < len(args.targets)
            record["where"] = where.take() if way != "alone" else {}
            records.append(record)
            print(way, reader, shots, seed, times, flush=True)
    return {"records": records, "grid": len(grid)}


def difference(records: list[dict[str, Any]]) -> tuple[int, float]:
    """(runs, largest difference of a metric or bound) of those done both ways."""
    found: dict[tuple, dict[str, dict]] = {}
    for r in records:
        found.setdefault((r["target"], r["shots"], r["seed"]), {})[r["way"]] = r
    both = [f for f in found.values() if {"alone", "shared"} <= f.keys()]
    worst = 0.0
    for pair in both:
        for name, values in pair["alone"]["metrics"].items():
            other = pair["shared"]["metrics"][name]
            for key in ("value", "low", "high"):
                if values[key] is None or other[key] is None:
                    assert values[key] == other[key], (name, key)
                else:
                    worst = max(worst, abs(values[key] - other[key]))
    return len(both), worst


def report(found: dict[str, Any]) -> str:
    """Tables: runs per hour, then where the CPU-seconds go."""
    records = found["records"]

    def mean(way: str, key: str, first: bool | None = None) -> float:
        kept = [r for r in records if r["way"] == way and first in (None, r["first"])]
        return statistics.mean(r[key] for r in kept) if kept else float("nan")

    base = mean("alone", "seconds"), mean("alone", "cpu_seconds")
    head = "seconds a run | CPU-s a run | CPU-s, first of a target | later | runs/hour"
    more = "times `alone`: wall | CPU | later runs, CPU"
    lines = [f"| way | runs | {head} | {more} |", "|---" * 10 + "|"]
    for way in ("alone", "shared", "ridge"):
        wall, work = mean(way, "seconds"), mean(way, "cpu_seconds")
        first, later = (mean(way, "cpu_seconds", f) for f in (True, False))
        n = sum(r["way"] == way for r in records)
        lines.append(
            f"| {way} | {n} | {wall:.2f} | {work:.2f} | {first:.2f} | {later:.2f}"
            f" | {3600 / wall:,.0f} | {base[0] / wall:.1f} | {base[1] / work:.1f}"
            f" | {base[1] / later:.1f} |"
        )
    lines += [
        "",
        "| CPU-s of a run in a worker | shared, first | later | ridge, later |",
    ]
    lines += ["|---|---|---|---|"]
    columns = (("shared", True), ("shared", False), ("ridge", False))
    kept = [
        [r["where"] for r in records if (r["way"], r["first"]) == c] for c in columns
    ]
    parts = sorted(
        {label for column in kept for w in column for label in w},
        key=lambda label: -sum(w.get(label, 0) for w in kept[1]),
    )
    for label in parts:
        cells = (
            f"{statistics.mean(w.get(label, 0) for w in column or [{}]):.2f}"
            for column in kept
        )
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="R1-1-1-1x0.25")
    parser.add_argument("--res", type=int, default=48)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=600, help="of each target")
    parser.add_argument("--targets", nargs="*", default=TARGETS)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--alone", type=int, default=6, help="runs in own processes")
    parser.add_argument("--out", type=Path, default=HERE / "results/study.json")
    args = parser.parse_args()
    cli.set_xla_flags()
    about = {"about": machine.about(), "arguments": {**vars(args), "out": ""}}
    with tempfile.TemporaryDirectory() as args.scratch:
        found = {**about, **measure(args)}
    both, worst = difference(found["records"])
    found |= {"compared": both, "largest_difference": worst}
    machine.save(args.out, found)
    print(report(found))
    print(f"SYNTHETIC. {both} runs both ways: the largest difference is {worst:.2g}")
    if worst > EQUAL:
        sys.exit(f"the results differ by more than {EQUAL}")


if __name__ == "__main__":
    main()
