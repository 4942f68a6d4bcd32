"""How one answer is drawn: the settings of a request, and what turns a row of logits into the next token.

    settings = Sampling(temperature=0.0)                 greedy
    sampler = Sampler(settings, tokenizer, prompt_length=57)
    sampler(tokens, logits)                              the next token id

The defaults are those of the original's demos. The chain is transformers' own: repetition penalty, barred tokens,
temperature, top k, top p. Every row has a random generator of its own, so an answer with a seed does not depend on
which others it shares a batch with.

Source: defaults and order of THUDM/VisualGLM-6B:cli_demo.py, model/chat.py and
THUDM/SwissArmyTransformer:sat/generation/sampling_strategies/base_strategy.py. There the penalty divides negative
logits too, which makes a repeated unlikely token likelier; transformers' multiplies them.
"""

import re
import secrets
import unicodedata
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.logits_process import SuppressTokensLogitsProcessor

from vglm.errors import ConfigError
from vglm.model.tokenization import VisualGlmTokenizer

MAX_STOPS = 4
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The settings of one request.

    Attributes:
        max_length: Most tokens of prompt and answer together.
        max_new_tokens: Most tokens of the answer; None: as many as `max_length` leaves.
        min_new_tokens: The answer does not end before it has so many tokens.
        temperature: 0 for greedy answers, else above 0 and at most 5.
        top_p: Only from the likeliest tokens that together have this probability; above 0, at most 1.
        top_k: Only from so many of the likeliest tokens; 0: from all.
        repetition_penalty: What a token's logit is divided by (multiplied, below 0) once the answer holds it; 1: none.
        seed: Of the draws; None draws one at random.
        stop: Texts before whose first appearance the answer ends, at most 4.
        bars_chinese: Whether the answer may hold no Chinese characters.

    Raises:
        ConfigError: A value is not possible; the message begins with its name.
    """

    max_length: int = 2048
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float = 0.8
    top_p: float = 0.4
    top_k: int = 100
    repetition_penalty: float = 1.2
    seed: int | None = None
    stop: tuple[str, ...] = ()
    bars_chinese: bool = False

    def __post_init__(self) -> None:
        checks = {
            "max_length": (_is_whole(self.max_length, 1, 2**31), "a whole number above 0"),
            "max_new_tokens": (
                self.max_new_tokens is None or _is_whole(self.max_new_tokens, 1, 2**31),
                "a whole number above 0",
            ),
            "min_new_tokens": (_is_whole(self.min_new_tokens, 0, 2**31), "a whole number, 0 or more"),
            "temperature": (_is_number(self.temperature, 0, 5), "a number from 0 to 5"),
            "top_p": (_is_number(self.top_p, 0, 1) and self.top_p > 0, "a number above 0, at most 1"),
            "top_k": (_is_whole(self.top_k, 0, 2**31), "a whole number, 0 or more"),
            "repetition_penalty": (
                _is_number(self.repetition_penalty, 0, 10) and self.repetition_penalty > 0,
                "a number above 0, at most 10",
            ),
            "seed": (self.seed is None or _is_whole(self.seed, -(2**63), 2**63 - 1), "a whole number of 64 bits"),
            "stop": (
                isinstance(self.stop, tuple)
                and len(self.stop) <= MAX_STOPS
                and all(isinstance(each, str) and each for each in self.stop),
                f"at most {MAX_STOPS} texts, none of them empty",
            ),
            "bars_chinese": (isinstance(self.bars_chinese, bool), "true or false"),
        }
        for name, (is_right, expected) in checks.items():
            if not is_right:
                raise ConfigError(f"{name} must be {expected}, got {_shown(getattr(self, name))}.")


SETTINGS = tuple(field.name for field in fields(Sampling))


class Sampler:
    """Draws the tokens of one answer.

    Args:
        settings: The request's.
        tokenizer: Whose ids they are.
        prompt_length: Tokens of the prompt, which the penalty leaves alone.
        device: Of the logits.
    """

    def __init__(
        self, settings: Sampling, tokenizer: VisualGlmTokenizer, prompt_length: int, device: torch.device
    ) -> None:
        self.is_greedy = settings.temperature == 0 or settings.top_k == 1
        chain: list[Any] = []
        if settings.repetition_penalty != 1:
            chain.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty, prompt_length))
        if settings.bars_chinese:
            chain.append(SuppressTokensLogitsProcessor(chinese_tokens(tokenizer), device=str(device)))
        if settings.min_new_tokens:
            eos = tokenizer.eos_token_id
            chain.append(
                MinNewTokensLengthLogitsProcessor(prompt_length, settings.min_new_tokens, eos, device=str(device))
            )
        if not self.is_greedy:
            chain.append(TemperatureLogitsWarper(float(settings.temperature)))
            chain += [TopKLogitsWarper(settings.top_k)] if settings.top_k else []
            chain += [TopPLogitsWarper(settings.top_p)] if settings.top_p < 1 else []
        self.processors = chain
        seed = secrets.randbits(63) if settings.seed is None else settings.seed
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, tokens: Tensor, logits: Tensor) -> int:
        """Choose the next token.

        Args:
            tokens: Prompt and answer so far, shape (L,), int64.
            logits: Of the next token, shape (V,), all finite.
        """
        rows = logits[None].float().clone()
        for processor in self.processors:
            rows = processor(tokens[None], rows)
        scores = rows[0]
        if self.is_greedy:
            return int(scores.argmax())
        likely = torch.isfinite(scores).nonzero()[:, 0]
        order = scores[likely].argsort(descending=True, stable=True)
        shares = scores[likely][order].softmax(-1).double().cumsum(-1).cpu()
        # one number a token, whatever is left to choose from, so that rounding elsewhere does not shift the stream
        drawn = torch.rand(1, generator=self.generator, dtype=torch.float64) * shares[-1]
        place = min(int(torch.searchsorted(shares, drawn, right=True)), len(shares) - 1)
        return int(likely[order[place]])


@lru_cache(maxsize=4)
def chinese_tokens(tokenizer: VisualGlmTokenizer) -> list[int]:
    """Ids of all pieces that hold a Chinese character or its punctuation, or a byte that begins one in UTF-8."""
    found = []
    for index in range(len(tokenizer)):
        piece = tokenizer.sp_model.id_to_piece(index)
        byte = _BYTE_PIECE.fullmatch(piece)
        if (byte and is_chinese_byte(int(byte[1], 16))) or (not byte and any(map(is_chinese, piece))):
            found.append(index)
    return found


def is_chinese(character: str) -> bool:
    """Whether a character is Chinese writing: an ideograph, its punctuation, a full-width form or bopomofo."""
    code = ord(character)
    if 0x3000 <= code <= 0x303F or 0x3100 <= code <= 0x312F or 0xFF00 <= code <= 0xFFEF:
        return True
    return "CJK" in unicodedata.name(character, "")


def is_chinese_byte(byte: int) -> bool:
    """Whether a byte begins the UTF-8 form of a character that `is_chinese` may accept: U+2E80 and above."""
    return byte == 0xE2 or 0xE3 <= byte <= 0xE9 or byte in (0xEF, 0xF0)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
