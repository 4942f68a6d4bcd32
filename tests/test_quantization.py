"""Quantised while it streams in: bitsandbytes' own numbers, any layout, any part, saved and loaded again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from transformers import GenerationConfig

from vglm.model.export import convert
from vglm.model.loading import load_pretrained, save_native
from vglm.model.quantization import quantized


@pytest.fixture(scope="module")
def logits_of():
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 1001, 1004]])}

    @torch.inference_mode()
    def answer(model: Any) -> torch.Tensor:
        logits: torch.Tensor = model(**inputs).logits
        return logits

    return answer


@pytest.mark.parametrize("shape", [(64, 64), (1300, 448), (3, 22), (5, 7)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_those_of_bitsandbytes(kind: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    weight = torch.randn(shape).to(dtype)
    is_nested = kind == "nf4"
    layer = Linear4bit(shape[1], shape[0], compress_statistics=is_nested, quant_type=kind, device="meta")
    before = weight.clone()
    ours = quantized(layer, weight)
    theirs = Params4bit(weight.clone(), requires_grad=False, compress_statistics=is_nested, quant_type=kind).to("cpu")
    assert torch.equal(weight, before)
    assert torch.equal(ours.data, theirs.data)
    packed, expected = (weight.quant_state.as_dict(packed=True) for weight in (ours, theirs))
    assert packed.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(packed[key], value), key


@pytest.mark.parametrize("shape", [(64, 64), (1300, 448), (3, 22)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_eight_bits_are_those_of_bitsandbytes(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    weight = torch.randn(shape).to(dtype)
    ours = quantized(Linear8bitLt(shape[1], shape[0], has_fp16_weights=False, device="meta"), weight)
    theirs = Int8Params(weight.clone(), requires_grad=False).to("cpu")
    assert torch.equal(ours.data, theirs.data)
    assert torch.equal(ours.SCB, theirs.SCB)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("layout", ["hf_layout", "sat_layout"])
def test_original_layouts_are_quantised_without_converting_them(
    layout: str, quantization: Any, reference: Path, tmp_path: Path, logits_of: Any
) -> None:
    tokenizer = reference / "hf_layout"
    convert(reference / layout, tmp_path / "native", tokenizer=tokenizer)
    direct, _ = load_pretrained(reference / layout, quantization=quantization, tokenizer=tokenizer)
    native, _ = load_pretrained(tmp_path / "native", quantization=quantization)
    assert torch.equal(logits_of(direct), logits_of(native))
    plain, _ = load_pretrained(reference / layout, tokenizer=tokenizer)
    assert not torch.equal(logits_of(direct), logits_of(plain))


@pytest.mark.parametrize("quantization", ["nf4", "int4", "int8"])
def test_other_parts_are_quantised_saved_and_loaded_again(
    quantization: Any, random_model_folder: Path, tmp_path: Path, logits_of: Any
) -> None:
    parts = ["vision", "qformer", "projection"]
    model, processor = load_pretrained(random_model_folder, quantization=quantization, quantization_parts=parts)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    quantised = {name for name in linear if isinstance(model.get_submodule(name), Linear4bit | Linear8bitLt)}
    assert quantised == {name for name in linear if not name.startswith(("model.language_model", "lm_head"))}
    save_native(model, processor, tmp_path / "saved")
    again, _ = load_pretrained(tmp_path / "saved")
    pixels = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        assert torch.equal(again.get_image_features(pixels), model.get_image_features(pixels))
    assert torch.equal(logits_of(again), logits_of(model))


def test_settings_for_generation_come_along(random_model_folder: Path, tmp_path: Path) -> None:
    model, processor = load_pretrained(random_model_folder)
    model.generation_config = GenerationConfig(max_new_tokens=7, eos_token_id=1005)
    save_native(model, processor, tmp_path / "model")
    quantised, _ = load_pretrained(tmp_path / "model", quantization="nf4", device_map="auto")
    assert quantised.generation_config.max_new_tokens == 7
    assert quantised.is_quantized
    assert quantised.is_loaded_in_4bit
    assert quantised.name_or_path == quantised.config.name_or_path == str(tmp_path / "model")
