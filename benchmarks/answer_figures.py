"""The two figures of docs/answer.md, as SVG."""

from pathlib import Path
from typing import Any

import matplotlib
from answer_rows import CLAIMS, METRIC, SHOTS, Answer, line_name

from bigxfer.analysis import plots
from bigxfer.tables import cells, estimates
from bigxfer.tables.table import Row

NAMES = ("answer_images.svg", "answer_shots.svg")


def draw(answer: Answer, out: Path) -> None:
    """AUROC over upstream images, a line a net; and over shots, a line a start."""
    for name, plot in zip(NAMES, (over_images, over_shots), strict=True):
        figure, axes = plots.figure(6.4, 4.0)
        plot(answer, axes[0, 0])
        axes[0, 0].set_ylabel("macro AUROC, knee_oa, 828 patients")
        axes[0, 0].grid(axis="y", color="#dddddd", linewidth=0.6)
        if axes[0, 0].get_legend_handles_labels()[0]:
            figure.legend(
                loc="outside lower center", ncols=2, fontsize=8, frameon=False
            )
        # Neither date nor random ids: the same runs give the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(out / name, metadata={"Date": None})


def over_images(answer: Answer, ax: Any) -> None:
    groups = answer.by_net()
    widths = sorted({width for width, _ in groups})
    for i, width in enumerate(widths):
        points = {
            n: rows for (w, n), rows in sorted(groups.items()) if w == width and n
        }
        shift = 1 + 0.04 * (i - (len(widths) - 1) / 2)
        line(
            answer,
            ax,
            {n * shift: rows for n, rows in points.items()},
            f"R26x{width:g} ({seeds_of(points)})",
            i,
        )
        if rows := groups.get((width, 0)):
            e = estimates.estimate(rows, METRIC, answer.predictions)
            colour = plots.COLOURS[i % len(plots.COLOURS)]
            label = f"R26x{width:g} from scratch"
            ax.axhline(e.value, color=colour, linestyle=":", linewidth=1.2, label=label)
    ax.set_xscale("log")
    ax.set_xticks([705, 2820, 11281, 45125], ["705", "2,820", "11,281", "45,125"])
    ax.minorticks_off()
    ax.set_xlabel("photographs that the upstream was trained on")


def over_shots(answer: Answer, ax: Any) -> None:
    lines = list(dict.fromkeys(side for _, a, b, _ in CLAIMS for side in (a, b)))
    for i, of in enumerate(lines):
        points = {
            place + 0.06 * (i - len(lines) / 2): list(runs.values())
            for place, (shots, head) in enumerate(SHOTS)
            if (runs := answer.select(of, shots, head))
        }
        tuned = {x: rows for x, rows in points.items() if rows[0]["shots"] == "full"}
        few = {x: rows for x, rows in points.items() if x not in tuned}
        name = f"{line_name(of)} ({seeds_of(few or tuned)}"
        name += f"; {seeds_of(tuned)} at full data)" if few and tuned else ")"
        if few:
            line(answer, ax, few, name, i)
        if tuned:  # no line to it: another way to transfer
            line(answer, ax, tuned, "" if few else name, i)
    labels = ["1", "5", "10", "full\n(fine-tuned)"]
    ax.set_xticks(range(4), labels)
    ax.set_xlim(-0.4, 3.4)
    ax.set_xlabel("training images a grade (heads on frozen features)")


def seeds_of(points: dict[float, list[Row]]) -> str:
    """How many seeds of an upstream, or of training from scratch: "5 seeds"."""
    every = [cells.seeds(row) for rows in points.values() for row in rows]
    count = len({own if source < 0 else source for source, own in every})
    return f"{count} seed{'s' * (count > 1)}"


def line(
    answer: Answer, ax: Any, points: dict[float, list[Row]], label: str, i: int
) -> None:
    """Means with 95% intervals at each x."""
    found = [
        estimates.estimate(rows, METRIC, answer.predictions) for rows in points.values()
    ]
    ends = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
    ax.errorbar(
        list(points),
        [e.value for e in found],
        yerr=ends,
        color=plots.COLOURS[i % len(plots.COLOURS)],
        marker=plots.MARKS[i % len(plots.MARKS)],
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label=label,
    )
