"""The table of a study with the columns that a notebook needs, small enough for git."""

import csv
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

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
OWN = (  # of runs of ours, whose upstreams are rows too
    "kind",
    "start",
    "width",
    "fraction",
    "upstream_seed",
    "family",
    "protocol",
    "margin",
    "device_seconds",
    "leaked_images",
    "data",
    "upstream_digest",
    "digest",
)
METRICS = ("accuracy", "auroc_macro", "auprc_macro")
ENDS = ("", "_low", "_high")
HEADS = {  # by whether they are of runs of ours
    False: (*COLUMNS, *METRICS),
    True: (*COLUMNS, *OWN, *(f"{name}{end}" for name in METRICS for end in ENDS)),
}
DIGITS = 6  # of the fractions; one of 10,000 test images is 1e-4


def write(rows: Iterable[Row], path: Path) -> int:
    """Writes COLUMNS and METRICS of the transfers, sorted; returns the number of lines.

    Of runs of ours, which know their device-seconds, OWN and the limits of the METRICS too, and
    lines of the upstreams. A value that is unknown is an empty cell. Raises ValueError
    where no row is a transfer.
    """
    rows = list(rows)
    own = any(row.get("device_seconds") is not None for row in rows)
    names = HEADS[own]
    lines = [
        [_cell(row.get(name)) for name in names]
        for row in rows
        if own or row["kind"] == "transfer"
    ]
    if not any(row["kind"] == "transfer" for row in rows):
        raise ValueError("no transfer in the table: nothing to write")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        # Sorted: the same runs give the same file, in whatever order they ended.
        writer.writerows(sorted(lines))
    return len(lines)


def load(path: Path) -> list[Row]:
    """The rows of a table.parquet, a table.csv, or of a file that `write` has made.

    Raises ValueError where it is none of them, or has no transfer.
    """
    if path.suffix == ".parquet":
        rows = table.load(path)
    elif tuple(_header(path)) in HEADS.values():
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
            row: Row = {**dict.fromkeys(table.COLUMNS), "kind": "transfer"}
            row |= {"upstream_digest": "", "synthetic": False, "settings": "{}"}
            # Of what the line says: rows of one cell must have one family.
            row["family"] = table.name_digest(cell)
            row["digest"] = table.name_digest(f"{cell} {line['seed']}")
            row["folder"] = f"{path.name} line {number}"
            row |= _typed(line)
            if "digest" in line:  # by which a bundle knows the run
                row["folder"] = line["digest"]
            for name in METRICS:
                if row.get(name) is None:
                    row.pop(name, None)
                # Their test sets are known, so limits need no predictions.
                elif row["target"] in published.CLASSES:
                    row |= published.limited(name, row[name], row["target"])
            rows.append(row)
    return rows


def _typed(line: dict[str, str]) -> Row:
    """Return the cells in the table's types; an empty one is None, or a digest's ""."""
    out: Row = {}
    for name, text in line.items():
        if table.COLUMNS.get(name) == pa.string():
            # "" is a digest's word for a start from scratch; None would be "unknown".
            out[name] = text or ("" if name == "upstream_digest" else None)
        elif table.COLUMNS.get(name) == pa.int64():
            out[name] = int(text) if text else None
        else:
            out[name] = float(text) if text else None
    return out


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    return "" if value is None else str(value)
