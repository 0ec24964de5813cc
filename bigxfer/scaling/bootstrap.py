"""Bootstrap intervals of a fitted law: its parameters and its predictions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bigxfer.scaling.fit import Fit, draw_mean
from bigxfer.scaling.forms import Array
from bigxfer.scaling.solver import minimise
from bigxfer.statistics.intervals import FEW

# Draws whose own standard deviation is used: of two it is within a factor of 30.
FEWEST = 3
FAR = 50.0  # in ln y: a t of one degree of freedom goes further than floats do


@dataclass(frozen=True)
class Intervals:
    """Replicates theta [replicates, p] of a fit; percentile intervals of everything."""

    fit: Fit
    theta: Array
    method: str
    level: float = 0.95

    @property
    def parameters(self) -> dict[str, tuple[float, float, float]]:
        """{name: (value, low, high)}."""
        value = self.fit.parameters
        ends = self.fit.form.natural(self._ends(self.theta))
        if "floor" in ends:
            # `refit` lets it fall below 0; no error is.
            ends["floor"] = np.maximum(ends["floor"], 0.0)
        return {k: (value[k], float(ends[k][0]), float(ends[k][1])) for k in value}

    def predict(self, x: ArrayLike) -> tuple[Array, Array, Array]:
        """x [n] -> (value, low, high), each [n]: of the mean curve, not of one run."""
        x = np.asarray(x, float)
        with np.errstate(invalid="ignore", divide="ignore"):
            y = np.exp(self.fit.form.log_y(self.theta, x))
        # a floor below 0 has reached no error at all
        low, high = self._ends(np.nan_to_num(y, nan=0.0))
        return self.fit.predict(x), low, high

    def _ends(self, replicates: Array) -> Array:
        tail = (1 - self.level) / 2
        return np.quantile(replicates, [tail, 1 - tail], axis=0)


def bootstrap(
    law: Fit,
    groups: ArrayLike | None = None,
    *,
    resampled: Array | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Refit `law` to resampled data, each replicate from every basin of the fit.

    - y [draws, n]: the mean curve moves by a multivariate t with draws - 1 degrees of
      freedom, whole draws at a time, since the points of a draw are correlated. For a
      linear law this is exactly the t interval; resampling covers less even at 20
      draws (0.90 for 0.95). `resampled` [r, n], the mean curve over draws on resampled
      test patients (bigxfer.statistics.intervals.resample), adds their noise: without it the interval
      is about these test patients only. It then sets the number of replicates.
    - y [n], at least 10 `groups` (int or str [n]; default each point its own; give
      the run where a run has several checkpoints): groups are resampled.
    - y [n], fewer groups: residuals scaled by a t with n - p degrees of freedom.
    Raises ValueError where nothing is left to judge the scatter by.
    """
    rng = np.random.default_rng([seed, 1])
    if law.y.ndim == 2:
        mean = draw_mean(law.y)
        # Resampled patients may leave no error at all, and ln 0 is no number.
        curves = mean if resampled is None else np.maximum(resampled, 1e-3 * mean)
        size = replicates if resampled is None else len(resampled)
        # As a factor: the curve stays positive however far it moves.
        moved = np.clip(t_deviations(law.y, size, rng) / mean, -FAR, FAR)
        theta = refit(law, curves * np.exp(moved))
        method = "t over draws" + ("" if resampled is None else ", patients resampled")
    else:
        label = np.arange(len(law.y)) if groups is None else np.asarray(groups)
        _, member = np.unique(label, return_inverse=True)
        m = member.max() + 1
        # Fewer groups than FEW repeat themselves too often to show their own scatter.
        if m >= FEW:
            count = rng.multinomial(m, np.full(m, 1 / m), replicates)[:, member]
            theta = refit(law, np.tile(law.y, (replicates, 1)), count.astype(float))
            method = "groups resampled" if groups is not None else "points resampled"
        else:
            theta = refit(law, around(law, replicates, rng))
            method = "t over residuals"
    return Intervals(law, theta, method, level)


def refit(
    law: Fit, y: Array, weight: Array | None = None, iterations: int = 200
) -> Array:
    """Fit each row of y [replicates, n], from every basin -> theta [replicates, p].

    Here a floor may fall below 0, as noise lets it. Held at 0, replicates of a law
    without a floor all err to one side, and 95% intervals of c cover 86%.
    """
    weights = None if weight is None else [weight]
    return refits([law], [y], weights, iterations)[0]


def refits(
    laws: Sequence[Fit],
    ys: Sequence[Array],
    weights: Sequence[Array] | None = None,
    iterations: int = 200,
) -> list[Array]:
    """`refit` of several laws of one form at the same x, all searched at once."""
    of, basins, sizes = laws[0].objective, [], []
    targets, counts, owners = [], [], []
    for i, (law, y) in enumerate(zip(laws, ys, strict=True)):
        k, n = len(law.basins), len(y)
        # From every basin: noise may make another optimum of the law the best one.
        basins.append(np.tile(law.basins, (n, 1)))
        targets.append(np.repeat(of.link(y), k, axis=0))
        weight = np.ones_like(y) if weights is None else weights[i]
        counts.append(np.repeat(weight, k, axis=0))
        owners.append(np.full(n * k, i))
        sizes.append((n, k))
    floor = np.array([name == "floor" for name in of.form.parameters])
    scale = np.array([law.objective.scale for law in laws])
    high = np.array([law.objective.high for law in laws])
    low = np.where(floor, -high, [law.objective.low for law in laws])
    every = replace(of, scale=scale, low=low, high=high).of(np.concatenate(owners))
    target, weight = np.concatenate(targets), np.concatenate(counts)
    theta, cost = minimise(every, target, weight, np.concatenate(basins), iterations)
    out, ends = [], np.cumsum([n * k for n, k in sizes])[:-1]
    for (n, k), t, c in zip(sizes, np.split(theta, ends), np.split(cost, ends)):
        out.append(t.reshape(n, k, -1)[np.arange(n), c.reshape(n, k).argmin(1)])
    return out


def t_deviations(
    y: Array,
    replicates: int,
    rng: np.random.Generator,
    pooled: Array | None = None,
) -> Array:
    """y [draws, ...] -> t-distributed deviations of its mean [replicates, ...].

    Every linear function of the mean gets exactly its Student t interval with
    draws - 1 degrees of freedom; correlation between the trailing axes is kept.
    `pooled` [...] is the standard deviation of one draw where fewer than FEWEST draws
    are present (NaN y: missing). Without it one draw alone would be without any noise.
    Raises ValueError for one draw.
    """
    if len(y) < 2:
        raise ValueError("one draw gives no interval: repeat it with other seeds")
    present = np.isfinite(y)
    count = present.sum(0)
    # One draw of a scale has the deviation 0 from its own mean: `pooled` replaces it.
    shared = np.maximum(count, 2)
    deviation = np.where(present, y - draw_mean(y), 0.0) / np.sqrt(
        shared * (shared - 1)
    )
    normal = rng.standard_normal((replicates, len(y)))
    # One for all scales of a replicate: whole draws move, as a multivariate t does.
    chi = np.sqrt(rng.chisquare(len(y) - 1, replicates) / (len(y) - 1))
    moved = np.tensordot(normal / chi[:, None], deviation, 1)
    if pooled is None:
        return moved
    shape = (replicates, *count.shape)
    noise = pooled / np.sqrt(np.maximum(count, 1)) * rng.standard_normal(shape)
    noise /= chi.reshape(-1, *[1] * count.ndim)
    return np.where(count < FEWEST, noise, moved)


def smooth_sigma(x: ArrayLike, sigma: ArrayLike) -> Array:
    """Standard deviations [n] -> the same, made a power of x [n], or of each x [n, 2].

    Five draws give a standard deviation to within a factor of two; weights taken from
    it directly make the best-looking point win by luck.
    """
    x, sigma = np.asarray(x, float), np.asarray(sigma, float)
    good = np.isfinite(sigma) & (sigma > 0)
    if not good.any():
        return np.ones_like(sigma)
    columns = np.log(x[:, None] if x.ndim == 1 else x)
    # Centred, since the powers below have no column for the level.
    columns -= columns[good].mean(0)
    target = np.log(sigma[good])
    # the least-norm solution: a scale that does not vary has the power 0
    power = np.linalg.lstsq(columns[good], target - target.mean())[0]
    return np.exp(target.mean() + columns @ power)


def around(law: Fit, replicates: int, rng: np.random.Generator) -> Array:
    """Curves [replicates, n] about a law, by the t of its residuals.

    Raises ValueError where as many parameters as points leave nothing to judge by.
    """
    n, freedom = len(law.objective.x), len(law.objective.x) - len(law.theta)
    if freedom < 1:
        raise ValueError(
            f"bootstrap: {n} points and {len(law.theta)} parameters leave nothing to "
            "judge the scatter by; give draws [draws, n] or more scales"
        )
    x, scale = law.objective.x, law.objective.scale
    observed = law.y if law.y.ndim == 1 else draw_mean(law.y)
    residual = scale * np.log(law.predict(x) / observed)
    sd = np.sqrt(np.sum(residual**2) / freedom)
    # Not residuals drawn again: a few of them are no distribution.
    t = rng.standard_normal((replicates, n))
    t /= np.sqrt(rng.chisquare(freedom, (replicates, 1)) / freedom)
    return law.predict(x) * np.exp(np.clip(sd * t / scale, -FAR, FAR))
