"""Where two lines of a study cross: every pair of one target, in one family."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from bigxfer.scaling.crossover import Crossover, Overtaking, crossover, decide
from bigxfer.scaling.curves import Curve
from bigxfer.scaling.reach import rounded
from bigxfer.statistics import crossed
from bigxfer.tables import differences
from bigxfer.tables.cells import PredictionReader, amount


@dataclass(frozen=True)
class Crossing:
    """What the common scales say of lines `a` and `b`; `a` leads at the largest."""

    about: dict[str, Any]  # target, model, ...; not the line
    a: str
    b: str
    found: Crossover | None
    basis: str  # of the intervals, or why there are none
    pairs: int = 1  # of the family
    overtakings: Sequence[Overtaking] = ()

    @property
    def verdict(self) -> str:
        """In a word: "overtakes", "crosses twice", "ahead", "not told apart", or ""."""
        if self.found is None:
            return ""
        if self.overtakings:
            return "overtakes" if len(self.overtakings) == 1 else "crosses twice"
        return "ahead" if any(self.found.ahead(self.pairs)) else differences.OPEN

    def sentence(self, unit: str) -> str:
        """What is known of the crossing, `unit` being that of the scale."""
        a, b, found = self.a, self.b, self.found
        if found is None:
            return f"{a} and {b}: no crossover, {self.basis}"
        if self.overtakings:
            texts: list[str] = []
            for o in self.overtakings:
                first, second = (a, b) if o.leads > 0 else (b, a)
                interval = f"95% interval {rounded(o.low)} to {rounded(o.high)}"
                interval += f", told over {self.pairs} pairs" * (self.pairs > 1)
                again = " again" if texts else ""
                texts.append(
                    f"{first} overtakes {second}{again} at {rounded(o.at)} {unit} ({interval})"
                )
            return " and ".join(texts)
        ahead = found.ahead(self.pairs)
        for side, (name, other) in ((1, (a, b)), (-1, (b, a))):
            if side in ahead:
                at = ", ".join(amount(x) for x, s in zip(found.x, ahead) if s == side)
                return (
                    f"{name} is ahead of {other} at {at} {unit}; no overtaking is told"
                )
        ends = f"{amount(found.x[0])} to {amount(found.x[-1])} {unit}"
        return f"{a} and {b} are not told apart from {ends}"


def crossings(found: Sequence[Curve], predictions: PredictionReader) -> list[Crossing]:
    """Every pair of lines of one target (and model, shots): a family for each."""
    groups: dict[tuple, list[Curve]] = {}
    for curve in found:
        about = {k: v for k, v in curve.about.items() if k != "line"}
        groups.setdefault(tuple(about.items()), []).append(curve)
    out = []
    for group in groups.values():
        pairs = [crossing(a, b, predictions) for a, b in combinations(group, 2)]
        # Pairs without an interval make no claim and do not count in the family.
        known = [c.found for c in pairs if c.found]
        decided = iter(decide(known))
        for c in pairs:
            over = tuple(next(decided)) if c.found else ()
            out.append(Crossing(c.about, c.a, c.b, c.found, c.basis, len(known), over))
    return out


def crossing(a: Curve, b: Curve, predictions: PredictionReader) -> Crossing:
    """The differences of two lines at their common scales, not yet decided.

    They are those of the page's matrices. Line `a` is the one that leads at the largest
    common scale.
    """
    about = {k: v for k, v in a.about.items() if k != "line"}
    other = dict(zip(b.x, b.runs, strict=True))
    x, compared = [], []
    for at, runs in zip(a.x, a.runs, strict=True):
        if at in other:
            d = differences.difference(runs, other[at], a.metric, predictions)
            if d and np.isfinite(d.low):
                x.append(at)
                compared.append(d)
    names = a.about["line"], b.about["line"]
    # A crossing is from one scale to another.
    if len(x) < 2:
        why = "fewer than two common scales with an interval of the difference"
        return Crossing(about, *names, None, why)
    tails = [crossed.tail_beyond(d.value, d.parts) for d in compared]
    found = crossover(np.array(x), compared, tails)
    words = compared[-1].covers
    if compared[-1].value < 0:
        turned = -found.difference[:, [0, 2, 1]]  # the ends change places
        found, names = Crossover(found.x, turned, found.tails), names[::-1]
    return Crossing(about, *names, found, words)
