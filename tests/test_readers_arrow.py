"""Arrow, Parquet and the hub's data sets: pictures stay where they lie, streams write each picture once."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vglm.data.images import open_image
from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples, recognise
from vglm.data.readers.arrow import to_text
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.errors import ConfigError, DataError

COLOURS = ("red", "green", "blue")
PIXELS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}


@pytest.fixture
def content(few_shot_folder: Path) -> dict[str, bytes]:
    return {colour: (few_shot_folder / f"{colour}.png").read_bytes() for colour in COLOURS}


def table(content: dict[str, bytes], **columns: list[Any]) -> pa.Table:
    pictures = [{"bytes": content[colour], "path": f"{colour}.png"} for colour in COLOURS]
    return pa.table({"image": pictures, "question": ["What colour?"] * 3, "answer": list(COLOURS)} | columns)


def write_arrow(path: Path, rows: pa.Table, kind: str = "stream", **options: Any) -> Path:
    opened = pa.OSFile(str(path), "wb")
    new = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
    with opened as sink, new(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows)
    return path


def colours_of(samples: list[Sample]) -> list[Any]:
    return [open_image(sample.image).getpixel((0, 0)) for sample in samples if sample.image is not None]


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_an_arrow_table_is_read_in_place(tmp_path: Path, content: dict[str, bytes], kind: str) -> None:
    path = write_arrow(tmp_path / "pets", table(content, patient_id=["p1", "p1", "p2"]), kind)
    assert recognise(path).NAME == "arrow"
    samples = list(read_samples(path))
    assert all(isinstance(sample.image, ImageSlice) and sample.image.file == path for sample in samples)
    assert colours_of(samples) == list(PIXELS.values())
    assert samples[0].turns == (Turn("What colour?", "red"),)
    assert [sample.group for sample in samples] == ["p1", "p1", "p2"]
    assert samples[0].meta == {"patient_id": "p1"}
    assert samples[2].id == "pets#3"


def test_many_batches_slices_nulls_and_lists(tmp_path: Path, content: dict[str, bytes]) -> None:
    """Tables cut anywhere, with gaps and lists, still point at the right bytes."""
    pictures = [None if index % 7 == 3 else content[COLOURS[index % 3]] for index in range(3000)]
    answers = [str(index) for index in range(3000)]
    rows = pa.table({"image": pa.array(pictures, pa.large_binary()), "question": ["?"] * 3000, "answer": answers})
    path = write_arrow(tmp_path / "binary", rows.slice(11))
    samples = list(read_samples(path))
    assert [sample.answer for sample in samples] == answers[11:]
    for index, sample in enumerate(samples, start=11):
        assert (sample.image.read_bytes() if isinstance(sample.image, ImageSlice) else None) == pictures[index]
    lists = [[{"bytes": data, "path": None}] if data else [] for data in pictures]
    rows = pa.table({"images": lists, "question": ["?"] * 3000, "answer": answers})
    for index, sample in enumerate(
        read_samples(write_arrow(tmp_path / "lists", rows.slice(2)), several_images="each"), 2
    ):
        assert (sample.image.read_bytes() if isinstance(sample.image, ImageSlice) else None) == pictures[index]


def test_messages_and_further_pictures_in_a_table(tmp_path: Path, content: dict[str, bytes]) -> None:
    chat = [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What colour?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
    ]
    rows = pa.table({"messages": [chat], "images": [[{"bytes": content["red"], "path": None}]], "mask": [b"123"]})
    (sample,) = read_samples(write_arrow(tmp_path / "chat.arrow", rows))
    assert sample.turns == (Turn("What colour?", "Red."),)
    assert colours_of([sample]) == [PIXELS["red"]]
    assert re.fullmatch(r".*chat\.arrow\[\d+:\d+\]", sample.meta["mask"])


def test_told_columns_beside_messages(tmp_path: Path, content: dict[str, bytes]) -> None:
    chat = [{"role": "user", "content": "What colour?"}, {"role": "assistant", "content": "Red."}]
    rows = pa.table({"messages": [chat], "picture": [content["red"]], "star": ["s1"], "part": ["dev"]})
    path = write_arrow(tmp_path / "chat.arrow", rows)
    (sample,) = read_samples(path, image_column="picture", group_column="star", split_column="part")
    assert colours_of([sample]) == [PIXELS["red"]]
    assert (sample.group, sample.meta) == ("s1", {"group": "s1", "split": "validation"})
    with pytest.raises(DataError, match=r"there is no column 'image'\. Its columns are 'messages', 'picture'"):
        list(read(path, image_column="image"))
    with pytest.raises(ConfigError, match=r"dataset\.options\.question: .* holds dialogues, which have their own"):
        list(read(path, question="What?"))


def test_broken_tables(tmp_path: Path, content: dict[str, bytes]) -> None:
    path = write_arrow(tmp_path / "a.arrow", table(content, answer=["red", "", None]))
    assert [(row.row, row.fault[:40]) for row in read(path) if isinstance(row, BadRow)] == [
        (2, "expected 'answer' to say something, foun"),
        (3, "expected 'answer' to be text, found null"),
    ]
    names = [{"bytes": None, "path": "../a.png"}, {"bytes": None, "path": "gone.png"}, {"bytes": None, "path": None}]
    path = write_arrow(tmp_path / "b.arrow", table(content, image=names))
    above, gone, none = read(path)
    assert isinstance(above, BadRow)
    assert "which leaves it" in above.fault
    assert isinstance(gone, BadRow)
    assert gone.is_missing_image
    assert isinstance(none, Sample)
    assert none.image is None
    path = write_arrow(tmp_path / "c.arrow", table(content), "file", compression="lz4")
    with pytest.raises(DataError, match=r"c\.arrow: the table is compressed, so its pictures cannot be read in place"):
        list(read(path))
    (tmp_path / "d.arrow").write_bytes(b"ARROW1" + bytes(100))
    with pytest.raises(DataError, match=r"d\.arrow: expected an Arrow table, found "):
        list(read(tmp_path / "d.arrow"))
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"saved: no folder that datasets' save_to_disk wrote whole: KeyError"):
        list(read(tmp_path / "saved"))


def test_values_as_json_holds_them() -> None:
    from datetime import date
    from decimal import Decimal

    value = {"a": [1, 2.5, float("nan"), None], "b": date(2020, 1, 2), "c": Decimal("1.5"), "d": b"12", "e": None}
    assert to_text(value) == {"a": [1, 2.5, None, None], "b": "2020-01-02", "c": "1.5", "d": "2 bytes"}


@pytest.fixture
def saved(content: dict[str, bytes]) -> Any:
    """A data set as `datasets` makes it, with its own picture and class types."""
    import datasets

    features = datasets.Features(
        image=datasets.Image(), question=datasets.Value("string"), label=datasets.ClassLabel(names=["warm", "cold"])
    )
    rows = {
        "image": [{"bytes": content[colour], "path": None} for colour in COLOURS],
        "question": ["Warm or cold?"] * 3,
        "label": [0, 1, 1],
    }
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_saved_data_sets(tmp_path: Path, saved: Any) -> None:
    import datasets

    saved.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(train=saved, test=saved.select([0])).save_to_disk(tmp_path / "two")
    assert recognise(tmp_path / "one").NAME == recognise(tmp_path / "two").NAME == "arrow"
    samples = list(read_samples(tmp_path / "one"))
    assert [sample.answer for sample in samples] == ["warm", "cold", "cold"]
    assert colours_of(samples) == list(PIXELS.values())
    assert [(sample.id, sample.meta) for sample in read_samples(tmp_path / "two")] == [
        *((f"two#train:{row}", {"split": "train"}) for row in (1, 2, 3)),
        ("two#test:1", {"split": "test"}),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("streaming", [False, True])
def test_parquet(tmp_path: Path, saved: Any, content: dict[str, bytes], streaming: bool) -> None:
    saved.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    saved.to_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet")
    saved.to_parquet(tmp_path / "hub/data/validation-00000-of-00001.parquet")
    assert recognise(tmp_path / "a.parquet").NAME == recognise(tmp_path / "hub").NAME == "parquet"
    options: dict[str, Any] = {"cache_dir": str(tmp_path / "cache"), "streaming": streaming}
    samples = list(read_samples(tmp_path / "a.parquet", **options))
    assert [sample.answer for sample in samples] == ["warm", "cold", "cold"]
    assert colours_of(samples) == list(PIXELS.values())
    assert all(isinstance(sample.image, Path if streaming else ImageSlice) for sample in samples)
    assert [sample.id for sample in read_samples(tmp_path / "a.parquet", limit=2, **options)] == [
        "a.parquet#1",
        "a.parquet#2",
    ]
    rows = list(read_samples(tmp_path / "hub", limit=2, **options))
    assert [(row.id, row.meta["split"]) for row in rows] == [
        ("hub#train:1", "train"),
        ("hub#train:2", "train"),
        ("hub#validation:1", "validation"),
        ("hub#validation:2", "validation"),
    ]
    assert len(list(read_samples(tmp_path / "hub", split="validation", **options))) == 3
    if streaming:
        assert len(list((tmp_path / "cache" / "streamed_images").iterdir())) == 3  # each picture once
        assert re.fullmatch("[0-9a-f]{64}", samples[0].group)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_what_datasets_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(DataError, match=r"a\.parquet: datasets cannot load it: .* Check the name, the connection"):
        list(read(tmp_path / "a.parquet", cache_dir=str(tmp_path / "cache")))
    with pytest.raises(DataError, match=r"hf://nobody/nothing: datasets cannot load it: .*nobody/nothing"):
        list(read("hf://nobody/nothing", cache_dir=str(tmp_path / "cache")))  # the tests run offline
    with pytest.raises(DataError, match=r"expected hf://owner/name, found 'nothing' after hf://"):
        list(read("hf://nothing"))
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"dataset\.options\.limit must be a positive integer or null, got 0"):
        list(read(tmp_path / "b.parquet", limit=0))
    with pytest.raises(ConfigError, match=r"split must be a split's name, got 'train\[:9\]'"):
        list(read(tmp_path / "b.parquet", split="train[:9]"))
