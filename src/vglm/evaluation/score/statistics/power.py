"""Statistical power: the smallest true difference that a test set detects in most cases."""

import math

import numpy as np

from vglm.evaluation.score.statistics.basics import binomial, binomial_below, student_quantile, upper_level
from vglm.evaluation.score.statistics.flips import mcnemar_test


def detectable_difference(spread: float, n: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a paired test finds with a given chance.

    Args:
        spread: Standard deviation of the paired differences.
        n: Number of independent samples or groups.
        confidence: 1 minus the level of the test.
        power: The chance.

    Returns:
        (t(1 - level / 2) + t(power)) * spread / sqrt(n) with Student's quantiles; NaN where the spread is 0.
    """
    if n < 2 or not spread > 0:
        return math.nan
    return (student_quantile(upper_level(confidence), n - 1) + student_quantile(power, n - 1)) * spread / math.sqrt(n)


def detectable_flip_rate(n: int, flip_rate: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference of two proportions that McNemar's mid-p test finds with a given chance.

    Exact up to 400 samples, where few p-values are possible; from there on by `detectable_difference`.

    Args:
        n: Number of independent samples.
        flip_rate: Share of samples that change between wrong and right beside those that make the difference, as many
            in one direction as in the other.
        confidence: 1 minus the level of the test.
        power: The chance.

    Returns:
        The difference, 0.0 to 1.0; NaN where not even a difference of 1 would be found.
    """
    if n > 400:
        guess = detectable_difference(math.sqrt(flip_rate), n, confidence, power)
        for _ in range(20):  # the spread depends on the difference itself
            spread = math.sqrt(min(1.0, flip_rate + guess) - guess**2)
            guess = detectable_difference(spread, n, confidence, power)
        return guess
    bounds = [-1] * (n + 1)  # with that many flips, the largest number of the rarer kind that is significant
    for flips in range(1, n + 1):
        bounds[flips] = bounds[flips - 1]
        if mcnemar_test(bounds[flips] + 1, flips - bounds[flips] - 1, is_mid=True) <= 1 - confidence:
            bounds[flips] += 1

    def chance(difference: float) -> float:
        """Of a significant result, where that is the true difference."""
        rate = max(difference, min(1.0, flip_rate + difference))
        upward = (rate + difference) / 2 / rate
        either_tail = sum(binomial_below(bounds, np.arange(n + 1), share) for share in (upward, 1 - upward))
        return float(binomial(n, rate) @ either_tail)

    low, high = 0.0, 1.0
    if chance(high) < power:
        return math.nan
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) < power else (low, middle)
    return high
