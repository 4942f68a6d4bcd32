r"""Read Parquet: a file, or a folder of them as the hub keeps data sets (`data/train-00000-of-00002.parquet`).

    {"image": {"bytes": b"\x89PNG...", "path": "0001.png"}, "question": "How many cats?", "answer": "Two."}

`datasets` turns the table into an Arrow table in its cache, once; rows and embedded pictures are read from it without
copying (`vglm.data.readers.arrow`). Columns are as in any table (`vglm.data.readers.columns`), messages too; class
labels become their names. Of a folder with several splits each row carries its own.

Source: https://huggingface.co/docs/datasets/loading ("Parquet") and repository_structure.
"""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.hub import DatasetsOptions, read_with_datasets
from vglm.data.sample import Sample
from vglm.errors import DataError, brief
from vglm.files import check_regular

NAME = "parquet"
SCHEMA = "a Parquet file, or a folder of them in the hub's layout"

MOST_UNPACKED_BYTES = 1 << 30
"""What a file may unpack to if it is small; a large one, to twenty times its size."""

_MOST_UNPACKED_TIMES = 20
_ROWS_AT_ONCE = 1000


def recognises(path: Path) -> bool:
    """Whether the first bytes are Parquet's, or it is a folder with such files in it or one below."""
    try:
        if path.is_dir():
            return any(next(path.glob(pattern), None) is not None for pattern in ("*.parquet", "*/*.parquet"))
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[DatasetsOptions]
) -> Iterator[Sample | BadRow]:
    """Read Parquet, see `vglm.data.readers.Reader`; options are those of `DatasetsOptions`.

    Ids of a folder's samples are `<name>#<split>:<row>`.
    """
    for file in [path] if path.is_file() else sorted(path.rglob("*.parquet")):
        _check_unpacked(file)
    beside = path if path.is_dir() else path.parent
    arguments = {"path": str(path)} if path.is_dir() else {"path": "parquet", "data_files": str(path)}
    yield from read_with_datasets(path, arguments, beside=beside, image_dir=image_dir, name=name, **options)


def _check_unpacked(file: Path) -> None:
    """Refuse a file that unpacks to far more than it is; a value that is stored once may be meant for every row."""
    import pyarrow.parquet as parquet

    check_regular(file, advice="Expected a Parquet file.")
    most = max(MOST_UNPACKED_BYTES, _MOST_UNPACKED_TIMES * file.stat().st_size)
    try:
        with parquet.ParquetFile(file) as table:
            facts = table.metadata
        groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
        columns = [group.column(index) for group in groups for index in range(group.num_columns)]
        sizes = [
            column.total_uncompressed_size * (column.num_values if column.has_dictionary_page else 1)
            for column in columns
        ]
        is_too_large = sum(column.total_uncompressed_size for column in columns) > most
        if not is_too_large and sum(sizes) > most:  # not yet counted: how often each value is repeated
            repeated = sorted({column.path_in_schema for column in columns if column.has_dictionary_page})
            with parquet.ParquetFile(file, read_dictionary=repeated) as table:
                batches = table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=repeated)
                lengths = accumulate(sum(map(_unpacked_bytes, batch.columns)) for batch in batches)
                is_too_large = any(length > most for length in lengths)
    except Exception as error:  # of many kinds, as for datasets itself
        raise DataError(
            f"{file}: datasets cannot load it: {brief(error)}. Check the name, the connection and dataset.options."
        ) from error
    if is_too_large:
        raise DataError(f"{file}: it unpacks to more than {most:,} bytes, which no data set of its size does.")


def _unpacked_bytes(array: Any) -> int:
    """Bytes of an array's values if each were written out."""
    import pyarrow as pa
    import pyarrow.compute as compute

    if pa.types.is_dictionary(array.type):
        return compute.sum(compute.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    if pa.types.is_nested(array.type):
        parts = array.flatten() if pa.types.is_struct(array.type) else [array.flatten()]
        return sum(map(_unpacked_bytes, parts))
    return int(array.nbytes)
