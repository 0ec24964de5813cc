"""Plots as files: NAME.png, NAME.svg and, with every number in them, NAME.csv.

The only file that imports matplotlib, and only where something is drawn.
"""

import csv
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Okabe & Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#666666")
MARKS = "os^Dv<>"
LEAST_WIDTH = 320  # pixels of an image beside its heatmap: room for the caption
Rows = Sequence[dict[str, Any]]


def figure(columns: float, rows: float, *grid: int) -> tuple[Any, np.ndarray]:
    """(figure of that size in inches, its axes [rows, columns] by `grid`)."""
    from matplotlib.figure import Figure  # without pyplot: no global state

    # constrained: names of layers and classes of any length fit beside the axes.
    drawn = Figure(figsize=(columns, rows), layout="constrained")
    axes = drawn.subplots(*(grid or (1, 1)), squeeze=False)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def save(figure: Any, out: Path, name: str, rows: Rows, synthetic: bool) -> None:
    """Writes the figure as out/NAME.png and .svg beside its rows as .csv.

    `synthetic` says so on the figure and in the table.
    """
    if synthetic:
        note = "SYNTHETIC DATA (drawings): says nothing of real images"
        figure.supxlabel(note, fontsize=8, color="#b00000")
    for kind in ("png", "svg"):
        figure.savefig(out / f"{name}.{kind}", dpi=150)
    table(out / f"{name}.csv", rows, synthetic)


def table(path: Path, rows: Rows, synthetic: bool) -> None:
    """The rows as CSV, their union of columns, and a column `synthetic`."""
    # In the order of their first rows; a later row may have more.
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, [*columns, "synthetic"], lineterminator="\n")
        out.writeheader()
        out.writerows({**row, "synthetic": synthetic} for row in rows)


def matrix(
    ax: Any,
    values: np.ndarray,
    down: Sequence[str],
    across: Sequence[str],
    least: float = 0.0,
) -> None:
    """A heatmap of values in [least, 1] with its numbers, first layer at the bottom."""
    ax.imshow(values, vmin=least, vmax=1, cmap="viridis", origin="lower", aspect="auto")
    ax.set_xticks(range(len(across)), across, rotation=45, ha="right")
    ax.set_yticks(range(len(down)), down)
    # More numbers could not be read.
    if values.size <= 256:
        size = 8 if values.size <= 100 else 5.5
        for i, j in np.ndindex(values.shape):
            # The lower 60% of viridis are dark.
            dark = values[i, j] < least + 0.6 * (1 - least)
            text = f"{values[i, j]:.2f}" if np.isfinite(values[i, j]) else "-"
            colour = "white" if dark else "black"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=size)


def lines(ax: Any, names: Sequence[str], curves: dict[str, Sequence[float]]) -> None:
    """One curve for each entry over named places; NaN leaves a gap."""
    for k, (name, values) in enumerate(curves.items()):
        style = {"color": COLOURS[k % 7], "marker": MARKS[k % 7]}
        ax.plot(range(len(names)), values, label=name, **style)
    crowded = len(names) > 6
    ax.set_xticks(
        range(len(names)),
        names,
        rotation=45 if crowded else 0,
        ha="right" if crowded else "center",
        fontsize=8,
    )


def intervals(ax: Any, rows: Rows, name: str) -> None:
    """Horizontal points with their 95% intervals; rows of `name`, value, low, high."""
    for k, row in enumerate(rows[::-1]):
        ax.plot([row["low"], row["high"]], [k, k], color=COLOURS[0], linewidth=2)
        ax.plot(row["value"], k, "o", color=COLOURS[0])
    ax.set_yticks(range(len(rows)), [row[name] for row in rows[::-1]])
    ax.set_ylim(-0.5, len(rows) - 0.5)


def reliability(ax: Any, table: Rows, title: str) -> None:
    """Frequency over confidence; areas of the points are the counts."""
    total = sum(row["count"] for row in table)
    x, y = ([row[k] for row in table] for k in ("confidence", "frequency"))
    ax.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    ax.plot(x, y, color=COLOURS[0])
    ax.scatter(x, y, [20 + 400 * row["count"] / total for row in table], COLOURS[0])
    ax.set(title=title, xlabel="confidence", xlim=(0, 1), ylim=(0, 1))


def heatmap(ax: Any, image: np.ndarray, hot: np.ndarray | None, title: str) -> None:
    """image [h, w] in [-1, 1], gray, under a heatmap [h, w] in [0, 1] if there is one."""
    ax.imshow(image, cmap="gray", vmin=-1, vmax=1)
    if hot is not None:
        ax.imshow(hot, cmap="inferno", alpha=0.5, vmin=0, vmax=1)
    ax.set_title(title, fontsize=8)
    ax.set_axis_off()


def overlay(path: Path, image: np.ndarray, hot: np.ndarray, caption: str) -> None:
    """Save an image and, beside it, the image under its heatmap, pixel for pixel.

    image: uint8 [h, w, 1 or 3]. hot: [s, s] in [0, 1], stretched over all of it. Images
    narrower than LEAST_WIDTH are enlarged by a whole number. The caption stands below.
    """
    drawn, _ = figure(1, 1)
    drawn.clear()
    # A layout engine would move the axes off the pixels.
    drawn.set_layout_engine("none")
    high, wide = image.shape[:2]
    zoom = -(-LEAST_WIDTH // wide)
    gap, line = 8, max(16, wide * zoom // 40)  # pixels
    width, tall = 2 * wide * zoom + gap, high * zoom
    columns = int(width / (0.55 * line))
    lines = [x for row in caption.splitlines() for x in textwrap.wrap(row, columns)]
    height = tall + (len(lines) + 1) * line
    drawn.set_dpi(100)
    drawn.set_size_inches(width / 100, height / 100)
    share = wide * zoom / width, tall / height
    extent = (0, wide, high, 0)
    colours = np.broadcast_to(image, (high, wide, 3))  # a map of grays would round them
    for left in (0, 1 - share[0]):
        ax = drawn.add_axes((left, 1 - share[1], *share))
        ax.imshow(colours, extent=extent, interpolation="nearest")
        ax.set_axis_off()
    style = {"cmap": "inferno", "vmin": 0, "vmax": 1, "interpolation": "bilinear"}
    # Clear where the map is 0, so that the image shows.
    ax.imshow(hot, alpha=0.65 * hot, extent=extent, **style)
    drawn.text(
        gap / width,
        1 - share[1] - 0.4 * line / height,
        "\n".join(lines),
        fontsize=0.55 * line,  # points: at 100 pixels an inch 0.76 of the line
        va="top",
    )
    drawn.savefig(path, dpi=100, metadata={"Description": caption})


def frame(ax: Any, box: Any, side: int) -> None:
    """The outline of a pointing.Box on an image of that side."""
    from matplotlib.patches import Rectangle

    wide, high = (box.x1 - box.x0) * side, (box.y1 - box.y0) * side
    corner = (box.x0 * side - 0.5, box.y0 * side - 0.5)
    ax.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="#00e5ff"))


def scatter(ax: Any, x: np.ndarray, y: np.ndarray, groups: Sequence[str]) -> None:
    """Points of a colour and mark for each group, with a legend."""
    for k, group in enumerate(sorted(set(groups))):
        here = np.asarray(groups) == group
        style = {"color": COLOURS[k % 7], "marker": MARKS[k % 7]}
        ax.scatter(x[here], y[here], 12, label=group or "(unknown)", alpha=0.7, **style)
    ax.legend(fontsize=8)
