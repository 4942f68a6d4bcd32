"""Answers that grow together, a token each a step; rows come and go between the steps.

    decoder = Decoder(shelf)
    decoder.begin("xray", inputs)                        prompts of one adapter, padded on the left
    decoder.logits("xray")                               of each row's next token, (B, V)
    decoder.go_on("xray", [0, 2], tokens)                other rows leave; tokens in, the next logits out
    decoder.drop("xray")

What transformers' generation works out anew for every token follows here from the step before: a token's positions are
those of the last one plus (0, 1), its mask is the row's mask plus one. Rows of different lengths stand together because
each is padded on the left, also behind virtual tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import DynamicCache

from vglm.model.modeling import VisualGlmForConditionalGeneration, glm_layout
from vglm.serving.adapters import AdapterShelf


@dataclass
class DecodingBatch:
    """The state of some rows between two steps.

    Attributes:
        cache: Keys and values, S columns in every layer.
        mask: Which columns a row sees, shape (B, S), bool.
        positions: Of each row's last token, shape (B, 2), int64.
        logits: Of each row's next token, shape (B, V).
    """

    cache: DynamicCache
    mask: Tensor
    positions: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.mask)

    def step(self, base: VisualGlmForConditionalGeneration, tokens: Sequence[int]) -> None:
        """Give every row its next token.

        Args:
            base: The model, with the rows' adapter in it.
            tokens: One id a row.
        """
        device = self.mask.device
        self.mask = F.pad(self.mask, (0, 1), value=True)
        self.positions = self.positions + torch.tensor([0, 1], device=device)
        ids = torch.tensor(tokens, device=device)[:, None]
        embeddings = base.get_input_embeddings()(ids)
        hidden = base.model.language_model(
            inputs_embeds=embeddings,
            glm_position_ids=self.positions[..., None],
            block_ids=torch.full_like(ids, -1),
            attention_mask=_additive(self.mask, embeddings.dtype),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.logits = base.lm_head(hidden[:, -1])

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go, and columns that no row sees any more."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.positions, self.logits = self.mask[index], self.positions[index], self.logits[index]
        unseen = int(self.mask.any(0).int().argmax())
        if unseen:
            self.mask = self.mask[:, unseen:]
            self._replace(lambda states, _: states[:, :, unseen:], self)

    def join(self, other: "DecodingBatch") -> None:
        """Take in the rows of another batch of the same adapter, behind the own ones; `other` is used up."""
        width = max(self.mask.shape[1], other.mask.shape[1])
        own, more = width - self.mask.shape[1], width - other.mask.shape[1]

        def joined(states: Tensor, others: Tensor) -> Tensor:
            return torch.cat((F.pad(states, (0, 0, own, 0)), F.pad(others, (0, 0, more, 0))))

        self._replace(joined, other)
        self.mask = torch.cat((F.pad(self.mask, (own, 0)), F.pad(other.mask, (more, 0))))
        self.positions = torch.cat((self.positions, other.positions))
        self.logits = torch.cat((self.logits, other.logits))

    def _replace(self, change: Callable[[Tensor, Tensor], Tensor], other: "DecodingBatch") -> None:
        layer: Any
        beside: Any
        for layer, beside in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys, layer.values = change(layer.keys, beside.keys), change(layer.values, beside.values)


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
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    output = call(**inputs, layout_ids=ids, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    virtual = cache.get_seq_length() - ids.shape[1]
    positions, _ = glm_layout(ids, mask, base.config.text_config)
    return DecodingBatch(
        cache=cache,
        mask=F.pad(mask.bool(), (virtual, 0), value=True),
        positions=positions[..., -1],
        logits=output.logits[:, -1],
    )


class Decoder:
    """The batches that are being answered, one for each adapter in use.

    Args:
        shelf: The base and its adapters.
    """

    def __init__(self, shelf: AdapterShelf) -> None:
        self.shelf = shelf
        self.batches: dict[str, DecodingBatch] = {}

    def begin(self, name: str, inputs: Mapping[str, Tensor]) -> None:
        """Read prompts and put them behind the rows that the adapter has.

        Args:
            name: The adapter's.
            inputs: See `prefill`, on any device.
        """
        base = self.shelf.base
        with self.shelf.using(name) as call:
            batch = prefill(call, base, {key: each.to(base.device) for key, each in inputs.items()})
        if name in self.batches:
            self.batches[name].join(batch)
        else:
            self.batches[name] = batch

    def logits(self, name: str) -> Tensor:
        """Of the next token of each row, shape (B, V)."""
        return self.batches[name].logits

    def go_on(self, name: str, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Keep some rows and give each its next token.

        Args:
            name: The adapter's.
            rows: Places of the rows that stay, in order.
            tokens: One id for each of them.
        """
        batch = self.batches[name]
        if len(rows) < len(batch):
            batch.keep(rows)
        with self.shelf.using(name):
            batch.step(self.shelf.base, tokens)

    def drop(self, name: str) -> None:
        """Let all rows of an adapter go."""
        self.batches.pop(name, None)

    def close(self) -> None:
        """There are no more questions."""


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask in the form that every attention function takes, shape (B, 1, 1, S): 0 where a column is seen."""
    hidden = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return hidden.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None]
