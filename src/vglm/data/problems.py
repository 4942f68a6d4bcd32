"""How a reader says what is wrong with a file: every bad row is collected first, then told in one message.

data/pets/train.json: 2 of 20 rows cannot be used (rows count from 1):
  row 4: no 'label' (keys: 'img', 'prompt')
  row 9: image pictures/cat.png is missing
Correct these rows.
"""

from collections.abc import Mapping
from pathlib import Path

from vglm.errors import DataError

_ROWS_SHOWN = 5


def report_bad_rows(
    path: Path, problems: Mapping[int, str], row_count: int, advice: str = "Correct these rows."
) -> None:
    """Refuse a file that has bad rows.

    Args:
        path: The file.
        problems: What is wrong with each bad row, by row number; rows count from 1.
        row_count: How many rows the file has.
        advice: What the reader of the message should do.

    Raises:
        DataError: There is at least one problem. The message shows the first five and the total.
    """
    if not problems:
        return
    shown = sorted(problems.items())[:_ROWS_SHOWN]
    lines = [f"{path}: {len(problems)} of {row_count} rows cannot be used (rows count from 1):"]
    lines += [f"  row {row}: {problem}" for row, problem in shown]
    if len(problems) > len(shown):
        lines.append(f"  ... and {len(problems) - len(shown)} more")
    raise DataError("\n".join([*lines, advice]))
