"""How tokens are drawn: by their probabilities, and without regard to the last bits of logits."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.serving.sampling import Sampler, Sampling, draw

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
