"""The classical baseline for variable stars: features of the light curve, and a random forest.

A forest of 300 trees predicts the type from 14 features of the series, of its periodogram and of its fold; period and
amplitude are the measured ones. It answers the same questions as the model, from the series instead of the picture.

Sources: Richards et al. 2011 (ApJ 733, 10) for such features and a forest over them; Breiman 2001, "Random forests".
"""

import random
from collections.abc import Sequence
from importlib import util

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, skew
from tqdm.auto import tqdm

from vglm.data.astronomy.light_curve import LightCurve, Measurement, measure
from vglm.data.astronomy.questions import QUESTIONS, ask
from vglm.data.astronomy.series import SERIES, open_series
from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.evaluation.predict.training_answers import draw

MOST_STARS = 300
"""Maximum number of training stars, drawn at random: a periodogram takes a tenth of a second."""
_SAMPLES_PER_STAR = 4
_TREES = 300
_FOLD_BINS = 25


def forest_answers(train: Sequence[Sample], test: Sequence[Sample], seed: int) -> list[str]:
    """The forest's answers to test questions.

    Args:
        train: Training samples, of whose stars the series and types are known.
        test: The questions.
        seed: Of the draw of stars, and of the forest.

    Returns:
        An answer to each question; none where a question is not about a light curve that can be read, or scikit-learn
        is not installed.
    """
    if not len(test) or not len(train) or not _has_series(test[0]):
        return []
    tested, generator = list(test), random.Random(seed)
    some = draw(train, _SAMPLES_PER_STAR * MOST_STARS, generator)  # a mixture has other samples too
    stars = {sample.meta[SERIES]: sample for sample in some if _has_series(sample) and "type" in sample.meta}
    if not stars or not all(_has_series(sample) and sample.meta.get("kind") in QUESTIONS for sample in tested):
        return []
    if util.find_spec("sklearn") is None:
        print("features + random forest: not asked, scikit-learn is missing (pip install -e .[baselines])")
        return []
    try:
        return _answers(draw(list(stars.values()), MOST_STARS, generator), tested, seed)
    except DataError as error:  # a file is gone, a star is constant: the model's answers are still valid
        print(f"features + random forest: not asked, {error}")
        return []


def _has_series(sample: Sample) -> bool:
    """Whether it says where its light curve is; a column of the data may have that name for something else."""
    series = sample.meta.get(SERIES)
    return isinstance(series, str) or callable(series)


def _answers(stars: Sequence[Sample], tested: Sequence[Sample], seed: int) -> list[str]:
    from sklearn.ensemble import RandomForestClassifier

    shown = {sample.meta[SERIES]: sample for sample in tested}
    measured = {
        series: _measured(sample)
        for series, sample in tqdm(shown.items(), desc="measuring stars", unit="star", delay=2)
    }
    rows = [features(*_measured(star)) for star in tqdm(stars, desc="measuring stars", unit="star", delay=2)]
    forest = RandomForestClassifier(_TREES, class_weight="balanced", random_state=seed)
    forest.fit(np.array(rows), [str(star.meta["type"]) for star in stars])
    named = forest.predict(np.array([features(*measurements) for measurements in measured.values()]))
    types = dict(zip(measured, map(str, named), strict=True))
    answers = []
    for sample in tested:
        series, kind = sample.meta[SERIES], sample.meta["kind"]
        measurement = measured[series][1]
        values = {"type": types[series], "period": measurement.period_days, "amplitude": measurement.amplitude_mag}
        answers.append(ask(kind, values[kind], sample.language, sample.group).answer)
    return answers


def _measured(sample: Sample) -> tuple[LightCurve, Measurement]:
    curve = open_series(sample.meta[SERIES], sample.group)
    return curve, measure(curve)


def features(curve: LightCurve, measurement: Measurement) -> NDArray[np.float64]:
    """Features that separate the types of variable stars, shape (14,).

    Args:
        curve: The series.
        measurement: What was measured of it.

    Returns:
        Logarithms of the period, of the strongest frequency and of the amplitude; skewness, kurtosis, spread between
        the quartiles as a share of the amplitude, and the smoothness of the series (von Neumann's ratio); amplitudes at
        twice and half of the strongest frequency, and the strongest below and above 5 cycles a day, as shares of the
        highest; of the fold the skewness, the scatter around its mean curve, and the depth of its second minimum.
    """
    flux, spectrum, frequencies = curve.flux, measurement.spectrum, measurement.frequencies
    spread = max(float(flux.std()), 1e-12)
    quartiles = np.percentile(flux, [25, 75])
    ratio = float(np.mean(np.diff(flux) ** 2)) / spread**2
    peak = max(float(spectrum.max()), 1e-12)
    strongest = float(frequencies[spectrum.argmax()])
    harmonics = [float(np.interp(share * strongest, frequencies, spectrum)) / peak for share in (2, 0.5)]
    slow, fast = (float(spectrum[mask].max(initial=0)) / peak for mask in (frequencies < 5, frequencies >= 5))
    fold, scatter = _fold(curve, measurement.period_days)
    logarithms = np.log10(np.maximum([measurement.period_days, strongest, measurement.amplitude_mag], 1e-9))
    shape = [skew(flux), kurtosis(flux), float(np.ptp(quartiles)) / spread, ratio]
    folded = [skew(fold), scatter / spread, _second_minimum(fold)]
    return np.nan_to_num(np.array([*logarithms, *shape, *harmonics, slow, fast, *folded], np.float64))


def _fold(curve: LightCurve, period_days: float) -> tuple[NDArray[np.float64], float]:
    """The mean curve over a cycle, shape (25,), and the standard deviation around it."""
    bins = ((curve.time / period_days % 1) * _FOLD_BINS).astype(int) % _FOLD_BINS
    counts = np.maximum(np.bincount(bins, minlength=_FOLD_BINS), 1)
    mean = np.bincount(bins, weights=curve.flux, minlength=_FOLD_BINS) / counts
    return mean, float(np.std(curve.flux - mean[bins]))


def _second_minimum(fold: NDArray[np.float64]) -> float:
    """How deep the lowest point in the half of a cycle opposite the minimum is, as a share of the whole depth."""
    turned = np.roll(fold, -int(fold.argmin()))
    opposite = turned[_FOLD_BINS // 4 : -(_FOLD_BINS // 4)]
    return float(fold.max() - opposite.min()) / max(float(np.ptp(fold)), 1e-12)
