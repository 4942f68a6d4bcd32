"""Fine-tunes made with the original's tools become peft adapters with the original's numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vglm
from vglm.cli import main
from vglm.errors import CheckpointError
from vglm.model.conversion import RegroupHeads
from vglm.model.export import convert

MODULE = "mp_rank_00_model_states.pt"
FUSED = "transformer.layers.{}.attention.query_key_value."


@pytest.fixture(scope="module")
def imported(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reference's fine-tunes, through the command line."""
    folder = tmp_path_factory.mktemp("imported")
    for name in ("sat_lora", "sat_ptuning"):
        arguments = [str(reference / name), str(folder / name), "--tokenizer", str(reference / "hf_layout")]
        assert main(["convert", *arguments]) == 0
    return {"lora": folder / "sat_lora", "ptuning": folder / "sat_ptuning"}


@pytest.fixture(scope="module")
def expected(reference: Path) -> Any:
    return np.load(reference / "expected.npz")


@pytest.fixture(scope="module")
def facts(reference: Path) -> Any:
    return json.loads((reference / "expected.json").read_text("utf-8"))


def load(folder: Path) -> Any:
    return vglm.load_pretrained(folder / "model", adapter=folder / "adapter")[0]


def inputs_of(case: str, expected: Any, facts: Any, length: int | None = None) -> dict[str, Tensor]:
    inputs = {"input_ids": torch.from_numpy(expected[f"{case}/input_ids_hf"])[None, :length]}
    if (image := facts["cases"][case]["image"]) is not None:
        inputs["pixel_values"] = torch.from_numpy(expected[f"images/{image}/pixel_values"])[None]
    return inputs


def read_module(folder: Path) -> dict[str, Tensor]:
    file = next(folder.glob(f"*/{MODULE}"))
    content = torch.load(file, weights_only=False)  # beside the weights lies the state of a training run
    module: dict[str, Tensor] = content["module"]
    return module


def write_sat(folder: Path, module: dict[str, Tensor], raw: dict[str, Any]) -> Path:
    (folder / "7").mkdir(parents=True)
    torch.save({"module": module}, folder / "7" / MODULE)
    (folder / "latest").write_text("7")
    (folder / "model_config.json").write_text(json.dumps(raw))
    return folder


def raw_config(folder: Path, **changes: Any) -> dict[str, Any]:
    raw = {**json.loads((folder / "model_config.json").read_text("utf-8")), **changes}
    return {key: value for key, value in raw.items() if value is not None}


@pytest.mark.parametrize("variant", ["lora", "ptuning"])
def test_logits_and_greedy_answers_are_the_originals(
    imported: dict[str, Path], expected: Any, facts: Any, variant: str
) -> None:
    model = load(imported[variant])
    for case in ("zh_single", "en_history", "zh_text"):
        inputs = inputs_of(case, expected, facts)
        for mask in (None, torch.ones_like(inputs["input_ids"])):
            with torch.no_grad():
                logits = model(**inputs, attention_mask=mask).logits[0, expected[f"{case}/logits_positions"]]
            golden = torch.from_numpy(expected[f"{variant}/{case}/logits"])
            torch.testing.assert_close(logits, golden, atol=1e-4, rtol=0)
    for case in ("zh_single", "en_history"):
        answer = facts["variants"][variant][f"greedy_{case}"]
        prompt = inputs_of(case, expected, facts, length=facts["cases"][case]["prompt_tokens"])
        mask = torch.ones_like(prompt["input_ids"])
        for use_cache in (True, False):
            ids = model.generate(**prompt, attention_mask=mask, max_new_tokens=len(answer), use_cache=use_cache)
            assert ids[0, mask.shape[1] :].tolist() == answer


def test_batches_with_a_prefix_are_padded_like_any(imported: dict[str, Path], expected: Any, facts: Any) -> None:
    model = load(imported["ptuning"])
    cases = ("zh_single", "en_history")
    prompts = [inputs_of(case, expected, facts, facts["cases"][case]["prompt_tokens"]) for case in cases]
    answers = [facts["variants"]["ptuning"][f"greedy_{case}"] for case in cases]
    length = max(prompt["input_ids"].shape[1] for prompt in prompts)
    ids, mask = torch.full((2, length), 3), torch.zeros(2, length, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, -prompt["input_ids"].shape[1] :] = prompt["input_ids"][0]
        mask[row, -prompt["input_ids"].shape[1] :] = 1
    pixels = torch.cat([prompt["pixel_values"] for prompt in prompts])
    new = max(map(len, answers))
    generated = model.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, max_new_tokens=new)
    for row, answer in enumerate(answers):
        assert generated[row, length : length + len(answer)].tolist() == answer


def test_the_base_is_the_base_and_takes_the_adapter_off(imported: dict[str, Path], expected: Any, facts: Any) -> None:
    inputs = inputs_of("zh_single", expected, facts)
    for folder in imported.values():
        model = load(folder)
        with model.disable_adapter(), torch.no_grad():
            logits = model(**inputs).logits[0, expected["zh_single/logits_positions"]]
        torch.testing.assert_close(logits, torch.from_numpy(expected["zh_single/logits"]), atol=1e-4, rtol=0)


def test_three_pairs_become_one_with_the_same_update(imported: dict[str, Path], reference: Path) -> None:
    module, model = read_module(reference / "sat_lora"), load(imported["lora"])
    tuned = {name: layer for name, layer in model.named_modules() if hasattr(layer, "lora_A")}
    assert len(tuned) == 4  # two linear layers in layers 0 and 2, nothing elsewhere
    for i in (0, 2):
        attention = model.get_base_model().model.language_model.layers[i].attention
        assert attention.query_key_value.scaling["default"] == attention.dense.scaling["default"] == 1 / 4
        update = torch.empty(4, 3, 16, 64)
        for part in range(3):
            a, b = (module[FUSED.format(i) + f"matrix_{side}.{part}"].float() for side in "AB")
            for head in range(4):
                update[head, part] = b[16 * head : 16 * (head + 1)] @ a / 4
        delta = attention.query_key_value.get_delta_weight("default")
        torch.testing.assert_close(delta, update.reshape(192, 64), atol=1e-7, rtol=1e-6)


def test_head_first_checkpoints(reference: Path, tmp_path: Path, expected: Any, facts: Any) -> None:
    """The same fine-tune as SAT wrote it before July 2023, and the original's output for one layer."""
    module, golden = read_module(reference / "sat_lora"), np.load(reference / "components_golden.npz")
    for key, tensor in module.items():
        if key.startswith("transformer.layers.") and ".query_key_value" in key and "matrix" not in key:
            (module[key],) = RegroupHeads(4).forward(tensor)
    raw = raw_config(reference / "sat_lora", pad_token_id=None)
    arguments = {"tokenizer": reference / "hf_layout"}
    model = load(convert(write_sat(tmp_path / "old", module, raw), tmp_path / "imported", **arguments))
    inputs = inputs_of("en_history", expected, facts)
    with torch.no_grad():
        logits = model(**inputs).logits[0, expected["en_history/logits_positions"]]
    torch.testing.assert_close(logits, torch.from_numpy(expected["lora/en_history/logits"]), atol=1e-4, rtol=0)

    numbers = {name: torch.from_numpy(golden[f"old_head_first_lora/{name}"]) for name in ("x", "y", "merged_weight")}
    for side in "AB":
        for part in range(3):
            matrix = torch.from_numpy(golden[f"old_head_first_lora/matrix_{side}_{part}"])
            module[FUSED.format(0) + f"matrix_{side}.{part}"] = matrix
    model = load(convert(write_sat(tmp_path / "layer", module, raw), tmp_path / "imported layer", **arguments))
    layer = model.get_base_model().model.language_model.layers[0].attention.query_key_value
    with torch.no_grad():
        torch.testing.assert_close(layer(numbers["x"].float()), numbers["y"].float(), atol=1e-4, rtol=0)
        merged = layer.base_layer.weight + layer.get_delta_weight("default")
    torch.testing.assert_close(merged, numbers["merged_weight"].float(), atol=1e-5, rtol=0)


def test_other_ranks_and_layers(reference: Path, tmp_path: Path) -> None:
    """Any rank and any layers, told by the tensors."""
    module, rank = read_module(reference / "sat_layout"), 7
    generator = torch.Generator().manual_seed(0)
    for i in (1, 2, 3):
        for kind, parts in (("query_key_value", 3), ("dense", 1)):
            name = f"transformer.layers.{i}.attention.{kind}."
            for parameter in ("weight", "bias"):
                module[f"{name}original.{parameter}"] = module.pop(name + parameter)
            for part in range(parts):
                module[f"{name}matrix_A.{part}"] = torch.randn(rank, 64, generator=generator)
                module[f"{name}matrix_B.{part}"] = torch.randn(64, rank, generator=generator)
    folder = write_sat(tmp_path / "sat", module, raw_config(reference / "sat_layout"))
    model = load(convert(folder, tmp_path / "imported", tokenizer=reference / "hf_layout"))
    for i in (1, 2, 3):
        dense = model.get_base_model().model.language_model.layers[i].attention.dense
        a, b = (module[f"transformer.layers.{i}.attention.dense.matrix_{side}.0"] for side in "AB")
        torch.testing.assert_close(dense.get_delta_weight("default"), b @ a / rank, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        (
            "sat_lora",
            {FUSED.format(2) + "matrix_B.1": None},
            "not a complete LoRA .*layers.2.attention.query_key_value",
        ),
        ("sat_lora", {FUSED.format(0) + "matrix_A.0": (5, 64)}, "not a complete LoRA of this model"),
        ("sat_ptuning", {"mixins.ptuning.prefix.3": None}, "not a complete p-tuning .* found 3 of shape"),
        ("sat_ptuning", {"mixins.ptuning.prefix.0": (2, 4, 9, 16)}, "not a complete p-tuning of this model"),
        ("sat_ptuning", {FUSED.format(0) + "matrix_A.0": (4, 64)}, "holds both a LoRA fine-tune .* and a p-tuning"),
        ("sat_lora", {"mixins.eva.model.glm_proj.matrix_A.0": (4, 32)}, "'mixins.eva.*matrix_A.0' .* is unexpected"),
    ],
)
def test_damaged_fine_tunes(
    reference: Path, tmp_path: Path, source: str, change: dict[str, tuple[int, ...] | None], message: str
) -> None:
    module = read_module(reference / source)
    for key, shape in change.items():
        if shape is None:
            del module[key]
        else:
            module[key] = torch.zeros(shape)
    folder = write_sat(tmp_path / "sat", module, raw_config(reference / source))
    with pytest.raises(CheckpointError, match=message):
        convert(folder, tmp_path / "out", tokenizer=reference / "hf_layout")
    assert [path.name for path in tmp_path.iterdir()] == ["sat"]


@pytest.mark.parametrize(("dtype", "variant"), [("float32", "lora"), ("float16", "merged")])
def test_a_merged_fine_tune_has_the_originals_logits(
    imported: dict[str, Path], expected: Any, facts: Any, tmp_path: Path, dtype: str, variant: str
) -> None:
    """The original merges into half precision; in full precision, merged is as good as unmerged."""
    arguments = [str(imported["lora"]), "--output", str(tmp_path / "merged"), "--dtype", dtype]
    assert main(["merge", *arguments]) == 0
    model, _ = vglm.load_pretrained(tmp_path / "merged")
    for case in ("zh_single", "en_history", "zh_text"):
        with torch.no_grad():
            logits = model(**inputs_of(case, expected, facts)).logits[0, expected[f"{case}/logits_positions"]]
        golden = torch.from_numpy(expected[f"{variant}/{case}/logits"])
        torch.testing.assert_close(logits, golden, atol=1e-4, rtol=0)
