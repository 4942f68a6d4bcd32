"""Pictures of light curves for a model that sees few pixels: thick strokes, no text, physics as lengths and colours.

    picture = draw(curve, measure(curve), view="star", size=64)

| view | shows |
|---|---|
| `star` | folded curve above, periodogram below it, at the foot two bars: period and amplitude on logarithmic scales |
| `raw` | brightness against time, the whole series |
| `folded` | brightness against phase, one cycle, faintest light at a quarter |
| `periodogram` | amplitude against the logarithm of the frequency, 0.05 to 60 cycles a day |

A plot's axes are normalised to fill it, so by itself it does not say whether a star takes an hour or a month for a
cycle, or whether it varies by a thousandth or by half: the first questions of anyone who classifies variables. An
astronomer reads both from the axis labels; at 64 pixels no label is legible. So both are shown without letters: the
period by the length of a bar and by the colour of bar and curve, from violet for 0.02 days through green to red for 50,
the amplitude by a second bar and its colour, from 0.0005 to 2 magnitudes. In the periodogram each column has the colour
of its period.

The curve is a band, from the 10th to the 90th percentile of the points in each column: thin where the star repeats
itself, broad where it has several periods or is noisy.
"""

import colorsys
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vglm.data.astronomy.light_curve import HIGHEST_FREQUENCY, LightCurve, Measurement, Numbers, fold
from vglm.errors import ConfigError

View = Literal["star", "raw", "folded", "periodogram"]
VIEWS: tuple[View, ...] = ("star", "raw", "folded", "periodogram")

DRAWING = 1
"""Number of the way of drawing, to be raised with every change: kept pictures of another number are not used."""

SHORTEST_DAYS, LONGEST_DAYS = 0.02, 50.0
"""Ends of the period bar."""
FAINTEST_MAG, BRIGHTEST_MAG = 0.0005, 2.0
"""Ends of the amplitude bar."""
LOWEST_FREQUENCY = 0.05
"""Left end of the periodogram, in cycles per day."""

_BACKGROUND = (10, 12, 24)
_PANEL = (28, 32, 48)
_ROWS = 64  # the star view is laid out in 64ths of its height, in eighths where it matters to patches of 8 pixels


def draw(curve: LightCurve, measurement: Measurement, *, view: View = "star", size: int = 64) -> Image.Image:
    """Draw a light curve.

    Args:
        curve: The light curve.
        measurement: The result of `measure`.
        view: What to show, see above.
        size: Width and height in pixels, at least 32. Strokes grow with it.

    Returns:
        A picture, mode RGB. Equal arguments give equal pixels.

    Raises:
        ConfigError: `view` is unknown or `size` too small.
    """
    if view not in VIEWS:
        raise ConfigError(f"view must be one of {', '.join(VIEWS)}, got {view!r}.")
    if size < 32:
        raise ConfigError(f"size must be at least 32 pixels, got {size}.")
    picture = Image.new("RGB", (size, size), _BACKGROUND)
    pen = ImageDraw.Draw(picture)
    colour = period_colour(measurement.period_days)

    def rows(first: int, last: int) -> tuple[int, int]:
        return round(first * size / _ROWS), round(last * size / _ROWS)

    if view == "raw":
        _draw_band(pen, curve.time - curve.time[0], curve.flux, rows(0, 64), size, colour)
    elif view == "folded":
        _draw_band(pen, fold(curve, measurement.period_days), curve.flux, rows(0, 64), size, colour)
    elif view == "periodogram":
        _draw_spectrum(pen, measurement, rows(0, 64), size)
    else:
        _draw_band(pen, fold(curve, measurement.period_days), curve.flux, rows(0, 32), size, colour)
        _draw_spectrum(pen, measurement, rows(32, 48), size)
        period = _share_of_scale(measurement.period_days, SHORTEST_DAYS, LONGEST_DAYS)
        amplitude = _share_of_scale(measurement.amplitude_mag, FAINTEST_MAG, BRIGHTEST_MAG)
        _draw_bar(pen, period, rows(48, 56), size, _hue(period))
        _draw_bar(pen, amplitude, rows(56, 64), size, _hue(amplitude))
    return picture


def period_colour(period_days: float) -> tuple[int, int, int]:
    """The colour of a period: violet for the shortest, red for the longest."""
    return _hue(_share_of_scale(period_days, SHORTEST_DAYS, LONGEST_DAYS))


def _hue(share: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(0.8 * (1 - share), 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _share_of_scale(value: float, lowest: float, highest: float) -> float:
    """Where a value lies between two others on a logarithmic scale, 0 to 1."""
    share = np.log(max(value, lowest) / lowest) / np.log(highest / lowest)
    return float(min(share, 1.0))


def _draw_band(
    pen: ImageDraw.ImageDraw, x: Numbers, flux: Numbers, rows: tuple[int, int], size: int, colour: tuple[int, int, int]
) -> None:
    """Fill each column between the 10th and 90th percentile of its points; columns without points stay empty."""
    top, bottom = rows
    stroke = max(1, round(2 * size / _ROWS))
    columns = np.minimum((x / (np.max(x) * (1 + 1e-9) or 1.0) * size).astype(int), size - 1)
    faintest, brightest = np.percentile(flux, [0.5, 99.5])
    scale = (bottom - top - stroke - 1) / max(brightest - faintest, 1e-12)
    heights = np.clip((flux - faintest) * scale, 0, bottom - top - stroke - 1)
    order = np.argsort(columns, kind="stable")
    edges = np.searchsorted(columns[order], np.arange(size + 1))
    heights = heights[order]
    for column in range(size):
        points = heights[edges[column] : edges[column + 1]]
        if len(points):
            low, high = np.percentile(points, [10, 90])
            pen.rectangle((column, bottom - 1 - stroke - round(high), column, bottom - 1 - round(low)), fill=colour)


def _draw_spectrum(pen: ImageDraw.ImageDraw, measurement: Measurement, rows: tuple[int, int], size: int) -> None:
    """The highest amplitude in each column and its neighbours: height its square root, colour that of the period."""
    top, bottom = rows
    pen.rectangle((0, top, size - 1, bottom - 1), fill=_PANEL)
    share: NDArray[np.float64] = np.log(measurement.frequencies / LOWEST_FREQUENCY)
    columns = np.floor(share / np.log(HIGHEST_FREQUENCY / LOWEST_FREQUENCY) * size).astype(int)
    highest = np.zeros(size)
    inside = (columns >= 0) & (columns < size)
    np.maximum.at(highest, columns[inside], measurement.spectrum[inside])
    reach = max(1, round(size / _ROWS))  # a peak is a stroke of at least three columns
    highest = np.max([np.roll(np.pad(highest, reach), shift) for shift in range(-reach, reach + 1)], axis=0)
    highest = highest[reach:-reach]
    heights = np.round(np.sqrt(highest / max(highest.max(), 1e-12)) * (bottom - top)).astype(int)
    for column, height in enumerate(heights.tolist()):
        if height:
            frequency = LOWEST_FREQUENCY * (HIGHEST_FREQUENCY / LOWEST_FREQUENCY) ** ((column + 0.5) / size)
            pen.rectangle((column, bottom - height, column, bottom - 1), fill=period_colour(1 / frequency))


def _draw_bar(
    pen: ImageDraw.ImageDraw, share: float, rows: tuple[int, int], size: int, colour: tuple[int, int, int]
) -> None:
    top, bottom = rows
    pen.rectangle((0, top, max(round(share * size) - 1, 0), bottom - 1), fill=colour)
