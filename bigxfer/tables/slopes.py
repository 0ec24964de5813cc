"""Slopes of a metric over upstream images and width, with upstream seeds as the units.

Within each upstream seed the metric of its cells, one at each (images, width), is fitted by
least squares: a + b log4(images) + c log2(width). The slopes of the seeds are averaged; what
seeds add to the variance of that mean, and what test patients add, is split as everywhere
(statistics/crossed.py), since a slope is a weighted sum of the runs of a seed.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bigxfer.statistics import crossed, intervals
from bigxfer.statistics.crossed import Side
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.differences import SURE
from bigxfer.tables.table import Row

SCALES: dict[str, Callable[[Row], float]] = {
    "fourfold upstream images": lambda row: math.log(row["upstream_size"], 4),
    "doubling of the width": lambda row: math.log2(row["width"]),
}


@dataclass(frozen=True)
class Slope:
    """What the metric gains for each step of a scale: mean over seeds, 95% interval.

    `p` is of no slope, `outside` of one of at least the margin; `holm` and `outside_holm`
    are adjusted over the scales of one call. NaN where fewer than two seeds are complete.
    """

    scale: str
    value: float
    low: float
    high: float
    p: float
    outside: float
    seeds: int
    cells: int
    patients: int
    left_out: int  # runs of seeds that lack a cell
    holm: float = math.nan
    outside_holm: float = math.nan

    @property
    def verdict(self) -> str:
        """rises, falls, is flat, is not told from none, or "" where there is no p."""
        if not math.isfinite(self.holm):
            return ""
        if self.outside_holm < SURE:
            return "is flat"
        if self.holm < SURE:
            return "rises" if self.value > 0 else "falls"
        return "is not told from none"


def slopes(
    rows: Sequence[Row], metric: str, predictions: PredictionReader, margin: float
) -> list[Slope]:
    """One Slope for each of SCALES that varies over the rows.

    The rows are of one target, at one number of shots, each cell once a seed. A seed that
    lacks a cell which another has is left out, and so counted. Raises ValueError where a
    cell stands twice in one seed, or no seed has every cell; [] where nothing varies.
    """
    by_seed: dict[int, dict[tuple, Row]] = defaultdict(dict)
    for row in rows:
        place = row["upstream_size"], row["width"]
        if place in by_seed[row["upstream_seed"]]:
            raise ValueError(
                f"{row['folder']}: the cell {place} has two runs of a seed"
            )
        by_seed[row["upstream_seed"]][place] = row
    places = sorted({place for cells in by_seed.values() for place in cells})
    # A seed that lacks a cell would weigh the others otherwise than its fellows do.
    whole = [cells for _, cells in sorted(by_seed.items()) if len(cells) == len(places)]
    if not whole:
        raise ValueError(f"no upstream seed has all of the {len(places)} cells")
    grid = [[cells[place] for place in places] for cells in whole]
    x = {n: np.array([scale(r) for r in grid[0]]) for n, scale in SCALES.items()}
    # A scale that does not vary is the column of ones again.
    x = {name: values for name, values in x.items() if np.ptp(values)}
    design = np.column_stack([np.ones(len(places)), *x.values()])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError("images and widths change together in these cells: no slopes")
    pulls = np.linalg.pinv(design)[1:]  # a slope is its pull @ the metric of the cells
    each = [
        _slope(name, pull, grid, metric, predictions, margin)
        for name, pull in zip(x, pulls, strict=True)
    ]
    left = len(rows) - len(whole) * len(places)
    p = intervals.holm([s.p for s in each])
    q = intervals.holm([s.outside for s in each])
    return [
        replace(s, left_out=left, holm=float(a), outside_holm=float(b))
        for s, a, b in zip(each, p, q, strict=True)
    ]


def _slope(
    name: str,
    pull: np.ndarray,
    grid: list[list[Row]],
    metric: str,
    predictions: PredictionReader,
    margin: float,
) -> Slope:
    rows = [row for cells in grid for row in cells]
    points = np.array([[row[metric] for row in cells] for cells in grid]) @ pull
    sums, one, patients = None, 0.0, 0
    scores = predictions.scores(rows, metric)
    if scores and all(score.sums is not None for score in scores):
        each = np.stack([s.sums for s in scores if s.sums is not None], axis=-1)
        each = each.reshape(len(each), len(grid), len(pull))
        sums = (each @ pull)[:, :, None]  # [p, U, 1]
        # What one patient more could do to a run, by its weight in the slope.
        one = max(score.one for score in scores) * float(np.sum(pull**2))
        patients = predictions.patients(rows)
    parts = crossed.parts([Side(points[:, None], sums)], one)
    value, several = float(points.mean()), len(grid) > 1
    low, high = crossed.interval(value, parts)
    # A p speaks of upstreams in general: it needs two seeds and the patients' part.
    judged = parts if several and sums is not None else []
    return Slope(
        name,
        value,
        low,
        high,
        crossed.p_value(value, judged),
        crossed.outside(value, judged, margin) if judged else math.nan,
        len(grid),
        len(pull),
        patients,
        0,
    )
