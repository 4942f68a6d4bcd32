"""What a frozen vision tower made of each picture, kept on disk so that it looks at every picture once.

    features = FeatureCache(cache_folder("features"), {"weights_sha256": "91c4...", ...}, (16, 128), encode)
    features.fill(samples)              encodes the pictures that no run has met before
    features[sample]                    a tensor of shape (16, 128), mapped from its file

    ~/.cache/vglm/features/
      pictures.sqlite                   which picture a file held when last read, so that it is not decoded again
      5b0e.../encoder.json              what made these features; its hash is the folder's name
      5b0e.../a3/a3f1....safetensors    the features of the picture whose decoded pixels have this hash

A key is the picture's pixels and all that turns pixels into features, so nothing can become stale: other pixels,
weights, settings, types or library versions have other names. Files appear whole under their name, and equal names mean
equal content, so any number of processes may read and fill the cache at once.
"""

import hashlib
import json
import os
import platform
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
from PIL import Image
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from vglm.data.collator import open_image_of
from vglm.data.images import image_sha256
from vglm.data.sample import Sample
from vglm.data.windowing import META_KEY
from vglm.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_ENCODER = "encoder.json"
_INDEX = "pictures.sqlite"
_SETTLED_SECONDS = 2.0  # a file this young may change again within the resolution of its time stamps

Encode = Callable[[Sequence[Image.Image]], "Tensor"]
"""Turns RGB pictures into features, shape (pictures, image tokens, D)."""


@dataclass(frozen=True)
class Filled:
    """What filling the cache took.

    Attributes:
        pictures: Different pictures that were asked for.
        encoded: Those of them that were not there yet.
        size_bytes: What the features of all of them take on disk.
    """

    pictures: int
    encoded: int
    size_bytes: int

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1e6:,.1f} MB"
        return f"{self.pictures:,} pictures' features cached ({size}), {self.encoded:,} of them new"


class FeatureCache:
    """The features of pictures by one encoder.

    Args:
        folder: Holds the caches of all encoders; made if need be.
        encoder: All that decides what is made of a picture's pixels, as JSON: weights, settings, types, versions. A
            `name` in it is for people and decides nothing.
        shape: Of one picture's features, (image tokens, D).
        encode: Makes them, of up to `batch_size` pictures in a call. None for a cache that is only read; the copies of
            a cache that go to other processes are such.
        batch_size: Pictures at a time.

    Raises:
        OSError: The folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Mapping[str, Any],
        shape: tuple[int, int],
        encode: Encode | None = None,
        batch_size: int = 8,
    ) -> None:
        described = json.dumps(encoder, sort_keys=True, ensure_ascii=False, indent=2) + "\n"
        identity = json.dumps({key: encoder[key] for key in sorted(encoder) if key != "name"}, sort_keys=True)
        self.folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.shape = shape
        self.encode = encode
        self.batch_size = batch_size
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / _ENCODER, lambda path: path.write_text(described, encoding="utf-8"))
        self._index = _Index(folder / _INDEX)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"encode": None}

    def fill(self, samples: Iterable[Sample]) -> Filled:
        """Encode the pictures that are not there yet; several processes that do so at once share the work.

        Args:
            samples: With and without pictures as they come.

        Raises:
            DataError: A picture cannot be opened.
            OSError: The disk is full.
        """
        seen: set[bytes] = set()
        waiting: dict[str, Image.Image] = {}
        encoded = 0
        for sample in tqdm(samples, desc="looking at pictures", unit="sample", delay=2):
            if sample.image is None:
                continue
            digest, decoded = self._identify(sample)
            if bytes.fromhex(digest) in seen:
                continue
            seen.add(bytes.fromhex(digest))
            if not self._path(digest).exists():
                waiting[digest] = decoded or _open(sample)
            if len(waiting) == self.batch_size:
                encoded += self._encode(waiting)
                waiting = {}
        encoded += self._encode(waiting)
        size = sum(self._path(digest.hex()).stat().st_size for digest in seen)
        return Filled(len(seen), encoded, size)

    def __getitem__(self, sample: Sample) -> "Tensor":
        """Look the features of one sample's picture up.

        Args:
            sample: With a picture. Its file may have changed meanwhile: what counts is what it holds now.

        Returns:
            Shape (image tokens, D), of the type that the encoder gave, backed by the file.

        Raises:
            DataError: The picture was never encoded, for it is another one than it was; or its features are damaged.
        """
        digest, _ = self._identify(sample)
        path = self._path(digest)
        try:
            with safe_open(path, framework="pt") as file:
                features: Tensor = file.get_tensor("features")
        except FileNotFoundError as error:
            raise DataError(
                f"{sample.id}: {_name(sample)} is not among the images whose features are cached: it changed after the"
                " run began, or the cache was cleared. Start the run again."
            ) from error
        except (SafetensorError, OSError) as error:
            raise DataError(
                f"{path} is damaged ({error}). Delete it, or clear the cache (vglm cache --clear), and start again."
            ) from error
        if tuple(features.shape) != self.shape:
            raise DataError(f"{path} holds features of shape {tuple(features.shape)}, not {self.shape}. Delete it.")
        return features

    def __contains__(self, sample: Sample) -> bool:
        return self._path(self._identify(sample)[0]).exists()

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _identify(self, sample: Sample) -> tuple[str, Image.Image | None]:
        """The hash of a picture's pixels, and the picture itself if it had to be decoded for that."""
        source = _describe_source(sample)
        if source is not None and (known := self._index.get(source)) is not None:
            return known, None
        decoded = _open(sample)
        digest = image_sha256(decoded)
        if source is not None and _is_settled(sample) and _describe_source(sample) == source:
            self._index.put(source, digest)
        return digest, decoded

    def _encode(self, waiting: Mapping[str, Image.Image]) -> int:
        """Encode what no other process has encoded meanwhile."""
        from safetensors.torch import save_file  # brings torch, which listing and clearing do without

        missing = {digest: picture for digest, picture in waiting.items() if not self._path(digest).exists()}
        if not missing:
            return 0
        if self.encode is None:
            raise ValueError("this cache is only read; nothing can be encoded.")
        for digest, features in zip(missing, self.encode(list(missing.values())), strict=True):
            if tuple(features.shape) != self.shape:
                raise ValueError(f"the encoder gives features of shape {tuple(features.shape)}, not {self.shape}.")
            tensors = {"features": features.detach().cpu().contiguous().clone()}
            self._path(digest).parent.mkdir(exist_ok=True)
            _write(self._path(digest), lambda path, tensors=tensors: save_file(tensors, path))  # type: ignore[misc]
        return len(missing)


@dataclass(frozen=True)
class CachedEncoder:
    """One encoder's part of the cache, for listing.

    Attributes:
        folder: Where it lies.
        encoder: What it was made with.
        pictures: Pictures whose features it holds.
        size_bytes: What it takes on disk.
    """

    folder: Path
    encoder: Mapping[str, Any]
    pictures: int
    size_bytes: int


def list_cache(folder: Path) -> list[CachedEncoder]:
    """What a cache holds, the largest part first.

    Args:
        folder: As given to `FeatureCache`; need not exist.
    """
    return sorted(_list_encoders(folder), key=lambda each: -each.size_bytes)


def clear_cache(folder: Path) -> int:
    """Remove all that `FeatureCache` wrote to a folder, and nothing else.

    Args:
        folder: As given to `FeatureCache`; need not exist.

    Returns:
        The bytes that were freed.
    """
    freed = 0
    for part in list_cache(folder):
        shutil.rmtree(part.folder)
        freed += part.size_bytes
    for file in folder.glob(f"{_INDEX}*"):
        freed += file.stat().st_size
        file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return freed


def _list_encoders(folder: Path) -> Iterator[CachedEncoder]:
    for description in folder.glob(f"*/{_ENCODER}"):
        sizes = [each.stat().st_size for each in description.parent.glob("*/*.safetensors")]
        try:
            encoder = json.loads(description.read_text(encoding="utf-8"))
        except ValueError:
            encoder = {}
        yield CachedEncoder(description.parent, encoder, len(sizes), sum(sizes) + description.stat().st_size)


class _Index:
    """Remembers which picture a file held, by all that tells one state of a file from another.

    It only saves time: where it fails, files are decoded again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, sqlite3.Connection | None] = (0, None)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def get(self, source: bytes) -> str | None:
        with suppress(sqlite3.Error):
            if (connection := self._connect()) is not None:
                row = connection.execute("SELECT picture FROM pictures WHERE source = ?", (source,)).fetchone()
                return None if row is None else row[0].hex()
        return None

    def put(self, source: bytes, digest: str) -> None:
        with suppress(sqlite3.Error):
            if (connection := self._connect()) is not None:
                connection.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?)", (source, bytes.fromhex(digest)))

    def _connect(self) -> sqlite3.Connection | None:
        """A connection of this process's own: one that was opened before a fork must not be used."""
        if self._opened[0] != os.getpid():
            self._opened = (os.getpid(), None)
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")  # losing the last entries costs time only
            connection.execute(
                "CREATE TABLE IF NOT EXISTS pictures (source BLOB PRIMARY KEY, picture BLOB) WITHOUT ROWID"
            )
            self._opened = (os.getpid(), connection)
        return self._opened[1]


def _open(sample: Sample) -> Image.Image:
    picture = open_image_of(sample)
    if picture is None:
        raise ValueError(f"{sample.id} has no picture.")
    return picture


def _file_of(sample: Sample) -> Path | None:
    """The file in which a picture lies, whole or (then named as its `file`) as a slice; None for others."""
    file = getattr(sample.image, "file", sample.image)
    return Path(file) if isinstance(file, str | Path) else None


def _describe_source(sample: Sample) -> bytes | None:
    """A hash over a file's name and state and over what decodes it; None where there is no file to ask."""
    path = _file_of(sample)
    try:
        state = None if path is None else path.stat()
    except OSError:
        return None
    if path is None or state is None:
        return None
    facts = (
        os.path.abspath(path),
        repr(sample.image),
        repr(sample.meta.get(META_KEY)),
        state.st_dev,
        state.st_ino,
        state.st_size,
        state.st_mtime_ns,
        state.st_ctime_ns,
        _decoder(),
    )
    return hashlib.sha256(repr(facts).encode()).digest()


def _is_settled(sample: Sample) -> bool:
    path = _file_of(sample)
    if path is None:
        return False
    state = path.stat()
    return time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED_SECONDS


@cache
def _decoder() -> str:
    """What turns a file into pixels: the code of this package and the libraries under it."""
    code = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        code.update(module.read_bytes())
    versions = [f"pillow {PIL.__version__}", f"numpy {np.__version__}"]
    with suppress(metadata.PackageNotFoundError):
        versions.append(f"pydicom {metadata.version('pydicom')}")
    return f"{code.hexdigest()} {versions}"


def _name(sample: Sample) -> str:
    return "its picture" if isinstance(sample.image, Image.Image) else f"image {sample.image}"


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a file appear whole; where one of that name is there already, it has the same content."""
    temporary = path.with_name(f".{path.name}.{platform.node()}-{os.getpid()}")
    try:
        write(temporary)
        temporary.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)  # safetensors writes for the owner alone
        temporary.replace(path)
    except SafetensorError as error:  # how its writer says that the disk is full
        raise OSError(f"{path} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
