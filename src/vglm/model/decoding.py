"""The decoding step that evaluation, terminal and API share: one token per row, with keys and values cached.

    batch = prefill(model, model, inputs)                prompts, padded on the left
    batch.logits                                         logits of each row's next token, (B, V)
    batch.step(model, tokens)                            a token each in, the next logits out
    batch.keep([0, 2]); batch.join(other)                rows leave and come between two steps

    model.generate(**inputs, custom_generate=decode)     the loop of an evaluation, behind transformers' own interface

transformers' loop recomputes the inputs of every token; here they follow from the step before: a token's positions are
those of the last one plus (0, 1), its mask is the row's mask and one more column. Keys, values, mask and positions are
kept in tensors whose sizes rarely change: columns are added by 64 on a CPU, by doubling on a GPU, and rows that leave
leave a gap at first. So a step on a GPU is recorded once as a CUDA graph and replayed, without synchronisation. Rows of
different lengths share a batch because all end at the same column.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from vglm.model.lean_layer import Layer, lean_layer
from vglm.model.lean_lora import lean_lora
from vglm.model.modeling import VisualGlmForConditionalGeneration, additive_mask, glm_layout, rotary_table

CHECK_EVERY = 8
"""Steps on a GPU after which the host asks whether all rows have ended."""

MOST_ROWS = 64
"""Rows beyond which a larger batch answers hardly more in a second."""

MEMORY_SHARE = 0.5
"""What part of the memory that is free may go into what answers take."""

CGROUP = Path("/sys/fs/cgroup")
"""Files in which Linux gives a container's memory limit."""

_COLUMNS_CPU, _COLUMNS_GPU = 64, 256
_LOG = logging.getLogger(__name__)


class DecodingBatch:
    """A batch of rows that are decoded together, one token per row and step.

    Args:
        keys: Of each layer, shape (rows, heads, columns, head size).
        values: Likewise.
        mask: Which columns a row sees, shape (rows, columns), bool.
        positions: Of each row's last token, shape (rows, 2), int64.
        logits: Of each row's next token, shape (rows, V).
        inverse_frequencies: As in `rotary_table`.
        end: Columns in use; all if not given.
    """

    def __init__(
        self,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        mask: Tensor,
        positions: Tensor,
        logits: Tensor,
        inverse_frequencies: tuple[float, ...],
        end: int | None = None,
    ) -> None:
        (rows, columns), device, dtype = mask.shape, mask.device, keys[0].dtype
        self.keys, self.values = list(keys), list(values)
        self._mask = additive_mask(mask, dtype)[:, None, None]
        self._positions, self._logits, self._frequencies = positions, logits, inverse_frequencies
        self._slots = list(range(rows))  # which rows of the tensors are in use
        self._end = columns if end is None else end
        self._tokens = torch.zeros((rows, 1), dtype=torch.int64, device=device)
        self._column = torch.tensor([self._end], device=device)
        all_positions = torch.arange(columns, device=device)[None, None].expand(1, 2, -1)  # no position is as large
        cos, sin = rotary_table(all_positions, inverse_frequencies, dtype)
        self._table = torch.stack((cos[0, 0, :, 0, 0], sin[0, 0, :, 0, 0]), dim=1)  # (columns, 2, head size / 2)
        self._layers: tuple[Any, list[Layer]] = (None, [])  # of a model
        self._graph: Any = None
        self._is_warm = False
        is_alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
        self._is_capturable = device.type == "cuda" and is_alone and {key.device for key in keys} == {device}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def slots(self) -> int:
        """Rows of the tensors, with the gaps that rows left."""
        return len(self._mask)

    @property
    def columns(self) -> int:
        """Columns of the tensors, in use or not."""
        return self._mask.shape[-1]

    @property
    def logits(self) -> Tensor:
        """Of each row's next token, shape (B, V)."""
        return self._logits if self._is_in_order else self._logits[self._index()]

    def step(self, base: VisualGlmForConditionalGeneration, tokens: Sequence[int] | Tensor) -> None:
        """Give every row its next token.

        Args:
            base: The model, with the rows' adapter in it.
            tokens: One id a row.
        """
        if self._end == self._mask.shape[-1]:
            self._lay_out([self])
        ids = torch.as_tensor(tokens, device=self._tokens.device)
        if self._is_in_order:
            self._tokens[:, 0] = ids
        else:
            self._tokens[self._index(), 0] = ids
        if self._is_capturable:
            self._run_graph(base)
        else:
            self._advance(base)
        self._end += 1

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go."""
        self._slots = [self._slots[row] for row in rows]
        spare = 4 if self._mask.device.type == "cuda" else 2  # a change of size costs a new graph there
        if 0 < spare * len(self) <= len(self._mask):
            self._lay_out([self])

    def repeat(self, rows: Sequence[int]) -> None:
        """Stand for these rows, some of them more than once."""
        self._slots = [self._slots[row] for row in rows]
        self._lay_out([self])

    def join(self, other: "DecodingBatch") -> None:
        """Take in the rows of another batch of the same adapter, behind the own ones; `other` is used up."""
        free = [slot for slot in range(len(self._mask)) if slot not in set(self._slots)]
        if len(free) >= len(other) and other._end <= self._end:
            self._copy_rows(other, free[: len(other)], other._first_column())
            self._slots += free[: len(other)]
        else:
            self._lay_out([self, other])

    # --- the step -----------------------------------------------------------------------------------------------------

    def _advance(self, base: VisualGlmForConditionalGeneration) -> None:
        """Everything of a step that the device does; all tensors stay where they are."""
        text: Any = base.model.language_model
        self._positions[:, 1] += 1
        cos, sin = self._table[self._positions][:, None, None, None].unbind(-2)
        self._mask.index_fill_(3, self._column, 0.0)
        hidden, mask = base.get_input_embeddings()(self._tokens), self._mask[..., : self._seen]
        for layer in self._layers_of(text):
            hidden = layer(hidden, (cos, sin), mask, self)
        self._logits = base.lm_head(text.final_layernorm(hidden))[:, -1]
        self._column += 1

    def _layers_of(self, text: Any) -> Sequence[Layer]:
        """The layers of a language model; on a CPU as functions, for there Python's own time is felt."""
        if self._mask.device.type != "cpu":
            layers: Sequence[Layer] = text.layers
            return layers
        if self._layers[0] is not text:
            self._layers = (text, [lean_layer(layer) for layer in text.layers])
        return self._layers[1]

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """The cache interface that attention uses: write a column, return all in use."""
        keys, values = self.keys[layer], self.values[layer]
        column, seen = self._column.to(keys.device), self._seen
        keys.index_copy_(2, column, key)
        values.index_copy_(2, column, value)
        return keys[:, :, :seen], values[:, :, :seen]

    @property
    def _seen(self) -> int:
        """Columns that attention looks at: on a GPU all there are, so that no size changes with a step."""
        return self._end + 1 if self._mask.device.type == "cpu" else self._mask.shape[-1]

    def _run_graph(self, base: VisualGlmForConditionalGeneration) -> None:
        """Run the first step in new tensors directly, record the second as a graph, then replay it."""
        if self._graph is None and not self._is_warm:
            stream = torch.cuda.Stream(self._mask.device)
            stream.wait_stream(torch.cuda.current_stream(self._mask.device))
            with torch.cuda.stream(stream):
                self._advance(base)
            torch.cuda.current_stream(self._mask.device).wait_stream(stream)
            self._is_warm = True
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    self._advance(base)
            except RuntimeError as error:
                _LOG.warning("decoding goes on without a CUDA graph: %s", str(error).splitlines()[0])
                self._is_capturable = False
                self._advance(base)
                return
            self._graph = graph
        self._graph.replay()

    # --- where rows stand ---------------------------------------------------------------------------------------------

    @property
    def _is_in_order(self) -> bool:
        """Whether the rows are those of the tensors."""
        return self._slots == list(range(len(self._mask)))

    def _index(self) -> Tensor:
        return torch.tensor(self._slots, device=self._logits.device)

    def _first_column(self) -> int:
        """The first column that a row sees."""
        return int((self._mask[self._index(), 0, 0, : self._end] == 0).any(0).int().argmax())

    def _lay_out(self, parts: Sequence["DecodingBatch"]) -> None:
        """Put the rows of batches below each other, without what no row sees, and make room for more columns."""
        first = [part._first_column() for part in parts]
        end = max(part._end - start for part, start in zip(parts, first, strict=True))
        count = sum(map(len, parts))
        rows, columns = room_for(count, end, on_gpu=self._mask.device.type == "cuda")
        shapes = [(rows, key.shape[1], columns, key.shape[3]) for key in self.keys]
        fresh = DecodingBatch(
            [key.new_zeros(shape) for key, shape in zip(self.keys, shapes, strict=True)],
            [value.new_zeros(shape) for value, shape in zip(self.values, shapes, strict=True)],
            torch.zeros((rows, columns), dtype=torch.bool, device=self._mask.device),
            self._positions.new_zeros(rows, 2),
            self._logits.new_zeros(rows, self._logits.shape[1]),
            self._frequencies,
            end,
        )
        fresh._slots = list(range(count))
        begin = 0
        for part, start in zip(parts, first, strict=True):
            fresh._copy_rows(part, range(begin, begin + len(part)), start)
            begin += len(part)
        self._take_over(fresh)

    def _copy_rows(self, other: "DecodingBatch", slots: Sequence[int], start: int) -> None:
        """Copy another batch's rows, from its column `start` on, so that they end where the own ones end."""
        into, of = torch.tensor(slots, device=self._mask.device), other._index()
        width = other._end - start
        begin = self._end - width
        for mine, theirs in zip(chain(self.keys, self.values), chain(other.keys, other.values), strict=True):
            mine[into.to(mine.device), :, :begin] = 0.0  # of another row before, which may have diverged
            mine[into.to(mine.device), :, begin : self._end] = theirs[of.to(theirs.device), :, start : other._end]
        self._mask[into] = torch.finfo(self._mask.dtype).min
        self._mask[into, :, :, begin : self._end] = other._mask[of, :, :, start : other._end]
        self._positions[into] = other._positions[of]
        self._logits[into] = other._logits[of]

    def _take_over(self, fresh: "DecodingBatch") -> None:
        """Stand where `fresh` does; in the tensors that are there, if they have its sizes and a graph knows them."""
        if self._graph is None or self._mask.shape != fresh._mask.shape:
            vars(self).update(vars(fresh))
            return
        self._slots, self._end = fresh._slots, fresh._end
        for mine, new in zip(self._tensors(), fresh._tensors(), strict=True):
            mine.copy_(new)

    def _tensors(self) -> list[Tensor]:
        return [*self.keys, *self.values, self._mask, self._positions, self._logits, self._column]


def room_for(rows: int, columns: int, *, on_gpu: bool) -> tuple[int, int]:
    """Rows and columns to allocate for this many, with room for more columns."""
    if on_gpu:
        return 1 << (rows - 1).bit_length(), max(_COLUMNS_GPU, 1 << columns.bit_length())
    return rows, (columns // _COLUMNS_CPU + 1) * _COLUMNS_CPU


def prefill(call: Any, base: VisualGlmForConditionalGeneration, inputs: Mapping[str, Tensor]) -> DecodingBatch:
    """Read prompts.

    Args:
        call: The base, or around it a `PeftModel` that brings virtual tokens.
        base: The model, with the adapter in it.
        inputs: `input_ids` and `attention_mask` (B, L), padded on the left; `pixel_values` or `image_features` for the
            rows that have image slots.

    Returns:
        The rows, each about to get the first token of its answer.
    """
    ids = inputs["input_ids"]
    output = call(**inputs, layout_ids=ids, use_cache=True, logits_to_keep=1)
    return _begun(output, base, ids, inputs["attention_mask"])


def _begun(output: Any, base: VisualGlmForConditionalGeneration, ids: Tensor, mask: Tensor | None) -> DecodingBatch:
    """The rows of prompts that a model has read."""
    layers = output.past_key_values.layers
    seen = torch.ones_like(ids) if mask is None else mask[:, -ids.shape[1] :]
    positions, _ = glm_layout(ids, seen, base.config.text_config)
    virtual = layers[0].keys.shape[2] - ids.shape[1]
    return DecodingBatch(
        [layer.keys for layer in layers],
        [layer.values for layer in layers],
        F.pad(seen.bool(), (virtual, 0), value=True),
        positions[..., -1],
        output.logits[:, -1],
        base.model.language_model.inverse_frequencies,
    )


def free_bytes(device: torch.device) -> int:
    """Memory that is free: of a GPU, or of machine and container, divided among the processes that share it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no container, or no limit
        free = min(free, int((CGROUP / "memory.max").read_text()) - _used_in_container())
    return max(free, 0) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _used_in_container() -> int:
    """Bytes that a container uses, less the files that are cached and give way."""
    facts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    return int((CGROUP / "memory.current").read_text()) - int(facts.get("inactive_file", 0))


def virtual_tokens(model: Any) -> int:
    """Tokens that a prompt adapter puts before every prompt, each with keys and values of its own.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
    """
    config: Any = getattr(model, "active_peft_config", None)
    return int(config.num_virtual_tokens) if getattr(config, "is_prompt_learning", False) else 0


def rows_that_fit(model: Any, tokens: int) -> int:
    """How many answers can be decoded together in the memory that is free now.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        tokens: Of the longest prompt with its answer; virtual tokens are added.

    Returns:
        A power of two up to `MOST_ROWS`, so that the answer seldom depends on what else the machine does.
    """
    config, itemsize = model.config, model.dtype.itemsize
    text, vision = config.text_config, config.vision_config
    on_gpu = model.device.type == "cuda"
    tokens += virtual_tokens(model)
    columns = room_for(1, tokens, on_gpu=on_gpu)[1]
    columns += columns // 2 if on_gpu else columns  # old and new tensors are in memory together
    states = (2 * text.num_hidden_layers * columns + 16 * tokens) * text.hidden_size * itemsize  # cache; activations
    scores = 2 * text.num_attention_heads * tokens**2 * 4
    patches = (vision.image_size // vision.patch_size) ** 2 * vision.hidden_size * 16 * itemsize
    logits = 4 * text.vocab_size * 4  # with the noise of a draw
    row = states + scores + patches + logits
    rows = int(MEMORY_SHARE * free_bytes(model.device)) // row
    return int(min(MOST_ROWS, 1 << max(rows, 1).bit_length() - 1))


def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: Callable[[Tensor, Tensor], Tensor],
    generation_config: Any,
    stopping_criteria: Any = None,
    **model_kwargs: Any,
) -> Tensor:
    """Greedy decoding for `generate(custom_generate=decode)`: the tokens of transformers' loop, by the step above.

    Args:
        model: A `VisualGlmForConditionalGeneration`, with an adapter in it or not.
        input_ids: Prompts padded on the left, shape (B, L), int64.
        logits_processor: Changes the logits before the largest is taken.
        generation_config: Knows the longest answer and the ids of end and padding.
        stopping_criteria: Play no role: an answer ends at an end token or at its greatest length.
        model_kwargs: What else the model takes.

    Returns:
        Prompts and answers, shape (B, L + longest answer), padded behind the end of an answer.
    """
    inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **model_kwargs)
    batch = _begun(model(**inputs, return_dict=True), model, input_ids, model_kwargs.get("attention_mask"))
    with lean_lora(model):
        return _Loop(model, batch, input_ids, logits_processor, generation_config).run()


class _Loop:
    """Greedy answers of one batch."""

    def __init__(self, model: Any, batch: DecodingBatch, input_ids: Tensor, processor: Any, config: Any) -> None:
        self.model, self.batch, self.processor = model, batch, processor
        self.prompt = input_ids.shape[1]
        self.most = config.max_length - self.prompt
        ends = config.eos_token_id
        ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        self.padding = config.pad_token_id if config.pad_token_id is not None else ends[0] if ends else 0
        device = input_ids.device
        self.ends = torch.tensor(ends, dtype=torch.int64, device=device)
        self.ids = F.pad(input_ids, (0, self.most), value=self.padding)
        self.rows = torch.arange(len(input_ids), device=device)  # of the batch, in the answers
        self.ended = torch.zeros(len(input_ids), dtype=torch.bool, device=device)  # of the batch

    def run(self) -> Tensor:
        every = 1 if self.ids.device.type == "cpu" else CHECK_EVERY
        for count in range(1, self.most + 1):
            tokens = self._choose(self.prompt + count - 1)
            running = len(self.batch) - int(self.ended.sum()) if count % every == 0 else len(self.batch)
            if not running or count == self.most:
                break
            if 2 * running <= len(self.batch) and not self.processor:  # a processor may count rows
                tokens = self._keep(tokens)
            self.batch.step(self.model, tokens)
        answers = self.ids[:, self.prompt :]
        is_end = self._is_end(answers)
        lengths = torch.where(is_end.any(1), is_end.int().argmax(1) + 1, count)
        return self.ids[:, : self.prompt + int(lengths.max())]

    def _choose(self, end: int) -> Tensor:
        """Write and return every row's next token: padding, where it has ended."""
        scores = self.batch.logits.float()
        if self.processor:
            scores = self.processor(self.ids[:, :end], scores)
        tokens = scores.argmax(-1).masked_fill_(self.ended, self.padding)
        self.ids[self.rows, end] = tokens
        self.ended |= self._is_end(tokens)
        return tokens

    def _is_end(self, tokens: Tensor) -> Tensor:
        return (tokens[..., None] == self.ends).any(-1)

    def _keep(self, tokens: Tensor) -> Tensor:
        """Let the rows go that have ended; returns the tokens of the others."""
        running = (~self.ended).nonzero()[:, 0]
        self.batch.keep(running.tolist())
        self.rows, self.ended = self.rows[running], self.ended[running]
        return tokens[running]
