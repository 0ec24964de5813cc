"""Figures of a report on pairs: differences with their verdicts, and crossovers."""

import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from bigxfer.report.figures import Drawing
from bigxfer.report.style import UNITS, Panel, chance, pretty, shots_name, table_html
from bigxfer.scaling import curves
from bigxfer.scaling.crossover import Crossover
from bigxfer.tables import differences as compared
from bigxfer.tables.differences import Comparison, Family

ROW = 24  # pixels of a row of a matrix
PALE = 5.0  # points of a difference that is coloured in full, at least
MARKS = {compared.BETTER: "*", compared.WORSE: "*", compared.EQUIVALENT: "≈"}


def differences(drawing: Drawing, found: Sequence[Family]) -> list[Panel]:
    """A heatmap of every family of comparisons, and a sentence."""
    panels = []
    for family in found:
        target = pretty(family.target)
        title = f"{target}, {family.model}: upstream minus upstream"
        if not family.model:
            title = f"{target}: {family.title}"
        place = (family.target, family.metric, family.model)
        figure = _matrix(drawing, family)
        tall = ROW * len(family.pairs) + 36
        panels += [
            Panel(
                "differences", "", *place, html=f"{escape(title)}: {verdicts(family)}"
            ),
            Panel("differences", title, *place, figure=figure, height=tall),
        ]
    return panels


def verdicts(family: Family) -> str:
    """ "of 12 differences 3 are told apart, ..."."""
    judged, all_of = family.judged, family.found.values()
    words = []
    if judged:
        count = Counter(c.verdict for c in judged)
        apart = count[compared.BETTER] + count[compared.WORSE]
        margin = judged[0].margin
        words.append(
            f"of {len(judged)} differences {apart} are told apart (*),"
            f" {count[compared.EQUIVALENT]} are equivalent within {100 * margin:g} points"
            f" (≈) and {count[compared.OPEN]} are not told apart, by p adjusted over them"
            " (Holm)"
        )
        least = [c.detectable for c in judged if math.isfinite(c.detectable)]
        if least:
            words.append(
                "a true difference would be told apart in 80% of such studies from"
                f" {100 * min(least):.1f} to {100 * max(least):.1f} points on"
            )
    without = Counter(c.difference.lacks for c in all_of if c.difference.lacks)
    words += [f"{n} have no p ({why})" for why, n in without.most_common()]
    return "; ".join(words) + "."


def _matrix(drawing: Drawing, family: Family) -> dict[str, Any]:
    """Pairs by shots."""
    of_nets = not family.model
    names = [
        pretty(a[1]) if of_nets else f"{pretty(a[1])} − {pretty(b[1])}"
        for a, b in family.pairs
    ]
    z, hover, sources, marks = [], [], [], []
    for a, b in family.pairs:
        row = [_cell(drawing, family.found.get((a, b, s))) for s in family.shots]
        for out, values in zip(
            (z, hover, sources, marks), zip(*row, strict=True), strict=True
        ):
            out.append(list(values))
    trace = {
        "type": "heatmap",
        "z": z,
        "x": [shots_name(family.shots[0]), *family.shots[1:]],
        "y": names,
        "hovertext": hover,
        "texttemplate": "%{text}",
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "meta": {
            "rows": [[a[1], b[1]] for a, b in family.pairs],
            "sources": sources,
            "marks": marks,
        },
    }
    top = max(PALE, np.nanquantile(np.abs(np.array(z, float)), 0.95))
    trace |= {"zmin": -top, "zmax": top}
    layout = {
        "xaxis": {"type": "category", "side": "top"},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "margin": {"t": 26, "b": 8},
    }
    return {"data": [trace], "layout": layout}


def _cell(drawing: Drawing, c: Comparison | None) -> tuple[float, str, int, str]:
    """(points of a hundredth, what else a hover says, its source, its mark)."""
    if c is None:
        return np.nan, "", drawing.strings.add("not run"), ""
    d, hover = c.difference, ""
    if np.isfinite(d.low):
        hover = f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
    if c.verdict:
        hover += f", p {d.p:.2g}, Holm {c.p_holm:.2g} of {c.size}: {c.verdict}"
    if np.isfinite(d.false):
        hover += f", P(false) {chance(d.false)}"
    words = f"95%: {d.covers}" + (f". No p: {d.lacks}" if d.lacks else "")
    value = round(100 * d.value, 1) + 0.0  # no -0.0
    return value, hover, drawing.strings.add(words), MARKS.get(c.verdict, "")


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
