"""The laws that a scaling study fits: error as a function of scale.

A form gives ln y, so that every law is positive and residuals are relative errors.
A parameter called "ln b" is fitted as its logarithm and reported as b. Exponents are
written positive: a falling power law is x^-c. The letters are those of the sources:

    M1, M2, M3, M4        arXiv 2209.06640, section 2
    saturating            arXiv 2506.04598 (LAION-AI/scaling-laws-for-comparison,
                          scaling_laws/functions.py)
    broken                arXiv 2210.14891, one break
    rectified             arXiv 2402.02314 (linhaowei1/Fine-tuning-Scaling-Law,
                          src/fit_law.py)
    joint                 Chinchilla, as arXiv 2404.10102 refits it
    overtraining, metric  arXiv 2403.08540 (mlfoundations/scaling, scaling/laws.py)
    two_way               arXiv 2108.11018 (Mikami et al.)
    transferred           arXiv 2102.01293, equation 1.1

The bounds are this project's: they keep a search finite, they are not results.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bigxfer.scaling import guesses, laws
from bigxfer.scaling.laws import Array

EXPONENT = (0.0, 10.0)
LOGARITHM = (-300.0, 300.0)  # e^300 is 1e130: products of two stay finite


@dataclass(frozen=True)
class Form:
    """One law. `curve(*columns, *parameters)` -> ln y, `columns` [n] each and
    `parameters` [m, 1] each -> [m, n]; `starts(rng, m, y, *columns)` -> [m, p];
    `bounds(y, *columns)` -> p pairs (low, high). `slopes(ln y, *columns, *parameters)`
    -> p derivatives of ln y, each [m, n] or broadcast to it; None: by differences."""

    name: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    curve: Callable[..., Array]
    starts: Callable[..., Array]
    bounds: Callable[..., list[tuple[float, float]]]
    slopes: Callable[..., tuple[Array, ...]] | None = None

    def columns(self, x: Array) -> list[Array]:
        """x [n] or [n, inputs] -> one array [n] for each input."""
        x = np.asarray(x, float)
        table = x[:, None] if x.ndim == 1 else x
        if table.ndim != 2 or table.shape[1] != len(self.inputs):
            raise ValueError(
                f"{self.name} takes {len(self.inputs)} inputs {self.inputs}, "
                f"x has shape {x.shape}"
            )
        return list(table.T)

    def log_y(self, theta: Array, x: Array) -> Array:
        """theta [m, p], x [n] or [n, inputs] -> ln y [m, n]."""
        return self.curve(*self.columns(x), *theta.T[..., None])

    def natural(self, theta: Array) -> dict[str, Array]:
        """theta [..., p] -> {name: [...]}, "ln b" given back as b."""
        return {
            name.removeprefix("ln "): np.exp(t) if name.startswith("ln ") else t
            for name, t in zip(self.parameters, np.moveaxis(theta, -1, 0))
        }


# ---- bounds ------------------------------------------------------------------------


def _floor(y) -> tuple[float, float]:
    return (0.0, float(y.max()))


def _log_range(x, below: float, above: float) -> tuple[float, float]:
    return (float(np.log(x.min()) - below), float(np.log(x.max()) + above))


def _bounds_m3(y, x):
    low, high = _log_range(x, 5, 15)
    return [LOGARITHM, EXPONENT, (-high, -low)]


def _bounds_m4(y, x, chance=None):
    if chance is not None and chance <= y.max():
        raise ValueError(f"M4: an error of {y.max():.4g} is not below chance {chance}")
    # the paper's code keeps the top at least 1e-3 above the largest error
    top = (y.max() + 1e-3, 10 * y.max()) if chance is None else (chance, chance)
    return [LOGARITHM, EXPONENT, (0.0, y.min()), (0.01, 20.0), top]


def m4(chance: float | None = None) -> Form:
    """M4 with its upper level learnt, or fixed at the error of a guess (`chance`)."""
    return Form(
        "M4",
        ("x",),
        ("ln b", "c", "floor", "a", "top"),
        laws.m4,
        lambda rng, m, y, x: guesses.m4(rng, m, y, x, chance),
        lambda y, x: _bounds_m4(y, x, chance),
    )


M1 = Form(
    "M1",
    ("x",),
    ("ln b", "c"),
    laws.m1,
    guesses.m1,
    lambda y, x: [LOGARITHM, EXPONENT],
    laws.slopes_of_m1,
)
M2 = Form(
    "M2",
    ("x",),
    ("ln b", "c", "floor"),
    laws.m2,
    guesses.m2,
    lambda y, x: [LOGARITHM, EXPONENT, _floor(y)],
    laws.slopes_of_m2,
)
M3 = Form(
    "M3",
    ("x",),
    ("ln b", "c", "ln g"),
    laws.m3,
    guesses.m3,
    _bounds_m3,
    laws.slopes_of_m3,
)
M4 = m4()
SATURATING = Form(
    "saturating",
    ("x",),
    ("ln b", "c", "ln shift", "floor"),
    laws.saturating,
    guesses.saturating,
    lambda y, x: [LOGARITHM, EXPONENT, _log_range(x, 15, 5), _floor(y)],
    laws.slopes_of_saturating,
)
BROKEN = Form(
    "broken",
    ("x",),
    ("floor", "ln b", "c0", "c1", "ln d", "ln f"),
    laws.broken,
    guesses.broken,
    lambda y, x: [
        _floor(y),
        LOGARITHM,
        (-5.0, 10.0),
        (-20.0, 20.0),
        _log_range(x, 3, 3),
        (-6.0, 3.0),
    ],
)
RECTIFIED = Form(
    "rectified",
    ("x",),
    ("floor", "ln height", "beta", "ln half"),
    laws.rectified,
    guesses.rectified,
    lambda y, x: [_floor(y), LOGARITHM, EXPONENT, _log_range(x, 15, 15)],
    laws.slopes_of_rectified,
)
JOINT = Form(
    "joint",
    ("n", "d"),
    ("floor", "ln a", "alpha", "ln b", "beta"),
    laws.joint,
    guesses.joint,
    lambda y, n, d: [_floor(y), LOGARITHM, EXPONENT, LOGARITHM, EXPONENT],
    laws.slopes_of_joint,
)
OVERTRAINING = Form(
    "overtraining",
    ("n", "m"),
    ("ln a", "ln b", "c", "floor"),
    laws.overtraining,
    guesses.overtraining,
    lambda y, n, m: [LOGARITHM, LOGARITHM, EXPONENT, _floor(y)],
)
METRIC = Form(
    "metric",
    ("loss",),
    ("top", "ln k", "gamma"),
    laws.metric,
    guesses.metric,
    lambda y, loss: [(float(y.max()), 10 * float(y.max())), LOGARITHM, EXPONENT],
)
_TWO_WAY = ("ln delta", "ln gap", "alpha", "beta")
_TWO_WAY_BOUNDS = [LOGARITHM, (-100.0, 50.0), EXPONENT, EXPONENT]
TWO_WAY = Form(
    "two_way",
    ("n", "s"),
    _TWO_WAY,
    laws.two_way,
    guesses.two_way,
    lambda *_: _TWO_WAY_BOUNDS,
    laws.slopes_of_two_way,
)
TWO_WAY_FLOOR = Form(
    "two_way_floor",
    ("n", "s"),
    (*_TWO_WAY, "floor"),
    laws.two_way_floor,
    guesses.two_way_floor,
    lambda y, n, s: [*_TWO_WAY_BOUNDS, _floor(y)],
    laws.slopes_of_two_way_floor,
)
TWO_WAY_DISTANCE = Form(
    "two_way_distance",
    ("n", "s", "distance"),
    (*_TWO_WAY, "kappa"),
    laws.two_way_distance,
    guesses.two_way_distance,
    lambda y, n, s, d: [*_TWO_WAY_BOUNDS, (-100.0, 100.0)],
    laws.slopes_of_two_way_distance,
)
TRANSFERRED = Form(
    "transferred",
    ("d_f", "n"),
    ("ln k", "alpha", "beta"),
    laws.transferred,
    guesses.transferred,
    lambda *_: [LOGARITHM, (-10.0, 10.0), (-10.0, 10.0)],
)

# laws of one scale, from few parameters to many: what `fits.choose` should compare
CURVES = {form.name: form for form in (M1, M2, M3, RECTIFIED, SATURATING)}
# 5 and 6 parameters, for long curves: over 90 fine-tuning curves of 9 points their mean
# error of extrapolation is 0.16 and 0.10, the rectified law's 0.06
# (benchmarks/fits_published.py)
FLEXIBLE = {form.name: form for form in (M4, BROKEN)}
