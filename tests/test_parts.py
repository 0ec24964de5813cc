"""The layers' functions against numpy, where their constants and borders show."""

import jax.numpy as jnp
import numpy as np
import pytest

from bigxfer import config, presets
from bigxfer.models import parts

RNG = np.random.default_rng(0)


def test_group_norm_where_its_epsilon_counts():
    """Values of variance 1e-5, the epsilon of big_transfer's group_normalize."""
    x = (0.5 + np.sqrt(1e-5) * RNG.normal(size=(2, 3, 3, 8))).astype(np.float32)
    gamma, beta = RNG.normal(size=(2, 8)).astype(np.float32)
    g = x.astype(np.float64).reshape(2, 9, 4, 2)
    mean, var = g.mean((1, 3), keepdims=True), g.var((1, 3), keepdims=True)
    want = ((g - mean) / np.sqrt(var + 1e-5)).reshape(x.shape) * gamma + beta
    args = jnp.asarray(x), jnp.asarray(gamma), jnp.asarray(beta), 4
    got = parts.group_norm_relu(*args)
    np.testing.assert_allclose(got, np.maximum(want, 0), atol=2e-3)
    plain = parts.group_norm_relu_plain(*args, parts.GN_EPS)
    np.testing.assert_allclose(plain, np.maximum(want, 0), atol=2e-3)


def test_standardisation_where_its_epsilon_counts():
    """Kernels of variance 1e-10, the epsilon of big_transfer's standardize."""
    kernel = (1e-5 * RNG.normal(size=(3, 3, 4, 5))).astype(np.float32)
    k = kernel.astype(np.float64)
    want = (k - k.mean((0, 1, 2))) / np.sqrt(k.var((0, 1, 2)) + 1e-10)
    np.testing.assert_allclose(parts.standardize(jnp.asarray(kernel)), want, atol=1e-4)


@pytest.mark.parametrize("size, stride", [(1, 2), (3, 1), (3, 2), (7, 2)])
def test_convolution_pads_half_its_kernel(size, stride):
    x = RNG.normal(size=(2, 9, 9, 3)).astype(np.float32)
    kernel = RNG.normal(size=(size, size, 3, 4)).astype(np.float32)
    half = size // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    out = (9 + 2 * half - size) // stride + 1
    want = np.empty((2, out, out, 4))
    for i in range(out):
        for j in range(out):
            part = padded[
                :, i * stride : i * stride + size, j * stride : j * stride + size
            ]
            want[:, i, j] = np.tensordot(part, kernel, 3)
    got = parts.conv(jnp.asarray(x), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    grey = parts.conv(jnp.asarray(x[..., :1]), jnp.asarray(kernel), stride)
    three = parts.conv_plain(
        jnp.repeat(x[..., :1], 3, axis=3), jnp.asarray(kernel), stride
    )
    np.testing.assert_allclose(grey, three, rtol=1e-4, atol=1e-4)


def test_the_pool_takes_three_by_three_after_a_frame_of_zeros():
    x = RNG.normal(-2, 1, size=(1, 5, 5, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    want = [
        [padded[:, i : i + 3, j : j + 3].max((1, 2)) for j in (0, 2, 4)]
        for i in (0, 2, 4)
    ]
    for pool in (parts.max_pool, parts.max_pool_plain):
        got = np.asarray(pool(jnp.asarray(x)))
        np.testing.assert_array_equal(got, np.moveaxis(np.array(want), 2, 0))


def test_slim_blocks_begin_above_the_one_named():
    blocks = ["block1", "block2", "block3"]
    cfg = config.Model(slim=0.5, slim_above="block1")
    assert presets.slim_factors(cfg, blocks) == [1, 0.5, 0.5]
    cfg.slim_above = "block3"
    assert presets.slim_factors(cfg, blocks) == [1, 1, 1]
    assert presets.slim_factors(config.Model(slim=0.5), blocks) == [1, 1, 1]
    cfg.slim_above = "block4"
    with pytest.raises(config.ConfigError, match="'block4' is no block"):
        presets.slim_factors(cfg, blocks)


def test_only_grey_images_are_repeated():
    grey = jnp.ones((1, 2, 2, 1))
    assert parts.alike(grey, 3).shape == (1, 2, 2, 3)
    assert parts.alike(jnp.ones((1, 2, 2, 2)), 3).shape == (1, 2, 2, 2)
