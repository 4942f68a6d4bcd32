"""Merging is W + dW in float64, rounded once; peft's variants and the figures about them."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PromptTuningConfig

from vglm.config import build, compose
from vglm.errors import AdapterError, ConfigError
from vglm.model.export import convert
from vglm.model.loading import attach_adapter, load_pretrained, save_native
from vglm.tuning.contract import answer_logits, relative_difference
from vglm.tuning.merge import Combination, Update, combine_adapters, merge_adapter, summarise, total
from vglm.tuning.methods import attach, save


@pytest.fixture
def make_adapter(random_model_folder: Path, tmp_path: Path):
    """A saved adapter that moves the weights, and the logits of the model that has it."""

    def make(method, name: str = "run", quantization: str | None = None):
        base, processor = load_pretrained(random_model_folder, quantization=quantization)
        torch.manual_seed(len(name))
        tuned = attach(base, method)
        with torch.no_grad():
            for parameter in tuned.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        (tmp_path / name).mkdir()
        batch = dict(processor(text=["你好"], answer=["红色。"], return_tensors="pt", padding=True))
        batch["layout_ids"] = batch["input_ids"]
        return save(tuned, processor, tmp_path / name), batch, answer_logits(tuned, batch)

    return make


def test_components_that_train_in_full_merge_and_are_measured(make_adapter, random_model_folder: Path) -> None:
    parts = ["vision=full", "qformer=lora", "projection=full", "language_model=lora"]
    adapter, batch, expected = make_adapter(_lora("method=components", *(f"method.{part}" for part in parts)))
    base, _ = load_pretrained(random_model_folder)
    untouched = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged, updates = merge_adapter(attach_adapter(base, adapter), adapter)
    assert relative_difference(answer_logits(merged, batch), expected) < 1e-5
    state = merged.state_dict()
    assert state.keys() == untouched.keys()
    moved = {name for name, tensor in untouched.items() if not torch.equal(tensor, state[name])}
    matrices = {name.removesuffix(".weight") for name in moved if untouched[name].ndim > 1}
    assert matrices == {name.removesuffix(".weight") for name in updates}
    assert "model.query_tokens" not in moved
    assert any("vision_model" in name for name in moved)


EMBEDDINGS = {
    "a copy of the head": {"modules_to_save": ["lm_head"]},
    "a copy of the embeddings": {"modules_to_save": ["word_embeddings"]},
    "LoRA on the head": {"target_modules": ["lm_head"]},
    "LoRA on the embeddings": {"target_modules": ["word_embeddings"]},
}


@pytest.mark.parametrize("what", EMBEDDINGS)
def test_what_parts_head_and_embeddings_stays_parted_in_every_layout(
    what: str, make_adapter, random_model_folder: Path, tmp_path: Path
) -> None:
    method = LoraConfig(task_type="CAUSAL_LM", r=2, **{"target_modules": ["query_key_value"], **EMBEDDINGS[what]})
    adapter, batch, expected = make_adapter(method)
    base, processor = load_pretrained(random_model_folder)
    assert base.config.tie_word_embeddings
    merged, _ = merge_adapter(attach_adapter(base, adapter), adapter)
    assert relative_difference(answer_logits(merged, batch), expected) < 1e-6
    expected = answer_logits(merged, batch)
    save_native(merged, processor, tmp_path / "merged")
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert (config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]) == (False, False)
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True  # as versions before wrote it
    (tmp_path / "merged/config.json").write_text(json.dumps(config))
    for layout in ("hf", "sat", "native"):
        tokenizer = tmp_path / "merged" if layout == "sat" else None
        folder = convert(tmp_path / "merged", tmp_path / layout, to=layout)
        assert torch.equal(answer_logits(load_pretrained(folder, tokenizer=tokenizer)[0], batch), expected)


def _lora(*overrides: str):
    return build(compose(overrides=list(overrides)).method)


VARIANTS = {
    "lora": [],
    "rslora": ["method.use_rslora=true"],
    "dora": ["method.use_dora=true"],
    "pissa": ["method.init_lora_weights=pissa"],
    "olora": ["method.init_lora_weights=olora"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_lora_merge_exactly_and_are_measured_from_the_base(
    variant: str, make_adapter, random_model_folder: Path
) -> None:
    adapter, batch, expected = make_adapter(_lora(*VARIANTS[variant]))
    base, _ = load_pretrained(random_model_folder)
    untouched = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    merged, updates = merge_adapter(attach_adapter(base, adapter), adapter)
    assert relative_difference(answer_logits(merged, batch), expected) < 1e-5
    assert merged.state_dict().keys() == untouched.keys()
    for name, update in updates.items():
        before, after = untouched[f"{name}.weight"].double(), merged.get_submodule(name).weight.double()
        assert update.relative == pytest.approx(((after - before).norm() / before.norm()).item(), rel=1e-5)
        assert update.noise < 1e-5


@pytest.mark.parametrize("quantization", ["nf4", "int4", "int8"])
def test_a_quantised_base_is_dequantised(quantization: str, make_adapter, random_model_folder: Path) -> None:
    adapter, batch, expected = make_adapter(_lora(), quantization=quantization)
    base, _ = load_pretrained(random_model_folder, quantization=quantization)
    merged, updates = merge_adapter(attach_adapter(base, adapter), adapter, torch.float16)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float16}
    assert {type(module) for module in merged.modules() if "Linear" in type(module).__name__} == {torch.nn.Linear}
    assert relative_difference(answer_logits(merged.float(), batch), expected) < 5e-3
    assert len(updates) == 8


def test_ia3_merges(make_adapter, random_model_folder: Path) -> None:
    targets = ["attention.query_key_value", "mlp.dense_4h_to_h"]
    method = IA3Config(task_type="CAUSAL_LM", target_modules=targets, feedforward_modules=["mlp.dense_4h_to_h"])
    adapter, batch, expected = make_adapter(method)
    base, _ = load_pretrained(random_model_folder)
    merged, _ = merge_adapter(attach_adapter(base, adapter), adapter)
    assert relative_difference(answer_logits(merged, batch), expected) < 1e-5


def test_virtual_tokens_and_broken_values_are_refused(make_adapter, random_model_folder: Path) -> None:
    adapter, _, _ = make_adapter(PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    tuned = attach_adapter(load_pretrained(random_model_folder)[0], adapter)
    with pytest.raises(AdapterError, match=r"virtual tokens \(PROMPT_TUNING\); they are no change of the weights"):
        merge_adapter(tuned, adapter)
    adapter, _, _ = make_adapter(_lora(), name="broken")
    tuned = attach_adapter(load_pretrained(random_model_folder)[0], adapter)
    with torch.no_grad():
        next(parameter for name, parameter in tuned.named_parameters() if "lora_B" in name).fill_(math.inf)
    with pytest.raises(AdapterError, match=r"cannot be merged into model\.language_model\.layers\.0"):
        merge_adapter(tuned, adapter)


def test_dare_repeats_with_its_seed_and_leaves_the_base_alone(
    make_adapter, random_model_folder: Path, tmp_path: Path
) -> None:
    adapters = [make_adapter(_lora(), name=name)[0] for name in ("a", "bb")]
    base, _ = load_pretrained(random_model_folder)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    results = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        folder = combine_adapters(base, adapters, Combination([1, 1], "dare_linear", seed=seed), tmp_path / name / "c")
        assert [path.name for path in folder.parent.iterdir()] == ["c"]
        results.append((folder / "adapter_model.safetensors").read_bytes())
    assert results[0] == results[1] != results[2]
    after = base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(ConfigError, match="2 adapters need as many, got 1"):
        combine_adapters(base, adapters, Combination([1]), tmp_path / "no")
    with pytest.raises(ConfigError, match="--density must be above 0"):
        Combination([1, 1], density=0)


def test_figures_of_updates() -> None:
    updates = {"a": Update(3.0, 0.3, 0.03), "b": Update(4.0, 0.4, 0.04), "c": Update(1.0, 0.0)}
    whole = total([updates["a"], updates["b"]])
    assert (whole.weight, whole.relative, whole.noise) == pytest.approx((5.0, 0.1, 0.01))
    facts = summarise(updates)
    assert (facts["modules"], facts["min"], facts["max"]) == (3, 0.0, pytest.approx(0.1))
    assert facts["median"] == pytest.approx(0.1)
    assert set(facts["largest"]) == {"a", "b", "c"}
    assert Update(0.0, 0.0).relative == 0.0
