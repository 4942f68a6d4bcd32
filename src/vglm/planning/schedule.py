"""The number of steps and their time: operations from the rehearsal, rates from measurements.

An H100 was measured on 2026-11-26 (7.8B, random weights, torch 2.11, transformers 5.23): LoRA, 8 x 512 tokens with
cached pictures, 0.349 s a step, and the same with checkpointing at 24% of the ceiling of 767 TFLOP/s. By the operations
that the rehearsal counts for these two steps (100 and 148 TFLOP) it computes at 287 and 294 TFLOP/s, 37 to 38% of its
ceiling. Where a step is too small for that, launching its kernels takes the time: QLoRA with checkpointing, 1 x 320
tokens, 0.31 s for the 4,639 operations that the rehearsal counts.
"""

import math
from dataclasses import dataclass

import torch

from vglm.model.loading import default_device
from vglm.planning.budget import Step
from vglm.planning.machine import Machine, matmul_rate, operation_seconds

H100 = "one H100, measured 2026-11-26 with torch 2.11"
H100_RATE = 287e12
"""Operations a second of a training step."""
H100_SHARE = 0.374
"""The same as a share of the rate of a matrix product of 8192 x 8192 in bfloat16, 767e12."""
H100_KERNEL_SECONDS = 0.31 / 4639
FORWARD_SHARE = (20.9e-3 / 930) / H100_KERNEL_SECONDS
"""What of that an operation without gradients takes: a token of 930 operations took 20.9 ms, likewise measured."""


@dataclass(frozen=True)
class Rate:
    """How fast something computes.

    Attributes:
        flops: Operations of matrix products a second.
        kernel_seconds: What an operation takes at least.
        source: Where both come from.
    """

    flops: float
    kernel_seconds: float
    source: str

    def seconds(self, step: Step, share: float = 1.0, *, with_gradients: bool = True) -> float:
        """The time of a step, or of the given share of its matrix products: a GPU launches while it computes."""
        launches = step.operations * self.kernel_seconds * (1 if with_gradients else FORWARD_SHARE)
        return max(share * step.flops / self.flops, launches)


def rate_of(machine: Machine, dtype: torch.dtype) -> Rate:
    """The rate of a machine: measured if it is this one, an H100's if it is not."""
    if not machine.is_here:
        return Rate(H100_RATE, H100_KERNEL_SECONDS, f"{H100}; another GPU by its own rate")
    device = default_device()
    kernel = operation_seconds(device)
    if not machine.is_gpu:
        flops = matmul_rate(device, torch.float32)
        source = f"{flops / 1e9:.0f} GFLOP/s in a small product and {kernel * 1e6:.0f} us an operation, just measured"
        return Rate(flops, kernel, f"{source}; at best")
    flops = matmul_rate(device, dtype if dtype != torch.float32 else torch.bfloat16)
    source = (
        f"{flops / 1e12:.0f} TFLOP/s in a product, just measured, of which a step reaches {H100_SHARE:.0%} ({H100})"
    )
    return Rate(H100_SHARE * flops, kernel, source)


@dataclass(frozen=True)
class Schedule:
    """The course of a training.

    Attributes:
        steps: Optimizer steps.
        epochs: How often each sequence is learned from.
        tokens: Of a step, padding included, in all processes.
        step_seconds: Of one step, on average.
        share: What part of the tokens of the longest rows a batch has on average.
        encoding_seconds: For the features of all pictures, where they are cached and not cached yet.
        rate: What the times follow from.
    """

    steps: int
    epochs: float
    tokens: float
    step_seconds: float
    share: float
    encoding_seconds: float
    rate: Rate

    @property
    def seconds(self) -> float:
        """Of all steps and the encoding of pictures."""
        return self.steps * self.step_seconds + self.encoding_seconds


def count_steps(sequences: int, batch: int, max_steps: int, epochs: float) -> tuple[int, float]:
    """Optimizer steps, and how often each sequence is learned from.

    Args:
        sequences: To learn from.
        batch: Of them in a step.
        max_steps: As in `TrainingArguments`; not above 0 for none given.
        epochs: Likewise `num_train_epochs`.
    """
    an_epoch = math.ceil(sequences / batch)
    if max_steps > 0:
        return max_steps, max_steps / an_epoch
    return math.ceil(epochs * an_epoch), epochs
