"""How answers are decoded: greedily, or drawn at random in a way that gives the same draws anywhere.

    read_decoding(cfg)                       {"batch_size": 16, "max_new_tokens": 64, "sampling": None, …}    greedy
    Sampling(temperature=0.7, draws=5)       five answers to every question, drawn from softmax(logits / 0.7)

A draw is made by the Gumbel-max trick: the token with the largest logit + noise, where the noise of each token is
-log E with E exponential, is a draw from the softmax of the logits. So greedy generation does the drawing, and all that
is random is the noise. Every answer takes its noise from a stream of its own, named by (seed, split, sample id, draw),
one row of noise for each token that is written. Hence a draw depends neither on the batch size and the other rows of
its batch nor on what was answered before a kill, nor on the number of processes; and both arms of a comparison meet the
same noise at the same place, which pairs their draws as well as their samples.

Source: Gumbel 1954, "Statistical theory of extreme values"; Maddison, Tarlow & Minka 2014, "A* sampling", section 2.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
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

Row = tuple[str, str, int]
"""Which answer it is: (split, sample id, draw)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How answers are drawn at random.

    Attributes:
        temperature: Divides the logits; above 0. Towards 0 the answers become the greedy ones.
        top_p: Only the likeliest tokens that together have this probability can be drawn; all where None.
        top_k: Only so many of the likeliest tokens can be drawn; all where None.
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
            problems.append(f"draws must be a positive integer, got {self.draws!r}.")
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
        """JSON-able, without what was not asked for."""
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


def read_decoding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of generation, as `vglm.evaluation.predict.arms.answer` takes them.

    Args:
        config: Of evaluate.py: `batch_size`, `max_new_tokens`, `draws`, `temperature`, `top_p`, `top_k`, `seed`,
            `choices`.

    Returns:
        `batch_size`, `max_new_tokens`, `sampling`, a `Sampling` or None for greedy answers, and `choices`, the answers
        to score by likelihood (`vglm.evaluation.predict.likelihoods`).

    Raises:
        ConfigError: A value cannot work, or others need a temperature; all of them are named.
    """
    problems = [
        f"{name} must be a positive integer, got {config[name]!r}."
        for name in ("batch_size", "max_new_tokens")
        if not _is_positive_integer(config[name])
    ]
    sampling = None
    if config["temperature"] is None:
        if not _is_positive_integer(config["draws"]):
            problems.append(f"draws must be a positive integer, got {config['draws']!r}.")
        elif config["draws"] > 1:
            problems.append(
                f"draws is {config['draws']}, but answers are greedy, so all of them would be the same. Pass a"
                " temperature too, such as temperature=0.7, or leave draws out."
            )
        problems += [
            f"{name} is {config[name]!r}, but answers are greedy, so it has no effect. Pass a temperature too, such as"
            f" temperature=0.7, or leave {name} out."
            for name in ("top_p", "top_k")
            if config[name] is not None
        ]
    else:
        try:
            names = ("temperature", "top_p", "top_k", "draws", "seed")
            sampling = Sampling(**{name: config[name] for name in names})
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    choices = config["choices"]
    return {
        "batch_size": config["batch_size"],
        "max_new_tokens": config["max_new_tokens"],
        "sampling": sampling,
        "choices": choices if choices is None or isinstance(choices, str) else list(choices),
    }


def describe_decoding(decoding: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of generation as `evaluation.json` shows them.

    Args:
        decoding: As `read_decoding` gives them.
    """
    sampling: Sampling | None = decoding.get("sampling")
    plain = {name: value for name, value in decoding.items() if name != "sampling" and value is not None}
    return {"greedy": sampling is None, **plain, **({} if sampling is None else sampling.as_dict())}


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
