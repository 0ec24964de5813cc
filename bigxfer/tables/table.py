"""The tidy table of a study: one row a run, from its config.json and result.json.

Columns are COLUMNS, then for every metric NAME its value (a fraction, not percent;
loss in nats), NAME_low and NAME_high, the 95% interval over test patients. What is
unknown is null. table.parquet is also the cache: a run whose result.json has not
changed since is not read again.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from bigxfer import durable
from bigxfer.tables.run_row import Row, config_alone, read_run, said

COLUMNS: dict[str, pa.DataType] = {
    "study": pa.string(),
    "kind": pa.string(),  # upstream or transfer
    "upstream": pa.string(),  # data set the parameters come from; "scratch" for none
    "upstream_size": pa.int64(),  # its distinct training images
    "upstream_examples": pa.int64(),  # images seen in training on it
    "upstream_distance": pa.float64(),  # of the phantom's domain; null for real data
    "upstream_digest": pa.string(),
    "upstream_seed": pa.int64(),  # of its training; null: no upstream, or unknown
    "model": pa.string(),  # such as R50x1
    "depth": pa.int64(),
    "width": pa.float64(),
    "params": pa.int64(),  # head included
    "init": pa.string(),
    "start": pa.string(),  # what is taken of the upstream, what is fixed; null: all, none
    "target": pa.string(),
    "target_size": pa.int64(),  # training images, after the draw
    "target_distance": pa.float64(),
    "shots": pa.string(),  # a class, or "full"
    "seed": pa.int64(),  # of the draw and of training
    "margin": pa.float64(),  # differences within it count as none, as the config says
    "family": pa.string(),  # digest of all but the seeds: only such runs are averaged
    "settings": pa.string(),  # JSON of the config's fields that are not at their default
    "fraction": pa.float64(),  # of the training set, before the draw
    "sampling": pa.string(),  # uniform, classes or covid_percent
    "mix": pa.string(),  # shares of a union's sets, "0.5:0.5"; null: by size
    "space": pa.string(),  # of a union's labels: union or intersection
    "protocol": pa.string(),
    "steps": pa.int64(),
    "images": pa.int64(),  # seen in training
    "flops": pa.float64(),
    "device_seconds": pa.float64(),
    "test_images": pa.int64(),
    "test_patients": pa.int64(),
    "leaked_patients": pa.int64(),  # of the test, that the upstream saw; null: unknown
    "leaked_images": pa.int64(),  # of the test, equal to one that the upstream saw
    "lacking": pa.string(),  # why there is no macro mean: the classes without labels
    "labels_training": pa.int64(),  # images whose labels trained
    "labels_selection": pa.int64(),  # further images, whose labels chose anything
    "select_on": pa.string(),  # by which it chose: none, support or validation
    "tuned": pa.string(),  # what was chosen from how many: "rate of 4"; or "untuned"
    "chosen": pa.float64(),  # the value: a rate, a penalty, a number of neighbours
    "edge": pa.string(),  # lowest or highest, where it is an end of its grid
    "synthetic": pa.bool_(),
    "data": pa.string(),  # 16 hex digits of its content, wherever it lies
    "digest": pa.string(),
    "commit": pa.string(),
    "folder": pa.string(),
    "changed_ns": pa.int64(),  # mtime of result.json, by which the cache knows it
}


@dataclass
class Collected:
    """The rows found, and what was found that is no row."""

    rows: list[Row] = field(default_factory=list)
    read: int = 0  # folders opened, the others came from the cache
    unfinished: list[str] = field(default_factory=list)  # a config.json alone
    bad: dict[str, str] = field(default_factory=dict)  # folder -> what is wrong


def collect(runs: Sequence[Path], out: Path, study: str = "") -> Collected:
    """Rows of all finished runs in the folders `runs`, reading only what is new.

    `out` holds the table.parquet of an earlier call, if any. `study` names the study;
    "" takes the name of the folder that holds the runs. Raises FileNotFoundError
    where one of `runs` is no folder; a run that cannot be read is listed in `bad`.
    """
    try:
        known = {row["folder"]: row for row in load(out / "table.parquet")}
    except ValueError:  # damaged: every run is read anew
        known = {}
    collected, sources = Collected(), []
    for root in runs:
        if not root.is_dir():
            raise FileNotFoundError(f"no folder of runs at {root}")
        name = study or root.resolve().name
        for folder in run_folders(root):
            try:
                changed = os.stat(folder / "result.json").st_mtime_ns
            except (FileNotFoundError, NotADirectoryError):
                if (folder / "config.json").is_file():
                    collected.unfinished.append(str(folder))
                continue
            row = known.get(str(folder))
            if row is None or row["changed_ns"] != changed:
                try:
                    row = read_run(folder)
                except (ValueError, OSError, KeyError, TypeError) as error:
                    collected.bad[str(folder)] = said(error)
                    sources += config_alone(folder)
                    continue
                collected.read += 1
            row.update(study=name, changed_ns=changed)
            collected.rows.append(row)
    _join_upstreams(collected.rows, [*sources, *collected.rows])
    return collected


def run_folders(root: Path) -> Iterator[Path]:
    """What lies in a folder of runs, by name; of a cell, the folders of its draws."""
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        draws = Path(entry.path) / "draws"
        if draws.is_dir():
            yield from sorted(draws.iterdir())
        else:
            yield Path(entry.path)


def node_of(row: Row) -> str:
    """Return the digest of the study's run that a row is of (a draw: its cell's)."""
    folder = Path(row["folder"])
    return folder.parents[1].name if folder.parent.name == "draws" else row["digest"]


def _join_upstreams(rows: list[Row], sources: list[Row]) -> None:
    """Fills what a transfer's row takes from the row of its upstream, in place."""
    by_digest = {row["digest"]: row for row in sources}
    for row in rows:
        if source := by_digest.get(row["upstream_digest"] or None):
            row["upstream"] = source["target"]
            row["upstream_size"] = source["target_size"]
            row["upstream_examples"] = source["images"]
            row["upstream_distance"] = source["target_distance"]


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The metrics (without _low and _high) that any of the rows has a value of."""
    names = dict.fromkeys(
        n for row in rows for n, v in row.items() if v is not None and n not in COLUMNS
    )
    ends = {f"{n}{end}" for n in names for end in ("_low", "_high")}
    return [n for n in names if n not in ends]


def to_arrow(rows: list[Row]) -> pa.Table:
    """The table in the order of COLUMNS, then the metrics by name."""
    fields = list(COLUMNS.items())
    for name in sorted(metric_names(rows)):
        fields += [(f"{name}{end}", pa.float64()) for end in ("", "_low", "_high")]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def load(path: Path) -> list[Row]:
    """The rows of a table.parquet; none where there is none of these COLUMNS.

    ValueError where it is damaged: its pages have checksums.
    """
    if not path.is_file():
        return []
    try:
        read = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it, and collect again"
        ) from error
    if read.column_names[: len(COLUMNS)] != list(COLUMNS):
        return []  # of another version of this file
    return read.to_pylist()


def save(rows: list[Row], out: Path) -> None:
    """Writes table.parquet and table.csv into the folder `out`, each atomically."""
    out.mkdir(parents=True, exist_ok=True)
    table = to_arrow(rows)
    for name, write in (
        ("table.csv", pa.csv.write_csv),
        ("table.parquet", partial(pq.write_table, write_page_checksum=True)),
    ):
        with durable.replacing(out / name) as temporary:
            write(table, temporary)


def name_digest(text: str) -> str:
    """16 hex digits for a run that has no config of ours."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
