"""The findings that a page opens with: at most five sentences, one for each question."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from bigxfer.report.style import METRICS, chance, pretty, shots_name
from bigxfer.scaling.curves import Law
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
from bigxfer.tables.table_args import SCALES

MOST = 5  # sentences
TIMES = (2, 3, 4, 6, 8, 12, 16)  # as many of a factor, tried in this order
PLURAL = {"upstreams": "upstream seeds", "residual": "upstream seeds"}
ASKED = {  # axis of a law -> its question
    "upstream_size": "Upstream scale",
    "upstream_examples": "Upstream scale",
    "params": "Model scale",
    "shots": "Shots",
}
# {(metric, axis): the laws of all lines}
Laws = Mapping[tuple[str, str], Sequence[Law]]


def opening(
    found: Sequence[Family], metrics: Sequence[str], laws: Laws = MappingProxyType({})
) -> list[str]:
    """Sentences by the first metric that has comparisons; none without any."""
    for metric in metrics:
        every = [c for f in found if f.metric == metric for c in f.found.values()]
        if every:
            return sentences(every, {x: v for (m, x), v in laws.items() if m == metric})
    return []


def of_rows(
    rows: Sequence[Row], predictions: PredictionReader, metric: str = "auroc_macro"
) -> list[str]:
    """The sentences of a table by one metric, as its page opens, but those of laws."""
    runs, _ = lines.lines(rows)
    return opening(families.compare_all(runs, metric, predictions), [metric])


def sentences(
    every: Sequence[Comparison],
    laws: Mapping[str, Sequence[Law]] = MappingProxyType({}),
) -> list[str]:
    """One sentence for each question of a study, in this order, and then what is open.

    - Upstream: pairs of lines of one net. Model scale: pairs of nets on one line. Of each
      the clearest of those told apart, else of the equivalent, the open, those without a
      p; and how many there are of each.
    - Upstream scale, shots: on how many lines the error falls, and the clearest.
    - Open: the clearest that is open, what would settle it, and why others have no p.

    Where that makes fewer than MOST, more of what is told apart follows.
    """
    # Two nets from one upstream; in all other pairs the upstreams differ.
    nets = [c for c in every if c.a[1] == c.b[1]]
    asked = {"Upstream": [c for c in every if c.a[1] != c.b[1]], "Model scale": nets}
    chosen = {
        q: _kinds(comparisons)[0][0]
        for q, comparisons in asked.items()
        if _kinds(comparisons)
    }
    told = {q: f"{q}: {sentence(c)} {tally(asked[q])}" for q, c in chosen.items()}
    for x, question in ASKED.items():
        # Both axes of upstream scale ask one question: the first that has laws answers.
        if question not in told and (text := falls(laws.get(x, ()), SCALES[x])):
            told[question] = f"{question}: {text}"
    order = ("Upstream", "Upstream scale", "Model scale", "Shots")
    out = [told[q] for q in order if q in told]
    shown = list(chosen.values())
    if text := still_open(every, shown):
        out.append(f"Open: {text}")
    apart = [
        c for kind in _kinds(every)[:1] for c in kind if c.verdict in (BETTER, WORSE)
    ]
    more = [f"Also: {sentence(c)}" for c in apart if c not in shown]
    # What is open stays last.
    return [*out[:-1], *more[: MOST - len(out)], *out[-1:]] if out else []


def _kinds(every: Sequence[Comparison]) -> list[list[Comparison]]:
    """Told apart, equivalent, open, without a p: those that are not empty, the clearest first."""
    kinds = [
        [c for c in every if c.verdict in (BETTER, WORSE)],
        [c for c in every if c.verdict == EQUIVALENT],
        [c for c in every if c.verdict == OPEN],
        [c for c in every if not c.verdict and _known(c)],
    ]
    return [_spread(sorted(kind, key=_clearest)) for kind in kinds if kind]


def tally(every: Sequence[Comparison]) -> str:
    """ "(54 comparisons: 12 told apart, 42 open)"."""
    count = Counter(c.verdict for c in every)
    without = [c for c in every if not c.verdict]
    # Without a p they decide nothing, but a reader should see that they are there.
    beside = sum(c.difference.low > 0 or c.difference.high < 0 for c in without)
    words = {
        "told apart": count[BETTER] + count[WORSE],
        "equivalent": count[EQUIVALENT],
        "open": count[OPEN],
        f"without a p, {beside:,} of which leave out 0": len(without),
    }
    counted = ", ".join(f"{n:,} {name}" for name, n in words.items() if n)
    return f"({len(every):,} comparisons: {counted}.)"


def falls(laws: Sequence[Law], doubled: str) -> str:
    """On how many lines the error falls over a scale; "" where no slope has an interval."""
    slopes = [(law, *law.slope) for law in laws if law.slope]
    if not slopes:
        return ""
    down = sum(low > 0 for *_, low, _ in slopes)
    up = sum(high < 0 for *_, high in slopes)
    # By the slope over its interval's width; 1e-12 for a width of 0.
    law, *slope = max(slopes, key=lambda s: abs(s[1]) / max(s[3] - s[2], 1e-12))
    about, ends = law.curve.about, (cells.amount(e) for e in law.curve.x[[0, -1]])
    where = f"{pretty(about['target'])}, {pretty(about['line'])}"
    where += f" ({about['model']})" if "model" in about else ""
    where += f", {shots_name(about['shots'])}" if "shots" in about else ""
    value, low, high = (f"{100 * (1 - 2**-c):.0f}" for c in slope)
    counted = f"falls on {down:,} of {len(slopes):,} lines"
    counted += f", grows on {up:,}" * bool(up)
    counted += ", the others are open" * bool(down + up < len(slopes))
    return (
        f"with more {doubled} the error {counted} (95% intervals, each by itself). Clearest on"
        f" {where}: each doubling takes {value}% [{low}%, {high}%] of the error off, from"
        f" {' to '.join(ends)} {doubled}; the interval covers {law.words or 'the scatter about the line'}."
    )


def still_open(every: Sequence[Comparison], shown: Sequence[Comparison]) -> str:
    """The clearest open comparison that is not shown, and why others have no p."""
    told = [
        sentence(c)
        for kind in _kinds(every)
        for c in kind
        if c.verdict == OPEN and c not in shown
    ][:1]
    lacks = Counter(c.difference.lacks for c in every if not c.verdict and _known(c))
    for why, count in lacks.most_common():
        told.append(
            f"{count:,} of {len(every):,} comparisons have no p, {why}. {needed(why)}"
        )
    return " ".join(told)


def _known(c: Comparison) -> bool:
    return math.isfinite(c.difference.low)


def _clearest(c: Comparison) -> tuple[float, float]:
    """Sorts by p, where there is one, then by the effect over its half-width."""
    d = c.difference
    width = d.high - d.low
    clear = abs(d.value) / width if width > 0 else 0.0
    # A p of 0 for those without: within their kind the effect then decides.
    return (c.p_holm if math.isfinite(c.p_holm) else 0.0, -clear)


def _spread(found: Sequence[Comparison]) -> list[Comparison]:
    """One comparison of each pair and target first, then the others."""
    named, first, others = set(), [], []
    for c in found:
        key = c.about["target"], c.a[1], c.b[1]
        (others if key in named else first).append(c)
        named.add(key)
    return first + others


def sentence(c: Comparison) -> str:
    """One finding: effect, interval, what it covers, and what would settle it.

    The effect is that of the first named over the second.
    """
    d, about = c.difference, c.about
    ends = (
        (-d.value, -d.high, -d.low) if c.verdict == WORSE else (d.value, d.low, d.high)
    )
    effect = f"{METRICS.get(about['metric'], about['metric'])}"
    effect += f" {cells.interval(*ends, '+')} {d.covers}"
    where = f"on {pretty(about['target'])} at {shots_name(about['shots'])}"
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
    return f"{where}, {a} less {b}: {effect}."  # still_open says why it has no p


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
        larger = [p.enlarged(times.get(p.factor, 1)) for p in parts]
        # Half-widths differ above and below: the larger one has to fit.
        return max(crossed.reach(larger, 0.025, up) for up in (False, True))

    shares = {
        factor: crossed.reach([p for p in parts if p.factor == factor], 0.025, True)
        for factor in dict.fromkeys(p.factor for p in parts)
    }
    largest = max(shares, key=lambda factor: shares[factor])
    # One factor first, which is the cheaper answer.
    for factors in ([largest], list(shares)):
        for n in TIMES:
            if width(dict.fromkeys(factors, n)) <= goal:
                named = list(dict.fromkeys(PLURAL.get(f, f) for f in factors))
                words = " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))
                return f"{n} times the {words} would bring it to ±{goal:.3f}."
    return f"More than {TIMES[-1]} times the data would be needed for ±{goal:.3f}."
