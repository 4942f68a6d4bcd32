"""Limits on the settings of an untrusted checkpoint, checked before anything is built from them.

An untrusted checkpoint is data: its settings may not name code, files elsewhere or patterns, nor sizes beyond what its
weight files hold.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from vglm.errors import CheckpointError, brief
from vglm.model.checkpoint import read_json
from vglm.model.configuration import VisualGlmConfig

LARGEST_INTEGER = 2**20
"""Of a configuration; the largest of the published one is the vocabulary's size, 130,528."""

PLAIN_NAME = re.compile(r"[\w.]+")
"""The name of a module, as opposed to a pattern."""

_LONGEST_PATH = 200
_MOST_LAYERS = 3_000  # of all parts together; the published model has 79
_TENSORS_A_LAYER = 12  # at least
_MOST_AT_ONCE = 1_000  # beams or sequences
_ATTENTION = {None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention"}
_PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
)
_CONFIGS = ("config.json", "processor_config.json", "preprocessor_config.json")
_OTHER_WEIGHTS = "transformers_weights"
_PATTERNS = "llm_int8_skip_modules"
_SKIPPED_AT_MOST = 10_000
_NUMBERS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty")
_COUNTS = ("max_new_tokens", "max_length", "min_new_tokens", "min_length")


def check_files(folder: Path) -> None:
    """Check the small files of a checkpoint that transformers reads by itself.

    Args:
        folder: The checkpoint, or the one that the tokenizer comes from.

    Raises:
        CheckpointError: One is damaged, too large or no regular file, or a setting asks for more than any model needs,
            or names code, files or patterns.
    """
    for name in _PROCESSOR_FILES:
        if (folder / name).exists():
            read_json(folder / name)
    for name in _CONFIGS:
        if (folder / name).exists():
            _check_config(folder / name)


def _check_config(file: Path) -> None:
    for path, value in _settings(read_json(file)):
        name = path[-1]
        where = f"{file}: {'.'.join(path)[:_LONGEST_PATH]}"
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise CheckpointError(f"{where} must be at most {LARGEST_INTEGER:,}, got {str(value)[:30]}.")
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise CheckpointError(f"{where} must be a finite number, got {value}.")
        if any(part.endswith("_implementation") for part in path) and not _is_known_attention(value):
            allowed = ", ".join(sorted(filter(None, _ATTENTION)))
            raise CheckpointError(
                f"{where} names {str(value)[:100]!r}, which would be fetched and run. Known: {allowed}."
            )
        if name == _OTHER_WEIGHTS:
            raise CheckpointError(f"{where} names another file of weights. Remove the setting.")
        if name == "quantization_config" and value is not None:
            _check_quantization(value, where)


def _settings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of nested settings, containers included, below the names that lead to it."""
    if path:
        yield path, value
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in rows:
        yield from _settings(item, (*path, str(key)))


def _is_known_attention(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str | None) and value in _ATTENTION)


def _check_quantization(settings: Any, where: str) -> None:
    method = settings.get("quant_method") if isinstance(settings, dict) else settings
    if method != "bitsandbytes":
        raise CheckpointError(
            f"{where} must be that of bitsandbytes, the one kind that the workbench reads, found {str(method)[:100]!r}."
        )
    skipped = settings.get(_PATTERNS) or []
    is_plain = isinstance(skipped, list) and len(skipped) <= _SKIPPED_AT_MOST
    if not is_plain or not all(isinstance(module, str) and PLAIN_NAME.fullmatch(module) for module in skipped):
        raise CheckpointError(f"{where}.{_PATTERNS} must be a list of names of modules.")


def check_count(layers: int, tensors: int, folder: Path) -> None:
    """Refuse a configuration that asks for more layers than its weight files can hold.

    Args:
        layers: That the configuration asks for, of all parts together.
        tensors: How many there are.
        folder: The checkpoint, for the message.

    Raises:
        CheckpointError: It does.
    """
    most = min(_MOST_LAYERS, tensors // _TENSORS_A_LAYER)
    if layers > most:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint of this model: its configuration asks for {layers:,} layers, its"
            f" weight files hold {tensors:,} tensors, enough for {most:,}."
        )


def generation_config(folder: Path, config: VisualGlmConfig) -> GenerationConfig | None:
    """The settings of generation of a native checkpoint.

    Args:
        folder: The checkpoint.
        config: The model's configuration.

    Returns:
        The settings, None where there are none.

    Raises:
        CheckpointError: The file is damaged, or asks for longer or more answers than the model can give.
    """
    file = folder / GENERATION_CONFIG_NAME
    if not file.exists():
        return None
    settings = read_json(file)
    longest = config.text_config.max_position_embeddings
    limits = dict.fromkeys(_COUNTS, longest) | dict.fromkeys(("num_beams", "num_return_sequences"), _MOST_AT_ONCE)
    for name, most in limits.items():
        value = settings.get(name)
        if value is not None and not (type(value) is int and 0 <= value <= most):
            raise CheckpointError(f"{file}: {name} must be an integer from 0 to {most:,}, got {str(value)[:100]}.")
    for name in _NUMBERS:
        value = settings.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise CheckpointError(f"{file}: {name} must be a number, got {str(value)[:100]}.")
    try:
        return GenerationConfig.from_dict(settings)
    except Exception as err:  # of whatever kind: its settings are checked by hand, one by one
        raise CheckpointError(f"{file} is no setting of generation: {brief(err)}.") from err
