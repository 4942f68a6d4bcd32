"""Hashes of files, folders and the reading code, which identify a cached table and stand in a run's record."""

import hashlib
import inspect
import os
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL

from vglm.files import file_sha256

HASHED_BYTES = 256 * 2**20
"""Files that are larger together are compared by their sizes and by pieces of them, rather than by every byte."""

_PIECES = 16
_PIECE_BYTES = 2**16


def hash_file(path: Path, whole_bytes: int = HASHED_BYTES) -> str:
    """Identify a file by its content.

    Args:
        path: The file.
        whole_bytes: How large it may be to be read whole.

    Returns:
        SHA-256 of all of it; of a larger file, of its size and of 16 pieces of 64 KB spread over it.
    """
    size = path.stat().st_size
    if size <= whole_bytes:
        return file_sha256(path)
    digest = hashlib.sha256(f"{size} bytes, {_PIECES} pieces\n".encode())
    with path.open("rb") as file:
        for piece in range(_PIECES):
            file.seek((size - _PIECE_BYTES) * piece // (_PIECES - 1))
            digest.update(file.read(_PIECE_BYTES))
    return digest.hexdigest()


def hash_names(folder: Path) -> str:
    """A hash of the names of all files in a folder, without reading their content."""
    names = sorted(Path(parent, file).as_posix() for parent, _, files in os.walk(folder) for file in files)
    return hashlib.sha256("\0".join(os.path.relpath(name, folder) for name in names).encode()).hexdigest()


@cache
def hash_reading_code() -> str:
    """A hash of the code that turns files into samples, so that a table made by an older reader is not used."""
    import vglm.data.readers
    from vglm.data import arrow_arrays, dicom, images, sample, table, windowing

    readers = Path(inspect.getfile(vglm.data.readers)).parent
    modules = [Path(inspect.getfile(module)) for module in (arrow_arrays, table, sample, images, dicom, windowing)]
    return hashlib.sha256(
        b"\0".join(file.read_bytes() for file in [*sorted(readers.glob("*.py")), *modules])
    ).hexdigest()


@cache
def describe_decoder() -> str:
    """What turns a file into pixels: the code that does, and the libraries under it."""
    code = hashlib.sha256()
    for module in ("dicom", "images", "sample", "slices", "windowing"):
        code.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    versions = [f"pillow {PIL.__version__}", f"numpy {np.__version__}"]
    with suppress(metadata.PackageNotFoundError):
        versions.append(f"pydicom {metadata.version('pydicom')}")
    return f"{code.hexdigest()} {versions}"
