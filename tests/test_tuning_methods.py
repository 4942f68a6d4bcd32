"""What trains is exactly what is declared, and what is saved is exactly what trained."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from vglm.config import build, compose
from vglm.errors import ConfigError
from vglm.model.configuration import VisualGlmConfig
from vglm.model.loading import load_pretrained
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.tuning.components import COMPONENTS, ComponentTuning, belongs_to, learning_rate_of
from vglm.tuning.methods import attach, save, trainable_share


@pytest.fixture
def model_and_processor(random_model_folder: Path):
    return load_pretrained(random_model_folder)


def _training(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_lora_trains_only_its_matrices_in_the_language_model(model_and_processor) -> None:
    model, _ = model_and_processor
    layers = model.config.text_config.num_hidden_layers
    tuned = attach(model, build(compose(overrides=["method.r=3"]).method))
    training = _training(tuned)
    assert all(".language_model.layers." in name and ".lora_" in name for name in training)
    assert len(training) == layers * 4 * 2  # four linear layers, A and B


def test_published_recipe_trains_layers_0_and_14_at_a_scale_of_a_tenth() -> None:
    with torch.device("meta"):
        model = VisualGlmForConditionalGeneration(VisualGlmConfig())  # VisualGLM-6B, without memory
        tuned = attach(model, build(compose(overrides=["recipes=background/lora_seed"]).method))
    targets = {name.partition(".lora_")[0].rpartition("layers.")[2] for name in _training(tuned)}
    assert targets == {f"{layer}.attention.{name}" for layer in (0, 14) for name in ("query_key_value", "dense")}
    assert trainable_share(tuned).trainable == 2 * 10 * (4096 + 3 * 4096 + 4096 + 4096)
    assert {module.scaling["default"] for module in tuned.modules() if isinstance(module, LoraLayer)} == {0.1}


def test_components_share_out_all_parameters(model_and_processor) -> None:
    model, _ = model_and_processor
    names = {name for name, _ in model.named_parameters()}
    by_component = {
        component: _training(attach(model, ComponentTuning(**{component: "full"}))) for component in COMPONENTS
    }
    assert set().union(*by_component.values()) == names
    assert all(by_component.values())
    assert not any(one & other for one, other in itertools.combinations(by_component.values(), 2))
    assert _training(attach(model, ComponentTuning(**dict.fromkeys(COMPONENTS, "full")))) == names


def test_share_counts_parameters(model_and_processor) -> None:
    model, _ = model_and_processor
    projection = model.model.language_projection
    share = trainable_share(attach(model, ComponentTuning(projection="full")))
    assert share.trainable == projection.weight.numel() + projection.bias.numel()
    assert share.total == model.num_parameters()
    assert str(share).startswith(f"{share.trainable:,} of {share.total:,} parameters train")


def test_a_method_that_finds_no_module_is_refused(model_and_processor) -> None:
    model, _ = model_and_processor
    with pytest.raises(ConfigError, match="does not fit this model"):
        attach(model, LoraConfig(target_modules=["no_such_layer"]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"modules_to_save": ["lm_head", "language_projecton"]}, "name language_projecton (modules_to_save)"),
        ({"target_modules": ["query_key_value", "embeddings.words"]}, "name embeddings.words (target_modules)"),
        ({"trainable_token_indices": {"embed_tokens": [1]}}, "name embed_tokens (trainable_token_indices)"),
    ],
)
def test_names_of_which_some_are_no_module_are_refused(model_and_processor, names, message: str) -> None:
    model, _ = model_and_processor
    with pytest.raises(ConfigError, match=re.escape(message)):
        attach(model, LoraConfig(**{"target_modules": ["query_key_value"], **names}))


def test_adapter_holds_only_what_trained_and_reloads_with_equal_logits(
    model_and_processor, random_model_folder: Path, tmp_path: Path
) -> None:
    model, processor = model_and_processor
    torch.manual_seed(0)
    tuned = attach(model, build(compose().method))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    folder = save(tuned, processor, tmp_path)
    assert folder == tmp_path / "adapter"
    files = ["adapter_config.json", "adapter_model.safetensors", "base_model.json"]
    assert sorted(path.name for path in folder.iterdir()) == files

    stored = load_file(folder / "adapter_model.safetensors")
    trained = {
        name.replace(".default", ""): parameter
        for name, parameter in tuned.named_parameters()
        if parameter.requires_grad
    }
    assert stored.keys() == trained.keys()

    inputs = processor(text="背景是什么颜色？", return_tensors="pt")
    base, _ = load_pretrained(random_model_folder)
    again, _ = load_pretrained(random_model_folder, adapter=folder)
    with torch.no_grad():
        logits = tuned(**inputs).logits
        torch.testing.assert_close(again(**inputs).logits, logits, rtol=0, atol=0)
        assert (base(**inputs).logits - logits).abs().max() > 1e-3


def test_full_tuning_saves_a_model_that_loads_alone(model_and_processor, tmp_path: Path) -> None:
    model, processor = model_and_processor
    tuned = attach(model, ComponentTuning(language_model="full"))
    with torch.no_grad():
        tuned.model.language_model.final_layernorm.weight.mul_(2)
    again, _ = load_pretrained(save(tuned, processor, tmp_path))
    for (name, one), (_, other) in zip(tuned.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_each_component_is_frozen_adapted_or_copied_as_declared(random_model_folder: Path, tmp_path: Path) -> None:
    config = VisualGlmConfig.from_pretrained(random_model_folder)
    config.tie_word_embeddings = False
    model = VisualGlmForConditionalGeneration(config)
    parts: dict[str, Any] = {"vision": "lora", "projection": "full", "language_model": "full", "embeddings": "lora"}
    tuned = attach(model, ComponentTuning(**parts, lora=LoraConfig(r=2)))
    for name in _training(tuned):
        component = next(component for component in COMPONENTS if belongs_to(name, component))
        assert ".lora_" in name if parts[component] == "lora" else ".modules_to_save." in name
    trained = {component for component in COMPONENTS if any(belongs_to(name, component) for name in _training(tuned))}
    assert trained == set(parts)


@pytest.mark.parametrize("part", ["lora", "full"])
def test_an_adapter_does_not_part_tied_embeddings(part: Any, model_and_processor) -> None:
    model, _ = model_and_processor
    assert model.config.tie_word_embeddings
    method = ComponentTuning(qformer="lora", embeddings=part, lora=LoraConfig(r=2))
    with pytest.raises(ConfigError, match="are one matrix"):
        attach(model, method)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "every component is frozen"),
        ({"vision": "lora"}, "`lora` .* is not given"),
        ({"vision": "lora", "lora": LoraConfig(target_modules=["qkv"])}, "follow from the components"),
    ],
)
def test_a_declaration_that_says_nothing_or_too_much_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ComponentTuning(**options)


def test_each_part_has_its_own_learning_rate() -> None:
    rates = {"projection": 1e-4, "lora_B": "16x", "vision": "0.5x"}
    prefix = "base_model.model.model"
    expected = {
        f"{prefix}.language_projection.weight": 1e-4,
        f"{prefix}.language_projection.lora_B.default.weight": 16e-4,
        f"{prefix}.vision_model.encoder.layers.0.mlp.fc1.lora_A.default.weight": 5e-4,
        f"{prefix}.language_model.layers.0.attention.dense.lora_A.default.weight": 1e-3,
        f"{prefix}.language_model.layers.0.attention.dense.lora_B.default.weight": 16e-3,
    }
    assert {name: learning_rate_of(name, 1e-3, rates) for name in expected} == pytest.approx(expected)
