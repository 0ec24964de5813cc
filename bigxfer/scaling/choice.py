"""Choose the form of a law by the scales that it was not fitted to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigxfer.scaling.fit import Fit, draw_mean, fits
from bigxfer.scaling.forms import Array, Form

# A form of more parameters is taken only if it misses the held-out scales by less than
# this share of what the simpler form misses them by: one or two held-out scales are few,
# and of five forms one is lucky (benchmarks/fits_published.py, learning curves).
CLEAR = 0.5
TIE = 1e-4  # a gain in ln y below it is rounding


@dataclass(frozen=True)
class Score:
    """How a form extrapolates after a fit up to the cutoff: RMSE of ln y above it, the
    largest miss there, RMSE up to it."""

    form: Form
    held_out: float
    in_sample: float
    law: Fit  # up to the cutoff
    largest: float

    @property
    def agreement(self) -> float:
        return self.law.agreement


def choose(
    forms: Iterable[Form],
    x: ArrayLike,
    y: ArrayLike,
    cutoff: float | None = None,
    *,
    axis: int = 0,
    sigma: ArrayLike | None = None,
    **how,
) -> list[Score]:
    """Fit each form where input `axis` is <= cutoff, score it above; the chosen first.

    The simplest form is chosen unless another gains clearly (`simplest`). The default
    cutoff is half the largest scale (arXiv 2209.06640, section 4). Forms with more
    parameters than scales below the cutoff are left out. `sigma` and `how` go to `fit`.
    Raises ValueError when nothing can be held out.
    """
    sigmas = None if sigma is None else [sigma]
    return choices(forms, x, [y], cutoff, axis=axis, sigmas=sigmas, **how)[0]


def choices(
    forms: Iterable[Form],
    x: ArrayLike,
    ys: Sequence[ArrayLike],
    cutoff: float | None = None,
    *,
    axis: int = 0,
    sigmas: Sequence[ArrayLike] | None = None,
    **how,
) -> list[list[Score]]:
    """`choose` for several y at the same x, each with its own sigma."""
    x, data = np.asarray(x, float), [np.asarray(y, float) for y in ys]
    first = x if x.ndim == 1 else x[:, axis]
    cutoff = first.max() / 2 if cutoff is None else cutoff
    small = first <= cutoff
    if small.all() or not small.any():
        raise ValueError(f"choose: cutoff {cutoff} leaves one side without data")
    noise = None if sigmas is None else [np.asarray(s, float)[small] for s in sigmas]
    scores: list[list[Score]] = [[] for _ in data]
    for form in forms:
        if len(np.unique(x[small], axis=0)) < len(form.parameters):
            continue
        laws = fits(form, x[small], [y[..., small] for y in data], sigmas=noise, **how)
        for law, y, of in zip(laws, data, scores, strict=True):
            curve = y if y.ndim == 1 else draw_mean(y)
            inside = law.rmse(x[small], curve[small])
            outside = law.rmse(x[~small], curve[~small])
            off = float(np.abs(np.log(law.predict(x[~small]) / curve[~small])).max())
            of.append(Score(form, outside, inside, law, off))
    if not all(scores):
        raise ValueError(f"choose: too few scales below the cutoff {cutoff}")
    return [_chosen_first(of) for of in scores]


def _chosen_first(scores: list[Score]) -> list[Score]:
    # The larger of the two: a law that misses what it was fitted to foretells by luck.
    misses = np.array([[max(s.held_out, s.in_sample)] for s in scores])
    first = simplest([len(s.form.parameters) for s in scores], misses)[0]
    others = [s for i, s in enumerate(scores) if i != first]
    return [scores[first], *sorted(others, key=lambda s: s.held_out)]


def simplest(parameters: Sequence[int], misses: Array) -> NDArray[np.int64]:
    """The form to take, by the misses [forms, n] of n data sets -> index [n].

    From few parameters to many: a form replaces the one taken before where it misses by
    less than CLEAR of that, or, of as many parameters, by less at all.
    """
    order = np.argsort(parameters, kind="stable")
    taken = np.full(misses.shape[1], order[0])
    for i in order[1:]:
        before = np.take_along_axis(misses, taken[None], 0)[0]
        equal = np.array(parameters)[taken] == parameters[i]
        clear = misses[i] < np.where(equal, 1.0, CLEAR) * before - TIE
        taken = np.where(clear, i, taken)
    return taken
