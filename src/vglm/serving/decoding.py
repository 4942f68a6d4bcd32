"""Continuous batching: answers are decoded together, one token a step; rows join and leave between steps.

    decoder = Decoder(shelf)
    decoder.begin("xray", inputs, [0, 0, 1])             prompts of one adapter, padded on the left, for three answers
    decoder.logits("xray")                               of each row's next token, (B, V)
    decoder.go_on("xray", [0, 2], tokens)                other rows leave; tokens in, the next logits out
    decoder.drop("xray")

The step itself is `vglm.model.decoding`'s. A picture that is asked about again, by the same or another adapter, is not
looked at again: what the base's Q-Former made of it is kept for a while. Adapters that change how pictures are seen
look themselves.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vglm.model.decoding import DecodingBatch, prefill, room_for
from vglm.serving.adapters import BASE, AdapterShelf

PICTURE_BYTES = 2**25
"""Memory for what was made of pictures: the last 680 of VisualGLM-6B in half precision."""


class Decoder:
    """The batches that are being answered, one for each adapter in use.

    Args:
        shelf: The base and its adapters.
    """

    def __init__(self, shelf: AdapterShelf) -> None:
        self.shelf = shelf
        self.batches: dict[str, DecodingBatch] = {}
        self._pictures: dict[bytes, Tensor] = {}  # by the hash of their pixels; the one used last is the last

    def begin(self, name: str, inputs: Mapping[str, Tensor], rows: Sequence[int]) -> None:
        """Read prompts and put them behind the rows that the adapter has.

        Args:
            name: The adapter's.
            inputs: See `prefill`, on any device.
            rows: The prompt of each row; several rows may have the same.
        """
        base, inputs = self.shelf.base, dict(inputs)
        if "pixel_values" in inputs and not self.shelf.changes_vision(name):
            inputs["image_features"] = self._look(inputs.pop("pixel_values"))
        with self.shelf.using(name) as call:
            batch = prefill(call, base, {key: tensor.to(base.device) for key, tensor in inputs.items()})
        if list(rows) != list(range(len(batch))):
            batch.repeat(rows)
        if name in self.batches:
            self.batches[name].join(batch)
        else:
            self.batches[name] = batch

    def _look(self, pixels: Tensor) -> Tensor:
        """The base's image features of pictures, those of `get_image_features`."""
        raw = pixels.detach().cpu().contiguous().view(torch.uint8).numpy()  # NumPy has no bfloat16
        keys = [hashlib.sha256(picture).digest() for picture in raw]
        fresh = {key: picture for key, picture in zip(keys, pixels, strict=True) if key not in self._pictures}
        if fresh:
            base = self.shelf.base
            with self.shelf.using(BASE):
                features = base.get_image_features(torch.stack(list(fresh.values())).to(base.device))
            self._pictures |= zip(fresh, [feature.clone() for feature in features], strict=True)
        seen = {key: self._pictures.pop(key) for key in dict.fromkeys(keys)}
        self._pictures |= seen
        while len(self._pictures) * next(iter(seen.values())).nbytes > PICTURE_BYTES:
            del self._pictures[next(iter(self._pictures))]
        return torch.stack([seen[key] for key in keys])

    def logits(self, name: str) -> Tensor:
        """Of the next token of each row, shape (B, V)."""
        return self.batches[name].logits

    def go_on(self, name: str, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Keep some rows and give each its next token.

        Args:
            name: The adapter's.
            rows: Indices of the rows that stay, in order.
            tokens: One id for each of them.
        """
        batch = self.batches[name]
        if len(rows) < len(batch):
            batch.keep(rows)
        with self.shelf.using(name):
            batch.step(self.shelf.base, tokens)

    def room(self, name: str, rows: int, columns: int) -> int:
        """Tokens that an adapter's batch comes to have room for, in use or not.

        Args:
            name: The adapter's.
            rows: How many it is to have.
            columns: Of the longest prompt with its answer.
        """
        some, columns = room_for(rows, columns, on_gpu=self.shelf.base.device.type == "cuda")
        batch = self.batches.get(name)
        slots, width = (0, 0) if batch is None else (batch.slots, batch.columns)
        return max(some, slots) * max(columns, width)

    def drop(self, name: str) -> None:
        """Let all rows of an adapter go."""
        self.batches.pop(name, None)

    def close(self) -> None:
        """There are no more questions."""
