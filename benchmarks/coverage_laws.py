"""Forecasts and crossovers on simulated (synthetic) studies whose truth is known.

    python benchmarks/coverage_laws.py [--simulations 2000] [--only forecasts crossovers]
                                       [--out laws.json] [--minutes 4]

A forecast covers where its 95% band holds the true error at 2, 4 and 10 times the
largest scale. Of lines that are equal no more than 5% of studies may tell a crossing.
With --out the simulations are kept, and a call goes on where the last one stopped.
"""

import argparse
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from coverage_claims import tails_beyond

from bigxfer.scaling import trend
from bigxfer.scaling.crossover import Crossover, decide
from bigxfer.scaling.curves import cutoff
from bigxfer.scaling.forecast import forecasts
from bigxfer.scaling.forms import CURVES
from bigxfer.scaling.scatter import scatter
from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Part

DRAWS, REPLICATES = 5, 200
TURN = 20  # simulations of a row, searched at once, before the next one
LAWS: dict[str, Callable] = {
    "power law": lambda x: 0.5 * x**-0.3,
    "slow floor": lambda x: 0.05 + 0.45 * x**-0.4,
    "plateau within the data": lambda x: 0.10 + 0.4 * x**-1.0,
    "M3": lambda x: 0.5 * (1 / x + 0.01) ** 0.4,
    "rectified": lambda x: 0.05 + 0.45 / (1 + (x / 20) ** 0.9),
    "saturating": lambda x: 0.06 + 2 * (x + 8) ** -0.7,
    "break within the data": lambda x: 0.5 * x**-0.05 * (1 + (x / 15) ** 3) ** -0.15,
}
AHEAD = (2.0, 4.0, 10.0)


def some_forecasts(law: Callable, noise: float, k: int, seeds: Iterable[int]) -> list:
    """For each seed [(low, true, high)] at AHEAD times the largest scale; None where no
    falling law is told. Half of the variance of a draw is common to its scales, as nested
    draws have it."""
    x, kept = np.geomspace(1, 500, k), {}
    found: dict[int, list | None] = dict.fromkeys(seeds)
    for seed in found:
        rng = np.random.default_rng([seed, k, round(1000 * noise)])
        luck = rng.normal(0, noise, (DRAWS, 1)) + rng.normal(0, noise, (DRAWS, k))
        y = law(x) * np.exp(np.sqrt(0.5) * luck)
        scattered = scatter(x, y[None], np.zeros(k), REPLICATES, None)
        if not trend.rises(x, scattered, trend.slope(x, scattered)):
            kept[seed] = scattered
    far = x[-1] * np.array(AHEAD)
    if kept:
        all_of = forecasts(CURVES.values(), x, list(kept.values()), cutoff(x))
        for seed, prediction in zip(kept, all_of, strict=True):
            _, low, high = prediction.predict(far)
            found[seed] = np.stack([low, law(far), high], 1).tolist()
    return list(found.values())


def forecast_row(found: list) -> str:
    """Coverage at AHEAD (median half-width over the true error), and how many have no law."""
    kept = np.array([f for f in found if f])
    low, true, high = np.moveaxis(kept, -1, 0)
    covered = ((low <= true) & (true <= high)).mean(0)
    width = np.median((high - low) / (2 * true), 0)
    cells = " | ".join(f"{c:.3f} (±{w:.0%})" for c, w in zip(covered, width))
    return f"{cells} | {1 - len(kept) / len(found):.1%} | {len(found)} |"


SHOTS = np.array([1.0, 5, 10, 50, 100, 500])
LINES = 6  # 15 pairs
SHARED = 0.04  # sd over draws that all lines have in common
OWN = np.array([0.03, 0.015, 0.012, 0.008, 0.006, 0.005])  # sd over draws of one line


def study(rng, truths: np.ndarray, patients: int) -> list[Crossover]:
    """All pairs of lines with the true errors [lines, k], of 5 paired draws.

    A patient's part of the error has the sd 0.4, half of its variance common to all
    lines; an influence is that part over the number of patients.
    """
    lines, k = truths.shape
    own = rng.normal(0, OWN, (lines, DRAWS, k)) + rng.normal(0, SHARED, (DRAWS, k))
    hard = rng.normal(0, 0.4, (patients, 1, 1)) * np.sqrt(0.5)
    hard = hard + rng.normal(0, 0.4, (patients, lines, 1)) * np.sqrt(0.4)
    hard = hard + rng.normal(0, 0.4, (patients, lines, k)) * np.sqrt(0.1)
    means = truths[:, None] + own + hard.mean(0)[:, None]  # [lines, draws, k]
    sums = (hard - hard.mean(0)) / patients
    places = [(b, a) for a in range(lines) for b in range(a)]
    first, second = np.transpose(places)
    apart = means[first] - means[second]  # [pairs, draws, k]
    value, sums = apart.mean(1), sums[:, first] - sums[:, second]
    parts = [
        Part.even("draws", apart.var(1, ddof=1) / DRAWS, DRAWS - 1),
        Part.even("patients", sums.var(0, ddof=1) * patients, patients - 1),
    ]
    table = np.stack([value, *crossed.interval(value, parts)], -1)
    return [Crossover(SHOTS, *of) for of in zip(table, tails_beyond(value, parts))]


def some_crossovers(truths: np.ndarray, seeds: Iterable[int]) -> list:
    """For each seed [whether any pair is said to cross, [(low, high) of pair 0]]."""
    found = []
    for seed in seeds:
        decided = decide(study(np.random.default_rng([seed, 11]), truths, 300))
        found.append([any(decided), [[over.low, over.high] for over in decided[0]]])
    return found


def crossover_row(found: list, at: float) -> str:
    """The share of studies that tell a crossing; of pair 0, how often, and how well."""
    ends = np.array([e for _, over in found for e in over]).reshape(-1, 2)
    told = len(ends) / len(found)
    text = f"{np.mean([told_any for told_any, _ in found]):.3f} | {told:.3f} |"
    if np.isfinite(at) and len(ends):
        right = np.mean((ends[:, 0] <= at) & (at <= ends[:, 1]))
        width = np.exp(np.median(np.log(ends[:, 1] / ends[:, 0])))
        text += f" {right:.3f} | {width:.1f}x |"
    else:
        text += " | |"
    return f"{text} {len(found)} |"


def crossing_studies() -> dict[str, tuple[np.ndarray, float]]:
    """{what: (true errors [lines, k], where lines 1 and 0 cross)}: line 1 less line 0."""
    equal = np.tile(0.5 * SHOTS**-0.2, (LINES, 1))
    late = equal.copy()
    late[1:] += 0.1 * (SHOTS > 20) * np.arange(1, LINES)[:, None]
    found = {"6 equal lines": (equal, np.nan)}
    found["equal up to 10 shots, then apart"] = late, np.nan
    for slope in (0.02, 0.04):
        for lines in (2, LINES):
            lines_of = equal[:lines].copy()
            lines_of[1] += slope * np.log(SHOTS / 20)
            name = f"{lines} lines, one crosses at 20, slope {slope} per e-fold"
            found[name] = lines_of, 20.0
    return found


def rows(only: list[str]) -> dict[str, tuple[Callable, Callable]]:
    """{name: (simulations by their seeds, the row of all)}."""
    out: dict[str, tuple[Callable, Callable]] = {}
    if "forecasts" in only:
        for name, noise, k in itertools.product(LAWS, (0.05, 0.15), (6, 8)):
            some = functools.partial(some_forecasts, LAWS[name], noise, k)
            out[f"{name}, noise {noise:.0%}, {k} scales"] = some, forecast_row
    if "crossovers" in only:
        for name, (truths, at) in crossing_studies().items():
            some = functools.partial(some_crossovers, truths)
            out[name] = some, functools.partial(crossover_row, at=at)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parts = ["forecasts", "crossovers"]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--out", type=Path, help="simulations done, to go on from")
    parser.add_argument("--minutes", type=float, default=1e9)
    args = parser.parse_args()
    done = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    wanted, start = rows(args.only), time.time()
    for n in range(0, args.simulations, TURN):  # in turns, so that rows grow alike
        for name, (some, _) in wanted.items():
            found = done.setdefault(name, [])
            seeds = range(len(found), min(n + TURN, args.simulations))
            if seeds and time.time() - start < 60 * args.minutes:
                found += some(seeds)
        if args.out:
            args.out.write_text(json.dumps(done))
    for name, (_, row) in wanted.items():
        if done[name]:
            print(f"| {name} | {row(done[name])}")
    print(f"\n{time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
