"""Divide each batch among processes, so that the result equals that of one process with the whole batch.

    batches of 4 in one process         [0 1 2 3] [4 5 6 7] [8 9]
    batches of 2 in two processes       [0 1] [4 5] [8 9]   and   [2 3] [6 7] [- -]

The last batch of an epoch may be too small for all of them. By default accelerate fills it with samples from the
epoch's beginning, which then count twice; here a process without samples contributes nothing to that step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from vglm.data.sample import Sample
from vglm.model.configuration import VisualGlmConfig
from vglm.model.modeling import IGNORE_INDEX, check_slots, find_labels, glm_layout, image_slots, packed_layout

SAMPLE_IDS = "sample_ids"
"""Key of a batch that names its samples, for messages; no input of the model."""


class Shared(Sequence[Sample | None]):
    """A training set that has an empty entry under the index None.

    Args:
        samples: The training set.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.shared = samples

    def __len__(self) -> int:
        return len(self.shared)

    def __getitem__(self, index: Any) -> Any:
        return None if index is None else self.shared[index]


class Filling:
    """Batches as they come, then padding with empty places, so that every process has the same number of batches.

    Args:
        batches: A `torch.utils.data.BatchSampler`.
        processes: How many share its batches, in turn.
    """

    def __init__(self, batches: Any, processes: int) -> None:
        self.batches = batches
        self.processes = processes
        self.sampler = batches.sampler  # where accelerate expects it, to set the epoch
        self.batch_size: int = batches.batch_size
        self.drop_last: bool = batches.drop_last

    def __len__(self) -> int:
        count = len(self.batches)
        return count if self.drop_last else count + -count % self.processes

    def __iter__(self) -> Iterator[list[int | None]]:
        count = 0
        for count, batch in enumerate(self.batches, start=1):  # noqa: B007 - the last one is needed
            yield [*batch, *[None] * (self.batch_size - len(batch))]
        for _ in range(count, len(self)):
            yield [None] * self.batch_size


class SharedCollator:
    """Collates the samples that are not empty, and adds their ids; without any, no token counts in the loss.

    Args:
        collate: Makes a batch of at least one sample.
        samples: Of which the first one stands where there are only empty places.
        config: The model's.
    """

    def __init__(
        self, collate: Callable[[Sequence[Sample]], dict[str, Any]], samples: Shared, config: VisualGlmConfig
    ) -> None:
        self.collate = collate
        self.samples = samples
        self.config = config

    def __call__(self, samples: Sequence[Sample | None]) -> dict[str, Any]:
        """Build the batch, with `SAMPLE_IDS` in it."""
        real = [sample for sample in samples if sample is not None]
        batch = self.collate(real or [self.samples[0]])
        if not real:
            batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
        return {**lay_out(batch, self.config), SAMPLE_IDS: [sample.id for sample in real]}


def lay_out(batch: Mapping[str, Any], config: VisualGlmConfig) -> dict[str, Any]:
    """A batch with what the model would derive from it, for which an accelerator would wait for the host.

    Args:
        batch: From the collator, with labels.
        config: The model's.

    Returns:
        The batch, with a layout in place of `segment_ids` and of the `attention_mask` of packed rows; see
        `VisualGlmModel.forward`.

    Raises:
        ValueError: Images and slots differ in number.
    """
    laid = dict(batch)
    ids, segments = batch["input_ids"], laid.pop("segment_ids", None)
    if segments is None:
        positions, blocks = glm_layout(ids, batch["attention_mask"], config.text_config)
        slots = image_slots(ids, blocks, config)
    else:
        positions, blocks, slots, laid["segment_positions"] = packed_layout(ids, segments, config)
        laid.pop("attention_mask", None)
    for name in ("pixel_values", "image_features"):
        if name in batch:
            check_slots(slots, len(batch[name]), config, name)
    layout = {"glm_position_ids": positions, "block_ids": blocks, "image_mask": slots}
    return {**laid, **layout, "label_indices": find_labels(batch["labels"])}
