"""Shard a model with FSDP2, on a CPU too, and gather it again.

    outline = outline_of(model)             before it is sharded: the model without its weights
    whole = fill(outline, model)            after training, by all processes; the main one gets a plain model

Frozen weights are gathered once, at the end, one tensor after the other; checkpoints hold only what trains.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vglm.errors import ConfigError
from vglm.tuning.methods import share_start


def divide_on_cpu(state: AcceleratorState, plugin: Mapping[str, Any]) -> None:
    """Make accelerate use FSDP among processes on a CPU, where by default it uses DDP.

    Args:
        state: Of an accelerator that was made without FSDP.
        plugin: As in `TrainingArguments.fsdp_plugin_args`.
    """
    shared: Any = state
    shared.distributed_type = DistributedType.FSDP
    shared.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin)


def name_units(plugin: FullyShardedDataParallelPlugin, model: nn.Module) -> None:
    """Divide layer by layer, where nothing else was asked for, of those kinds of layers that the model has.

    Args:
        plugin: Of the accelerator, before it divides the model.
        model: Perhaps without its vision parts, whose layers accelerate would look for.
    """
    if plugin.transformer_cls_names_to_wrap is None:
        kinds = {type(module).__name__ for module in model.modules()}
        plugin.transformer_cls_names_to_wrap = sorted(kinds & set(getattr(model, "_no_split_modules", None) or ()))


@torch.no_grad()
def store_as_floats(model: nn.Module, gathered: torch.dtype | None = None) -> None:
    """Have the bytes of 4-bit weights pass for the model's float type, which alone FSDP divides; no bit changes.

    Args:
        model: With its weights, not yet divided.
        gathered: The type that FSDP casts to what it gathers, under mixed precision; bytes of it stay as they are.

    Raises:
        ConfigError: There are weights of another type that is not a float.
    """
    layer: Any
    for layer in model.modules():
        if _is_four_bit(layer):
            dtype = gathered or layer.compute_dtype or torch.float32
            layer.weight.data, layer.weight.quant_storage = layer.weight.data.view(-1).view(dtype)[:, None], dtype
            layer.quant_storage, layer.quant_state = dtype, layer.weight.quant_state
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ConfigError(f"trainer.fsdp divides floats, and {name} is stored as {parameter.dtype}. Leave it out.")


def _is_four_bit(layer: Any) -> bool:
    return type(layer).__name__ == "Linear4bit" and type(layer).__module__.startswith("bitsandbytes")


def _four_bit(layer: Any, value: Tensor) -> nn.Parameter:
    """The weight of a layer whose bytes passed for floats, as it was before."""
    from bitsandbytes.nn.modules import Params4bit

    layer.quant_storage, state = torch.uint8, layer.quant_state
    state.to(value.device)  # it was copied where the model was
    names = {"blocksize": state.blocksize, "quant_type": state.quant_type, "compress_statistics": state.nested}
    return Params4bit(
        value.view(-1).view(torch.uint8)[:, None], quant_state=state, module=layer, bnb_quantized=True, **names
    )


def whole(tensor: Tensor) -> Tensor:
    """The full tensor; of a sharded one all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter, or this process's part of it, the numbers of a whole tensor, which all processes have."""
    if isinstance(parameter, DTensor):
        value = value.to(parameter.device, parameter.dtype)
        value = distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(value)


def outline_of(model: nn.Module) -> Any:
    """A copy of a model whose parameters have shapes and no numbers."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
    outline: Any = copy.deepcopy(model, memo)
    share_start(model, outline)
    return outline


@torch.no_grad()
def fill(outline: Any, model: nn.Module, *, is_main: bool) -> Any:
    """Put a divided model's weights into an outline of it, in the memory of the main process's host.

    Args:
        outline: From `outline_of`.
        model: All processes' parts of it.
        is_main: Whether this process gets the weights.

    Returns:
        The outline, plain and whole in the main process, and still empty in others.
    """
    own = dict(outline.named_parameters(remove_duplicate=False))
    done: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parent, _, last = name.rpartition(".")
        layer = outline.get_submodule(parent)
        if id(parameter) not in done:  # tied weights are one
            value = whole(parameter.detach())
            value = value.cpu() if is_main else value.to("meta")
            is_packed = is_main and _is_four_bit(layer) and last == "weight"
            done[id(parameter)] = _four_bit(layer, value) if is_packed else nn.Parameter(value, own[name].requires_grad)
        setattr(layer, last, done[id(parameter)])
    return outline
