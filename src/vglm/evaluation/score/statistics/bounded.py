"""Intervals and tests of a mean that hold whatever the shape of the scores, for scores that cannot leave a range.

Twelve small losses look like a loss. But if one sample in twenty gains much, twelve samples miss all such gains in half
of the cases, and no bootstrap draws what was not observed. The range of the scores gives a bound: with n samples, a
kind of sample that was not observed may still make up about 3 / n of the population, and its score cannot lie outside
the range.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vglm.evaluation.score.statistics.basics import Interval, upper_level
from vglm.evaluation.score.statistics.resampling import BLOCK


class BoundedMean(NamedTuple):
    """What a bounded mean may be.

    Attributes:
        interval: Of the mean.
        tail: Of the null hypothesis that the mean is 0, the smaller of the two one-sided p-values: 0.05 just where the
            90 % interval ends at 0.
    """

    interval: Interval
    tail: float


def bounded_interval(
    values: ArrayLike,
    low: float,
    high: float,
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 1,
) -> Interval:
    """The interval of the mean of independent scores within a range, by Gaffke's method.

    For the lower end one sample at the range's lower end is added to those observed, and all are weighted at random, as
    in the Bayesian bootstrap; the end is the quantile of the weighted means. The upper end likewise with the range's
    upper end. For 0/1 it is the Clopper-Pearson interval. By all simulations that were published, and by ours
    (`python benchmarks/statistical_tests.py`), it holds the mean at least as often as it says for every n and every
    shape; a proof is known in special cases only. It is wider than Student's, the more so the fewer the samples.

    Args:
        values: Shape (n,): independent scores, or one number for each independent group.
        low: The lowest score possible.
        high: The highest.
        confidence: How often such intervals hold the truth.
        resamples: Number of random weightings.
        seed: Of the weights.

    Returns:
        The interval, within `low` to `high`; NaN at both ends where a value is NaN.

    Raises:
        ValueError: There are no values, or some are beyond the range.

    Source: Gaffke 2005, "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
    variable"; Phan, Thomas & Learned-Miller 2021, "Towards practical mean bounds for small samples".
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise ValueError(f"values must have shape (n,) with n > 0, got {scores.shape}.")
    if np.any((scores < low - 1e-9) | (scores > high + 1e-9)):
        raise ValueError(f"values must be from {low} to {high}, got {scores.min()} to {scores.max()}.")
    return bounded_mean(scores, low, high, confidence, resamples, seed).interval


def bounded_mean(
    values: NDArray[np.float64], low: float, high: float, confidence: float, resamples: int, seed: int
) -> BoundedMean:
    """The interval of `bounded_interval`, and the one-sided p-value of "the mean is 0"."""
    if np.isnan(values).any():
        return BoundedMean(Interval(math.nan, math.nan), math.nan)
    lows, highs = np.empty(resamples), np.empty(resamples)
    filled = 0
    for sums, unseen, weights in _weighted(values, resamples, seed):
        part = slice(filled, filled := filled + len(sums))
        lows[part], highs[part] = (sums + unseen * low) / weights, (sums + unseen * high) / weights
    level = upper_level(confidence)
    interval = Interval(float(np.quantile(lows, 1 - level)), float(np.quantile(highs, level)))
    rarer = min(int(np.sum(lows <= 0)), int(np.sum(highs >= 0)))
    return BoundedMean(interval, (rarer + 1) / (resamples + 1))


def _weighted(
    values: NDArray[np.float64], resamples: int, seed: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """In blocks of draws: weighted sums of the values, the unseen sample's weight, and the sum of all weights."""
    generator = np.random.default_rng(seed)
    distinct, times = np.unique(values, return_counts=True)
    step = max(1, BLOCK // len(distinct))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if len(distinct) == len(values):  # the weight of one sample is exponential, of several alike it is gamma
            weights = generator.standard_exponential((size, len(distinct)))
        else:
            weights = generator.standard_gamma(times, (size, len(distinct)))
        unseen = generator.standard_exponential(size)
        yield weights @ distinct, unseen, weights.sum(axis=1) + unseen
