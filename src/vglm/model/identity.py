"""Which base model an adapter belongs to, kept beside the adapter in `base_model.json`.

    {"name": "visualglm_tiny", "config_sha256": "5b0e...", "weights_sha256": "91c4..."}

An adapter is a difference to the numbers it was trained on: on other weights it loads without complaint and answers
nonsense. Both hashes are those of the checkpoint, not of what was made of it in memory, so an adapter may go on its
base in another layout, precision or quantisation.
"""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

from torch import nn

from vglm.errors import AdapterError, CheckpointError
from vglm.model.checkpoint import NativeWeights, hash_tensors, read_json
from vglm.model.configuration import VisualGlmConfig
from vglm.model.conversion import describe_architecture

RECORD = "base_model.json"
_HASHES = {"config_sha256": "configuration", "weights_sha256": "weights"}
_WRAPPER = re.compile(r"\.(base_layer|original_module)(?=\.)")  # where peft keeps a base parameter
_ADDED = re.compile(r"\.(lora_\w+|ia3_\w+|modules_to_save|token_adapter)\.")  # parameters of peft's own

logger = logging.getLogger(__name__)


def hash_config(config: VisualGlmConfig) -> str:
    """SHA-256 over the settings that decide what a model computes."""
    return hashlib.sha256(json.dumps(describe_architecture(config), sort_keys=True).encode()).hexdigest()


def note_source(model: nn.Module, weights: NativeWeights) -> None:
    """Remember with a model which checkpoint it was read from; nothing is hashed yet."""
    model.__dict__["source_weights"] = weights


def is_from_checkpoint(model: nn.Module) -> bool:
    """Whether a model's identity is that of a checkpoint, whatever becomes of its parameters."""
    return isinstance(model.__dict__.get("source_weights"), NativeWeights)


def is_adapted(parameter: str) -> bool:
    """Whether the name of a parameter shows that peft added it, or keeps something else in its place."""
    return bool(_ADDED.search(f".{parameter}") or _WRAPPER.search(parameter))


def hash_weights(model: nn.Module) -> str:
    """The identity of a model: SHA-256 over names, shapes and numbers of its tensors, tied ones once.

    Args:
        model: A base model; an adapter on it does not count.

    Returns:
        64 hexadecimal digits: those of the checkpoint that `load_pretrained` read, in whatever precision it was loaded,
        else those of the parameters as they are.
    """
    source = model.__dict__.get("source_weights")
    if isinstance(source, NativeWeights):
        return source.digest
    own = ((name, each) for name, each in model.named_parameters() if not _ADDED.search(f".{name}"))
    return hash_tensors((_WRAPPER.sub("", name), each) for name, each in own)


def write_record(folder: Path, model: Any) -> None:
    """Note in an adapter's folder which base model it belongs to.

    Args:
        folder: The adapter.
        model: Its base, a `VisualGlmForConditionalGeneration`.
    """
    record = {
        "name": Path(model.name_or_path or "").name,
        "config_sha256": hash_config(model.config),
        "weights_sha256": hash_weights(model),
    }
    (folder / RECORD).write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def check_base(adapter: Path, model: Any) -> None:
    """Refuse an adapter of another base model; one without a record gets a warning in the log.

    Args:
        adapter: The adapter's folder.
        model: The base it is to go on.

    Raises:
        AdapterError: The record names another base, or cannot be read.
    """
    if not (adapter / RECORD).is_file():
        logger.warning("adapter '%s' has no %s, so nothing tells whether this is its base model.", adapter, RECORD)
        return
    try:
        record = read_json(adapter / RECORD)
    except CheckpointError as err:
        raise AdapterError(f"adapter {str(adapter)!r}: {err}") from err
    for key, compute in (
        ("config_sha256", lambda: hash_config(model.config)),  # first: it costs nothing
        ("weights_sha256", lambda: hash_weights(model)),
    ):
        if record.get(key) != (found := compute()):
            raise AdapterError(
                f"adapter {str(adapter)!r} belongs to another base model: expected {record.get('name')!r} with"
                f" {_HASHES[key]} {str(record.get(key))[:12]}, found {Path(model.name_or_path or '').name!r} with"
                f" {found[:12]}. Load it on the base it was trained on, or pass adapter_check=False to put it on this"
                " one all the same."
            )
