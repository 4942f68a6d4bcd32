"""Read a data set's files: a short one into a list, a long one into a table that is kept in the cache.

reader = SourceReader(Path("openi"), format=None, image_dir="images", skip_missing=True, options={})
samples = reader.read("openi-zh.json")      # a list, or a SampleTable
reader.hashes("openi-zh.json")              # {"openi-zh.json": "9f86d081…"}
reader.left_out                             # {"openi-zh.json": 5}
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vglm.caching import cache_folder
from vglm.data.hashing import HASHED_BYTES, hash_file, hash_names, hash_reading_code
from vglm.data.problems import BadRow, only_samples
from vglm.data.readers import class_folders, is_hub_name, read
from vglm.data.sample import Sample
from vglm.data.splits import fingerprint
from vglm.data.table import SampleTable, write_table
from vglm.errors import CacheError, DataError
from vglm.files import explained, file_sha256, put_in_place, workplace

LISTED_ROWS = 2000
"""Up to this many rows of a file are held in memory; of a longer file, a table is kept in the cache."""

_KEY = 32
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".dcm", ".ppm", ".jp2", ".avif")

logger = logging.getLogger(__name__)


class SourceReader:
    """Reads the files of one data set, through the cache where they are long.

    Args:
        root: The data set's folder.
        format: The format's name; recognised by the content if None.
        image_dir: Where pictures lie, relative to the root; beside each file if None.
        skip_missing: Leave out rows whose picture is missing.
        options: The format's own options.

    Attributes:
        left_out: How many rows of each file were left out.
    """

    def __init__(
        self,
        root: Path,
        *,
        format: str | None,
        image_dir: str | Path | None,
        skip_missing: bool,
        options: Mapping[str, Any],
    ) -> None:
        self.root = root
        self.format = format
        self.image_dir = None if image_dir is None else root / image_dir
        self.skip_missing = skip_missing
        self.options = options
        self.left_out: dict[str, int] = {}
        self._hashes: dict[str, dict[str, str]] = {}

    def hashes(self, name: str) -> dict[str, str]:
        """SHA-256 of the files of a source that was read, by path relative to the root."""
        return self._hashes[name]

    def read(self, name: str) -> Sequence[Sample]:
        """All samples of a source: a list, or if it is long a table."""
        if is_hub_name(name):
            samples = self._store(name, f"hub-{hashlib.sha256(repr((name, self.options)).encode()).hexdigest()}")
            self._hashes[name] = {name: fingerprint(samples)}
            return samples
        if not (self.root / name).exists():
            raise DataError(f"{self.root / name} does not exist. Expected a file of samples.")
        files = self._source_files(name)
        is_small = sum(file.stat().st_size for file in files) <= HASHED_BYTES
        self._hashes[name] = {
            Path(os.path.relpath(file, self.root)).as_posix(): hash_file(file, HASHED_BYTES if is_small else 2**20)
            for file in files
        }
        if (self.root / name).is_dir() and class_folders.recognises(self.root / name):
            self._hashes[name][name] = hash_names(self.root / name)
        key = self._key(name)
        for path in cache_folder("tables").glob(f"{key[:_KEY]}-*.arrow"):
            try:
                if path.is_file() and path.stem == f"{key[:_KEY]}-{file_sha256(path)[:_KEY]}":
                    table = SampleTable(path)
                    if not table.missing_files():
                        return table
            except (DataError, OSError):
                pass  # written by another version, or by another user for himself: made again
        return self._store(name, key)

    def _samples(self, name: str) -> Iterator[Sample]:
        source = name if is_hub_name(name) else self.root / name
        label = source.resolve().name if isinstance(source, Path) and name == "." else name
        rows = read(source, format=self.format, image_dir=self.image_dir, name=label, **self.options)
        rows = tqdm(rows, desc=f"reading {label}", unit="row", delay=2)
        return only_samples(source, self._counted(name, rows), skip_missing=self.skip_missing)

    def _counted(self, name: str, rows: Iterable[Sample | BadRow]) -> Iterator[Sample | BadRow]:
        for row in rows:
            if isinstance(row, BadRow):
                self.left_out[name] = self.left_out.get(name, 0) + 1
            yield row

    def _store(self, name: str, key: str) -> Sequence[Sample]:
        """A list, or a table that is kept under a key if it will be the same next time, and its content's hash."""
        samples = self._samples(name)
        listed = list(islice(samples, LISTED_ROWS + 1))
        if len(listed) <= LISTED_ROWS:
            return listed
        folder = cache_folder("tables")
        try:
            with explained(folder, error=CacheError), workplace(folder / "table") as folder_of_table:
                write_table(folder_of_table / "table.arrow", chain(listed, samples))
                if self.left_out or key.startswith("hub-"):  # a missing file may be added later
                    key = f"again-{key}"
                table = folder / f"{key[:_KEY]}-{file_sha256(folder_of_table / 'table.arrow')[:_KEY]}.arrow"
                put_in_place(folder_of_table / "table.arrow", table)
        except CacheError as error:
            logger.warning("All rows of %s are held in memory, as their table is not cached: %s", name, error)
            self.left_out.pop(name, None)
            return list(self._samples(name))  # from the beginning
        return SampleTable(table)

    def _source_files(self, name: str) -> list[Path]:
        """The files to hash: the source itself or what a folder holds besides pictures, and files that options name."""
        source = self.root / name
        files = [source] if not source.is_dir() else sorted(_other_than_pictures(source))
        named = [source.parent / str(value) for value in self.options.values() if isinstance(value, str)]
        return files + [file for file in named if file.is_file()]

    def _key(self, name: str) -> str:
        """Names the table that reading this source would give: contents, place, settings and the reading code."""
        source = self.root / name
        beside = [] if source.is_dir() else sorted(_other_than_pictures(source.parent, is_deep=False))
        facts = {
            "place": os.path.abspath(source),
            "hashes": self._hashes[name],
            "beside": [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in beside],
            "settings": [name, self.format, str(self.image_dir), self.skip_missing, self.options],
            "code": hash_reading_code(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _other_than_pictures(folder: Path, *, is_deep: bool = True) -> Iterator[Path]:
    """Visible files that are not pictures, in the folder and if wanted below it."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if is_deep and not name.startswith(".")]
        visible = (file for file in files if not file.startswith(".") and not file.lower().endswith(_PICTURES))
        yield from (Path(parent) / file for file in visible if os.path.isfile(os.path.join(parent, file)))
