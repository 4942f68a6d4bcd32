"""An adapter knows its base model: in any layout and precision, and no other."""

import json
import logging
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch import nn

from vglm.errors import AdapterError
from vglm.model.export import convert
from vglm.model.identity import RECORD, hash_config, hash_weights
from vglm.model.loading import load_pretrained, save_native
from vglm.tuning.methods import attach, save


@pytest.fixture
def adapter(random_model_folder: Path, tmp_path: Path) -> Path:
    """A LoRA of the random model, as a run saves it."""
    model, processor = load_pretrained(random_model_folder)
    method = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["query_key_value"], init_lora_weights=False)
    return save(attach(model, method), processor, tmp_path)


def test_weight_hash_sees_names_shapes_and_every_value() -> None:
    def linear() -> nn.Linear:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    same, nudged, flat = linear(), linear(), linear()
    with torch.no_grad():
        nudged.bias[1] += 1e-6
        flat.weight = nn.Parameter(flat.weight.reshape(3, 2))
    digests = [hash_weights(each) for each in (nudged, flat, linear().bfloat16(), nn.Sequential(linear()))]
    assert hash_weights(same) == hash_weights(linear())
    assert hash_weights(linear().half()) == hash_weights(linear().half().float())
    assert len({hash_weights(same), *digests}) == 5


def test_all_layouts_are_one_model(reference: Path, tmp_path: Path) -> None:
    native = convert(reference / "hf_layout", tmp_path / "native", dtype="float32")
    models = [
        load_pretrained(folder, tokenizer=reference / "hf_layout", dtype=dtype)[0]
        for folder, dtype in ((native, "bfloat16"), (reference / "hf_layout", None), (reference / "sat_layout", None))
    ]
    models.append(load_pretrained(native, quantization="nf4")[0])
    assert len({hash_weights(model) for model in models}) == 1
    assert len({hash_config(model.config) for model in models}) == 1
    in_memory, _ = load_pretrained(native)
    del in_memory.__dict__["source_weights"]
    assert hash_weights(in_memory) == hash_weights(models[0])


def test_adapter_goes_on_its_base_only(
    random_model_folder: Path, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert json.loads((adapter / RECORD).read_text("utf-8"))["name"] == random_model_folder.name
    for arguments in ({}, {"dtype": "bfloat16"}, {"quantization": "nf4"}):
        load_pretrained(random_model_folder, adapter=adapter, **arguments)
    assert not caplog.records

    model, processor = load_pretrained(random_model_folder)
    with torch.no_grad():
        model.get_parameter("model.qformer.layernorm.bias")[0] += 1e-3
    save_native(model, processor, tmp_path / "nudged")
    with pytest.raises(
        AdapterError,
        match=r"another base model: expected 'random_tiny' with weights \w{12}, found 'nudged' with \w{12}",
    ):
        load_pretrained(tmp_path / "nudged", adapter=adapter)
    forced, _ = load_pretrained(tmp_path / "nudged", adapter=adapter, adapter_check=False)
    assert forced.peft_config

    model.config.text_config.layer_norm_eps *= 2
    save_native(model, processor, tmp_path / "other")
    with pytest.raises(AdapterError, match=r"expected 'random_tiny' with configuration \w{12}, found 'other'"):
        load_pretrained(tmp_path / "other", adapter=adapter)


def test_settings_of_training_do_not_count(random_model_folder: Path) -> None:
    model, _ = load_pretrained(random_model_folder)
    before = hash_config(model.config)
    model.config.text_config.hidden_dropout = 0.1
    assert hash_config(model.config) == before
    model.config.image_token_id += 1
    assert hash_config(model.config) != before


def test_adapters_with_no_record_or_a_damaged_one(
    random_model_folder: Path, adapter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (adapter / RECORD).write_text("{")
    with pytest.raises(AdapterError, match=rf"{RECORD} is damaged"):
        load_pretrained(random_model_folder, adapter=adapter)
    (adapter / RECORD).unlink()
    with caplog.at_level(logging.WARNING):
        load_pretrained(random_model_folder, adapter=adapter)
    assert f"has no {RECORD}" in caplog.text


def test_the_base_inside_an_adapter_is_the_same(random_model_folder: Path) -> None:
    model, _ = load_pretrained(random_model_folder)
    expected = hash_weights(model)
    del model.__dict__["source_weights"]
    method = LoraConfig(r=2, target_modules=["query_key_value"], use_dora=True, init_lora_weights=False)
    assert hash_weights(attach(model, method).get_base_model()) == expected
