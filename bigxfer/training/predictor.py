"""Predictions of a model on a split, every row exactly once on any number of devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from bigxfer.config import Run
from bigxfer.data import augment
from bigxfer.data.loader import Loader
from bigxfer.models import Model
from bigxfer.training import memory, sharding
from bigxfer.tree import Tree

Predict = Callable[[Tree, Loader], tuple[np.ndarray, np.ndarray]]


def make_predict(model: Model, run: Run, mesh: Mesh) -> Predict:
    """predict(variables, loader) -> (rows int [n], logits float32 [n, classes]).

    Every row of the loader exactly once, on any number of devices.
    """
    replicated = sharding.replicated(mesh)

    def forward(variables: Tree, images: jax.Array) -> jax.Array:
        view = augment.eval_view(images, run.data.crop)
        return model.apply(variables, view, train=False)[0]

    # Replicated, so that every process can judge, and to_host has nothing to gather.
    compiled = jax.jit(forward, out_shardings=replicated)
    size = images_at_once(run, mesh)

    def predict(variables: Tree, loader: Loader) -> tuple[np.ndarray, np.ndarray]:
        rows, logits = [], []
        for batch in loader.eval_batches(size):
            batch = sharding.to_global(mesh, batch)
            out = compiled(variables, batch["images"])
            index, mask, out = sharding.to_host((batch["index"], batch["mask"], out))
            # The last batch is padded, so that all have one shape and one program.
            rows.append(index[mask > 0])
            logits.append(out[mask > 0])
        return np.concatenate(rows), np.concatenate(logits)

    return predict


def images_at_once(run: Run, mesh: Mesh) -> int:
    """run.eval.batch, on a CPU at most half a million pixels a device, rounded up to the
    devices, each of which gets as many images."""
    most = run.eval.batch
    # R50x1 at 224 px takes as long an image in parts of 8 as of 128, and a third of the
    # memory (NOTES.md, fifth round).
    if mesh.devices.flat[0].platform == "cpu":
        most = min(most, max(1, memory.PIXELS // run.data.crop**2) * mesh.size)
    return -(-most // mesh.size) * mesh.size
