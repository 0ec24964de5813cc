"""The findings that a page opens with: at most five sentences, made from the verdicts."""

import math
from collections.abc import Sequence

from bigxfer.report.style import METRICS, chance, pretty, shots_name
from bigxfer.statistics import crossed
from bigxfer.statistics.crossed import Part
from bigxfer.tables import cells, families, lines
from bigxfer.tables.cells import PredictionReader
from bigxfer.tables.differences import (
    BETTER,
    EQUIVALENT,
    OPEN,
    WORSE,
    Comparison,
)
from bigxfer.tables.families import Family
from bigxfer.tables.table import Row

MOST = 5  # sentences
TIMES = (2, 3, 4, 6, 8, 12, 16)  # as many of a factor, tried in this order
PLURAL = {"upstreams": "upstream seeds", "residual": "upstream seeds"}


def opening(found: Sequence[Family], metrics: Sequence[str]) -> list[str]:
    """Sentences by the first metric that has comparisons; none without any."""
    for metric in metrics:
        every = [c for f in found if f.metric == metric for c in f.found.values()]
        if every:
            return sentences(every)
    return []


def of_rows(
    rows: Sequence[Row], predictions: PredictionReader, metric: str = "auroc_macro"
) -> list[str]:
    """The sentences of a table by one metric, as its page opens."""
    runs, _ = lines.lines(rows)
    return opening(families.compare_all(runs, metric, predictions), [metric])


def sentences(every: Sequence[Comparison]) -> list[str]:
    """What is told apart first, then what is equivalent, what is open, what has no p.

    Of each kind the clearest, two of the first where there are; what is left of the
    MOST sentences goes to the kinds in the same order. Each pair of a family once.
    """
    kinds = {
        "apart": [c for c in every if c.verdict in (BETTER, WORSE)],
        "alike": [c for c in every if c.verdict == EQUIVALENT],
        "open": [c for c in every if c.verdict == OPEN],
        "without": [c for c in every if not c.verdict and _known(c)],
    }
    for found in kinds.values():
        found.sort(key=_clearest)
    first = {"apart": 2, "alike": 1, "open": 1, "without": 1}
    chosen = {kind: _spread(found)[: first[kind]] for kind, found in kinds.items()}
    for kind, found in kinds.items():
        room = MOST - sum(map(len, chosen.values()))
        more = [c for c in _spread(found) if c not in chosen[kind]]
        chosen[kind] += more[: max(room, 0)]
    return [sentence(c) for found in chosen.values() for c in found]


def _known(c: Comparison) -> bool:
    return math.isfinite(c.difference.low)


def _clearest(c: Comparison) -> tuple[float, float]:
    """Sorts by p, where there is one, then by the effect over its half-width."""
    d = c.difference
    width = d.high - d.low
    clear = abs(d.value) / width if width > 0 else 0.0
    return (c.p_holm if math.isfinite(c.p_holm) else 0.0, -clear)


def _spread(found: Sequence[Comparison]) -> list[Comparison]:
    """One comparison of each pair and target first, then the others."""
    seen, first, rest = set(), [], []
    for c in found:
        key = c.about["target"], c.a[1], c.b[1]
        (rest if key in seen else first).append(c)
        seen.add(key)
    return first + rest


def sentence(c: Comparison) -> str:
    """One finding: effect, interval, what it covers, and what would settle it."""
    d, about = c.difference, c.about
    effect = f"{METRICS.get(about['metric'], about['metric'])}"
    effect += f" {cells.interval(d.value, d.low, d.high, '+')} {d.covers}"
    where = f"On {pretty(about['target'])} at {shots_name(about['shots'])}"
    a, b = names(c)
    holm = f"p {c.p_holm:.2g} after Holm over {c.size}"
    if c.verdict in (BETTER, WORSE):
        better, worse = (a, b) if c.verdict == BETTER else (b, a)
        return (
            f"{where}, {better} is better than {worse}: {effect} ({holm}; false with"
            f" probability {chance(d.false)})."
        )
    if c.verdict == EQUIVALENT:
        return (
            f"{where}, {a} and {b} are equivalent within {c.margin:g}: {effect} (p"
            f" {c.outside_holm:.2g} after Holm over {c.size})."
        )
    if c.verdict == OPEN:
        return (
            f"{where}, {a} and {b} are not told apart: {effect} ({holm})."
            f" {settled(d.parts, max(abs(d.value), c.margin))}"
        )
    return f"{where}, {a} less {b}: {effect}. No verdict: {d.lacks}. {needed(d.lacks)}"


def names(c: Comparison) -> tuple[str, str]:
    """How the two sides are called: by net where nets differ, else by line."""
    if c.a[1] == c.b[1]:
        return f"{c.a[0]} from {pretty(c.a[1])}", f"{c.b[0]} from {pretty(c.b[1])}"
    return f"{pretty(c.a[1])} ({c.a[0]})", f"{pretty(c.b[1])} ({c.b[0]})"


def needed(lacks: str) -> str:
    """What a study would need for a verdict."""
    if lacks.startswith("one upstream"):
        return "Three upstream seeds of each side or more would allow one."
    if lacks.startswith("one draw"):
        return "Five draws or more would allow one."
    if lacks.startswith("one training"):
        return "Three trainings of each side or more would allow one."
    return "Saved predictions would allow one."


def settled(parts: Sequence[Part], goal: float) -> str:
    """What would bring the interval's half-width to the goal, if nothing else changes.

    The factor whose share of the width is largest, enlarged; or all of them.
    """

    def width(times: dict[str, int]) -> float:
        larger = [
            Part(
                p.factor,
                p.low / times.get(p.factor, 1),
                p.high / times.get(p.factor, 1),
                p.freedom * times.get(p.factor, 1),
            )
            for p in parts
        ]
        return max(crossed.reach(larger, 0.025, up) for up in (False, True))

    shares = {p.factor: crossed.reach([p], 0.025, True) for p in parts}
    largest = max(shares, key=lambda factor: shares[factor])
    for factors in ([largest], list(shares)):
        for n in TIMES:
            if width(dict.fromkeys(factors, n)) <= goal:
                named = list(dict.fromkeys(PLURAL.get(f, f) for f in factors))
                words = " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
                return f"{n} times the {words} would bring it to ±{goal:.3f}."
    return f"More than {TIMES[-1]} times the data would be needed for ±{goal:.3f}."
