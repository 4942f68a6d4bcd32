r"""Read Arrow tables without copying them: an Arrow file, or a folder that `datasets` saved (`save_to_disk`).

    pets/state.json, pets/data-00000-of-00001.arrow          one data set
    pets/dataset_dict.json, pets/train/..., pets/test/...    one for each split

    {"image": {"bytes": b"\x89PNG...", "path": "0001.png"}, "question": "How many cats?", "answer": "Two."}

The table is memory-mapped, so its size does not matter. An embedded picture is neither copied nor decoded but read from
the file when it is needed (`ImageSlice`), which a compressed table does not allow. Column roles are given by
options or inferred as for any table (`vglm.data.readers.columns`), messages too; class labels become their names.

Source: https://arrow.apache.org/docs/format/Columnar.html and huggingface/datasets:src/datasets/arrow_writer.py.
"""

import datetime
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.columns import ColumnOptions, TableReader
from vglm.data.readers.rows import ImageFolders, quote, split_name
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import DataError, brief
from vglm.files import check_regular, read_json

NAME = "arrow"
SCHEMA = "an Arrow file, or a folder made by datasets' save_to_disk"

_FILE_MAGIC = b"ARROW1"
_STREAM_MAGIC = b"\xff\xff\xff\xff"
_ROWS_AT_ONCE = 1000
_MOST_ROWS_PER_BYTE = 8


def recognises(path: Path) -> bool:
    """Whether the first bytes are Arrow's, or it is a folder with the files that `datasets` writes."""
    try:
        if path.is_dir():
            return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
        with path.open("rb") as file:
            return file.read(6).startswith((_FILE_MAGIC, _STREAM_MAGIC))
    except OSError:
        return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[ColumnOptions]
) -> Iterator[Sample | BadRow]:
    """Read Arrow tables, see `vglm.data.readers.Reader`; options are those of `ColumnOptions`.

    Ids of a folder's samples are `<name>#<split>:<row>`.

    Raises:
        ConfigError: An option has a value that it cannot have.
        DataError: A file is missing or no Arrow table, its columns are ambiguous, or it has embedded pictures
            and is compressed.
    """
    splits = _saved_files(path) if path.is_dir() else {"": [path]}
    folders = ImageFolders(path if path.is_dir() else path.parent, image_dir)
    yield from read_tables(path, splits, folders, name, **options)


def read_tables(
    path: str | Path,
    splits: Mapping[str, Sequence[Path]],
    folders: ImageFolders,
    name: str,
    limit: int | None = None,
    **options: Unpack[ColumnOptions],
) -> Iterator[Sample | BadRow]:
    """Read the Arrow files of a data set's splits.

    Args:
        path: The data set, for messages.
        splits: Each split's files; a single split is called by no name and given to no row.
        folders: Where pictures are looked up that rows only name.
        name: What sample ids begin with.
        limit: How many rows to read of each split; all if None.
        **options: See `ColumnOptions`.

    Yields:
        As `read`.

    Raises:
        ConfigError: As `read`.
        DataError: As `read`.
    """
    for split, files in splits.items():

        def rows(files: Sequence[Path] = files) -> Iterator[dict[str, Any]]:
            return (row for file in files for row in _rows(file))

        def cells(column: str, rows: Callable[[], Iterator[dict[str, Any]]] = rows) -> Iterator[Any]:
            return (row.get(column) for row in rows())

        label = split if len(splits) > 1 else None
        yield from read_split(path, label, rows(), folders, name, limit, cells, **options)


def read_split(
    path: str | Path,
    split: str | None,
    rows: Iterable[dict[str, Any]],
    folders: ImageFolders,
    name: str,
    limit: int | None,
    cells: Callable[[str], Iterable[Any]] | None = None,
    **options: Unpack[ColumnOptions],
) -> Iterator[Sample | BadRow]:
    """Read the rows of one split.

    Args:
        path: The data set, for messages.
        split: Its name, such as `train` or `train_sft`; None where it is the only one.
        rows: Values by column.
        folders: Where pictures are looked up that rows only name.
        name: What sample ids begin with.
        limit: How many rows to read; all if None.
        cells: Goes through a column from the first row on, if it can be read twice.
        **options: See `ColumnOptions`.

    Yields:
        As `read`.

    Raises:
        ConfigError: As `read`.
        DataError: As `read`.
    """
    table: TableReader | None = None
    for number, row in enumerate(itertools.islice(rows, limit), start=1):
        if table is None:
            table = TableReader.start(path, folders, name, row, cells, **options)
        row_name = number if split is None else f"{split}:{number}"
        yield from table.read(row_name, row, None if split is None else split_name(split.split("_")[0]))


def to_text(value: Any) -> Any:
    """A table's value as JSON can hold it; dates and the like as text, not-a-number as null, bytes as their number."""
    if isinstance(value, dict):
        return {str(key): to_text(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [to_text(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | float | bool | ImageSlice | Path) else str(value)


def _saved_files(path: Path) -> dict[str, list[Path]]:
    """The Arrow files that a saved data set lists, by split."""
    try:
        if (path / "dataset_dict.json").is_file():
            return {
                split: _listed_files(path / _plain(split)) for split in read_json(path / "dataset_dict.json")["splits"]
            }
        return {"": _listed_files(path)}
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no folder that datasets' save_to_disk wrote whole: {error!r}. Save it anew."
        ) from error


def _listed_files(folder: Path) -> list[Path]:
    return [folder / _plain(file["filename"]) for file in read_json(folder / "state.json")["_data_files"]]


def _plain(name: str) -> str:
    """A name from a file that becomes part of a path."""
    if Path(name).name != name or name in ("", "..") or "\0" in name:
        raise DataError(f"a saved data set names its files; {quote(name)} leaves its folder. Save it anew.")
    return name


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """A table's rows; a few at a time leave the memory map."""
    import pyarrow as pa

    check_regular(file, advice="Expected an Arrow table.")
    try:
        with pa.memory_map(str(file)) as source:
            whole = source.read_buffer()
            start = whole[:6].to_pybytes()
            reader = pa.ipc.open_file(whole) if start == _FILE_MAGIC else pa.ipc.open_stream(whole)
            labels = _class_labels(reader.schema)
            batches = (
                (reader.get_batch(index) for index in range(reader.num_record_batches))
                if start == _FILE_MAGIC
                else reader
            )
            for batch in batches:
                batch.validate(full=True)  # an offset outside the data would crash the process
                if batch.num_rows > _MOST_ROWS_PER_BYTE * batch.nbytes:
                    raise pa.ArrowInvalid(f"{batch.num_rows:,} rows in {batch.nbytes:,} bytes")
                for first in range(0, batch.num_rows, _ROWS_AT_ONCE):
                    part = batch.slice(first, _ROWS_AT_ONCE)
                    columns = {
                        name: _values(part.column(index), file, whole, labels.get(name))
                        for index, name in enumerate(part.schema.names)
                    }
                    for index in range(part.num_rows):
                        yield {name: values[index] for name, values in columns.items()}
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many kinds for damaged tables
        raise DataError(
            f"{file}: expected an Arrow table, found {brief(error)}. Replace or convert the file."
        ) from error


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """The names of class labels, which `datasets` keeps in the table's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _values(column: Any, file: Path, whole: Any, labels: list[str] | None) -> list[Any]:
    """A column's values, pictures as slices of the file."""
    import pyarrow.types as types

    kind = column.type
    if types.is_binary(kind) or types.is_large_binary(kind):
        return _slices(column, file, whole)
    if types.is_struct(kind) and {"bytes", "path"} == {field.name for field in kind}:
        parts = dict(zip((field.name for field in kind), column.flatten(), strict=True))
        stored, paths = _values(parts["bytes"], file, whole, None), parts["path"].to_pylist()
        return [path if slice is None else slice for slice, path in zip(stored, paths, strict=True)]
    if (types.is_list(kind) or types.is_large_list(kind)) and _has_pictures(kind.value_type):
        ends = column.offsets.to_pylist()
        inner = _values(column.values.slice(ends[0], ends[-1] - ends[0]), file, whole, None)
        ends = [end - ends[0] for end in ends]
        spans = zip(ends[:-1], ends[1:], column.is_valid().to_pylist(), strict=True)
        return [inner[first:last] if valid else None for first, last, valid in spans]
    values = [to_text(value) for value in column.to_pylist()]
    if labels is not None:
        return [labels[value] if isinstance(value, int) and 0 <= value < len(labels) else value for value in values]
    return values


def _has_pictures(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or (types.is_struct(kind) and {"bytes", "path"} == {field.name for field in kind})
    )


def _slices(column: Any, file: Path, whole: Any) -> list[ImageSlice | None]:
    """Where in the file each value of a binary column lies."""
    import numpy as np
    import pyarrow as pa

    _, offsets, data = column.buffers()
    if data is None or len(column) == column.null_count:
        return [None] * len(column)
    start = data.address - whole.address
    if not 0 <= start <= whole.size:
        raise DataError(
            f"{file}: the table is compressed, so its pictures cannot be read in place. Save it uncompressed."
        )
    width = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    ends = np.frombuffer(offsets, dtype=width)[column.offset : column.offset + len(column) + 1]
    return [
        ImageSlice(file, start + first, last - first) if valid else None
        for first, last, valid in zip(ends[:-1].tolist(), ends[1:].tolist(), column.is_valid().to_pylist(), strict=True)
    ]
