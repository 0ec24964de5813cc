"""What the phantom's drawings can show: each finding changes the solids.

A finding of the body (a large heart) changes the anatomy before the thorax is
built, one of the scene (fluid, a nodule) changes its maps. Places and sizes
follow textbook descriptions loosely; nothing was fitted to any model's result.
"""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np

from bigxfer.data.phantom import draw, film
from bigxfer.data.phantom.draw import Body, Box, Scene, soft_step
from bigxfer.data.phantom.film import Style

Rng = np.random.Generator


def radiograph(
    size: int,
    body: Body,
    style: Style,
    findings: list[str],
    rng: Rng,
    severity: float = 1.0,
) -> tuple[np.ndarray, list[tuple[str, Box]]]:
    """uint8 [size, size] and (finding, box) for each finding seen in the scene."""
    body = replace(
        body,
        tilt=float(rng.normal(0, 0.025)),
        shift=(float(rng.normal(0, 0.03)), float(rng.normal(0, 0.03))),
        zoom=float(np.clip(rng.normal(1.0, 0.03), 0.92, 1.08)),
        base=body.base - abs(float(rng.normal(0, 0.05))),  # shallow breath
        lift=(float(rng.normal(0, 0.015)), float(rng.normal(0, 0.015))),
    )
    # The body first: the maps of the scene are built upon it.
    for name in findings:
        if name in OF_THE_BODY:
            OF_THE_BODY[name](body, rng)
    scene = draw.scene(size, body, rng)
    scene.severity = severity
    for name in findings:
        if name in OF_THE_SCENE:
            scene.found(name, OF_THE_SCENE[name](scene))
    exposure = replace(  # no two are alike, on one machine neither
        style,
        gain=style.gain * float(rng.uniform(0.85, 1.15)),
        gamma=style.gamma * float(rng.uniform(0.88, 1.14)),
        scatter=style.scatter * float(rng.uniform(0.6, 1.6)),
    )
    return film.project(scene, exposure), scene.boxes


# --- of the body


def cardiomegaly(body: Body, rng: Rng) -> None:
    body.heart *= rng.uniform(1.22, 1.5)


def enlarged_mediastinum(body: Body, rng: Rng) -> None:
    body.mediastinum *= rng.uniform(1.25, 1.55)


def emphysema(body: Body, rng: Rng) -> None:
    body.base += rng.uniform(0.08, 0.15)
    body.air, body.heart = 1.15 * body.air, 0.85 * body.heart


def volume_loss(body: Body, rng: Rng) -> None:
    raised = -rng.uniform(0.04, 0.14)
    body.lift = (raised, 0.0) if rng.random() < 0.5 else (0.0, raised)


# --- of the scene: each returns the mask of what it changed


def heart(s: Scene) -> np.ndarray:
    b = s.body
    # A little to the patient's left, the right of the image, as the heart lies.
    return (np.abs(s.x - 0.2 * b.heart) < 1.2 * b.heart) & (
        np.abs(s.y - b.base + 0.14) < 0.28
    )


def upper_mediastinum(s: Scene) -> np.ndarray:
    return (np.abs(s.x) < 1.25 * s.body.mediastinum) & (np.abs(s.y + 0.35) < 0.28)


def both_lungs(s: Scene) -> np.ndarray:
    return s.inside[0] + s.inside[1]


def one_side(s: Scene) -> tuple[int, np.ndarray]:
    """A random side (-1 is the left of the image) and its lateral coordinate."""
    side = int(s.rng.choice([-1, 1]))
    return side, s.x * side


def of(s: Scene, side: int) -> np.ndarray:
    return s.inside[side > 0]


def fill(s: Scene, mask: np.ndarray, strength: float) -> np.ndarray:
    """Replaces a share of the air under the mask by fluid."""
    share = np.clip(s.severity * strength * mask, 0, 1)
    # Of the air that is left: two findings at one place never fill more than all.
    s.opacity = 1 - (1 - s.opacity) * (1 - share)
    return mask


def patch(
    s: Scene, side: int, place: tuple[float, float], radius: tuple[float, float]
) -> np.ndarray:
    """An irregular, mottled, soft-edged area of one lung, 0 to 1."""
    u, (cx, cy), (rx, ry) = s.x * side, place, radius
    far = np.sqrt(((u - cx) / rx) ** 2 + ((s.y - cy) / ry) ** 2)
    far = far + 0.22 * draw.cloud(s.rng, s.size, 9)
    mottle = np.clip(0.8 + 0.2 * draw.cloud(s.rng, s.size, 22), 0.2, 1.0)
    return soft_step(1 - far, 0.35) * mottle * of(s, side)


def lobar(s: Scene, low: float, high: float) -> np.ndarray:
    """One or two neighbouring patches of one lung, away from its border."""
    side, _ = one_side(s)
    rng, mask = s.rng, np.zeros_like(s.x)
    x, y = rng.uniform(0.28, 0.46), rng.uniform(-0.42, 0.26)
    for _ in range(1 + (rng.random() < 0.35)):
        radius = rng.uniform(0.13, 0.25), rng.uniform(0.12, 0.22)
        mask = np.maximum(mask, patch(s, side, (x, y), radius))
        x, y = x + rng.uniform(-0.1, 0.1), y + rng.uniform(-0.2, 0.2)
    return fill(s, mask, rng.uniform(low, high))


def consolidation(s: Scene) -> np.ndarray:
    mask = lobar(s, 0.55, 0.85)
    s.vessels = s.vessels * (1 - 1.4 * mask)  # air bronchograms: dark branches
    return mask


def covid(s: Scene) -> np.ndarray:
    """Bilateral, peripheral, basal haze in several patches."""
    rng, whole = s.rng, np.zeros_like(s.x)
    strength = rng.uniform(0.18, 0.45)
    for side in (-1, 1):
        mask = np.zeros_like(s.x)
        for _ in range(rng.integers(1, 4)):
            y = rng.uniform(-0.15, 0.36)
            x = draw.cage(np.asarray(y), s.body) - rng.uniform(0.06, 0.20)
            radius = rng.uniform(0.09, 0.18), rng.uniform(0.10, 0.20)
            mask = np.maximum(mask, patch(s, side, (float(x), y), radius))
        fill(s, mask, strength * rng.uniform(0.55, 1.0))
        whole = np.maximum(whole, mask)
    return whole


def edema(s: Scene) -> np.ndarray:
    """Perihilar haze on both sides, wide vessels, septal lines at the bases."""
    u, rng = np.abs(s.x), s.rng
    haze = np.exp(-(((u - 0.26) / 0.26) ** 2) - ((s.y + 0.02) / 0.38) ** 2)
    haze *= np.clip(0.8 + 0.25 * draw.cloud(rng, s.size, 14), 0.2, 1.2)
    haze *= both_lungs(s)
    s.vessels = s.vessels * rng.uniform(1.4, 2.2)
    lines = []
    for _ in range(14):
        y, side = rng.uniform(0.05, 0.40), rng.choice([-1, 1])
        x = float(draw.cage(np.asarray(y), s.body)) - 0.02
        lines.append(([(side * x, y), (side * (x - 0.09), y + 0.01)], 0.010))
    septa = draw.strokes(s.size, s.body, lines)
    s.soft += 0.10 * septa
    return fill(s, haze, rng.uniform(0.25, 0.60))


def effusion(s: Scene) -> np.ndarray:
    """Fluid at a base with a meniscus that climbs the lateral wall."""
    side, u = one_side(s)
    amount = s.rng.uniform(0.02, 0.40)
    climb = 0.16 * np.clip(u / s.body.width, 0, 1) ** 5
    level = s.body.base + 0.16 - amount - climb
    mask = soft_step(s.y - level, 0.035) * (u > 0.05)
    fill(s, mask, 0.93)
    return mask * of(s, side)


def pneumothorax(s: Scene) -> np.ndarray:
    """Air without vessels outside the thin line of a lung shrunk to its hilum."""
    side, u = one_side(s)
    kept = s.rng.uniform(0.66, 0.90)
    b, inside = s.body, of(s, side)
    far = ((u - 0.12) / (kept * (b.width - 0.12))) ** 2
    far = far + ((s.y - 0.20) / (kept * (0.20 - b.apex))) ** 2
    mask = soft_step(far - 1, 0.05) * inside * (s.y < b.base)
    line = np.exp(-(((far - 1) / 0.05) ** 2)) * inside
    s.vessels = s.vessels * (1 - mask)
    s.lung[side > 0] *= 1 + 0.30 * mask
    s.soft += 0.07 * line
    fill(s, inside * (1 - mask), 0.08)
    return mask


def atelectasis(s: Scene) -> np.ndarray:
    """Bands of collapsed lung over a raised hemidiaphragm."""
    # The side that volume_loss raised: collapsed lung pulls the diaphragm up.
    side = -1 if s.body.lift[0] < s.body.lift[1] else 1
    rng, lines = s.rng, []
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0.20, 0.35), rng.uniform(0.02, 0.30)
        end = x + rng.uniform(0.2, 0.35), y + rng.uniform(-0.10, 0.14)
        width = rng.uniform(0.018, 0.045)
        lines.append(([(side * x, y), (side * end[0], end[1])], width))
    mask = draw.strokes(s.size, s.body, lines) * of(s, side)
    return fill(s, mask, rng.uniform(0.35, 0.65))


def ball(s: Scene, low: float, high: float) -> np.ndarray:
    """A round lesion somewhere in a lung."""
    side, u = one_side(s)
    rows, columns = np.nonzero(of(s, side) > 0.9)
    radius = s.rng.uniform(low, high)
    # A tiny image may leave no pixel that is well inside a lung.
    if not len(rows):
        return np.zeros_like(s.x)
    k = s.rng.integers(len(rows))
    x, y = u[rows[k], columns[k]], s.y[rows[k], columns[k]]
    far = ((u - x) ** 2 + (s.y - y) ** 2) / radius**2
    mask = np.sqrt(np.maximum(1 - far, 0))  # the chord through a ball
    s.soft += (0.20 + 1.6 * radius) * mask
    return mask


def pleural_thickening(s: Scene) -> np.ndarray:
    side, u = one_side(s)
    centre, depth = s.rng.uniform(-0.3, 0.3), s.rng.uniform(0.025, 0.06)
    inward = draw.cage(s.y, s.body) - u
    mask = soft_step(depth - inward, 0.012) * np.exp(-(((s.y - centre) / 0.25) ** 4))
    return fill(s, mask * of(s, side), 0.9)


def fibrosis(s: Scene) -> np.ndarray:
    """A net of lines at the bases."""
    net = np.exp(-((draw.cloud(s.rng, s.size, 34) / 0.35) ** 2))
    where = soft_step(s.y - 0.0, 0.2) * soft_step(np.abs(s.x) - 0.25, 0.15)
    s.soft += 0.10 * net * where * both_lungs(s)
    return where * both_lungs(s)


def hernia(s: Scene) -> np.ndarray:
    """Part of the stomach behind the heart, with its air above its fluid."""
    far = ((s.x - 0.05) / 0.17) ** 2 + ((s.y - s.body.base + 0.10) / 0.15) ** 2
    mask = np.sqrt(np.maximum(1 - far, 0))
    s.soft += mask * np.where(s.y < s.body.base - 0.10, -0.22, 0.14)
    return mask


def fracture(s: Scene) -> np.ndarray:
    """A step and a gap in the ribs at one place of the lateral wall."""
    _, u = one_side(s)
    y = s.rng.uniform(-0.4, 0.3)
    x = float(draw.cage(np.asarray(y), s.body)) * s.rng.uniform(0.75, 0.95)
    near = np.exp(-(((u - x) / 0.07) ** 4) - ((s.y - y) / 0.10) ** 4)
    step = max(1, round(0.035 * s.size / 2))
    moved = np.where(u > x, np.roll(s.bone, step, axis=0), s.bone)
    gap = 1 - 0.9 * np.exp(-(((u - x) / 0.02) ** 2))
    s.bone = s.bone * (1 - near) + 1.25 * moved * gap * near
    return near


def bend(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Rounds the corners of a line, by cutting each at a quarter (Chaikin)."""
    for _ in range(3 if len(points) > 2 else 0):
        cut = [
            (a[0] * (1 - t) + b[0] * t, a[1] * (1 - t) + b[1] * t)
            for a, b in pairwise(points)
            for t in (0.25, 0.75)
        ]
        points = [points[0], *cut, points[-1]]
    return points


def devices(s: Scene) -> np.ndarray:
    """One or two of: central line, tracheal tube, pacemaker, electrode wires."""
    rng = s.rng
    wobble = [float(v) for v in rng.normal(0, 0.03, 6)]
    line = [(-0.45, -0.62), (-0.2, -0.52), (-0.08, -0.3), (-0.09, 0.02 + wobble[0])]
    tube = [(0.0, -1.0), (wobble[1] / 2, -0.6), (0.0, -0.28 + wobble[2])]
    pacer = [(0.42, -0.42), (0.2, -0.55), (0.0, -0.35), (-0.08, 0.05), (0.15, 0.28)]
    wires = [(-0.9, 0.9), (-0.5, 0.3 + wobble[3]), (-0.55, -0.3), (-0.2, -0.9)]
    kinds = [
        [(line, 0.014)],
        [([(x - 0.02, y) for x, y in tube], 0.009)]
        + [([(x + 0.02, y) for x, y in tube], 0.009)],
        [(pacer, 0.014), ([(0.40, -0.45), (0.52, -0.45)], 0.14)],
        [(wires, 0.010), ([(-0.57, -0.3), (-0.53, -0.3)], 0.05)],
    ]
    chosen = rng.choice(len(kinds), size=rng.integers(1, 3), replace=False)
    lines = [(bend(points), width) for k in chosen for points, width in kinds[k]]
    mask = draw.strokes(s.size, s.body, lines)
    s.bone += 0.65 * mask
    return mask


OF_THE_BODY = {
    "cardiomegaly": cardiomegaly,
    "enlarged_mediastinum": enlarged_mediastinum,
    "emphysema": emphysema,
    "atelectasis": volume_loss,
}

OF_THE_SCENE = {
    "cardiomegaly": heart,
    "enlarged_mediastinum": upper_mediastinum,
    "emphysema": both_lungs,
    "effusion": effusion,
    "pneumothorax": pneumothorax,
    "pneumonia": partial(lobar, low=0.20, high=0.55),
    "infiltration": partial(lobar, low=0.18, high=0.40),
    "consolidation": consolidation,
    "covid": covid,
    "edema": edema,
    "atelectasis": atelectasis,
    "nodule": partial(ball, low=0.040, high=0.075),
    "mass": partial(ball, low=0.10, high=0.18),
    "pleural_thickening": pleural_thickening,
    "fibrosis": fibrosis,
    "hernia": hernia,
    "fracture": fracture,
    "devices": devices,
}
