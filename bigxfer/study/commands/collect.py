"""`collect`: run folders and published CSVs become one table, one row a run."""

import argparse
from collections import Counter
from pathlib import Path

from bigxfer.config import dry_run


def add(commands) -> None:
    p = commands.add_parser("collect", help="one row a run, as CSV and Parquet")
    p.add_argument("--config", default="", help="a study: only its runs are taken")
    p.add_argument("--runs", type=Path, nargs="+", default=[], help="folders of runs")
    text = "folders of results/*.csv (arXiv 2106.00116) or of probes (arXiv 2212.07143)"
    p.add_argument("--published", type=Path, nargs="+", default=[], help=text)
    p.add_argument("--out", type=Path, help="where the table goes; RUNS/study_NAME")
    p.add_argument("--study", default="", help="its name; default: the runs' folder")
    p.add_argument("--long", type=Path, help="also the predecessor's long CSV")
    p.add_argument("--compact", type=Path, help="also a small CSV for notebooks")
    dry_run.add(p)
    p.set_defaults(call=collect)


def of_study(rows: list, args: argparse.Namespace) -> list:
    """The rows of a study's runs, but those known to be of other data, which it names."""
    from bigxfer.study import grid
    from bigxfer.tables import table

    study = grid.nodes(args.config)
    digests = {node.digest for node in study}
    other = {
        state.node.digest: state.error
        for state in grid.states(study, args.runs[0])
        if state.state == "given up" and not state.tries
    }
    node_of_row = {row["folder"]: table.node_of(row) for row in rows}
    # A line for each node, not for each draw of a cell.
    for error in {node: other.get(node) for node in node_of_row.values()}.values():
        if error:
            print(f"  left out: {error}")
    kept = digests - set(other)
    return [row for row in rows if node_of_row[row["folder"]] in kept]


def data_lines(rows: list) -> list[str]:
    """A line for each set of data that the rows are of."""
    counts = Counter((row["target"], row["data"]) for row in rows)
    return [
        f"  {target}, data {data}: {runs} runs"
        for (target, data), runs in counts.items()
    ]


def _published(folder: Path) -> list:
    """The rows of other authors' runs; prints what a reader of them must know."""
    from bigxfer.tables import probes, published

    if (folder / probes.FILE).is_file():
        rows = probes.read(folder)
        cells = len(probes.cells(rows))
        print(f"{len(rows)} published probes of {cells} cells, one seed")
        return rows
    runs = published.read(folder)
    print(
        f"{len(runs.rows)} published runs from {runs.lines} lines,"
        f" {runs.duplicates} of them repeated"
    )
    for line in runs.short:
        print(f"  stopped early: {line}")
    for line in runs.missing:
        print(f"  missing: {line}")
    return runs.rows


def collect(args: argparse.Namespace) -> None:
    # Here and not above: --help is quicker without pyarrow.
    from bigxfer.tables import compact, published, table

    if args.config:
        name = Path(args.config.partition(":")[0]).stem
        args.runs = args.runs or [Path("runs")]
        args.out, args.study = args.out or args.runs[0] / name, args.study or name
    if not args.runs and not args.published:
        raise ValueError("collect needs --config FILE, --runs FOLDER or --published F")
    if not args.out:
        raise ValueError("collect needs --out FOLDER, where the table goes")
    rows = []
    if args.runs:
        collected = table.collect(args.runs, args.out, args.study)
        rows += of_study(collected.rows, args) if args.config else collected.rows
        print(
            f"{len(collected.rows)} finished runs ({collected.read} read anew),"
            f" {len(collected.unfinished)} unfinished, {len(collected.bad)} unreadable"
        )
        for folder, line in collected.bad.items():
            print(f"  unreadable: {folder}: {line}")
        for line in data_lines(rows):
            print(line)
    for folder in args.published:
        rows += _published(folder)
    if not rows:
        raise ValueError("no finished run: nothing to write")
    if args.dry_run:
        print(f"would write a table of {len(rows)} rows")
        written = args.out / "table.csv", args.out / "table.parquet"
        dry_run.end(*filter(None, (*written, args.long, args.compact)))
        return
    table.save(rows, args.out)
    print(f"wrote {args.out / 'table.csv'} and {args.out / 'table.parquet'}")
    for path, write in (
        (args.long, published.export_long),
        (args.compact, compact.write),
    ):
        if path:
            print(f"wrote {path} ({write(rows, path)} lines)")
