"""How sure a score is: intervals for one score, in numpy alone.

A score is a function of sums over samples: a mean is (sum of scores) / (number of samples), BLEU a function of summed
n-gram counts, macro-F1 one of summed hits. So every interval and every test below takes `rows`, one row of additive
numbers per sample, and `statistic`, from sums to the score; plain scores, shape (n,), stand for their mean.

```
wilson_interval(17, 20)                                  Interval(low=0.640, high=0.948)
bootstrap_interval([1, 1, 0, 1, …], groups=["s1", "s1", "s2", …])
```
"""

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From sums over samples, shape (..., k), to the score, shape (...)."""

BLOCK = 2_000_000
"""So many resampled clusters are held in memory at a time."""


class Interval(NamedTuple):
    """Two ends, both belonging to the interval."""

    low: float
    high: float


# --- one score -------------------------------------------------------------------------------------------------------


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """The interval of a proportion by Wilson's score method.

    Its coverage stays near the confidence for small n and for proportions near 0 or 1 too (at n = 20: 92 to 98 %,
    because a count can only take 21 values). The samples must be independent; for clusters take `bootstrap_interval`.

    Args:
        successes: How many of `n` are right.
        n: Number of samples; with none the proportion can be anything from 0 to 1.
        confidence: How often such intervals hold the truth.

    Returns:
        The interval, within 0.0 to 1.0.

    Raises:
        ValueError: `successes` is not within 0 to `n`, or `confidence` not between 0 and 1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be from 0 to n = {n}, got {successes}.")
    z = NormalDist().inv_cdf(_upper(confidence))
    if n == 0:
        return Interval(0.0, 1.0)
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # at the ends the formula is exactly 0 or 1, which rounding misses by a hair
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap_interval(
    rows: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    statistic: Statistic | None = None,
    confidence: float = 0.95,
    resamples: int = 4000,
    method: Literal["percentile", "bca"] = "percentile",
    is_expanded: bool = True,
    seed: int = 1,
) -> Interval:
    """The bootstrap interval of a score; whole groups are drawn, so samples of one study do not count as independent.

    Plain bootstrap intervals are too narrow for few samples (at n = 20 they hold a mean in 92 % of the cases). They are
    expanded here as Hesterberg proposes: the levels of the quantiles are those that make the interval of a normal mean
    as wide as Student's t interval. By simulation with 95 %, n = 20 samples or groups, a mean is held in 94 to 97 % for
    normal, 0/1, -1/0/1 (paired right/wrong) and bounded skewed scores; in 92 % for exponential ones, where `bca`
    reaches 93 %, while it is too wide for 0/1. With fewer than 10 groups no bootstrap can be trusted.

    Args:
        rows: Shape (n,): scores, whose mean is wanted; or (n, k): what `statistic` takes the sums of.
        groups: The group of each sample; None where each is its own.
        statistic: From sums, shape (..., k), to the score, shape (...); None for the mean of scores.
        confidence: How often such intervals hold the truth.
        resamples: Number of draws.
        method: `percentile`; or `bca`, bias-corrected and accelerated, for skewed scores.
        is_expanded: False for the plain interval, as other packages compute it.
        seed: Of the draws.

    Returns:
        The interval; NaN at both ends for fewer than two groups, where the spread is unknown.

    Raises:
        ValueError: There are no rows, or `groups` does not fit them.

    Source: Efron 1987, "Better bootstrap confidence intervals"; Hesterberg 2015, "What teachers should know about the
    bootstrap", section 5.
    """
    clusters, statistic = _clustered(rows, groups, statistic)
    count = len(clusters)
    if count < 2:
        return Interval(math.nan, math.nan)
    draws = np.sort(resample(clusters, statistic, resamples, seed))
    draws = draws[~np.isnan(draws)]  # a draw without any sample of a class, for one
    if not len(draws):
        return Interval(math.nan, math.nan)
    normal = NormalDist()
    z = normal.inv_cdf(_upper(confidence))
    if is_expanded:
        z = student_quantile(_upper(confidence), count - 1) * math.sqrt(count / (count - 1))
    bias = acceleration = 0.0
    if method == "bca":
        estimate = statistic(clusters.sum(axis=0))
        below = np.mean(draws < estimate) + np.mean(draws == estimate) / 2
        bias = normal.inv_cdf(min(max(float(below), 0.5 / len(draws)), 1 - 0.5 / len(draws)))
        left_out = statistic(clusters.sum(axis=0) - clusters)
        spread = np.mean(left_out) - left_out
        if squares := float(np.sum(spread**2)):
            acceleration = float(np.sum(spread**3)) / (6 * squares**1.5)
    levels = []
    for side in (-z, z):
        moved = bias + side
        levels.append(normal.cdf(bias + moved / max(1 - acceleration * moved, 1e-9)))
    low, high = np.quantile(draws, levels)
    return Interval(float(low), float(high))


def resample(clusters: NDArray[np.float64], statistic: Statistic, resamples: int, seed: int) -> NDArray[np.float64]:
    """Scores of samples of clusters, drawn with replacement.

    Args:
        clusters: Sums of each cluster, shape (G, k).
        statistic: From sums to the score.
        resamples: How many to draw.
        seed: Of the draws.

    Returns:
        Shape (resamples,).
    """
    generator = np.random.default_rng(seed)
    count = len(clusters)
    distinct, times = np.unique(clusters, axis=0, return_counts=True)
    if 4 * len(distinct) <= count:  # right/wrong scores, mostly: how often each row is drawn says all
        drawn = generator.multinomial(count, times / count, size=resamples)
        return np.atleast_1d(statistic(drawn @ distinct))
    step = max(1, BLOCK // (count * clusters.shape[1]))
    scores = []
    for start in range(0, resamples, step):
        drawn = generator.integers(count, size=(min(step, resamples - start), count))
        scores.append(np.atleast_1d(statistic(clusters[drawn].sum(axis=1))))
    return np.concatenate(scores)


def student_quantile(level: float, degrees: float) -> float:
    """The quantile of Student's t distribution.

    Args:
        level: Probability below the quantile, from 0.5 to below 1.
        degrees: Degrees of freedom, above 0; need not be whole.

    Returns:
        The quantile, by bisection of the distribution function to 12 digits.
    """
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < level:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if student_cdf(middle, degrees) < level else (low, middle)
    return high


def student_cdf(t: float, degrees: float) -> float:
    """Student's t distribution function, for `t` from 0 and degrees of freedom above 0."""
    if degrees / (degrees + t**2) < 0.5:  # the larger of x and 1 - x loses no digits
        return 1 - _incomplete_beta(degrees / (degrees + t**2), degrees / 2, 0.5) / 2
    return 0.5 + _incomplete_beta(t**2 / (degrees + t**2), 0.5, degrees / 2) / 2


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Press et al. 2007, 6.4)."""
    if x <= 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 / (1 + numerator * d or tiny)
            c = 1 + numerator / c or tiny
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a


def _upper(confidence: float) -> float:
    """The level of the upper end of a two-sided interval."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}.")
    return (1 + confidence) / 2


def _mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 2) sums of scores and counts -> their mean."""
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def _clustered(
    rows: ArrayLike, groups: Sequence[Hashable] | None, statistic: Statistic | None
) -> tuple[NDArray[np.float64], Statistic]:
    """Sums of each group, shape (G, k), in the order of first appearance; and the statistic of such sums."""
    table: NDArray[Any] = np.asarray(rows, dtype=np.float64)
    if statistic is None:
        if table.ndim != 1:
            raise ValueError(f"scores must have shape (n,), got {table.shape}; a table needs its statistic.")
        table, statistic = np.stack([table, np.ones_like(table)], axis=1), _mean
    if table.ndim != 2 or not len(table):
        raise ValueError(f"rows must have shape (n, k) with n > 0, got {table.shape}.")
    if groups is None:
        return table, statistic
    if len(groups) != len(table):
        raise ValueError(f"there are {len(table)} rows but {len(groups)} groups.")
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(group, len(places)) for group in groups])
    sums = np.zeros((len(places), table.shape[1]))
    np.add.at(sums, index, table)
    return sums, statistic
