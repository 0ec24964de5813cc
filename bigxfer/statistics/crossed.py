"""Intervals and tests of an effect in which several random factors are crossed.

Every upstream seed is fine-tuned on every few-shot draw, and every run is tested on the
same patients. An effect is the mean of a metric over all runs of a cell, or the
difference of two such means. Its variance is split into what each factor adds, without
counting anything twice (random effects, Searle, Casella and McCulloch 1992, chapter 4):

    upstreams   s2(means of the upstream seeds) / U, less the residual
    draws       s2(means of the draws) / D, less the residual
    residual    s2(what is left of the runs) / (U D)
    patients    the variance over patients, less what the three above hold of it

A variance V that comes out below 0 is 0. The square of half the interval's width is

    z^2 sum(V) + sqrt(sum(((t^2 - z^2) V)^2)),

with Student's t of each factor's own degrees of freedom: z^2 V where all variances are
known, t^2 V where one factor is all, and between them as in the modified large sample
method (Graybill and Wang 1980, JASA 75:869). Adding t^2 V throughout covers too much,
Satterthwaite's degrees of freedom for all factors together cover too little. The two
sides of one factor do take them together (benchmarks/coverage.py).

It is never less than t^2 M of any factor, where M is the mean square that V was taken from,
with nothing subtracted: no interval is narrower than Student's of the means of the upstream
seeds, or of the draws. By chance the V of two upstream seeds is often 0. Its t would then
be lost, and a p could come out tiny from seeds that happen to agree.

Names of shapes: U upstream seeds, D draws, p patients.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

from bigxfer.statistics.influence import variance
from bigxfer.statistics.limits import root

SMALLEST = -300.0  # the logarithm of the least tail that a p is told for
TINY = 1e-300  # in place of 0 in a division whose result does not matter
LEVEL = 0.95


@dataclass(frozen=True)
class Part:
    """What one factor adds to the variance of an effect, on either side of it.

    `square` is the mean square, with `freedom` degrees of freedom, that the variance was
    taken from by subtraction; None where nothing was subtracted. The variances may be
    arrays, of many studies of one design (study/design.py).
    """

    factor: str
    low: Any
    high: Any
    freedom: float
    square: Any = None

    @classmethod
    def less(cls, factor: str, square: Any, rest: Any, freedom: float) -> "Part":
        """The mean square less the rest, which other parts hold; 0 if that is below 0."""
        left = np.maximum(square - rest, 0.0)
        return cls(factor, left, left, freedom, square)

    @classmethod
    def even(cls, factor: str, both: Any, freedom: float) -> "Part":
        return cls(factor, both, both, freedom)

    def enlarged(self, times: float) -> "Part":
        """The same of a study with `times` as many values of the factor.

        More of a factor also makes its variance better known.
        """
        low, high, freedom = self.low / times, self.high / times, self.freedom * times
        square = None if self.square is None else self.square / times
        return Part(self.factor, low, high, freedom, square)


@dataclass(frozen=True)
class Side:
    """The runs of one cell.

    `points` [U, D] are the metric of each run on all test images. `sums` [p, U, D] are
    its influences summed within patients (influence.py), None where no predictions are
    kept. `sign` is that of the side in the effect.
    """

    points: np.ndarray
    sums: np.ndarray | None = None
    sign: int = 1


def parts(sides: Sequence[Side], one: float = 0.0) -> list[Part]:
    """What each factor adds to the variance of the sum of the sides' signed means.

    Draws are shared by all sides, so that a draw is one signed sum over them; upstream
    seeds are each side's own. A factor with one value is none. `one` is what one patient
    more could add to the variance of a single run (limits.Score.one). Without `sums`
    there is no part for patients.
    """
    components, draws = [], sides[0].points.shape[1]
    residual = 0.0
    for side in sides:
        u, rest = len(side.points), _residual(side.points)
        residual += rest
        if u > 1:
            own = float(side.points.mean(axis=1).var(ddof=1)) / u
            components.append(Part.less("upstreams", own, rest, u - 1))
    if draws > 1:
        own = float(_by_draw(sides).var(ddof=1)) / draws
        components.append(Part.less("draws", own, residual, draws - 1))
    if residual:
        freedom = (draws - 1) * sum(len(s.points) - 1 for s in sides)
        components.append(Part.even("residual", residual, freedom))
    if sums := _sums(sides):
        own = patients(sides, sums) + one * float(np.mean([shared(s) for s in sums]))
        components.append(Part.even("patients", own, max(len(sums[0]) - 1, 1)))
    return components


def _sums(sides: Sequence[Side]) -> list[np.ndarray]:
    """The influences of all sides; none where one of them has none."""
    known = [side.sums for side in sides if side.sums is not None]
    return known if len(known) == len(sides) else []


def patients(sides: Sequence[Side], sums: Sequence[np.ndarray]) -> float:
    """The patients' own variance of the effect, from the sums [p, U, D] of each side.

    What upstream seeds, draws and residual hold of the patients is taken off: the parts
    of those have it.
    """
    signs = [side.sign for side in sides]
    by_draw = np.sum([g * s.mean(axis=1) for g, s in zip(signs, sums)], axis=0)
    total = variance(by_draw.mean(axis=1))
    if by_draw.shape[1] > 1:
        total -= _spread(by_draw) / by_draw.shape[1]
    for s in sums:
        p, u, d = s.shape
        if u > 1:
            total -= _spread(s.mean(axis=2)) / u
        if u > 1 and d > 1:
            both = s.mean(axis=1, keepdims=True) + s.mean(axis=2, keepdims=True)
            rest = s - both + s.mean(axis=(1, 2), keepdims=True)
            mean_square = float((rest**2).sum()) * p / max(p - 1, 1)
            total += mean_square / ((u - 1) * (d - 1)) / (u * d)
    return max(total, 0.0)


def shared(sums: np.ndarray) -> float:
    """The patients' variance of a side's mean, over that of its single runs: 0 to 1.

    1 where all runs err on the same patients. 1 too where no run errs at all. The sums
    are [p, U, D].
    """
    single = single_run(sums)
    return variance(sums.mean(axis=(1, 2))) / single if single else 1.0


def single_run(sums: np.ndarray) -> float:
    """The patients' variance of one run, the mean over the runs of sums [p, U, D]."""
    p, u, d = sums.shape
    squares = float(np.einsum("pud,pud->", sums, sums))  # no BLAS, so no threads
    return squares * p / max(p - 1, 1) / (u * d)


def _spread(sums: np.ndarray) -> float:
    """The variance over k columns [p, k] that the patients alone would give them."""
    p, k = sums.shape
    apart = sums - sums.mean(axis=1, keepdims=True)
    return float((apart**2).sum()) * p / max(p - 1, 1) / (k - 1)


def _residual(points: np.ndarray) -> float:
    """The variance of the mean of [U, D] by what neither rows nor columns explain."""
    u, d = points.shape
    if u < 2 or d < 2:
        return 0.0
    both = points.mean(axis=0, keepdims=True) + points.mean(axis=1, keepdims=True)
    rest = points - both + points.mean()
    return float((rest**2).sum()) / ((u - 1) * (d - 1)) / (u * d)


def _by_draw(sides: Sequence[Side]) -> np.ndarray:
    return np.sum([side.sign * side.points.mean(axis=0) for side in sides], axis=0)


def reach(components: Sequence[Part], tail: float, up: bool) -> float:
    """How far the interval that leaves `tail` above, or below, is from the effect.

    Variances that are arrays give an array.
    """
    factors: dict[str, list[tuple[Any, Any, float]]] = {}
    for part in components:
        v = part.high if up else part.low
        square = v if part.square is None else part.square
        factors.setdefault(part.factor, []).append((v, square, part.freedom))
    z2 = scipy.special.ndtri(tail) ** 2
    known, excess, least = 0.0, 0.0, 0.0
    for same in factors.values():
        variances, squares, freedoms = zip(*same)
        v, freedom = _together(variances, freedoms)
        known += z2 * v
        excess = np.hypot(excess, (scipy.special.stdtrit(freedom, tail) ** 2 - z2) * v)
        square, freedom = _together(squares, freedoms)
        least = np.maximum(least, scipy.special.stdtrit(freedom, tail) ** 2 * square)
    return np.copysign(np.sqrt(np.maximum(known + excess, least)), 0.5 - tail)


def _together(variances: Sequence[Any], freedoms: Sequence[float]) -> tuple[Any, Any]:
    """The sum of variances, such as the upstreams' of two sides, and its degrees of freedom.

    They are Welch's (1947, Biometrika 34:28), but no more than if all had as few as the one
    with the fewest. Where two seeds happen to agree, Welch's are those of the other side,
    though their own variance may be most of the truth: of 2 seeds against 5, with three
    times the standard deviation, a p below 0.001 was 18 times as frequent as it says.
    """
    if len(variances) == 1:
        return variances[0], freedoms[0]
    total = sum(variances)
    squares = sum(v**2 / f for v, f in zip(variances, freedoms))
    welch = np.maximum(total**2, TINY) / np.maximum(squares, TINY)
    return total, np.minimum(welch, len(freedoms) * min(freedoms))


def interval(
    value: float, components: Sequence[Part], level: float = LEVEL
) -> tuple[float, float]:
    """The two-sided interval of an effect; NaN where nothing is known to vary."""
    if not components:
        return math.nan, math.nan
    tail = (1 - level) / 2
    return value - reach(components, tail, False), value + reach(components, tail, True)


def tail_beyond(value: float, components: Sequence[Part], null: float = 0.0) -> float:
    """The one-sided p of an effect on the other side of `null`: 0 to 1.

    It is the tail whose interval just reaches `null`. NaN where nothing is known to vary.
    """
    distance = abs(value - null)
    if not components:
        return math.nan
    up = value < null
    if not distance:
        return 0.5
    if not sum(p.high if up else p.low for p in components):
        return 0.0

    def spare(log_tail: float) -> float:
        """Above 0 where the interval ends before `null`; bounded, whatever the tail."""
        return distance / (reach(components, math.exp(log_tail), up) + distance) - 0.5

    if spare(SMALLEST) > 0:
        return 0.0
    return math.exp(root(spare, SMALLEST, math.log(0.5)))


def p_value(value: float, components: Sequence[Part]) -> float:
    """The two-sided p of "no effect"."""
    return two_sided(tail_beyond(value, components))


def two_sided(tail: float) -> float:
    """The two-sided p of a tail that `tail_beyond` gave; NaN of NaN."""
    return min(2 * tail, 1.0)


def outside(value: float, components: Sequence[Part], margin: float) -> float:
    """The p of "the effect is at least the margin, in either direction".

    The larger of two one-sided tests (TOST: Schuirmann 1987, J. Pharmacokinetics and
    Biopharmaceutics 15:657); small where the effect lies within the margin.
    """
    tails = []
    for null in (-margin, margin):
        beyond = tail_beyond(value, components, null)
        inside = value > null if null < 0 else value < null
        tails.append(beyond if inside else 1 - beyond)
    return max(tails)


def detectable(
    components: Sequence[Part], level: float = LEVEL, power: float = 0.8
) -> float:
    """The smallest true effect that would be told apart from 0 with this probability."""
    needed = max(reach(components, (1 - level) / 2, up) for up in (False, True))
    return needed + max(reach(components, 1 - power, up) for up in (False, True))
