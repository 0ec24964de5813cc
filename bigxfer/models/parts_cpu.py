"""The forms of the layers that XLA runs well on a CPU; see parts.py.

Their gradients are written out: autodiff of the plain forms gives convolutions
and reductions that XLA's CPU backend runs without its matrix kernels.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

Pair = tuple[jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardize(kernel: jax.Array, eps: float) -> jax.Array:
    """(kernel - mean) / sqrt(variance + eps) of each output channel."""
    return standardize_forward(kernel, eps)[0]


def standardize_forward(kernel: jax.Array, eps: float) -> tuple[jax.Array, Pair]:
    # Two passes: one of two moments took R50x1 from 2,150 to 2,190 CPU-ms a step.
    centred = kernel - kernel.mean((0, 1, 2))
    rstd = lax.rsqrt((centred * centred).mean((0, 1, 2)) + eps)
    y = centred * rstd
    return y, (y, rstd)


def standardize_backward(eps: float, saved: Pair, dy: jax.Array) -> tuple[jax.Array]:
    y, rstd = saved
    return (rstd * (dy - dy.mean((0, 1, 2)) - y * (dy * y).mean((0, 1, 2))),)


standardize.defvjp(standardize_forward, standardize_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A matrix product of patches and kernel (im2col) or XLA's convolution."""
    size, channels, out = kernel.shape[0], *kernel.shape[2:]
    widens = stride == 1 and out > channels
    # Where the image is smaller than the kernel XLA falls back to scalar code: 64 ms
    # for [64, 2, 2, 256] by 3 x 3, a product 2.9. Of 1 x 1 kernels it runs faster those
    # that widen (more channels out than in).
    if min(x.shape[1:3]) < size or (size == 1 and not widens):
        cols = patches(x, size, stride)
        return cols @ kernel.reshape(cols.shape[-1], -1)
    pad = [(size // 2, size // 2)] * 2
    columns = (x.shape[2] + 2 * (size // 2) - size) // stride + 1
    # four pay for gray images alone: 8 of 224 px 11.5 ms, by two columns 12.3
    shared = 4 if channels == 1 else 2
    if channels > 4 or columns % shared:
        return library_conv(x, kernel, pad, (stride, stride))
    # Of images the copies of patches cost most: some columns of the output share them
    none, ends = (0, 0), range(0, shared * stride, stride)
    each = [jnp.pad(kernel, (none, (e, ends[-1] - e), none, none)) for e in ends]
    y = library_conv(x, jnp.concatenate(each, -1), pad, (stride, shared * stride))
    return y.reshape(*y.shape[:2], columns, out)


def conv_forward(x: jax.Array, kernel: jax.Array, stride: int) -> tuple:
    return conv(x, kernel, stride), (x, kernel)


def conv_backward(stride: int, saved: Pair, dy: jax.Array) -> Pair:
    x, kernel = saved
    size, out = kernel.shape[0], kernel.shape[-1]
    # dilated by the stride, dy is one image row or column per position of x
    ends = [(m - 1) * stride + 1 for m in dy.shape[1:3]]
    if size == 1:  # of seven forms the fastest: 8.8 ms at [8, 56, 56, 256] to 64
        cols = patches(x, size, stride).reshape(-1, x.shape[-1])
        dkernel = outer(cols, dy.reshape(-1, out)).reshape(kernel.shape)
    else:  # images are the channels of this convolution, and x's channels its images
        # [8, 56, 56, 64]: 15.4 ms, by im2col 31.0, since Eigen runs convolutions
        pad = [(size // 2, e + size // 2 - h) for e, h in zip(ends, x.shape[1:3])]
        image, window = images_last(after(dy, x)), dy.transpose(1, 2, 0, 3)
        dkernel = library_conv(image, window, pad, window_dilation=stride)
        dkernel = dkernel.transpose(1, 2, 0, 3)
    # as forward: XLA has no fast form where the image is smaller than the kernel
    if size == 1 or min(dy.shape[1:3]) < size:
        dcols = dy @ kernel.reshape(-1, out).T
        dx = sum_patches(dcols, x.shape, size, stride)
    else:
        low = size - 1 - size // 2
        pad = [(low, h - e + size - 1 - low) for e, h in zip(ends, x.shape[1:3])]
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        dx = library_conv(dy, turned, pad, dilation=stride)
    return dx, dkernel


conv.defvjp(conv_forward, conv_backward)


def after(dy: jax.Array, x: jax.Array) -> jax.Array:
    """x plus a 0 made of dy, so that nothing is made of x before dy is there."""
    # XLA orders operations by nothing but their inputs, barriers or not. Left alone it
    # transposes the images of all layers before it needs the first: 65 of 840 MB in a
    # step of R50x1. Each image has its own 0: one for all made the devices exchange it.
    return x + jnp.minimum(jnp.abs(dy[:, :1, :1, :1]), 0)


def images_last(x: jax.Array) -> jax.Array:
    """[n, h, w, c] -> [c, h, w, n]; in two steps where x outgrows a core's cache."""
    # In one step XLA reads numbers c apart, once for each channel: from memory that
    # takes 5 times as long. Only a layout that is asked for keeps it from making one
    # step of two, and that gathers images that lie on several devices.
    if x.size * x.dtype.itemsize < 2**21 or jax.device_count() > 1:
        return x.transpose(3, 1, 2, 0)
    between = with_layout_constraint(x.transpose(1, 2, 3, 0), Layout((0, 1, 2, 3)))
    return between.transpose(2, 0, 1, 3)


def library_conv(
    x: jax.Array,
    kernel: jax.Array,
    pad: list[tuple[int, int]],
    strides: tuple[int, int] = (1, 1),
    dilation: int = 1,
    window_dilation: int = 1,
) -> jax.Array:
    """XLA's convolution, NHWC and HWIO."""
    # The barrier keeps transposes out of it: inside lax.scan (as under gradient
    # accumulation) XLA runs one with other orders of the axes as scalar code.
    x, kernel = lax.optimization_barrier((x, kernel))
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pad,
        lhs_dilation=(dilation, dilation),
        rhs_dilation=(window_dilation, window_dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    """[n, h, w, c] -> [n, h', w', size * size * c], zeros beyond the border."""
    pad = size // 2
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for axis in (2, 1):  # columns, then rows of what they gave: fewer, longer copies
        x = jnp.concatenate(windows(x, size, stride, axis), axis=-1)
    return x


def windows(x: jax.Array, size: int, stride: int, axis: int) -> list[jax.Array]:
    """The first, second ... element of each window along an axis."""
    stop = x.shape[axis] - size + 1
    return [
        lax.slice_in_dim(x, i, stop + i, stride=stride, axis=axis) for i in range(size)
    ]


def sum_patches(
    dcols: jax.Array, shape: tuple[int, ...], size: int, stride: int
) -> jax.Array:
    """The transpose of `patches`: each value added where it came from."""
    add = jax.linear_transpose(
        lambda x: patches(x, size, stride), jax.ShapeDtypeStruct(shape, dcols.dtype)
    )
    return add(dcols)[0]


def outer(a: jax.Array, b: jax.Array) -> jax.Array:
    """a^T b of [m, i] and [m, o], the narrower on the left: that one is copied."""
    first = (((0,), (0,)), ((), ()))
    if a.shape[1] <= b.shape[1]:
        return lax.dot_general(a, b, first)
    # XLA would turn the transpose of a product into the product with sides swapped:
    # that takes 3.9 in place of 2.0 ms at [16384, 128]^T [16384, 32]
    return lax.optimization_barrier(lax.dot_general(b, a, first)).T


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm_relu(
    x: jax.Array, gamma: jax.Array, beta: jax.Array, groups: int, eps: float
) -> jax.Array:
    """Mean and variance, then one multiply-add a value."""
    return group_norm_relu_forward(x, gamma, beta, groups, eps)[0]


def group_norm_relu_forward(
    x: jax.Array, gamma: jax.Array, beta: jax.Array, groups: int, eps: float
) -> tuple:
    wide = x.astype(jnp.float32)
    mean = group_mean(wide.mean((1, 2)), groups)
    # about the mean: by the mean square less its square the error is 4 to 90 times this
    far = wide - mean[:, None, None]
    std = jnp.sqrt(group_mean((far * far).mean((1, 2)), groups) + eps)
    # Both end in a division, as do slope and start of the gradient: XLA computes a
    # multiply of [n, c] anew for every pixel, and a division once.
    scale, shift = gamma / std, (beta * std - mean * gamma) / std
    y = jnp.maximum(affine(wide, scale, shift), 0)
    return y.astype(x.dtype), (x, gamma, scale, shift, mean, std)


def group_norm_relu_backward(
    groups: int, eps: float, saved: tuple, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """With z = (x - mean) / std and g the gradient where the ReLU lets it through,

    dx = (gamma g - <gamma g> - z <gamma g z>) / std, <> the mean over a group.
    """
    x, gamma, scale, shift, mean, std = saved
    wide, pixels = x.astype(jnp.float32), x.shape[1] * x.shape[2]
    g = jnp.where(affine(wide, scale, shift) > 0, dy.astype(jnp.float32), 0)
    sum_g = g.sum((1, 2))
    sum_gz = ((g * wide).sum((1, 2)) - mean * sum_g) / std
    mean_g = group_mean(gamma * sum_g / pixels, groups)
    mean_gz = group_mean(gamma * sum_gz / pixels, groups)
    slope = mean_gz / (std * std)  # of the part of dx that is linear in x
    start = (mean_g * std - mean_gz * mean) / (std * std)
    dx = scale[:, None, None] * g - affine(wide, slope, start)
    images = jnp.ones(len(x))  # a product, since XLA would read g again for a sum
    return dx.astype(x.dtype), images @ sum_gz, images @ sum_g


group_norm_relu.defvjp(group_norm_relu_forward, group_norm_relu_backward)


def group_mean(values: jax.Array, groups: int) -> jax.Array:
    """[n, c] -> [n, c]: each channel gets the mean of its group."""
    n, c = values.shape
    means = values.reshape(n, groups, c // groups).mean(-1)
    return jnp.repeat(means, c // groups, axis=1)


def affine(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """x [n, h, w, c] times scale [n, c] plus shift [n, c]."""
    return x * scale[:, None, None] + shift[:, None, None]


def max_pool(x: jax.Array) -> jax.Array:
    """3 x 3 at stride 2 within a border of zeros: maxima of rows, then of columns."""
    # `pool` wants pairs; the one zero added is the border behind an odd image
    odd = [(0, size % 2) for size in x.shape[1:3]]
    return pool(pool(jnp.pad(x, [(0, 0), *odd, (0, 0)]), 1), 2)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def pool(x: jax.Array, axis: int) -> jax.Array:
    """The maximum of elements 2 i - 1, 2 i and 2 i + 1 along an axis of even size."""
    return pool_forward(x, axis)[0]


def pool_forward(x: jax.Array, axis: int) -> tuple[jax.Array, Pair]:
    before, middle, last = three(x, axis)
    y = jnp.maximum(jnp.maximum(before, middle), last)
    return y, (x, y)


def pool_backward(axis: int, saved: Pair, dy: jax.Array) -> tuple[jax.Array]:
    """The gradient goes to the first of equal values."""
    x, y = saved
    before, middle, _ = three(x, axis)
    first = before == y
    second = (middle == y) & ~first
    even = jnp.where(second, dy, 0)
    odd = jnp.where(first | second, 0, dy)
    odd += shifted(jnp.where(first, dy, 0), axis, -1)
    return (jnp.stack([even, odd], axis + 1).reshape(x.shape),)


pool.defvjp(pool_forward, pool_backward)


def three(x: jax.Array, axis: int) -> list[jax.Array]:
    """Elements 2 i - 1 (0 for the first), 2 i and 2 i + 1 along an axis."""
    middle, last = (lax.slice_in_dim(x, k, None, 2, axis) for k in (0, 1))
    return [shifted(last, axis, 1), middle, last]


def shifted(x: jax.Array, axis: int, by: int) -> jax.Array:
    """x moved along an axis, zeros behind it."""
    pad = [(by, -by, 0) if k == axis else (0, 0, 0) for k in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), pad)
