"""What a training reads: its batches, their shapes, and where the images lie.

data.resident=True: every device holds its share of the training images (uint8), and the
step gathers those of the batch by index. Between hosts and devices then go indices and
labels only. The batches are the same, to the bit, as those from the host.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bigxfer.config import Run
from bigxfer.data.dataset import Dataset
from bigxfer.data.loader import Batch, Loader
from bigxfer.training import sharding

Shapes = dict[str, jax.ShapeDtypeStruct]


class Feed:
    """Batches whose images come from the host at every step."""

    def __init__(self, loader: Loader, mesh: Mesh) -> None:
        self.loader, self.mesh = loader, mesh

    @property
    def shapes(self) -> Shapes:
        """What the compiled step takes: global arrays, spread over the devices."""
        loader, size = self.loader, self.loader.batch_size
        forms = {
            "images": ((size, *loader.images.shape[1:]), np.uint8),
            "labels": ((size, *loader.labels.shape[1:]), loader.labels.dtype),
            "mask": ((size,), np.float32),
            "index": ((size,), np.int32),
            "position": ((size,), np.int32),
        }
        place = sharding.batch(self.mesh)
        # The dtypes as jax will hold them: without x64 int64 arrives as int32.
        return {
            name: jax.ShapeDtypeStruct(
                shape, jax.dtypes.canonicalize_dtype(dtype), sharding=place
            )
            for name, (shape, dtype) in forms.items()
        }

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of a step, on the host."""
        return self.loader.batch(step)

    def place(self, batch: Batch) -> dict[str, jax.Array]:
        """Join the shares of all processes into the arrays that `shapes` describes."""
        return sharding.to_global(self.mesh, batch)

    def wrap(self, step: Callable) -> Callable:
        """Turn a step for batches with images into one for these batches."""
        return step


class Resident(Feed):
    """Batches that hold places in a pool of images, which lies on the devices."""

    def __init__(self, loader: Loader, mesh: Mesh) -> None:
        super().__init__(loader, mesh)
        self.rows = np.sort(loader.rows)  # the order of the pool
        count = -(-len(loader) // mesh.size) * mesh.size  # every device has as many
        self.shape = (count, *loader.images.shape[1:])

    @property
    def shapes(self) -> Shapes:
        """`place` and the pool in place of the images."""
        shapes, place = super().shapes, sharding.batch(self.mesh)
        del shapes["images"]
        pool = jax.ShapeDtypeStruct(self.shape, jnp.uint8, sharding=place)
        return {**shapes, "place": shapes["index"], "pool": pool}

    @cached_property
    def pool(self) -> jax.Array:
        """uint8 [n, S, S, C], read once; what fills up the last device is 0."""

        def read(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(self.shape[0])
            out = np.zeros((stop - start, *self.shape[1:]), np.uint8)
            rows = self.rows[start:stop]
            for at in range(0, len(rows), 256):  # encoded sets decode a block at a time
                block = rows[at : at + 256]
                out[at : at + len(block)] = self.loader.images[block]
            return out

        place = sharding.batch(self.mesh)
        return jax.make_array_from_callback(self.shape, place, read)

    def batch(self, step: int) -> Batch:
        """The loader's batch with `place` int32 [b], rows of the pool, for the images."""
        index, position = self.loader.order_of(step)
        # Every row of a batch is in the pool, so the place found is its own.
        place = np.searchsorted(self.rows, index).astype(np.int32)
        mask = np.ones(len(index), np.float32)
        return {**self.loader.about(index, position, mask), "place": place}

    def place(self, batch: Batch) -> dict[str, jax.Array]:
        return {"pool": self.pool, **super().place(batch)}

    def wrap(self, step: Callable) -> Callable:
        def whole(state: Any, batch: dict) -> tuple[Any, dict]:
            others = {k: v for k, v in batch.items() if k not in ("pool", "place")}
            images = batch["pool"][batch["place"]]
            # From here on the program is that of images from the host.
            images = jax.lax.with_sharding_constraint(images, sharding.batch(self.mesh))
            return step(state, {**others, "images": images})

        return whole


def loader(data: Dataset, split: str, run: Run) -> Loader:
    """This process's share of a split, in batches of optim.batch."""
    process, processes = jax.process_index(), jax.process_count()
    return data.loader(split, run.optim.batch, run.seed, process, processes)


def of(loader: Loader, mesh: Mesh, resident: bool) -> Feed:
    """The feed of a training set; `resident` is config.data.resident."""
    return Resident(loader, mesh) if resident else Feed(loader, mesh)
