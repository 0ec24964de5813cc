"""Figures of a report from saved predictions and per-class metrics."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, softmax

from bigxfer.report.figures import Drawing
from bigxfer.report.style import Panel, pretty, shots_name
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import auroc, limits
from bigxfer.statistics.influence import Patients
from bigxfer.tables import cells
from bigxfer.tables.lines import natural, order
from bigxfer.tables.table import Row, metric_names

BINS = 10
LEAST = 10  # predictions in a bin that is drawn
DIAGONAL = {
    "type": "scatter",
    "mode": "lines",
    "x": [0, 1],
    "y": [0, 1],
    "line": {"color": "#808080", "width": 1, "dash": "dot"},
    "hoverinfo": "skip",
}


def reliability(drawing: Drawing) -> list[Panel]:
    """How often the predictions hold that were made with a given confidence."""
    panels = []
    for place, lines in places(drawing):
        traces = []
        for line, runs in lines.items():
            if trace := _reliability(drawing, line, list(runs.values())):
                traces.append(trace)
        if not traces:
            continue
        diagonal = {**DIAGONAL, "showlegend": False}
        axes = {
            name: {"title": {"text": title}, "range": [-0.02, 1.02], "dtick": 0.2}
            for name, title in (
                ("xaxis", "confidence"),
                ("yaxis", "share that was right"),
            )
        }
        figure = {"data": [diagonal, *traces], "layout": axes}
        panels.append(Panel("calibration", figure=figure, height=360, **place))
    return panels


def places(drawing: Drawing):
    """(what a panel needs, {line: runs}) for each target, model and shots."""
    by = ("target", "model", "shots", "line")
    groups = cells.group(drawing.rows, "seed", *by)  # which no run lacks
    pairs = {k[:2] for k in groups}
    for target, model in sorted(pairs, key=lambda p: (drawing.models.index(p[1]), p)):
        for shots in order({k[2] for k in groups if k[:2] == (target, model)}):
            by_line = {
                k[3]: r for k, r in groups.items() if k[:3] == (target, model, shots)
            }
            place = {"target": target, "model": model, "shots": shots}
            place["title"] = f"{pretty(target)}, {model}, {shots_name(shots)}"
            yield place, {line: by_line[line] for line in sorted(by_line, key=natural)}


def _reliability(drawing: Drawing, line: str, runs: list[Row]) -> dict | None:
    """The bins of all draws of a line together; None without predictions."""
    saved = [
        s for r in runs if (s := drawing.predictions.load(r["folder"])) is not None
    ]
    if not saved:
        return None
    binned = [_binned(s) for s in saved]
    counts, sure, right = (
        np.sum([b[i].sum(0) for b in binned], axis=0) for i in range(3)
    )
    # A bin of a few predictions would jump between 0 and 1.
    kept = counts >= LEAST
    share, middle = (auroc.ratio(v, counts)[kept] for v in (right, sure))
    low = high = np.full(kept.sum(), np.nan)
    same = all(np.array_equal(s.ids, saved[0].ids) for s in saved)
    people = Patients.of(saved[0].patients)
    if same:  # the same images: all draws of a patient's count as its own
        c, h = (np.sum([b[i] for b in binned], axis=0)[:, kept] for i in (0, 2))
        each = [limits.proportion(h[:, i], c[:, i], people) for i in range(c.shape[1])]
        low, high = np.array([(s.low, s.high) for s in each]).reshape(-1, 2).T
    basis = f"95% over {people.count} test patients" if same else "no interval"
    source = drawing.strings.add(
        f"{basis}; {len(saved)} draws pooled. {cells.source(runs)}"
    )
    # Of the runs, as the table has it: a pooled one would be another number.
    ece = np.mean([r["ece"] for r in runs if r.get("ece") is not None] or [np.nan])
    points = [
        {
            "value": s,
            "low": a,
            "high": b,
            "source": source,
            "text": f"confidence {m:.2f}: right {s:.2f} [{a:.2f}, {b:.2f}], "
            f"{n:,.0f} predictions; mean ECE of the runs {ece:.3f}",
        }
        for s, a, b, m, n in zip(share, low, high, middle, counts[kept], strict=True)
    ]
    trace = drawing.trace(line, middle, points)
    # By the root, so that the areas are as the counts.
    trace["marker"] = {"size": 5 + 9 * np.sqrt(counts[kept] / counts.max())}
    return trace


def _binned(saved: Predictions) -> tuple[np.ndarray, ...]:
    """(predictions, their confidence, those that were right), each [n, BINS].

    Of one class an image: the largest probability. Multi-label: that of every known
    label, and "right" is that the finding is there.
    """
    labels, logits = saved.labels, saved.logits
    if labels.ndim == 1:
        p = softmax(logits, axis=1)
        confidence, right = p.max(1, keepdims=True), (p.argmax(1) == labels)[:, None]
        known = np.ones_like(confidence)
    else:
        confidence, known = expit(logits), np.isfinite(labels)
        # The unknown ones, 0 here, are left out by `known`.
        right = np.nan_to_num(labels)
    # The inner edges alone, so that 0 and 1 fall into the outer bins.
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    inside = np.searchsorted(edges, confidence, side="left")[..., None] == np.arange(
        BINS
    )
    inside = inside * known[..., None]
    return tuple(
        np.einsum("nk,nkb->nb", value.astype(float), inside)
        for value in (np.ones_like(confidence), confidence, right)
    )


# ---- classes -----------------------------------------------------------------------


def classes(drawing: Drawing) -> list[Panel]:
    """AUROC of every class; of a table without them, the per-class metrics it has."""
    panels = []
    names = [n for n in metric_names(drawing.rows) if "/" in n]
    for place, lines in places(drawing):
        runs = [row for by_seed in lines.values() for row in by_seed.values()]
        here = [n for n in names if any(r.get(n) is not None for r in runs)]
        here = sorted([n for n in here if n.startswith("auroc/")] or here)
        if not here:
            continue
        traces = [
            trace
            for i, (line, by_seed) in enumerate(lines.items())
            if (trace := _class_trace(drawing, line, by_seed, here, i, len(lines)))
        ]
        labels = [n.removeprefix("auroc/").replace("/", " ") for n in here]
        is_auroc = here[0].startswith("auroc/")
        layout = {
            "xaxis": {"title": {"text": "AUROC" if is_auroc else "value"}},
            "yaxis": {
                "tickvals": list(range(len(here))),
                "ticktext": labels,
                "range": [len(here) - 0.5, -0.5],
            },
        }
        tall = 90 + len(here) * max(30, 13 * len(lines))
        figure = {"data": traces, "layout": layout}
        panels.append(Panel("classes", figure=figure, height=tall, **place))
    # Nets of one target side by side have one axis, or they could not be compared.
    for panel in panels:
        alike = [
            p for p in panels if (p.target, p.shots) == (panel.target, panel.shots)
        ]
        if panel.figure:
            panel.figure["layout"]["xaxis"]["range"] = _span(alike)
    return panels


def _span(panels: Sequence[Panel]) -> list[float]:
    """What the values of these panels cover, with their intervals up to 0 and 1."""
    ends = []
    for trace in (t for p in panels if p.figure for t in p.figure["data"]):
        x, meta = trace["x"], trace["meta"]
        # A metric ends at 0 and 1, though Student's limits do not.
        ends += [*x, *np.clip(x - meta["down"], 0, 1), *np.clip(x + meta["up"], 0, 1)]
    low, high = np.nanmin(ends), np.nanmax(ends)
    room = 0.03 * max(high - low, 0.05)
    return [low - room, high + room]


def _class_trace(
    drawing: Drawing, line: str, found: dict, names: Sequence[str], i: int, n: int
) -> dict | None:
    y, points = [], []
    for k, name in enumerate(names):
        runs = [row for row in found.values() if row.get(name) is not None]
        if runs:
            point = drawing.point(runs, name)
            points.append(point | {"text": f"{name}: {point['text']}"})
            y.append(k + (i - (n - 1) / 2) * 0.8 / n)
    if not points:
        return None
    # Drawn with its axes exchanged: page.js puts the intervals across.
    trace = drawing.trace(line, y, points, mode="markers")
    meta = trace["meta"] | {"across": True}
    return trace | {"x": trace["y"], "y": y, "meta": meta}
