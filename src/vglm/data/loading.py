"""Read a data set in any known format, divide it honestly, and hash what a later run needs to know of it.

splits = load_splits("data/background_synthetic", probe="probe.json")
splits.train[0].answer          # "这张图片的背景是金色的沙滩。"
splits.files["train.json"]      # SHA-256
splits.trained_on_test()        # [] where train and test share no picture
splits.leakage                  # [] where they share no study, patient or star either

splits = load_splits("openi/openi-zh.json", image_dir="images", fractions={"train": 0.8, "test": 0.2})
splits.plan["group"]            # "inferred from the pictures' names: the part before _"
"""

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from vglm.caching import cache_folder
from vglm.data.images import check_image_header, image_sha256
from vglm.data.problems import BadRow, only_samples, report_bad_rows
from vglm.data.readers import class_folders, is_hub_name, read, recognise
from vglm.data.sample import ImageSlice, Sample
from vglm.data.splits import (
    SPLITS,
    Leakage,
    Outline,
    Protocol,
    describe_split,
    find_groups,
    find_leakage,
    find_strata,
    fingerprint,
    fold_of_rows,
    merge_groups,
    shot_order,
    split_by_group,
)
from vglm.data.table import SampleTable, Selection, write_table
from vglm.errors import CacheError, ConfigError, DataError
from vglm.files import check_regular, explained, file_sha256, put_in_place, workplace

DECODED_AT_START = 2000
"""Up to so many pictures, all are decoded and hashed before any training."""

HEADERS_AT_START = 256
"""Of more pictures, so many have their headers read, evenly over the set."""

DECODED_BYTES_AT_START = 128 * 2**20
"""The same limit for the pictures' files together."""

LISTED_ROWS = 2000
"""Up to so many rows of a file are held in memory; of a longer file, a memory-mapped table is kept in the cache."""

HASHED_BYTES = 256 * 2**20
"""Files that are larger together are told apart by their sizes and by pieces of them, rather than by every byte."""

_KEY = 32
_PIECES = 16
_PIECE_BYTES = 2**16

_PUBLISHED_FILE = "dataset.json"
_SPLIT_FILES = {"train": "train.json", "validation": "validation.json", "test": "test.json"}
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".dcm", ".ppm", ".jp2", ".avif")

logger = logging.getLogger(__name__)


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
        validation: Samples to choose settings by; empty where there are none.
        plan: How the samples were divided, for run.json; empty for generated data.
        allow_leakage: Whether the config knows that test samples are learned from, and accepts it.
    """

    train: Sequence[Sample]
    test: Sequence[Sample]
    probe: Sequence[Sample]
    files: Mapping[str, str] = field(repr=False)
    image_hashes: Mapping[Path | ImageSlice, str] = field(default_factory=dict, repr=False)
    validation: Sequence[Sample] = field(default_factory=list)
    plan: Mapping[str, Any] = field(default_factory=dict, repr=False)
    allow_leakage: bool = False

    @property
    def data_hash(self) -> str:
        """One SHA-256 for all of `files`."""
        lines = (f"{digest}  {name}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @cached_property
    def leakage(self) -> list[Leakage]:
        """What test and validation share with train: groups, and pictures by path and by content where it is known.

        Samples that are made on demand are not looked through.
        """
        learned = _outline(self.train)
        contents = {str(image): digest for image, digest in self.image_hashes.items()}
        held_out = {"test": self.test, "validation": self.validation}
        found = [
            find_leakage(_outline(samples), learned, names=(name, "train"), contents=contents)
            for name, samples in held_out.items()
        ]
        return [each for each in found if each is not None]

    def refuse_leakage(self, *, allow: bool = False) -> None:
        """Stop a training run that has nothing to learn from, or whose test would measure memory.

        Args:
            allow: Go on nevertheless, with a warning; so does `allow_leakage`.

        Raises:
            DataError: There are no training samples; or there is `leakage`, and nobody allows it.
        """
        if not len(self.train):
            others = ", ".join(f"{len(rows):,} in {name}" for name in SPLITS if len(rows := getattr(self, name)))
            raise DataError(
                f"the data has no training samples; there are {others or 'none at all'}. It can be evaluated"
                " (python evaluate.py dataset=benchmark dataset.path=...). To train on it, take the split out of its"
                " rows and set dataset.fractions, or add rows of the split train."
            )
        if not self.leakage:
            return
        findings = "; ".join(map(str, self.leakage))
        if allow or self.allow_leakage:
            logger.warning('%s. Every report of this run will be stamped "LEAKED".', findings)
            return
        raise DataError(
            f"{findings}. Take those samples out of one split; or divide the data by group (one file, and"
            " dataset=own or dataset.fractions={train:0.8,validation:0.1,test:0.1}, with dataset.group where the groups"
            " are not those meant); or train all the same with allow_leakage=true, and every report will be stamped"
            ' "LEAKED".'
        )

    def hold_out_validation(self, share: float, seed: int = 1) -> "Splits":
        """Take a validation split out of the training split, by group, where the data has none.

        Args:
            share: Of the training samples, between 0 and 1.
            seed: Of the division.

        Returns:
            The same data if it has a validation split, else with one; the plan says so.

        Raises:
            ConfigError: The training samples are a mixture, or made on demand, so that there are no groups to divide.
            DataError: There are fewer than two groups.
        """
        if len(self.validation):
            return self
        if not _is_listed(self.train) or hasattr(self.train, "parts"):
            raise ConfigError(
                "the data has no validation split, and of a mixture, or of samples made on demand, none can be held"
                " out. Bring one: validation.json, dataset.validation, or dataset.fractions."
            )
        outline = Outline.of(self.train, "kind")
        contents = {str(image): digest for image, digest in self.image_hashes.items()}
        groups = merge_groups(outline.groups, [name and contents.get(name, name) for name in outline.pictures])
        shares = {"train": 1 - share, "validation": share}
        rows = split_by_group(groups, shares, strata=find_strata(outline)[0], seed=seed)
        held_out = f"{len(rows['validation'])} of {len(self.train)} training samples, by group, seed {seed}"
        train, validation = (_at(self.train, rows[name]) for name in shares)
        return replace(self, train=train, validation=validation, plan={**self.plan, "validation": held_out})

    def record(self) -> dict[str, Any]:
        """How the data was divided, for `splits.json`: a later evaluation can prove by it what it was tested on.

        Returns:
            `files` and `plan`, and of each split that is not made on demand the number of samples and groups, one hash
            over all questions and answers, and the ids and groups themselves.
        """
        splits = {name: getattr(self, name) for name in (*SPLITS, "probe")}
        return {
            "files": dict(self.files),
            "plan": dict(self.plan),
            "splits": {
                name: describe_split(samples)
                for name, samples in splits.items()
                if len(samples) and _is_listed(samples)
            },
        }

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
        known = None if isinstance(image, Image.Image) else self.image_hashes.get(image)
        return known or image_sha256(image)

    def _contents(self, samples: Sequence[Sample]) -> list[object]:
        """What stands for each sample's input: its picture, or without one its words."""
        hashes = self.hash_images(samples)
        return [digest or (*sample.history, sample.question) for sample, digest in zip(samples, hashes, strict=True)]


def load_splits(
    path: str | Path,
    *,
    format: str | None = None,
    options: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    train: str | None = None,
    test: str | None = None,
    validation: str | None = None,
    probe: str | None = None,
    image_dir: str | Path | None = None,
    skip_missing: bool = False,
    group: str | None = None,
    fractions: Mapping[str, float] | None = None,
    stratify: str | None = None,
    seed: int = 1,
    protocol: Protocol | None = None,
    shots: int | None = None,
    shot_seed: int = 1,
    folds: int | None = None,
    fold: int | None = None,
    allow_leakage: bool = False,
) -> Splits:
    """Read a data set, divide it, and check every row and, in small sets, every picture.

    Splits come from where the data itself has them: files of their own (`train.json`, `validation.json`, `test.json`,
    or those named), or rows that say which split they are in. Data without any is divided by `fractions`; without
    those, one file is both train and test.

    Args:
        path: The data set's folder, a single file, or `hf://owner/name`. A folder without `train` and `test`, but with
            the published `dataset.json`, counts as that file.
        format: Name of the format, see `vglm.data.readers`; recognised by the content if None.
        options: The format's own options.
        columns: What the columns of a table are called: `{"image": "Bild", "question": "Frage", "answer": "Antwort"}`.
        train: File of the training split, relative to `path`.
        test: File of the test split.
        validation: File of the validation split.
        probe: File of the probe, if there is one.
        image_dir: Where pictures lie, relative to `path`; beside each file if None.
        skip_missing: Leave out rows whose picture is missing, rather than refuse the file. They are counted and told.
        group: What must not be divided, see `find_groups`; inferred if None.
        fractions: Share of each split, for data that brings none: `{"train": 0.8, "validation": 0.1, "test": 0.1}`.
        stratify: What to spread evenly over the splits, see `find_strata`; inferred if None.
        seed: Of the division. It has no part in which shots are taken.
        protocol: `few_shot` trains on `shots` samples of the training split; `k_fold` and `leave_one_out` test on one
            `fold` and train on the others, of the training split where the data sets a test split aside (which then
            stays untouched), else of everything.
        shots: Size of the few-shot subset; a larger one of the same `shot_seed` contains the smaller.
        shot_seed: Another one takes other shots.
        folds: Number of folds of `k_fold`.
        fold: Which fold is tested on, counting from 0.
        allow_leakage: Let a training run go on though it learns from test samples; its reports are stamped.

    Returns:
        The splits. Samples hold paths; pictures are opened again batch by batch.

    Raises:
        ConfigError: Format, option, fractions or protocol cannot be; the message says what can.
        DataError: A file is missing or cannot be read, has bad rows, or names pictures that cannot be opened. All bad
            rows of a file are in one message.
    """
    data = _gather(
        path,
        names={"train": train, "validation": validation, "test": test, "probe": probe},
        reading={
            "format": format,
            "image_dir": image_dir,
            "skip_missing": skip_missing,
            "options": {**(options or {}), **({"columns": dict(columns)} if columns else {})},
        },
        is_to_be_divided=bool(fractions) or protocol in ("k_fold", "leave_one_out"),
        group=group,
        stratify=stratify,
    )
    settings = {"shots": shots, "shot_seed": shot_seed, "folds": folds, "fold": fold}
    rows, how = _divide(data, fractions, seed, protocol, settings)
    return Splits(
        **{name: data.select(rows[name]) for name in (*SPLITS, "probe")},
        files=data.files,
        image_hashes=data.image_hashes,
        plan={**data.plan, **how},
        allow_leakage=allow_leakage,
    )


def count_folds(path: str | Path, *, protocol: Protocol | None = None, folds: int | None = None, **dataset: Any) -> int:
    """How many runs `protocol=k_fold` or `protocol=leave_one_out` takes on a data set.

    Args:
        path: As for `load_splits`, and so is the rest.
        protocol: See there.
        folds: See there.
        **dataset: See there.

    Returns:
        `folds`, or the number of groups to be left out in turn.
    """
    if protocol == "k_fold":
        return _needed(folds, "folds")
    known = {**dataset, "protocol": "k_fold", "folds": 2, "fold": 0}
    splits = load_splits(path, **known)
    return int(splits.plan["protocol"]["groups"])


# --- dividing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Data:
    """All rows of a data set, source after source, before they are divided."""

    sources: Sequence[Sequence[Sample]]
    outline: Outline
    given: Mapping[str, Sequence[int]]  # split -> its rows, as the data itself says; empty where it does not
    groups: Sequence[str]
    strata: Sequence[str] | None
    undivided: Sequence[int]  # all rows but the probe's
    files: Mapping[str, str]
    image_hashes: Mapping[Path | ImageSlice, str]
    plan: Mapping[str, Any]

    def select(self, rows: Sequence[int]) -> Sequence[Sample]:
        """The samples of some rows, which are all of one source, under the groups found."""
        start = 0
        for source in self.sources:
            if rows and start <= rows[0] < start + len(source):
                break
            start += len(source)
        else:
            return []
        groups = [self.groups[row] for row in rows]
        changed = any(group != self.outline.groups[row] for group, row in zip(groups, rows, strict=True))
        if isinstance(source, list):
            samples = [source[row - start] for row in rows]
            return (
                [replace(each, group=group) for each, group in zip(samples, groups, strict=True)]
                if changed
                else samples
            )
        if len(rows) == len(source) and list(rows) == list(range(start, start + len(source))) and not changed:
            return source
        return Selection(source, [row - start for row in rows], groups if changed else None)


def _divide(
    data: _Data,
    fractions: Mapping[str, float] | None,
    seed: int,
    protocol: Protocol | None,
    settings: Mapping[str, Any],
) -> tuple[dict[str, Sequence[int]], dict[str, Any]]:
    """The rows of each split, and what is to be told of how they came to be there."""
    rows: dict[str, Sequence[int]] = {"train": [], "validation": [], "test": [], "probe": [], **data.given}
    how: dict[str, Any] = {"divided": "as the data says"}
    has_own_splits = bool(set(data.given) & set(SPLITS))
    if unknown := set(fractions or {}) - set(SPLITS):
        raise ConfigError(f"dataset.fractions: there is no split {min(unknown)!r}; choose from {', '.join(SPLITS)}.")
    if protocol in ("k_fold", "leave_one_out"):
        pool = rows["train"] if has_own_splits else data.undivided
        _refuse_empty(pool, protocol, data)
        groups, strata = _columns(data, pool)
        folds = _needed(settings["folds"], "folds") if protocol == "k_fold" else None
        numbers = fold_of_rows(groups, folds, strata=strata, seed=seed)
        count, fold = max(numbers) + 1, _needed(settings["fold"], "fold")
        if not 0 <= fold < count:
            raise ConfigError(f"dataset.fold must be from 0 to {count - 1}, got {fold}.")
        rows["train"] = [row for row, number in zip(pool, numbers, strict=True) if number != fold]
        rows["test"] = [row for row, number in zip(pool, numbers, strict=True) if number == fold]
        how = {"divided": f"fold {fold} of {count} by group", "seed": seed}
        how["protocol"] = {"name": protocol, "fold": fold, "folds": count, "groups": len(set(groups))}
    elif not has_own_splits and fractions:
        groups, strata = _columns(data, data.undivided)
        parts = split_by_group(groups, fractions, strata=strata, seed=seed)
        rows |= {name: [data.undivided[index] for index in part] for name, part in parts.items()}
        how = {"divided": "by group", "fractions": dict(fractions), "seed": seed}
    elif not has_own_splits:
        rows["train"] = rows["test"] = data.undivided
        how = {"divided": "not at all: train and test are the same"}
    if protocol == "few_shot":
        _refuse_empty(rows["train"], protocol, data)
        shots = _needed(settings["shots"], "shots")
        if not 0 < shots <= len(rows["train"]):
            raise ConfigError(
                f"dataset.shots must be from 1 to {len(rows['train'])}, the training split's size, got {shots}."
            )
        ids = [data.outline.ids[row] for row in rows["train"]]
        order = shot_order(ids, strata=_columns(data, rows["train"])[1], seed=settings["shot_seed"])
        rows["train"] = sorted(rows["train"][index] for index in order[:shots])
        how["protocol"] = {"name": protocol, "shots": shots, "shot_seed": settings["shot_seed"]}
    return rows, how


def _refuse_empty(train: Sequence[int], protocol: str, data: _Data) -> None:
    if not len(train):
        raise DataError(
            f"protocol={protocol} divides training samples, and there are none; only {', '.join(data.given)}."
        )


def _columns(data: _Data, rows: Sequence[int]) -> tuple[list[str], list[str] | None]:
    return [data.groups[row] for row in rows], None if data.strata is None else [data.strata[row] for row in rows]


def _needed(value: int | None, name: str) -> int:
    if value is None:
        advice = "python train.py protocol=<name> varies it over all its values"
        raise ConfigError(f"dataset.{name}: the protocol needs a value; give it as dataset.{name}=<number> ({advice}).")
    return value


# --- reading ----------------------------------------------------------------------------------------------------------


def _gather(
    path: str | Path,
    *,
    names: Mapping[str, str | None],
    reading: Mapping[str, Any],
    is_to_be_divided: bool,
    group: str | None,
    stratify: str | None,
) -> _Data:
    """Read all files and find out what belongs together and which splits the data itself brings."""
    root, files = _find_files(path, names, reading["format"], is_to_be_divided)
    reader = _Reader(root, **reading)
    sources = {name: reader.read(name) for name in dict.fromkeys(files.values())}
    named = {rule for rule in (group, stratify) if rule is not None} - {"answer", "none", "reader", "picture"}
    fields = {"split", "kind", *named}
    outlines = {name: Outline.of(samples, *fields) for name, samples in sources.items()}
    image_hashes = _check_images(root, sources, outlines)
    main, everything = Outline(fields={name: [] for name in fields}), Outline(fields={name: [] for name in fields})
    for name, each in outlines.items():
        everything.extend(each)
        if name != files.get("probe"):
            main.extend(each)
    groups, group_source = find_groups(main, group)
    strata, stratum_source = find_strata(main, stratify)
    plan = {"group": group_source, "left_out": dict(reader.left_out)}
    if is_to_be_divided:
        contents = {str(image): digest for image, digest in image_hashes.items()}
        groups = merge_groups(groups, [picture and contents.get(picture, picture) for picture in main.pictures])
        plan["spread"] = stratum_source
    used = {name: digest for source in sources for name, digest in reader.hashes(source).items()}
    for image in image_hashes:
        if isinstance(image, Path):
            used[Path(os.path.relpath(image, root)).as_posix()] = hash_file(image)
    return _Data(
        sources=list(sources.values()),
        outline=everything,
        given=_given_splits(root, files, outlines),
        groups=groups + everything.groups[len(groups) :],
        strata=strata,
        undivided=range(len(main)),
        files=used,
        image_hashes=image_hashes,
        plan=plan,
    )


def _find_files(
    path: str | Path, names: Mapping[str, str | None], format: str | None, is_to_be_divided: bool
) -> tuple[Path, dict[str, str]]:
    """The data set's folder and the file of each split; `all` for one that is not divided yet."""
    probe = {"probe": names["probe"]} if names["probe"] is not None else {}
    if is_hub_name(path):
        return Path(), {"all": str(path)}
    path = Path(path)
    if path.is_file():
        return path.parent, {"all": path.name, **probe}
    if not path.is_dir():
        if path.exists():
            check_regular(path, advice="Pass a folder or a file.")
        raise DataError(
            f"data set {path} does not exist. Expected a folder with train.json and test.json, or one JSON file."
        )
    files = {name: given or _SPLIT_FILES[name] for name, given in names.items() if name != "probe"}
    if names["validation"] is None and not (path / files["validation"]).is_file():
        del files["validation"]
    absent = [file for file in dict.fromkeys(files.values()) if not (path / file).exists()]
    if not absent:
        return path, {**files, **probe}
    is_named = any(names[split] is not None for split in SPLITS)
    if not is_named and len(absent) == len(files):
        if (path / _PUBLISHED_FILE).is_file():
            return path, {"all": _PUBLISHED_FILE, **probe}
        if format is not None or _is_recognised(path):
            return path, {"all": ".", **probe}
    if is_to_be_divided and absent == [files["test"]] and names["test"] is None:
        return path, {"all": files["train"], **probe}
    found = ", ".join(sorted(file.name for file in path.glob("*.json"))) or "no JSON file"
    raise DataError(
        f"data set {path} has no {' and no '.join(absent)}; it holds {found}. "
        "Name its files in dataset.train and dataset.test, or pass one file or another format's folder."
    )


def _is_recognised(path: Path) -> bool:
    try:
        recognise(path)
    except DataError:
        return False
    return True


def _given_splits(root: Path, files: Mapping[str, str], outlines: Mapping[str, Outline]) -> dict[str, Sequence[int]]:
    """The rows of each split that has a file of its own, or that its rows name."""
    starts = {}
    start = 0
    for name, outline in outlines.items():
        starts[name] = start
        start += len(outline)
    given: dict[str, Sequence[int]] = {
        split: range(starts[name], starts[name] + len(outlines[name]))
        for split, name in files.items()
        if split != "all"
    }
    if "all" not in files:
        return given
    name = files["all"]
    named = outlines[name].fields["split"]
    nameless = [outlines[name].ids[row] for row, split in enumerate(named) if split not in SPLITS]
    if len(nameless) == len(named):
        return given
    if nameless:
        raise DataError(
            f"{root / name}: {len(nameless)} of {len(named)} rows do not say which split they are in (first:"
            f" {nameless[0]}), and the others do. Give each of them one of {', '.join(SPLITS)}, or none to any."
        )
    for split in SPLITS:
        rows = [starts[name] + row for row, each in enumerate(named) if each == split]
        if rows:
            given[split] = rows
    return given


class _Reader:
    """Reads sources of one data set, through the cache where they are long."""

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
            self._hashes[name][name] = _names_sha256(self.root / name)
        key = self._key(name)
        for kept in cache_folder("tables").glob(f"{key[:_KEY]}-*.arrow"):
            try:
                if kept.is_file() and kept.stem == f"{key[:_KEY]}-{file_sha256(kept)[:_KEY]}":
                    table = SampleTable(kept)
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
            with explained(folder, error=CacheError), workplace(folder / "table") as place:
                write_table(place / "table.arrow", chain(listed, samples))
                if self.left_out or key.startswith("hub-"):  # what is missing today may be there tomorrow
                    key = f"again-{key}"
                kept = folder / f"{key[:_KEY]}-{file_sha256(place / 'table.arrow')[:_KEY]}.arrow"
                put_in_place(place / "table.arrow", kept)
        except CacheError as error:
            logger.warning("All rows of %s are held in memory, as their table is not cached: %s", name, error)
            self.left_out.pop(name, None)
            return list(self._samples(name))  # from the beginning
        return SampleTable(kept)

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
            "code": _code_hash(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _names_sha256(folder: Path) -> str:
    """A hash of what the files in a folder and below it are called, where names are all that is to be read."""
    names = sorted(Path(place, file).as_posix() for place, _, files in os.walk(folder) for file in files)
    return hashlib.sha256("\0".join(os.path.relpath(name, folder) for name in names).encode()).hexdigest()


def _other_than_pictures(folder: Path, *, is_deep: bool = True) -> Iterator[Path]:
    """Visible files that are not pictures, in the folder and if wanted below it."""
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if is_deep and not each.startswith(".")]
        visible = (file for file in files if not file.startswith(".") and not file.lower().endswith(_PICTURES))
        yield from (Path(place) / file for file in visible if os.path.isfile(os.path.join(place, file)))


def _code_hash() -> str:
    """A hash of the code that turns files into samples, so that a table made by an older reader is not used."""
    import vglm.data.readers
    import vglm.data.table

    readers = Path(inspect.getfile(vglm.data.readers)).parent
    files = [*sorted(readers.glob("*.py")), Path(inspect.getfile(vglm.data.table)), Path(inspect.getfile(Sample))]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


# --- checking ---------------------------------------------------------------------------------------------------------


def _check_images(
    root: Path, sources: Mapping[str, Sequence[Sample]], outlines: Mapping[str, Outline]
) -> dict[Path | ImageSlice, str]:
    """Open every picture of a small set, or some headers of a large one; return the hashes of what was decoded."""
    distinct = dict.fromkeys(chain.from_iterable(outline.pictures for outline in outlines.values()))
    distinct.pop(None, None)
    step = 1 if len(distinct) <= DECODED_AT_START else -(-len(distinct) // HEADERS_AT_START)
    chosen = set(islice(distinct, 0, None, step))
    images = {
        picture: sources[name][row].image
        for name, outline in outlines.items()
        for row, picture in enumerate(outline.pictures)
        if picture in chosen
    }
    is_small = len(distinct) <= DECODED_AT_START and sum(map(_size, images.values())) <= DECODED_BYTES_AT_START
    hashes: dict[Path | ImageSlice, str] = {}
    faults: dict[str, str] = {}
    for picture, image in tqdm(images.items(), desc="checking images", unit="image", delay=2):
        if not isinstance(image, Path | ImageSlice):
            continue
        try:
            if is_small:
                hashes[image] = image_sha256(image)
            else:
                check_image_header(image)
        except DataError as error:
            faults[picture] = str(error)
    if faults:
        for name, outline in outlines.items():
            problems = {
                id.rpartition("#")[2]: faults[picture]
                for id, picture in zip(outline.ids, outline.pictures, strict=True)
                if picture in faults
            }
            numbers = {
                place.partition(".")[0]: fault for place, fault in problems.items()
            }  # row 5's first picture is 5.1
            if all(number.isdigit() for number in numbers):
                report_bad_rows(root / name, {int(row): fault for row, fault in numbers.items()}, len(outline))
            report_bad_rows(root / name, problems, len(outline))
    return hashes


def _size(image: Path | ImageSlice | Image.Image | None) -> int:
    """Bytes to read."""
    if isinstance(image, Path):
        return os.path.getsize(image) if os.path.exists(image) else 0
    return image.size if isinstance(image, ImageSlice) else 0


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


def _at(samples: Sequence[Sample], rows: Sequence[int]) -> Sequence[Sample]:
    """Some samples of a split."""
    if isinstance(samples, list):
        return [samples[row] for row in rows]
    if isinstance(samples, Selection):
        groups = samples.groups
        return Selection(samples.samples, samples.indices[rows], groups and [groups[row] for row in rows])
    return Selection(samples, rows)


def _is_listed(samples: Sequence[Sample]) -> bool:
    """Whether going through the samples makes none of them."""
    parts = getattr(samples, "parts", ())
    return isinstance(samples, list | SampleTable | Selection) or (len(parts) > 0 and all(map(_is_listed, parts)))


def _outline(samples: Sequence[Sample]) -> Outline:
    """The columns that show leakage; of a mixture those of its parts, and none of samples made on demand."""
    parts: Sequence[Sequence[Sample]] = getattr(samples, "parts", [samples])
    return Outline.of(chain.from_iterable(part for part in parts if _is_listed(part)))
