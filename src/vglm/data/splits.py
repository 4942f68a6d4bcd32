"""Divide samples so that no study, patient or star is on both sides, and prove later how they were divided.

    split_by_group(["2", "2", "861", "2577"], {"train": 0.5, "test": 0.5}, seed=1)
    {"train": [0, 1], "test": [2, 3]}

Everything here is a function of the seed and of names (groups, ids, strata), never of the order of rows or of a random
generator's state, so that the same data is divided alike on every machine and in every process.
"""

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vglm.data.ids import Id, folder_ids, group_name, ids_in
from vglm.data.sample import Sample
from vglm.data.table import SampleTable, Selection
from vglm.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
Protocol = Literal["few_shot", "k_fold", "leave_one_out"]
"""Experiments of several runs: subsets of the training split by size and seed, or every part held out once."""

INFERRED_SHARE = 0.9
"""So many of the pictures must be named `<study>_<view>` before the name decides what belongs together."""

# One view of a study: OpenI's 2_1 and CXR2384_IM-0942-1001, Kaggle's 1_IM-0001-4001.dcm, NIH's 00000013_005;
# not IMG_2031 or train_003.
VIEW_OF_STUDY = re.compile(r"([A-Za-z]{0,4}\d+)_(?:\d{1,2}|(?<=000\d{5}_)\d{3}|(?:\d+_)?IM-.*)")
_CLASSES_AT_MOST = 200
_ROWS_SHOWN = 5


# --- dividing ---------------------------------------------------------------------------------------------------------


def split_by_group(
    groups: Sequence[str], fractions: Mapping[str, float], *, strata: Sequence[str] | None = None, seed: int = 1
) -> dict[str, list[int]]:
    """Divide rows into splits, a group as a whole.

    The groups are put in a seeded order, stratum after stratum, and dealt out one by one to the split that is furthest
    behind its share. No split thus exceeds its share of the rows by more than the largest group, and each stratum, its
    groups being neighbours in that order, is divided in the same proportions as far as they allow.

    Args:
        groups: The group of each row.
        fractions: Split name -> its share of the rows; the shares sum to 1.
        strata: What is to be spread evenly, such as the class of each row; nothing in particular if None.
        seed: Of the order. The same seed divides the same groups alike, in whatever order the rows come.

    Returns:
        Split name -> the indices of its rows, ascending. No split with a share above 0 is empty.

    Raises:
        ConfigError: The fractions are negative or do not sum to 1.
        DataError: There are fewer groups than splits.

    Source: the dealing rule is quota apportionment as in Tijdeman, "The chairman assignment problem" (1980).
    """
    shares = {name: share for name, share in fractions.items() if share > 0}
    if any(share < 0 for share in fractions.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"dataset.fractions must be at least 0 and sum to 1, got {dict(fractions)}.")
    dealt = _deal(groups, list(shares.values()), strata, seed)
    indices: dict[str, list[int]] = {name: [] for name in fractions}
    names = list(shares)
    for index, part in enumerate(dealt):
        indices[names[part]].append(index)
    return indices


def fold_of_rows(
    groups: Sequence[str], folds: int | None, *, strata: Sequence[str] | None = None, seed: int = 1
) -> list[int]:
    """Divide rows into equal folds, a group as a whole.

    Args:
        groups: The group of each row.
        folds: Number of folds; None makes each group a fold of its own, in order of first appearance: leave-one-out.
        strata: As in `split_by_group`.
        seed: As in `split_by_group`; of no effect on leave-one-out.

    Returns:
        The fold of each row, counting from 0. Every fold has rows.

    Raises:
        ConfigError: There are fewer than two folds.
        DataError: There are fewer groups than folds, or only one group.
    """
    if folds is None:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        if len(numbers) < 2:
            raise DataError(f"leave_one_out needs at least 2 groups, found {len(numbers)}. Check dataset.group.")
        return [numbers[group] for group in groups]
    if folds < 2:
        raise ConfigError(f"dataset.folds must be at least 2, got {folds}.")
    return _deal(groups, [1 / folds] * folds, strata, seed)


def shot_order(ids: Sequence[str], *, strata: Sequence[str] | None = None, seed: int = 1) -> list[int]:
    """Put rows in the order in which a few-shot subset takes them: the first k are the k-shot subset.

    Subsets of one seed are nested, because each is the beginning of the next. The strata take turns, so that every
    subset has the same number of rows of each, give or take one, until a stratum is used up.

    Args:
        ids: A name for each row; the order depends on the names, not on their order.
        strata: The class of each row; all alike if None.
        seed: Another seed gives another order.

    Returns:
        All indices.
    """
    turns: dict[str, int] = Counter()
    keyed: list[tuple[int, bytes, int]] = []
    for index in sorted(range(len(ids)), key=lambda index: _hash(seed, "row", ids[index])):
        stratum = "" if strata is None else strata[index]
        keyed.append((turns[stratum], _hash(seed, f"turn {turns[stratum]}", stratum), index))
        turns[stratum] += 1
    return [index for _, _, index in sorted(keyed)]


def merge_groups(groups: Sequence[str], *shared: Sequence[Hashable | None]) -> list[str]:
    """Join groups that have something in common, such as a picture under two studies.

    Args:
        groups: The group of each row.
        shared: For each row what must not be divided either; None if there is nothing. Several may be given.

    Returns:
        The group of each row, where joined groups all bear the name of the one that comes first.
    """
    parents: dict[str, str] = {group: group for group in groups}

    def root(group: str) -> str:
        while parents[group] != group:
            parents[group] = parents[parents[group]]
            group = parents[group]
        return group

    for things in shared:
        owners: dict[Hashable, str] = {}
        for group, thing in zip(groups, things, strict=True):
            if thing is not None:
                parents[root(group)] = root(owners.setdefault(thing, group))
    names: dict[str, str] = {}
    return [names.setdefault(root(group), group) for group in groups]


def _deal(groups: Sequence[str], shares: Sequence[float], strata: Sequence[str] | None, seed: int) -> list[int]:
    """The part of each row: groups in seeded order, each to the part furthest behind its share."""
    sizes = Counter(groups)
    if len(sizes) < len(shares):
        raise DataError(
            f"{len(sizes)} groups cannot be divided into {len(shares)} parts (groups with the same picture are one)."
            " Bring more groups, ask for fewer parts, or check dataset.group."
        )
    kinds: dict[str, set[str]] = defaultdict(set)
    for index, group in enumerate(groups):
        kinds[group].add("" if strata is None else strata[index])
    stratum = {group: "\0".join(sorted(each)) for group, each in kinds.items()}
    order = sorted(sizes, key=lambda group: (_hash(seed, "stratum", stratum[group]), _hash(seed, "group", group)))
    filled = [0] * len(shares)
    members: list[list[str]] = [[] for _ in shares]
    total = 0
    for group in order:
        total += sizes[group]
        part = max(range(len(shares)), key=lambda part: (shares[part] * total - filled[part], -part))
        filled[part] += sizes[group]
        members[part].append(group)
    for part in [part for part, held in enumerate(members) if not held]:
        richest = max(range(len(shares)), key=lambda other: (len(members[other]), -other))
        members[part].append(members[richest].pop())
    parts = {group: part for part, held in enumerate(members) for group in held}
    return [parts[group] for group in groups]


def _hash(seed: int, purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()


# --- what belongs together --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outline:
    """What dividing asks of each row, in columns of one length; small enough to hold for any number of rows.

    Attributes:
        ids: `Sample.id`.
        groups: `Sample.group`.
        pictures: Where each picture lies; None for text-only rows.
        answers: A short hash of each last answer, to tell answers apart.
        fields: Those of `Sample.meta` that were asked for, by name; None where a row lacks one.
        known: The ids of `Sample.meta`, see `vglm.data.ids`.
    """

    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    fields: dict[str, list[Any]] = field(default_factory=dict)
    known: list[tuple[Id, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Iterable[Sample], *fields: str) -> "Outline":
        """Read the columns off some samples, with these fields."""
        if isinstance(samples, Selection) and isinstance(samples.samples, SampleTable):
            return cls.of(samples.samples, *fields)._take(samples.indices.tolist(), samples.groups)
        outline = cls(fields={name: [] for name in fields})
        if isinstance(samples, SampleTable):  # without making the samples
            for ids, groups, pictures, answers, metas in samples.columns():
                outline.ids.extend(ids)
                outline.groups.extend(groups)
                outline.pictures.extend(pictures)
                outline.answers.extend(map(_short_hash, answers))
                metas = list(metas)
                outline.known.extend(map(ids_in, metas))
                for name, column in outline.fields.items():
                    column.extend(meta.get(name) for meta in metas)
            return outline
        for sample in samples:
            outline.add(sample)
        return outline

    def add(self, sample: Sample) -> None:
        """Add a sample's row."""
        self.ids.append(sample.id)
        self.groups.append(sample.group)
        self.pictures.append(None if sample.image is None else picture_name(sample))
        self.answers.append(_short_hash(sample.answer))
        self.known.append(ids_in(sample.meta))
        for name, column in self.fields.items():
            column.append(sample.meta.get(name))

    def extend(self, other: "Outline") -> None:
        """Add another's rows, which have the same fields."""
        for own, new in zip(self._columns(), other._columns(), strict=True):
            own.extend(new)

    def _take(self, rows: Sequence[int], groups: Sequence[str] | None) -> "Outline":
        return Outline(
            [self.ids[row] for row in rows],
            [self.groups[row] for row in rows] if groups is None else list(groups),
            [self.pictures[row] for row in rows],
            [self.answers[row] for row in rows],
            {name: [column[row] for row in rows] for name, column in self.fields.items()},
            [self.known[row] for row in rows],
        )

    def _columns(self) -> list[list[Any]]:
        return [
            self.ids,
            self.groups,
            self.pictures,
            self.answers,
            *(self.fields[name] for name in sorted(self.fields)),
            self.known,
        ]

    def __len__(self) -> int:
        return len(self.ids)


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def picture_name(sample: Sample) -> str:
    """Where a sample's picture lies; for one made in memory, the sample's id."""
    return f"memory:{sample.id}" if hasattr(sample.image, "tobytes") else str(sample.image)


def find_groups(outline: Outline, rule: str | None = None) -> tuple[list[str], str]:
    """Decide what must not be divided: by the rule given, else by what the file or the pictures' names say.

    Args:
        outline: The rows, with the field that `rule` names.
        rule: None infers: the groups that the reader found, widened by the ids of patients and studies, see `find_ids`;
            and where those are no more than single pictures, and nine of ten pictures are named like views of a study
            (`2_1`, `CXR2384_IM-0942-1001`), the part before the first `_`. `reader` takes the reader's groups,
            `picture` each picture for itself. A text with a parenthesis is a regular expression for the picture's name
            without suffix, or where not all of these match, for the whole path; its first group counts. Any other text
            names a field of the rows.

    Returns:
        The group of each row, and a sentence that says where the groups come from.

    Raises:
        ConfigError: The expression cannot be read, or has no group.
        DataError: Rows lack the field, or their pictures' names do not match. All such rows are counted.
    """
    if rule in (None, "reader"):
        if rule is None and (ids := find_ids(outline)) is not None:
            if ids.without:
                logger.warning("%s %s", ids, "A patient of theirs may be in training and test: fill the ids in.")
            return ids.groups, ids.source
        if rule is None and (studies := _studies(outline)) is not None:
            return studies, "inferred from the pictures' names: the part before _"
        return list(outline.groups), "as the file says"
    assert rule is not None
    if rule == "picture":
        return [picture or id for id, picture in zip(outline.ids, outline.pictures, strict=True)], "each picture"
    if "(" in rule:
        try:
            pattern = re.compile(rule)
        except re.error as error:
            raise ConfigError(f"dataset.group {rule!r} is no regular expression: {error}.") from error
        if not pattern.groups:
            raise ConfigError(f"dataset.group {rule!r} has no group. Put parentheses around what names the group.")
        matches = [pattern.search(stem(outline, row)) for row in range(len(outline))]
        if not all(matches):  # then folders count too
            places = zip(outline.ids, outline.pictures, strict=True)
            whole = [pattern.search(id if path is None else os.path.splitext(path)[0]) for id, path in places]
            matches = whole if sum(map(bool, whole)) > sum(map(bool, matches)) else matches
        _refuse_rows(
            outline,
            [row for row, match in enumerate(matches) if match is None or match.group(1) is None],
            f"a picture name that matches {rule}",
            lambda row: repr(stem(outline, row)),
        )
        return [str(match.group(1)) for match in matches if match is not None], f"the pictures' names by {rule}"
    column = outline.fields[rule]
    named = [group_name(value) for value in column]
    bad = [row for row, value in enumerate(named) if value is None]
    _refuse_rows(outline, bad, f"a field {rule!r}", lambda row: f"{column[row]!r}")
    return [str(value) for value in named], f"the field {rule!r}"


@dataclass(frozen=True)
class FoundIds:
    """Groups by the ids of patients, studies and the like.

    Attributes:
        groups: The group of each row.
        source: Where the ids stand.
        without: The rows that have no id of the widest kind, and cannot be joined to one.
        first: The id of the first such row's sample.
    """

    groups: list[str]
    source: str
    without: list[int]
    first: str = ""

    def __str__(self) -> str:
        """What is to be told of rows without an id."""
        return (
            f"{len(self.without):,} of {len(self.groups):,} rows have no id in {self.source}, and the others do (first:"
            f" {self.first}); they are grouped by what else they name."
        )


def find_ids(outline: Outline) -> FoundIds | None:
    """Group rows by the widest id that a row has, in its fields or in its picture's folders.

    A row without the widest kind (its patient is missing) belongs to the patient to whom other rows give its study, if
    that is one patient only; else to its study, and without one to its picture.

    Args:
        outline: The rows. Groups that a reader made of something else than these ids stay as they are.

    Returns:
        The groups; None where no row has an id of a patient or study.
    """
    folders = {picture.rpartition("/")[0] for picture in outline.pictures if picture is not None}
    root = os.path.commonpath(folders) if len(set(map(os.path.isabs, folders))) == 1 else ""
    ids: list[tuple[Id, ...]] = []
    for row, known in enumerate(outline.known):
        picture, group = outline.pictures[row], outline.groups[row]
        told = () if picture is None else folder_ids(picture, root)
        every = tuple(sorted((*known, *told))) if told else known
        is_free = (
            not every
            or group == every[0].name
            or any(group == each.name for each in every)
            or is_own_group(outline, row)
        )
        ids.append(every if is_free else (Id(-1, "", group),))
    tops = {each[0].place: each[0] for each in ids if each}  # one of each kind
    used = [each for place, each in tops.items() if place >= 0]
    widest = min((each.scope for each in used), default=2)
    if widest == 2:
        return None
    groups = list(outline.groups)
    without: list[int] = []
    if len(tops) == 1 and all(ids):
        return FoundIds([each[0].name for each in ids], used[0].source, [])
    owners = _owners(ids)
    for row, each in enumerate(ids):
        top = _resolve(each, owners)
        if top is None or (top.place >= 0 and top.scope > widest):
            without.append(row)
        if top is not None and top.place >= 0:
            groups[row] = top.name if top.scope == widest else f"{top.source} {top.name}"
        elif top is None and each:
            groups[row] = outline.ids[row]  # what it names is of several patients
    sources = dict.fromkeys(each.source for each in sorted(used) if each.scope == widest)
    return FoundIds(groups, " and ".join(sources), without, outline.ids[without[0]] if without else "")


def _owners(ids: Sequence[tuple[Id, ...]]) -> dict[tuple[int, str], set[Id]]:
    """For each narrower id the widest ids that rows name together with it."""
    owners: dict[tuple[int, str], set[Id]] = defaultdict(set)
    for each in ids:
        for narrower in each[1:]:
            owners[narrower.place, narrower.name].add(each[0])
    return owners


def _resolve(ids: tuple[Id, ...], owners: Mapping[tuple[int, str], set[Id]]) -> Id | None:
    """The widest id that a row belongs to; None where it has none, or only some that several wider ones share."""
    for each in ids:
        found, seen = each, {each}
        while len(wider := owners.get((found.place, found.name), set()) - seen) == 1:
            found = next(iter(wider))
            seen.add(found)
        if not wider:
            return found
    return None


def find_strata(outline: Outline, rule: str | None = None) -> tuple[list[str] | None, str]:
    """Decide what to spread evenly over the splits.

    Args:
        outline: The rows, with `kind` and the field that `rule` names.
        rule: None infers: the answers, where they are classes (at most 200 different ones, each given twice on
            average), else the field `kind`, else nothing. `answer` takes the answers, `none` nothing, and any other
            text the field of that name; a row without it counts as a class of its own kind.

    Returns:
        The stratum of each row, or None for nothing; and what it is.

    Raises:
        DataError: No row has the field.
    """
    if rule is None:
        classes = set(outline.answers)
        if len(classes) <= _CLASSES_AT_MOST and 2 * len(classes) <= len(outline):
            rule = "answer"
        else:
            rule = "kind" if any(outline.fields.get("kind", ())) else "none"
    if rule == "none":
        return None, "nothing"
    if rule == "answer":
        return list(outline.answers), "the answer"
    if all(value is None for value in outline.fields[rule]):
        raise DataError(f"dataset.stratify: no row has a field {rule!r}. Name one that rows have, or answer, or none.")
    return [str(value) for value in outline.fields[rule]], f"the field {rule!r}"


def stem(outline: Outline, row: int) -> str:
    """The name of a row's picture without folder and suffix, or the row's id."""
    picture = outline.pictures[row]
    return outline.ids[row] if picture is None else os.path.splitext(os.path.basename(picture))[0]


def _studies(outline: Outline) -> list[str] | None:
    """The study of each row by its picture's name, or None where the reader knew better or the names are others."""
    pictured = [row for row, picture in enumerate(outline.pictures) if picture is not None]
    if not pictured or not all(is_own_group(outline, row) for row in pictured):
        return None
    matches = {row: VIEW_OF_STUDY.fullmatch(stem(outline, row)) for row in pictured}
    if sum(match is not None for match in matches.values()) < INFERRED_SHARE * len(pictured):
        return None
    return [
        match.group(1) if (match := matches.get(row)) is not None else group for row, group in enumerate(outline.groups)
    ]


def is_own_group(outline: Outline, row: int) -> bool:
    """Whether a row's group says no more than which picture or row it is."""
    group, picture = outline.groups[row], outline.pictures[row]
    if picture is None or group == outline.ids[row]:
        return group == outline.ids[row]
    return picture == group or picture.endswith(f"/{group}") or stem(outline, row) == group


def _refuse_rows(outline: Outline, rows: Sequence[int], expected: str, found: Any) -> None:
    if rows:
        lines = "".join(f"\n  {outline.ids[row]}: found {found(row)}" for row in rows[:_ROWS_SHOWN])
        more = f"\n  ... and {len(rows) - _ROWS_SHOWN} more" if len(rows) > _ROWS_SHOWN else ""
        raise DataError(
            f"dataset.group: expected {expected} in every row; {len(rows)} of {len(outline)} have none:{lines}{more}\n"
            "Name another field, give a regular expression with a group, or leave dataset.group out."
        )


# --- leakage ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leakage:
    """What two splits have in common that they must not.

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

    def __str__(self) -> str:
        """One sentence."""
        return (
            f"{self.samples:,} {self.of} samples are not independent of {self.seen_in}: {self.groups:,} groups and"
            f" {self.pictures:,} pictures are in both (first: {self.example})"
        )


def find_leakage(
    held_out: Outline, learned: Outline, *, names: tuple[str, str], contents: Mapping[str, str] | None = None
) -> Leakage | None:
    """Compare a split that should be independent with the one that is learned from.

    Args:
        held_out: Rows of the first.
        learned: Rows of the second.
        names: What the two are called.
        contents: Picture name -> hash of its content, as far as known.

    Returns:
        What they share, or None.
    """
    contents = contents or {}

    def pictures(outline: Outline) -> list[str | None]:
        return [picture and contents.get(picture, picture) for picture in outline.pictures]

    def groups(outline: Outline) -> list[str | None]:  # a group that is only a picture's name is compared as a picture
        return [None if is_own_group(outline, row) else group for row, group in enumerate(outline.groups)]

    seen_pictures = set(pictures(learned)) - {None}
    seen_groups = set(groups(learned)) - {None}
    shared = [
        (row, group if group in seen_groups else None, picture if picture in seen_pictures else None)
        for row, (group, picture) in enumerate(zip(groups(held_out), pictures(held_out), strict=True))
    ]
    shared = [each for each in shared if each[1] is not None or each[2] is not None]
    if not shared:
        return None
    return Leakage(
        *names,
        samples=len(shared),
        groups=len({group for _, group, _ in shared} - {None}),
        pictures=len({picture for _, _, picture in shared} - {None}),
        example=held_out.ids[shared[0][0]],
    )


# --- the record -------------------------------------------------------------------------------------------------------


def fingerprint(samples: Iterable[Sample]) -> str:
    """One hash of everything that is asked and answered in a split, in order.

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
    for sample in samples:
        _update(digest, sample)
        ids.append(sample.id)
        groups[sample.group] = None
    return {
        "samples": len(ids),
        "groups": len(groups),
        "sha256": digest.hexdigest(),
        "ids": ids,
        "group_names": list(groups),
    }


def _update(digest: "hashlib._Hash", sample: Sample) -> None:
    picture = "" if sample.image is None else os.path.basename(picture_name(sample))
    turns = "\x1f".join(f"{turn.question}\x1e{turn.answer}" for turn in sample.turns)
    digest.update(f"{sample.id}\0{sample.group}\0{picture}\0{sample.english}\0{turns}\n".encode())
