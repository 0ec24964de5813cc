"""From the solids of a synthetic thorax to a film, as one scanner takes it.

Path lengths through soft tissue, air and bone, then Beer-Lambert absorption, scatter,
quantum noise and the scanner's look-up table. Absorption is chosen by eye.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from bigxfer.data.phantom.draw import Scene, cloud

LETTERS = {  # polylines in a box of width 1 and height 1
    "L": [[(0, 0), (0, 1), (0.7, 1)]],
    "R": [[(0, 1), (0, 0), (0.7, 0.1), (0.7, 0.4), (0, 0.5), (0.8, 1)]],
    "AP": [
        [(0, 1), (0.4, 0), (0.8, 1)],
        [(1.2, 1), (1.2, 0), (1.8, 0.1), (1.8, 0.4), (1.2, 0.5)],
    ],
}


@dataclass
class Style:
    """One scanner and its habits."""

    gain: float = 3.2  # slope of the look-up table
    gamma: float = 1.0
    dose: float = 9.0  # log of quanta a pixel in air
    scatter: float = 0.03
    blur: float = 0.0  # of the detector, as a fraction of the side
    collimation: float = 0.0  # black border, fraction of half the side
    marker: str = ""  # text, in a corner
    marker_at: tuple[float, float] = (0.84, 0.08)
    grid: float = 0.0  # visible anti-scatter grid


def scanner(kind: int, distance: float) -> Style:
    """Scanner `kind` (0 is the default); distance moves every one of its habits."""
    d = distance
    styles = (
        Style(marker="L"),
        Style(gain=4.2, gamma=0.86, scatter=0.015, marker="R", marker_at=(0.07, 0.07)),
        Style(gain=2.6, gamma=1.2, dose=8.6, collimation=0.05, marker="AP"),
    )
    s = styles[kind]
    s.gain, s.gamma = s.gain * (1 - 0.3 * d), s.gamma * (1 + 0.5 * d)
    s.dose, s.scatter = s.dose - 1.6 * d, s.scatter + 0.04 * d
    s.blur, s.collimation, s.grid = 0.004 * d, s.collimation + 0.08 * d, 0.06 * d
    return s


def smooth(image: np.ndarray, radius: float) -> np.ndarray:
    """A blur of about `radius` pixels: down and up again, cheap at any radius."""
    size = len(image)
    small = max(4, round(size / max(radius, 1.0)))
    if small >= size:
        return image
    return np.asarray(
        Image.fromarray(image).resize((small, small), 2).resize((size, size), 3)
    )


def project(s: Scene, style: Style) -> np.ndarray:
    """Beer-Lambert, scatter, noise and look-up table: uint8 [size, size]."""
    b, size, rng = s.body, s.size, s.rng
    shoulder = np.clip(0.26 + 0.9 * np.clip((s.y + 1.0) / 0.42, 0, 1) ** 0.7, 0, 1.12)
    outline = np.maximum(1 - (np.abs(s.x) / shoulder) ** 4, 0)
    chest = (1.05 + 0.30 * np.clip(s.y, 0, 1)) * outline**0.5 * b.wall
    for side in (-1, 1):
        fold = ((side * s.x - 0.45) / 0.34) ** 2 + ((s.y - 0.34) / 0.27) ** 2
        chest += 0.28 * b.breast * np.sqrt(np.maximum(1 - fold, 0))
    air = (s.lung[0] + s.lung[1]) * b.air
    texture = 0.035 * cloud(rng, size, 40) + 0.03 * cloud(rng, size, 14)
    tissue = np.clip(0.16 * s.vessels + texture, -0.1, 0.6)
    air = air * (1 - np.clip(s.opacity, 0, 0.97)) * (1 - tissue)
    path = 3.0 * chest - 1.35 * air + 1.3 * s.soft + 1.2 * s.bone
    path += 0.06 * cloud(rng, size, 4)
    primary = np.exp(-np.maximum(path, 0.02)).astype(np.float32)
    light = primary + style.scatter * smooth(primary, size / 9) * 1.5
    if style.blur * size > 0.5:
        light = smooth(light, 2 * style.blur * size)
    quanta = light * (math.exp(style.dose) * 192 / size)  # larger pixels catch more
    noise = rng.standard_normal(light.shape, np.float32)
    light = light * (1 + noise / np.sqrt(quanta))
    if style.grid:
        light = light * (1 + style.grid * np.sin(np.arange(size) * 2.2)[:, None])
    film = -np.log(np.maximum(light, 1e-5))
    low, high = np.percentile(film[size // 8 : -size // 8], (3, 97))
    value = (film - low) / max(high - low, 0.3)
    value = 1 / (1 + np.exp(-style.gain * (value - 0.47)))
    ends = 1 / (1 + np.exp(style.gain * 0.47)), 1 / (1 + np.exp(-style.gain * 0.53))
    value = np.clip((value - ends[0]) / (ends[1] - ends[0]), 0, 1.1) ** style.gamma
    return finish(value * 0.93 + 0.03, style, rng)


def finish(value: np.ndarray, style: Style, rng: np.random.Generator) -> np.ndarray:
    """Collimation and the letter in the corner: 0..1 -> uint8."""
    size = len(value)
    image = Image.fromarray((np.clip(value, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    if style.marker:
        left, top = (v * size for v in style.marker_at)
        for letter in LETTERS[style.marker]:
            points = [
                (left + px * 0.05 * size, top + py * 0.07 * size) for px, py in letter
            ]
            draw.line(points, fill=250, width=max(1, size // 90))
    out = np.array(image)
    border = style.collimation * rng.uniform(0.5, 1.5, 4) * size / 2
    top, bottom, left, right = (int(v) for v in border)
    out[:top], out[size - bottom :], out[:, :left], out[:, size - right :] = 3, 3, 3, 3
    return out
