"""How tokens are drawn: by their probabilities, and without regard to the last bits of logits."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.serving.sampling import Sampler, Sampling, chinese_tokens, draw, highest

SEEDS = range(2000)


@pytest.fixture(scope="module")
def tokenizer(random_model_folder: Path) -> VisualGlmTokenizer:
    return VisualGlmProcessor.from_pretrained(random_model_folder).tokenizer


def drawn(tokenizer: VisualGlmTokenizer, logits: torch.Tensor, **settings: float) -> list[int]:
    """The first token of an answer with each seed."""
    samplers = [Sampler(Sampling(seed=seed, **settings), tokenizer) for seed in SEEDS]  # type: ignore[arg-type]
    return draw(samplers, logits.expand(len(SEEDS), -1))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 0, "top_p": 1.0, "temperature": 1.0}, {1: 0.5, 3: 0.25, 4: 0.125, 0: 0.125}),
        ({"top_k": 2, "top_p": 1.0, "temperature": 1.0}, {1: 2 / 3, 3: 1 / 3}),
        ({"top_k": 0, "top_p": 0.7, "temperature": 1.0}, {1: 2 / 3, 3: 1 / 3}),
        ({"top_k": 3, "top_p": 1.0, "temperature": 0.5}, {1: 16 / 21, 3: 4 / 21, 4: 1 / 21}),
        ({"top_k": 100, "top_p": 1.0, "temperature": 0.0}, {1: 1.0}),
    ],
)
def test_tokens_come_as_often_as_they_are_probable(
    tokenizer: VisualGlmTokenizer, settings: dict[str, float], expected: dict[int, float]
) -> None:
    logits = torch.tensor([0.125, 0.5, 0.0, 0.25, 0.125, 0.0]).log().clamp(min=-1000)
    if settings["top_k"] == 3:
        logits[0] = -1000
    counts = Counter(drawn(tokenizer, logits, **settings))
    assert set(counts) == set(expected)
    for token, share in expected.items():
        assert counts[token] / len(SEEDS) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("top_k", [0, 80])
def test_differences_in_the_last_bits_change_no_answer(tokenizer: VisualGlmTokenizer, top_k: int) -> None:
    """Here they change the order of all likely tokens by their logits."""
    logits = torch.zeros(100)
    logits[80:] = -20
    noise = 1e-6 * torch.rand(100, generator=torch.Generator().manual_seed(0))
    settings = {"top_k": top_k, "top_p": 1.0}
    assert drawn(tokenizer, logits + noise, **settings) == drawn(tokenizer, logits, **settings)


SEEN = [5, 17, 5, 300, 42]
SETTINGS = [
    {},
    {"top_k": 20, "top_p": 1.0, "temperature": 5.0},
    {"top_k": 0, "top_p": 0.9, "repetition_penalty": 1.0},
    {"top_k": 0, "top_p": 1.0, "temperature": 2.0, "repetition_penalty": 0.8},
    {"temperature": 0.0},
    {"top_k": 1},
    {"top_k": 50, "top_p": 0.99, "bars_chinese": True},
    {"temperature": 0.0, "min_new_tokens": 9},
]


def samplers_of(tokenizer: VisualGlmTokenizer, seed: int) -> list[Sampler]:
    """One for each of the settings, all behind the same tokens."""
    rows = [Sampler(Sampling(seed=seed, **settings), tokenizer) for settings in SETTINGS]  # type: ignore[arg-type]
    for row in rows:
        for token in SEEN:
            row.take(token)
    return rows


def transformers_probabilities(sampler: Sampler, logits: torch.Tensor) -> torch.Tensor:
    """By transformers' own processors, one after the other."""
    how, scores, ids = sampler.settings, logits[None].clone(), torch.tensor([SEEN])
    scores = RepetitionPenaltyLogitsProcessor(float(how.repetition_penalty))(ids, scores)
    if how.bars_chinese:
        scores[:, chinese_tokens(sampler.tokenizer)] = -torch.inf
    if how.min_new_tokens > len(SEEN):
        scores[:, sampler.tokenizer.eos_token_id] = -torch.inf
    if sampler.is_greedy:
        return torch.nn.functional.one_hot(scores[0].argmax(), len(logits)).double()
    if how.top_k:
        scores = TopKLogitsWarper(how.top_k)(ids, scores)
    scores = TemperatureLogitsWarper(float(how.temperature))(ids, scores)
    if how.top_p < 1:
        scores = TopPLogitsWarper(how.top_p)(ids, scores)
    return scores[0].double().softmax(-1)


def test_rows_of_all_settings_are_drawn_together_as_transformers_would_draw_each(tokenizer: VisualGlmTokenizer) -> None:
    size, compared = len(tokenizer), 0
    for seed in range(40):
        logits = 3 * torch.randn(len(SETTINGS), size, generator=torch.Generator().manual_seed(seed))
        logits[:, tokenizer.eos_token_id] = 30.0 if seed % 2 else 0.0
        untouched = logits.clone()
        tokens = draw(samplers_of(tokenizer, seed), logits)
        assert torch.equal(logits, untouched)
        number = np.random.Generator(np.random.PCG64(seed)).random()
        for row, sampler in enumerate(samplers_of(tokenizer, seed)):
            assert draw([sampler], logits[row : row + 1]) == tokens[row : row + 1]
            line = transformers_probabilities(sampler, logits[row]).cumsum(0)
            if (line - number).abs().min() > 1e-5:  # else rounding may decide
                assert tokens[row] == int((line <= number).sum())
                compared += 1
    assert compared > 30 * len(SETTINGS)


def test_the_highest_scores_are_enough_to_draw_by(tokenizer: VisualGlmTokenizer) -> None:
    """Only they come from a GPU."""
    logits = torch.randn(1, len(tokenizer), generator=torch.Generator().manual_seed(0))
    for settings in SETTINGS[:3]:
        for seed in range(20):
            alone, few = (Sampler(Sampling(seed=seed, **settings), tokenizer) for _ in range(2))  # type: ignore[arg-type]
            scores, ids = highest(logits, 100 if few.reach else 0)
            assert ids[0, few.draw(scores[0].numpy())] == draw([alone], logits)[0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-7, 1e-5])
def test_next_to_no_temperature_takes_the_likeliest(tokenizer: VisualGlmTokenizer, temperature: float) -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert set(drawn(tokenizer, logits, temperature=temperature)) == {int(logits.argmax())}
