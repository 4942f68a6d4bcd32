"""Project a synthetic chest onto a radiograph: frontal or lateral, at any size.

The chest is made of ellipsoids, and a pixel is how much of each the beam has to cross (parallel beams, one energy, no
scatter; the display shows attenuation, so that dense is bright). Both views see the same three-dimensional body. Organs
and findings displace the air of the lungs, as in a real chest; ribs, clavicles and devices are added in each view by
hand. Axes, in shares of the picture's width: x from the patient's right (-0.5) to his left (0.5), y from front to back,
z downwards from 0 to 1. A frontal picture shows x to the right, a lateral one y, so that the patient looks to the left.

Source: the path length through an ellipsoid, as in Shepp and Logan 1974, "The Fourier reconstruction of a head
section", https://doi.org/10.1109/TNS.1974.6499235.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vglm.worlds.radiographs import SIDES, Chest, Side, View

Floats = NDArray[np.floating[Any]]

SUPERSAMPLING = 2
SOFT_TISSUE, LUNG, AIR = 1.0, 0.42, 0.0
"""Attenuation along one picture's width."""
DARKEST, BRIGHTEST = 0.16, 0.94
"""Attenuations shown as black and as white."""
NOISE = 0.012
"""Standard deviation of a pixel's noise, as a share of white."""

HEIGHTS = {"upper": 2.5 / 8, "middle": 3.75 / 8, "lower": 5.4 / 8}
"""Height of an opacity in each zone."""


@dataclass(frozen=True, slots=True)
class _Ellipsoid:
    """A centre and three radii, each (x, y, z)."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def path(self, horizontal: Floats, vertical: Floats, view: View) -> Floats:
        """Length of the beam's way through it, for each pixel."""
        across, along = (0, 1) if view == "frontal" else (1, 0)
        left = (horizontal - self.centre[across]) / self.radii[across]
        down = (vertical - self.centre[2]) / self.radii[2]
        inside: Floats = 2 * self.radii[along] * np.sqrt(np.maximum(0, 1 - left * left - down * down))
        return inside


@dataclass(frozen=True, slots=True)
class _Anatomy:
    """One patient's build and the extents of his findings."""

    lungs: dict[Side, _Ellipsoid]
    diaphragm: dict[Side, float]
    heart: _Ellipsoid
    opacity: _Ellipsoid | None
    fluid_level: dict[Side, float]
    collapsed_to: float
    shift: tuple[float, float]
    scale: float
    exposure: float
    noise_seed: int


def render(chest: Chest, view: View = "frontal", size: int = 64) -> Image.Image:
    """Take a picture.

    Args:
        chest: What to show.
        view: "frontal" or "lateral".
        size: Width and height in pixels, at least 16.

    Returns:
        An RGB picture of `size` x `size` pixels, all grey; the same for equal arguments.
    """
    anatomy = _anatomy(chest)
    grid: Floats = (np.arange(size * SUPERSAMPLING, dtype=np.float32) + 0.5) / (size * SUPERSAMPLING)
    shift_x, shift_z = anatomy.shift
    horizontal = ((grid - 0.5 - shift_x) / anatomy.scale)[None, :]
    vertical = ((grid - 0.5 - shift_z) / anatomy.scale + 0.5)[:, None]
    attenuation = _attenuation(chest, anatomy, horizontal, vertical, view)
    attenuation += _metal(chest, anatomy, view, len(grid))
    shown = (attenuation * anatomy.exposure - DARKEST) / (BRIGHTEST - DARKEST)
    shown = shown.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3))
    rng = np.random.default_rng([anatomy.noise_seed, view == "lateral"])
    shown += rng.normal(0, NOISE, shown.shape)
    return Image.fromarray((np.clip(shown, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")


def cardiothoracic_ratio(chest: Chest) -> float:
    """Width of the heart over the inner width of the chest, as drawn in the frontal view."""
    anatomy = _anatomy(chest)
    right, left = anatomy.lungs["right"], anatomy.lungs["left"]
    inner = left.centre[0] + left.radii[0] - right.centre[0] + right.radii[0]
    return 2 * anatomy.heart.radii[0] / inner


def _anatomy(chest: Chest) -> _Anatomy:
    """Draw a patient's measures. Every draw is made independently of the findings, so that they change nothing else."""
    rng = np.random.default_rng(chest.anatomy_seed)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    signs: tuple[tuple[Side, int], ...] = (("right", -1), ("left", 1))
    lungs = {
        side: _Ellipsoid(
            (sign * between(0.2, 0.215), 0.0, between(0.46, 0.48)),
            (between(0.16, 0.175), between(0.2, 0.22), between(0.355, 0.375)),
        )
        for side, sign in signs
    }
    inner = lungs["left"].centre[0] + lungs["left"].radii[0] - lungs["right"].centre[0] + lungs["right"].radii[0]
    ratios = {"normal": between(0.4, 0.47), "enlarged": between(0.58, 0.65)}
    radius = ratios[chest.heart] * inner / 2
    right_border = -0.1 - (0.03 if chest.heart == "enlarged" else 0)
    heart = _Ellipsoid(
        (right_border + radius, -0.06 - (0.02 if chest.heart == "enlarged" else 0), between(0.62, 0.64)),
        (radius, radius * 0.8, radius * between(0.8, 0.86) + 0.02),
    )
    offsets, extents = rng.uniform(-1, 1, 3).tolist(), rng.uniform(0.075, 0.09, 3).tolist()
    opacity = None
    if chest.opacity is not None:
        sign = -1 if chest.opacity.side == "right" else 1
        outward = 0.27 if chest.opacity.zone == "lower" else 0.22
        depth = (0.06 + 0.05 * abs(offsets[1])) * (1 if offsets[1] > 0 else -1)
        centre = (sign * (outward + 0.015 * offsets[0]), depth, HEIGHTS[chest.opacity.zone] + 0.015 * offsets[2])
        opacity = _Ellipsoid(centre, (extents[0], extents[1] + 0.03, extents[2]))
    return _Anatomy(
        lungs=lungs,
        diaphragm={"right": between(0.755, 0.775), "left": between(0.77, 0.79)},
        heart=heart,
        opacity=opacity,
        fluid_level={"left": between(0.6, 0.66), "right": between(0.6, 0.66)},
        collapsed_to=between(0.5, 0.65),
        shift=(between(-0.012, 0.012), between(-0.012, 0.012)),
        scale=between(0.98, 1.03),
        exposure=between(0.96, 1.04),
        noise_seed=int(rng.integers(2**32)),
    )


def _attenuation(chest: Chest, anatomy: _Anatomy, horizontal: Floats, vertical: Floats, view: View) -> Floats:
    """Line integrals through body, lungs, organs, findings and bones, shape (rows, columns)."""
    body = _body(horizontal, vertical, view)
    displaced = 1.1 * anatomy.heart.path(horizontal, vertical, view) + _great_vessels(horizontal, vertical, view)
    if anatomy.opacity is not None:
        displaced = displaced + 1.2 * anatomy.opacity.path(horizontal, vertical, view)
    aerated = np.zeros_like(body)
    free_air = np.zeros_like(body)
    pleura = np.zeros_like(body)
    for side in SIDES:
        lung = anatomy.lungs[side]
        across = 0 if view == "frontal" else 1
        outward = (horizontal - lung.centre[across]) / lung.radii[across]
        if view == "frontal":
            floor = anatomy.diaphragm[side] + 0.05 * outward * outward
            outward = outward * (1 if side == "left" else -1)
        else:
            floor = anatomy.diaphragm[side] + 0.04 * outward * outward + 0.04 * outward
        if chest.has_effusion(side):  # fluid stands higher along the chest wall
            floor = np.minimum(floor, anatomy.fluid_level[side] - 0.07 * np.maximum(outward, 0) ** 2)
        path = lung.path(horizontal, vertical, view) * _step((floor - vertical) / 0.012)
        if chest.pneumothorax == side:
            share = anatomy.collapsed_to
            hilum = (lung.centre[0] * 0.62, 0.08, 0.52)
            radii = (lung.radii[0] * share, lung.radii[1] * share, lung.radii[2] * (share + 0.12))
            remaining = np.minimum(path, _Ellipsoid(hilum, radii).path(horizontal, vertical, view))
            rim = (remaining > 0) & (remaining < 0.3 * 2 * radii[1 if view == "frontal" else 0])
            pleura = pleura + 0.06 * rim
            free_air = free_air + (path - remaining)
            path = remaining
        aerated = aerated + path
    taken = np.minimum(displaced, aerated + free_air)
    from_lung = np.minimum(taken, aerated)
    aerated, free_air = aerated - from_lung, free_air - (taken - from_lung)
    total = SOFT_TISSUE * body - (SOFT_TISSUE - LUNG) * aerated - (SOFT_TISSUE - AIR) * free_air + pleura
    in_lung = np.minimum(1, (aerated + free_air) * 8)
    total = total + _bones(horizontal, vertical, view) * np.minimum(1, body * 4)
    total = total + 0.03 * _vessels(anatomy, horizontal, vertical) * np.minimum(1, aerated * 6) * in_lung
    return np.asarray(total, dtype=np.float32)


def _body(horizontal: Floats, vertical: Floats, view: View) -> Floats:
    """A trunk of elliptic section, narrower at the neck."""
    half_width, half_depth = (0.47, 0.31) if view == "frontal" else (0.31, 0.36)
    shoulder = _step((vertical - 0.1) / 0.025)
    if view == "frontal":
        width = 0.2 + (half_width - 0.2) * shoulder
    else:
        width = 0.2 + (half_width - 0.2) * _step((vertical - 0.12) / 0.05)
    inside = np.sqrt(np.maximum(0, 1 - (horizontal / width) ** 2))
    return np.asarray(2 * half_depth * inside, dtype=np.float32)


def _great_vessels(horizontal: Floats, vertical: Floats, view: View) -> Floats:
    """Mediastinum: a column of soft tissue above the heart, with the aortic knob on the left."""
    if view == "frontal":
        column = 0.3 * np.exp(-((horizontal / 0.075) ** 4)) * np.ones_like(vertical)
        knob = _Ellipsoid((0.055, 0.05, 0.33), (0.055, 0.06, 0.06)).path(horizontal, vertical, view)
    else:
        column = 0.12 * np.exp(-(((horizontal + 0.02) / 0.09) ** 4)) * np.exp(-((vertical / 0.5) ** 6))
        knob = _Ellipsoid((0.0, 0.05, 0.33), (0.05, 0.09, 0.08)).path(horizontal, vertical, view)
    return np.asarray(column + knob, dtype=np.float32)


def _bones(horizontal: Floats, vertical: Floats, view: View) -> Floats:
    """Spine, ribs and clavicles."""
    if view == "frontal":
        outward = np.abs(horizontal)
        spine = 0.13 * np.exp(-((horizontal / 0.05) ** 4)) * (0.85 + 0.15 * np.cos(2 * math.pi * vertical / 0.07))
        phase = (vertical - 0.35 * outward + 0.9 * outward**2) / 0.095
        ribs = 0.045 * np.maximum(0, np.cos(2 * math.pi * phase) - 0.55) / 0.45
        ribs = ribs * _step((0.41 - outward) / 0.01) * _step((outward - 0.07) / 0.02) * _step((0.86 - vertical) / 0.03)
        clavicle = 0.09 * np.exp(-(((vertical - 0.165 + 0.16 * outward) / 0.016) ** 2))
        clavicle = clavicle * _step((0.38 - outward) / 0.02) * _step((outward - 0.04) / 0.01)
        return np.asarray(spine + ribs * _step((vertical - 0.13) / 0.02) + clavicle, dtype=np.float32)
    spine = 0.16 * np.exp(-(((horizontal - 0.215 + 0.05 * (vertical - 0.5)) / 0.05) ** 4))
    spine = spine * (0.8 + 0.2 * np.cos(2 * math.pi * vertical / 0.075))
    phase = (vertical - 0.3 * horizontal) / 0.095
    ribs = 0.035 * np.maximum(0, np.cos(2 * math.pi * phase) - 0.6) / 0.4
    ribs = ribs * _step((0.24 - np.abs(horizontal)) / 0.02) * _step((0.84 - vertical) / 0.03)
    sternum = 0.1 * np.exp(-(((horizontal + 0.265 - 0.06 * (0.5 - vertical)) / 0.014) ** 2))
    sternum = sternum * _step((0.65 - vertical) / 0.02) * _step((vertical - 0.2) / 0.02)
    return np.asarray(spine + ribs + sternum, dtype=np.float32)


def _vessels(anatomy: _Anatomy, horizontal: Floats, vertical: Floats) -> Floats:
    """Smooth texture of the lungs, -1 to 1, denser towards the hila."""
    rng = np.random.default_rng([anatomy.noise_seed, 7])
    total = np.zeros((vertical.shape[0], horizontal.shape[1]), dtype=np.float32)
    for turns, phase, angle in rng.uniform((9, 0, 0), (17, 2 * math.pi, math.pi), (5, 3)).tolist():
        wave = horizontal * math.cos(angle) + vertical * math.sin(angle)
        total += np.cos(2 * math.pi * turns * wave + phase).astype(np.float32)
    return total / 5


def _metal(chest: Chest, anatomy: _Anatomy, view: View, size: int) -> Floats:
    """Device, and on a frontal picture the marker of the patient's left, as added attenuation (size, size)."""
    picture = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(picture)
    shift_x, shift_z = anatomy.shift

    def pixels(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [
            (
                (x * anatomy.scale + shift_x + 0.5) * size,
                ((z - 0.5) * anatomy.scale + shift_z + 0.5) * size,
            )
            for x, z in points
        ]

    def line(points: Sequence[tuple[float, float]], width: float) -> None:
        draw.line(pixels(points), fill=255, width=max(1, round(width * size)), joint="curve")

    sign = 1 if chest.device_side == "left" else -1
    heart = anatomy.heart
    if chest.device == "pacemaker":
        tip = (heart.centre[0] + 0.4 * heart.radii[0], heart.centre[2] + 0.5 * heart.radii[2])
        if view == "frontal":
            box = pixels([(sign * 0.27 - 0.055, 0.17), (sign * 0.27 + 0.055, 0.27)])
            draw.rounded_rectangle([*box[0], *box[1]], radius=0.02 * size, fill=255)
            line([(sign * 0.22, 0.19), (sign * 0.1, 0.17), (-0.05, 0.26), (-0.05, 0.5), tip], 0.016)
        else:
            box = pixels([(-0.265, 0.18), (-0.225, 0.28)])
            draw.rounded_rectangle([*box[0], *box[1]], radius=0.01 * size, fill=255)
            line([(-0.24, 0.19), (-0.1, 0.2), (0.0, 0.3), (0.0, 0.5), (heart.centre[1], tip[1])], 0.016)
    elif chest.device == "catheter":
        if view == "frontal":
            line([(sign * 0.4, 0.13), (sign * 0.16, 0.18), (-0.05, 0.27), (-0.05, 0.52)], 0.024)
        else:
            line([(-0.16, 0.12), (-0.06, 0.22), (0.0, 0.32), (0.0, 0.52)], 0.024)
    if view == "frontal":
        draw.line(
            [(0.93 * size, 0.03 * size), (0.93 * size, 0.1 * size), (0.97 * size, 0.1 * size)],
            fill=255,
            width=max(1, round(0.014 * size)),
        )
    return np.asarray(picture, dtype=np.float32) * (0.4 / 255)


def _step(value: Floats) -> Floats:
    """A smooth step from 0 to 1 around zero."""
    return np.asarray(0.5 + 0.5 * np.tanh(value), dtype=np.float32)
