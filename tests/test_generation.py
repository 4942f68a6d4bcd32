from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.data.images import image_sha256, open_image
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.evaluation.generation import generate_predictions, shuffle_images
from vglm.model.loading import load_pretrained


@pytest.fixture(scope="module")
def loaded(reference: Path) -> tuple[Any, Any]:
    return load_pretrained(reference / "hf_layout", dtype="float32")


@pytest.fixture
def samples(reference: Path) -> list[Sample]:
    """Different lengths, with and without image, history and English, from files and from memory."""
    pictures = sorted((reference / "images").glob("*.png"))
    return [
        sample("zh", pictures[0], "这张图片的背景里有什么内容？", kind="background"),
        sample("text", None, "你好"),
        sample("en", pictures[1], "What is in the picture?", english=True),
        sample("history", pictures[2], "它是什么颜色的？", history=(("描述这张图片。", "一片森林，还有一条小河。"),)),
        sample("memory", Image.new("RGB", (40, 20), "orange"), "图中有几个人？"),
    ]


def sample(
    name: str,
    image: Path | Image.Image | None,
    question: str,
    *,
    english: bool = False,
    history: tuple[tuple[str, str], ...] = (),
    **meta: str,
) -> Sample:
    turns = (*(Turn(*turn) for turn in history), Turn(question, "答案"))
    return Sample(id=name, group=name, image=image, turns=turns, english=english, meta=meta)


def test_the_batch_size_changes_nothing(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    singles = generate_predictions(*loaded, samples, batch_size=1, max_new_tokens=8)
    assert [record.id for record in singles] == ["zh", "text", "en", "history", "memory"]
    assert len({record.prediction for record in singles}) > 1
    for batch_size in (2, 3, 8):
        assert generate_predictions(*loaded, samples, batch_size=batch_size, max_new_tokens=8) == singles


def test_answers_are_what_generate_writes(loaded: tuple[Any, Any], samples: list[Sample]) -> None:
    model, processor = loaded
    inputs = processor(images=Image.open(samples[0].image), text=samples[0].question, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=8)
    record = generate_predictions(model, processor, samples[:1], max_new_tokens=8)[0]
    assert record.prediction == processor.decode(ids[0])
    assert record.prediction


def test_a_record_tells_where_it_comes_from(loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path) -> None:
    records = generate_predictions(*loaded, samples, split="probe", max_new_tokens=1, images=tmp_path / "images")
    first, text, _, history, memory = records
    assert (first.split, first.kind, first.reference, first.error) == ("probe", "background", "答案", None)
    assert first.image is not None
    assert first.image.endswith("images/img0.png")
    assert first.image_sha256 == image_sha256(samples[0].image)  # type: ignore[arg-type]
    assert (text.image, text.image_sha256) == (None, None)
    assert (memory.image, memory.image_sha256) == (None, image_sha256(samples[4].image))  # type: ignore[arg-type]
    assert history.history == (("描述这张图片。", "一片森林，还有一条小河。"),)
    copies = {path.stem: open_image(path) for path in (tmp_path / "images").iterdir()}
    assert set(copies) == {record.image_sha256 for record in records} - {None}
    assert all(max(copy.size) <= 224 for copy in copies.values())


def test_an_unreadable_image_is_a_record_and_not_the_end(
    loaded: tuple[Any, Any], samples: list[Sample], tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    broken = [sample("broken", tmp_path / "broken.png", "图中有几个人？"), sample("absent", tmp_path / "no.png", "？")]
    records = generate_predictions(*loaded, [*broken, *samples], batch_size=3, max_new_tokens=4)
    assert [record.error is not None for record in records] == [True, True] + [False] * 5
    assert "broken.png" in str(records[0].error)
    assert "no.png does not exist" in str(records[1].error)
    assert (records[0].prediction, records[0].image_sha256) == ("", None)
    assert records[2:] == generate_predictions(*loaded, samples, max_new_tokens=4)


def colours(names: list[int]) -> list[Sample]:
    return [sample(str(row), Image.new("RGB", (1, 1), (name, 0, 0)), f"{row}?") for row, name in enumerate(names)]


@given(names=st.lists(st.integers(0, 5), min_size=2, max_size=12), seed=st.integers(0, 5))
def test_shuffled_images_are_always_other_images(names: list[int], seed: int) -> None:
    before = colours(names)
    if 2 * max(map(names.count, names)) > len(names):
        with pytest.raises(DataError, match="cannot be shuffled"):
            shuffle_images(before, seed)
        return
    after = shuffle_images(before, seed)
    pixels = [[each.image.getpixel((0, 0)) for each in rows] for rows in (before, after)]  # type: ignore[union-attr]
    assert all(old != new for old, new in zip(*pixels, strict=True))
    assert sorted(pixels[0]) == sorted(pixels[1])
    assert [each.turns for each in before] == [each.turns for each in after]
    assert [id(each.image) for each in after] == [id(each.image) for each in shuffle_images(before, seed)]


def test_shuffling_follows_the_seed_and_leaves_text_alone(tmp_path: Path) -> None:
    rows = [*colours(list(range(20))), sample("text", None, "你好"), sample("absent", tmp_path / "no.png", "？")]
    orders = {tuple(id(each.image) for each in shuffle_images(rows, seed)) for seed in range(5)}
    assert len(orders) > 1
    assert shuffle_images(rows, 0)[20:] == rows[20:]
