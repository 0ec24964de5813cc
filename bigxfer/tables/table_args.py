"""The table that `fit` and `report` were given: a file, or a study's config."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bigxfer.tables.table import Row

SCALES = {  # columns that a line may run along: their units in words
    "shots": "shots",
    "upstream_examples": "upstream images seen",
    "upstream_size": "upstream images",
    "params": "parameters",
}


class Given(NamedTuple):
    """The rows, where they stand, and the place from which their folders are named."""

    rows: "list[Row]"
    path: Path
    config: str  # "" where a table was given

    def find(self, folder: str) -> Path:
        """Where the run folder of a row is: as named, or beside the table's folder."""
        named = Path(folder)
        parts = 3 if named.parent.name == "draws" else 1  # CELL/draws/DIGEST
        beside = self.path.resolve().parent.parent.joinpath(*named.parts[-parts:])
        return beside if not named.is_dir() and beside.is_dir() else named


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--table", type=Path, help="table.parquet or table.csv of collect")
    p.add_argument("--config", default="", help="or a study: configs/study_NAME.py")
    p.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="with --config: its table is RUNS/study_NAME/table.parquet; `report` with"
        " --runs alone takes all runs in it",
    )


def given(args: argparse.Namespace) -> Given:
    """ValueError or FileNotFoundError that says what to do where there is no table."""
    from bigxfer.tables.table import load  # imports pyarrow: --help should not wait

    if bool(args.table) == bool(args.config):
        raise ValueError("give --table FILE or --config FILE, one of them")
    path = args.table
    if args.config:
        name = Path(args.config.partition(":")[0]).stem
        path = args.runs / name / "table.parquet"
    if not path.is_file():
        how = f"--runs {args.runs} --out {path.parent}" if args.config else "--out DIR"
        raise FileNotFoundError(
            f"no table at {path}; `python -m bigxfer.study collect {how}` writes it"
        )
    rows = read_csv(path) if path.suffix == ".csv" else load(path)
    return checked(rows, path, args.config)


def checked(rows: "list[Row]", path: Path, config: str) -> Given:
    """The rows of the table at `path`; ValueError where they hold no finished transfer."""
    if not rows:
        raise ValueError(
            f"{path} has no rows, or the columns of another version: collect it anew"
        )
    if not any(row["kind"] == "transfer" for row in rows):
        raise ValueError(f"{path} holds no finished transfer yet")
    return Given(rows, path, config)


def read_csv(path: Path) -> "list[Row]":
    """The rows of a table.csv; ValueError where it lacks a column."""
    import pyarrow as pa
    from pyarrow import csv

    from bigxfer.tables.table import COLUMNS

    types = csv.ConvertOptions(
        # Not guessed: a digest of digits alone would become a number.
        column_types=COLUMNS,
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    try:
        columns = csv.read_csv(path, convert_options=types)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: {error}") from error
    if missing := [name for name in COLUMNS if name not in columns.column_names]:
        raise ValueError(
            f"{path} lacks the columns {', '.join(missing)}: collect it anew"
        )
    for i, field in enumerate(columns.schema):  # a metric that no run has
        if pa.types.is_null(field.type):
            empty = pa.nulls(len(columns), pa.float64())
            columns = columns.set_column(i, field.name, empty)
    return columns.to_pylist()
