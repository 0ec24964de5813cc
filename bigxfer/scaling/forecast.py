"""What a law says beyond the data, with the doubt about the law itself.

    prediction = forecast(CURVES.values(), x, scatter, cutoff)
    prediction.predict([1000.0])              # value, low, high, each [1]

A form is chosen by the scales above a cutoff, which it was not fitted to. Every
replicate of the curve makes that choice anew, so that the band holds the choice of the
form; and the band is wider on both sides by what the chosen form missed the held-out
scales by, and more the further it goes, because no form of the list need be the true one. A curve that bends beyond
the data, and not within it, is foretold by nobody.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.scaling.bootstrap import Intervals, refit
from bigxfer.scaling.fit import Fit, Score, choose, fit, simplest
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
    below = x <= cutoff
    forms = [f for f in forms if len(f.parameters) < below.sum()]
    mean, sigma, curves = scatter.mean, scatter.sigma, scatter.curves
    if curves is None or sigma is None:
        raise ValueError("forecast: nothing says how the errors scatter")
    scores = choose(forms, x, mean, cutoff, sigma=sigma, starts=STARTS)
    forms = [score.form for score in scores]
    misses = []
    for score in scores:
        theta = refit(score.law, curves[:, below], iterations=STEPS)
        with np.errstate(invalid="ignore", divide="ignore"):
            off = np.abs(score.form.log_y(theta, x) - np.log(curves))
        off = np.nan_to_num(off, nan=LOST)
        square = [np.sqrt(np.mean(off[:, s] ** 2, 1)) for s in (below, ~below)]
        misses.append(np.maximum(*square))
    taken = simplest([len(f.parameters) for f in forms], np.array(misses))
    law = fit(forms[0], x, mean, sigma=sigma, starts=STARTS)
    theta = refit(law, curves, iterations=STEPS)
    refits = [(forms[0], theta[taken == 0])]
    for i, form in enumerate(forms[1:], 1):
        if (rows := taken == i).any():
            other = fit(form, x, mean, sigma=sigma, starts=STARTS)
            refits.append((form, refit(other, curves[rows], iterations=STEPS)))
    return Forecast(law, theta, scores, refits, scores[0].largest, (cutoff, x[-1]))
