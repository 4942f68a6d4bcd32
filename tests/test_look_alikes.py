"""Training pictures that come back in the test split under another file, compressed, scaled, flipped or cropped."""

import io
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vglm.caching import VARIABLE
from vglm.data.loading import load_dataset
from vglm.data.look_alikes import MAX_PAIRS, find_copies, thumbnail
from vglm.evaluation.messages import translate
from vglm.evaluation.predict.leaks import unsearched_stamps


def scene(seed: int, side: int = 160) -> Image.Image:
    """A picture with a coarse structure of its own."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC)


def compressed(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((8, 20, 150, 156))


EDITS: list[tuple[Callable[[Image.Image], Image.Image], str]] = [
    (compressed, "re-encoded"),
    (lambda picture: picture.resize((90, 120)), "re-encoded"),
    (ImageOps.mirror, "flipped"),
    (cropped, "cropped"),
    (lambda picture: compressed(ImageOps.mirror(cropped(picture))), "flipped, cropped"),
]


@pytest.mark.parametrize(("edit", "how"), EDITS)
def test_edited_training_pictures_are_found_and_others_are_not(
    edit: Callable[[Image.Image], Image.Image], how: str
) -> None:
    learned = [scene(seed) for seed in range(12)]
    tested = [scene(100), edit(learned[7]), scene(101)]
    copies = find_copies([thumbnail(picture) for picture in tested], [thumbnail(picture) for picture in learned])
    assert [(copy.tested, copy.learned, copy.how) for copy in copies] == [(1, 7, how)]
    back = find_copies(
        [thumbnail(picture) for picture in learned], [thumbnail(picture) for picture in tested]
    )  # the other way round
    assert [(copy.tested, copy.learned) for copy in back] == [(7, 1)]


def test_a_scene_with_another_subject_is_no_copy() -> None:
    learned, tested = scene(1), scene(1)
    learned.paste((255, 255, 255), (60, 60, 100, 100))
    tested.paste((0, 0, 0), (60, 60, 100, 100))
    assert find_copies([thumbnail(tested)], [thumbnail(learned)]) == []


def test_plain_pictures_are_no_copies_and_too_many_pairs_are_refused() -> None:
    plain = thumbnail(Image.new("RGB", (40, 40), "white"))
    assert find_copies([plain], [plain]) == find_copies([], [plain]) == []
    with pytest.raises(ValueError, match="pairs of pictures"):
        find_copies([plain] * (MAX_PAIRS // 1000 + 1), [plain] * 1000)


def test_a_search_is_made_once_and_what_could_not_be_searched_is_stamped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    for split, seeds in (("train", range(4)), ("test", range(10, 14))):
        for seed in seeds:
            scene(seed).save(tmp_path / f"{seed}.png")
        rows = [{"img": f"{seed}.png", "prompt": "What?", "label": "a"} for seed in seeds]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    hour_ago = time.time() - 3600
    for path in tmp_path.glob("*.png"):
        os.utime(path, (hour_ago, hour_ago))
    first = load_dataset(tmp_path)
    assert (first.look_alikes, first.look_alike_scope) == ([], "all")
    assert unsearched_stamps(first, {"test": first.test}) == []

    def refuse(*_: object) -> None:
        raise AssertionError("this was looked at before")

    monkeypatch.setattr("vglm.data.splits.find_copies", refuse)
    monkeypatch.setattr("vglm.data.image_checks._look_at", refuse)
    again = load_dataset(tmp_path)
    assert (again.look_alikes, again.image_hashes) == ([], first.image_hashes)

    monkeypatch.setattr("vglm.data.look_alikes.MAX_CROPPED_PAIRS", 15)
    assert [stamp.text for stamp in unsearched_stamps(again, {"test": again.test})] == ["CROPS NOT SEARCHED"]
    (tmp_path / "test.json").write_text(json.dumps([{"prompt": "2+2?", "label": "4"}, *rows]), encoding="utf-8")
    led_by_text = load_dataset(tmp_path)
    assert led_by_text.test[0].image is None
    assert [stamp.text for stamp in unsearched_stamps(led_by_text, {"test": led_by_text.test})] == [
        "CROPS NOT SEARCHED"
    ]
    monkeypatch.setattr("vglm.data.look_alikes.MAX_PAIRS", 15)
    (stamp,) = unsearched_stamps(again, {"test": again.test})
    assert stamp.text == "LOOK-ALIKES NOT SEARCHED"
    detail = translate(stamp.detail)
    assert "by equal pixels only" in detail.en
    assert "只按像素是否相同" in detail.zh


def test_without_crops_whole_pictures_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    learned = [thumbnail(scene(seed)) for seed in range(12)]
    monkeypatch.setattr("vglm.data.look_alikes.MAX_CROPPED_PAIRS", 1)
    copies = find_copies([thumbnail(ImageOps.mirror(scene(3))), thumbnail(compressed(scene(5)))], learned)
    assert [(copy.tested, copy.learned, copy.how) for copy in copies] == [(0, 3, "flipped"), (1, 5, "re-encoded")]


def test_a_data_set_tells_its_look_alikes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, picture in (("a", scene(1)), ("b", scene(2)), ("c", ImageOps.mirror(scene(2))), ("d", scene(3))):
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "same.png").write_bytes((tmp_path / "a.png").read_bytes())
    for split, names in (("train", "ab"), ("test", ["c", "d", "same"])):
        rows = [{"img": f"{name}.png", "prompt": "What?", "label": name} for name in names]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    splits = load_dataset(tmp_path)
    assert splits.look_alikes is not None
    look_alikes = {(pair.tested.id, pair.learned.id, pair.how) for pair in splits.look_alikes}
    assert look_alikes == {("test.json#1", "train.json#2", "flipped"), ("test.json#3", "train.json#1", "same pixels")}
    with caplog.at_level(logging.WARNING):
        splits.refuse_leakage(allow=True)
    assert (
        "1 test samples show a training picture once more (first: test.json#1 is train.json#2, flipped)" in caplog.text
    )
