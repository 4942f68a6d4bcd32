"""Find the micro-batch size that fits into memory, keeping the effective batch size of a step.

    per_device_train_batch_size=32 gradient_accumulation_steps=1  ->  8 and 4, where 8 samples fit and 16 do not

Each size is tried by a forward and a backward pass of the longest samples, with memory reserved for the optimizer's
states; no parameter is updated. The samples of a step, and its loss, stay the same.
"""

import gc
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import TrainingArguments

from vglm.data.collator import Collator
from vglm.data.sample import Sample
from vglm.errors import ConfigError
from vglm.processes import Processes
from vglm.tuning.sharing import lay_out


def fit_batch_size(
    model: Any, arguments: TrainingArguments, samples: Sequence[Sample], collate: Collator, processes: Processes
) -> None:
    """Set micro-batch and accumulation of `arguments`, whose product is kept, to the largest that fits.

    Args:
        model: As returned by `attach`.
        arguments: Of the trainer, with `auto_find_batch_size`, which is taken back: no search is left to it.
        samples: The training set; of one that does not know its `lengths`, the first samples are tried.
        collate: Makes a batch of some samples.
        processes: Which train together; they take what fits in all of them.

    Raises:
        ConfigError: Not even one sample fits, or a model in shards would have to be tried.
    """
    arguments.auto_find_batch_size = False
    if arguments.fsdp or arguments.deepspeed:
        raise ConfigError("trainer.auto_find_batch_size does not go with a model in shards. Leave it out.")
    size, accumulation = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    lengths = getattr(samples, "lengths", None)
    order = range(len(samples)) if lengths is None else lengths.argsort()[::-1].tolist()
    model.to(arguments.device)
    divisors = [index for index in range(size, 0, -1) if size % index == 0]
    for fitting in divisors:
        longest = [samples[int(order[index % len(samples)])] for index in range(fitting)]
        does_fit = _fits(model, arguments, collate(longest))
        if all(processes.gather(does_fit)):
            break
    else:
        raise ConfigError(
            "trainer.auto_find_batch_size: not even one sample fits into the memory. Use"
            " trainer.activation_checkpointing=true, model.quantization=nf4 or a smaller max_length."
        )
    arguments.per_device_train_batch_size = fitting
    arguments.gradient_accumulation_steps = accumulation * size // fitting
    if processes.is_main:
        steps = arguments.gradient_accumulation_steps
        print(f"micro-batches of {fitting}, {steps} of them a step on each device")


def _fits(model: Any, arguments: TrainingArguments, batch: Mapping[str, Any]) -> bool:
    """Whether a pass over a batch fits; leaves no gradients, and the random generators as they were."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    half = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None
    device = arguments.device.type
    if arguments.activation_checkpointing:
        model.activation_checkpointing_enable(arguments.activation_checkpointing_kwargs)
    states: list[torch.Tensor] = []
    try:
        with torch.random.fork_rng(devices=None if device == "cuda" else []):
            states = [torch.empty_like(parameter) for parameter in trained for _ in range(2)]  # as AdamW keeps them
            inputs = {name: value.to(device) for name, value in lay_out(batch, model.config).items()}
            with torch.autocast(device, half) if half else nullcontext():
                loss = model.train()(**inputs).loss
            loss.backward()
        return True
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
        return False
    finally:
        states.clear()
        for parameter in trained:
            parameter.grad = None
        gc.collect()
        clear_device_cache()
