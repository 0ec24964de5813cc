"""How far results differ between groups of patients, and from other sets, as a table."""

from collections.abc import Sequence
from html import escape

import numpy as np

from bigxfer.report.style import pretty, shots_name, table_html
from bigxfer.tables import cells, estimates
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.lines import natural, rank
from bigxfer.tables.table import Row

NOTE = (
    "Macro AUROC. Between groups: the largest difference of two groups of a run's test images,"
    " with an interval that covers all their pairs. Other sets: theirs less that of the own test"
    " split. Each run is judged by itself; intervals are 95%, over patients. What has fewer than"
    " 5 patients with or without a label is in no number."
)
POOLED = (
    "Macro AUROC on other sets, the mean of all runs of a cell, and how far it lies above that of"
    " the own test split on the same classes. Intervals are 95%; the last column says what"
    " they cover. No column is adjusted for how many cells there are."
)
FACTORS = {"sex": "sexes", "age": "age bands", "site": "sites", "view": "views"}


def table(rows: Sequence[Row]) -> str:
    """HTML with a line for each target and each gap; "" where no run has one."""
    runs_of_gap: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for name, value in row.items():
            if (
                name.startswith("gap/")
                and name.endswith("/auroc_macro")
                and value is not None
            ):
                runs_of_gap.setdefault((row["target"], name), []).append(row)
    if not runs_of_gap:
        return ""
    lines = [
        line(target, name, runs) for (target, name), runs in sorted(runs_of_gap.items())
    ]
    heads = ["target", "gap", "runs", "median", "largest of a run", "apart from 0"]
    return (
        f"<h3>Groups and other sets</h3><p>{escape(NOTE)}</p>{table_html(heads, lines)}"
    )


def pooled(rows: Sequence[Row], predictions: PredictionReader) -> str:
    """HTML with a line for each cell and other set: the means over seeds and draws.

    `rows` are those that lines.lines has named; "" where none was judged on another set.
    """
    # Columns are called external/SET/METRIC.
    names = {key.split("/")[1] for row in rows for key in row if key[:9] == "external/"}
    cells_found = []
    for name in sorted(names):
        there, gap = (f"{kind}/{name}/auroc_macro" for kind in ("external", "gap"))
        for key, runs in cells.group(
            rows, gap, "target", "model", "line", "shots"
        ).items():
            target, model, label, shots = key
            means = [
                estimates.estimate(list(runs.values()), c, predictions)
                for c in (there, gap)
            ]
            value = cells.interval(means[0].value, means[0].low, means[0].high)
            signed = cells.interval(means[1].value, means[1].low, means[1].high, "+")
            about = [
                pretty(target),
                name,
                f"{pretty(label)}, {model}",
                shots_name(shots),
            ]
            text = [*about, f"{len(runs):,}", value, signed, means[1].covers]
            order = (name, target, natural(label), model, rank(shots))
            cells_found.append((order, [escape(word) for word in text]))
    if not cells_found:
        return ""
    heads = ["target", "set", "runs of", "shots", "number", "there", "gap", "covers"]
    lines = [text for _, text in sorted(cells_found)]
    title, drawn = "Other sets, over seeds and draws", table_html(heads, lines)
    return f'<h3>{title}</h3><p>{escape(POOLED)}</p><div class="pooled">{drawn}</div>'


def line(target: str, name: str, runs: Sequence[Row]) -> list[str]:
    """The cells of one line, as HTML."""
    _, what, _ = name.split("/")
    most = max(runs, key=lambda row: abs(row[name]))
    low, high = most[f"{name}_low"], most[f"{name}_high"]
    apart = [row for row in runs if row[f"{name}_low"] > 0 or row[f"{name}_high"] < 0]
    cells = [
        pretty(target),
        f"between {FACTORS[what]}"
        if what in FACTORS
        else f"{what} less the test split",
        f"{len(runs):,}",
        f"{np.median([row[name] for row in runs]):.3f}",
        f"{most[name]:.3f} [{low:.3f}, {high:.3f}], run {most['digest'][:8]}",
        f"{len(apart):,} of {len(runs):,}",
    ]
    return [escape(cell) for cell in cells]
