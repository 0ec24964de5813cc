"""Figures of a report: error over shots, upstream size or model size, with its laws."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from bigxfer.study import cells, laws
from bigxfer.study.figures import Drawing
from bigxfer.study.look import (
    METRICS,
    UNITS,
    Panel,
    number,
    pretty,
    shots_name,
    table_html,
)
from bigxfer.study.summary import rank

AHEAD = 10  # laws are drawn to this multiple of the largest scale


def scaling(
    drawing: Drawing, found: Sequence[laws.Law], x: str, section: str
) -> list[Panel]:
    """Errors over x on logarithmic axes with laws and what they foretell.

    A panel for each target and what else the lines of `found` do not run along.
    """
    panels = []
    groups: dict[tuple, list[laws.Law]] = {}
    for law in found:
        about = law.curve.about
        key = tuple(about.get(k, "") for k in ("target", "model", "shots"))
        groups.setdefault(key, []).append(law)
    for (target, model, shots), members in _in_order(groups, drawing):
        if len({scale for law in members for scale in law.curve.x}) < 2:
            continue
        metric = members[0].curve.metric
        traces = [t for law in members for t in _law_traces(drawing, law)]
        if section == "upstream":
            traces += _baseline(drawing, target, model, shots, members)
        scales = sorted({s for law in members for s in law.curve.x})
        names = [pretty(target), model, shots_name(shots) if shots else ""]
        layout: dict[str, Any] = {
            "xaxis": {"title": {"text": UNITS[x]}, "type": "log"},
            "yaxis": {"title": {"text": f"1 − {METRICS[metric]}"}, "type": "log"},
        }
        if any(law.fit for law in members):
            scales.append(scales[-1] * AHEAD)
        ticks = _apart(scales)
        layout["xaxis"] |= {"tickvals": ticks, "ticktext": [number(t) for t in ticks]}
        panels.append(
            Panel(
                section,
                ", ".join(filter(None, names)),
                target,
                metric,
                model,
                shots,
                figure={"data": traces, "layout": layout},
                height=360,
            )
        )
    _level(panels)
    return panels


def _in_order(groups: dict[tuple, list[laws.Law]], drawing: Drawing):
    """Small models first."""
    return sorted(
        groups.items(),
        key=lambda g: (["", *drawing.models].index(g[0][1]), g[0][2] and rank(g[0][2])),
    )


def _law_traces(drawing: Drawing, law: laws.Law) -> list[dict]:
    """The points of a line, its law within the data, and beyond it with its band."""
    curve, line = law.curve, law.curve.about["line"]
    points = []
    for runs in curve.runs:
        p = drawing.point(list(runs.values()), curve.metric)
        text = f"1 − {p['text']}"
        flipped = {"value": 1 - p["value"], "low": 1 - p["high"], "high": 1 - p["low"]}
        if not flipped["low"] > 0:  # a logarithmic axis has no 0
            flipped["low"] = (
                flipped["value"] / 3 if np.isfinite(flipped["low"]) else np.nan
            )
        points.append(p | flipped | {"text": text})
    mode = "markers" if law.fit else "lines+markers"
    traces = [drawing.trace(line, curve.x, points, mode=mode)]
    if not law.fit:
        return traces
    meta = {"line": line}
    plain = {"type": "scatter", "mode": "lines", "hoverinfo": "skip"}
    plain |= {"showlegend": False, "meta": meta}
    beyond = np.geomspace(curve.x[-1], curve.x[-1] * AHEAD, 8)
    for x, dash in (
        (np.geomspace(curve.x[0], curve.x[-1], 20), "solid"),
        (beyond, "dash"),
    ):
        y = law.fit.predict(x)
        traces.append(plain | {"x": x, "y": y, "line": {"dash": dash}})
    if law.band:
        _, low, high = law.band.predict(beyond)
        low = np.maximum(low, 0.3 * min(p["value"] for p in points))
        high = np.minimum(high, 3 * max(p["value"] for p in points))
        around = {"x": [*beyond, *beyond[::-1]], "y": [*high, *low[::-1]]}
        traces.append(plain | around | {"fill": "toself", "line": {"width": 0}})
    return traces


def _baseline(drawing, target, model, shots, members) -> list[dict]:
    """Training from scratch, which has no upstream, as a level line."""
    metric = members[0].curve.metric
    groups = cells.group(drawing.rows, metric, "target", "model", "shots", "line")
    ends = [s for law in members for s in law.curve.x]
    traces = []
    for key, runs in groups.items():
        if key[:3] == (target, model, shots) and key[3].startswith("scratch"):
            point = drawing.point(list(runs.values()), metric)
            level = point | {"value": 1 - point["value"], "low": np.nan, "high": np.nan}
            trace = drawing.trace(key[3], [min(ends), max(ends)], [level, level])
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
    """The scales without those that a label of another one would cover."""
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
    return np.concatenate([y, *(np.clip(end, y / 3, 3 * y) for end in ends)])


def _log_ticks(traces: Sequence[dict]) -> dict:
    """Ticks at 1, 2, 5 times powers of ten: plotly labels few of a short range."""
    seen = np.concatenate([_reach(t) for t in traces])
    seen = seen[np.isfinite(seen) & (seen > 0)]
    low, high = np.log10(seen.min()) - 0.05, np.log10(seen.max()) + 0.05
    steps = (1, 2, 5) if high - low < 2.2 else (1,)
    if high - low < 0.7:
        steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [s * 10.0**p for p in powers for s in steps]
    ticks = [t for t in ticks if low <= math.log10(t) <= high]
    if len(ticks) < 3:  # two digits, at even distances
        ticks = [float(f"{t:.2g}") for t in np.geomspace(10**low, 10**high, 5)[1:-1]]
    return {"tickvals": sorted(set(ticks)), "range": [low, high]}


# ---- in numbers --------------------------------------------------------------------


def laws_table(
    drawing: Drawing, found: Sequence[laws.Law], unit: str, section: str
) -> list[Panel]:
    """The laws of each target and model in numbers."""
    panels = []
    groups: dict[tuple, list[laws.Law]] = {}
    for law in found:
        about = law.curve.about
        groups.setdefault(
            tuple(about.get(k, "") for k in ("target", "model", "shots")), []
        ).append(law)
    for (target, model, shots), members in _in_order(groups, drawing):
        metric = members[0].curve.metric
        name = ", ".join(
            filter(None, (pretty(target), model, shots_name(shots) if shots else ""))
        )
        name = escape(name)
        fitted = [law for law in members if law.fit]
        place = {"target": target, "metric": metric, "model": model, "shots": shots}
        if fitted:
            off = float(np.median([_held_out(law) for law in fitted]))
            says = (
                f"{name}: fitted to the small scales alone, the laws missed the error at"
                f" the largest by {np.expm1(off):.0%} (median over {len(fitted)} lines)."
            )
            panels.append(Panel(section, html=says, **place))
        elif section != "laws":
            most = max(len(law.curve.x) for law in members)
            if most < 2:
                continue
            says = f"{name}: {most} scales on a line, too few for a law."
            panels.append(Panel(section, html=says, **place))
            continue
        rows = [_law_row(law, unit) for law in members]
        head = (
            "upstream",
            "law",
            "parameters",
            "held-out miss",
            f"1 − {METRICS[metric]}",
        )
        html = f"<details><summary>Laws of {name} in numbers</summary>"
        panels.append(
            Panel(section, html=html + table_html(head, rows) + "</details>", **place)
        )
    return panels


def _held_out(law: laws.Law) -> float:
    return next(s.held_out for s in law.scores if law.fit and s.form is law.fit.form)


def _law_row(law: laws.Law, unit: str) -> tuple[str, ...]:
    name = escape(pretty(law.curve.about["line"]))
    if not law.fit:
        return name, "none", law.reason, "", ""
    ends: dict = law.band.parameters if law.band else {}
    values = [
        f"{k} {v:.3g}" + (f" [{ends[k][1]:.3g}, {ends[k][2]:.3g}]" if ends else "")
        for k, v in law.fit.parameters.items()
    ]
    far = 10 * law.curve.x[-1]
    ahead = f"{law.fit.predict([far])[0]:.3g}"
    if law.band:
        _, low, high = law.band.predict([far])
        ahead += f" [{low[0]:.3g}, {high[0]:.3g}]"
    miss = f"{np.expm1(_held_out(law)):.0%}"
    return (
        name,
        law.fit.form.name,
        ", ".join(values),
        miss,
        f"{ahead} at {far:,.4g} {unit}",
    )
