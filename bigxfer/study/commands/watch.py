"""`watch`: a live table of a study's runs, until all have ended or Ctrl-C."""

import argparse
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    from rich.live import Live

    from bigxfer.study import grid

    # `done` fills up with the digests that need no second look.
    study, done = grid.nodes(args.config), set()
    # A thread of rich's own would redraw between two looks, of the same numbers.
    with Live(auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            states = grid.states(study, args.runs, done)
            live.update(picture(states), refresh=True)
            if all(s.state in ENDED for s in states):
                return
            time.sleep(args.every)


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
