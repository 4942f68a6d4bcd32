"""Translating the original configurations and key maps, against the stored files and element-by-element twins."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vglm.errors import CheckpointError
from vglm.model.configuration import VisualGlmConfig
from vglm.model.conversion import (
    HUGGING_FACE,
    SAT,
    AddBatchAxis,
    Derive,
    RegroupHeads,
    SplitRows,
    key_map,
    read_config,
    sat_layout,
)
from vglm.model.modeling import VisualGlmForConditionalGeneration

# THUDM/VisualGLM-6B:model_config.json, without what only concerns its training.
PUBLISHED: dict[str, Any] = {
    "num_layers": 28,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "vocab_size": 130528,
    "layernorm_order": "post",
    "max_sequence_length": 2048,
    "pre_seq_len": 128,
    "bos_token_id": 130004,
    "mask_token_id": 130000,
    "gmask_token_id": 130001,
    "image_length": 32,
    "eva_args": {
        "num_layers": 39,
        "hidden_size": 1408,
        "num_attention_heads": 16,
        "vocab_size": 1,
        "layernorm_order": "pre",
        "max_sequence_length": 257,
        "inner_hidden_size": 6144,
        "use_final_layernorm": False,
        "layernorm_epsilon": 1e-06,
        "image_size": [224, 224],
        "pre_len": 1,
        "post_len": 0,
        "in_channels": 3,
        "num_classes": 0,
        "patch_size": 14,
    },
    "qformer_args": {
        "num_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "vocab_size": 32,
        "layernorm_order": "post",
        "max_sequence_length": 0,
        "is_decoder": [True, False] * 6,
        "cross_attn_hidden_size": 1408,
        "layernorm_epsilon": 1e-12,
    },
}


def read_raw(folder: Path) -> dict[str, Any]:
    file = next(folder / name for name in ("config.json", "model_config.json") if (folder / name).is_file())
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def read_tensors(folder: Path) -> dict[str, Tensor]:
    files = [*folder.glob("*.bin"), *folder.glob("*/*.pt")]
    content = [torch.load(file, weights_only=True) for file in files]
    return {key: tensor for part in content for key, tensor in part.get("module", part).items()}


@pytest.fixture(scope="module")
def stored(reference: Path) -> dict[str, dict[str, Tensor]]:
    return {name: read_tensors(reference / name) for name in ("hf_layout", "sat_layout")}


@pytest.fixture(scope="module")
def config(reference: Path) -> VisualGlmConfig:
    return read_config(read_raw(reference / "hf_layout"), HUGGING_FACE)


# --- configuration -------------------------------------------------------------------------------------------------


def test_published_configuration_gives_the_defaults() -> None:
    assert read_config(PUBLISHED, sat_layout(PUBLISHED)).to_dict() == VisualGlmConfig().to_dict()


def test_both_layouts_give_the_same_configuration(reference: Path, config: VisualGlmConfig) -> None:
    sat = read_config(read_raw(reference / "sat_layout"), SAT)
    assert sat.to_dict() == config.to_dict()
    text, vision, qformer = config.text_config, config.vision_config, config.qformer_config
    assert (text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.vocab_size) == (64, 256, 4, 1408)
    assert (text.layer_norm_eps, text.max_position_embeddings) == (1e-5, 512)
    assert (text.mask_token_id, text.gmask_token_id, text.bos_token_id, text.eos_token_id) == (1000, 1001, 1004, 1005)
    assert (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers) == (48, 96, 3)
    assert (vision.image_size, vision.patch_size) == (28, 14)
    assert (vision.layer_norm_eps, vision.final_layer_norm_eps, vision.hidden_act) == (1e-6, 1e-5, "gelu")
    assert (qformer.hidden_size, qformer.intermediate_size, qformer.num_hidden_layers) == (32, 128, 4)
    assert (qformer.cross_attention_frequency, qformer.encoder_hidden_size) == (2, 48)
    assert (qformer.layer_norm_eps, qformer.hidden_act, config.num_image_tokens) == (1e-12, "gelu", 32)


def test_ids_that_sat_does_not_store() -> None:
    assert read_config(PUBLISHED, SAT).text_config.eos_token_id == PUBLISHED["bos_token_id"] + 1
    text = read_config(PUBLISHED, SAT, eos_token_id=7, pad_token_id=8).text_config
    assert (text.eos_token_id, text.pad_token_id) == (7, 8)
    assert read_config({**PUBLISHED, "pad_token_id": 9}, SAT, pad_token_id=8).text_config.pad_token_id == 9


@pytest.mark.parametrize(
    ("pattern", "frequency"),
    [([True] * 12, 1), (True, 1), ([True, False, False] * 4, 3), ([True] + [False] * 11, 12)],
)
def test_cross_attention_frequency(pattern: list[bool] | bool, frequency: int) -> None:
    raw = {**PUBLISHED, "qformer_args": {**PUBLISHED["qformer_args"], "is_decoder": pattern}}
    assert read_config(raw, SAT).qformer_config.cross_attention_frequency == frequency


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("qformer_args", {"is_decoder": [False, True] * 6}, "is_decoder must be true for every n-th of 12 layers"),
        ("qformer_args", {"is_decoder": [True, False]}, "is_decoder must be"),
        ("qformer_args", {"is_decoder": False}, "is_decoder must be"),
        ("qformer_args", {"cross_attn_hidden_size": 1024}, "cross_attn_hidden_size must be 1408.*got 1024"),
        ("qformer_args", {"layernorm_order": "pre"}, "layernorm_order must be 'post'"),
        ("eva_args", {"image_size": [224, 336]}, r"image_size must be one size or two equal.*got \[224, 336\]"),
        ("eva_args", {"use_final_layernorm": True}, "use_final_layernorm must be False"),
        ("eva_args", {"num_attention_heads": 15}, "num_attention_heads must be a divisor of hidden_size 1408"),
        (None, {"image_length": 16}, "image_length must be 32.*got 16"),
        (None, {"num_attention_heads": 3}, "num_attention_heads must be a divisor"),
        (None, {"hidden_size": "large"}, "hidden_size must be an integer >= 1, got 'large'"),
        (None, {"num_layers": 0}, "num_layers must be an integer >= 1, got 0"),
        (None, {"layernorm_epsilon": "1e-5"}, "layernorm_epsilon must be a positive number"),
        (None, {"eva_args": None}, "eva_args must be a mapping, got None"),
    ],
)
def test_refuses_what_the_native_model_cannot_express(
    section: str | None, change: dict[str, Any], message: str
) -> None:
    raw = copy.deepcopy(PUBLISHED)
    (raw if section is None else raw[section]).update(change)
    with pytest.raises(CheckpointError, match=message):
        read_config(raw, SAT)


def test_names_all_missing_keys_at_once() -> None:
    raw = copy.deepcopy(PUBLISHED)
    del raw["hidden_size"], raw["gmask_token_id"], raw["eva_args"]["patch_size"]
    with pytest.raises(CheckpointError) as caught:
        read_config(raw, SAT)
    for key in ("model_config.json: hidden_size", "gmask_token_id", "eva_args: patch_size"):
        assert f"{key} must be" in str(caught.value)


def test_refuses_quantized_and_one_dimensional_chatglm(reference: Path) -> None:
    raw = {**read_raw(reference / "hf_layout"), "quantization_bit": 4, "position_encoding_2d": False}
    with pytest.raises(CheckpointError, match=r"position_encoding_2d must be True.*quantization_bit must be 0"):
        read_config(raw, HUGGING_FACE)


# --- operations ----------------------------------------------------------------------------------------------------


@given(heads=st.integers(1, 5), size=st.integers(1, 4), columns=st.integers(0, 3))
def test_regrouped_rows_equal_a_loop(heads: int, size: int, columns: int) -> None:
    shape = (3 * heads * size, columns) if columns else (3 * heads * size,)
    source = torch.arange(torch.Size(shape).numel()).reshape(shape)
    expected = torch.empty_like(source)
    for part in range(3):
        for head in range(heads):
            for channel in range(size):
                expected[(head * 3 + part) * size + channel] = source[(part * heads + head) * size + channel]
    (native,) = RegroupHeads(heads).forward(source)
    assert torch.equal(native, expected)
    assert torch.equal(RegroupHeads(heads).inverse([native]), source)


def test_split_and_batched_tensors() -> None:
    table = torch.arange(12.0).reshape(6, 2)
    assert [part.tolist() for part in SplitRows(3).forward(table)] == [
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
        [[8, 9], [10, 11]],
    ]
    assert torch.equal(SplitRows(3).inverse(SplitRows(3).forward(table)), table)
    assert AddBatchAxis().forward(table)[0].shape == (1, 6, 2)
    assert torch.equal(AddBatchAxis().inverse(AddBatchAxis().forward(table)), table)
    assert Derive((1.0,)).forward(table) == ()


# --- key map -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "layout"), [("hf_layout", HUGGING_FACE), ("sat_layout", SAT)])
def test_every_tensor_is_used_once_and_comes_back(
    stored: dict[str, dict[str, Tensor]], config: VisualGlmConfig, folder: str, layout: Any
) -> None:
    entries = key_map(config, layout)
    sources = [entry.source for entry in entries]
    assert len(sources) == len(set(sources))
    assert set(sources) == set(stored[folder])

    state: dict[str, Tensor] = {}
    for entry in entries:
        native = entry.to_native(stored[folder][entry.source])
        assert not state.keys() & native.keys()
        state |= native
    with torch.device("meta"):
        model = VisualGlmForConditionalGeneration(config)
    assert {name: t.shape for name, t in state.items()} == {name: t.shape for name, t in model.state_dict().items()}
    for entry in entries:
        assert torch.equal(entry.to_source(state), stored[folder][entry.source]), entry.source


def test_both_layouts_give_the_same_native_tensors(
    stored: dict[str, dict[str, Tensor]], config: VisualGlmConfig
) -> None:
    states = [
        {
            name: tensor
            for entry in key_map(config, layout)
            for name, tensor in entry.to_native(stored[folder][entry.source]).items()
        }
        for folder, layout in (("hf_layout", HUGGING_FACE), ("sat_layout", SAT))
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_sat_files_from_before_july_2023_are_head_first(
    stored: dict[str, dict[str, Tensor]], config: VisualGlmConfig, reference: Path
) -> None:
    raw = read_raw(reference / "sat_layout")
    assert not sat_layout(raw).is_head_first
    del raw["pad_token_id"]
    key = "transformer.layers.1.attention.query_key_value.weight"
    old = next(entry for entry in key_map(config, sat_layout(raw)) if entry.source == key)
    assert torch.equal(*old.to_native(stored["hf_layout"][key]).values(), stored["hf_layout"][key])
    assert not torch.equal(stored["sat_layout"][key], stored["hf_layout"][key])
