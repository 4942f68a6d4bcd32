"""Continuous batching: answers are decoded together, one token a step; rows join and leave between steps.

    decoder = Decoder(shelf)
    decoder.begin("xray", inputs)                        prompts of one adapter, padded on the left
    decoder.logits("xray")                               of each row's next token, (B, V)
    decoder.go_on("xray", [0, 2], tokens)                other rows leave; tokens in, the next logits out
    decoder.drop("xray")

The step itself is `vglm.model.decoding`'s.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vglm.model.decoding import DecodingBatch, prefill, room_for
from vglm.serving.adapters import AdapterShelf


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
            batch = prefill(call, base, {key: tensor.to(base.device) for key, tensor in inputs.items()})
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
