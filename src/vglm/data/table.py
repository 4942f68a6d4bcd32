"""Samples in a memory-mapped Arrow file: any number of them takes next to no memory and opens at once.

    table = write_table(path, samples)      # streams; the file appears under its name when it is whole
    table[70_000]                           # Sample(id="openi-zh.json#70001", group="2882", image=Path("..."), ...)

One row of the file:

    id "openi-zh.json#1", group "2882", image "/data/openi/images/2882_1.png", offset null, size null, base64 null,
    questions ["描述这张X光片。"], answers ["心脏大小轻度增大。"], language "zh", meta '{"split": "train"}', window null

Pictures stay where they are and are opened by whoever needs them. A table pickles as its path, so that the workers of a
DataLoader map the same file instead of copying it.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.data.windowing import Window
from vglm.errors import CacheError, DataError
from vglm.files import whole_file
from vglm.text.prompt import Language

_BATCH_ROWS = 512
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("image", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("base64", pa.bool_()),
        ("questions", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
        ("language", pa.string()),
        ("meta", pa.string()),
        ("window", pa.string()),
    ],
    metadata={"vglm.table": f"3, batches of {_BATCH_ROWS}"},
)


class SampleTable(Sequence[Sample]):
    """The samples of an Arrow file, each made when it is asked for.

    Args:
        path: As written by `write_table`.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pa.memory_map(os.fspath(path)) as source:
                self._rows = pa.ipc.open_file(source).read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"table {path} cannot be read: {error}. Delete it; it is made again.") from error
        if self._rows.schema.metadata != _SCHEMA.metadata or self._rows.schema != _SCHEMA:
            raise DataError(f"table {path} has another layout than this version writes. Delete it; it is made again.")
        self._batches = self._rows.to_batches()

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection": ...
    def __getitem__(self, index: int | slice) -> "Sample | Selection":
        if isinstance(index, slice):
            return Selection(self, np.arange(len(self))[index])
        index = range(len(self))[index]
        batch = self._batches[index // _BATCH_ROWS].slice(index % _BATCH_ROWS, 1)
        return _sample(*(column[0].as_py() for column in batch.columns))

    def __iter__(self) -> Iterator[Sample]:
        for batch in self._batches:
            yield from map(_sample, *(column.to_pylist() for column in batch.columns))

    def at(self, indices: np.ndarray) -> Iterator[Sample]:
        """The samples of these rows, shape (n,), in this order; faster than one by one."""
        numbers = indices // _BATCH_ROWS
        for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(numbers)) + 1):  # of one batch each
            if len(run):
                rows = self._batches[numbers[run[0]]].take(pa.array(indices[run] % _BATCH_ROWS))
                yield from map(_sample, *(column.to_pylist() for column in rows.columns))

    def columns(self) -> Iterator[tuple[list[str], list[str], list[str | None], list[str], list[dict[str, Any]]]]:
        """Ids, groups, pictures' names, last answers and metadata, some hundred rows at a time, without the samples."""
        for batch in self._batches:
            ids, groups, images, offsets, sizes, answers, metas = (
                batch.column(name).to_pylist() for name in ("id", "group", "image", "offset", "size", "answers", "meta")
            )
            pictures = [
                image if offset is None else str(ImageSlice(Path(image), offset, size))
                for image, offset, size in zip(images, offsets, sizes, strict=True)
            ]
            yield ids, groups, pictures, [answer[-1] for answer in answers], [_parsed(meta) for meta in metas]

    def __reduce__(self) -> tuple[Callable[[Path], "SampleTable"], tuple[Path]]:
        return SampleTable, (self.path,)

    def missing_files(self) -> set[str]:
        """The files that hold pictures and are no longer there, by one listing of each folder that has some."""
        names = set(self._rows.column("image").unique().to_pylist()) - {None}
        folders: dict[str, set[str]] = {}
        for folder in {os.path.dirname(name) for name in names}:
            try:
                with os.scandir(folder) as entries:
                    folders[folder] = {entry.name for entry in entries}
            except OSError:
                folders[folder] = set()
        return {name for name in names if os.path.basename(name) not in folders[os.path.dirname(name)]}


class Selection(Sequence[Sample]):
    """Some samples of another sequence, in an order of their own, perhaps under other groups.

    Args:
        samples: The sequence.
        indices: Which of its samples, shape (n,), any integer type.
        groups: The group of each selected sample; as it was if None.
    """

    def __init__(
        self, samples: Sequence[Sample], indices: Sequence[int] | np.ndarray, groups: Sequence[str] | None = None
    ) -> None:
        self.samples = samples
        self.indices = np.asarray(indices, dtype=np.int64)
        # Arrow's text column takes a tenth of a list's memory, and is copied to workers in one piece
        self._groups = None if groups is None else pa.array(groups, pa.string())

    @property
    def groups(self) -> list[str] | None:
        """The selected samples' groups, where they are not as they were."""
        return None if self._groups is None else list(self._groups.to_pylist())

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection": ...
    def __getitem__(self, index: int | slice) -> "Sample | Selection":
        if isinstance(index, slice):
            groups = self.groups
            return Selection(self.samples, self.indices[index], None if groups is None else groups[index])
        index = range(len(self))[index]
        sample = self.samples[int(self.indices[index])]
        return sample if self._groups is None else replace(sample, group=self._groups[index].as_py())

    def __iter__(self) -> Iterator[Sample]:
        if isinstance(self.samples, SampleTable):
            samples = self.samples.at(self.indices)
        else:
            samples = (self.samples[int(index)] for index in self.indices)
        if self._groups is None:
            return samples
        return (replace(sample, group=group.as_py()) for sample, group in zip(samples, self._groups, strict=True))


def write_table(path: Path, samples: Iterable[Sample]) -> SampleTable:
    """Write samples to a file as they come, holding a few hundred in memory.

    Args:
        path: The file; appears when it is whole, in place of any file of that name.
        samples: Their pictures are files, pieces of files, or none.

    Returns:
        The table.

    Raises:
        DataError: A sample holds a picture in memory, or metadata that JSON cannot hold; or whatever `samples` raises.
            Nothing is left behind then.
        CacheError: The file cannot be written.
    """
    iterator = iter(samples)
    with (
        whole_file(path, error=CacheError) as partial,
        pa.OSFile(os.fspath(partial), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        while batch := [_row(sample) for sample in islice(iterator, _BATCH_ROWS)]:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, _SCHEMA))
    return SampleTable(path)


def _row(sample: Sample) -> dict[str, Any]:
    image = sample.image
    if image is not None and not isinstance(image, Path | ImageSlice):
        raise DataError(f"{sample.id}: a picture in memory cannot be put into a table. Save it as a file first.")
    piece = image if isinstance(image, ImageSlice) else None
    file = image.file if isinstance(image, ImageSlice) else image
    try:
        meta = json.dumps(dict(sample.meta), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{sample.id}: its metadata cannot be written as JSON: {error}. Take it out.") from error
    return {
        "id": sample.id,
        "group": sample.group,
        "image": None if file is None else os.path.abspath(file),
        "offset": None if piece is None else piece.offset,
        "size": None if piece is None else piece.size,
        "base64": None if piece is None else piece.is_base64,
        "questions": [turn.question for turn in sample.turns],
        "answers": [turn.answer for turn in sample.turns],
        "language": sample.language,
        "meta": meta,
        "window": None if sample.window is None else json.dumps(sample.window.record()),
    }


def _sample(
    id: str,
    group: str,
    image: str | None,
    offset: int | None,
    size: int | None,
    is_base64: bool | None,
    questions: list[str],
    answers: list[str],
    language: Language,
    meta: str,
    window: str | None,
) -> Sample:
    file = None if image is None else Path(image)
    picture = (
        file if file is None or offset is None or size is None else ImageSlice(file, offset, size, bool(is_base64))
    )
    turns = tuple(map(Turn, questions, answers))
    shown = None if window is None else Window.recorded(json.loads(window), id)
    return Sample(id, group, picture, turns, language, _parsed(meta), shown)


def _parsed(meta: str) -> dict[str, Any]:
    return {} if meta == "{}" else dict(json.loads(meta))
