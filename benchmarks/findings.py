"""What a study found, as the tables of docs/findings.md: ends, differences, speed.

  PYTHONPATH=. python benchmarks/findings.py --runs RUNS \\
      --config configs/study_transfusion.py:small=1,nih=A,covid=B

For every net, target and number of shots: test metrics of each line of runs with 95%
intervals over draws and test patients, each line less its random start on the same draws
(Holm over the lines of one net), and how fast it learnt: steps to the random start's best
validation AUROC (speed-up, convergence.speed_ups) and to a fixed one, and how many runs
fell after their best. Reads run folders, trains nothing.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from bigxfer import stats, tree
from bigxfer.analysis import convergence
from bigxfer.study import cells, grid, summary, table

METRICS = ("auroc_macro", "auprc_macro", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--target", type=float, default=0.0, help="fixed AUROC")
    args = parser.parse_args()
    wanted = {node.digest for node in grid.nodes(args.config)}
    found = table.collect([args.runs], args.runs / "no_cache")
    rows = [row for row in found.rows if row["digest"] in wanted]
    done = {row["digest"] for row in rows}
    missing = sum(not d.startswith("caches/") for d in wanted - done)
    named, notes = cells.lines(rows)
    for row in named:  # where all runs of an upstream start in one way, no label says
        if row["start"] and row["start"] not in row["line"]:
            row["line"] += f", {row['start']}"
    if not named:
        raise SystemExit(f"no finished transfer of {args.config} in {args.runs}")
    print(f"{args.config}: {len(named)} transfers, {missing} runs are not done")
    print(*notes, *sources(rows), sep="\n")
    groups = defaultdict(list)
    for row in named:
        groups[(row["target"], row["model"], summary.rank(row["shots"]))].append(row)
    for key in sorted(groups):
        ends(groups[key])
        speed(groups[key], args.target)
    trend(named)


def sources(rows: list[table.Row]) -> list[str]:
    """What is synthetic, and which test patients the upstream saw."""
    synthetic = sorted({row["target"] for row in rows if row["synthetic"]})
    leaks = {row["upstream"]: row["leaked_patients"] for row in rows}
    seen = [f"{name} saw {n} test patients" for name, n in leaks.items() if n]
    return [f"SYNTHETIC: {', '.join(synthetic)}"] * bool(synthetic) + seen


def ends(rows: list[table.Row]) -> None:
    """Test metrics by line, then the paired differences from the random start."""
    predictions = cells.Predictions()
    first = rows[0]
    print(
        f"\n## {first['target']}, {first['model']} ({first['params']:,} parameters),"
        f" {first['shots']} shots of {first['target_size']} images,"
        f" {first['test_images']} test images, {first['steps']} steps"
    )
    by_line = {m: cells.group(rows, m, "line") for m in METRICS}
    print(f"{'':40}{''.join(f'{m:>24}' for m in (*METRICS, 'auroc_micro'))}")
    for (line,), runs in sorted(by_line[METRICS[0]].items()):
        texts = []
        for metric in METRICS:
            here = list(by_line[metric][(line,)].values())
            texts.append(cells.interval(cells.estimate(here, metric, predictions)[0]))
        texts.append(f"{np.mean([micro(r) for r in runs.values()]):.3f}")
        print(f"{line:40}{''.join(f'{t:>24}' for t in texts)}  n={len(runs)}")
    differences(by_line, predictions)


def micro(row: table.Row) -> float:
    """The AUROC of the ravelled one-hot labels and scores (S004's default metric)."""
    saved = tree.load_npz(Path(row["folder"]) / "predictions.npz")
    logits = saved["logits"].astype(float)
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    truth = np.eye(scores.shape[1])[saved["labels"]]
    return float(roc_auc_score(truth.ravel(), scores.ravel()))


def differences(by_line: dict, predictions: cells.Predictions) -> None:
    for metric in METRICS[:2]:
        runs = {line: found for (line,), found in by_line[metric].items()}
        found = {}
        for line in sorted(runs):
            other = summary.rival(line, set(runs))
            if other in runs and other != line:
                about = cells.difference(runs[line], runs[other], metric, predictions)
                found[line] = other, about
        known = {line: (o, e[0]) for line, (o, e) in found.items() if e}
        adjusted = stats.holm([e.p for _, e in known.values()])
        for (line, (other, e)), p in zip(known.items(), adjusted, strict=True):
            base = np.mean([r[metric] for r in runs[other].values()])
            print(
                f"  {metric} {line} minus {other}: {e.value:+.3f} [{e.low:+.3f},"
                f" {e.high:+.3f}], {e.value / base:+.1%} relative, p (Holm) {p:.2g}"
            )


def speed(rows: list[table.Row], target: float) -> None:
    """Steps to the random start's best AUROC and to a fixed one; falls after the best."""
    curves: dict[str, dict[int, convergence.Curve]] = defaultdict(dict)
    for row in rows:
        try:
            curve = convergence.read(Path(row["folder"]))
        except ValueError:
            return  # not validated on the way
        curves[row["line"]][row["seed"]] = curve
    target = target or min(
        c.values.max() for of in curves.values() for c in of.values()
    )
    print(
        f"  validation AUROC: best, steps to {target:.3f}, speed-up, falls after best"
    )
    for line, mine in sorted(curves.items()):
        best = np.mean([c.values.max() for c in mine.values()])
        steps = [convergence.steps_to(c, target) for c in mine.values()]
        falls = sum(math.isfinite(convergence.overfit_onset(c)) for c in mine.values())
        lost = np.mean([c.values.max() - c.values[-1] for c in mine.values()])
        words = ", ".join("never" if math.isinf(s) else f"{s:.0f}" for s in steps)
        base = curves.get(summary.rival(line, set(curves)), {})
        seeds = sorted(mine.keys() & base.keys())
        ratio = ""
        if seeds and base is not mine:
            s = convergence.speed_ups(
                [base[i] for i in seeds], [mine[i] for i in seeds]
            )
            ratio = f"x{s['value']:.2f} [{s['low']:.2f}, {s['high']:.2f}]"
            ratio += f", {s['never']:.0f} never" * bool(s["never"])
        print(
            f"    {line:40} {best:.3f}  {words:>20}  {ratio:28}"
            f" {falls} of {len(mine)}, by {lost:.3f}"
        )


def trend(rows: list[table.Row]) -> None:
    """Validation AUROC over all nets (seeds averaged first), at a few steps; 95%."""
    at: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        try:
            curve = convergence.read(Path(row["folder"]))
        except ValueError:
            return
        key = (row["target"], row["line"], row["shots"])
        at[key][row["model"]].append(curve)
    print("\n## validation AUROC over nets")
    for (target, line, shots), nets in sorted(at.items()):
        if len(nets) < 2:
            continue
        steps = sorted(
            set.intersection(*(set(c.steps.tolist()) for n in nets.values() for c in n))
        )
        for step in steps[:: max(1, len(steps) // 5)]:
            means = [
                np.mean([c.values[list(c.steps).index(step)] for c in net])
                for net in nets.values()
            ]
            low, high = stats.t_interval(np.array(means))
            print(
                f"  {target} {shots} {line:40} step {step:4}: {np.mean(means):.3f}"
                f" [{low:.3f}, {high:.3f}] over {len(means)} nets"
            )


if __name__ == "__main__":
    main()
