"""Forgetting on the retention set: non-inferiority against a budget, and gross counts of forgotten and learned."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vglm.evaluation.score.statistics.basics import Interval, by_group, is_right_or_wrong, mean_of_sums, pseudo_values
from vglm.evaluation.score.statistics.bounded import bounded_interval
from vglm.evaluation.score.statistics.intervals import wilson_interval
from vglm.evaluation.score.statistics.paired import PairedComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """Whether at most so much was lost.

    Attributes:
        finding: `shown` where the whole interval of the loss is within the margin, `refuted` where it is all beyond,
            `not shown` otherwise, and where there are too few independent groups.
        margin: The largest loss that is accepted, in units of the score (0.05: 5 points).
        loss: Baseline minus candidate; negative where the candidate gained.
        interval: Of the loss.
        confidence: Of the interval. Each of the two claims is made wrongly in about half of the rest, or less.
        n: Number of samples.
        groups: Number of independent groups among them.
    """

    finding: Literal["shown", "not shown", "refuted"]
    margin: float
    loss: float
    interval: Interval
    confidence: float
    n: int
    groups: int


def non_inferiority(comparison: PairedComparison, margin: float) -> NonInferiority:
    """Hold a loss against the largest one that is accepted, by the interval of the difference.

    Where the true loss is the margin itself, 5 points, of right/wrong answers, "shown" is claimed in 0 to 2.6 % and
    "refuted" in 0 to 2.8 % of the cases (`python benchmarks/statistical_tests.py`). A loss that is not significant is
    no evidence of no loss: that is `not shown`.

    Args:
        comparison: Of baseline and candidate by a score of which more is better.
        margin: The largest loss that is accepted, from 0 on, such as `forgetting_budget` / 100.

    Returns:
        The verdict.

    Raises:
        ValueError: The margin is negative.

    Source: Piaggio et al. 2012, "Reporting of noninferiority and equivalence randomized trials"; Tango 1998.
    """
    if margin < 0:
        raise ValueError(f"the margin must be 0 or more, got {margin}.")
    low, high = 0.0 - comparison.interval.high, 0.0 - comparison.interval.low
    finding: Literal["shown", "not shown", "refuted"] = "not shown"
    if comparison.groups >= comparison.least_groups:
        finding = "shown" if high <= margin else "refuted" if low > margin else "not shown"
    return NonInferiority(
        finding=finding,
        margin=margin,
        loss=0.0 - comparison.difference,
        interval=Interval(low, high),
        confidence=comparison.confidence,
        n=comparison.n,
        groups=comparison.groups,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrossForgetting:
    """Both directions of change: forgot 20 of the 90 it knew, learned 20 of the 90 it did not.

    Attributes:
        known: Samples that the baseline answered right.
        forgotten: Of these, how many the candidate answers wrong.
        forgotten_share: forgotten / known; NaN where nothing was known.
        forgotten_interval: Of that share; 0.0 to 1.0 where nothing was known.
        unknown: Samples that the baseline answered wrong.
        learned: Of these, how many the candidate answers right.
        learned_share: learned / unknown; NaN where everything was known.
        learned_interval: Of that share.
    """

    known: int
    forgotten: int
    forgotten_share: float
    forgotten_interval: Interval
    unknown: int
    learned: int
    learned_share: float
    learned_interval: Interval


def gross_forgetting(
    before: ArrayLike, after: ArrayLike, *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95
) -> GrossForgetting:
    """Count what was forgotten and what was learned, which a net change hides.

    Args:
        before: Shape (n,): whether the baseline's answers are right, 0 or 1.
        after: The candidate's, likewise, of the same samples.
        groups: The group of each sample; None where each is its own.
        confidence: Of the intervals: Wilson's for independent samples, Gaffke's by group otherwise.

    Returns:
        The counts, with intervals.

    Raises:
        ValueError: A score is neither 0 nor 1, or the shapes do not fit.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if old.shape != new.shape or not (is_right_or_wrong(old) and is_right_or_wrong(new)):
        raise ValueError("both arms must have the same number of scores, all 0 or 1.")
    forgotten = _changed(old == 1, new == 0, groups, confidence)
    learned = _changed(old == 0, new == 1, groups, confidence)
    return GrossForgetting(
        known=forgotten[0],
        forgotten=forgotten[1],
        forgotten_share=forgotten[2],
        forgotten_interval=forgotten[3],
        unknown=learned[0],
        learned=learned[1],
        learned_share=learned[2],
        learned_interval=learned[3],
    )


def _changed(
    concerned: NDArray[np.bool_], changed: NDArray[np.bool_], groups: Sequence[Hashable] | None, confidence: float
) -> tuple[int, int, float, Interval]:
    """How many samples are concerned, how many of them changed, the share, and its interval."""
    n, hits = int(concerned.sum()), int((concerned & changed).sum())
    if not n:
        return 0, 0, float("nan"), Interval(0.0, 1.0)
    rows = np.stack([changed[concerned], np.ones(n)], axis=1).astype(np.float64)
    own = None if groups is None else [groups[int(position)] for position in np.flatnonzero(concerned)]
    clusters, _ = by_group(rows, own, mean_of_sums)
    if len(clusters) == n:
        return n, hits, hits / n, wilson_interval(hits, n, confidence)
    values = pseudo_values(clusters, mean_of_sums)
    ends = bounded_interval(values, min(0.0, values.min()), max(1.0, values.max()), confidence=confidence)
    return n, hits, hits / n, Interval(max(0.0, ends.low), min(1.0, ends.high))
