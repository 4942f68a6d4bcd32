"""Products of linear layers while answering on a CPU: oneDNN's kernels where those that torch takes are slower.

    with fast_products(hidden_states, columns): ...      every F.linear inside, whoever calls it

torch multiplies float32 matrices with MKL, which on processors of other makers than Intel leaves AVX-512 unused;
oneDNN, which torch brings along for half precision, uses it. Both add in float32, in another order: results differ in
their last bits, as those of two batch sizes do.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

WORTHWHILE = 2**24
"""Multiplications of a block's largest product below which looking at every call costs more than is saved."""

SMALLEST = 2**21
"""Multiplications of a product below which oneDNN's own call costs more than its kernel saves."""


def fast_products(states: Tensor, columns: int) -> AbstractContextManager[Any]:
    """Let oneDNN compute what linear layers do in the block, where it is faster and no gradient is needed.

    Args:
        states: What goes into the block's largest product, shape (..., in), or as many numbers as that.
        columns: Of its result.
    """
    if (
        states.numel() * columns < WORTHWHILE
        or (states.device.type, states.dtype) != ("cpu", torch.float32)
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or not has_faster_kernels()
    ):
        return nullcontext()
    return _OneDnn()


@cache
def has_faster_kernels() -> bool:
    """Whether this processor has AVX-512 and is not Intel's."""
    is_there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    facts: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    is_others = "Intel" not in facts.get("cpu_name", "Intel")
    return is_there and is_others and torch.backends.cpu.get_cpu_capability() == "AVX512"


class _OneDnn(TorchFunctionMode):
    """Sends every call of `F.linear` through `_linear`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`; large products of plain float32 matrices by oneDNN."""
    if (
        input.numel() * len(weight) < SMALLEST
        or not input.dtype == weight.dtype == torch.float32
        or not input.device.type == weight.device.type == "cpu"
        or type(weight) not in (Tensor, nn.Parameter)
        or not weight.is_contiguous()
    ):
        return F.linear(input, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product
