"""Thumbnails of images, and how alike two of them are where they fit best."""

from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter1d

from bigxfer.data.loader import Images

THUMB = 96  # side of the thumbnails, pixels


def blocks(images: Images, rows: np.ndarray) -> Iterator[np.ndarray]:
    """uint8 [b, S, S, C] of the rows in order, 64 at a time: never the whole set."""
    for start in range(0, len(rows), 64):
        yield np.asarray(images[rows[start : start + 64]])


def thumbnails(images: Images, rows: np.ndarray, side: int = THUMB) -> np.ndarray:
    """float32 [n, side, side] of the rows, antialiased bilinear, gray."""
    size = images.shape[1]
    center = (np.arange(side) + 0.5) * size / side
    distance = abs(np.arange(size) + 0.5 - center[:, None]) / max(size / side, 1)
    weights = np.maximum(1 - distance, 0).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    small = [weights @ gray(part) @ weights.T for part in blocks(images, rows)]
    return np.concatenate(small)


def gray(pixels: np.ndarray) -> np.ndarray:
    """float32 [n, S, S], the mean of the channels."""
    total = pixels[..., 0].astype(np.float32)
    for channel in range(1, pixels.shape[3]):
        total += pixels[..., channel]
    return total / pixels.shape[3]


def register(
    whole: np.ndarray, cut: np.ndarray, margin: np.ndarray, steps: int = 15
) -> np.ndarray:
    """float [n]: correlation of the pairs' fine structure where they fit best.

    `cut` shows a part of `whole` (both float [n, T, T]): scale and shift along each
    axis are found by Gauss-Newton at half the size, from central crops of `margin`.
    Fine structure is what a blur of T / 16 takes away.
    """
    n, side = len(whole), whole.shape[1] // 2
    warp = np.zeros((n, 4), np.float32)  # scale, shift; down, then right
    warp[:, ::2] = 1 - 2 * margin[:, None]
    half = whole.reshape(n, side, 2, side, 2).mean(axis=(2, 4))
    target = cut.reshape(n, side, 2, side, 2).mean(axis=(2, 4))
    # Blurred, so that a gradient leads over more than its own pixel.
    half, target = blur(half, 1), unit(blur(target, 1))
    place = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    for _ in range(steps):
        now = unit(sample(half, warp))
        down, right = np.gradient(now, axis=(1, 2))
        columns = [down * place[:, None], down, right * place, right]
        jacobian = np.stack(columns, axis=1).reshape(n, 4, -1) * side
        error = (target - now).reshape(n, -1, 1)
        # The last term: flat images have no gradient, and a singular matrix.
        square = jacobian @ jacobian.swapaxes(1, 2) + 1e-6 * np.eye(4)
        warp += np.linalg.solve(square, jacobian @ error)[..., 0]
        # Wider than any crop that is searched for; a lost pair wanders no further.
        warp[:, ::2] = np.clip(warp[:, ::2], 0.7, 1.3)
        warp[:, 1::2] = np.clip(warp[:, 1::2], -0.2, 0.2)
    fitted = sample(whole, warp)
    # The coarse shape is what two radiographs of different people share.
    a, b = (unit(x - blur(x, x.shape[1] / 16)) for x in (fitted, cut))
    return (a * b).sum(axis=(1, 2))


def sample(images: np.ndarray, warp: np.ndarray) -> np.ndarray:
    """[n, T, T] at scale x place + shift along each axis, bilinear, edges repeated."""
    side = images.shape[1]
    place = (np.arange(side) + 0.5) / side - 0.5
    hats = []
    for scale, shift in (warp[:, :2].T, warp[:, 2:].T):
        at = (scale[:, None] * place + shift[:, None] + 0.5) * side - 0.5
        distance = np.clip(at, 0, side - 1)[..., None] - np.arange(side)
        hats.append(np.maximum(1 - abs(distance), 0).astype(np.float32))
    return hats[0] @ images @ hats[1].swapaxes(1, 2)


def blur(images: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian along both axes of [n, T, T]."""
    return gaussian_filter1d(gaussian_filter1d(images, sigma, axis=1), sigma, axis=2)


def unit(images: np.ndarray) -> np.ndarray:
    """Each of [n, T, T] with mean 0 and norm 1 (0 where it is flat)."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((centred**2).sum(axis=(1, 2), keepdims=True))
    return centred / np.maximum(norm, 1e-6)
