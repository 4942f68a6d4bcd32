"""Load a VisualGLM from any of its layouts, and write the native one; `export` writes the others.

    >>> model, processor = load_pretrained("visualglm-6b", dtype="float16", device_map="auto")

The layout is detected from the folder's files:

    native         config.json with model_type "visualglm", model*.safetensors, processor and tokenizer files
    Hugging Face   config.json with an eva_config, pytorch_model*.bin, ice_text.model
    SAT            model_config.json with eva_args, latest, <iteration>/mp_rank_00_model_states.pt; no tokenizer

Before weights are loaded, the names and shapes of all stored tensors are compared with the configuration. So a damaged
checkpoint is refused with its problems named, and one that configures a billion layers is refused before they are
allocated. Checkpoints then stream tensor by tensor into a model on the meta device: the peak memory is that of the
final model, in its target dtype or quantised, plus one memory-mapped shard. Only checkpoints that were saved quantised,
or are quantised over several devices, are loaded by transformers.
"""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import PartialState, dispatch_model, infer_auto_device_map
from accelerate.utils import parse_flag_from_env
from huggingface_hub import snapshot_download
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from vglm.config import build
from vglm.config.components import recorded
from vglm.errors import AdapterError, CheckpointError, ConfigError, brief
from vglm.files import check_vacant, new_folder
from vglm.model.adapters import find_weights, read_adapter, read_weights
from vglm.model.checkpoint import NativeWeights, WeightFiles, listing, read_json
from vglm.model.configuration import VisualGlmConfig
from vglm.model.conversion import (
    EMBEDDINGS,
    HEAD,
    HUGGING_FACE,
    SAT,
    Entry,
    Keep,
    SourceLayout,
    key_map,
    read_config,
    sat_layout,
)
from vglm.model.identity import check_base, note_source
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.limits import check_count, check_files, generation_config
from vglm.model.modeling import ENCODER_PARTS, VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.model.quantization import (
    Quantization,
    is_quantizable,
    keep_scales,
    make_quantizable,
    mark_quantized,
    quantization_config,
    quantized,
)
from vglm.model.sat_fine_tunes import FineTune, split
from vglm.model.tokenization import VisualGlmTokenizer
from vglm.runs import Run
from vglm.text.pieces import VOCAB_FILE

Devices = Literal["auto"] | dict[str, Any]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ENCODER_NAMES = tuple(f"model.{part}" for part in ENCODER_PARTS)
_LIBRARY_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    ImportError,
    MemoryError,
    SafetensorError,
    StrictDataclassError,
)
_LONGEST_REASON = 500  # characters that are quoted of a library's message
_DOWNLOADED = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "latest")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found complete; its tensors are still on disk.

    Attributes:
        folder: Where it lies.
        layout: Its original layout, None for the native one.
        config: The native configuration.
        weights: The base model's tensors by native names.
        processor: Its processor.
        fine_tune: What a SAT checkpoint was fine-tuned to, beside the base model.
    """

    folder: Path
    layout: SourceLayout | None
    config: VisualGlmConfig
    weights: NativeWeights
    processor: VisualGlmProcessor
    fine_tune: FineTune | None = None


@recorded
def load_pretrained(
    path_or_id: str | os.PathLike[str],
    *,
    dtype: torch.dtype | str | None = None,
    device_map: str | int | torch.device | dict[str, Any] | None = None,
    quantization: Quantization | None = None,
    quantization_parts: Sequence[str] | None = None,
    adapter: str | Path | None = None,
    adapter_check: bool = True,
    tokenizer: str | Path | None = None,
    with_vision: bool = True,
) -> tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]:
    """Load a model and its processor, ready to answer.

    Args:
        path_or_id: Folder in the native, original Hugging Face or SAT layout, or the id of such a folder on the hub. Or
            a `Run`, its folder, or `latest`: the run's base with its adapter, or what full tuning made of it; other
            arguments that are given count more than the run's.
        dtype: "float32", "float16", "bfloat16", a `torch.dtype`, or "auto" for the checkpoint's own. None: float32 on
            the CPU, the checkpoint's own elsewhere. On a CPU float16 is slow, and bfloat16 where it lacks AVX-512 BF16.
        device_map: "auto", a device, or a map from module names to devices, as in transformers. None: `default_device`.
        quantization: Load the language model's linear layers in 8 or 4 bits through bitsandbytes: "int8", "int8_fast",
            "int4" (fp4), or "nf4" (with double quantisation, as in QLoRA). "int8" computes columns of inputs above 6 in
            half precision, for which each layer waits for the device; "int8_fast" rounds them like all others.
        quantization_parts: Whose linear layers to quantise: some of vision, qformer, projection, language_model and, if
            it is not the word embeddings, head. None: the language model's alone, since the others lose accuracy.
        adapter: Folder of a peft adapter to put on top; the model then is a `peft.PeftModel`.
        adapter_check: Whether to refuse an adapter whose `base_model.json` names another base, which reads the
            checkpoint once more. False puts the adapter on whatever base this is.
        tokenizer: Folder with `ice_text.model`; needed where the checkpoint has none (SAT), else used instead of its
            own.
        with_vision: False leaves the vision transformer and the Q-Former on disk; the model then takes
            `image_features` in place of `pixel_values`.

    Returns:
        The model in evaluation mode, and the processor.

    Raises:
        CheckpointError: The folder is no complete, readable VisualGLM checkpoint; names files and tensors.
        AdapterError: The adapter folder cannot be put on this model, or belongs to another.
        ConfigError: An argument has a value that cannot work.
    """
    if (run := _find_run(path_or_id)) is not None:
        arguments: dict[str, Any] = {
            "dtype": dtype,
            "device_map": device_map,
            "quantization": quantization,
            "tokenizer": tokenizer,
        }
        arguments |= {"quantization_parts": quantization_parts, "with_vision": None if with_vision else False}
        return _load_run(run, adapter, {name: value for name, value in arguments.items() if value is not None})
    folder = _resolve_folder(path_or_id)
    devices = _resolve_devices(device_map)
    target_dtype = resolve_dtype(dtype, devices)
    if quantization is None and quantization_parts is not None:
        raise ConfigError("quantization_parts says what to quantise; say how as well: quantization=nf4, int4 or int8.")

    checkpoint = open_checkpoint(folder, tokenizer)
    quantizing = _quantization_of(checkpoint, target_dtype, quantization, quantization_parts)
    if quantizing is not None and devices == "auto" and torch.accelerator.device_count() < 2:
        devices = {"": default_device()}
    is_quantized = getattr(checkpoint.config, "quantization_config", None) is not None
    if is_quantized or (checkpoint.layout is None and quantizing is not None and not _is_one_device(devices)):
        model = _load_native(checkpoint, target_dtype, devices, quantizing, with_vision)
    elif checkpoint.fine_tune is not None:
        raise CheckpointError(
            f"{folder} holds {checkpoint.fine_tune} on top of the base model. Import both first: vglm convert {folder}"
            " DESTINATION, then load DESTINATION/model with adapter=DESTINATION/adapter."
        )
    elif quantizing is not None and not _is_one_device(devices):
        raise ConfigError(
            f"quantization={quantization!r} over several devices needs the native layout, but {folder} is in an"
            f" original one. Convert it first: vglm convert {folder} DESTINATION."
        )
    else:
        model = fill_model(checkpoint, target_dtype, devices, quantizing, with_vision)
    note_source(model, checkpoint.weights)
    if adapter is not None:
        model = attach_adapter(model, Path(adapter), is_checked=adapter_check)
    return model.eval(), checkpoint.processor


def save_native(
    model: VisualGlmForConditionalGeneration, processor: VisualGlmProcessor, destination: str | Path
) -> None:
    """Write a model and its processor as a native checkpoint, all or nothing.

    Args:
        model: The model, without adapters.
        processor: Its processor.
        destination: Folder to make; it appears only when it is whole.

    Raises:
        ConfigError: The destination exists and is not an empty folder.
        CheckpointError: Writing failed, for lack of space or permission.
    """
    destination = Path(destination)
    check_vacant(destination, error=ConfigError)
    note_tie(model)
    with new_folder(destination, error=CheckpointError) as folder, quiet_transformers():
        model.save_pretrained(folder, max_shard_size="5GB")
        processor.save_pretrained(folder)


def note_tie(model: VisualGlmForConditionalGeneration) -> None:
    """Set the config by the weights: whether the output head is the word embeddings or a matrix of its own.

    A config that calls a head tied, of which a tuned copy was put in, would lose it at the next conversion.
    """
    head: Any = model.lm_head.weight
    embeddings: Any = model.get_input_embeddings().weight
    if model.config.tie_word_embeddings and head is not embeddings:
        is_same = (head.shape, head.dtype) == (embeddings.shape, embeddings.dtype) and torch.equal(head, embeddings)
        _set_tie(model.config, is_same)


def _set_tie(config: VisualGlmConfig, is_tied: bool) -> None:
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = is_tied


def detect_layout(folder: Path) -> SourceLayout | None:
    """Detect the layout of a checkpoint from its files.

    Args:
        folder: An existing folder.

    Returns:
        The original layout, or None for the native one.

    Raises:
        CheckpointError: It is not one of the three.
    """
    if (folder / HUGGING_FACE.config_file).is_file():
        raw = read_json(folder / HUGGING_FACE.config_file)
        if raw.get("model_type") == VisualGlmConfig.model_type:
            return None
        if HUGGING_FACE.vision_section in raw:
            return HUGGING_FACE
        actual = f"a config.json of model_type {raw.get('model_type')!r} without {HUGGING_FACE.vision_section}"
    elif (folder / SAT.config_file).is_file():
        raw = read_json(folder / SAT.config_file)
        if SAT.vision_section in raw:
            return sat_layout(raw)
        actual = f"a {SAT.config_file} without {SAT.vision_section}"
    else:
        actual = listing(folder)
    raise CheckpointError(
        f"{folder} is not a VisualGLM checkpoint: it holds {actual}. Expected the config.json (native or original"
        f" Hugging Face layout) or {SAT.config_file} (SAT layout) of a VisualGLM."
    )


# --- the three layouts -----------------------------------------------------------------------------------------------


def open_checkpoint(path_or_id: str | Path, tokenizer: str | Path | None = None) -> Checkpoint:
    """Read everything of a checkpoint but its weights, and check that those are complete.

    Args:
        path_or_id: As in `load_pretrained`.
        tokenizer: Likewise.

    Raises:
        CheckpointError: The folder is no complete, readable VisualGLM checkpoint; names files and tensors.
    """
    folder = _resolve_folder(path_or_id)
    try:
        layout = detect_layout(folder)
        if layout is not None:
            return _open_original(folder, layout, tokenizer)
        return _open_native(folder, tokenizer)
    except (*_LIBRARY_ERRORS, ConfigError) as err:
        raise CheckpointError(f"{folder} cannot be loaded: {brief(err, _LONGEST_REASON)}.") from err


def _open_native(folder: Path, tokenizer_folder: str | Path | None) -> Checkpoint:
    check_files(folder)
    config = VisualGlmConfig.from_pretrained(folder)
    config._name_or_path = str(folder)  # which adapters note
    files = WeightFiles.sharded(folder, "model.safetensors")
    check_count(config.num_layers, len(files.tensors), folder)
    generation_config(folder, config)
    if getattr(config, "quantization_config", None) is None:
        shapes = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}
        files.check(shapes, optional=[HEAD] if config.tie_word_embeddings else [])
    if config.tie_word_embeddings and HEAD in files.tensors:  # as the files have it, whatever the config says
        _set_tie(config, files.are_equal(HEAD, EMBEDDINGS))
    processor = _load_processor(folder)
    if tokenizer_folder is not None:
        processor.tokenizer = _load_tokenizer(folder, tokenizer_folder)
    _check_tokenizer(processor.tokenizer, config, folder)
    _check_processor(processor, config, folder)
    entries = (Entry(name, (name,), Keep()) for name in files.tensors)
    return Checkpoint(folder, None, config, NativeWeights(files, entries, config.tie_word_embeddings), processor)


def _open_original(folder: Path, layout: SourceLayout, tokenizer_folder: str | Path | None) -> Checkpoint:
    tokenizer = _load_tokenizer(folder, tokenizer_folder)
    raw = read_json(folder / layout.config_file)
    try:
        config = read_config(raw, layout, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    except CheckpointError as err:
        raise CheckpointError(f"{folder}: {err}") from err
    _check_tokenizer(tokenizer, config, folder)
    fine_tune = None
    if layout.config_file == SAT.config_file:
        files, fine_tune = split(WeightFiles.sat(folder))
    else:
        files = WeightFiles.sharded(folder, "pytorch_model.bin")
    check_count(config.num_layers, len(files.tensors), folder)
    entries = key_map(config, layout)
    state = empty_model(config).state_dict()
    files.check(
        {entry.source: tuple(entry.to_source(state).shape) for entry in entries},
        optional=[entry.source for entry in entries if entry.is_optional],
    )
    head, embeddings = (
        next(entry.source for entry in entries if entry.native == (name,)) for name in (HEAD, EMBEDDINGS)
    )
    _set_tie(config, files.are_equal(head, embeddings))
    config._name_or_path = str(folder)
    size = config.vision_config.image_size
    processor = VisualGlmProcessor(
        image_processor=VisualGlmImageProcessor(size={"height": size, "width": size}),
        tokenizer=tokenizer,
        num_image_tokens=config.num_image_tokens,
    )
    weights = NativeWeights(files, entries, config.tie_word_embeddings)
    return Checkpoint(folder, layout, config, weights, processor, fine_tune)


def _load_native(
    checkpoint: Checkpoint,
    dtype: torch.dtype | None,
    devices: Devices,
    quantizing: BitsAndBytesConfig | None,
    with_vision: bool,
) -> VisualGlmForConditionalGeneration:
    folder = checkpoint.folder
    for name in ("adapter_config.json", "custom_generate"):  # which transformers would follow
        if (folder / name).exists():
            raise CheckpointError(f"{folder} holds {name} beside the weights of a base model. Move it elsewhere.")
    options: Any = {} if with_vision else {"with_vision": False}
    try:
        with quiet_transformers(checkpoint.weights.files.is_small):
            loaded: Any = VisualGlmForConditionalGeneration.from_pretrained(
                folder,
                dtype="auto" if dtype is None else dtype,
                device_map=devices,
                quantization_config=quantizing,
                output_loading_info=True,
                **options,
            )
    except _LIBRARY_ERRORS as err:
        raise CheckpointError(f"{folder} cannot be loaded: {brief(err, _LONGEST_REASON)}.") from err
    model: VisualGlmForConditionalGeneration
    model, report = loaded
    problems = {name: sorted(map(str, keys)) for name, keys in report.items() if keys}
    if problems:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint of this model: {str(problems)[:_LONGEST_REASON]}."
        )
    keep_scales(model)
    note_tie(model)
    return model


def fill_model(
    checkpoint: Checkpoint,
    dtype: torch.dtype | None = None,
    devices: Devices | None = None,
    quantizing: BitsAndBytesConfig | None = None,
    with_vision: bool = True,
) -> VisualGlmForConditionalGeneration:
    """Stream a checkpoint of any layout, as it is stored or quantising it, into a new model; a fine-tune is left out.

    Args:
        checkpoint: From `open_checkpoint`, not quantised.
        dtype: The model's type; None for the checkpoint's own.
        devices: "auto", or where each module goes; None for the CPU.
        quantizing: From `quantization_config`; then `devices` is one device.
        with_vision: See `load_pretrained`.
    """
    config, dtype = checkpoint.config, dtype or checkpoint.weights.dtype
    for part in (config, config.text_config, config.vision_config, config.qformer_config):
        part.dtype = dtype
    model = empty_model(config)
    if not with_vision:
        model.model.drop_vision()
    placement = _choose_devices(model, devices or {"": torch.device("cpu")})
    if quantizing is not None:
        make_quantizable(model, quantizing)
    for name, value in checkpoint.weights.stream():
        if with_vision or not name.startswith(_ENCODER_NAMES):
            assign(model, name, value, _device_of(name, placement), dtype)
    model.tie_weights()
    if quantizing is not None:
        mark_quantized(model)
    if checkpoint.layout is None and (settings := generation_config(checkpoint.folder, config)) is not None:
        model.generation_config = settings
    if len(set(map(str, placement.values()))) > 1:
        dispatch_model(model, device_map=placement, skip_keys=model._skip_keys_device_placement)
    return model


def empty_model(config: VisualGlmConfig) -> VisualGlmForConditionalGeneration:
    """A model of shapes alone, on the meta device."""
    with torch.device("meta"):
        return VisualGlmForConditionalGeneration(config)


def assign(model: nn.Module, name: str, value: Tensor, device: Any, dtype: torch.dtype) -> None:
    """Copy a tensor to its place in a model of shapes, quantised where the layer is.

    Args:
        model: From `empty_model`, with or without `make_quantizable`.
        name: The parameter's.
        value: Its value, of any type and on any device.
        device: Where it is to lie.
        dtype: The type it is to have, if it is not quantised.
    """
    path, _, parameter = name.rpartition(".")
    module = model.get_submodule(path)
    if parameter == "weight" and is_quantizable(module):
        setattr(module, parameter, quantized(module, value.to(device, dtype)))
    else:
        setattr(module, parameter, nn.Parameter(value.to(device, dtype, copy=True)))


def _quantization_of(
    checkpoint: Checkpoint, dtype: torch.dtype | None, quantization: str | None, parts: Sequence[str] | None
) -> BitsAndBytesConfig | None:
    """What is to be quantised of a checkpoint, None also where that was done before it was saved."""
    if quantization is None:
        return None
    config = checkpoint.config
    requested = quantization_config(
        quantization, dtype or checkpoint.weights.dtype, parts, is_head_tied=config.tie_word_embeddings
    )
    return None if getattr(config, "quantization_config", None) else requested


# --- arguments -------------------------------------------------------------------------------------------------------


def _find_run(path_or_id: str | os.PathLike[str]) -> Run | None:
    """The finished run that is meant, if it is one."""
    if path_or_id == "latest" and not Path(path_or_id).exists():
        return Run.open("latest")
    return Run.open(path_or_id) if Run.is_at(path_or_id) else None


def _load_run(
    run: Run, adapter: object, arguments: dict[str, Any]
) -> tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]:
    """A run's base with its adapter, or the model that it tuned as a whole."""
    if adapter is not None:
        raise ConfigError(f"{run.folder} is a run, which has its own adapter. Leave out adapter.")
    if run.adapter is not None:
        loaded: tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor] = build(
            {**run.config["model"], **arguments}, adapter=str(run.adapter)
        )
        return loaded
    settings = {name: run.config["model"][name] for name in ("dtype", "device_map") if name in run.config["model"]}
    return load_pretrained(str(run.result), **{**settings, **arguments})


def _resolve_folder(path_or_id: str | os.PathLike[str]) -> Path:
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; pass the folder of a checkpoint.")
    if not isinstance(path_or_id, str) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path_or_id):
        raise CheckpointError(f"{folder}: there is no such folder.")
    try:
        return Path(snapshot_download(path_or_id, allow_patterns=list(_DOWNLOADED)))
    except (OSError, ValueError) as err:
        reason = str(err).strip().splitlines()[0]
        raise CheckpointError(
            f"{path_or_id!r} is no folder here, and as the id of a model on the hub it could not be fetched: {reason}"
        ) from err


def _resolve_devices(device_map: str | int | torch.device | dict[str, Any] | None) -> Devices:
    """Spell out where a model goes: "auto", or module names ("" is the whole model) to devices."""
    if device_map == "auto":
        return "auto"
    if isinstance(device_map, dict):
        return device_map
    try:
        device = default_device() if device_map is None else torch.device(device_map)
    except RuntimeError as err:
        raise ConfigError(f"device_map must be auto, a device, or a map to devices, got {device_map!r}.") from err
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as err:  # by what is missing: in the build, of devices
        raise ConfigError(
            f"device_map: this machine has no device {str(device)!r}: {brief(err)}. Take auto or cpu."
        ) from err
    return {"": device}


def default_device() -> torch.device:
    """The default device of models: the accelerator where there is one, else the CPU.

    Of several processes each has its own; `trainer.use_cpu` and the environment variable ACCELERATE_USE_CPU count.
    """
    if PartialState._shared_state:  # the choice was made for this process
        device: torch.device = PartialState().device
    elif parse_flag_from_env("ACCELERATE_USE_CPU"):
        device = torch.device("cpu")
    else:
        device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, torch.accelerator.current_device_index())


def describe_device(model: Any) -> str:
    """Device and type of a model, as a text: `bfloat16 on cuda:0 (NVIDIA H100), quantised to nf4`.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
    """
    config = model.config
    devices = sorted({str(parameter.device) for parameter in model.parameters()})
    names = [
        f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device
        for device in devices
    ]
    dtype = str(config.dtype or model.dtype).removeprefix("torch.")
    way = getattr(config, "quantization_config", None)
    kind = "" if way is None else ", quantised to " + ("int8" if way.load_in_8bit else way.bnb_4bit_quant_type)
    return f"{dtype} on {', '.join(names)}{kind}"


def _is_one_device(devices: Devices) -> bool:
    return devices != "auto" and len(set(map(str, devices.values()))) == 1


def resolve_dtype(dtype: torch.dtype | str | None, devices: Devices) -> torch.dtype | None:
    """The target dtype, or None for the checkpoint's own."""
    if dtype is None:
        has_cpu_only = default_device().type == "cpu"
        on_cpu = has_cpu_only if devices == "auto" else all(str(device) == "cpu" for device in devices.values())
        return torch.float32 if on_cpu else None
    if dtype == "auto":
        return None
    resolved = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved not in _DTYPES.values():
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, auto or None, got {dtype!r}.")
    return resolved


def _choose_devices(model: VisualGlmForConditionalGeneration, devices: Devices) -> dict[str, Any]:
    """Choose devices for a model that has no memory of its own yet."""
    if devices != "auto":
        return devices
    placement: dict[str, Any] = infer_auto_device_map(
        model, no_split_module_classes=model._no_split_modules, dtype=model.config.dtype
    )
    if "disk" in placement.values():
        raise CheckpointError(
            "The model does not fit into the memory of this machine's devices. Use a smaller dtype, or"
            " quantization on one device."
        )
    return placement


def _device_of(name: str, placement: dict[str, Any]) -> Any:
    module = name
    while module and module not in placement:
        module = module.rpartition(".")[0]
    if module not in placement:
        raise ConfigError(f"device_map gives no device for {name!r}; it names {', '.join(placement)}.")
    return placement[module]


# --- processor and adapter -------------------------------------------------------------------------------------------


def _load_tokenizer(folder: Path, tokenizer_folder: str | Path | None) -> VisualGlmTokenizer:
    source = folder if tokenizer_folder is None else Path(tokenizer_folder).expanduser()
    if not (source / VOCAB_FILE).is_file():
        if tokenizer_folder is not None:
            raise CheckpointError(f"tokenizer: {source} has no {VOCAB_FILE}; name a folder that has.")
        raise CheckpointError(
            f"{folder} has no tokenizer ({VOCAB_FILE}). Name a folder that has: tokenizer=<folder>, for instance the"
            " same model in the original Hugging Face layout."
        )
    check_files(source)
    try:
        tokenizer: VisualGlmTokenizer = VisualGlmTokenizer.from_pretrained(source)
    except _LIBRARY_ERRORS as err:
        raise CheckpointError(
            f"{source}: {VOCAB_FILE} or tokenizer_config.json cannot be read: {brief(err, _LONGEST_REASON)}."
        ) from err
    return tokenizer


def _load_processor(folder: Path) -> VisualGlmProcessor:
    """The processor of a native checkpoint."""
    try:
        processor: VisualGlmProcessor = VisualGlmProcessor.from_pretrained(folder)
    except _LIBRARY_ERRORS as err:
        raise CheckpointError(
            f"{folder}: the files of its processor or tokenizer cannot be read: {brief(err, _LONGEST_REASON)}."
        ) from err
    return processor


def _check_tokenizer(tokenizer: VisualGlmTokenizer, config: VisualGlmConfig, folder: Path) -> None:
    text = config.text_config
    expected = {
        "bos_token_id": text.bos_token_id,
        "eos_token_id": text.eos_token_id,
        "pad_token_id": text.pad_token_id,
        "mask_token_id": text.mask_token_id,
        "gmask_token_id": text.gmask_token_id,
        "unk_token_id": config.image_token_id,
    }
    problems = [
        f"{name} is {getattr(tokenizer, name)} in the tokenizer and {value} in the model"
        for name, value in expected.items()
        if getattr(tokenizer, name) != value
    ]
    if len(tokenizer) > text.vocab_size:
        problems.append(f"the tokenizer has {len(tokenizer)} pieces, the model {text.vocab_size} embeddings")
    if problems:
        raise CheckpointError(f"{folder} and its tokenizer do not belong together: {'; '.join(problems)}.")


def _check_processor(processor: VisualGlmProcessor, config: VisualGlmConfig, folder: Path) -> None:
    """Compare the sizes of processor and model, and try the processor once."""
    side = config.vision_config.image_size
    size = processor.image_processor.size
    if processor.num_image_tokens != config.num_image_tokens or (size["height"], size["width"]) != (side, side):
        raise CheckpointError(
            f"{folder}: processor_config.json and config.json do not belong together:"
            f" {processor.num_image_tokens} and {config.num_image_tokens} image tokens,"
            f" images of {size['height']} x {size['width']} and {side} x {side}."
        )
    with np.errstate(all="ignore"):  # its result is checked below
        pixels = processor.image_processor(Image.new("RGB", (2, 2), "red"), return_tensors="pt").pixel_values
    if tuple(pixels.shape) != (1, 3, side, side) or not pixels.isfinite().all():
        raise CheckpointError(
            f"{folder}: as processor_config.json says, a picture becomes {tuple(pixels.shape)} numbers."
        )


def attach_adapter(model: Any, adapter: Path, *, name: str = "default", is_checked: bool = True) -> Any:
    """Put a saved peft adapter on a model.

    Args:
        model: The base; its own layers are wrapped in place. Or a `peft.PeftModel`, which gets one adapter more.
        adapter: Folder with adapter_config.json.
        name: What peft is to call it.
        is_checked: Whether to refuse an adapter that was made for another base.

    Returns:
        A `peft.PeftModel`, nothing of it to be trained.

    Raises:
        AdapterError: The folder is not an adapter, or one of another model.
    """
    from peft import PeftModel, get_peft_model_state_dict  # takes seconds to import

    from vglm.model.half_lora import compute_in_type_of_base

    weights = find_weights(adapter)
    if is_checked:
        check_base(adapter, model.get_base_model() if isinstance(model, PeftModel) else model)
    config = read_adapter(adapter, model)
    # Tensors without memory until the stored ones take their place; what changes the base or counts ranks sees numbers.
    is_plain = getattr(config, "init_lora_weights", True) in (True, False, "gaussian")
    options: Any = {"low_cpu_mem_usage": is_plain and config.peft_type != "ADALORA"}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            warnings.filterwarnings("ignore", ".*ensure_weight_tying", UserWarning)  # merging parts the two
            # A pattern may match more modules than have an adapter, and AdaLoRA keeps its ranks under other names
            warnings.filterwarnings("ignore", r"The following \w+_pattern keys did not match", RuntimeWarning)
            warnings.filterwarnings("error", message="Found missing adapter keys")
            if isinstance(model, PeftModel):
                model.add_adapter(name, config, **options)
                model.load_adapter(str(adapter), name, **options)
                tuned = model
            else:
                tuned = PeftModel.from_pretrained(model, str(adapter), adapter_name=name, config=config, **options)
            expected = get_peft_model_state_dict(tuned, adapter_name=name, save_embedding_layers=False)
    except (*_LIBRARY_ERRORS, UserWarning) as err:
        lines = str(err).strip().splitlines() or [type(err).__name__]
        more = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
        reason = " ".join(map(str.strip, lines[:2]))[:_LONGEST_REASON] + more
        raise AdapterError(f"adapter {str(adapter)!r} cannot be put on this model: {reason}") from err
    if strays := sorted(read_weights(weights).keys() - expected.keys()):
        raise AdapterError(
            f"adapter {str(adapter)!r} cannot be put on this model: {len(strays)} of its tensors have no place"
            f" (first: {strays[0][:100]!r})."
        )
    compute_in_type_of_base(tuned)
    return tuned


# --- writing ---------------------------------------------------------------------------------------------------------


@contextmanager
def quiet_transformers(is_quiet: bool = True) -> Iterator[None]:
    """Keep transformers' own progress bars away where they would only flicker."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    if is_quiet:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()
