r"""Read MMBench's TSV: multiple-choice questions, the picture in a cell of its own, written in base64.

    index<TAB>question<TAB>hint<TAB>A<TAB>B<TAB>C<TAB>D<TAB>answer<TAB>category<TAB>image<TAB>...<TAB>l2-category
    241<TAB>Which of these is it?<TAB><TAB>a cat<TAB>a dog<TAB><TAB><TAB>B<TAB>object_localization<TAB>/9j/4AAQ...
    1000241<TAB>Which of these is it?<TAB><TAB>a dog<TAB>a cat<TAB><TAB><TAB>A<TAB>object_localization<TAB>241

    -> question "Which of these is it?", answer "B", meta {"options": "A. a cat\nB. a dog", "choices": ["A", "B"],
       "hint": "", "question_index": 241, "category": "object_localization", ...}

Rows whose `index` is the same modulo 1,000,000 are one question with its options rotated, as circular evaluation asks
it; where a row's picture cell holds an index, the picture is that row's. `meta["options"]` is for a task's prompt,
`meta["question_index"]` says which rows are rotations of one another. Pictures stay in the file and are decoded when
they are looked at. Other benchmarks in this layout (CCBench, AI2D, SEED-Bench, ... of VLMEvalKit) are read alike.

Source: open-compass/MMBench:README.md ("Load MMBench") and open-compass/VLMEvalKit:vlmeval/dataset/image_base.py,
vlmeval/dataset/utils/multiple_choice.py (`g_index`).
"""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.rows import RowCheck, fault, language_of, list_options, quote
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.errors import DataError
from vglm.files import check_regular, lines_of
from vglm.text.prompt import Language

NAME = "mmbench"
KEPT = ("options", "choices", "hint")
SCHEMA = "a TSV with index, question, the options A, B, ..., answer and image (base64), MMBench"

ROTATION = 1_000_000
"""What the index of a rotation is higher by, once or several times."""

_NEEDED = ("index", "question", "A", "B", "image")
_LONGEST_CELL = 1 << 27
_LONGEST_HEADER = 1 << 16
_LONGEST_REFERENCE = 64
"""A picture's cell with at most this many characters names another row."""
_META = {"category": "category", "l2-category": "l2_category", "source": "source", "comment": "comment"}


def recognises(path: Path) -> bool:
    """Whether the first line is a header with index, question, options and a picture."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            line = file.readline(_LONGEST_HEADER)
    except OSError:
        return False
    return set(_NEEDED) <= {name.strip() for name in line.rstrip("\r\n").split("\t")}


def read(
    path: Path, *, image_dir: Path | None = None, name: str, language: Language | None = None
) -> Iterator[Sample | BadRow]:
    """Read an MMBench file row by row.

    Args:
        path: The TSV file.
        image_dir: Of no use: the pictures are in the file.
        name: What sample ids begin with, `<name>#<line>`; the header is line 1, and a row is the line where it begins.
        language: Of the prompts; by each question if None.

    Yields:
        One sample a row; rows that name the picture of a later row come at the end. A row is bad if it has more or
        fewer cells than the header, less than two options, an answer that is not one of them, or no picture.

    Raises:
        DataError: The file cannot be read, is not UTF-8, has a quotation mark that is not closed, lacks a column, or
            has no answers at all, like the test files.
    """
    rows = _Rows(path)
    missing = [column for column in _NEEDED if column not in rows.names]
    if missing:
        actual = ", ".join(map(quote, rows.names))
        raise DataError(f"{path}: expected the columns {', '.join(_NEEDED)}, found {actual}. Pass MMBench's TSV.")
    if "answer" not in rows.names:
        raise DataError(
            f"{path}: there is no column 'answer'. MMBench publishes its test files without answers: pass a dev file."
        )
    pictures: dict[str, ImageSlice] = {}
    waiting: list[tuple[int, Sample, str]] = []
    for number, cells, picture in rows:
        if isinstance(cells, BadRow):
            yield cells
            continue
        check = RowCheck(number)
        sample = _sample(check, cells, f"{name}#{number}", language)
        index = cells["index"].strip()
        if picture is not None:
            pictures[index] = picture
            yield check.outcome(replace(sample, image=picture))
        elif not (reference := cells["image"].strip()):
            check.fail("'image' to be a picture in base64", "an empty cell", "add it")
            yield check.outcome(sample)
        elif (bad := check.bad_row()) is not None:
            yield bad
        elif reference in pictures:
            yield replace(sample, image=pictures[reference])
        else:
            waiting.append((number, sample, reference))
    for number, sample, reference in waiting:
        if reference in pictures:
            yield replace(sample, image=pictures[reference])
        else:
            expected = "'image' to be a picture in base64, or the index of a row that has one"
            yield BadRow(number, fault(expected, quote(reference), "correct the cell"))


def _sample(check: RowCheck, cells: dict[str, str], id: str, language: Language | None) -> Sample:
    """A row without its picture."""
    question = check.text(cells, "question")
    texts = {letter: " ".join(cells.get(letter, "").split()) for letter in ascii_uppercase if letter in cells}
    options = {letter: text for letter, text in texts.items() if text}
    if len(options) < 2:
        check.fail("two options or more", f"{len(options)}", "fill in the cells A, B, ...")
    elif "".join(options) != ascii_uppercase[: len(options)]:
        check.fail("options without a gap", ", ".join(options), "fill in the empty cell or move the options up")
    answer = cells["answer"].strip()
    if answer not in options:
        letters = ", ".join(options) or "no options"
        check.fail(f"'answer' to be one of {letters}", quote(answer), "write the letter of the right option")
    index, number = cells["index"].strip(), -1
    if index.isascii() and index.isdigit():
        number = int(index)
    else:
        check.fail("'index' to be a whole number", quote(index), "write the question's number")
    base = str(number % ROTATION)
    hint = cells.get("hint", "").strip()
    meta: dict[str, Any] = {"options": list_options(list(options.values())), "choices": list(options)}
    meta |= {"hint": hint, "question_index": int(base), "rotation": number // ROTATION}
    meta |= {ours: cells[theirs].strip() for theirs, ours in _META.items() if cells.get(theirs, "").strip()}
    prompt_language = language or language_of(question, *options.values())
    return Sample(id, base, None, (Turn(question, answer),), prompt_language, check.meta(meta))


class _Rows:
    """The rows of a TSV file, with where each picture is in it; only one row at a time is in memory.

    Args:
        path: The file.

    Attributes:
        names: Of the columns.

    Raises:
        DataError: As `read`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0
        self._lines: list[bytes] = []
        self._records = self._parse()
        self.names = [cell.strip() for cell in next(self._records, (1, []))[1]]
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise DataError(f"{path}: the header has {', '.join(map(repr, twice))} more than once. Rename one.")

    def __iter__(self) -> Iterator[tuple[int, Any, ImageSlice | None]]:
        """Line, cells by column (or a `BadRow`), and where the picture lies, if the cell holds one."""
        width = len(self.names)
        for number, cells in self._records:
            if len(cells) != width:
                fix = "separate the cells by tabs, and quote those that contain a tab or a line break"
                problem = fault(f"{width} cells as in the header", f"{len(cells)}", fix)
                yield number, BadRow(number, problem), None
                continue
            row = dict(zip(self.names, cells, strict=True))
            yield number, row, self._picture_slice(row["image"])

    def _picture_slice(self, cell: str) -> ImageSlice | None:
        """Where in the file a picture's cell is; None for one that names another row."""
        if len(cell) <= _LONGEST_REFERENCE:
            return None
        content = cell.strip().encode()
        return ImageSlice(self.path, self._start + b"".join(self._lines).find(content), len(content), is_base64=True)

    def _parse(self) -> Iterator[tuple[int, list[str]]]:
        """The line where each record begins, and its cells."""
        check_regular(self.path, advice="Expected a TSV file.")
        csv.field_size_limit(_LONGEST_CELL)
        line = 1
        try:
            with self.path.open("rb") as file:
                records = csv.reader(self._feed(file), delimiter="\t", strict=True)
                while True:
                    self._start += sum(map(len, self._lines))
                    self._lines.clear()
                    line = records.line_num + 1
                    cells = next(records, None)
                    if cells is None:
                        return
                    if cells:
                        yield line, cells
        except csv.Error as error:
            raise DataError(
                f"{self.path}:{line}: expected a row of cells, found {error}; fix: close quotation marks and double "
                "those inside a cell."
            ) from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}:{line}: not UTF-8: {error.reason}. Save the file as UTF-8.") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}. Expected a TSV file.") from error

    def _feed(self, file: Any) -> Iterator[str]:
        """The file's lines as text; their bytes are remembered for as long as a record goes on."""
        for number, line in enumerate(lines_of(file, self.path, longest=2 * _LONGEST_CELL)):
            self._lines.append(line)
            yield line.decode("utf-8-sig" if number == 0 else "utf-8")
