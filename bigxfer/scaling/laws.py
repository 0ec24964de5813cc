"""The equations of the laws in forms.py: ln y, and its derivatives.

`x`, `n`, `s`, `d` and other inputs are columns [n]; parameters are [m, 1] each, in the
order of the form; results are [m, n]. `slopes_of_*` takes ln y before the same arguments
and gives one derivative of ln y for each parameter. A search asks for them at every step;
differences cost 2 p curves there, and lose half of the digits.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


def m1(x, b, c):
    """y = b x^-c."""
    return b - c * np.log(x)


def slopes_of_m1(log_y, x, b, c):
    return np.ones_like(log_y), -np.log(x)


def m2(x, b, c, floor):
    """y = floor + b x^-c."""
    return np.log(floor + np.exp(b - c * np.log(x)))


def slopes_of_m2(log_y, x, b, c, floor):
    log_x = np.log(x)
    share = np.exp(b - c * log_x - log_y)  # of y, what is not floor
    return share, -log_x * share, np.exp(-log_y)


def m3(x, b, c, g):
    """y = b (1/x + g)^c: floor b g^c, M1 at g = 0."""
    return b + c * np.logaddexp(-np.log(x), g)


def slopes_of_m3(log_y, x, b, c, g):
    z = np.logaddexp(-np.log(x), g)
    return np.ones_like(log_y), z, c * np.exp(g - z)


def m4(x, b, c, floor, a, top):
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


def saturating(x, b, c, shift, floor):
    """y = floor + b (x + shift)^-c: flat at both ends."""
    return np.log(floor + np.exp(b - c * np.logaddexp(np.log(x), shift)))


def slopes_of_saturating(log_y, x, b, c, shift, floor):
    z = np.logaddexp(np.log(x), shift)
    share = np.exp(b - c * z - log_y)
    return share, -z * share, -c * share * np.exp(shift - z), np.exp(-log_y)


def broken(x, floor, b, c0, c1, d, f):
    """y = floor + b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)."""
    bend = np.exp(f) * softplus((np.log(x) - d) / np.exp(f))
    return np.log(floor + np.exp(b - c0 * np.log(x) - c1 * bend))


def rectified(x, floor, height, beta, half):
    """y = floor + height / (1 + (x/half)^beta).

    The published E, A, beta, B are floor, floor + height, beta, -beta ln half; the
    published D_l is half^beta.
    """
    return np.log(floor + np.exp(height - softplus(beta * (np.log(x) - half))))


def slopes_of_rectified(log_y, x, floor, height, beta, half):
    beyond = np.log(x) - half
    bend = softplus(beta * beyond)
    share = np.exp(height - bend - log_y)
    falling = share * np.exp(beta * beyond - bend)
    return np.exp(-log_y), share, -falling * beyond, falling * beta


def joint(n, d, floor, a, alpha, b, beta):
    """y = floor + a n^-alpha + b d^-beta."""
    return np.log(floor + np.exp(a - alpha * np.log(n)) + np.exp(b - beta * np.log(d)))


def slopes_of_joint(log_y, n, d, *parameters):
    _, a, alpha, b, beta = parameters
    log_n, log_d = np.log(n), np.log(d)
    of_n = np.exp(a - alpha * log_n - log_y)
    of_d = np.exp(b - beta * log_d - log_y)
    return np.exp(-log_y), of_n, -log_n * of_n, of_d, -log_d * of_d


def overtraining(n, m, a, b, c, floor):
    """y = a n^-c + b 6^(-c/2) (m n)^-c + floor, m = tokens per parameter."""
    return np.log(
        floor
        + np.exp(a - c * np.log(n))
        + np.exp(b - c * (np.log(6) / 2 + np.log(m * n)))
    )


def metric(loss, top, k, gamma):
    """y = top - k exp(-gamma loss): downstream error from upstream loss."""
    # A search may ask for errors below 0, which have no logarithm.
    return np.log(np.maximum(top - np.exp(k - gamma * loss), 1e-12))


def two_way(n, s, delta, gap, alpha, beta):
    """y = delta (gap + n^-alpha) s^-beta; n upstream size, s target size."""
    return delta + np.logaddexp(gap, -alpha * np.log(n)) - beta * np.log(s)


def slopes_of_two_way(log_y, n, s, delta, gap, alpha, beta):
    log_n, log_s = np.log(n), np.log(s)
    z = np.logaddexp(gap, -alpha * log_n)
    of_gap, of_n = np.exp(gap - z), np.exp(-alpha * log_n - z)
    return np.ones_like(log_y), of_gap, -log_n * of_n, -log_s


def two_way_floor(n, s, delta, gap, alpha, beta, floor):
    """two_way plus a floor that no upstream and no target data removes."""
    return np.log(floor + np.exp(two_way(n, s, delta, gap, alpha, beta)))


def slopes_of_two_way_floor(log_y, n, s, *parameters):
    *growth, _ = parameters
    above = two_way(n, s, *growth)
    slopes = slopes_of_two_way(above, n, s, *growth)
    share = np.exp(above - log_y)
    return *(share * slope for slope in slopes), np.exp(-log_y)


def two_way_distance(n, s, distance, *parameters):
    """two_way (delta, gap, alpha, beta) with a transfer gap of gap exp(kappa distance).

    A kappa above 0 says that distant domains transfer worse however large the upstream.
    """
    delta, gap, alpha, beta, kappa = parameters
    return two_way(n, s, delta, gap + kappa * distance, alpha, beta)


def slopes_of_two_way_distance(log_y, n, s, distance, *parameters):
    delta, gap, alpha, beta, kappa = parameters
    gap = gap + kappa * distance
    slopes = slopes_of_two_way(log_y, n, s, delta, gap, alpha, beta)
    return *slopes, slopes[1] * distance


def transferred(d_f, n, k, alpha, beta):
    """D_T = k D_F^alpha N^beta: target data that pre-training is worth."""
    return k + alpha * np.log(d_f) + beta * np.log(n)
