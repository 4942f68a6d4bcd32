import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vglm.data import loading
from vglm.data.images import image_sha256
from vglm.data.loading import load_splits
from vglm.errors import DataError


def write(root: Path, **splits: list[str | None]) -> Path:
    """A data set: each split's file asks about the pictures named; a name's first letter decides the colour."""
    root.mkdir(exist_ok=True)
    for split, names in splits.items():
        rows = [{"img": name, "prompt": f"{name}?", "label": "蓝天。"} for name in names]
        (root / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
        for name in names:
            if name is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (3, 2), (ord(Path(name).name[0]), 0, 0)).save(root / name)
    return root


def test_splits_of_a_folder(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["c.png"], general=["c.png", None])
    splits = load_splits(root, probe="general.json")
    assert [sample.id for sample in splits.train] == ["train.json#1", "train.json#2"]
    assert [sample.id for sample in splits.test] == ["test.json#1"]
    assert [sample.image for sample in splits.probe] == [root / "c.png", None]
    assert load_splits(str(root)).probe == []


def test_files_are_hashed(tmp_path: Path) -> None:
    root = write(tmp_path, train=["images/a.png"], test=["images/b.png"])
    splits = load_splits(root)
    assert splits.files == {
        name: hashlib.sha256((root / name).read_bytes()).hexdigest()
        for name in ("train.json", "test.json", "images/a.png", "images/b.png")
    }


def test_the_data_hash_is_of_every_byte_and_not_of_the_place(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, train=["a.png"], test=["b.png"]) for name in ("x", "y"))
    assert load_splits(first).data_hash == load_splits(second).data_hash
    Image.new("RGB", (3, 2), "white").save(second / "b.png")
    assert load_splits(first).data_hash != load_splits(second).data_hash


@pytest.mark.parametrize("as_file", [True, False])
def test_the_published_file_is_both_train_and_test(tmp_path: Path, as_file: bool) -> None:
    root = write(tmp_path, dataset=["a.png", "b.png"])
    splits = load_splits(root / "dataset.json" if as_file else root)
    assert splits.train == splits.test
    assert set(splits.files) == {"dataset.json", "a.png", "b.png"}
    assert splits.trained_on_test() == splits.test


def test_a_picture_counts_as_seen_by_its_content(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", None], test=["b.png", "again.bmp", None])
    seen, text_only = load_splits(root).trained_on_test()
    assert (seen.image, text_only.image) == (root / "again.bmp", None)


def test_words_alone_count_as_seen_only_if_they_are_the_same(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", None], test=[None])
    assert len(load_splits(root).trained_on_test()) == 1
    (root / "test.json").write_text(json.dumps([{"prompt": "Another question?", "label": "蓝天。"}]))
    assert load_splits(root).trained_on_test() == []


def test_image_hashes(tmp_path: Path) -> None:
    splits = load_splits(write(tmp_path, train=["a.png"], test=["b.png", None]))
    assert splits.hash_images(splits.test) == [image_sha256(tmp_path / "b.png"), None]


def test_images_elsewhere(tmp_path: Path) -> None:
    root = write(tmp_path / "tables", train=["a.png"], test=["a.png"])
    (tmp_path / "pictures").mkdir()
    (root / "a.png").rename(tmp_path / "pictures" / "a.png")
    splits = load_splits(root, image_dir="../pictures")
    assert set(splits.files) == {"train.json", "test.json", "../pictures/a.png"}


def test_skip_missing_is_passed_on(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["c.png"])
    (root / "a.png").unlink()
    assert [sample.id for sample in load_splits(root, skip_missing=True).train] == ["train.json#2"]
    with pytest.raises(DataError, match=r"train\.json: 1 of 2 rows"):
        load_splits(root)


def test_bad_pictures_are_all_named_before_training(tmp_path: Path) -> None:
    root = write(tmp_path, train=["a.png", "b.png", "c.png"], test=["d.png"])
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "a.png")
    (root / "a.png").write_bytes((root / "a.png").read_bytes()[:4000])
    (root / "c.png").write_text("no picture")
    with pytest.raises(
        DataError, match=r"(?s)train\.json: 2 of 3 rows.*json:1: .*a\.png is damaged.*json:3: .*c\.png is no picture"
    ):
        load_splits(root)


def test_a_large_set_is_checked_by_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path, train=["a.png", "b.png"], test=["also.png"])
    monkeypatch.setattr(loading, "DECODED_AT_START", 2)
    splits = load_splits(root)
    assert set(splits.files) == {"train.json", "test.json"}
    assert splits.trained_on_test() == splits.test
    (root / "b.png").write_text("no picture")
    with pytest.raises(DataError, match=r"(?s)train\.json: 1 of 2 rows.*json:2: .*b\.png is no picture"):
        load_splits(root)


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data set .*none does not exist\. Expected a folder with train\.json and test\.json"
    ):
        load_splits(tmp_path / "none")
    with pytest.raises(
        DataError,
        match=r"has no train\.json and no test\.json; it holds no JSON file\. Name its files in dataset\.train",
    ):
        load_splits(tmp_path)
    write(tmp_path, train=["a.png"])
    with pytest.raises(DataError, match=r"has no test\.json; it holds train\.json"):
        load_splits(tmp_path)
    with pytest.raises(DataError, match=r"other\.json does not exist"):
        load_splits(write(tmp_path, test=["a.png"]), probe="other.json")


@pytest.mark.real_data
def test_the_published_set(real_data: Path) -> None:
    splits = load_splits(real_data / "fewshot-background")
    assert len(splits.train) == len(splits.trained_on_test()) == 20
    assert len(splits.files) == 21
    assert len(set(splits.image_hashes.values())) == 20
