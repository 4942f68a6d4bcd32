from pathlib import Path

import pytest

from vglm.data.images import image_sha256
from vglm.data.loading import load_dataset
from vglm.errors import ConfigError
from vglm.worlds.general_ability import FAMILIES, KINDS, retention_splits
from vglm.worlds.pretraining import SceneDialogues

DATA = Path(__file__).parents[1] / "data" / "background_synthetic"


def test_every_kind_is_there_in_both_languages() -> None:
    splits = retention_splits(per_kind=3)
    samples = splits.retention
    assert (len(splits.train), len(splits.test), len(samples)) == (0, 0, 2 * 3 * len(KINDS))
    for kind in KINDS:
        rows = [sample for sample in samples if sample.meta["kind"] == kind]
        assert [sample.meta["language"] for sample in rows] == ["zh", "en"] * 3
        assert {sample.meta["family"] for sample in rows} == {FAMILIES[kind]}
        assert all((sample.image is None) == kind.startswith("plain") for sample in rows)
        assert {len(sample.turns) for sample in rows} == {2 if "dialogue" in kind else 1}
    assert {sample.meta["family"] for sample in samples} == {"caption", "question", "dialogue", "plain"}
    assert len({sample.id for sample in samples}) == len(samples)
    assert [sample.group for sample in samples[::2]] == [sample.group for sample in samples[1::2]]
    plain = [sample for sample in samples if sample.meta["kind"] == "plain_dialogue"]
    assert all(sample.history[0][1] != sample.answer for sample in plain)


def test_the_seed_says_it_all() -> None:
    first, again, other = (retention_splits(per_kind=2, seed=seed) for seed in (5, 5, 6))
    assert [sample.turns for sample in first.retention] == [sample.turns for sample in again.retention]
    assert first.hash_images(first.retention) == again.hash_images(again.retention)
    assert first.data_hash == again.data_hash != other.data_hash
    assert set(first.hash_images(first.retention)) & set(other.hash_images(other.retention)) == {None}


def test_no_picture_is_one_that_recipes_train_on() -> None:
    """The replay set and the pre-training set are one stream (seed 1), the background set another."""
    retention = retention_splits()
    pictures = set(retention.hash_images(retention.retention)) - {None}
    background = load_dataset(DATA, train="train.json", test="test.json", retention="probe.json")
    hashes = {
        digest
        for part in (background.train, background.test, background.retention)
        for digest in background.hash_images(part)
    }
    hashes |= {image_sha256(sample.image) for sample in SceneDialogues(300, 1) if sample.image is not None}
    assert len(pictures) == 60
    assert not pictures & hashes


def test_a_plain_dialogue_is_in_no_training_set() -> None:
    """The scene world's text-only samples have one turn, so none of them has such a history."""
    assert {len(sample.turns) for sample in SceneDialogues(200, 1, mixture={"plain": 1.0})} == {1}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no 'captions'\. Choose from caption, subject"):
        retention_splits(kinds=["captions"])
    with pytest.raises(ConfigError, match="per_kind must be at least 1"):
        retention_splits(per_kind=0)
    assert {sample.meta["kind"] for sample in retention_splits(per_kind=1, kinds=["yes_no", "repeat"]).retention} == {
        "yes_no",
        "repeat",
    }
