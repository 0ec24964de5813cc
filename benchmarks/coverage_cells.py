"""Simulated studies: means of cells and differences of cells.

The score of patient i, of class y = 0 or 1, in the run of side s, upstream seed u and
draw d is (2 y - 1) (gap + g) + b + noise. The luck g, in skill, and b, in the threshold,
are sums of normal parts of the upstream seed, the draw (half of it common to both sides)
and the run. Of a patient's noise half is common to all runs, a tenth each to a side's, a
seed's and a draw's, the rest is one run's; one image a patient. All is drawn anew in
each simulation, but that smaller studies are parts of larger ones.

With x the gap over all that varies in skill, and the normal distribution's F, the mean
AUROC over seeds and draws is F(sqrt(2) gap / sqrt(1 + 2 var g)), the mean accuracy and
balanced accuracy F(gap / sqrt(1 + var g + var b)).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from scipy.stats import norm

from bigxfer.statistics import crossed, limits
from bigxfer.statistics.crossed import Part, Side
from bigxfer.statistics.influence import Patients
from bigxfer.tables import estimates

SEEDS, DRAWS = 5, 10  # of the largest study
POSITIVE = 0.4
METRICS = ("auroc", "accuracy", "balanced accuracy")
EFFECT = 0.05  # that the power is for
SLOPE = np.sqrt(2) * norm.pdf(np.sqrt(2) * 0.6)  # of the AUROC in the gap, at 0.6
# gap, and sd of the AUROC at gap 0.6 that the luck of seeds, draws and runs gives
NOISES = {
    "AUROC .80, sd .02 .03 .01": (0.6, (0.02, 0.03, 0.01)),
    "AUROC .80, sd .04 .01 .01": (0.6, (0.04, 0.01, 0.01)),
    "AUROC .80, sd .01 .08 .02": (0.6, (0.01, 0.08, 0.02)),
    "AUROC .97, sd .02 .03 .01": (1.3, (0.02, 0.03, 0.01)),
}
FEW = (3, 5, 10)
COMPARED = {  # other side, seeds of both sides, draws (None: full data)
    "1 and 1 seeds": ("b", (1, 1), FEW),
    "3 and 3 seeds": ("b", (3, 3), (*FEW, None)),
    "5 and 5 seeds": ("b", (5, 5), (*FEW, None)),
    "3 and 5 seeds": ("b", (3, 5), (*FEW, None)),
    "3 paired seeds": ("paired", (3, 3), (3, 10)),
    "5 paired seeds": ("paired", (5, 5), (3, 10)),
    "3 seeds and scratch": ("scratch", (3, 1), (3, 10)),
    "5 seeds and scratch": ("scratch", (5, 1), (3, 10)),
}
Row = dict[str, float | None]


class Study:
    """Runs of several sides on the same draws and patients.

    a, b and so on are of upstreams of their own, "paired" of those of a (0.7 of the variance of a
    seed's luck is common to both), "scratch" has none; the seeds of "steady" have no luck.
    `scores` {side: [p, U, D]}; `luck` {side: (g, b) of its first seed}; `positive` bool [p].
    """

    def __init__(
        self,
        rng: np.random.Generator,
        patients: int,
        gap: float,
        sd: tuple,
        sides: Sequence[str] = ("a", "b", "paired", "scratch"),
    ) -> None:
        self.positive = np.arange(patients) < round(POSITIVE * patients)
        sign = np.where(self.positive, 1, -1)[:, None, None]
        by_seed, by_draw, by_run = (x / SLOPE for x in sd)
        same, draws = rng.normal(size=(patients, 1, 1)), rng.normal(size=(2, 1, DRAWS))
        of_a = np.zeros((2, SEEDS, 1))
        self.scores, self.luck = {}, {}
        for side in sides:
            u = 1 if side == "scratch" else SEEDS
            seed = rng.normal(size=(2, u, 1)) * (side not in ("scratch", "steady"))
            if side == "a":
                of_a = seed
            if side == "paired":
                seed = np.sqrt(0.7) * of_a + np.sqrt(0.3) * seed
            draw = np.sqrt(0.5) * (draws + rng.normal(size=(2, 1, DRAWS)))
            run = rng.normal(0, by_run, (2, u, DRAWS))
            g, b = by_seed * seed + by_draw * draw + run
            luck = rng.normal(size=(patients, 1, 1)) + rng.normal(size=(patients, u, 1))
            luck = luck + rng.normal(size=(patients, 1, DRAWS))
            noise = np.sqrt(0.5) * same + np.sqrt(0.1) * luck
            noise = noise + np.sqrt(0.2) * rng.normal(size=(patients, u, DRAWS))
            self.scores[side] = sign * (gap + g) + b + noise
            self.luck[side] = tuple(by_seed * seed[:, 0, 0])

    def judged(self, side: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{metric: (points [U, D], influences [p, U, D])}, by their definitions.

        An AUROC's influences are placements (DeLong), enlarged by sqrt(m / (m - 1)) within
        each class; those of shares are the hits less their mean.
        """
        scores, y = self.scores[side], self.positive
        p = len(y)
        right = (scores > 0) == y[:, None, None]
        share = right.mean(axis=0)
        ranks = scores.argsort(axis=0).argsort(axis=0)
        placed, balanced = np.empty(scores.shape), np.empty(scores.shape)
        recalls, places = [], []
        for k in (0, 1):
            own = y == k
            m = own.sum()
            within = scores[own].argsort(axis=0).argsort(axis=0)
            below = (ranks[own] - within) / (p - m)
            places.append(below if k else 1 - below)
            spread = places[k] - places[k].mean(axis=0)
            placed[own] = spread / np.sqrt(m * (m - 1))
            recalls.append(right[own].mean(axis=0))
            balanced[own] = (right[own] - recalls[k]) / m / 2
        return {
            "auroc": (places[1].mean(axis=0), placed),
            "accuracy": (share, (right - share) / p),
            "balanced accuracy": (np.mean(recalls, axis=0), balanced),
        }


def expected(metric: str, gap: float, sd: tuple, luck: tuple = (0.0, 0.0)) -> float:
    """The metric's mean over all that varies, or given the luck (g, b) of one seed."""
    fixed = luck != (0.0, 0.0)
    spread = sum((x / SLOPE) ** 2 for x in sd[fixed:])
    g, b = luck
    if metric == "auroc":
        return float(norm.cdf(np.sqrt(2) * (gap + g) / np.sqrt(1 + 2 * spread)))
    share = POSITIVE if metric == "accuracy" else 0.5
    up, down = norm.cdf(np.array([gap + g + b, gap + g - b]) / np.sqrt(1 + 2 * spread))
    return float(share * up + (1 - share) * down)


def one_patient(metric: str, truth: np.ndarray) -> float:
    """The squared effect of one patient more, as limits.py states it."""
    p, m = len(truth), truth.sum()
    if metric == "accuracy":
        return 1 / p**2
    scale = 16 if metric == "auroc" else 4
    return (1 / m**2 + 1 / (p - m) ** 2) / scale


Simulation = Callable[[int], dict[str, Row]]


def settings() -> Iterator[tuple[str, str, Simulation]]:
    """(kind, setting, simulation) of every group of rows; it gives {row: numbers}."""
    for name, p in itertools.product(NOISES, (50, 100, 300)):
        yield "difference", f"{p} patients, {name}", partial(differences, p, name)
    first = next(iter(NOISES))
    for p, name in ((50, first), *((100, name) for name in NOISES), (300, first)):
        yield "mean", f"{p} patients, {name}", partial(means, p, name)


def sides_of(
    a: tuple, b: tuple, seeds: tuple[int, int], draws: int | None
) -> list[Side]:
    """The first seeds and draws of both sides; at full data (None) one run a seed.

    At full data the run of a seed has a draw of its own, which no other run has.
    """
    out = []
    for (points, sums), u, sign in ((a, seeds[0], 1), (b, seeds[1], -1)):
        if draws is None:
            i = np.arange(u)
            d = i if sign > 0 else DRAWS - 1 - i
            out.append(Side(points[i, d][:, None], sums[:, i, d][:, :, None], sign))
        else:
            out.append(Side(points[:u, :draws], sums[:, :u, :draws], sign))
    return out


def differences(patients: int, noise: str, simulations: int) -> dict[str, Row]:
    """Intervals of a - b by metric, seeds and draws, the true difference 0.

    With one seed a side the truth is that of these two upstreams. The power is of
    finding a difference of EFFECT, from the same intervals, moved.
    """
    gap, sd = NOISES[noise]
    kept: dict[str, list] = {}
    rng = np.random.default_rng([patients, *noise.encode()])
    for _ in range(simulations):
        study = Study(rng, patients, gap, sd)
        found = {side: study.judged(side) for side in study.scores}
        for (upstreams, (other, seeds, draws)), metric in itertools.product(
            COMPARED.items(), METRICS
        ):
            truth = 0.0
            if seeds == (1, 1):
                x, y = (expected(metric, gap, sd, study.luck[side]) for side in "ab")
                truth = x - y
            one = one_patient(metric, study.positive)
            for d in draws:
                sides = sides_of(found["a"][metric], found[other][metric], seeds, d)
                if other == "paired":
                    x, y = sides
                    sides = [Side(x.points - y.points, x.sums - y.sums)]
                value = sum(s.sign * float(s.points.mean()) for s in sides)
                low, high = crossed.interval(value, crossed.parts(sides, one))
                where = f"{metric}, {upstreams}, {d or 'full'} draws"
                kept.setdefault(where, []).append((value, low, high, truth))
    return {where: _row(np.array(v)) for where, v in kept.items()}


def together(parts: list[list[Part]]) -> list[Part]:
    """The parts of many simulations of one design, with arrays [simulations]."""
    out = []
    for same in zip(*parts, strict=True):
        low, square = np.array(
            [(p.low, p.low if p.square is None else p.square) for p in same]
        ).T
        out.append(Part(same[0].factor, low, low, same[0].freedom, square))
    return out


def _row(kept: np.ndarray) -> Row:
    """Of [simulations] x (value, low, high, truth): coverage, width over ideal, power.

    The ideal is what would cover as often with the width known: 2 x 1.96 times the
    standard deviation of the values about their truths.
    """
    value, low, high, truth = kept.T
    ideal = 2 * 1.96 * np.std(value - truth)
    return {
        "coverage": round(float(np.mean((low <= truth) & (truth <= high))), 4),
        "width": round(float(np.median(high - low)), 4),
        "over_ideal": round(float(np.mean(high - low) / ideal), 3),
        "power": round(float(np.mean(low + EFFECT - truth > 0)), 4),
        "simulations": len(kept),
    }


def means(patients: int, noise: str, simulations: int) -> dict[str, Row]:
    """Intervals of a cell's mean, from the runs' own limits and influences."""
    gap, sd = NOISES[noise]
    kept: dict[str, list] = {}
    rng = np.random.default_rng([patients, *noise.encode(), 1])
    each = Patients.of(np.arange(patients))
    for _ in range(simulations):
        study = Study(rng, patients, gap, sd, "a")
        y = study.positive.astype(float)
        known = np.ones(patients, bool)
        for metric in ("auroc", "accuracy"):
            points, sums = study.judged("a")[metric]
            for u, draws in ((1, 3), (1, 10), (3, 3), (3, 5), (5, 5), (3, None)):
                (side, _) = sides_of((points, sums), (points, sums), (u, 1), draws)
                scores = study.scores["a"][:, :u, :draws]
                if draws is None:
                    scores = scores[:, np.arange(u), np.arange(u)][:, :, None]
                runs = []
                for i, j in np.ndindex(*side.points.shape):
                    value = float(side.points[i, j])
                    if metric == "auroc":
                        effect = side.sums[:, i, j]
                        runs.append(limits.auroc(value, effect, y, each)[:3])
                    else:
                        hit = (scores[:, i, j] > 0) == study.positive
                        runs.append(limits.proportion(hit, known, each)[:3])
                value = float(side.points.mean())
                parts = estimates.mean_parts(side, [runs])
                low, high = crossed.interval(value, parts)
                luck = study.luck["a"] if u == 1 else (0.0, 0.0)
                truth = expected(metric, gap, sd, luck)
                where = f"{metric}, {u} seeds, {draws or 'full'} draws"
                ends = value, max(low, 0.0), min(high, 1.0), truth
                kept.setdefault(where, []).append(ends)
    return {where: _row(np.array(v)) for where, v in kept.items()}
