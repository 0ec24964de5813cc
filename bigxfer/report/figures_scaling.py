"""Figures of a report: error over shots, upstream size or model size, with its laws."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigxfer.report.figures import Drawing
from bigxfer.report.style import AXES, METRICS, Panel, number, pretty, shots_name
from bigxfer.scaling import curves
from bigxfer.tables import cells
from bigxfer.tables.lines import natural, rank
from bigxfer.tables.table_args import SCALES

ASIDE = 0.01  # share of the width of the data between neighbouring points
AHEAD = 4  # laws are drawn to this multiple of the largest scale: bands cover so far


def scaling(
    drawing: Drawing, found: Sequence[curves.Law], x: str, section: str
) -> list[Panel]:
    """Errors over x on logarithmic axes with laws and what they foretell.

    A panel for each target and what else the lines of `found` do not run along.
    """
    panels = []
    for place, members in by_place(drawing, found):
        # A line without any error has no place on a logarithmic axis.
        members = [law for law in members if np.nanmax(law.curve.errors()) > 0]
        if len({scale for law in members for scale in law.curve.x}) < 2:
            continue
        figure = _figure(drawing, members, x)
        # Only there: from scratch there is no upstream size to stand at.
        if section == "upstream":
            figure["data"] += _baseline(drawing, place, members)
        title = name_of(place)
        panels.append(Panel(section, title, figure=figure, height=360, **place))
    _level(panels)
    return panels


def by_place(
    drawing: Drawing, found: Sequence[curves.Law]
) -> list[tuple[dict[str, Any], list[curves.Law]]]:
    """(what a panel is of, its laws), small models and few shots first."""
    groups: dict[tuple, list[curves.Law]] = {}
    for law in found:
        about = law.curve.about
        key = tuple(about.get(k, "") for k in ("target", "model", "shots"))
        groups.setdefault(key, []).append(law)
    models = ["", *drawing.models]
    ordered = sorted(
        groups, key=lambda k: (k[0], models.index(k[1]), k[2] and rank(k[2]))
    )
    return [
        (
            dict(zip(("target", "model", "shots"), key, strict=True))
            | {"metric": groups[key][0].curve.metric},
            sorted(groups[key], key=lambda law: natural(law.curve.about["line"])),
        )
        for key in ordered
    ]


def name_of(place: dict[str, Any]) -> str:
    shots = place["shots"] and shots_name(place["shots"])
    return ", ".join(filter(None, (pretty(place["target"]), place["model"], shots)))


def _figure(drawing: Drawing, members: list[curves.Law], x: str) -> dict[str, Any]:
    scales = sorted({s for law in members for s in law.curve.x})
    traces = []
    for i, law in enumerate(members):
        aside = (i - (len(members) - 1) / 2) * ASIDE
        # A factor, since the axis is logarithmic.
        traces += _law_traces(drawing, law, x, (scales[-1] / scales[0]) ** aside)
    if any(law.band for law in members):
        scales.append(scales[-1] * AHEAD)
    ticks = _apart(scales)
    error = f"1 − {METRICS[members[0].curve.metric]}"
    layout = {
        "xaxis": {
            "title": {"text": AXES[x]},
            "type": "log",
            "tickvals": ticks,
            "ticktext": [number(t) for t in ticks],
        },
        "yaxis": {"title": {"text": error}, "type": "log"},
    }
    return {"data": traces, "layout": layout}


def _law_traces(drawing: Drawing, law: curves.Law, x: str, aside: float) -> list[dict]:
    """The points of a line, its law within the data, and beyond it with its band.

    The points stand `aside` of their scale, a factor, so that intervals do not meet.
    """
    curve, line = law.curve, law.curve.about["line"]
    points = []
    for k, (scale, runs) in enumerate(zip(curve.x, curve.runs, strict=True)):
        p = drawing.point(list(runs.values()), curve.metric)
        text = f"{number(scale)} {SCALES[x]}: 1 − {p['text']}"
        flipped = {"value": 1 - p["value"], "low": 1 - p["high"], "high": 1 - p["low"]}
        if not flipped["value"] > 0:  # half an error, as the law has it
            flipped["value"] = law.scatter.mean[k] if law.scatter else np.nan
        if not flipped["low"] > 0:  # a logarithmic axis has no 0
            flipped["low"] = (
                flipped["value"] / 3 if np.isfinite(flipped["low"]) else np.nan
            )
        points.append(p | flipped | {"text": text})
    # Lines between the points only where no law runs through them.
    mode = "markers" if law.fit else "lines+markers"
    traces = [drawing.trace(line, curve.x * aside, points, mode=mode)]
    if not law.fit:
        return traces
    meta = {"line": line}
    plain = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    plain |= {"showlegend": False, "meta": meta}
    grid = np.geomspace(curve.x[0], curve.x[-1], 20)
    within = {"x": grid, "y": law.fit.predict(grid), "line": {"dash": "solid"}}
    traces.append(plain | within)
    if law.band:  # without one nothing is said beyond the data
        beyond = np.geomspace(curve.x[-1], curve.x[-1] * AHEAD, 8)
        y, low, high = law.band.predict(beyond)
        traces.append(plain | {"x": beyond, "y": y, "line": {"dash": "dash"}})
        # A wide band must not squeeze the data into a corner of the axis.
        low = np.maximum(low, 0.3 * min(p["value"] for p in points))
        high = np.minimum(high, 3 * max(p["value"] for p in points))
        around = {"x": [*beyond, *beyond[::-1]], "y": [*high, *low[::-1]]}
        traces.append(plain | around | {"fill": "toself", "line": {"width": 0}})
    return traces


def _baseline(
    drawing: Drawing, place: dict[str, Any], members: list[curves.Law]
) -> list[dict]:
    """Training from scratch, which has no upstream, as a level line."""
    by = ("target", "model", "shots", "line")
    ends = [s for law in members for s in law.curve.x]
    traces = []
    for (*where, line), runs in cells.group(drawing.rows, place["metric"], *by).items():
        if where == [place[k] for k in by[:3]] and line.startswith("scratch"):
            point = drawing.point(list(runs.values()), place["metric"])
            level = point | {"value": 1 - point["value"], "low": np.nan, "high": np.nan}
            level["text"] = f"1 − {point['text']}"
            trace = drawing.trace(line, [min(ends), max(ends)], [level, level])
            traces.append(trace | {"mode": "lines", "line": {"dash": "dot"}})
    return traces


def _level(panels: Sequence[Panel]) -> None:
    """One vertical axis for all panels of a target and number of shots, in place."""
    for place in {(p.target, p.shots) for p in panels}:
        figures = [
            p.figure for p in panels if p.figure and (p.target, p.shots) == place
        ]
        ticks = _log_ticks([t for figure in figures for t in figure["data"]])
        for figure in figures:
            figure["layout"]["yaxis"] |= ticks


def _apart(scales: Sequence[float]) -> list[float]:
    """The scales, without those whose label would lie under another's."""
    # 7% of the axis, about the width of a label.
    room = (scales[-1] / scales[0]) ** 0.07
    kept = [scales[-1]]
    for scale in reversed(scales[:-1]):
        if kept[-1] / scale > room:
            kept.append(scale)
    return kept[::-1]


def _reach(trace: dict[str, Any]) -> np.ndarray:
    """What a trace covers, of an interval no more than a factor of 3."""
    y, meta = np.asarray(trace["y"], float), trace["meta"]
    if "up" not in meta:
        return y
    ends = y - meta["down"], y + meta["up"]
    # One wide interval must not set the axis of all panels.
    return np.concatenate([y, *(np.clip(end, y / 3, 3 * y) for end in ends)])


def _log_ticks(traces: Sequence[dict]) -> dict[str, Any]:
    """The range of a logarithmic axis and its ticks: plotly labels few of a short one.

    1, 2, 5 times powers of ten over more than a decade, round even steps below.
    """
    shown = np.concatenate([_reach(t) for t in traces])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    low, high = np.log10(shown.min()), np.log10(shown.max())
    room = max(0.01, 0.05 * (high - low))
    low, high = low - room, high + room
    if high - low > 0.9:
        steps = (1, 2, 5) if high - low < 2.2 else (1,)
        powers = range(math.floor(low), math.ceil(high) + 1)
        ticks = [s * 10.0**p for p in powers for s in steps]
    else:
        width = (10**high - 10**low) / 4
        power = 10.0 ** math.floor(math.log10(width))
        step = min((s for s in (1, 2, 5, 10)), key=lambda s: abs(s * power - width))
        first = math.ceil(10**low / (step * power))
        ticks = [(first + i) * step * power for i in range(9)]
    ticks = [t for t in ticks if low <= math.log10(t) <= high]
    return {"tickvals": ticks, "range": [low, high]}
