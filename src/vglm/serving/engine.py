"""One model, any number of adapters, many questions at once: the engine behind the terminal, the web page and the API.

    engine = Engine(model, processor, adapters={"xray": Path("outputs/xray/lora/<time>/adapter")})
    answer = engine.ask(Question("描述这张图片。", image=picture), adapter="xray", sampling=Sampling(seed=1))
    for piece in answer: print(piece, end="")            or: async for piece in answer
    answer.text, answer.finish_reason                    ("肺野清晰。", "stop")
    answer.cancel()

A dedicated thread owns the model. Questions to the same adapter share one batch; rows finish, are cancelled and join
between two steps. Batches of different adapters alternate step by step, so that base and tuned model answer at the same
time.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vglm.errors import AdapterError, BusyError, ConfigError, WorkbenchError, brief
from vglm.model.decoding import MEMORY_SHARE, free_bytes
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.processing import AnswerDecoder, VisualGlmProcessor
from vglm.serving.adapters import BASE, AdapterShelf
from vglm.serving.decoding import Decoder
from vglm.serving.sampling import Sampler, Sampling, draw
from vglm.serving.streaming import GrowingText
from vglm.text.prompt import Language

FinishReason = Literal["stop", "length", "cancelled", "error"]

SHOWN_EVERY = 0.02
"""Seconds between two looks at what answers gained: people see no more often, and a look takes as long as a token."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        text: The question.
        image: The picture it is about; None for a dialogue without one.
        history: Earlier (question, answer) pairs of the same dialogue, oldest first.
        language: Of the prompt.
    """

    text: str
    image: Image.Image | None = None
    history: Sequence[tuple[str, str]] = ()
    language: Language = "zh"


class Answer:
    """An answer that is on its way; iterate over it for its pieces, in a thread or in a coroutine.

    Attributes:
        text: What was shown so far, at its end all of it.
        token_ids: What was generated so far, without the token that ended it; up to `SHOWN_EVERY` ahead of the text.
        prompt_tokens: Tokens of the question with its history and image slots.
        finish_reason: `stop` (the model ended it, or a stop text came), `length`, `cancelled`, `error`; None before.
        error: Why there is no more of it.
        seconds_to_first_token: From the request on; None before.
        seconds: Likewise to the end.
    """

    def __init__(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.text = ""
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None
        self.seconds_to_first_token: float | None = None
        self.seconds: float | None = None
        self.is_cancelled = False
        self._submitted = time.monotonic()
        self._changed = threading.Condition()
        self._listeners: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def cancel(self) -> None:
        """Cancel it; it ends before its next token."""
        self.is_cancelled = True

    def wait(self, timeout_seconds: float | None = None) -> "Answer":
        """Wait for the end.

        Raises:
            WorkbenchError: The answer failed.
            TimeoutError: It is not there in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.finish_reason is not None, timeout_seconds):
                raise TimeoutError(f"no answer within {timeout_seconds} s")
        self._check()
        return self

    def __iter__(self) -> Iterator[str]:
        shown = 0
        while True:
            with self._changed:
                while len(self.text) == shown and self.finish_reason is None:
                    self._changed.wait()
                piece, is_done = self.text[shown:], self.finish_reason is not None
            shown += len(piece)
            if piece:
                yield piece
            if is_done:
                self._check()
                return

    async def __aiter__(self) -> AsyncIterator[str]:
        async for _, piece in pieces_of([self]):
            if piece is not None:
                yield piece

    def _after(self, shown: int) -> tuple[str, bool]:
        """The text after the given number of characters, and whether the answer is complete."""
        is_done = self.finish_reason is not None  # read first: the text is whole by then
        return self.text[shown:], is_done

    def _check(self) -> None:
        if self.finish_reason == "error":
            raise WorkbenchError(f"the model could not answer: {self.error}.")

    def _grow(self, piece: str) -> None:
        """Take what the engine has for it."""
        with self._changed:
            if self.seconds_to_first_token is None:
                self.seconds_to_first_token = time.monotonic() - self._submitted
            self.text += piece
            self._changed.notify_all()

    def _finish(self, reason: FinishReason, piece: str = "", error: str | None = None) -> None:
        with self._changed:
            self.text += piece
            self.seconds = time.monotonic() - self._submitted
            self.error, self.finish_reason = error, reason
            self._changed.notify_all()


def _tell(answers: Sequence[Answer]) -> None:
    """Wake the coroutines that listen to some answers, each loop once."""
    news: dict[asyncio.AbstractEventLoop, list[asyncio.Event]] = {}
    for answer in answers:
        for loop, event in list(answer._listeners):
            news.setdefault(loop, []).append(event)
    for loop, events in news.items():
        with suppress(RuntimeError):  # the loop is closed: the reader is gone
            loop.call_soon_threadsafe(_set_all, events)


def _set_all(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        event.set()


async def pieces_of(answers: Sequence[Answer]) -> AsyncIterator[tuple[int, str | None]]:
    """The pieces of several answers as they come.

    Args:
        answers: Of one engine or of several.

    Yields:
        Which answer it is, and a piece of it; None at its end.

    Raises:
        WorkbenchError: One of them failed.
    """
    listener = (_, news) = (asyncio.get_running_loop(), asyncio.Event())
    shown = dict.fromkeys(range(len(answers)), 0)  # of unfinished rows
    for answer in answers:
        answer._listeners.append(listener)
    try:
        while True:
            news.clear()
            for index in list(shown):
                piece, is_done = answers[index]._after(shown[index])
                shown[index] += len(piece)
                if piece:
                    yield index, piece
                if is_done:
                    del shown[index]
                    answers[index]._check()
                    yield index, None
            if not shown:
                return
            await news.wait()
    finally:
        for answer in answers:
            answer._listeners.remove(listener)


@dataclass
class _Row:
    """A question that waits or is being answered; `virtual` counts the adapter's own tokens before its prompt."""

    adapter: str
    answer: Answer
    inputs: Mapping[str, Tensor]
    limit: int
    sampler: Sampler
    text: GrowingText
    virtual: int = 0

    @property
    def reserved(self) -> int:
        """Columns of the cache that it may come to take: the last token of an answer is not read."""
        return self.virtual + self.answer.prompt_tokens + self.limit - 1


@dataclass(frozen=True)
class Load:
    """How busy an engine is.

    Attributes:
        waiting: Questions that were not begun.
        running: Questions that are being answered.
        answered: Questions that ended, for whatever reason.
        generated_tokens: Tokens of answers so far.
        steps: Steps so far; tokens by steps is the mean batch.
    """

    waiting: int
    running: int
    answered: int
    generated_tokens: int
    steps: int


class Engine:
    """Answers questions with one base model and its adapters.

    Args:
        model: The base model, without adapters; the engine alone uses it from now on.
        processor: Its processor.
        adapters: Name -> folder of a peft adapter, see `AdapterShelf.add`.
        max_rows: Most questions that are answered at once.
        max_waiting: Most questions that wait beside them.
        max_cached_tokens: Most tokens whose keys and values there is room for, prompts and answers at their longest,
            with what growing tensors take; None: as many as fit into half of the memory that is free.
        adapter_check: Whether to refuse an adapter that was made for another base.
        decoder: Makes what runs the model.

    Raises:
        AdapterError: An adapter cannot be read, or does not fit.
    """

    def __init__(
        self,
        model: VisualGlmForConditionalGeneration,
        processor: VisualGlmProcessor,
        *,
        adapters: Mapping[str, Path] | None = None,
        max_rows: int = 32,
        max_waiting: int = 256,
        max_cached_tokens: int | None = None,
        adapter_check: bool = True,
        decoder: Callable[[AdapterShelf], Decoder] = Decoder,
    ) -> None:
        self.base, self.processor = model.eval(), processor
        self._texts, self._last = AnswerDecoder(processor), processor.tokenizer.eos_token_id
        self.shelf = AdapterShelf(model)
        for name, folder in (adapters or {}).items():
            self.shelf.add(name, folder, is_checked=adapter_check)
        self.max_rows, self.max_waiting = max_rows, max_waiting
        self.max_cached_tokens = _fitting_tokens(model) if max_cached_tokens is None else max_cached_tokens
        self._waiting: deque[_Row] = deque()
        self._rows: dict[str, list[_Row]] = {}  # by adapter, in the order of the decoder's
        self._decoder = decoder(self.shelf)
        self._changed = threading.Condition()
        self._is_closing = False
        self._answered = self._generated = self._steps = 0
        self._news: list[Answer] = []  # that grew or ended, of which nobody was told
        self._is_look, self._next_look = True, 0.0  # whether this step shows what answers gained; the clock's time
        self._thread = threading.Thread(target=self._run, name="vglm-engine", daemon=True)
        self._thread.start()

    @property
    def names(self) -> list[str]:
        """What can answer: the base, then the adapters."""
        return self.shelf.names

    @property
    def max_length(self) -> int:
        """Most tokens of a prompt with its answer that the model was made for."""
        return int(self.base.config.text_config.max_position_embeddings)

    def ask(self, question: Question, *, adapter: str = BASE, sampling: Sampling | None = None) -> Answer:
        """Put a question.

        Args:
            question: The question.
            adapter: One of `names`.
            sampling: How the answer is drawn; by default as the original's demos do.

        Returns:
            The answer, which comes in pieces.

        Raises:
            AdapterError: There is no such adapter.
            BusyError: Too many questions wait.
            ConfigError: The question leaves no room for an answer.
        """
        return self.ask_all(question, adapter=adapter, samplings=[sampling or Sampling()])[0]

    def ask_all(self, question: Question, *, adapter: str = BASE, samplings: Sequence[Sampling]) -> list[Answer]:
        """Put a question that is to have several answers; its prompt is read once.

        Args:
            question: The question.
            adapter: One of `names`.
            samplings: How each answer is drawn.

        Returns:
            The answers.

        Raises:
            AdapterError: There is no such adapter.
            BusyError: Too many questions wait, each answer counted; if none waits, any number of answers is taken.
            ConfigError: The question leaves no room for an answer.
        """
        if adapter not in self.names:
            raise AdapterError(f"there is no adapter {adapter!r}; there are {', '.join(self.names)}.")
        inputs = self.processor(
            images=[question.image],
            text=[question.text],
            history=[list(question.history)],
            language=question.language,
            return_tensors="pt",
        )
        rows = [self._row(adapter, inputs, sampling) for sampling in samplings]
        with self._changed:
            if self._is_closing:
                raise BusyError("the server is shutting down and takes no more questions.")
            waiting = len(self._waiting)
            if waiting + (len(rows) if waiting else 1) > self.max_waiting:  # several answers may be more than may wait
                beside = f" and {len(rows)} answers are asked for" if len(rows) > 1 else ""
                raise BusyError(f"{waiting} questions wait already{beside}; at most {self.max_waiting} may. Try again.")
            self._waiting += rows
            self._changed.notify_all()
        return [row.answer for row in rows]

    def _row(self, adapter: str, inputs: Mapping[str, Tensor], sampling: Sampling) -> "_Row":
        length, virtual = inputs["input_ids"].shape[1], self.shelf.virtual_tokens(adapter)
        whole = min(sampling.max_length, self.max_length, self.max_cached_tokens)
        left = whole - virtual - length
        if left < 1:
            beside = f" and the adapter {virtual} before it" if virtual else ""
            raise ConfigError(
                f"the question takes {length} tokens with its history{beside}, and at most {whole} of question and"
                " answer together are possible. Shorten it, or leave older turns out."
            )
        return _Row(
            adapter=adapter,
            answer=Answer(length),
            inputs=inputs,
            limit=min(left, sampling.max_new_tokens or left),
            sampler=Sampler(sampling, self.processor.tokenizer),
            text=GrowingText(self._texts, sampling.stop),
            virtual=virtual,
        )

    @property
    def load(self) -> Load:
        """How busy the engine is."""
        running = sum(map(len, list(self._rows.values())))
        return Load(len(self._waiting), running, self._answered, self._generated, self._steps)

    @property
    def is_alive(self) -> bool:
        """Whether questions are taken and answered."""
        return self._thread.is_alive() and not self._is_closing

    def close(self, *, cancel: bool = False) -> None:
        """Answer the submitted questions, accept no more, and end.

        Args:
            cancel: Whether to end running answers at once instead.
        """
        with self._changed:
            self._is_closing = True
            if cancel:
                for row in (*self._waiting, *chain(*list(self._rows.values()))):
                    row.answer.cancel()
            self._changed.notify_all()
        self._thread.join()

    # --- in the engine's thread ---------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._rows or self._is_closing)
                if self._is_closing and not self._waiting and not self._rows:
                    self._decoder.close()
                    return
            self._admit()
            now = time.monotonic()
            self._is_look = now >= self._next_look
            if self._is_look:
                self._next_look = now + SHOWN_EVERY
            for name in list(self._rows):
                self._guarded(self._rows[name], self._advance, name)
            self._spread()

    def _spread(self) -> None:
        """Tell who listens what is new."""
        _tell(self._news)
        self._news.clear()

    def _admit(self) -> None:
        """Start waiting questions while there is room, first come, first served."""
        begun: dict[str, list[_Row]] = {}
        with self._changed:
            while self._waiting and len(beside := [*chain(*self._rows.values(), *begun.values())]) < self.max_rows:
                row = self._waiting[0]
                if beside and self._room([*beside, row]) > self.max_cached_tokens:
                    break
                self._waiting.popleft()
                if row.answer.is_cancelled:
                    self._end(row, "cancelled")
                    continue
                begun.setdefault(row.adapter, []).append(row)
        if begun:  # reading prompts takes longer than a step
            for rows in list(self._rows.values()):
                self._guarded(rows, self._show, *rows)
            self._spread()
        for name, new in begun.items():
            self._guarded(new, self._begin, name, new)

    def _room(self, rows: Sequence[_Row]) -> int:
        """Tokens that the batches of these rows come to have room for, and one batch's outgrown tensors beside them."""
        groups: dict[str, list[_Row]] = {}
        for row in rows:
            groups.setdefault(row.adapter, []).append(row)
        rooms = [
            self._decoder.room(name, len(group), max(row.reserved for row in group)) for name, group in groups.items()
        ]
        return sum(rooms) + max(rooms)

    def _guarded(self, rows: list[_Row], act: Callable[..., None], *arguments: Any) -> None:
        """Let a failure end the answers that it is about, and nothing else."""
        try:
            act(*arguments)
        except Exception as error:  # whatever a kernel or a library raises
            rows = list(rows)
            for name in [name for name, group in self._rows.items() if group and group[0] in rows]:
                self._drop(name)
            for row in rows:
                if row.answer.finish_reason is None:
                    self._end(row, "error", error=brief(error))
        else:
            return
        if torch.cuda.is_available():  # only now: while it was handled, the error kept what it was raised over
            torch.cuda.empty_cache()

    def _begin(self, name: str, rows: list[_Row]) -> None:
        prompts = {id(row.inputs): row for row in rows}  # answers to one question share theirs
        indices = [list(prompts).index(id(row.inputs)) for row in rows]
        self._decoder.begin(name, _collate(list(prompts.values()), self.processor), indices)
        self._rows.setdefault(name, []).extend(rows)

    def _drop(self, name: str) -> None:
        del self._rows[name]
        self._decoder.drop(name)

    def _advance(self, name: str) -> None:
        """Choose each row's next token; unfinished rows take it as input."""
        rows = self._rows[name]
        tokens = self._choose(rows, self._decoder.logits(name))
        going = [index for index, token in enumerate(tokens) if token is not None]
        if not going:
            self._drop(name)
            return
        self._rows[name] = [rows[index] for index in going]
        self._decoder.go_on(name, going, [token for token in tokens if token is not None])
        self._steps += 1

    def _choose(self, rows: list[_Row], logits: Tensor) -> list[int | None]:
        """The next token of each row; None where its answer ended."""
        is_finite = torch.isfinite(logits.float().sum(-1)).tolist()
        going = []
        for index, (row, is_right) in enumerate(zip(rows, is_finite, strict=True)):
            if row.answer.is_cancelled:
                self._end(row, "cancelled")
            elif not is_right:
                self._end(row, "error", error="its logits are not finite numbers")
            else:
                going.append(index)
        chosen: list[int | None] = [None] * len(rows)
        scores = logits if len(going) == len(rows) else logits[going]
        drawn = draw([rows[index].sampler for index in going], scores)
        for index, token in zip(going, drawn, strict=True):
            if self._take(rows[index], token):
                chosen[index] = token
        self._spread()  # now, not after a step
        return chosen

    def _take(self, row: _Row, token: int) -> bool:
        """Add a token to an answer; whether it goes on."""
        answer = row.answer
        if token == self._last:
            self._end(row, "stop")
            return False
        self._generated += 1
        answer.token_ids.append(token)
        row.sampler.take(token)
        row.text.take(token)
        if self._is_look or row.text.stop or not answer.text:  # the first piece as soon as there is one
            self._show(row)
        if row.text.is_stopped or len(answer.token_ids) >= row.limit:
            self._end(row, "stop" if row.text.is_stopped else "length")
        return answer.finish_reason is None

    def _show(self, *rows: _Row) -> None:
        """Make the text of what answers gained."""
        for row in rows:
            piece = row.text.grow()
            row.answer._grow(piece)
            if piece:
                self._news.append(row.answer)

    def _end(self, row: _Row, reason: FinishReason, error: str | None = None) -> None:
        """End an answer; what is left of its text is shown if it ended by itself."""
        is_whole = reason in ("stop", "length") and not row.text.is_stopped
        rest = row.text.close() if is_whole else ""
        self._answered += 1
        row.answer._finish(reason, rest, error)
        self._news.append(row.answer)


def _collate(rows: Sequence[_Row], processor: VisualGlmProcessor) -> dict[str, Tensor]:
    """Put prompts into one batch, padded on the left."""
    width = max(row.answer.prompt_tokens for row in rows)
    filler = processor.tokenizer.pad_token_id

    def padded(name: str, value: int) -> Tensor:
        tensors = [row.inputs[name] for row in rows]
        return torch.cat([F.pad(tensor, (width - tensor.shape[1], 0), value=value) for tensor in tensors])

    batch = {"input_ids": padded("input_ids", filler), "attention_mask": padded("attention_mask", 0)}
    if pictures := [row.inputs["pixel_values"] for row in rows if "pixel_values" in row.inputs]:
        batch["pixel_values"] = torch.cat(pictures)
    return batch


def _fitting_tokens(model: VisualGlmForConditionalGeneration) -> int:
    """Tokens whose keys and values fit into half of the memory that is free now, at least one full context."""
    config = model.config.text_config
    token_bytes: int = 2 * config.num_hidden_layers * config.hidden_size * model.dtype.itemsize
    return max(int(MEMORY_SHARE * free_bytes(model.device)) // token_bytes, int(config.max_position_embeddings))
