"""How far results differ between groups of patients, and from other sets, as a table."""

from collections.abc import Sequence
from html import escape

import numpy as np

from bigxfer.report.style import pretty, table_html
from bigxfer.tables.table import Row

NOTE = (
    "Macro AUROC. Between groups: the largest difference of two groups of a run's test images,"
    " with an interval that covers all their pairs. Other sets: theirs less that of the own test"
    " split. Each run is judged by itself; intervals are 95%, over patients. What has fewer than"
    " 5 patients with or without a label is in no number."
)
FACTORS = {"sex": "sexes", "age": "age bands", "site": "sites", "view": "views"}


def table(rows: Sequence[Row]) -> str:
    """HTML with a line for each target and each gap; "" where no run has one."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for name, value in row.items():
            if (
                name.startswith("gap/")
                and name.endswith("/auroc_macro")
                and value is not None
            ):
                found.setdefault((row["target"], name), []).append(row)
    if not found:
        return ""
    lines = [line(target, name, runs) for (target, name), runs in sorted(found.items())]
    heads = ["target", "gap", "runs", "median", "largest of a run", "apart from 0"]
    return (
        f"<h3>Groups and other sets</h3><p>{escape(NOTE)}</p>{table_html(heads, lines)}"
    )


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
