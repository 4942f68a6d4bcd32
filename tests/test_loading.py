"""All three layouts give the original's numbers; damaged ones give one clear message; writing is all or nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from vglm.errors import AdapterError, CheckpointError, ConfigError
from vglm.model import loading
from vglm.model.configuration import VisualGlmConfig
from vglm.model.conversion import HUGGING_FACE, SAT, SourceLayout, key_map
from vglm.model.export import convert
from vglm.model.loading import default_device, describe_device, load_pretrained, save_native
from vglm.model.modeling import VisualGlmForConditionalGeneration

INDEX = "pytorch_model.bin.index.json"
MODULE = "mp_rank_00_model_states.pt"


@pytest.fixture(scope="module")
def native(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference model in the native layout, half precision as stored."""
    return convert(reference / "hf_layout", tmp_path_factory.mktemp("native") / "model")


@pytest.fixture
def copy_of(reference: Path, native: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a copy of a checkpoint that a test may damage."""

    def copy(layout: str) -> Path:
        source = native if layout == "native" else reference / layout
        return Path(shutil.copytree(source, tmp_path / layout, copy_function=shutil.copyfile))

    return copy


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}))


def edit_shard(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = torch.load(file, weights_only=True)
    change(content.get("module", content))
    torch.save(content, file)


def state_of(model: VisualGlmForConditionalGeneration) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def settings_of(model: VisualGlmForConditionalGeneration) -> dict[str, Any]:
    history = ("_name_or_path", "architectures")  # how a model came about, not what it is
    return {key: value for key, value in model.config.to_dict().items() if key not in history}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(tensor, right[name]) for name, tensor in left.items())


# --- parity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["hf_layout", "sat_layout", "sat_lora_merged", "native"])
def test_logits_are_the_originals(reference: Path, native: Path, layout: str) -> None:
    folder = native if layout == "native" else reference / layout
    model, _ = load_pretrained(folder, tokenizer=reference / "hf_layout")
    assert (model.dtype, model.training) == (torch.float32, False)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])

    expected = np.load(reference / "expected.npz")
    facts = json.loads((reference / "expected.json").read_text("utf-8"))["cases"]
    for case in ("zh_single", "zh_text", "en_history"):
        inputs = {"input_ids": torch.from_numpy(expected[f"{case}/input_ids_hf"])[None]}
        if (image := facts[case]["image"]) is not None:
            inputs["pixel_values"] = torch.from_numpy(expected[f"images/{image}/pixel_values"])[None]
        with torch.no_grad():
            logits = model(**inputs).logits[0, expected[f"{case}/logits_positions"]]
        variant = f"merged/{case}/logits" if layout == "sat_lora_merged" else f"{case}/logits"
        if variant in expected:
            torch.testing.assert_close(logits, torch.from_numpy(expected[variant]), atol=1e-4, rtol=0)


def test_all_layouts_give_the_same_model(reference: Path, native: Path) -> None:
    models = [
        load_pretrained(folder, dtype="auto", tokenizer=reference / "hf_layout")[0]
        for folder in (reference / "hf_layout", reference / "sat_layout", native)
    ]
    assert all(model.dtype == torch.float16 for model in models)
    assert all(settings_of(model) == settings_of(models[0]) for model in models)
    assert all(same(state_of(model), state_of(models[0])) for model in models)


def test_processor_follows_the_checkpoint(reference: Path, native: Path) -> None:
    for folder in (reference / "hf_layout", reference / "sat_layout", native):
        model, processor = load_pretrained(folder, tokenizer=reference / "hf_layout")
        assert processor.num_image_tokens == model.config.num_image_tokens == 32
        pixels = processor(images=np.zeros((5, 9, 3), np.uint8), text="?", return_tensors="pt").pixel_values
        assert pixels.shape == (1, 3, 28, 28)


# --- another miniature ---------------------------------------------------------------------------------------------


def other_miniature(is_tied: bool) -> VisualGlmForConditionalGeneration:
    """Random weights in other sizes; every parameter differs from its neighbours, layer norms included."""
    config = VisualGlmConfig(
        text_config={
            "vocab_size": 1376,
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "layer_norm_eps": 3e-5,
            "max_position_embeddings": 300,
            "mask_token_id": 1000,
            "gmask_token_id": 1001,
            "bos_token_id": 1004,
            "eos_token_id": 1005,
        },
        vision_config={
            "hidden_size": 40,
            "intermediate_size": 72,
            "num_hidden_layers": 2,
            "num_attention_heads": 5,
            "image_size": 42,
            "patch_size": 14,
            "layer_norm_eps": 2e-6,
        },
        qformer_config={
            "hidden_size": 24,
            "intermediate_size": 56,
            "num_hidden_layers": 5,
            "num_attention_heads": 2,
            "cross_attention_frequency": 3,
            "layer_norm_eps": 1e-11,
        },
        num_image_tokens=7,
        tie_word_embeddings=is_tied,
    )
    model = VisualGlmForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def write_original(
    model: VisualGlmForConditionalGeneration, layout: SourceLayout, folder: Path, tokenizer: Path
) -> None:
    """Write a model as the original's tools would: its configuration and its tensors through the inverse key map."""
    text, vision, qformer = model.config.text_config, model.config.vision_config, model.config.qformer_config
    raw = {
        "hidden_size": text.hidden_size,
        "inner_hidden_size": text.intermediate_size,
        "num_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "vocab_size": text.vocab_size,
        "layernorm_epsilon": text.layer_norm_eps,
        "max_sequence_length": text.max_position_embeddings,
        "bos_token_id": text.bos_token_id,
        "mask_token_id": text.mask_token_id,
        "gmask_token_id": text.gmask_token_id,
        "image_length": model.config.num_image_tokens,
        layout.vision_section: {
            "hidden_size": vision.hidden_size,
            "inner_hidden_size": vision.intermediate_size,
            "num_layers": vision.num_hidden_layers,
            "num_attention_heads": vision.num_attention_heads,
            "image_size": [vision.image_size, vision.image_size],
            "patch_size": vision.patch_size,
            "layernorm_epsilon": vision.layer_norm_eps,
        },
        layout.qformer_section: {
            "hidden_size": qformer.hidden_size,
            "inner_hidden_size": qformer.intermediate_size,
            "num_layers": qformer.num_hidden_layers,
            "num_attention_heads": qformer.num_attention_heads,
            "vocab_size": model.config.num_image_tokens,
            "is_decoder": [i % qformer.cross_attention_frequency == 0 for i in range(qformer.num_hidden_layers)],
            "cross_attn_hidden_size": vision.hidden_size,
            "layernorm_epsilon": qformer.layer_norm_eps,
        },
    }
    if layout != SAT and layout.config_file == SAT.config_file:
        pass  # before July 2023: head-first rows, told by the absence of pad_token_id
    else:
        raw["pad_token_id"] = text.pad_token_id
    state = model.state_dict()
    tensors = {entry.source: entry.to_source(state).clone() for entry in key_map(model.config, layout)}
    folder.mkdir()
    if layout.config_file == SAT.config_file:
        (folder / "40").mkdir()
        torch.save({"module": tensors}, folder / "40" / MODULE)
        (folder / "latest").write_text("40")
    else:
        raw |= {"model_type": "chatglm", "eos_token_id": text.eos_token_id}
        shards = {f"pytorch_model-{i}.bin": dict(list(tensors.items())[i::3]) for i in range(3)}
        for name, shard in shards.items():
            torch.save(shard, folder / name)
        weight_map = {key: name for name, shard in shards.items() for key in shard}
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        for name in ("ice_text.model", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, folder / name)
    (folder / layout.config_file).write_text(json.dumps(raw))


SAT_HEAD_FIRST = loading.sat_layout({})


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("layout", [HUGGING_FACE, SAT, SAT_HEAD_FIRST], ids=["hf", "sat", "sat head first"])
def test_sizes_come_from_the_configuration(
    reference: Path, tmp_path: Path, layout: SourceLayout, is_tied: bool
) -> None:
    original = other_miniature(is_tied)
    write_original(original, layout, tmp_path / "original", reference / "hf_layout")
    model, processor = load_pretrained(tmp_path / "original", tokenizer=reference / "hf_layout")
    assert model.config.tie_word_embeddings is is_tied
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is is_tied

    inputs = processor(images=np.full((30, 20, 3), 77, np.uint8), text="描述这张图片。", return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 42, 42)
    assert int((inputs.input_ids == 0).sum()) == 7
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, original(**inputs).logits)

    save_native(model, processor, tmp_path / "native")
    again, _ = load_pretrained(tmp_path / "native")
    assert same(state_of(again), state_of(original))
    assert settings_of(again) == settings_of(model)


# --- tied head -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["hf_layout", "sat_layout"])
def test_head_is_tied_exactly_when_the_stored_tensors_are_equal(
    copy_of: Callable[[str], Path], reference: Path, tmp_path: Path, layout: str
) -> None:
    folder = copy_of(layout)
    model, _ = load_pretrained(folder, tokenizer=reference / "hf_layout")
    assert model.lm_head.weight is model.get_input_embeddings().weight

    if layout == "hf_layout":
        key = "lm_head.weight"
        file = folder / json.loads((folder / INDEX).read_text("utf-8"))["weight_map"][key]
    else:
        key, file = "mixins.chatglm-final.lm_head.weight", folder / "1" / MODULE
    edit_shard(file, lambda tensors: tensors[key][1407, 63].add_(2**-10))
    model, processor = load_pretrained(folder, tokenizer=reference / "hf_layout")
    difference = model.lm_head.weight - model.get_input_embeddings().weight
    assert not model.config.tie_word_embeddings
    assert difference.nonzero().tolist() == [[1407, 63]]
    save_native(model, processor, tmp_path / "native")
    assert "lm_head.weight" in load_file(tmp_path / "native" / "model.safetensors")
    assert same(state_of(load_pretrained(tmp_path / "native")[0]), state_of(model))


# --- dtype and device ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (None, torch.float32),
        ("auto", torch.float16),
        ("float16", torch.float16),
        (torch.bfloat16, torch.bfloat16),
        ("float32", torch.float32),
    ],
)
@pytest.mark.parametrize("layout", ["hf_layout", "native"])
def test_dtype(reference: Path, native: Path, layout: str, dtype: Any, expected: torch.dtype) -> None:
    folder = native if layout == "native" else reference / layout
    model, _ = load_pretrained(folder, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert model.config.dtype == expected


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}])
@pytest.mark.parametrize("layout", ["hf_layout", "native"])
def test_device_map(reference: Path, native: Path, layout: str, device_map: Any) -> None:
    folder = native if layout == "native" else reference / layout
    model, _ = load_pretrained(folder, device_map=device_map)
    if device_map != "auto":
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
        assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float64"}, "dtype must be one of float32, float16, bfloat16, auto or None, got 'float64'"),
        ({"dtype": torch.int8}, "dtype must be"),
        ({"quantization": "int3"}, "quantization must be one of int8, int8_fast, int4, nf4 or None, got 'int3'"),
        ({"quantization_parts": ["vision"]}, "say how as well: quantization=nf4, int4 or int8"),
        ({"quantization": "nf4", "quantization_parts": ["visoin"]}, "must be some of vision, .*; found visoin"),
        ({"quantization": "nf4", "quantization_parts": []}, "must be some of vision, .*; found nothing"),
        ({"quantization": "nf4", "quantization_parts": ["head"]}, "head is its word embeddings.*Leave out head"),
        ({"quantization": "nf4", "device_map": {"model": "cpu", "lm_head": "meta"}}, "over several devices needs the"),
        ({"device_map": "abacus"}, "device_map must be auto, a device"),
        ({"device_map": "cuda:63"}, "this machine has no device .cuda:63.: .*Take auto or cpu"),
        ({"device_map": {"lm_head": "cpu"}}, "device_map gives no device for 'model"),
    ],
)
def test_arguments_that_cannot_work(reference: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_pretrained(reference / "hf_layout", **arguments)


@pytest.mark.parametrize("quantization", ["nf4", "int4", "int8"])
def test_quantization_covers_the_language_models_layers_only(native: Path, quantization: Any) -> None:
    model, _ = load_pretrained(native, quantization=quantization)
    quantized = {name for name, module in model.named_modules() if type(module).__module__.startswith("bitsandbytes")}
    expected = {
        name
        for name, module in VisualGlmForConditionalGeneration(model.config).named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("model.language_model.")
    }
    assert quantized == expected
    assert len(quantized) == 4 * model.config.text_config.num_hidden_layers


@pytest.mark.parametrize("quantization", ["nf4", "int4"])
def test_four_bits_with_rows_that_do_not_fill_their_blocks(random_model_folder: Path, quantization: Any) -> None:
    model, processor = load_pretrained(random_model_folder, quantization=quantization)
    assert model.config.text_config.hidden_size % 64
    output = model.generate(**processor(text="你好", return_tensors="pt"), max_new_tokens=2, do_sample=False)
    assert output.shape[1] > 2


# --- adapters ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
def test_adapter(native: Path, tmp_path: Path) -> None:
    base, processor = load_pretrained(native)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["query_key_value"], init_lora_weights=False)).eval()
    inputs = processor(text="你好", return_tensors="pt")
    with torch.no_grad():
        expected = tuned(**inputs).logits
    tuned.save_pretrained(str(tmp_path / "adapter"))

    model, _ = load_pretrained(native, adapter=tmp_path / "adapter")
    assert isinstance(model, PeftModel)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected, atol=0, rtol=0)

    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="missing adapter keys"):
        load_pretrained(native, adapter=tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(AdapterError, match="cannot be put on this model"):
        load_pretrained(native, adapter=tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors; it holds README"):
        load_pretrained(native, adapter=tmp_path / "adapter")


def test_folder_that_is_no_adapter(native: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "adapter").mkdir()
    with pytest.raises(AdapterError, match=r"no adapter_config\.json; it holds adapter/, metrics\.jsonl\. Pass the"):
        load_pretrained(native, adapter=tmp_path)
    with pytest.raises(AdapterError, match="there is no such folder"):
        load_pretrained(native, adapter=tmp_path / "absent")


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["hf_layout", "sat_layout", "native"])
def test_missing_unexpected_and_misshapen_tensors(copy_of: Callable[[str], Path], reference: Path, layout: str) -> None:
    folder = copy_of(layout)

    def damage(tensors: dict[str, Any]) -> None:
        name = next(key for key in tensors if key.endswith("layers.1.mlp.dense_h_to_4h.bias"))
        tensors.pop(name)
        tensors["stray"] = torch.zeros(2)
        name = next(key for key in tensors if key.endswith("layers.1.attention.dense.weight"))
        tensors[name] = tensors[name][:-1].clone()

    if layout == "native":
        tensors = load_file(folder / "model.safetensors")
        damage(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif layout == "sat_layout":
        edit_shard(folder / "1" / MODULE, damage)
    else:  # without an index, as one file
        files = sorted(folder.glob("*.bin"))
        tensors = {key: value for file in files for key, value in torch.load(file, weights_only=True).items()}
        damage(tensors)
        for file in [*files, folder / INDEX]:
            file.unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(folder, tokenizer=reference / "hf_layout")
    message = str(caught.value)
    assert "layers.1.mlp.dense_h_to_4h.bias' of shape (256,) is missing" in message or "(96,) is missing" in message
    assert "'stray' in " in message
    assert "expected (64, 64)" in message or "expected (48, 48)" in message


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("hf_layout", "pytorch_model-00002-of-00003.bin"),
        ("sat_layout", f"1/{MODULE}"),
        ("native", "model.safetensors"),
    ],
)
def test_truncated_and_missing_files(copy_of: Callable[[str], Path], reference: Path, layout: str, file: str) -> None:
    folder = copy_of(layout)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=rf"{Path(file).name} cannot be read"):
        load_pretrained(folder, tokenizer=reference / "hf_layout")
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=Path(file).name):
        load_pretrained(folder, tokenizer=reference / "hf_layout")


@pytest.mark.parametrize(("layout", "method"), [("sat_lora", "LoRA"), ("sat_ptuning", "p-tuning")])
def test_sat_fine_tunes_are_named_as_such(reference: Path, layout: str, method: str) -> None:
    with pytest.raises(CheckpointError, match=rf"holds a {method} fine-tune .* Import both first: vglm convert"):
        load_pretrained(reference / layout, tokenizer=reference / "hf_layout")


def test_sat_needs_a_tokenizer(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no tokenizer \(ice_text\.model\)\. Name a folder that has"):
        load_pretrained(reference / "sat_layout")
    with pytest.raises(CheckpointError, match=r"tokenizer: .* has no ice_text\.model"):
        load_pretrained(reference / "sat_layout", tokenizer=tmp_path)
    (tmp_path / "ice_text.model").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=r"ice_text\.model cannot be read"):
        load_pretrained(reference / "sat_layout", tokenizer=tmp_path)


def test_tokenizer_of_another_model(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("hf_layout")
    edit_json(folder / "config.json", gmask_token_id=1000, pad_token_id=4)
    with pytest.raises(
        CheckpointError, match="pad_token_id is 3 in the tokenizer and 4 in the model; gmask_token_id is"
    ):
        load_pretrained(folder)


def test_processor_of_another_model(native: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(native, tmp_path / "copy")
    content = json.loads((folder / "processor_config.json").read_text("utf-8"))
    content["num_image_tokens"] += 1
    (folder / "processor_config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="33 and 32 image tokens, images of 28 x 28 and 28 x 28"):
        load_pretrained(folder)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_damaged_tokenizer_settings(copy_of: Callable[[str], Path], content: str) -> None:
    folder = copy_of("hf_layout")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json (is damaged|must hold)"):
        load_pretrained(folder)


@pytest.mark.parametrize("layout", ["hf_layout", "sat_layout", "native"])
def test_broken_configuration(copy_of: Callable[[str], Path], reference: Path, layout: str) -> None:
    folder = copy_of(layout)
    file = folder / ("model_config.json" if layout == "sat_layout" else "config.json")
    text = file.read_text("utf-8")
    for broken, message in ((text[: len(text) // 2], "is damaged"), ("[]", "must hold a JSON object")):
        file.write_text(broken)
        with pytest.raises(CheckpointError, match=rf"{file.name} {message}"):
            load_pretrained(folder, tokenizer=reference / "hf_layout")


def test_folders_that_are_no_checkpoint(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a VisualGLM checkpoint: it holds nothing"):
        load_pretrained(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"it holds notes\.txt"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"a config\.json of model_type 'llama' without eva_config"):
        load_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="is a file; pass the folder"):
        load_pretrained(tmp_path / "notes.txt")
    for absent in (tmp_path / "absent", "a/b/c", "no-such-folder"):
        with pytest.raises(CheckpointError, match="no such folder"):
            load_pretrained(absent)
    native = copy_of("native")
    (native / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has neither model\.safetensors nor"):
        load_pretrained(native)


def test_hub_id_without_a_network() -> None:
    with pytest.raises(CheckpointError, match="'vglm-tests/absent' is no folder here, and as the id of a model"):
        load_pretrained("vglm-tests/absent")


# --- writing -------------------------------------------------------------------------------------------------------


def test_convert_keeps_dtype_values_and_auto_classes(reference: Path, native: Path, tmp_path: Path) -> None:
    assert json.loads((native / "config.json").read_text("utf-8"))["dtype"] == "float16"
    stored = load_file(native / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert "lm_head.weight" not in stored
    again = convert(native, tmp_path / "again")
    assert same(load_file(again / "model.safetensors"), stored)
    wide = convert(reference / "sat_layout", tmp_path / "wide", dtype="float32", tokenizer=reference / "hf_layout")
    assert same(load_file(wide / "model.safetensors"), {name: tensor.float() for name, tensor in stored.items()})

    model, processor = AutoModelForImageTextToText.from_pretrained(wide), AutoProcessor.from_pretrained(wide)
    own_model, own_processor = load_pretrained(reference / "hf_layout")
    assert same(state_of(model), state_of(own_model))
    assert processor(text="你好", history=[("a", "b")]) == own_processor(text="你好", history=[("a", "b")])


def test_existing_destinations_are_left_alone(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    convert(reference / "hf_layout", tmp_path / "empty")
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="exists already"):
        convert(reference / "hf_layout", tmp_path / "empty")
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("*")) == before
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="exists already"):
        convert(reference / "hf_layout", tmp_path / "file")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_conversion_leaves_nothing(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    model, processor = load_pretrained(reference / "hf_layout")

    def fail(folder: Path) -> None:
        raise failure

    monkeypatch.setattr(processor, "save_pretrained", fail)  # the weights are written by then
    expected = CheckpointError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if isinstance(failure, OSError) else None):
        save_native(model, processor, tmp_path / "deep" / "native")
    assert list((tmp_path / "deep").iterdir()) == []


def test_damaged_sources_leave_no_destination(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("hf_layout")
    (folder / "pytorch_model-00001-of-00003.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"pytorch_model-00001-of-00003\.bin cannot be read"):
        convert(folder, tmp_path / "out" / "native")
    assert not (tmp_path / "out").exists()


def test_a_model_goes_where_its_process_computes(random_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartialState, "_shared_state", {})  # no choice was made in this process
    assert default_device() == torch.device("cpu")  # ACCELERATE_USE_CPU, see conftest
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert default_device().type == ("cpu" if accelerator is None else accelerator.type)
    PartialState(cpu=True)  # as trainer.use_cpu has it
    assert default_device() == torch.device("cpu")
    model, _ = load_pretrained(random_model_folder, dtype="bfloat16", quantization="nf4")
    assert model.device == default_device()
    assert describe_device(model) == "bfloat16 on cpu, quantised to nf4"
