"""Training images that lie on the devices, for a set that fits there.

data.resident=True: every device holds its share of the training images (uint8), and the
step gathers those of the batch by index. Between hosts and devices then go indices and
labels only. The batches are the same, to the bit, as those of the plain loader.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bigxfer.data.loader import Batch, Loader
from bigxfer.training import sharding


class Resident:
    """A loader whose batches hold places in `constant`'s pool in place of images."""

    def __init__(self, loader: Loader, mesh: Mesh) -> None:
        self.loader = loader
        self.rows = np.sort(loader.rows)  # the order of the pool
        shape = shape_of(len(self.rows), loader, mesh)

        def read(index: Any) -> np.ndarray:
            return self.read(index[0], shape)

        place = sharding.batch(mesh)
        self.constant = {"pool": jax.make_array_from_callback(shape, place, read)}

    def read(self, part: slice, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 [n, S, S, C]: the images of a device; what fills up the last is 0."""
        start, stop, _ = part.indices(shape[0])
        out = np.zeros((stop - start, *shape[1:]), np.uint8)
        rows = self.rows[start:stop]
        for at in range(0, len(rows), 256):  # encoded sets decode a block at a time
            block = rows[at : at + 256]
            out[at : at + len(block)] = self.loader.images[block]
        return out

    def batch(self, step: int) -> Batch:
        """As Loader.batch, with `place` int32 [b], rows of the pool, for the images."""
        index, position = self.loader.order_of(step)
        place = np.searchsorted(self.rows, index).astype(np.int32)
        mask = np.ones(len(index), np.float32)
        return {**self.loader.about(index, position, mask), "place": place}


def shape_of(count: int, loader: Loader, mesh: Mesh) -> tuple[int, ...]:
    """[n, S, S, C] of a pool of so many images, n a multiple of the devices."""
    return (-(-count // mesh.size) * mesh.size, *loader.images.shape[1:])


def taking(step: Callable, mesh: Mesh) -> Callable:
    """A step for batches of `pool` and `place`, from one for batches of images."""

    def whole(state: Any, batch: dict) -> tuple[Any, dict]:
        rest = {k: v for k, v in batch.items() if k not in ("pool", "place")}
        images = batch["pool"][batch["place"]]
        images = jax.lax.with_sharding_constraint(images, sharding.batch(mesh))
        return step(state, {**rest, "images": images})

    return whole
