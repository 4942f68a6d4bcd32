"""Read webdataset's tar shards: the files of one sample are adjacent and share their name up to the first dot.

    shard-000.tar
        0001.jpg      the picture
        0001.txt      "Two cats on a sofa."
        0002.jpg
        0002.json     {"question": "How many cats?", "answer": "Two.", "patient_id": "p7"}

The picture stays in the shard and is read from there when it is needed (`ImageSlice`). The keys of `.json` and a column
for every text file (`txt`, `question.txt` as `question`, `cls`) are as in any table (`vglm.data.readers.columns`),
messages too. Folders of shards are read in the order of their names; a shard called `train...`, `val...` or `test...`,
or in such a folder, gives its rows that split. A compressed shard cannot be read in place.

Source: https://github.com/webdataset/webdataset ("The WebDataset Format").
"""

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.columns import ColumnOptions, TableReader
from vglm.data.readers.rows import IMAGE_SUFFIXES, ImageFolders, RowCheck, kind_of, quote, split_name
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import DataError
from vglm.files import check_regular

NAME = "webdataset"
SCHEMA = "tar shards with 0001.jpg, 0001.txt or 0001.json, ..., or a folder of them"

_TEXTS = (".txt", ".cls", ".text", ".caption")
_LONGEST_TEXT = 1 << 24
_LONGEST_HEADER = 1 << 20
_ENDLESS = re.compile(rb"\d{256}")


def recognises(path: Path) -> bool:
    """Whether it is a tar file, or a folder with such files in it."""
    try:
        shards = _shards(path)
        if not shards:
            return False
        with tarfile.open(shards[0], tarinfo=_Header):
            return True
    except Exception:  # tarfile raises many kinds for what is none
        return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[ColumnOptions]
) -> Iterator[Sample | BadRow]:
    """Read shards sample by sample; only headers and texts are read.

    Args:
        path: A shard, or a folder of shards.
        image_dir: Where pictures lie that a row only names; the shard's folder if None.
        name: What sample ids begin with: `<name>#<key>`, in a folder `<name>#<shard>:<key>`.
        **options: See `ColumnOptions`; the picture's column is `image`.

    Yields:
        One sample for each key.

    Raises:
        ConfigError: An option has a value that it cannot have.
        DataError: A shard is compressed, damaged or no tar file, or its columns are ambiguous.
    """
    shards = _shards(path)
    if not shards:
        raise DataError(f"{path}: expected tar shards, found none. Pass a .tar file or a folder of them.")
    for shard in shards:
        prefix = "" if shard == path else f"{shard.relative_to(path).as_posix()}:"
        split = None if shard == path else _split_of(shard)
        table: TableReader | None = None
        for key, members in _samples(shard):
            number = f"{prefix}{key}"
            check = RowCheck(number)
            row = _row(check, shard, members)
            bad = check.bad_row()
            if bad is not None:
                yield bad
                continue
            if table is None:
                table = TableReader.start(shard, ImageFolders(shard.parent, image_dir), name, row, **options)
            yield from table.read(number, row, split)


class _Header(tarfile.TarInfo):
    """A member's header, in which a size below zero or a number without end does not keep Python's reader for ever."""

    def _block(self, count: int) -> int:
        if count < 0:
            raise tarfile.ReadError("a size below zero")
        return super()._block(count)  # type: ignore[misc, no-any-return]

    def _proc_pax(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        source = tarfile_.fileobj
        assert source is not None
        start = source.tell()
        if self.size > _LONGEST_HEADER or _ENDLESS.search(source.read(self.size)):
            raise tarfile.ReadError("a header without end")
        source.seek(start)
        return super()._proc_pax(tarfile_)  # type: ignore[misc, no-any-return]


def _shards(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(shard for pattern in ("*.tar", "*/*.tar") for shard in path.glob(pattern) if shard.is_file())


def _split_of(shard: Path) -> str | None:
    """From `train-0001.tar` or `train/0001.tar`."""
    return split_name(shard.stem.rstrip("0123456789-_.")) or split_name(shard.parent.name)


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, tuple[tarfile.TarInfo, bytes]]]]:
    """A shard's keys, each with its members by extension; texts come with their content."""
    key, members = "", dict[str, tuple[tarfile.TarInfo, bytes]]()
    try:
        check_regular(shard)
        size = shard.stat().st_size
        with tarfile.open(shard, "r:", tarinfo=_Header) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # or the table of contents would grow in memory
                folder, slash, file = member.name.rpartition("/")
                base, dot, extension = file.partition(".")
                if not member.isreg() or not dot or file.startswith("."):
                    continue  # folders, and what archivers add
                if member.issparse() or member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"{quote(member.name)}, whose bytes are not all there")
                if folder + slash + base != key:
                    if members:
                        yield key, members
                    key, members = folder + slash + base, {}
                extension = f".{extension.lower()}"
                is_text = extension.endswith((".json", *_TEXTS)) and member.size <= _LONGEST_TEXT
                content = tar.extractfile(member) if is_text else None
                members[extension] = (member, b"" if content is None else content.read())
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError("a damaged header")
    except DataError:
        raise
    except Exception as error:  # tarfile raises many kinds for damaged headers
        raise DataError(
            f"{shard}: expected an uncompressed tar file, found {error} (after {quote(key)}). Unpack a compressed "
            "shard (gunzip), or replace a damaged one."
        ) from error
    if members:
        yield key, members


def _row(check: RowCheck, shard: Path, members: dict[str, tuple[tarfile.TarInfo, bytes]]) -> dict[str, Any]:
    """A key's members as the columns of a table."""
    row: dict[str, Any] = {}
    images: list[ImageSlice] = []
    for extension, (member, content) in members.items():
        if extension.endswith(IMAGE_SUFFIXES):
            images.append(ImageSlice(shard, member.offset_data, member.size))
        elif extension.endswith(".json"):
            row |= _parse(check, content)
        elif extension.endswith(_TEXTS):
            try:
                row[extension[1:].removesuffix(".txt")] = content.decode("utf-8-sig").strip()
            except UnicodeDecodeError:
                check.fail(f"{quote(extension)} to be UTF-8", "other bytes", "save it as UTF-8")
        else:
            check.fail("a picture, .json and .txt", f"{quote(extension)}", "take it out, or rename it")
    if images:
        row = {key: value for key, value in row.items() if key not in ("image", "images")}
        row["image"] = images if len(images) > 1 else images[0]
    return row


def _parse(check: RowCheck, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        check.fail("'.json' to be a JSON object", str(error), "correct it")
        return {}
    if not isinstance(value, dict):
        check.fail("'.json' to be a JSON object", kind_of(value), "correct it")
        return {}
    return value
