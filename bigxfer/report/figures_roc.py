"""Figures of a report from saved predictions: ROC and precision-recall curves, confusions."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from bigxfer.report.figures import Drawing
from bigxfer.report.figures_predictions import DIAGONAL, places
from bigxfer.report.style import Panel, pretty, table_html
from bigxfer.runs import finished
from bigxfer.statistics import confusion, roc
from bigxfer.tables import cells, estimates
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.lines import order
from bigxfer.tables.table import Row

AXES = {"roc": ("false positive rate", "sensitivity"), "pr": ("recall", "precision")}


def panels(drawing: Drawing) -> list[Panel]:
    """For each target, net and shots: the curves of all lines, and a matrix for each.

    Curves are of the mean over classes; of single classes at the most shots alone.
    """
    most = {
        target: order({r["shots"] for r in drawing.rows if r["target"] == target})[-1]
        for target in {r["target"] for r in drawing.rows}
    }
    drawn: list[Panel] = []
    for place, lines in places(drawing):
        each = {line: list(runs.values()) for line, runs in lines.items()}
        # Single classes at all shots would make the page ten times as large.
        every_class = place["shots"] == most[place["target"]]
        drawn += _curves(drawing, place, each, every_class)
        drawn += _matrices(drawing, place, each)
        if every_class:
            drawn += _two_by_two(drawing, place, each)
    return drawn


def _scored(rows: Sequence[Row], reader: PredictionReader) -> list[Row]:
    """The runs that keep predictions, with the values of their scores as columns."""
    scored = []
    for row in rows:
        if by_name := reader.judged(row):
            # As columns, so that estimates.py takes them as any metric of the table.
            scored.append(row | {name: s.value for name, s in by_name.items()})
    return scored


def _curves(
    drawing: Drawing, place: dict, lines: dict[str, list[Row]], every_class: bool
) -> list[Panel]:
    # Not the shared reader, which judges runs by their metrics.
    reader = drawing.predictions.judging(roc.scores)
    scored = {line: _scored(rows, reader) for line, rows in lines.items()}
    labels = [roc.MACRO]
    if every_class:
        names = (n for rows in scored.values() for row in rows for n in row)
        # One point stands for its class: the others have the same classes.
        points = (n for n in names if n.startswith("roc/") and n.endswith("/0"))
        labels = list(dict.fromkeys([*labels, *(n[4:-2] for n in points)]))
    drawn = []
    for label in labels:
        for kind, titles in AXES.items():
            traces = [
                trace
                for line, rows in scored.items()
                if (trace := _curve(drawing, line, rows, reader, kind, label))
            ]
            if not traces:
                continue
            axes = {
                axis: {"title": {"text": title}, "range": [-0.02, 1.02], "dtick": 0.2}
                for axis, title in zip(("xaxis", "yaxis"), titles, strict=True)
            }
            chance = [DIAGONAL] if kind == "roc" else _shares(drawing, scored, label)
            name = "mean of the classes" if label == roc.MACRO else label
            about = place | {"title": f"{place['title']}: {name}", "label": label}
            figure = {"data": [*chance, *traces], "layout": axes}
            drawn.append(Panel("roc", figure=figure, height=360, **about))
    return drawn


def _shares(
    drawing: Drawing, scored: dict[str, list[Row]], label: str
) -> list[dict[str, Any]]:
    """The precision without skill, a dotted line; two where lines have other test sets."""
    shares = {}
    for rows in scored.values():
        saved = drawing.predictions.load(rows[0]["folder"]) if rows else None
        if saved is None:
            continue
        of_class = roc.prevalence(saved.labels, len(saved.classes))
        if label == roc.MACRO:
            shares[round(float(of_class.mean()), 9)] = None
        elif label in saved.classes:
            shares[round(float(of_class[saved.classes.index(label)]), 9)] = None
    return [
        {**DIAGONAL, "y": [share, share]} for share in shares if not np.isnan(share)
    ]


def _curve(
    drawing: Drawing,
    line: str,
    rows: Sequence[Row],
    reader: PredictionReader,
    kind: str,
    label: str,
) -> dict[str, Any] | None:
    """The mean over the runs at each place, and the band that page.js draws from meta."""
    names = [roc.name_of(kind, label, i) for i in range(len(roc.GRID))]
    rows = [row for row in rows if names[0] in row]
    if not rows:
        return None
    points = [estimates.estimate(rows, name, reader) for name in names]
    value, low, high = np.array([(p.value, p.low, p.high) for p in points]).T
    covers = dict.fromkeys(p.covers for p in points if np.isfinite(p.low))
    without = dict.fromkeys(p.covers for p in points if not np.isfinite(p.low))
    words = [f"95% at each place by itself: {c}" for c in covers]
    words += [f"{'in part ' * bool(words)}no band: {c}" for c in without]
    source = f"{'. '.join(words)}. Runs: {cells.source(rows)}"
    meta = {"line": line, "band": [low, high], "axes": AXES[kind], "runs": len(rows)}
    meta["source"] = drawing.strings.add(source)
    curve = {"type": "scatter", "mode": "lines", "x": roc.GRID, "y": value}
    return curve | {"meta": meta}


def _matrices(
    drawing: Drawing, place: dict, lines: dict[str, list[Row]]
) -> list[Panel]:
    """Of one class an image: a matrix for each line, the mean over its runs."""
    reader = drawing.predictions.judging(confusion.scores)
    drawn = []
    for line, rows in lines.items():
        scored = _scored(rows, reader)
        saved = drawing.predictions.load(scored[0]["folder"]) if scored else None
        if saved is None:
            continue
        k = len(saved.classes)
        z, text, covers = np.full((k, k), np.nan), [[""] * k for _ in range(k)], {}
        for i in range(k):
            for j in range(k):
                name = confusion.name_of(i, j)
                # A class without a test image has no row.
                if name not in scored[0]:
                    continue
                point = estimates.estimate(scored, name, reader)
                z[i, j] = point.value
                ends = f"[{point.low:.2f}, {point.high:.2f}]"
                text[i][j] = ends if np.isfinite(point.low) else ""
                covers[point.covers] = None
        source = f"95%: {'. '.join(covers)}. Runs: {cells.source(scored)}"
        meta = {"line": line, "confusion": text, "runs": len(scored)}
        meta["source"] = drawing.strings.add(source)
        names = list(saved.classes)
        trace = {"type": "heatmap", "z": z, "x": names, "y": names, "meta": meta}
        trace |= {"zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2, "showscale": False}
        layout = {
            "xaxis": {"type": "category", "title": {"text": "called by the net"}},
            "yaxis": {"type": "category", "title": {"text": "class of the image"}},
        }
        # Rows read down, as in a table.
        layout["yaxis"]["autorange"] = "reversed"
        about = place | {"title": f"{place['title']}: {pretty(line)}"}
        figure = {"data": [trace], "layout": layout}
        drawn.append(Panel("confusion", figure=figure, height=150 + 36 * k, **about))
    return drawn


def _two_by_two(
    drawing: Drawing, place: dict, lines: dict[str, list[Row]]
) -> list[Panel]:
    """Of findings: what each line calls right and wrong at each run's own thresholds."""
    head = ["class", "runs", "found", "missed", "false alarms", "rightly not called"]
    head += ["sensitivity", "specificity"]
    drawn = []
    for line, rows in lines.items():
        judged = [row | p for row in rows if (p := _at_thresholds(drawing, row))]
        counted = (n for row in judged for n in row if n.startswith("count/sens/"))
        names = dict.fromkeys(n.removeprefix("count/sens/") for n in counted)
        table = [_class_row(drawing, judged, name) for name in names]
        if table:
            title = f"{escape(place['title'])}: {escape(pretty(line))}"
            about = {k: v for k, v in place.items() if k != "title"}
            html = f"<details><summary>{title}, at each run's own thresholds</summary>"
            html += f"{table_html(head, table)}</details>"
            drawn.append(Panel("confusion", html=html, **about))
    return drawn


def _at_thresholds(drawing: Drawing, row: Row) -> dict[str, float]:
    """Columns sens/CLASS and spec/CLASS, with limits and counts, of a multi-label run."""
    try:
        run = finished.read(drawing.predictions.find(row["folder"]))
        points = run.result.get("operating_point") if run.multilabel else None
    except (ValueError, OSError, KeyError):
        return {}  # the notes at the top name what cannot be read
    columns = {}
    for name, point in (points or {}).items():
        if point["threshold"] is None:
            continue
        counts = run.result["counts"][name]
        for key, kind, label in (
            ("sens", "sensitivity", "positive"),
            ("spec", "specificity", "negative"),
        ):
            if (entry := point[kind])["value"] is None:
                continue
            column = f"{key}/{name}"
            columns |= {column: entry["value"], f"count/{column}": counts[label]}
            columns |= {f"{column}_{end}": entry[end] for end in ("low", "high")}
    return columns


def _class_row(drawing: Drawing, rows: Sequence[Row], name: str) -> list[str]:
    """The cells of a class: mean counts over the runs, and the two rates with limits."""
    counts, rates = [], []
    names = [f"sens/{name}", f"spec/{name}"]
    rows = [row for row in rows if all(column in row for column in names)]
    if not rows:
        return [escape(name), "0", *["-"] * 6]
    for column in names:
        total = np.array([row[f"count/{column}"] for row in rows])
        right = (total * [row[column] for row in rows]).mean()
        counts.append((right, total.mean() - right))
        e = estimates.estimate(rows, column, drawing.predictions)
        rates.append(cells.interval(e.value, e.low, e.high))
    (called, missed), (not_called, alarms) = counts
    # Means over runs are no whole numbers.
    numbers = [f"{n:,.1f}" if len(rows) > 1 else f"{n:,.0f}" for n in
               (called, missed, alarms, not_called)]  # fmt: skip
    return [escape(name), f"{len(rows)}", *numbers, *rates]
