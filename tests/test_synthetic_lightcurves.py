from collections import Counter

import numpy as np
import pytest

from vglm.data.astronomy.light_curve import fold, measure
from vglm.errors import ConfigError
from vglm.worlds.lightcurves import SHARES, TELESCOPES, Star, eclipsed, sample_star
from vglm.worlds.lightcurves import _roche_lobe as roche_lobe

EXPOSURES = {telescope.name: telescope.exposure_days for telescope in TELESCOPES}


def _stars(kind: str, number: int, seed: int = 11) -> list[Star]:
    return [sample_star(np.random.default_rng([seed, index]), kind) for index in range(number)]


def test_the_share_hidden_is_the_overlap_of_two_discs() -> None:
    """The twin is the area of the lens of two circles, for a star without limb darkening."""
    behind, before = 0.3, 0.2
    apart = np.linspace(0.0, 0.6, 61)
    d = np.clip(apart, behind - before + 1e-9, behind + before - 1e-9)
    first = before**2 * np.arccos((d**2 + before**2 - behind**2) / (2 * d * before))
    second = behind**2 * np.arccos((d**2 + behind**2 - before**2) / (2 * d * behind))
    root = (-d + before + behind) * (d + before - behind) * (d - before + behind) * (d + before + behind)
    lens = first + second - 0.5 * np.sqrt(root)
    assert eclipsed(apart, behind, before, 0.0) == pytest.approx(lens / (np.pi * behind**2), abs=2e-3)


def test_the_share_hidden_of_a_darkened_star_is_a_sum_over_its_disc() -> None:
    """The twin adds up the light of a fine square lattice of points."""
    x, y = np.meshgrid(np.linspace(-1, 1, 801), np.linspace(-1, 1, 801))
    mu = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    light = np.where(x**2 + y**2 < 1, 1 - 0.6 * (1 - mu), 0.0)
    for apart in (0.0, 0.4, 0.9, 1.3, 1.6):
        expected = light[(x - apart) ** 2 + y**2 < 0.7**2].sum() / light.sum()
        assert eclipsed(np.array([apart]), 1.0, 0.7, 0.6)[0] == pytest.approx(expected, abs=2e-3)


def test_roche_lobes_are_those_of_eggleton() -> None:
    """Equal masses give 0.379 (Eggleton 1983, Table 1); the smaller a star's mass, the smaller its lobe, to q^(1/3)."""
    assert roche_lobe(1.0) == pytest.approx(0.379, abs=5e-4)
    assert roche_lobe(1e-6) == pytest.approx(0.49 / 1.6 * 1e-2 / (1 / 1.6), rel=0.02)


def test_a_star_follows_from_its_seed() -> None:
    one, same, other = (sample_star(np.random.default_rng([1, index])) for index in (5, 5, 6))
    assert (one.kind, one.period_days) == (same.kind, same.period_days)
    assert one.curve.flux.tobytes() == same.curve.flux.tobytes()
    assert one.curve.flux.tobytes() != other.curve.flux.tobytes()


def test_kinds_have_their_shares_and_the_rare_ones_occur() -> None:
    counts = Counter(sample_star(np.random.default_rng([2, index])).kind for index in range(400))
    for kind, share in SHARES.items():
        assert counts[kind] / 400 == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / 400))
    assert min(counts.values()) >= 10
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="no kind of star 'quasar'"):
        sample_star(np.random.default_rng(0), "quasar")


@pytest.mark.parametrize("kind", SHARES)
def test_observations_are_a_telescopes(kind: str) -> None:
    stars = _stars(kind, 12)
    assert len({star.telescope for star in stars}) == 2  # whatever the kind: the telescope must not give it away
    for star in stars:
        steps = np.diff(star.curve.time)
        assert np.median(steps) == pytest.approx(EXPOSURES[star.telescope], rel=1e-6)
        assert steps.max() > 0.5  # the gaps of the downlinks
        periodogram = measure(star.curve)
        assert periodogram.amplitude_mag > 0.8 * star.amplitude_mag  # noise only adds
        assert star.amplitude_mag > 0


@pytest.mark.parametrize("kind", ["rr_lyrae", "type_ii_cepheid"])
def test_radial_pulsators_are_found_at_their_period(kind: str) -> None:
    """Of a Type II Cepheid with alternating cycles two cycles are the truth as well."""
    ratios = [measure(star.curve).period_days / star.period_days for star in _stars(kind, 15)]
    assert sum(abs(ratio - 1) < 0.02 or abs(ratio - 2) < 0.04 for ratio in ratios) >= 14


def test_most_orbits_are_found() -> None:
    ratios = [measure(star.curve).period_days / star.period_days for star in _stars("eclipsing", 25)]
    assert sum(abs(ratio - 1) < 0.01 for ratio in ratios) >= 15
    assert sum(abs(ratio - whole) < 0.01 for ratio in ratios for whole in (1, 1 / 2)) >= 18


def test_an_rr_lyrae_star_rises_faster_than_it_declines() -> None:
    stars = [star for star in _stars("rr_lyrae", 20) if star.subtype == "ab"]
    assert len(stars) >= 5
    for star in stars:
        phase = fold(star.curve, star.period_days)
        bins = np.array([star.curve.flux[np.floor(phase * 50) == index].mean() for index in range(50)])
        rise = (bins.argmax() - bins.argmin()) % 50 / 50
        assert 0.05 < rise < 0.4
        assert 0.42 <= star.period_days <= 0.85
        assert 0.15 < star.amplitude_mag < 1.4


def test_where_the_modes_of_main_sequence_pulsators_lie() -> None:
    """Below five cycles a day g modes, above it p modes; a hybrid has both within a factor of six."""
    for kind, low, high in (("gamma_doradus", True, False), ("delta_scuti", False, True), ("hybrid", True, True)):
        right = 0
        for star in _stars(kind, 12):
            periodogram = measure(star.curve)
            inside = periodogram.frequencies < 0.5 / EXPOSURES[star.telescope]
            slow = periodogram.spectrum[inside & (periodogram.frequencies < 5)].max()
            fast = periodogram.spectrum[inside & (periodogram.frequencies >= 5)].max()
            right += (slow > fast / 7) == low and (fast > slow / 7) == high
        assert right >= 10, kind
