"""GroupNorm + ReLU as one GPU kernel each way: a candidate, never run on a GPU.

Nothing in bigxfer/ uses it. It moves to bigxfer/models/parts_gpu.py if group_norm.py,
beside it, finds it faster than XLA's own fusion, and only then. What is tested: values
and gradients in Pallas' interpreter on a CPU, and that it lowers for CUDA (Triton).

A program takes one image and a block of channels that holds whole groups, and walks
twice over the pixels: for sums, then for what it writes. Any channels and groups will
do: lanes without a channel are masked.

On paper, and not measured. Arrays of x's size that go from or to memory:

    forward    x; x, y           3, one of them for the second time
    backward   x, dy; x, dy, dx  5, two of them for the second time
    both       8 at worst: 62% of the bound, which is 5; 70% is 7.1

So 29% of what is read again has to come from the L2, 50 MB on an H200. At batch 64 in
bfloat16, with one program an SM at a time, those that run together read forward 103 MB
at 112 px, 26 at 56, 7 at 28, backward twice that. At 112 px the L2 holds one of the
three arrays at most, so 71% is the best there, and the second walk begins with the last
tile, which was read last. Below 66 images of 64 channels some of the 132 SMs idle.

XLA on the plain form: mean, variance and y each need the one before, so x is read three
times (4 with y). Backward the sums read x and dy, the sum that autodiff adds for the
mean inside of the variance reads x, and dx reads both (6 with dx). Those 10 are 50% of
the bound, so XLA gets to 70% only where the L2 holds the arrays: below 50 MB, at 7 and
14 px. What it compiles for an H200 (jax 0.10.2, bfloat16, forward and backward as one;
that needs no GPU) moves 9.3 to 11.6, and 18 at 56 px and 64 channels, where it writes
some in float32.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

# Guesses; the first things to try on a GPU
ROW_BYTES = 64  # of a pixel that a program reads, at least
TILE_BYTES = 2**15  # that it asks for before it waits, at most
PER_THREAD = 32  # numbers of those


class Part(NamedTuple):
    """What one program takes of an image of pixels x channels, and how."""

    pixels: int
    channels: int
    size: int  # channels of a group
    width: int  # lanes of a group: its channels, and none up to a power of two
    groups: int  # that the program takes
    rows: int  # pixels of a tile
    warps: int

    @property
    def tiles(self) -> int:
        return pl.cdiv(self.pixels, self.rows)

    def own_channels(self) -> tuple[jax.Array, jax.Array]:
        """(which channel, whether there is one) of each lane [groups * width]."""
        lane = jnp.arange(self.groups * self.width)
        first = pl.program_id(0) * self.groups
        if self.size == self.width:  # without a division Triton sees long rows
            channel = first * self.size + lane
            return channel, channel < self.channels
        within = lax.rem(lane, self.width)
        channel = (first + lax.div(lane, self.width)) * self.size + within
        return channel, (within < self.size) & (channel < self.channels)

    def own_groups(self) -> tuple[jax.Array, jax.Array]:
        """(which group of the image, whether there is one) of each [groups]."""
        group = pl.program_id(0) * self.groups + jnp.arange(self.groups)
        return group, group < self.channels // self.size

    def tile(self, channels: Any, t: Any) -> tuple[tuple, jax.Array]:
        """(indices, whether they exist) of tile t of [pixels, channels]."""
        pixel = t * self.rows + jnp.arange(self.rows)[:, None]
        channel, real = channels
        return (pixel, channel[None, :]), (pixel < self.pixels) & real[None, :]

    def means(self, sums: jax.Array) -> jax.Array:
        """Sums [lanes] -> means over their groups [groups]."""
        of_groups = sums.reshape(self.groups, self.width).sum(1)
        return of_groups / (self.pixels * self.size)

    def spread(self, of_groups: jax.Array) -> jax.Array:
        """[groups] -> [lanes]."""
        shape = (self.groups, self.width)
        return jnp.broadcast_to(of_groups[:, None], shape).reshape(-1)

    def sums(self, values: Any) -> tuple[jax.Array, jax.Array]:
        """Over all pixels, of the two arrays that values(t) gives of a tile; [lanes].

        The rows of a tile are added up last: in the loop no thread waits for another.
        """

        def add(t: Any, sums: Any) -> Any:
            first, second = values(t)
            return sums[0] + first, sums[1] + second

        zeros = jnp.zeros((self.rows, self.groups * self.width), jnp.float32)
        first, second = lax.fori_loop(0, self.tiles, add, (zeros, zeros))
        return first.sum(0), second.sum(0)

    def write(self, ref: Any, channels: Any, values: Any) -> None:
        """values(t) to each tile, the last first: of that the L2 may still hold x."""

        def step(after: Any, _: None) -> None:
            t = self.tiles - 1 - after
            save(ref, self.tile(channels, t), values(t))

        lax.fori_loop(0, self.tiles, step, None)


def make_part(x: jax.Array, groups: int, arrays: int) -> Part:
    """The narrowest block of whole groups that is ROW_BYTES wide.

    The narrowest makes the most programs, each of which reads the least a second time.
    `arrays` of x's size are read at once.
    """
    _, h, w, c = x.shape
    if c % groups:
        raise ValueError(f"{c} channels do not make {groups} groups of one size")
    width = pl.next_power_of_2(c // groups)
    taken = max(ROW_BYTES // x.dtype.itemsize // width, 1)
    most = TILE_BYTES // (x.dtype.itemsize * arrays * taken * width)
    rows = min(pl.next_power_of_2(h * w), max(most, 1))
    warps = arrays * rows * taken * width // (32 * PER_THREAD)
    return Part(h * w, c, c // groups, width, taken, rows, min(max(warps, 1), 16))


def load(ref: Any, where: tuple[Any, jax.Array]) -> jax.Array:
    """In float32; 0 where there is nothing."""
    at, real = where
    return triton.load(ref.at[at], mask=real, other=0.0).astype(jnp.float32)


def save(ref: Any, where: tuple[Any, jax.Array], values: jax.Array) -> None:
    at, real = where
    triton.store(ref.at[at], values.astype(ref.dtype), mask=real)


def forward_kernel(part: Part, eps: float, *refs: Any) -> None:
    x, gamma, beta, y, mean, rstd = refs
    channels, groups = part.own_channels(), part.own_groups()

    def moments(t: Any) -> tuple[jax.Array, jax.Array]:
        values = load(x, part.tile(channels, t))
        return values, values * values

    first, second = map(part.means, part.sums(moments))
    inverse = lax.rsqrt(jnp.maximum(second - first * first, 0) + eps)
    save(mean, groups, first)
    save(rstd, groups, inverse)
    centre, scale = part.spread(first), part.spread(inverse) * load(gamma, channels)
    shift = load(beta, channels)

    def result(t: Any) -> jax.Array:
        centred = load(x, part.tile(channels, t)) - centre
        return jnp.maximum(centred * scale + shift, 0)

    part.write(y, channels, result)


def backward_kernel(part: Part, *refs: Any) -> None:
    """With z = (x - mean) / std and g the gradient where the ReLU lets it through,

    dx = (gamma g - <gamma g> - z <gamma g z>) / std, <> the mean over a group.
    """
    x, dy, gamma, beta, mean, rstd, dx, sum_g, sum_gz = refs
    channels, groups = part.own_channels(), part.own_groups()
    centre, inverse = (part.spread(load(ref, groups)) for ref in (mean, rstd))
    weight, shift = load(gamma, channels), load(beta, channels)
    scale = inverse * weight

    def passed(t: Any) -> tuple[jax.Array, jax.Array]:
        """(g, x - mean) of a tile."""
        tile = part.tile(channels, t)
        centred = load(x, tile) - centre
        return jnp.where(centred * scale + shift > 0, load(dy, tile), 0), centred

    def products(t: Any) -> tuple[jax.Array, jax.Array]:
        g, centred = passed(t)
        return g, g * centred

    total, total_z = part.sums(products)
    total_z *= inverse
    save(sum_g, channels, total)
    save(sum_gz, channels, total_z)
    level = part.spread(part.means(weight * total)) * inverse
    slope = part.spread(part.means(weight * total_z)) * inverse * inverse

    def gradient(t: Any) -> jax.Array:
        g, centred = passed(t)
        return scale * g - level - slope * centred

    part.write(dx, channels, gradient)


def launch(kernel: Any, part: Part, given: Any, outs: Any, interpret: bool) -> Any:
    """One program for each block of groups of each image; those of an image in turn.

    Of an array [n, ...] a program sees its image, of one [c] all.
    """

    def spec(array: Any) -> pl.BlockSpec:
        if array.ndim == 1:
            return pl.BlockSpec()
        shape, zeros = (None, *array.shape[1:]), (0,) * (array.ndim - 1)
        return pl.BlockSpec(shape, lambda block, image: (image, *zeros))

    groups = part.channels // part.size
    call = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(groups, part.groups), len(given[0])),
        in_specs=[spec(a) for a in given],
        out_specs=[spec(a) for a in outs],
        out_shape=outs,
        compiler_params=triton.CompilerParams(num_warps=part.warps),
        interpret=interpret,
    )
    return call(*given)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def group_norm_relu(
    x: jax.Array,
    gamma: jax.Array,
    beta: jax.Array,
    groups: int,
    eps: float,
    interpret: bool = False,
) -> jax.Array:
    """relu(group normalisation), biased variance; x [n, h, w, c] bfloat16 or float32.

    gamma and beta are [c] float32, and so are all sums. `interpret` runs it anywhere.
    """
    return forward(x, gamma, beta, groups, eps, interpret)[0]


def forward(
    x: jax.Array,
    gamma: jax.Array,
    beta: jax.Array,
    groups: int,
    eps: float,
    interpret: bool,
) -> tuple[jax.Array, tuple]:
    part = make_part(x, groups, arrays=1)
    flat = x.reshape(len(x), part.pixels, part.channels)
    stats = jax.ShapeDtypeStruct((len(x), groups), jnp.float32)
    outs = [jax.ShapeDtypeStruct(flat.shape, x.dtype), stats, stats]
    kernel = partial(forward_kernel, part, eps)
    y, mean, rstd = launch(kernel, part, (flat, gamma, beta), outs, interpret)
    return y.reshape(x.shape), (x, gamma, beta, mean, rstd)


def backward(
    groups: int, eps: float, interpret: bool, saved: tuple, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, *rest = saved
    part = make_part(x, groups, arrays=2)
    flat = (len(x), part.pixels, part.channels)
    sums = jax.ShapeDtypeStruct((len(x), part.channels), jnp.float32)
    outs = [jax.ShapeDtypeStruct(flat, x.dtype), sums, sums]
    given = (x.reshape(flat), dy.reshape(flat), *rest)
    kernel = partial(backward_kernel, part)
    dx, sum_g, sum_gz = launch(kernel, part, given, outs, interpret)
    return dx.reshape(x.shape), sum_gz.sum(0), sum_g.sum(0)


group_norm_relu.defvjp(forward, backward)
