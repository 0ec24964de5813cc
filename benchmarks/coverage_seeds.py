"""Differences of simulated cells with two or three upstream seeds: how small a p may be.

The studies are those of coverage_cells.py, by AUROC, with no true difference. `sd` is that
of the AUROC over upstream seeds; of draws it is .03, of runs .01. Of two upstream seeds the
variance often comes out as 0 by chance, so rows count false findings at several levels.
"""

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from coverage_cells import (
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
    for p, sd in itertools.product((50, 100, 300), (0.0, 0.01, 0.02, 0.04)):
        yield "few seeds", f"{p} patients, sd {sd:g}", partial(few_seeds, p, sd)


def few_seeds(patients: int, sd: float, simulations: int) -> dict[str, Row]:
    """Coverage and width of intervals of a - b, and the share that is told from 0."""
    return {k: judged(found) for k, found in simulate(patients, sd, simulations)}


def simulate(patients: int, sd: float, simulations: int) -> Iterator[tuple[str, Found]]:
    """(row's name, its differences with their parts)."""
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
                where = f"{upstreams}, {f'{d} draws' if d else 'full data'}"
                kept.setdefault(where, []).append((value, crossed.parts(sides, one)))
    yield from kept.items()


def judged(found: Found) -> Row:
    """The row of coverage_cells, and the share told from 0 at each of LEVELS."""
    value, parts = np.array([v for v, _ in found]), together([p for _, p in found])
    reaches = [crossed.reach(parts, level / 2, True) for level in LEVELS]
    low, high = value - reaches[0], value + reaches[0]
    row = _row(np.stack([value, low, high, np.zeros(len(value))], axis=-1))
    shares = {
        f"told at {level:g}": round(float(np.mean(np.abs(value) > far)), 4)
        for level, far in zip(LEVELS, reaches, strict=True)
    }
    return row | shares
