"""What goes into a table comes out again, in any order, in any process; a table is whole or not there."""

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.caching import cache_folder
from vglm.data.outline import Outline
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.data.splits import describe_split
from vglm.data.table import SampleTable, Selection, first_of_pictures, write_table
from vglm.data.windowing import Window
from vglm.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
IMAGES = st.one_of(
    st.none(),
    st.sampled_from([Path("/data/a.png"), Path("/data/深/b.jpg")]),
    st.builds(ImageSlice, st.just(Path("/data/shard.tar")), st.integers(0, 2**40), st.integers(0, 2**31)),
)
SAMPLES = st.builds(
    Sample,
    id=TEXT,
    group=TEXT,
    image=IMAGES,
    turns=st.lists(st.builds(Turn, TEXT, TEXT), min_size=1, max_size=3).map(tuple),
    language=st.sampled_from(["zh", "en"]),
    window=st.sampled_from([None, Window("file", 2047.5, 4095.0, True), Window("file", 9.0, 8.0, function="TABLE")]),
    meta=st.dictionaries(TEXT, st.one_of(st.none(), st.integers(), TEXT, st.lists(TEXT, max_size=2)), max_size=2),
)


def numbered(count: int) -> Iterator[Sample]:
    for number in range(count):
        yield Sample(f"x#{number}", f"g{number // 2}", Path(f"/data/{number}.png"), (Turn("?", str(number)),))


@given(st.lists(SAMPLES, max_size=5))
def test_samples_survive(tmp_path_factory: pytest.TempPathFactory, samples: list[Sample]) -> None:
    table = write_table(tmp_path_factory.mktemp("table") / "t.arrow", samples)
    assert list(table) == [table[index] for index in range(len(table))] == samples
    assert len(table) == len(samples)


@given(st.lists(SAMPLES, max_size=5), st.data())
def test_columns_say_what_the_samples_say(
    tmp_path_factory: pytest.TempPathFactory, samples: list[Sample], data: st.DataObject
) -> None:
    table = write_table(tmp_path_factory.mktemp("table") / "t.arrow", samples)
    rows = data.draw(st.lists(st.integers(0, len(samples) - 1))) if samples else []
    groups = data.draw(st.one_of(st.none(), st.lists(TEXT, min_size=len(rows), max_size=len(rows))))
    for stored, listed in ((table, samples), (Selection(table, rows, groups), list(Selection(samples, rows, groups)))):
        assert _listed(Outline.of(stored, "kind")) == _listed(Outline.of(listed, "kind"))
        assert describe_split(stored) == describe_split(listed)
        assert list(first_of_pictures(stored)) == list(first_of_pictures(listed))
        shown = {(record.image, record.window) for record in listed if record.image is not None}
        assert len(list(first_of_pictures(stored))) == len(shown)


def _listed(outline: Outline) -> list[list[Any]]:
    """The columns as lists."""
    columns = (outline.ids, outline.groups, outline.pictures, outline.answers, outline.fields["kind"], outline.meta_ids)
    return list(map(list, columns))


def test_a_long_table_is_reached_anywhere(tmp_path: Path) -> None:
    expected = list(numbered(5000))  # more than two batches
    table = write_table(tmp_path / "t.arrow", iter(expected))
    assert [table[index] for index in (0, 2047, 2048, 4999, -1, -5000)] == [
        expected[index] for index in (0, 2047, 2048, 4999, -1, -5000)
    ]
    for index in (5000, -5001):
        with pytest.raises(IndexError):
            table[index]
    assert list(table[2000:2100:7]) == expected[2000:2100:7]
    assert list(table.at(table[::-1].indices)) == expected[::-1]


def test_a_selection_keeps_its_order_and_groups(tmp_path: Path) -> None:
    table, listed = write_table(tmp_path / "t.arrow", numbered(20)), list(numbered(20))
    for samples in (table, listed):
        chosen = Selection(samples, [5, 3, 3], ["a", "b", "c"])
        expected = [replace(listed[row], group=group) for row, group in ((5, "a"), (3, "b"), (3, "c"))]
        assert list(chosen) == [chosen[0], chosen[1], chosen[-1]] == expected
        assert list(chosen[1:]) == expected[1:]
        assert list(Selection(samples, [7])) == [listed[7]]


def answer_of(samples: Selection, index: int) -> str:
    return samples[index].answer


def test_workers_map_the_same_file(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.arrow", numbered(5000))
    chosen = Selection(table, range(0, 5000, 2))
    assert len(pickle.dumps(table)) < 300  # a path, not the rows
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(answer_of, chosen, 2000).result() == "4000"


def test_a_table_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[Sample]:
        yield from numbered(2100)
        raise DataError("row 2101 is bad")

    with pytest.raises(DataError, match="row 2101"):
        write_table(tmp_path / "t.arrow", broken())
    picture = Sample("x#1", "g", Image.new("RGB", (1, 1)), (Turn("?", "!"),))
    with pytest.raises(DataError, match="x#1: a picture in memory cannot be put into a table"):
        write_table(tmp_path / "t.arrow", [picture])
    assert list(tmp_path.iterdir()) == []
    old = write_table(tmp_path / "t.arrow", numbered(3))
    new = write_table(tmp_path / "t.arrow", numbered(2))
    assert (len(old), old[2].id, len(new)) == (3, "x#2", 2)  # whoever has the old one open keeps it


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    write_table(path, numbered(3))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"t\.arrow cannot be read.*Delete it"):
        SampleTable(path)


def test_damage_in_the_middle_is_refused_where_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    write_table(path, numbered(5000))  # three batches
    content = path.read_bytes()
    second = content.index(b"\xff\xff\xff\xff", content.index(b"x#2047"))  # where its description begins
    path.write_bytes(content[:second] + b"\0" * 64 + content[second + 64 :])
    table = SampleTable(path)
    shuffled = np.arange(5000).reshape(4, -1).T.ravel()
    assert table[0].id == "x#0"
    for read in (lambda: table[2100], lambda: list(table), lambda: list(table.at(shuffled)), lambda: list(table[3:])):
        with pytest.raises(DataError, match=r"t\.arrow cannot be read.*Delete it"):
            read()


def test_missing_pictures_are_found_by_listing_folders(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    images = [tmp_path / "a.png", tmp_path / "b.png", None, tmp_path / "gone" / "c.png"]
    rows = [Sample(f"x#{row}", "g", image, (Turn("?", "!"),)) for row, image in enumerate(images)]
    table = write_table(tmp_path / "t.arrow", rows)
    assert table.missing_files() == {str(tmp_path / "gone" / "c.png")}
    os.remove(tmp_path / "b.png")
    assert table.missing_files() == {str(tmp_path / "b.png"), str(tmp_path / "gone" / "c.png")}


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VGLM_CACHE", "/scratch/vglm")
    assert cache_folder() == Path("/scratch/vglm")
    monkeypatch.delenv("VGLM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/.cache")
    assert cache_folder() == Path("/home/me/.cache/vglm")
