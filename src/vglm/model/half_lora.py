"""LoRA on half-precision weights, computed in their type while the trained matrices stay in float32.

peft keeps an adapter in float32, which its optimizer needs: bfloat16 has 8 bits of precision, in which most updates
vanish. But it also computes in float32, and for that casts every input to float32 and keeps it for the backward pass.
Here the two small matrices are rounded to the base's type instead, once a pass, and their product is added to the
base's output in one operation. Gradients come back in float32; checkpoints, saved adapters and merging are as they
were.
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


class _InTypeOfBase(LoraVariant):
    """Plain LoRA, base(x) + scale * B A x, in the type of base(x)."""

    is_plain = True

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Add the update to the base's output, shape (..., out), from its input, shape (..., in)."""
        dtype = result.dtype
        matrix_a, matrix_b = (matrices[active_adapter].weight.to(dtype) for matrices in (module.lora_A, module.lora_B))
        low = F.linear(module.lora_dropout[active_adapter](x.to(dtype)), matrix_a)  # (..., r)
        rows = torch.addmm(
            result.flatten(0, -2), low.flatten(0, -2), matrix_b.t(), alpha=module.scaling[active_adapter]
        )
        return rows.view_as(result)

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """As peft merges plain LoRA."""
        merged: Tensor = orig_weight + module.get_delta_weight(active_adapter).to(orig_weight.dtype)
        return merged

    @staticmethod
    def merge_unsafe(module: Any, active_adapter: str, orig_weight: Tensor) -> None:
        """Likewise, in place."""
        orig_weight.data += module.get_delta_weight(active_adapter)

    @staticmethod
    def unmerge(module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """Undo `merge_unsafe`."""
        unmerged: Tensor = orig_weight.data - module.get_delta_weight(active_adapter).to(orig_weight.dtype)
        return unmerged


def compute_in_type_of_base(model: PeftModel) -> None:
    """Make every plain LoRA adapter of a model compute in the type of its base, where that is bfloat16 or float16.

    Others stay as peft computes them: DoRA and AdaLoRA, adapters of embeddings, those with a bias.

    Args:
        model: With any number of adapters.
    """
    base: Any = model.get_base_model()
    if base.dtype not in HALF:
        return
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            plain = {name for name in layer.lora_A if _is_plain(layer, name)}
            layer.lora_variant.update(dict.fromkeys(plain, _InTypeOfBase()))
            layer.cast_input_dtype_enabled = not plain or plain != set(layer.lora_A)


def _is_plain(layer: LoraLayer, adapter: str) -> bool:
    modules = [matrices[adapter] for matrices in (layer.lora_A, layer.lora_B)]
    is_linear = all(type(module) is nn.Linear and module.bias is None for module in modules)
    return is_linear and isinstance(layer.lora_variant.get(adapter, _InTypeOfBase()), _InTypeOfBase)
