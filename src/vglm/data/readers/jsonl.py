"""Read JSON Lines, one object per line with a picture's name, a question and an answer, or a JSON list of them.

    {"image": "cats/1.jpg", "question": "How many cats are there?", "answer": "Two.", "patient_id": "p7"}

The roles of keys are given by options or inferred as for any table (`vglm.data.readers.columns`); `"history"` may hold
earlier `[question, answer]` pairs and `"english": true` the prompt's language. Keys with no part of their own go into
`Sample.meta`. A row without picture is text only.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers import fewshot, llava, messages, pope
from vglm.data.readers.columns import ColumnOptions, TableReader, looks_like_samples
from vglm.data.readers.json_files import iterate_rows, peek_json
from vglm.data.readers.rows import ImageFolders
from vglm.data.sample import Sample

NAME = "jsonl"
SCHEMA = '{"image", "question", "answer"}, one object a line, or a list of them'

_ROW = '{"image", "question", "answer"}'


def recognises(path: Path) -> bool:
    """Whether the file holds objects that look like samples and belong to no format with keys of its own."""
    return looks_like_samples(_names(path)) and not any(
        reader.recognises(path) for reader in (fewshot, llava, messages, pope)
    )


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[ColumnOptions]
) -> Iterator[Sample | BadRow]:
    """Read JSON Lines, see `vglm.data.readers.Reader`; options are those of `ColumnOptions`."""

    def cells(column: str) -> Iterator[Any]:
        return (row.get(column) for _, row in iterate_rows(path, _ROW) if isinstance(row, dict))

    folders = ImageFolders(path.parent, image_dir)
    table = TableReader.start(path, folders, name, sorted(_names(path)), cells, **options)
    for number, row in iterate_rows(path, _ROW):
        yield from table.read(number, row)


def _names(path: Path) -> set[str]:
    """The keys of the first rows."""
    peek = peek_json(path)
    return set(peek.keys) if peek.kind == "object" else {key for row in peek.objects for key in row}
