"""The cache folder of the workbench: image features, tables of long data sets, hashes of weights.

cache_folder("features")                                ~/.cache/vglm/features
remembered("identities", files, facts, compute)         computed once, until one of these files changes
"""

import hashlib
import json
import logging
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vglm.config.places import ensure_home
from vglm.errors import WorkbenchError
from vglm.files import read_json, whole_file, write_json

VARIABLE = "VGLM_CACHE"
"""Environment variable that names another folder for all caches than ~/.cache/vglm."""

_SETTLED_SECONDS = 2.0  # a file this young may change again within the resolution of its time stamps

logger = logging.getLogger(__name__)
Kept = TypeVar("Kept")


def cache_folder(kind: str = "") -> Path:
    """`$VGLM_CACHE`, else `vglm` in the user's cache folder, and in it the folder of one kind of content."""
    ensure_home()
    folder = os.environ.get(VARIABLE)
    base = Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vglm"
    return base.expanduser() / kind


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, in bytes; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def clear_folder(folder: Path) -> int:
    """Remove a folder of the cache; returns the bytes that were freed."""
    freed = folder_bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return freed


def remembered(kind: str, files: Sequence[Path], facts: Any, compute: Callable[[], dict[str, str]]) -> dict[str, str]:
    """A value computed from files, cached until the files change.

    A file counts as unchanged with its resolved path, size, times, inode and device. A result that is missing, damaged
    or cannot be kept costs the time to compute it, nothing else.

    Args:
        kind: Folder of the cache.
        files: All files that the result depends on.
        facts: All else that it depends on, as JSON.
        compute: Makes the result.
    """

    def read(path: Path) -> dict[str, str]:
        entry = read_json(path)
        if entry.get("sha256") != _checksum(entry.get("value")):
            raise WorkbenchError(f"{path} is damaged")
        value: dict[str, str] = entry["value"]
        return value

    def write(path: Path, value: dict[str, str]) -> None:
        write_json(path, {"sha256": _checksum(value), "value": value})

    return _remembered(kind, files, facts, compute, ".json", read, write)


def remembered_arrays(
    kind: str, files: Sequence[Path], facts: Any, compute: Callable[[], dict[str, NDArray[Any]]]
) -> dict[str, NDArray[Any]]:
    """The same of arrays."""

    def read(path: Path) -> dict[str, NDArray[Any]]:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:  # each array has a checksum
                return dict(archive)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise WorkbenchError(f"{path} is damaged") from error

    def write(path: Path, value: dict[str, NDArray[Any]]) -> None:
        with whole_file(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **value)

    return _remembered(kind, files, facts, compute, ".npz", read, write)


def _remembered(
    kind: str,
    files: Sequence[Path],
    facts: Any,
    compute: Callable[[], Kept],
    suffix: str,
    read: Callable[[Path], Kept],
    write: Callable[[Path, Kept], None],
) -> Kept:
    state = _state(files)
    key = hashlib.sha256(json.dumps([state, facts], sort_keys=True).encode()).hexdigest()
    path = cache_folder(kind) / f"{key[:32]}{suffix}"
    with suppress(WorkbenchError):
        return read(path)
    value = compute()
    is_settled = time.time_ns() - max((stamp[2] for stamp in state), default=0) > _SETTLED_SECONDS * 1e9
    if is_settled and _state(files) == state:
        try:
            write(path, value)
        except WorkbenchError as error:
            logger.debug("%s", error)
    return value


def _state(files: Sequence[Path]) -> list[list[Any]]:
    """Path, size, time of last change of content and of anything, inode and device of each file."""
    stats = [(str(path.resolve()), path.stat()) for path in files]
    return [[path, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev] for path, s in stats]


def _checksum(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
