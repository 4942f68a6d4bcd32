"""Turn samples into one batch for the model, in training and in generation alike.

A batch of B rows, the longest of L tokens, of which N rows have a picture of height H and width W:

| key | shape | dtype | content |
|---|---|---|---|
| `input_ids` | (B, L) | int64 | prompt with image slots, `[gMASK] <sop>`; then answer, `<eop>` if wanted; left-padded |
| `attention_mask` | (B, L) | int64 | 1 on tokens, 0 on padding |
| `layout_ids` | (B, L) | int64 | `input_ids` again, for methods that replace those by embeddings; with answers |
| `pixel_values` | (N, 3, H, W) | float32 | the pictures in row order; no such key if N is 0 |
| `image_features` | (N, image tokens, Q-Former width) | as cached | in place of `pixel_values` where cached |
| `labels` | (B, L) | int64 | -100 on prompt and padding, the token id from `<sop>` on; only with answers |
| `segment_ids` | (B, L) | int64 | only if packed: B rows of several samples, right-padded; see `vglm.data.packing` |
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from vglm.data.packing import pack
from vglm.data.sample import Sample
from vglm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor


class Processor(Protocol):
    """The processor interface that the collator uses; `VisualGlmProcessor` implements it."""

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """Take `images`, `text`, `history`, `language`, `answer` as lists of one length; return a mapping of tensors.

        Of `max_length`, and of `image_features` in place of `images`, it hears only where they are used.
        """


class Features(Protocol):
    """The interface of a store of image features; `FeatureCache` implements it."""

    def __getitem__(self, sample: Sample) -> "Tensor":
        """The features of a sample's picture, shape (image tokens, Q-Former width)."""


class Collator:
    """Opens the pictures of some samples, or looks up their features, and has a processor build the batch.

    Args:
        processor: Called once for each batch.
        with_answers: Whether the answers belong to the batch, as in training. Without them it ends where the model is
            to begin to write.
        features: Features of the pictures, which then are not opened.
        max_length: Most tokens of a sample: longer histories lose their oldest turns, then answers their end. None
            leaves everything as it is. `TrainingSequences` counts beforehand what that cuts.
        packing: Pack the samples of a batch into rows of at most this many tokens. None gives each a row of its own.

    Raises:
        ConfigError: `packing` is not a positive integer, or there are no answers.
    """

    def __init__(
        self,
        processor: Processor,
        *,
        with_answers: bool = True,
        features: Features | None = None,
        max_length: int | None = None,
        packing: int | None = None,
    ) -> None:
        if packing is not None and (not isinstance(packing, int) or packing < 1):
            raise ConfigError(f"packing must be a positive integer, the tokens of a row, or null; got {packing!r}.")
        if packing is not None and not with_answers:
            raise ConfigError("packing is for training: an answer is written at the end of a row of its own.")
        self.processor = processor
        self.with_answers = with_answers
        self.features = features
        self.max_length = max_length
        self.packing = packing

    def __call__(self, samples: Sequence[Sample]) -> "dict[str, Tensor]":
        """Build a batch.

        Args:
            samples: Rows of the batch, at least one, with and without pictures as they come.

        Returns:
            The keys described above.

        Raises:
            DataError: A picture cannot be opened; the message names the sample.
            ValueError: A question does not fit into `max_length`, which `TrainingSequences` finds beforehand.
        """
        inputs: dict[str, Any] = {"images": None}
        if self.features is None:
            inputs["images"] = [open_image_of(sample) for sample in samples]
        else:
            inputs["image_features"] = [None if sample.image is None else self.features[sample] for sample in samples]
        if self.max_length is not None:
            inputs["max_length"] = self.max_length
        batch = dict(
            self.processor(
                **inputs,
                text=[sample.question for sample in samples],
                history=[sample.history for sample in samples],
                language=[sample.language for sample in samples],
                answer=[sample.answer for sample in samples] if self.with_answers else None,
                return_tensors="pt",
                padding=True,
            )
        )
        if self.packing is not None:
            batch = pack(batch, [sample.image is not None for sample in samples], self.packing)
        return {**batch, "layout_ids": batch["input_ids"]} if self.with_answers else batch


def open_image_of(sample: Sample) -> Image.Image | None:
    """As `Sample.open_image`, with the sample's id in the message of an error."""
    try:
        return sample.open_image()
    except DataError as error:
        raise DataError(f"{sample.id}: {error}") from error
