"""How large a study must be: from the variances of one draw, seed and patient.

The variance of a difference of two cells with U upstream seeds of each side, D draws and
p test patients is

    sum over sides(upstreams / U) + draws / D + sum over sides(runs / (U D)) + patients / p,

where the first three also have a share that falls with p. pilot.py reads these numbers
from finished runs, `Variances.given` from standard deviations that somebody knows.

A study will not see these variances but estimates of them, from a few seeds and draws.
Where luck is normal its mean squares are the true ones times chi-squares over their
degrees of freedom, and independent of its effect (Searle, Casella and McCulloch 1992,
chapter 4). So the half-width is the mean over NODES studies whose chi-squares lie
evenly, each judged by the rule of statistics/crossed.py, and the power the mean of their
chances to tell the effect. With one factor these are the mean width of Student's
interval and the noncentral t.

Variances of a small pilot are uncertain: a study that is planned from the estimates
themselves misses its goal about every second time. So the total is taken at its upper
limit, at the `assurance` that is asked for (Browne 1995, Statistics in Medicine 14:1933;
the limit of a sum of variances: Graybill and Wang 1980, JASA 75:869).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import scipy

from bigxfer.statistics import crossed, limits
from bigxfer.statistics.crossed import Part
from bigxfer.tables import differences

MOST = 30  # draws, and upstream seeds, that are tried
LARGE = 1e9  # degrees of freedom of a variance that is given
NODES = 512  # with twice as many no half-width or effect moves by 0.3%
SQUARES = 6  # independent mean squares: of seeds and runs of two sides, draws, patients


@dataclass(frozen=True)
class Share:
    """A variance of one seed, draw or run: `own`, and `patients` / p beside it.

    `square` (whole, less) is the mean square that `own` was taken from, and what other
    factors and the patients add to it, which was subtracted; its degrees of freedom are
    `freedom`. The patients' part is known far better, from all of them.
    """

    own: float
    patients: float = 0.0
    square: tuple[float, float] = (0.0, 0.0)
    freedom: float = LARGE

    def at(self, patients: int) -> float:
        return self.own + self.patients / patients

    def upper(self, assurance: float) -> "Share":
        """Its upper limit; the estimate where the assurance is 0."""
        if not assurance:
            return self
        whole, less = self.square
        chi_square = float(scipy.special.chdtri(self.freedom, assurance))
        # The limit of the whole mean square, less the rest: a limit of the difference
        # itself could come out below 0.
        most = whole * self.freedom / chi_square
        return Share(max(most - less, self.own), self.patients)


@dataclass(frozen=True)
class Variances:
    """What a study's variance is made of.

    `upstreams` and `runs` have one Share for each side that has several upstreams;
    `draws` is None at full data, where no draw is shared; `patients` is the variance of
    the difference over single patients.
    """

    upstreams: tuple[Share, ...]
    draws: Share | None
    runs: tuple[Share, ...]
    patients: Share

    @classmethod
    def given(cls, sd: dict[str, float], full: bool = False) -> "Variances":
        """From standard deviations: upstreams, draws, runs, patients.

        Those of upstreams and runs are of one side; both sides are taken to have them.
        Those of draws and patients are of the difference.
        """
        one = {k: Share(v**2) for k, v in sd.items()}
        runs = () if full else (one["runs"],) * 2
        draws = None if full else one["draws"]
        return cls((one["upstreams"],) * 2, draws, runs, one["patients"])

    def upper(self, assurance: float) -> "Variances":
        """Each variance at its upper limit."""
        return Variances(
            tuple(s.upper(assurance) for s in self.upstreams),
            self.draws and self.draws.upper(assurance),
            tuple(s.upper(assurance) for s in self.runs),
            self.patients.upper(assurance),
        )


@dataclass(frozen=True)
class Design:
    """The numbers of a study; `draws` is 1 at full data."""

    upstreams: int
    draws: int
    patients: int


def parts(v: Variances, d: Design) -> list[Part]:
    """What crossed.parts finds in NODES studies of this design, as arrays."""
    u, n, p = d.upstreams, d.draws, d.patients
    runs = v.runs or (Share(0.0),) * len(v.upstreams)  # at full data: part of the seeds
    freedom = (u - 1) * (n - 1)
    rests, components = [np.zeros(NODES) for _ in v.upstreams], []
    for i, run in enumerate(v.runs):
        rests[i] = run.at(p) / (u * n) * _chi_square(freedom, i)
    for i, (seed, run) in enumerate(zip(v.upstreams, runs, strict=True)):
        own = (seed.at(p) + run.at(p) / n) / u * _chi_square(u - 1, 2 + i)
        components.append(Part.less("upstreams", own, rests[i], u - 1))
    rest = np.sum(rests, axis=0)
    if v.draws is not None:
        # A draw's mean over the seeds still holds a part of each run's own luck.
        own = v.draws.at(p) + sum(run.at(p) for run in runs) / u
        own = own / n * _chi_square(n - 1, 4)
        components.append(Part.less("draws", own, rest, n - 1))
    if v.runs:
        components.append(Part.even("residual", rest, len(v.runs) * freedom))
    own = v.patients.own / p * _chi_square(max(p - 1, 1), 5)
    return [*components, Part.even("patients", own, max(p - 1, 1))]


def total(v: Variances, d: Design) -> float:
    """The true variance of the difference that a study of this design finds."""
    u, n, p = d.upstreams, d.draws, d.patients
    of_runs = sum(s.at(p) for s in v.runs) / (u * n)
    of_draws = v.draws.at(p) / n if v.draws else 0.0
    seeds = sum(s.at(p) for s in v.upstreams) / u
    return seeds + of_draws + of_runs + v.patients.own / p


@cache
def _chi_square(freedom: int, column: int) -> np.ndarray:
    """[NODES] quantiles of chi-square over its degrees of freedom, evenly spread.

    The columns are those of an additive recurrence by powers of the generalised golden
    ratio, which fills the cube of all columns evenly.
    """
    ratio = 1.0
    # Converges to the root of x ** (SQUARES + 1) = x + 1.
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (SQUARES + 1))
    even = (0.5 + np.arange(1, NODES + 1) * ratio ** -(column + 1)) % 1
    return scipy.special.chdtri(freedom, even) / freedom


@dataclass(frozen=True)
class Goal:
    """A mean half-width of 95% intervals, or a difference to be told apart from none.

    A difference is told apart with probability `power`, by p below 0.05 after Holm's
    adjustment over `family` comparisons. One of `half_width` and `effect` is given.
    """

    half_width: float = 0.0
    effect: float = 0.0
    power: float = 0.8
    family: int = 1

    def reached(self, v: Variances, d: Design) -> float:
        """The mean half-width, or the difference told apart, of studies of this design."""
        components = parts(v, d)
        if self.half_width:
            return float(np.mean(crossed.reach(components, 0.025, True)))
        # Holm's first step, which is the strictest: later ones need less.
        half = crossed.reach(components, differences.SURE / self.family / 2, True)
        sd = total(v, d) ** 0.5 or 1.0

        def spare(effect: float) -> float:
            # Either sign counts as told, as in a two-sided test.
            told = scipy.special.ndtr((np.array([[effect], [-effect]]) - half) / sd)
            return float(np.mean(told.sum(0))) - self.power

        return limits.root(spare, 0.0, float(np.max(half)) + 10 * sd)

    @property
    def wanted(self) -> float:
        return self.half_width or self.effect


def reaching(
    v: Variances, goal: Goal, patients: Sequence[int]
) -> list[tuple[Design, float]]:
    """(design, what it reaches) of those that reach the goal with nothing to spare.

    From a design in the list neither an upstream seed, nor a draw, nor a step of
    `patients` can be taken. Empty where no design of up to MOST seeds and draws is
    enough.
    """
    # One draw, or one seed, has no variance to be told from.
    draws = range(2, MOST + 1) if v.draws is not None else range(1, 2)
    seeds = range(2, MOST + 1) if v.upstreams else range(1, 2)
    designs: list[tuple[Design, float]] = []
    for p, u in product(sorted(patients), seeds):

        def enough(n: int, u: int = u, p: int = p) -> bool:
            return goal.reached(v, Design(u, n, p)) <= goal.wanted

        # More draws never undo it, so the fewest are found by bisection.
        if (i := bisect_left(draws, True, key=enough)) == len(draws):
            continue
        d = Design(u, draws[i], p)
        # Patients and seeds rise: a smaller design that suffices came before.
        if not any(_within(smaller, d) for smaller, _ in designs):
            designs.append((d, goal.reached(v, d)))
    return designs


def _within(a: Design, b: Design) -> bool:
    return (
        a.upstreams <= b.upstreams and a.draws <= b.draws and a.patients <= b.patients
    )
