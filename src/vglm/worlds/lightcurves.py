"""Variable stars as a space telescope sees them: light curves from published models, by seed.

    star = sample_star(np.random.default_rng([seed, 7]), "rr_lyrae")
    star.kind, star.subtype, star.telescope     "rr_lyrae", "ab", "kepler"
    star.period_days, star.amplitude_mag        0.571, 0.94          the truth, which a fold may or may not find
    star.curve                                  LightCurve(star="synthetic", time=..., flux=...)

| kind | share | what varies, and after which model |
|---|---|---|
| `eclipsing` | 0.30 | two stars on a Kepler orbit, detached or close: eclipses of limb-darkened spheres (1), |
| | | tides and reflection to first order (2), inside their Roche lobes (3) |
| `delta_scuti` | 0.25 | p modes after pulsation constant and period ratios (4) and large separation (5), or the |
| | | high-amplitude kind: one or two radial modes with harmonics |
| `gamma_doradus` | 0.17 | g modes, evenly spaced in period (6), shifted by rotation (7), with combinations (8) |
| `rr_lyrae` | 0.16 | ab: steep rise, slow decline; c: nearly a sine: Fourier phases (9), period-amplitude |
| | | relation (10), in some the Blazhko modulation (11) |
| `hybrid` | 0.07 | p and g modes in one star, of comparable amplitude (12) |
| `type_ii_cepheid` | 0.05 | BL Herculis with its travelling bump (13), W Virginis with alternating cycles (14) |

Every star is observed by Kepler (one quarter, 29.4 minutes) or TESS (one sector, 10 minutes), whatever its kind:
smeared by the exposure, diluted by neighbours, with photon noise by magnitude (15), slow residual drifts, cosmic rays
and the gaps of the data downlinks. A star that varies less than its noise is given a brighter magnitude: a catalogue of
variables lists what was detected.

What this world leaves out: contact binaries with a common envelope (the closest pairs here are spheres with tidal
terms), spots, flares, stochastic oscillations, other classes, constant stars, and instrumental artefacts beyond those
named. Typical values and scatter are read off the papers' figures, not fitted: it is a test bench, not a population.

Sources: (1) Kopal 1959, "Close Binary Systems"; Popper & Etzel 1981, AJ 86, 102; linear limb darkening. (2) Morris &
Naftilan 1993, ApJ 419, 344. (3) Eggleton 1983, ApJ 268, 368. (4) Fitch 1981, ApJ 249, 218; Breger 2000, ASP 210, 3;
period ratios of Stellingwerf 1979, ApJ 227, 935. (5) Garcia Hernandez et al. 2015, ApJ 811, L29. (6) Tassoul 1980, ApJS
43, 469; Van Reeth et al. 2015, ApJS 218, 27. (7) Ledoux 1951, ApJ 114, 373; Li et al. 2020, MNRAS 491, 3586 (mostly
prograde dipole modes). (8) Kurtz et al. 2015, MNRAS 450, 3015. (9) Jurcsik & Kovacs 1996, A&A 312, 111, for the ab
type's third phase; Nemec et al. 2011, MNRAS 417, 1022, for the rest. (10) Cacciari, Corwin & Carney 2005, AJ 129, 267.
(11) Benko et al. 2010, MNRAS 409, 1585. (12) Uytterhoeven et al. 2011, A&A 534, A125. (13) Soszynski et al. 2008, Acta
Astron. 58, 293; Petersen & Diethelm 1986, A&A 156, 337. (14) Smolec et al. 2018, MNRAS 481, 3724. (15) Gilliland et al.
2011, ApJS 197, 6; Sullivan et al. 2015, ApJ 809, 77.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vglm.data.astronomy.light_curve import LightCurve, Numbers
from vglm.errors import ConfigError

SHARES: Mapping[str, float] = {
    "eclipsing": 0.30,
    "delta_scuti": 0.25,
    "gamma_doradus": 0.17,
    "rr_lyrae": 0.16,
    "hybrid": 0.07,
    "type_ii_cepheid": 0.05,
}
"""How frequent each kind is; the last two are rare."""

_MINUTE = 1 / 1440  # days
_SUN_DENSITY_SEPARATION = 134.8  # large frequency separation of the Sun, microhertz
_MICROHERTZ = 0.0864  # cycles per day


@dataclass(frozen=True)
class Telescope:
    """How a telescope samples and blurs a light curve.

    Attributes:
        name: What it is called.
        exposure_days: Length of one measurement, and the time to the next.
        span_days: Length of the series.
        magnitudes: Range of the stars' magnitudes.
        noise: Standard error of one measurement of a star of magnitude 10, relative to its flux.
        floor: Noise that stays however bright the star is.
        downlink_days: Time between the gaps in which data are sent to Earth.
        gap_days: Range of their lengths.
    """

    name: Literal["kepler", "tess"]
    exposure_days: float
    span_days: float
    magnitudes: tuple[float, float]
    noise: float
    floor: float
    downlink_days: float
    gap_days: tuple[float, float]


TELESCOPES = (
    Telescope("kepler", 29.4244 * _MINUTE, 90.0, (9.0, 15.0), 4.3e-5, 2e-5, 30.0, (0.8, 1.3)),
    Telescope("tess", 10.0 * _MINUTE, 27.4, (7.0, 13.0), 4.9e-4, 6e-5, 13.7, (0.9, 2.2)),
)


@dataclass(frozen=True, eq=False)
class Star:
    """A star, its true parameters, and its observation.

    Attributes:
        kind: One of `SHARES`.
        subtype: What it is more exactly.
        telescope: Name of the telescope.
        period_days: Orbital period, or period of the strongest mode.
        amplitude_mag: Faintest to brightest without noise (0.5th and 99.5th percentile), in magnitudes.
        magnitude: Of the star, in the telescope's band.
        curve: What was observed.
    """

    kind: str
    subtype: str
    telescope: Literal["kepler", "tess"]
    period_days: float
    amplitude_mag: float
    magnitude: float
    curve: LightCurve


@dataclass(frozen=True, eq=False)
class _Model:
    """A noiseless star: its light, relative to its mean or maximum, at any times in days, for an exposure in days."""

    subtype: str
    period_days: float
    light: Callable[[Numbers, float], Numbers]


def sample_star(rng: np.random.Generator, kind: str | None = None, name: str = "synthetic") -> Star:
    """Draw a star and observe it.

    Args:
        rng: All of the star follows from it.
        kind: One of `SHARES`; drawn by their frequency if None.
        name: The star's name.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind is None:
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    if kind not in _KINDS:
        raise ConfigError(f"there is no kind of star {kind!r}. Choose from {', '.join(_KINDS)}.")
    telescope = TELESCOPES[rng.integers(len(TELESCOPES))]
    while True:
        model = _KINDS[kind](rng)
        if model.period_days < telescope.span_days / 1.6:  # otherwise no one would have found its period
            break
    time = _epochs(rng, telescope)
    dilution = rng.uniform(0.75, 1.0)
    light = dilution * model.light(time, telescope.exposure_days) + 1 - dilution
    faintest, brightest = np.percentile(light, [0.5, 99.5])
    magnitude = rng.uniform(*telescope.magnitudes)
    while _noise(telescope, magnitude) > 0.5 * (brightest - faintest) and magnitude > telescope.magnitudes[0]:
        magnitude = max(magnitude - 0.5, telescope.magnitudes[0])
    flux = light * (1 + _drift(rng, time)) + _noise(telescope, magnitude) * rng.standard_normal(len(time))
    flux[rng.random(len(time)) < 0.0005] += 30 * _noise(telescope, magnitude)  # cosmic rays
    return Star(
        kind=kind,
        subtype=model.subtype,
        telescope=telescope.name,
        period_days=float(model.period_days),
        amplitude_mag=float(2.5 * np.log10(brightest / max(faintest, 0.01 * brightest))),
        magnitude=float(magnitude),
        curve=LightCurve.clean(name, time, flux, np.full(len(time), _noise(telescope, magnitude))),
    )


# --- observing --------------------------------------------------------------------------------------------------------


def _epochs(rng: np.random.Generator, telescope: Telescope) -> Numbers:
    """When the telescope measured: evenly, but for the downlinks, now and then a safe mode, and flagged exposures."""
    time = np.arange(0.0, telescope.span_days, telescope.exposure_days)
    gaps = [
        (start + rng.uniform(-1, 1), rng.uniform(*telescope.gap_days))
        for start in np.arange(telescope.downlink_days, telescope.span_days, telescope.downlink_days)
    ]
    if rng.random() < 0.2:
        gaps.append((rng.uniform(0, telescope.span_days), rng.uniform(0.04, 0.08) * telescope.span_days))
    observed = rng.random(len(time)) > 0.01
    for start, length in gaps:
        observed &= (time < start) | (time > start + length)
    return time[observed] + rng.uniform(0, 1000)


def _noise(telescope: Telescope, magnitude: float) -> float:
    return float(np.hypot(telescope.noise * 10 ** (0.2 * (magnitude - 10)), telescope.floor))


def _drift(rng: np.random.Generator, time: Numbers) -> Numbers:
    """What a pipeline leaves of the slow trends: three sines over some ten days, a few hundred parts per million."""
    drift = np.zeros(len(time))
    for _ in range(3):
        size, period, phase = 10 ** rng.uniform(-5, -3.7), rng.uniform(8, 40), rng.uniform(0, 2 * np.pi)
        drift += size * np.sin(2 * np.pi * time / period + phase)
    return drift


def _smearing(frequency: float, exposure: float) -> float:
    """What an exposure leaves of a sine's amplitude."""
    return float(np.sinc(frequency * exposure))


# --- eclipsing binaries -----------------------------------------------------------------------------------------------


def _eclipsing(rng: np.random.Generator) -> _Model:
    """Two main-sequence stars, or slightly evolved ones, that eclipse each other by at least one per cent."""
    while True:
        period = 10 ** rng.uniform(-0.55, 1.15)
        mass, ratio = rng.uniform(0.8, 2.5), rng.uniform(0.25, 1.0)
        distance = 4.208 * (mass * (1 + ratio) * period**2) ** (1 / 3)  # Kepler's third law, solar radii
        first = mass**0.8 * rng.uniform(1.0, 1.8) / distance
        second = (ratio * mass) ** 0.8 * rng.uniform(1.0, 1.3) / distance
        inclination = np.arccos(rng.uniform(0, min(1.0, 1.2 * (first + second))))
        is_inside = first < 0.95 * _roche_lobe(1 / ratio) and second < 0.95 * _roche_lobe(ratio)
        if not is_inside or np.cos(inclination) > 0.95 * (first + second):
            continue
        eccentricity = rng.beta(0.9, 3.0) * 0.6 if first + second < 0.18 else 0.0
        surface = ratio**2.4 * rng.uniform(0.8, 1.2)  # of a main-sequence star, brightness of the surface ~ mass^2.4
        pericentre = rng.uniform(0, 2 * np.pi)
        phases, light = _binary_cycle(
            first, second, surface, ratio, float(inclination), eccentricity, pericentre, rng.uniform(0.3, 0.7)
        )
        if light.min() > 0.99 * light.max():
            continue
        observe = _repeating(phases, light, float(period), rng.uniform(0, period))
        return _Model("detached" if first + second < 0.5 else "close", float(period), observe)


def _repeating(phases: Numbers, light: Numbers, period: float, start: float) -> Callable[[Numbers, float], Numbers]:
    """A cycle, given at equally spaced phases, that repeats for ever, each exposure smearing it."""

    def observe(time: Numbers, exposure: float) -> Numbers:
        width = max(1, round(exposure / period * len(phases)))
        padded = np.concatenate([light[-width:], light, light[:width]])
        smeared = np.convolve(padded, np.ones(width) / width, mode="same")[width:-width]
        seen: Numbers = np.interp((time - start) / period % 1.0, phases, smeared, period=1.0)
        return seen

    return observe


def _roche_lobe(ratio: float) -> float:
    """Radius of the Roche lobe of the star with `ratio` times the other's mass, in units of the distance."""
    root = ratio ** (1 / 3)
    return float(0.49 * root**2 / (0.6 * root**2 + np.log(1 + root)))


def _binary_cycle(
    first: float,
    second: float,
    surface: float,
    ratio: float,
    inclination: float,
    eccentricity: float,
    pericentre: float,
    darkening: float,
) -> tuple[Numbers, Numbers]:
    """One orbit's light: phases (4000,) and light (4000,), relative to the light of both stars outside eclipse."""
    phases = np.arange(4000) / 4000
    mean = 2 * np.pi * phases
    anomaly = mean + eccentricity * np.sin(mean)
    for _ in range(8):  # Newton's method for Kepler's equation
        anomaly -= (anomaly - eccentricity * np.sin(anomaly) - mean) / (1 - eccentricity * np.cos(anomaly))
    true = 2 * np.arctan2(
        np.sqrt(1 + eccentricity) * np.sin(anomaly / 2), np.sqrt(1 - eccentricity) * np.cos(anomaly / 2)
    )
    radius = 1 - eccentricity * np.cos(anomaly)
    angle = true + pericentre
    towards = np.sin(angle) * np.sin(inclination)  # 1 where the second star stands right before the first
    apart = radius * np.sqrt(1 - towards**2)
    share = surface * second**2 / (first**2 + surface * second**2)
    hidden_first = np.where(towards > 0, eclipsed(apart, first, second, darkening), 0.0)
    hidden_second = np.where(towards < 0, eclipsed(apart, second, first, darkening), 0.0)
    tide = 0.15 * (15 + darkening) * (1 + 0.32) / (3 - darkening)
    swell = tide * np.sin(inclination) ** 2 * np.cos(2 * angle) / radius**3
    light = (1 - share) * (1 - hidden_first) * (1 + ratio * first**3 * swell)
    light += share * (1 - hidden_second) * (1 + second**3 / ratio * swell)
    light += 0.3 * ((1 - share) * second**2 - share * first**2) * -towards / radius**2  # the faces turned to each other
    return phases, light


def eclipsed(apart: Numbers, behind: float, before: float, darkening: float) -> Numbers:
    """The share of a star's light that another star hides.

    Rings of the star behind are summed: a ring of radius r is hidden along the arc where it lies inside the disc in
    front, whose half angle is arccos((d^2 + r^2 - R^2) / (2 d r)).

    Args:
        apart: Distance of the centres on the sky, shape (N,), in the unit of the radii.
        behind: Radius of the star that is hidden.
        before: Radius of the star in front.
        darkening: Coefficient u of linear limb darkening, 1 - u (1 - mu).

    Returns:
        From 0 (nothing) to 1 (all), shape (N,).
    """
    hidden = np.zeros(len(apart))
    near = apart < behind + before
    edges = np.sin(np.linspace(0, np.pi / 2, 65)) * behind  # finer towards the limb
    rings = (edges[1:] + edges[:-1]) / 2
    light = (1 - darkening * (1 - np.sqrt(1 - (rings / behind) ** 2))) * np.diff(edges**2)
    distance = np.maximum(apart[near], 0.03 * behind)[:, None]  # so that a ring about the centre is hidden by degrees
    cosine = (distance**2 + rings**2 - before**2) / (2 * distance * rings)
    hidden[near] = np.arccos(np.clip(cosine, -1, 1)) @ light / np.pi / light.sum()
    return hidden


# --- pulsating stars --------------------------------------------------------------------------------------------------


def _fourier(
    period: float, ratios: Numbers, phases: Numbers, amplitude: float, start: float
) -> tuple[Callable[[Numbers, float], Numbers], float]:
    """A magnitude curve sum R_k sin(k x + phi_k), scaled to `amplitude` from top to bottom, and that scale.

    The phases are those of the sine series relative to the first, phi_k1 = phi_k - k phi_1, with phi_1 = 0.
    """
    orders = np.arange(1, len(ratios) + 1)
    cycle = np.linspace(0, 2 * np.pi, 720)[:, None]
    shape = (ratios * np.sin(orders * cycle + phases)).sum(axis=1)
    scale = amplitude / (shape.max() - shape.min())

    def magnitude(time: Numbers, exposure: float) -> Numbers:
        total = np.zeros(len(time))
        for order, ratio, phase in zip(orders, ratios, phases, strict=True):
            smearing = _smearing(order / period, exposure)
            total += smearing * ratio * np.sin(2 * np.pi * order * (time - start) / period + phase)
        scaled: Numbers = scale * total
        return scaled

    return magnitude, float(scale)


def _rr_lyrae(rng: np.random.Generator) -> _Model:
    """A horizontal-branch star in its fundamental mode (ab) or first overtone (c)."""
    is_overtone = rng.random() < 0.25
    if is_overtone:
        period = rng.uniform(0.25, 0.42)
        amplitude = np.clip(rng.normal(0.42, 0.08), 0.2, 0.6)
        ratios = np.array([1, rng.uniform(0.08, 0.2), rng.uniform(0.03, 0.09)])
        phases = np.array([0, rng.normal(3.1, 0.25), rng.uniform(0, 2 * np.pi)])
    else:
        period = np.clip(rng.normal(0.57, 0.08), 0.42, 0.85)
        metals = np.clip(rng.normal(-1.4, 0.45), -2.5, 0.0)
        shifted = np.log10(period) - (0.06 if metals < -1.6 else 0.0)  # Oosterhoff II: longer at the same amplitude
        amplitude = -2.627 - 22.046 * shifted - 30.876 * shifted**2 + rng.normal(0, 0.1)
        amplitude = np.clip(amplitude, 0.25, 1.35)
        third = (metals + 5.038 + 5.394 * period) / 1.345
        ratios = np.array([1, rng.normal(0.47, 0.03), rng.normal(0.34, 0.03), 0.22, 0.15, 0.1, 0.065, 0.04])
        phases = np.concatenate([[0, rng.normal(2.4, 0.12), third], third + 2.6 * np.arange(1, 6)])
    passband = rng.uniform(0.8, 0.95)  # red light varies less than green
    start = rng.uniform(0, period)
    magnitude, _ = _fourier(float(period), ratios, phases, float(passband * amplitude), float(start))
    depth = rng.uniform(0.1, 0.35) if rng.random() < (0.1 if is_overtone else 0.4) else 0.0
    cycle, moment = rng.uniform(15, 120), rng.uniform(0, 2 * np.pi)

    def observe(time: Numbers, exposure: float) -> Numbers:
        modulation = 1 + depth * np.sin(2 * np.pi * time / cycle + moment)
        seen: Numbers = 10 ** (-0.4 * modulation * magnitude(time, exposure))
        return seen

    blazhko = ", Blazhko" if depth else ""
    return _Model(("c" if is_overtone else "ab") + blazhko, float(period), observe)


def _type_ii_cepheid(rng: np.random.Generator) -> _Model:
    """An old star above the horizontal branch: BL Herculis below four days, W Virginis above."""
    is_short = rng.random() < 0.45
    if is_short:
        period = 10 ** rng.uniform(0.0, 0.6)
        travel = np.clip(np.log10(period) / 0.5, 0, 1)  # the bump goes from the descending to the rising branch
        ratios = np.array([1, 0.42 - 0.25 * travel + rng.normal(0, 0.03), 0.22 - 0.15 * travel, 0.08 * (1 - travel)])
        phases = np.array([0, 2.4 + 2.0 * travel, 4.9 + 2.5 * travel, 7.3 + 3.5 * travel]) + rng.normal(0, 0.15, 4)
        amplitude = rng.uniform(0.4, 1.1)
    else:
        period = 10 ** rng.uniform(0.6, 1.4)
        ratios = np.array([1, rng.uniform(0.06, 0.25), rng.uniform(0.0, 0.08)])
        phases = np.array([0, rng.normal(4.0, 0.6), rng.uniform(0, 2 * np.pi)])
        amplitude = rng.uniform(0.3, 1.0)
    start = rng.uniform(0, period)
    magnitude, _ = _fourier(float(period), ratios, phases, float(0.85 * amplitude), float(start))
    uneven = rng.uniform(0, 0.05) + (rng.uniform(0.05, 0.15) if period > 15 else 0.0)

    def observe(time: Numbers, exposure: float) -> Numbers:
        alternation = 1 + uneven * np.cos(np.pi * (time - start) / period)
        seen: Numbers = 10 ** (-0.4 * alternation * magnitude(time, exposure))
        return seen

    return _Model("BL Herculis" if is_short else "W Virginis", float(period), observe)


def _p_modes(rng: np.random.Generator, strongest: float) -> tuple[Numbers, Numbers]:
    """Frequencies (M,) in cycles per day and amplitudes (M,) of a delta Scuti star of low amplitude."""
    density = 10 ** rng.uniform(-1.1, -0.35)  # of the Sun's
    separation = _SUN_DENSITY_SEPARATION * (density / 1.55) ** (1 / 2.035) * _MICROHERTZ
    fundamental = np.sqrt(density) / 0.033
    radial = fundamental / np.array([1, 0.772, 0.618, 0.515])
    ladder = np.concatenate([radial + part * separation for part in (0.0, 0.25, 0.5, 0.75)])
    count = rng.integers(4, 13)
    chosen = rng.choice(ladder, size=min(int(count), len(ladder)), replace=False)
    frequencies = chosen * (1 + rng.normal(0, 0.01, len(chosen)))  # avoided crossings and rotation move them a little
    amplitudes = np.sort(rng.lognormal(0, 0.9, len(frequencies)))[::-1]
    return frequencies, strongest * amplitudes / amplitudes[0]


def _g_modes(rng: np.random.Generator, strongest: float) -> tuple[Numbers, Numbers]:
    """Frequencies (M,) in cycles per day and amplitudes (M,) of dipole g modes, combinations included."""
    spacing = rng.normal(4400, 300) / np.sqrt(2) / 86400  # of the periods of l = 1, in days
    first = rng.integers(18, 45)
    orders = first + rng.choice(14, size=rng.integers(4, 10), replace=False)
    azimuthal = rng.choice([1, 0, -1], size=len(orders), p=[0.75, 0.18, 0.07])
    rotation = rng.uniform(0.05, 1.2)
    frequencies = np.abs(1 / (spacing * (orders + 0.5)) + azimuthal * 0.5 * rotation)
    frequencies = np.maximum(frequencies, 0.15)
    amplitudes = np.sort(rng.lognormal(0, 0.7, len(orders)))[::-1]
    amplitudes *= strongest / amplitudes[0]
    rng.shuffle(frequencies)
    strength = rng.uniform(0, 15)  # of combinations, per unit of relative light
    pairs = [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    sums = [frequencies[i] + frequencies[j] for i, j in pairs]
    sizes = [strength * amplitudes[i] * amplitudes[j] for i, j in pairs]
    return np.concatenate([frequencies, sums]), np.concatenate([amplitudes, sizes])


def _sines(rng: np.random.Generator, subtype: str, frequencies: Numbers, amplitudes: Numbers) -> _Model:
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))

    def observe(time: Numbers, exposure: float) -> Numbers:
        light = np.ones(len(time))
        for frequency, amplitude, phase in zip(frequencies, amplitudes, phases, strict=True):
            light += _smearing(frequency, exposure) * amplitude * np.sin(2 * np.pi * frequency * time + phase)
        return light

    return _Model(subtype, float(1 / frequencies[np.argmax(amplitudes)]), observe)


def _delta_scuti(rng: np.random.Generator) -> _Model:
    """A main-sequence A or F star with many p modes, or an evolved one that swings in one or two radial modes."""
    if rng.random() < 0.75:
        return _sines(rng, "low amplitude", *_p_modes(rng, 10 ** rng.uniform(-2.9, -1.7)))
    period = 10 ** rng.uniform(-1.25, -0.7)
    ratios = np.array([1, rng.uniform(0.2, 0.42), rng.uniform(0.05, 0.2), rng.uniform(0.0, 0.08)])
    phases = np.array([0, rng.normal(2.4, 0.2), rng.normal(4.9, 0.3), rng.normal(7.4, 0.4)])
    start = rng.uniform(0, period)
    magnitude, _ = _fourier(float(period), ratios, phases, float(rng.uniform(0.15, 0.7)), float(start))
    is_double = rng.random() < 0.4
    overtone = rng.uniform(0.02, 0.08) if is_double else 0.0

    def observe(time: Numbers, exposure: float) -> Numbers:
        frequency = 1 / (0.772 * period)
        second = overtone * _smearing(frequency, exposure) * np.sin(2 * np.pi * frequency * time)
        seen: Numbers = 10 ** (-0.4 * (magnitude(time, exposure) + second))
        return seen

    return _Model("high amplitude" + (", two modes" if is_double else ""), float(period), observe)


def _gamma_doradus(rng: np.random.Generator) -> _Model:
    """A main-sequence F star with g modes."""
    return _sines(rng, "g modes", *_g_modes(rng, 10 ** rng.uniform(-2.9, -1.8)))


def _hybrid(rng: np.random.Generator) -> _Model:
    """A star with both: the strongest p and g modes differ by less than a factor of five."""
    strongest = 10 ** rng.uniform(-2.8, -2.0)
    contrast = 10 ** rng.uniform(-0.65, 0.65)
    p_frequencies, p_amplitudes = _p_modes(rng, strongest * min(contrast, 1.0))
    g_frequencies, g_amplitudes = _g_modes(rng, strongest * min(1 / contrast, 1.0))
    return _sines(
        rng,
        "p and g modes",
        np.concatenate([p_frequencies, g_frequencies]),
        np.concatenate([p_amplitudes, g_amplitudes]),
    )


_KINDS: Mapping[str, Callable[[np.random.Generator], _Model]] = {
    "eclipsing": _eclipsing,
    "delta_scuti": _delta_scuti,
    "gamma_doradus": _gamma_doradus,
    "rr_lyrae": _rr_lyrae,
    "hybrid": _hybrid,
    "type_ii_cepheid": _type_ii_cepheid,
}
