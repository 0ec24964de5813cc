"""The space that the images of one draw span, in which every head is fitted.

Features are centred by the mean of the draw and divided by one number, so that its images
have a mean square length of 1. Where the images are fewer than the dimensions, all of
this follows from dot products: one Gram matrix an upstream serves all draws, and the
eigenvectors of a draw's share of it serve all penalties and classes. Otherwise the
eigenvectors are those of the covariance. Scaling each feature by itself would need
another Gram matrix for each draw.
"""

from dataclasses import dataclass

import numpy as np

# training images at most, of which all dot products are computed: 16 kB an image
POOL = 4096
RANK = 1e-6  # directions of less than this share of the largest variance are rounding


@dataclass(frozen=True)
class Space:
    """r orthogonal directions of m training images, in descending order of variance."""

    train: np.ndarray  # float64 [m, r]: coordinates of the training images
    basis: np.ndarray  # float64: what `others` are multiplied by to have coordinates
    others: np.ndarray  # float32 [m or d, n]: the images to score, centred and scaled
    to_features: np.ndarray  # float32: basis.T @ this is the directions in features
    mean: np.ndarray  # float32 [d]: of the draw
    scale: float  # root mean square length of the draw about its mean

    def scores(self, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return float32 [heads, n, k] of weights [heads, r, k] and bias [heads, k]."""
        heads, r, k = weights.shape
        flat = weights.transpose(0, 2, 1).reshape(heads * k, r) @ self.basis.T
        out = (flat.astype(np.float32) @ self.others).reshape(heads, k, -1)
        out += bias[:, :, None].astype(np.float32)
        return out.transpose(0, 2, 1)

    def coordinates(self) -> np.ndarray:
        """Return those of the images to score, float64 [n, r]."""
        return self.others.T.astype(np.float64) @ self.basis

    def head(
        self, weights: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (kernel [d, k], bias [k]) for features as they are, of one head."""
        inner = (self.basis @ weights).astype(np.float32)
        kernel = (self.to_features.T @ inner) / self.scale
        return kernel.astype(np.float32), (bias - self.mean @ kernel).astype(np.float32)


class Products:
    """Dot products of the images of an upstream; each Space takes its rows of them."""

    def __init__(self, features: np.ndarray, pool: int = 0) -> None:
        """features: float32 [n, d] of all images; the first `pool` of them may train.

        The mean of the pool is taken away first: it changes no centred product, and a
        float32 keeps more of what is left. Of more than POOL images, or without a pool,
        products are computed draw by draw.
        """
        centre = features[: pool or None].mean(0, dtype=np.float64).astype(np.float32)
        self.x, self.centre = np.ascontiguousarray(features - centre), centre
        self.gram: np.ndarray | None = None
        if 0 < pool <= POOL:
            first, others = self.x[:pool], self.x[pool:]
            self.gram = np.concatenate([first @ first.T, first @ others.T], axis=1)

    def between(self, train: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return float32 [len(train), len(rows)]."""
        if self.gram is None or train.max() >= len(self.gram):
            return self.x[train] @ self.x[rows].T
        first, last = rows[0], rows[-1] + 1
        if last - first == len(rows) and (np.diff(rows) == 1).all():  # a copy is faster
            return self.gram[train, first:last]
        return self.gram[train[:, None], rows]

    def space(self, train: np.ndarray, others: np.ndarray) -> Space:
        """Return the space of the rows `train`, in which the rows `others` are scored."""
        m, d = len(train), self.x.shape[1]
        if m > min(d, POOL):
            return self._of_covariance(train, others)
        # float64: centring takes differences of these products.
        inner = self.between(train, train).astype(np.float64)
        by_image, whole = inner.mean(0), inner.mean()
        # The products of centred images, without touching their d features.
        centred = inner - by_image - by_image[:, None] + whole
        scale = _scale(np.trace(centred) / m)
        values, vectors = np.linalg.eigh(centred / scale**2)
        # eigh ascends. Centring always leaves one direction of 0; images that are all
        # alike leave nothing else, which the second RANK is for.
        kept = np.flatnonzero(values > RANK * max(values[-1], RANK))[::-1]
        root, vectors = np.sqrt(values[kept]), vectors[:, kept]
        cross = self.between(train, others)
        # The same centring of the products with the images to score, in two steps.
        cross -= cross.mean(0)
        cross -= (by_image - whole).astype(np.float32)[:, None]
        cross *= np.float32(1 / scale**2)
        to_features = self.x[train]
        mean = to_features.mean(0)
        to_features -= mean
        to_features /= np.float32(scale)
        mean += self.centre
        basis = vectors / root
        return Space(vectors * root, basis, cross, to_features, mean, scale)

    def _of_covariance(self, train: np.ndarray, others: np.ndarray) -> Space:
        x = self.x[train].astype(np.float64)
        mean = x.mean(0)
        x -= mean
        scale = _scale(np.square(x).sum() / len(x))
        x /= scale
        values, vectors = np.linalg.eigh(x.T @ x)
        kept = np.flatnonzero(values > RANK * max(values[-1], RANK))[::-1]
        basis = vectors[:, kept]
        scored = ((self.x[others] - mean) / scale).astype(np.float32).T
        centre = (mean + self.centre).astype(np.float32)
        identity = np.eye(len(mean), dtype=np.float32)
        return Space(x @ basis, basis, scored, identity, centre, scale)


def _scale(square: float) -> float:
    """The root of a mean square; 1 where all images are alike."""
    return float(np.sqrt(square)) if square > 1e-12 else 1.0
