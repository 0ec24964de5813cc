"""The variances of a pilot: what finished runs of two sides say of one seed, draw and patient.

`of_pilot` reads them from the runs of a table; design.py plans a study from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Side
from bigxfer.study.design import Share, Variances
from bigxfer.tables import differences, estimates
from bigxfer.tables.cells import PredictionReader, Runs
from bigxfer.tables.differences import Paired


@dataclass(frozen=True)
class Pilot:
    """A finished pair of cells, its variances, and the patients that it was tested on."""

    pair: Paired
    variances: Variances
    patients: int


def of_pilot(a: Runs, b: Runs, metric: str, predictions: PredictionReader) -> Pilot:
    """The variances of a - b, as finished runs show them.

    Raises ValueError, saying what to run, where one of them cannot be had.
    """
    pair = differences.paired(a, b, metric, predictions)
    if pair is None:
        raise ValueError("the two sides share no draw: run both on the same seeds")
    _check(pair)
    p, tested = _patients(pair, predictions), pair.tested
    known = variances(pair.sides, p, bool(pair.grids[0].draws), tested.one)
    # Published runs have limits, but no predictions to pair patients by.
    if tested.sums[0] is None:  # as if of other patients on each side
        ends = [estimates.spread(limits) for limits in tested.limits]
        own = float(np.sum(np.mean(ends, axis=1)))
        known = replace(known, patients=_sure(own * p, p))
    return Pilot(pair, known, p)


def variances(
    sides: Sequence[Side], patients: int, drawn: bool, one: float = 0.0
) -> Variances:
    """The variances of two sides' runs; `drawn`: whether their columns are shared draws.

    `one` is what one patient more could add, as in crossed.parts. Sides without
    influences leave the patients' part 0.
    """
    several = [shares for side in sides if (shares := _of_side(side, patients))]
    sums, own = [s.sums for s in sides if s.sums is not None], 0.0
    if len(sums) == len(sides):
        own = crossed.patients(sides, sums)
        own += one * float(np.mean([crossed.shared(x) for x in sums]))
    return Variances(
        tuple(seeds for seeds, _ in several),
        _of_draws(sides, patients) if drawn else None,
        tuple(runs for _, runs in several) if drawn else (),
        _sure(own * patients, patients),
    )


def _check(pair: Paired) -> None:
    """ValueError, saying what to run, where a variance cannot be had."""
    left, right = pair.grids
    # One seed has no variance, and to take it as 0 would plan too small a study.
    if any(grid.one_upstream for grid in pair.grids):
        raise ValueError(
            "the pilot has one upstream seed on a side: how upstream seeds differ cannot"
            " be had from it. Run two more seeds of each upstream (a config's seed= or"
            " --config.seed), or give the standard deviation as upstreams= in --sd"
        )
    if len(left.draws) == 1:
        raise ValueError(
            "the pilot has one draw that both sides share: how draws differ cannot be had"
            " from it. Run two more seeds of each transfer, or give --sd"
        )
    if not left.draws and min(len(left.places), len(right.places)) < 2:
        raise ValueError(
            "the pilot has one training at full data on a side: how trainings differ"
            " cannot be had from it. Run two more seeds of it, or give --sd"
        )
    if pair.tested.reason or not pair.tested.limits:
        why = pair.tested.reason or "no predictions and no limits in the table"
        raise ValueError(
            f"how test patients differ cannot be had from the pilot: {why}. Run it with"
            " predictions kept, or give the standard deviation as patients= in --sd"
        )


def _patients(pair: Paired, predictions: PredictionReader) -> int:
    """How many patients the pilot was tested on; test images where it does not say."""
    rows = pair.grids[0].rows
    first = rows[0]
    known = predictions.patients(rows) if pair.tested.sums[0] is not None else 0
    # Where neither tells the patients, test images stand for them.
    return known or first.get("test_patients") or first["test_images"]


def _squares(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean squares of x [..., U, D]: of its rows' means, its columns' means, the rest.

    The first two are variances over U and D; 0 where there is but one.
    """
    u, d = x.shape[-2:]
    rows, columns = x.mean(-1), x.mean(-2)
    rest = x - rows[..., None] - columns[..., None, :] + x.mean((-1, -2), keepdims=True)
    none = np.zeros(x.shape[:-2])
    return (
        rows.var(-1, ddof=1) if u > 1 else none,
        columns.var(-1, ddof=1) if d > 1 else none,
        (rest**2).sum((-1, -2)) / ((u - 1) * (d - 1)) if u > 1 and d > 1 else none,
    )


def _by_patients(sums: np.ndarray) -> tuple[float, float, float]:
    """What patients alone add to each of these mean squares; sums are [p, U, D]."""
    p = len(sums)
    rows, columns, rest = (float(s.sum()) * p / max(p - 1, 1) for s in _squares(sums))
    return rows, columns, rest


def _sure(variance: float, patients: int) -> Share:
    """Return the share of single patients, of which the pilot has many."""
    return Share(variance, square=(variance, 0.0), freedom=max(patients - 1, 1))


def _share(
    square: tuple[float, float],
    less: tuple[float, float],
    patients: int,
    freedom: float,
) -> Share:
    """A mean square less another, each given as (whole, what patients alone add)."""
    whole = max(square[0] - less[0], 0.0)
    of_patients = max(square[1] - less[1], 0.0)
    # What patients add falls with their number; it cannot be more than the whole.
    falls = min(of_patients, whole)
    taken = square[0], less[0] + of_patients
    return Share(whole - falls, falls * patients, taken, freedom)


def _of_side(side: Side, patients: int) -> tuple[Share, Share] | None:
    """(share of its upstream seeds, of its single runs); None where it has one seed."""
    u, d = side.points.shape
    if u < 2:
        return None
    seeds, runs = _mean_squares(side)
    own = _share(seeds, (runs[0] / d, runs[1] / d), patients, u - 1)
    return own, _share(runs, (0.0, 0.0), patients, (u - 1) * max(d - 1, 1))


def _mean_squares(side: Side) -> tuple[tuple[float, float], tuple[float, float]]:
    """(mean square of the seeds, of the runs), each with what patients alone add."""
    seeds, _, runs = (float(s) for s in _squares(side.points))
    if side.sums is None:
        return (seeds, 0.0), (runs, 0.0)
    of_seeds, _, of_runs = _by_patients(side.sums)
    return (seeds, of_seeds), (runs, of_runs)


def _of_draws(sides: Sequence[Side], patients: int) -> Share:
    """The share of the draws of the difference, without what its single runs add."""
    every = [s.sums for s in sides if s.sums is not None]
    points = np.sum([s.sign * s.points.mean(0) for s in sides], axis=0)
    square, less = [float(points.var(ddof=1)), 0.0], np.zeros(2)
    if len(every) == len(sides):
        signed = [s.sign * x.mean(1) for s, x in zip(sides, every, strict=True)]
        square[1] = _by_patients(np.sum(signed, axis=0)[:, None, :])[1]
    for side in sides:
        # A column's mean over U seeds holds a U-th of the variance of the runs.
        less += np.array(_mean_squares(side)[1]) / len(side.points)
    return _share((square[0], square[1]), (less[0], less[1]), patients, len(points) - 1)
