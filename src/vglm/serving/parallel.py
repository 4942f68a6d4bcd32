"""One model in several processes, each with a part of every layer of the language model: tensor parallelism.

    torchrun --nproc_per_node 2 -m vglm chat --tensor-parallel          replaces the original's cli_demo_mp.py

The first process has the engine and serves the users. It broadcasts its batch operations to the others, which run them
on their shards of the weights; transformers sums the partial results. Only the language model's linear layers are
divided: each process holds the vision parts and the embeddings whole.
"""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers.distributed.configuration_utils import DistributedConfig

from vglm.errors import CheckpointError, ConfigError, brief
from vglm.model.loading import open_checkpoint, quiet_transformers, resolve_dtype
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.serving.adapters import AdapterShelf
from vglm.serving.decoding import Decoder

_IDLE = timedelta(days=365)
"""How long the others wait for the next question."""


def processes() -> int:
    """How many processes there are, as torchrun says.

    Raises:
        ConfigError: There is only one.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2:
        raise ConfigError(
            "--tensor-parallel divides the model among the processes that torchrun starts, and there is only one. Run"
            " torchrun --nproc_per_node 2 -m vglm ... --tensor-parallel."
        )
    return count


def load_part(
    checkpoint: Path, dtype: torch.dtype | str | None
) -> tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]:
    """Load this process's part of a model; all processes call it together.

    Args:
        checkpoint: A folder in the native layout, not quantised.
        dtype: As in `load_pretrained`.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ConfigError: It is in another layout or quantised, or its heads do not divide among the processes.
    """
    count, source = processes(), open_checkpoint(checkpoint)
    if source.layout is not None or getattr(source.config, "quantization_config", None) is not None:
        raise ConfigError(
            f"--tensor-parallel takes plain weights in the native layout, which {checkpoint} does not hold. Convert it"
            f" first: vglm convert {checkpoint} DESTINATION."
        )
    heads = source.config.text_config.num_attention_heads
    if heads % count:
        raise ConfigError(
            f"the language model's {heads} attention heads do not divide among {count} processes. Start torchrun with"
            " another --nproc_per_node."
        )
    try:
        with quiet_transformers():
            model: Any = VisualGlmForConditionalGeneration.from_pretrained(
                source.folder,
                dtype=resolve_dtype(dtype, "auto") or "auto",
                distributed_config=DistributedConfig(tp_size=count),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint} cannot be divided: {brief(error)}.") from error
    return model.eval(), source.processor


class Leader(Decoder):
    """The decoder of the first process, which the others follow; all of them make the control group together."""

    def __init__(self, shelf: AdapterShelf) -> None:
        super().__init__(shelf)
        self.group = _control()

    def begin(self, name: str, inputs: Mapping[str, Tensor]) -> None:
        """As `Decoder.begin`, in all processes."""
        self._tell("begin", name, inputs)
        super().begin(name, inputs)

    def go_on(self, name: str, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Likewise."""
        self._tell("go_on", name, rows, tokens)
        super().go_on(name, rows, tokens)

    def drop(self, name: str) -> None:
        """Likewise."""
        self._tell("drop", name)
        super().drop(name)

    def close(self) -> None:
        """Let the other processes end."""
        self._tell("close")

    def _tell(self, *message: Any) -> None:
        dist.broadcast_object_list([message], src=0, group=self.group)


@torch.inference_mode()
def follow(model: VisualGlmForConditionalGeneration) -> None:
    """Do what the first process does, until it closes its engine.

    Args:
        model: This process's part.
    """
    decoder, group = Decoder(AdapterShelf(model)), _control()
    while True:
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0, group=group)
        action, *arguments = box[0]
        if action == "close":
            return
        getattr(decoder, action)(*arguments)


def _control() -> Any:
    """What the first process sends its messages through; a process may wait long for one."""
    return dist.new_group(backend="gloo", timeout=_IDLE)
