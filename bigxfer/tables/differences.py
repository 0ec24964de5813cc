"""The one comparison of two cells: difference, interval, p and verdict.

Terminal, page, notebooks and CSV all print it; families.py makes the families that Holm's
adjustment runs over.

A p speaks of upstreams in general only where each side has two seeds of its upstream or
more, and of draws only where there are two. Without them the interval is about these
very upstreams or this draw, and there is no p, no star and no verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bigxfer.statistics import crossed, intervals, metrics
from bigxfer.statistics.crossed import Part, Side
from bigxfer.tables import cells, estimates
from bigxfer.tables.cells import PredictionReader, Runs
from bigxfer.tables.estimates import MANY, Grid, Tested
from bigxfer.tables.table import Row

MARGIN = 0.02  # of a study that states none
SURE = 0.05  # a Holm-adjusted p below it decides
BETTER, EQUIVALENT, WORSE, OPEN = "A better", "equivalent", "B better", "not told apart"


@dataclass(frozen=True)
class Difference:
    """a - b of two cells.

    `p` is of no difference, `outside` of one of at least the margin, `false` the
    probability that the claim "the one that is ahead is better" is false: the one-sided p,
    which is the posterior probability where all differences were as likely beforehand. Of
    two single runs it is arXiv 2505.04720's, to 0.005; of cells it has seeds and draws
    too. It holds where true differences spread far wider than the standard error. What is
    told as 0.03 is 0.05 where they spread (normally, about 0) twice as wide, 0.09 where
    once: their posterior shrinks by 1 / sqrt(1 + (error / spread)^2).
    NaN where it cannot be had; `lacks` says why there is no p.
    """

    value: float
    low: float
    high: float
    p: float
    outside: float
    false: float
    parts: tuple[Part, ...]
    covers: str
    lacks: str


@dataclass(frozen=True)
class Comparison:
    """A difference within its family. a and b are (net, line)."""

    about: dict[str, str]  # target, metric, shots
    a: tuple[str, str]
    b: tuple[str, str]
    difference: Difference
    family: str  # in words
    size: int = 0  # of the family: its comparisons with a p
    margin: float = MARGIN
    p_holm: float = math.nan
    outside_holm: float = math.nan

    @property
    def verdict(self) -> str:
        """BETTER, EQUIVALENT, WORSE or OPEN; "" where there is no p."""
        if not math.isfinite(self.p_holm):
            return ""
        if self.outside_holm < SURE:
            return EQUIVALENT
        if self.p_holm < SURE:
            ahead = self.difference.value * metrics.sign(self.about["metric"]) > 0
            return BETTER if ahead else WORSE
        return OPEN

    @property
    def detectable(self) -> float:
        """The smallest true difference that this family finds in 80% of studies."""
        if not math.isfinite(self.p_holm):
            return math.nan
        level = 1 - SURE / max(self.size, 1)
        return crossed.detectable(self.difference.parts, level)


@dataclass(frozen=True)
class Paired:
    """Two cells side by side: complete grids, their signed sides, and the patients."""

    grids: list[Grid]
    sides: list[Side]
    tested: Tested


def paired(
    a: Runs, b: Runs, metric: str, predictions: PredictionReader
) -> Paired | None:
    """a and b on the draws that both have; None where there is none.

    Two ways to transfer from the same upstreams become one side, their difference.
    """
    if not a or not b:
        return None
    left, right = pair = estimates.grids([a, b])
    if not left.rows or not right.rows:
        return None
    known = estimates.patients_of(pair, metric, predictions)
    sides = [
        Side(grid.points(metric), sums, sign)
        for grid, sums, sign in zip(pair, known.sums, (1, -1), strict=True)
    ]
    # What an upstream gives to both ways is then no part of the variance.
    if same := _same_upstreams(left, right):
        sides = [_within(sides, *same)]
    return Paired(pair, sides, known)


def difference(
    a: Runs, b: Runs, metric: str, predictions: PredictionReader, margin: float = MARGIN
) -> Difference | None:
    """a - b on the draws that both have; None where there is none."""
    both = paired(a, b, metric, predictions)
    if both is None:
        return None
    pair, sides, known = both.grids, both.sides, both.tested
    value = float(sum(side.sign * side.points.mean() for side in sides))
    none = math.nan
    if known.reason:
        return Difference(
            value, none, none, none, none, none, (), known.reason, known.reason
        )
    parts = crossed.parts(sides, known.one)
    # As if of other patients on each side: too wide where runs err alike.
    if known.limits and known.sums[0] is None:
        ends = np.array([estimates.spread(limits) for limits in known.limits])
        low, high = float(ends[0, 0] + ends[1, 1]), float(ends[0, 1] + ends[1, 0])
        parts.append(Part("patients", low, high, MANY))
    lacks = _lacks(pair, bool(known.limits))
    low, high = crossed.interval(value, parts)
    fraction = metrics.sign(metric) > 0  # the margin is of a fraction, not of a loss
    # Without parts the p are NaN: the interval stays, the verdict goes.
    judged = parts if not lacks else []
    false = crossed.tail_beyond(value, parts)
    return Difference(
        value,
        low,
        high,
        crossed.two_sided(false) if judged else none,
        crossed.outside(value, judged, margin) if fraction and judged else none,
        false if known.limits else none,
        tuple(parts),
        estimates.covers(pair, known.words),
        lacks,
    )


def _same_upstreams(a: Grid, b: Grid) -> tuple[list[int], list[int]] | None:
    """(rows of a, rows of b) of the upstream seeds whose upstream is the same run."""

    def runs(grid: Grid) -> dict[str, int]:
        # One run of a place tells: all of a line have the same upstream.
        digests = [line[0][0].get("upstream_digest") for line in grid.places]
        return {digest: i for i, digest in enumerate(digests) if digest}

    left, right = runs(a), runs(b)
    shared = [d for d in left if d in right]
    # Fewer than two in common leave no variance over upstreams to estimate.
    several = len(a.upstreams) > 1 and len(b.upstreams) > 1
    if not several or len(shared) < 2:
        return None
    return [left[d] for d in shared], [right[d] for d in shared]


def _within(sides: list[Side], a: list[int], b: list[int]) -> Side:
    """The difference on each upstream, of two ways to transfer from the same ones."""
    left, right = sides
    sums = None
    if left.sums is not None and right.sums is not None:
        sums = left.sums[:, a] - right.sums[:, b]
    return Side(left.points[a] - right.points[b], sums)


def _lacks(pair: Sequence[Grid], patients: bool) -> str:
    """Why no p can be given; "" where it can."""
    if any(grid.one_upstream for grid in pair):
        return "one upstream seed: no p speaks of others"
    draws = pair[0].draws
    if len(draws) == 1:
        return "one draw: no p speaks of others"
    if not draws and any(len(grid.places) < 2 for grid in pair):
        return "one training: no p speaks of others"
    if not patients:
        return "no predictions: the choice of test patients is not covered"
    return ""


def adjusted(comparisons: dict[Any, Comparison]) -> dict[Any, Comparison]:
    """The comparisons with Holm's p over all of them."""
    # Comparisons without a p make no claim, and cost the others nothing.
    size = sum(math.isfinite(c.difference.p) for c in comparisons.values())
    # Two families of claims: "differs", and "is within the margin".
    different = intervals.holm([c.difference.p for c in comparisons.values()])
    outside = intervals.holm([c.difference.outside for c in comparisons.values()])
    return {
        key: replace(c, size=size, p_holm=float(p), outside_holm=float(q))
        for (key, c), p, q in zip(comparisons.items(), different, outside, strict=True)
    }


def select(rows: Sequence[Row], **where: Any) -> list[Row]:
    """The rows with these values; a tuple or list allows each of its values."""
    several = {k: v if isinstance(v, tuple | list) else (v,) for k, v in where.items()}
    return [r for r in rows if all(r.get(k) in v for k, v in several.items())]


def compare(
    rows: Sequence[Row],
    metric: str,
    a: dict[str, Any],
    b: dict[str, Any],
    predictions: PredictionReader,
) -> list[Comparison]:
    """a - b at every target and number of shots that has both: a question of one's own.

    a and b say which rows: {"upstream": "imagenet21k", "model": "R152x4"}. The family is
    this call, so give it the rows of one question. Raises ValueError where the rows of a
    side differ in more than seeds.
    """
    cell, margin = ("target", "shots"), margin_of(rows)
    sides = [cells.group(select(rows, **s), metric, *cell) for s in (a, b)]
    names = [(s.get("model", ""), ", ".join(map(str, s.values()))) for s in (a, b)]
    words = f"{names[0][1]} minus {names[1][1]}, by {metric}"
    comparisons = {}
    for target, shots in sides[0]:
        runs = [side.get((target, shots), {}) for side in sides]
        d = difference(runs[0], runs[1], metric, predictions, margin)
        if d:
            cell_of = {"target": target, "metric": metric, "shots": shots}
            place = target, shots
            comparisons[place] = Comparison(
                cell_of, names[0], names[1], d, words, margin=margin
            )
    return list(adjusted(comparisons).values())


def margin_of(rows: Sequence[Row]) -> float:
    """The margin that the runs' configs state: the smallest, where they differ."""
    known = [row["margin"] for row in rows if row.get("margin") is not None]
    # The strictest: what counts as equal for one of the runs has to hold for all.
    return min(known, default=MARGIN)


def as_row(c: Comparison) -> dict[str, Any]:
    """A flat dict, as a CSV has it; null is what cannot be had."""
    d = c.difference
    numbers = {
        "value": d.value,
        "low": d.low,
        "high": d.high,
        "p": d.p,
        "p_holm": c.p_holm,
        "p_outside_holm": c.outside_holm,
        "probability_false": d.false,
        "detectable": c.detectable,
    }
    names = {"a_model": c.a[0], "a": c.a[1], "b_model": c.b[0], "b": c.b[1]}
    of_family = {"margin": c.margin, "family": c.family, "family_size": c.size}
    # JSON and CSV have no NaN that every reader knows.
    told = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
    words = {"verdict": c.verdict, "covers": d.covers, "no_p": d.lacks}
    return {**c.about, **names, **told, **of_family, **words}
