"""Figures of a report on pairs: differences with Holm's p, and crossovers."""

from collections.abc import Sequence
from html import escape
from itertools import combinations
from typing import Any

import numpy as np

from bigxfer.report.figures import Drawing
from bigxfer.report.style import UNITS, Panel, natural, pretty, shots_name, table_html
from bigxfer.scaling import curves
from bigxfer.scaling.crossover import Crossover
from bigxfer.statistics import intervals
from bigxfer.tables import cells
from bigxfer.tables.summary import order

ROW = 24  # pixels of a row of a matrix
PALE = 5.0  # points of a difference that is coloured in full, at least
SURE = 0.05  # Holm's p below it is marked
Pair = tuple[str, Any, Any]  # its label, and the keys of its two sides


def differences(drawing: Drawing, metric: str) -> list[Panel]:
    """Line minus line for each target and model, and model minus model for each line.

    Holm's adjustment is over all cells of one matrix.
    """
    groups = cells.group(drawing.rows, metric, "target", "model", "line", "shots")
    panels = []
    for target in sorted({k[0] for k in groups}):
        here = {k[1:]: runs for k, runs in groups.items() if k[0] == target}
        shots = order({k[2] for k in here})
        models = [m for m in drawing.models if m in {k[0] for k in here}]
        lines = sorted({k[1] for k in here}, key=natural)
        for model in models:
            pairs = [
                (f"{pretty(a)} − {pretty(b)}", (model, a), (model, b))
                for a, b in combinations(lines, 2)
            ]
            title = f"{pretty(target)}, {model}: upstream minus upstream"
            place = {"target": target, "metric": metric, "model": model}
            panels += _matrix(drawing, here, pairs, shots, title, place)
        for small, big in combinations(models, 2):
            pairs = [(pretty(line), (big, line), (small, line)) for line in lines]
            title = f"{pretty(target)}: {big} minus {small}"
            place = {"target": target, "metric": metric}
            panels += _matrix(drawing, here, pairs, shots, title, place)
    return panels


def _matrix(drawing, here, pairs: list[Pair], shots, title, place) -> list[Panel]:
    """A heatmap of pairs by shots, and a sentence; nothing where no pair is."""
    metric = place["metric"]
    found = []
    for label, a, b in pairs:
        row = [
            cells.difference(
                here.get((*a, s), {}),
                here.get((*b, s), {}),
                metric,
                drawing.predictions,
            )
            for s in shots
        ]
        if any(row):
            found.append((label, a, b, row))
    if not found:
        return []
    p = [c[0].p if c else np.nan for *_, row in found for c in row]
    holm = intervals.holm(np.array(p)).reshape(len(found), len(shots))
    z, hover, sources = [], [], []
    for (*_, row), adjusted in zip(found, holm, strict=True):
        parts = [_cell(drawing, c, q) for c, q in zip(row, adjusted, strict=True)]
        for out, values in zip(
            (z, hover, sources), zip(*parts, strict=True), strict=True
        ):
            out.append(list(values))
    trace = {
        "type": "heatmap",
        "z": z,
        "x": [shots_name(shots[0]), *shots[1:]],
        "y": [label for label, *_ in found],
        "hovertext": hover,
        "texttemplate": "%{text}",
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "meta": {
            "rows": [[a[1], b[1]] for _, a, b, _ in found],
            "sources": sources,
            "sure": [np.flatnonzero(row < SURE).tolist() for row in holm],
        },
    }
    top = max(PALE, np.nanquantile(np.abs(np.array(z, float)), 0.95))
    trace |= {"zmin": -top, "zmax": top}
    layout = {
        "xaxis": {"type": "category", "side": "top"},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "margin": {"t": 26, "b": 8},
    }
    tall = ROW * len(found) + 36
    sure = int(np.nansum(holm < SURE))
    tested = int(np.isfinite(holm).sum())
    says = f"{escape(title)}: {sure} of {tested} differences have a Holm-adjusted p below {SURE:g}."
    figure = {"data": [trace], "layout": layout}
    return [
        Panel("differences", html=says, **place),
        Panel("differences", title, figure=figure, height=tall, **place),
    ]


def _cell(drawing: Drawing, found, adjusted: float) -> tuple[float, str, int]:
    """(points of a hundredth, what else a hover says, the number of its source)."""
    if not found:
        return np.nan, "", drawing.strings.add("not run")
    d, basis = found
    hover = f"p {d.p:.2g}, Holm {adjusted:.2g}" if np.isfinite(d.p) else ""
    if np.isfinite(d.low):
        hover = f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}], {hover}"
    source = drawing.strings.add(f"95%: {basis}, same draws for both")
    return round(100 * d.value, 1) + 0.0, hover, source  # no -0.0


# ---- crossovers --------------------------------------------------------------------


def crossovers(
    drawing: Drawing,
    crossings: Sequence[curves.Crossing],
    metric: str,
    x: str = "shots",
) -> list[Panel]:
    """Where one line overtakes another: a figure of those within the data, and all as
    sentences."""
    panels = []
    groups: dict[tuple, list[curves.Crossing]] = {}
    for crossing in crossings:
        about = crossing.about
        groups.setdefault((about["target"], about["model"]), []).append(crossing)
    found = sorted(groups.items(), key=lambda g: drawing.models.index(g[0][1]))
    for (target, model), pairs in found:
        place = {"target": target, "metric": metric, "model": model}
        measured = [(c, c.found) for c in pairs if c.found and c.found.measured]
        measured.sort(key=lambda pair: pair[1].value)
        closed = [f for _, f in measured if f.low > 0 and f.high < np.inf]
        name = f"{pretty(target)}, {model}"
        says = f"{escape(name)}: one upstream overtakes another for {len(measured) or 'none'}"
        says += f" of {len(pairs)} pairs within the data"
        if measured:
            says += f", and {len(closed) or 'none'} of the intervals lie within it too"
        says += "."
        panels.append(Panel("crossovers", html=says, **place))
        if measured:
            figure = _forest(drawing, measured, x)
            tall = 28 * len(measured) + 80
            panels.append(
                Panel("crossovers", name, figure=figure, height=tall, **place)
            )
        panels.append(Panel("crossovers", html=_sentences(pairs, name, x), **place))
    return panels


def _forest(
    drawing: Drawing, pairs: Sequence[tuple[curves.Crossing, Crossover]], x: str
) -> dict[str, Any]:
    """One row a pair: the crossing and its interval, with an arrow where it is open."""
    traces, scales = [], sorted({float(s) for _, found in pairs for s in found.x})
    low, high = scales[0] / 1.6, scales[-1] * 1.6
    for c, found in pairs:
        left, right = max(found.low, low), min(found.high, high)
        label = f"{pretty(c.a)} over {pretty(c.b)}"
        first = "line-ns" if found.low > 0 else "triangle-left"
        last = "line-ns" if found.high < np.inf else "triangle-right"
        source = drawing.strings.add(f"{_named(c, x)}. {c.basis}")
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [left, found.value, right],
                "y": [label] * 3,
                "showlegend": False,
                "text": [f"at {found.value:.3g}"] * 3,
                "marker": {
                    "symbol": [first, drawing.look[c.a].symbol, last],
                    "size": [8, 10, 8],
                    "line": {"color": drawing.look[c.a].colour, "width": [2, 0, 2]},
                },
                "meta": {"line": c.a, "other": c.b, "sources": [source] * 3},
            }
        )
    layout = {
        "xaxis": {
            "title": {"text": UNITS[x]},
            "type": "log",
            "range": [float(np.log10(low * 0.9)), float(np.log10(high * 1.1))],
            "tickvals": scales,
        },
        "yaxis": {"type": "category", "autorange": "reversed"},
    }
    return {"data": traces, "layout": layout}


def _sentences(pairs: Sequence[curves.Crossing], name: str, x: str) -> str:
    rows = [(escape(_named(c, x)), c.basis if c.found else "") for c in pairs]
    table = table_html(("pair", "interval over"), rows)
    return f"<details><summary>Every pair of {escape(name)}</summary>{table}</details>"


def _named(c: curves.Crossing, x: str) -> str:
    """Its sentence, with names as the page has them."""
    named = curves.Crossing(c.about, pretty(c.a), pretty(c.b), c.found, c.basis)
    return named.sentence(UNITS[x].partition(" ")[0])
