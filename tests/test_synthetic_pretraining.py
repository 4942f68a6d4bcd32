import pickle
import subprocess
import sys
from collections import Counter

import pytest

from vglm.errors import ConfigError
from vglm.worlds.pretraining import MIXTURE, SceneDialogues, corpus_lines
from vglm.worlds.questions import answer_to
from vglm.worlds.scenes import Scene


def test_a_sample_follows_from_seed_and_number() -> None:
    one, other = SceneDialogues(1_000, seed=1), pickle.loads(pickle.dumps(SceneDialogues(50, seed=1)))
    for i in (49, 0, 7):
        assert one[i].turns == other[i].turns
        assert one[i].meta == other[i].meta
        assert (one[i].image is None) == (other[i].image is None)
        if one[i].image is not None:
            assert one[i].image.tobytes() == other[i].image.tobytes()


def test_seeds_give_different_pictures() -> None:
    pictures = [
        sample.image.tobytes() for seed in (1, 2) for sample in SceneDialogues(100, seed) if sample.image is not None
    ]
    assert len(set(pictures)) == len(pictures)


def test_it_is_a_sequence() -> None:
    dialogues = SceneDialogues(10, seed=1, size=32)
    assert len(dialogues) == len(list(dialogues)) == 10
    assert dialogues[-1].id == dialogues[9].id == "scenes-1-9"
    assert [sample.id for sample in dialogues[2:8:3]] == ["scenes-1-2", "scenes-1-5"]
    with pytest.raises(IndexError):
        dialogues[10]


def test_the_answer_fits_the_scene_in_meta() -> None:
    for sample in SceneDialogues(300, seed=2, size=16):
        assert sample.language == sample.meta["language"]
        assert sample.group == sample.id
        if sample.meta["kind"] in ("plain", "repeat"):
            assert sample.image is None
        else:
            assert sample.image is not None
            assert sample.image.size == (16, 16)
        if sample.meta["kind"] in ("subject", "colour", "count", "place", "caption"):
            scene = Scene(*(sample.meta[key] for key in ("subject", "colour", "count", "place")), (), 0)
            assert sample.answer == answer_to(scene, sample.meta["kind"], sample.language)
            assert sample.history == []
        if sample.meta["kind"] == "dialogue":
            assert len(sample.history) == 1


def test_the_mixture_is_kept() -> None:
    kinds = Counter(sample.meta["kind"] for sample in SceneDialogues(2_000, seed=3, size=16))
    for kind, share in MIXTURE.items():
        assert kinds[kind] / 2_000 == pytest.approx(share, abs=0.04)
    only = SceneDialogues(100, seed=3, size=16, mixture={"count": 2, "repeat": 2, "plain": 0})
    kinds = Counter(sample.meta["kind"] for sample in only)
    assert set(kinds) == {"count", "repeat"}


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"colours": 1.0}, r"unknown question kinds \['colours'\].*'colour'"),
        ({"colour": 0}, "not all zero"),
        ({}, "not all zero"),
    ],
)
def test_a_wrong_mixture_is_refused(mixture: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SceneDialogues(10, seed=1, mixture=mixture)


def test_the_tokenizer_corpus_holds_both_languages_and_no_random_strings() -> None:
    lines = list(corpus_lines(2_000))
    assert len(lines) == 2_000
    assert lines == list(corpus_lines(2_000))
    assert "在沙滩上。" in lines
    assert "On the beach." in lines
    assert not any(line.startswith(("请重复", "Repeat")) for line in lines)


def test_no_torch_is_needed() -> None:
    code = "import sys, vglm.worlds.background; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": "src"}, check=False).returncode == 0
