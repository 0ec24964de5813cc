"""The scale at which line A overtakes line B: shots, or upstream images.

    pair = crossover(shots, differences)      # error of B less error of A, [k] of them
    decide([pair, ...])                       # with all pairs of the family
    pair.overtakings                          # [(A leads, at, low, high), ...]

A overtakes B where A is told to be behind at one scale and ahead at a larger one. Both
must be told: two lines that are equal cross at every sign change of their noise. The
interval of the place ends where the interval of the difference leaves 0 on either side,
so that it is closed wherever a place is given. It needs no law, and no replicates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigxfer.scaling.forms import Array
from bigxfer.statistics.intervals import holm
from bigxfer.tables.differences import SURE, Difference


@dataclass(frozen=True)
class Overtaking:
    """`leads` is 1 where A leads from `at` on, -1 where B does; low <= at <= high."""

    leads: int
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Crossover:
    """What k common scales say of two lines.

    `difference` [k, 3] is the error of B less the error of A with its 95% interval: above
    0 A is ahead. `tails` [k] are the one-sided p of the side that is ahead at each scale.
    """

    x: Array
    difference: Array
    tails: Array

    def p(self, leads: int = 0) -> float:
        """Of "the lines do not cross", 1: A overtakes, -1: B does, 0: either.

        At each end of a crossing one of k - 1 scales is the clearest, which Bonferroni
        accounts for; of the two ends the less clear one counts.
        """
        if not leads:
            return min(self.p(1), self.p(-1))
        return min(1.0, (len(self.x) - 1) * self._ends(leads)[0])

    def ahead(self, pairs: int) -> list[int]:
        """1, -1 or 0 at each scale: A is told ahead, B is, or neither, in a family of
        `pairs` pairs at as many scales each."""
        # Two sides, all pairs, all scales: Bonferroni for "ahead somewhere".
        told = self.tails * 2 * pairs * len(self.x) < SURE
        return [int(s) for s in np.sign(self.difference[:, 0]) * told]

    def overtakings(self, sure: Sequence[int]) -> list[Overtaking]:
        """The crossings in the directions of `sure` whose interval is closed, by scale."""
        crossings = [self._crossing(leads) for leads in sure]
        return sorted((f for f in crossings if f), key=lambda f: f.at)

    @property
    def sign_changes(self) -> int:
        """Of the observed difference; most of them are noise."""
        signs = np.sign(self.difference[:, 0])
        signs = signs[signs != 0]
        return int(np.sum(signs[1:] != signs[:-1]))

    def _ends(self, leads: int) -> tuple[float, int, int]:
        """(the larger of the two tails, where `leads` is behind, where it is ahead)."""
        ahead = np.where(leads * self.difference[:, 0] > 0, self.tails, 1.0)
        behind = np.where(leads * self.difference[:, 0] < 0, self.tails, 1.0)
        k = range(len(self.x))
        # Both must hold, so the larger p counts (an intersection-union test).
        pairs = [(max(behind[i], ahead[j]), i, j) for j in k for i in range(j)]
        # Of equal p the nearer scales, which bound the place more closely.
        return min(pairs, key=lambda pair: (pair[0], pair[2] - pair[1]))

    def _crossing(self, leads: int) -> Overtaking | None:
        """The last zero between the clearest scales, and where the interval leaves 0."""
        _, i, j = self._ends(leads)
        d = leads * self.difference
        value, low, high = d[:, 0], d[:, 1:].min(1), d[:, 1:].max(1)
        # A p may decide though a 95% interval touches 0: the place then has none.
        if not (high[i] < 0 < low[j]):
            return None
        # The last change of sign: what noise does before it is behind the crossing.
        last = max(m for m in range(i, j) if value[m] <= 0)
        left = max(m for m in range(i, last + 1) if high[m] < 0)
        right = min(m for m in range(last + 1, j + 1) if low[m] > 0)
        # Between scales by ln x, as shots and images are spaced.
        z = np.log(self.x)
        places = _zero(z, value, last), _zero(z, high, left), _zero(z, low, right - 1)
        return Overtaking(leads, *map(math.exp, places))


def _zero(z: Array, values: Array, i: int) -> float:
    """Where the straight line from point i, at or below 0, to the next one is 0."""
    rise = values[i + 1] - values[i]
    return float(z[i] - values[i] / rise * (z[i + 1] - z[i]) if rise > 0 else z[i])


def crossover(
    x: Array, differences: Sequence[Difference], tails: Sequence[float]
) -> Crossover:
    """The differences of two lines at x [k] > 0, in any order, and their one-sided p.

    Raises ValueError for fewer than two scales, or a difference without an interval.
    """
    x, order = np.asarray(x, float), np.argsort(x)
    if len(np.unique(x)) < 2 or len(differences) != len(x) or not (x > 0).all():
        raise ValueError("crossover: it takes two different scales above 0, or more")
    table = np.array([(d.value, d.low, d.high) for d in differences], float)
    if not np.isfinite(table).all():
        raise ValueError("crossover: a difference without an interval")
    return Crossover(x[order], table[order], np.asarray(tails, float)[order])


def decide(pairs: Sequence[Crossover]) -> list[list[Overtaking]]:
    """The overtakings of each pair of one family, by Holm over the pairs.

    The chance that any pair of lines that do not cross is said to is at most SURE. Where
    both directions are sure the lines cross twice.
    """
    adjusted = holm([pair.p() for pair in pairs])
    found = []
    for pair, p in zip(pairs, adjusted, strict=True):
        sure = [s for s in (1, -1) if p < SURE and pair.p(s) * len(pairs) < SURE]
        if p < SURE and not sure:  # Holm's factor is smaller than Bonferroni's
            sure = [min((1, -1), key=pair.p)]
        found.append(pair.overtakings(sure))
    return found
