"""Training curves of a report, from the metrics.jsonl of the run folders."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bigxfer.report import style
from bigxfer.report.figures import Drawing
from bigxfer.report.figures_predictions import places
from bigxfer.report.style import METRICS, Panel
from bigxfer.runs import history
from bigxfer.runs.history import History
from bigxfer.tables import cells
from bigxfer.tables.table import Row

NAMES = {  # in metrics.jsonl -> on the page
    "loss": "training loss",
    "accuracy": "training accuracy",
    "lr": "learning rate",
    "valid/loss": "validation loss",
    **{f"valid/{name}": f"validation {title}" for name, title in METRICS.items()},
}
VALIDATION = ("valid/auroc_macro", "valid/accuracy", "valid/loss")  # the first there is


def panels(drawing: Drawing, rows: Sequence[Row]) -> list[Panel]:
    """Loss, accuracy, validation and rate by step: of each place, and of upstream runs.

    rows: all of the table, for the upstream runs among them.
    """
    drawn: list[Panel] = []
    for place, lines in places(drawing):
        runs = {line: list(by_seed.values()) for line, by_seed in lines.items()}
        drawn += _panels(drawing, place, runs)
    for model in drawing.models:
        lines = upstream_runs([r for r in rows if r["model"] == model])
        # Upstream runs are no lines of the other figures, and have no colour yet.
        drawing.look = style.styles(lines, drawing.look)
        title = f"pre-training, {model}"
        drawn += _panels(drawing, {"model": model, "title": title}, lines)
    return drawn


def upstream_runs(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """{name, with the number of images where there are several: its upstream runs}."""
    upstreams = [row for row in rows if row["kind"] == "upstream"]
    sizes = {name: {r["target_size"] for r in upstreams if r["target"] == name} for name in
             {r["target"] for r in upstreams}}  # fmt: skip
    lines: dict[str, list[Row]] = {}
    for row in upstreams:
        size = row["target_size"]
        several = size and len(sizes[row["target"]]) > 1
        name = f"{row['target']}, {size:,} images" if several else row["target"]
        lines.setdefault(name, []).append(row)
    return lines


def _panels(drawing: Drawing, place: dict, lines: dict[str, list[Row]]) -> list[Panel]:
    histories = {
        line: [
            h
            for row in rows
            if (h := history.read(drawing.predictions.find(row["folder"]), NAMES))
        ]
        for line, rows in lines.items()
    }
    known = {name for runs in histories.values() for h in runs for name in h}
    wanted = ["loss", "accuracy", *[n for n in VALIDATION if n in known][:1], "lr"]
    drawn = []
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
        drawn.append(Panel("training", figure=figure, height=280, **about))
    return drawn


def _trace(
    drawing: Drawing, line: str, runs: Sequence[History], name: str, rows: Sequence[Row]
) -> dict[str, Any]:
    """The mean over the runs, and the band from the lowest to the highest."""
    steps, values = history.thinned(runs, name)
    # Runs that log at other steps have bins without a value.
    mean = np.nanmean(values, axis=0)
    words = "one run"
    meta: dict[str, Any] = {"line": line, "axes": ["step", NAMES[name]]}
    meta["runs"] = len(runs)
    if len(runs) > 1:
        meta["band"] = [np.nanmin(values, axis=0), np.nanmax(values, axis=0)]
        words = f"from the lowest to the highest of {len(runs)} runs: no interval"
    meta["source"] = drawing.strings.add(f"{words}. Runs: {cells.source(rows)}")
    # A short run logs once, and a line of one point is invisible.
    mode = "lines" if len(steps) > 1 else "markers"
    return {"type": "scatter", "mode": mode, "x": steps, "y": mean, "meta": meta}
