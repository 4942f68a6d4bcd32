import numpy as np
import pytest
from PIL import Image

from vglm.data.astronomy.light_curve import LightCurve, Measurement, measure
from vglm.data.astronomy.plots import VIEWS, draw, period_colour
from vglm.errors import ConfigError


def _curve(period: float = 0.8, depth: float = 0.2, noise: float = 0.0) -> LightCurve:
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(0, 27, 2000))
    flux = 1 + depth * np.sin(2 * np.pi * time / period) + noise * rng.standard_normal(2000)
    return LightCurve.clean("a", time, flux)


def _measured(period: float, amplitude: float) -> Measurement:
    frequencies = np.arange(0.05, 60, 0.05)
    return Measurement(period, amplitude, frequencies, np.exp(-(((frequencies - 1 / period) / 0.1) ** 2)))


def _bar(picture: Image.Image, row: int) -> int:
    """Length of the bar in a row of pixels: pixels that are not background."""
    return int((np.asarray(picture)[row].max(axis=1) > 60).sum())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_picture_is_rgb_of_the_size_and_always_the_same(view: str, size: int) -> None:
    curve = _curve()
    first, second = (draw(curve, measure(curve), view=view, size=size) for _ in range(2))
    assert (first.mode, first.size) == ("RGB", (size, size))
    assert first.tobytes() == second.tobytes()
    assert len(set(first.getdata() if not hasattr(first, "get_flattened_data") else first.get_flattened_data())) > 1


def test_the_bars_are_logarithms_of_period_and_amplitude() -> None:
    curve = _curve()
    lengths = [
        (_bar(picture, 52), _bar(picture, 60))
        for picture in (draw(curve, _measured(p, a)) for p, a in ((0.02, 0.0005), (1.0, 0.0316), (50.0, 2.0), (900, 9)))
    ]
    assert lengths == [(1, 1), (32, 32), (64, 64), (64, 64)]


def test_colours_run_from_violet_to_red() -> None:
    assert period_colour(0.02) == period_colour(0.001)
    red, green, blue = zip(*(period_colour(days) for days in (0.02, 1.0, 50.0)), strict=True)
    assert blue[0] == max(red[0], green[0], blue[0])
    assert green[1] == max(red[1], green[1], blue[1])
    assert red[2] == max(red[2], green[2], blue[2])


def test_the_folded_curve_is_a_thin_line_and_noise_makes_it_broad() -> None:
    heights = {}
    for noise in (0.0, 0.2):
        curve = _curve(noise=noise)
        pixels = np.asarray(draw(curve, _measured(0.8, 0.4), view="folded")).max(axis=2) > 60
        heights[noise] = pixels.sum(axis=0)
        assert (heights[noise] > 0).all()
    quarter, three_quarters = (int(np.where(pixels[:, column])[0].mean()) for column in (16, 48))
    assert quarter > 40  # faintest, near the foot
    assert three_quarters < 24
    assert np.median(heights[0.2]) > 2 * np.median(heights[0.0])


def test_the_periodogram_shows_a_frequency_at_its_logarithm() -> None:
    periodogram = _measured(1.0, 0.4)
    picture = np.asarray(draw(_curve(), periodogram, view="periodogram"))
    pixels = picture.max(axis=2) > 100
    expected = np.log(1 / 0.05) / np.log(60 / 0.05) * 64
    highest = np.flatnonzero(pixels.sum(axis=0) == 64)
    assert abs(highest.mean() - expected) <= 1
    assert len(highest) == 3  # a stroke thick enough to be seen
    assert np.abs(picture[-1, highest[1]].astype(int) - period_colour(1.0)).max() < 40


def test_a_star_that_does_not_vary_can_be_drawn() -> None:
    curve = LightCurve.clean("a", np.arange(50.0), np.ones(50))
    for view in VIEWS:
        assert draw(curve, measure(curve), view=view).size == (64, 64)


@pytest.mark.parametrize(
    ("view", "size", "message"), [("polar", 64, "view must be one of star"), ("raw", 8, "at least 32")]
)
def test_impossible_wishes_are_refused(view: str, size: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(_curve(), _measured(1.0, 0.4), view=view, size=size)
