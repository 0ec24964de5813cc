"""What a finished study says, as two small tables on the terminal.

Intervals are 95%, over draws and test patients together (stats.estimate), so they are
wider than the spread of the seeds.
"""

from collections.abc import Sequence

import numpy as np

from bigxfer.statistics import intervals
from bigxfer.tables import cells, differences
from bigxfer.tables.table import Row

ABREAST = 4  # more lines of runs than this stand below each other


def text(
    rows: Sequence[Row], predictions: cells.Predictions, metric: str = "auroc_macro"
) -> str:
    """Shots by line of runs, then each line against scratch on the same draws."""
    runs, notes = cells.lines(rows)
    if not runs:
        return "no finished transfer"
    synthetic = "SYNTHETIC " if any(row["synthetic"] for row in runs) else ""
    lost = [row for row in runs if not predictions.known(row)]
    runs = [row for row in runs if predictions.known(row)]
    lines = [
        *notes,
        *(f"not in these means: {row['folder']} has no predictions" for row in lost),
    ]
    for target in sorted({row["target"] for row in runs}):
        for model in sorted({row["model"] for row in runs}):
            part = differences.select(runs, target=target, model=model)
            if part:
                lines += [f"\n{synthetic}{metric} on {target}, {model}, 95% intervals"]
                lines += [*_means(part, metric, predictions)]
                lines += [*_against_scratch(part, metric, predictions)]
    return "\n".join(lines)


def _means(rows: list[Row], metric: str, predictions: cells.Predictions) -> list[str]:
    sources = sorted({row["line"] for row in rows})
    if len(sources) > ABREAST:
        return _one_a_line(rows, sources, metric, predictions)
    out = [f"  {'shots':>6}" + "".join(f"  {s:>26}" for s in sources)]
    for shots in order({row["shots"] for row in rows}):
        line = []
        for source in sources:
            found = differences.select(rows, shots=shots, line=source)
            line.append(f"  {_mean(found, metric, predictions):>26}")
        out.append(f"  {shots:>6}" + "".join(line))
    return out


def _one_a_line(
    rows: list[Row],
    sources: list[str],
    metric: str,
    predictions: cells.Predictions,
) -> list[str]:
    out = []
    for shots in order({row["shots"] for row in rows}):
        for source in sources:
            if found := differences.select(rows, shots=shots, line=source):
                out.append(
                    f"  {shots:>6}  {_mean(found, metric, predictions)}  {source}"
                )
    return out


def _mean(rows: list[Row], metric: str, predictions: cells.Predictions) -> str:
    if not rows or any(row.get(metric) is None for row in rows):
        return "-"
    points = np.array([row[metric] for row in rows])
    e = intervals.estimate(points, *predictions.all_of(rows, metric))
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}] n={len(rows)}"


def _against_scratch(
    rows: list[Row], metric: str, predictions: cells.Predictions
) -> list[str]:
    out, names = [], {row["line"] for row in rows}
    for source in sorted(names):
        other = rival(source, names)
        if other not in names or other == source:
            continue
        found = differences.compare(
            rows, metric, {"line": source}, {"line": other}, predictions=predictions
        )
        if found:
            out.append(f"  {source} minus {other}, same draws and same test images:")
        for c in sorted(found, key=lambda c: rank(c.cell["shots"])):
            d = c.difference
            out.append(
                f"  {c.cell['shots']:>6}  {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
                f"  p (Holm) {c.p_holm:.3g}"
            )
    return out


def rival(line: str, names: set[str]) -> str:
    """The line from scratch that differs from `line` in its upstream alone, or scratch."""
    upstream, _, rest = line.partition(", ")
    twin = f"scratch, {rest}"
    return twin if upstream != "scratch" and twin in names else "scratch"


def rank(shots: str) -> float:
    """Sorts "1", "5", "10", ..., "full"."""
    return float("inf") if shots == "full" else float(shots)


def order(shots: set[str]) -> list[str]:
    return sorted(shots, key=rank)
