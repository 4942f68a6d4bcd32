"""JSON and JSON Lines for the readers: a whole file read once, or its beginning, to detect what it holds.

peek_json(Path("openi-zh.json"))
Peek(kind="object", keys=("annotations",), records=({"image_id": "2882_1", "caption": "..."},))
"""

import codecs
import contextlib
import json
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TextIO

from vglm.data.problems import BadRow
from vglm.data.readers.encodings import not_utf8, refuse_other_encodings
from vglm.data.readers.rows import fault, kind_of, quote
from vglm.errors import DataError
from vglm.files import check_regular, lines_of

_HEAD_BYTES = 1 << 16
_LONGEST_HEAD_BYTES = 1 << 24
_RECORDS = 20
_LARGEST_BYTES = 1 << 32
_CHUNK = 1 << 20
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Peek:
    """What the first bytes of a file show.

    Attributes:
        kind: A JSON list, one JSON object, JSON Lines (two values or more, one a line), or none of these.
        keys: Of an object: the keys seen so far.
        records: The first elements of the list, the first lines, or the first elements of the object's lists.
    """

    kind: Literal["list", "object", "lines", "other"]
    keys: tuple[str, ...] = ()
    records: tuple[Any, ...] = ()

    @property
    def objects(self) -> list[dict[str, Any]]:
        """Those records that are objects."""
        return [record for record in self.records if isinstance(record, dict)]


def peek_json(path: Path) -> Peek:
    """Look at a file's first 64 KB (more only if its first value is longer).

    Args:
        path: Any path.

    Returns:
        What is there; `kind="other"` for a folder, a file that cannot be read, and anything but JSON.
    """
    try:
        status = os.stat(path)
        return _peek(path, status.st_mtime_ns, status.st_size) if path.is_file() else Peek("other")
    except (OSError, ValueError):
        return Peek("other")


@lru_cache(maxsize=8)
def _peek(path: Path, modified_ns: int, size: int) -> Peek:
    """Every format peeks at the same file: the stamp lets them share one result."""
    length = _HEAD_BYTES
    while True:
        with path.open("rb") as file:
            head = file.read(length)
        peek = _Beginning(codecs.getincrementaldecoder("utf-8-sig")("replace").decode(head)).peek()
        if peek.records or peek.kind == "other" or length >= min(size, _LONGEST_HEAD_BYTES):
            return peek
        length *= 16


class _Beginning:
    """The first characters of a JSON file, parsed up to where they end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.decoder = json.JSONDecoder()

    def peek(self) -> Peek:
        match self._next_character():
            case "[":
                return Peek("list", records=tuple(self._elements()))
            case "{":
                return self._object_or_lines()
            case _:
                return Peek("other")

    def _object_or_lines(self) -> Peek:
        keys: list[str] = []
        records: list[Any] = []
        try:
            first = self._value()
        except ValueError:
            self.position += 1
            with contextlib.suppress(ValueError):
                self._keys(keys, records)
            return Peek("object", tuple(keys), tuple(records))
        if self._next_character() == "{":
            records = [first]
            with contextlib.suppress(ValueError):
                while len(records) < _RECORDS and self._next_character():
                    records.append(self._value())
            return Peek("lines", records=tuple(records))
        lists = [value[:_RECORDS] for value in first.values() if isinstance(value, list)]
        return Peek("object", tuple(first), tuple(record for value in lists for record in value) or (first,))

    def _keys(self, keys: list[str], records: list[Any]) -> None:
        """Of an object that goes on beyond the beginning: its keys so far, and the elements of its lists."""
        while self._next_character() == '"':
            key = self._value()
            if self._next_character() != ":":
                return
            self.position += 1
            keys.append(key)
            if self._next_character() == "[":
                start = self.position
                records += self._elements()
                self.position = start
            self._value()
            if self._next_character() == ",":
                self.position += 1

    def _elements(self) -> Iterator[Any]:
        self.position += 1
        for _ in range(_RECORDS):
            if self._next_character() in ("", "]"):
                return
            try:
                yield self._value()
            except ValueError:
                return
            if self._next_character() == ",":
                self.position += 1

    def _value(self) -> Any:
        try:
            value, self.position = self.decoder.raw_decode(self.text, self.position)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        return value

    def _next_character(self) -> str:
        """Move to the next character that is not white space; empty at the end."""
        while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
            self.position += 1
        return self.text[self.position : self.position + 1]


def load_json(path: Path) -> Any:
    """Read a JSON file whole.

    Args:
        path: The file; UTF-8, with or without byte order mark.

    Returns:
        Its value.

    Raises:
        DataError: It cannot be read, is not UTF-8 or not valid JSON; the message says at which line and column.
    """
    check_regular(path, advice="Expected a JSON file.", limit=_LARGEST_BYTES)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        refuse_other_encodings(path)
        position = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: not valid JSON at {position}: {error.msg}. Correct the file there.") from error
    except UnicodeDecodeError as error:
        raise not_utf8(path, error, f"byte {error.start} is ") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not usable JSON: {error}. Expected a list of objects.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Expected a JSON file.") from error


def load_list(path: Path, shape: str, key: str | None = None) -> list[Any]:
    """Read a JSON file that is one list, or one object with a list under a key.

    Args:
        path: The file.
        shape: What the list should hold, for the message.
        key: Of the list; None where the file is the list.

    Returns:
        The list, its elements unchecked.

    Raises:
        DataError: As `load_json`, or there is no such list, or it is empty.
    """
    content = load_json(path)
    rows = content if key is None else content.get(key) if isinstance(content, dict) else None
    if isinstance(rows, list) and rows:
        return rows
    if key is None and rows == []:
        raise DataError(f"{path}: the list is empty. Expected at least one row.")
    expected = "a list" if key is None else f"an object with a list {key!r}"
    keys = f"the keys {', '.join(map(quote, content))}" if key and isinstance(content, dict) else kind_of(content)
    raise DataError(
        f"{path}: expected {expected} of {shape}, found {'an empty one' if rows == [] else keys}. Correct the file."
    )


def iterate_list(path: Path, shape: str) -> Iterator[Any]:
    """Go through a JSON file that is one list, a few megabytes of it in memory at a time.

    Args:
        path: The file.
        shape: What the list should hold, for the message.

    Yields:
        Its elements, unchecked.

    Raises:
        DataError: As `load_list`; of a list that is damaged further on after the elements before.
    """
    check_regular(path, advice="Expected a JSON file.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            count = yield from _elements_of(file)
    except UnicodeDecodeError:
        count = None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Expected a JSON file.") from error
    if not count:  # empty, or no list: reading the whole file reports where it is damaged
        yield from load_list(path, shape)


def _elements_of(file: TextIO) -> Generator[Any, None, int | None]:
    """The elements of a list as its text comes in; returns how many there were, None if it is not a complete list."""
    decoder = json.JSONDecoder()
    text, count = file.read(_CHUNK), 0

    def skip(position: int) -> int:
        """The position of the next character that is not white space."""
        blanks = _BLANKS.match(text, position)
        return blanks.end() if blanks else position

    position = skip(0)
    if text[position : position + 1] != "[":
        return None
    position += 1
    while True:
        start, position = position, skip(position)
        if text[position : position + 1] == "]":
            break
        try:
            if count and text[position : position + 1] != ",":
                raise ValueError
            value, position = decoder.raw_decode(text, skip(position + 1) if count else position)
            following = skip(position)
            if text[following : following + 1] not in (",", "]"):  # a number may go on
                raise ValueError
        except (ValueError, RecursionError):
            more = file.read(max(_CHUNK, len(text) - start))
            if not more:
                return None
            text, position = text[start:] + more, 0
            continue
        count += 1
        yield value
    return count if skip(position + 1) == len(text) and not file.read().strip() else None


def iterate_rows(path: Path, shape: str) -> Iterator[tuple[int, Any]]:
    """Go through a JSON list, or through JSON Lines without ever holding the file.

    Args:
        path: The file.
        shape: What a row should be, for messages.

    Yields:
        Row number and row: for a list the element's number counting from 1, for JSON Lines the line's. A line that is
        not JSON comes as a `BadRow`; empty lines are passed over.

    Raises:
        DataError: The file cannot be read, is not UTF-8, or a list is not valid JSON.
    """
    refuse_other_encodings(path)
    if peek_json(path).kind == "list":
        yield from enumerate(iterate_list(path, shape), start=1)
        return
    check_regular(path, advice="Expected a JSON or JSON Lines file.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(lines_of(file, path), start=1):
                if not line.isspace():
                    yield number, _parse_line(number, line, shape)
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Expected a JSON or JSON Lines file.") from error


def _parse_line(number: int, line: str, shape: str) -> Any:
    try:
        value, end = _DECODER.raw_decode(line)
        if end + 1 >= len(line) and line[end:] in ("\n", ""):  # nearly all: quicker
            return value
    except (ValueError, RecursionError):
        pass  # json.loads says what is wrong, or reads what stands after blanks
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        actual = f"text that is not valid JSON at column {error.colno} ({error.msg})"
    except (ValueError, RecursionError) as error:
        actual = f"JSON that cannot be used ({error})"
    return BadRow(number, fault(f"{shape} on one line", actual, "correct the line"))
