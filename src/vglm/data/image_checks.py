"""Check pictures before training: all are decoded; of a very large data set only some headers are read.

Results are cached until a file changes, see `vglm.caching`.
"""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from vglm.caching import remembered_arrays
from vglm.data.hashing import describe_decoder
from vglm.data.images import check_image_header, decoding_threads, image_sha256
from vglm.data.look_alikes import thumbnail
from vglm.data.outline import Outline, first_rows
from vglm.data.problems import report_bad_rows
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import DataError

DECODED_AT_START = 20_000
"""Up to this many pictures, all are decoded and hashed before any training."""

DECODED_BYTES_AT_START = 2 * 2**30
"""The same limit for the pictures' files together."""

CACHE_KIND = "pictures"
"""Folder of the cache."""

HEADERS_AT_START = 256
"""Of more pictures, the headers of this many are read, evenly over the set."""

T = TypeVar("T")
Result = TypeVar("Result")


def check_images(
    root: Path, sources: Mapping[str, Sequence[Sample]], outlines: Mapping[str, Outline]
) -> tuple[dict[Path | ImageSlice, str], dict[Path | ImageSlice, NDArray[np.uint8]]]:
    """Open every picture of a small set, or read some headers of a large one.

    Args:
        root: The data set's folder, for messages.
        sources: Samples by the name of their file.
        outlines: Their outlines.

    Returns:
        `Sample.image_sha256` and `thumbnail` of the pictures that were decoded.

    Raises:
        DataError: Pictures cannot be opened; all of the first such file are in one message.
    """
    distinct = dict.fromkeys(chain.from_iterable(outline.pictures.values for outline in outlines.values()))
    distinct.pop(None, None)
    step = 1 if len(distinct) <= DECODED_AT_START else -(-len(distinct) // HEADERS_AT_START)
    chosen = set(islice(distinct, 0, None, step))
    samples: dict[str, Sample] = {}
    for name, outline in outlines.items():
        firsts = first_rows(outline.pictures.codes).tolist()
        for row, picture in zip(firsts, outline.pictures.values, strict=True):
            if picture in chosen and picture is not None:
                samples[picture] = sources[name][row]
                chosen.discard(picture)
    is_small = len(distinct) <= DECODED_AT_START and sum(map(_size, samples.values())) <= DECODED_BYTES_AT_START
    faults: dict[str, str] = {}
    decoded = _decode(samples, faults) if is_small else {}
    if not is_small:
        for picture, sample in tqdm(samples.items(), desc="checking images", unit="image", delay=2):
            if isinstance(sample.image, Path | ImageSlice):
                _note_fault(faults, picture, check_image_header, sample.image)
    for name, outline in outlines.items() if faults else ():
        _report_faults(root / name, outline, faults)
    hashes = {image: digest for image, (digest, _) in decoded.items()}
    return hashes, {image: small for image, (_, small) in decoded.items()}


_Looked = tuple[str, NDArray[np.uint8]]
"""`image_sha256` and `thumbnail` of a picture."""


def _decode(samples: Mapping[str, Sample], faults: dict[str, str]) -> dict[Path | ImageSlice, _Looked]:
    """Decode all pictures in files, unless that was done before; errors go to `faults`."""
    shown = {name: sample for name, sample in samples.items() if isinstance(sample.image, Path | ImageSlice)}
    images = [cast(Path | ImageSlice, sample.image) for sample in shown.values()]
    files = list(dict.fromkeys(image.file if isinstance(image, ImageSlice) else image for image in images))

    def look() -> dict[str, NDArray[Any]]:
        with decoding_threads() as pool:
            looks = pool.map(lambda named: _note_fault(faults, named[0], _look_at, named[1]), shown.items())
            looked = list(tqdm(looks, desc="checking images", unit="image", total=len(shown), delay=2))
        if faults:
            raise _Faulty
        digests = [np.frombuffer(bytes.fromhex(result[0]), np.uint8) for result in looked if result is not None]
        return {
            "sha256": np.array(digests, np.uint8),
            "thumbnails": np.array([result[1] for result in looked if result]),
        }

    if not images or not all(file.exists() for file in files):
        with suppress(_Faulty):
            look()
        return {}
    shown_as = [[str(sample.image), repr(sample.window)] for sample in shown.values()]
    facts = [shown_as, describe_decoder(), inspect.getsource(thumbnail)]
    try:
        arrays = remembered_arrays(CACHE_KIND, files, facts, look)
    except _Faulty:
        return {}
    return {
        image: (bytes(digest).hex(), small)
        for image, digest, small in zip(images, arrays["sha256"], arrays["thumbnails"], strict=True)
    }


class _Faulty(Exception):
    """Some pictures cannot be opened."""


def _look_at(sample: Sample) -> _Looked:
    picture = sample.open_image()
    assert picture is not None
    return image_sha256(picture), thumbnail(picture)


def _note_fault(faults: dict[str, str], name: str, look: Callable[[T], Result], at: T) -> Result | None:
    try:
        return look(at)
    except DataError as error:
        faults[name] = str(error)
        return None


def _report_faults(path: Path, outline: Outline, faults: Mapping[str, str]) -> None:
    """Refuse a file with rows whose picture cannot be opened."""
    problems = {
        id.rpartition("#")[2]: faults[picture]
        for id, picture in zip(outline.ids, outline.pictures, strict=True)
        if picture is not None and picture in faults
    }
    numbers = {row.partition(".")[0]: fault for row, fault in problems.items()}  # row 5's first picture is 5.1
    if all(number.isdigit() for number in numbers):
        report_bad_rows(path, {int(row): fault for row, fault in numbers.items()}, len(outline))
    report_bad_rows(path, problems, len(outline))


def _size(sample: Sample) -> int:
    """Bytes to read."""
    image = sample.image
    if isinstance(image, Path):
        return os.path.getsize(image) if os.path.exists(image) else 0
    return image.size if isinstance(image, ImageSlice) else 0
