"""What a metric is: a named, signed way from answers and references to one number.

Every metric is a function of sums over samples, so that its interval, its comparison with another arm and its value on
a slice all come from the same rows (`vglm.evaluation.statistics`):

    rows(records)      one row of additive numbers per record, shape (n, k)
    statistic(sums)    from summed rows to the score

Where each answer has a score of its own, a row is (score, 1) and the statistic their mean.
"""

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.statistics import Interval, Statistic, bootstrap_interval, mean_of_sums, wilson_interval

Rows = NDArray[np.float64]
"""Additive numbers, one row per record, shape (n, k)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of a set of answers.

    Attributes:
        name: Its key in `metrics.json`.
        title: Its name in a report.
        signature: How exactly it is computed (tokens, case, smoothing, version), so that two reports can be compared.
            Texts are never truncated, except where it says so.
        function: (prediction, reference) -> the score of one answer; None for a score that only a set of answers has.
        table: Records -> rows, where they are not (function, 1).
        statistic: Sums of rows -> the score.
        is_share: Whether it is from 0.0 to 1.0 and shown in points; otherwise `signature` names range or unit.
        is_better_higher: False for errors; None for what is neither good nor bad, like a length.
        is_ngram: Whether it counts n-grams, and so depends on the answer's length.
    """

    name: str
    title: str
    signature: str
    function: Callable[[str, str], float] | None = None
    table: Callable[[Sequence[Prediction]], Rows] | None = None
    statistic: Statistic = mean_of_sums
    is_share: bool = True
    is_better_higher: bool | None = True
    is_ngram: bool = False

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
        scores = [0.0 if each.error is not None else self.function(each.prediction, each.reference) for each in records]
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
        n: Number of records.
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
        value, low, high = (each if math.isfinite(each) else None for each in (self.value, *self.interval))
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
    rows, groups = metric.rows(records), [(record.split, record.group) for record in records]
    value = float(metric.statistic(rows.sum(axis=0)))
    independent = len(set(groups)) == len(groups)
    if independent and metric.table is None and bool(np.all((rows[:, 0] == 0) | (rows[:, 0] == 1))):
        return Score(metric, value, len(rows), wilson_interval(rows[:, 0].sum(), len(rows)), "Wilson score interval")
    interval = bootstrap_interval(rows, groups=groups, statistic=metric.statistic)
    method = "expanded percentile bootstrap" + ("" if independent else ", by group")
    return Score(metric, value, len(rows), interval, method)


def normalise(text: str) -> str:
    """Bring a text into the form in which answers are compared.

    Unicode NFKC (full-width signs and letters become half-width); white space is dropped at the ends and made one blank
    inside. Case, accents and punctuation count.
    """
    return _normalised(text)


@lru_cache(20_000)  # every metric asks again
def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
