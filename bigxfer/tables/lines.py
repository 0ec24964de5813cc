"""Lines of a study: runs of one target, model and upstream, and what tells lines apart.

A line runs along the shots (or another scale); at each place of it stands a cell, whose
runs differ in nothing but their seeds. Where an upstream was varied further (its size,
the protocol, a rate, ...) the label of the line says how.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from bigxfer import config
from bigxfer.tables.table import Row

VARIANTS = {  # column -> how its value reads in a label
    "study": "{}",
    "protocol": "{}",
    "start": "{}",
    "tuned": "{}",
    "init": "{}",
    "upstream_size": "{:,} images",
    "upstream_examples": "{:,} seen",
    "fraction": "fraction {:g}",
    "sampling": "{}",
    "mix": "mix {}",
    "space": "{} of labels",
    "steps": "{:,} steps",
}
FAMILY = 6  # digits of a family in a label


def lines(rows: Sequence[Row], *along: str) -> tuple[list[Row], list[str]]:
    """(the transfers with their "line" added, notes on what was left out).

    `along` ("shots" if none) are the columns that a line runs along, which are
    therefore in no label. A run that stands twice in the rows, from two folders, is
    taken once: from the folder whose name sorts first.
    """
    along = along or ("shots",)
    runs: dict[tuple, Row] = {}
    again: list[str] = []
    # By name, so that which of two copies counts does not hang on the file system.
    for row in sorted(rows, key=lambda r: r["folder"]):
        if row["kind"] != "transfer":
            continue
        key = (row.get("study"), row["digest"])
        if runs.setdefault(key, row) is not row:
            again.append(row["folder"])
    named = []
    fitted = {(row["target"], is_head(row)) for row in runs.values()}
    for group in _split(runs.values(), ("target", "model", "upstream")):
        # Beside a net that trains, a head says that it is one: two upstreams that differ in
        # that too would else read as if the upstream alone told them apart.
        both = {(group[0]["target"], head) for head in (False, True)} <= fitted
        for label, row in zip(_labels(group, along, both), group, strict=True):
            named.append(row | {"line": label})
    notes = []
    if again:
        notes.append(
            f"{len(again)} runs stand twice, such as {again[0]}: each is taken once,"
            " from the folder that sorts first."
        )
    return named, notes


def is_head(row: Row) -> bool:
    """Whether a run fitted a head to features that stay as they are."""
    return (row.get("start") or "").endswith(" head")


def _split(rows: Iterable[Row], by: Sequence[str]) -> list[list[Row]]:
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[k] for k in by)].append(row)
    return list(groups.values())


def _labels(rows: list[Row], along: Sequence[str], starts: bool) -> list[str]:
    """One label a row, so that runs of equal labels in one place are of one family.

    `starts`: each says its start.
    """
    labels = [row["upstream"] for row in rows]
    for column, form in VARIANTS.items():
        if column not in along:
            words = [
                "" if (v := row.get(column)) is None else form.format(v) for row in rows
            ]
            # Of two studies every line says which, even where no place has both.
            always = column == "study" and len(set(words)) > 1
            always |= column == "start" and starts
            _extend(labels, words, rows, along, always)
    ambiguous = _mixed(labels, rows, along, [row.get("family") for row in rows])
    # Only now the settings by name: a label is the shortest that tells its runs apart.
    if ambiguous:
        for name in sorted({name for row in rows for name in _settings(row)}):
            words = [f"{name.replace('/', '.')}={_value(row, name)}" for row in rows]
            _extend(labels, words, rows, along)
        families = [f"family {(row.get('family') or '?')[:FAMILY]}" for row in rows]
        _extend(labels, families, rows, along)
    return labels


def _extend(
    labels: list[str],
    words: list[str],
    rows: list[Row],
    along: Sequence[str],
    always: bool = False,
) -> None:
    """Adds the words to the labels, in place, if they tell runs of one place apart."""
    if always or _mixed(labels, rows, along, words):
        for i, word in enumerate(words):
            labels[i] += f", {word}" if word else ""


def _mixed(
    labels: list[str], rows: list[Row], along: Sequence[str], values: Sequence[Any]
) -> bool:
    """Whether runs of one label, at one place, differ in these values and in family.

    Runs of one family are not told apart: one that stopped early, say. Rows that name
    no family are of one where their values are equal.
    """
    places: dict[tuple, set] = defaultdict(set)
    for label, row, value in zip(labels, rows, values, strict=True):
        # Runs of another place may differ: full data takes more steps than 1 shot.
        place = label, row["shots"], *(row[x] for x in along)
        places[place].add((value, row.get("family") or value))
    return any(
        len({value for value, _ in pairs}) > 1
        and len({family for _, family in pairs}) > 1
        for pairs in places.values()
    )


def _settings(row: Row) -> dict[str, Any]:
    return json.loads(row.get("settings") or "{}")


def _value(row: Row, name: str) -> Any:
    """A setting of the run, or the default that it has."""
    return _settings(row).get(name, config.defaults().get(name))


def natural(line: str) -> tuple:
    """Sorts lines by name, with numbers as numbers, and scratch at the end."""
    parts = re.split(r"(\d[\d,.]*)", line)
    # The pattern takes the comma or point that follows a number, too.
    values = [float(p.replace(",", "").rstrip(".")) for p in parts[1::2]]
    return line.startswith("scratch"), parts[::2], values


def rank(shots: str) -> float:
    """Sorts "1", "5", "10", ..., "full"."""
    return float("inf") if shots == "full" else float(shots)


def order(shots: set[str]) -> list[str]:
    return sorted(shots, key=rank)
