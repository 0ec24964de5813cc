"""Augmentation against PIL, scipy and numpy, and its independence of layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from PIL import Image
from scipy.ndimage import affine_transform

from bigxfer.config import Data
from bigxfer.data import augment


def images(n: int, size: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (n, size, size, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@functools.partial(jax.jit, static_argnames=("mode", "crop", "flip"))
def view(x, position, mode="crop", crop=24, flip=True):
    data = Data(augment=mode, crop=crop, flip=flip)
    return augment.train_view(jax.random.key(7), x, position, data)


@pytest.mark.parametrize("mode", ["crop", "inception", "affine", "colour"])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_range_and_channels(mode, channels):
    out = view(images(5, 30, channels), jnp.arange(5), mode)
    assert out.shape == (5, 24, 24, channels) and out.dtype == jnp.float32
    assert float(jnp.abs(out).max()) <= 1 + 1e-6
    assert bool((out[..., 0] == out[..., -1]).all()) == (channels == 1)


def test_hue_and_saturation_are_those_of_yiq():
    """Against scikit-image: luma stays, chroma turns by the angle and stretches."""
    color = pytest.importorskip("skimage.color")
    rgb = np.random.default_rng(0).random((6, 6, 3))
    turned = rgb @ np.asarray(augment.turn(jnp.float32(0.3), jnp.float32(1.2))).T
    before, after = color.rgb2yiq(rgb), color.rgb2yiq(turned)
    chroma = (before[..., 1] + 1j * before[..., 2]) * 1.2 * np.exp(0.3j)
    np.testing.assert_allclose(after[..., 0], before[..., 0], atol=1e-6)
    np.testing.assert_allclose(after[..., 1] + 1j * after[..., 2], chroma, atol=1e-5)


def test_colour_turns_half_of_the_images_upside_down_and_adds_noise():
    ramp = np.tile(np.arange(24, dtype=np.uint8)[:, None, None] * 8 + 30, (1, 24, 1))
    out = view(np.repeat(ramp[None], 400, 0), jnp.arange(400), "colour", flip=False)
    grey = (np.asarray(out[..., 0]) * 255 + 255) / 2
    down = grey[:, -4:].mean((1, 2)) > grey[:, :4].mean((1, 2))
    assert 0.4 < down.mean() < 0.6  # 400 fair coins: 0.5 +- 4 x 0.025
    noise = grey[:, 12, :].std(axis=1)  # a row of the ramp is flat
    assert noise.mean() == pytest.approx(augment.NOISE, rel=0.05)
    level = grey.mean((1, 2)) - ramp.mean()
    assert level.std() == pytest.approx(augment.BRIGHTNESS / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("mode", ["crop", "inception", "affine", "colour"])
def test_pixels_do_not_depend_on_the_division_of_the_batch(mode):
    x, position = images(8, 30), jnp.arange(8)
    whole = view(x, position, mode)
    halves = [view(x[i : i + 4], position[i : i + 4], mode) for i in (0, 4)]
    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_batch = NamedSharding(mesh, PartitionSpec("data"))
    spread = view(jax.device_put(x, by_batch), jax.device_put(position, by_batch), mode)
    assert len(spread.sharding.device_set) == len(jax.devices()) == 8
    for other in (jnp.concatenate(halves), spread):
        if mode == "crop":
            np.testing.assert_array_equal(whole, other)
        else:
            np.testing.assert_allclose(whole, other, atol=2e-6)


def test_crops_are_windows_uniformly_placed_and_half_are_flipped():
    code = np.arange(9 * 9).reshape(1, 9, 9, 1).astype(np.uint8)  # each pixel unique
    out = view(np.repeat(code, 4000, 0), jnp.arange(4000), crop=6)
    corner = np.rint((np.asarray(out[:, :, :, 0]) * 255 + 255) / 2).astype(int)
    flipped = corner[:, 0, 0] > corner[:, 0, -1]
    window = np.where(flipped[:, None, None], corner[:, :, ::-1], corner)
    top, left = window[:, 0, 0] // 9, window[:, 0, 0] % 9
    for k in range(0, 4000, 500):
        expected = code[0, top[k] : top[k] + 6, left[k] : left[k] + 6, 0]
        np.testing.assert_array_equal(window[k], expected)
    assert abs(flipped.mean() - 0.5) < 0.03
    counts = np.histogram2d(top, left, bins=4)[0]  # 16 places of 250
    assert counts.min() > 190 and counts.max() < 310


def test_no_flip_when_off_and_other_steps_differ():
    ramp = np.tile(np.arange(30, dtype=np.uint8), (64, 30, 1))[..., None]
    out = view(ramp, jnp.arange(64), flip=False)
    assert bool((jnp.diff(out[:, :, :, 0], axis=2) > 0).all())
    data = Data(augment="crop", crop=24)
    other = augment.train_view(jax.random.key(8), images(8, 30), jnp.arange(8), data)
    assert not np.array_equal(other, view(images(8, 30), jnp.arange(8)))


@pytest.mark.parametrize("size,out", [(30, 24), (24, 24), (96, 31), (20, 33)])
def test_resize_is_that_of_pil(size, out):
    x = images(1, size)[0, :, :, 0].astype(np.float32)
    expected = Image.fromarray(x).resize((out, out), Image.Resampling.BILINEAR)
    matrix = augment.resize_matrix(size, out, 0.0, float(size))
    np.testing.assert_allclose(matrix @ x @ matrix.T, np.asarray(expected), atol=1e-3)


def test_resize_of_a_box_is_that_of_the_cut_out_box():
    x = images(1, 40)[0, :, :, 0].astype(np.float32)
    box = Image.fromarray(x[5:33, 8:28]).resize((16, 16), Image.Resampling.BILINEAR)
    rows = augment.resize_matrix(40, 16, 5.0, 28.0)
    columns = augment.resize_matrix(40, 16, 8.0, 20.0)
    np.testing.assert_allclose(rows @ x @ columns.T, np.asarray(box), atol=1e-3)


def test_eval_view_is_a_resize_to_the_model_range():
    x = images(3, 30, 3)
    out = jax.jit(augment.eval_view, static_argnums=1)(x, 24)
    for one, got in zip(x, out, strict=True):
        pil = Image.fromarray(one).resize((24, 24), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(got * 127.5 + 127.5, np.asarray(pil), atol=1.01)
    same = augment.eval_view(x, 30)
    np.testing.assert_allclose(same, x / 127.5 - 1, atol=1e-6)


def test_inception_boxes_keep_the_published_bounds():
    """A box is seen in a ramp: the first and last output pixel tell its ends."""
    size = 250
    ramp = np.zeros((size, size, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(size), np.arange(size)[:, None]
    keys = jax.random.split(jax.random.key(7), 3000)
    draw = jax.vmap(lambda k: augment.inception_crop(k, jnp.asarray(ramp), 8))
    out = np.asarray(draw(keys)).astype(float)
    # in a ramp, inner antialiased samples lie one scale apart
    width = (out[:, 4, 5, 0] - out[:, 4, 2, 0]) / 3 * 8
    height = (out[:, 5, 4, 1] - out[:, 2, 4, 1]) / 3 * 8
    area, aspect = width * height / size**2, width / height
    assert 0.045 < area.min() < 0.07 and 0.9 < area.max() < 1.01
    assert 0.73 < aspect.min() < 0.77 and 1.31 < aspect.max() < 1.36
    share = (height - height.min()) / np.ptp(height)
    assert 0.4 < share.mean() < 0.55  # the height is uniform, given the aspect
    centre = out.mean((1, 2))
    np.testing.assert_allclose(centre[:, :2].mean(0), (size - 1) / 2, atol=4)


@pytest.mark.parametrize(
    "degrees,scale,shift", [(0, 1, (0, 0)), (30, 0.9, (0.25, -0.1)), (-45, 1.1, (0, 1))]
)
def test_warp_is_that_of_scipy(degrees, scale, shift):
    x = images(1, 33)[0].astype(np.float32)
    angle = np.deg2rad(degrees)
    out = augment.warp(jnp.asarray(x), angle, scale, jnp.asarray(shift))
    # cv2.getRotationMatrix2D, written for (row, column) and inverted by numpy
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    inverse = np.linalg.inv([[cos, -sin], [sin, cos]])
    centre = np.array([16.5, 16.5])
    offset = centre - inverse @ (centre + 33 * np.array(shift[::-1]))
    expected = affine_transform(x[..., 0], inverse, offset, order=1, mode="mirror")
    np.testing.assert_allclose(out[..., 0], expected, atol=0.02)


def test_affine_draws_have_the_predecessors_ranges():
    """Two dots, one a channel: where they land tells angle, scale and shift."""
    x = np.zeros((64, 64, 3), np.uint8)
    x[31:34, 31:34, 0] = x[31:34, 43:46, 1] = 255
    keys = jax.random.split(jax.random.key(7), 1500)
    draw = jax.jit(jax.vmap(lambda k: augment.affine(k, jnp.asarray(x), 64)))
    out = np.asarray(draw(keys), np.float64)[..., :2]
    mass, grid = out.sum((1, 2)), np.arange(64)
    column = np.einsum("nyxc,x->nc", out, grid) / mass
    row = np.einsum("nyxc,y->nc", out, grid) / mass
    far = np.einsum("nyxc,x->nc", out, grid**2) / mass - column**2
    far += np.einsum("nyxc,y->nc", out, grid**2) / mass - row**2
    once = (far < 3).all(1)  # no mirror image beside the dot
    assert once.mean() > 0.85
    column, row = column[once], row[once]
    across, down = np.diff(column)[:, 0], np.diff(row)[:, 0]
    angle, scale = np.rad2deg(np.arctan2(-down, across)), np.hypot(across, down) / 12
    for drawn, low, high in (
        (angle, -45, 45),
        (scale, 0.9, 1.1),
        (column[:, 0] - 32, -16, 16),
        (row[:, 0] - 32, -16, 16),
    ):
        margin = 0.04 * (high - low)
        assert low - margin < drawn.min() < low + margin
        assert high - margin < drawn.max() < high + margin
        # the choice of rows above favours one direction a little
        assert abs(drawn.mean() - (low + high) / 2) < 2 * margin
        assert abs(drawn.std() - (high - low) / 12**0.5) < margin  # uniform


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        augment.eval_view(jnp.zeros((1, 8, 8, 3)), 8)
    with pytest.raises(ValueError, match="crop of 24"):
        view(images(1, 20), jnp.arange(1))
