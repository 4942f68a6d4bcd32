"""Samples in an Arrow file, read piece by piece: any number of them takes almost no memory and opens at once.

    table = write_table(path, samples)      # streams; the file appears under its name when it is whole
    table[70_000]                           # Sample(id="openi-zh.json#70001", group="2882", image=Path("..."), ...)

One row of the file:

    id "openi-zh.json#1", group "2882", image "/data/openi/images/2882_1.png", offset null, size null, base64 null,
    questions ["描述这张X光片。"], answers ["心脏大小轻度增大。"], language "zh", meta '{"split": "train"}', window null

Pictures stay in their files and are opened when needed. A table pickles as its path, so that the workers of a
DataLoader read the same file instead of copying it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from vglm.data.arrow_arrays import number_array, numbers_of, text_array
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.data.windowing import Window
from vglm.errors import CacheError, DataError
from vglm.files import whole_file
from vglm.text.prompt import Language

_BATCH_ROWS = 2048
_PICTURE = ("image", "offset", "size")
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
            # a scan of the file leaves no mapped pages in memory; the map gives single rows without those around them
            self._file, self._map = pa.OSFile(os.fspath(path)), pa.memory_map(os.fspath(path))
            self._reader = pa.ipc.open_file(self._map)
            schema, batches = self._reader.schema, self._reader.num_record_batches
            self._count = 0 if not batches else (batches - 1) * _BATCH_ROWS + len(self._reader.get_batch(batches - 1))
        except (OSError, pa.ArrowException) as error:
            raise self._damage(error) from error
        if schema.metadata != _SCHEMA.metadata or schema != _SCHEMA:
            raise DataError(f"table {path} has another layout than this version writes. Delete it; it is made again.")
        self._last: tuple[int, pa.RecordBatch] = -1, None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection": ...
    def __getitem__(self, index: int | slice) -> "Sample | Selection":
        if isinstance(index, slice):
            return Selection(self, np.arange(len(self))[index])
        index = range(len(self))[index]
        number, row = divmod(index, _BATCH_ROWS)
        last, batch = self._last
        if number != last:
            batch = self._batch(self._reader, number)
            self._last = number, batch
        return _sample(*(column[row].as_py() for column in batch.columns))

    def __iter__(self) -> Iterator[Sample]:
        return _samples(self.rows(_SCHEMA.names))

    def at(self, indices: np.ndarray) -> Iterator[Sample]:
        """The samples of these rows, shape (n,), in this order; faster than one by one."""
        return _samples(self.rows(_SCHEMA.names, indices))

    def rows(self, names: Sequence[str], indices: np.ndarray | None = None) -> Iterator[pa.RecordBatch]:
        """Some columns as Arrow's arrays, some thousand rows at a time.

        Args:
            names: Columns of the file.
            indices: Of these rows, shape (n,), in this order; all if None.

        Raises:
            DataError: The file is damaged.
        """
        options = pa.ipc.IpcReadOptions(included_fields=[_SCHEMA.get_field_index(name) for name in names])
        batches = self._reader.num_record_batches
        if indices is None:
            reader = pa.ipc.open_file(self._file, options=options)
            yield from (self._batch(reader, number) for number in range(batches))
            return
        numbers = indices // _BATCH_ROWS
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        if len(starts) > batches:  # shuffled
            yield from self._scattered(pa.ipc.open_file(self._map, options=options), indices)
            return
        reader = pa.ipc.open_file(self._file, options=options)
        for start, end in pairwise((*starts.tolist(), len(indices))):
            batch = self._batch(reader, int(numbers[start]))
            yield batch.take(number_array(indices[start:end] % _BATCH_ROWS))

    def _scattered(self, reader: pa.RecordBatchFileReader, indices: np.ndarray) -> Iterator[pa.RecordBatch]:
        """Rows from all over the file."""
        for start in range(0, len(indices), _BATCH_ROWS):
            numbers, rows = np.divmod(indices[start : start + _BATCH_ROWS], _BATCH_ROWS)
            batches = {number: self._batch(reader, number) for number in np.unique(numbers).tolist()}
            positions = zip(numbers.tolist(), rows.tolist(), strict=True)
            yield pa.concat_batches([batches[number].slice(row, 1) for number, row in positions])

    def _batch(self, reader: pa.RecordBatchFileReader, number: int) -> pa.RecordBatch:
        try:
            return reader.get_batch(number)
        except (OSError, pa.ArrowException) as error:
            raise self._damage(error) from error

    def _damage(self, error: Exception) -> DataError:
        return DataError(f"table {self.path} cannot be read: {error}. Delete it; it is made again.")

    def __reduce__(self) -> tuple[Callable[[Path], "SampleTable"], tuple[Path]]:
        return SampleTable, (self.path,)

    def missing_files(self) -> set[str]:
        """The files that hold pictures and are no longer there, by one listing of each folder that has some."""
        names = {name for rows in self.rows(["image"]) for name in rows.column(0).unique().to_pylist()} - {None}
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
        self._groups = None if groups is None else text_array(groups)

    @property
    def groups(self) -> list[str] | None:
        """The selected samples' groups, where they are not as they were."""
        return None if self._groups is None else list(self._groups.to_pylist())

    def rows(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of the selected rows of a table, as `SampleTable.rows`, under the groups they have here."""
        assert isinstance(self.samples, SampleTable)
        done = 0
        for rows in self.samples.rows(names, self.indices):
            if self._groups is not None and "group" in names:
                column = rows.schema.get_field_index("group")
                rows = rows.set_column(column, "group", self._groups.slice(done, len(rows)))
            done += len(rows)
            yield rows

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
            return _samples(self.rows(_SCHEMA.names))
        samples = (self.samples[int(index)] for index in self.indices)
        if self._groups is None:
            return samples
        return (replace(sample, group=group.as_py()) for sample, group in zip(samples, self._groups, strict=True))


def rows_of(samples: Iterable[Sample], names: Sequence[str]) -> Iterator[pa.RecordBatch] | None:
    """Some columns of samples that lie in a table, see `SampleTable.rows`; None of samples that do not."""
    if isinstance(samples, SampleTable):
        return samples.rows(names)
    if isinstance(samples, Selection) and isinstance(samples.samples, SampleTable):
        return samples.rows(names)
    return None


def columns_of(samples: Iterable[Sample], names: Sequence[str]) -> Iterator[list[list[Any]]] | None:
    """Some columns of samples that lie in a table, some thousand rows at a time; None of samples that do not."""
    rows = rows_of(samples, names)
    return None if rows is None else ([batch.column(name).to_pylist() for name in names] for batch in rows)


def encoded(column: pa.Array) -> tuple[list[Any], np.ndarray]:
    """The values of a column, each once and in the order in which they come, and of each row the number of its value.

    Returns:
        The values, and shape (n,), int32.
    """
    dictionary = column.dictionary_encode("encode")
    return dictionary.dictionary.to_pylist(), numbers_of(dictionary.indices)


def encoded_pictures(rows: pa.RecordBatch) -> tuple[list[str | None], np.ndarray]:
    """The same of the names of pictures, by the columns `image`, `offset` and `size`.

    Of pictures inside larger files each row has a value of its own, so that names may come several times.
    """
    offsets = rows.column("offset")
    if offsets.null_count == len(offsets):
        return encoded(rows.column("image"))
    pieces = zip(*(rows.column(name).to_pylist() for name in _PICTURE), strict=True)
    names = [image if offset is None else str(ImageSlice(Path(image), offset, size)) for image, offset, size in pieces]
    return names, np.arange(len(names), dtype=np.int32)


def last_of(texts: pa.ListArray) -> pa.StringArray:
    """The last text of each row of the column `questions` or `answers`."""
    offsets = numbers_of(texts.offsets)
    return texts.flatten().take(number_array(offsets[1:] - offsets[0] - 1))


def _samples(batches: Iterable[pa.RecordBatch]) -> Iterator[Sample]:
    for rows in batches:
        yield from map(_sample, *(column.to_pylist() for column in rows.columns))


@lru_cache(maxsize=4096)
def _digest(shown: Hashable) -> bytes:
    return hashlib.blake2b(repr(shown).encode("utf-8", "surrogateescape"), digest_size=16).digest()


def first_of_pictures(samples: Iterable[Sample]) -> Iterator[Sample]:
    """The samples with a picture, but of those about one picture in a file, seen through one window, only the first."""
    met: set[bytes] = set()

    def is_new(shown: Hashable) -> bool:
        key = _digest(shown)
        if key in met:
            return False
        met.add(key)
        return True

    stored = columns_of(samples, ("image", "offset", "size", "base64", "window"))
    if stored is None:
        for sample in samples:
            is_in_file = isinstance(sample.image, Path | ImageSlice)
            if sample.image is not None and (not is_in_file or is_new((sample.image, sample.window))):
                yield sample
        return
    assert isinstance(samples, SampleTable | Selection)
    row = 0
    for columns in stored:
        for shown in zip(*columns, strict=True):
            if shown[0] is not None and is_new(shown):
                yield samples[row]
            row += 1


def write_table(path: Path, samples: Iterable[Sample]) -> SampleTable:
    """Write samples to a file as they come, holding some thousand in memory.

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
    with (
        whole_file(path, error=CacheError) as partial,
        pa.OSFile(os.fspath(partial), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        rows = _Rows()
        for sample in samples:
            rows.append(sample)
            if len(rows) == _BATCH_ROWS:
                writer.write_batch(rows.batch())
                rows = _Rows()
        if len(rows):
            writer.write_batch(rows.batch())
    return SampleTable(path)


class _Rows:
    """Rows of a batch to be, as columns: the samples themselves take more memory and are not held."""

    def __init__(self) -> None:
        self._working_directory = os.getcwd()
        self._columns: tuple[list[Any], ...] = tuple([] for _ in _SCHEMA)
        self._ends = [0]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, sample: Sample) -> None:
        """Add a sample's row."""
        ids, groups, files, offsets, sizes, are_base64, questions, answers, languages, metas, windows = self._columns
        files.append(_file_of(sample, self._working_directory))
        piece = sample.image if isinstance(sample.image, ImageSlice) else None
        offsets.append(piece and piece.offset)
        sizes.append(piece and piece.size)
        are_base64.append(piece and piece.is_base64)
        metas.append(_written(sample) if sample.meta else "{}")
        windows.append(sample.window and json.dumps(sample.window.record()))
        ids.append(sample.id)
        groups.append(sample.group)
        languages.append(sample.language)
        for turn in sample.turns:
            questions.append(turn.question)
            answers.append(turn.answer)
        self._ends.append(len(answers))

    def batch(self) -> pa.RecordBatch:
        """The columns of the schema."""
        ends = number_array(np.array(self._ends, np.int32))
        columns = zip(self._columns, _SCHEMA, strict=True)
        return pa.record_batch([_array(values, field.type, ends) for values, field in columns], _SCHEMA)


def _array(values: list[Any], kind: pa.DataType, ends: pa.Int32Array) -> pa.Array:
    """A column of the schema; of texts in lists with the end of each list."""
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(ends, text_array(values))
    if pa.types.is_string(kind):
        return text_array(values)
    is_present = np.array([value is not None for value in values], np.bool_)
    return number_array(np.array([value or 0 for value in values], kind.to_pandas_dtype()), is_present)


def _file_of(sample: Sample, working_directory: str) -> str | None:
    """The whole path of the file that a sample's picture is or lies in."""
    image = sample.image
    if isinstance(image, Path):
        return _absolute(str(image), working_directory)
    if isinstance(image, ImageSlice):
        return _absolute(str(image.file), working_directory)
    if image is not None:
        raise DataError(f"{sample.id}: a picture in memory cannot be put into a table. Save it as a file first.")
    return None


def _written(sample: Sample) -> str:
    """A sample's metadata as JSON."""
    try:
        return json.dumps(dict(sample.meta), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{sample.id}: its metadata cannot be written as JSON: {error}. Take it out.") from error


@lru_cache(maxsize=4096)
def _absolute(file: str, working_directory: str) -> str:
    """A file's whole path; one that comes again and again is worked out once."""
    return os.path.normpath(os.path.join(working_directory, file))


@lru_cache(maxsize=4096)
def _path(name: str) -> Path:
    """A file's path; rows about one picture share it."""
    return Path(name)


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
    file = None if image is None else _path(image)
    picture = (
        file if file is None or offset is None or size is None else ImageSlice(file, offset, size, bool(is_base64))
    )
    turns = tuple(map(Turn, questions, answers))
    shown = None if window is None else Window.recorded(json.loads(window), id)
    return Sample(id, group, picture, turns, language, parsed(meta), shown)


def parsed(meta: str) -> dict[str, Any]:
    """The metadata of a sample, of the column `meta`."""
    return {} if meta == "{}" else dict(json.loads(meta))
