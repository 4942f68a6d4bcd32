"""Shared parts of the statistics: rows of additive numbers, sums by group, Student's t and the binomial.

SciPy is imported where it is first needed: it takes 0.3 s, and nothing that only reads a config computes.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From sums over samples, shape (..., k), to the score, shape (...)."""


class Interval(NamedTuple):
    """Two ends, both belonging to the interval."""

    low: float
    high: float


@cache
def student_quantile(level: float, degrees: float) -> float:
    """The quantile of Student's t distribution.

    Args:
        level: Probability below the quantile, between 0 and 1.
        degrees: Degrees of freedom, above 0; need not be whole.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, level))


def binomial_below(successes: ArrayLike, n: ArrayLike, share: float) -> NDArray[np.float64]:
    """The probability of at most `successes` in n; 0 below 0 successes."""
    from scipy.special import bdtr

    requested = np.asarray(successes, dtype=np.float64)
    return np.where(requested < 0, 0.0, bdtr(np.maximum(requested, 0), n, share))


def binomial(n: int, share: float) -> NDArray[np.float64]:
    """Chances of 0 to n successes, shape (n + 1,)."""
    return np.diff(binomial_below(np.arange(n + 1), n, share), prepend=0.0)


def finite(value: Any) -> Any:
    """A value that JSON has a word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def upper_level(confidence: float) -> float:
    """The level of the upper end of a two-sided interval."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}.")
    return (1 + confidence) / 2


def mean_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean: from sums of scores and counts, shape (..., 2), to shape (...); NaN of nothing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1])


def as_rows(rows: ArrayLike, statistic: Statistic | None) -> tuple[NDArray[np.float64], Statistic]:
    """A table of rows, shape (n, k), and its statistic; plain scores become (score, 1) and the mean."""
    table: NDArray[Any] = np.asarray(rows, dtype=np.float64)
    if statistic is None:
        if table.ndim != 1:
            raise ValueError(f"scores must have shape (n,), got {table.shape}; a table needs its statistic.")
        table, statistic = np.stack([table, np.ones_like(table)], axis=1), mean_of_sums
    if table.ndim != 2 or not len(table):
        raise ValueError(f"rows must have shape (n, k) with n > 0, got {table.shape}.")
    return table, statistic


def by_group(
    rows: ArrayLike, groups: Sequence[Hashable] | None, statistic: Statistic | None
) -> tuple[NDArray[np.float64], Statistic]:
    """Sums of each group, shape (G, k), in the order of first appearance; and the statistic of such sums."""
    table, statistic = as_rows(rows, statistic)
    if groups is None:
        return table, statistic
    if len(groups) != len(table):
        raise ValueError(f"there are {len(table)} rows but {len(groups)} groups.")
    positions: dict[Hashable, int] = {}
    index = np.array([positions.setdefault(group, len(positions)) for group in groups])
    sums = np.zeros((len(positions), table.shape[1]))
    np.add.at(sums, index, table)
    return sums, statistic


def single_scores(rows: ArrayLike, statistic: Statistic | None) -> NDArray[np.float64] | None:
    """The scores of single samples, where the score of all is their mean, however its rows are made.

    Accuracy counted class by class is the mean of 0/1 as exact match is, and so it gets the same interval.

    Args:
        rows: Shape (n,) or (n, k).
        statistic: From sums to the score; None for the mean of scores.

    Returns:
        Shape (n,); None where the score of all, or of all but any one, is not the mean of the single scores.
    """
    table, statistic = as_rows(rows, statistic)
    total, n = table.sum(axis=0), len(table)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores, everything = np.asarray(statistic(table)), float(statistic(total))
        is_mean = abs(everything - scores.mean()) <= 1e-9
        if is_mean and n > 1:
            left_out = np.asarray(statistic(total - table))
            is_mean = bool(np.all(np.abs(left_out - (scores.sum() - scores) / (n - 1)) <= 1e-9))
    return scores if is_mean else None


def pseudo_values(clusters: NDArray[np.float64], statistic: Statistic) -> NDArray[np.float64]:
    """Each group's share of the score, by the jackknife, shape (G,); their mean is the score.

    Of the mean of single samples they are its scores; of any other score they are what it is made of near the data.
    """
    count, total = len(clusters), clusters.sum(axis=0)
    score = np.asarray(statistic(total))
    if count < 2:
        return np.full(count, float(score))
    values = count * score - (count - 1) * np.asarray(statistic(total - clusters))
    return np.asarray(values + (score - values.mean()))  # without the jackknife's small bias


def difference_of(statistic: Statistic, width: int) -> Statistic:
    """The statistic of rows in which the candidate's numbers follow the baseline's."""
    return lambda sums: statistic(sums[..., width:]) - statistic(sums[..., :width])


def is_right_or_wrong(scores: NDArray[np.float64]) -> bool:
    """Whether all scores, shape (n,), are 0 or 1."""
    return scores.ndim == 1 and bool(np.all((scores == 0) | (scores == 1)))
