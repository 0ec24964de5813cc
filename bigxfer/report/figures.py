"""Figures of a report: transfer curves, and error over scale with its laws."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.report.style import (
    METRICS,
    Panel,
    Strings,
    Style,
    natural,
    pretty,
    shots_name,
)
from bigxfer.statistics import metrics
from bigxfer.tables import cells
from bigxfer.tables.cells import Predictions
from bigxfer.tables.summary import order, rank
from bigxfer.tables.table import Row


class Drawing:
    """What all figures of one report share."""

    def __init__(
        self, rows: Sequence[Row], look: dict[str, Style], predictions: Predictions
    ) -> None:
        self.rows, self.look, self.predictions = rows, look, predictions
        self.strings = Strings()
        sizes: dict[str, int] = {}
        for row in rows:
            sizes[row["model"]] = max(sizes.get(row["model"], 0), row["params"] or 0)
        self.models = sorted(sizes, key=lambda m: (sizes[m], m))  # small to large

    def point(self, runs: Sequence[Row], metric: str) -> dict:
        """value, low, high, text of a cell and the number of its source."""
        found, basis = cells.estimate(runs, metric, self.predictions)
        text = f"{cells.interval(found)}, n={len(runs)}"
        return {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "text": text,
            "source": self.strings.add(f"95%: {basis}. Runs: {cells.source(runs)}"),
        }

    def trace(
        self, line: str, x: ArrayLike, points: Sequence[dict], **more
    ) -> dict[str, Any]:
        """Markers, whose colours, symbols and intervals page.js adds from `meta`."""
        y = np.array([p["value"] for p in points])
        low, high = (np.array([p[e] for p in points], float) for e in ("low", "high"))
        sources = [p["source"] for p in points]
        meta = {"line": line, "sources": sources, "up": high - y, "down": y - low}
        found = {"type": "scatter", "mode": "lines+markers", "x": np.asarray(x), "y": y}
        return found | {"text": [p["text"] for p in points], "meta": meta} | more


def curves(drawing: Drawing, metric: str) -> list[Panel]:
    """The metric over shots, a panel for each target and model."""
    groups = cells.group(drawing.rows, metric, "target", "model", "line", "shots")
    points = {k: drawing.point(list(v.values()), metric) for k, v in groups.items()}
    panels = []
    for target in sorted({k[0] for k in points}):
        here = {k: p for k, p in points.items() if k[0] == target}
        shots = order({k[3] for k in here})
        places = _places(shots)
        limits = _limits(list(here.values()))
        lines = sorted({k[2] for k in here}, key=natural)
        for model in (m for m in drawing.models if m in {k[1] for k in here}):
            traces = []
            for i, line in enumerate(lines):
                own = [s for s in shots if (target, model, line, s) in here]
                aside = (i - (len(lines) - 1) / 2) * min(0.04, 0.16 / len(lines))
                for part in (
                    [s for s in own if s != "full"],
                    [s for s in own if s == "full"],
                ):
                    if part:
                        found = [here[target, model, line, s] for s in part]
                        x = [places[s] + aside for s in part]
                        trace = drawing.trace(line, x, found)
                        words = [f"{shots_name(s)}: " for s in part]
                        trace["text"] = [
                            w + t for w, t in zip(words, trace["text"], strict=True)
                        ]
                        trace["showlegend"] = part[0] == own[0]
                        traces.append(trace)
            layout = {
                "xaxis": {
                    "title": {"text": "shots (images of each class)"},
                    "tickvals": [places[s] for s in shots],
                    "ticktext": shots,
                    "range": [min(places.values()) - 0.25, max(places.values()) + 0.25],
                },
                "yaxis": {"title": {"text": METRICS[metric]}, "range": limits},
            }
            panels.append(
                Panel(
                    "curves",
                    f"{pretty(target)}, {model}",
                    target,
                    metric,
                    model,
                    figure={"data": traces, "layout": layout},
                )
            )
    return panels


def curves_say(panels: Sequence[Panel], metric: str) -> list[Panel]:
    """For each target the best and the worst mean, at the most and the least data."""
    said = []
    for target in sorted({p.target for p in panels}):
        best: dict[str, list[tuple[float, str]]] = {}
        for panel in panels:
            if panel.target != target or panel.figure is None:
                continue
            for trace in panel.figure["data"]:
                for value, text in zip(trace["y"], trace["text"], strict=True):
                    shots, _, rest = text.partition(": ")
                    name = escape(f"{pretty(trace['meta']['line'])} {panel.model}")
                    name += f", {rest}"
                    best.setdefault(shots, []).append((float(value), name))
        words = []
        ranked = sorted(best, key=_shots_rank)
        for shots in dict.fromkeys((ranked[-1], ranked[0])):
            found = sorted(best[shots], key=lambda v: -metrics.sign(metric) * v[0])
            words.append(f"At {shots} the best mean is of <b>{found[0][1]}</b>")
            if len(found) > 1:
                words[-1] += f" and the last of {found[-1][1]}"
        said.append(
            Panel("curves", target=target, metric=metric, html=". ".join(words) + ".")
        )
    return said


def _shots_rank(name: str) -> float:
    return rank(name.split()[0])


def _places(shots: Sequence[str]) -> dict[str, float]:
    """log10 of the shots, and full data apart at the end."""
    places = {s: math.log10(float(s)) for s in shots if s != "full"}
    if "full" in shots:
        places["full"] = max(places.values(), default=0.0) + 0.55
    return places


def _limits(points: list[dict]) -> list[float]:
    """A range that holds all means, and intervals as far as a metric can go."""
    ends = [p[k] for p in points for k in ("value", "low", "high")]
    known = np.clip([e for e in ends if np.isfinite(e)], 0, 1)
    room = 0.04 * max(0.05, known.max() - known.min())
    return [float(known.min() - room), float(known.max() + room)]
