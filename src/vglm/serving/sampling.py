"""Sampling: the settings of a request, and the processing that turns rows of logits into the next tokens.

    samplers = [Sampler(Sampling(temperature=0.0), tokenizer), Sampler(Sampling(seed=1), tokenizer)]
    draw(samplers, logits)                               the next token id of each row, [17, 4159]

The defaults are those of the original's demos, the order is transformers' own: repetition penalty, barred tokens, top
k, temperature, top p. Rows are drawn one by one, with NumPy: of a row only `top_k` numbers are left after its first
step, and a call of PyTorch takes longer than the work on them.

In a batch the last bits of logits differ. So that this changes no answer, tokens race: each has a random number of its
own, exponentially distributed, by the row's seed, the step and its id, and the token with the largest probability
divided by that number is taken. It is each token with its probability, as by any other way to draw, but rounding
decides only where the first two of the race are equal in nearly all their digits, or where the winner is at the edge of
top k or top p. Where one random number is looked up in the cumulative probabilities, rounding decides beside each of
their steps, which are as many as there are tokens.

Source: defaults and order of THUDM/VisualGLM-6B:cli_demo.py, model/chat.py and
THUDM/SwissArmyTransformer:sat/generation/sampling_strategies/base_strategy.py. There the penalty divides negative
logits too, which makes a repeated unlikely token likelier; transformers' multiplies them. The numbers of the race are
those of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vglm.errors import ConfigError
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.text.prompt import Language

MAX_STOPS = 4
LONGEST_STOP = 500  # characters: each token's end is compared with each beginning of it
COLDEST = 1e-6
"""Temperature below which the likeliest token is taken."""
_MOST = 1e30
"""Size of a score that a repetition penalty leaves at most: its differences by any temperature are float32 numbers."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXES = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT, _DROPPED = np.uint64(31), np.uint64(12)  # what is left are the digits of a float64
_NO_IDS = np.zeros(0, np.int64)

Scores = NDArray[np.float32]
Ids = NDArray[np.int64]
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The settings of one request.

    Attributes:
        max_length: Most tokens of prompt and answer together.
        max_new_tokens: Most tokens of the answer; None: as many as `max_length` leaves.
        min_new_tokens: Minimum number of tokens of the answer.
        temperature: 0 for greedy answers, else above 0 and at most 5.
        top_p: Only from the likeliest tokens that together have this probability; above 0, at most 1.
        top_k: Sample only from this many of the likeliest tokens; 0: from all.
        repetition_penalty: What a token's logit is divided by (multiplied, below 0) once the answer holds it; 1: none.
        seed: Of the draws; None draws one at random.
        stop: Texts before whose first appearance the answer ends, at most 4 of at most 500 characters.
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
                and all(isinstance(stop, str) and 0 < len(stop) <= LONGEST_STOP for stop in self.stop),
                f"at most {MAX_STOPS} texts of 1 to {LONGEST_STOP} characters",
            ),
            "bars_chinese": (isinstance(self.bars_chinese, bool), "true or false"),
        }
        for name, (is_right, expected) in checks.items():
            if not is_right:
                raise ConfigError(f"{name} must be {expected}, got {_shown(getattr(self, name))}.")


SETTINGS = tuple(field.name for field in fields(Sampling))


class Sampler:
    """What one answer is drawn by: its settings, the tokens that it has, its random numbers.

    Args:
        settings: The request's.
        tokenizer: Whose ids they are.
    """

    def __init__(self, settings: Sampling, tokenizer: VisualGlmTokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.count = 0
        self.seen: dict[int, None] = {}  # in the order of their first appearance
        seed = secrets.randbits(63) if settings.seed is None else settings.seed
        self.random = np.random.PCG64(seed % 2**64)  # a number for every step in which the token is drawn

    def take(self, token: int) -> None:
        """Count a token as part of the answer."""
        self.count += 1
        self.seen[token] = None

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.settings.temperature < COLDEST or self.settings.top_k == 1

    @property
    def reach(self) -> int:
        """How many of the highest scores it chooses by; 0: all."""
        return 1 if self.is_greedy else self.settings.top_k

    @property
    def may_end(self) -> bool:
        """Whether the answer has as many tokens as it has to."""
        return self.count >= self.settings.min_new_tokens

    def barred(self) -> Ids:
        """Ids that may not come next."""
        ids = chinese_tokens(self.tokenizer) if self.settings.bars_chinese else _NO_IDS
        return ids if self.may_end else np.append(ids, self.tokenizer.eos_token_id)

    def draw(self, scores: Scores, ids: Ids | None = None) -> int:
        """Choose by the scores of tokens.

        Args:
            scores: Shape (N,), float32, at least the `top_k` highest of a vocabulary.
            ids: Of these tokens; None: all, in their order.

        Returns:
            The id of the token.
        """
        how = self.settings
        if self.is_greedy:
            index = int(scores.argmax())
            return index if ids is None else int(ids[index])
        if 0 < how.top_k < len(scores):
            ordered = scores.copy()
            ordered.partition(-how.top_k)
            near = (scores >= ordered[-how.top_k]).nonzero()[0]
            scores, ids = scores[near], near if ids is None else ids[near]
        ids = np.arange(len(scores)) if ids is None else ids
        shares = np.exp((scores - scores.max()) / how.temperature)
        if how.top_p < 1:
            near = (shares >= _least_share(shares, how.top_p)).nonzero()[0]
            shares, ids = shares[near], ids[near]
        return int(ids[(shares / waits(self.random.random_raw(), ids)).argmax()])


def draw(samplers: Sequence[Sampler], logits: Tensor, *, moves_few: bool | None = None) -> list[int]:
    """Choose the next token of every row.

    Args:
        samplers: Of the rows; there may be none.
        logits: Of the next tokens, shape (B, V), all finite.
        moves_few: Whether only the scores that a row may choose by leave the logits' device; None: those of a GPU.

    Returns:
        B ids.
    """
    if not samplers:
        return []
    scores, ids = _weighed(samplers, logits), None
    if (logits.device.type != "cpu") if moves_few is None else moves_few:
        scores, ids = _nearest(samplers, scores)
    rows = zip(samplers, scores.cpu().numpy(), repeat(None) if ids is None else ids.cpu().numpy(), strict=False)
    return [sampler.draw(row, row_ids) for sampler, row, row_ids in rows]


def _nearest(samplers: Sequence[Sampler], scores: Tensor) -> tuple[Tensor, Tensor | None]:
    """Scores and their ids, in the order of ids, shape (B, N): of each row at least all that it may choose by.

    That is more than its `reach` where several scores are equal to the last of them. No ids where it is all scores.
    """
    reaches, size = [sampler.reach for sampler in samplers], scores.shape[1]
    if not all(reaches) or max(reaches) >= size:
        return scores, None
    top = scores.topk(max(reaches))
    least = top.values.gather(1, torch.tensor(reaches, device=scores.device)[:, None] - 1)
    count = int((scores >= least).sum(1).max())
    ids = (top if count <= max(reaches) else scores.topk(count)).indices.sort(-1).values
    return scores.gather(1, ids), ids


def _weighed(samplers: Sequence[Sampler], logits: Tensor) -> Tensor:
    """Scores by which rows choose: what an answer has already is less likely, what is barred impossible."""
    scores, size = logits.float().clone(), logits.shape[1]
    flat, seen, penalties, barred = scores.view(-1), [], [], []
    for row, sampler in enumerate(samplers):
        begin, count = row * size, len(sampler.seen)
        if (penalty := sampler.settings.repetition_penalty) != 1 and count:
            seen.append(begin + np.fromiter(sampler.seen, np.int64, count))
            penalties.append(np.full(count, penalty))
        if (ids := sampler.barred()).size:
            barred.append(begin + ids)
    if seen:
        indices, by = (torch.from_numpy(np.concatenate(parts)).to(scores.device) for parts in (seen, penalties))
        values = flat[indices]
        flat[indices] = torch.where(values < 0, values * by, values / by).clamp(-_MOST, _MOST).float()
    if barred:
        flat[torch.from_numpy(np.concatenate(barred)).to(scores.device)] = -torch.inf
    return scores


def waits(key: int, ids: Ids) -> NDArray[np.float64]:
    """Random numbers of tokens, exponentially distributed with mean 1.

    Args:
        key: Of 64 bits, of this step of this row.
        ids: Of the tokens; the number of one does not depend on the others.
    """
    state = ids.astype(np.uint64) * _GAMMA + np.uint64(key)
    for shift, factor in _MIXES:
        state ^= state >> shift
        state *= factor
    state ^= state >> _LAST_SHIFT
    numbers: NDArray[np.float64] = -np.log(((state >> _DROPPED) + 0.5) * 2.0**-52)  # of what is above 0 and below 1
    return numbers


def _least_share(shares: Scores, top_p: float) -> np.float32:
    """The smallest of the largest shares that together are that part of all; at least one."""
    ordered = np.sort(shares)[::-1]
    line = ordered.cumsum(dtype=np.float64)
    least: np.float32 = ordered[min(int(line.searchsorted(top_p * line[-1])), len(line) - 1)]
    return least


@lru_cache(maxsize=4)
def chinese_tokens(tokenizer: VisualGlmTokenizer) -> Ids:
    """Ids of all pieces that hold a Chinese character or its punctuation, or a byte that begins one in UTF-8."""
    ids = []
    for index in range(len(tokenizer)):
        piece = tokenizer.sp_model.id_to_piece(index)
        byte = _BYTE_PIECE.fullmatch(piece)
        if (byte and is_chinese_byte(int(byte[1], 16))) or (not byte and any(map(is_chinese, piece))):
            ids.append(index)
    return np.array(ids, np.int64)


def language_of(text: str) -> Language:
    """English where a text has no Chinese character."""
    return "zh" if any(map(is_chinese, text)) else "en"


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
