"""How well each upstream does its own task, and whether it has learned it at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bigxfer.report.style import pretty
from bigxfer.tables import cells
from bigxfer.tables.table import Row

CHANCE = 0.5  # of an AUROC
RULE = (
    "Macro AUROC on the upstream's own test images, with 95% limits over their patients, each"
    f" training by itself. Learned: the lower limit lies above {CHANCE:g}. Where a class is too"
    " rare for a limit, the mean of the classes that have one stands in, with the mean of their"
    " limits, which is too wide rather than too narrow."
)
HEAD = ("upstream", "net", "own test metric", "accuracy", "learned")


@dataclass(frozen=True)
class Own:
    """One training of an upstream: its own macro AUROC; NaN where that is not known."""

    value: float
    low: float
    high: float
    of: int  # classes that stand in for all; 0: it is the metric of all

    @property
    def learned(self) -> bool | None:
        """None where there is no limit to tell it by."""
        return self.low > CHANCE if math.isfinite(self.low) else None

    @property
    def text(self) -> str:
        if math.isnan(self.value):
            return "not known"
        note = f" (of {self.of} classes)" if self.of else ""
        return f"{cells.interval(self.value, self.low, self.high)}{note}"


def of_row(row: Row) -> Own:
    """The own metric of an upstream's row in the table."""
    if row.get("auroc_macro_low") is not None:
        ends = (row[f"auroc_macro{end}"] for end in ("", "_low", "_high"))
        return Own(*ends, of=0)
    # A class too rare for a limit leaves the macro mean without one.
    names = [
        n for n in row if n.startswith("auroc/") and not n.endswith(("_low", "_high"))
    ]
    known = [n for n in names if row.get(f"{n}_low") is not None]
    if known:
        means = (
            sum(row[f"{n}{end}"] for n in known) / len(known)
            for end in ("", "_low", "_high")
        )
        return Own(*means, of=len(known))
    value = row.get("auroc_macro")
    return Own(math.nan if value is None else value, math.nan, math.nan, 0)


def upstream_rows(rows: Sequence[Row]) -> dict[tuple, list[Row]]:
    """{(name, images, net): its upstream runs} of the table."""
    runs_of: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["kind"] == "upstream":
            key = row["target"], row["target_size"] or 0, row["model"]
            runs_of.setdefault(key, []).append(row)
    return dict(sorted(runs_of.items()))


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A line for each upstream run, by HEAD; [] where the table has none."""
    lines: list[tuple[str, ...]] = []
    for (name, size, model), runs in upstream_rows(rows).items():
        for row in sorted(runs, key=lambda r: r["seed"]):
            own = of_row(row)
            accuracy = "-" if row.get("accuracy") is None else f"{row['accuracy']:.3f}"
            several = f", seed {row['seed']}" if len(runs) > 1 else ""
            images = f", {size:,} images" if size else ""
            word = {True: "yes", False: "NO", None: "not told"}[own.learned]
            text = f"{pretty(name)}{images}{several}"
            lines.append((text, model, own.text, accuracy, word))
    return lines


def failed(rows: Sequence[Row]) -> list[str]:
    """A sentence for the upstreams that have not learned; [] where all have."""
    bad = []
    for (name, size, model), runs in upstream_rows(rows).items():
        owns = [of_row(row) for row in runs]
        if worst := [own for own in owns if own.learned is False]:
            images = f" of {size:,} images" if size else ""
            share = f"{len(worst)} of {len(owns)} trainings, " if len(owns) > 1 else ""
            low = min(worst, key=lambda own: own.value)
            bad.append(
                f"{pretty(name)}{images}, {model} ({share}macro AUROC {low.text})"
            )
    if not bad:
        return []
    return [
        (
            f"Not learned, by the limits of their own test metric: {'; '.join(bad)}. What such an"
            " upstream transfers says little about its domain or its size."
        )
    ]


def missing(rows: Sequence[Row]) -> list[str]:
    """A sentence where transfers have upstreams that the table has no run of; else []."""
    known = {row["digest"] for row in rows if row["kind"] == "upstream"}
    without = {
        pretty(row["upstream"])
        for row in rows
        if row["kind"] == "transfer"
        and row["upstream"] != "scratch"
        and row["upstream_digest"] not in known
    }
    if not without:
        return []
    return [
        (
            f"How well these upstreams do their own task is not in the table:"
            f" {', '.join(sorted(without))}."
        )
    ]


def by_line(rows: Sequence[Row], transfers: Sequence[Row]) -> dict[str, str]:
    """{line: the own metrics of its upstreams}, of transfers with their "line".

    "0.612 [0.580, 0.644]", or from the lowest to the highest; with a warning where one has
    not learned. No entry where the table lacks the upstream.
    """
    owns = {row["digest"]: of_row(row) for row in rows if row["kind"] == "upstream"}
    lines: dict[str, dict[str, Own]] = {}
    for row in transfers:
        if own := owns.get(row["upstream_digest"]):
            lines.setdefault(row["line"], {})[row["upstream_digest"]] = own
    said = {}
    for line, by_digest in lines.items():
        known = sorted((o for o in by_digest.values()), key=lambda o: o.value)
        text = known[0].text
        if len(known) > 1:
            text = f"{known[0].value:.3f} to {known[-1].value:.3f}"
        bad = sum(own.learned is False for own in known)
        words = f"own test macro AUROC {text}"
        said[line] = f"{words}; {bad} of {len(known)} NOT LEARNED" if bad else words
    return said
