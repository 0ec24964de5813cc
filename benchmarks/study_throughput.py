"""Runs per hour of a few-shot grid: a launcher's workers, or one process a run.

    python benchmarks/study_throughput.py [--draws 10] [--alone 6] [--out FILE.json]

SYNTHETIC: the grid of throughput_grid.py, in four ways:

  one      python -m bigxfer.transfer, one process a run, one at a time, on all cores:
           what the predecessor does with its GPU
  packed   the same, one on each core at a time
  trained  python -m launch.local --workers CORES: what is compiled is shared
  ridge    the same, with freeze.head=ridge: features once, no training

--alone rounds of `one` and `packed` are spread before, between and after the other two,
so that they see the same load. A launcher's seconds and CPU-seconds are all it takes
from its start: imports, compiling, table and report too. The upstream and the decoding
are done before. The metrics of `trained` must equal those of `packed` to 1e-6; `one`
uses another number of XLA devices, and adds up in another order.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine

from bigxfer import host
from bigxfer.study import grid
from launch import shares

HERE = Path(__file__).parent
GRID = HERE / "throughput_grid.py"
EQUAL = 1e-6
HEADS = ("trained", "ridge")


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE.parent), **more}


def cpu() -> float:
    """CPU-seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def clocked(do: Callable[..., object], *args: Any) -> tuple[float, float]:
    began, worked = time.perf_counter(), cpu()
    do(*args)
    return time.perf_counter() - began, cpu() - worked


def launch(config: str, scratch: Path, *how: str) -> None:
    """As a user starts a study, or one run; RuntimeError where it fails."""
    call = [sys.executable, "-m", *how, f"--config={config}", "--runs=runs"]
    done = subprocess.run(
        call, cwd=scratch, env=environ(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(call)}\n{done.stdout}{done.stderr}"[-3000:])


def alone(nodes: list[grid.Node], scratch: Path, folder: Path) -> None:
    """One process for each of these runs, all at once, each on its share of the cores."""
    started = []
    folder.mkdir(exist_ok=True)
    environs = shares.share_out(environ(), len(nodes))
    for node, env in zip(nodes, environs, strict=True):
        run = node.run
        call = [sys.executable, "-W", "ignore", "-m", "bigxfer.transfer"]
        call += [f"--config={GRID}", f"--workdir={folder / node.digest}"]
        fields = {
            "data.reader": run.data.reader,
            "data.shots": run.data.shots,
            "seed": run.seed,
            "init.checkpoint": f"{scratch}/runs/{run.init.digest}/params.npz",
            "data.cache": f"{scratch}/cache",
        }
        call += [f"--config.{name}={value}" for name, value in fields.items()]
        out = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(call, cwd=scratch, env=env, **out))
    for process in started:
        _, said = process.communicate()
        if process.returncode:
            raise RuntimeError(said.decode()[-2000:])


def measure(args: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """A record for every way, and for every round of `one` and `packed`."""
    workers = len(host.cores())
    names = {head: f"{GRID}:draws={args.draws},head={head}" for head in HEADS}
    study = grid.nodes(names["trained"])
    runs = [node for node in study if node.kind == "transfer"]
    before = [node for node in study if node not in runs]
    before.sort(key=lambda node: node.kind != "cache")
    for node in before:
        launch(names["trained"], scratch, "launch.worker", f"--only={node.digest}")
    rounds = [runs[k :: args.alone][: workers + 1] for k in range(args.alone)]
    records = []

    def note(way: str, count: int, times: tuple[float, float]) -> None:
        wall, work = times
        record = {"way": way, "runs": count, "seconds": wall, "cpu_seconds": work}
        records.append(record)
        print(record, flush=True)

    for place, head in enumerate((*HEADS, "")):
        for batch in rounds[place :: len(HEADS) + 1]:
            note("one", 1, clocked(alone, batch[:1], scratch, scratch / "one"))
            note(
                "packed",
                workers,
                clocked(alone, batch[1:], scratch, scratch / "packed"),
            )
        if head:
            how = scratch, "launch.local", f"--workers={workers}"
            note(head, len(runs), clocked(launch, names[head], *how))
    return records


def difference(scratch: Path) -> tuple[int, float]:
    """(runs, largest difference of a metric or bound) of those done both ways."""
    worst, count = 0.0, 0
    for folder in sorted((scratch / "packed").iterdir()):
        shared, packed = (
            json.loads((scratch / way / folder.name / "result.json").read_text())
            for way in ("runs", "packed")
        )
        count += 1
        for name, values in packed["metrics"].items():
            for key in ("value", "low", "high"):
                worst = max(worst, gap(values[key], shared["metrics"][name][key]))
    return count, worst


def gap(a: float | None, b: float | None) -> float:
    """The absolute difference; infinite where only one is known."""
    if a is None or b is None:
        return 0.0 if a == b else float("inf")
    return abs(a - b)


def report(records: list[dict[str, Any]]) -> str:
    """Runs per hour and CPU-seconds a run, and how many times those of `one`."""
    lines = ["| way | runs | seconds a run | CPU-s a run | runs/hour | times `one` |"]
    lines[0] += " by CPU |"
    lines.append("|---" * 7 + "|")
    base: tuple[float, float] = (0.0, 0.0)
    for way in ("one", "packed", *HEADS):
        of = [r for r in records if r["way"] == way]
        runs = sum(r["runs"] for r in of)
        wall, work = (sum(r[k] for r in of) / runs for k in ("seconds", "cpu_seconds"))
        base = base if way != "one" else (wall, work)
        lines.append(
            f"| {way} | {runs} | {wall:.2f} | {work:.2f} | {3600 / wall:,.0f}"
            f" | {base[0] / wall:.1f} | {base[1] / work:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument(
        "--alone", type=int, default=6, help="rounds of one process a run"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results/study.json")
    args = parser.parse_args()
    about = {"about": machine.about(), "draws": args.draws}
    with tempfile.TemporaryDirectory() as scratch:
        records = measure(args, Path(scratch))
        compared, worst = difference(Path(scratch))
    found = {"records": records, "compared": compared, "largest_difference": worst}
    machine.save(args.out, about | found)
    print(report(records))
    print(
        f"SYNTHETIC. {compared} runs both ways: the largest difference is {worst:.2g}"
    )
    if worst > EQUAL:
        sys.exit(f"the results differ by more than {EQUAL}")


if __name__ == "__main__":
    main()
