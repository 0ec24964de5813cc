"""Any flax linen net behind the contract of models.Model, with batch norm or without."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bigxfer.models import parts
from bigxfer.tree import Tree


class Head(nn.Module):
    """Linear classifier in float32, zero at the start, as the contract asks."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.initializers.zeros
        return nn.Dense(self.classes, kernel_init=zeros, name="dense")(x)


class Linen:
    """The contract of models.Model around a linen net.

    The net is called as net(images, train, hold) and returns (logits, endpoints);
    images: [n, h, w, 3]. `layers` are the names of its parts in order of depth, the last of
    them "head".
    """

    head = r"head/.*"

    def __init__(self, net: Any, layers: list[str]) -> None:
        self.net, self.names = net, layers
        # jit, so that the forward pass is traced for its shapes but never run
        self.first = jax.jit(net.init, static_argnums=(2, 3))

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
        return dict(self.first(key, jnp.zeros(image_shape), False, ()))

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        # flax refuses an empty collection, which a net without batch norm may be given
        variables = {name: v for name, v in variables.items() if v}
        # Only BiT's stem sums its kernel for gray images; here they become three equal.
        images = parts.alike(images, 3)
        apply = partial(self.net.apply, variables, images, train, tuple(hold))
        if not train:
            return apply()
        if "batch_stats" not in variables:
            return apply(rngs=rngs)
        (logits, out), new = apply(rngs=rngs, mutable=["batch_stats"])
        return logits, {**out, "batch_stats": new["batch_stats"]}

    def layers(self) -> list[str]:
        return self.names
