"""What the terminal shows: a run that is done, and tables as aligned text."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigxfer.data import exposure
from bigxfer.runs.markdown import cell


def show(result: dict[str, Any], folder: Path) -> None:
    """Print what result.json says: metrics with their intervals, leaks, the folder."""
    mark = "SYNTHETIC " if result["synthetic"] else ""
    print(f"\n{mark}test metrics with 95% intervals over patients")
    for name, entry in result["metrics"].items():
        reason = entry.get("reason", "" if entry["low"] is not None else "no interval")
        print(f"  {name:28} {cell(entry):5}  {reason}".rstrip())
    for where, leaks in result.get("leaks", {}).items():
        # Only leaks that are there: the card lists the others.
        if leaks["first"]:
            print(exposure.line(where, leaks))
    print(f"run folder: {folder}")


def columns(
    titles: Sequence[str],
    rows: Sequence[Sequence[object]],
    left: Sequence[int] = (0,),
) -> str:
    """Return a table as plain text, as wide as its cells: the columns `left` to the left,
    the others right."""
    from rich.console import Console  # 0.1 s, and a run in a launcher prints no table
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for i, title in enumerate(titles):
        how = "left" if i in left else "right"
        table.add_column(Text(title), justify=how, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))  # Text: [ is no markup
    # No colours, and far wider than any table: what is read on a terminal and what a pipe
    # keeps are the same. rich would else fold cells at the terminal's width.
    console = Console(file=io.StringIO(), color_system=None, width=100_000)
    with console.capture() as text:
        console.print(table)
    return "\n".join(line.rstrip() for line in text.get().splitlines())
