"""What the mean of a cell is worth: a grid of upstream seeds and draws, and words.

The words say which of the three random factors an interval covers: upstream seeds,
few-shot draws (at full data: fine-tunings), test patients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigxfer.statistics import crossed, metrics
from bigxfer.statistics.crossed import Part, Side
from bigxfer.statistics.limits import Score, Z
from bigxfer.tables.cells import PredictionReader, Runs, seeds
from bigxfer.tables.table import Row

MANY = 1e9  # degrees of freedom where a variance is known


@dataclass(frozen=True)
class Grid:
    """The runs of a cell, complete: each upstream seed at each draw.

    `places` [U][D] hold the runs that are averaged there: one at few shots. At full
    data D is 1, and a place holds the fine-tunings of an upstream seed, or, where there
    is but one upstream, one run.
    """

    places: list[list[list[Row]]]
    draws: tuple[int, ...]  # their seeds; () at full data
    upstreams: tuple[int, ...]  # seeds; () from scratch

    @property
    def one_upstream(self) -> bool:
        return len(self.upstreams) == 1

    @property
    def rows(self) -> list[Row]:
        return [row for line in self.places for place in line for row in place]

    def points(self, metric: str) -> np.ndarray:
        """The metric [U, D]."""
        return np.array(
            [
                [_mean([r[metric] for r in place]) for place in line]
                for line in self.places
            ]
        )

    def sums(self, scores: Sequence[Score]) -> np.ndarray | None:
        """Influences [p, U, D] of the scores of `rows`; None where one has none."""
        each = [s.sums for s in scores if s.sums is not None]
        if len(each) < len(scores):
            return None
        in_order = iter(each)
        return np.stack(
            [
                np.stack([_mean([next(in_order) for _ in p]) for p in line], -1)
                for line in self.places
            ],
            axis=-2,
        )


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers or of arrays; of one, as is usual, itself."""
    # A report takes a hundred thousand of them, and np.mean of a list is slow.
    return values[0] if len(values) == 1 else np.mean(values, axis=0)


def drawn(rows: Sequence[Row]) -> bool:
    """Whether the seed of a run draws its training images."""
    return any(r["shots"] != "full" or (r.get("fraction") or 1) < 1 for r in rows)


def grids(cells: Sequence[Runs]) -> list[Grid]:
    """One complete grid for each cell, all on the same draws.

    What is not complete is made so by leaving out the draw, or the upstream seed, that
    lacks the largest share of its runs. Without a draw in common the grids are empty.
    """
    if not drawn([row for runs in cells for row in runs.values()]):
        return [_full(runs) for runs in cells]
    # The same draws on both sides: their part of the variance cancels in a difference.
    draws = sorted(set.intersection(*({d for _, d in runs} for runs in cells)))
    sources = [sorted({u for u, _ in runs}) for runs in cells]
    while True:
        gaps = [
            (u, d, i)
            for i, runs in enumerate(cells)
            for u in sources[i]
            for d in draws
            if (u, d) not in runs
        ]
        if not gaps or not draws:
            break
        # As a share of its runs: leave out what is nearest to empty anyway.
        lines = sum(map(len, sources))
        by_draw = {d: sum(g[1] == d for g in gaps) / lines for d in draws}
        by_source = {
            (i, u): sum(g[0] == u and g[2] == i for g in gaps) / len(draws)
            for i, names in enumerate(sources)
            for u in names
        }
        # Ties by the seed, so that the same table always leaves out the same runs.
        draw = max(by_draw, key=lambda d: (by_draw[d], d))
        i, u = max(by_source, key=lambda k: (by_source[k], k))
        # The last upstream seed of a side stays: without it there is no comparison.
        if by_source[i, u] > by_draw[draw] and len(sources[i]) > 1:
            sources[i].remove(u)
        else:
            draws.remove(draw)
    return [
        Grid(
            [[[runs[u, d]] for d in draws] for u in names],
            tuple(draws),
            _known(runs, names),
        )
        for runs, names in zip(cells, sources, strict=True)
    ]


def _full(runs: Runs) -> Grid:
    """At full data no draw is shared: by upstream seed, or run by run where it is one."""
    names = sorted({u for u, _ in runs})
    known = _known(runs, names)
    # Of several upstreams each one's mean is a unit; of one, each fine-tuning.
    if len(known) > 1:
        places = [[[r for (v, _), r in runs.items() if v == u]] for u in names]
    else:
        places = [[[row]] for row in runs.values()]
    return Grid(places, (), known)


def _known(runs: Runs, names: Sequence[int]) -> tuple[int, ...]:
    """The seeds of the upstreams; () from scratch. One whose seed is not known is one."""
    scratch = all(row["upstream"] == "scratch" for row in runs.values())
    return () if scratch else tuple(names)


@dataclass(frozen=True)
class Estimate:
    """The mean of a cell with its 95% interval, and what the interval covers."""

    value: float
    low: float
    high: float
    covers: str


def estimate(
    rows: Sequence[Row], metric: str, predictions: PredictionReader
) -> Estimate:
    """The mean of a metric over the runs of a cell.

    The interval stays within the metric's range. Where a run's predictions are lost the
    limits in the table stand in for the patients' part of all; where those are lost too
    the words say that the patients are not covered.
    """
    runs = {seeds(row): row for row in rows}
    (grid,) = grids([runs])
    side = Side(grid.points(metric))
    value = float(side.points.mean())
    known = patients_of([grid], metric, predictions)
    if known.reason:
        return Estimate(value, math.nan, math.nan, known.reason)
    parts = mean_parts(Side(side.points, known.sums[0]), known.limits)
    low, high = crossed.interval(value, parts)
    words = covers([grid], known.words)
    if left := len(runs) - len(grid.rows):
        words += f"; {left} runs are left out, to whose seeds others lack a run"
    # Seeds and draws vary by a t, which knows no range.
    low, high = max(low, metrics.least(metric)), min(high, metrics.largest(metric))
    return Estimate(value, low, high, words)


def mean_parts(
    side: Side, limits: Sequence[Sequence[tuple[float, float, float]]]
) -> list[Part]:
    """What each factor adds to the variance of a cell's mean.

    The patients' part has the two sides that the `limits` of single runs have, times the
    patients' own share of a mean's variance: near 1 a mean can be much too high, and hardly
    too low. No limits, no such part.
    """
    # Without sums there is no part for patients, which would be a symmetric normal one:
    # that of the limits replaces it.
    parts = crossed.parts([Side(side.points)])
    if limits:
        share = own_share(side)
        low, high = (share * v for v in spread(limits[0]))
        parts.append(Part("patients", low, high, MANY))  # t is in the limits
    return parts


@dataclass(frozen=True)
class Tested:
    """What is known of the test patients of some grids.

    `sums` are [p, U, D] of each grid, or None; `limits` (value, low, high) of each run
    of each grid, or none at all; `reason` says why the metric has no interval.
    """

    sums: list[np.ndarray | None]
    limits: list[list[tuple[float, float, float]]]
    words: str
    one: float = 0.0
    reason: str = ""


def patients_of(
    sides: Sequence[Grid], metric: str, predictions: PredictionReader
) -> Tested:
    """From the predictions of all runs, else from the limits that the table holds."""
    rows = [row for grid in sides for row in grid.rows]
    scores = predictions.scores(rows, metric)
    nothing: list[np.ndarray | None] = [None] * len(sides)
    # Where one run kept none, the limits in the table stand in for all.
    if scores is None:
        limits = [_table_limits(grid.rows, metric) for grid in sides]
        if not all(limits):
            return Tested(nothing, [], "")
        first = rows[0]
        many = f"{first.get('test_images')} test images, as in independent patients"
        if first.get("test_patients"):
            many = f"{first['test_patients']} test patients, by the limits of each run"
        if metric.startswith("gap/"):
            many = "the patients of both sets, by the limits of each run"
        elif metric.startswith("external/"):
            many = "the patients of that set, by the limits of each run"
        elif predictions.apart(rows):
            many = "the test patients of each run, which are not the same"
        return Tested(nothing, limits, many)
    if without := [s for s in scores if not math.isfinite(s.low)]:
        return Tested(nothing, [], "", reason=without[0].reason)
    each, sums, limits = iter(scores), [], []
    for grid in sides:
        of_grid = [next(each) for _ in grid.rows]
        sums.append(grid.sums(of_grid))
        limits.append([(s.value, s.low, s.high) for s in of_grid])
    words = f"{predictions.patients(rows)} test patients"
    # The largest: of a run that knows fewer patients one more could change more.
    return Tested(sums, limits, words, one=max(s.one for s in scores))


def _table_limits(rows: Sequence[Row], metric: str) -> list[tuple[float, float, float]]:
    """(value, low, high) of each run; none where the table lacks one of them."""
    limits = []
    for row in rows:
        low, high = row.get(f"{metric}_low"), row.get(f"{metric}_high")
        if low is None or high is None:
            return []
        limits.append((row[metric], low, high))
    return limits


def spread(limits: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The variances below and above that 95% limits of single runs stand for, their mean."""
    value, low, high = np.array(limits).T
    below, above = (((value - low) / Z) ** 2, ((high - value) / Z) ** 2)
    return float(below.mean()), float(above.mean())


def own_share(side: Side) -> float:
    """The patients' own variance of a cell's mean, over that of its single runs.

    1 where predictions are lost: as if all runs erred on the same patients.
    """
    if side.sums is None:
        return 1.0
    # Runs err on partly other patients, which the mean over runs evens out.
    single = crossed.single_run(side.sums)
    return crossed.patients([side], [side.sums]) / single if single else 1.0


def covers(sides: Sequence[Grid], patients: str) -> str:
    """The random factors that an interval covers, and those that it does not."""
    factors = []
    if any(len(g.upstreams) > 1 for g in sides):
        counts = [str(len(g.upstreams)) for g in sides if g.upstreams]
        factors.append(f"{' and '.join(dict.fromkeys(counts))} upstream seeds")
    if draws := sides[0].draws:
        factors += [f"{len(draws)} draws"] * (len(draws) > 1)
    else:
        lines = [g.places for g in sides if len(g.upstreams) < 2]
        counts = [len(places) for places in lines if len(places) > 1]
        if counts:
            factors.append(f"{max(counts)} trainings at full data")
    factors += [patients] * bool(patients)
    words = " and ".join(filter(None, (", ".join(factors[:-1]), *factors[-1:])))
    fixed = sum(g.one_upstream for g in sides)
    notes = ["about this one upstream", "about these two upstreams"][fixed - 1 : fixed]
    if len(draws) == 1:
        notes.append("about this one draw")
    elif not draws and any(len(g.rows) == 1 for g in sides):
        one = (
            "about this one training" if len(sides) == 1 else "with one training a side"
        )
        notes.append(one)
    if not patients:
        notes.append("the choice of test patients is not covered")
    return "; ".join(filter(None, (f"over {words}" * bool(words), *notes)))
