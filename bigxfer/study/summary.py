"""What a finished study says, as two small tables on the terminal.

Intervals are 95%, over draws and test patients together (stats.estimate), so they are
wider than the spread of the seeds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bigxfer import stats
from bigxfer.study import compare
from bigxfer.study.table import Row


def text(
    rows: Sequence[Row], metric: str = "auroc_macro", resamples: int = 1000
) -> str:
    """Shots by upstream, then each upstream against scratch on the same draws."""
    runs = compare.select(rows, kind="transfer")
    if not runs:
        return "no finished transfer"
    synthetic = "SYNTHETIC " if any(row["synthetic"] for row in runs) else ""
    lines = []
    for target in sorted({row["target"] for row in runs}):
        for model in sorted({row["model"] for row in runs}):
            part = compare.select(runs, target=target, model=model)
            if part:
                lines += [f"\n{synthetic}{metric} on {target}, {model}, 95% intervals"]
                lines += [*_means(part, metric, resamples)]
                lines += [*_against_scratch(part, metric, resamples)]
    return "\n".join(lines)


def _means(rows: list[Row], metric: str, resamples: int) -> list[str]:
    sources = sorted({row["upstream"] for row in rows})
    out = [f"  {'shots':>6}" + "".join(f"  {s:>26}" for s in sources)]
    for shots in order({row["shots"] for row in rows}):
        cells = []
        for source in sources:
            found = compare.select(rows, shots=shots, upstream=source)
            cells.append(f"  {_mean(found, metric, resamples):>26}")
        out.append(f"  {shots:>6}" + "".join(cells))
    return out


def _mean(rows: list[Row], metric: str, resamples: int) -> str:
    if not rows or any(row.get(metric) is None for row in rows):
        return "-"
    points = np.array([row[metric] for row in rows])
    folders = [Path(row["folder"]) for row in rows]
    samples, patients = compare.resampled(folders, metric, resamples)
    e = stats.estimate(points, samples, patients)
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}] n={len(rows)}"


def _against_scratch(rows: list[Row], metric: str, resamples: int) -> list[str]:
    out = []
    for source in sorted({row["upstream"] for row in rows} - {"scratch"}):
        found = compare.compare(
            rows,
            metric,
            {"upstream": source},
            {"upstream": "scratch"},
            resamples=resamples,
        )
        if found:
            out.append(f"  {source} minus scratch, same draws and same test images:")
        for c in sorted(found, key=lambda c: rank(c.cell["shots"])):
            d = c.difference
            out.append(
                f"  {c.cell['shots']:>6}  {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
                f"  p (Holm) {c.p_holm:.3g}"
            )
    return out


def rank(shots: str) -> float:
    """Sorts "1", "5", "10", ..., "full"."""
    return float("inf") if shots == "full" else float(shots)


def order(shots: set[str]) -> list[str]:
    return sorted(shots, key=rank)
