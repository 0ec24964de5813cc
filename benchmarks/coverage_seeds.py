"""Differences of simulated cells with two or three upstream seeds: how small a p may be.

No difference is true. `sd` is that of the AUROC over upstream seeds; of draws it is .03, of
runs .01. Of two upstream seeds the variance often comes out as 0 by chance, so rows count
false findings at several levels. Few seeds "by scores" are the studies of coverage_cells.py
at an AUROC of .80. Those "by normal luck" have the same variances, but normal: their mean
squares are chi-squares and independent of the effect (Searle, Casella and McCulloch 1992,
chapter 4), so that many more can be drawn, which small p need.
"""

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from coverage_cells import (
    POSITIVE,
    Row,
    Simulation,
    Study,
    _row,
    one_patient,
    sides_of,
    together,
)

from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Part, Side

LEVELS = (0.05, 0.01, 0.001, 0.0001)
TIMES = 10  # simulations by normal luck for one by scores
COMPARED = {  # other side, seeds of both sides, draws (None: full data)
    "2 and 2 seeds": ("b", (2, 2), (3, 5, 10, None)),
    "2 and 3 seeds": ("b", (2, 3), (3, 5, 10, None)),
    "3 and 3 seeds": ("b", (3, 3), (3, 5, 10, None)),
    "2 and 2 seeds, b's without luck": ("steady", (2, 2), (10, None)),
    "2 paired seeds": ("paired", (2, 2), (3, 10, None)),
    "2 seeds and scratch": ("scratch", (2, 1), (3, 10)),
}
Found = list[tuple[float, list[Part]]]


def settings() -> Iterator[tuple[str, str, Simulation]]:
    """(kind, setting, simulation) of every group of rows, as coverage_cells.settings."""
    for name, simulate in (("by normal luck", by_normal), ("by scores", by_scores)):
        for p, sd in itertools.product((50, 100, 300), (0.0, 0.01, 0.02, 0.04)):
            setting = f"{p} patients, sd {sd:g}"
            yield f"few seeds, {name}", setting, partial(simulate, p, sd)


def by_scores(patients: int, sd: float, simulations: int) -> dict[str, Row]:
    """Coverage and width of intervals of a - b, and the share that is told from 0."""
    return {
        name: judged(np.array([v for v, _ in found]), together([p for _, p in found]))
        for name, found in simulate(patients, sd, simulations).items()
    }


def by_normal(patients: int, sd: float, simulations: int) -> dict[str, Row]:
    """The same of TIMES as many simulations."""
    rng = np.random.default_rng([patients, round(100 * sd), 6])
    rows, size = {}, TIMES * simulations
    for upstreams, (other, seeds, draws) in COMPARED.items():
        for d in draws:
            parts, variance = normal(rng, patients, sd, other, seeds, d, size)
            value = rng.normal(0, np.sqrt(variance), size)
            rows[_where(upstreams, d)] = judged(value, parts)
    return rows


def normal(
    rng: np.random.Generator,
    p: int,
    sd: float,
    other: str,
    us: tuple,
    d: int | None,
    n: int,
) -> tuple[list[Part], float]:
    """(parts of n differences as crossed.parts finds them, their true variance)."""
    # Of a run's variance by patients a tenth is common to its side, a tenth to its seed, a
    # tenth to its draw, and two tenths are its own.
    one = single_run(p)
    draw, run = 0.03**2 / 2 + 0.1 * one, 0.01**2 + 0.2 * one
    lucks = {
        "a": sd**2,
        "b": sd**2,
        "steady": 0.0,
        "scratch": 0.0,
        "paired": 0.3 * sd**2,
    }
    sides = [
        (us[0], lucks["a"] + 0.1 * one, run),
        (us[1], lucks[other] + 0.1 * one, run),
    ]
    if other == "paired":  # one side, the difference
        sides = [(us[0], 2 * (lucks[other] + 0.1 * one), 2 * run)]
    own, columns, rest, parts = 0.2 * one, 2 * draw, np.zeros(n), []
    if not d:  # the draw is each run's own, and half of its luck no longer common
        more = (0.03**2 + 0.1 * one) * len(us) / len(sides)
        sides = [(u, seed + more, run) for u, seed, run in sides]
    total, few = own, (d or 1) - 1
    for u, seed, run in sides:
        total += (seed + run / (d or 1)) / u
        columns += run / u
        left = np.zeros(n)
        if u > 1 and few:
            left = run / (u * d) * _chi_square(rng, (u - 1) * few, n)
        if u > 1:
            square = (seed + run / (d or 1)) / u * _chi_square(rng, u - 1, n)
            parts.append(Part.less("upstreams", square, left, u - 1))
        else:
            own += seed  # of one seed: that of all its runs
        rest = rest + left
    if few:
        total += 2 * draw / d
        square = columns / d * _chi_square(rng, few, n)
        parts.append(Part.less("draws", square, rest, few))
        freedom = few * sum(u - 1 for u, *_ in sides)
        parts.append(Part.even("residual", rest, freedom))
    parts.append(Part.even("patients", own * _chi_square(rng, p - 1, n), p - 1))
    return parts, total


def single_run(patients: int, auroc: float = 0.8) -> float:
    """The variance of one run's AUROC by its patients (Hanley and McNeil 1982, 143:29)."""
    m = round(POSITIVE * patients)
    n, square = patients - m, auroc**2
    both = (m - 1) * (auroc / (2 - auroc) - square)
    both += (n - 1) * (2 * square / (1 + auroc) - square)
    return (auroc * (1 - auroc) + both) / (m * n)


def _chi_square(rng: np.random.Generator, freedom: int, size: int) -> np.ndarray:
    return rng.chisquare(freedom, size) / freedom


def _where(upstreams: str, draws: int | None) -> str:
    return f"{upstreams}, {f'{draws} draws' if draws else 'full data'}"


def simulate(patients: int, sd: float, simulations: int) -> dict[str, Found]:
    """{row's name: its differences with their parts}."""
    rng = np.random.default_rng([patients, round(100 * sd), 5])
    kept: dict[str, Found] = {}
    names = ("a", *dict.fromkeys(other for other, *_ in COMPARED.values()))
    for _ in range(simulations):
        study = Study(rng, patients, 0.6, (sd, 0.03, 0.01), names)
        by_side = {side: study.judged(side)["auroc"] for side in names}
        one = one_patient("auroc", study.positive)
        for upstreams, (other, seeds, draws) in COMPARED.items():
            for d in draws:
                sides = sides_of(by_side["a"], by_side[other], seeds, d)
                if other == "paired":
                    x, y = sides
                    sides = [Side(x.points - y.points, x.sums - y.sums)]
                value = sum(s.sign * float(s.points.mean()) for s in sides)
                parts = crossed.parts(sides, one)
                kept.setdefault(_where(upstreams, d), []).append((value, parts))
    return kept


def judged(value: np.ndarray, parts: list[Part]) -> Row:
    """The row of coverage_cells, and the share told from 0 at each of LEVELS."""
    reaches = [crossed.reach(parts, level / 2, True) for level in LEVELS]
    low, high = value - reaches[0], value + reaches[0]
    row = _row(np.stack([value, low, high, np.zeros(len(value))], axis=-1))
    shares = {
        f"told at {level:g}": round(float(np.mean(np.abs(value) > far)), 6)
        for level, far in zip(LEVELS, reaches, strict=True)
    }
    return row | shares
