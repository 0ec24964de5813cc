"""metadata.csv of one's own images: file, label (or a 0/1 column a class), patient."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from bigxfer.config import Data
from bigxfer.data.labels import canonical, settled
from bigxfer.data.manifest import Manifest
from bigxfer.data.readers import files, spellings
from bigxfer.data.readers.tables import (
    Columns,
    DataError,
    Table,
    build,
    check_spellings,
    find,
    outside,
    read_csv,
)

KNOWN = ("file", "path", "label", "patient_id", "patient", "split", "source", "view")
RESPELLED = re.compile(r"\\|//|^/|/$|(^|/)\.(/|$)")  # paths with another spelling
# With this share of marks among its filled cells a column is meant as a class.
MOSTLY = 0.75


def read(root: str | Path, data: Data) -> Manifest:
    """root/metadata.csv, or the only CSV file in root.

    Columns: `file` or `path` (relative to root), `patient_id` or `patient`, then
    `label` (int32 [n], classes sorted) or one column a class (float32 [n, classes]):
    those of data.labels or, where that is empty, each column of another name whose
    cells are all marks (1, 0, -1, yes, no, true, false, in any form of the number) or
    blank. Blank is NaN, or 0 where data.blank is negative; -1 is by data.uncertain.
    Optional: `split`, `source`, `view`, `sex`, `age`. Raises DataError with file, line and column.
    """
    root = Path(root)
    table = named(read_csv(find_table(root)))
    file = table.column("file", "path")
    patient = table.column("patient_id", "patient")
    people = table.patients(patient)
    table.check_filled(file)
    paths = [relative(root, cell) for cell in table[file]]
    # a/../b.png and b.png are one file; normpath is slow, so only where ".." stands.
    real = [os.path.normpath(path) if ".." in path else path for path in paths]
    table.check_unique(file, real)
    for row, path in enumerate([] if data.outside else paths):
        if outside(path):
            table.fail(
                row,
                f"{file} is {path!r}, outside the root; correct it, or set"
                " --config.data.outside=true",
            )
    persons, table = read_people(table, data)
    if "label" in table.columns:
        classes, labels, notes, dropped = single(table)
    else:
        classes, labels, notes, dropped = multi(table, data)
    if people:
        notes["patients"] = people
    if "source" in table.columns:
        table.check_spellings("source")
    return build(
        name="csv",
        root=root,
        classes=classes,
        labels=labels,
        columns=Columns(
            path=paths,
            patient=table[patient],
            source=translated(table, "source", spellings.source),
            view=translated(table, "view", spellings.view),
            split=translated(table, "split", spellings.split),
            people=persons,
        ),
        notes={"table": table.path.name, **notes},
        dropped=dropped,
    )


def find_table(root: Path) -> Path:
    """metadata.csv, or the only CSV file there is."""
    tables = [root / name for name in files.names(root) if name.endswith(".csv")]
    if not (root / "metadata.csv").exists() and len(tables) == 1:
        return tables[0]
    return find(root, "metadata.csv")


def named(table: Table) -> Table:
    """The table with the columns of KNOWN in lower case, as "Label" is meant.

    Raises DataError where two columns look like one.
    """
    check_spellings(f"{table.path}: the column", table.columns, lambda name: "line 1")
    # Only the columns that we know: classes keep their spelling.
    lower = {n: n.casefold() if n.casefold() in KNOWN else n for n in table.columns}
    return replace(table, columns={lower[n]: c for n, c in table.columns.items()})


def relative(root: Path, cell: str) -> str:
    """The path in one spelling: no "./" or "//", no "\\" of Windows, beneath root."""
    if not RESPELLED.search(cell):  # which is quick
        return cell
    # On Linux a backslash is a letter, and a name may hold one.
    if "\\" in cell and not (root / cell).exists():
        cell = cell.replace("\\", "/")
    if cell.startswith("/"):
        top = os.path.join(os.path.abspath(root), "")
        cell = cell.removeprefix(top)
    return str(PurePosixPath(cell))


def translated(
    table: Table, name: str, spelling: Callable[[str], str | None]
) -> list[str]:
    """The cells of an optional column, [] without it; DataError where one is None."""
    cells = table.columns.get(name, [])
    spelled = {cell: spelling(cell) for cell in set(cells)}
    if unread := {cell for cell, value in spelled.items() if value is None}:
        row = next(row for row, cell in enumerate(cells) if cell in unread)
        expected = "train, valid, test or blank expected"
        table.fail(row, f"{name} is {cells[row]!r}; {expected}")
    return [spelled[cell] or "" for cell in cells]


def read_people(table: Table, data: Data) -> tuple[dict[str, list[str]], Table]:
    """(sex and age of each row, the table without their columns).

    A column is read so where every cell is a sex, or an age, or blank. One of marks (0 and
    1), or that data.labels names, is left for a class; another is left out, and said.
    """
    known, others = {}, dict(table.columns)
    for name, spelling in (("sex", spellings.sex), ("age", spellings.age)):
        column = next((c for c in table.columns if c.casefold() == name), "")
        if not column or column in data.labels:
            continue
        cells = set(table[column])
        # A column "sex" of 0 and 1 may be what somebody wants to predict.
        if all(spellings.mark(cell) is not None for cell in cells):
            continue
        if all(spelling(cell) is not None for cell in cells):
            known[name] = others.pop(column)
    people = Table(table.path, known, table.lines).people("sex", "age")
    return people, replace(table, columns=others)


def single(table: Table) -> tuple[tuple[str, ...], np.ndarray, dict, dict]:
    """(classes, labels int32 [n], notes, what is left out) of the column `label`."""
    table.check_filled("label")
    for label in set(table["label"]):
        if label.casefold() in spellings.NO_LABEL:
            row = table["label"].index(label)
            table.fail(row, f"label is {label!r}, no class; give one or remove the row")
    table.check_spellings("label")
    # Sorted: the order of the rows must not number the classes.
    classes = tuple(sorted(set(table["label"])))
    index = {name: i for i, name in enumerate(classes)}
    labels = np.array([index[label] for label in table["label"]], np.int32)
    others = [name for name in table.columns if name not in KNOWN]
    dropped = {"columns that are not read": others}
    return classes, labels, {"labels": "one of the column label"}, dropped


def multi(table: Table, data: Data) -> tuple[tuple[str, ...], np.ndarray, dict, dict]:
    """(classes, labels float32 [n, classes], notes, what is left out) of 0/1 columns."""
    others = [name for name in table.columns if name and name not in KNOWN]
    left: dict[str, str] = {}
    if data.labels:
        # The user's choice is taken at its word: their cells must then be marks.
        wanted = {canonical(name) for name in data.labels}
        classes = tuple(name for name in others if canonical(name) in wanted)
    else:
        left = {name: why for name in others if (why := no_class(table, name))}
        classes = tuple(name for name in others if name not in left)
    if not classes:
        raise DataError(
            f"{table.path}, line 1: no column 'label', and no column of 0, 1 and blank"
            f" for a class (of {others}, config.data.labels={data.labels})"
        )
    labels = settled(table.marks(classes), data.uncertain, data.blank)
    notes = {
        "labels": f"the 0/1 columns {list(classes)}",
        "blank": data.blank,
        "uncertain": data.uncertain,
    }
    dropped = {"columns that are no class": [f"{n}: {why}" for n, why in left.items()]}
    return classes, labels, notes, dropped


def no_class(table: Table, name: str) -> str:
    """Why the column is taken for no class; "" where all its cells are marks or blank.

    Raises DataError where most are: a class would be lost for a slip in one cell.
    """
    marks = {cell: spellings.mark(cell) for cell in set(table[name])}
    some = [m for m in marks.values() if m is None or not np.isnan(m)]
    if not some:
        return "empty"
    if None not in some:  # nearly all columns: told without a look at every row
        return ""
    cells = table[name]
    # NaN, the mark of a blank, is not equal to itself; None, of no mark, is.
    filled = [row for row, c in enumerate(cells) if marks[c] == marks[c]]
    bad = [row for row in filled if marks[cells[row]] is None]
    cell, line = table[name][bad[0]], table.lines[bad[0]]
    # One typed "o" for 0 in a thousand cells; an age has no marks at all.
    if len(bad) <= (1 - MOSTLY) * len(filled):
        table.fail(
            bad[0],
            f"{name} is {cell!r}; the column looks like a class, of 1, 0, -1 and blank."
            " Mend the cell, or name the classes by config.data.labels",
        )
    return f"{cell!r} on line {line}"
