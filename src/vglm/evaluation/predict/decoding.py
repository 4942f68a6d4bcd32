"""How answers are decoded: greedily, or drawn at random in a way that gives the same draws anywhere.

    Decoding(max_new_tokens=32)                   greedy
    Decoding.of(temperature=0.7, repeats=5)         five answers to every question, drawn from softmax(logits / 0.7)

A draw is made by the Gumbel-max trick: the token with the largest logit + noise, where the noise of each token is
-log E with E exponential, is a draw from the softmax of the logits. So greedy generation makes the draw, and only the
noise is random. Every answer takes its noise from its own stream, named by (seed, split, sample id, draw), one row of
noise for each generated token. So a draw does not depend on the batch size, the other rows of its batch, the number of
processes, or on whether the evaluation was interrupted. Both arms of a comparison get the same noise at the same
position, which pairs their draws as well as their samples.

Source: Gumbel 1954, "Statistical theory of extreme values"; Maddison, Tarlow & Minka 2014, "A* sampling", section 2.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vglm.errors import ConfigError
from vglm.evaluation.predictions import Choices

Row = tuple[str, str, int]
"""Which answer it is: (split, sample id, draw)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn at random.

    Attributes:
        temperature: Divides the logits; above 0. Towards 0 the answers become the greedy ones.
        top_p: Only the likeliest tokens that together have this probability can be drawn; all where None.
        top_k: Sample only from this many of the likeliest tokens; from all if None.
        draws: Answers to each question.
        seed: Of all draws.

    Raises:
        ConfigError: A value that cannot work; all of them are named.
    """

    temperature: float
    top_p: float | None = None
    top_k: int | None = None
    draws: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        problems = []
        if not _is_number(self.temperature) or not 0 < self.temperature < float("inf"):
            problems.append(
                f"temperature must be a number above 0, or null for greedy answers, got {self.temperature!r}."
            )
        if self.top_p is not None and not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            problems.append(f"top_p must be a number above 0 up to 1, or null for all tokens, got {self.top_p!r}.")
        if self.top_k is not None and not _is_positive_integer(self.top_k):
            problems.append(f"top_k must be a positive integer, or null for all tokens, got {self.top_k!r}.")
        if not _is_positive_integer(self.draws):
            problems.append(f"repeats must be a positive integer, got {self.draws!r}.")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            problems.append(f"seed must be an integer, got {self.seed!r}.")
        if problems:
            raise ConfigError("\n".join(problems))

    def processors(self, rows: Sequence[Row]) -> LogitsProcessorList:
        """What draws the tokens of one batch, for a greedy `generate`.

        Args:
            rows: Which answers the rows of the batch are.

        Returns:
            transformers' own warpers, and the noise after them.
        """
        chain = LogitsProcessorList([TemperatureLogitsWarper(float(self.temperature))])
        if self.top_k is not None:
            chain.append(TopKLogitsWarper(self.top_k))
        if self.top_p is not None and self.top_p < 1:
            chain.append(TopPLogitsWarper(float(self.top_p)))
        chain.append(GumbelNoise([_stream(self.seed, row) for row in rows]))
        return chain

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without settings that were not given."""
        values = {"draws": self.draws, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return {name: value for name, value in {**values, "seed": self.seed}.items() if value is not None}


class GumbelNoise(LogitsProcessor):
    """Adds noise to logits, so that their largest is a draw from their softmax.

    Args:
        streams: The random numbers of each row; each call takes as many from every one as there are tokens.
    """

    def __init__(self, streams: Sequence[np.random.Generator]) -> None:
        self.streams = streams

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Add the noise of the next token.

        Args:
            input_ids: Shape (B, L); plays no role.
            scores: Logits, shape (B, V); -inf for what cannot be drawn.

        Returns:
            Shape (B, V), of the type of `scores`.
        """
        # float64, for float32 has too few values near 0, where the largest noise comes from
        waits = torch.from_numpy(np.stack([stream.standard_exponential(scores.shape[-1]) for stream in self.streams]))
        waits = waits.float().clamp_min(torch.finfo(torch.float32).tiny).to(scores.device)
        return scores - waits.log().to(scores.dtype)


def _stream(seed: int, row: Row) -> np.random.Generator:
    """An answer's random numbers.

    They are numpy's, not a `torch.Generator`'s, because of whose seed the CPU takes 32 bits only, so that among 100,000
    answers some would share a stream; and a row of noise for a vocabulary of 130,528 takes 2 ms instead of 10.
    """
    digest = hashlib.sha256(json.dumps([seed, *row], ensure_ascii=False).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How questions are answered, the same in all arms of a comparison.

    Attributes:
        batch_size: Answers per call of the model; None: as many as fit into memory, up to 64.
        max_new_tokens: Longest answer, in tokens.
        sampling: How answers are drawn at random, and how many to each question; None for greedy ones.
        choices: Answers that are scored by likelihood too, see `vglm.evaluation.predict.likelihoods`.

    Raises:
        ConfigError: A value that cannot work.
    """

    batch_size: int | None = None
    max_new_tokens: int = 64
    sampling: Sampling | None = None
    choices: Choices = None

    def __post_init__(self) -> None:
        if problems := _size_problems(self.batch_size, self.max_new_tokens):
            raise ConfigError("\n".join(problems))

    @classmethod
    def of(
        cls,
        *,
        batch_size: int | None = None,
        max_new_tokens: int = 64,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repeats: int = 1,
        seed: int = 1,
        choices: Choices = None,
    ) -> "Decoding":
        """Put plain settings together, see `Decoding` and `Sampling`; greedy without a temperature.

        Raises:
            ConfigError: A value cannot work, or others need a temperature; all of them are named.
        """
        problems, sampling = _size_problems(batch_size, max_new_tokens), None
        if temperature is None:
            problems += _greedy_problems(repeats, top_p=top_p, top_k=top_k)
        else:
            try:
                sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, draws=repeats, seed=seed)
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        choices = choices if choices is None or isinstance(choices, str) else tuple(choices)
        return cls(batch_size=batch_size, max_new_tokens=max_new_tokens, sampling=sampling, choices=choices)

    @property
    def draws(self) -> int:
        """Answers to each question."""
        return 1 if self.sampling is None else self.sampling.draws

    def as_dict(self) -> dict[str, Any]:
        """As `evaluation.json` holds it, without settings that were not given."""
        sampling = {} if self.sampling is None else self.sampling.as_dict()
        choices: dict[str, Any] = {} if self.choices is None else {"choices": self.choices}
        if not isinstance(self.choices, str | None):
            choices = {"choices": list(self.choices)}
        rows = {} if self.batch_size is None else {"batch_size": self.batch_size}
        return {
            "greedy": self.sampling is None, **rows, "max_new_tokens": self.max_new_tokens, **choices, **sampling
        }  # fmt: skip


def _size_problems(batch_size: object, max_new_tokens: object) -> list[str]:
    sizes = {"max_new_tokens": max_new_tokens} if batch_size is None else {
        "batch_size": batch_size, "max_new_tokens": max_new_tokens
    }  # fmt: skip
    return [
        f"{name} must be a positive integer, got {size!r}."
        for name, size in sizes.items()
        if not _is_positive_integer(size)
    ]


def _greedy_problems(repeats: object, **needing_temperature: object) -> list[str]:
    """What makes no sense without a temperature."""
    problems = []
    if not _is_positive_integer(repeats):
        problems.append(f"repeats must be a positive integer, got {repeats!r}.")
    elif repeats != 1:
        problems.append(
            f"repeats is {repeats}, but answers are greedy, so all of them would be the same. Pass a temperature too,"
            " such as temperature=0.7, or leave repeats out."
        )
    return problems + [
        f"{name} is {value!r}, but answers are greedy, so it has no effect. Pass a temperature too, such as"
        f" temperature=0.7, or leave {name} out."
        for name, value in needing_temperature.items()
        if value is not None
    ]


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
