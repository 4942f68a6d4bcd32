"""Scores of questions whose possible answers are known, from how likely each is to the model.

```
record.likelihoods == {"是的。": -0.11, "不是。": -2.3}      natural logarithms; the first is the model's choice
softmax                {"是的。": 0.90, "不是。": 0.10}      its confidence is 0.90
calibration(records)   {"n": 200, "expected_calibration_error": 0.04, "bins": [{"from": 0.8, "n": 41, …}, …], …}
```

Records without likelihoods (text-only questions in a mixed test set) are left out. A record whose image could not be
opened has none either, but counts as wrong, as in all metrics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.choices import index_of_reference, own_choices
from vglm.evaluation.score.metrics.text import OWN
from vglm.evaluation.score.statistics import wilson_interval

BINS = 10
"""Of confidence, of equal width."""


# --- which choice the model takes -------------------------------------------------------------------------------------


def _scored(records: Sequence[Prediction]) -> list[tuple[tuple[str, ...], NDArray[np.float64], int] | None]:
    """(choices, ln p of each, index of the right one) of each record; None where none were scored.

    Raises:
        DataError: No record has likelihoods; or references are not among the choices, or likelihoods are not numbers.
    """
    scored: list[tuple[tuple[str, ...], NDArray[np.float64], int] | None] = []
    problems = []
    for record in records:
        if not record.likelihoods or record.error is not None:
            scored.append(None)
            continue
        choices, values = tuple(record.likelihoods), np.array(list(record.likelihoods.values()), dtype=np.float64)
        true = index_of_reference(record, choices)
        if true is None:
            problems.append(f"{record.split} {record.id!r}: {record.reference!r} is none of {'/'.join(choices)}")
        elif not np.isfinite(values).all():
            problems.append(f"{record.split} {record.id!r}: {dict(record.likelihoods)} are no likelihoods")
        scored.append(None if true is None else (choices, values, true))
    if problems:
        raise DataError(
            f"{len(problems)} of {len(records)} questions have no right choice (first: {'; '.join(problems[:3])})."
            " Score each question's own choices with choices=sample, or leave out the questions that have none."
        )
    if not any(scored):
        raise DataError(
            f"none of {len(records)} answers has likelihoods. Evaluate with choices=[...], or with choices=sample where"
            " the data names choices."
        )
    return scored


def _hit_rows(records: Sequence[Prediction], lengths: Callable[[str], float]) -> Rows:
    """(the likeliest choice is right, it was scored), shape (n, 2)."""
    rows, has_own = np.zeros((len(records), 2)), any(map(own_choices, records))
    for row, record, scored in zip(rows, records, _scored(records), strict=True):
        if scored is not None:
            choices, values, true = scored
            row[:] = np.argmax(values / np.array([lengths(choice) for choice in choices])) == true, 1
        elif record.error is not None and (own_choices(record) or not has_own):
            row[:] = 0, 1
    return rows


def _confidences(records: Sequence[Prediction]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(probability of the likeliest choice, whether it is right, whether there is one), each of shape (n,)."""
    table = np.zeros((len(records), 2))
    answers = _scored(records)
    for row, scored in zip(table, answers, strict=True):
        if scored is not None:
            _, values, true = scored
            row[:] = softmax(values).max(), np.argmax(values) == true
    return table[:, 0], table[:, 1], np.array([scored is not None for scored in answers])


def softmax(log_likelihoods: ArrayLike) -> NDArray[np.float64]:
    """The choices' probabilities given that one of them is the answer: e^l / sum of e^l, shape as given, sum 1."""
    values = np.asarray(log_likelihoods, dtype=np.float64)
    shares = np.exp(values - values.max())
    return np.asarray(shares / shares.sum())


# --- calibration ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of confidences.

    Attributes:
        expected_error: Mean |share right - mean confidence| over bins, weighted by their samples (ECE).
        bins: (lower edge, n, mean confidence, share right) of each bin with samples.
    """

    expected_error: float
    bins: tuple[tuple[float, int, float, float], ...]


def calibrate(confidences: ArrayLike, is_right: ArrayLike, *, bins: int = BINS) -> Calibration:
    """Measure the calibration of answers scored by likelihood.

    Args:
        confidences: Probability of the answer that was given, shape (n,), 0.0 to 1.0.
        is_right: Whether it was right, shape (n,).
        bins: Number of bins of equal width; a confidence on an edge belongs to the bin below, as in the source.

    Raises:
        ValueError: There is none, or one is not from 0 to 1.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    chance, right = np.asarray(confidences, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    if chance.shape != right.shape or not len(chance) or not np.all((chance >= 0) & (chance <= 1)):
        raise ValueError("calibration needs as many confidences from 0 to 1 as answers, and at least one.")
    sums = _bin_rows(chance, right, bins).sum(axis=0).reshape(3, bins)
    rows = [
        (index / bins, int(n), float(confidence / n), float(share / n))
        for index, (n, confidence, share) in enumerate(sums.T)
        if n
    ]
    return Calibration(float(_expected_error(sums.reshape(-1))), tuple(rows))


def _bin_rows(chance: NDArray[np.float64], right: NDArray[np.float64], bins: int) -> Rows:
    """For each of B bins (is in it, confidence, right), additive, shape (n, 3 B)."""
    index = np.clip(np.ceil(chance * bins).astype(int) - 1, 0, bins - 1)
    inside = (index[:, None] == np.arange(bins)).astype(np.float64)
    return np.concatenate([inside, inside * chance[:, None], inside * right[:, None]], axis=1)


def _expected_error(sums: Rows) -> Rows:
    """ECE of summed bins, shape (..., 3 B): sum of |right - confidence| over bins, by the number of samples."""
    count, confidence, right = np.split(sums, 3, axis=-1)
    return np.asarray(np.abs(right - confidence).sum(axis=-1) / count.sum(axis=-1))


def _calibration_rows(records: Sequence[Prediction]) -> Rows:
    chance, right, is_scored = _confidences(records)
    return _bin_rows(chance, right, BINS) * is_scored[:, None]


def _brier_rows(records: Sequence[Prediction]) -> Rows:
    """(sum over the choices of (probability - 1 for the right one, else 0)^2, it was scored), shape (n, 2)."""
    rows = np.zeros((len(records), 2))
    for row, scored in zip(rows, _scored(records), strict=True):
        if scored is not None:
            _, values, true = scored
            row[:] = np.sum((softmax(values) - (np.arange(len(values)) == true)) ** 2), 1
    return rows


def calibration(records: Sequence[Prediction]) -> dict[str, Any]:
    """The reliability table of an arm's choices by likelihood, JSON-able.

    Args:
        records: With likelihoods.

    Returns:
        `n`, `accuracy`, `mean_confidence`, `expected_calibration_error`, `brier_score`, `signature` and the `bins` that
        have samples: `from`, `to`, `n`, `confidence`, `right` (the share) and its Wilson `interval`.

    Raises:
        DataError: No record has likelihoods, or references are not among the choices.
    """
    chance, right, is_scored = _confidences(records)
    chance, right = chance[is_scored], right[is_scored]
    calibration_of = calibrate(chance, right)
    return {
        "n": len(chance),
        "accuracy": float(right.mean()),
        "mean_confidence": float(chance.mean()),
        "expected_calibration_error": calibration_of.expected_error,
        "brier_score": BRIER_SCORE.score(records),
        "bins": [
            {
                "from": edge,
                "to": edge + 1 / BINS,
                "n": n,
                "confidence": confidence,
                "right": share,
                "interval": list(wilson_interval(round(share * n), n)),
            }
            for edge, n, confidence, share in calibration_of.bins
        ],
        "signature": CALIBRATION_ERROR.signature,
    }


# --- the metrics ------------------------------------------------------------------------------------------------------

_SOFTMAX = "softmax over the choices of ln p(choice and its end)"
_EXACTLY = f"case kept|not cut|{OWN}"

LIKELIHOOD_ACCURACY = Metric(
    "likelihood_accuracy",
    "Accuracy by likelihood",
    "the choice of highest ln p(choice and its end)|summed over tokens, not normalised|of equal ones the first"
    f"|{_EXACTLY}",
    table=lambda records: _hit_rows(records, lambda choice: 1.0),
    title_zh="按似然的准确率",
)
LIKELIHOOD_ACCURACY_PER_CHARACTER = Metric(
    "likelihood_accuracy_per_character",
    "Accuracy by likelihood per character",
    "the choice of highest ln p(choice and its end) / characters of the choice|as acc_norm of lm-evaluation-harness,"
    f" which leaves out the end|{_EXACTLY}",
    table=lambda records: _hit_rows(records, lambda choice: float(max(1, len(choice)))),
    title_zh="按每字似然的准确率",
)
"""For choices of different lengths. Source: EleutherAI/lm-evaluation-harness:lm_eval/api/task.py, which divides by the
characters of a choice."""
CALIBRATION_ERROR = Metric(
    "expected_calibration_error",
    "Expected calibration error",
    f"{_SOFTMAX}|highest against right|{BINS} bins of equal width|L1|{_EXACTLY}",
    table=_calibration_rows,
    statistic=_expected_error,
    higher_is_better=False,
    title_zh="期望校准误差",
)
"""Of few samples it is too high: even where confidences are perfectly calibrated, each bin has an error by chance."""
BRIER_SCORE = Metric(
    "brier_score",
    "Brier score",
    f"0 to 2|{_SOFTMAX}|sum over the choices of (p - is right)^2|{_EXACTLY}",
    table=_brier_rows,
    unit="",
    higher_is_better=False,
    title_zh="Brier 分数",
)
"""Source: Brier 1950, "Verification of forecasts expressed in terms of probability"."""
LIKELIHOOD_METRICS = (
    LIKELIHOOD_ACCURACY,
    LIKELIHOOD_ACCURACY_PER_CHARACTER,
    CALIBRATION_ERROR,
    BRIER_SCORE,
)
