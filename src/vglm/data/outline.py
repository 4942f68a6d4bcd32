"""The columns that dividing a data set needs (ids, groups, pictures, answers), without the samples themselves.

outline = Outline.of(samples, "kind")
outline.groups[3], outline.pictures[3], outline.fields["kind"][3]
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vglm.data.ids import Id, ids_in
from vglm.data.sample import Sample
from vglm.data.table import SampleTable, Selection


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
                outline.meta_ids.extend(map(ids_in, metas))
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
        self.meta_ids.append(ids_in(sample.meta))
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
            [self.meta_ids[row] for row in rows],
        )

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


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def picture_name(sample: Sample) -> str:
    """Where a sample's picture lies; for one made in memory, the sample's id."""
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
    return picture == group or picture.endswith(f"/{group}") or stem(outline, row) == group
