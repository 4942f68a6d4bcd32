r"""Read Parquet: a file, or a folder of them as the hub keeps data sets (`data/train-00000-of-00002.parquet`).

    {"image": {"bytes": b"\x89PNG...", "path": "0001.png"}, "question": "How many cats?", "answer": "Two."}

`datasets` turns the table into an Arrow table in its cache, once, from which rows and embedded pictures are read where
they lie (`vglm.data.readers.arrow`). Columns are as in any table (`vglm.data.readers.columns`), messages too; class
labels become their names. Of a folder with several splits each row carries its own.

Source: https://huggingface.co/docs/datasets/loading ("Parquet") and repository_structure.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.hub import DatasetsOptions, read_with_datasets
from vglm.data.sample import Sample

NAME = "parquet"
SHAPE = "a Parquet file, or a folder of them in the hub's layout"


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
    r"""Read Parquet row by row.

    Args:
        path: The file or folder.
        image_dir: Where pictures lie that rows only name; the file's own folder if None.
        name: What sample ids begin with: `<name>#<row>` counting from 1, or `<name>#<split>:<row>`.
        **options: See `DatasetsOptions`.

    Yields:
        One sample a row (or one for each picture, on request).

    Raises:
        ConfigError: An option has a value that it cannot have.
        DataError: The file cannot be read, or its columns cannot be told apart.
    """
    beside = path if path.is_dir() else path.parent
    arguments = {"path": str(path)} if path.is_dir() else {"path": "parquet", "data_files": str(path)}
    yield from read_with_datasets(path, arguments, beside=beside, image_dir=image_dir, name=name, **options)
