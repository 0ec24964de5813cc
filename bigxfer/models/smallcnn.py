"""SmallCNN of the PyData 2019 study of transfer to medical images (Kierzynka et al.).

4 x [7 x 7 convolution, ReLU, batch norm, 2 x 2 max pool] of 32, 64, 128, 256 channels,
global average, dense, ReLU, dropout, dense. Without the dense layers it has the
2,114,496 numbers of the talk's slide. The slide states neither the width of the dense
layer nor the dropout: config.model.hidden and dropout.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bigxfer import config, presets
from bigxfer.models.cbr import batch_norm, glorot
from bigxfer.models.linen import Head, Linen
from bigxfer.tree import Tree

CHANNELS = (32, 64, 128, 256)


class Block(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        # With a bias, unlike CBR: the slide's 2,114,496 numbers count it.
        conv = nn.Conv(
            self.channels, (7, 7), kernel_init=glorot, dtype=x.dtype, name="conv"
        )
        x = nn.relu(conv(x))  # before batch norm, as on the slide
        return batch_norm(use_running_average=not train, dtype=x.dtype)(x)


class SmallCnn(nn.Module):
    channels: tuple[int, ...]
    hidden: int
    dropout: float
    classes: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, hold: Sequence[str]
    ) -> tuple[jax.Array, Tree]:
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        x, out = images.astype(self.dtype), {}
        for i, channels in enumerate(self.channels, 1):
            name = f"block{i}"
            x = block(channels, name=name)(x, train and name not in hold)
            out[name] = x
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.mean((1, 2), dtype=jnp.float32)
        x = nn.relu(nn.Dense(self.hidden, kernel_init=glorot, name="dense")(x))
        # Before dropout: a fitted head sees the same features at every call.
        out["pre_logits"] = x
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        out["logits"] = Head(self.classes, name="head")(x)
        return out["logits"], out


def build(cfg: config.Model, classes: int) -> Linen:
    """SmallCNN, the channels of its blocks times cfg.width.

    ConfigError for a slim_above that is no block.
    """
    blocks = [f"block{i}" for i in range(1, len(CHANNELS) + 1)]
    factors = presets.slim_factors(cfg, blocks)
    # Of the blocks alone: the slide's dense layer is config.model.hidden.
    channels = [round(c * cfg.width * f) for c, f in zip(CHANNELS, factors)]
    net = SmallCnn(
        tuple(channels),
        cfg.hidden,
        cfg.dropout,
        classes,
        jnp.dtype(cfg.dtype),
        cfg.remat,
    )
    return Linen(net, [*blocks, "dense", "head"])
