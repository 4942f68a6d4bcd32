"""The memory that answering and training take, by purpose; the model has shapes only.

    model = shape_model(config, torch.bfloat16, "nf4")              no weights are read, and none are made
    weights = bytes_of_weights(model)                               {"vision": 1971904512, ...}, scales included
    tuned = attach_shapes(model, LoraConfig(r=8, ...))
    step = rehearse_training(tuned, batch, trained, keeps_graphs=...)

Weights, adapter, gradients and the optimizer's states are exact: the real modules, peft's own layers and the real
optimizers make them, on the meta device. Activations, logits and working memory are counted operation by operation, see
`vglm.planning.rehearsal`. Not counted are the workspace of kernels, and what torch's allocator rounds up and keeps in
reserve.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from peft import AdaLoraConfig, PeftConfig, PeftType, PromptTuningConfig
from torch import Tensor, nn

from vglm.model.configuration import VisualGlmConfig
from vglm.model.decoding import room_for
from vglm.model.loading import empty_model
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.quantization import (
    is_quantizable,
    make_quantizable,
    mark_quantized,
    quantization_config,
    quantized,
)
from vglm.planning.rehearsal import Course, Rehearsal
from vglm.tuning.components import COMPONENTS, ComponentTuning
from vglm.tuning.methods import CHANGES_BASE, Method, Tuned, attach

HEAD = "head"
"""The output head, where it is a matrix of its own; a tied one is part of `embeddings`."""

PARTS = (*COMPONENTS, HEAD)
"""What the weights of a model are divided into."""

BLAS_WORKSPACE = 32 * 2**20
"""Bytes that PyTorch keeps for cuBLAS on a GPU of compute capability 9; older ones take 8 MiB.

Source: `parseChosenWorkspaceSize` of pytorch/pytorch:aten/src/ATen/cuda/CublasHandlePool.cpp."""

_IMPORTANCES = 3
"""Tensors of the adapter's size in which AdaLoRA keeps how much each rank matters."""


def shape_model(
    config: VisualGlmConfig,
    dtype: torch.dtype,
    quantization: str | None = None,
    quantization_parts: tuple[str, ...] | list[str] | None = None,
) -> VisualGlmForConditionalGeneration:
    """A model of shapes alone, as `load_pretrained` would make it with these arguments.

    Args:
        config: The architecture; its types are set.
        dtype: Of all that is not quantised.
        quantization: As in `load_pretrained`.
        quantization_parts: Likewise.

    Raises:
        ConfigError: There is no such kind or part.
    """
    set_dtype(config, dtype)
    model: Any = empty_model(config)
    if quantization is not None:
        _know_codes()
        tied = config.tie_word_embeddings
        make_quantizable(model, quantization_config(quantization, dtype, quantization_parts, is_head_tied=tied))
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            value = torch.empty(parameter.shape, dtype=dtype, device="meta")
            is_packed = name == "weight" and is_quantizable(module)
            setattr(module, name, quantized(module, value) if is_packed else nn.Parameter(value))
    model.tie_weights()
    if quantization is not None:
        mark_quantized(model)
        for module in model.modules():
            if hasattr(module, "SCB") or type(module).__name__ == "Linear8bitLt":
                module.state.threshold = 0.0  # what is an outlier only values say
    return model.eval()  # type: ignore[no-any-return]


def set_dtype(config: VisualGlmConfig, dtype: torch.dtype) -> None:
    """Let every part of a config name a type."""
    for part in (config, config.text_config, config.vision_config, config.qformer_config):
        part.dtype = dtype


def _know_codes() -> None:
    """Make bitsandbytes build its table of 8-bit numbers with values: it keeps the first one that it is asked for."""
    from bitsandbytes import functional

    if "dynamic" not in functional.name2qmap:
        functional.name2qmap["dynamic"] = functional.create_dynamic_map()


def component_of(name: str) -> str:
    """The part of `PARTS` that a base model's parameter belongs to."""
    if name.startswith("lm_head."):
        return HEAD
    return next(key for key, prefixes in COMPONENTS.items() if name.startswith(prefixes))


def bytes_of_weights(model: nn.Module) -> dict[str, int]:
    """Bytes of a base model's tensors by part, scales of quantised ones included, tied ones once."""
    sums = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        sums[component_of(name)] += sum(tensor.nbytes for tensor in _tensors_of(parameter))
    return sums


def _tensors_of(parameter: Any) -> list[Tensor]:
    state = getattr(parameter, "quant_state", None)
    if state is not None:
        nested = [] if state.state2 is None else [state.offset, state.state2.absmax]
        return [parameter.data, state.absmax, *nested]
    scales = getattr(parameter, "SCB", None)
    return [parameter.data] if scales is None else [parameter.data, scales]


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Number of parameters of a base model by part, quantised ones by their original shapes, tied ones once."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        counts[component_of(name)] += parameter.numel() if state is None else state.shape.numel()
    return counts


def attach_shapes(model: VisualGlmForConditionalGeneration, method: Method) -> Tuned:
    """As `vglm.tuning.methods.attach`, on a model of shapes.

    Where a method starts from numbers of the base (PiSSA, OLoRA, the embeddings of a text), it starts from none: the
    shapes are the same.
    """
    with torch.device("meta"):
        return attach(model, without_values(method, model.dtype))


def without_values(method: Method, dtype: torch.dtype) -> Method:
    """A method of the same shapes that starts from no numbers of the base."""
    if isinstance(method, ComponentTuning):
        return method if method.lora is None else replace(method, lora=_plain(method.lora, dtype))
    plain: PeftConfig = _plain(method, dtype)
    return plain


def _plain(config: PeftConfig, dtype: torch.dtype) -> Any:
    start = str(getattr(config, "init_lora_weights", "")).lower()
    if start.startswith(CHANGES_BASE) and dtype == torch.float32:  # others are refused when they are attached
        return replace(config, init_lora_weights=True)  # type: ignore[call-arg]
    if isinstance(config, PromptTuningConfig):
        return replace(config, prompt_tuning_init="RANDOM", tokenizer_name_or_path=None, prompt_tuning_init_text=None)
    return config


def optimizer_states(
    model: nn.Module, optimizer_class: Any, options: Mapping[str, Any], method: Any = None
) -> "States":
    """What an optimizer keeps of the parameters that train.

    Args:
        model: Of shapes, with what trains marked.
        optimizer_class: As `transformers.Trainer.get_optimizer_cls_and_kwargs` gives it.
        options: Likewise.
        method: The method, of which AdaLoRA keeps importances besides.
    """
    forms = [(value.shape, value.dtype) for value in model.parameters() if value.requires_grad]
    alike = Counter(forms)
    optimizer, trained = _stepped(alike, optimizer_class, options)
    if all(parameter in optimizer.state for parameter in trained):
        states = list(zip(map(optimizer.state.__getitem__, trained), alike.values(), strict=True))
    else:  # some keep one state of several parameters
        states = [(state, 1) for state in _stepped(forms, optimizer_class, options)[0].state.values()]
    is_paged = bool(getattr(optimizer, "is_paged", False))
    on_device = paged = 0
    for state, count in states:
        tensors = [value for name, value in state.items() if isinstance(value, Tensor) and not name.startswith("qmap")]
        for tensor in tensors:
            if is_paged and tensor.numel() >= _PAGED_FROM:
                paged += count * tensor.nbytes
            else:
                on_device += count * tensor.nbytes
    if isinstance(method, AdaLoraConfig):
        on_device += _IMPORTANCES * sum(shape.numel() * dtype.itemsize for shape, dtype in forms)
    return States(on_device, paged)


def _stepped(
    forms: Iterable[tuple[torch.Size, torch.dtype]], optimizer_class: Any, options: Mapping[str, Any]
) -> tuple[Any, list[nn.Parameter]]:
    """An optimizer after its first step, and the parameters of these shapes that it trains."""
    trained = [nn.Parameter(torch.empty(shape, dtype=dtype, device="meta")) for shape, dtype in forms]
    own = {name: value for name, value in options.items() if name not in ("fused", "foreach")}
    optimizer = optimizer_class(trained, **own)
    if hasattr(optimizer, "init_state"):  # bitsandbytes'
        _know_codes()
        is_paged, optimizer.is_paged = optimizer.is_paged, False
        optimizer.fill_qmap()
        for group_index, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                optimizer.init_state(group, parameter, group_index, index)
        optimizer.is_paged = is_paged
    else:
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
    return optimizer, trained


_PAGED_FROM = 100_000
"""Elements from which bitsandbytes' paged optimizers keep a state in pages.

Source: `get_state_buffer` of bitsandbytes-foundation/bitsandbytes:bitsandbytes/optim/optimizer.py."""


@dataclass(frozen=True)
class States:
    """Bytes of an optimizer's states.

    Attributes:
        on_device: Held on the device.
        paged: In pages that the driver moves to the host's memory when the device is full.
    """

    on_device: int
    paged: int = 0


@dataclass(frozen=True)
class Step:
    """What a rehearsal takes beside weights and optimizer.

    Attributes:
        parts: Bytes by what they are for, each at its own most: `gradients`, `activations`, `logits`, `working memory`,
            `keys and values`.
        peak: Bytes at the moment when most is held; not more than the sum of the parts.
        flops: Operations of matrix products.
        operations: Kernels, one for each operation that is not a view.
    """

    parts: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    flops: int = 0
    operations: int = 0


def rehearse_training(
    tuned: Any,
    batch: Mapping[str, Tensor],
    *,
    autocast: torch.dtype | None = None,
    is_checkpointed: bool = False,
    keeps_gradients: bool = False,
    fused_attention: bool = True,
    takes_all_layers: bool = False,
) -> Step:
    """Forward and backward pass of one batch.

    Args:
        tuned: From `attach_shapes`.
        batch: As the collator makes it.
        autocast: As the trainer's fp16 and bf16 ask for.
        is_checkpointed: Whether layers are computed again in the backward pass.
        keeps_gradients: Whether gradients of earlier batches are there already, as with accumulation.
        fused_attention: See `Rehearsal`.
        takes_all_layers: Also where the language model's layers are alike, so that a few of them say all.
    """
    tuned.train()
    base = _base_of(tuned)
    (base.activation_checkpointing_enable if is_checkpointed else base.activation_checkpointing_disable)()

    def rehearse() -> Course:
        trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter) if keeps_gradients else None
        try:
            with Rehearsal(base, batch, autocast=autocast, fused_attention=fused_attention) as rehearsal:
                rehearsal.follow(base.model.language_model.layers)
                loss = tuned(**rehearsal.inputs, use_cache=False).loss
                rehearsal.backward(loss)
            del loss
            gradients = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
        finally:
            for parameter in trained:
                parameter.grad = None
        return replace(rehearsal.course(), results=gradients)

    course = rehearse() if takes_all_layers else _rehearsed_in_part(tuned, batch, rehearse)
    trained = [parameter.nbytes for parameter in tuned.parameters() if parameter.requires_grad]
    gradient_bytes = sum(trained) if keeps_gradients else 0
    parts = {"activations": course.activations, "logits": course.logits, "working memory": course.working}
    return Step({"gradients": course.results, **parts}, course.peak + gradient_bytes, course.flops, course.operations)


_FEW = 3
"""Layers of which one is neither the first nor the last."""


def _rehearsed_in_part(tuned: Any, batch: Mapping[str, Tensor], rehearse: Callable[[], Course]) -> Course:
    """A course with all layers of the language model; where they are alike, from those of a few of them."""
    base = _base_of(tuned)
    count = len(base.model.language_model.layers)
    is_worth = count > 2 * _FEW + 1 and "pixel_values" not in batch  # or the vision parts would run twice
    if not is_worth or _has_prefix(tuned) or not _are_alike(base.model.language_model.layers):
        return rehearse()
    courses = []
    for number in (_FEW, _FEW + 1):
        with _first_layers(base, number):
            courses.append(rehearse())
    return courses[0].extended(courses[1], count - _FEW)


def _base_of(tuned: Any) -> Any:
    return tuned.get_base_model() if hasattr(tuned, "get_base_model") else tuned


def _has_prefix(tuned: Any) -> bool:
    """Whether keys and values of all layers come as one tensor."""
    config = getattr(tuned, "active_peft_config", None)
    return config is not None and config.peft_type is PeftType.PREFIX_TUNING


def _are_alike(layers: nn.ModuleList) -> bool:
    def form(layer: nn.Module) -> list[Any]:
        parameters = layer.named_parameters()
        return [repr(layer), *((name, value.shape, value.dtype, value.requires_grad) for name, value in parameters)]

    first = form(layers[0])
    return all(form(layer) == first for layer in layers[1:])


@contextmanager
def _first_layers(base: Any, count: int) -> Iterator[None]:
    """Leave a language model its first layers alone for a while."""
    model, config = base.model.language_model, base.config.text_config
    layers = model.layers
    model.layers, config.num_hidden_layers = layers[:count], count
    try:
        yield
    finally:
        model.layers, config.num_hidden_layers = layers, len(layers)


@torch.no_grad()
def rehearse_answering(
    model: Any,
    batch: Mapping[str, Tensor],
    new_tokens: int,
    *,
    fused_attention: bool = True,
    takes_all_layers: bool = False,
) -> Step:
    """Reading a batch of prompts and writing answers of equal length.

    Args:
        model: Of shapes; with an adapter or without.
        batch: Prompts, as the collator makes them without answers.
        new_tokens: Of each answer.
        fused_attention: Whether it is a GPU's, where attention is one kernel and room grows by doubling.
        takes_all_layers: See `rehearse_training`.
    """
    model.eval()
    base = _base_of(model)
    batch = {**batch, "layout_ids": batch["input_ids"]}  # for virtual tokens, which take the place of the ids
    seen = 0

    def rehearse() -> Course:
        nonlocal seen
        with Rehearsal(base, batch, fused_attention=fused_attention) as rehearsal:
            rehearsal.follow(base.model.language_model.layers)
            output = model(**rehearsal.inputs, use_cache=True, logits_to_keep=1)
            keys_values = sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers)
        seen = output.past_key_values.get_seq_length()
        return replace(rehearsal.course(), results=keys_values)

    course = rehearse() if takes_all_layers else _rehearsed_in_part(model, batch, rehearse)
    keys_values, logits = course.results, course.logits
    rows, columns = len(batch["input_ids"]), seen
    slots = [rows * columns]
    while columns < seen + new_tokens - 1:  # the last token is not read any more
        some, columns = room_for(rows, columns, on_gpu=fused_attention)  # where there is no room left, all moves
        slots.append(some * columns)
    before, grown = (keys_values * position // slots[0] for position in (0, *slots)[-2:])
    working = max(course.peak - keys_values - logits, 0)
    peak = max(course.peak, before + grown + logits)
    parts = {"keys and values": grown, "logits": logits, "working memory": max(working, before)}
    return Step(parts, peak, course.flops, course.operations)


@torch.no_grad()
def rehearse_encoding(model: Any, pictures: int, *, fused_attention: bool = True) -> Step:
    """Turning pictures into features.

    Args:
        model: Of shapes.
        pictures: How many at a time.
        fused_attention: See `Rehearsal`.
    """
    side = model.config.vision_config.image_size
    pixels = {"pixel_values": torch.empty(pictures, 3, side, side, dtype=torch.float32, device="meta")}
    with Rehearsal(model, pixels, fused_attention=fused_attention) as rehearsal:
        model.get_image_features(rehearsal.inputs["pixel_values"])
    peak = rehearsal.course().peak
    return Step({"working memory": peak}, peak, rehearsal.flops, rehearsal.operations)
