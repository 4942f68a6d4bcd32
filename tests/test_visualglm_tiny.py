"""The checkpoint that ships: it answers about pictures it has never seen, because it looks at them."""

from collections import defaultdict

import pytest
import torch

import vglm
from vglm.config import build, compose, repo_root
from vglm.data.sample import Sample
from vglm.evaluation.predict.controls import shuffle_images
from vglm.evaluation.predict.decoding import Decoding
from vglm.evaluation.predict.generation import generate_predictions
from vglm.evaluation.score.metrics import exact_match
from vglm.model.identity import hash_weights
from vglm.worlds.pretraining import SceneDialogues

FOLDER = repo_root() / "data" / "visualglm_tiny"
Loaded = tuple[vglm.VisualGlmForConditionalGeneration, vglm.VisualGlmProcessor]
UNSEEN_SEED = 20_261
"""Of scenes that neither pre-training nor the model card's scores used."""


@pytest.fixture(scope="module")
def tiny() -> Loaded:
    return vglm.load_pretrained(FOLDER)


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return list(SceneDialogues(200, UNSEEN_SEED))


def scores(tiny: Loaded, samples: list[Sample]) -> dict[str, float]:
    """Exact match over all samples and by kind of question."""
    records = generate_predictions(*tiny, samples, Decoding(batch_size=50, max_new_tokens=32))
    right: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for kind in ("all", str(record.kind)):
            right[kind].append(exact_match(record.reference, record.prediction))
    return {kind: sum(values) / len(values) for kind, values in right.items()}


def test_new_scenes_are_answered(tiny: Loaded, scenes: list[Sample]) -> None:
    accuracies = scores(tiny, scenes)
    assert accuracies["all"] >= 0.9
    assert all(accuracies[kind] >= 0.95 for kind in ("caption", "subject", "colour", "count", "place", "dialogue"))


def test_shuffled_images_leave_chance(tiny: Loaded, scenes: list[Sample]) -> None:
    accuracies = scores(tiny, shuffle_images([scene for scene in scenes if scene.image is not None], seed=1))
    assert accuracies["caption"] <= 0.05
    assert accuracies["all"] <= 0.3  # a yes or no is right half the time, a count one time in four


def test_the_demo_question_is_new_to_it(tiny: Loaded) -> None:
    assert scores(tiny, build(compose().dataset).test)["all"] <= 0.1


def test_the_model_card_names_these_weights() -> None:
    model, _ = vglm.load_pretrained(FOLDER)
    assert hash_weights(model) in (FOLDER / "README.md").read_text(encoding="utf-8")
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert size <= 20 * 2**20


def test_it_is_shipped_in_half_precision_and_computes_in_single() -> None:
    stored, _ = vglm.load_pretrained(FOLDER, dtype="auto")
    loaded, _ = vglm.load_pretrained(FOLDER)
    assert (stored.dtype, loaded.dtype) == (torch.float16, torch.float32)


def test_pretraining_recipe_makes_this_architecture(tiny: Loaded) -> None:
    overrides = ["recipes=tiny/pretrain", "model.vision_pretraining.steps=1", "model.vision_pretraining.batch_size=2"]
    made, shipped = build(compose(overrides=overrides).model)[0].config.to_dict(), tiny[0].config.to_dict()
    for part in ("text_config", "vision_config", "qformer_config"):
        for config in (made, shipped):
            del config[part]["dtype"]
        assert made[part] == shipped[part]
