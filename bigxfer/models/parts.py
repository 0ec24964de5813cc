"""The layers of the networks as functions, each in the form its platform runs best.

All take and give NHWC activations and HWIO kernels. Sums of normalisations are
in float32 whatever the dtype of the activations. A public function picks between
a plain form, which is also the reference in the tests, and one for the CPU
(`parts_cpu.py`): a training step of R26x0.5 at 64 px takes half the processor time
with those, at XLA_FLAGS=--xla_cpu_use_fusion_emitters=false (jax 0.10.2).
"""

import jax
import jax.numpy as jnp
from jax import lax

from bigxfer.models import parts_cpu

GN_EPS = 1e-5  # google-research/big_transfer bit_jax/models.py, group_normalize
WS_EPS = 1e-10  # the same file, standardize


def on_cpu() -> bool:
    """Whether what is being traced will run on a CPU."""
    return jax.default_backend() == "cpu"


def standardize(kernel: jax.Array) -> jax.Array:
    """Weight standardisation: each output channel to mean 0 and variance 1.

    Biased variance over (h, w, i).
    """
    form = parts_cpu.standardize if on_cpu() else standardize_plain
    return form(kernel, WS_EPS)


def standardize_plain(kernel: jax.Array, eps: float) -> jax.Array:
    mean, var = kernel.mean((0, 1, 2)), kernel.var((0, 1, 2))
    return (kernel - mean) * lax.rsqrt(var + eps)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution with k // 2 zeros on each side, as BiT pads (not SAME).

    x: [n, h, w, i], kernel: [k, k, i, o] of the same dtype; gives [n, h', w', o].
    x may have one channel where the kernel takes more: they are all equal then.
    """
    if x.shape[-1] == 1 and on_cpu():  # a third of the work for a grey image
        # After `standardize`, which takes mean and variance over all three channels.
        kernel = kernel.sum(2, keepdims=True)
    form = parts_cpu.conv if on_cpu() else conv_plain
    return form(alike(x, kernel.shape[2]), kernel, stride)


def alike(x: jax.Array, channels: int) -> jax.Array:
    """[n, h, w, 1] -> [n, h, w, channels], all of them equal; any other x as it is."""
    return jnp.broadcast_to(x, (*x.shape[:3], channels)) if x.shape[-1] == 1 else x


def conv_plain(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    # SAME pads an even image less in front at stride 2: each map would be a pixel off
    pad = [(k // 2, k // 2) for k in kernel.shape[:2]]
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pad, dimension_numbers=dims
    )


def group_norm_relu(
    x: jax.Array, gamma: jax.Array, beta: jax.Array, groups: int
) -> jax.Array:
    """relu(group normalisation), biased variance; x [n, h, w, c] of any dtype."""
    form = parts_cpu.group_norm_relu if on_cpu() else group_norm_relu_plain
    return form(x, gamma, beta, groups, GN_EPS)


def group_norm_relu_plain(
    x: jax.Array, gamma: jax.Array, beta: jax.Array, groups: int, eps: float
) -> jax.Array:
    n, h, w, c = x.shape
    # bfloat16 has 8 bits: sums over thousands of pixels would lose most of them.
    g = x.astype(jnp.float32).reshape(n, h * w, groups, c // groups)
    mean, var = g.mean((1, 3), keepdims=True), g.var((1, 3), keepdims=True)
    y = ((g - mean) * lax.rsqrt(var + eps)).reshape(x.shape)
    return jax.nn.relu(y * gamma + beta).astype(x.dtype)


def max_pool(x: jax.Array) -> jax.Array:
    """3 x 3 maximum at stride 2 after one row and column of ZEROS on each side."""
    # Zeros and not -inf: the stem's output is signed, so the two differ, and the
    # published weights were trained with zeros (big_transfer bit_pytorch/models.py).
    return parts_cpu.max_pool(x) if on_cpu() else max_pool_plain(x)


def max_pool_plain(x: jax.Array) -> jax.Array:
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, "VALID")
