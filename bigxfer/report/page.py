"""The report of a study: one HTML page with its figures, for any browser, offline."""

import json
import re
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from bigxfer.report import (
    figures,
    figures_pairs,
    figures_predictions,
    figures_scaling,
    findings,
    groups,
    overview,
    style,
)
from bigxfer.report.figures import Drawing
from bigxfer.report.style import ERRORS, METRICS, UNITS, Panel
from bigxfer.scaling import crossings, curves
from bigxfer.tables import differences, lines
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.differences import Family
from bigxfer.tables.lines import order
from bigxfer.tables.table import Row
from bigxfer.tables.table_args import Given


def build(
    given: Given,
    predictions: PredictionReader,
    title: str = "",
    unfinished: Sequence[str] | None = None,
    families: Sequence[Family] | None = None,
) -> str:
    """The page as a string.

    `unfinished` has a line for each run without a result; None: those that lie beside
    the table's runs. `families` are all comparisons; None: they are made here.
    """
    rows, notes = lines.lines(given.rows)
    if families is None:
        families = comparisons(given, predictions)
    drawing = Drawing(rows, style.styles(r["line"] for r in rows), predictions)
    metrics = overview.metrics_of(rows)
    panels: list[Panel] = []
    for metric in metrics:
        panels += figures.curves_say(drawing, metric) + figures.curves(drawing, metric)
        here = [family for family in families if family.metric == metric]
        panels += figures_pairs.differences(drawing, here)
        if metric in ERRORS:
            panels += _laws(drawing, given.rows, metric, notes)
    panels += figures_predictions.reliability(drawing)
    panels += figures_predictions.classes(drawing)
    head = overview.tiles(given, predictions) + overview.costs(given.rows)
    head += groups.table(given.rows)
    head += overview.notes(
        given,
        predictions,
        overview.unfinished_beside(given) if unfinished is None else unfinished,
        [escape(n) for n in dict.fromkeys([*notes, *overview.lacking(rows)])],
    )
    opening = findings.opening(families, metrics)
    return page(title or _title(given), opening, head, drawing, panels, metrics)


def comparisons(given: Given, predictions: PredictionReader) -> list[Family]:
    """Every comparison of the table, by every metric that a page shows."""
    rows, _ = lines.lines(given.rows)
    metrics = overview.metrics_of(rows)
    return [f for m in metrics for f in differences.families(rows, m, predictions)]


def _laws(
    drawing: Drawing, rows: Sequence[Row], metric: str, notes: list[str]
) -> list[Panel]:
    """Scaling over shots, upstream and model, and the crossovers over shots."""
    panels: list[Panel] = []
    sizes = {r["upstream_size"] for r in rows if r["upstream_size"]}
    scale = "upstream_size" if len(sizes) > 1 else "upstream_examples"
    for section, x in (("laws", "shots"), ("upstream", scale), ("size", "params")):
        grouped, more = curves.curves(rows, x, metric)
        if x != "shots" and not style.varies(r[x] for r in rows):
            continue
        if x == "shots":
            notes += [f"Laws and crossovers over shots: {line}" for line in more]
            pairs = crossings.crossings(grouped, drawing.predictions)
            panels += figures_pairs.crossovers(drawing, pairs, metric)
        fitted = [curves.law(curve, drawing.predictions) for curve in grouped]
        drawing.look = style.styles((c.about["line"] for c in grouped), drawing.look)
        drawn = figures_scaling.scaling(drawing, fitted, x, section)
        unit = UNITS[x].partition(" (")[0]
        panels += drawn + figures_scaling.laws_table(drawing, fitted, unit, section)
    return panels


def _title(given: Given) -> str:
    folder = given.path.resolve().parent.name
    if folder.startswith("study_"):  # as the launchers write it
        return f"Transfer study: {folder.removeprefix('study_')}"
    names = sorted({row["study"] for row in given.rows if row["study"]})
    return "Transfer study: " + ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def page(
    title: str,
    opening: str,
    head: str,
    drawing: Drawing,
    panels: Sequence[Panel],
    metrics: Sequence[str],
) -> str:
    """The template with everything in it."""
    rows = drawing.rows
    targets = sorted({r["target"] for r in rows}, key=style.pretty)
    here = {t: [r for r in rows if r["target"] == t] for t in targets}
    synthetic = any(r["synthetic"] for r in rows)
    data: dict[str, Any] = {
        "synthetic": synthetic,
        "panels": [p.as_dict() for p in panels],
        "strings": drawing.strings.texts,
        "lines": {
            line: {"name": style.pretty(line), **vars(drawn)}
            for line, drawn in drawing.look.items()
        },
        "choices": {
            "target": {t: style.pretty(t) for t in targets},
            "metric": {m: METRICS[m] for m in metrics},
            "model": {"": "all models"} | {m: m for m in drawing.models},
            "shots": {"": "all shots"}
            | {s: style.shots_name(s) for s in order({r["shots"] for r in rows})},
        },
        "start": {
            "target": max(targets, key=lambda t: len({r["line"] for r in here[t]})),
            "shots": order({r["shots"] for r in rows})[-1],
        },
    }
    banner = (
        '<p class="synthetic">SYNTHETIC: the images of this study are drawings of a'
        " phantom. It says nothing about patients.</p>"
        if synthetic
        else ""
    )
    filled = {
        "TITLE": escape(title),
        "BANNER": banner,
        "FINDINGS": opening,
        "HEAD": head,
        "STYLE": _file("page.css"),
        "SCRIPT": _file("page.js"),
        "PLOTLY": resources.files("plotly")
        .joinpath("package_data/plotly.min.js")
        .read_text("utf-8"),
        "DATA": json.dumps(
            data, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).replace("</", "<\\/"),
    }
    return re.sub(r"\[\[([A-Z]+)\]\]", lambda m: filled[m[1]], _file("page.html"))


def _file(name: str) -> str:
    return resources.files("bigxfer.report").joinpath(name).read_text("utf-8")
