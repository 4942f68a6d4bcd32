"""Training pictures that come back in the test split under another file, compressed, scaled, flipped or cropped."""

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vglm.data.loading import load_dataset
from vglm.data.look_alikes import MAX_PAIRS, find_copies, thumbnail


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
    copies = find_copies([thumbnail(each) for each in tested], [thumbnail(each) for each in learned])
    assert [(each.tested, each.learned, each.how) for each in copies] == [(1, 7, how)]
    back = find_copies(
        [thumbnail(each) for each in learned], [thumbnail(each) for each in tested]
    )  # the other way round
    assert [(each.tested, each.learned) for each in back] == [(7, 1)]


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


def test_a_data_set_tells_its_look_alikes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, picture in (("a", scene(1)), ("b", scene(2)), ("c", ImageOps.mirror(scene(2))), ("d", scene(3))):
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "same.png").write_bytes((tmp_path / "a.png").read_bytes())
    for split, names in (("train", "ab"), ("test", ["c", "d", "same"])):
        rows = [{"img": f"{name}.png", "prompt": "What?", "label": name} for name in names]
        (tmp_path / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    splits = load_dataset(tmp_path)
    assert splits.look_alikes is not None
    found = {(each.tested.id, each.learned.id, each.how) for each in splits.look_alikes}
    assert found == {("test.json#1", "train.json#2", "flipped"), ("test.json#3", "train.json#1", "same pixels")}
    with caplog.at_level(logging.WARNING):
        splits.refuse_leakage(allow=True)
    assert (
        "1 test samples show a training picture once more (first: test.json#1 is train.json#2, flipped)" in caplog.text
    )
