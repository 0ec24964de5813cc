"""Whether errors fall over a scale at all: the slope, a rise, or no difference.

These need no law, and speak of the measured scales only.
"""

from itertools import combinations

import numpy as np
import scipy  # scipy.special, 13 MB, loads where it is used

from bigxfer.scaling.forms import Array
from bigxfer.scaling.scatter import Scatter
from bigxfer.tables.cells import amount

FREEDOM = 2  # degrees; the t of one spans all errors
RISE = 0.05  # chance to be told of a rise that is none


def slope(x: Array, scattered: Scatter) -> tuple[float, float, float] | None:
    """(value, low, high) of c in error ~ x^-c, over x [k]: a straight line in logarithms.

    None where one draw and fewer than FREEDOM + 2 scales leave nothing to judge by.
    """
    z, y = np.log(x), np.log(scattered.mean)
    weight = np.ones(len(x)) if scattered.sigma is None else scattered.sigma**-2.0
    z = z - np.average(z, weights=weight)
    pull = -weight * z / np.sum(weight * z**2)  # the slope is pull @ y
    value = float(pull @ y)
    if scattered.curves is not None:
        ends = np.quantile(np.log(scattered.curves) @ pull, [0.025, 0.975])
        return value, float(ends[0]), float(ends[1])
    freedom = len(x) - 2
    if freedom < FREEDOM:
        return None
    residual = y - y.mean() + value * z
    error = np.sqrt(np.sum(residual**2) / freedom * np.sum(pull**2))
    reach_of = error * float(scipy.special.stdtrit(freedom, 0.975))
    return value, value - reach_of, value + reach_of


def flat(scattered: Scatter, margin: float) -> float | None:
    """The margin, if all means are shown to lie within it of each other, else None.

    Two one-sided tests at 5% of each pair of scales; all must agree, so that no
    adjustment is needed.
    """
    if scattered.curves is None:
        return None
    # Every ordered pair, so that the upper quantile alone is both one-sided tests.
    apart = scattered.curves[:, :, None] - scattered.curves[:, None]
    return margin if np.quantile(apart, 0.95, axis=0).max() < margin else None


def rises(x: Array, scattered: Scatter, fall: tuple[float, float, float] | None) -> str:
    """In words, where no falling law can describe the errors; "" where one may.

    They rise as a whole, or from one scale to a larger one beyond what chance does
    (5%, Bonferroni over the pairs of scales).
    """
    if fall and fall[0] <= 0:
        return f"errors grow with the power {-fall[0]:.2g} [{-fall[2]:.2g}, {-fall[1]:.2g}]"
    if scattered.curves is None:
        return ""
    pairs = list(combinations(range(len(x)), 2))
    for i, j in pairs:
        chance = np.mean(scattered.curves[:, j] <= scattered.curves[:, i])
        if chance < RISE / len(pairs):
            return f"the error is larger at {amount(x[j])} than at {amount(x[i])}"
    return ""
