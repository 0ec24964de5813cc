"""95% limits of one run's metrics over test patients.

Each method was chosen by its coverage in simulation (benchmarks/coverage.py, which has
the numbers): percentiles of a bootstrap cover 11% with one positive image and 38% at an
AUROC of .995. No limit leaves the range of its metric and none meets its value. Below
LEAST patients there is no interval.

Several images of one patient count as fewer than they are. How many fewer the
influences (influence.py) tell, within 1 (all differ as if of different patients) and
the number of images a patient (all alike).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used: not while training

from bigxfer.statistics.influence import Patients, variance
from bigxfer.statistics.proportions import mid_p

LEAST = 5  # patients, or patients with and without a label
Z = 1.959963984540054  # of the standard normal distribution, at 97.5%
PRECISION = 1.5  # images of a positive's worth, at most, in average precision

Limits = tuple[float, float]


class Score(NamedTuple):
    """A metric of one run: value, limits (or the reason why not), and its patients.

    `sums` [p] are influences summed within patients, None where there is no interval.
    `one` is the squared effect that one patient more could have: what is added to a
    variance of a difference, so that two runs that agree on all patients of a small set
    are not thought to be equal.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    reason: str = ""
    sums: np.ndarray | None = None
    one: float = 0.0

    def entry(self, absent: str = "") -> dict[str, float | str | None]:
        """The metric as result.json holds it; `absent` says why it has no value."""
        if not math.isfinite(self.value):
            return {"value": None, "low": None, "high": None, "reason": absent}
        if math.isfinite(self.low):
            return {"value": self.value, "low": self.low, "high": self.high}
        reason = {"reason": self.reason} if self.reason else {}
        return {"value": self.value, "low": None, "high": None, **reason}


def proportion(hit: np.ndarray, known: np.ndarray, patients: Patients) -> Score:
    """The share of `hit` among the `known`: both bool [n], or how many of an image's.

    The limits are mid-P (Lancaster 1961; Brown, Cai and DasGupta 2001, Statistical
    Science 16:101), of as many images as would vary as much if each were of its own
    patient. NaN limits, and no reason, where fewer than LEAST patients are known.
    """
    n = int(known.sum())
    if not n:
        return Score(math.nan)
    # A net calls images whose label is unknown, too.
    hit = np.where(known > 0, hit, 0)
    value = float(hit.sum() / n)
    influence = (hit - known * value) / n
    sums, count = patients.sums(influence), patients.having(known > 0)
    one = 1 / count**2  # one patient more moves the share by 1 / count
    if count < LEAST:
        return Score(value, sums=sums, one=one)
    plain, most = value * (1 - value) / n, patients.images_each(known)
    # At 0 and 1 nothing tells how alike the images are: as alike as they can be.
    effect = variance(sums, count) / plain if plain else most
    worth = n / min(max(effect, 1), most) * small_sample(count, n)
    low, high = map(float, mid_p(value * worth, worth))
    return Score(value, low, high, sums=sums, one=one)


def small_sample(patients: int, images: int) -> float:
    """What images are worth less because how alike they are is itself estimated.

    Korn and Graubard 1998, Survey Methodology 24:193: (z / t)^2 with t of
    `patients` - 1 degrees of freedom; 1 where each image is of its own patient.
    """
    if patients == images:
        return 1.0
    return (Z / -scipy.special.stdtrit(patients - 1, 0.025)) ** 2


def wilson(value: float, n: float) -> Limits:
    """Wilson's score limits of a share of n (1927, JASA 22:209)."""
    centre = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(value * (1 - value) / n + (Z / (2 * n)) ** 2) / (1 + Z**2 / n)
    # Rounding must not leave the value, or 0 to 1, outside.
    return max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0)


def hanley_mcneil(value: float, positives: float, negatives: float) -> float:
    """The variance of an AUROC (1982, Radiology 143:29), in Newcombe's symmetric form.

    Newcombe 2006, Statistics in Medicine 25:559, method 5: both counts less 1 are
    replaced by the same half of their sum, less 1.
    """
    same = (positives + negatives) / 2 - 1
    spread = 1 + same * ((1 - value) / (2 - value) + value / (1 + value))
    return value * (1 - value) * spread / (positives * negatives)


def newcombe(value: float, positives: float, negatives: float) -> Limits:
    """Limits of an AUROC: the values whose own variance just reaches it (method 5)."""

    def far(other: float) -> float:
        return Z * math.sqrt(hanley_mcneil(other, positives, negatives))

    low = root(lambda v: v + far(v) - value, 0, value) if value > 0 else 0.0
    high = root(lambda v: v - far(v) - value, value, 1) if value < 1 else 1.0
    return low, high


def auroc(
    value: float, influence: np.ndarray, truth: np.ndarray, patients: Patients
) -> Score:
    """AUROC of one class against the rest; truth [n] is 1, 0 or NaN."""
    known, positive = ~np.isnan(truth), truth == 1
    with_, without = patients.having(positive), patients.having(truth == 0)
    sums = patients.sums(influence)
    one = (1 / with_**2 + 1 / without**2) / 16
    if min(with_, without) < LEAST:
        return Score(value, sums=sums, one=one)
    n, count = int(known.sum()), patients.having(known)
    effect = _alike(sums, influence, patients.images_each(known), count)
    worth = small_sample(count, n) / effect
    m = int(positive.sum())
    # Both counts shrink alike: the balance of the set stays.
    return Score(
        value, *newcombe(value, m * worth, (n - m) * worth), sums=sums, one=one
    )


def _alike(sums: np.ndarray, influence: np.ndarray, most: float, count: int) -> float:
    """By how much patients with several images enlarge the variance, 1 to `most`.

    `count` patients have a known label.
    """
    plain = float((influence**2).sum())
    return min(max(variance(sums, count) / plain, 1.0), most) if plain else most


def auroc_micro(
    value: float, influence: np.ndarray, truth: np.ndarray, patients: Patients
) -> Score:
    """AUROC of all (image, class) pairs, whose pairs of one patient are not independent.

    As `auroc`, of pairs in place of images; truth is [n, k]. Were pairs no more than
    images, as pairs of one image that are all alike are, several findings that are not
    would be covered in 97.9% (benchmarks/coverage.py).
    """
    pairs = (~np.isnan(truth)).sum(axis=1)
    count, n = patients.having(pairs > 0), int(pairs.sum())
    positives, negatives = (int((truth == y).sum()) for y in (1, 0))
    sums = patients.sums(influence)
    images = int((pairs > 0).sum())  # one patient more has a pair of each class
    one = (1 / min(positives, images) ** 2 + 1 / min(negatives, images) ** 2) / 16
    if min(positives, negatives, count) < LEAST:
        return Score(value, sums=sums, one=one)
    plain = hanley_mcneil(value, positives, negatives)
    most = patients.images_each(pairs)
    effect = min(max(variance(sums, count) / plain, 1), most) if plain else most
    worth = small_sample(count, n) / effect
    ends = newcombe(value, positives * worth, negatives * worth)
    return Score(value, *ends, sums=sums, one=one)


def precision(
    value: float, influence: np.ndarray, truth: np.ndarray, patients: Patients
) -> Score:
    """Average precision: Wilson's limits of as many images as vary as much.

    After Boyd, Eng and Page 2013 (ECML, section 4), whose binomial interval takes the
    positives; here at most PRECISION of them each, since near 1 the influences vanish.
    The lower limit is that of the value less its bias: an average precision of n images
    in no order is too high by nearly (1 - value) H(n) / n, H the harmonic number, which
    vanishes as the value nears 1 (0.02 to 0.05 at 100 and 50 images).
    """
    positive, known = truth == 1, ~np.isnan(truth)
    with_, without = patients.having(positive), patients.having(truth == 0)
    sums, m = patients.sums(influence), int(positive.sum())
    one = 1 / (16 * with_**2)
    if min(with_, without) < LEAST:
        return Score(value, sums=sums, one=one)
    count = patients.having(known)
    most = patients.images_each(positive)
    worth = PRECISION * m / _alike(sums, influence, most, count)
    if spread := variance(sums, count):
        t = -scipy.special.stdtrit(with_ - 1, 0.025)
        worth = min(worth, value * (1 - value) / spread * (Z / t) ** 2)
    # H(n) is close to ln n + Euler's constant, and n need not be whole.
    each = patients.images_each(known)
    n = max(known.sum() / _alike(sums, influence, each, count), 1.0)
    bias = (1 - value) * (math.log(n) + np.euler_gamma) / n
    low, _ = wilson(max(value - bias, 0.0), max(worth, 1.0))
    _, high = wilson(value, max(worth, 1.0))
    return Score(value, low, high, sums=sums, one=one)


def mean(
    value: float,
    influence: np.ndarray,
    known: np.ndarray,
    patients: Patients,
    highest: float = math.inf,
) -> Score:
    """A mean of values from 0 to `highest`, such as a loss, which are often skewed.

    `known` [n] counts the values of each image; patients without any do not count.

    Hall's cubic transformation of Student's t (1992, JRSS B 54:221) takes the skewness
    out. A set in which all patients have one value has no interval.
    """
    sums = patients.sums(influence)
    own = sums[patients.sums(known) > 0]
    p, spread = len(own), variance(own)
    if p < LEAST or spread <= (1e-12 * value) ** 2:  # but for rounding
        return Score(value, sums=sums)
    # What each patient adds, in the metric's own units.
    each = p * own
    skew = float((each**3).mean() / each.std(ddof=1) ** 3)
    t, root_p = -scipy.special.stdtrit(p - 1, 0.025), math.sqrt(p)

    def back(x: float) -> float:
        """The t whose transformation is x."""
        # The transformation is then the identity, but as 0 / 0.
        if abs(skew) < 1e-6:
            return x
        inner = 1 + skew * (x / root_p - skew / (6 * p))
        return float((np.cbrt(inner) - 1) * 3 / skew * root_p)

    ends = (value - back(sign * t) * math.sqrt(spread) for sign in (1, -1))
    low, high = (min(max(end, 0.0), highest) for end in ends)
    return Score(value, low, high, sums=sums)


def average(scores: Sequence[Score]) -> Score:
    """The mean of metrics of the same images, from the limits of each (MOVER).

    Zou and Donner 2008, Statistics in Medicine 27:1693: distances to the limits add as
    standard deviations do, with the correlations that the influences have.
    """
    value = float(np.mean([s.value for s in scores]))
    influences = [s.sums for s in scores if s.sums is not None]
    if len(influences) < len(scores):
        return Score(value)
    together = np.array(influences)
    sums, k = together.mean(axis=0), len(scores)
    one = float(sum(s.one for s in scores)) / k**2
    products = together @ together.T
    size = np.sqrt(np.diag(products))
    both = np.outer(size, size)
    correlation = np.divide(products, both, out=np.zeros((k, k)), where=both > 0)
    # A metric at its end has influences of 0 only, and limits all the same.
    np.fill_diagonal(correlation, 1)
    ends = []
    for distance in (
        [s.value - s.low for s in scores],
        [s.high - s.value for s in scores],
    ):
        d = np.array(distance)
        ends.append(math.sqrt(max(d @ correlation @ d, 0)) / k)
    return Score(value, value - ends[0], value + ends[1], sums=sums, one=one)


def root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where the increasing f crosses 0 between low and high, to rounding.

    The Illinois form of the secant method (Dowell and Jarratt 1971, BIT 11:168), which
    needs about 10 calls of f where halving needs 50. A root at either end itself does
    not count: an AUROC of 1 solves the equation of its own limits.
    """
    edge = 1e-12 * (high - low)
    low, high = low + edge, high - edge
    at_low, at_high = float(f(low)), float(f(high))
    if at_low >= 0 or at_high <= 0:
        return low if at_low >= 0 else high
    side, last = 0, math.nan
    for _ in range(100):
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        value = float(f(middle))
        if value == 0 or abs(middle - last) <= 1e-15:
            break
        last = middle
        if value > 0:
            high, at_high = middle, value
            at_low = at_low / 2 if side == 1 else at_low  # or that end never moves
            side = 1
        else:
            low, at_low = middle, value
            at_high = at_high / 2 if side == -1 else at_high
            side = -1
    return middle
