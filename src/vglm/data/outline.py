"""The columns that dividing a data set needs (ids, groups, pictures, answers), without the samples themselves.

outline = Outline.of(samples, "kind")
outline.groups[3], outline.pictures[3], outline.fields["kind"][3]
"""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from operator import eq
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vglm.data.ids import Id, ids_in
from vglm.data.sample import Sample
from vglm.data.table import encoded, encoded_pictures, last_of, parsed, rows_of

CLASSES_AT_MOST = 200
"""Of more different answers none is a class."""

_REMEMBERED = 1 << 16

Value = TypeVar("Value")
Other = TypeVar("Other")


class Names(Sequence[str]):
    """Texts of which hardly one comes twice, in one piece of memory: a third of what a list of them takes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", (0,))

    def append(self, name: str) -> None:
        """Add one."""
        self._bytes += name.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._bytes))

    def extend(self, names: "Names") -> None:
        """Add others."""
        ends = np.frombuffer(names._ends, np.int64)[1:] + len(self._bytes)
        self._ends.frombytes(ends.tobytes())
        self._bytes += names._bytes

    def join(self, column: pa.StringArray) -> None:
        """Add the texts of a column without nulls."""
        _, offsets, data = column.buffers()
        ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
        self._ends.frombytes((ends[1:] - ends[0] + len(self._bytes)).tobytes())
        self._bytes += memoryview(data)[ends[0] : ends[-1]] if data is not None else b""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self._bytes[start:end].decode("utf-8", "surrogatepass") for start, end in pairwise(self._ends))

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        index = range(len(self))[index]
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")


class Column(Sequence[Value]):
    """Values of rows: those that come again and again stand in memory once, and each row has a number.

    Args:
        rows: The value of each row.

    Attributes:
        values: The values in the order in which they first occur. One may stand there several times: compare values,
            not numbers.
        numbers: Of each row, where its value stands in `values`.
    """

    def __init__(self, rows: Iterable[Value] = ()) -> None:
        self.values: list[Value] = []
        self.numbers = array("i")
        self._known: dict[Value, int] = {}
        for value in rows:
            self.append(value)

    @classmethod
    def numbered(cls, values: list[Value], codes: NDArray[np.int32]) -> "Column[Value]":
        """A column of these values, by the number of each row, shape (n,)."""
        column = cls()
        column.append_encoded(values, codes)
        return column

    @property
    def codes(self) -> NDArray[np.int32]:
        """The numbers, shape (n,). As long as the array is in use, no rows can be added."""
        return np.frombuffer(self.numbers, np.int32)

    def append(self, value: Value) -> None:
        """Add a row."""
        self.numbers.append(self._number(value))

    def append_uncompared(self, value: Value) -> None:
        """Add a row whose value is not compared with known ones; it need not be hashable."""
        self.numbers.append(len(self.values))
        self.values.append(value)

    def merge(self, values: Iterable[Value], codes: NDArray[np.int32]) -> None:
        """Add rows by their values, of which some may be known, and the number of each row among them, shape (n,)."""
        numbers = np.fromiter(map(self._number, values), np.int32)
        self.numbers.frombytes(numbers[codes].tobytes())

    def append_encoded(self, values: Iterable[Value], codes: NDArray[np.int32]) -> None:
        """Add rows by their values, which are not compared with known ones, and the number of each row among them.

        Args:
            values: They need not be hashable.
            codes: Shape (n,).
        """
        self.numbers.frombytes((codes + np.int32(len(self.values))).astype(np.int32).tobytes())
        self.values += values

    def map(self, convert: Callable[[Value], Other]) -> "Column[Other]":
        """What a function makes of each value."""
        return Column.numbered(list(map(convert, self.values)), self.codes)

    def where(self, holds: Callable[[Value], Any]) -> NDArray[np.bool_]:
        """For which rows something holds of the value, shape (n,)."""
        return np.fromiter(map(bool, map(holds, self.values)), np.bool_, len(self.values))[self.codes]

    def _number(self, value: Value) -> int:
        number = self._known.get(value)
        if number is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            number = self._known[value] = len(self.values)
            self.values.append(value)
        return number

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Value]:
        return map(self.values.__getitem__, self.numbers)

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: int | slice) -> Value | list[Value]:
        if isinstance(index, slice):
            return [self.values[number] for number in self.numbers[index]]
        return self.values[self.numbers[index]]


def combine(*codes: NDArray[Any]) -> NDArray[np.int32]:
    """The combination that each row has of the numbers in several columns, as a number by order of first occurrence.

    Args:
        codes: Whole numbers from 0 on, or truth values, each of shape (n,).

    Returns:
        Shape (n,).
    """
    combined = codes[0].astype(np.int64)
    for column in codes[1:]:
        combined = _ranks(combined).astype(np.int64) * (int(column.max(initial=0)) + 1) + column
    return _ranks(combined)


def _ranks(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
    """The rank of each number from 0 on by where it occurs first."""
    if numbers.max(initial=0) > 2 * len(numbers):
        numbers = np.unique(numbers, return_inverse=True)[1]
    first = np.full(int(numbers.max(initial=-1)) + 1, -1)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    occurring = np.flatnonzero(first >= 0)
    ranks = np.zeros(len(first), np.int32)
    ranks[occurring[np.argsort(first[occurring])]] = np.arange(len(occurring))
    return ranks[numbers]


def first_rows(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """The first row of each number from 0 to the largest; all of them occur."""
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first


@dataclass(frozen=True, eq=False)
class Outline:
    """Columns of some samples.

    Attributes:
        ids: `Sample.id`.
        groups: `Sample.group`.
        pictures: Where each picture lies; None for text-only rows.
        answers: A short hash of each last answer, to compare answers; None for those after 201 different ones, unless
            a field `answer` was requested.
        fields: The requested fields of `Sample.meta`, by name; None where a row lacks one.
        meta_ids: The ids of `Sample.meta`, see `vglm.data.ids`.
    """

    ids: Names = field(default_factory=Names)
    groups: Column[str] = field(default_factory=Column)
    pictures: Column[str | None] = field(default_factory=Column)
    answers: Column[int | None] = field(default_factory=Column)
    fields: dict[str, Column[Any]] = field(default_factory=dict)
    meta_ids: Column[tuple[Id, ...]] = field(default_factory=Column)

    @classmethod
    def of(cls, samples: Iterable[Sample], *fields: str) -> "Outline":
        """Read the columns off some samples, with these fields; with `answer`, also all answers however different."""
        outline = cls(fields={name: Column() for name in fields})
        stored = rows_of(samples, ("id", "group", "image", "offset", "size", "answers", "meta"))
        if stored is None:
            for sample in samples:
                outline.add(sample)
            return outline
        for rows in stored:  # without making the samples
            outline._add_names(rows)
            if outline._has_enough_answers:
                outline.answers.merge([None], np.zeros(len(rows), np.int32))
            else:
                answers, answer_codes = encoded(last_of(rows.column("answers")))
                outline.answers.merge(map(outline._hash, answers), answer_codes)
            texts, codes = encoded(rows.column("meta"))
            metas = list(map(parsed, texts))
            outline.meta_ids.merge(map(ids_in, metas), codes)
            for name, column in outline.fields.items():
                column.append_encoded((meta.get(name) for meta in metas), codes)
        return outline

    @classmethod
    def of_pictures(cls, samples: Iterable[Sample]) -> "Outline":
        """Read off ids, groups and pictures alone, where samples lie in a table."""
        stored = rows_of(samples, ("id", "group", "image", "offset", "size"))
        if stored is None:
            return cls.of(samples)
        outline = cls()
        for rows in stored:
            outline._add_names(rows)
        return outline

    def _add_names(self, rows: pa.RecordBatch) -> None:
        self.ids.join(rows.column("id"))
        self.groups.merge(*encoded(rows.column("group")))
        self.pictures.merge(*encoded_pictures(rows))

    @classmethod
    def joined(cls, outlines: Sequence["Outline"], fields: Iterable[str] = ()) -> "Outline":
        """The rows of several one after the other; those of one are not copied."""
        if len(outlines) == 1:
            return outlines[0]
        whole = cls(fields={name: Column() for name in fields})
        for outline in outlines:
            whole.extend(outline)
        return whole

    def add(self, sample: Sample) -> None:
        """Add a sample's row."""
        self.ids.append(sample.id)
        self.groups.append(sample.group)
        self.pictures.append(None if sample.image is None else picture_name(sample))
        self.answers.append(self._hash(sample.answer))
        self.meta_ids.append(ids_in(sample.meta))
        for name, column in self.fields.items():
            column.append_uncompared(sample.meta.get(name))

    def extend(self, other: "Outline") -> None:
        """Add another's rows, which have the same fields."""
        self.ids.extend(other.ids)
        for own, new in zip(self._columns(), other._columns(), strict=True):
            own.append_encoded(new.values, new.codes)

    def _columns(self) -> list[Column[Any]]:
        fields = (self.fields[name] for name in sorted(self.fields))
        return [self.groups, self.pictures, self.answers, *fields, self.meta_ids]

    def _hash(self, answer: str) -> int | None:
        return None if self._has_enough_answers else _short_hash(answer)

    @property
    def _has_enough_answers(self) -> bool:
        return len(self.answers.values) > CLASSES_AT_MOST and "answer" not in self.fields

    def __len__(self) -> int:
        return len(self.ids)


def _short_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def picture_name(sample: Sample) -> str:
    """The path of a sample's picture; for one made in memory, the sample's id."""
    return f"memory:{sample.id}" if hasattr(sample.image, "tobytes") else str(sample.image)


def stem(outline: Outline, row: int) -> str:
    """The name of a row's picture without folder and suffix, or the row's id."""
    picture = outline.pictures[row]
    return outline.ids[row] if picture is None else os.path.splitext(os.path.basename(picture))[0]


def own_groups(outline: Outline) -> NDArray[np.bool_]:
    """Of which rows the group says no more than which picture or row it is, shape (n,)."""
    alike = combine(outline.groups.codes, outline.pictures.codes)
    pairs = ((outline.groups[row], outline.pictures[row]) for row in first_rows(alike).tolist())
    named = [picture is not None and _names_picture(group, picture) for group, picture in pairs]
    own = np.array(named, np.bool_)[alike]
    if not own.all():
        own |= np.fromiter(map(eq, outline.groups, outline.ids), np.bool_, len(outline))
    return own


@lru_cache(maxsize=4096)
def _names_picture(group: str, picture: str) -> bool:
    if picture == group or picture.endswith(f"/{group}"):
        return True
    return os.path.splitext(os.path.basename(picture))[0] == group
