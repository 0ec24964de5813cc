"""Figures of a report on pairs: differences with their verdicts, and crossovers."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np

from bigxfer.report.figures import Drawing
from bigxfer.report.style import AXES, Panel, chance, pretty, shots_name, table_html
from bigxfer.scaling.crossings import Crossing
from bigxfer.scaling.reach import rounded
from bigxfer.tables import differences as compared
from bigxfer.tables.differences import Comparison
from bigxfer.tables.families import Family
from bigxfer.tables.table_args import SCALES

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
            # With two seeds the least one can lie beyond what a fraction can differ by.
            ends = f"{100 * min(least):.1f} to {100 * max(least):.1f} points on"
            if max(least) > 1:
                some = sum(d > 1 for d in least)
                ends = f"{100 * min(least):.1f} points on; in {some} cells at no difference"
            words.append(
                f"a true difference would be told apart in 80% of such studies from {ends}"
            )
    without = Counter(c.difference.lacks for c in all_of if c.difference.lacks)
    words += [f"{n} have no p ({why})" for why, n in without.most_common()]
    return "; ".join(words) + "."


def _matrix(drawing: Drawing, family: Family) -> dict[str, Any]:
    """Pairs by shots."""
    names = []
    for a, b in family.pairs:
        left, right = (pretty(side[1]) for side in (a, b))
        # Two nets from one upstream: the family's title names the nets.
        if a[1] == b[1]:
            names.append(left)
        elif a[0] == b[0]:
            names.append(f"{left} − {right}")
        else:
            names.append(f"{left} ({a[0]}) − {right} ({b[0]})")
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
    # By the 95th percentile: one large difference would leave all others white.
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
    pairs: Sequence[Crossing],
    metric: str,
    x: str = "shots",
) -> list[Panel]:
    """Where one line overtakes another: a figure of those that are told, and all as
    sentences."""
    panels = []
    groups: dict[tuple, list[Crossing]] = {}
    for pair in pairs:
        about = pair.about
        groups.setdefault((about["target"], about["model"]), []).append(pair)
    ordered = sorted(groups.items(), key=lambda g: drawing.models.index(g[0][1]))
    for (target, model), members in ordered:
        place = {"target": target, "metric": metric, "model": model}
        name = f"{pretty(target)}, {model}"
        told = [c for c in members if c.overtakings]
        count = Counter(c.verdict for c in members)
        says = f"{escape(name)}, {len(members)} pair{'s' * (len(members) > 1)}: one line overtakes the other in"
        says += f" {len(told) or 'none'}"
        if twice := count["crosses twice"]:
            says += f" ({twice} of them cross twice)"
        says += f"; one is ahead at some scale in {count['ahead'] or 'none'}"
        says += f"; not told apart: {count[compared.OPEN] or 'none'}"
        if without := count[""]:
            says += f"; cannot be compared: {without}"
        panels.append(Panel("crossovers", html=says + ".", **place))
        if told:
            # By place, so that the figure reads from the smallest scale to the largest.
            told.sort(key=lambda c: c.overtakings[-1].at)
            figure = _forest(drawing, told, x)
            tall = 28 * sum(len(c.overtakings) for c in told) + 80
            panels.append(
                Panel("crossovers", name, figure=figure, height=tall, **place)
            )
        panels.append(Panel("crossovers", html=_sentences(members, name, x), **place))
    return panels


def _forest(drawing: Drawing, told: Sequence[Crossing], x: str) -> dict[str, Any]:
    """One row an overtaking: its place and the interval of it."""
    traces = []
    scales = sorted({float(s) for c in told if c.found for s in c.found.x})
    for c in told:
        source = drawing.strings.add(f"{_named(c, x)}. {c.basis}")
        for o in c.overtakings:
            first, second = (c.a, c.b) if o.leads > 0 else (c.b, c.a)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": [o.low, o.at, o.high],
                    "y": [f"{pretty(first)} over {pretty(second)}"] * 3,
                    "showlegend": False,
                    "text": [f"at {rounded(o.at)}"] * 3,
                    "marker": {
                        "symbol": ["line-ns", drawing.look[first].symbol, "line-ns"],
                        "size": [8, 10, 8],
                        "line": {
                            "color": drawing.look[first].colour,
                            "width": [2, 0, 2],
                        },
                    },
                    "meta": {"line": first, "other": second, "sources": [source] * 3},
                }
            )
    # plotly takes the range of a logarithmic axis in powers of ten.
    low, high = np.log10([scales[0] / 1.3, scales[-1] * 1.3])
    layout = {
        "xaxis": {
            "title": {"text": AXES[x]},
            "type": "log",
            "range": [float(low), float(high)],
            "tickvals": scales,
        },
        "yaxis": {"type": "category", "autorange": "reversed"},
    }
    return {"data": traces, "layout": layout}


def _sentences(pairs: Sequence[Crossing], name: str, x: str) -> str:
    rows = [(escape(_named(c, x)), c.basis if c.found else "") for c in pairs]
    table = table_html(("pair", "interval"), rows)
    family = f"Every pair of {escape(name)}, one family"
    return f"<details><summary>{family}</summary>{table}</details>"


def _named(c: Crossing, x: str) -> str:
    """Its sentence, with names as the page has them."""
    named = replace(c, a=pretty(c.a), b=pretty(c.b))
    return named.sentence(SCALES[x])
