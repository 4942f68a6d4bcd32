"""Which base model an adapter belongs to, kept beside the adapter in `base_model.json`.

    {"version": 2, "name": "visualglm_tiny", "config_sha256": "5b0e...", "weights_xxh3": "91c4..."}

An adapter is a difference to the numbers it was trained on: on other weights it loads without complaint and answers
nonsense. Both hashes are those of the checkpoint, not of the model in memory, so an adapter can be used with its base
in another layout, precision or quantisation. Records of version 1, without the key, name `weights_sha256`; that slower
hash is computed only to check such a record. The hash of a checkpoint is cached, so the checkpoint is read once for it.
It detects mistakes, not forgeries: whoever can write an adapter can also write its record.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vglm.errors import AdapterError
from vglm.files import write_json
from vglm.model.checkpoint import NativeWeights, read_json
from vglm.model.configuration import VisualGlmConfig
from vglm.model.conversion import describe_architecture
from vglm.model.hashing import ALGORITHMS, Algorithm, hash_tensors

RECORD = "base_model.json"
_VERSION = 2
_SAMPLED = 16  # numbers of each parameter
_WRAPPER = re.compile(r"\.(base_layer|original_module)(?=\.)")  # where peft keeps a base parameter
_ADDED = re.compile(r"\.(lora_\w+|ia3_\w+|modules_to_save|token_adapter)\.")  # parameters of peft's own

logger = logging.getLogger(__name__)


def hash_config(config: VisualGlmConfig) -> str:
    """SHA-256 over the settings that decide what a model computes."""
    return hashlib.sha256(json.dumps(describe_architecture(config), sort_keys=True).encode()).hexdigest()


@dataclass
class _Source:
    """The checkpoint that a model was read from, and by what its parameters are known again.

    Attributes:
        weights: The checkpoint.
        seen: Parameter -> how often it was written to in place, and some of its numbers.
        dtypes: Parameter -> the type it was loaded in.
    """

    weights: NativeWeights
    seen: dict[str, tuple[int, Tensor]]
    dtypes: dict[str, torch.dtype]


def note_source(model: nn.Module, weights: NativeWeights) -> None:
    """Record with a model which checkpoint it was read from; nothing is hashed yet."""
    parameters = dict(_base_parameters(model))
    seen = {name: (parameter._version, _sample(parameter)) for name, parameter in parameters.items()}
    model.__dict__["source_weights"] = _Source(
        weights, seen, {name: parameter.dtype for name, parameter in parameters.items()}
    )


def stored_weights(model: nn.Module) -> NativeWeights | None:
    """The checkpoint that a model was read from, even if its parameters were changed since."""
    source = model.__dict__.get("source_weights")
    return source.weights if isinstance(source, _Source) else None


def is_from_checkpoint(model: nn.Module) -> bool:
    """Whether a model's identity is that of a checkpoint, though parts of it be dropped."""
    return stored_weights(model) is not None


def is_adapted(parameter: str) -> bool:
    """Whether the name of a parameter shows that peft added it, or keeps something else in its place."""
    return bool(_ADDED.search(f".{parameter}") or _WRAPPER.search(parameter))


def hash_weights(model: nn.Module, algorithm: Algorithm = "xxh3") -> str:
    """The identity of a model: a hash over names, shapes and numbers of its tensors, tied ones once.

    Args:
        model: A base model; an adapter on it does not count.
        algorithm: How; see `vglm.model.hashing`.

    Returns:
        Hexadecimal digits: those of the checkpoint that `load_pretrained` read, in whatever precision it was loaded,
        else, also where weights were changed in memory, those of the parameters as they are.
    """
    source = _unchanged_source(model)
    return source.hash(algorithm) if source else hash_tensors(_base_parameters(model, is_all=True), algorithm)


def hash_parts(model: nn.Module, prefixes: tuple[str, ...]) -> str:
    """The identity of parts of a model as they are in memory, but for rounding to another float type.

    Args:
        model: A base model.
        prefixes: Of the names of their parameters.
    """
    parts = {name: parameter for name, parameter in _base_parameters(model, is_all=True) if name.startswith(prefixes)}
    is_as_stored = all(part.is_floating_point() for part in parts.values())  # and not quantised
    source = _unchanged_source(model, prefixes) if is_as_stored else None
    return source.hash(prefixes=prefixes) if source else hash_tensors(parts.items())


def recorded_hash(record: Mapping[str, Any], prefix: str = "") -> tuple[Algorithm, str]:
    """The identity of the base model that a record names, and how it was computed.

    Args:
        record: The content of `base_model.json`, or with the prefix `base_` that of a `run.json`.
        prefix: Of the key.

    Raises:
        KeyError: There is none.
    """
    for algorithm in ALGORITHMS:
        if isinstance(digest := record.get(f"{prefix}weights_{algorithm}"), str):
            return algorithm, digest
    raise KeyError(f"{prefix}weights_{ALGORITHMS[0]}")


def _base_parameters(model: nn.Module, *, is_all: bool = False) -> Iterator[tuple[str, nn.Parameter]]:
    """The base's parameters without peft's own, by the base's names; those with numbers to compare, or all."""
    rows = dict(model.named_parameters())
    wrapped = {name[: match.start()] for name in rows if (match := _WRAPPER.search(name))}
    for name, parameter in rows.items():
        if not _WRAPPER.search(name) and any(name[: dot.start()] in wrapped for dot in re.finditer(r"\.", name)):
            continue  # of the adapter, not of the wrapped module
        if is_all or (parameter.is_floating_point() and not parameter.is_meta):
            yield _WRAPPER.sub("", name), parameter


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: max(1, len(flat) // _SAMPLED)].cpu().clone()


def _unchanged_source(model: nn.Module, prefixes: tuple[str, ...] = ("",)) -> NativeWeights | None:
    """The checkpoint that a model was read from, if the weights under these names are still that checkpoint's.

    What an adapter is on is frozen, so it counts as unchanged; PiSSA and its like move a part of the base into the
    adapter, and both together are the base. Else parameters that were written to, or whose sample differs, are compared
    with the checkpoint in full.
    """
    source = model.__dict__.get("source_weights")
    if not isinstance(source, _Source):
        return None
    if any(is_adapted(name) for name, _ in model.named_parameters()):
        return source.weights
    for name, parameter in _base_parameters(model):
        if not name.startswith(prefixes):
            continue
        if name not in source.seen:
            return None
        version, sample = source.seen[name]
        now = _sample(parameter)
        if parameter._version <= version and torch.equal(now, sample.to(parameter.dtype)):
            continue
        stored = source.weights[name].to(source.dtypes[name]).to(parameter.dtype)
        if not torch.equal(parameter.detach().cpu(), stored):
            return None
        source.seen[name] = parameter._version, now
    return source.weights


def write_record(folder: Path, model: Any) -> None:
    """Note in an adapter's folder which base model it belongs to.

    Args:
        folder: The adapter.
        model: Its base, a `VisualGlmForConditionalGeneration`.
    """
    record = {
        "version": _VERSION,
        "name": Path(model.name_or_path or "").name,
        "config_sha256": hash_config(model.config),
        f"weights_{ALGORITHMS[0]}": hash_weights(model),
    }
    write_json(folder / RECORD, record)


def check_base(adapter: Path, model: Any) -> None:
    """Refuse an adapter of another base model; one without a record gets a warning in the log.

    Args:
        adapter: The adapter's folder.
        model: The base it is to go on.

    Raises:
        AdapterError: The record names another base, or cannot be read.
    """
    path = adapter / RECORD
    if not path.exists():
        logger.warning("adapter '%s' has no %s, so nothing tells whether this is its base model.", adapter, RECORD)
        return
    record = read_json(path, error=AdapterError)
    try:
        algorithm, weights = recorded_hash(record)
    except KeyError as err:
        raise AdapterError(
            f"{path} names no weights: expected {err}. Restore the file, or remove it to put the adapter on any base."
        ) from err
    for what, expected, compute in (
        ("configuration", record.get("config_sha256"), lambda: hash_config(model.config)),  # first: it costs nothing
        ("weights", weights, lambda: hash_weights(model, algorithm)),
    ):
        if expected != (actual := compute()):
            raise AdapterError(
                f"adapter {str(adapter)!r} belongs to another base model: expected {str(record.get('name'))[:100]!r}"
                f" with {what} {str(expected)[:12]}, found {Path(model.name_or_path or '').name!r} with {actual[:12]}."
                " Load it on the base it was trained on, or pass adapter_check=False to put it on this one all the"
                " same."
            )
