"""The inverse question: how many labels, or upstream images, reach a wanted error.

Within the data the answer is read off the measured means, whatever the law; beyond them
it takes a law with a band, and goes no further than AHEAD times the largest scale.
"""

from dataclasses import dataclass

import numpy as np

from bigxfer.scaling.forecast import Forecast
from bigxfer.scaling.forms import Array
from bigxfer.scaling.scatter import Scatter
from bigxfer.tables.cells import amount

AHEAD = 10.0
FINE = 400  # places where a law is asked: steps of less than 4%


@dataclass(frozen=True)
class Reach:
    """The scale that reaches an error, with its 95% interval.

    0 stands for below the smallest scale, inf for not up to `end`, the largest scale
    that was asked.
    """

    value: float
    low: float
    high: float
    first: float
    end: float
    ahead: bool  # whether `end` lies beyond the data

    def sentence(self, unit: str) -> str:
        """Such as "at 120 shots (95% interval 80 to 300)"."""
        first, end = amount(self.first), amount(self.end)
        low = rounded(self.low) if self.low > 0 else f"below {first}"
        high = rounded(self.high) if self.high < np.inf else f"above {end}"
        where = f"within {AHEAD:g}x of the data" if self.ahead else "within the data"
        if self.low == np.inf:
            return f"not {where}, up to {end} {unit}"
        if self.high == 0:
            return f"at {first} {unit} already, the smallest scale"
        interval = f"95% interval {low} to {high}"
        if self.value == np.inf:
            return f"not {where}, up to {end} {unit} ({interval})"
        if self.value == 0:
            return f"at {first} {unit} already ({interval})"
        return f"at {rounded(self.value)} {unit} ({interval})"


def rounded(scale: float) -> str:
    """Three digits of a scale that was estimated: "1,010"."""
    return amount(float(f"{scale:.3g}"))


def within(x: Array, scatter: Scatter, error: float) -> Reach | None:
    """By power laws between the means at x [k]; None where nothing varies."""
    if scatter.curves is None or len(x) < 2:
        return None
    lines = np.concatenate([scatter.mean[None], scatter.curves])
    # By logarithms of both: between two scales the error is then a power law.
    places = lasting_lead(np.log(x), np.log(error / lines))
    # quantiles that are replicates: no averaging with an infinite one
    low = np.quantile(places[1:], 0.025, method="lower")
    high = np.quantile(places[1:], 0.975, method="higher")
    value, low, high = np.exp([places[0], low, high]).tolist()
    return Reach(value, low, high, float(x[0]), float(x[-1]), ahead=False)


def beyond(x: Array, prediction: Forecast, error: float) -> Reach:
    """By the law and its band, up to AHEAD times the largest scale of x [k]."""
    end = AHEAD * float(x[-1])
    grid = np.geomspace(x[0], end, FINE)
    value, low, high = prediction.predict(grid)
    # The band's upper end reaches an error last: it is the upper end of the scale.
    places = lasting_lead(np.log(grid), error - np.stack([value, low, high]))
    value, low, high = np.exp(places).tolist()
    return Reach(value, low, high, float(x[0]), end, ahead=True)


def lasting_lead(grid: Array, d: Array) -> Array:
    """Where each row of d [m, n] becomes positive for good, on ascending grid [n].

    -> [m]; -inf where d > 0 throughout, inf where d <= 0 at the end.
    """
    # For good: a curve that dips below the error and returns has not reached it.
    above = d > 0
    last = d.shape[1] - 1 - np.argmin(above[:, ::-1], 1)  # the last point not above
    rows, right = np.arange(len(d)), np.minimum(last + 1, d.shape[1] - 1)
    crosses = above[:, -1] & ~above.all(1)
    rise = np.where(crosses, d[rows, right] - d[rows, last], 1.0)
    root = grid[last] - d[rows, last] / rise * (grid[right] - grid[last])
    return np.where(crosses, root, np.where(above[:, -1], -np.inf, np.inf))
