"""`watch`: a live table of a study's runs, until all have ended or Ctrl-C.

Without a terminal it prints a line whenever the counts have changed.
"""

import argparse
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from bigxfer.study.grid import Standing

COLUMNS = ("done", "running", "ready", "waiting", "failed", "given up")
ENDED = ("done", "given up")
ROWS = 12  # running and failed runs that are named


def add(commands) -> None:
    p = commands.add_parser("watch", help="a live table of the runs")
    p.add_argument("--config", required=True, help="configs/study_NAME.py[:args]")
    p.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    p.add_argument("--every", type=float, default=5.0, help="seconds between two looks")
    p.set_defaults(call=show)


def show(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with suppress(KeyboardInterrupt):
        if not console.is_terminal:
            lines(args)
            return
        # A thread of rich's own would redraw between two looks, of the same numbers.
        with Live(auto_refresh=False, console=console) as live:
            for states in looks(args):
                live.update(picture(states), refresh=True)


def looks(args: argparse.Namespace) -> "Iterator[Sequence[Standing]]":
    """How the runs stand, every `args.every` seconds, until all have ended."""
    from bigxfer.study import grid

    # `done` fills up with the digests that need no second look.
    study, done = grid.nodes(args.config), set()
    while True:
        states = grid.states(study, args.runs, done)
        yield states
        if all(s.state in ENDED for s in states):
            return
        time.sleep(args.every)


def lines(args: argparse.Namespace) -> None:
    """For a pipe or a file: a line where the counts have changed, one for each failure."""
    before, told = "", set()
    for states in looks(args):
        count = Counter(s.state for s in states)
        # An unchecked run is done or not: a launcher compares its data first.
        count["ready"] += count.pop("unchecked", 0)
        said = ", ".join(f"{count[name]} {name}" for name in COLUMNS if count[name])
        if said != before:
            print(f"{time.strftime('%H:%M:%S')}  {said}, of {len(states)}", flush=True)
        before = said
        for s in states:
            if (
                s.state in ("failed", "given up")
                and (s.node.digest, s.state) not in told
            ):
                told.add((s.node.digest, s.state))
                words = filter(None, (str(s.node), s.state, s.where, s.error))
                print(f"          {', '.join(words)}", flush=True)


def picture(states: "Sequence[Standing]") -> "Table":
    """A row for each net and start, with its runs by state; then what runs and what failed."""
    from rich.table import Table

    done = sum(s.state == "done" for s in states)
    table = Table(title=f"{done} of {len(states)} done", title_justify="left")
    table.add_column("runs")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    groups: dict[str, Counter] = {}
    for s in states:
        name = str(s.node).partition(",")[0]  # without shots and draw
        groups.setdefault(name, Counter())[s.state] += 1
    for name, count in groups.items():
        # An unchecked run is done or not: a launcher compares its data first.
        count["ready"] += count.pop("unchecked", 0)
        table.add_row(name, *(str(count[column] or "") for column in COLUMNS))
    table.add_section()
    named = [s for s in states if s.state in ("running", "failed", "given up")]
    for s in named[:ROWS]:
        step = f"step {s.step} of {s.steps}" if s.steps else ""
        words = ", ".join(filter(None, (str(s.node), s.state, step, s.where, s.error)))
        table.add_row(words)
    if len(named) > ROWS:
        table.add_row(f"and {len(named) - ROWS} more")
    return table
