"""Figures of a report: transfer curves, and error over scale with its laws."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.report import style
from bigxfer.report.style import (
    METRICS,
    Panel,
    Strings,
    Style,
    pretty,
    shots_name,
)
from bigxfer.statistics import metrics
from bigxfer.tables import cells, differences, estimates
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.lines import natural, order
from bigxfer.tables.table import Row


class Drawing:
    """What all figures of one report share."""

    def __init__(
        self, rows: Sequence[Row], look: dict[str, Style], predictions: PredictionReader
    ) -> None:
        self.rows, self.look, self.predictions = rows, look, predictions
        self.strings = Strings()
        sizes: dict[str, int] = {}
        for row in rows:
            sizes[row["model"]] = max(sizes.get(row["model"], 0), row["params"] or 0)
        self.models = sorted(sizes, key=lambda m: (sizes[m], m))  # small to large

    def point(self, runs: Sequence[Row], metric: str) -> dict:
        """value, low, high, text of a cell and the number of its source."""
        mean = estimates.estimate(runs, metric, self.predictions)
        text = cells.interval(mean.value, mean.low, mean.high)
        return {
            "value": mean.value,
            "low": mean.low,
            "high": mean.high,
            "text": f"{text}, n={len(runs)}",
            "source": self.strings.add(
                f"95%: {mean.covers}. Runs: {cells.source(runs)}"
            ),
        }

    def trace(
        self, line: str, x: ArrayLike, points: Sequence[dict], **more
    ) -> dict[str, Any]:
        """Markers, whose colours, symbols and intervals page.js adds from `meta`."""
        y = np.array([p["value"] for p in points])
        low, high = (np.array([p[e] for p in points], float) for e in ("low", "high"))
        sources = [p["source"] for p in points]
        meta = {"line": line, "sources": sources, "up": high - y, "down": y - low}
        drawn = {"type": "scatter", "mode": "lines+markers", "x": np.asarray(x), "y": y}
        return drawn | {"text": [p["text"] for p in points], "meta": meta} | more


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
        # By the numbers in names: 4,800 images after 300.
        lines = sorted({k[2] for k in here}, key=natural)
        for model in (m for m in drawing.models if m in {k[1] for k in here}):
            traces = []
            for i, line in enumerate(lines):
                shots_of_line = [s for s in shots if (target, model, line, s) in here]
                # Beside each other: intervals on one place could not be told apart.
                aside = (i - (len(lines) - 1) / 2) * min(0.04, 0.16 / len(lines))
                # Full data is no number of shots: no line leads to it.
                for stretch in (
                    [s for s in shots_of_line if s != "full"],
                    [s for s in shots_of_line if s == "full"],
                ):
                    if stretch:
                        points_of = [here[target, model, line, s] for s in stretch]
                        x = [places[s] + aside for s in stretch]
                        trace = drawing.trace(line, x, points_of)
                        words = [f"{shots_name(s)}: " for s in stretch]
                        trace["text"] = [
                            w + t for w, t in zip(words, trace["text"], strict=True)
                        ]
                        # A line in two pieces is one entry of the legend.
                        trace["showlegend"] = stretch[0] == shots_of_line[0]
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


def curves_say(drawing: Drawing, metric: str) -> list[Panel]:
    """For each target the highest and the lowest mean, at the most and the least data."""
    groups = cells.group(drawing.rows, metric, "target", "model", "line", "shots")
    said = []
    for target in sorted({k[0] for k in groups}):
        here = {k[1:]: runs for k, runs in groups.items() if k[0] == target}
        shots = order({k[2] for k in here})
        words = [
            _ranked(drawing, metric, {k: r for k, r in here.items() if k[2] == s}, s)
            # Once, where there is only one number of shots.
            for s in dict.fromkeys((shots[-1], shots[0]))
        ]
        said.append(Panel("curves", target=target, metric=metric, html=" ".join(words)))
    return said


def _ranked(
    drawing: Drawing, metric: str, here: dict[tuple, cells.Runs], shots: str
) -> str:
    """The first and the last cell, and how probably the claim "it is better" is false."""
    sign = metrics.sign(metric)
    ranked = []
    for (model, line, _), runs in here.items():
        e = estimates.estimate(list(runs.values()), metric, drawing.predictions)
        text = cells.interval(e.value, e.low, e.high)
        ranked.append((sign * e.value, f"{pretty(line)} ({model}), {text}", runs))
    ranked.sort(key=lambda f: -f[0])
    (_, best, top), (_, worst, bottom) = ranked[0], ranked[-1]
    if len(ranked) == 1:
        return f"At {shots_name(shots)} there is {escape(best)} alone."
    words = f"At {shots_name(shots)} the first of {len(ranked)} by its mean is"
    words += f" {escape(best)}, and the last {escape(worst)}"
    d = differences.difference(top, bottom, metric, drawing.predictions)
    if d is None or not math.isfinite(d.false):
        return words + ". How probably that order is false is not known."
    chance = f"false with probability {style.chance(d.false)}"
    note = f"{d.covers}; these two were picked for their order, which the probability"
    if d.false >= differences.SURE:
        return (
            f"{words}; which of them is better is open ({chance}, {note} leaves out)."
        )
    return f"{words}. That the first is better than the last is {chance} ({note} leaves out)."


def _places(shots: Sequence[str]) -> dict[str, float]:
    """log10 of the shots, and full data apart at the end."""
    # A linear axis in the logarithm: a logarithmic one has no place for full data.
    places = {s: math.log10(float(s)) for s in shots if s != "full"}
    if "full" in shots:
        # Half a power of ten further, so that the gap shows.
        places["full"] = max(places.values(), default=0.0) + 0.55
    return places


def _limits(points: list[dict]) -> list[float]:
    """A range that holds all means, and intervals as far as a metric can go."""
    ends = [p[k] for p in points for k in ("value", "low", "high")]
    # Limits of a mean by Student's t can leave the range of the metric.
    known = np.clip([e for e in ends if np.isfinite(e)], 0, 1)
    room = 0.04 * max(0.05, known.max() - known.min())
    return [float(known.min() - room), float(known.max() + room)]
