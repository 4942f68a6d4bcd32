"""Read a folder of pictures with `metadata.jsonl` (or `metadata.csv`) in it, the hub's "imagefolder".

    pets/metadata.jsonl            {"file_name": "0001.png", "text": "Two cats on a sofa."}
    pets/0001.png

    or with splits:  pets/train/metadata.jsonl, pets/train/0001.png, pets/test/metadata.jsonl, ...

`file_name` starts from the metadata's own folder; `file_names` lists several. The other columns are as in any table
(`vglm.data.readers.columns`), messages too; a folder called train, validation (val, dev) or test gives its rows that
split.

Source: https://huggingface.co/docs/datasets/image_dataset ("ImageFolder").
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.columns import ColumnOptions, TableReader
from vglm.data.readers.csv_table import iterate_csv
from vglm.data.readers.json_files import iterate_rows, peek_json
from vglm.data.readers.rows import ImageFolders, split_name
from vglm.data.sample import Sample
from vglm.errors import DataError

NAME = "imagefolder"
SCHEMA = 'a folder of pictures with metadata.jsonl or metadata.csv: {"file_name", "text"}'

_FILES = ("metadata.jsonl", "metadata.csv")


def recognises(path: Path) -> bool:
    """Whether it is a folder with metadata in it, or in folders named after splits."""
    try:
        return bool(_metadata_files(path))
    except OSError:
        return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[ColumnOptions]
) -> Iterator[Sample | BadRow]:
    """Read a folder of pictures, see `vglm.data.readers.Reader`; options are those of `ColumnOptions`.

    Ids are `<name>#metadata.jsonl:<line>` and `<name>#train/metadata.jsonl:<line>`.
    """
    files = _metadata_files(path) if path.is_dir() else []
    if not files:
        raise DataError(f"{path}: expected a folder with {' or '.join(_FILES)}, found neither. Pass the folder.")
    for file in files:
        relative = file.relative_to(path).as_posix()
        rows, names = _open(file)
        chosen: Any = {"image_column": next((name for name in ("file_name", "file_names") if name in names), None)}
        if "image" in (options.get("columns") or {}):
            chosen = {}
        chosen |= options

        def cells(column: str, file: Path = file) -> Iterator[Any]:
            return (row.get(column) for _, row in _open(file)[0] if isinstance(row, dict))

        table = TableReader.start(file, ImageFolders(file.parent, image_dir), name, names, cells, **chosen)
        for number, row in rows:
            if isinstance(row, BadRow):
                yield BadRow(f"{relative}:{number}", row.fault)
                continue
            yield from table.read(
                f"{relative}:{number}", row, None if file.parent == path else split_name(file.parent.name)
            )


def _metadata_files(path: Path) -> list[Path]:
    """The metadata of the folder itself, or else of its splits."""
    if not path.is_dir():
        return []
    own = [path / name for name in _FILES if (path / name).is_file()]
    if own:
        return own
    folders = sorted(folder for folder in path.iterdir() if split_name(folder.name) and folder.is_dir())
    return [folder / name for folder in folders for name in _FILES if (folder / name).is_file()]


def _open(file: Path) -> tuple[Iterator[tuple[int, Any]], list[str]]:
    """The rows, and the names of their columns."""
    if file.suffix == ".csv":
        rows = iterate_csv(file)
        return rows, next(rows)[1]
    peek = peek_json(file)
    names = list(peek.keys) if peek.kind == "object" else sorted({key for row in peek.objects for key in row})
    return iterate_rows(file, '{"file_name", "text"}'), names
