"""What a metric is: a named, signed way from answers and references to one number.

Every metric is a function of sums over samples, so that its interval, its comparison with another arm and its value on
a slice all come from the same rows (`vglm.evaluation.score.statistics`):

    rows(records)      one row of additive numbers per record, shape (n, k)
    statistic(sums)    from summed rows to the score

Where each answer has a score of its own, a row is (score, 1) and the statistic their mean. Several draws of an answer
to the same question are one sample: their rows are joined before anything is counted (`join_draws`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.statistics import (
    Interval,
    PairedComparison,
    Statistic,
    bootstrap_interval,
    compare_paired,
    mean_of_sums,
    single_scores,
    wilson_interval,
)

Rows = NDArray[np.float64]
"""Additive numbers, one row per record, shape (n, k)."""


Kind = Literal["answers", "classes", "findings", "ngrams"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of a set of answers.

    Attributes:
        name: Its key in `metrics.json`.
        title: Its name in a report.
        rewards_naming: Whether an answer that names everything scores as well as the right one, or nearly so; a report
            then warns of answers that are much longer than the references.
        title_zh: That in Chinese; None where it is the same.
        signature: How it is computed (tokens, case, smoothing, version), so that two reports can be compared. Texts are
            never truncated, except where it says so.
        function: (prediction, reference) -> the score of one answer; None for a score that only a set of answers has.
        table: Records -> rows, where they are not (function, 1).
        statistic: Sums of rows -> the score.
        kind: What it is made of, which decides what a report shows beside it: a table of `classes` or `findings`, the
            answers' lengths beside `ngrams`.
        unit: `%` for a share from 0.0 to 1.0, whose differences are points; else the unit, or nothing where there is
            none and `signature` names the range.
        higher_is_better: False for errors; None for what is neither good nor bad, like a length.
        decides: Whether it calls each answer right or wrong, so that these go by it where the primary metric does not.
        signature_of: Records -> the signature on them, where it depends on what the data has; see `signed`.
    """

    name: str
    title: str
    signature: str
    function: Callable[[str, str], float] | None = None
    table: Callable[[Sequence[Prediction]], Rows] | None = None
    statistic: Statistic = mean_of_sums
    kind: Kind = "answers"
    unit: str = "%"
    higher_is_better: bool | None = True
    decides: bool = False
    rewards_naming: bool = False
    title_zh: str | None = None
    signature_of: Callable[[Sequence[Prediction]], str] | None = None

    @property
    def is_share(self) -> bool:
        """Whether it is from 0.0 to 1.0 and shown in points."""
        return self.unit == "%"

    @property
    def titles(self) -> dict[str, str]:
        """Its name in both languages."""
        return {"en": self.title, "zh": self.title_zh or self.title}

    def signed(self, records: Sequence[Prediction]) -> "Metric":
        """The same metric, with a signature that says how it is computed on these records."""
        return self if self.signature_of is None else replace(self, signature=self.signature_of(records))

    def rows(self, records: Sequence[Prediction]) -> Rows:
        """The additive numbers of each record; a record with an error counts as an empty answer, scored 0.

        Args:
            records: Predictions with references.

        Returns:
            Shape (n, k), float64.
        """
        if self.table is not None:
            return self.table(records)
        assert self.function is not None
        scores = [
            0.0 if record.error is not None else self.function(record.prediction, record.reference)
            for record in records
        ]
        return np.stack([np.array(scores), np.ones(len(scores))], axis=1)

    def score(self, records: Sequence[Prediction]) -> float:
        """The score of a set of records; NaN where nothing could be counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return float(self.statistic(self.rows(records).sum(axis=0)))


@dataclass(frozen=True, slots=True)
class Score:
    """What a metric found on a set of records.

    Attributes:
        metric: The metric.
        value: The score; NaN where nothing could be counted.
        n: Number of samples that are counted, however many answers to each were drawn: not those for which the
            metric's row is all zeros.
        interval: Of the value, with 95 % confidence, by group.
        interval_method: How the interval was made.
    """

    metric: Metric
    value: float
    n: int
    interval: Interval
    interval_method: str

    def as_dict(self) -> dict[str, object]:
        """JSON-able; what is not finite becomes None."""
        value, low, high = (number if math.isfinite(number) else None for number in (self.value, *self.interval))
        return {
            "value": value,
            "interval": [low, high],
            "n": self.n,
            "interval_method": self.interval_method,
            "signature": self.metric.signature,
        }


def measure(metric: Metric, records: Sequence[Prediction]) -> Score:
    """Score records, with an interval: Wilson's for right and wrong on independent samples, else the bootstrap's.

    Args:
        metric: The metric.
        records: At least one; their `group` says which of them belong together.
    """
    metric = metric.signed(records)
    rows, samples = join_draws(metric.rows(records), records)
    groups = [(record.split, record.group) for record in samples]
    value = float(metric.statistic(rows.sum(axis=0)))
    if (counted := _counted(rows)).any():
        rows = rows[counted]
        groups = [group for group, is_counted in zip(groups, counted, strict=True) if is_counted]
    independent = len(set(groups)) == len(groups)
    scores = single_scores(rows, metric.statistic)
    if independent and scores is not None and np.isin(scores, (0, 1)).all():
        return Score(metric, value, len(rows), wilson_interval(scores.sum(), len(rows)), "Wilson score interval")
    interval = bootstrap_interval(rows, groups=groups, statistic=metric.statistic)
    method = "expanded percentile bootstrap" + ("" if independent else ", by group")
    return Score(metric, value, len(rows), interval, method)


def join_draws(rows: Rows, records: Sequence[Prediction]) -> tuple[Rows, list[Prediction]]:
    """Take all draws of a sample as one, for they are not independent of each other.

    Args:
        rows: Of each record: additive numbers, shape (n, k), or one score, shape (n,).
        records: The records.

    Returns:
        For each sample the mean of its rows, so that a sample weighs as much as with one answer; and its first record.
    """
    if all(record.draw == 0 for record in records):
        return rows, list(records)
    indices: dict[tuple[str, str], int] = {}
    index = np.array([indices.setdefault((record.split, record.id), len(indices)) for record in records])
    joined = np.zeros((len(indices), *rows.shape[1:]))
    np.add.at(joined, index, rows)
    firsts, draws = np.unique(index, return_index=True, return_counts=True)[1:]
    return (joined.T / draws).T, [records[index] for index in firsts]


def compare_arms(metric: Metric, baseline: Sequence[Prediction], candidate: Sequence[Prediction]) -> PairedComparison:
    """Compare two arms by one metric: single answers' scores as such, others by their sums.

    Args:
        metric: The metric.
        baseline: The records to compare with, at least one.
        candidate: The records of the same samples in the same order; several draws of an answer are one sample. Samples
            that the metric counts in neither arm, all zeros in its rows, are left out, and so they are of `n`.

    Raises:
        DataError: The metric cannot be computed on these records.
    """
    (old, _), (new, samples) = (join_draws(metric.rows(arm), candidate) for arm in (baseline, candidate))
    groups = [(record.split, record.group) for record in samples]
    if (counted := _counted(old, new)).any():
        groups = [group for group, is_counted in zip(groups, counted, strict=True) if is_counted]
        old, new = old[counted], new[counted]
    bound = 1.0 if metric.is_share else math.inf
    if _counts_alike(metric, old, new):
        return compare_paired(old[:, 0] / old[:, 1], new[:, 0] / new[:, 1], groups=groups, bound=bound)
    with np.errstate(invalid="ignore", divide="ignore"):
        return compare_paired(old, new, groups=groups, statistic=metric.statistic, bound=bound)


def _counted(*arms: Rows) -> NDArray[np.bool_]:
    """Which records the metric counts in some arm, shape (n,): those whose rows are not all zeros."""
    return np.asarray(np.concatenate(arms, axis=1).any(axis=1))


def _counts_alike(metric: Metric, *arms: Rows) -> bool:
    """Whether all rows are (score, the same count), so that the score is a mean over the same samples in all arms."""
    if metric.statistic is not mean_of_sums or any(rows.shape[1] != 2 for rows in arms):
        return False
    counts = np.concatenate([rows[:, 1] for rows in arms])
    return bool(counts[0] > 0 and (counts == counts[0]).all())
