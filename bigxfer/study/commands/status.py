"""`status`: how the runs of a study stand, from their folders alone."""

import argparse
from collections import Counter
from contextlib import suppress
from pathlib import Path

ORDER = ("done", "running", "ready", "failed", "waiting", "unchecked", "given up")


def add(commands) -> None:
    p = commands.add_parser("status", help="which runs are done, running, failed")
    p.add_argument("--config", required=True, help="configs/study_NAME.py[:args]")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    p.add_argument("--all", action="store_true", help="a line for each run")
    p.set_defaults(call=show)


def damages(states) -> list[str]:
    """A line for each run whose result is there and cannot be used."""
    return [
        f"not done: {s.node} {s.node.digest}: {s.damage}; a launcher does it again"
        for s in states
        if s.damage
    ]


def show(args: argparse.Namespace) -> None:
    from bigxfer.study import grid

    states = grid.states(grid.nodes(args.config), args.runs)
    for s in states:
        if args.all or s.state in ("running", "failed", "given up"):
            steps = f"{s.step}/{s.steps}" if s.steps else ""
            age = "" if s.age is None else f"{s.age:.0f} s ago"
            tries = f"{len(s.tries)} tries" if len(s.tries) > 1 else ""
            about = "  ".join(filter(None, (steps, age, tries, s.where, s.error)))
            print(f"{s.state:9} {s.node.digest:24} {s.node}  {about}")
    for line in damages(states):
        print(line)
    count = Counter(s.state for s in states)
    print(", ".join(f"{count[k]} {k}" for k in ORDER if count[k]), f"of {len(states)}")
    if when := compared(states, args.runs):
        print(
            f"data compared at {when}: what changed since is found by the next launch,"
            " or by the command of a run"
        )


def compared(states, runs: Path) -> str:
    """When a launcher last compared the data of the finished runs; "": unknown."""
    from bigxfer.runs import folders

    # By what the caches say: a copied or restored file has another mtime.
    times = []
    for s in states:
        if s.node.kind == "cache":
            with suppress(OSError, ValueError):  # not there, or damaged
                result = folders.read(s.node.folder(runs) / "result.json")
                times.append(result.get("finished", ""))
    # The oldest: all were compared at that time or later.
    return min(times, default="")
