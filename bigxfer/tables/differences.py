"""Means and paired differences of the runs of a table, with intervals and Holm's p.

Runs are paired by their seed: the same seed is the same few-shot draw for every
upstream. Where the run folders keep predictions.npz, the test patients are resampled
too; from metrics alone (the published runs) only the draws can be, which understates
the uncertainty of a small test set.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from bigxfer.statistics import intervals
from bigxfer.tables.cells import Predictions
from bigxfer.tables.table import Row

CELL = ("target", "shots")  # within which runs are compared
GROUP = ("target", "upstream", "model", "shots")  # whose runs differ by seed alone


@dataclass(frozen=True)
class Comparison:
    """a - b in one cell."""

    cell: dict[str, Any]
    a: dict[str, Any]
    b: dict[str, Any]
    metric: str
    difference: intervals.Estimate
    p_holm: float  # adjusted over all comparisons of one call


def select(rows: Sequence[Row], **where: Any) -> list[Row]:
    """The rows with these values; a tuple or list allows each of its values."""
    several = {k: v if isinstance(v, tuple | list) else (v,) for k, v in where.items()}
    return [r for r in rows if all(r.get(k) in v for k, v in several.items())]


def summarise(
    rows: Sequence[Row], metric: str, by: Sequence[str] = GROUP
) -> list[dict[str, Any]]:
    """Mean, std (ddof 1), number and Student's 95% interval over the seeds of a group."""
    out = []
    for key, found in _by_seed(rows, metric, by).items():
        x = np.array([row[metric] for row in found.values()])
        low, high = intervals.t_interval(x)
        std = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
        about = dict(zip(by, key, strict=True))
        about |= {"metric": metric, "mean": float(x.mean()), "std": std, "n": len(x)}
        out.append(about | {"low": low, "high": high})
    return out


def compare(
    rows: Sequence[Row],
    metric: str,
    a: dict[str, Any],
    b: dict[str, Any],
    cell: Sequence[str] = CELL,
    predictions: Predictions | None = None,
) -> list[Comparison]:
    """a - b in every cell that has both, on the seeds that both have.

    a and b say which rows: {"upstream": "imagenet21k", "model": "R152x4"}. The family
    of Holm's adjustment is this call: give it the rows of one question. With
    `predictions` patients are resampled too. Raises ValueError where a side has two
    runs of one seed, and with predictions where a run has none or other test images.
    """
    pairs = _pairs(rows, metric, a, b, cell)
    found = [_difference(x, y, metric, predictions) for _, x, y in pairs]
    adjusted = intervals.holm([f.p for f in found])
    return [
        Comparison(where, a, b, metric, f, float(p))
        for (where, *_), f, p in zip(pairs, found, adjusted, strict=True)
    ]


def across(
    rows: Sequence[Row],
    metric: str,
    a: dict[str, Any],
    b: dict[str, Any],
    cell: Sequence[str] = CELL,
) -> intervals.Estimate:
    """The interquartile mean of a - b over all cells (tasks) and their draws."""
    tasks = [
        np.array([x[metric] - y[metric] for x, y in zip(left, right, strict=True)])
        for _, left, right in _pairs(rows, metric, a, b, cell)
    ]
    return intervals.iqm_interval(tasks)


def between(
    rows: Sequence[Row],
    metric: str,
    factor: str = "upstream",
    cell: Sequence[str] = ("target", "model", "shots"),
    predictions: Predictions | None = None,
) -> list[Comparison]:
    """Every pair of values of `factor` in every cell; all of them are one family."""
    values = sorted({row[factor] for row in rows})
    pairs = [
        c
        for x, y in combinations(values, 2)
        for c in compare(rows, metric, {factor: x}, {factor: y}, cell, predictions)
    ]
    adjusted = intervals.holm([c.difference.p for c in pairs])
    return [
        Comparison(c.cell, c.a, c.b, metric, c.difference, float(p))
        for c, p in zip(pairs, adjusted, strict=True)
    ]


def as_rows(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Flat dicts, for a CSV or a page."""
    return [
        {
            **c.cell,
            **{f"a_{k}": v for k, v in c.a.items()},
            **{f"b_{k}": v for k, v in c.b.items()},
            "metric": c.metric,
            **asdict(c.difference),
            "p_holm": c.p_holm,
        }
        for c in found
    ]


def _by_seed(
    rows: Sequence[Row], metric: str, by: Sequence[str]
) -> dict[tuple, dict[int, Row]]:
    """{group: {seed: row}} of the rows that have the metric."""
    groups: dict[tuple, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        if row.get(metric) is None:
            continue
        group = groups[tuple(row[k] for k in by)]
        if row["seed"] in group:
            raise ValueError(
                f"{[row[k] for k in by]} has two runs of seed {row['seed']}, one at"
                f" {row['folder']}: select one study, model and protocol first"
            )
        group[row["seed"]] = row
    return groups


def _pairs(
    rows: Sequence[Row],
    metric: str,
    a: dict[str, Any],
    b: dict[str, Any],
    cell: Sequence[str],
) -> list[tuple[dict[str, Any], list[Row], list[Row]]]:
    """(cell, rows of a, rows of b) with the seeds that both have, in one order."""
    left = _by_seed(select(rows, **a), metric, cell)
    right = _by_seed(select(rows, **b), metric, cell)
    out = []
    for key in left:
        if seeds := sorted(left[key].keys() & right.get(key, {}).keys()):
            where = dict(zip(cell, key, strict=True))
            x, y = ([side[key][s] for s in seeds] for side in (left, right))
            out.append((where, x, y))
    return out


def _difference(
    left: list[Row], right: list[Row], metric: str, predictions: Predictions | None
) -> intervals.Estimate:
    """left - right, row by row."""
    a, b = (np.array([row[metric] for row in side]) for side in (left, right))
    if predictions is None:
        return intervals.paired(a, b)
    samples, patients = predictions.all_of([*left, *right], metric)
    n = len(left)
    return intervals.paired(a, b, samples[:, :n], samples[:, n:], patients)
