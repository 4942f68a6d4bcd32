"""The benchmark of the full size, at a size of toys: what it computes is what it measures."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.full_size import CASES, TOKENIZER, compute_budget, main, make_batches, sizes
from vglm.model.configuration import VisualGlmConfig
from vglm.model.loading import empty_model
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.planning.budget import PARTS, bytes_of_weights, count_parameters
from vglm.planning.measurement import random_model

GB = 10**9


@pytest.fixture(scope="module")
def tokenizer() -> VisualGlmTokenizer:
    return VisualGlmTokenizer.from_pretrained(TOKENIZER)


def test_the_full_size_has_the_parameters_of_the_architecture(tokenizer: VisualGlmTokenizer) -> None:
    config = sizes("full", tokenizer)
    counts = count_parameters(empty_model(config))
    assert sum(counts.values()) + counts["embeddings"] == 7_802_193_408  # the released files hold the head twice
    apart = VisualGlmConfig(tie_word_embeddings=False)
    assert sum(count_parameters(empty_model(apart)).values()) == 7_802_193_408


def test_aims_are_met_where_vision_is_quantised_too(tokenizer: VisualGlmTokenizer) -> None:
    config = sizes("full", tokenizer)
    batches = make_batches(config, tokenizer)
    assert batches[0]["input_ids"].eq(config.image_token_id).sum() == 32
    for name, case in CASES.items():
        if case.aim is None and not case.published:
            continue
        batch = batches[case.batch_size if case.method else 0]
        budget = compute_budget(config, case, batch, torch.bfloat16, new_tokens=64)
        assert case.aim is None or sum(budget.values()) < case.aim * GB, name
        assert not case.published or sum(budget.values()) < float(case.published.split(",")[0]) * GB, name


@pytest.mark.parametrize("name", ["half", "int8", "nf4", "nf4-vision"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computed_weights_are_those_built(name: str, dtype: torch.dtype, tokenizer: VisualGlmTokenizer) -> None:
    config = sizes("tiny", tokenizer)
    batch = {"input_ids": torch.zeros(1, 8, dtype=torch.int64)}
    case = CASES[name]
    model = random_model(config, torch.device("cpu"), dtype, case.quantization, case.parts)
    budget = compute_budget(config, case, batch, dtype, new_tokens=1)
    assert bytes_of_weights(model) == {part: budget[part] for part in PARTS}
    assert count_parameters(model) == count_parameters(empty_model(config))
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's
def test_every_part_of_the_budget_is_what_a_run_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = ["int8", "nf4-vision", "lora-1", "qlora-4", "p_tuning_v2-4"]
    output = tmp_path / "figures.json"
    arguments = ["--size", "tiny", "--dtype", "float32", "--check", "--new-tokens", "3", "--device", "cpu"]
    assert main([*arguments, "--json", str(output), "--cases", *cases]) == 0
    figures = json.loads(output.read_text(encoding="utf-8"))["cases"]
    assert list(figures) == cases
    for name, case in figures.items():
        computed, measured = case["computed"], case["measured"]["bytes"]
        for part, number in measured.items():
            expected = pytest.approx(computed[part], rel=0.15) if part == "activations" else computed[part]
            assert number == expected, (name, part)
        assert case["measured"]["seconds"] > 0
    assert {"keys and values"} <= set(figures["int8"]["measured"]["bytes"])
    assert {"adapter", "gradients", "optimizer", "activations"} <= set(figures["lora-1"]["measured"]["bytes"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "8.7, 6.3" not in shown
    assert "9.8" not in shown.split()  # as a figure of its own; others may hold these digits


def test_without_a_gpu_it_computes(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine measures")
    assert main(["--cases", "nf4", "qlora-1"]) == 0
    shown = capsys.readouterr().out
    assert "computed, not measured" in shown
    assert "8.7, 6.3" in shown
    assert "7,802,193,408" in shown
    assert max(map(len, shown.splitlines())) <= 80
