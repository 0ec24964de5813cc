"""`report`: one self-contained HTML page of a study."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bigxfer import durable
from bigxfer.config import dry_run
from bigxfer.study import grid
from bigxfer.tables import table_args

if TYPE_CHECKING:
    from bigxfer.tables.cells import PredictionReader

LIMIT = 6_000_000  # bytes of a page


def add(commands) -> None:
    p = commands.add_parser("report", help="one HTML page with every figure")
    table_args.add_arguments(p)
    p.add_argument("--out", type=Path, help="the page; default: beside the table")
    dry_run.add(p)
    p.set_defaults(call=report)


def report(args: argparse.Namespace) -> None:
    from bigxfer.tables import table
    from bigxfer.tables.cells import PredictionReader

    if not args.table and not args.config:  # any runs, of no study
        # A folder of its own, so that no study's table is overwritten.
        args.table = args.runs / "report" / "table.parquet"
        collected = table.collect([args.runs], args.table.parent)
        for folder, why in collected.bad.items():
            print(f"left out: {folder}: {why}")
        if args.dry_run:
            study_table = table_args.checked(collected.rows, args.table, "")
            rehearse(study_table, args.out, args.table.with_suffix(".csv"), args.table)
            return
        table.save(collected.rows, args.table.parent)
    study_table = table_args.given(args)
    if args.dry_run:
        rehearse(study_table, args.out)
        return
    out = args.out or study_table.path.with_name("report.html")
    write(study_table, out, PredictionReader(study_table.find))


def rehearse(given: table_args.Given, out: Path | None, *made: Path) -> None:
    """Say how many runs the page would show and where it would be written.

    `made` are the files that would be written before it.
    """
    page = out or given.path.with_name("report.html")
    print(f"would report {len(given.rows)} runs")
    dry_run.end(*made, *files(page))


def files(out: Path) -> tuple[Path, Path]:
    """(the page, the CSV of its comparisons); ValueError where `out` is no page's name."""
    if out.suffix != ".html":
        raise ValueError(f"--out {out} must end in .html")
    return out, out.with_name(f"{out.stem}_differences.csv")


def write(given: table_args.Given, out: Path, predictions: "PredictionReader") -> None:
    """Builds the page and says where it lies."""
    from bigxfer.report.page import build, comparisons
    from bigxfer.tables import families

    began = time.monotonic()
    _, table = files(out)
    # Compared once, for the page and for the CSV.
    compared = comparisons(given, predictions)
    page = build(given, predictions, unfinished=unfinished(given), families=compared)
    out.parent.mkdir(parents=True, exist_ok=True)
    durable.write(out, page)
    count = families.write(compared, table)
    size = out.stat().st_size
    print(f"wrote {out} ({size / 1e6:.1f} MB, {time.monotonic() - began:.0f} s)")
    print(f"wrote {table} ({count} comparisons)")
    if size > LIMIT:
        print(
            f"the page is over {LIMIT / 1e6:.0f} MB; collect fewer studies into one"
            " table to have smaller ones"
        )


def unfinished(given: table_args.Given) -> list[str] | None:
    """A line for each run of the study's config without a result; None without one."""
    if not given.config:
        return None
    from bigxfer.tables import table

    # The page is of the table: what finished since then is not on it.
    done = {table.node_of(row) for row in given.rows}
    # A study's table lies in RUNS/study_NAME, where `collect` puts it.
    study, runs = grid.nodes(given.config), given.path.parent.parent
    return [
        f"{s.node} {s.node.digest}: {s.state}"
        + (f", step {s.step} of {s.steps or '?'}" if s.step else "")
        + (f", {s.error}" if s.error else "")
        for s in grid.states(study, runs, done)
        if s.state != "done" and s.node.kind != "cache"
    ]
