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
from numpy.typing import NDArray

from bigxfer.scaling import guesses

Array = NDArray[np.float64]

EXPONENT = (0.0, 10.0)
LOGARITHM = (-300.0, 300.0)  # e^300 is 1e130: products of two stay finite


@dataclass(frozen=True)
class Form:
    """One law. `curve(*columns, *parameters)` -> ln y, `columns` [n] each and
    `parameters` [m, 1] each -> [m, n]; `starts(rng, m, y, *columns)` -> [m, p];
    `bounds(y, *columns)` -> p pairs (low, high)."""

    name: str
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    curve: Callable[..., Array]
    starts: Callable[..., Array]
    bounds: Callable[..., list[tuple[float, float]]]

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
        return self.curve(*self.columns(x), *np.moveaxis(theta, -1, 0)[..., None])

    def natural(self, theta: Array) -> dict[str, Array]:
        """theta [..., p] -> {name: [...]}, "ln b" given back as b."""
        return {
            name.removeprefix("ln "): np.exp(t) if name.startswith("ln ") else t
            for name, t in zip(self.parameters, np.moveaxis(theta, -1, 0))
        }


# ---- curves: ln y ------------------------------------------------------------------


def softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


def _m1(x, b, c):
    """y = b x^-c."""
    return b - c * np.log(x)


def _m2(x, b, c, floor):
    """y = floor + b x^-c."""
    return np.log(floor + np.exp(b - c * np.log(x)))


def _m3(x, b, c, g):
    """y = b (1/x + g)^c: floor b g^c, M1 at g = 0."""
    return b + c * np.logaddexp(-np.log(x), g)


def _m4(x, b, c, floor, a, top):
    """(y - floor) / (top - y)^a = b x^-c, solved for y.

    With y = floor + (top - floor) sigmoid(t) the equation is a softplus(t) -
    softplus(-t) = z, increasing and of one curvature, so that Newton's method from
    its asymptotes converges from one side.
    """
    span = np.log(top - floor)
    z = b - c * np.log(x) - (1 - a) * span
    t = np.where(a < 1, np.maximum(z, z / a), np.minimum(z, z / a))
    for _ in range(30):
        plus = softplus(t)
        share = np.exp(t - plus)
        step = (a * plus - (plus - t) - z) / (1 + (a - 1) * share)
        t = t - step
        if not (np.abs(step) > 1e-12 * (1 + np.abs(t))).any():
            break
    return np.log(floor + np.exp(span - softplus(-t)))


def _saturating(x, b, c, shift, floor):
    """y = floor + b (x + shift)^-c: flat at both ends."""
    return np.log(floor + np.exp(b - c * np.logaddexp(np.log(x), shift)))


def _broken(x, floor, b, c0, c1, d, f):
    """y = floor + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)."""
    bend = np.exp(f) * softplus((np.log(x) - d) / np.exp(f))
    return np.log(floor + np.exp(b - c0 * np.log(x) - c1 * bend))


def _rectified(x, floor, height, beta, half):
    """y = floor + height / (1 + (x/half)^beta).

    The published E, A, beta, B are floor, floor + height, beta, -beta ln half; the
    published D_l is half^beta.
    """
    return np.log(floor + np.exp(height - softplus(beta * (np.log(x) - half))))


def _joint(n, d, floor, a, alpha, b, beta):
    """y = floor + a n^-alpha + b d^-beta."""
    return np.log(floor + np.exp(a - alpha * np.log(n)) + np.exp(b - beta * np.log(d)))


def _overtraining(n, m, a, b, c, floor):
    """y = a n^-c + b 6^(-c/2) (m n)^-c + floor, m = tokens per parameter."""
    return np.log(
        floor
        + np.exp(a - c * np.log(n))
        + np.exp(b - c * (np.log(6) / 2 + np.log(m * n)))
    )


def _metric(loss, top, k, gamma):
    """y = top - k exp(-gamma loss): downstream error from upstream loss."""
    # A search may ask for errors below 0, which have no logarithm.
    return np.log(np.maximum(top - np.exp(k - gamma * loss), 1e-12))


def _two_way(n, s, delta, gap, alpha, beta):
    """y = delta (gap + n^-alpha) s^-beta; n upstream size, s target size."""
    return delta + np.logaddexp(gap, -alpha * np.log(n)) - beta * np.log(s)


def _two_way_floor(n, s, delta, gap, alpha, beta, floor):
    """two_way plus a floor that no upstream and no target data removes."""
    return np.log(floor + np.exp(_two_way(n, s, delta, gap, alpha, beta)))


def _two_way_distance(n, s, distance, *parameters):
    """two_way (delta, gap, alpha, beta) with a transfer gap of gap exp(kappa distance).

    A kappa above 0 says that distant domains transfer worse however large the upstream.
    """
    delta, gap, alpha, beta, kappa = parameters
    return _two_way(n, s, delta, gap + kappa * distance, alpha, beta)


def _transferred(d_f, n, k, alpha, beta):
    """D_T = k D_F^alpha N^beta: target data that pre-training is worth."""
    return k + alpha * np.log(d_f) + beta * np.log(n)


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
        _m4,
        lambda rng, m, y, x: guesses.m4(rng, m, y, x, chance),
        lambda y, x: _bounds_m4(y, x, chance),
    )


M1 = Form(
    "M1", ("x",), ("ln b", "c"), _m1, guesses.m1, lambda y, x: [LOGARITHM, EXPONENT]
)
M2 = Form(
    "M2",
    ("x",),
    ("ln b", "c", "floor"),
    _m2,
    guesses.m2,
    lambda y, x: [LOGARITHM, EXPONENT, _floor(y)],
)
M3 = Form("M3", ("x",), ("ln b", "c", "ln g"), _m3, guesses.m3, _bounds_m3)
M4 = m4()
SATURATING = Form(
    "saturating",
    ("x",),
    ("ln b", "c", "ln shift", "floor"),
    _saturating,
    guesses.saturating,
    lambda y, x: [LOGARITHM, EXPONENT, _log_range(x, 15, 5), _floor(y)],
)
BROKEN = Form(
    "broken",
    ("x",),
    ("floor", "ln b", "c0", "c1", "ln d", "ln f"),
    _broken,
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
    _rectified,
    guesses.rectified,
    lambda y, x: [_floor(y), LOGARITHM, EXPONENT, _log_range(x, 15, 15)],
)
JOINT = Form(
    "joint",
    ("n", "d"),
    ("floor", "ln a", "alpha", "ln b", "beta"),
    _joint,
    guesses.joint,
    lambda y, n, d: [_floor(y), LOGARITHM, EXPONENT, LOGARITHM, EXPONENT],
)
OVERTRAINING = Form(
    "overtraining",
    ("n", "m"),
    ("ln a", "ln b", "c", "floor"),
    _overtraining,
    guesses.overtraining,
    lambda y, n, m: [LOGARITHM, LOGARITHM, EXPONENT, _floor(y)],
)
METRIC = Form(
    "metric",
    ("loss",),
    ("top", "ln k", "gamma"),
    _metric,
    guesses.metric,
    lambda y, loss: [(float(y.max()), 10 * float(y.max())), LOGARITHM, EXPONENT],
)
_TWO_WAY = ("ln delta", "ln gap", "alpha", "beta")
_TWO_WAY_BOUNDS = [LOGARITHM, (-100.0, 50.0), EXPONENT, EXPONENT]
TWO_WAY = Form(
    "two_way",
    ("n", "s"),
    _TWO_WAY,
    _two_way,
    guesses.two_way,
    lambda *_: _TWO_WAY_BOUNDS,
)
TWO_WAY_FLOOR = Form(
    "two_way_floor",
    ("n", "s"),
    (*_TWO_WAY, "floor"),
    _two_way_floor,
    guesses.two_way_floor,
    lambda y, n, s: [*_TWO_WAY_BOUNDS, _floor(y)],
)
TWO_WAY_DISTANCE = Form(
    "two_way_distance",
    ("n", "s", "distance"),
    (*_TWO_WAY, "kappa"),
    _two_way_distance,
    guesses.two_way_distance,
    lambda y, n, s, d: [*_TWO_WAY_BOUNDS, (-100.0, 100.0)],
)
TRANSFERRED = Form(
    "transferred",
    ("d_f", "n"),
    ("ln k", "alpha", "beta"),
    _transferred,
    guesses.transferred,
    lambda *_: [LOGARITHM, (-10.0, 10.0), (-10.0, 10.0)],
)

# laws of one scale, from few parameters to many: what `fits.choose` should compare
CURVES = {form.name: form for form in (M1, M2, M3, RECTIFIED, SATURATING)}
# 5 and 6 parameters, for long curves: over 90 fine-tuning curves of 9 points their mean
# error of extrapolation is 0.16 and 0.10, the rectified law's 0.06
# (benchmarks/fits_published.py)
FLEXIBLE = {form.name: form for form in (M4, BROKEN)}
