"""A star's light curve, and what astronomers read from it before they name its type: period and amplitude.

    curve = LightCurve("KIC 3733346", time, flux)       days; flux in any unit, from here on relative to its median
    measured = measure(curve)
    measured.period_days     0.682      the main period: Lomb-Scargle, then a check of its multiples
    measured.amplitude_mag   1.02       from faintest to brightest
    measured.spectrum        amplitude at each of `measured.frequencies`, cycles per day

Lomb-Scargle fits one sine. An eclipsing binary with two nearly equal eclipses fits it best at half its orbital period,
one with narrow eclipses at a third or a quarter. So the multiples of the best period are tried too, and the one that
leaves the least scatter at equal phase is taken (phase dispersion minimisation).

Sources: Lomb 1976 (Ap&SS 39, 447), Scargle 1982 (ApJ 263, 835), VanderPlas 2018 (ApJS 236, 16), Stellingwerf 1978
(ApJ 224, 953).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vglm.errors import ConfigError, DataError

FEWEST_POINTS = 30
"""A light curve with fewer measurements is refused: its periodogram would be noise."""
HIGHEST_FREQUENCY = 60.0
"""Cycles per day; the fastest delta Scuti stars pulsate at about this rate."""
MOST_FREQUENCIES = 5_000_000
"""Of a periodogram; 45 years of data searched up to `HIGHEST_FREQUENCY`."""

_FEWEST_CYCLES = 1.5  # of the longest period looked for
_SAMPLES_PER_PEAK = 5
_MULTIPLES = (1, 2, 3, 4)
_LEAST_GAIN = 0.3  # share by which the scatter must fall for a multiple of the period to be believed
_FOLD_BINS = 40
_MOST_BINS, _POINTS_PER_BIN = 100, 20  # of the scatter at equal phase

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LightCurve:
    """Brightness against time, cleaned.

    Attributes:
        star: The star's name.
        time: Days, ascending, shape (N,), float64.
        flux: Brightness relative to its median, shape (N,), float64.
        error: Standard errors in the unit of `flux`, shape (N,), or None where they are not known.
    """

    star: str
    time: Numbers
    flux: Numbers
    error: Numbers | None = None

    @classmethod
    def clean(cls, star: str, time: Any, flux: Any, error: Any = None) -> "LightCurve":
        """Drop what is not a number, sort by time, divide by the median and drop isolated outliers.

        An outlier differs from both its neighbours by more than eight times the usual step between neighbours, in the
        same direction, as a cosmic ray does; an eclipse or a pulsation has more than one point.

        Args:
            star: The star's name.
            time: Days, shape (N,).
            flux: Brightness in any unit, shape (N,).
            error: Standard errors in that unit, shape (N,), or None. An error that is not a positive number counts as
                unknown, and then all of them do.

        Returns:
            The light curve.

        Raises:
            DataError: Fewer than `FEWEST_POINTS` measurements are left, they span no time, or their median is not
                positive.
        """
        time, flux = np.asarray(time, dtype=float), np.asarray(flux, dtype=float)
        is_measured = np.isfinite(time) & (np.abs(flux) < 1e30)
        order = np.argsort(time[is_measured], kind="stable")
        time, flux = time[is_measured][order], flux[is_measured][order]
        if error is not None:
            error = np.asarray(error, dtype=float)[is_measured][order]
        if len(time) < FEWEST_POINTS:
            raise DataError(
                f"expected at least {FEWEST_POINTS} measurements, found {len(time)}; fix: bring a longer series"
            )
        if time[-1] <= time[0]:
            raise DataError(
                f"expected times in days that differ, found {time[0]:g} throughout; fix: check the time column"
            )
        median = float(np.median(flux))
        if median <= 0:
            raise DataError(
                f"expected flux with a positive median, found {median:g};"
                " fix: give flux that is not yet divided or subtracted, or magnitudes in a column `mag`"
            )
        keep = ~_outliers(flux)
        with np.errstate(over="ignore"):  # refused by `measure`
            time, flux = time[keep], flux[keep] / median
        if error is not None:
            error = error[keep] / median
            if not (np.isfinite(error) & (error > 0)).all():
                error = None
        return cls(star, time, flux, error)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a periodogram and a fold say about a light curve.

    Attributes:
        period_days: The main period.
        amplitude_mag: Faintest to brightest (0.5th and 99.5th percentile), in magnitudes.
        frequencies: Cycles per day, ascending and equally spaced, shape (F,).
        spectrum: Amplitude of the best sine at each frequency, relative to the median flux, shape (F,).
    """

    period_days: float
    amplitude_mag: float
    frequencies: Numbers
    spectrum: Numbers


def measure(curve: LightCurve) -> Measurement:
    """Find a light curve's period and amplitude.

    Frequencies from one and a half cycles in the whole series up to half the sampling rate, at most
    `HIGHEST_FREQUENCY`, are searched.

    Args:
        curve: The light curve.

    Raises:
        ConfigError: astropy is not installed.
        DataError: The series is too short for its sampling, so there is no frequency to search.
    """
    with np.errstate(over="ignore"):  # such a span is refused below
        span = float(curve.time[-1] - curve.time[0])
        spacing = float(np.median(np.diff(curve.time)))
    lowest = _FEWEST_CYCLES / span
    highest = min(HIGHEST_FREQUENCY, 0.5 / spacing if spacing > 0 else HIGHEST_FREQUENCY)
    step = 1 / (span * _SAMPLES_PER_PEAK)
    if highest <= lowest + step:
        raise DataError(
            f"expected a series long enough for a periodogram, found {len(curve.time)} points over {span:g} days;"
            " fix: give times in days, or a longer series"
        )
    if step == 0 or (number := (highest - lowest) / step) > MOST_FREQUENCIES:
        raise DataError(
            f"expected times in days, found {len(curve.time)} points over {span:g} days, {spacing:g} apart, which would"
            f" take a periodogram of more than {MOST_FREQUENCIES:,} frequencies; fix: give times in days, or take"
            " outliers out"
        )
    frequencies = lowest + step * np.arange(int(number) + 1, dtype=np.float64)
    with np.errstate(all="ignore"):  # of fluxes that no star has; reported below
        spectrum = _amplitudes(curve, frequencies)
        faintest, brightest = np.percentile(curve.flux, [0.5, 99.5])
    if not (np.isfinite(spectrum).all() and 0 < brightest < np.inf):
        raise DataError(
            f"expected fluxes of a star, found values from {curve.flux.min():g} to {curve.flux.max():g} times their"
            " median; fix: take outliers out"
        )
    frequency = _peak(frequencies, spectrum)
    amplitude = 2.5 * np.log10(brightest / max(faintest, 0.01 * brightest))
    return Measurement(_best_multiple(curve, 1 / frequency, span), float(amplitude), frequencies, spectrum)


def fold(curve: LightCurve, period_days: float) -> Numbers:
    """Phases from 0 to below 1, shape (N,), such that the faintest fortieth of the cycle lies at phase 0.25."""
    phase = (curve.time - curve.time[0]) / period_days % 1.0
    bins = np.floor(phase * _FOLD_BINS).astype(int)
    counts = np.bincount(bins, minlength=_FOLD_BINS)
    means = np.bincount(bins, weights=curve.flux, minlength=_FOLD_BINS) / np.maximum(counts, 1)
    smooth = (np.roll(means, 1) + means + np.roll(means, -1)) / 3
    faintest = int(np.where(counts > 0, smooth, np.inf).argmin())
    shifted: Numbers = (phase - (faintest + 0.5) / _FOLD_BINS + 0.25) % 1.0
    return shifted


def _outliers(flux: Numbers) -> NDArray[np.bool_]:
    steps = np.diff(flux)
    usual = 1.4826 * float(np.median(np.abs(steps)))
    before, after = np.concatenate([[0.0], steps]), np.concatenate([steps, [0.0]])
    is_alone: NDArray[np.bool_] = (np.minimum(np.abs(before), np.abs(after)) > 8 * usual) & (before * after < 0)
    return is_alone


def _amplitudes(curve: LightCurve, frequencies: Numbers) -> Numbers:
    """Amplitude of the best-fitting sine at each of some equally spaced frequencies."""
    try:
        from astropy.timeseries import LombScargle
    except ImportError as error:
        raise ConfigError(
            f"light curves need astropy, which cannot be imported ({error}). Install it: pip install -e .[astronomy]"
        ) from error
    periodogram = LombScargle(curve.time - curve.time[0], curve.flux, fit_mean=False, normalization="psd")
    # Press & Rybicki's approximation: within a per cent of the peak, and seven times faster than the default
    power = periodogram.power(
        frequencies, method="fast", assume_regular_frequency=True, method_kwds={"algorithm": "fasper"}
    )
    amplitudes: Numbers = np.sqrt(4 * np.maximum(power, 0) / len(curve.flux))
    return amplitudes


def _peak(frequencies: Numbers, spectrum: Numbers) -> float:
    """Where the parabola through the highest point and its two neighbours is highest."""
    best = int(spectrum.argmax())
    if not 0 < best < len(spectrum) - 1:
        return float(frequencies[best])
    left, top, right = spectrum[best - 1 : best + 2]
    bend = left - 2 * top + right
    shift = 0.0 if bend == 0 else 0.5 * (left - right) / bend
    return float(frequencies[best] + shift * (frequencies[1] - frequencies[0]))


def _best_multiple(curve: LightCurve, period: float, span: float) -> float:
    """The period, or the multiple of it at which equal phases agree clearly better."""
    best, least = period, _dispersion(curve, period)
    for multiple in _MULTIPLES[1:]:
        if multiple * period > span / _FEWEST_CYCLES:
            break
        scatter = _dispersion(curve, multiple * period)
        if scatter < (1 - _LEAST_GAIN) * least:
            best, least = multiple * period, scatter
    return best


def _dispersion(curve: LightCurve, period: float) -> float:
    """Variance around the mean of each phase bin, pooled over bins."""
    number = int(np.clip(len(curve.time) // _POINTS_PER_BIN, 5, _MOST_BINS))
    bins = np.floor((curve.time - curve.time[0]) / period % 1.0 * number).astype(int)
    counts = np.maximum(np.bincount(bins, minlength=number), 1)
    means = np.bincount(bins, weights=curve.flux, minlength=number) / counts
    return float(np.mean((curve.flux - means[bins]) ** 2))
