"""Label files read strictly: every complaint names the file, the line and the field."""

import csv
import difflib
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from bigxfer.data.manifest import Manifest, is_age
from bigxfer.data.readers import spellings

BATCH = 256  # rows held as lists; more keep the garbage collector busy (3x)
SEE = "docs/datasets.md shows the layout and how to obtain the data"


class DataError(ValueError):
    """Data that is not what its format says; the message says where."""


@dataclass(frozen=True)
class Table:
    """A CSV file as columns of strings, with the line each row ends on."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, name: str) -> list[str]:
        return self.columns[name]

    def fail(self, row: int, message: str) -> NoReturn:
        raise DataError(f"{self.path}, line {self.lines[row]}: {message}")

    def column(self, *names: str) -> str:
        """The first of these names that the table has; DataError without one."""
        for name in names:
            if name in self.columns:
                return name
        wanted, have = " or ".join(map(repr, names)), list(self.columns)
        # Most missing columns are there under another spelling.
        close = difflib.get_close_matches(names[0], have, n=1, cutoff=0.5)
        hint = f"; rename {close[0]!r}, if that is it" if close else ""
        raise DataError(
            f"{self.path}, line 1: no column {wanted} among {', '.join(have)}{hint}"
        )

    def values(self, name: str, known: Mapping[str, Any]) -> list:
        """The column translated by `known`; DataError at a value outside it."""
        try:
            return [known[value] for value in self.columns[name]]
        except KeyError as error:
            row = self.columns[name].index(error.args[0])
            self.fail(row, f"{name} is {error.args[0]!r}; it may be {list(known)}")

    def groups(self, name: str, pattern: str, hint: str) -> list[list[str]]:
        """A list for each group of the pattern, which every cell must match whole."""
        compiled = re.compile(pattern)
        out: list[list[str]] = [[] for _ in range(compiled.groups)]
        for row, value in enumerate(self.columns[name]):
            if not (match := compiled.fullmatch(value)):
                self.fail(row, f"{name} is {value!r}; {hint} expected")
            for cells, cell in zip(out, match.groups()):
                cells.append(cell)
        return out

    def check_unique(self, name: str, values: Sequence[str] = ()) -> None:
        """DataError where a cell, or what `values` makes of it, stands twice."""
        first: dict[str, int] = {}
        for row, value in enumerate(values or self.columns[name]):
            if (before := first.setdefault(value, row)) != row:
                self.fail(
                    row, f"{name} {value!r} stands on line {self.lines[before]} too"
                )

    def check_spellings(self, name: str, values: Sequence[str] = ()) -> None:
        """DataError for two cells, or two `values` of them, that look like one."""
        # By value, not by row: half a million rows hold few names.
        cells = list(values or self.columns[name])

        def place(value: str) -> str:
            return f"line {self.lines[cells.index(value)]}"

        check_spellings(f"{self.path}: {name}", dict.fromkeys(cells), place)

    def marks(self, names: Sequence[str]) -> np.ndarray:
        """float32 [n, len(names)] of 1, 0, -1 (uncertain) and NaN (blank)."""
        out = np.empty((len(self), len(names)), np.float32)
        for i, name in enumerate(names):
            # Each distinct cell once: a column of 200,000 rows holds five.
            known = {cell: spellings.mark(cell) for cell in set(self.columns[name])}
            if None in known.values():
                bad = {cell for cell, mark in known.items() if mark is None}
                row = next(r for r, c in enumerate(self.columns[name]) if c in bad)
                cell = self.columns[name][row]
                self.fail(row, f"{name} is {cell!r}; 1, 0, -1 or blank expected")
            out[:, i] = [known[cell] for cell in self.columns[name]]
        return out

    def patients(self, name: str) -> str:
        """What the notes say of this column: "" where it tells patients apart.

        Raises DataError for an empty cell, one that names nobody beside others that
        do, and for two spellings of one patient.
        """
        self.check_filled(name)
        values = self.columns[name]
        # An interval over one patient would have no width.
        if len(set(values)) == 1 < len(values):
            return f"unknown: all images bear the {name} {values[0]!r}"
        # One "unknown" among names would be a patient with the images of many people.
        nobody = {v for v in set(values) if v.casefold() in spellings.NAMELESS}
        if nobody:
            row = next(row for row, value in enumerate(values) if value in nobody)
            self.fail(
                row,
                f"{name} is {values[row]!r}, which is nobody, though other rows have"
                " patients; name this one too, or remove the row",
            )
        self.check_spellings(name)
        return ""

    def people(self, sex: str, age: str) -> dict[str, list[str]]:
        """{"sex": F, M or "", "age": years or ""} of these columns, where they are there.

        What is no sex and no age, or an age that nobody has, is unknown: no label hangs
        on it.
        """
        out = {}
        if sex in self.columns:
            out["sex"] = [spellings.sex(cell) or "" for cell in self.columns[sex]]
        if age in self.columns:
            known = {cell: spellings.age(cell) or "" for cell in set(self.columns[age])}
            known = {
                cell: years if is_age(years) else "" for cell, years in known.items()
            }
            out["age"] = [known[cell] for cell in self.columns[age]]
        return out

    def check_filled(self, name: str) -> None:
        if "" in self.columns[name]:
            self.fail(self.columns[name].index(""), f"{name} is empty")


def check_spellings(
    what: str, names: Iterable[str], place: Callable[[str], str]
) -> None:
    """DataError where two of these are spellings of one by `fold`; `place` says where.

    Nobody can tell from here whether "007" and "7" are one patient, so neither is taken.
    """
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(spellings.fold(name), name)) != name:
            raise DataError(
                f"{what} {name!r} ({place(name)}) and {other!r} ({place(other)}) look like"
                " two spellings of one; write them alike, or make them more different"
            )


def outside(path: str) -> bool:
    """Whether a path, as it is written, leads out of the folder it is relative to."""
    # The first test is quick, and almost all paths end there.
    return path.startswith("/") or (".." in path and ".." in path.split("/"))


def find(root: Path, *names: str) -> Path:
    """The first of these files or folders under root; DataError without one."""
    for name in names:
        if (root / name).exists():
            return root / name
    raise DataError(f"{root}: looked for {' or '.join(names)}, found none; {SEE}")


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file, gzipped or not; DataError where it is not UTF-8."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                # Excel writes a byte order mark, which would be a part of the first name.
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                # Text has none: the file is damaged, or UTF-16.
                if "\0" in line:
                    raise DataError(f"{path}, line {number}: a NUL byte; damaged?")
                yield line
    except UnicodeDecodeError as error:
        message = f"{path}, line {number}: not UTF-8 text ({error.reason})"
        raise DataError(message) from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        message = f"{path}, after line {number}: damaged gzip file ({error})"
        raise DataError(message) from None


def read_csv(path: Path, required: Sequence[str] = ()) -> Table:
    """Reads a CSV file with a header; cells are stripped, blank lines skipped.

    Empty cells beyond the header are allowed (the NIH file of 2017 ends each line
    with a comma). Raises DataError where the file is missing, has no row, lacks a
    required column, names one twice, or has a row of another length.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; {SEE}")
    # strict: a quote that is not closed swallows the rest of the file without it.
    reader = csv.reader(lines(path), strict=True)
    ends: list[int] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        # The NIH file of 2017 ends each line, the header too, with a comma.
        while header and not header[-1]:
            header.pop()
        columns: list[list[str]] = [[] for _ in header]
        body = numbered_rows(reader, path, len(header))
        while batch := list(islice(body, BATCH)):
            ends += [line for line, _ in batch]
            for column, cells in zip(columns, zip(*(row for _, row in batch))):
                column += map(str.strip, cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    if twice := {name for name in header if header.count(name) > 1}:
        raise DataError(f"{path}, line 1: the columns {sorted(twice)} stand twice")
    if not ends:
        raise DataError(f"{path}, line 1: no row beneath the header")
    table = Table(path, dict(zip(header, columns)), ends)
    for name in required:
        table.column(name)
    return table


def numbered_rows(reader: Any, path: Path, width: int) -> Iterator[tuple[int, list]]:
    """(line, cells) of each row that is not blank; DataError at another length."""
    for row in reader:
        # A short row is a file that was cut off; empty cells beyond are harmless.
        if len(row) < width and row or any(row[width:]):
            raise DataError(
                f"{path}, line {reader.line_num}: {len(row)} fields where the header"
                f" has {width}; is the line cut off?"
            )
        if row:
            yield reader.line_num, row[:width]


@dataclass(frozen=True)
class Columns:
    """What a reader tells of each image, as lists of n strings; () is unknown.

    `id` is `path` where nothing else is given. `people` holds "sex" and "age", where they
    are known.
    """

    path: Sequence[str]
    patient: Sequence[str]
    id: Sequence[str] = ()
    source: Sequence[str] = ()
    view: Sequence[str] = ()
    split: Sequence[str] = ()
    people: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def arrays(self) -> dict[str, Any]:
        """{column of a manifest: object [n]}, "" where it is unknown."""
        blank = [""] * len(self.path)
        columns = {
            "id": self.id if len(self.id) else self.path,
            "path": self.path,
            "patient": self.patient,
            "source": self.source if len(self.source) else blank,
            "view": self.view if len(self.view) else blank,
            "split": self.split if len(self.split) else blank,
            **self.people,
        }
        return {name: np.array(column, object) for name, column in columns.items()}


def build(
    name: str,
    root: Path,
    classes: tuple[str, ...],
    labels: np.ndarray | Sequence[int],
    columns: Columns,
    notes: dict[str, Any],
    dropped: Mapping[str, int | Sequence[str]] = MappingProxyType({}),
) -> Manifest:
    """A validated Manifest.

    `dropped` says what the reader left out: a number, or the names, of each kind.
    Raises DataError for what Manifest.validate finds.
    """
    try:
        manifest = Manifest(
            name=name,
            root=str(root),
            classes=classes,
            labels=np.asarray(labels),
            notes=notes,
            **columns.arrays(),
        )
        for what, out in dropped.items():
            manifest = manifest.dropping(what, out)
        return manifest.validate()
    except ValueError as error:
        raise DataError(str(error)) from None
