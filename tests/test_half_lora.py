"""LoRA beside half-precision weights: computed in their type, trained and saved in float32."""

import json
from pathlib import Path

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig
from safetensors.torch import load_file
from transformers import TrainerState

import train
from vglm.config import compose
from vglm.model.loading import load_pretrained
from vglm.tuning.adalora import RankAllocation
from vglm.tuning.components import ComponentTuning
from vglm.tuning.merge import merge_adapter
from vglm.tuning.methods import attach, save, warn_of_half_weights

TARGETS = ["query_key_value", "dense_h_to_4h"]


def _tuned(folder: Path, dtype: str, **settings):
    model, processor = load_pretrained(folder, dtype=dtype)
    torch.manual_seed(1)
    tuned = attach(model, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, init_lora_weights=False, **settings))
    return tuned, processor


def _inputs(processor) -> dict[str, torch.Tensor]:
    return dict(processor(text=["背景是什么颜色？"], answer=["红色。"], return_tensors="pt"))


def test_no_input_is_kept_in_float32_for_the_backward_pass(random_model_folder: Path) -> None:
    model, processor = _tuned(random_model_folder, "bfloat16")
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        model.train()(**_inputs(processor))
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    wide = [tensor for tensor in saved if tensor.dtype == torch.float32 and tensor.data_ptr() not in weights]
    sizes = (model.config.text_config.hidden_size, model.config.text_config.intermediate_size)
    assert not [tensor.shape for tensor in wide if tensor.shape[-1:] and tensor.shape[-1] in sizes]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_update_is_that_of_float32_but_for_rounding(random_model_folder: Path, dtype: str) -> None:
    half, processor = _tuned(random_model_folder, dtype)
    full, _ = _tuned(random_model_folder, "float32")
    inputs = _inputs(processor)
    labels = inputs.pop("labels")
    for model in (half, full):
        model.eval()(**inputs, labels=labels).loss.backward()
    gradients = [{n: p.grad for n, p in model.named_parameters() if p.grad is not None} for model in (half, full)]
    assert gradients[0].keys() == gradients[1].keys() != set()
    for name, gradient in gradients[0].items():
        assert gradient.dtype == torch.float32
        expected = gradients[1][name]
        assert (gradient - expected).norm() <= 0.1 * expected.norm(), name


def test_merging_takes_the_float32_matrices(random_model_folder: Path, tmp_path: Path) -> None:
    model, processor = _tuned(random_model_folder, "bfloat16")
    folder = save(model, processor, tmp_path)
    assert {tensor.dtype for tensor in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}
    loaded, _ = load_pretrained(random_model_folder, dtype="bfloat16", adapter=folder)
    inputs = {name: tensor for name, tensor in _inputs(processor).items() if name != "labels"}
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        torch.testing.assert_close(loaded(**inputs).logits, expected, rtol=0, atol=0)
    own = load_pretrained(random_model_folder, dtype="bfloat16", adapter=folder)[0].merge_and_unload()
    merged, _ = merge_adapter(loaded, folder)
    for name, parameter in merged.named_parameters():
        torch.testing.assert_close(parameter, own.get_parameter(name), rtol=2**-7, atol=2**-9)


def test_other_kinds_of_lora_compute_as_peft_does(random_model_folder: Path) -> None:
    model, processor = _tuned(random_model_folder, "bfloat16", use_dora=True)
    model(**_inputs(processor)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_in_float32_nothing_is_different(random_model_folder: Path) -> None:
    model, _ = _tuned(random_model_folder, "float32")
    layers = [module for module in model.modules() if hasattr(module, "lora_variant")]
    assert layers
    assert all(layer.cast_input_dtype_enabled and not layer.lora_variant for layer in layers)


def test_a_bfloat16_run_resumes_bit_for_bit(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path) -> None:
    def run(name: str, *overrides: str) -> Path:
        fixed = [f"model.path_or_id={random_model_folder}", "model.dtype=bfloat16", "dataset=fewshot_background"]
        fixed += [f"dataset.path={few_shot_folder}", "trainer=debug", f"output_dir={tmp_path / name}"]
        fixed += ["method.lora_dropout=0.1", "trainer.save_total_limit=9", "trainer.max_steps=4"]
        return train.run(compose(overrides=[*fixed, "checkpoint_selection.score_checkpoints=false", *overrides]))

    whole = run("whole")
    for part in ("adapter", "checkpoint-4", "checkpoint-3"):
        (whole / part).rename(tmp_path / part)
    again = train.run(compose(overrides=[f"resume={whole}"]))
    tensors = [load_file(folder / "adapter_model.safetensors") for folder in (again / "adapter", tmp_path / "adapter")]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[1])
    assert {tensor.dtype for tensor in tensors[0].values()} == {torch.float32}
    facts = json.loads((again / "run.json").read_text())
    assert facts["verified"]
    assert facts["reload_difference"] == 0.0


def test_weights_of_half_precision_that_train_are_warned_of(
    random_model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_half_weights(_tuned(random_model_folder, "bfloat16")[0])
    assert not caplog.text
    model, _ = load_pretrained(random_model_folder, dtype="bfloat16")
    warn_of_half_weights(attach(model, ComponentTuning(projection="full")))
    assert "what trains is bfloat16 itself" in caplog.text
    assert "below 1/256 of a weight" in caplog.text


def test_adalora_takes_no_importance_from_gradients_that_overflow(random_model_folder: Path) -> None:
    """As float16's do in the first steps, until their scale is low enough."""
    model, processor = load_pretrained(random_model_folder, dtype="float16")
    method = AdaLoraConfig(init_r=4, target_r=2, tinit=1, tfinal=1, total_step=4, target_modules=TARGETS)
    tuned = attach(model, method)
    allocator, callback, state = tuned.base_model.rankallocator, RankAllocation(), TrainerState()
    for state.global_step, scale in ((1, 1e38), (2, 1.0)):
        tuned.zero_grad()
        (tuned(**_inputs(processor)).loss * scale).backward()
        callback.on_optimizer_step(None, state, None, model=tuned)
        assert bool(allocator.exp_avg_ipt) == (scale == 1.0)
    assert all(bool(importance.isfinite().all()) for importance in allocator.exp_avg_ipt.values())
