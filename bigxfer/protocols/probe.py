"""A linear probe of a net: what its head sees, and where a fitted head goes.

Features are the pre_logits of the evaluation view, without augmentation: the net below
the head stays as it starts, so one forward pass of each image is all that it costs. The
heads themselves are in heads.py.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from bigxfer import tree
from bigxfer.models import Around
from bigxfer.tree import Tree

Head = tuple[np.ndarray, np.ndarray]  # kernel [features, classes], bias [classes]


class Headless(Around):
    """A model whose logits are its pre_logits, for evaluate.make_predict."""

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        _, out = self.model.apply(variables, images, train, rngs, hold)
        return out["pre_logits"], out


def put(params: Tree, pattern: str, head: Head) -> Tree:
    """`params` with this head: the kernel and bias that `pattern` names.

    Each keeps its place on the devices. ValueError where the sizes do not fit.
    """
    flat, values = tree.flatten(params), {"kernel": head[0], "bias": head[1]}
    # Reshaped: BiT's head is a 1 x 1 convolution, the others' a matrix.
    for name in tree.names(tree.take(params, pattern)):
        old = flat[name]
        new = values[name.rpartition("/")[2]].reshape(old.shape)
        # Each process fills its own shards: the kernel may lie across devices (fsdp).
        flat[name] = jax.make_array_from_callback(
            old.shape, old.sharding, lambda index, new=new: new[index]
        )
    return tree.unflatten(flat)
