"""Laws of a report in sentences and in numbers, a table for each target and model."""

from collections.abc import Sequence
from html import escape

import numpy as np

from bigxfer.report.figures import Drawing
from bigxfer.report.figures_scaling import AHEAD, by_place, name_of
from bigxfer.report.style import METRICS, Panel, pretty, table_html
from bigxfer.scaling import curves
from bigxfer.scaling.reach import rounded
from bigxfer.tables import cells

WANTED = 0.90  # of the metric: how many labels or images reach it?


def laws_table(
    drawing: Drawing, found: Sequence[curves.Law], unit: str, section: str
) -> list[Panel]:
    """The slopes and laws of each target and model, in sentences and in numbers."""
    panels = []
    for place, members in by_place(drawing, found):
        known = [law for law in members if law.slope]
        if not known:
            continue
        name = name_of(place)
        lines = [_missed(members), _few(members), *_flat(members, unit)]
        lines.append(_first(members, place["metric"], unit))
        lines += [f"Intervals are over {words}" for words in _words(known)]
        says = " ".join(f"{line}." for line in lines if line)
        panels.append(Panel(section, html=escape(f"{name}: {says}"), **place))
        metric = METRICS[place["metric"]]
        head = ("upstream", f"{metric} {WANTED:.2f}", "errors fall with the power")
        head += ("law", "parameters", "held-out miss", f"1 − {metric}")
        rows = [_law_row(law, unit) for law in members]
        html = f"<details><summary>Laws of {escape(name)} in numbers</summary>"
        panels.append(
            Panel(section, html=html + table_html(head, rows) + "</details>", **place)
        )
    return panels


def _missed(members: Sequence[curves.Law]) -> str:
    fitted = [_held_out(law) for law in members if law.fit]
    if not fitted:
        return ""
    return (
        "fitted to the smaller scales alone, the laws missed the errors at the largest"
        # Held-out misses are of logarithms.
        f" by up to {np.expm1(np.median(fitted)):.0%} (median over the {len(fitted)} fitted)"
    )


def _few(members: Sequence[curves.Law]) -> str:
    """Where no line has the scales of a forecast."""
    most = max(len(law.curve.x) for law in members)
    if most >= curves.LEAST:
        return ""
    return f"{most} scales on a line have a slope; a forecast needs {curves.LEAST}"


def _flat(members: Sequence[curves.Law], unit: str) -> list[str]:
    """The lines whose errors are shown to be equal at all scales."""
    return [
        f"from {cells.amount(law.curve.x[0])} to {cells.amount(law.curve.x[-1])} {unit} makes no"
        f" difference within {100 * law.flat:g} points to {pretty(law.curve.about['line'])}"
        for law in members
        if law.flat
    ]


def _first(members: Sequence[curves.Law], metric: str, unit: str) -> str:
    """The line that reaches WANTED at the smallest scale, or that none is known to."""
    reaches = [(law, law.reach(1 - WANTED)) for law in members]
    known = [(law, r) for law, r in reaches if r]
    if not known:
        return ""
    law, least = min(known, key=lambda pair: (pair[1].value, pair[1].high))
    wanted = f"{METRICS[metric]} {WANTED:.2f}"
    if least.value == np.inf:
        return f"No line is known to reach {wanted}"
    line = pretty(law.curve.about["line"])
    return f"{line} reaches {wanted} first, {least.sentence(unit)}"


def _words(members: Sequence[curves.Law]) -> list[str]:
    """What the intervals cover, each once."""
    return list(dict.fromkeys(law.words for law in members if law.words))


def _held_out(law: curves.Law) -> float:
    return law.scores[0].largest


def _law_row(law: curves.Law, unit: str) -> tuple[str, ...]:
    name = escape(pretty(law.curve.about["line"]))
    slope = "{:.2f} [{:.2f}, {:.2f}]".format(*law.slope) if law.slope else ""
    reached = law.reach(1 - WANTED)
    wanted = reached.sentence(unit) if reached else ""
    if not law.fit:
        return name, wanted, slope, "none", escape(law.reason), "", ""
    miss = f"{np.expm1(_held_out(law)):.0%}"
    values = ", ".join([*_parameters(law), *filter(None, [law.reason])])
    if not law.band:
        return name, wanted, slope, law.fit.form.name, values, miss, ""
    far = AHEAD * law.curve.x[-1]
    value, low, high = (v[0] for v in law.band.predict([far]))
    ahead = f"{value:.3g} [{low:.3g}, {high:.3g}] at {rounded(far)} {unit}"
    return name, wanted, slope, law.fit.form.name, values, miss, ahead


def _parameters(law: curves.Law) -> list[str]:
    """Each parameter of a law with its interval, and a mark where it is at its bound."""
    if not law.fit:
        return []
    ends = law.band.parameters if law.band else {}
    values = []
    for name, value in law.fit.parameters.items():
        text = f"{name} {value:.3g}"
        if name in ends:
            text += f" [{ends[name][1]:.3g}, {ends[name][2]:.3g}]"
        if name in law.fit.at_bounds:
            text += " (at its bound)"
        values.append(text)
    return values
