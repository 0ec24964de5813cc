"""The CBR family of Transfusion (1902.07208): convolution, batch norm, ReLU, pool.

Kernels, channels and pools as its appendix states them: stride 1, a 3 x 3 max pool at
stride 2 after each block, then the global average and a linear classifier. The paper
states neither padding nor the constants of batch normalisation: SAME (or
config.model.padding), and Keras's eps 1e-3 and momentum 0.99 with glorot_uniform
kernels. Convolutions have no bias, as none is counted in its table of sizes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bigxfer import config, presets
from bigxfer.models.linen import Head, Linen
from bigxfer.tree import Tree

SIZES = {  # name: (kernel, channels of the blocks, whether the last one pools)
    "cbr_large_t": (7, (32, 64, 128, 256, 512), False),
    "cbr_large_w": (7, (64, 128, 256, 512), True),
    "cbr_small": (7, (32, 64, 128, 256), True),
    # The text says 64 to 512 channels, but the published count, 1,076,480, is that of
    # 32 to 256: both are here.
    "cbr_tiny": (5, (32, 64, 128, 256), True),
    "cbr_tiny_wide": (5, (64, 128, 256, 512), True),
}
BN_EPS, BN_MOMENTUM = 1e-3, 0.99  # keras.layers.BatchNormalization

batch_norm = partial(
    nn.BatchNorm, momentum=BN_MOMENTUM, epsilon=BN_EPS, name="batch_norm"
)
glorot = nn.initializers.glorot_uniform()


class Block(nn.Module):
    channels: int
    kernel: int
    padding: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size = (self.kernel, self.kernel)
        x = nn.Conv(
            self.channels,
            size,
            padding=self.padding,
            use_bias=False,
            kernel_init=glorot,
            dtype=x.dtype,
            name="conv",
        )(x)
        return nn.relu(batch_norm(use_running_average=not train, dtype=x.dtype)(x))


class Cbr(nn.Module):
    kernel: int
    channels: tuple[int, ...]
    last_pools: bool
    padding: str
    classes: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool, hold: Sequence[str]
    ) -> tuple[jax.Array, Tree]:
        # `train`, argument 2 after self and x, picks a branch of Python: no tracer.
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        x, out = images.astype(self.dtype), {}
        for i, channels in enumerate(self.channels, 1):
            name = f"block{i}"
            moves = train and name not in hold
            x = block(channels, self.kernel, self.padding, name=name)(x, moves)
            out[name] = x
            # Flax pads with -inf; after a ReLU a border of zeros would give the same.
            if i < len(self.channels) or self.last_pools:
                x = nn.max_pool(x, (3, 3), (2, 2), self.padding)
        # Without this the mean of no pixels is NaN, and so is every loss.
        if x.size == 0:
            raise ValueError(
                f"images of {images.shape[1:3]} are too small for these blocks without"
                " padding: take a larger config.data.crop, or model.padding=SAME"
            )
        x = out["pre_logits"] = x.mean((1, 2), dtype=jnp.float32)
        out["logits"] = Head(self.classes, name="head")(x)
        return out["logits"], out


def build(cfg: config.Model, classes: int) -> Linen:
    """The CBR net called cfg.name, every channel count times cfg.width.

    ConfigError for a slim_above that is no block.
    """
    kernel, full, last_pools = SIZES[cfg.name]
    blocks = [f"block{i}" for i in range(1, len(full) + 1)]
    factors = presets.slim_factors(cfg, blocks)
    channels = [round(c * cfg.width * f) for c, f in zip(full, factors)]
    net = Cbr(
        kernel,
        tuple(channels),
        last_pools,
        cfg.padding,
        classes,
        jnp.dtype(cfg.dtype),
        cfg.remat,
    )
    return Linen(net, [*blocks, "head"])
