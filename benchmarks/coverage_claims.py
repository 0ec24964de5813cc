"""What is decided by differences of simulated cells: claims, and families of ten.

The studies are those of coverage_cells.py.
"""

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from coverage_cells import (
    NOISES,
    Row,
    Simulation,
    Study,
    one_patient,
    sides_of,
    together,
)
from scipy.special import betainc

from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Part, Side

MARGIN = 0.02


def settings() -> Iterator[tuple[str, str, Simulation]]:
    """(kind, setting, simulation) of every group of rows, as coverage_cells.settings."""
    for name in NOISES:
        yield "false claim", f"100 patients, {name}", partial(claims, 100, name)
        yield "family", f"100 patients, {name}", partial(family, 100, name)
    for p in (50, 100, 300):
        yield "false claim, two runs", f"{p} patients", partial(pairs, p)


def family(patients: int, noise: str, simulations: int) -> dict[str, Row]:
    """Verdicts of the ten differences of five upstreams, by AUROC, 3 or 5 seeds and draws.

    "false": the share of studies in which any of the ten is called different, none
    being so. "equivalent": how often one pair is, where the true difference is the margin
    (at most 5% may be), and where it is none.
    """
    gap, sd = NOISES[noise]
    rng = np.random.default_rng([patients, *noise.encode(), 2])
    kept: dict[tuple[int, int], list] = {size: [] for size in ((3, 3), (3, 10), (5, 5))}
    for _ in range(simulations):
        study = Study(rng, patients, gap, sd, "abcde")
        upstreams = [study.judged(side)["auroc"] for side in study.scores]
        one = one_patient("auroc", study.positive)
        for (u, draws), found in kept.items():
            for a, b in itertools.combinations(upstreams, 2):
                sides = sides_of(a, b, (u, u), draws)
                value = float(sides[0].points.mean() - sides[1].points.mean())
                found.append((value, crossed.parts(sides, one)))
    return {
        f"{size[0]} and {size[0]} seeds, {size[1]} draws": _verdicts(found, simulations)
        for size, found in kept.items()
    }


def _verdicts(found: list[tuple[float, list[Part]]], simulations: int) -> Row:
    """Of ten (value, parts) a simulation: what is said of them, by Holm and by TOST."""
    value = np.array([v for v, _ in found])
    tails = tails_beyond(value, together([p for _, p in found]))
    value, tails = value.reshape(simulations, -1), tails.reshape(simulations, -1)
    told = 2 * tails.min(axis=1) * value.shape[1] < 0.05
    first = together([p for _, p in found[:: value.shape[1]]])
    equal = [_outside(value[:, 0] + moved, first) < 0.05 for moved in (MARGIN, 0.0)]
    names = "any of ten", "equivalent at the margin", "equivalent at 0"
    shares = map(_share, (told, *equal))
    return dict(zip(names, shares, strict=True)) | {"simulations": simulations}


def _outside(value: np.ndarray, parts: list[Part]) -> np.ndarray:
    """crossed.outside of many effects at once."""
    tails = []
    for sign in (1, -1):
        inside = MARGIN + sign * value
        tail = tails_beyond(inside, parts)
        tails.append(np.where(inside > 0, tail, 1 - tail))
    return np.maximum(*tails)


def tails_beyond(value: np.ndarray, parts: list[Part]) -> np.ndarray:
    """crossed.tail_beyond of many effects at once: by halving, to 1e-12."""
    low, high = np.full(value.shape, 1e-12), np.full(value.shape, 0.5)
    for _ in range(50):
        middle = np.sqrt(low * high)
        short = crossed.reach(parts, middle, True) > np.abs(value)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return high


def _share(found: np.ndarray) -> float | None:
    """The mean; None of nothing."""
    return round(float(np.mean(found)), 4) if len(found) else None


def claims(patients: int, noise: str, simulations: int) -> dict[str, Row]:
    """How often "the one that is ahead is better" is false, by what was told of it.

    The true difference is drawn for each study: wide (sd 0.2), as the flat prior of the
    probability has it, and narrow (sd 0.02), as the differences of good nets are.
    """
    gap, sd = NOISES[noise]
    rng = np.random.default_rng([patients, *noise.encode(), 3])
    kept: dict[str, list] = {}
    for _ in range(simulations):
        study = Study(rng, patients, gap, sd, "ab")
        a, b = (study.judged(side)["auroc"] for side in "ab")
        one = one_patient("auroc", study.positive)
        for u, draws in ((3, 3), (5, 5)):
            sides = sides_of(a, b, (u, u), draws)
            value = float(sides[0].points.mean() - sides[1].points.mean())
            parts = crossed.parts(sides, one)
            for name, spread in (("wide", 0.2), ("narrow", 0.02)):
                truth = rng.normal(0, spread)
                told = crossed.tail_beyond(value + truth, parts)
                where = f"{u} and {u} seeds, {draws} draws, differences {name}"
                wrong = (value + truth) * truth < 0
                kept.setdefault(where, []).append((told, wrong))
    return {where: _calibration(np.array(v)) for where, v in kept.items()}


def pairs(patients: int, simulations: int) -> dict[str, Row]:
    """The same of two single runs, by accuracy, beside the formula of arXiv 2505.04720.

    With x_A images that A alone has right, x_B that B alone has, the shares of both and
    of the rest are Dirichlet(x_A + 1, x_B + 1, n - x_A - x_B + 2) there, so that the
    probability that A is not better is that of Beta(x_A + 1, x_B + 1) below a half.
    """
    rng = np.random.default_rng([patients, 4])
    kept: dict[str, list] = {"told here": [], "arXiv 2505.04720": []}
    for _ in range(simulations):
        truth = rng.uniform(-0.15, 0.15)  # of a fifth of the images that differ
        shares = (0.1 + truth / 2, 0.1 - truth / 2, 0.7, 0.1)
        count = rng.multinomial(patients, np.clip(shares, 0, 1))
        a, b = np.repeat([[1.0, 0, 1, 0], [0, 1, 1, 0]], count, axis=1)
        sides = [
            Side(np.array([[x.mean()]]), (x - x.mean())[:, None, None] / patients, sign)
            for x, sign in ((a, 1), (b, -1))
        ]
        value = float(a.mean() - b.mean())
        wrong = value * truth < 0 if value else 0.5
        parts = crossed.parts(sides, 1 / patients**2)
        kept["told here"].append((crossed.tail_beyond(value, parts), wrong))
        low = betainc(count[0] + 1, count[1] + 1, 0.5)
        kept["arXiv 2505.04720"].append((min(low, 1 - low), wrong))
    return {where: _calibration(np.array(v)) for where, v in kept.items()}


def _calibration(kept: np.ndarray) -> Row:
    """Of [simulations] x (told, false): what was told, and the share that was false."""
    told, false = kept.T
    out: Row = {"simulations": len(kept)}
    for low, high in ((0, 0.05), (0.05, 0.2), (0.2, 0.5)):
        here = (told >= low) & ((told < high) | (high == 0.5))
        out[f"told {low:g} to {high:g}"] = _share(told[here])
        out[f"false, told {low:g} to {high:g}"] = _share(false[here])
    return out
