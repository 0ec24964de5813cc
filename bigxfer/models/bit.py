"""BiT: the ResNet-v2 of Big Transfer (1912.11370), any depth and width.

Group normalisation, weight standardisation and the parameter names are those of
the published npz files (google-research/big_transfer bit_jax/models.py).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging
from jax import lax

from bigxfer import config, presets, tree
from bigxfer.models import parts
from bigxfer.tree import Tree

HEAD = r"head/.*"
DRAWN_AT_ONCE = 2**18  # random numbers: 1 MB, of the 3.7 GB of R152x4


@dataclass(frozen=True)
class Groups:
    """How many groups a norm has: what config.model.groups and narrow say.

    narrow: "fewer", which "" also computes, gives the most groups up to `most` that
    divide the channels and leave 2 or more in each; one channel a group would be
    instance normalisation, another method. "same" gives `most` groups to every norm, as
    timm's and BiT's own code do. The two differ below 2 x `most` channels: with 32
    groups in nets of width below 1.
    """

    most: int
    narrow: str = ""

    def of(self, channels: int) -> int:
        """The groups of a norm; ConfigError where `same` cannot be."""
        if self.narrow != "same":
            groups = range(1, self.most + 1)
            fits = [g for g in groups if channels % g == 0 and channels >= 2 * g]
            return max(fits, default=1)
        if channels % self.most:
            raise config.ConfigError(
                f"config.model.narrow=same: {channels} channels do not divide into"
                f" config.model.groups={self.most}; take groups that divide every"
                " width, or narrow=fewer"
            )
        return self.most


class StdKernel(nn.Module):
    """A standardised convolution kernel, HWIO."""

    shape: tuple[int, int, int, int]

    @nn.compact
    def __call__(self, dtype: Any) -> jax.Array:
        # zeros stand in for the numbers that `random_kernels` draws
        kernel = self.param("kernel", nn.initializers.zeros, self.shape)
        return parts.standardize(kernel).astype(dtype)


class StdConv(nn.Module):
    """Convolution with a standardised kernel, no bias: the stem and the shortcuts."""

    channels: int  # of its input, but a grey image may have one for three
    features: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, self.channels, self.features)
        kernel = StdKernel(shape, name="standardized_conv2d")(x.dtype)
        return parts.conv(x, kernel, self.stride)


class GroupNormRelu(nn.Module):
    groups: Groups

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        beta = self.param("beta", nn.initializers.zeros, (channels,))
        return parts.group_norm_relu(x, gamma, beta, self.groups.of(channels))


class Layer(nn.Module):
    """Norm, ReLU, convolution: a, b or c of a unit.

    Returns the unit's shortcut as well: x, or with `project` a 1 x 1 convolution
    of the same normalised input to that many channels, at the unit's stride.
    """

    features: int
    groups: Groups
    size: int = 1
    stride: int = 1
    project: int = 0
    project_stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = GroupNormRelu(self.groups, name="group_norm")(x)
        if self.project:
            width, stride = h.shape[-1], self.project_stride
            x = StdConv(width, self.project, 1, stride, name="proj")(h)
        shape = (self.size, self.size, h.shape[-1], self.features)
        kernel = StdKernel(shape, name="standardized_conv2d")(h.dtype)
        return parts.conv(h, kernel, self.stride), x


class Unit(nn.Module):
    """Pre-activation bottleneck; the stride sits on the 3 x 3 convolution."""

    width: int
    stride: int
    groups: Groups

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        out, g = 4 * self.width, self.groups
        # The projection takes the normalised input, not x: so do the published weights.
        project = out if self.stride != 1 or x.shape[-1] != out else 0
        y, shortcut = Layer(
            self.width, g, project=project, project_stride=self.stride, name="a"
        )(x)
        # Strided here, as published: a strided 1 x 1 would skip three of four pixels.
        y, _ = Layer(self.width, g, size=3, stride=self.stride, name="b")(y)
        y, _ = Layer(out, g, name="c")(y)
        return y + shortcut


class Block(nn.Module):
    """A stage of units. The first unit halves the image, except in stage 1."""

    unit: Any
    units: int
    width: int
    halve: bool
    groups: Groups

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.units):
            stride = 2 if self.halve and i == 0 else 1
            x = self.unit(self.width, stride, self.groups, name=f"unit{i + 1:02d}")(x)
        return x


class Head(nn.Module):
    """Linear classifier, stored as a 1 x 1 convolution; zero at the start (BiT)."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.initializers.zeros
        # The name and the shape [1, 1, features, classes] are those of BiT's files.
        dense = nn.Conv(self.classes, (1, 1), kernel_init=zeros, name="conv2d")
        return dense(x[:, None, None])[:, 0, 0]


class ResNet(nn.Module):
    blocks: tuple[int, ...]
    widths: tuple[int, ...]  # channels inside the units of each stage
    groups: Groups
    classes: int
    dtype: Any
    remat: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, Tree]:
        # jit: units alike are traced once. R152 has 36 in a row, and jit within jit
        # changes nothing else: XLA gets all of it in one piece.
        unit = nn.jit(nn.remat(Unit) if self.remat else Unit)
        x = images.astype(self.dtype)
        out = {"stem": StdConv(3, self.widths[0], 7, 2, name="root_block")(x)}
        x = parts.max_pool(out["stem"])
        for stage, (units, width) in enumerate(zip(self.blocks, self.widths)):
            name = f"block{stage + 1}"
            x = Block(unit, units, width, stage > 0, self.groups, name=name)(x)
            out[name] = x
        # An endpoint of its own for Grad-CAM: before this norm an offset that it takes
        # away may lead the map.
        x = out["group_norm"] = GroupNormRelu(self.groups, name="group_norm")(x)
        # float32 in a bfloat16 net too: BiT's head and its logits are.
        x = out["pre_logits"] = x.mean((1, 2), dtype=jnp.float32)
        out["logits"] = Head(self.classes, name="head")(x)
        return out["logits"], out


@jax.jit
def random_kernels(key: jax.Array, params: Tree) -> Tree:
    """`params` with all standardised kernels drawn anew: lecun_normal, as big_vision.

    A normal of variance 1 / fan-in cut at 2 standard deviations (big_vision
    models/bit_paper.py, flax's default).
    """
    flat = tree.flatten(params)
    # Sorted, so that a seed gives the same weights in whatever order flax names them.
    names = [n for n in sorted(flat) if n.endswith("standardized_conv2d/kernel")]
    sizes = [flat[n].size for n in names]
    keys = jax.random.split(key, -(-sum(sizes) // DRAWN_AT_ONCE))

    def piece(key: jax.Array) -> jax.Array:
        normal = jax.random.truncated_normal(key, -2.0, 2.0, (DRAWN_AT_ONCE,))
        # the standard deviation that the cut leaves (jax/_src/nn/initializers.py)
        return normal / 0.87962566

    # One loop for all kernels: XLA compiles a draw for up to half a second, minutes in
    # all for a kernel each, and one draw of all takes four times their memory.
    draw = lax.map(piece, keys).reshape(-1)
    starts = itertools.accumulate(sizes, initial=0)
    for name, size, start in zip(names, sizes, starts):
        shape = flat[name].shape
        kernel = lax.slice(draw, (start,), (start + size,)).reshape(shape)
        flat[name] = kernel / math.prod(shape[:3]) ** 0.5
    return tree.unflatten(flat)


class Bit:
    """The contract of models.Model around the network."""

    head = HEAD

    def __init__(self, cfg: config.Model, classes: int) -> None:
        self.blocks = cfg.blocks
        widths = presets.bit_widths(cfg)
        self.groups = Groups(cfg.groups, cfg.narrow)
        self.net = ResNet(
            cfg.blocks,
            widths,
            self.groups,
            classes,
            jnp.dtype(cfg.dtype),
            cfg.remat,
        )
        # jit, so that the forward pass is traced for its shapes but never run
        self.zeros = jax.jit(self.net.init)
        narrow = min(widths)
        if (groups := self.groups.of(narrow)) != cfg.groups:
            logging.info(
                "%d channels are too few for %d groups: %d where they are so few",
                *(narrow, cfg.groups, groups),
            )

    def init(self, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
        variables = self.zeros(key, jnp.zeros(image_shape))
        return {"params": random_kernels(key, dict(variables["params"]))}

    def apply(
        self,
        variables: Tree,
        images: jax.Array,
        train: bool,
        rngs: Any = None,
        hold: Sequence[str] = (),
    ) -> tuple[jax.Array, Tree]:
        del train, rngs, hold  # BiT has neither batch statistics nor dropout
        out: Any = self.net.apply({"params": variables["params"]}, images)
        return out

    def norm_groups(self) -> dict[int, int]:
        """{channels: groups} of the norms."""
        widths = self.net.widths
        return {
            c: self.groups.of(c) for c in sorted({*widths, *(4 * w for w in widths)})
        }

    def layers(self) -> list[str]:
        units = [
            f"block{stage}/unit{unit:02d}"
            for stage, count in enumerate(self.blocks, 1)
            for unit in range(1, count + 1)
        ]
        return ["root_block", *units, "group_norm", "head"]
