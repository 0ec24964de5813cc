"""Coverage and width of every kind of 95% interval, on simulated (synthetic) studies.

    python benchmarks/coverage.py [--simulations 500] [--only single differences]

A row passes where coverage is at least 92%. Laws and crossovers: coverage_laws.py.
"""

import argparse
import time

import numpy as np
from scipy.stats import norm

from bigxfer.statistics import crossed, metrics
from bigxfer.statistics.crossed import Side


def tally(rows: list, name: str, truth: float, ends: list) -> None:
    """Print and keep one row: coverage of `truth` and median width of [(low, high)]."""
    low, high = np.array(ends, float).T
    covered = np.mean((low <= truth) & (truth <= high))
    width = np.median(high - low)
    verdict = "" if "only" in name else "pass" if covered >= 0.92 else "BELOW 92%"
    print(
        f"| {name} | {covered:.3f} | {width:.3g} | {len(low)} | {verdict} |", flush=True
    )
    rows.append((name, covered))


def cover_single(rows: list, simulations: int) -> None:
    """Limits of one run's metrics: three classes, at several skills and patients.

    Logits are normal, the true class `skill` above the others; the images of a patient
    share 0.6 of the variance. The truth is the metric of 300,000 images.
    """
    names = ("auroc/c0", "auroc_macro", "auroc_micro", "auprc/c0", "accuracy")
    names += ("balanced_accuracy", "loss", "brier")

    def draw(rng, patients: int, images: int, skill: float):
        labels = np.repeat(rng.integers(0, 3, patients), images)
        common = np.repeat(rng.normal(size=(patients, 3)), images, axis=0)
        own = rng.normal(size=(patients * images, 3))
        noise = np.sqrt(0.6) * common + np.sqrt(0.4) * own if images > 1 else own
        ids = np.repeat(np.arange(patients), images)
        return (
            labels,
            1.3 * (noise + skill * np.eye(3)[labels]),
            ["c0", "c1", "c2"],
            ids,
        )

    truths = {}
    for skill in (0.3, 0.8, 1.2, 1.7, 2.1, 2.5):
        many = draw(np.random.default_rng(9), 300_000, 1, skill)
        found = metrics.compute(*many, limits=False)["metrics"]
        truths[skill] = {name: found[name]["value"] for name in names}
    covered: dict[str, list] = {name: [] for name in names}
    for images in (1, 4):
        for patients in (50, 100, 300):
            for skill, truth in truths.items():
                rng = np.random.default_rng([patients, images])
                ends: dict[str, list] = {name: [] for name in names}
                for _ in range(simulations):
                    found = metrics.compute(*draw(rng, patients, images, skill))
                    for name in names:
                        if (e := found["metrics"][name])["low"] is not None:
                            ends[name].append((e["low"], e["high"]))
                for name in names:
                    tag = f"{name} of {truth[name]:.3f}, {patients} x {images}"
                    tally(rows, tag, truth[name], ends[name])
                    covered[name].append(rows[-1][1])
    for name, found in covered.items():
        print(f"| mean over the parameter: {name} | {np.mean(found):.3f} | | | |")


def crossed_runs(rng, seeds, draws: int, patients: int, sd, level: float):
    """Two sides of accuracies, true difference 0: [(points [U, D], right [p, U, D])].

    A probit model. sd: of the accuracy over upstream seeds, draws, single runs. Of a
    patient's variance half is common to all runs, a tenth each to a side's, a seed's and
    a draw's runs, the rest is one run's.
    """
    cut, slope = norm.ppf(level), norm.pdf(norm.ppf(level))
    source, draw, run = (s / slope for s in sd)
    spread = np.sqrt(1 + source**2 + draw**2 + run**2)
    common, luck = rng.normal(size=(patients, 1, 1)), rng.normal(0, draw, draws)
    sides = []
    for u in seeds:
        parts = rng.normal(size=(patients, 1, 1)), rng.normal(size=(patients, u, 1))
        parts += (rng.normal(size=(patients, 1, draws)),)
        latent = np.sqrt(0.5) * common + np.sqrt(0.1) * sum(parts)
        latent = latent + np.sqrt(0.2) * rng.normal(size=(patients, u, draws))
        skill = rng.normal(0, source, (u, 1)) + rng.normal(0, run, (u, draws))
        skill = skill + np.sqrt(0.5) * (luck + rng.normal(0, draw, draws))
        right = (latent + skill + cut * spread > 0).astype(float)
        sides.append((right.mean(axis=0), right))
    return sides


def cover_differences(rows: list, simulations: int) -> None:
    """Differences of cells: upstream seeds, draws and patients, and p of no effect."""
    print("| difference of accuracies, true 0 | coverage | width over ideal | n | |")
    for patients in (50, 100, 300):
        for draws in (3, 5, 10):
            for seeds in ((1, 1), (3, 3), (5, 5), (3, 5)):
                for sd in ((0.02, 0.03, 0.01), (0.04, 0.01, 0.01), (0.01, 0.08, 0.02)):
                    known = sd if max(seeds) > 1 else (0.0, *sd[1:])
                    rng, ends, values = np.random.default_rng([patients, draws]), [], []
                    for _ in range(simulations):
                        made = crossed_runs(rng, seeds, draws, patients, known, 0.8)
                        sides = [
                            Side(points, (right - points) / patients, sign)
                            for (points, right), sign in zip(made, (1, -1))
                        ]
                        value = sides[0].points.mean() - sides[1].points.mean()
                        parts = crossed.parts(sides, 1 / patients**2)
                        ends.append(crossed.interval(value, parts))
                        values.append(value)
                    low, high = np.array(ends).T
                    covered = float(np.mean((low <= 0) & (high >= 0)))
                    wide = np.mean(high - low) / (2 * 1.96 * np.std(values))
                    name = f"{patients} patients, {draws} draws, seeds {seeds}, sd {sd}"
                    print(f"| {name} | {covered:.3f} | {wide:.2f} | {len(ends)} | |")
                    rows.append((name, covered))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=500)
    parts = {
        "single": cover_single,
        "differences": cover_differences,
    }
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    args = parser.parse_args()
    rows: list = []
    start = time.time()
    print("| synthetic study | coverage | median width | simulations | |")
    print("|---|---|---|---|---|")
    for part in args.only:
        parts[part](rows, args.simulations)
    low = [name for name, covered in rows if covered < 0.92 and "only" not in name]
    print(f"\n{time.time() - start:.0f} s; below 92%: {low or 'none'}")


if __name__ == "__main__":
    main()
