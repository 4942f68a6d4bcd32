"""Read CSV and TSV: a header, and in every row a picture's file name, a question and an answer.

    image,question,answer,patient_id,split
    cats/1.jpg,How many cats are there?,Two.,p7,train

Commas, tabs and semicolons may separate the cells, and Excel's `sep=;` may stand above the header; its empty rows and
columns at the end are passed over, and `="007"` is the text 007. Column roles are given by options or inferred
from the header (`vglm.data.readers.columns`); columns with no part of their own go into `Sample.meta`. A row whose
picture's cell is empty is text only. In messages a row is the line where it begins, the header being line 1.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers import mmbench
from vglm.data.readers.columns import ColumnOptions, TableReader, looks_like_samples
from vglm.data.readers.encodings import not_utf8, refuse_other_encodings
from vglm.data.readers.rows import ImageFolders, fault
from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.files import check_regular, lines_of

NAME = "csv"
SCHEMA = "a header with image, question, answer and a row for each sample, CSV or TSV"

_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)
_LONGEST_CELL = 1 << 20
_LONGEST_HEADER = 1 << 16


def recognises(path: Path) -> bool:
    """Whether the first line is a header with an answer, and a question or a picture, and is not MMBench's."""
    names = read_names(path)
    return len(names) > 1 and looks_like_samples(names) and not mmbench.recognises(path)


def read_names(path: Path) -> list[str]:
    """The cells of a text file's first line; none if the file cannot be one with a header."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = _read_header(file)
    except OSError:
        return []
    return _split_header(line) if line.lstrip()[:1] not in ("{", "[") and "\0" not in line else []


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[ColumnOptions]
) -> Iterator[Sample | BadRow]:
    """Read a table row by row.

    Args:
        path: The file.
        image_dir: Where the pictures lie; the file's own folder if None.
        name: What sample ids begin with, `<name>#<line>`; the header is line 1.
        **options: See `ColumnOptions`.

    Yields:
        One sample a row. A row is bad if it has more or fewer cells than the header, or as for any table.

    Raises:
        ConfigError: An option has a value that it cannot have.
        DataError: The file cannot be read, is not UTF-8, has a quotation mark that is not closed, or columns that
            cannot be told apart; or `image_dir` is not a folder.
    """

    def cells(column: str) -> Iterator[Any]:
        return (row.get(column) for _, row in iterate_csv(path) if isinstance(row, dict))

    rows = iterate_csv(path)
    table = TableReader.start(path, ImageFolders(path.parent, image_dir), name, next(rows)[1], cells, **options)
    for number, row in rows:
        yield from table.read(number, row)


def iterate_csv(path: Path) -> Iterator[tuple[int, Any]]:
    """Go through a CSV or TSV file without ever holding it.

    Args:
        path: The file.

    Yields:
        First the header's line and the list of column names, then the line of each row and its cells by column, or a
        `BadRow`.

    Raises:
        DataError: As `read`.
    """
    check_regular(path, advice="Expected a CSV file.")
    refuse_other_encodings(path)
    csv.field_size_limit(_LONGEST_CELL)
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = _read_header(file)
            first = 2 if _SEPARATOR.match(header) else 1
            names = _split_header(header)
            if not any(names):
                raise DataError(f"{path}: expected a header in line 1, found an empty line. Write the columns' names.")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"{path}: the header has {', '.join(map(repr, twice))} more than once. Rename one.")
            yield first, names
            rows = csv.reader(lines_of(file, path), delimiter=_delimiter(header), strict=True)
            while True:
                number = rows.line_num + first + 1
                cells = next(rows, None)
                if cells is None:
                    return
                if len(cells) > len(names) and not any(cells[len(names) :]):
                    del cells[len(names) :]
                if len(cells) == len(names):
                    if any(cells):
                        yield number, dict(zip(names, map(_unquote, cells), strict=True))
                elif any(cells):
                    fix = "quote cells that contain the separator, or fill the row up"
                    yield number, BadRow(number, fault(f"{len(names)} cells as in the header", f"{len(cells)}", fix))
    except csv.Error as error:
        if "field larger" in str(error):
            raise DataError(
                f"{path}:{number}: expected cells of at most {_LONGEST_CELL:,} characters, found a longer one, as of a"
                " picture in base64 or after a quotation mark that is not closed. Save images as files and name them."
            ) from error
        raise DataError(
            f"{path}:{number}: expected a row of cells, found {error}; fix: close quotation marks and double those "
            "inside a cell."
        ) from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Expected a CSV file.") from error


def _read_header(file: TextIO) -> str:
    """The line with the names; above it may stand Excel's `sep=;`."""
    line = file.readline(_LONGEST_HEADER)
    return line + file.readline(_LONGEST_HEADER) if _SEPARATOR.match(line) else line


def _delimiter(header: str) -> str:
    declared = _SEPARATOR.match(header)
    return declared[1] if declared else max(",\t;", key=header.count)


def _split_header(header: str) -> list[str]:
    try:
        line = _SEPARATOR.sub("", header).rstrip("\r\n")
        rows = list(csv.reader([line], delimiter=_delimiter(header)))
    except csv.Error:
        return []
    names = [_unquote(name).strip() for name in rows[0]] if rows else []
    while names and not names[-1]:
        names.pop()
    return names


def _unquote(cell: str) -> str:
    """A cell as Excel shows it: it writes `="007"` to keep a text from becoming a number."""
    return cell[2:-1].replace('""', '"') if cell.startswith('="') and cell.endswith('"') and len(cell) > 2 else cell
