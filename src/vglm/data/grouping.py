"""Groups that must not be divided (a study, a patient, a star), and strata to spread evenly over splits (classes).

find_groups(Outline.of(samples))        (["2", "2", "861"], "inferred from the pictures' names: the part before _")
find_strata(Outline.of(samples, "kind"))                                    (["7c2a…", "7c2a…", "10f3…"], "the answer")
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from vglm.data.ids import Id, folder_ids, group_name
from vglm.data.outline import CLASSES_AT_MOST, Column, Outline, combine, first_rows, own_groups, stem
from vglm.errors import ConfigError, DataError

Name = TypeVar("Name", bound=Hashable)
logger = logging.getLogger(__name__)

INFERRED_SHARE = 0.9
"""Share of the pictures that must be named `<study>_<view>` before the name decides what belongs together."""

# One view of a study: OpenI's 2_1 and CXR2384_IM-0942-1001, Kaggle's 1_IM-0001-4001.dcm, NIH's 00000013_005;
# not IMG_2031 or train_003.
VIEW_OF_STUDY = re.compile(r"([A-Za-z]{0,4}\d+)_(?:\d{1,2}|(?<=000\d{5}_)\d{3}|(?:\d+_)?IM-.*)")
_ROWS_SHOWN = 5


def find_groups(outline: Outline, rule: str | None = None) -> tuple[Column[str], str]:
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
        return outline.groups, "as the file says"
    assert rule is not None
    if rule == "picture":
        pictures = zip(outline.ids, outline.pictures, strict=True)
        return Column(picture or id for id, picture in pictures), "each picture"
    if "(" in rule:
        try:
            pattern = re.compile(rule)
        except re.error as error:
            raise ConfigError(f"dataset.division.group {rule!r} is no regular expression: {error}.") from error
        if not pattern.groups:
            raise ConfigError(
                f"dataset.division.group {rule!r} has no group. Put parentheses around what names the group."
            )
        matches = [pattern.search(stem(outline, row)) for row in range(len(outline))]
        if not all(matches):  # then folders count too
            paths = zip(outline.ids, outline.pictures, strict=True)
            whole = [pattern.search(id if path is None else os.path.splitext(path)[0]) for id, path in paths]
            matches = whole if sum(map(bool, whole)) > sum(map(bool, matches)) else matches
        _refuse_rows(
            outline,
            [row for row, match in enumerate(matches) if match is None or match.group(1) is None],
            f"a picture name that matches {rule}",
            lambda row: repr(stem(outline, row)),
        )
        names = Column(str(match.group(1)) for match in matches if match is not None)
        return names, f"the pictures' names by {rule}"
    column = outline.fields[rule]
    named = column.map(group_name)
    bad = np.flatnonzero(named.where(lambda name: name is None)).tolist()
    _refuse_rows(outline, bad, f"a field {rule!r}", lambda row: f"{column[row]!r}")
    return named.map(str), f"the field {rule!r}"


@dataclass(frozen=True)
class FoundIds:
    """Groups by the ids of patients, studies and the like.

    Attributes:
        groups: The group of each row.
        source: Where the ids stand.
        without: The rows that have no id of the widest kind, and cannot be joined to one.
        first: The id of the first such row's sample.
    """

    groups: Column[str]
    source: str
    without: list[int]
    first: str = ""

    def __str__(self) -> str:
        """The message about rows without an id."""
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
    folders = {picture.rpartition("/")[0] for picture in outline.pictures.values if picture is not None}
    root = os.path.commonpath(folders) if len(set(map(os.path.isabs, folders))) == 1 else ""
    own = own_groups(outline)
    kinds = combine(outline.meta_ids.codes, outline.pictures.codes, outline.groups.codes, own)
    firsts = first_rows(kinds).tolist()
    ids: list[tuple[Id, ...]] = []  # of each kind of row
    for row in firsts:
        meta_ids, picture, group = outline.meta_ids[row], outline.pictures[row], outline.groups[row]
        row_ids = meta_ids if picture is None else _row_ids(meta_ids, picture, root)
        is_free = not row_ids or any(group == id.name for id in row_ids) or own[row]
        ids.append(row_ids if is_free else (Id(-1, "", group),))
    lasts = len(kinds) - 1 - first_rows(kinds[::-1])
    tops = {ids[kind][0].rank: ids[kind][0] for kind in np.argsort(lasts).tolist() if ids[kind]}  # one of each rank
    used = [id for rank, id in tops.items() if rank >= 0]
    widest = min((id.scope for id in used), default=2)
    if widest == 2:
        return None
    if len(tops) == 1 and all(ids):
        return FoundIds(Column.numbered([row_ids[0].name for row_ids in ids], kinds), used[0].source, [])
    owners = _owners(ids)
    names: list[str | None] = []
    is_without: list[bool] = []
    for row, row_ids in zip(firsts, ids, strict=True):
        top = _resolve(row_ids, owners)
        is_without.append(top is None or (top.rank >= 0 and top.scope > widest))
        if top is not None and top.rank >= 0:
            names.append(top.name if top.scope == widest else f"{top.source} {top.name}")
        else:  # what a row names that is of several patients holds nothing together
            names.append(None if top is None and row_ids else outline.groups[row])
    named = Column.numbered(names, kinds)
    groups = Column(id if group is None else group for group, id in zip(named, outline.ids, strict=True))
    without = np.flatnonzero(np.array(is_without)[kinds]).tolist()
    sources = dict.fromkeys(id.source for id in sorted(used) if id.scope == widest)
    return FoundIds(groups, " and ".join(sources), without, outline.ids[without[0]] if without else "")


@lru_cache(4096)
def _row_ids(meta_ids: tuple[Id, ...], picture: str, root: str) -> tuple[Id, ...]:
    """The ids that a row's fields and its picture's folders hold, the widest first."""
    return tuple(sorted((*meta_ids, *folder_ids(picture, root))))


def _owners(ids: Sequence[tuple[Id, ...]]) -> dict[tuple[int, str], set[Id]]:
    """For each narrower id the widest ids that rows name together with it."""
    owners: dict[tuple[int, str], set[Id]] = defaultdict(set)
    for row_ids in ids:
        for narrower in row_ids[1:]:
            owners[narrower.rank, narrower.name].add(row_ids[0])
    return owners


def _resolve(ids: tuple[Id, ...], owners: Mapping[tuple[int, str], set[Id]]) -> Id | None:
    """The widest id that a row belongs to; None where it has none, or only some that several wider ones share."""
    for id in ids:
        widest, seen = id, {id}
        while len(wider := owners.get((widest.rank, widest.name), set()) - seen) == 1:
            widest = next(iter(wider))
            seen.add(widest)
        if not wider:
            return widest
    return None


def find_strata(outline: Outline, rule: str | None = None) -> tuple[Sequence[str] | None, str]:
    """Decide what to spread evenly over the splits.

    Args:
        outline: The rows, made with `kind` and what `rule` names as fields.
        rule: None infers: the answers, where they are classes (at most 200 different ones, each given twice on
            average), else the field `kind`, else nothing. `answer` takes the answers, `none` nothing, and any other
            text the field of that name; a row without it counts as a class of its own kind.

    Returns:
        The stratum of each row, or None for nothing; and what it is.

    Raises:
        DataError: No row has the field.
    """
    if rule is None:
        classes = set(outline.answers.values)
        if len(classes) <= CLASSES_AT_MOST and 2 * len(classes) <= len(outline):
            rule = "answer"
        else:
            rule = "kind" if any(outline.fields.get("kind", Column()).values) else "none"
    if rule == "none":
        return None, "nothing"
    if rule == "answer":
        return outline.answers.map(lambda answer: f"{answer:016x}"), "the answer"
    if all(value is None for value in outline.fields[rule].values):
        raise DataError(
            f"dataset.division.stratify: no row has a field {rule!r}. Name one that rows have, or answer, or none."
        )
    return outline.fields[rule].map(str), f"the field {rule!r}"


def merge_groups(groups: Sequence[Name], *shared: Sequence[Hashable | None]) -> list[Name]:
    """Join groups that have something in common, such as a picture under two studies.

    Args:
        groups: The group of each row.
        shared: For each row what must not be divided either; None if there is nothing. Several may be given.

    Returns:
        The group of each row, where joined groups all bear the name of the one that comes first.
    """
    parents: dict[Name, Name] = {group: group for group in groups}

    def root(group: Name) -> Name:
        while parents[group] != group:
            parents[group] = parents[parents[group]]
            group = parents[group]
        return group

    for things in shared:
        owners: dict[Hashable, Name] = {}
        for group, thing in zip(groups, things, strict=True):
            if thing is not None:
                parents[root(group)] = root(owners.setdefault(thing, group))
    names: dict[Name, Name] = {}
    return [names.setdefault(root(group), group) for group in groups]


def merge_by_picture(groups: Column[str], pictures: Column[str | None], contents: Mapping[str, str]) -> Column[str]:
    """Join groups that show the same picture.

    Args:
        groups: The group of each row.
        pictures: The name of each row's picture.
        contents: Name of a picture -> hash of its content; of one without, the name counts.

    Returns:
        As `merge_groups`.
    """
    shown = pictures.map(lambda picture: picture and contents.get(picture, picture))
    kinds = combine(groups.codes, shown.codes)
    firsts = first_rows(kinds).tolist()
    merged = merge_groups([groups[row] for row in firsts], [shown[row] for row in firsts])
    return Column.numbered(merged, kinds)


def _studies(outline: Outline) -> Column[str] | None:
    """The study of each row by its picture's name, or None where the reader knew better or the names are others."""
    has_picture = outline.pictures.where(lambda picture: picture is not None)
    if not has_picture.any() or not own_groups(outline)[has_picture].all():
        return None
    studies = outline.pictures.map(lambda picture: None if picture is None else _study_in(picture))
    has_study = studies.where(lambda study: study is not None)
    if has_study.sum() < INFERRED_SHARE * has_picture.sum():
        return None
    return Column(group if study is None else study for group, study in zip(outline.groups, studies, strict=True))


@lru_cache(4096)
def _study_in(picture: str) -> str | None:
    match = VIEW_OF_STUDY.fullmatch(os.path.splitext(os.path.basename(picture))[0])
    return None if match is None else match[1]


def _refuse_rows(outline: Outline, rows: Sequence[int], expected: str, actual: Callable[[int], str]) -> None:
    if rows:
        lines = "".join(f"\n  {outline.ids[row]}: found {actual(row)}" for row in rows[:_ROWS_SHOWN])
        more = f"\n  ... and {len(rows) - _ROWS_SHOWN} more" if len(rows) > _ROWS_SHOWN else ""
        raise DataError(
            f"dataset.division.group: expected {expected} in every row; {len(rows)} of {len(outline)} have none:{lines}"
            f"{more}\nName another field, give a regular expression with a group, or leave dataset.division.group out."
        )
