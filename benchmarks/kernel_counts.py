"""How many kernels, and how many bytes, is a training step and a decode step of VisualGLM-6B on a GPU made of?

    python benchmarks/kernel_counts.py
    python benchmarks/kernel_counts.py --batch 32 --cached 512 --by-kind

Runs the model's own modules, at full size and in bfloat16, on PyTorch's meta device, which computes shapes but no
numbers: no GPU is needed, and the counts are the same on every machine. Counted is each operation that launches a
kernel, with the bytes of what it reads and writes; views launch none. Attention is one kernel, as PyTorch on a GPU
computes it with a mask. "Kept" counts the tensors that the backward pass needs, without weights.

The training step is of 8 rows of 512 tokens with cached image features, half of the tokens with a label, without
checkpointing; the decode step writes one token for each row behind `--cached` tokens. LoRA is that of
conf/method/lora.yaml, on all linear layers of the language model.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vglm.config import build, compose
from vglm.model.configuration import VisualGlmConfig
from vglm.model.decoding import DecodingBatch
from vglm.model.lean_lora import lean_lora
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.tuning.methods import attach

DTYPE = torch.bfloat16
VIEWS = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "chunk", "detach", "diagonal", "empty", "empty_like",
    "empty_strided", "expand", "is_same_size", "lift_fresh", "narrow", "new_empty", "new_empty_strided", "permute",
    "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold",
    "unsqueeze", "view",
}  # fmt: skip
"""Operations that launch no kernel."""


@dataclass
class Count:
    """What some operations took.

    Attributes:
        kernels: How many were launched, by kind.
        size: Bytes read and written.
        kept: Bytes that the backward pass needs.
    """

    kernels: Counter[str] = field(default_factory=Counter)
    size: int = 0
    saved_bytes: int = 0

    @property
    def total(self) -> int:
        """Kernels of all kinds."""
        return self.kernels.total()


class _Counting(TorchDispatchMode):
    """Counts what would run on a device."""

    def __init__(self, count: Count) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            tensors = [tensor for tensor in tree_leaves((args, kwargs, result)) if isinstance(tensor, Tensor)]
            if name in ("embedding", "index", "index_copy_"):  # reads and writes rows, not the whole table
                tensors = 2 * [min(tensors, key=lambda tensor: tensor.numel() * tensor.element_size())]
            self.count.kernels[name] += 1
            self.count.size += sum(_bytes(tensor) for tensor in tensors)
        return result


class _OnGpu(TorchFunctionMode):
    """Asks for attention as PyTorch does on a GPU when there is a mask."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        mask = (kwargs or {})["attn_mask"]
        heads = (*query.shape[:3], key.shape[2])
        output, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, mask.expand(heads), query.requires_grad, scale=kwargs["scale"]
        )
        return output


def _bytes(tensor: Tensor) -> int:
    """What a tensor's numbers take, those that are repeated along a dimension once."""
    sizes = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(sizes) * tensor.element_size()


def full_size(*, with_lora: bool) -> VisualGlmForConditionalGeneration:
    """The language model of VisualGLM-6B without numbers, frozen but for LoRA.

    Args:
        with_lora: Whether to put the adapter of conf/method/lora.yaml on it.
    """
    with torch.device("meta"):
        model = VisualGlmForConditionalGeneration(VisualGlmConfig(), with_vision=False).to(DTYPE)
    model.requires_grad_(False)
    if with_lora:
        with torch.device("meta"):
            model = attach(model, build(compose(overrides=["method=lora"]).method)).get_base_model()
    return model


def count_decoding(model: VisualGlmForConditionalGeneration, *, rows: int = 1, cached: int = 320) -> Count:
    """Count one decode step.

    Args:
        model: As from `full_size`.
        rows: Answers that grow together.
        cached: Tokens that each row has.
    """
    config = model.config.text_config
    columns, head = -(-(cached + 2) // 64) * 64, config.hidden_size // config.num_attention_heads

    def states() -> list[Tensor]:
        shape = (rows, config.num_attention_heads, columns, head)
        return [torch.empty(shape, dtype=DTYPE, device="meta") for _ in range(config.num_hidden_layers)]

    batch = DecodingBatch(
        states(),
        states(),
        torch.ones((rows, columns), dtype=torch.bool, device="meta"),
        torch.zeros((rows, 2), dtype=torch.int64, device="meta"),
        torch.empty((rows, config.vocab_size), dtype=DTYPE, device="meta"),
        model.model.language_model.inverse_frequencies,
        cached,
    )
    tokens = torch.zeros(rows, dtype=torch.int64, device="meta")
    model.eval()
    with torch.no_grad(), lean_lora(model):
        batch.step(model, tokens)  # the first one casts adapters, once for all
        return _counted(lambda: batch.step(model, tokens), model)


def count_training(model: VisualGlmForConditionalGeneration, *, rows: int = 8, length: int = 512) -> Count:
    """Count the forward and backward pass of one training step.

    Args:
        model: As from `full_size`, with LoRA.
        rows: Samples of the step.
        length: Tokens of each, of which the second half has labels.
    """
    text: Any = model.model.language_model
    config = model.config.text_config
    model.train()
    shape = (rows, length)
    inputs = {
        "inputs_embeds": torch.empty((*shape, config.hidden_size), dtype=DTYPE, device="meta"),
        "glm_position_ids": torch.zeros((rows, 2, length), dtype=torch.int64, device="meta"),
        "block_ids": torch.zeros(shape, dtype=torch.int64, device="meta"),
        "attention_mask": torch.ones(shape, dtype=torch.int64, device="meta"),
    }
    targets = torch.zeros(rows * (length // 2), dtype=torch.int64, device="meta")

    def step() -> None:
        hidden = text(**inputs, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[:, length // 2 :].flatten(0, 1)).float()
        F.cross_entropy(logits, targets, reduction="sum").backward()

    return _counted(step, model)


def _counted(act: Callable[[], None], model: torch.nn.Module) -> Count:
    count = Count()
    storages = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in storages:
            storages.add(storage)
            count.saved_bytes += tensor.untyped_storage().nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, _OnGpu(), _Counting(count):
        act()
    return count


def main() -> int:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1, help="rows of the decode step")
    parser.add_argument("--cached", type=int, default=320, help="tokens before it")
    parser.add_argument("--by-kind", action="store_true", help="how many of each operation")
    parsed = parser.parse_args()
    plain, tuned = full_size(with_lora=False), full_size(with_lora=True)
    counts = {
        "decode step": count_decoding(plain, rows=parsed.batch, cached=parsed.cached),
        "decode step with LoRA": count_decoding(tuned, rows=parsed.batch, cached=parsed.cached),
        "training step with LoRA": count_training(tuned),
    }
    print(f"{'':24}  kernels  GB read and written  GB kept")
    for name, count in counts.items():
        print(f"{name:24}  {count.total:7}  {count.size / 1e9:19.2f}  {count.saved_bytes / 1e9:7.2f}")
        if parsed.by_kind:
            print(f"    {', '.join(f'{number} {kind}' for kind, number in count.kernels.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
