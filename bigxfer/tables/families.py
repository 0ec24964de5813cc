"""Families of comparisons: what Holm's adjustment runs over, and the CSV of them all.

A family is what a reader sees as one matrix: on one target, by one metric, either every
pair of lines of one net at all shots, or two nets on every line at all shots, or every
other pair with an encoder (init.features), which shares neither net nor line. Terminal, page and CSV
print what `compare_all` gives.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from bigxfer.tables import cells
from bigxfer.tables.cells import PredictionReader, Runs
from bigxfer.tables.differences import (
    Comparison,
    adjusted,
    as_row,
    difference,
    margin_of,
)
from bigxfer.tables.lines import natural, order
from bigxfer.tables.table import Row


@dataclass(frozen=True)
class Family:
    """One matrix: pairs by shots."""

    target: str
    metric: str
    title: str
    model: str  # of the pairs of lines; "" of two nets, and of pairs with an encoder
    shots: list[str]
    pairs: list[tuple[tuple[str, str], tuple[str, str]]]
    found: dict[tuple, Comparison]  # {(a, b, shots): ...}

    @property
    def judged(self) -> list[Comparison]:
        return [c for c in self.found.values() if math.isfinite(c.p_holm)]


@dataclass(frozen=True)
class Target:
    """The cells of one target, {(net, line, shots): runs}, and how they are compared."""

    name: str
    cells: dict[tuple, Runs]
    metric: str
    predictions: PredictionReader
    margin: float

    def family(self, title: str, net: str, pairs: list[tuple[tuple, tuple]]) -> Family:
        """All pairs that have runs, at all shots; pairs are of (net, line)."""
        shots = order({k[2] for k in self.cells})
        words = f"{title} on {self.name} at all shots, by {self.metric}"
        comparisons = {}
        for (a, b), s in product(pairs, shots):
            sides = self.cells.get((*a, s), {}), self.cells.get((*b, s), {})
            d = difference(*sides, self.metric, self.predictions, self.margin)
            if d:
                cell = {"target": self.name, "metric": self.metric, "shots": s}
                comparisons[a, b, s] = Comparison(
                    cell, a, b, d, words, margin=self.margin
                )
        # Pairs without any runs would be empty lines of the matrix.
        kept = [pair for pair in pairs if any((*pair, s) in comparisons for s in shots)]
        args = self.name, self.metric, title, net, shots, kept, adjusted(comparisons)
        return Family(*args)


def compare_all(
    rows: Sequence[Row], metric: str, predictions: PredictionReader
) -> list[Family]:
    """Every comparison of the rows, which `lines.lines` has named, by one metric."""
    groups = cells.group(rows, metric, "target", "model", "line", "shots")
    sizes: dict[str, int] = {}
    for row in rows:
        # By size, so that two nets stand as "large minus small".
        sizes[row["model"]] = max(sizes.get(row["model"], 0), row["params"] or 0)
    margin = margin_of(rows)
    every = []
    for name in sorted({k[0] for k in groups}):
        of_target = {k[1:]: runs for k, runs in groups.items() if k[0] == name}
        target = Target(name, of_target, metric, predictions, margin)
        nets = sorted({k[0] for k in of_target}, key=lambda m: (sizes[m], m))
        # Scratch last, so that it is what the others are compared with: "a minus b".
        lines = sorted(
            {k[1] for k in of_target}, key=lambda x: (x == "scratch", natural(x))
        )
        for net in nets:
            pairs = [((net, a), (net, b)) for a, b in combinations(lines, 2)]
            every.append(target.family(f"pairs of lines of {net}", net, pairs))
        for small, big in combinations(nets, 2):
            pairs = [((big, line), (small, line)) for line in lines]
            every.append(target.family(f"{big} minus {small}", "", pairs))
        encoders = {row["model"] for row in rows if row.get("init") == "features"}
        places = [
            (n, x)
            for n, x in product(nets, lines)
            if any(k[:2] == (n, x) for k in of_target)
        ]
        # Both differ: the pairs of one net, and of one line, are in families above.
        pairs = [
            (a, b)
            for a, b in combinations(places, 2)
            if a[0] != b[0] and a[1] != b[1] and {a[0], b[0]} & encoders
        ]
        every.append(target.family("pairs with an encoder", "", pairs))
    return [family for family in every if family.found]


def write(families: Iterable[Family], path: Path) -> int:
    """Writes every comparison to a CSV; returns how many."""
    rows = [as_row(c) for family in families for c in family.found.values()]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0] if rows else (), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)
