import sys

import numpy as np
import pytest

from vglm.data.astronomy.light_curve import FEWEST_POINTS, LightCurve, fold, measure
from vglm.errors import ConfigError, DataError


def _epochs(rng: np.random.Generator, days: float = 25.0, number: int = 900) -> np.ndarray:
    return np.sort(rng.uniform(0, days, number))


def test_cleaning_drops_gaps_sorts_and_divides_by_the_median() -> None:
    time = np.arange(60.0)[::-1].copy()
    flux = 200 + np.arange(60.0) % 3
    flux[5], time[7] = np.nan, np.inf
    curve = LightCurve.clean("a", time, flux, np.full(60, 4.0))
    assert len(curve.time) == 58
    assert (np.diff(curve.time) > 0).all()
    assert np.median(curve.flux) == pytest.approx(1.0)
    assert curve.error == pytest.approx(np.full(58, 4.0 / 201))
    assert curve.flux[0] * 201 == pytest.approx(flux[59])  # the last row was the earliest


def test_cleaning_takes_out_a_cosmic_ray_and_leaves_an_eclipse() -> None:
    flux = 1 + 1e-4 * np.random.default_rng(0).standard_normal(300)
    flux[40] += 0.02
    flux[100:106] -= 0.3
    curve = LightCurve.clean("a", np.arange(300.0), flux)
    assert 40.0 not in curve.time
    assert {100.0, 103.0, 105.0} <= set(curve.time.tolist())


def test_an_impossible_error_makes_all_of_them_unknown() -> None:
    curve = LightCurve.clean("a", np.arange(50.0), np.ones(50), [0.0] + [1.0] * 49)
    assert curve.error is None


@pytest.mark.parametrize(
    ("time", "flux", "message"),
    [
        (np.arange(FEWEST_POINTS - 1.0), np.ones(FEWEST_POINTS - 1), "at least 30 measurements, found 29; fix"),
        (np.ones(40), np.ones(40), "times in days that differ, found 1 throughout"),
        (np.arange(40.0), -np.ones(40), "positive median, found -1; fix: .*`mag`"),
        (np.arange(40.0), np.full(40, np.nan), "found 0"),
    ],
)
def test_what_is_no_light_curve_is_refused(time: np.ndarray, flux: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LightCurve.clean("a", time, flux)


def test_the_spectrum_is_that_of_a_least_squares_fit() -> None:
    """The twin fits a sine at one frequency after the other; the fast method may be off by a per cent of the peak."""
    rng = np.random.default_rng(1)
    time = _epochs(rng)
    flux = 1 + 0.02 * np.sin(2 * np.pi * 3.1 * time) + 0.01 * np.cos(2 * np.pi * 7.7 * time)
    curve = LightCurve.clean("a", time, flux + 1e-3 * rng.standard_normal(len(time)))
    periodogram = measure(curve)
    centred = curve.flux - curve.flux.mean()
    shifted = curve.time - curve.time[0]
    for index in range(0, len(periodogram.frequencies), 97):
        angle = 2 * np.pi * periodogram.frequencies[index] * shifted
        basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        fitted = basis @ np.linalg.lstsq(basis, centred, rcond=None)[0]
        power = (fitted @ centred) / 2  # the definition of the unnormalised periodogram
        assert periodogram.spectrum[index] == pytest.approx(np.sqrt(4 * power / len(centred)), abs=4e-4)
    assert periodogram.spectrum.max() == pytest.approx(0.02, rel=0.05)
    assert periodogram.frequencies[periodogram.spectrum.argmax()] == pytest.approx(3.1, abs=0.01)


def test_a_sine_has_its_period_and_amplitude() -> None:
    rng = np.random.default_rng(2)
    time = _epochs(rng)
    curve = LightCurve.clean("a", time, 500 * (1 + 0.1 * np.sin(2 * np.pi * time / 0.7321)))
    periodogram = measure(curve)
    assert periodogram.period_days == pytest.approx(0.7321, rel=1e-3)
    assert periodogram.amplitude_mag == pytest.approx(2.5 * np.log10(1.1 / 0.9), rel=0.01)


def test_two_unequal_eclipses_a_cycle_give_the_whole_orbit() -> None:
    rng = np.random.default_rng(3)
    time = _epochs(rng, number=3000)
    phase = time / 1.37 % 1
    depth = 0.4 * np.exp(-(((phase - 0.25) / 0.05) ** 2)) + 0.25 * np.exp(-(((phase - 0.75) / 0.05) ** 2))
    curve = LightCurve.clean("a", time, 1 - depth + 0.002 * rng.standard_normal(3000))
    periodogram = measure(curve)
    assert 1 / periodogram.frequencies[periodogram.spectrum.argmax()] == pytest.approx(
        1.37 / 2, rel=0.01
    )  # where a sine fits best
    assert periodogram.period_days == pytest.approx(1.37, rel=1e-3)


def test_the_faintest_light_is_folded_to_a_quarter() -> None:
    rng = np.random.default_rng(4)
    time = _epochs(rng)
    curve = LightCurve.clean("a", time, 1 + 0.3 * np.sin(2 * np.pi * time / 0.9 + 1.1))
    phase = fold(curve, 0.9)
    assert ((phase >= 0) & (phase < 1)).all()
    assert phase[curve.flux.argmin()] == pytest.approx(0.25, abs=0.04)


def test_a_series_too_short_for_its_sampling_is_refused() -> None:
    curve = LightCurve("a", np.array([0.0, 1.0, 2.0]), np.ones(3))
    with pytest.raises(DataError, match="long enough for a periodogram, found 3 points over 2 days; fix"):
        measure(curve)


def test_without_astropy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astropy.timeseries", None)
    with pytest.raises(ConfigError, match=r"need astropy.*pip install -e \.\[astronomy\]"):
        measure(LightCurve("a", np.arange(50.0), np.ones(50)))
