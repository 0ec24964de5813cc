"""The table of a study with the columns that a notebook needs, small enough for git."""

import csv
from collections.abc import Iterable
from pathlib import Path

from bigxfer.tables.table import Row

COLUMNS = (
    "upstream",
    "upstream_size",
    "model",
    "params",
    "target",
    "target_size",
    "test_images",
    "shots",
    "seed",
    "steps",
)
METRICS = ("accuracy", "auroc_macro", "auprc_macro")
DIGITS = 6  # of the fractions; one of 10,000 test images is 1e-4


def write(rows: Iterable[Row], path: Path) -> int:
    """Writes COLUMNS and METRICS of the transfers, sorted; returns the number of lines.

    A value that is unknown is an empty cell. Raises ValueError where no row is a
    transfer.
    """
    lines = [
        [_cell(row.get(name)) for name in (*COLUMNS, *METRICS)]
        for row in rows
        if row["kind"] == "transfer"
    ]
    if not lines:
        raise ValueError("no transfer in the table: nothing to write")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*COLUMNS, *METRICS))
        writer.writerows(sorted(lines))
    return len(lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    return "" if value is None else str(value)
