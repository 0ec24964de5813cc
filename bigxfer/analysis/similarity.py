"""How alike two representations are: SVCCA, PWCCA, linear CKA and its debiased form.

A representation is a matrix [n, p] of n datapoints by p neurons, as in the papers
(theirs are transposed); rows of the two sides belong to the same datapoints. All of it
is numpy in float64.

Convolutional maps [n, h, w, c] become matrices in one of three ways; the channels are
the neurons (google/svcca, tutorial 002) but in the last:

| how | matrix | for |
|---|---|---|
| `fold` | [n h w, c] | CCA of maps of one spatial size; a stride thins the points out |
| `pool` | [n, c] | CCA of maps of different sizes: means over height and width |
| `flat` | [n, h w c] | CKA, which may have more neurons than datapoints |

CCA of few datapoints is close to 1 whatever the data, so it has to be read beside the
`baseline` of Gaussian noise; five to ten datapoints for a neuron is the usual rule.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

VARIANCE = 0.99  # that SVCCA keeps: Raghu et al. 2017 (1706.05806), section 2.1
RANK = 1e-6  # of the largest singular value; what float32 leaves of nothing is below

Measure = Callable[[np.ndarray, np.ndarray], float]


def fold(maps: np.ndarray, stride: int = 1) -> np.ndarray:
    """[n h' w', c] of maps [n, h, w, c], every stride-th row and column of them."""
    thin = maps[:, ::stride, ::stride]
    return thin.reshape(-1, maps.shape[-1])


def pool(maps: np.ndarray) -> np.ndarray:
    """[n, c]: the means of maps [n, h, w, c] over height and width."""
    return maps.mean(axis=(1, 2))


def flat(maps: np.ndarray) -> np.ndarray:
    """[n, h w c] of maps [n, h, w, c]."""
    return maps.reshape(len(maps), -1)


def mean_cca(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of the canonical correlations, as `cca` has them."""
    return float(cca(x, y)[0].mean())


def cca(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the min(ranks) canonical correlations, falling; the variates [n, k] of x).

    x: [n, p], y: [n, q]. Neurons that are constant, or sums of others, count for
    nothing. The mean of all correlations is what papers report; google/svcca's field
    "mean" is that of the leading ones alone.
    Raises ValueError where the ranks of the two together reach n: then some
    correlation is 1 by counting, and nothing is known.
    """
    return correlate(*both(x, y))


def correlate(qx: np.ndarray, qy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`cca` of two orthonormal bases, of columns centred (Bjorck & Golub 1973)."""
    left, rho, _ = np.linalg.svd(qx.T @ qy, full_matrices=False)
    # Rounding can bring a correlation of 1 above it.
    return np.clip(rho, 0, 1), qx @ left


def both(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `basis` of each side; raises ValueError as `cca`."""
    x, y = checked(x, y)
    qx, qy = basis(x), basis(y)
    n, ranks = len(x), (qx.shape[1], qy.shape[1])
    if not all(ranks):
        side = "first" if not ranks[0] else "second"
        raise ValueError(f"the {side} representation is constant: nothing correlates")
    if n <= sum(ranks):
        raise ValueError(
            f"{n} datapoints are too few for CCA of {ranks[0]} and {ranks[1]} neurons"
            f" (ranks): more than {sum(ranks)} are needed, {5 * max(ranks)} or more"
            " are wise. Take more images, fold the maps, pool fewer layers, or use"
            " CKA."
        )
    return qx, qy


def checked(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 of both; ValueError unless they are finite matrices of equal length."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            f"representations of shapes {x.shape} and {y.shape}: [n, p] and [n, q] of"
            " the same n datapoints are needed (fold, pool or flat makes them of maps)"
        )
    for name, value in (("first", x), ("second", y)):
        if not np.isfinite(value).all():
            raise ValueError(f"the {name} representation is not finite")
    return x, y


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0)


def basis(x: np.ndarray) -> np.ndarray:
    """Orthonormal [n, rank]: what the centred columns of x [n, p] span."""
    moving, length = centred(x), np.linalg.norm(x, axis=0)
    norm = np.linalg.norm(moving, axis=0)
    alive = norm > RANK * length  # what varies by less of its mean is constant
    # At length 1, so that a faint neuron counts as much as a strong one, as in CCA.
    left, s, _ = np.linalg.svd(moving[:, alive] / norm[alive], full_matrices=False)
    return left[:, s > RANK * s.max(initial=0)]


def svcca(x: np.ndarray, y: np.ndarray, keep: float = VARIANCE) -> float:
    """The mean canonical correlation of the leading singular directions of each side.

    keep: a fraction below 1 keeps the fewest directions that hold so much of the
    variance (the sum of *squared* singular values, the paper's; anatome sums the
    values themselves), an integer of 1 or more that many. Not invariant to affine maps:
    what is cut off depends on scale. Raises ValueError as `cca`.
    """
    return mean_cca(*(leading(side, keep) for side in checked(x, y)))


def leading(x: np.ndarray, keep: float) -> np.ndarray:
    """[n, k]: x [n, p], centred, in its leading singular directions."""
    left, s, _ = np.linalg.svd(centred(x), full_matrices=False)
    k = int(keep)
    if keep < 1:
        # tiny: a constant representation is left to `both`, which names it.
        share = np.cumsum(s**2) / max((s**2).sum(), np.finfo(float).tiny)
        # The sum of all shares can round to just below what is to be kept.
        k = int(np.searchsorted(share, keep - 1e-12)) + 1
    return left[:, :k] * s[:k]


def pwcca(x: np.ndarray, y: np.ndarray) -> float:
    """Canonical correlations weighted by how much of x each variate accounts for.

    Morcos et al. 2018 (1806.05759), section 3: alpha_i = sum over neurons j of
    |<h_i, x_j>| with h_i the canonical variates of x and x_j its centred neurons.
    google/svcca's code takes other vectors for h_i and does not centre. Not symmetric;
    invariant to invertible affine maps of y but not of x, whose neurons are the
    weights. Raises ValueError as `cca`.
    """
    rho, variates = cca(x, y)
    alpha = abs(variates.T @ centred(np.asarray(x, np.float64))).sum(axis=1)
    return float(rho @ alpha / alpha.sum())


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA of Kornblith et al. 2019 (1905.00414), section 3; in [0, 1].

    Invariant to rotations and to one scale for all neurons, not to affine maps. Biased
    upwards where datapoints are few: see `debiased_cka`. ValueError where one side is
    constant.
    """
    x, y = (centred(side) for side in checked(x, y))
    if x.shape[1] + y.shape[1] <= 2 * len(x):  # by whichever products are smaller
        cross, xx, yy = x.T @ y, x.T @ x, y.T @ y
        above = (cross**2).sum()
    else:
        xx, yy = x @ x.T, y @ y.T
        above = (xx * yy).sum()
    below = np.linalg.norm(xx) * np.linalg.norm(yy)
    if not below > 0:
        raise ValueError("a constant representation has no CKA")
    return float(above / below)


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear CKA with the unbiased HSIC of Song et al. 2012; near 0 for noise."""
    return float(minibatch_cka([([x], [y])])[0, 0])


Batch = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]


def minibatch_cka(batches: Iterable[Batch]) -> np.ndarray:
    """[layers of a, layers of b]: debiased linear CKA, one batch in memory at a time.

    batches: for each batch the representations ([b, p_i] of each layer of a, [b, q_j]
    of each layer of b) of the same b datapoints. The unbiased HSICs are summed over
    batches and divided at the end: Nguyen et al. 2021 (2010.15327), section 3. Raises
    ValueError for batches of fewer than 4 and where a layer is constant.
    """
    cross, self_a, self_b = 0.0, 0.0, 0.0
    for a, b in batches:
        k, m = grams(a), grams(b)
        cross = cross + hsic(k, m)
        self_a = self_a + np.diag(hsic(k, k))
        self_b = self_b + np.diag(hsic(m, m))
    below = np.multiply.outer(self_a, self_b)
    if not np.all(below > 0):
        raise ValueError(
            "no batch, or a layer whose debiased HSIC with itself is not positive: it"
            " is constant, or the datapoints are too few"
        )
    return np.asarray(cross / np.sqrt(below))


def grams(layers: Sequence[np.ndarray]) -> np.ndarray:
    """float64 [l, b, b]: the products of datapoints in each layer, diagonal 0."""
    products = []
    for x in layers:
        x, _ = checked(x, x)
        x = centred(x)  # HSIC does not change by it, and rounds less
        products.append(x @ x.T)
    out = np.stack(products)
    if (b := out.shape[1]) < 4:
        raise ValueError(f"debiased CKA needs 4 datapoints or more a batch, not {b}")
    out[:, np.arange(b), np.arange(b)] = 0
    return out


def hsic(k: np.ndarray, m: np.ndarray) -> np.ndarray:
    """[i, j]: the unbiased HSIC of Gram matrices k [i, b, b] and m [j, b, b].

    Song et al. 2012 (JMLR 13), equation 5; the diagonals have to be 0.
    """
    b = k.shape[1]
    trace = k.reshape(len(k), -1) @ m.reshape(len(m), -1).T
    total = np.multiply.outer(k.sum(axis=(1, 2)), m.sum(axis=(1, 2)))
    rows = k.sum(axis=1) @ m.sum(axis=1).T
    unbiased = trace + total / ((b - 1) * (b - 2)) - 2 / (b - 2) * rows
    return unbiased / (b * (b - 3))


def baseline(measure: Measure, x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    """The measure of two Gaussian noises of the shapes of x [n, p] and y [n, q].

    What is no higher than this says nothing. Raises as the measure.
    """
    rng = np.random.default_rng(seed)
    return measure(rng.normal(size=np.shape(x)), rng.normal(size=np.shape(y)))
