"""Tables and cells of card.md."""

from typing import Any

Lines = list[str]
METRICS = {  # metric -> its name in card.md
    "auroc_macro": "macro AUROC",
    "auprc_macro": "macro AUPRC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "brier": "Brier score",
    "ece": "ECE",
    "loss": "loss",
}


def cell(entry: dict[str, Any]) -> str:
    """0.903 [0.871, 0.930], without the interval where there is none, or a dash."""
    if entry["value"] is None:
        return "-"
    if entry["low"] is None:
        return f"{entry['value']:.3f}"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def table(titles: Lines, rows: list[list]) -> Lines:
    """A table of Markdown whose columns also line up as plain text."""
    # A bar in a class name would start a column.
    cells = [[str(c).replace("|", r"\|") for c in row] for row in [titles, *rows]]
    wide = [max(map(len, column)) for column in zip(*cells)]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, wide)) + " |" for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in wide) + "|"
    return [lines[0], rule, *lines[1:]]
