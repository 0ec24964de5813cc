"""Ten classes of coloured shapes and textures: an upstream unlike radiographs."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Mask = Callable[[int, Rng], np.ndarray]


def _polygon(size: int, rng: Rng, radii: list[float]) -> np.ndarray:
    """A filled polygon with these radii at equal angles, turned and placed anyhow."""
    angle = rng.uniform(0, 2 * np.pi) + np.arange(len(radii)) / len(radii) * 2 * np.pi
    reach = rng.uniform(0.22, 0.42) * np.asarray(radii)
    x = rng.uniform(0.35, 0.65) + reach * np.cos(angle) * rng.uniform(0.75, 1.0)
    y = rng.uniform(0.35, 0.65) + reach * np.sin(angle)
    # Twice the size and shrunk: Pillow draws polygons without antialiasing.
    image = Image.new("L", (2 * size, 2 * size))
    points = list(zip(x * 2 * size, y * 2 * size, strict=True))
    ImageDraw.Draw(image).polygon(points, fill=255)
    return np.asarray(image.resize((size, size), 2), np.float32) / 255


def _grid(size: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Turned coordinates in 0..1."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    turn = rng.uniform(0, np.pi)
    return x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def _radius(size: int, rng: Rng) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    return np.hypot(x - rng.uniform(0.35, 0.65), y - rng.uniform(0.35, 0.65))


def disc(size: int, rng: Rng) -> np.ndarray:
    return _polygon(size, rng, [1.0] * 40)


def triangle(size: int, rng: Rng) -> np.ndarray:
    return _polygon(size, rng, [1.0] * 3)


def square(size: int, rng: Rng) -> np.ndarray:
    return _polygon(size, rng, [1.0] * 4)


def star(size: int, rng: Rng) -> np.ndarray:
    return _polygon(size, rng, [1.0, 0.42] * 5)


def cross(size: int, rng: Rng) -> np.ndarray:
    return _polygon(size, rng, [1.0, 1.0, 0.4] * 4)


def ring(size: int, rng: Rng) -> np.ndarray:
    width = rng.uniform(0.04, 0.09)
    return _step(width - np.abs(_radius(size, rng) - rng.uniform(0.18, 0.32)), size)


def stripes(size: int, rng: Rng) -> np.ndarray:
    return _step(np.sin(_grid(size, rng)[0] * rng.uniform(18, 50)) / 30, size)


def checks(size: int, rng: Rng) -> np.ndarray:
    (x, y), rate = _grid(size, rng), rng.uniform(12, 32)
    return _step(np.sin(x * rate) * np.sin(y * rate) / 20, size)


def waves(size: int, rng: Rng) -> np.ndarray:
    return _step(np.sin(_radius(size, rng) * rng.uniform(30, 70)) / 40, size)


def spots(size: int, rng: Rng) -> np.ndarray:
    (x, y), rate = _grid(size, rng), rng.uniform(14, 34)
    return _step((np.cos(x * rate) + np.cos(y * rate) - 1.0) / 20, size)


def _step(value: np.ndarray, size: int) -> np.ndarray:
    # An edge of one pixel, whatever the size of the image.
    return np.clip(value * size + 0.5, 0, 1)


NATURAL: dict[str, Mask] = {
    "checks": checks,
    "cross": cross,
    "disc": disc,
    "ring": ring,
    "spots": spots,
    "square": square,
    "star": star,
    "stripes": stripes,
    "triangle": triangle,
    "waves": waves,
}


def natural(name: str, size: int, rng: Rng) -> np.ndarray:
    """uint8 [size, size, 3]: the mask of a class over a mottled background."""
    mask = NATURAL[name](size, rng)[..., None]
    cells = int(rng.integers(2, 9))
    small = rng.integers(0, 256, (2, cells, cells, 3)).astype(np.uint8)
    back, front = (
        np.asarray(Image.fromarray(s).resize((size, size), 3), np.float32)
        for s in small
    )
    # Not of the class: only its shape tells it.
    colours = rng.uniform(0, 255, (2, 3))
    back, front = 0.45 * back + 0.55 * colours[0], 0.3 * front + 0.7 * colours[1]
    shade = 1 - 0.3 * rng.random() * np.linspace(0, 1, size)[:, None, None]
    image = (back * (1 - mask) + front * mask) * shade + rng.normal(
        0, 9, (size, size, 3)
    )
    return np.clip(image, 0, 255).astype(np.uint8)
