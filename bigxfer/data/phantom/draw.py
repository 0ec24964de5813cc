"""Drawings that resemble chest radiographs: synthetic, for tests and questions
whose answer is known. No image made here shows a person.

A thorax of simple solids in a square of side 2 (x to the right, y down, so the patient's
left lung is at x > 0). Lengths of the anatomy are fractions of half the image. Findings
change the solids, so their place is known exactly; film.py projects them.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, ends included
Line = tuple[list[tuple[float, float]], float]  # points and width


@dataclass
class Body:
    """One person's anatomy; the defaults are an average adult."""

    width: float = 0.80  # of the rib cage, half
    apex: float = -0.80
    base: float = 0.42  # of the right diaphragm's dome; the left lies lower
    heart: float = 0.30  # half width; cardiothoracic ratio = heart * 1.05 / width
    mediastinum: float = 0.105  # half width
    wall: float = 1.0  # thickness of the chest wall, 1 = average
    breast: float = 0.0
    rib: float = 0.150  # spacing
    slope: float = 0.0  # of the ribs, added
    air: float = 1.0  # in the lungs, 1 = average
    tilt: float = 0.0  # radians
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    lift: tuple[float, float] = (0.0, 0.0)  # of each diaphragm, image left first


@dataclass
class Scene:
    """The maps that a finding may change; all float32 [pixels, pixels]."""

    rng: np.random.Generator
    body: Body
    x: np.ndarray
    y: np.ndarray
    lung: list[np.ndarray]  # air of each lung, image left first, about 0 to 1
    inside: list[np.ndarray]  # its projected outline, 0 to 1
    soft: np.ndarray  # added soft tissue
    bone: np.ndarray
    vessels: np.ndarray
    opacity: np.ndarray  # 0 to 1: share of the air replaced by fluid
    severity: float = 1.0  # multiplies the strength of what fills the air
    boxes: list[tuple[str, Box]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.x)

    def found(self, name: str, mask: np.ndarray) -> None:
        """Notes the box around where mask exceeds a third of its maximum."""
        rows, columns = np.nonzero(mask > max(float(mask.max()) / 3, 1e-6))
        if len(rows):
            x0, x1 = int(columns.min()), int(columns.max())
            self.boxes.append((name, (x0, int(rows.min()), x1, int(rows.max()))))


def person(rng: np.random.Generator, distance: float) -> Body:
    """A random anatomy; distance 1 is a small, round, thin thorax (a child's)."""
    d = distance
    n = rng.standard_normal(8).clip(-2, 2).tolist()
    return Body(
        width=0.80 + 0.035 * n[0] - 0.14 * d,
        apex=-0.80 + 0.03 * n[1] + 0.10 * d,
        base=0.42 + 0.05 * n[2] - 0.12 * d,
        heart=0.295 + 0.022 * n[3] + 0.02 * d,
        mediastinum=0.105 + 0.010 * n[4] + 0.02 * d,
        wall=1.0 + 0.12 * n[5] - 0.35 * d,
        breast=max(0.0, float(rng.uniform(-0.6, 0.6))) * (1 - d),
        rib=0.150 + 0.007 * n[6] - 0.025 * d,
        slope=0.04 * n[7] - 0.08 * d,
    )


def soft_step(value: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 where value passes 0, over about 4 widths."""
    return 0.5 + 0.5 * np.tanh(value / width)


def cloud(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """A smooth random field, mean about 0 and deviation about 1."""
    small = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(small).resize((size, size), 3)) * 1.4


def strokes(size: int, body: Body, lines: list[Line]) -> np.ndarray:
    """Polylines of (points in the body's frame, width), antialiased, 0 to 1."""
    scale = 3 if size < 160 else 2
    canvas = Image.new("L", (size * scale, size * scale))
    draw, half = ImageDraw.Draw(canvas), size * scale / 2
    cos, sin = math.cos(body.tilt) * body.zoom, math.sin(body.tilt) * body.zoom
    left, top = body.shift
    for points, width in lines:
        pixels = [
            (
                (cos * x + sin * y + left + 1) * half,
                (cos * y - sin * x + top + 1) * half,
            )
            for x, y in points
        ]
        wide = width * half
        # thinner than a pixel: one pixel, fainter
        draw.line(pixels, fill=int(255 * min(1.0, wide)), width=max(1, round(wide)))
    small = canvas.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def tube(distance: np.ndarray, radius: float) -> np.ndarray:
    """Path length through a bone's wall, 0 to 1: a tube with a marrow canal."""
    outer = np.sqrt(np.maximum(radius**2 - distance**2, 0))
    inner = np.sqrt(np.maximum((0.75 * radius) ** 2 - distance**2, 0))
    return (outer - 0.65 * inner) / radius


def scene(size: int, body: Body, rng: np.random.Generator) -> Scene:
    """The solids of a healthy thorax."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis - body.shift[0], axis - body.shift[1])
    cos, sin = math.cos(body.tilt) / body.zoom, math.sin(body.tilt) / body.zoom
    x, y = cos * x - sin * y, sin * x + cos * y
    lungs = [lung(x, y, body, side, 1.2 / size) for side in (-1, 1)]
    zero = np.zeros_like(x)
    out = Scene(
        rng, body, x, y, [a for a, _ in lungs], [i for _, i in lungs],
        zero.copy(), skeleton(x, y, body), vessels(size, body, rng), zero.copy(),
    )  # fmt: skip
    heart_and_vessels(out)
    return out


def cage(y: np.ndarray, body: Body) -> np.ndarray:
    """Half the width of the inside of the rib cage at height y."""
    down = np.clip((y - body.apex) / 1.15, 0, 1)
    return body.width * np.sqrt(1 - (1 - down) ** 2.4)


def lung(
    x: np.ndarray, y: np.ndarray, body: Body, side: int, edge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Air (0 to about 1) and outline (0 to 1) of the lung at x * side > 0."""
    u = x * side
    down = np.clip((y - body.apex) / 1.15, 0, 1)
    outer = cage(y, body)
    inner = body.mediastinum * (0.95 + 0.25 * down)
    half = np.maximum((outer - inner) / 2, 1e-3)
    across = (u - (outer + inner) / 2) / half
    depth = np.sqrt(np.maximum(1 - np.abs(across) ** 3.0, 0))
    base = body.base + (0.05 if side > 0 else 0.0) + body.lift[side > 0]
    bow = (u - 0.42 * body.width / 0.8) / (0.42 * body.width / 0.8)
    dome = base + 0.24 * bow * np.maximum(bow, 0.35 * bow)  # flatter on the inside
    above = soft_step(dome - y, 0.012 + edge)
    # the lung goes on behind the dome, ever thinner
    behind = 0.22 * soft_step(dome + 0.16 - y, 0.05) * (1 - above)
    crest = y - body.apex - 2.2 * (u - 0.34 * body.width / 0.8) ** 2
    top = np.clip(crest / 0.22, 0, 1) ** 0.5
    inside = soft_step(1 - np.abs(across), 0.02 + 2 * edge) * above * (crest > 0)
    return depth * top * (above + behind) * (0.85 + 0.15 * down), inside


def heart_and_vessels(s: Scene) -> None:
    """Heart, aortic knob and hila displace air; the trachea adds some."""
    b, x, y = s.body, s.x, s.y
    low = b.base

    def ball(cx: float, cy: float, rx: float, ry: float, turn: float = 0) -> np.ndarray:
        cos, sin = math.cos(turn), math.sin(turn)
        along, over = cos * (x - cx) + sin * (y - cy), cos * (y - cy) - sin * (x - cx)
        return np.sqrt(np.maximum(1 - (along / rx) ** 2 - (over / ry) ** 2, 0))

    h = b.heart
    t = min(h, 0.31)  # the great vessels do not grow with a sick heart
    blood = np.maximum.reduce([
        ball(0.32 * h, low - 0.12, 1.22 * h, 0.27, 0.5),  # ventricles
        0.8 * ball(-0.30 * h, low - 0.20, 0.62 * h, 0.26),  # right atrium
        0.7 * ball(0.45 * t, low - 0.42, 0.36 * t, 0.22),  # pulmonary trunk
        0.7 * ball(0.85 * b.mediastinum, -0.33, 0.085, 0.095),  # aortic knob
        0.5 * ball(-0.6 * b.mediastinum, -0.30, 0.09, 0.36),  # superior vena cava
    ])  # fmt: skip
    for air in s.lung:
        air *= 1 - 0.88 * np.minimum(1.35 * blood, 1)
    s.soft += 0.16 * blood + 0.10 * np.exp(-((x / (1.3 * b.mediastinum)) ** 4))
    for side in (-1, 1):  # hila
        place = ((side * x - 0.19) / 0.09) ** 2 + ((y + 0.04 * side + 0.03) / 0.15) ** 2
        s.soft += 0.16 * np.exp(-place * 1.5)
    trachea = np.exp(-((x / 0.05) ** 4)) * soft_step(-0.22 - y, 0.05)
    s.soft -= 0.20 * trachea
    stomach = ((x - 0.36) / 0.15) ** 2 + ((y - low - 0.30) / 0.08) ** 2
    s.soft -= 0.30 * np.sqrt(np.maximum(1 - stomach, 0)) * s.rng.uniform(0, 1)


def skeleton(x: np.ndarray, y: np.ndarray, body: Body) -> np.ndarray:
    """Spine, ribs before and behind, clavicles, scapulae and arms."""
    u = np.abs(x)
    w = body.width
    part = u / w
    disc = 0.75 + 0.25 * np.cos((y + 0.05 * part) * 2 * np.pi / 0.165)
    bone = 0.20 * np.sqrt(np.maximum(1 - (x / 0.085) ** 2, 0)) * disc
    bone += 0.08 * np.exp(-((x / 0.012) ** 2)) * disc  # spinous processes
    outside = (w + 0.02) / w * cage(y + 0.06, body)
    edge = np.maximum(1 - (u / np.maximum(outside, 1e-3)) ** 2, 0)
    tangent = 1 / np.sqrt(np.maximum(edge, 0.12))  # seen along their length
    within = (edge > 0) & (y < body.base + 0.5)
    slope = 0.16 + body.slope
    for curve, start, radius, strength in (
        (-0.06 * np.sin(2.2 * part) + (slope + 0.16) * part**2.2, 0.07, 0.030, 0.22),
        (-0.55 * part + 0.24 * part**2, 0.34, 0.033, 0.14),
    ):
        number = (y - body.apex - 0.03 - curve) / body.rib
        offset = (number - np.round(number)) * body.rib
        counted = (number > -0.5) & (number < 9.5) & (u > start * w / 0.8)
        bone += strength * tube(offset / 1.15, radius) * within * counted * tangent
    collar = y + 0.60 + 0.30 * (u - 0.06) - 0.05 * np.sin((u - 0.06) * 8) + 0.02
    reach = soft_step(u - 0.07, 0.02) * soft_step(0.78 - u, 0.03)
    bone += 0.36 * tube(collar, 0.038) * reach
    blade = soft_step(u - 0.66 - 0.18 * (y + 0.5), 0.012) * soft_step(0.10 - y, 0.06)
    blade *= soft_step(y + 0.68, 0.05) * soft_step(0.98 - u, 0.04)
    bone += 0.08 * blade
    joint = ((u - 0.98) / 0.13) ** 2 + ((y + 0.62) / 0.12) ** 2
    bone += 0.45 * np.sqrt(np.maximum(1 - joint, 0))
    return bone


def vessels(size: int, body: Body, rng: np.random.Generator) -> np.ndarray:
    """Two trees of tapering branches that leave the hila, 0 to 1."""
    lines = []

    def grow(x: float, y: float, angle: float, width: float, depth: int) -> None:
        length = rng.uniform(0.11, 0.19) * (0.9**depth)
        points = [(x, y)]
        for _ in range(2):
            angle += rng.normal(0, 0.16)
            x += length / 2 * math.cos(angle)
            y += length / 2 * math.sin(angle)
            points.append((x, y))
        lines.append((points, width))
        if depth < (3 if size < 100 else 4):  # finer ones would not be seen
            for turn in (-1, 1):
                if rng.random() < 0.86:
                    bend = turn * rng.uniform(0.2, 0.55)
                    grow(x, y, angle + bend, width * 0.68, depth + 1)

    for side in (-1, 1):
        for angle in (-1.25, -0.75, -0.2, 0.35, 0.8, 1.2):
            angle += rng.normal(0, 0.1)
            out = angle if side > 0 else np.pi - angle
            grow(side * 0.15, -0.05 + 0.1 * math.sin(angle), out, 0.038, 0)
    return strokes(size, body, lines)
