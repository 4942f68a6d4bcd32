"""Read a data set's splits, with the hashes by which a later run can tell what was trained on.

splits = load_splits("data/background_synthetic", probe="probe.json")
splits.train[0].answer          # "这张图片的背景是金色的沙滩。"
splits.files["train.json"]      # SHA-256
splits.trained_on_test()        # [] where train and test share no picture
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from vglm.data.images import check_image_header, image_sha256
from vglm.data.problems import report_bad_rows
from vglm.data.readers import read_samples
from vglm.data.sample import ImageSlice, Sample
from vglm.errors import DataError

DECODED_AT_START = 2000
"""Up to so many pictures, all are decoded and hashed before any training; of a larger set only the headers are read."""

_PUBLISHED_FILE = "dataset.json"
_DEFAULT_FILES = ("train.json", "test.json")


@dataclass(frozen=True)
class Splits:
    """A data set, read and checked.

    Attributes:
        train: Samples to learn from.
        test: Samples to evaluate on.
        probe: Samples of other tasks, to see what was forgotten; empty where there are none.
        files: SHA-256 of every file used, by its path relative to the data set's folder: the splits' own files, and
            the pictures if there are at most `DECODED_AT_START`.
        image_hashes: `image_sha256` of the pictures decoded at the start.
    """

    train: Sequence[Sample]
    test: Sequence[Sample]
    probe: Sequence[Sample]
    files: Mapping[str, str] = field(repr=False)
    image_hashes: Mapping[Path, str] = field(default_factory=dict, repr=False)

    @property
    def data_hash(self) -> str:
        """One SHA-256 for all of `files`."""
        lines = (f"{digest}  {name}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def hash_images(self, samples: Iterable[Sample]) -> list[str | None]:
        """Tell pictures apart by content.

        Args:
            samples: Samples of any split.

        Returns:
            For each sample the `image_sha256` of its picture, or None for a text-only sample.

        Raises:
            DataError: A picture that was not decoded at the start cannot be opened.
        """
        return [None if sample.image is None else self._hash_image(sample.image) for sample in samples]

    def trained_on_test(self) -> list[Sample]:
        """Find the test samples that measure memory: their picture, under whatever name, is in the training split.

        Returns:
            Those samples in order; of text-only samples those whose words up to the last question are in that split.

        Raises:
            DataError: As `hash_images`.
        """
        seen = set(self._contents(self.train))
        contents = self._contents(self.test)
        return [sample for sample, content in zip(self.test, contents, strict=True) if content in seen]

    def _hash_image(self, image: Path | ImageSlice | Image.Image) -> str:
        known = self.image_hashes.get(image) if isinstance(image, Path) else None
        return known or image_sha256(image)

    def _contents(self, samples: Sequence[Sample]) -> list[object]:
        """What stands for each sample's input: its picture, or without one its words."""
        hashes = self.hash_images(samples)
        return [digest or (*sample.history, sample.question) for sample, digest in zip(samples, hashes, strict=True)]


def load_splits(
    path: str | Path,
    *,
    train: str = "train.json",
    test: str = "test.json",
    probe: str | None = None,
    image_dir: str | Path | None = None,
    skip_missing: bool = False,
) -> Splits:
    """Read the splits of a data set and check every row and picture.

    Args:
        path: The data set's folder, or a single file, which is then both train and test. A folder without `train` and
            `test`, but with the published `dataset.json`, counts as that file.
        train: File of the training split, relative to `path`.
        test: File of the test split.
        probe: File of the probe, if there is one.
        image_dir: Where pictures lie, relative to `path`; beside each file if None.
        skip_missing: Leave out rows whose picture is missing, rather than refuse the file.

    Returns:
        The splits. Samples hold paths; pictures are opened again batch by batch.

    Raises:
        DataError: A file is missing or cannot be read, has bad rows, or names pictures that cannot be opened. All bad
            rows of a file are in one message.
    """
    root, train, test = _find_files(Path(path), train, test)
    pictures = None if image_dir is None else root / image_dir
    names = dict.fromkeys(name for name in (train, test, probe) if name is not None)
    samples = {
        name: list(
            read_samples(root / name, format="fewshot", image_dir=pictures, skip_missing=skip_missing, name=name)
        )
        for name in names
    }
    image_hashes = _check_images(root, samples)
    used = [*(root / name for name in names), *image_hashes]
    return Splits(
        train=samples[train],
        test=samples[test],
        probe=[] if probe is None else samples[probe],
        files={Path(os.path.relpath(file, root)).as_posix(): _hash_file(file) for file in used},
        image_hashes=image_hashes,
    )


def _find_files(path: Path, train: str, test: str) -> tuple[Path, str, str]:
    """The data set's folder and the names of its train and test files."""
    if path.is_file():
        return path.parent, path.name, path.name
    if not path.is_dir():
        raise DataError(f"data set {path} does not exist. Expected a folder with {train} and {test}, or one JSON file.")
    absent = [name for name in dict.fromkeys((train, test)) if not (path / name).is_file()]
    if absent == list(_DEFAULT_FILES) and (path / _PUBLISHED_FILE).is_file():
        return path, _PUBLISHED_FILE, _PUBLISHED_FILE
    if absent:
        found = ", ".join(sorted(file.name for file in path.glob("*.json"))) or "no JSON file"
        raise DataError(
            f"data set {path} has no {' and no '.join(absent)}; it holds {found}. "
            "Name its files in dataset.train and dataset.test."
        )
    return path, train, test


def _check_images(root: Path, samples: Mapping[str, Sequence[Sample]]) -> dict[Path, str]:
    """Open every picture once; return the hashes of their contents, or nothing where there are too many to decode."""
    images = list(
        dict.fromkeys(each.image for rows in samples.values() for each in rows if isinstance(each.image, Path))
    )
    is_small = len(images) <= DECODED_AT_START
    hashes: dict[Path, str] = {}
    faults: dict[Path, str] = {}
    for image in tqdm(images, desc="checking images", unit="image", delay=2):
        try:
            if is_small:
                hashes[image] = image_sha256(image)
            else:
                check_image_header(image)
        except DataError as error:
            faults[image] = str(error)
    for name, rows in samples.items():
        problems = {
            int(each.id.rpartition("#")[2]): faults[each.image]
            for each in rows
            if isinstance(each.image, Path) and each.image in faults
        }
        report_bad_rows(root / name, problems, len(rows))
    return hashes


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
