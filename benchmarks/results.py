"""Rewrite the tables of docs/results.md from runs of this commit: `make results`.

  PYTHONPATH=. python benchmarks/results.py [--data FOLDER] [--runs results_runs]

Runs the studies that the page names between <!-- results: CONFIG --> and <!-- end -->,
those of {data} only with --data (a folder with nih64 and covid_cxr), and puts the table
that the launcher prints in place of the old one. The demo takes six minutes on two idle
cores, study_covid_cxr.py ten. Studies that are done are not run again. docs/coverage.md
quotes some of these numbers: tests/test_coverage.py names those that differ afterwards.
"""

import argparse
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from bigxfer import durable
from bigxfer.runs import folders
from bigxfer.tables import cells, summary, table

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="folder with nih64 and covid_cxr")
    parser.add_argument("--runs", type=Path, default=Path("results_runs"))
    args = parser.parse_args()
    commit = folders.commit()
    if commit.endswith("-dirty"):
        sys.exit("error: bigxfer/ has changes that no commit holds: commit them first")
    text = PAGE.read_text()
    for _, config, _ in BLOCK.findall(text):
        if "{data}" in config and not args.data:
            print(f"left as it is, for want of --data: {config}")
            continue
        name = config.format(data=args.data)
        call = [sys.executable, "-m", "launch.local", "--config", name]
        subprocess.run([*call, "--runs", str(args.runs)], check=True)
        made = of_study(args.runs / Path(name.partition(":")[0]).stem)
        when = f"Commit {commit[:12]}, {datetime.now(UTC):%Y-%m-%d}."
        text = rewritten(text, config, made, when)
    durable.write(PAGE, text)


def of_study(folder: Path) -> str:
    """The terminal's table of a study, from the table.parquet that a launcher wrote."""
    rows = table.load(folder / "table.parquet")
    return summary.text(rows, cells.PredictionReader())


def rewritten(text: str, config: str, made: str, when: str) -> str:
    """The page with this table in the block of this config."""
    lines = (f"    {line}".rstrip() for line in made.strip().splitlines())
    block = "\n".join(["", *lines, "", when, ""])

    def replace(match: re.Match) -> str:
        mine = match[2] == config
        return f"{match[1]}{block}{match[3]}" if mine else match[0]

    return BLOCK.sub(replace, text)


if __name__ == "__main__":
    main()
