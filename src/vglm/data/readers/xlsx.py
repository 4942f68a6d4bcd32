r"""Read an Excel spreadsheet (`.xlsx`): a header row, and in every row a picture's file name, question and answer.

    | image      | question        | answer | patient_id |
    | cats/1.jpg | How many cats?  | 2      | p7         |

    -> {"image": "cats/1.jpg", "question": "How many cats?", "answer": 2, "patient_id": "p7"}

Columns are as in any table (`vglm.data.readers.columns`). Numbers are taken as they are stored, dates as 2024-05-01, a
formula as the value that Excel kept for it. Pictures that are pasted into the sheet belong to no cell and cannot be
read. In messages a row has Excel's own number.

Needs openpyxl: `pip install ".[spreadsheets]"`.
"""

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.arrow import to_text
from vglm.data.readers.columns import ColumnOptions, TableReader
from vglm.data.readers.rows import ImageFolders, fault, quote
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError, brief

NAME = "xlsx"
SCHEMA = "a spreadsheet of Excel with a row of names such as image, question, answer"

_MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES = 1 << 26, 50
_WORKBOOK, _MEDIA = "xl/workbook.xml", "xl/media/"


def recognises(path: Path) -> bool:
    """Whether it is a packed workbook of Excel."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _WORKBOOK in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    sheet: str | None = None,
    **options: Unpack[ColumnOptions],
) -> Iterator[Sample | BadRow]:
    """Read a sheet row by row.

    Args:
        path: The file.
        image_dir: Where the pictures lie; the file's own folder if None.
        name: What sample ids begin with, `<name>#<row>`; the names are row 1.
        sheet: The sheet's name; needed where several have something in them.
        **options: See `ColumnOptions`.

    Yields:
        One sample a row that is not empty.

    Raises:
        ConfigError: openpyxl is not installed, or an option has a value that it cannot have.
        DataError: The file or its columns cannot be read, or `sheet` has to be chosen.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            has_media = any(name.startswith(_MEDIA) for name in archive.namelist())
            length = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a spreadsheet, found: {brief(error)}. Save it as .xlsx.") from error
    if length > max(_MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES * path.stat().st_size):
        raise DataError(
            f"{path}: it unpacks to {length:,} bytes, more than any spreadsheet of its size. Save it as CSV."
        )
    rows = _rows(path, sheet)
    names = next(rows)[1]
    table = TableReader.start(path, ImageFolders(path.parent, image_dir), name, names, None, **options)
    image = table.columns.image if table.columns else None
    for number, row in rows:
        if isinstance(row, BadRow):
            yield row
        elif has_media and image is not None and row[image] is None:
            actual = "an empty cell, and pictures pasted into the file"
            yield BadRow(
                number, fault(f"a file name in {quote(image)}", actual, "save the pictures as files and name them")
            )
        else:
            yield from table.read(number, row)


def _rows(path: Path, sheet: str | None) -> Iterator[tuple[int, Any]]:
    """First 1 and the names, then the number of each row and its cells by column, or a `BadRow`."""
    try:
        import openpyxl
    except ImportError as error:
        raise ConfigError(
            f'{path}: spreadsheets need openpyxl: pip install ".[spreadsheets]". Or save the sheet as CSV UTF-8.'
        ) from error
    try:
        values = openpyxl.load_workbook(path, read_only=True, data_only=True)
        formulas = openpyxl.load_workbook(path, read_only=True)
        for worksheet in (*values.worksheets, *formulas.worksheets):
            worksheet.reset_dimensions()  # or a file could have any number of empty cells, by saying so
        chosen = _choose(path, values, sheet)
        names: list[str] = []
        pairs = zip(
            values[chosen].iter_rows(values_only=True), formulas[chosen].iter_rows(values_only=True), strict=True
        )
        for number, (cells, written) in enumerate(pairs, start=1):
            if not names:
                names = _names(path, chosen, cells)
                yield number, names
            elif any(cell is not None for cell in written):
                yield number, _row(number, names, cells, written)
        values.close()
        formulas.close()
    except (DataError, ConfigError):
        raise
    except Exception as error:  # of many kinds, from a damaged file
        raise DataError(f"{path}: expected a spreadsheet, found damage: {brief(error)}. Save it anew.") from error
    if not names:
        raise DataError(f"{path}: the sheet {quote(chosen)} is empty. Expected a row of names in it.")


def _choose(path: Path, workbook: Any, sheet: str | None) -> str:
    """The sheet that is named, or the only one with something in it."""
    titles = [worksheet.title for worksheet in workbook.worksheets]
    if sheet is not None:
        if sheet not in titles:
            raise DataError(
                f"{path}: there is no sheet {quote(sheet)}. Its sheets are {', '.join(map(quote, titles))}."
            )
        return sheet
    filled = [
        worksheet.title
        for worksheet in workbook.worksheets
        if any(any(row) for row in worksheet.iter_rows(values_only=True))
    ]
    if len(filled) > 1:
        raise DataError(f"{path}: {', '.join(map(quote, filled))} have data. Choose one in dataset.options.sheet.")
    return str([*filled, *titles][0])


def _names(path: Path, sheet: str, cells: tuple[Any, ...]) -> list[str]:
    names = ["" if cell is None else str(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if "" in names or len(set(names)) < len(names):
        wrong = "a column without a name" if "" in names else f"{max(names, key=names.count)!r} twice"
        raise DataError(
            f"{path}: expected a name for each column in row 1 of {quote(sheet)}, found {wrong}. Name them."
        )
    return names


def _row(number: int, names: list[str], cells: tuple[Any, ...], written: tuple[Any, ...]) -> dict[str, Any] | BadRow:
    """A row by column, or what is wrong with it."""
    if any(value is not None for value in written[len(names) :]):
        return BadRow(number, fault(f"{len(names)} cells as in row 1", "more", "name the column, or empty the cell"))
    for name, cell, formula in zip(names, cells, written, strict=False):
        if cell is None and formula is not None:
            return BadRow(
                number, fault(f"a value in {quote(name)}", "a formula alone", "open and save the file in Excel")
            )
    padded = [*map(_value, cells), *[None] * len(names)]
    return dict(zip(names, padded, strict=False))


def _value(cell: Any) -> Any:
    """A cell as JSON can hold it; Excel keeps a date as its midnight."""
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        cell = cell.date()
    return to_text(cell)
