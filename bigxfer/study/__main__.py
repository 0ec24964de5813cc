"""The tables of a study.

  python -m bigxfer.study collect --runs runs --out DIR
  python -m bigxfer.study collect --published PUBLISHED --out DIR

collect writes DIR/table.csv and DIR/table.parquet, one row a run, from run folders,
from the published CSVs of arXiv 2106.00116, or from both; again, it reads only what
changed. --long FILE adds the predecessor's long CSV.
"""

import argparse
import sys
from pathlib import Path


def collect(args: argparse.Namespace) -> None:
    # Here and not above: --help is quicker without pyarrow.
    from bigxfer.study import published, table

    if not args.runs and not args.published:
        raise ValueError("collect needs --runs FOLDER, --published FOLDER, or both")
    rows = []
    if args.runs:
        found = table.collect(args.runs, args.out, args.study)
        rows += found.rows
        print(
            f"{len(found.rows)} finished runs ({found.read} read anew),"
            f" {len(found.unfinished)} unfinished, {len(found.bad)} unreadable"
        )
        print(*(f"  unreadable: {line}" for line in found.bad), sep="\n", end="")
    if args.published:
        found = published.read(args.published)
        rows += found.rows
        print(
            f"{len(found.rows)} published runs from {found.lines} lines,"
            f" {found.duplicates} of them repeated"
        )
        for line in found.short:
            print(f"  stopped early: {line}")
        for line in found.missing:
            print(f"  missing: {line}")
    if not rows:
        raise ValueError("no finished run: nothing to write")
    table.save(rows, args.out)
    print(f"wrote {args.out / 'table.csv'} and {args.out / 'table.parquet'}")
    if args.long:
        print(f"wrote {args.long} ({table.export_long(rows, args.long)} lines)")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("collect", help="one row a run, as CSV and Parquet")
    p.add_argument("--runs", type=Path, nargs="+", default=[], help="folders of runs")
    p.add_argument("--published", type=Path, help="folder that holds results/*.csv")
    p.add_argument("--out", type=Path, required=True, help="where the table goes")
    p.add_argument("--study", default="", help="its name; default: the runs' folder")
    p.add_argument("--long", type=Path, help="also the predecessor's long CSV")
    p.set_defaults(call=collect)
    args = parser.parse_args()
    try:
        args.call(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
