r"""Read a data set of the Hugging Face hub, `hf://owner/name`, whole or as a stream.

    dataset.path=hf://owner/pets                                downloaded once, then memory-mapped
    ... dataset.options.streaming=true dataset.options.limit=1000    only the first rows are fetched

    {"image": {"bytes": b"\x89PNG...", "path": "0001.png"}, "question": "How many cats?", "answer": "Two."}

Columns are as in any table (`vglm.data.readers.columns`), messages too; class labels become their names. Of a data set
with several splits each row carries its own. Downloaded pictures stay in the table in `datasets`' cache; a stream's are
written to files, each once, as there is no table to read them from again.

Source: https://huggingface.co/docs/datasets/loading and stream.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.arrow import read_split, read_tables, to_text
from vglm.data.readers.columns import ColumnOptions
from vglm.data.readers.rows import ImageFolders
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError, brief
from vglm.files import write_bytes

NAME = "hub"
SCHEMA = "hf://owner/name, a data set of the Hugging Face hub, streaming too"

_HUB_ADDRESSES = ("hf://", "https://huggingface.co/")
"""Where a stream's pictures are fetched from; any other address in a table is a name."""


class DatasetsOptions(ColumnOptions, total=False):
    """Options of the formats that `datasets` reads, beside those of tables.

    Attributes:
        streaming: Read row by row from where the data lies, without making a table of it.
        limit: How many rows to read of each split; all if None.
        split: The only split to read; all if None.
        cache_dir: Where tables and a stream's pictures are kept; `datasets`' own cache if None.
    """

    streaming: bool
    limit: int | None
    split: str | None
    cache_dir: str | None


def recognises(path: Path) -> bool:
    """Nothing that lies on a disk: a name of the hub begins with `hf://`."""
    return False


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    subset: str | None = None,
    revision: str | None = None,
    **options: Unpack[DatasetsOptions],
) -> Iterator[Sample | BadRow]:
    """Read a data set of the hub row by row.

    Args:
        path: `hf://owner/name`.
        image_dir: Where pictures lie that rows only name; `datasets`' cache, where it downloads them, if None.
        name: What sample ids begin with: `<name>#<row>` counting from 1, or `<name>#<split>:<row>`.
        subset: The data set's subset (its "config"), if it has several.
        revision: The branch, tag or commit; the newest if None.
        **options: See `DatasetsOptions`.

    Yields:
        One sample a row (or one for each picture, on request).

    Raises:
        ConfigError: An option has a value that it cannot have.
        DataError: The data set cannot be had, or its columns are ambiguous.
    """
    from datasets import config

    repository = str(path).partition(":")[2].strip("/").removeprefix("datasets/")
    if repository.count("/") != 1:
        raise DataError(f"{path}: expected hf://owner/name, found {repository!r} after hf://. Correct the name.")
    arguments = {"path": repository, "name": subset, "revision": revision}
    beside = Path(config.HF_CACHE_HOME)
    yield from read_with_datasets(
        f"hf://{repository}", arguments, beside=beside, image_dir=image_dir, name=name, **options
    )


def read_with_datasets(
    path: str | Path,
    arguments: Mapping[str, Any],
    *,
    beside: Path,
    image_dir: Path | None,
    name: str,
    streaming: bool = False,
    limit: int | None = None,
    split: str | None = None,
    cache_dir: str | None = None,
    **options: Unpack[ColumnOptions],
) -> Iterator[Sample | BadRow]:
    """Read whatever `datasets.load_dataset` loads.

    Args:
        path: The data set, for messages.
        arguments: Further arguments of `load_dataset`.
        beside: The folder in which pictures that rows only name may lie, and `image_dir` with it.
        image_dir: Where they are looked up, if not there.
        name: What sample ids begin with.
        streaming: As in `DatasetsOptions`, and so are `limit`, `split` and `cache_dir`.
        limit: See there.
        split: See there.
        cache_dir: See there.
        **options: See `ColumnOptions`.

    Yields:
        As `read`.

    Raises:
        ConfigError: As `read`.
        DataError: As `read`.
    """
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"dataset.options.limit must be a positive integer or null, got {limit!r}.")
    if split is not None and "[" in split:
        raise ConfigError(f"dataset.options.split must be a split's name, got {split!r}. Use dataset.options.limit.")
    import datasets

    try:
        loaded = datasets.load_dataset(**arguments, split=split, streaming=streaming, cache_dir=cache_dir)
    except Exception as error:  # of many kinds: no such data set, no network, a damaged file, a split that is not there
        reason = brief(error)
        raise DataError(
            f"{path}: datasets cannot load it: {reason}. Check the name, the connection and dataset.options."
        ) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {split or "": loaded}
    folders = ImageFolders(beside, image_dir)
    if not streaming:
        files = {key: [Path(file["filename"]) for file in table.cache_files] for key, table in splits.items()}
        yield from read_tables(path, files, folders, name, limit=limit, **options)
        return
    pictures = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "streamed_images"
    for key, stream in splits.items():
        rows = _stream(path, stream, pictures)
        yield from read_split(path, key if len(splits) > 1 else None, rows, folders, name, limit, **options)


def _stream(path: str | Path, stream: Any, pictures: Path) -> Iterator[dict[str, Any]]:
    """A stream's rows, with class labels as their names and every picture in a file of its own."""
    import datasets

    features = stream.features or {}
    labels = {key: feature for key, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
    rows = iter(stream.decode(False) if features else stream)
    while True:
        try:
            row = next(rows, None)
            if row is None:
                return
            values = {key: to_text(_save(value, pictures)) for key, value in row.items()}
        except Exception as error:  # of many kinds: no network, a damaged file
            raise DataError(
                f"{path}: the stream broke off: {brief(error)}. Try again, or download it whole."
            ) from error
        yield values | {key: label.int2str(row[key]) for key, label in labels.items() if isinstance(row.get(key), int)}


def _save(value: Any, folder: Path) -> Any:
    """Write an embedded picture, or one on the hub, to a file named after its content; the path takes its place."""
    if isinstance(value, list):
        return [_save(item, folder) for item in value]
    if isinstance(value, dict) and {"bytes", "path"} == set(value):
        content, address = value["bytes"], value["path"]
        if content is None and isinstance(address, str) and address.rpartition("::")[2].startswith(_HUB_ADDRESSES):
            import fsspec

            with fsspec.open(address, "rb") as file:
                content = file.read()
        return address if content is None else _write(content, folder)
    return value


def _write(content: bytes, folder: Path) -> Path:
    path = folder / hashlib.sha256(content).hexdigest()
    if not path.exists():
        write_bytes(path, content, error=DataError)
    return path
