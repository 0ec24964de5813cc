"""The cells of configs/study_encoders.py, as a CSV to keep and tables to print.

    PYTHONPATH=. python benchmarks/encoders.py --table RUNS/study_encoders/table.parquet --out FILE.csv

Macro AUROC with the 95% interval of the page and what it covers; the labels that trained and
that chose; what was tuned, and how many runs chose an end of their grid. The printed tables are
those of docs/encoders.md: one a target, a row for each start, the labels in the head.
"""

import argparse
import csv
from pathlib import Path

from bigxfer.tables import cells, estimates, lines, table, table_args
from bigxfer.tables.table import Row

METRIC = "auroc_macro"


def ends(values: list) -> str:
    """The least and the largest of what is known: "15 to 16", or "15"."""
    known = sorted({value for value in values if value is not None})
    return " to ".join(dict.fromkeys(map(str, (known[:1] + known[-1:]))))


def cell(runs: list[Row], predictions: cells.PredictionReader) -> dict[str, str]:
    """One line: the mean of a cell's runs, and what they have used."""
    first, found = runs[0], estimates.estimate(runs, METRIC, predictions)
    edge = sum(bool(row["edge"]) for row in runs)
    return {
        **{k: first[k] for k in ("target", "line", "model", "start", "shots")},
        "runs": str(len(runs)),
        "labels_training": ends([row["labels_training"] for row in runs]),
        "labels_selection": ends([row["labels_selection"] for row in runs]),
        "select_on": first["select_on"],
        "tuned": first["tuned"] + f", {edge} at an end" * bool(edge),
        METRIC: f"{found.value:.3f}",
        "low": f"{found.low:.3f}",
        "high": f"{found.high:.3f}",
        "covers": found.covers,
    }


def name(row: dict[str, str]) -> str:
    """A start in words: "efficientnet_lite0, imagenet, ridge head"."""
    said = f"{row['model']}, {row['line']}"  # a line may say its start itself
    start = row["start"] or "trained"
    return said if said.endswith(start) else f"{said}, {start}"


def pivot(found: list[dict[str, str]]) -> str:
    """The cells of one target in Markdown: starts x shots."""
    shots, starts = ([*dict.fromkeys(c[k] for c in found)] for k in ("shots", "start"))
    used = {
        c["shots"]: f"{c['labels_training']} + {c['labels_selection']}" for c in found
    }
    heads = [f"{s} ({used[s]})" for s in shots]
    text = f"| {found[0]['target']}, shots (labels to train + to choose) | "
    text += " | ".join(heads) + " |\n" + "|---" * (len(shots) + 1) + "|\n"
    at = {(c["start"], c["shots"]): c for c in found}
    for start in starts:
        values = [
            f"{c[METRIC]} [{c['low']}, {c['high']}]" if c else "not run"
            for c in (at.get((start, s)) for s in shots)
        ]
        text += f"| {start} | " + " | ".join(values) + " |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    given = table_args.Given(table.load(args.table), args.table, "")
    rows, _ = lines.lines(given.rows)
    predictions = cells.PredictionReader(given.find)
    groups = cells.group(rows, METRIC, "target", "line", "model", "shots")
    order = sorted(groups, key=lambda key: (key[0], lines.rank(key[3]), *key[1:3]))
    made = [cell(list(groups[key].values()), predictions) for key in order]
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, made[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    for target in dict.fromkeys(row["target"] for row in made):
        named = [row | {"start": name(row)} for row in made if row["target"] == target]
        print(pivot(named))


if __name__ == "__main__":
    main()
