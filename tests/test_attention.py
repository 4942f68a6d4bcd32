"""Where a model attends, read out."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig

import vglm
from vglm.config import repo_root
from vglm.errors import DataError
from vglm.tuning.methods import attach
from vglm.worlds.radiograph_studies import RadiographStudies


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return vglm.load_pretrained(repo_root() / "data" / "visualglm_tiny")


@pytest.fixture
def inputs(loaded: tuple[Any, Any]) -> Any:
    picture = RadiographStudies(1, seed=1)[0].image
    return loaded[1](images=picture, text="图中有什么？", answer="两只猫。", return_tensors="pt")


def test_the_weights_are_those_of_the_forward_pass(loaded: tuple[Any, Any], inputs: Any) -> None:
    model, processor = loaded
    implementation = model.config._attn_implementation, model.model.qformer.config._attn_implementation
    logits = model(**inputs).logits
    reading = vglm.read_attention(model, processor, inputs)
    length, text = inputs["input_ids"].shape[1], model.config.text_config
    assert reading.weights.shape == (text.num_hidden_layers, text.num_attention_heads, length, length)
    torch.testing.assert_close(reading.weights.sum(-1), torch.ones(reading.weights.shape[:3]))
    side = model.config.vision_config.image_size // model.config.vision_config.patch_size
    assert reading.patches.shape[2:] == (model.config.num_image_tokens, side, side)
    spread = reading.patches.sum((-2, -1))
    assert (spread > 0).all()
    assert (spread <= 1 + 1e-5).all()
    assert (model.config._attn_implementation, model.model.qformer.config._attn_implementation) == implementation
    assert torch.equal(model(**inputs).logits, logits)


def test_places_are_those_of_the_slots_and_of_the_answer(loaded: tuple[Any, Any], inputs: Any) -> None:
    model, processor = loaded
    reading = vglm.read_attention(model, processor, inputs)
    ids = inputs["input_ids"][0]
    assert [ids[slot] for slot in reading.slots] == [model.config.image_token_id] * model.config.num_image_tokens
    assert processor.decode(ids[list(reading.answer)]) == "两只猫。"
    assert reading.answer[-1] == len(ids) - 1
    seen = reading.weights.amax((0, 1)) > 0
    start = reading.answer[0] - 1  # <sop>
    assert seen[:start, :start].all()  # the prompt sees itself in both directions
    assert not seen[:start, start:].any()
    assert torch.equal(seen[start:], torch.ones_like(seen).tril()[start:])
    count, slots = len(reading.answer), len(reading.slots)
    assert reading.of_answer().shape == (count, len(reading.weights), slots)
    torch.testing.assert_close(
        reading.of_answer()[0, 1], reading.weights[1].mean(0)[start, list(reading.slots)]
    )  # what `<sop>` saw made the first token
    assert reading.on_patches().shape == (count, *reading.patches.shape[-2:])
    assert (reading.on_patches().sum((-2, -1)) <= reading.of_answer().sum(-1).mean(1) + 1e-5).all()


def test_an_adapter_that_changes_nothing_attends_alike(inputs: Any) -> None:
    model, processor = vglm.load_pretrained(repo_root() / "data" / "visualglm_tiny")
    before = vglm.read_attention(model, processor, inputs)
    tuned = attach(model, LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM"))
    assert torch.equal(vglm.read_attention(tuned, processor, inputs).weights, before.weights)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    assert not torch.allclose(vglm.read_attention(tuned, processor, inputs).weights, before.weights)


def test_virtual_tokens_draw_attention_and_move_nothing(loaded: tuple[Any, Any], inputs: Any) -> None:
    model, processor = vglm.load_pretrained(repo_root() / "data" / "visualglm_tiny")
    tuned = attach(model, PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    tuned_reading, base = vglm.read_attention(tuned, processor, inputs), vglm.read_attention(*loaded, inputs)
    assert (tuned_reading.tokens, tuned_reading.slots, tuned_reading.answer) == (base.tokens, base.slots, base.answer)
    assert tuned_reading.weights.shape == base.weights.shape
    assert (tuned_reading.weights.sum(-1) < 1).all()


def test_what_cannot_be_read_is_refused(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    no_picture = processor(text="你好", answer="你好", return_tensors="pt")
    with pytest.raises(DataError, match="one sample with a picture and an answer, got 1 samples with input_ids"):
        vglm.read_attention(model, processor, no_picture)
