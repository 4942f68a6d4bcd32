"""An adapter knows its base model: in any layout and precision, and no other."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig
from torch import nn

from vglm.config import repo_root
from vglm.errors import AdapterError
from vglm.model.checkpoint import NativeWeights
from vglm.model.export import convert
from vglm.model.identity import RECORD, hash_config, hash_parts, hash_weights
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
    digests = [hash_weights(module) for module in (nudged, flat, linear().bfloat16(), nn.Sequential(linear()))]
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


def test_the_checkpoint_is_read_once(random_model_folder: Path, tmp_path: Path, monkeypatch) -> None:
    folder = shutil.copytree(random_model_folder, tmp_path / "copy")
    for file in folder.iterdir():
        os.utime(file, (1e9, 1e9))  # long ago
    expected = hash_weights(load_pretrained(folder)[0])
    assert expected == hash_weights(load_pretrained(random_model_folder)[0])
    model, _ = load_pretrained(folder)

    def read(*_: object) -> None:
        raise AssertionError("the weights are read again")

    monkeypatch.setattr(NativeWeights, "_describe", read)
    assert hash_weights(model) == expected
    os.utime(folder / "model.safetensors", (1e9 + 1, 1e9 + 1))
    with pytest.raises(AssertionError, match="read again"):
        hash_weights(model)


@pytest.mark.parametrize("change", ["in place", "replaced", "merged"])
def test_weights_changed_in_memory_are_another_model(random_model_folder: Path, change: str) -> None:
    model, _ = load_pretrained(random_model_folder)
    before = hash_weights(model)
    weight = model.get_parameter("model.language_model.layers.1.attention.dense.weight")
    if change == "in place":
        with torch.no_grad():
            weight[1, 2] += 1
    elif change == "replaced":
        weight.data = weight.data + 1
    else:
        method = LoraConfig(r=2, target_modules=["dense"], init_lora_weights=False)
        tuned = attach(model, method)
        assert hash_weights(tuned.get_base_model()) == before
        model = tuned.merge_and_unload()
    changed = hash_weights(model)
    assert changed != before
    del model.__dict__["source_weights"]
    assert hash_weights(model) == changed


def test_an_adapter_taken_off_leaves_the_checkpoint(random_model_folder: Path) -> None:
    model, _ = load_pretrained(random_model_folder, dtype="bfloat16")
    before = hash_weights(model)
    base = attach(model, LoraConfig(r=2, target_modules=["dense"], init_lora_weights=False)).unload()
    assert hash_weights(base) == before
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(parameter.clone())  # as data-parallel training does
    assert hash_weights(base) == before


@pytest.mark.parametrize("kind", [peft.LoHaConfig, peft.LoKrConfig, peft.IA3Config, peft.VeraConfig, peft.OFTConfig])
def test_every_kind_of_adapter_leaves_the_identity_of_its_base(random_model_folder: Path, kind: Any) -> None:
    model, _ = load_pretrained(random_model_folder)
    before = hash_weights(model)
    options: dict[str, Any] = {"feedforward_modules": []} if kind is peft.IA3Config else {}
    options |= {"oft_block_size": 4} if kind is peft.OFTConfig else {}
    tuned = attach(model, kind(task_type="CAUSAL_LM", target_modules=["dense"], **options))
    assert hash_weights(tuned.get_base_model()) == before
    del model.__dict__["source_weights"]
    assert hash_weights(tuned.get_base_model()) == before


def test_records_of_before_are_still_checked(random_model_folder: Path, adapter: Path) -> None:
    model, _ = load_pretrained(random_model_folder)
    record = json.loads((adapter / RECORD).read_text("utf-8"))
    assert (record.pop("version"), record.pop("weights_xxh3")) == (2, hash_weights(model))
    record["weights_sha256"] = hash_weights(model, "sha256")
    (adapter / RECORD).write_text(json.dumps(record))
    load_pretrained(random_model_folder, adapter=adapter)
    (adapter / RECORD).write_text(json.dumps(record | {"weights_sha256": "0" * 64}))
    with pytest.raises(AdapterError, match=r"another base model: .* with weights 000000000000"):
        load_pretrained(random_model_folder, adapter=adapter)
    del record["weights_sha256"]
    (adapter / RECORD).write_text(json.dumps(record))
    with pytest.raises(AdapterError, match=r"names no weights: expected 'weights_xxh3'"):
        load_pretrained(random_model_folder, adapter=adapter)


def test_the_old_hash_is_what_it_was() -> None:
    """Of the shipped model, as recorded when that was the only one."""
    model, _ = load_pretrained(repo_root() / "data/visualglm_tiny")
    assert hash_weights(model, "sha256") == "254ad20dc914070ef19a74ba85564169487d15fbbf9f27ffdd2e26b1a9c16a2f"


def test_parts_are_known_by_their_own_numbers(random_model_folder: Path) -> None:
    model, _ = load_pretrained(random_model_folder)
    parts = ("model.qformer", "model.query_tokens")
    before = hash_parts(model, parts)
    with torch.no_grad():
        model.get_parameter("model.language_model.final_layernorm.bias")[0] += 1
    assert hash_parts(model, parts) == before
    with torch.no_grad():
        model.get_parameter("model.query_tokens")[0, 0, 0] += 1
    assert hash_parts(model, parts) != before
