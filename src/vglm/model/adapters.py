"""Read an adapter from an untrusted source: settings are checked, patterns resolved to names, ranks bounded.

    config = read_adapter(Path("outputs/.../adapter"), model)       a `peft.PeftConfig` that is safe to build

peft treats several settings as regular expressions and matches them against every module's name with an engine that may
not terminate in reasonable time. It also imports a module that a setting names, and allocates tensors as large as the
settings say. Here patterns are matched with a time limit, and peft gets the names that they match; settings that name
code or other files are refused; ranks are at most those of the stored tensors. From a pickle (`adapter_model.bin`) only
tensors are read.
"""

import dataclasses
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import regex
from huggingface_hub.dataclasses import type_validator
from torch import Tensor, nn

from vglm.errors import AdapterError, CheckpointError, brief
from vglm.model.checkpoint import listing, read_json, read_tensors
from vglm.model.limits import LARGEST_INTEGER, PLAIN_NAME

if TYPE_CHECKING:
    from peft import PeftConfig

CONFIG_FILE = "adapter_config.json"
WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""As peft names them."""

PREFIX = "base_model.model."
"""What peft puts before the names of tensors."""

_FOR_MATCHING_SECONDS = 1.0
_LONGEST_PATTERN = 10_000  # characters
_MOST_NAMES = 10_000
_LONGEST_INIT = 100  # iterations of `pissa_niter_<n>`
_SEEDS = ("projection_prng_key", "random_seed", "init_seed", "seed")
_RANKS = ("r", "init_r", "target_r")
_PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")
_ALL_LINEAR = "all-linear"
_UNUSED = ("auto_mapping", "base_model_name_or_path", "revision", "runtime_config")  # no effect on the result
_REFUSED = {
    "megatron_config": "makes peft import a package that the adapter names",
    "layer_replication": "makes another model of the base",
}

logger = logging.getLogger(__name__)


def read_adapter(adapter: Path, model: Any) -> "PeftConfig":
    """Check an adapter's folder and make the config that peft puts it on a model with.

    Args:
        adapter: Folder with adapter_config.json and the weights.
        model: The base, with or without other adapters.

    Returns:
        The config, without patterns.

    Raises:
        AdapterError: The folder is not an adapter, or holds what no adapter needs.
    """
    file = find_weights(adapter)
    tensors = read_weights(file)
    _check_finite(tensors, adapter)
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = _read_config(adapter / CONFIG_FILE, _base_modules(base), tensors)
    if config.is_prompt_learning:
        _check_prompt(config, tensors, base, adapter)
    else:
        _check_names(config, tensors, base, file)
    return config


def _base_modules(base: nn.Module) -> list[str]:
    """The names of a base's own modules; those of adapters that it carries stand below what they wrap."""
    modules = dict(base.named_modules())
    wrapped = {name for name in modules if f"{name}.base_layer" in modules or f"{name}.original_module" in modules}
    return [
        name for name in modules if name and not any(name[: dot.start()] in wrapped for dot in re.finditer(r"\.", name))
    ]


def find_weights(adapter: Path) -> Path:
    """The file with an adapter's tensors.

    Raises:
        AdapterError: The folder is not an adapter, or has none.
    """
    if not adapter.is_dir():
        raise AdapterError(f"adapter {str(adapter)!r}: there is no such folder.")
    if not (adapter / CONFIG_FILE).is_file():
        raise AdapterError(
            f"adapter {str(adapter)!r} has no {CONFIG_FILE}; it holds {listing(adapter)}. Pass the adapter/"
            " folder of a run."
        )
    file = next((adapter / name for name in WEIGHT_FILES if (adapter / name).exists()), None)
    if file is None:
        raise AdapterError(
            f"adapter {str(adapter)!r} has no {WEIGHT_FILES[0]}; it holds {listing(adapter)}. Train again, or"
            " restore the file."
        )
    return file


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of an adapter, mapped; a pickle is read as far as it is tensors.

    Raises:
        AdapterError: It is not, or is damaged.
    """
    try:
        return read_tensors(file)
    except CheckpointError as err:
        advice = ""
        if file.suffix == ".bin":
            advice = f" Ask its author for {WEIGHT_FILES[0]}, which holds nothing but tensors."
        raise AdapterError(f"adapter {str(file.parent)!r} cannot be put on this model: {err}{advice}") from err


# --- settings --------------------------------------------------------------------------------------------------------


def _read_config(file: Path, modules: list[str], tensors: Mapping[str, Tensor]) -> "PeftConfig":
    from peft import PeftType  # takes seconds to import
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    settings = read_json(file, error=AdapterError)
    kind = settings.pop("peft_type", None)
    peft_types = {peft_type.value: peft_type for peft_type in PeftType if peft_type in PEFT_TYPE_TO_CONFIG_MAPPING}
    if not isinstance(kind, str) or kind not in peft_types:
        raise AdapterError(f"{file}: peft_type must be one that peft knows, such as LORA, got {_short(kind)}.")
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[peft_types[kind]]
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    if unknown := sorted(settings.keys() - fields.keys()):
        logger.warning("%s: peft %s knows no %s; ignored.", file, kind, _short(", ".join(unknown)))
    arguments = {name: value for name, value in settings.items() if name in fields and name not in _UNUSED}
    hints = get_type_hints(config_class)
    for name, value in arguments.items():
        _check_kind(f"{file}: {name}", name, value, hints[name])
    widest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    ranks = {name: arguments[name] for name in _RANKS if arguments.get(name) is not None}
    for key, value in (arguments.get("rank_pattern") or {}).items():
        name, rank = f"rank_pattern.{_short(key)}", len(value) if _is_mask(value) else value
        if type(rank) is not int:
            raise AdapterError(f"{file}: {name} must be a rank, or AdaLoRA's mask of ranks, got {_short(value)}.")
        ranks[name] = rank
    for name, rank in ranks.items():
        if not 1 <= rank <= widest:
            raise AdapterError(f"{file}: {name} is {rank}, but no stored tensor is wider than {widest:,}.")
    arguments = _without_patterns(arguments, modules, file)
    try:
        config: PeftConfig = config_class(**arguments | {"inference_mode": True})
    except Exception as err:  # each kind checks its settings in its own way
        raise AdapterError(f"{file} is no config of {kind}: {brief(err)}.") from err
    if config.is_adaption_prompt or kind == "XLORA" or (config.is_prompt_learning and kind not in _PROMPTS):
        raise AdapterError(f"{file}: adapters of the kind {kind} cannot be checked, so they are not loaded.")
    return config


def _check_kind(where: str, name: str, value: Any, expected: Any) -> None:
    """Check a value against the annotation of its field; numbers may be of either kind."""
    if name in _REFUSED and value is not None:
        raise AdapterError(f"{where} {_REFUSED[name]}, got {_short(value)}. Remove the setting.")
    for number in _numbers(value):
        if not math.isfinite(number) or (abs(number) > LARGEST_INTEGER and name not in _SEEDS):
            raise AdapterError(f"{where} must be at most {LARGEST_INTEGER:,}, got {_short(value)}.")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_settings = isinstance(value, dict) and name.endswith("_config")  # of classes that peft makes itself
    is_name = name == "init_lora_weights" and isinstance(value, str)  # `pissa_niter_<n>` is one
    if value is None or is_settings or is_name or (is_number and expected in (int, float)):
        if is_name and (steps := value.rpartition("_")[2]).isdigit() and int(steps[:9]) > _LONGEST_INIT:
            raise AdapterError(f"{where} must be at most {_LONGEST_INIT} iterations, got {_short(value)}.")
        return
    try:
        type_validator(name, value, expected)
    except (TypeError, RecursionError) as err:
        raise AdapterError(f"{where} must be of the kind {_short(expected)}, got {_short(value)}.") from err


def _numbers(value: Any) -> Iterable[float]:
    """All numbers in nested settings; those too large for a float are infinite."""
    if isinstance(value, int | float):
        try:
            yield float(value)
        except OverflowError:
            yield math.inf
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


# --- patterns --------------------------------------------------------------------------------------------------------


def _is_mask(value: Any) -> bool:
    """Whether a rank is AdaLoRA's list of the ranks that it kept."""
    return isinstance(value, list) and all(isinstance(is_kept, bool) for is_kept in value)


def _without_patterns(settings: Mapping[str, Any], modules: list[str], file: Path) -> dict[str, Any]:
    """Settings in which every pattern is replaced by the names of modules that it matches."""
    result = dict(settings)
    match = _Matcher(modules, file)
    for name, value in settings.items():
        if isinstance(value, str) and name.endswith("_modules") and value != _ALL_LINEAR:
            result[name] = match(name, value)
        elif name in ("modules_to_save", "layers_pattern"):
            for pattern in [value] if isinstance(value, str) else value or []:
                if not PLAIN_NAME.fullmatch(pattern):
                    raise AdapterError(f"{file}: {name} must name modules, got {_short(pattern)}.")
        elif isinstance(value, dict):
            is_pattern = name.endswith("_pattern")
            rows: dict[str, Any] = {}
            for key, entry in value.items():
                if PLAIN_NAME.fullmatch(key):
                    rows.setdefault(key, entry)
                elif not is_pattern:
                    raise AdapterError(f"{file}: {name} must name modules or settings, got {_short(key)}.")
                else:  # the first that matches a module counts, as in peft's `get_pattern_key`
                    for module in match(name, rf"(.*\.)?({key})"):
                        rows.setdefault(module, entry)
            result[name] = rows
        if isinstance(value, list | dict) and len(value) > _MOST_NAMES:
            raise AdapterError(f"{file}: {name} has {len(value):,} entries, more than any model has modules.")
    return result


class _Matcher:
    """Finds the modules that patterns match, all patterns of an adapter within one time limit."""

    def __init__(self, modules: list[str], file: Path) -> None:
        self.modules = modules
        self.file = file
        self.until = time.monotonic() + _FOR_MATCHING_SECONDS

    def __call__(self, setting: str, pattern: str) -> list[str]:
        """The names that a pattern matches as a whole."""
        where = f"{self.file}: {setting} is the pattern {_short(pattern)}"
        if len(pattern) > _LONGEST_PATTERN:
            raise AdapterError(f"{where} of {len(pattern):,} characters; at most {_LONGEST_PATTERN:,} are read.")
        try:
            compiled = regex.compile(pattern)
            return [module for module in self.modules if compiled.fullmatch(module, timeout=self._left())]
        except TimeoutError as err:
            raise AdapterError(f"{where}, which takes for ever to match. Name the modules instead.") from err
        except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as err:
            raise AdapterError(f"{where}, which is none: {brief(err)}.") from err

    def _left(self) -> float:
        if (left := self.until - time.monotonic()) <= 0:
            raise TimeoutError
        return left


# --- tensors ---------------------------------------------------------------------------------------------------------


def _check_finite(tensors: Mapping[str, Tensor], adapter: Path) -> None:
    """Refuse what a training left that has diverged: every answer would be noise."""
    if broken := sorted(name for name, tensor in tensors.items() if not tensor.isfinite().all()):
        raise AdapterError(
            f"adapter {str(adapter)!r}: {len(broken)} of its {len(tensors)} tensors hold NaN or infinity (first:"
            f" {_short(broken[0])}), so its training has diverged. Train again with a lower learning rate, or use an"
            " earlier checkpoint."
        )


def _check_prompt(config: Any, tensors: Mapping[str, Tensor], model: Any, adapter: Path) -> None:
    """Compare the sizes of virtual tokens with the stored table and with the base, before anything is made of them."""
    text = model.config.text_config
    is_prefix = config.peft_type.value == "PREFIX_TUNING"
    sizes = {"token_dim": text.hidden_size, "num_transformer_submodules": 1}
    if is_prefix:
        sizes |= {"num_layers": text.num_hidden_layers, "num_attention_heads": text.num_attention_heads}
    width = 2 * text.num_hidden_layers * text.hidden_size if is_prefix else text.hidden_size
    expected = {"prompt_embeddings": (config.num_virtual_tokens, width)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [f"{name} is {getattr(config, name)}, not {size}" for name, size in sizes.items()]
    wrong = [
        problem for problem, (name, size) in zip(wrong, sizes.items(), strict=True) if getattr(config, name) != size
    ]
    if wrong or shapes != expected:
        raise AdapterError(
            f"adapter {str(adapter)!r} cannot be put on this model: {'; '.join(wrong) or 'its tensors do not fit'};"
            f" expected {expected}, found {_short(shapes)}."
        )


def _check_names(config: Any, tensors: Mapping[str, Tensor], model: nn.Module, file: Path) -> None:
    """Refuse tensors that would replace the base's own."""
    saved = tuple(f"{name}" for name in config.modules_to_save or []) if hasattr(config, "modules_to_save") else ()
    own = {name.replace(".base_layer.", ".") for name in (*model.state_dict(), *dict(model.named_buffers()))}
    for key in tensors:
        name = key.removeprefix(PREFIX)
        module = name.rpartition(".")[0]
        is_copy = any(
            f".{module}.".find(f".{module_name}.") >= 0 or module.endswith(module_name) for module_name in saved
        )
        if ".base_layer." in key or ".original_module." in key or (name in own and not is_copy):
            raise AdapterError(
                f"{file} holds {_short(name)}, a weight of the base model itself. An adapter leaves those alone:"
                " save it again with save_embedding_layers=False."
            )


def _short(value: Any, length: int = 100) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text[:length])[:-1] + "...'" if len(text) > length else repr(value)
