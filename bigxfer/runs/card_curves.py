"""What card.md shows of curves: card.svg beside it, and the confusion matrix.

The picture is written by hand: a plotting library would cost each run of a study a second
and 50 MB, for four line charts.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from bigxfer.runs import history
from bigxfer.runs.finished import Finished
from bigxfer.runs.markdown import Lines, table
from bigxfer.runs.predictions import Predictions
from bigxfer.statistics import confusion, roc
from bigxfer.statistics.limits import Score

# Okabe & Ito's palette (jfly.uni-koeln.de/color), without black, yellow and light blue.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#8C6BB1")
GREY = "#8a94a3"
WIDE, HIGH = 400, 300  # pixels of a chart
LEFT, TOP, RIGHT, BOTTOM = 52, 34, 14, 46  # its margins
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d2430}.soft{fill:#5a6472}"
    ".grid{stroke:#d5dae1;stroke-width:.6}path{fill:none}"
    # A page that shows the card may be dark; the SVG then needs light text.
    "@media(prefers-color-scheme:dark){text{fill:#e6eaf0}.soft{fill:#a3adba}"
    ".grid{stroke:#39424e}}"
)


class Line(NamedTuple):
    """A curve of a chart, with the limits of its band, or none; "" is one of many, grey."""

    name: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


class Chart(NamedTuple):
    title: str
    across: str
    up: str
    lines: list[Line]
    top: float | None = None  # of the axis; None: as the values are
    chance: tuple[float, float] | None = None  # no skill, at the left and the right end


def picture(run: Finished, test: Predictions) -> str:
    """The SVG: ROC and precision-recall by class, loss and accuracy by step.

    "" where there is nothing to draw.
    """
    charts = [*_judged(test), *_trained(run)]
    if not charts:
        return ""
    # Below each other: side by side the text would be 6 pixels high on a telephone.
    high = len(charts) * (HIGH + 20)
    body = "".join(
        f'<g transform="translate(0 {i * (HIGH + 20)})">{_drawn(chart)}</g>'
        for i, chart in enumerate(charts)
    )
    size = f'width="{WIDE}" height="{high}" viewBox="0 0 {WIDE} {high}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
        f"<style>{STYLE}</style>{body}</svg>\n"
    )


def lines(test: Predictions, drawn: bool) -> Lines:
    """The section of card.md: the picture, what its bands cover, the confusion matrix."""
    out = ["## Curves", ""]
    if drawn:
        out += [
            "![ROC, precision-recall and training curves](card.svg)",
            "",
            (
                "Band: of the mean of the classes, 95% over the test patients at each place by"
                " itself. There is none where a class has too few patients, or fewer than"
                f" {roc.BEYOND} patients lie beyond the threshold. Dots: no skill, which has the"
                " mean share of the classes as its precision."
            ),
        ]
    shares = confusion.scores(test.labels, test.logits, test.classes, test.patients)
    if not shares:
        return out if drawn else []
    rows = []
    for i, name in enumerate(test.classes):
        row: list = [name, int((test.labels == i).sum())]
        for j in range(len(test.classes)):
            row.append(_share(shares.get(confusion.name_of(i, j))))
        rows.append(row)
    heads = ["of the images of", "images", *(f"called {c}" for c in test.classes)]
    note = (
        "Confusion: shares by the largest probability; in brackets 95% over patients."
    )
    return [*out, "", note, "", *table(heads, rows)]


def _share(score: Score | None) -> str:
    """0.12 [0.08, 0.17]; a dash where the class has no test image."""
    if score is None:
        return "-"
    known = np.isfinite(score.low)
    ends = f" [{score.low:.2f}, {score.high:.2f}]" if known else ""
    return f"{score.value:.2f}{ends}"


def _judged(test: Predictions) -> list[Chart]:
    """Both curves of each class, and of their mean, which alone has a band."""
    points = roc.scores(test.labels, test.logits, test.classes, test.patients)
    # Of the mean curve. NaN, where a class has no known label, is not drawn.
    share = float(roc.prevalence(test.labels, len(test.classes)).mean())
    charts = []
    for kind, title, across, up in (
        ("roc", "ROC", "false positive rate", "sensitivity"),
        ("pr", "precision-recall", "recall", "precision"),
    ):
        curves = []
        for label in (roc.MACRO, *test.classes):
            names = [roc.name_of(kind, label, i) for i in range(len(roc.GRID))]
            if names[0] not in points:
                continue
            values = np.array([points[n][:3] for n in names])  # value, low, high
            if label == roc.MACRO:
                ends = values[:, 1], values[:, 2]
                curves.append(Line("mean", roc.GRID, values[:, 0], *ends))
            else:
                # The mean has the first colour; if the rest do not suffice, all are grey.
                many = len(test.classes) >= len(COLOURS)
                curves.append(Line("" if many else label, roc.GRID, values[:, 0]))
        if curves:
            chance = (0.0, 1.0) if kind == "roc" else (share, share)
            charts.append(
                Chart(f"{title}, test split", across, up, curves, 1.0, chance)
            )
    return charts


def _trained(run: Finished) -> list[Chart]:
    """What metrics.jsonl has: the loss, and accuracy with the validation metrics."""
    shares = {"accuracy": "training accuracy", "valid/accuracy": "validation accuracy"}
    shares |= {"valid/auroc_macro": "validation macro AUROC"}
    losses = {"loss": "training", "valid/loss": "validation"}
    logged = history.read(run.folder, {*shares, *losses})
    charts = []
    for title, names, top in (("loss", losses, None), ("share", shares, 1.0)):
        curves = []
        for name in names.keys() & logged.keys():
            steps, values = history.thinned([logged], name)
            curves.append(Line(names[name], steps, values[0]))
        if curves:
            curves.sort()
            charts.append(Chart(f"{title} by step", "step", title, curves, top))
    return charts


def _drawn(chart: Chart) -> str:
    """The elements of one chart, from its own corner."""
    xs = np.concatenate([line.x for line in chart.lines])
    ys = np.concatenate([line.y for line in chart.lines])
    # 5% of air above the curve; 1 where all values are 0, since the axis divides by it.
    right, top = float(xs.max()), chart.top or float(np.nanmax(ys)) * 1.05 or 1.0
    right = 1.0 if right < 1 else right  # rates
    inner = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM

    def place(x: np.ndarray, y: np.ndarray) -> list[str]:
        # "nan" in a path would end it there.
        kept = np.isfinite(x) & np.isfinite(y)
        across = LEFT + x[kept] / right * inner[0]
        down = TOP + (1 - np.clip(y[kept] / top, 0, 1)) * inner[1]
        return [f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True)]

    out = [f'<text x="{LEFT}" y="16" font-weight="600">{escape(chart.title)}</text>']
    for value in _ticks(top):
        y = TOP + (1 - value / top) * inner[1]
        ends = f'x1="{LEFT}" x2="{LEFT + inner[0]}" y1="{y:.1f}" y2="{y:.1f}"'
        out.append(f'<line class="grid" {ends}/>')
        out.append(_text(LEFT - 6, y + 4, f"{value:g}", "end"))
    for value in _ticks(right):
        x = LEFT + value / right * inner[0]
        out.append(_text(x, TOP + inner[1] + 16, f"{value:g}", "middle"))
    out.append(_text(LEFT + inner[0] / 2, HIGH - 12, chart.across, "middle"))
    turned = f'transform="rotate(-90 12 {TOP + inner[1] / 2})"'
    out.append(_text(12, TOP + inner[1] / 2, chart.up, "middle", turned))
    if chart.chance:
        ends = place(np.array([0.0, right]), np.array(chart.chance))
        dots = f'stroke="{GREY}" stroke-dasharray="2 4"'
        out.append(f'<path d="M{" L".join(ends)}" {dots}/>' if ends else "")
    for line, colour in zip(chart.lines, COLOURS * 3, strict=False):
        if line.low is not None and line.high is not None:
            # Along the upper limits and back along the lower ones.
            corners = [*place(line.x, line.high), *place(line.x, line.low)[::-1]]
            shape = f'points="{" ".join(corners)}" fill="{colour}" fill-opacity=".18"'
            out.append(f"<polygon {shape}/>")
        spots = place(line.x, line.y)
        if (
            len(spots) == 1
        ):  # a short run logs once, and a path of one place is invisible
            x, y = spots[0].split(",")
            out.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
            continue
        path = " L".join(spots)
        wide = (1.5 if line.name else 0.7) if line.low is None else 2.6
        stroke = f'stroke="{colour if line.name else GREY}" stroke-width="{wide}"'
        out.append(f'<path d="M{path}" {stroke}/>')
    return "".join([*out, _legend(chart.lines)])


def _ticks(end: float) -> list[float]:
    """Three to six round numbers from 0 to the end of an axis."""
    # Below a third of the axis, so that 1, 2, 5 or 10 times it is a fitting step.
    power = 10.0 ** np.floor(np.log10(end / 3))
    step = max(s * power for s in (1, 2, 5, 10) if s * power <= end / 2.5)
    # Rounded, since arange gives 0.30000000000000004.
    return [round(float(t), 10) for t in np.arange(0, end * 1.0001, step)]


def _legend(lines_of: Sequence[Line]) -> str:
    """The names below a chart, in the lines' colours, as many as fit."""
    out, x = [], float(LEFT)
    colours = dict(zip((line.name for line in lines_of), COLOURS * 3, strict=False))
    for key, colour in colours.items():
        name, colour = (key, colour) if key else ("each class", GREY)
        # SVG cannot measure text: 7.2 px stands for a letter of 13 px type.
        wide = 20 + 7.2 * len(name)
        if x + wide > WIDE:
            return "".join([*out, _text(x, HIGH + 6, "...", "start")])
        out.append(f'<path d="M{x:.0f},{HIGH + 2} h12" stroke="{colour}"/>')
        out.append(_text(x + 16, HIGH + 6, name, "start"))
        x += wide + 6
    return "".join(out)


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}'.rstrip()
    return f'<text class="soft" {place}>{escape(words)}</text>'
