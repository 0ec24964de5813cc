"""The report of a study: one HTML page with its figures, for any browser, offline."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bigxfer.report import (
    figures,
    figures_pairs,
    figures_predictions,
    figures_ranking,
    figures_roc,
    figures_scaling,
    figures_training,
    findings,
    groups,
    laws_table,
    overview,
    style,
    templates,
    upstreams,
)
from bigxfer.report.figures import Drawing
from bigxfer.report.style import ERRORS, METRICS, Panel
from bigxfer.scaling import crossings, curves
from bigxfer.scaling.curves import Law
from bigxfer.statistics import roc
from bigxfer.tables import lines, probes
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.families import Family, compare_all
from bigxfer.tables.lines import order
from bigxfer.tables.table import Row
from bigxfer.tables.table_args import SCALES, Given


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
    if families is None:
        families = comparisons(given, predictions)
    rankings = figures_ranking.rankings(given.rows)
    # Of probes with many settings all figures but the rankings show the reported one.
    given = given._replace(rows=probes.reported(given.rows))
    rows, notes = lines.lines(given.rows)
    drawing = Drawing(rows, style.styles(r["line"] for r in rows), predictions)
    metrics = overview.metrics_of(rows)
    laws: dict[tuple[str, str], list[Law]] = {}
    panels = figures_ranking.panels(rankings)
    for metric in metrics:
        panels += figures.curves_say(drawing, metric) + figures.curves(drawing, metric)
        here = [family for family in families if family.metric == metric]
        panels += figures_pairs.differences(drawing, here)
        if metric in ERRORS:
            panels += _laws(drawing, given.rows, metric, notes, laws)
    panels += figures_predictions.reliability(drawing)
    panels += figures_predictions.classes(drawing)
    panels += figures_roc.panels(drawing)
    panels += figures_training.panels(drawing, given.rows)
    if unfinished is None:
        unfinished = overview.unfinished_beside(given)
    # What no figure was made of is said, so that nobody looks for it.
    absent = overview.absent({panel.section for panel in panels})
    absent += upstreams.missing(given.rows)
    more = list(dict.fromkeys([*notes, *overview.lacking(rows), *absent]))
    told = findings.opening(families, metrics, laws)
    return templates.render(
        "page.html",
        title=title or _title(given),
        synthetic="This study" if any(r["synthetic"] for r in rows) else "",
        findings=(figures_ranking.opening(rankings) + told)[: findings.MOST],
        tiles=overview.tiles(given, predictions),
        costs=overview.costs(given.rows),
        upstreams=upstreams.table(given.rows),
        upstream_head=upstreams.HEAD,
        upstream_rule=upstreams.RULE,
        failed=upstreams.failed(given.rows),
        groups=groups.table(given.rows) + groups.pooled(rows, predictions),
        notes=overview.notes(given, predictions, unfinished, more),
        # The template leaves out the sections without a figure.
        sections={panel.section for panel in panels},
        plotly=templates.text("package_data/plotly.min.js", "plotly"),
        data=_data(drawing, panels, metrics, upstreams.by_line(given.rows, rows)),
        script=templates.text("page.js"),
    )


def comparisons(given: Given, predictions: PredictionReader) -> list[Family]:
    """Every comparison of the table, by every metric that a page shows."""
    rows, _ = lines.lines(probes.reported(given.rows))
    metrics = overview.metrics_of(rows)
    return [f for m in metrics for f in compare_all(rows, m, predictions)]


def _laws(
    drawing: Drawing,
    rows: Sequence[Row],
    metric: str,
    notes: list[str],
    laws: dict[tuple[str, str], list[Law]],
) -> list[Panel]:
    """Scaling over shots, upstream and model, and the crossovers over shots.

    Notes and laws are added to what is given.
    """
    panels: list[Panel] = []
    sizes = {r["upstream_size"] for r in rows if r["upstream_size"]}
    # Where all upstreams have one size they may still differ in the examples seen.
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
        laws[metric, x] = fitted
        # Over upstream sizes a line's name has no size, and no style yet.
        drawing.look = style.styles((c.about["line"] for c in grouped), drawing.look)
        drawn = figures_scaling.scaling(drawing, fitted, x, section)
        panels += drawn + laws_table.laws_table(drawing, fitted, SCALES[x], section)
    return panels


def _title(given: Given) -> str:
    folder = given.path.resolve().parent.name
    if folder.startswith("study_"):  # as the launchers write it
        return f"Transfer study: {folder.removeprefix('study_')}"
    names = sorted({row["study"] for row in given.rows if row["study"]})
    return "Transfer study: " + ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _data(
    drawing: Drawing,
    panels: Sequence[Panel],
    metrics: Sequence[str],
    own: Mapping[str, str],
) -> str:
    """What page.js draws from, as JSON that cannot end its script element.

    own: what is said of the upstream of a line.
    """
    rows = drawing.rows
    targets = sorted({r["target"] for r in rows}, key=style.pretty)
    here = {t: [r for r in rows if r["target"] == t] for t in targets}
    data: dict[str, Any] = {
        "synthetic": any(r["synthetic"] for r in rows),
        "panels": [p.as_dict() for p in panels],
        "strings": drawing.strings.texts,
        "lines": {
            line: {"name": style.pretty(line), "own": own.get(line, ""), **vars(drawn)}
            for line, drawn in drawing.look.items()
        },
        "choices": {
            "target": {t: style.pretty(t) for t in targets},
            "metric": {m: METRICS[m] for m in metrics},
            "model": {"": "all models"} | {m: m for m in drawing.models},
            "shots": {"": "all shots"}
            | {s: style.shots_name(s) for s in order({r["shots"] for r in rows})},
            **_labels(panels),
        },
        "start": {
            # The target with the most lines: the page opens on what there is most of.
            "target": max(targets, key=lambda t: len({r["line"] for r in here[t]})),
            "shots": order({r["shots"] for r in rows})[-1],
        },
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # "</script>" within a string would end the element.
    return text.replace("</", "<\\/")


def _labels(panels: Sequence[Panel]) -> dict[str, dict[str, str]]:
    """The choice of a class, where curves of single classes are there to choose."""
    labels = list(dict.fromkeys(p.label for p in panels if p.label))
    names = {label: label for label in labels if label != roc.MACRO}
    return {"label": {roc.MACRO: "mean of the classes", **names}} if names else {}
