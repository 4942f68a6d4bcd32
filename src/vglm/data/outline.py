"""The columns that dividing a data set needs (ids, groups, pictures, answers), without the samples themselves.

outline = Outline.of(samples, "kind")
outline.groups[3], outline.pictures[3], outline.fields["kind"][3]
"""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, islice, pairwise, tee
from typing import Any, overload

import pyarrow as pa

from vglm.data.ids import Id, ids_in
from vglm.data.sample import Sample
from vglm.data.table import last_of, parsed, picture_names, rows_of

_MAX_TEXTS = 1 << 16


class Names(Sequence[str]):
    """Texts of which hardly one comes twice, in one piece of memory: a third of what a list of them takes."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", (0,))
        self.extend(names)

    def append(self, name: str) -> None:
        """Add one."""
        self._bytes += name.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def extend(self, names: Iterable[str]) -> None:
        """Add several."""
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self._ends.extend(islice(accumulate(map(len, encoded), initial=len(self._bytes)), 1, None))
        self._bytes += b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self._bytes[start:end].decode("utf-8", "surrogatepass") for start, end in pairwise(self._ends))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names) and self._bytes == other._bytes and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]  # it can be added to

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        index = range(len(self))[index]
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


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

    ids: Names | list[str] = field(default_factory=Names)
    groups: list[str] = field(default_factory=list)
    pictures: list[str | None] = field(default_factory=list)
    answers: "array[int]" = field(default_factory=lambda: array("Q"))
    fields: dict[str, list[Any]] = field(default_factory=dict)
    meta_ids: list[tuple[Id, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Iterable[Sample], *fields: str) -> "Outline":
        """Read the columns off some samples, with these fields."""
        outline = cls(fields={name: [] for name in fields})
        stored = rows_of(samples, ("id", "group", "image", "offset", "size", "answers", "meta"))
        if stored is None:
            for sample in samples:
                outline.add(sample)
            return outline
        once = _Once()
        for rows in stored:  # without making the samples
            outline._add_names(rows, once)
            outline.answers.extend(map(_short_hash, last_of(rows.column("answers"))))
            metas = parsed(rows.column("meta"))
            outline.meta_ids.extend(once.of(map(ids_in, metas)))
            for name, column in outline.fields.items():
                column.extend(meta.get(name) for meta in metas)
        return outline

    @classmethod
    def of_pictures(cls, samples: Iterable[Sample]) -> "Outline":
        """Read off ids, groups and pictures alone, where samples lie in a table."""
        stored = rows_of(samples, ("id", "group", "image", "offset", "size"))
        if stored is None:
            return cls.of(samples)
        outline, once = cls(), _Once()
        for rows in stored:
            outline._add_names(rows, once)
        return outline

    def _add_names(self, rows: pa.RecordBatch, once: "_Once") -> None:
        self.ids.extend(rows.column("id").to_pylist())
        self.groups.extend(once.of(rows.column("group").to_pylist()))
        self.pictures.extend(once.of(picture_names(rows)))

    @classmethod
    def joined(cls, outlines: Sequence["Outline"], fields: Iterable[str] = ()) -> "Outline":
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

    def _columns(self) -> list[Any]:
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
    """Values that come again and again, each held in memory once as long as they are not too many."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def of(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, those that are equal as one."""
        if len(self._values) >= _MAX_TEXTS:
            self._values.clear()
        one, other = tee(values)
        return map(self._values.setdefault, one, other)


def _short_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


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
    return (picture is not None and _names_picture(group, picture)) or group == outline.ids[row]


@lru_cache(maxsize=4096)
def _names_picture(group: str, picture: str) -> bool:
    if picture == group or picture.endswith(f"/{group}"):
        return True
    return os.path.splitext(os.path.basename(picture))[0] == group
