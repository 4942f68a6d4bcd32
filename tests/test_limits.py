"""Checkpoints from whoever: read, or refused with one message before anything is built."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vglm.errors import LONGEST_MESSAGE, CheckpointError, WorkbenchError
from vglm.model.loading import load_pretrained, open_checkpoint

CONFIG, GENERATION, PROCESSOR, TOKENIZER = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer_config.json",
)


@pytest.fixture
def changed(random_model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a copy of a checkpoint with a changed setting, `a.b` for one inside another."""

    def copy_of(file: str, setting: str, value: Any) -> Path:
        folder = Path(shutil.copytree(random_model_folder, tmp_path / "copy", dirs_exist_ok=True))
        content = json.loads((folder / file).read_text("utf-8"))
        *path, last = setting.split(".")
        inner = content
        for key in path:
            inner = inner[key]
        inner[last] = value
        (folder / file).write_text(json.dumps(content))
        return folder

    return copy_of


def _refused(folder: Path, match: str, **options: Any) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=match) as caught:
        load_pretrained(folder, **options)
    assert len(str(caught.value)) <= LONGEST_MESSAGE
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("file", "setting", "value", "message"),
    [
        (CONFIG, "text_config.num_hidden_layers", 10**9, "must be at most 1,048,576, got 1000000000"),
        (CONFIG, "vision_config.num_hidden_layers", 10**6, "asks for 1,000,004 layers, its weight files hold"),
        (CONFIG, "qformer_config.num_hidden_layers", 9, "asks for 12 layers"),
        (CONFIG, "text_config.hidden_size", 10**400, "must be at most"),
        (CONFIG, "text_config.hidden_size", 2**20, "has shape .* expected .*1048576"),
        (CONFIG, "text_config.num_attention_heads", 0, "num_attention_heads must be at least 1"),
        (CONFIG, "text_config.hidden_size", -32, "hidden_size must be at least 1"),
        (CONFIG, "num_labels", 10**9, "num_labels must be at most"),
        (CONFIG, "text_config.rope_theta", float("inf"), "must be a finite number"),
        (CONFIG, "_attn_implementation", "kernels-community/flash-attn", "which would be fetched and run"),
        (CONFIG, "text_config.attn_implementation", "a/b:c", "which would be fetched and run"),
        (CONFIG, "quantization_config", {"quant_method": "gptq", "bits": 4}, "must be that of bitsandbytes"),
        (CONFIG, "quantization_config", 7, "must be that of bitsandbytes"),
        (CONFIG, "transformers_weights", "../other.safetensors", "names another file of weights"),
        (CONFIG, "text_config", [], "asks for 31 layers"),
        (CONFIG, "dtype", "no such type", "cannot be loaded"),
        (GENERATION, "max_new_tokens", 10**12, "max_new_tokens must be an integer from 0 to"),
        (GENERATION, "max_length", "long", "max_length must be an integer"),
        (GENERATION, "num_beams", 10**9, "num_beams must be an integer from 0 to 1,000"),
        (GENERATION, "temperature", "hot", "temperature must be a number"),
        (PROCESSOR, "num_image_tokens", 10**9, "must be at most"),
        (PROCESSOR, "image_processor.size", {"height": 10**6, "width": 10**6}, "do not belong together"),
        (PROCESSOR, "image_processor.image_mean", ["x", 0, 0], "cannot be loaded"),
        (
            PROCESSOR,
            "image_processor.image_std",
            [0, 0, 0],
            "a picture becomes|cannot be",
        ),
        (TOKENIZER, "added_tokens_decoder", {"x": []}, "cannot be"),
    ],
)
def test_settings_that_no_model_needs(
    changed: Callable[..., Path], file: str, setting: str, value: Any, message: str
) -> None:
    _refused(changed(file, setting, value), message)


def test_patterns_of_what_is_not_quantised_are_names(changed: Callable[..., Path]) -> None:
    quantization = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["(a+)+$"]}
    _refused(
        changed(CONFIG, "quantization_config", quantization), "llm_int8_skip_modules must be a list of names of modules"
    )


def test_code_that_is_named_is_not_run(changed: Callable[..., Path]) -> None:
    folder = changed(CONFIG, "auto_map", {"AutoConfig": "payload.Config", "AutoModel": "payload.Model"})
    for directory in (folder, folder / "custom_generate"):
        directory.mkdir(exist_ok=True)
        for name in ("payload.py", "generate.py"):
            (directory / name).write_text(f"open({str(folder / 'run')!r}, 'w')")
    shutil.copy(folder / CONFIG, folder / "adapter_config.json")
    load_pretrained(folder)
    assert not (folder / "run").exists()


@pytest.mark.parametrize("name", [CONFIG, GENERATION, PROCESSOR, TOKENIZER])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"9" * 6000, b"\xff\xfe", b"\0" * 9])
def test_damaged_settings(changed: Callable[..., Path], name: str, content: bytes) -> None:
    folder = changed(CONFIG, "num_image_tokens", 4)
    (folder / name).write_bytes(content)
    _refused(folder, name)


@pytest.mark.parametrize("name", [CONFIG, GENERATION, PROCESSOR, TOKENIZER, "model.safetensors", "ice_text.model"])
def test_pipes_are_not_waited_for(changed: Callable[..., Path], name: str) -> None:
    folder = changed(CONFIG, "num_image_tokens", 4)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    _refused(folder, "copy")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("num_layers", 10**9, "num_layers must be at most"),
        ("num_layers", 10**5, r"asks for 100,\d+ layers"),
        ("eva_config.num_layers", -1, "num_layers must be an integer"),
        ("eva_config.image_size", [{}, 28], "image_size must be one size"),
        ("eva_config.image_size", [28, 28.5], "image_size must be one size"),
        ("qformer_config.num_layers", 10**6, "asks for|is_decoder must be"),
        ("qformer_config.is_decoder", "x" * 10**6, "is_decoder must be|shape|missing|unexpected"),
        ("qformer_config", ["x"] * 10**5, "qformer_config must be a mapping"),
        ("hidden_size", "9" * 5000, "hidden_size must be an integer"),
    ],
)
def test_original_settings(reference: Path, tmp_path: Path, setting: str, value: Any, message: str) -> None:
    folder = Path(shutil.copytree(reference / "hf_layout", tmp_path / "copy"))
    content = json.loads((folder / CONFIG).read_text("utf-8"))
    *path, last = setting.split(".")
    (content[path[0]] if path else content)[last] = value
    (folder / CONFIG).write_text(json.dumps(content))
    _refused(folder, message)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**9, 10**400, "", "x", "(a+)+$", "../x", "a/b:c", "float16", "eager"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_settings_say(data: st.DataObject, random_model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(random_model_folder, tmp_path / "copy", dirs_exist_ok=True))
    file = folder / data.draw(st.sampled_from([CONFIG, CONFIG, GENERATION, PROCESSOR, TOKENIZER]))
    content = json.loads(file.read_text("utf-8"))
    parts = [content, *(value for value in content.values() if isinstance(value, dict))]
    part = data.draw(st.sampled_from(parts))
    keys = st.sampled_from([*sorted(part), "num_labels", "quantization_config", "_attn_implementation", "pruned_heads"])
    part.update(data.draw(st.dictionaries(keys, VALUES, min_size=1, max_size=2)))
    file.write_text(json.dumps(content))
    try:
        open_checkpoint(folder)
    except WorkbenchError as error:
        assert len(str(error)) <= LONGEST_MESSAGE  # noqa: PT017
