"""LoRA that stays beside its weight, in two kernels a layer and token instead of five to eight.

    make_lean(model)                                     for good
    with lean_lora(model): ...                           for a while

A merged adapter would need no extra kernel, but merging rounds the weights and needs a second copy of every changed
weight, since the base must stay bit-identical. So the adapter stays unmerged; for single tokens, x @ A is computed in
the weight's own type and its product with B added to the base's output by one `addmm`. Everything else (prompts,
training, DoRA and other variants, several adapters at once) goes through peft's own forward.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def make_lean(model: nn.Module) -> list[nn.Module]:
    """Let plain LoRA layers compute single tokens in two kernels.

    Args:
        model: Any; without peft's layers nothing happens.

    Returns:
        The layers that changed.
    """
    layers = [module for module in model.modules() if _is_lora(module) and "forward" not in vars(module)]
    for layer in layers:
        layer.forward = _lean(layer, layer.forward)
    return layers


@contextmanager
def lean_lora(model: nn.Module) -> Iterator[None]:
    """As `make_lean`, until the end of the block."""
    layers = make_lean(model)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_lora(module: nn.Module) -> bool:
    """Whether a module is LoRA around a linear layer, quantised or not."""
    if "peft" not in sys.modules:  # the model has no adapter
        return False
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer) and type(module).__name__ in ("Linear", "Linear4bit", "Linear8bitLt")


def _lean(layer: Any, usual: Callable[..., Tensor]) -> Callable[..., Tensor]:
    cast: dict[tuple[int, int, torch.dtype], tuple[Tensor, Tensor]] = {}

    def forward(x: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        if arguments or keywords or torch.is_grad_enabled() or x.shape[-2] != 1 or not _is_plain(layer):
            return usual(x, *arguments, **keywords)
        [name] = layer.active_adapters
        first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
        if first.dtype != x.dtype:
            key = (_version(first), _version(second), x.dtype)
            if key not in cast:
                cast.clear()
                cast[key] = (first.to(x.dtype), second.to(x.dtype))
            first, second = cast[key]
        base = layer.base_layer(x)
        low = F.linear(x, first).flatten(0, -2)  # (B, r)
        return torch.addmm(base.flatten(0, -2), low, second.t(), alpha=layer.scaling[name]).view_as(base)

    return forward


def _version(weight: Tensor) -> int:
    """What changes when a weight is written to."""
    return -1 if weight.is_inference() else weight._version


def _is_plain(layer: Any) -> bool:
    """Whether exactly one adapter is active that consists of two matrices only."""
    names = layer.active_adapters
    if len(names) != 1 or layer.disable_adapters or layer.merged or layer.training:
        return False
    [name] = names
    variant = layer.lora_variant.get(name)
    if name not in layer.lora_A or not (variant is None or getattr(variant, "is_plain", False)):
        return False
    return layer.lora_B[name].bias is None
