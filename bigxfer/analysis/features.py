"""What the layers of a finished run's net say of its images.

One forward pass serves all layers, by the same code that predicts (predictor.py).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer.data import augment
from bigxfer.data.loader import Loader
from bigxfer.models import Around, Model
from bigxfer.runs.finished import WithData
from bigxfer.training import sharding
from bigxfer.training.predictor import make_predict
from bigxfer.tree import Tree

Reduce = Callable[[jax.Array], jax.Array]  # an endpoint [n, ...] -> [n, ...]
Extract = Callable[[Tree, np.ndarray], dict[str, np.ndarray]]
NOT_LAYERS = ("logits", "batch_stats")  # of the endpoints


def sample(run: WithData, split: str, most: int) -> np.ndarray:
    """int [n]: at most `most` rows of a split, the same ones every time, sorted."""
    rows = run.data.rows[split]
    if not len(rows):
        raise ValueError(f"{run.folder}: the split {split!r} has no images")
    if len(rows) > most:
        rows = np.random.default_rng(0).choice(rows, most, replace=False)
    return np.sort(rows)


def view(run: WithData, rows: np.ndarray) -> np.ndarray:
    """float32 [n, crop, crop, C] in [-1, 1]: the images as the net sees them."""
    pixels = jnp.asarray(np.asarray(run.data.images[rows]))
    return np.asarray(augment.eval_view(pixels, run.run.data.crop))


def names(model: Model, variables: Tree, image_shape: Sequence[int]) -> list[str]:
    """The endpoints in order of depth, but the logits."""
    endpoints: list[str] = []

    def look(variables: Tree, images: jax.Array) -> None:
        endpoints.extend(model.apply(variables, images, train=False)[1])

    # Traced, not run: only the names are wanted.
    jax.eval_shape(look, variables, jax.ShapeDtypeStruct(tuple(image_shape), "f4"))
    return [name for name in endpoints if name not in NOT_LAYERS]


def pooled(endpoint: jax.Array) -> jax.Array:
    """[n, c]: maps [n, h, w, c] averaged over height and width; others as they are."""
    return endpoint.mean((1, 2)) if endpoint.ndim == 4 else endpoint


def thinned(side: int) -> Reduce:
    """Every n-th row and column of maps, so that at most `side` of each stay."""

    def reduce(endpoint: jax.Array) -> jax.Array:
        if endpoint.ndim != 4:
            return endpoint
        step = max(-(-length // side) for length in endpoint.shape[1:3])
        return endpoint[:, ::step, ::step]

    return reduce


class Endpoints(Around):
    """A model whose logits are the endpoints, side by side, for predictor.make_predict."""

    def __init__(self, model: Model, names: Sequence[str], reduce: Reduce) -> None:
        super().__init__(model)
        self.names, self.reduce = names, reduce

    def parts(self, variables: Tree, images: jax.Array) -> list[jax.Array]:
        _, out = self.model.apply(variables, images, train=False)
        # Reduced in the program, so that no whole maps leave the device.
        return [self.reduce(out[name]).astype(jnp.float32) for name in self.names]

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        del train, rngs, hold
        reduced = self.parts(variables, images)
        # One array, since predict gathers one output; `extract` cuts it apart.
        flat = [values.reshape(len(values), -1) for values in reduced]
        return jnp.concatenate(flat, axis=1), {}


def extractor(
    run: WithData, reduce: Reduce = pooled, only: Sequence[str] = ()
) -> Extract:
    """extract(variables, rows) -> {endpoint: float32 [n, ...]}, rows in their order.

    All endpoints in order of depth, or those of `only` (ValueError for an unknown
    one). Compiled once: other variables, such as those at the start, cost no more.
    """
    every = names(run.model, run.variables, run.image_shape)
    if unknown := [name for name in only if name not in every]:
        raise ValueError(f"no endpoint {unknown[0]!r}; the model has {every}")
    net = Endpoints(run.model, list(only) or every, reduce)
    mesh = sharding.make(1, run.run.eval.batch)
    predict = make_predict(net, run.run, mesh)
    image = jax.ShapeDtypeStruct(run.image_shape, "f4")
    shapes = [s.shape[1:] for s in jax.eval_shape(net.parts, run.variables, image)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def extract(variables: Tree, rows: np.ndarray) -> dict[str, np.ndarray]:
        data, batch = run.data, run.run.eval.batch
        # Seed 0: evaluation goes through the rows in their order, and draws nothing.
        loader = Loader(data.images, data.manifest.labels, rows, batch, 0)
        _, values = predict(variables, loader)
        by_layer = np.split(values, ends, axis=1)
        return {
            name: layer.reshape(-1, *shape)
            for name, layer, shape in zip(net.names, by_layer, shapes, strict=True)
        }

    return extract


def predictor(run: WithData) -> Callable[[Tree, np.ndarray], np.ndarray]:
    """logits(variables, rows) -> float64 [n, classes], rows in their order."""
    batch = run.run.eval.batch
    predict = make_predict(run.model, run.run, sharding.make(1, batch))

    def logits(variables: Tree, rows: np.ndarray) -> np.ndarray:
        data = run.data
        loader = Loader(data.images, data.manifest.labels, rows, batch, 0)
        return predict(variables, loader)[1].astype(np.float64)

    return logits
