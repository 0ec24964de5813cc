"""How a report names, colours and writes things; a figure as plain JSON."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bigxfer.runs import markdown
from bigxfer.tables.lines import natural
from bigxfer.tables.table_args import SCALES

# Okabe & Ito's palette (jfly.uni-koeln.de/color), without black, which a dark page
# hides, and with yellow last, which a light one does; symbols tell the same apart.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6BB1",  # not of the palette: of another lightness than their neighbours
    "#A6761D",
    "#C9B700",  # Okabe & Ito's yellow, darkened for white paper
)
GREY = "#808080"  # scratch, the baseline
SYMBOLS = (
    ("circle", "●"),
    ("square", "■"),
    ("diamond", "◆"),
    ("triangle-up", "▲"),
    ("triangle-down", "▼"),
    ("cross", "✚"),
    ("x", "✖"),
    ("star", "★"),
    ("hexagon", "⬢"),
)
METRICS = {  # those a report can show, in this order, by their names in card.md
    name: markdown.METRICS[name]
    for name in (
        *("auroc_macro", "accuracy", "balanced_accuracy"),
        *("auprc_macro", "brier", "ece"),
    )
}
ERRORS = ("auroc_macro", "accuracy")  # laws and crossovers are of 1 - these
AXES = {**SCALES, "shots": "shots (images of each class)"}  # titles of axes
PARTS = {"chexpert": "C", "mimic": "M", "nih": "N", "padchest": "P"}
SETS = {
    "imagenet1k": "ImageNet-1k",
    "imagenet21k": "ImageNet-21k",
    "chexpert": "CheXpert",
    "mimic": "MIMIC",
    "nih": "NIH",
    "padchest": "PadChest",
    "covidx_cxr2": "COVIDx",
    "tuberculosis_full": "Tuberculosis",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "flowers_oversampling": "Flowers",
    "pets": "Pets",
}


def pretty(name: str) -> str:
    """ "C+M+N" of chexpert_mimic_nih, as arXiv 2106.00116 has it; else the name."""
    first, comma, after = name.partition(",")
    parts = first.split("_")
    if len(parts) > 1 and all(part in PARTS for part in parts):
        first = "+".join(PARTS[part] for part in parts)
    return SETS.get(first, first) + comma + after


def shots_name(shots: str) -> str:
    if shots == "full":
        return "full data"
    return f"{shots} shot" + ("s" if shots != "1" else "")


@dataclass(frozen=True)
class Style:
    colour: str
    symbol: str  # plotly's
    glyph: str  # the same as a character


def styles(
    lines: Iterable[str], before: Mapping[str, Style] | None = None
) -> dict[str, Style]:
    """One for each line, beside those that others had `before`; scratch is grey."""
    by_line = dict(before or {})
    for line in sorted(set(lines) - by_line.keys(), key=natural):
        greys = sum(s.colour == GREY for s in by_line.values())
        if line.startswith("scratch") and not greys:
            by_line[line] = Style(GREY, "circle-open", "○")
            continue
        # Greys take no colour: a study with scratch then looks as one without.
        n = len(by_line) - greys
        # The shift gives the second round of colours other symbols than the first.
        symbol = SYMBOLS[(n + n // len(COLOURS)) % len(SYMBOLS)]
        by_line[line] = Style(COLOURS[n % len(COLOURS)], *symbol)
    return by_line


@dataclass
class Strings:
    """Strings that many points share, kept once: a point holds their number."""

    texts: list[str] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> int:
        # plotly breaks no line of a hover label by itself.
        wrapped = "<br>".join(_wrapped(text))
        if wrapped not in self.known:
            self.known[wrapped] = len(self.texts)
            self.texts.append(wrapped)
        return self.known[wrapped]


def _wrapped(text: str, width: int = 46) -> list[str]:
    """Lines that break behind a blank, a slash, a comma or an underscore."""
    lines = [""]
    for word in re.findall(r"[^ /,_]*[ /,_]?", text):
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] += word
    return lines


@dataclass
class Panel:
    """One figure, or a piece of HTML, and the filters under which it shows; "" is any.

    `figure` is plotly's {"data", "layout"}. A trace's meta has its "line", or "rows" of
    [a, b] for a matrix, and "sources", the numbers of Strings for its points, or one
    "source" for all: of a curve with its "axes" and "band", or of a "confusion". `label` is
    the class that a curve is of.
    """

    section: str
    title: str = ""
    target: str = ""
    metric: str = ""
    model: str = ""
    shots: str = ""
    label: str = ""
    figure: dict[str, Any] | None = None
    html: str = ""
    height: int = 340

    def as_dict(self) -> dict[str, Any]:
        fields = {k: v for k, v in vars(self).items() if v}
        if self.figure is not None:
            fields["figure"] = plain(self.figure)
        return fields


def plain(value: Any) -> Any:
    """Lists, strings and numbers of 4 digits, for JSON; NaN becomes null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        # More digits than a figure can show would only make the page larger.
        return float(f"{value:.4g}") if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML already."""
    top = "".join(f"<th>{h}</th>" for h in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number(value: float) -> str:
    """1234567 -> "1.23 M" """
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def chance(p: float) -> str:
    """A probability in two digits, "below 0.0001" where it is less."""
    return "below 0.0001" if p < 1e-4 else f"{p:.2g}"


def varies(values: Iterable[float | None], ratio: float = 1.5) -> bool:
    """Whether known values differ enough to be an axis: by this ratio or more."""
    known = [v for v in values if v]
    return bool(known) and max(known) >= ratio * min(known)
