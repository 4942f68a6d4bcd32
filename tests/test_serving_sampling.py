"""How tokens are drawn: by their probabilities, and without regard to the last bits of logits."""

import math
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
from vglm.serving.sampling import Sampler, Sampling, chinese_tokens, draw, waits

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


def test_rounding_hardly_ever_decides(tokenizer: VisualGlmTokenizer) -> None:
    """Of a thousand tokens that are all likely: what noise in the last bits changes is one draw in many thousands."""
    logits = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    noise = 1e-6 * torch.randn(1000, generator=torch.Generator().manual_seed(1))
    settings = {"top_k": 800, "top_p": 1.0, "temperature": 5.0}
    pairs = zip(drawn(tokenizer, logits, **settings), drawn(tokenizer, logits + noise, **settings), strict=True)
    assert sum(one != other for one, other in pairs) == 0


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


def samplers_of(tokenizer: VisualGlmTokenizer, seed: int, **overrides: float) -> list[Sampler]:
    """One for each of the settings, all behind the same tokens."""
    rows = [Sampler(Sampling(seed=seed, **settings | overrides), tokenizer) for settings in SETTINGS]  # type: ignore[arg-type]
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


def wait_of(seed: int, token: int) -> float:
    """A token's random number in the first step, by SplitMix64 in whole numbers."""
    state = (np.random.PCG64(seed).random_raw() + token * 0x9E3779B97F4A7C15) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ state >> shift) * factor % 2**64
    state ^= state >> 31
    return -math.log(((state >> 12) + 0.5) / 2**52)


def test_waits_are_exponential_and_independent_of_each_other() -> None:
    """Of neighbouring ids and of neighbouring steps, compared with the exact quantiles."""
    steps = np.stack([waits(key, np.arange(500)) for key in np.random.PCG64(1).random_raw(400)])
    assert (steps > 0).all()
    assert np.isfinite(steps).all()
    share = np.sort(-np.expm1(-steps), axis=None)  # uniform on 0 to 1
    assert np.abs(share - np.linspace(0, 1, share.size)).max() < 0.005  # Kolmogorov's distance of 200,000: 0.004 in 1%
    for one, other in ((steps[:, 1:], steps[:, :-1]), (steps[1:], steps[:-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("moves_few", [False, True], ids=["as on a CPU", "as on a GPU"])
def test_rows_of_all_settings_are_drawn_together_as_transformers_would_draw_each(
    tokenizer: VisualGlmTokenizer, moves_few: bool, has_ties: bool
) -> None:
    size, compared = len(tokenizer), 0
    for seed in range(20):
        # Of tokens that are equal, transformers' top p keeps some, by an order that it does not state.
        rows, alone, few = (samplers_of(tokenizer, seed, **({"top_p": 1.0} if has_ties else {})) for _ in range(3))
        logits = 3 * torch.randn(len(SETTINGS), size, generator=torch.Generator().manual_seed(seed))
        logits = logits.round() if has_ties else logits
        logits[:, tokenizer.eos_token_id] = 30.0 if seed % 2 else 0.0
        untouched = logits.clone()
        tokens = draw(rows, logits, moves_few=moves_few)
        assert torch.equal(logits, untouched)
        limited = [row for row, sampler in enumerate(few) if sampler.reach]  # beside others, all scores are needed
        together = draw([few[row] for row in limited], logits[limited], moves_few=moves_few)
        assert together == [tokens[row] for row in limited]
        race = torch.tensor([wait_of(seed, token) for token in range(size)], dtype=torch.float64)
        for row, sampler in enumerate(alone):
            assert draw([sampler], logits[row : row + 1], moves_few=moves_few) == tokens[row : row + 1]
            (first, second), (best, _) = (transformers_probabilities(sampler, logits[row]) / race).topk(2)
            if first > 1.0001 * second:  # else rounding may decide
                assert tokens[row] == best
                compared += 1
    assert compared > 19 * len(SETTINGS)


def test_equal_scores_are_chosen_by_whatever_other_rows_reach_for(tokenizer: VisualGlmTokenizer) -> None:
    """Where only some scores leave the device, and the last of a row's `top_k` is one of several that are equal."""
    logits = torch.zeros(1, len(tokenizer))
    logits[:, 7], greedy = 1.0, Sampler(Sampling(temperature=0.0), tokenizer)
    ids = set()
    for seed in range(20):
        few, again, many = (
            Sampler(Sampling(seed=seed, top_k=top_k, top_p=1.0), tokenizer) for top_k in (3, 3, len(tokenizer) - 1)
        )
        expected = draw([few], logits, moves_few=True)
        assert draw([again, many, greedy], logits.expand(3, -1), moves_few=True)[::2] == [*expected, 7]
        ids |= set(expected)
    assert len(ids) > 3


def test_of_no_rows_nothing_is_drawn(tokenizer: VisualGlmTokenizer) -> None:
    for moves_few in (False, True):
        assert draw([], torch.zeros(0, len(tokenizer)), moves_few=moves_few) == []


@pytest.mark.parametrize("moves_few", [False, True])
@pytest.mark.parametrize("penalty", [5e-324, 1e-38])
@pytest.mark.parametrize("settings", SETTINGS[:6])
def test_next_to_no_penalty_harms_no_row(
    tokenizer: VisualGlmTokenizer, settings: dict[str, float], penalty: float, moves_few: bool
) -> None:
    logits = torch.randn(2, len(tokenizer), generator=torch.Generator().manual_seed(0))
    logits[:, SEEN] = torch.tensor([3.0, 0.0, 3.0, -3.0, 65504.0])
    row, alone, extreme = (
        Sampler(Sampling(**{"seed": 1, **settings, **more}), tokenizer)  # type: ignore[arg-type]
        for more in ({}, {}, {"repetition_penalty": penalty})
    )
    for token in SEEN:
        extreme.take(token)
    tokens = draw([row, extreme], logits, moves_few=moves_few)
    assert tokens[:1] == draw([alone], logits[:1], moves_few=moves_few)
    assert tokens[1] in (SEEN[0], SEEN[4])  # whose scores are the largest there are


@pytest.mark.parametrize("temperature", [1e-300, 1e-7, 1e-5])
def test_next_to_no_temperature_takes_the_likeliest(tokenizer: VisualGlmTokenizer, temperature: float) -> None:
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert set(drawn(tokenizer, logits, temperature=temperature)) == {int(logits.argmax())}
