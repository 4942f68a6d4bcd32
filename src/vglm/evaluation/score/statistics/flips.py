"""Right and wrong answers of two arms on the same independent samples: flips, Tango's interval, McNemar's test."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from vglm.evaluation.score.statistics.basics import Interval, is_right_or_wrong, upper_level


@dataclass(frozen=True, slots=True)
class Flips:
    """Who changed between wrong and right.

    Attributes:
        wrong_to_right: Positions of the samples that became right.
        right_to_wrong: Positions of those that became wrong.
    """

    wrong_to_right: tuple[int, ...]
    right_to_wrong: tuple[int, ...]


def find_flips(before: ArrayLike, after: ArrayLike) -> Flips:
    """List the samples that changed between wrong (0) and right (1).

    Args:
        before: Shape (n,), 0 or 1.
        after: Likewise, the same samples.

    Raises:
        ValueError: A score is neither 0 nor 1.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if not (is_right_or_wrong(old) and is_right_or_wrong(new)):
        raise ValueError("flips are between 0 and 1; some scores are neither.")
    positions = [np.flatnonzero((old == was) & (new != was)).tolist() for was in (0, 1)]
    return Flips(tuple(positions[0]), tuple(positions[1]))


def paired_proportion_interval(wrong_to_right: int, right_to_wrong: int, n: int, confidence: float = 0.95) -> Interval:
    """The interval of the difference of two proportions on the same samples, by Tango's score method.

    At n = 20 it covers the truth in 94 to 97 % of the cases where a fifth of the samples or more flips; where fewer do,
    in 96 to 100 %, for then hardly anything can be observed.

    Args:
        wrong_to_right: Samples that became right.
        right_to_wrong: Samples that became wrong.
        n: Number of independent samples, flipped or not, above 0.
        confidence: How often such intervals hold the truth.

    Returns:
        The interval of (share right after) - (share right before), within -1.0 to 1.0.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design".
    """
    z = NormalDist().inv_cdf(upper_level(confidence))
    gained, lost = wrong_to_right, right_to_wrong

    def deviation(difference: float) -> float:
        """How many standard errors the observation lies above a supposed difference; falls as that rises."""
        linear = (2 * n - gained + lost) * difference - gained - lost
        free = -lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, linear**2 - 8 * n * free)) - linear) / (4 * n)  # of right to wrong, most likely
        variance = n * (2 * share + difference * (1 - difference))
        surplus = gained - lost - n * difference
        return surplus / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, surplus) if surplus else 0.0

    ends = []
    for target, low, high in ((z, -1.0, (gained - lost) / n), (-z, (gained - lost) / n, 1.0)):
        while high - low > 1e-10:
            middle = (low + high) / 2
            low, high = (middle, high) if deviation(middle) > target else (low, middle)
        ends.append((low + high) / 2)
    return Interval(*ends)


def mcnemar_test(wrong_to_right: int, right_to_wrong: int, *, is_mid: bool = False) -> float:
    """McNemar's exact test of two right/wrong arms on the same independent samples, two-sided.

    Under the null hypothesis each flip goes either way like a coin. The exact test never rejects a true null too often,
    but at n = 20 it does so in 0 to 3 % of the cases rather than 5 %, for there are few possible p-values. The mid-p
    variant counts what was observed by half and rejects in 3 to 6.5 % where 6 flips or more are expected (at n = 20:
    where 30 % of the samples flip), and less often where fewer are: of 4 flips not even 4 gains are a finding.

    Args:
        wrong_to_right: Samples that became right.
        right_to_wrong: Samples that became wrong.
        is_mid: Whether to give the mid-p value.

    Returns:
        The p-value; 1.0 without a flip.

    Source: Fagerland, Lydersen & Laake 2013, "The McNemar test for binary matched-pairs data: mid-p and asymptotic are
    better than exact conditional".
    """
    from scipy.special import bdtr

    flips, fewer = wrong_to_right + right_to_wrong, min(wrong_to_right, right_to_wrong)
    tail, beyond = float(bdtr(fewer, flips, 0.5)), float(bdtr(fewer - 1, flips, 0.5)) if fewer else 0.0
    if is_mid and flips and wrong_to_right == right_to_wrong:  # both tails contain the observation
        return 1.0 - (tail - beyond) / 2
    return min(1.0, tail + beyond if is_mid and flips else 2 * tail)
