"""Augmentation on the device: uint8 cache -> what the model sees, inside the step.

Every random choice about an image comes from fold_in(key, its position in the
global batch), so the pixels do not depend on how the batch is laid over devices.
`key` is expected to fold in the seed and the step already.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from bigxfer.config import Data

Array = jax.Array

HUE = 0.1 * math.pi  # radians, either way; these four are our own (colour)
STRETCH = 0.2  # of saturation and contrast, either way
BRIGHTNESS = 0.1 * 255
NOISE = 0.02 * 255  # standard deviation
YIQ = np.array(  # of RGB, FCC 1953
    [[0.299, 0.587, 0.114], [0.59590059, -0.27455667, -0.32134392]]
    + [[0.21153661, -0.52273617, 0.31119955]]
)


def train_view(key: Array, images: Array, position: Array, data: Data) -> Array:
    """Random views: uint8 [b, S, S, C], int32 [b] -> float32 [b, crop, crop, C].

    C is 1 or 3; the result lies in [-1, 1]. `data` gives crop, augment, flip.
    Raises ValueError where images are not square uint8 or smaller than the crop.
    """
    _check(images, data.crop)
    view = VIEWS[data.augment]

    def one(image: Array, position: Array) -> Array:
        # By the position in the global batch: devices and processes change no pixel.
        where, mirror = jax.random.split(jax.random.fold_in(key, position))
        out = view(where, image, data.crop)
        if data.flip:  # p = 1/2: BiT's PyTorch code; its JAX code always flips (a bug)
            out = jnp.where(jax.random.bernoulli(mirror), out[:, ::-1], out)
        return out

    return _to_input(jax.vmap(one)(images, position))


def eval_view(images: Array, crop: int) -> Array:
    """The whole image at the size of the model: uint8 [b, S, S, C] ->
    float32 [b, crop, crop, C] in [-1, 1].

    Only a resize (bilinear, antialiased), no central crop: google-research/
    big_transfer, bit_hyperrule.py and input_pipeline_tf2_or_jax.py.
    """
    size = _check(images, crop)
    if size != crop:
        matrix = resize_matrix(size, crop, 0.0, float(size))
        images = jax.vmap(lambda image: _resample(matrix, image, matrix))(images)
    return _to_input(images)


def random_crop(key: Array, image: Array, crop: int) -> Array:
    """[S, S, C] -> [crop, crop, C] at a uniform place (BiT; the cache is resized)."""
    top, left = jax.random.randint(key, (2,), 0, image.shape[0] - crop + 1)
    return jax.lax.dynamic_slice(image, (top, left, 0), (crop, crop, image.shape[2]))


def inception_crop(key: Array, image: Array, crop: int) -> Array:
    """A random box of the image resized to [crop, crop, C], float32.

    5 to 100 % of the area (google-research/big_vision, pp/ops_image.py,
    inception_crop), aspect 0.75 to 1.33 (the default of TensorFlow's
    sample_distorted_bounding_box). As in that kernel the aspect is uniform, then
    the height, both of whole pixels. Two departures: the resize is antialiased
    (big_vision's own advice) and a box that does not fit is clipped, not redrawn.
    """
    size = image.shape[0]
    shape, place = jax.random.split(key)
    aspect, share = jax.random.uniform(shape, (2,))
    aspect = 0.75 + (1.33 - 0.75) * aspect  # width / height
    # Whole pixels, as in TensorFlow's kernel, whose round and floor these are.
    low = jnp.round(size * jnp.sqrt(0.05 / aspect))
    high = jnp.floor(jnp.minimum(size / jnp.sqrt(aspect), size / aspect))
    high = jnp.minimum(high, size)
    height = jnp.minimum(low + jnp.floor(share * (high - low + 1)), high)
    width = jnp.minimum(jnp.round(height * aspect), size)
    free = jnp.stack([size - height, size - width])
    top, left = jnp.floor(jax.random.uniform(place, (2,)) * (free + 1))
    rows = resize_matrix(size, crop, top, height)
    return _resample(rows, image, resize_matrix(size, crop, left, width))


def affine(key: Array, image: Array, crop: int) -> Array:
    """[S, S, C] -> resized to [crop, crop, C], then shifted, scaled and rotated.

    The X-ray augmentation of the predecessor (SLAMPAI/large-scale-pretraining-
    transfer, datasets/chexpert.py, cohen_aug): albumentations' ShiftScaleRotate
    with shift up to 25 % of the side, scale 0.9 to 1.1, rotation up to 45 degrees,
    bilinear, the border reflected without its last pixel (that library's default).
    """
    matrix = resize_matrix(image.shape[0], crop, 0.0, float(image.shape[0]))
    draw = jax.random.uniform(key, (4,), minval=-1.0, maxval=1.0)
    angle, scale, shift = math.pi / 4 * draw[0], 1 + 0.1 * draw[1], 0.25 * draw[2:]
    return warp(_resample(matrix, image, matrix), angle, scale, shift)


def colour(key: Array, image: Array, crop: int) -> Array:
    """[S, S, C] -> resized to [crop, crop, C], then upside down (half of the images),
    another hue, saturation, contrast and brightness, and Gaussian noise.

    The augmentations that the PyData 2019 study of Kierzynka et al. lists, beside the
    mirror image, which data.flip is. It states no amounts; these are our own. Hue and
    saturation turn and stretch the chroma of YIQ; grey images have none.
    """
    matrix = resize_matrix(image.shape[0], crop, 0.0, float(image.shape[0]))
    out = _resample(matrix, image, matrix)
    over, draw, noise = jax.random.split(key, 3)
    out = jnp.where(jax.random.bernoulli(over), out[::-1], out)
    hue, *stretch, brightness = jax.random.uniform(draw, (4,), minval=-1.0, maxval=1.0)
    saturation, contrast = (1 + STRETCH * s for s in stretch)
    if image.shape[2] == 3:  # gray has no chroma to turn
        out = jnp.einsum("ijc,dc->ijd", out, turn(HUE * hue, saturation))
    # Contrast about the image's own mean leaves its brightness to the next term.
    mean = out.mean((0, 1))
    out = contrast * (out - mean) + mean + BRIGHTNESS * brightness
    out += NOISE * jax.random.normal(noise, out.shape)
    return jnp.clip(out, 0, 255)


def turn(angle: Array, saturation: Array) -> Array:
    """[3, 3] that turns the chroma of RGB by `angle` and stretches it."""
    cos, sin = saturation * jnp.cos(angle), saturation * jnp.sin(angle)
    zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    rows = [[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]]
    chroma = jnp.stack([jnp.stack(row) for row in rows])
    exact = jax.lax.Precision.HIGHEST  # as in _resample
    back = np.linalg.inv(YIQ)
    return jnp.einsum("ab,bc,cd->ad", back, chroma, YIQ, precision=exact)


VIEWS = {
    "crop": random_crop,
    "inception": inception_crop,
    "affine": affine,
    "colour": colour,
}


def warp(image: Array, angle: Array, scale: Array, shift: Array) -> Array:
    """[n, n, C] turned by `angle` (radians, anticlockwise) and scaled about n / 2,
    then moved by shift = (x, y) sides; bilinear, reflect-101 border.

    The matrix is that of cv2.getRotationMatrix2D, inverted, as in albumentations'
    augmentations/functional.py, shift_scale_rotate.
    """
    n = image.shape[0]
    cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
    # n / 2, half a pixel beside the centre, is where albumentations turns.
    grid = jnp.arange(n, dtype=jnp.float32) - n / 2
    x, y = grid[None, :] - n * shift[0], grid[:, None] - n * shift[1]
    column, row = cos * x - sin * y + n / 2, sin * x + cos * y + n / 2
    left, top = jnp.floor(column), jnp.floor(row)
    right_share, low_share = (column - left)[..., None], (row - top)[..., None]

    def mirror(index: Array) -> Array:
        # reflect-101: the last pixel is not repeated, so the period is 2 n - 2
        index = index.astype(jnp.int32) % max(2 * n - 2, 1)
        return jnp.minimum(index, 2 * n - 2 - index)

    def at(row: Array, column: Array) -> Array:
        return image.reshape(n * n, -1)[mirror(row) * n + mirror(column)]

    upper = at(top, left) * (1 - right_share) + at(top, left + 1) * right_share
    lower = at(top + 1, left) * (1 - right_share) + at(top + 1, left + 1) * right_share
    return upper * (1 - low_share) + lower * low_share


def resize_matrix(
    size: int, out: int, start: Array | float, length: Array | float
) -> Array:
    """float32 [out, size] that resizes pixels [start, start + length) of a line.

    Bilinear; a reduction widens the triangle with the scale (antialiased), as
    PIL.Image.resize and tf.image.resize(antialias=True) do. Rows sum to 1.
    """
    scale = length / out
    centre = start + (jnp.arange(out) + 0.5) * scale
    pixel = jnp.arange(size) + 0.5
    distance = jnp.abs(pixel[None] - centre[:, None]) / jnp.maximum(scale, 1.0)
    # As if the box was cut out first: what lies beside it has no weight.
    inside = (pixel > start) & (pixel < start + length)
    weight = jnp.maximum(0.0, 1.0 - distance) * inside
    return weight / weight.sum(1, keepdims=True)


def _resample(rows: Array, image: Array, columns: Array) -> Array:
    """Two matrix products, [i, y] [y, x, c] [j, x] -> [i, j, c], in full float32
    (the default on accelerators would round pixels to 8 bits of mantissa)."""
    exact = jax.lax.Precision.HIGHEST
    half = jnp.einsum("iy,yxc->ixc", rows, image.astype(jnp.float32), precision=exact)
    return jnp.einsum("ixc,jx->ijc", half, columns, precision=exact)


def _to_input(pixels: Array) -> Array:
    """0..255 -> [-1, 1]. 2x - 255 is exact for whole pixels, so the result is one
    rounding, the same in every layout."""
    return (2 * pixels.astype(jnp.float32) - 255) / 255


def _check(images: Array, crop: int) -> int:
    """The side of square uint8 images [b, S, S, 1 or 3] with S >= crop."""
    _, height, width, channels = images.shape
    if images.dtype != jnp.uint8 or height != width or channels not in (1, 3):
        raise ValueError(
            f"images are {images.dtype} {images.shape}; uint8 [b, S, S, 1 or 3] wanted"
        )
    if crop > height:
        raise ValueError(f"a crop of {crop} from images of {height} pixels")
    return height
