import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vglm.errors import DataError
from vglm.worlds.background import ANSWERS, QUESTION, main, write_background_set
from vglm.worlds.pretraining import corpus_lines
from vglm.worlds.questions import QUESTION_KINDS
from vglm.worlds.scenes import NEW_PLACES, PLACES

COMMITTED = Path(__file__).parents[1] / "data" / "background_synthetic"
COMMITTED_SEED = 2023


def _rows(folder: Path, split: str) -> list[dict[str, Any]]:
    return json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))


def _digests(folder: Path, split: str) -> set[str]:
    names = {row["img"] for row in _rows(folder, split) if "img" in row}
    return {hashlib.sha256(Image.open(folder / name).tobytes()).hexdigest() for name in names}


def test_the_committed_set_is_what_its_seed_gives(tmp_path: Path) -> None:
    """Rows are equal; pixels may differ by rounding between machines, and files by their compression."""
    write_background_set(tmp_path / "set", COMMITTED_SEED)
    for split in ("train", "validation", "test", "probe"):
        assert (tmp_path / "set" / f"{split}.json").read_text() == (COMMITTED / f"{split}.json").read_text()
    names = sorted(path.name for path in (COMMITTED / "images").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "set" / "images").iterdir())
    for name in names:
        made, committed = (
            np.asarray(Image.open(folder / "images" / name), int) for folder in (tmp_path / "set", COMMITTED)
        )
        assert np.abs(made - committed).max() <= 2, name


def test_the_committed_set_is_balanced_and_small() -> None:
    for split, per_place in (("train", 4), ("validation", 8), ("test", 24)):
        rows = _rows(COMMITTED, split)
        assert Counter(row["place"] for row in rows) == dict.fromkeys(NEW_PLACES, per_place)
        assert all(row["prompt"] == QUESTION and row["label"] == ANSWERS[row["place"]] for row in rows)
    retention = _rows(COMMITTED, "probe")
    counts = Counter((row["kind"], row.get("english", False)) for row in retention)
    assert counts == {(kind, english): 9 for kind in QUESTION_KINDS for english in (False, True)}
    assert all(("img" in row) == (row["kind"] not in ("plain", "repeat")) for row in retention)
    assert all(("history" in row) == (row["kind"] == "dialogue") for row in retention)
    assert QUESTION not in {row["prompt"] for row in retention}
    files = [path for path in COMMITTED.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in (COMMITTED / "images").iterdir()) < 8_192
    assert sum(path.stat().st_size for path in files) < 2_000_000


def test_no_picture_is_in_two_splits() -> None:
    pictures = [_digests(COMMITTED, split) for split in ("train", "validation", "test", "probe")]
    assert list(map(len, pictures)) == [20, 40, 120, 63]
    assert len(set().union(*pictures)) == 243


def test_training_pictures_show_the_same_subjects_in_every_place() -> None:
    """So what stands in front cannot tell the answer."""
    rows = _rows(COMMITTED, "train")
    assert len({row["subjects"] for row in rows}) == 4
    assert set(Counter((row["subjects"], row["place"]) for row in rows).values()) == {1}
    assert len({row["subjects"] for row in _rows(COMMITTED, "test")}) > 40


def test_the_tiny_models_pretraining_neither_shows_nor_names_a_place_of_the_set() -> None:
    assert not set(NEW_PLACES) & set(PLACES)
    words = {answer.removeprefix("这张图片的背景是").rstrip("。") for answer in ANSWERS.values()}
    assert not [line for line in corpus_lines() for word in words if word in line]


def test_every_place_has_its_own_answer() -> None:
    assert set(ANSWERS) == set(NEW_PLACES)
    assert len(set(ANSWERS.values())) == len(NEW_PLACES)
    assert all(answer.startswith("这张图片的背景是") and answer.endswith("。") for answer in ANSWERS.values())


def test_a_seed_gives_the_same_bytes_and_another_gives_other_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--train-per-place", "1", "--test-per-place", "2", "--probe-per-kind", "1"]
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert main([str(tmp_path / name), "--seed", seed, *size]) == 0
    assert "written with seed 7" in capsys.readouterr().out
    contents = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert contents["a"] == contents["b"]
    assert len(contents["a"]) == 4 + 5 + 40 + 10 + 7
    assert not _digests(tmp_path / "a", "test") & _digests(tmp_path / "c", "test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        write_background_set(tmp_path, 1)
    assert main([str(tmp_path), "--seed", "1"]) == 2
    assert "remove it first" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_background_set(tmp_path / "file" / "set", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notes.txt"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "required: --seed"),
        (["--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--seed", "1", "--test-per-place", "0"], "--test-per-place must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(tmp_path / "set"), *options])
    assert exit_info.value.code == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
