"""Starting points of the fits in forms.py.

Each function takes (rng, m, y [n], *columns [n]) and gives m starts [m, p], in the order
of the form's parameters: what is not linear is drawn at random over the range of the
data, the rest solved by least squares given that.
"""

import numpy as np


def _line(design, z):
    """Least squares of z [m, n] on 1 and the columns [m, n] -> coefficients [m]."""
    columns = np.stack(np.broadcast_arrays(np.ones_like(z), *design), -1)
    # pinv: columns that do not vary give the least solution, not an error.
    return list(np.moveaxis(np.linalg.pinv(columns) @ z[..., None], 1, 0)[..., 0])


def _floors(rng, m, y):
    """Floors [m, 1] spread over [0, smallest y), most of them near it or near 0."""
    # Below the smallest error, since ln(y - floor) is fitted.
    return (y.min() * (1 - 1e-3) * rng.beta(0.5, 0.5, m))[:, None]


def _spread(rng, m, low, high):
    return rng.uniform(low, high, m)[:, None]


def _exponent(c):
    return np.clip(c, 0.01, 5.0)


def _stack(m: int, *columns):
    return np.stack([np.broadcast_to(np.ravel(c), m) for c in columns], -1)


def m1(rng, m, y, x):
    # Nothing is left to draw, so the data are disturbed: equal starts agree anyway.
    b, c = _line([np.log(x)], np.log(y)[None] + rng.normal(0, 0.1, (m, len(y))))
    return _stack(m, b, _exponent(-c))


def m2(rng, m, y, x):
    floor = _floors(rng, m, y)
    b, c = _line([np.log(x)], np.log(y - floor))
    return _stack(m, b, _exponent(-c), floor)


def m3(rng, m, y, x):
    g = _spread(rng, m, -np.log(x.max()) - 5, -np.log(x.min()))
    b, c = _line([np.logaddexp(-np.log(x), g)], np.tile(np.log(y), (m, 1)))
    return _stack(m, b, _exponent(c), g)


def m4(rng, m, y, x, chance=None):
    floor = _floors(rng, m, y)
    top = y.max() * (1 + np.exp(_spread(rng, m, -6, 1)))
    if chance is not None:
        top = np.full_like(top, chance)
    a = np.exp(_spread(rng, m, -3, 1.5))
    b, c = _line([np.log(x)], np.log(y - floor) - a * np.log(top - y))
    return _stack(m, b, _exponent(-c), floor, a, top)


def saturating(rng, m, y, x):
    floor = _floors(rng, m, y)
    shift = _spread(rng, m, np.log(x.min()) - 3, np.log(x.max()))
    b, c = _line([np.logaddexp(np.log(x), shift)], np.log(y - floor))
    return _stack(m, b, _exponent(-c), shift, floor)


def broken(rng, m, y, x):
    floor = _floors(rng, m, y)
    d = _spread(rng, m, np.log(x.min()), np.log(x.max()))
    f = _spread(rng, m, -4, 0.5)
    bend = np.exp(f) * np.logaddexp(0.0, (np.log(x) - d) / np.exp(f))
    b, c0, c1 = _line([np.log(x), bend], np.log(y - floor))
    return _stack(m, floor, b, np.clip(-c0, -4, 4), np.clip(-c1, -15, 15), d, f)


def rectified(rng, m, y, x):
    floor = _floors(rng, m, y)
    height = (y.max() - floor) * (1 + np.exp(_spread(rng, m, -6, 1)))
    z = np.log(height / (y - floor) - 1)
    b, beta = _line([np.log(x)], z)
    beta = _exponent(beta)
    return _stack(m, floor, np.log(height), beta, -b / beta)


def joint(rng, m, y, n, d):
    floor = _floors(rng, m, y)[:, 0]
    alpha, beta = rng.uniform(0.05, 1.2, (2, m))
    # Which of the two terms is the larger is what a search has to find out.
    share = rng.uniform(0.1, 0.9, m)
    excess = np.median(y) - np.minimum(floor, 0.95 * np.median(y))
    a = np.log(share * excess) + alpha * np.median(np.log(n))
    b = np.log((1 - share) * excess) + beta * np.median(np.log(d))
    return _stack(m, floor, a, alpha, b, beta)


def overtraining(rng, m, y, n, tokens):
    floor, a, alpha, b, beta = joint(rng, m, y, n, tokens * n).T
    centre = np.median(np.log(tokens * n))
    # one exponent for both terms: each keeps its size at the centre of the data
    b = b - beta * centre + alpha * (np.log(6) / 2 + centre)
    return _stack(m, a, b, alpha, floor)


def metric(rng, m, y, loss):
    top = y.max() * (1 + np.exp(_spread(rng, m, -5, 1)))
    k, gamma = _line([loss], np.log(top - y))
    return _stack(m, top, k, _exponent(-gamma))


def two_way(rng, m, y, n, s, shift=0.0):
    """`shift` [m, n] is added to ln gap."""
    alpha = _spread(rng, m, 0.05, 1.5)
    gap = -alpha * np.median(np.log(n)) + _spread(rng, m, -3, 3)
    z = np.log(y) - np.logaddexp(gap + shift, -alpha * np.log(n))
    delta, beta = _line([np.log(s)], z)
    return _stack(m, delta, gap, alpha, _exponent(-beta))


def two_way_floor(rng, m, y, n, s):
    start = two_way(rng, m, y, n, s)
    return np.concatenate([start, _floors(rng, m, y)], 1)


def two_way_distance(rng, m, y, n, s, distance):
    kappa = _spread(rng, m, -2, 2) / max(np.ptp(distance), 1e-12)
    start = two_way(rng, m, y, n, s, kappa * distance)
    return np.concatenate([start, kappa], 1)


def transferred(rng, m, y, d_f, n):
    z = np.log(y)[None] + rng.normal(0, 0.1, (m, len(y)))
    return _stack(m, *_line([np.log(d_f), np.log(n)], z))
