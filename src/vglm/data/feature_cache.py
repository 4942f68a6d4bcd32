"""A disk cache of the features that a frozen vision tower computes, so that each picture is encoded once.

    features = FeatureCache(cache_folder("features"), {"weights_sha256": "91c4...", ...}, (16, 128), encode)
    features.fill(samples)              encodes the pictures that no run has met before
    features[sample]                    a tensor of shape (16, 128), mapped from its file

    ~/.cache/vglm/features/
      files.index                       which picture a file held when last read, so that it is not read again
      5b0e.../encoder.json              what made these features; its hash is the folder's name
      5b0e.../a3/a3f1....safetensors    the features of the picture that has this hash

A picture is identified by its file's bytes and its window, a picture in memory by its pixels. The folder's name
identifies everything that turns pictures into features. So nothing can become stale: other pictures, weights, settings,
types or versions have other names. Files appear whole under their name, and equal names mean equal content, so any
number of processes may read and fill the cache at once. Pictures are read, decoded and scaled by threads, ahead of the
encoder.
"""

import hashlib
import json
import os
import shutil
import stat
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from vglm.data.collator import open_image_of
from vglm.data.hashing import describe_decoder
from vglm.data.images import decoding_threads, image_sha256, usable_cores
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.table import first_of_pictures
from vglm.errors import CacheError, DataError, brief
from vglm.files import explained, put_in_place, read_json, workplace, write_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_VERSION = 2  # of what is kept, and of how pictures are known
_ENCODER = "encoder.json"
_INDEX = "files.index"
_RECORD = np.dtype([("source", "V32"), ("picture", "V32"), ("pixels", "V32"), ("check", "V8")])
_UNKNOWN = bytes(32)
_SETTLED_SECONDS = 2.0  # a file this young may change again within the resolution of its time stamps

Prepare = Callable[[Image.Image], Any]
"""Makes of an RGB picture what the encoder takes; called by several threads at once."""
Encode = Callable[[Sequence[Any]], "Tensor"]
"""Turns prepared pictures into features, shape (pictures, image tokens, Q-Former width)."""


@dataclass(frozen=True)
class Filled:
    """What filling the cache took.

    Attributes:
        pictures: Number of different pictures requested.
        encoded: Those of them that were not there yet.
        size_bytes: What the features of all of them take on disk.
    """

    pictures: int
    encoded: int
    size_bytes: int

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1e6:,.1f} MB"
        return f"{self.pictures:,} pictures' features cached ({size}), {self.encoded:,} of them new"


@dataclass(frozen=True)
class Opened:
    """A picture that was decoded.

    Attributes:
        picture: As the model sees it.
        pixels: Its `image_sha256`, where that was worked out.
        digest: Its key in the cache.
        source: Its file and the state that this had; None where it has none.
    """

    picture: Image.Image
    pixels: str | None
    digest: str
    source: bytes | None


class FeatureCache:
    """The features of pictures by one encoder.

    Args:
        folder: Holds the caches of all encoders; made if need be.
        encoder: All that decides what is made of a picture's pixels, as JSON: weights, settings, types, versions. A
            `name` in it is for readers only.
        shape: Of one picture's features, (image tokens, Q-Former width).
        encode: Makes them, of up to `batch_size` pictures in a call. None for a cache that is only read; the copies of
            a cache that go to other processes are such.
        batch_size: Pictures at a time.
        prepare: What `encode` takes of a picture; the picture itself if not given.

    Raises:
        CacheError: The folder cannot be made, or written to where that is needed.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Mapping[str, Any],
        shape: tuple[int, int],
        encode: Encode | None = None,
        batch_size: int = 8,
        prepare: Prepare | None = None,
    ) -> None:
        encoder = {**encoder, "cache": _VERSION, "decoder": describe_decoder()}
        described = json.dumps(encoder, sort_keys=True, ensure_ascii=False, indent=2) + "\n"
        identity = json.dumps({key: encoder[key] for key in sorted(encoder) if key != "name"}, sort_keys=True)
        self.folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.shape = shape
        self.encode = encode
        self.batch_size = batch_size
        self.prepare = prepare
        self._file_bytes = 0
        self._opened: dict[str, Any] = {}  # prepared by `open`, for `fill`
        self._in_memory: dict[Any, tuple[weakref.ref[Image.Image], str]] = {}
        if not (self.folder / _ENCODER).is_file():
            write_text(self.folder / _ENCODER, described, error=CacheError)
        self._index = _Index(folder / _INDEX)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"encode": None, "prepare": None, "_opened": {}, "_in_memory": {}}

    def fill(self, *samples: Iterable[Sample]) -> Filled:
        """Encode the pictures that are not there yet; several processes that do so at once share the work.

        Args:
            samples: With and without pictures as they come.

        Raises:
            DataError: A picture cannot be opened.
            CacheError: The disk is full, or the cache belongs to another user.
        """
        seen: set[bytes] = set()
        waiting: dict[str, Any] = {}
        encoded = 0
        pictures = tqdm(
            chain.from_iterable(map(first_of_pictures, samples)), desc="looking at pictures", unit="picture", delay=2
        )
        with closing(self._look_ahead(pictures)) as looks:
            for digest, prepared in looks:
                if bytes.fromhex(digest) in seen:
                    continue
                seen.add(bytes.fromhex(digest))
                if prepared is not None:
                    waiting[digest] = prepared
                if len(waiting) == self.batch_size:
                    encoded += self._encode(waiting)
                    waiting = {}
        encoded += self._encode(waiting)
        return Filled(len(seen), encoded, len(seen) * self._file_bytes)

    def open(self, sample: Sample) -> Opened:
        """Decode a picture that is looked at elsewhere too: `fill` then has no need to.

        Args:
            sample: With a picture.

        Raises:
            DataError: It cannot be opened, or changes meanwhile.
        """
        opened = self._decode(sample)
        if not self._is_kept(opened.digest):
            self._opened[opened.digest] = self._prepared(opened.picture)
        return opened

    def note_pixels(self, opened: Opened, pixels: str) -> None:
        """Store the `image_sha256` of a picture, so that it need not be decoded for the hash.

        Args:
            opened: From `open`.
            pixels: The hash.
        """
        if opened.source is not None and self._index.get(opened.source) is not None:  # known by a state that is settled
            self._index.put(opened.source, opened.digest, pixels)

    def pixels_of(self, sample: Sample) -> str | None:
        """The `image_sha256` of a picture whose features are there, where both follow without decoding it."""
        source = _describe_source(sample)
        stored = None if source is None else self._index.get(source)
        return stored[1] if stored is not None and self._is_kept(stored[0]) else None

    def __getitem__(self, sample: Sample) -> "Tensor":
        """Look the features of one sample's picture up.

        Args:
            sample: With a picture. Its file may have changed meanwhile: what counts is what it holds now.

        Returns:
            Shape (image tokens, D), of the type that the encoder gave, backed by the file.

        Raises:
            DataError: The picture was never encoded, for it is another one than it was; or its features are damaged.
        """
        digest = self._identify(sample)
        path = self._path(digest)
        if not path.is_file():
            raise DataError(
                f"{sample.id}: {_name(sample)} is not among the images whose features are cached: it changed after the"
                " run began, or the cache was cleared. Start the run again."
            )
        try:
            with safe_open(path, framework="pt") as file:
                features: Tensor = file.get_tensor("features")
        except (SafetensorError, OSError, ValueError) as error:
            raise _damaged(path, brief(error)) from error
        if tuple(features.shape) != self.shape:
            raise _damaged(path, f"it holds features of shape {tuple(features.shape)}, not {self.shape}")
        return features

    def __contains__(self, sample: Sample) -> bool:
        return self._is_kept(self._identify(sample))

    def _is_kept(self, digest: str) -> bool:
        """Whether a picture's features are stored; a file of another length than the others is incomplete."""
        try:
            state = self._path(digest).stat()
        except OSError:
            return False
        if not stat.S_ISREG(state.st_mode):
            return False
        self._file_bytes = self._file_bytes or self._whole_bytes(digest)
        return 0 < self._file_bytes == state.st_size

    def _whole_bytes(self, digest: str) -> int:
        """The length of a file of features, of which all have the same; 0 if this one is none."""
        try:
            with safe_open(self._path(digest), framework="np") as file:
                is_whole = tuple(file.get_slice("features").get_shape()) == self.shape
            return self._path(digest).stat().st_size if is_whole else 0
        except (SafetensorError, OSError, ValueError):
            return 0

    def _path(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _look_ahead(self, samples: Iterable[Sample]) -> Generator[tuple[str, Any], None, None]:
        """What `_look` says of samples in their order, by as many threads as there are cores, some pictures ahead."""
        ahead = self.batch_size + 2 * usable_cores()
        running: deque[Future[tuple[str, Any]]] = deque()
        with decoding_threads() as pool:
            try:
                for sample in samples:
                    running.append(pool.submit(self._look, sample))
                    if len(running) == ahead:
                        yield running.popleft().result()
                while running:
                    yield running.popleft().result()
            finally:
                for look in running:
                    look.cancel()

    def _look(self, sample: Sample) -> tuple[str, Any]:
        """What a picture is known by and, where it has to be encoded, what the encoder takes."""
        digest = self._identify(sample)
        prepared = self._opened.pop(digest, None)
        if self._is_kept(digest):
            return digest, None
        if prepared is not None:
            return digest, prepared
        opened = self._decode(sample)
        return opened.digest, self._prepared(opened.picture)

    def _decode(self, sample: Sample) -> Opened:
        source, digest, picture = _describe_source(sample), self._identify(sample), _open(sample)
        if source is not None and self._identify(sample) != digest:
            raise DataError(f"{sample.id}: {_name(sample)} changed while it was read. Start again.")
        return Opened(picture, digest if source is None else None, digest, source)

    def _prepared(self, picture: Image.Image) -> Any:
        return picture if self.prepare is None else self.prepare(picture)

    def _identify(self, sample: Sample) -> str:
        """A hash over a picture's file as it is now, and how it is shown; over the pixels of one in memory."""
        source = _describe_source(sample)
        if source is None:
            return self._hash_pixels(sample)
        if (stored := self._index.get(source)) is not None:
            return stored[0]
        digest = _hash_encoded(sample)
        if _is_settled(sample) and _describe_source(sample) == source:
            self._index.put(source, digest)
        return digest

    def _hash_pixels(self, sample: Sample) -> str:
        """As `image_sha256`, once for as long as a picture is there; of a file that cannot be read, why."""
        image, key = sample.image, (id(sample.image), sample.window)
        if key in self._in_memory and self._in_memory[key][0]() is image:
            return self._in_memory[key][1]
        digest = image_sha256(_open(sample))
        if isinstance(image, Image.Image):
            self._in_memory[key] = weakref.ref(image, lambda _: self._in_memory.pop(key, None)), digest
        return digest

    def _encode(self, waiting: Mapping[str, Any]) -> int:
        """Encode what no other process has encoded meanwhile."""
        from safetensors.torch import save_file  # brings torch, which listing and clearing do without

        missing = {digest: picture for digest, picture in waiting.items() if not self._is_kept(digest)}
        if not missing:
            return 0
        if self.encode is None:
            raise ValueError("this cache is only read; nothing can be encoded.")
        encoded = self.encode(list(missing.values()))
        with explained(self.folder, error=CacheError), workplace(self.folder / "features") as workspace:
            for digest, features in zip(missing, encoded, strict=True):
                if tuple(features.shape) != self.shape:
                    raise ValueError(f"the encoder gives features of shape {tuple(features.shape)}, not {self.shape}.")
                path = self._path(digest)
                save_file({"features": features.detach().cpu().contiguous().clone()}, workspace / path.name)
                path.parent.mkdir(exist_ok=True)
                put_in_place(workspace / path.name, path)
                self._file_bytes = path.stat().st_size
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

    @property
    def is_read(self) -> bool:
        """Whether this version of the workbench reads it; what an earlier one left is only listed and cleared."""
        return self.encoder.get("cache") == _VERSION


def bytes_of_a_picture(shape: tuple[int, int], dtype: "torch.dtype") -> int:
    """What the features of one picture take on disk.

    Args:
        shape: Of them, (image tokens, D).
        dtype: What they are kept in.
    """
    import torch
    from safetensors.torch import save

    return len(save({"features": torch.zeros(shape, dtype=dtype)}))


def list_cache(folder: Path) -> list[CachedEncoder]:
    """What a cache holds, the largest part first.

    Args:
        folder: As given to `FeatureCache`; need not exist.
    """
    return sorted(_list_encoders(folder), key=lambda encoder: -encoder.size_bytes)


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
    for file in (folder / _INDEX, *folder.glob("pictures.*")):  # the latter are of earlier versions
        if not os.path.lexists(file):
            continue
        freed += file.lstat().st_size
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return freed


def _list_encoders(folder: Path) -> Iterator[CachedEncoder]:
    for description in folder.glob(f"*/{_ENCODER}"):
        sizes = [path.stat().st_size for path in description.parent.glob("*/*.safetensors")]
        try:
            encoder = read_json(description)
        except DataError:
            encoder = {}
        yield CachedEncoder(description.parent, encoder, len(sizes), sum(sizes) + description.stat().st_size)


class _Index:
    """Remembers which picture a file held, by all that distinguishes one state of a file from another.

    A file of records that are only added to; each has a check of its own, so that a damaged one counts as none. It only
    saves time: where it fails, files are decoded again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._added: dict[bytes, tuple[bytes, bytes]] = {}
        self._table: tuple[NDArray[np.uint64], NDArray[np.void]] | None = None
        self._lock = threading.Lock()  # several threads look at pictures

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.__init__(path)  # type: ignore[misc]

    def get(self, source: bytes) -> tuple[str, str | None] | None:
        """The picture that a file held, and its pixels' hash where that was put in too."""
        if (stored := self._added.get(source)) is None:
            stored = self._stored(source)
        return None if stored is None else (stored[0].hex(), None if stored[1] == _UNKNOWN else stored[1].hex())

    def _stored(self, source: bytes) -> tuple[bytes, bytes] | None:
        with self._lock:
            if self._table is None:
                self._table = self._load()
        starts, records = self._table
        start = np.frombuffer(source, np.uint64, 1)
        first, end = (int(starts.searchsorted(start, side)[0]) for side in ("left", "right"))
        for index in reversed(range(first, end)):  # what was put in last knows most
            record: bytes = records[index].tobytes()
            if record == _record(source, picture := record[32:64], pixels := record[64:96]):
                return picture, pixels
        return None

    def put(self, source: bytes, digest: str, pixels: str | None = None) -> None:
        """Add a record."""
        picture, shown = bytes.fromhex(digest), _UNKNOWN if pixels is None else bytes.fromhex(pixels)
        self._added[source] = picture, shown
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # the first is missing on Windows
        with suppress(OSError), self._lock:
            file = os.open(self.path, flags, 0o666)
            try:
                os.write(file, _record(source, picture, shown))
            finally:
                os.close(file)

    def _load(self) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
        """The first 8 bytes of the records' sources, sorted, and the records in that order."""
        content = b""
        with suppress(OSError):
            if self.path.is_file():
                content = self.path.read_bytes()
            if len(content) % _RECORD.itemsize:  # a full disk truncated a record, so that later ones are misaligned
                self.path.unlink()
                content = b""
        starts = np.frombuffer(content, np.uint64).reshape(-1, _RECORD.itemsize // 8)[:, 0]
        order = starts.argsort(kind="stable")
        return starts[order], np.frombuffer(content, _RECORD)[order]


def _record(*parts: bytes) -> bytes:
    content = b"".join(parts)
    return content + hashlib.blake2b(content, digest_size=8).digest()


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
    if path is None or state is None or not stat.S_ISREG(state.st_mode):
        return None
    facts = (
        os.path.abspath(path),
        repr(sample.image),
        repr(sample.window),
        state.st_dev,
        state.st_ino,
        state.st_size,
        state.st_mtime_ns,
        state.st_ctime_ns,
        describe_decoder(),
    )
    return hashlib.sha256(repr(facts).encode()).digest()


def _hash_encoded(sample: Sample) -> str:
    """A hash over a picture's bytes in its file, and the window that it is seen through."""
    digest = hashlib.sha256(f"file {sample.window!r}\n".encode())
    try:
        if isinstance(sample.image, ImageSlice):
            digest.update(sample.image.read_bytes())
        else:
            with open(str(sample.image), "rb") as file:
                while piece := file.read(2**20):
                    digest.update(piece)
    except OSError as error:
        raise DataError(f"{sample.id}: {_name(sample)} cannot be read: {error.strerror}.") from error
    except DataError as error:
        raise DataError(f"{sample.id}: {error}") from error
    return digest.hexdigest()


def _is_settled(sample: Sample) -> bool:
    path = _file_of(sample)
    if path is None:
        return False
    state = path.stat()
    return time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED_SECONDS


def _name(sample: Sample) -> str:
    return "its picture" if isinstance(sample.image, Image.Image) else f"image {sample.image}"


def _damaged(path: Path, reason: str) -> DataError:
    """The message about a damaged file, which is removed: the next start makes it again."""
    with suppress(OSError):
        path.unlink()
    return DataError(f"{path} was damaged ({reason}) and is removed. Start again; it will be made anew.")
