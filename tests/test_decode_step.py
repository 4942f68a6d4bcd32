"""The decode step against transformers' own loop: the same tokens, for every kind of model, prompt and batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from tests.servers import moved_adapter
from vglm.config import repo_root
from vglm.evaluation.predict.decoding import Sampling
from vglm.model.decoding import decode, free_bytes, prefill, rows_that_fit
from vglm.model.lean_lora import lean_lora, make_lean
from vglm.model.loading import load_pretrained

PICTURE = Image.linear_gradient("L").convert("RGB")
METHODS = ["lora", "dora", "ia3", "p_tuning_v2", "p_tuning", "prompt_tuning"]
GREEDY = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0}
WORDS = "图中有什么？这张片的背景里内容是颜色几个人 What is in the picture 你好"


def prompts(processor: Any, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """So many different questions of all lengths, most with a picture, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    texts, images = [], []
    for _ in range(count):
        length, angle, kind = (
            int(torch.randint(low, high, (), generator=generator)) for low, high in ((2, 60), (0, 360), (0, 4))
        )
        indices = torch.randint(0, len(WORDS), (length,), generator=generator).tolist()
        texts.append("".join(WORDS[index] for index in indices).strip() or "你好")
        images.append(PICTURE.rotate(angle) if kind else None)
    return dict(processor(images=images, text=texts, return_tensors="pt"))


def both(model: Any, inputs: dict[str, torch.Tensor], **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers' loop writes, and what `decode` does."""
    settings = {**GREEDY, "max_new_tokens": 20, **settings}
    with torch.inference_mode():
        return model.generate(**inputs, **settings), model.generate(**inputs, **settings, custom_generate=decode)


def drawn(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Likewise, with each row's own noise, so that every token depends on all before it."""
    names = [("test", str(row), 0) for row in range(len(inputs["input_ids"]))]
    settings = {**GREEDY, "max_new_tokens": 12}
    with torch.inference_mode():
        usual, ours = (
            model.generate(
                **inputs, **settings, **loop, logits_processor=Sampling(temperature=1.0, seed=1).processors(names)
            )
            for loop in ({}, {"custom_generate": decode})
        )
    return usual, ours


@pytest.fixture(scope="module")
def adapters(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        method: moved_adapter(random_model_folder, tmp_path_factory.mktemp(method), method=method) for method in METHODS
    }


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    """The tiny model that comes along: what it says depends on the prompt."""
    return load_pretrained(repo_root() / "data/visualglm_tiny", dtype="float32")


@pytest.fixture(scope="module", params=[None, *METHODS])
def tuned(request: pytest.FixtureRequest, random_model_folder: Path, adapters: dict[str, Path]) -> tuple[Any, Any]:
    return load_pretrained(random_model_folder, adapter=adapters.get(request.param))


@pytest.mark.parametrize("count", [1, 7, 33])
def test_tokens_are_those_of_transformers_with_every_adapter(tuned: tuple[Any, Any], count: int) -> None:
    inputs = prompts(tuned[1], count, seed=count)
    assert torch.equal(*both(tuned[0], inputs))
    usual, ours = drawn(tuned[0], inputs)
    assert torch.equal(usual, ours)
    assert len({tuple(row) for row in ours[:, -12:].tolist()}) == count


@pytest.mark.parametrize("count", [1, 8, 40])
def test_answers_are_those_of_transformers(loaded: tuple[Any, Any], count: int) -> None:
    usual, ours = both(loaded[0], prompts(loaded[1], count, seed=count), max_new_tokens=40)
    assert torch.equal(usual, ours)
    assert len({tuple(row) for row in ours[:, -12:].tolist()}) > count / 4


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("method", ["", "lora", "p_tuning_v2"])
def test_tokens_are_those_of_transformers_on_a_quantised_base(
    quantization: str, method: str, random_model_folder: Path, adapters: dict[str, Path]
) -> None:
    model, processor = load_pretrained(random_model_folder, adapter=adapters.get(method), quantization=quantization)
    usual, ours = drawn(model, prompts(processor, 5))
    assert torch.equal(usual, ours)
    assert len({tuple(row) for row in ours[:, -12:].tolist()}) == 5


def test_answers_longer_than_a_block_of_columns_and_of_different_ends(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = prompts(processor, 6)
    usual, _ = both(model, inputs, max_new_tokens=150)
    ends = [int(usual[row, -1 - 5 * row]) for row in range(6)]  # in the middle of some answers
    for settings in ({}, {"eos_token_id": ends}, {"eos_token_id": ends[:1], "min_new_tokens": 40}):
        usual, ours = both(model, inputs, max_new_tokens=150, **settings)
        assert torch.equal(usual, ours)


def test_repetition_is_punished_as_by_transformers(loaded: tuple[Any, Any]) -> None:
    usual, ours = both(loaded[0], prompts(loaded[1], 9), repetition_penalty=3.0, no_repeat_ngram_size=2)
    assert torch.equal(usual, ours)


def test_a_row_is_the_same_whoever_comes_and_leaves(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    inputs = [prompts(processor, 1, seed) for seed in range(6)]

    def greedy(count: int) -> list[list[int]]:
        """Rows alone."""
        answers = []
        for prompt in inputs:
            batch, tokens = prefill(model, model, prompt), []
            for _ in range(count):
                tokens += batch.logits.argmax(-1).tolist()
                batch.step(model, tokens[-1:])
            answers.append(tokens)
        return answers

    with torch.inference_mode():
        alone = greedy(90)
        batch = prefill(model, model, inputs[0])
        rows, answers, waiting = [0], {number: [] for number in range(6)}, list(range(1, 6))
        for step in range(200):
            if waiting and step % 7 == 3:
                rows.append(waiting[0])
                batch.join(prefill(model, model, inputs[waiting.pop(0)]))
            tokens = batch.logits.argmax(-1).tolist()
            for number, token in zip(rows, tokens, strict=True):
                answers[number].append(token)
            going = [index for index, number in enumerate(rows) if len(answers[number]) < 90 - 10 * number]
            rows = [rows[index] for index in going]
            if not going:
                break
            batch.keep(going)
            batch.step(model, [tokens[index] for index in going])
    assert not waiting
    for number, tokens in answers.items():
        assert tokens == alone[number][: len(tokens)]
        assert len(tokens) == 90 - 10 * number


def test_a_row_that_has_diverged_leaves_nothing_in_its_place(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    first, second, third = (prompts(processor, 1, seed) for seed in range(3))
    with torch.inference_mode():
        expected = prefill(model, model, third)
        expected.step(model, [7])
        batch = prefill(model, model, first)
        batch.join(prefill(model, model, second))
        batch.join(prefill(model, model, second))
        batch.step(model, [7, 7, 7])
        for states in (*batch.keys, *batch.values):
            states[1] = float("nan")
        batch.keep([0, 2])
        batch.join(prefill(model, model, third))
        batch.step(model, [7, 7, 7])
    torch.testing.assert_close(batch.logits[2:], expected.logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lean_lora_computes_what_peft_computes(
    dtype: str, random_model_folder: Path, adapters: dict[str, Path]
) -> None:
    model, _ = load_pretrained(random_model_folder, adapter=adapters["lora"], dtype=dtype)
    layers: list[Any] = [
        module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    ]
    assert layers
    for layer in layers:
        x = torch.randn(3, 1, layer.in_features, generator=torch.Generator().manual_seed(0)).to(model.dtype)
        with torch.inference_mode():
            usual, base = layer(x), layer.base_layer(x)
            with lean_lora(model):
                lean = layer(x)
            again = layer(x)
        apart = 1e-5 if dtype == "float32" else 0.02
        assert (lean - usual).abs().max() < apart * usual.abs().max() < (base - usual).abs().max()
        assert torch.equal(again, usual)


def test_lean_lora_follows_a_weight_that_changes(random_model_folder: Path, adapters: dict[str, Path]) -> None:
    model, _ = load_pretrained(random_model_folder, adapter=adapters["lora"], dtype="bfloat16")
    layer: Any = next(
        module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    )
    weight = layer.lora_B["default"].weight
    x = torch.randn(1, 1, layer.in_features).to(model.dtype)
    make_lean(model)
    with torch.no_grad():
        before = layer(x)
        nn.init.zeros_(weight)
        assert torch.equal(layer(x), layer.base_layer(x))
    assert not torch.equal(before, layer.base_layer(x))


def test_as_many_rows_as_fit_into_memory(loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = loaded
    row_counts = []
    for megabytes in (1, 30, 100, 1_000, 100_000):
        monkeypatch.setattr("vglm.model.decoding.free_bytes", lambda _, size=megabytes: size * 10**6)
        row_counts.append(rows_that_fit(model, 100))
        assert rows_that_fit(model, 1_000) <= row_counts[-1]
    assert row_counts[0] == 1
    assert row_counts[-1] == 64
    assert row_counts == sorted(row_counts)
    assert all(rows & (rows - 1) == 0 for rows in row_counts)


def test_free_memory_is_a_containers_where_that_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("vglm.model.decoding.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("50000000\n")
    (tmp_path / "memory.current").write_text("40000000\n")
    (tmp_path / "memory.stat").write_text("anon 5000000\nfile 35000000\ninactive_file 30000000\n")
    assert free_bytes(torch.device("cpu")) == 40_000_000  # files that are cached give way
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) > 40_000_000
