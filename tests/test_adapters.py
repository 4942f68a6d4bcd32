"""Adapters from whoever: put on their model, or refused with one message; never run, never waited for."""

import copy
import json
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import regex
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PrefixTuningConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.builders import little_is_built
from vglm.errors import LONGEST_MESSAGE, AdapterError, WorkbenchError
from vglm.model import adapters
from vglm.model.loading import attach_adapter, load_pretrained
from vglm.tuning.methods import attach, save

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
METHODS = {
    "names": LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["dense"], modules_to_save=["language_projection"]),
    "patterns": LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        init_lora_weights=False,
        target_modules=r".*language_model\.layers\.\d+\.attention\.(dense|query_key_value)",
        exclude_modules=r".*\.0\..*query.*",
        rank_pattern={r"layers\.[1-9]\..*": 3},
        alpha_pattern={r"^.*layers\.1\..*dense": 5, "dense": 7},
    ),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
}


@pytest.fixture(scope="module")
def saved(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Tensor]]:
    """An adapter of each method, as a run saves it, and what the tuned model answered."""
    result = {}
    for name, method in METHODS.items():
        torch.manual_seed(0)
        model, processor = load_pretrained(random_model_folder)
        tuned = attach(model, copy.deepcopy(method)).eval()
        logits = _logits(tuned, processor)
        result[name] = save(tuned, processor, tmp_path_factory.mktemp(name)), logits
    return result


@pytest.fixture
def adapter(saved: dict[str, tuple[Path, Tensor]], tmp_path: Path) -> Callable[..., Path]:
    """Make a copy of an adapter with changed settings."""

    def copy_of(name: str = "names", **changes: Any) -> Path:
        folder = Path(shutil.copytree(saved[name][0], tmp_path / name, dirs_exist_ok=True))
        content = json.loads((folder / CONFIG).read_text("utf-8"))
        (folder / CONFIG).write_text(json.dumps(content | changes))
        return folder

    return copy_of


def _logits(model: Any, processor: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**processor(text="你好", return_tensors="pt")).logits
    return logits


def _refused(base: Path, adapter: Path, match: str) -> None:
    with pytest.raises(AdapterError, match=match) as caught, little_is_built():
        load_pretrained(base, adapter=adapter)
    assert len(str(caught.value)) <= LONGEST_MESSAGE


@pytest.mark.parametrize("name", METHODS)
def test_patterns_and_names_put_the_adapter_where_it_was(
    saved: dict[str, tuple[Path, Tensor]], random_model_folder: Path, name: str
) -> None:
    folder, expected = saved[name]
    model, processor = load_pretrained(random_model_folder, adapter=folder)
    torch.testing.assert_close(_logits(model, processor), expected, rtol=0, atol=0)


SLOW = r"(.*?)(.*?)(.*?)(.*?)(.*?)(.*?)(.*?)(?<=z)"
"""Takes hours to see that no name matches it."""
EVIL = [SLOW, "(a+)+$", "(.*)*", "(" * 3000, "[", "(?R)", "a" * 20_000 + "|"]


@pytest.mark.parametrize("pattern", EVIL)
@pytest.mark.parametrize(
    "field", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "modules_to_save", "layers_pattern"]
)
def test_no_pattern_is_waited_for(
    adapter: Callable[..., Path],
    random_model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    pattern: str,
) -> None:
    """It is matched within a time limit, which Python's own `re`, peft's way, does not have."""
    _watch_matching(monkeypatch, pattern)
    value: Any = {pattern: 2} if field.endswith("_pattern") and not field.startswith("layers") else pattern
    folder = adapter(**{field: [pattern] if field == "modules_to_save" else value})
    try:
        load_pretrained(random_model_folder, adapter=folder)  # a pattern that matches nothing may change nothing
    except AdapterError as error:
        assert len(str(error)) <= LONGEST_MESSAGE  # noqa: PT017


def _watch_matching(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    """Let a test fail where a pattern is matched without a time limit."""
    compiled, limit = regex.compile, adapters._FOR_MATCHING_SECONDS

    class Bounded:
        def __init__(self, pattern: str) -> None:
            self.pattern = compiled(pattern)

        def fullmatch(self, text: str, *, timeout: float) -> Any:
            assert 0 < timeout <= limit
            return self.pattern.fullmatch(text, timeout=timeout)

    monkeypatch.setattr(adapters.regex, "compile", Bounded)
    for name in ("compile", "match", "fullmatch", "search"):
        usual = getattr(re, name)

        def watched(pattern: Any, *rest: Any, usual: Any = usual, **options: Any) -> Any:
            if len(evil) > 1 and evil in str(pattern):
                pytest.fail(f"re is given {pattern!r}")
            return usual(pattern, *rest, **options)

        monkeypatch.setattr(re, name, watched)


def test_a_pattern_that_takes_for_ever_is_named(adapter: Callable[..., Path], random_model_folder: Path) -> None:
    _refused(random_model_folder, adapter(target_modules=SLOW), r"target_modules is the pattern '.*'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"megatron_config": {}, "megatron_core": "antigravity"}, "megatron_config makes peft import a package"),
        ({"layer_replication": [[0, 10**9]]}, "layer_replication makes another model"),
        ({"alpha_pattern": 2**64}, r"alpha_pattern must be at most 1,048,576"),
        ({"alpha_pattern": "x"}, "alpha_pattern must be of the kind"),
        ({"alpha_pattern": {"dense": "x"}}, "cannot be put on this model"),
        ({"r": 10**9}, "r must be at most 1,048,576"),
        ({"r": 100_000}, "r is 100000, but no stored tensor is wider than"),
        ({"r": -1}, "r is -1"),
        ({"r": 3}, "cannot be put on this model: Error.* size mismatch"),
        ({"rank_pattern": {"dense": "8"}}, "rank_pattern.'dense' must be a rank, or AdaLoRA's mask of ranks"),
        ({"rank_pattern": {"dense": [1, 0]}}, "rank_pattern.'dense' must be a rank"),
        ({"rank_pattern": {"dense": 10**6}}, "rank_pattern.'dense' is 1000000, but no stored tensor is wider than"),
        ({"lora_dropout": float("nan")}, "lora_dropout must be at most"),
        ({"target_modules": 5}, "target_modules must be of the kind"),
        ({"target_modules": []}, "cannot be put on this model"),
        ({"target_modules": "no such"}, "cannot be put on this model"),
        ({"modules_to_save": "dense"}, "modules_to_save must be of the kind"),
        ({"modules_to_save": [".*"]}, "modules_to_save must name modules"),
        ({"init_lora_weights": "pissa_niter_999999999"}, "at most 100 iterations"),
        ({"peft_type": "XLORA"}, "XLORA"),
        ({"peft_type": "NONE"}, "peft_type must be one that peft knows"),
        ({"peft_type": ["LORA"]}, "peft_type must be one that peft knows"),
        ({"bias": "some"}, "bias must be of the kind"),
    ],
)
def test_settings_that_no_adapter_needs(
    adapter: Callable[..., Path], random_model_folder: Path, changes: dict[str, Any], message: str
) -> None:
    _refused(random_model_folder, adapter(**changes), message)


@pytest.mark.parametrize("name", ["num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads"])
@pytest.mark.parametrize("value", [0, 7, 10**6])
def test_sizes_of_virtual_tokens_are_those_of_the_table(
    adapter: Callable[..., Path], random_model_folder: Path, name: str, value: int
) -> None:
    _refused(random_model_folder, adapter("prefix", **{name: value}), "cannot be put on this model: .*expected")


def test_settings_of_the_author_s_machine_do_not_matter(
    adapter: Callable[..., Path], random_model_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"auto_mapping": {"parent_library": "antigravity"}, "revision": "x", "base_model_name_or_path": "/x"}
    model, _ = load_pretrained(random_model_folder, adapter=adapter(**changes, of_next_year=1))
    assert model.peft_config["default"].auto_mapping is None
    assert "knows no 'of_next_year'; ignored" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"r": ' + "9" * 5000 + "}", "\0"])
def test_damaged_settings(adapter: Callable[..., Path], random_model_folder: Path, content: str) -> None:
    folder = adapter()
    (folder / CONFIG).write_text(content)
    _refused(random_model_folder, folder, CONFIG)


class Hostile:
    """Unpickling this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_pickle_is_read_as_far_as_it_is_tensors(
    adapter: Callable[..., Path], saved: dict[str, tuple[Path, Tensor]], random_model_folder: Path, tmp_path: Path
) -> None:
    folder = adapter("patterns")
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / PICKLE)
    model, processor = load_pretrained(random_model_folder, adapter=folder)
    torch.testing.assert_close(_logits(model, processor), saved["patterns"][1], rtol=0, atol=0)

    advice = r"Ask its author for adapter_model\.safetensors"
    for content in (tensors | {"x": Hostile(tmp_path / "run")}, [1], tensors | {"x": 1}):
        torch.save(content, folder / PICKLE)
        _refused(random_model_folder, folder, advice)
    (folder / PICKLE).write_bytes(pickle.dumps(Hostile(tmp_path / "run")))
    _refused(random_model_folder, folder, advice)
    assert not (tmp_path / "run").exists()
    with zipfile.ZipFile(folder / PICKLE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**20)
    _refused(random_model_folder, folder, "is compressed.*" + advice)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("base_model.model.model.qformer.layernorm.bias", "a weight of the base model itself"),
        ("base_model.model.lm_head.base_layer.weight", "a weight of the base model itself"),
        ("base_model.model.model.nowhere.lora_A.weight", "1 of its tensors have no place"),
    ],
)
def test_tensors_that_are_no_adapter_s(
    adapter: Callable[..., Path], random_model_folder: Path, name: str, message: str
) -> None:
    folder = adapter()
    save_file(load_file(folder / WEIGHTS) | {name: torch.zeros(16)}, folder / WEIGHTS)
    _refused(random_model_folder, folder, message)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, "none", "dense", *EVIL[:4]]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dense", "(", *EVIL[:3]]), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_settings_say(
    data: st.DataObject, saved: dict[str, tuple[Path, Tensor]], base: Callable[[], Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(saved[data.draw(st.sampled_from(sorted(METHODS)))][0], tmp_path / "a", dirs_exist_ok=True)
    content = json.loads((folder / CONFIG).read_text("utf-8"))
    content |= data.draw(st.dictionaries(st.sampled_from(sorted(content)), VALUES, min_size=1, max_size=3))
    (folder / CONFIG).write_text(json.dumps(content))
    try:
        attach_adapter(base(), Path(folder))
    except WorkbenchError as error:
        assert len(str(error)) <= LONGEST_MESSAGE  # noqa: PT017


@pytest.fixture(scope="module")
def base(random_model_folder: Path) -> Callable[[], Any]:
    """Fresh copies of the base, without reading it anew."""
    model, _ = load_pretrained(random_model_folder)
    source = model.__dict__.pop("source_weights")

    def fresh() -> Any:
        again = copy.deepcopy(model)
        again.__dict__["source_weights"] = source
        return again

    return fresh
