"""Turn samples into one batch for the model, in training and in generation alike.

A batch of B rows, the longest of L tokens, of which N rows have a picture of height H and width W:

| key | shape | dtype | content |
|---|---|---|---|
| `input_ids` | (B, L) | int64 | prompt with image slots, `[gMASK] <sop>`; then answer, `<eop>` if wanted; left-padded |
| `attention_mask` | (B, L) | int64 | 1 on tokens, 0 on padding |
| `pixel_values` | (N, 3, H, W) | float32 | the pictures in row order; no such key if N is 0 |
| `labels` | (B, L) | int64 | -100 on prompt and padding, the token id from `<sop>` on; only with answers |
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from vglm.data.images import open_image
from vglm.data.sample import Sample
from vglm.data.windowing import META_KEY
from vglm.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


class Processor(Protocol):
    """What the collator asks of a processor; `VisualGlmProcessor` answers it."""

    def __call__(self, **inputs: Any) -> Any:
        """Take `images`, `text`, `history`, `english`, `answer` as lists of one length; return a mapping of tensors."""


class Collator:
    """Opens the pictures of some samples and has a processor build the batch.

    Args:
        processor: Called once for each batch.
        with_answers: Whether the answers belong to the batch, as in training. Without them it ends where the model is
            to begin to write.
    """

    def __init__(self, processor: Processor, *, with_answers: bool = True) -> None:
        self.processor = processor
        self.with_answers = with_answers

    def __call__(self, samples: Sequence[Sample]) -> "dict[str, Tensor]":
        """Build a batch.

        Args:
            samples: Rows of the batch, at least one, with and without pictures as they come.

        Returns:
            The keys described above.

        Raises:
            DataError: A picture cannot be opened; the message names the sample.
        """
        batch = self.processor(
            images=[_open_image_of(sample) for sample in samples],
            text=[sample.question for sample in samples],
            history=[sample.history for sample in samples],
            english=[sample.english for sample in samples],
            answer=[sample.answer for sample in samples] if self.with_answers else None,
            return_tensors="pt",
            padding=True,
        )
        return dict(batch)


def _open_image_of(sample: Sample) -> Image.Image | None:
    if sample.image is None:
        return None
    try:
        return open_image(sample.image, sample.meta.get(META_KEY))
    except DataError as error:
        raise DataError(f"{sample.id}: {error}") from error
