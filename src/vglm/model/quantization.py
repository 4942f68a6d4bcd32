"""Linear layers in 8 or 4 bits through bitsandbytes, quantised one at a time while a checkpoint streams in.

    model = empty_model(config)
    make_quantizable(model, quantization_config("nf4", torch.float16))     its linear layers become bitsandbytes' own
    layer.weight = quantized(layer, weight)                                for each of them
    mark_quantized(model)                                                  saves, reloads and trains like any other

By default only the language model is quantised, as in QLoRA and in the original: the vision transformer loses accuracy.
Word embeddings are never quantised, and with them a tied output head. On a CPU, where quantising takes ten times the
memory of the weight, weights are quantised in slices; the result is bitsandbytes' own, bit for bit.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from vglm.errors import ConfigError

Quantization = Literal["int8", "int8_fast", "int4", "nf4"]

_KINDS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "int8_fast": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "int4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}
_PARTS = {
    "vision": "model.vision_model",
    "qformer": "model.qformer",
    "projection": "model.language_projection",
    "language_model": "model.language_model",
    "head": "lm_head",
}
"""What can be quantised, each or not, and the module that it is."""

logger = logging.getLogger(__name__)

_CPU_SLICE = 2**16  # elements; a multiple of every block size


def quantization_config(
    kind: str, compute_dtype: torch.dtype, parts: Sequence[str] | None = None, *, is_head_tied: bool = False
) -> BitsAndBytesConfig:
    """Spell out a way of quantising for bitsandbytes.

    Args:
        kind: "int8", "int8_fast", "int4" (fp4) or "nf4" (with double quantisation), see `load_pretrained`.
        compute_dtype: What 4-bit layers compute in.
        parts: Whose linear layers: some of vision, qformer, projection, language_model, head. None: the language model.
        is_head_tied: Whether the output head is the word embeddings.

    Raises:
        ConfigError: There is no such kind or part, or the head is to be quantised and is the embeddings.
    """
    if kind not in _KINDS:
        raise ConfigError(f"quantization must be one of {', '.join(_KINDS)} or None, got {kind!r}.")
    parts = ["language_model"] if parts is None else list(parts)
    if not parts or (unknown := set(parts) - set(_PARTS)):
        actual = ", ".join(sorted(unknown)) if parts else "nothing"
        raise ConfigError(f"quantization_parts must be some of {', '.join(_PARTS)}; found {actual}.")
    if "head" in parts and is_head_tied:
        raise ConfigError(
            "quantization_parts: this model's head is its word embeddings, which are never quantised. Leave out head."
        )
    compute = {} if kind in ("int8", "int8_fast") else {"bnb_4bit_compute_dtype": compute_dtype}
    skipped = [module for part, module in _PARTS.items() if part not in parts]
    return BitsAndBytesConfig(llm_int8_skip_modules=skipped, **_KINDS[kind], **compute)


def make_quantizable(model: Any, config: BitsAndBytesConfig) -> None:
    """Replace the linear layers that are to be quantised.

    Args:
        model: On the meta device.
        config: From `quantization_config`.
    """
    quantizer: Any = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.validate_environment()
    quantizer.preprocess_model(model, device_map=None)  # of which only offloading makes use
    model.hf_quantizer = quantizer


def mark_quantized(model: Any) -> None:
    """Mark a model whose weights are all loaded as quantised."""
    model.hf_quantizer.postprocess_model(model)
    keep_scales(model)


def keep_scales(model: nn.Module) -> None:
    """Have 4-bit layers compute with the scales they were given.

    On some CPUs bitsandbytes rounds them to bfloat16, in place, when they first answer in evaluation mode: another
    model than the one that trains, no longer to be dequantised, and no small widths.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    dtype = getattr(model, "dtype", torch.float16)
    if dtype != torch.float16 and any(type(module).__name__ == "Linear8bitLt" for module in model.modules()):
        _say_what_eight_bits_do(str(dtype).removeprefix("torch."))


@cache
def _say_what_eight_bits_do(dtype: str) -> None:
    """Log it once, instead of bitsandbytes' message for every layer in every step."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    logger.warning("int8 layers take float16: what they are given in %s is cast for them.", dtype)


def is_quantizable(module: nn.Module) -> bool:
    """Whether a module is one of those that `make_quantizable` put in."""
    return hasattr(module, "source_cls")


@torch.no_grad()
def quantized(layer: Any, weight: Tensor) -> nn.Parameter:
    """Quantise the weight of one linear layer.

    Args:
        layer: The layer that `make_quantizable` put in.
        weight: Shape (out, in), of a float type, on the device where it is to stay; not changed.

    Returns:
        bitsandbytes' parameter, to be set as `layer.weight`.

    Source: `quantize_4bit` and `Int8Params` of bitsandbytes-foundation/bitsandbytes, slice by slice.
    """
    from bitsandbytes import functional
    from bitsandbytes.nn.modules import Int8Params, Linear8bitLt, Params4bit

    at_once = _CPU_SLICE if weight.device.type == "cpu" else weight.numel()
    if isinstance(layer, Linear8bitLt):
        values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        scales = torch.empty(len(weight), device=weight.device)
        rows = max(1, at_once // weight.shape[1])
        for start in range(0, len(weight), rows):
            piece = slice(start, start + rows)
            values[piece], scales[piece], _ = functional.int8_vectorwise_quant(
                weight[piece].to(torch.float16, copy=True)
            )
        return Int8Params(values, requires_grad=False, has_fp16_weights=False, CB=values, SCB=scales)

    form = layer.weight  # on the meta device still
    flat = weight.contiguous().view(-1)
    values = torch.empty((len(flat) + 1) // 2, 1, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(-(-len(flat) // form.blocksize), device=weight.device)
    for start in range(0, len(flat), at_once):
        packed, state = functional.quantize_4bit(
            flat[start : start + at_once], blocksize=form.blocksize, quant_type=form.quant_type
        )
        values[start // 2 :][: len(packed)] = packed
        scales[start // form.blocksize :][: len(state.absmax)] = state.absmax
    state.shape, state.absmax = weight.shape, scales
    if form.compress_statistics:
        state.offset = scales.mean()
        state.absmax, state.state2 = functional.quantize_blockwise(scales - state.offset, blocksize=256)
        state.nested = True
    layer.quant_state = state
    return Params4bit(
        values,
        requires_grad=False,
        quant_state=state,
        blocksize=form.blocksize,
        compress_statistics=form.compress_statistics,
        quant_type=form.quant_type,
        quant_storage=torch.uint8,
        module=layer,
        bnb_quantized=True,
    )
