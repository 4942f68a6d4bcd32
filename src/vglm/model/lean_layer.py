"""A decoder layer for single tokens on a CPU, as a function over its weights.

    step = lean_layer(layer)
    hidden = step(hidden, position_embeddings, mask, cache)     the layer's own numbers, bit for bit

In a small model the overhead of `nn.Module.__call__`, ten modules per layer, takes as long as the matrix products.
Modules with more than plain weights (adapters, quantised weights, hooks, shards) are called as usual.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vglm.model.modeling import VisualGlmDecoderLayer, eager_attention

Layer = Callable[[Tensor, tuple[Tensor, Tensor], Tensor, Any], Tensor]
"""Takes hidden states (B, 1, D), rotary table, additive mask and cache; returns hidden states."""


def lean_layer(layer: VisualGlmDecoderLayer) -> Layer:
    """The function that a layer is for single tokens, or the layer itself where something was put on it.

    Args:
        layer: In evaluation mode; what is put on it later has no effect on the function.
    """
    attention, mlp = layer.attention, layer.mlp
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    is_usual = attention.config._attn_implementation in ("sdpa", "eager") and not layer.training
    if not is_usual or not all(map(_is_untouched, (layer, attention, mlp, *norms))):
        return layer
    first_norm, second_norm = (_norm(norm) for norm in norms)
    fused, dense = _linear(attention.query_key_value), _linear(attention.dense)
    widen, narrow = _linear(mlp.dense_h_to_4h), _linear(mlp.dense_4h_to_h)
    number, scaling, factor = attention.layer_idx, attention.scaling, layer.residual_factor

    def step(hidden: Tensor, position_embeddings: tuple[Tensor, Tensor], mask: Tensor, cache: Any) -> Tensor:
        residual = first_norm(hidden)
        query, key, value = attention.divide(fused(residual), position_embeddings)
        key, value = cache.update(key, value, number)
        output, _ = eager_attention(attention, query, key, value, mask, scaling)
        residual = second_norm(torch.add(dense(output.flatten(2)), residual, alpha=factor))
        output = narrow(F.gelu(widen(residual), approximate="tanh"))
        return torch.add(output, residual, alpha=factor)

    return step


def _is_untouched(module: nn.Module) -> bool:
    """Whether calling a module is calling its class's `forward`."""
    return "forward" not in vars(module) and not (module._forward_hooks or module._forward_pre_hooks)


def _is_plain(module: Any, kind: type[nn.Module]) -> bool:
    """Whether a module is its weights and nothing else."""
    return type(module) is kind and _is_untouched(module) and type(module.weight) is nn.Parameter


def _linear(module: Any) -> Callable[[Tensor], Tensor]:
    """A linear layer as a function of its input."""
    usual: Callable[[Tensor], Tensor] = module
    if not _is_plain(module, nn.Linear):
        return usual
    return partial(F.linear, weight=module.weight, bias=module.bias)


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    """A layer norm as a function of its input."""
    usual: Callable[[Tensor], Tensor] = module
    if not _is_plain(module, nn.LayerNorm):
        return usual
    return partial(
        torch.layer_norm,
        normalized_shape=module.normalized_shape,
        weight=module.weight,
        bias=module.bias,
        eps=module.eps,
        cudnn_enable=False,
    )
