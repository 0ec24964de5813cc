"""The table of a study with the columns that a notebook needs, small enough for git."""

import csv
from collections.abc import Iterable
from pathlib import Path

from bigxfer.tables import published, table, table_args
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


def load(path: Path) -> list[Row]:
    """The rows of a table.parquet, a table.csv, or of a file that `write` has made.

    Raises ValueError where it is none of them, or has no transfer.
    """
    if path.suffix == ".parquet":
        rows = table.load(path)
    elif _header(path) == [*COLUMNS, *METRICS]:
        rows = _read(path)
    else:
        rows = table_args.read_csv(path)
    if not any(row["kind"] == "transfer" for row in rows):
        raise ValueError(f"{path} holds no finished transfer of this version's table")
    return rows


def _header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _read(path: Path) -> list[Row]:
    """What `write` has kept, in the columns of the table.

    Metrics of the published targets have the limits that their numbers of test images
    allow (published.limited); of others none, since predictions are not at hand.
    """
    rows = []
    with path.open(newline="") as file:
        for number, line in enumerate(csv.DictReader(file), 2):
            cell = " ".join(line[k] for k in ("upstream", "upstream_size", "model"))
            cell += f" {line['target']} {line['shots']}"
            texts = {k: line[k] for k in ("upstream", "model", "target", "shots")}
            counts = {
                k: int(line[k]) if line[k] else None for k in COLUMNS if k not in texts
            }
            row: Row = {**dict.fromkeys(table.COLUMNS), **texts, **counts}
            row |= {"kind": "transfer", "family": table.name_digest(cell)}
            row |= {"upstream_digest": "", "synthetic": False, "settings": "{}"}
            row["folder"] = f"{path.name} line {number}"
            row["digest"] = table.name_digest(f"{cell} {line['seed']}")
            for name in filter(line.__getitem__, METRICS):
                value = float(line[name])
                row[name] = value
                if row["target"] in published.CLASSES:
                    row |= published.limited(name, value, row["target"])
            rows.append(row)
    return rows


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    return "" if value is None else str(value)
