"""Error messages of readers: all bad rows of a file are collected and reported together.

data/pets/train.json: 2 of 20 rows cannot be used (rows count from 1):
  data/pets/train.json:4: expected 'label', found only 'img', 'prompt'; fix: add it
  data/pets/train.json:9: expected image 'pictures/cat.png' in data/pets, found no such file; fix: add the file
Correct these rows. Set dataset.image_dir if the images lie elsewhere, or dataset.skip_missing=true to leave them out.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from vglm.data.sample import Sample
from vglm.errors import DataError

_ROWS_SHOWN = 5
_CORRECT = "Correct these rows."
_SKIP = " Set dataset.image_dir if the images lie elsewhere, or dataset.skip_missing=true to leave them out."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot become a sample.

    Attributes:
        row: Its number, counting from 1 (a line of a text file, an element of a list), or its name, such as
            `shard-000.tar:0017`.
        fault: What is wrong: `expected ..., found ...; fix: ...`; several faults are joined with `; also `.
        is_missing_image: A picture that is not there is all that is wrong, so that the row may be left out on request.
        sample: Then the sample as it would be, with the path where its picture was looked for, if the reader knows it.
    """

    row: int | str
    fault: str
    is_missing_image: bool = False
    sample: Sample | None = None


def only_samples(path: str | Path, rows: Iterable[Sample | BadRow], *, skip_missing: bool = False) -> Iterator[Sample]:
    """Pass on the samples of a reader, and refuse the file at its end if there were bad rows.

    Only the first bad rows are held in memory. A caller that stores the samples must commit only after the last one.

    Args:
        path: The file, for messages.
        rows: What the reader yields.
        skip_missing: Leave out rows of which only the picture is missing, with one warning that counts them.

    Yields:
        The good rows, in order.

    Raises:
        DataError: After the last row: there were bad rows (the message shows the first five and the total), or no
            sample at all.
    """
    row_count = bad_count = missing_count = skipped_count = 0
    shown: list[BadRow] = []
    first_missing: BadRow | None = None
    for row in rows:
        row_count += 1
        if isinstance(row, Sample):
            yield row
        elif row.is_missing_image and skip_missing:
            skipped_count += 1
            first_missing = first_missing or row
        else:
            bad_count += 1
            missing_count += row.is_missing_image
            if len(shown) < _ROWS_SHOWN:
                shown.append(row)
    if bad_count:
        _refuse(path, shown, bad_count, row_count, _CORRECT + (_SKIP if missing_count else ""))
    if not row_count:
        raise DataError(f"{path}: no rows. Expected at least one.")
    if first_missing is not None:
        if skipped_count == row_count:
            first = f"{_location(path, first_missing)}: {first_missing.fault}"
            raise DataError(f"{path}: every row's image is missing (first: {first}). Set dataset.image_dir.")
        logger.warning("%s: left out %d of %d rows, whose image is missing", path, skipped_count, row_count)


def report_bad_rows(
    path: str | Path, problems: Mapping[int, str] | Mapping[str, str], row_count: int, advice: str = _CORRECT
) -> None:
    """Refuse a file that has bad rows.

    Args:
        path: The file.
        problems: What is wrong with each bad row, by its number (counting from 1) or name, in the file's order.
        row_count: How many rows the file has.
        advice: What the reader of the message should do.

    Raises:
        DataError: There is at least one problem. The message shows the first five and the total.
    """
    if problems:
        shown = [BadRow(row, problem) for row, problem in problems.items()][:_ROWS_SHOWN]
        _refuse(path, shown, len(problems), row_count, advice)


def _location(path: str | Path, bad: BadRow) -> str:
    """`file:row`, or `folder/file:row` where the row names its file."""
    return f"{path}:{bad.row}" if isinstance(bad.row, int) else f"{path}/{bad.row}"


def _refuse(path: str | Path, shown: list[BadRow], bad_count: int, row_count: int, advice: str) -> NoReturn:
    lines = [f"{path}: {bad_count} of {row_count} rows cannot be used (rows count from 1):"]
    lines += [f"  {_location(path, bad)}: {bad.fault}" for bad in shown]
    if bad_count > len(shown):
        lines.append(f"  ... and {bad_count - len(shown)} more")
    raise DataError("\n".join([*lines, advice]))
