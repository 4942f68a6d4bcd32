"""What a LoRA step of VisualGLM-6B launches and keeps on a GPU, counted without one, on the meta device.

    python benchmarks/training_step.py                    8 rows of 512 tokens, bfloat16
    python benchmarks/training_step.py --rows 1 --length 320

Counted are the operations that launch a kernel, forward and backward, with the bytes that they read and write, and the
bytes kept for the backward pass. The language model alone runs, as it does with cached pictures; the head is left out.
Attention counts as the fused kernel that a GPU has. Autocast on top of bfloat16 weights is told by its rules for CUDA,
which are replayed here: layer norms in float32, products in bfloat16.

Counted on 2026-11-27 for 8 x 512 tokens: 222 GB moved and 17.0 GB kept without autocast and LoRA in bfloat16; 484 and
24.4 with LoRA in float32, 282 and 18.8 with autocast on top, 389 and 19.8 with both.
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vglm.model.configuration import VisualGlmConfig
from vglm.model.loading import empty_model
from vglm.tuning.methods import attach

LORA_TARGETS = r".*language_model\.layers\.\d+\.(attention\.(query_key_value|dense)|mlp\.(dense_h_to_4h|dense_4h_to_h))"
_VIEWS = frozenset(
    [
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "permute",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "detach",
        "alias",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "as_strided",
        "reshape",
        "lift_fresh",
        "empty",
        "empty_like",
        "narrow",
        "unfold",
        "_reshape_alias",
        "empty_strided",
        "new_empty",
        "new_empty_strided",
        "is_same_size",
    ]
)


@dataclass
class Count:
    """What was counted: kernels, bytes that they move, bytes kept for the backward pass."""

    kernels: int = 0
    moved: int = 0
    saved_bytes: int = 0

    def __sub__(self, other: "Count") -> "Count":
        return Count(self.kernels - other.kernels, self.moved - other.moved, self.saved_bytes - other.saved_bytes)


class _Ledger(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = Count()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ not in _VIEWS:
            self.count.kernels += 1
            leaves = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.count.moved += sum(leave.numel() * leave.element_size() for leave in leaves)
        return result


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        context.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in context.saved_tensors[:3])


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **_: Any) -> Any:
    return _FusedAttention.apply(query, key, value).transpose(1, 2).contiguous(), None


class _AutocastRules(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (F.layer_norm, F.linear):
            dtype = torch.float32 if function is F.layer_norm else torch.bfloat16
            args, kwargs = (
                torch.utils._pytree.tree_map(lambda leaf: leaf.to(dtype) if isinstance(leaf, Tensor) else leaf, tree)
                for tree in (args, kwargs or {})
            )
        return function(*args, **(kwargs or {}))


def count_step(rows: int, length: int, *, layers: int, is_autocast: bool = False, is_wide: bool = False) -> Count:
    """Count a step, forward and backward.

    Args:
        rows: Of the batch.
        length: Tokens of a row.
        layers: Of the language model, at its full width.
        is_autocast: Whether autocast is on top of the bfloat16 weights.
        is_wide: Whether LoRA computes in float32, as peft has it.
    """
    ALL_ATTENTION_FUNCTIONS.register("counted", _attend)
    config = VisualGlmConfig(text_config={"num_hidden_layers": layers})
    base = empty_model(config).to(torch.bfloat16)
    base.model.drop_vision()
    with torch.device("meta"):
        tuned: Any = attach(base, LoraConfig(r=8, lora_alpha=16, target_modules=LORA_TARGETS)).train()
    if is_wide:
        for layer in tuned.modules():
            if hasattr(layer, "lora_variant"):
                layer.lora_variant.clear()
                layer.cast_input_dtype_enabled = True
    model: Any = base.model.language_model
    model.config._attn_implementation = "counted"
    weights = {parameter.untyped_storage()._cdata for parameter in tuned.parameters()}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            saved[tensor.untyped_storage()._cdata] = tensor  # kept alive, so that no other tensor gets its address
        return tensor

    with torch.device("meta"):
        embeds = torch.empty(rows, length, config.text_config.hidden_size, dtype=torch.bfloat16)
        positions, blocks = (
            torch.zeros(rows, 2, length, dtype=torch.int64),
            torch.zeros(rows, length, dtype=torch.int64),
        )
    rules: Callable[[], AbstractContextManager[Any]] = _AutocastRules if is_autocast else nullcontext
    with _Ledger() as ledger, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), rules():
        output = model(embeds, positions, blocks, use_cache=False).last_hidden_state
        output.backward(torch.empty_like(output))
    ledger.count.saved_bytes = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    return ledger.count


def main() -> int:
    """Run the count from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row (default: %(default)s)")
    parsed = parser.parse_args()
    table = Table(title=f"28 layers, {parsed.rows} x {parsed.length} tokens, bfloat16", box=box.SIMPLE_HEAD)
    for column in ("autocast on top", "LoRA computes in", "kernels", "GB moved", "GB kept"):
        table.add_column(column, justify="right")
    for is_autocast in (True, False):
        for is_wide in (True, False):
            one, two = (
                count_step(parsed.rows, parsed.length, layers=layers, is_autocast=is_autocast, is_wide=is_wide)
                for layers in (1, 2)
            )
            layer = two - one
            total = [getattr(one, name) + 27 * getattr(layer, name) for name in ("kernels", "moved", "kept")]
            row = ["yes" if is_autocast else "no", "float32" if is_wide else "bfloat16", f"{total[0]:,}"]
            table.add_row(*row, f"{total[1] / 1e9:,.1f}", f"{total[2] / 1e9:,.1f}")
    Console(width=80).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
