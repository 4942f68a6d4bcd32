"""Helpers for the text of findings: examples and counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vglm.data.doctor.finding import EXAMPLES, SAY, Example, Finding, Severity
from vglm.data.doctor.survey import Survey
from vglm.data.problems import BadRow
from vglm.text.messages import Text, join

NOTE, WARNING, UNUSABLE = Severity

RETENTION = "retention"


@dataclass(frozen=True)
class Check:
    """One thing to look for.

    Attributes:
        name: Key of the title under `check`, which a clean report lists.
        run: Yields what it finds.
        needs: "pictures" or "tokens", if the check makes no sense without; None if the rows suffice.
    """

    name: str
    run: Callable[[Survey], Iterator[Finding]]
    needs: str | None = None

    @property
    def title(self) -> Text:
        """What a clean report says was looked at."""
        return SAY(f"check.{self.name}")


def in_split(survey: Survey, split: str) -> NDArray[np.bool_]:
    """For each row whether it is of a split."""
    code = survey.splits.index(split) if split in survey.splits else -1
    return np.asarray(survey.rows["split"] == code)


def about(
    survey: Survey,
    rows: Sequence[int] | NDArray[np.intp],
    key: str,
    severity: Severity = WARNING,
    count: int | None = None,
    **values: Any,
) -> Iterator[Finding]:
    """A finding on some rows, if there are any: `key.one` or `key.other` by a count, and `key.detail`."""
    if len(rows):
        title = SAY.counted(key, len(rows) if count is None else count, **values)
        yield Finding(severity, title, SAY(f"{key}.detail"), examples(survey, rows))


def rows_of_pictures(survey: Survey, status: int) -> list[int]:
    """The rows whose picture has a status."""
    if not survey.was_decoded or not len(survey.pictures):
        return []
    pictures = np.flatnonzero(survey.pictures["status"] == status)
    return np.flatnonzero(np.isin(survey.image_of_row, pictures)).tolist()


def example(survey: Survey, row: int, text: str | None = None) -> Example:
    """A row that shows a finding, with its own words or others."""
    sample = survey.sample(int(row))
    return Example(sample.id, short(text if text is not None else f"{sample.question} → {sample.answer}"), sample)


def examples(survey: Survey, rows: Iterable[int]) -> tuple[Example, ...]:
    """The first of some rows."""
    return tuple(example(survey, row) for row in head(rows))


def picture_example(survey: Survey, picture: int) -> Example:
    """A picture that shows a finding."""
    record = survey.pictures[picture]
    size = f"{record['width']} x {record['height']} {record['mode']}"
    sample = survey.sample_of_picture(picture)
    return Example(sample.id, f"{sample.image} ({size})", sample)


def bad_example(name: str, bad: BadRow) -> Example:
    """A row that cannot be read."""
    return Example(f"{name}:{bad.row}", bad.fault)


def head(rows: Iterable[int]) -> list[int]:
    """The first of some rows, by number."""
    return [int(row) for row in islice(rows, EXAMPLES)]


def first_few(items: Iterable[Any]) -> list[Any]:
    """The first of some items."""
    return list(islice(items, EXAMPLES))


def short(text: str, length: int = 160) -> str:
    """A text in one line of some length."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def rows_of(number: int) -> Text:
    """A number of rows."""
    return SAY.counted("n.rows", int(number))


def listed(items: Iterable[Text]) -> Text:
    """Words with commas, and `and` before the last."""
    parts = list(items)
    return parts[0] if len(parts) == 1 else SAY("listed", parts=parts[:-1], last=parts[-1])


def counts_of(values: Iterable[str]) -> Text:
    """How often each of the data's own words occurs, the most frequent first."""
    return join(Text.of(f"{count:,} {value}") for value, count in Counter(values).most_common())


def count_classes(column: "pd.Series[Any]") -> pd.DataFrame:
    """How often each value of a column of `Survey.table` occurs, the most frequent first.

    Returns:
        For each value `rows`, their number, and `first`, the first of them.
    """
    rows = column.index.to_series().groupby(column).agg(first="first", rows="size")
    return rows.sort_values("rows", ascending=False, kind="stable")
