"""A divided data set: its splits, what they share (leakage), and the record of how it was divided.

splits.train[0].answer          # "这张图片的背景是金色的沙滩。"
splits.files["train.json"]      # SHA-256
splits.trained_on_test()        # [] where train and test share no picture
splits.leakage                  # [] where they share no study, patient or star either
splits.look_alikes              # [] where no test picture is a training picture re-encoded, flipped or cropped
"""

import hashlib
import inspect
import logging
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vglm.caching import remembered
from vglm.data.arrow_arrays import number_array, numbers_of, text_array, text_scalar
from vglm.data.division import SPLITS, shot_order, split_by_group
from vglm.data.grouping import find_strata, merge_by_picture
from vglm.data.hashing import hash_file
from vglm.data.look_alikes import Scope, find_copies, search_scope
from vglm.data.outline import Column, Outline, own_groups, picture_name
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.table import SampleTable, Selection, encoded_pictures, rows_of
from vglm.errors import ConfigError, DataError, typed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leakage:
    """What two splits must not have in common, but have.

    Attributes:
        of: The split that is to be held out.
        seen_in: The split that is learned from.
        samples: How many samples of `of` are affected.
        groups: How many groups are in both.
        pictures: How many pictures, by path and where known by content, are in both.
        example: The id of an affected sample.
    """

    of: str
    seen_in: str
    samples: int
    groups: int
    pictures: int
    example: str

    @property
    def shared(self) -> str:
        """What is shared: `groups`, `pictures` or `both`; a group that is only a picture's name counts as a picture."""
        return "both" if self.groups and self.pictures else "groups" if self.groups else "pictures"

    def __str__(self) -> str:
        """One sentence."""
        counts = {"groups": self.groups, "pictures": self.pictures}
        shared = " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        return (
            f"{self.samples:,} {self.of} samples are not independent of {self.seen_in}: {shared} are in both"
            f" (first: {self.example})"
        )


@dataclass(frozen=True)
class LookAlike:
    """A test sample whose picture is a training picture once more.

    Attributes:
        tested: The test sample.
        learned: The first training sample that shows the other picture.
        how: `same pixels`, or as `vglm.data.look_alikes.Copy`.
    """

    tested: Sample
    learned: Sample
    how: str


def find_leakage(
    held_out: Outline, learned: Outline, *, names: tuple[str, str], contents: Mapping[str, str] | None = None
) -> Leakage | None:
    """Compare a split that should be independent with the one that is learned from.

    Args:
        held_out: Rows of the first.
        learned: Rows of the second.
        names: What the two are called.
        contents: Picture name -> hash of its content; unknown ones left out.

    Returns:
        What they share, or None.
    """
    known = contents or {}
    shown, seen = (
        outline.pictures.map(lambda picture: picture and known.get(picture, picture)) for outline in (held_out, learned)
    )
    seen_pictures = set(seen.values) - {None}
    # a group that is only a picture's name is compared as a picture
    seen_groups = {learned.groups.values[code] for code in np.unique(learned.groups.codes[~own_groups(learned)])}
    in_groups = held_out.groups.where(seen_groups.__contains__) & ~own_groups(held_out)
    in_pictures = shown.where(seen_pictures.__contains__)
    shared = np.flatnonzero(in_groups | in_pictures)
    if not len(shared):
        return None
    return Leakage(
        *names,
        samples=len(shared),
        groups=len({held_out.groups.values[code] for code in np.unique(held_out.groups.codes[in_groups])}),
        pictures=len({shown.values[code] for code in np.unique(shown.codes[in_pictures])}),
        example=held_out.ids[int(shared[0])],
    )


@dataclass(frozen=True)
class Splits:
    """A data set, read and checked.

    Attributes:
        train: Samples to learn from.
        test: Samples to evaluate on.
        retention: Samples of other tasks, to see what was forgotten; empty where there are none.
        files: SHA-256 of every file used, by its path relative to the data set's folder: the splits' own files, and
            the pictures if they were decoded at the start, see `vglm.data.image_checks`.
        image_hashes: `Sample.image_sha256` of the pictures decoded at the start.
        thumbnails: What `look_alikes` compares, of the same pictures.
        validation: Samples to choose settings by; empty where there are none.
        plan: How the samples were divided, for run.json; empty for generated data.
        allow_leakage: Whether the config knows that test samples are learned from, and accepts it.
        synthetic: What generated the samples, a folder or a function; None for data that was found.
    """

    train: Sequence[Sample]
    test: Sequence[Sample]
    retention: Sequence[Sample]
    files: Mapping[str, str] = field(repr=False)
    image_hashes: Mapping[Path | ImageSlice, str] = field(default_factory=dict, repr=False)
    validation: Sequence[Sample] = field(default_factory=list)
    plan: Mapping[str, Any] = field(default_factory=dict, repr=False)
    allow_leakage: bool = False
    synthetic: str | None = None
    thumbnails: Mapping[Path | ImageSlice, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

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
        shared = (
            find_leakage(
                learned if samples is self.train else _outline(samples),
                learned,
                names=(name, "train"),
                contents=contents,
            )
            for name, samples in held_out.items()
        )
        return [leakage for leakage in shared if leakage is not None]

    @property
    def look_alike_scope(self) -> Scope:
        """Which test pictures `look_alikes` can find: crops too, whole pictures alone, or none but equal ones."""
        tested, learned = self._by_content
        return "nothing" if tested is None or learned is None else search_scope(len(tested), len(learned))

    @cached_property
    def look_alikes(self) -> list[LookAlike] | None:
        """The test samples whose picture is a training picture: the same pixels, re-encoded, flipped or cropped.

        They are searched once for the same pictures. None where pictures were not decoded at the start, or are too many
        to be compared, see `look_alike_scope`.
        """
        tested, learned = self._by_content
        if self._copies is None or tested is None or learned is None:
            return None
        copied = {digest: rows for digest, rows in tested.items() if digest in self._copies}
        ordered = sorted(row for rows in copied.values() for row in rows)
        samples = dict(zip(ordered, _at(self.test, ordered), strict=True))
        pairs: list[LookAlike] = []
        for digest, rows in copied.items():
            other, how = self._copies[digest]
            first = self.train[learned[other][0]]
            pairs += (LookAlike(samples[row], first, how) for row in rows)
        return pairs

    @cached_property
    def _copies(self) -> dict[str, tuple[str, str]] | None:
        """Hash of a test picture -> that of the training picture that it is, and how; None as `look_alikes`."""
        tested, learned = self._by_content
        if tested is None or learned is None or self.look_alike_scope == "nothing":
            return None
        copied = {digest: (digest, "same pixels") for digest in tested.keys() & learned.keys()}
        names, firsts = [digest for digest in tested if digest not in copied], list(learned)
        small = {
            digest: self.thumbnails[image] for image, digest in self.image_hashes.items() if image in self.thumbnails
        }

        def search() -> dict[str, str]:
            copies = find_copies(*([small[digest] for digest in some] for some in (names, firsts)))
            return {names[copy.tested]: f"{firsts[copy.learned]} {copy.how}" for copy in copies}

        facts = [hash_file(Path(inspect.getfile(search_scope))), self.look_alike_scope, names, firsts]
        for digest, value in remembered("pictures", [], facts, search).items():
            other, _, how = value.partition(" ")
            copied[digest] = other, how
        return copied

    @cached_property
    def _by_content(self) -> "tuple[_RowsByContent | None, _RowsByContent | None]":
        """The rows of each picture in test and in training, by its hash; None where not all were decoded at first."""
        hashes = {str(image): digest for image, digest in self.image_hashes.items() if image in self.thumbnails}
        learned = _rows_by_content(self.train, hashes)
        return learned if self.test is self.train else _rows_by_content(self.test, hashes), learned

    def limited(self, limit: int | None) -> "Splits":
        """The same data with at most `limit` training samples, see `pick`."""
        return replace(self, train=pick(self.train, limit))

    def warn_of_tiny_test(self) -> None:
        """Warn before training that a test split of one picture measures nothing; folds are put together afterwards."""
        if self.plan.get("protocol") or not _is_listed(self.test) or not len(self.test):
            return
        shown = {str(sample.image) for sample, _ in zip(self.test, range(_LOOKED_AT), strict=False)}
        if len(self.test) == 1 or (len(shown) == 1 and len(self.test) <= _LOOKED_AT and shown != {"None"}):
            logger.warning(
                "the test split has a single picture (%s), so its score will be all or nothing. Give it more:"
                " dataset.test=<file>, or another dataset.division.fractions.",
                self.test[0].id,
            )

    def refuse_leakage(self, *, allow: bool = False) -> None:
        """Refuse to train without training samples, or where the test would measure memorisation.

        Test pictures that only look like training pictures give a warning.

        Args:
            allow: Continue with a warning; so does `allow_leakage`.

        Raises:
            DataError: There are no training samples; or there is `leakage`, and it is not allowed.
        """
        if not len(self.train):
            others = ", ".join(f"{len(rows):,} in {name}" for name in SPLITS if len(rows := getattr(self, name)))
            raise DataError(
                f"the data has no training samples; there are {others or 'none at all'}. It can be evaluated"
                f" ({typed('evaluate')} dataset=benchmark dataset.path=...). To train on it, take the split out of its"
                " rows and set dataset.division.fractions, or add rows of the split train."
            )
        tested, learned = (rows or {} for rows in self._by_content)
        all_copies = self._copies or {}
        if copies := [digest for digest in tested if digest in all_copies and all_copies[digest][1] != "same pixels"]:
            other, how = all_copies[copies[0]]
            logger.warning(
                "%d test samples show a training picture once more (first: %s is %s, %s). Reports of this run will be"
                ' stamped "LEAKED".',
                *(sum(len(tested[digest]) for digest in copies), self.test[tested[copies[0]][0]].id),
                *(self.train[learned[other][0]].id, how),
            )
        if not self.leakage:
            return
        findings = "; ".join(map(str, self.leakage))
        if allow or self.allow_leakage:
            logger.warning('%s. Every report of this run will be stamped "LEAKED".', findings)
            return
        raise DataError(
            f"{findings}. Take those samples out of one split; or divide the data by group (one file, and"
            " dataset=own, with dataset.division.group where the groups are not those meant); or train all the same"
            ' with allow_leakage=true, and every report will be stamped "LEAKED".'
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
                " out. Bring one: validation.json, dataset.validation, or dataset.division.fractions."
            )
        outline = Outline.of(self.train, "kind")
        contents = {str(image): digest for image, digest in self.image_hashes.items()}
        groups = merge_by_picture(outline.groups, outline.pictures, contents)
        shares = {"train": 1 - share, "validation": share}
        rows = split_by_group(groups, shares, strata=find_strata(outline)[0], seed=seed)
        held_out = {"samples": len(rows["validation"]), "of": len(self.train), "seed": seed}
        train, validation = (_at(self.train, rows[name]) for name in shares)
        return replace(self, train=train, validation=validation, plan={**self.plan, "validation": held_out})

    def record(self) -> dict[str, Any]:
        """How the data was divided, for `splits.json`: a later evaluation can prove by it what it was tested on.

        Returns:
            `files` and `plan`, and of each split that is not made on demand the number of samples and groups, one hash
            over all questions and answers, and the ids and groups themselves.
        """
        splits = {name: getattr(self, name) for name in (*SPLITS, "retention")}
        listed = {name: samples for name, samples in splits.items() if len(samples) and _is_listed(samples)}
        different = {id(samples): samples for samples in listed.values()}  # training and test may be the same
        described = {identity: describe_split(samples) for identity, samples in different.items()}
        return {
            "files": dict(self.files),
            "plan": dict(self.plan),
            "splits": {name: described[id(samples)] for name, samples in listed.items()},
        }

    def hash_images(self, samples: Iterable[Sample]) -> list[str | None]:
        """Hash pictures by content.

        Args:
            samples: Samples of any split.

        Returns:
            For each sample its `image_sha256`, None for a text-only sample.

        Raises:
            DataError: A picture that was not decoded at the start cannot be opened.
        """
        return [self._known_hash(sample) or sample.image_sha256() for sample in samples]

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

    def _known_hash(self, sample: Sample) -> str | None:
        return self.image_hashes.get(sample.image) if isinstance(sample.image, Path | ImageSlice) else None

    def _contents(self, samples: Sequence[Sample]) -> list[object]:
        """The key of each sample's input: its picture, or without one its text."""
        hashes = self.hash_images(samples)
        return [digest or (*sample.history, sample.question) for sample, digest in zip(samples, hashes, strict=True)]


def _at(samples: Sequence[Sample], rows: Sequence[int]) -> Sequence[Sample]:
    """Some samples of a split."""
    if isinstance(samples, list):
        return [samples[row] for row in rows]
    if isinstance(samples, Selection):
        groups = samples.groups
        return Selection(samples.samples, samples.indices[rows], groups and [groups[row] for row in rows])
    return Selection(samples, rows)


def pick(samples: Sequence[Sample], limit: int | None) -> Sequence[Sample]:
    """At most `limit` samples, in order, the same ones every time; None: all.

    Of the kinds of question, or where there is one kind alone of the answers, each is represented. The draw is seeded,
    so that sorted or periodic data is not sampled at the period of its classes.

    Args:
        samples: Of a split. From samples that are made or mixed on demand some are drawn whatever their kind.
        limit: How many.
    """
    if limit is None or len(samples) <= limit:
        return samples
    if not isinstance(samples, list | SampleTable | Selection):
        return [samples[row] for row in sorted(random.Random(_PICK_SEED).sample(range(len(samples)), limit))]
    outline = Outline.of(samples, "kind")
    has_kinds = len({str(kind) for kind in outline.fields["kind"] if kind is not None}) > 1
    strata = find_strata(outline, "kind" if has_kinds else None)[0]
    return [samples[row] for row in sorted(shot_order(outline.ids, strata=strata, seed=_PICK_SEED)[:limit])]


_PICK_SEED = 1
_LOOKED_AT = 100
"""Number of test samples to check before a test split counts as one picture."""


def _is_listed(samples: Sequence[Sample]) -> bool:
    """Whether going through the samples makes none of them."""
    parts = getattr(samples, "parts", ())
    return isinstance(samples, list | SampleTable | Selection) or (len(parts) > 0 and all(map(_is_listed, parts)))


def _outline(samples: Sequence[Sample]) -> Outline:
    """The columns that show leakage; of a mixture those of its parts, and none of samples made on demand."""
    parts: Sequence[Sequence[Sample]] = getattr(samples, "parts", [samples])
    return Outline.joined([Outline.of_pictures(part) for part in parts if _is_listed(part)])


_RowsByContent = Mapping[str, NDArray[np.intp]]
"""The rows of each picture, ascending, by its hash."""


def _rows_by_content(samples: Sequence[Sample], hashes: Mapping[str, str]) -> _RowsByContent | None:
    """The rows of each picture; None where a picture has no hash, or samples are made on demand."""
    if not _is_listed(samples):
        return None
    pictures = _pictures(samples)
    digests = [picture and hashes.get(picture, "") for picture in pictures.values]
    if "" in digests:
        return None
    numbers = {digest: number for number, digest in enumerate(dict.fromkeys(digests))}
    contents = np.array([numbers[digest] for digest in digests], np.intp)[pictures.codes]
    order = np.argsort(contents, kind="stable")
    counts = np.bincount(contents, minlength=len(numbers))
    ends = np.cumsum(counts)
    starts = ends - counts
    return {digest: order[starts[number] : ends[number]] for digest, number in numbers.items() if digest is not None}


def _pictures(samples: Sequence[Sample]) -> Column[str | None]:
    """The name of each sample's picture."""
    if (stored := rows_of(samples, ("image", "offset", "size"))) is None:
        return Column(None if sample.image is None else picture_name(sample) for sample in samples)
    pictures: Column[str | None] = Column()
    for rows in stored:
        pictures.merge(*encoded_pictures(rows))
    return pictures


def fingerprint(samples: Iterable[Sample]) -> str:
    """A hash of all questions and answers of a split, in order.

    Args:
        samples: The split. Of a picture only the file's name counts; its content has a hash of its own.

    Returns:
        SHA-256, the same wherever the data lies.
    """
    digest = hashlib.sha256()
    for sample in samples:
        _update(digest, sample)
    return digest.hexdigest()


def describe_split(samples: Iterable[Sample]) -> dict[str, Any]:
    """What `splits.json` says of one split: counts, hash, and the ids and groups themselves."""
    digest = hashlib.sha256()
    ids: list[str] = []
    groups: dict[str, None] = {}
    stored = rows_of(samples, ("id", "group", "image", "offset", "size", "language", "questions", "answers"))
    if stored is None:
        for sample in samples:
            _update(digest, sample)
            ids.append(sample.id)
            groups[sample.group] = None
    for rows in stored or ():  # without making the samples
        digest.update(_lines(rows))
        ids += rows.column("id").to_pylist()
        groups.update(dict.fromkeys(rows.column("group").unique().to_pylist()))
    return {
        "samples": len(ids),
        "groups": len(groups),
        "sha256": digest.hexdigest(),
        "ids": ids,
        "group_names": list(groups),
    }


def _update(digest: "hashlib._Hash", sample: Sample) -> None:
    picture = None if sample.image is None else picture_name(sample)
    questions, answers = ([getattr(turn, text) for turn in sample.turns] for text in ("question", "answer"))
    digest.update(_line(sample.id, sample.group, picture, sample.language, questions, answers).encode())


def _line(
    id: str, group: str, picture: str | None, language: str, questions: Sequence[str], answers: Sequence[str]
) -> str:
    turns = "\x1f".join(f"{question}\x1e{answer}" for question, answer in zip(questions, answers, strict=True))
    return f"{id}\0{group}\0{_base_name(picture)}\0{language == 'en'}\0{turns}\n"


def _lines(rows: pa.RecordBatch) -> pa.Buffer:
    """What `_line` makes of some rows of a table, one after the other in UTF-8."""
    import pyarrow.compute as pc  # which takes time to load, and is for tables alone

    questions, answers = rows.column("questions"), rows.column("answers")
    pairs = pc.binary_join_element_wise(questions.flatten(), answers.flatten(), text_scalar("\x1e"))
    offsets = numbers_of(questions.offsets)
    turns = pc.binary_join(pa.ListArray.from_arrays(number_array(offsets - offsets[0]), pairs), text_scalar("\x1f"))
    pictures, codes = encoded_pictures(rows)
    names = text_array(map(_base_name, pictures)).take(number_array(codes))
    is_english = pc.equal(rows.column("language"), text_scalar("en"))
    languages = pc.if_else(is_english, text_scalar("True"), text_scalar("False"))
    columns = (rows.column("id"), rows.column("group"), names, languages, turns)
    whole = pc.binary_join_element_wise(*columns, text_scalar("\0"))
    lines = pc.binary_join_element_wise(whole, text_scalar(""), text_scalar("\n"))
    return lines.buffers()[2]


@lru_cache(maxsize=4096)
def _base_name(picture: str | None) -> str:
    return "" if picture is None else os.path.basename(picture)
