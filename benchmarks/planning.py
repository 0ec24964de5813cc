"""Whether a planned study reaches what was planned, on simulated (synthetic) studies.

    python benchmarks/planning.py [--simulations 2000]

The truth is known: an effect, and normal upstream seeds, draws, single runs and test
patients, whose shares in all runs, in a seed's, a draw's and a single run are crossed. First
studies are planned from the true standard deviations and simulated: their mean half-width
and their power are beside what was asked for. Then each of many pilots is simulated,
a study is planned from it, and the true half-width of that study is compared with the goal.
"""

import argparse
import time

import numpy as np

from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Side
from bigxfer.study import design
from bigxfer.study.design import Design, Goal, Share, Variances
from bigxfer.study.pilot import variances

PATIENTS = (
    0.3,
    0.2,
    0.2,
    0.3,
)  # sd: of all runs of a side, a seed's, a draw's, a run's
SPREADS = {  # sd of upstream seeds, draws and single runs of a side
    "seeds differ most": (0.03, 0.015, 0.01),
    "draws differ most": (0.01, 0.04, 0.01),
}


def simulate(rng, d: Design, sd, effect: float = 0.0) -> list[Side]:
    """Two sides of a study, whose difference is `effect` in truth."""
    u, n, p = d.upstreams, d.draws, d.patients
    sides = []
    for sign in (1, -1):
        values = np.zeros((p, u, n), np.float32)  # half the time, and half the memory
        for own, shape in zip(PATIENTS, ((p, 1, 1), (p, u, 1), (p, 1, n), (p, u, n))):
            values += np.float32(own) * rng.standard_normal(shape, np.float32)
        own = rng.normal(0, sd[0], (u, 1)) + rng.normal(0, sd[1], n)
        points = own + rng.normal(0, sd[2], (u, n)) + values.mean(0, float)
        points += effect / 2 * sign
        sides.append(Side(points, (values - values.mean(0, float)) / p, sign))
    return sides


def true_variances(sd) -> Variances:
    """Those that `simulate` draws from."""
    everyone, seed, draw, run = (x**2 for x in PATIENTS)
    upstreams, runs = Share(sd[0] ** 2, seed), Share(sd[2] ** 2, run)
    return Variances(
        (upstreams,) * 2,
        Share(2 * sd[1] ** 2, 2 * draw),
        (runs,) * 2,
        Share(2 * everyone),
    )


def smallest(found: list[tuple[Design, float]]) -> Design:
    """The design with the fewest runs."""
    return min((d for d, _ in found), key=lambda d: d.upstreams * d.draws)


def measured(d: Design, sd, effect: float, simulations: int) -> tuple[float, float]:
    """(mean half-width, share of studies whose p is below 0.05)."""
    rng, halves, told = np.random.default_rng(d.upstreams), [], []
    for _ in range(simulations):
        sides = simulate(rng, d, sd, effect)
        value = float(sum(s.sign * s.points.mean() for s in sides))
        parts = crossed.parts(sides)
        low, high = crossed.interval(value, parts)
        halves.append((high - low) / 2)
        told.append(low > 0 or high < 0)
    return float(np.mean(halves)), float(np.mean(told))


def assured(pilot: Design, sd, goal: Goal, assurance: float, simulations: int):
    """(share of pilots whose study truly reaches the goal, pilots with a study, its runs).

    Pilots for which no study is large enough are left out.
    """
    rng, truth = np.random.default_rng(1), true_variances(sd)
    patients, reached, runs = [200, 400, 800, 1600], [], []
    for _ in range(simulations):
        seen = variances(simulate(rng, pilot, sd), pilot.patients, True)
        if found := design.reaching(seen.upper(assurance), goal, patients):
            d = smallest(found)
            reached.append(goal.reached(truth, d) <= goal.wanted)
            runs.append(2 * d.upstreams * d.draws)
    return float(np.mean(reached)), len(reached), float(np.median(runs))


def print_designs(simulations: int) -> None:
    """Studies that are planned from the true variances."""
    print("| truth | asked | planned: seeds, draws, patients | simulated |")
    print("|---|---|---|---|")
    for name, sd in SPREADS.items():
        truth = true_variances(sd)
        for goal in (Goal(half_width=0.05), Goal(effect=0.07), Goal(effect=0.05)):
            for p in (400, 1600):
                if not (found := design.reaching(truth, goal, [p])):
                    continue
                d = smallest(found)
                half, power = measured(d, sd, goal.effect, simulations)
                asked = f"{goal.effect} in {goal.power:.0%}"
                asked = f"±{goal.half_width}" if goal.half_width else asked
                got = f"±{half:.4f}" if goal.half_width else f"{power:.3f}"
                numbers = f"{d.upstreams}, {d.draws}, {d.patients}"
                print(f"| {name} | {asked} | {numbers} | {got} |", flush=True)


def print_pilots(simulations: int) -> None:
    """Studies that are planned from pilots."""
    print("| truth | pilot | assurance | reaches it | pilots | runs, median |")
    print("|---|---|---|---|---|---|")
    for name, sd in SPREADS.items():
        for pilot in (Design(3, 5, 200), Design(5, 10, 200)):
            for assurance in (0.0, 0.8):
                goal = Goal(half_width=0.05)
                share, count, runs = assured(pilot, sd, goal, assurance, simulations)
                numbers = f"{pilot.upstreams}, {pilot.draws}, {pilot.patients}"
                print(
                    f"| {name} | {numbers} | {assurance:g} | {share:.3f} | {count} |"
                    f" {runs:.0f} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parts = {"designs": print_designs, "pilots": print_pilots}
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args, start = parser.parse_args(), time.time()
    for part in args.only:
        parts[part](args.simulations)
        print(f"\n{time.time() - start:.0f} s\n")


if __name__ == "__main__":
    main()
