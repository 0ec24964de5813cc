"""Training curves of a report, from the metrics.jsonl of the run folders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigxfer.report import style
from bigxfer.report.figures import Drawing
from bigxfer.report.figures_predictions import places
from bigxfer.report.style import METRICS, Panel
from bigxfer.tables import cells
from bigxfer.tables.table import Row

MOST = 30  # points of a curve; of more steps those of a bin are averaged
NAMES = {  # in metrics.jsonl -> on the page
    "loss": "training loss",
    "accuracy": "training accuracy",
    "lr": "learning rate",
    "valid/loss": "validation loss",
    **{f"valid/{name}": f"validation {title}" for name, title in METRICS.items()},
}
VALIDATION = ("valid/auroc_macro", "valid/accuracy", "valid/loss")  # the first there is

History = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> steps, values


def panels(drawing: Drawing, rows: Sequence[Row]) -> list[Panel]:
    """Loss, accuracy, validation and rate by step: of each place, and of upstream runs.

    rows: all of the table, for the upstream runs among them.
    """
    found: list[Panel] = []
    for place, lines in places(drawing):
        runs = {line: list(by_seed.values()) for line, by_seed in lines.items()}
        found += _panels(drawing, place, runs)
    for model in drawing.models:
        lines = upstream_runs([r for r in rows if r["model"] == model])
        drawing.look = style.styles(lines, drawing.look)
        title = f"pre-training, {model}"
        found += _panels(drawing, {"model": model, "title": title}, lines)
    return found


def upstream_runs(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """{name, with the number of images where there are several: its upstream runs}."""
    own = [row for row in rows if row["kind"] == "upstream"]
    sizes = {name: {r["target_size"] for r in own if r["target"] == name} for name in
             {r["target"] for r in own}}  # fmt: skip
    lines: dict[str, list[Row]] = {}
    for row in own:
        size = row["target_size"]
        several = size and len(sizes[row["target"]]) > 1
        name = f"{row['target']}, {size:,} images" if several else row["target"]
        lines.setdefault(name, []).append(row)
    return lines


def _panels(drawing: Drawing, place: dict, lines: dict[str, list[Row]]) -> list[Panel]:
    histories = {
        line: [
            h for row in rows if (h := read(drawing.predictions.find(row["folder"])))
        ]
        for line, rows in lines.items()
    }
    known = {name for runs in histories.values() for h in runs for name in h}
    wanted = ["loss", "accuracy", *[n for n in VALIDATION if n in known][:1], "lr"]
    found = []
    for name in wanted:
        traces = [
            _trace(drawing, line, runs, name, lines[line])
            for line, histories_of in histories.items()
            if (runs := [h for h in histories_of if name in h])
        ]
        if not traces:
            continue
        axes = {"xaxis": {"title": {"text": "step"}, "rangemode": "tozero"}}
        axes["yaxis"] = {"title": {"text": NAMES[name]}}
        about = place | {"title": f"{place['title']}: {NAMES[name]}"}
        figure = {"data": traces, "layout": axes}
        found.append(Panel("training", figure=figure, height=280, **about))
    return found


def read(folder: Path) -> History:
    """The curves in a run's metrics.jsonl; {} where there is none that can be read."""
    values: dict[str, dict[int, float]] = {}
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        for record in map(json.loads, lines):
            for name in NAMES.keys() & record.keys():
                if record[name] is not None:
                    values.setdefault(name, {})[record["step"]] = record[name]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {
        name: (np.array(list(by_step)), np.array(list(by_step.values())))
        for name, by_step in values.items()
    }


def thinned(runs: Sequence[History], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps [b], values [runs, b]) of at most MOST bins that all runs share.

    A bin's value is the mean of a run's steps in it, NaN where it has none.
    """
    steps = np.unique(np.concatenate([run[name][0] for run in runs]))
    last = steps  # of each bin
    if len(steps) > MOST:
        last = np.linspace(steps[0] - 1, steps[-1], MOST + 1)[1:]
        last = steps[np.unique(np.searchsorted(steps, last, side="right") - 1)]
    bins = np.split(steps, np.searchsorted(steps, last[:-1], side="right"))
    values = np.full((len(runs), len(bins)), np.nan)
    for i, run in enumerate(runs):
        own, y = run[name]
        inside = np.searchsorted(last, own)
        count = np.bincount(inside, minlength=len(bins))
        total = np.bincount(inside, y, len(bins))
        values[i, count > 0] = total[count > 0] / count[count > 0]
    return np.array([b.mean() for b in bins]), values


def _trace(
    drawing: Drawing, line: str, runs: Sequence[History], name: str, rows: Sequence[Row]
) -> dict[str, Any]:
    """The mean over the runs, and the band from the lowest to the highest."""
    steps, values = thinned(runs, name)
    mean = np.nanmean(values, axis=0)
    words = "one run"
    meta: dict[str, Any] = {"line": line, "axes": ["step", NAMES[name]]}
    meta["runs"] = len(runs)
    if len(runs) > 1:
        meta["band"] = [np.nanmin(values, axis=0), np.nanmax(values, axis=0)]
        words = f"from the lowest to the highest of {len(runs)} runs: no interval"
    meta["source"] = drawing.strings.add(f"{words}. Runs: {cells.source(rows)}")
    return {"type": "scatter", "mode": "lines", "x": steps, "y": mean, "meta": meta}
