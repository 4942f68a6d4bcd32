import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from vglm.errors import ConfigError
from vglm.evaluation.predict.decoding import Decoding, Sampling

LOGITS = torch.tensor([0.0, 2.0, -1.0, 1.0, 0.5, -3.0])
NO_TEXT = torch.zeros((1, 0), dtype=torch.long)


def draw(sampling: Sampling, names: list[str], steps: int = 1, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    """The tokens of so many steps with the same logits, shape (steps, names)."""
    chain = sampling.processors([("test", name, 0) for name in names])
    rows = logits.expand(len(names), -1)
    return torch.stack([chain(NO_TEXT, rows).argmax(-1) for _ in range(steps)])


def chi_square(tokens: torch.Tensor, chances: torch.Tensor) -> float:
    expected = chances.double() * tokens.numel()
    counts = torch.bincount(tokens.flatten(), minlength=len(chances)).double()
    assert not counts[chances == 0].any()
    return float(((counts - expected) ** 2 / expected)[chances > 0].sum())


def test_draws_follow_the_softmax_over_samples_and_along_an_answer() -> None:
    critical = 20.515  # chi-square, 5 degrees of freedom, 99.9 %
    for temperature in (1.0, 0.5, 2.0):
        chances = (LOGITS / temperature).softmax(-1)
        over_samples = draw(Sampling(temperature=temperature), [str(name) for name in range(10_000)])
        assert chi_square(over_samples, chances) < critical
        along = draw(Sampling(temperature=temperature), ["one", "two"], steps=5_000)
        assert chi_square(along[:, 0], chances) < critical
        assert chi_square(along[:, 1], chances) < critical


def test_rows_are_independent_of_each_other_and_of_earlier_tokens() -> None:
    tokens = draw(Sampling(temperature=1.0), ["one", "two"], steps=10_000).numpy()
    for first, second in ((tokens[:, 0], tokens[:, 1]), (tokens[:-1, 0], tokens[1:, 0])):
        joint = np.histogram2d(first, second, bins=6, range=((-0.5, 5.5),) * 2)[0]
        expected = np.outer(joint.sum(1), joint.sum(0)) / joint.sum()
        assert ((joint - expected) ** 2 / expected).sum() < 52.62  # chi-square, 25 degrees of freedom, 99.9 %


def test_only_the_likeliest_tokens_are_drawn_where_that_is_asked_for() -> None:
    names = [str(name) for name in range(4_000)]
    two = torch.where(LOGITS >= 1.0, LOGITS, -math.inf).softmax(-1)
    assert chi_square(draw(Sampling(temperature=1.0, top_k=2), names), two) < 10.83  # 1 degree of freedom, 99.9 %
    likeliest = float(LOGITS.softmax(-1).max())
    assert set(draw(Sampling(temperature=1.0, top_p=likeliest - 0.01), names)[0].tolist()) == {1}
    everything = draw(Sampling(temperature=1.0, top_p=1.0), names)
    assert torch.equal(everything, draw(Sampling(temperature=1.0), names))


def test_a_row_meets_the_same_noise_whatever_else_is_in_its_batch() -> None:
    sampling = Sampling(temperature=1.0)
    together = draw(sampling, ["a", "b", "c"], steps=50)
    assert torch.equal(draw(sampling, ["c", "a"], steps=50), together[:, [2, 0]])
    assert len({tuple(column) for column in together.T.tolist()}) == 3


def test_seed_split_and_draw_name_the_stream() -> None:
    def tokens(seed: int, row: tuple[str, str, int]) -> tuple[int, ...]:
        chain = Sampling(temperature=1.0, seed=seed).processors([row])
        return tuple(int(chain(NO_TEXT, LOGITS[None]).argmax()) for _ in range(40))

    first = tokens(1, ("test", "a", 0))
    assert first == tokens(1, ("test", "a", 0))
    others = [tokens(2, ("test", "a", 0)), tokens(1, ("retention", "a", 0)), tokens(1, ("test", "a", 1))]
    assert Counter([first, *others]).most_common(1)[0][1] == 1
    assert tokens(1 + 2**32, ("test", "a", 0)) != first  # no bit of a seed is lost


def test_towards_temperature_0_the_largest_logit_wins() -> None:
    close = torch.tensor([0.0, 1e-3, -1.0])
    assert set(draw(Sampling(temperature=1e-5), [str(name) for name in range(500)], logits=close)[0].tolist()) == {1}


SETTINGS: dict[str, Any] = {
    "batch_size": 16,
    "max_new_tokens": 64,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repeats": 1,
}
CONFIG = SETTINGS | {"seed": 1, "choices": None}


def test_settings_are_read_and_described() -> None:
    greedy = Decoding.of(**CONFIG)
    assert greedy == Decoding(batch_size=16, max_new_tokens=64, sampling=None, choices=None)
    assert greedy.as_dict() == {"greedy": True, "batch_size": 16, "max_new_tokens": 64}
    sampled = Decoding.of(**CONFIG | {"temperature": 0.7, "top_p": 0.9, "repeats": 5, "seed": 3})
    assert sampled.sampling == Sampling(temperature=0.7, top_p=0.9, draws=5, seed=3)
    assert sampled.as_dict() == {
        "greedy": False, "batch_size": 16, "max_new_tokens": 64, "draws": 5, "temperature": 0.7, "top_p": 0.9, "seed": 3
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repeats": 3}, r"repeats is 3, but answers are greedy.*Pass a temperature too, such as temperature=0\.7"),
        ({"top_p": 0.9}, r"top_p is 0\.9, but answers are greedy, so it has no effect"),
        ({"top_k": 5}, r"top_k is 5, but answers are greedy, so it has no effect"),
        ({"temperature": 0}, r"temperature must be a number above 0, or null for greedy answers, got 0"),
        ({"temperature": "warm"}, r"temperature must be a number above 0.*got 'warm'"),
        ({"temperature": math.inf}, r"temperature must be a number above 0.*got inf"),
        ({"temperature": 1, "top_p": 1.5}, r"top_p must be a number above 0 up to 1, or null.*got 1\.5"),
        ({"temperature": 1, "top_k": 0}, r"top_k must be a positive integer, or null.*got 0"),
        ({"temperature": 1, "repeats": True}, r"repeats must be a positive integer, got True"),
        ({"repeats": 0}, r"repeats must be a positive integer, got 0"),
        ({"max_new_tokens": 0.5}, r"max_new_tokens must be a positive integer, got 0\.5"),
        ({"temperature": 1, "seed": "x"}, r"seed must be an integer, got 'x'"),
        ({"batch_size": 0, "temperature": -1, "repeats": 0}, r"(?s)batch_size .*temperature .*repeats "),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Decoding.of(**CONFIG | settings)
