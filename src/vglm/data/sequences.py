"""Training sequences: one for every answer of every dialogue, none longer than the limit.

A dialogue of three turns becomes three sequences. Each ends in one of its answers, with the turns before it as the
history in the prompt:

    问：q1 答：|a1          问：q1 答：a1 问：q2 答：|a2          问：q1 答：a1 问：q2 答：a2 问：q3 答：|a3

That is exactly what the model sees at inference. One sequence for all three would be another task: the tokens of a
prompt see each other in both directions, so an answer within the prompt cannot be learned there.

    sequences = TrainingSequences(splits.train, processor, max_length=2048)
    print(sequences.statistics)       400 dialogues with 1,150 answers to learn; 3 histories lost their 5 oldest turns
"""

import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from vglm.data.arrow_arrays import numbers_of
from vglm.data.sample import Sample, SampleSequence, Turn
from vglm.data.table import columns_of, rows_of
from vglm.errors import ConfigError, DataError
from vglm.text.prompt import Language

_SHOWN = 5
_SPECIAL_TOKENS = 6  # [gMASK] <sop> <eop>, and a leading blank for each of the three texts
_AROUND_A_TURN = len("问：\n答：\n".encode())
_MAY_EXPAND = re.compile("[^\\x00-\\x7f\\u3000-\\u303f\\u4e00-\\u9fff\\uff01-\\uff5e]")
"""Characters outside those that Unicode's compatibility form, which a tokenizer may apply, never makes longer."""
_MAY_EXPAND_IN_TABLES = r"[^\x00-\x7f\x{3000}-\x{303f}\x{4e00}-\x{9fff}\x{ff01}-\x{ff5e}]"
"""The same as Arrow writes it."""


class Measuring(Protocol):
    """The processor interface used here; `VisualGlmProcessor` implements it."""

    num_image_tokens: int

    def measure_cut(
        self, text: str, *, history: Any, has_image: bool, language: Language, answer: str, max_length: int
    ) -> Any:
        """Turns and tokens that a sample loses to fit; ValueError where its question alone does not."""


@dataclass(frozen=True)
class SequenceStatistics:
    """What came of the dialogues.

    Attributes:
        dialogues: Samples read.
        sequences: Answers to learn.
        shortened: Sequences whose history lost its oldest turns.
        turns_left_out: Those turns.
        cut_answers: Sequences whose answer lost its end, because it did not fit even without history.
        tokens_cut: Tokens of those ends.
    """

    dialogues: int
    sequences: int
    shortened: int = 0
    turns_left_out: int = 0
    cut_answers: int = 0
    tokens_cut: int = 0

    def __str__(self) -> str:
        parts = [f"{self.dialogues:,} dialogues with {self.sequences:,} answers to learn"]
        if self.dialogues == self.sequences:
            parts = [f"{self.sequences:,} answers to learn"]
        if self.shortened:
            parts.append(f"{self.shortened:,} histories lost their {self.turns_left_out:,} oldest turns")
        if self.cut_answers:
            parts.append(f"{self.cut_answers:,} answers lost their last {self.tokens_cut:,} tokens")
        return "; ".join(parts)


class TrainingSequences(SampleSequence):
    """The answers to learn, as samples: a view that reads its samples on access.

    Nothing is tokenized for sequences that cannot be too long: a text has no more tokens than bytes.

    Args:
        samples: The dialogues. A collection that makes its samples on demand may offer `dialogues()`, which gives
            (turns, has image, language) of each in order without its picture, and `longest`, a number of bytes that no
            dialogue reaches: with `answers="last"` nothing is measured then.
        processor: Measures sequences that may be too long.
        max_length: Most tokens of a sequence. The collator needs the same limit: it does the cutting.
        answers: Whether to learn `every` answer of a dialogue or its `last` one only.

    Raises:
        ConfigError: `max_length` is not a positive integer, or `answers` neither of the two.
        DataError: Questions that leave no room for an answer, all of them counted, the first five named.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        processor: Measuring,
        *,
        max_length: int,
        answers: Literal["every", "last"] = "every",
    ) -> None:
        if not isinstance(max_length, int) or max_length < 1:
            raise ConfigError(f"max_length must be a positive integer, got {max_length!r}.")
        if answers not in ("every", "last"):
            raise ConfigError(f"answers must be every or last, got {answers!r}.")
        self.samples = samples
        self.max_length = max_length
        fixed = processor.num_image_tokens + _SPECIAL_TOKENS + len("<img></img>")
        longest = getattr(samples, "longest", None)
        if answers == "last" and longest is not None and fixed + longest <= max_length:
            self._owners = np.arange(len(samples), dtype=np.int32)
            self._ends = self.lengths = np.full(len(samples), fixed + longest, np.int32)
            self.statistics = SequenceStatistics(len(samples), len(samples))
            return
        owners, ends, lengths = array("i"), array("i"), array("i")
        cuts: list[tuple[int, int]] = []
        problems: list[tuple[int, ValueError]] = []

        def cut(number: int, turns: Sequence[Turn], has_image: bool, language: Language) -> None:
            *before, turn = turns
            history = [(earlier.question, earlier.answer) for earlier in before]
            about: dict[str, Any] = {"history": history, "has_image": has_image, "language": language}
            try:
                cuts.append(processor.measure_cut(turn.question, **about, answer=turn.answer, max_length=max_length))
            except ValueError as error:
                problems.append((number, error))

        sizes = _bytes_of_single_turns(samples)
        if sizes is not None:
            sizes += fixed + _AROUND_A_TURN
            for number in np.flatnonzero(sizes > max_length).tolist():
                sample = samples[number]
                cut(number, sample.turns, sample.image is not None, sample.language)
            for column, values in ((owners, np.arange(len(sizes))), (ends, np.ones(len(sizes)))):
                column.frombytes(values.astype(np.int32).tobytes())
            lengths.frombytes(np.minimum(sizes, max_length).astype(np.int32).tobytes())
        rows = _dialogues(samples) if sizes is None else ()
        for number, (turns, has_image, language) in enumerate(
            tqdm(rows, total=len(samples), desc="measuring dialogues", unit="sample", delay=2)
        ):
            length = fixed
            for end, turn in enumerate(turns, start=1):
                length += _most_tokens(turn.question) + _most_tokens(turn.answer) + _AROUND_A_TURN
                if answers == "last" and end < len(turns):
                    continue
                owners.append(number)
                ends.append(end)
                lengths.append(min(length, max_length))
                if length > max_length:
                    cut(number, turns[:end], has_image, language)
        if problems:
            raise DataError(_explain(problems, samples))
        self._owners = np.asarray(owners, np.int32)
        self._ends = np.asarray(ends, np.int32)
        self.lengths = np.asarray(lengths, np.int32)
        """Shape (len(self),), int32: what orders sequences by length, a bound in tokens."""
        self.statistics = SequenceStatistics(
            dialogues=len(samples),
            sequences=len(owners),
            shortened=sum(turns > 0 for turns, _ in cuts),
            turns_left_out=sum(turns for turns, _ in cuts),
            cut_answers=sum(tokens > 0 for _, tokens in cuts),
            tokens_cut=sum(tokens for _, tokens in cuts),
        )

    def __len__(self) -> int:
        return len(self._owners)

    def sample(self, index: int) -> Sample:
        """The sample up to one of its answers, under the sample's own id."""
        sample, end = self.samples[int(self._owners[index])], int(self._ends[index])
        return sample if end >= len(sample.turns) else replace(sample, turns=sample.turns[:end])


def _dialogues(samples: Sequence[Sample]) -> Iterable[tuple[Sequence[Turn], bool, Language]]:
    cheap = getattr(samples, "dialogues", None)
    if cheap is not None:
        yield from cheap()
        return
    if (stored := columns_of(samples, ("questions", "answers", "image", "language"))) is not None:
        for questions, answers, images, languages in stored:
            turns = [tuple(map(Turn, *pair)) for pair in zip(questions, answers, strict=True)]
            yield from zip(turns, (image is not None for image in images), languages, strict=True)
        return
    for sample in samples:
        yield sample.turns, sample.image is not None, sample.language


def _bytes_of_single_turns(samples: Sequence[Sample]) -> NDArray[np.int64] | None:
    """The bytes of question and answer of samples that lie in a table, shape (n,); None where one has several turns."""
    if (stored := rows_of(samples, ("questions", "answers"))) is None:
        return None
    import pyarrow.compute as pc  # which takes time to load, and is for tables alone

    sums = [np.zeros(0, np.int64)]
    for rows in stored:
        sums.append(np.zeros(len(rows), np.int64))
        for turns in rows.columns:
            if (np.diff(numbers_of(turns.offsets)) != 1).any():
                return None
            texts = turns.flatten()
            sizes = numbers_of(pc.binary_length(texts)).astype(np.int64)
            for index in pc.indices_nonzero(pc.match_substring_regex(texts, _MAY_EXPAND_IN_TABLES)).to_pylist():
                sizes[index] = _most_tokens(texts[index].as_py())
            sums[-1] += sizes
    return np.concatenate(sums)


def _most_tokens(text: str) -> int:
    """A bound of the tokens of a text: its bytes, each of which is a token at worst."""
    if _MAY_EXPAND.search(text):
        text = unicodedata.normalize("NFKC", text)
    return len(text.encode("utf-8", "replace"))


def _explain(problems: Sequence[tuple[int, ValueError]], samples: Sequence[Sample]) -> str:
    shown = "".join(
        f"\n  {samples[number].id}: {str(error).removeprefix('processor: ')}" for number, error in problems[:_SHOWN]
    )
    more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{len(problems)} of the sequences to learn do not fit into max_length:{shown}{more}"
