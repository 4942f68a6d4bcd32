"""Columns of many rows say what the rows say, whether they hold a value once or go through it row by row."""

from pathlib import Path

import numpy as np
import pytest
from builders import sample
from hypothesis import given
from hypothesis import strategies as st

from vglm.data import outline as outlines
from vglm.data.grouping import find_strata, merge_by_picture, merge_groups
from vglm.data.outline import CLASSES_AT_MOST, Column, Names, Outline, combine, first_rows, own_groups
from vglm.data.table import Selection, write_table

VALUES = st.lists(st.sampled_from(["", "a", "b", "深", "d"]))
ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "a.png", "p/a.png", "x#1", "7"]), st.sampled_from([None, "a.png", "p/a.png", "b"]))
)


@given(VALUES, VALUES)
def test_a_column_is_like_a_list(first: list[str], second: list[str]) -> None:
    column = Column(first)
    column.merge(*_encoded(second))
    column.append_encoded(*_encoded(second))
    for value in second:
        column.append_uncompared(value)
    rows = [*first, *second, *second, *second]
    assert [*column, len(column), *column[1:3]] == [*rows, len(rows), *rows[1:3]]
    assert list(column.map(str.upper)) == [value.upper() for value in rows]
    assert column.where(lambda value: value == "a").tolist() == [value == "a" for value in rows]
    names = _names(first)
    names.extend(_names(second))
    assert [*names] == [*first, *second]


def _names(texts: list[str]) -> Names:
    names = Names()
    for text in texts:
        names.append(text)
    return names


def _encoded(rows: list[str]) -> tuple[list[str], np.ndarray]:
    values = list(dict.fromkeys(rows))
    return values, np.array([values.index(value) for value in rows], np.int32)


def test_of_very_many_values_one_may_stand_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "_REMEMBERED", 2)
    rows = ["a", "b", "c", "a", "b"]
    column = Column(rows)
    assert (list(column), len(column.values)) == (rows, 5)


@given(ROWS)
def test_rows_are_combined_in_their_order(rows: list[tuple[str, str | None]]) -> None:
    groups, pictures = Column(group for group, _ in rows), Column(picture for _, picture in rows)
    combined = combine(groups.codes, pictures.codes)
    different = list(dict.fromkeys(rows))
    assert combined.tolist() == [different.index(row) for row in rows]
    assert first_rows(combined).tolist() == [rows.index(row) for row in different]
    contents = {"a.png": "1f", "p/a.png": "1f"}
    shown = [picture and contents.get(picture, picture) for picture in pictures]
    assert list(merge_by_picture(groups, pictures, contents)) == merge_groups(list(groups), shown)


@given(ROWS)
def test_a_group_that_only_names_the_picture_or_the_row(rows: list[tuple[str, str | None]]) -> None:
    samples = [
        sample(f"x#{number}", group=group, image=None if picture is None else Path(picture))
        for number, (group, picture) in enumerate(rows)
    ]
    named = {("a", "a.png"), ("a.png", "a.png"), ("a", "p/a.png"), ("a.png", "p/a.png"), ("p/a.png", "p/a.png")}
    expected = [row in named or row[0] == f"x#{number}" for number, row in enumerate(rows)]
    assert own_groups(Outline.of(samples)).tolist() == expected


def test_of_many_different_answers_the_first_are_compared(tmp_path: Path) -> None:
    samples = [sample(f"x#{number}", answer=str(number // 3)) for number in range(3 * CLASSES_AT_MOST + 6)]
    table = write_table(tmp_path / "t.arrow", samples)
    for stored in (samples, table, Selection(table, range(len(table)))):
        few = Outline.of(stored)
        assert find_strata(few) == (None, "nothing")
        assert set(few.answers[-3:]) == {None}
        strata = find_strata(Outline.of(stored, "answer"), "answer")[0]
        assert strata is not None
        assert len(set(strata)) == CLASSES_AT_MOST + 2
    classes = samples[: 3 * CLASSES_AT_MOST]
    assert find_strata(Outline.of(classes))[1] == "the answer"
