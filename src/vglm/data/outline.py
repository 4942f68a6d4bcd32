"""The columns that dividing a data set needs (ids, groups, pictures, answers), without the samples themselves.

outline = Outline.of(samples, "kind")
outline.groups[3], outline.pictures[3], outline.fields["kind"][3]
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vglm.data.ids import Id, ids_in
from vglm.data.sample import Sample
from vglm.data.table import columns_of

_MAX_TEXTS = 1 << 16


@dataclass(frozen=True)
class Outline:
    """Columns of some samples.

    Attributes:
        ids: `Sample.id`.
        groups: `Sample.group`.
        pictures: Where each picture lies; None for text-only rows.
        answers: A short hash of each last answer, to compare answers.
        fields: The requested fields of `Sample.meta`, by name; None where a row lacks one.
        meta_ids: The ids of `Sample.meta`, see `vglm.data.ids`.
    """

    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    fields: dict[str, list[Any]] = field(default_factory=dict)
    meta_ids: list[tuple[Id, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Iterable[Sample], *fields: str) -> "Outline":
        """Read the columns off some samples, with these fields."""
        outline = cls(fields={name: [] for name in fields})
        stored = columns_of(samples, ("id", "group", "picture", "answers", "meta"))  # without making the samples
        if stored is None:
            for sample in samples:
                outline.add(sample)
            return outline
        names, hashes = _Once(), _Once()
        for ids, groups, pictures, answers, metas in stored:
            outline.ids.extend(ids)
            outline.groups.extend(map(names.get, groups))
            outline.pictures.extend(map(names.get, pictures))
            outline.answers.extend(hashes.get(_short_hash(turns[-1])) for turns in answers)
            outline.meta_ids.extend(map(ids_in, metas))
            for name, column in outline.fields.items():
                column.extend(meta.get(name) for meta in metas)
        return outline

    @classmethod
    def joined(cls, outlines: Sequence["Outline"], fields: Iterable[str]) -> "Outline":
        """The rows of several one after the other; those of one are not copied."""
        if len(outlines) == 1:
            return outlines[0]
        whole = cls(fields={name: [] for name in fields})
        for outline in outlines:
            whole.extend(outline)
        return whole

    def add(self, sample: Sample) -> None:
        """Add a sample's row."""
        self.ids.append(sample.id)
        self.groups.append(sample.group)
        self.pictures.append(None if sample.image is None else picture_name(sample))
        self.answers.append(_short_hash(sample.answer))
        self.meta_ids.append(ids_in(sample.meta))
        for name, column in self.fields.items():
            column.append(sample.meta.get(name))

    def extend(self, other: "Outline") -> None:
        """Add another's rows, which have the same fields."""
        for own, new in zip(self._columns(), other._columns(), strict=True):
            own.extend(new)

    def _columns(self) -> list[list[Any]]:
        return [
            self.ids,
            self.groups,
            self.pictures,
            self.answers,
            *(self.fields[name] for name in sorted(self.fields)),
            self.meta_ids,
        ]

    def __len__(self) -> int:
        return len(self.ids)


class _Once:
    """Interns repeated texts, up to a limit."""

    def __init__(self) -> None:
        self._texts: dict[Any, Any] = {}

    def get(self, text: Any) -> Any:
        if len(self._texts) >= _MAX_TEXTS:
            self._texts.clear()
        return self._texts.setdefault(text, text)


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def picture_name(sample: Sample) -> str:
    """The path of a sample's picture; for one made in memory, the sample's id."""
    return f"memory:{sample.id}" if hasattr(sample.image, "tobytes") else str(sample.image)


def stem(outline: Outline, row: int) -> str:
    """The name of a row's picture without folder and suffix, or the row's id."""
    picture = outline.pictures[row]
    return outline.ids[row] if picture is None else os.path.splitext(os.path.basename(picture))[0]


def is_own_group(outline: Outline, row: int) -> bool:
    """Whether a row's group says no more than which picture or row it is."""
    group, picture = outline.groups[row], outline.pictures[row]
    if picture is None or group == outline.ids[row]:
        return group == outline.ids[row]
    return _names_picture(group, picture)


@lru_cache(maxsize=4096)
def _names_picture(group: str, picture: str) -> bool:
    if picture == group or picture.endswith(f"/{group}"):
        return True
    return os.path.splitext(os.path.basename(picture))[0] == group
