"""Errors of the numbers in an answer about a light curve: its period and its amplitude.

```
read_period("It repeats every 0.571 days.") == 0.571            in days
read_period("周期约为13.7小时，振幅0.94等") == 13.7 / 24
read_amplitude("周期约为13.7小时，振幅0.94等") == 0.94           in magnitudes
```
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.text import OWN
from vglm.text.normalisation import normalise

_NUMBER = r"(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_DAYS = {
    "d": 1.0,
    "h": 1 / 24,
    "m": 1 / 1440,
    "s": 1 / 86400,
    "天": 1.0,
    "日": 1.0,
    "小时": 1 / 24,
    "分": 1 / 1440,
    "秒": 1 / 86400,
}
_TIME = re.compile(
    _NUMBER + r"\s*(?:(d|h|m|s)(?:ays?|ours?|rs?|in(?:utes?)?s?|ec(?:onds?)?s?)?\b|(天|日|小时|分|秒))", re.IGNORECASE
)
_PERIOD_WORD = re.compile(r"period|every|repeat|周期|每隔", re.IGNORECASE)
_AMPLITUDE_WORD = re.compile(r"amplitude|振幅|变幅|幅度", re.IGNORECASE)
_MAGNITUDE = re.compile(_NUMBER + r"\s*(m?)(?:mag(?:nitudes?)?\b|星等|等)", re.IGNORECASE)


def read_period(text: str) -> float | None:
    """The period that a text names, in days.

    Returns:
        The first duration after a word like "period" or 周期; where there is no such word, the only duration of the
        text; None otherwise.
    """
    text = normalise(text)
    word, times = _PERIOD_WORD.search(text), list(_TIME.finditer(text))
    if word is not None:
        times = [time for time in times if time.start() >= word.end()][:1]
    if len(times) != 1:
        return None
    return float(times[0][1]) * _DAYS[(times[0][2] or times[0][3]).lower()]


def read_amplitude(text: str) -> float | None:
    """The amplitude that a text names, in magnitudes (`mmag` is a thousandth).

    Returns:
        The first number with a unit after a word like "amplitude" or 振幅; where there is no such word, the only such
        number of the text; None otherwise.
    """
    text = normalise(text)
    word, values = _AMPLITUDE_WORD.search(text), list(_MAGNITUDE.finditer(text))
    if word is not None:
        values = [value for value in values if value.start() >= word.end()][:1]
    if len(values) != 1:
        return None
    return float(values[0][1]) * (1e-3 if values[0][2] else 1.0)


def _pairs(
    records: Sequence[Prediction], read: Callable[[str], float | None]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """(true, named) values, shape (n, 2), NaN where there is none; a true value of 0 has no relative error."""
    values = [
        [read(record.reference), None if record.error is not None else read(record.prediction)] for record in records
    ]
    table = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=np.float64)
    table[table[:, 0] == 0] = np.nan
    return table


def _error_rows(records: Sequence[Prediction], read: Callable[[str], float | None]) -> Rows:
    """(|named - true| / true, 1), and zeros where either names none, shape (n, 2)."""
    pairs = _pairs(records, read)
    errors = np.abs(pairs[:, 1] - pairs[:, 0]) / pairs[:, 0]
    counted = ~np.isnan(errors)
    return np.stack([np.where(counted, errors, 0.0), counted], axis=1).astype(np.float64)


def _within_rows(records: Sequence[Prediction], read: Callable[[str], float | None], tolerance: float) -> Rows:
    """(error at most `tolerance`, the reference names one), shape (n, 2); an answer without a value is wrong."""
    pairs = _pairs(records, read)
    counted = ~np.isnan(pairs[:, 0])
    with np.errstate(invalid="ignore"):
        close = np.abs(pairs[:, 1] - pairs[:, 0]) <= tolerance * pairs[:, 0]
    return np.stack([close & counted, counted], axis=1).astype(np.float64)


def _error(name: str, title: str, title_zh: str, read: Callable[[str], float | None], unit: str) -> Metric:
    return Metric(
        f"{name}_error",
        f"{title}: relative error",
        f"mean |named - true| / true|{unit}|only where both name one|any case|not cut|{OWN}",
        table=lambda records: _error_rows(records, read),
        unit="",
        higher_is_better=False,
        title_zh=f"{title_zh}：相对误差",
    )


def _within(
    name: str, title: str, title_zh: str, read: Callable[[str], float | None], unit: str, tolerance: float
) -> Metric:
    return Metric(
        f"{name}_within_{tolerance:.0%}".replace("%", "_percent"),
        f"{title} within {tolerance:.0%}",
        f"share of references with one|{unit}|no value in the answer is wrong|any case|not cut|{OWN}",
        table=lambda records: _within_rows(records, read, tolerance),
        title_zh=f"{title_zh}误差不超过 {tolerance:.0%}",
    )


PERIOD_ERROR = _error("period", "Period", "周期", read_period, "days")
PERIOD_WITHIN = _within("period", "Period", "周期", read_period, "days", 0.1)
AMPLITUDE_ERROR = _error("amplitude", "Amplitude", "振幅", read_amplitude, "magnitudes")
AMPLITUDE_WITHIN = _within("amplitude", "Amplitude", "振幅", read_amplitude, "magnitudes", 0.1)
