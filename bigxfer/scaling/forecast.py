"""What a law says beyond the data, with the doubt about the law itself.

    prediction = forecast(CURVES.values(), x, scatter, cutoff)
    prediction.predict([1000.0])              # value, low, high, each [1]

A form is chosen by the scales above a cutoff, which it was not fitted to. Every
replicate of the curve makes that choice anew, so that the band holds the choice of the
form; and the band is wider on both sides by what the chosen form missed the held-out
scales by, and more the further it goes, because no form of the list need be the true one. A curve that bends beyond
the data, and not within it, is foretold by nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigxfer.scaling.bootstrap import Intervals, refits
from bigxfer.scaling.choice import Score, choices, simplest
from bigxfer.scaling.fit import Fit, fits
from bigxfer.scaling.forms import Array, Form
from bigxfer.scaling.scatter import Scatter

STARTS = 16
LOST = 9.0  # in ln y, the miss of a replicate whose floor is below 0
STEPS = 15  # of a refit, which starts at the optimum of data a few percent away


@dataclass(frozen=True)
class Forecast:
    """The chosen law, and the replicates of every form that some replicate chose."""

    fit: Fit
    theta: Array  # [replicates, p] of the chosen form, whatever a replicate chose
    scores: list[Score]  # the chosen form first
    refits: list[tuple[Form, Array]]  # theta of the replicates that chose the form
    miss: float  # in ln y at the held-out scales, added on both sides
    ends: tuple[float, float]  # the cutoff, and the largest scale
    level: float = 0.95

    def predict(self, x: ArrayLike) -> tuple[Array, Array, Array]:
        """x [n] -> (value, low, high), each [n]: of the mean curve, not of one run."""
        x = np.asarray(x, float)
        with np.errstate(invalid="ignore", divide="ignore"):
            each = [np.exp(form.log_y(theta, x)) for form, theta in self.refits]
        # a floor below 0 has reached no error at all
        y = np.nan_to_num(np.concatenate(each), nan=0.0)
        tail = (1 - self.level) / 2
        low, high = np.quantile(y, [tail, 1 - tail], axis=0)
        # the miss is that of a law asked `ends` apart: it doubles over as much again
        cutoff, last = np.log(self.ends)
        further = np.maximum(np.log(x) - last, 0.0) / (last - cutoff)
        value, wider = self.fit.predict(x), np.exp(self.miss * (1 + further))
        return value, np.minimum(low, value) / wider, np.maximum(high, value) * wider

    @property
    def parameters(self) -> dict[str, tuple[float, float, float]]:
        """{name: (value, low, high)} of the chosen form, if it is the true one."""
        return Intervals(self.fit, self.theta, "", self.level).parameters


def forecast(
    forms: Iterable[Form], x: Array, scatter: Scatter, cutoff: float
) -> Forecast:
    """Choose a form by the scales x [k] above the cutoff, in each replicate again.

    Raises ValueError where no form has fewer parameters than scales up to the cutoff.
    """
    return forecasts(forms, x, [scatter], cutoff)[0]


def forecasts(
    forms: Iterable[Form], x: Array, scatters: Sequence[Scatter], cutoff: float
) -> list[Forecast]:
    """`forecast` of several curves at the same x, all searched at once."""
    below = x <= cutoff
    forms = [f for f in forms if len(f.parameters) < below.sum()]
    curves = [s.curves for s in scatters if s.curves is not None]
    sigmas = [s.sigma for s in scatters if s.sigma is not None]
    if not len(curves) == len(sigmas) == len(scatters):
        raise ValueError("forecast: nothing says how the errors scatter")
    means = [s.mean for s in scatters]
    scores = choices(forms, x, means, cutoff, sigmas=sigmas, starts=STARTS)
    taken = _taken(forms, x, curves, scores, below)
    # Each form is fitted to all scales where it is chosen, by the curve or a replicate.
    laws: list[dict[str, tuple[Fit, Array]]] = [{} for _ in scatters]
    for form in forms:
        chosen = [
            i for i, of in enumerate(scores)
            if of[0].form is form or (taken[i] == form.name).any()
        ]  # fmt: skip
        if not chosen:
            continue
        found = fits(
            form, x, [means[i] for i in chosen],
            sigmas=[sigmas[i] for i in chosen], starts=STARTS,
        )  # fmt: skip
        rows = [
            taken[i] == form.name if scores[i][0].form is not form else slice(None)
            for i in chosen
        ]
        refitted = [curves[i][row] for i, row in zip(chosen, rows, strict=True)]
        thetas = refits(found, refitted, iterations=STEPS)
        for i, law, theta in zip(chosen, found, thetas, strict=True):
            laws[i][form.name] = law, theta
    ends = cutoff, x[-1]
    return [_joined(*of, ends) for of in zip(scores, taken, laws, strict=True)]


def _taken(forms, x, curves, scores, below) -> list[NDArray[np.str_]]:
    """The name of the form that each replicate takes, for every curve."""
    misses: list[dict[str, Array]] = [{} for _ in curves]
    for form in forms:
        partial = [s.law for of in scores for s in of if s.form is form]
        small = [replicates[:, below] for replicates in curves]
        thetas = refits(partial, small, iterations=STEPS)
        for theta, replicates, of in zip(thetas, curves, misses, strict=True):
            with np.errstate(invalid="ignore", divide="ignore"):
                off = np.abs(form.log_y(theta, x) - np.log(replicates))
            off = np.nan_to_num(off, nan=LOST)
            square = [np.sqrt(np.mean(off[:, s] ** 2, 1)) for s in (below, ~below)]
            of[form.name] = np.maximum(*square)
    out = []
    for of, order in zip(misses, scores, strict=True):
        some = [score.form for score in order]
        ranked = np.array([of[form.name] for form in some])
        places = simplest([len(form.parameters) for form in some], ranked)
        out.append(np.array([form.name for form in some])[places])
    return out


def _joined(scores, taken, laws, ends) -> Forecast:
    """One curve's forecast, of the forms that it and its replicates took."""
    name = scores[0].form.name
    law, theta = laws[name]
    refitted = [(law.form, theta[taken == name])]
    for score in scores[1:]:
        if (taken == score.form.name).any():
            refitted.append((score.form, laws[score.form.name][1]))
    return Forecast(law, theta, scores, refitted, scores[0].largest, ends)
