"""What a study found, as the tables of docs/findings.md: ends, differences, speed.

  PYTHONPATH=. python benchmarks/findings.py --runs RUNS \\
      --config configs/study_transfusion.py:small=1,nih=A,covid=B

For every target, net and number of shots two tables in Markdown. The first: test metrics
of each start with 95% intervals, and each less the random start on the same draws, with
the verdict of tables/differences.py. The second: how fast it
learnt, from the validations: the best AUROC, steps to a fixed one, the speed-up
(learning_curves.speed_ups, which leaves out pairs that never arrive and counts them), the
mean of the curve less that of the random start (Student's interval over draws, which
leaves out none), and how many runs fell after their best. Then the nets against the
first of them. Reads run folders, trains nothing.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np

from bigxfer.analysis import learning_curves
from bigxfer.runs import finished
from bigxfer.statistics import intervals, metrics
from bigxfer.study import grid
from bigxfer.tables import (
    cells,
    differences,
    estimates,
    families,
    lines,
    summary,
    table,
)

Runs = dict[str, cells.Runs]  # {line: runs}
Compared = dict[tuple, differences.Comparison]  # by target, metric, sides, shots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--target", type=float, default=0.0, help="fixed AUROC")
    args = parser.parse_args()
    wanted = {n.digest for n in grid.nodes(args.config) if n.kind != "cache"}
    found = table.collect([args.runs], args.runs / "no_cache")
    rows = [row for row in found.rows if row["digest"] in wanted]
    named, notes = lines.lines(rows)
    if not named:
        raise SystemExit(f"no finished transfer of {args.config} in {args.runs}")
    for row in named:  # where all runs of an upstream start in one way, no label says
        if row["start"] and row["start"] not in row["line"]:
            row["line"] += f", {row['start']}"
    state = f"{len(named)} transfers, {len(wanted) - len(rows)} runs are not done"
    print(*(f"- {line}" for line in (state, *notes, *sources(rows))), sep="\n")
    predictions = cells.PredictionReader()
    groups = cells.group(named, "auroc_macro", "target", "model", "shots", "line")
    parts: dict[tuple, Runs] = defaultdict(dict)
    for (*place, line), runs in sorted(groups.items()):
        parts[tuple(place)][line] = runs
    compared = {
        (f.target, m, *pair): c
        for m in ("auroc_macro", "auprc_macro")
        for f in families.compare_all(named, m, predictions)
        for pair, c in f.found.items()
    }
    for place, runs in parts.items():
        ends(place, runs, predictions, compared)
        speed(runs, args.target)
    sizes(compared)


def sources(rows: list[table.Row]) -> list[str]:
    """What is synthetic, how good upstreams are, which test patients they saw."""
    synthetic = sorted({row["target"] for row in rows if row["synthetic"]})
    good = [upstream(row) for row in rows if row["kind"] == "upstream"]
    leaks = {row["upstream"]: row["leaked_patients"] for row in rows}
    seen = [f"{name} saw {n} test patients" for name, n in leaks.items() if n]
    return [f"SYNTHETIC: {', '.join(synthetic)}"] * bool(synthetic) + good + seen


def upstream(row: table.Row) -> str:
    """One line on it; the mean over the classes that its test split has."""
    found = [
        value
        for name, value in row.items()
        if name.startswith("auroc/") and not name.endswith(("_low", "_high"))
    ]
    known = [value for value in found if value is not None]
    return (
        f"upstream {row['target']}, {row['model']}, {row['steps']} steps on"
        f" {row['target_size']} images: mean test AUROC {np.mean(known):.3f} over"
        f" {len(known)} of {len(found)} classes"
    )


def ends(
    place: tuple, runs: Runs, predictions: cells.PredictionReader, compared: Compared
) -> None:
    """Test metrics by line, and their differences from the random start."""
    first = next(iter(next(iter(runs.values())).values()))
    target, model, shots = place
    print(
        f"\n### {target}, {model}: {first['params']:,} parameters, {shots} shots"
        f" ({first['target_size']} images), {first['steps']} steps,"
        f" {first['test_images']} test images\n\n"
        "| start | n | AUROC | less random | verdict | AUPRC | less random | accuracy | micro |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for line, of in runs.items():
        mine = list(of.values())
        texts = [line, str(len(mine))]
        for metric in ("auroc_macro", "auprc_macro"):
            e = estimates.estimate(mine, metric, predictions)
            pair = (model, line), (model, summary.rival(line, set(runs)))
            c = compared.get((target, metric, *pair, shots))
            texts += [cells.interval(e.value, e.low, e.high), told(c)]
            texts += [verdict(c)] * (metric == "auroc_macro")
        texts.append(f"{np.mean([row['accuracy'] for row in mine]):.3f}")
        texts.append(f"{np.mean([micro(row) for row in mine]):.3f}")
        print(f"| {' | '.join(texts)} |")


def told(c: differences.Comparison | None) -> str:
    """ "+0.014 [-0.041, +0.069]", or nothing."""
    if c is None:
        return ""
    d = c.difference
    return cells.interval(d.value, d.low, d.high, "+")


def verdict(c: differences.Comparison | None) -> str:
    if c is None:
        return ""
    return (
        f"{c.verdict}, p {c.p_holm:.2g}" if c.verdict else f"- ({c.difference.lacks})"
    )


def micro(row: table.Row) -> float:
    """Micro AUROC, S004's default metric, of runs from before result.json had it."""
    saved = finished.read(Path(row["folder"])).predictions()
    rows = np.arange(len(saved.ids))
    found = metrics.compute(saved.labels, saved.logits, saved.classes, rows, 0)
    return found["metrics"]["auroc_micro"]["value"]


def speed(runs: Runs, target: float) -> None:
    """How fast each line learnt; nothing where runs were not validated on the way."""
    try:
        curves = {
            line: {
                seed: learning_curves.read(Path(r["folder"], "metrics.jsonl"))
                for (_, seed), r in of.items()
            }
            for line, of in runs.items()
        }
    except ValueError:
        return
    target = target or min(
        c.values.max() for of in curves.values() for c in of.values()
    )
    print(
        f"\n| start | best AUROC | steps to {target:.3f} | speed-up | curve less random's"
        " | runs that fall |\n|---|---|---|---|---|---|"
    )
    for line, mine in curves.items():
        best = np.mean([c.values.max() for c in mine.values()])
        steps = [learning_curves.steps_to(c, target) for c in mine.values()]
        words = ", ".join("never" if math.isinf(s) else f"{s:.0f}" for s in steps)
        falls = [math.isfinite(learning_curves.overfit_onset(c)) for c in mine.values()]
        lost = np.mean([c.values.max() - c.values[-1] for c in mine.values()])
        other = curves.get(summary.rival(line, set(curves)), {})
        ratio, gap = against(mine, other) if other is not mine else ("", "")
        fall = f"{sum(falls)} of {len(mine)}, by {lost:.3f}"
        print(f"| {line} | {best:.3f} | {words} | {ratio} | {gap} | {fall} |")


def against(
    mine: dict[int, learning_curves.LearningCurve],
    base: dict[int, learning_curves.LearningCurve],
) -> tuple[str, str]:
    """(speed-up, mean of the curve less the other's) over the seeds of both."""
    if not (seeds := sorted(mine.keys() & base.keys())):
        return "", ""
    s = learning_curves.speed_ups([base[i] for i in seeds], [mine[i] for i in seeds])
    never = f"{s['never']:.0f} of {len(seeds)} never"
    ratio = f"x{s['value']:.2f} [{s['low']:.2f}, {s['high']:.2f}]"
    words = [ratio] * (s["value"] > 0) + [never] * bool(s["never"])
    gaps = np.array([mine[i].values.mean() - base[i].values.mean() for i in seeds])
    low, high = intervals.t_interval(gaps)
    return ", ".join(words), cells.interval(gaps.mean(), low, high, "+")


def sizes(compared: Compared) -> None:
    """Each net less a smaller one, at the same start, draws and test images."""
    lines = [
        f"| {target}, {shots} | {a[1]} | {a[0]} - {b[0]} | {told(c)} | {verdict(c)} |"
        for (target, metric, a, b, shots), c in compared.items()
        if metric == "auroc_macro" and a[0] != b[0]
    ]
    if lines:
        print(
            "\n### Nets\n\n| target, shots | start | nets | AUROC, difference | verdict |"
        )
        print("|---|---|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
    main()
