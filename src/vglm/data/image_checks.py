"""Look at pictures before any training: all those of a small data set are decoded, of a large one some headers read."""

import os
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from vglm.data.images import check_image_header, image_sha256
from vglm.data.look_alikes import thumbnail
from vglm.data.outline import Outline
from vglm.data.problems import report_bad_rows
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import DataError

DECODED_AT_START = 2000
"""Up to so many pictures, all are decoded and hashed before any training."""

DECODED_BYTES_AT_START = 128 * 2**20
"""The same limit for the pictures' files together."""

HEADERS_AT_START = 256
"""Of more pictures, so many have their headers read, evenly over the set."""


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
    distinct = dict.fromkeys(chain.from_iterable(outline.pictures for outline in outlines.values()))
    distinct.pop(None, None)
    step = 1 if len(distinct) <= DECODED_AT_START else -(-len(distinct) // HEADERS_AT_START)
    chosen = set(islice(distinct, 0, None, step))
    samples = {
        picture: sources[name][row]
        for name, outline in outlines.items()
        for row, picture in enumerate(outline.pictures)
        if picture in chosen
    }
    is_small = len(distinct) <= DECODED_AT_START and sum(map(_size, samples.values())) <= DECODED_BYTES_AT_START
    hashes: dict[Path | ImageSlice, str] = {}
    thumbnails: dict[Path | ImageSlice, NDArray[np.uint8]] = {}
    faults: dict[str, str] = {}
    for picture, sample in tqdm(samples.items(), desc="checking images", unit="image", delay=2):
        if not isinstance(sample.image, Path | ImageSlice):
            continue
        try:
            if not is_small:
                check_image_header(sample.image)
            elif (shown := sample.open_image()) is not None:
                hashes[sample.image], thumbnails[sample.image] = image_sha256(shown), thumbnail(shown)
        except DataError as error:
            faults[picture] = str(error)
    for name, outline in outlines.items():
        _report_faults(root / name, outline, faults)
    return hashes, thumbnails


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
