"""A study, before, while and after its runs.

  python -m bigxfer.study list --config configs/study_demo.py
  python -m bigxfer.study plan --config configs/study_demo.py --half-width 0.02
  python -m bigxfer.study status --config configs/study_demo.py
  python -m bigxfer.study watch --config configs/study_demo.py      # the same, live
  python -m bigxfer.study collect --config configs/study_demo.py
  python -m bigxfer.study collect --runs runs --out DIR
  python -m bigxfer.study collect --published PUBLISHED --out DIR
  python -m bigxfer.study fit --table DIR/table.parquet --out DIR
  python -m bigxfer.study report --table DIR/table.parquet --out report.html
  python -m bigxfer.study report --runs runs      # of all runs there, of no study

fit and report also take --config configs/study_NAME.py in the place of --table.
collect writes DIR/table.csv and DIR/table.parquet, one row a run, from run folders,
from other authors' files (arXiv 2106.00116, 2212.07143), or from all; again, it reads only what
changed. --long FILE adds the predecessor's long CSV.
"""

import argparse
import sys

# They import what they need when they are called: --help waits for none of it.
from bigxfer.study.commands import collect, fit, listing, plan, report, status, watch

# Each adds its parser, whose `call` takes the arguments.
COMMANDS = (
    listing,
    plan,
    status,
    watch,
    collect,
    fit,
    report,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigxfer.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
    args = parser.parse_args()
    try:
        args.call(args)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
