"""Draw a scene: a textured place, and in front of it outlined subjects, at any size.

Everything is drawn at twice the size requested and averaged down. A place is a category, not a bitmap: its horizon,
hues, texture and details differ from scene to scene. The subjects' outline is black (white around black subjects), so
that a white star in the snow and a black cat at night can both be seen.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vglm.worlds.scenes import Scene, Subject

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

SUPERSAMPLING = 2
OUTLINE_WIDTH = 0.014
"""Thickness of a subject's outline beyond its edge, as a share of the picture's width."""

RGB: dict[str, Colour] = {
    "red": (222, 28, 36),
    "orange": (255, 134, 12),
    "yellow": (255, 232, 40),
    "green": (28, 160, 52),
    "blue": (34, 78, 228),
    "purple": (146, 44, 190),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}


def render(scene: Scene, size: int = 64) -> Image.Image:
    """Draw a scene.

    Args:
        scene: What to draw.
        size: Width and height of the picture in pixels, at least 16.

    Returns:
        An RGB picture of `size` x `size` pixels; the same for equal arguments.
    """
    rng = np.random.default_rng(scene.texture_seed)
    picture = _PLACES[scene.place](rng, size * SUPERSAMPLING)
    fill = _shift(rng, RGB[scene.colour], 10)
    line = (245, 245, 245) if scene.colour == "black" else (18, 18, 18)
    draw = ImageDraw.Draw(picture)
    for subject in scene.subjects:
        _draw_subject(draw, scene.kind, subject, fill, line, picture.width)
    return picture.reduce(SUPERSAMPLING)


# --- Subjects: polygons in a square from -1 to 1, y pointing down -----------------------------------------------------


def _arc(x: float, y: float, rx: float, ry: float, start: float = 0, stop: float = 360, points: int = 20) -> Points:
    """Points on an ellipse, angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, stop, points, endpoint=stop - start < 360))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def _heart() -> Points:
    """16 sin³t, 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled (https://mathworld.wolfram.com/HeartCurve.html)."""
    return [
        (
            16 * math.sin(t) ** 3 / 17,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.1,
        )
        for t in np.linspace(0, 2 * math.pi, 28, endpoint=False)
    ]


def _star() -> Points:
    return [
        (r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5) + 0.05)
        for i in range(10)
        for r in (1.0 if i % 2 == 0 else 0.42,)
    ]


_PARTS: dict[str, list[Points]] = {
    "ball": [_arc(0, 0, 0.88, 0.88, points=28)],
    "star": [_star()],
    "heart": [_heart()],
    "tree": [
        [(-0.16, 0.55), (0.16, 0.55), (0.16, 1), (-0.16, 1)],
        [(0, -0.35), (0.8, 0.65), (-0.8, 0.65)],
        [(0, -0.98), (0.58, 0.02), (-0.58, 0.02)],
    ],
    "house": [
        [(-0.66, -0.1), (0.66, -0.1), (0.66, 0.85), (-0.66, 0.85)],
        [(0, -0.95), (0.95, -0.05), (-0.95, -0.05)],
    ],
    "car": [
        [(-0.55, -0.1), (-0.36, -0.62), (0.3, -0.62), (0.6, -0.1)],
        [(-0.98, 0), (-0.88, -0.12), (0.8, -0.12), (0.98, 0.05), (0.98, 0.45), (-0.98, 0.45)],
    ],
    "fish": [
        [(0.35, 0), (0.98, -0.56), (0.86, 0), (0.98, 0.56)],
        [(-0.25, -0.4), (0.15, -0.75), (0.2, -0.3)],
        _arc(-0.22, 0, 0.76, 0.48),
    ],
    "boat": [
        [(-0.08, -0.95), (0.06, -0.95), (0.06, 0.4), (-0.08, 0.4)],
        [(0.14, -0.9), (0.85, 0.25), (0.14, 0.25)],
        [(-0.16, -0.6), (-0.16, 0.25), (-0.68, 0.25)],
        [(-0.95, 0.38), (0.95, 0.38), (0.6, 0.88), (-0.6, 0.88)],
    ],
    "cat": [
        [(-0.72, -0.9), (-0.12, -0.48), (-0.72, 0.05)],
        [(0.72, -0.9), (0.12, -0.48), (0.72, 0.05)],
        _arc(0, 0.15, 0.8, 0.72),
    ],
    "umbrella": [
        [(-0.06, -0.1), (0.09, -0.1), (0.09, 0.78), (-0.06, 0.78)],
        [*_arc(-0.2, 0.72, 0.29, 0.27, 0, 180, 8), *_arc(-0.2, 0.72, 0.13, 0.12, 180, 0, 8)],
        [
            *_arc(0, 0.02, 0.97, 0.92, 180, 360, 16),
            *_arc(0.65, 0.02, 0.32, 0.18, 360, 180, 5),
            *_arc(0, 0.02, 0.32, 0.18, 360, 180, 5),
            *_arc(-0.65, 0.02, 0.32, 0.18, 360, 180, 5),
        ],
    ],
    "flower": [
        _arc(0.58 * math.cos(a), 0.58 * math.sin(a), 0.4, 0.4, points=12)
        for a in np.radians([-90, -18, 54, 126, 198]).tolist()
    ],
    "cup": [
        _arc(0.42, -0.02, 0.52, 0.5),
        [(-0.8, -0.74), (0.4, -0.74), (0.32, 0.64), (0.16, 0.78), (-0.56, 0.78), (-0.72, 0.64)],
    ],
}
"""Polygons in the subject's colour; the outline runs around their union."""

_MARKS: dict[str, list[Points]] = {
    "house": [
        [(-0.15, 0.25), (0.2, 0.25), (0.2, 0.85), (-0.15, 0.85)],
    ],
    "car": [
        [(-0.34, -0.16), (-0.24, -0.46), (-0.05, -0.46), (-0.05, -0.16)],
        [(0.1, -0.16), (0.1, -0.46), (0.24, -0.46), (0.38, -0.16)],
        _arc(-0.5, 0.5, 0.27, 0.27, points=14),
        _arc(0.52, 0.5, 0.27, 0.27, points=14),
    ],
    "fish": [_arc(-0.6, -0.1, 0.11, 0.11, points=8)],
    "cat": [
        _arc(-0.34, 0.02, 0.14, 0.17, points=10),
        _arc(0.34, 0.02, 0.14, 0.17, points=10),
        [(-0.15, 0.34), (0.15, 0.34), (0, 0.5)],
    ],
    "flower": [_arc(0, 0, 0.27, 0.27, points=12)],
    "cup": [[*_arc(0.5, -0.02, 0.2, 0.24, -90, 90, 10), (0.38, 0.22), (0.38, -0.26)]],
}
"""Polygons in the colour of the outline, drawn on top."""

_STROKES: dict[str, list[Points]] = {
    "ball": [_arc(-0.95, 0, 0.75, 0.95, -58, 58, 9), _arc(0.95, 0, 0.75, 0.95, 122, 238, 9)],
    "cup": [[(-0.76, -0.45), (0.36, -0.45)]],
    "umbrella": [_arc(0, 0.02, 0.32, 0.9, 180, 360, 9)],
    "cat": [[(-0.62, 0.42), (-0.28, 0.4)], [(0.62, 0.42), (0.28, 0.4)]],
}
"""Thin lines in the colour of the outline, drawn on top."""

_FIT = {kind: 1 / max(1, *(math.hypot(x, y) for part in parts for x, y in part)) for kind, parts in _PARTS.items()}
"""What shrinks each kind into the circle of radius 1."""


def _draw_subject(
    draw: ImageDraw.ImageDraw, kind: str, subject: Subject, fill: Colour, line: Colour, canvas: int
) -> None:
    """Draw the widened union of the parts as the outline, then the parts, then what is on them."""
    scale = _FIT[kind] * subject.width * canvas / 2
    across, along = scale * math.cos(subject.tilt), scale * math.sin(subject.tilt)
    left, top = subject.x * canvas, subject.y * canvas
    sign = -1 if subject.mirrored else 1

    def on_canvas(points: Points) -> Points:
        return [(left + sign * x * across - y * along, top + sign * x * along + y * across) for x, y in points]

    parts = [on_canvas(points) for points in _PARTS[kind]]
    edge = max(1, round(2 * OUTLINE_WIDTH * canvas))
    for part in parts:
        draw.polygon(part, fill=line)
        draw.line([*part, part[0], part[1]], fill=line, width=edge)
    for part in parts:
        draw.polygon(part, fill=fill)
    for mark in _MARKS.get(kind, ()):
        draw.polygon(on_canvas(mark), fill=line)
    for stroke in _STROKES.get(kind, ()):
        draw.line(on_canvas(stroke), fill=line, width=max(1, edge // 2))


# --- Places -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _noise() -> Image.Image:
    """White noise that textures are cut from, 256 x 256 pixels, one byte each."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8))


def _texture(rng: np.random.Generator, width: int, height: int, across: float, down: float) -> Floats:
    """Smooth noise in -1..1, shape (height, width, 1), of `across` x `down` grains (at most 128 each)."""
    x, y = (rng.random(2) * 127).tolist()
    cut = _noise().resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + across, y + down))
    texture: Floats = (np.asarray(cut, dtype=np.float32)[..., None] - 127.5) / 127.5
    return texture


def _shift(rng: np.random.Generator, colour: Colour, amount: int) -> Colour:
    """The colour with each channel moved by up to `amount`."""
    red, green, blue = (
        min(255, max(0, c + d)) for c, d in zip(colour, rng.integers(-amount, amount + 1, 3).tolist(), strict=True)
    )
    return red, green, blue


def _gradient(upper: Sequence[float], lower: Sequence[float], height: int) -> Floats:
    """Colours running from `upper` to `lower`, shape (height, 1, 3)."""
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    gradient: Floats = np.asarray(upper, dtype=np.float32) * (1 - share) + np.asarray(lower, dtype=np.float32) * share
    return gradient


def _picture(*bands: Floats) -> Image.Image:
    """Stack bands of colour, each of shape (height, canvas, 3), from top to bottom."""
    return Image.fromarray(np.clip(np.concatenate(bands), 0, 255).astype(np.uint8))


def _sky(rng: np.random.Generator, canvas: int, height: int, upper: Colour, lower: Colour, clouds: float) -> Floats:
    """A sky whose `clouds` (0..1) whiten it in soft patches."""
    sky = _gradient(_shift(rng, upper, 14), _shift(rng, lower, 10), height)
    cover = np.clip(_texture(rng, canvas, height, 5, 4) * 1.6 - 0.2, 0, 1) * clouds
    clouded: Floats = sky + (np.float32(252) - sky) * cover
    return clouded


def _horizon(rng: np.random.Generator, canvas: int, low: float, high: float) -> int:
    return round(canvas * rng.uniform(low, high))


def _beach(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Sky, a band of sea, foam, and pale sand."""
    top, shore = _horizon(rng, canvas, 0.1, 0.18), _horizon(rng, canvas, 0.36, 0.48)
    depth = shore - top
    sea = _gradient(_shift(rng, (24, 110, 190), 14), _shift(rng, (70, 185, 210), 14), depth)
    sand = _gradient(_shift(rng, (236, 208, 140), 10), _shift(rng, (244, 220, 160), 10), canvas - shore)
    picture = _picture(
        _sky(rng, canvas, top, (150, 205, 245), (205, 232, 250), 0.6),
        sea + 16 * _texture(rng, canvas, depth, 5, 12),
        sand + 13 * _texture(rng, canvas, canvas - shore, 80, 50),
    )
    xs = np.arange(0, canvas + 8, 8)
    phase, waves = rng.uniform(0, 6.3), rng.uniform(1, 2.5)
    ys = shore + canvas * 0.022 * np.sin(phase + waves * 6.283 * xs / canvas)
    surf = list(zip(xs.tolist(), ys.tolist(), strict=True))
    draw = ImageDraw.Draw(picture)
    draw.polygon([*surf, (canvas, shore - 0.04 * canvas), (0, shore - 0.04 * canvas)], fill=(110, 200, 215))
    draw.line(surf, fill=(250, 252, 250), width=max(2, canvas // 28))
    return picture


def _snow(rng: np.random.Generator, canvas: int) -> Image.Image:
    """A grey sky with flakes over white, softly shaded ground."""
    top = _horizon(rng, canvas, 0.22, 0.36)
    ground = _gradient(_shift(rng, (226, 234, 244), 5), _shift(rng, (248, 250, 253), 4), canvas - top)
    picture = _picture(
        _sky(rng, canvas, top, (150, 162, 178), (190, 200, 212), 0.25),
        ground + 12 * _texture(rng, canvas, canvas - top, 4, 6),
    )
    draw = ImageDraw.Draw(picture)
    _dots(rng, draw, canvas, 26, top, (252, 253, 255), 0.012)
    return picture


def _desert(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Orange-brown dunes with ripples under a pale warm sky."""
    top = _horizon(rng, canvas, 0.18, 0.3)
    height = canvas - top
    sand = _gradient(_shift(rng, (222, 158, 88), 9), _shift(rng, (196, 122, 58), 9), height)
    ripples = 12 * _texture(rng, canvas, height, 4, 44)
    slope = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(0, 6.283, canvas, dtype=np.float32)[None, :, None]
    for depth in (0.16, 0.5):
        phase, waves = rng.uniform(0, 6.3), rng.uniform(0.6, 1.3)
        crest = depth + 0.11 * np.sin(phase + waves * x)
        ripples = ripples - 46 * np.clip(1 - (slope - crest) / 0.26, 0, 1) * (slope > crest)
    return _picture(_sky(rng, canvas, top, (252, 226, 170), (255, 238, 200), 0.0), sand + ripples)


def _forest(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Trunks before dark green leaves."""
    ground = _horizon(rng, canvas, 0.76, 0.86)
    leaves = _gradient(_shift(rng, (22, 78, 34), 8), _shift(rng, (40, 96, 46), 8), ground)
    moss = _gradient(_shift(rng, (44, 66, 30), 8), _shift(rng, (58, 72, 36), 8), canvas - ground)
    picture = _picture(
        leaves + 30 * _texture(rng, canvas, ground, 18, 18),
        moss + 12 * _texture(rng, canvas, canvas - ground, 30, 8),
    )
    draw = ImageDraw.Draw(picture)
    trunks = int(rng.integers(5, 8))
    for i, (at, thick, foot) in enumerate(rng.random((trunks, 3)).tolist()):
        left = canvas * (i + 0.15 + 0.7 * at) / trunks
        width = canvas * (0.03 + 0.035 * thick)
        bottom = ground + canvas * 0.08 * foot
        bark = _shift(rng, (92, 62, 40), 10)
        draw.polygon(
            [(left, 0), (left + width, 0), (left + 1.3 * width, bottom), (left - 0.3 * width, bottom)], fill=bark
        )
        draw.line([(left + width, 0), (left + 1.2 * width, bottom)], fill=(56, 38, 26), width=max(1, canvas // 64))
    return picture


def _grass(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Bright green blades under a blue sky with clouds."""
    top = _horizon(rng, canvas, 0.24, 0.38)
    meadow = _gradient(_shift(rng, (122, 196, 72), 12), _shift(rng, (76, 164, 44), 12), canvas - top)
    return _picture(
        _sky(rng, canvas, top, (96, 176, 242), (170, 215, 250), 0.9),
        meadow + 20 * _texture(rng, canvas, canvas - top, 64, 14),
    )


def _sea(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Deep water with crests up to a high horizon."""
    top = _horizon(rng, canvas, 0.1, 0.2)
    height = canvas - top
    water = _gradient(_shift(rng, (30, 120, 180), 12), _shift(rng, (12, 72, 138), 12), height)
    waves = _texture(rng, canvas, height, 9, 24)
    crests = np.clip(_texture(rng, canvas, height, 10, 22) * 3 - 1.9, 0, 1)
    return _picture(_sky(rng, canvas, top, (170, 212, 240), (214, 234, 246), 0.6), water + 22 * waves + 110 * crests)


def _night(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Dark blue with stars and a crescent moon."""
    upper, lower = _shift(rng, (8, 10, 34), 5), _shift(rng, (34, 34, 84), 10)
    sky = _gradient(upper, lower, canvas)
    picture = _picture(sky + 8 * _texture(rng, canvas, canvas, 5, 5))
    draw = ImageDraw.Draw(picture)
    _dots(rng, draw, canvas, 36, canvas, (214, 214, 200), 0.008)
    x, y, r = (rng.uniform(low, high) * canvas for low, high in ((0.08, 0.92), (0.08, 0.2), (0.05, 0.065)))
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(250, 240, 190))
    draw.ellipse((x - 0.35 * r, y - 1.15 * r, x + 1.65 * r, y + 0.85 * r), fill=upper)
    return picture


def _street(rng: np.random.Generator, canvas: int) -> Image.Image:
    """House fronts with windows along an asphalt road."""
    ground = _horizon(rng, canvas, 0.56, 0.68)
    asphalt = _gradient(_shift(rng, (104, 104, 108), 8), _shift(rng, (74, 74, 80), 8), canvas - ground)
    picture = _picture(
        _sky(rng, canvas, ground, (176, 196, 214), (208, 216, 222), 0.4),
        asphalt + 9 * _texture(rng, canvas, canvas - ground, 70, 40),
    )
    draw = ImageDraw.Draw(picture)
    left = -0.1 * canvas * rng.random()
    while left < canvas:
        right = left + canvas * rng.uniform(0.16, 0.27)
        roof = canvas * rng.uniform(0.02, 0.26)
        front = _shift(rng, ((150, 148, 152), (172, 150, 134), (128, 136, 150))[int(rng.integers(3))], 12)
        draw.rectangle((left, roof, right, ground), fill=front)
        pane = (236, 220, 150) if rng.random() < 0.4 else (70, 84, 104)
        step = canvas * 0.075
        for row in range(int((ground - roof) / step - 0.4)):
            for column in range(int((right - left) / step - 0.3)):
                x, y = left + (column + 0.45) * step, roof + (row + 0.45) * step
                draw.rectangle((x, y, x + 0.5 * step, y + 0.55 * step), fill=pane)
        left = right + canvas * 0.012
    draw.rectangle((0, ground, canvas, ground + canvas * 0.035), fill=(188, 186, 182))
    middle, dash, start = (ground + canvas) / 2 + canvas * 0.03, canvas * 0.16, canvas * 0.2 * rng.random()
    for i in range(-1, 5):
        x = start + i * dash * 1.6
        draw.rectangle((x, middle, x + dash, middle + canvas * 0.022), fill=(240, 240, 236))
    return picture


def _room(rng: np.random.Generator, canvas: int) -> Image.Image:
    """A plain wall with a skirting board above a floor of planks."""
    ground = _horizon(rng, canvas, 0.4, 0.54)
    wall = _shift(rng, ((226, 214, 196), (208, 220, 206), (224, 204, 206))[int(rng.integers(3))], 8)
    height = canvas - ground
    planks = int(rng.integers(4, 7))
    tones = np.repeat(rng.uniform(-14, 14, planks), -(-height // planks))[:height].astype(np.float32)
    floor = _gradient(_shift(rng, (150, 92, 48), 9), _shift(rng, (168, 106, 58), 9), height)
    picture = _picture(
        _gradient(wall, wall, ground) + 3 * _texture(rng, canvas, ground, 12, 8),
        floor + tones[:, None, None] + 13 * _texture(rng, canvas, height, 4, 40),
    )
    draw = ImageDraw.Draw(picture)
    thin = max(1, canvas // 64)
    for plank in range(1, planks):
        y = ground + plank * -(-height // planks)
        draw.line([(0, y), (canvas, y)], fill=(92, 54, 28), width=thin)
        x = canvas * rng.random()
        draw.line([(x, y), (x, y + height / planks)], fill=(92, 54, 28), width=thin)
    draw.rectangle((0, ground - canvas * 0.035, canvas, ground), fill=(246, 242, 236), outline=(170, 160, 150))
    return picture


def _wheat(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Golden stalks up to a high horizon."""
    top = _horizon(rng, canvas, 0.18, 0.3)
    height = canvas - top
    field = _gradient(_shift(rng, (232, 190, 70), 9), _shift(rng, (204, 146, 28), 9), height)
    picture = _picture(
        _sky(rng, canvas, top, (120, 190, 240), (196, 226, 246), 0.5),
        field + 34 * _texture(rng, canvas, height, 52, 5),
    )
    draw = ImageDraw.Draw(picture)
    for x, y, lean in rng.random((34, 3)).tolist():
        x, y = x * canvas, top + y * height * 0.94
        tip = (x + (lean - 0.5) * 0.05 * canvas, y - 0.075 * canvas)
        draw.line([(x, y + 0.06 * canvas), tip], fill=(250, 222, 120), width=max(1, canvas // 50))
    return picture


# --- Places that pre-training never shows (`NEW_PLACES`) --------------------------------------------------------------


def _moon(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Grey craters under a black sky."""
    top = _horizon(rng, canvas, 0.2, 0.32)
    sky = _gradient((4, 4, 8), (10, 10, 14), top)
    dust = _gradient(_shift(rng, (176, 174, 170), 8), _shift(rng, (132, 130, 128), 8), canvas - top)
    picture = _picture(
        sky + 0 * _texture(rng, canvas, top, 4, 4), dust + 12 * _texture(rng, canvas, canvas - top, 40, 40)
    )
    draw = ImageDraw.Draw(picture)
    _dots(rng, draw, canvas, 14, top, (240, 240, 240), 0.008)
    for x, y, size in rng.random((12, 3)).tolist():
        x, y, r = x * canvas, top + (0.08 + 0.9 * y) * (canvas - top), canvas * (0.03 + 0.06 * size)
        draw.ellipse((x - r, y - 0.45 * r, x + r, y + 0.45 * r), fill=(96, 94, 92), outline=(206, 204, 200))
    return picture


def _volcano(rng: np.random.Generator, canvas: int) -> Image.Image:
    """A black cone with streams of lava before a dark red sky."""
    foot = _horizon(rng, canvas, 0.8, 0.9)
    sky = _gradient(_shift(rng, (70, 10, 16), 8), _shift(rng, (190, 62, 26), 10), foot)
    rock = _gradient((44, 34, 34), (28, 22, 24), canvas - foot)
    picture = _picture(
        sky + 20 * _texture(rng, canvas, foot, 6, 6), rock + 14 * _texture(rng, canvas, canvas - foot, 40, 10)
    )
    draw = ImageDraw.Draw(picture)
    peak, rim = canvas * rng.uniform(0.35, 0.65), canvas * rng.uniform(0.12, 0.2)
    mouth = canvas * 0.1
    draw.polygon(
        [(peak - mouth, rim), (peak + mouth, rim), (1.1 * canvas, foot), (-0.1 * canvas, foot)], fill=(38, 30, 32)
    )
    draw.ellipse((peak - mouth, rim - 0.03 * canvas, peak + mouth, rim + 0.03 * canvas), fill=(255, 150, 30))
    for lean in rng.uniform(-0.4, 0.4, 4).tolist():
        points = [
            (
                peak + step * lean * (foot - rim) + canvas * 0.02 * math.sin(9 * step + 7 * lean),
                rim + step * (foot - rim),
            )
            for step in np.linspace(0, 1, 9).tolist()
        ]
        draw.line(points, fill=(255, 110, 20), width=max(2, canvas // 26))
    return picture


def _bookshelf(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Rows of spines in many colours on dark boards."""
    picture = _picture(_gradient((62, 40, 26), (50, 32, 22), canvas) + 5 * _texture(rng, canvas, canvas, 40, 8))
    draw = ImageDraw.Draw(picture)
    tones = (
        (196, 60, 56),
        (54, 110, 168),
        (70, 140, 84),
        (226, 190, 90),
        (142, 86, 150),
        (232, 226, 210),
        (60, 66, 78),
    )
    shelf = canvas / 4
    for row in range(4):
        x = 0.0
        while x < canvas:
            thick, tall = canvas * rng.uniform(0.03, 0.065), shelf * rng.uniform(0.68, 0.88)
            floor = (row + 1) * shelf - canvas * 0.025
            draw.rectangle(
                (x, floor - tall, x + thick - 1, floor), fill=_shift(rng, tones[int(rng.integers(len(tones)))], 12)
            )
            x += thick
        draw.rectangle((0, (row + 1) * shelf - canvas * 0.025, canvas, (row + 1) * shelf), fill=(116, 76, 46))
    return picture


def _maples(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Dark trunks among red and orange leaves."""
    leaves = _gradient(_shift(rng, (224, 96, 30), 10), _shift(rng, (196, 48, 24), 10), canvas)
    picture = _picture(leaves + 40 * _texture(rng, canvas, canvas, 26, 26))
    draw = ImageDraw.Draw(picture)
    for at, thick in rng.random((4, 2)).tolist():
        x, width = canvas * at, canvas * (0.02 + 0.03 * thick)
        draw.rectangle((x, 0.1 * canvas, x + width, canvas), fill=(52, 30, 26))
    _dots(rng, draw, canvas, 60, canvas, (250, 190, 60), 0.016)
    return picture


def _seabed(rng: np.random.Generator, canvas: int) -> Image.Image:
    """Weeds and bubbles in teal water over pebbles."""
    ground = _horizon(rng, canvas, 0.76, 0.86)
    water = _gradient(_shift(rng, (60, 200, 190), 8), _shift(rng, (6, 96, 110), 8), ground)
    pebbles = _gradient(_shift(rng, (150, 150, 120), 8), _shift(rng, (118, 118, 98), 8), canvas - ground)
    picture = _picture(
        water + 8 * _texture(rng, canvas, ground, 6, 6), pebbles + 40 * _texture(rng, canvas, canvas - ground, 60, 30)
    )
    draw = ImageDraw.Draw(picture)
    for at, tall, phase in rng.random((7, 3)).tolist():
        points = [
            (canvas * (at + 0.03 * math.sin(8 * step + 6.3 * phase)), ground - step * tall * 0.6 * canvas)
            for step in np.linspace(0, 1, 9).tolist()
        ]
        draw.line(points, fill=(30, 120, 60), width=max(2, canvas // 30))
    for x, y, size in rng.random((16, 3)).tolist():
        x, y, r = x * canvas, y * ground, canvas * (0.01 + 0.015 * size)
        draw.ellipse((x - r, y - r, x + r, y + r), outline=(220, 250, 250), width=max(1, canvas // 100))
    return picture


def _dots(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    canvas: int,
    count: int,
    height: int,
    colour: Colour,
    radius: float,
) -> None:
    """Scatter small squares of two sizes over the upper `height` pixels."""
    for x, y, size in rng.random((count, 3)).tolist():
        x, y, r = x * canvas, y * height, canvas * radius * (1 if size < 0.25 else 0.5)
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)


_PLACES: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {
    "beach": _beach,
    "snow": _snow,
    "desert": _desert,
    "forest": _forest,
    "grass": _grass,
    "sea": _sea,
    "night sky": _night,
    "street": _street,
    "room": _room,
    "wheat field": _wheat,
    "moon": _moon,
    "volcano": _volcano,
    "bookshelf": _bookshelf,
    "maples": _maples,
    "seabed": _seabed,
}
