"""Convert a checkpoint from any layout to any other, so that the original's tools can use it, and back.

    convert("visualglm-6b", "visualglm-6b-native")             Hugging Face -> native
    convert("merged", "merged-hf", to="hf")                    native -> Hugging Face, for the original's own code
    convert("sat/xray", "xray", tokenizer="visualglm-6b")      SAT fine-tune -> xray/model and xray/adapter

The original layouts are written with the keys, shapes, shard format and configuration of the published checkpoints. The
Python files that the Hugging Face layout names in `auto_map` are the original's: copy them from its repository.
A Hugging Face checkpoint is read and written shard by shard. SAT's is one file, whose tensors stay memory-mapped to the
source while it is written; only those that are reordered or cast are in memory.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from vglm.errors import CheckpointError, ConfigError
from vglm.files import check_vacant, new_folder, write_json, write_text
from vglm.model.conversion import HUGGING_FACE, SAT, Entry, SourceLayout, key_map, write_config
from vglm.model.identity import write_record
from vglm.model.loading import (
    Checkpoint,
    empty_model,
    fill_model,
    load_pretrained,
    open_checkpoint,
    resolve_dtype,
    save_native,
)
from vglm.model.sat_fine_tunes import write_adapter
from vglm.text.pieces import VOCAB_FILE

Layout = Literal["native", "hf", "sat"]

_LAYOUTS: dict[str, SourceLayout | None] = {"native": None, "hf": HUGGING_FACE, "sat": SAT}
_SHARD_BYTES = 2_000_000_000  # about what the published checkpoint has
_ITERATION = "1"
_TOKENIZER_CONFIG = {
    "name_or_path": "THUDM/visualglm-6b",
    "bos_token": "<sop>",
    "eos_token": "<eop>",
    "end_token": "</s>",
    "gmask_token": "[gMASK]",
    "mask_token": "[MASK]",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "remove_space": False,
    "do_lower_case": False,
    "tokenizer_class": "ChatGLMTokenizer",
    "num_image_tokens": 0,
    "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
}


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: Layout = "native",
    dtype: torch.dtype | str | None = None,
    tokenizer: str | Path | None = None,
) -> Path:
    """Write a checkpoint in another layout, all or nothing.

    Args:
        source: Folder or hub id, see `load_pretrained`, or a SAT fine-tune.
        destination: Folder to make; it appears only when it is whole.
        to: Layout to write: "native", "hf" (the original Hugging Face layout) or "sat".
        dtype: Type to store; None keeps the checkpoint's own.
        tokenizer: Folder with `ice_text.model`, where the source has none.

    Returns:
        The destination: a checkpoint, or for a SAT fine-tune the folders `model` (native base) and `adapter` (peft).

    Raises:
        CheckpointError: The source is damaged or cannot be expressed in the layout, or the destination cannot be
            written.
        ConfigError: The destination exists and is not an empty folder, or an argument cannot work.
    """
    destination = Path(destination)
    if to not in _LAYOUTS:
        raise ConfigError(f"to must be one of {', '.join(_LAYOUTS)}, got {to!r}.")
    check_vacant(destination, error=ConfigError)
    target = resolve_dtype(dtype or "auto", {})
    checkpoint = open_checkpoint(source, tokenizer)
    layout = _LAYOUTS[to]
    if checkpoint.fine_tune is not None:
        if layout is not None:
            raise ConfigError(
                f"{source} holds {checkpoint.fine_tune}, which only --to native can write; convert DESTINATION/model"
                " after that."
            )
        _import_fine_tune(checkpoint, destination, target)
        return destination
    if layout is None:
        model, processor = load_pretrained(source, dtype=target or "auto", device_map="cpu", tokenizer=tokenizer)
        save_native(model, processor, destination)
        return destination
    if getattr(checkpoint.config, "quantization_config", None) is not None:
        raise ConfigError(f"{source} is quantised, which the original {layout.name} layout has no form for.")
    raw = write_config(checkpoint.config, layout, target or checkpoint.weights.dtype)
    with new_folder(destination, error=CheckpointError) as folder:
        write = _write_sat if layout is SAT else _write_hugging_face
        write(checkpoint, key_map(checkpoint.config, layout), target or checkpoint.weights.dtype, folder)
        write_json(folder / layout.config_file, raw)
    return destination


def _import_fine_tune(checkpoint: Checkpoint, destination: Path, dtype: torch.dtype | None) -> None:
    assert checkpoint.fine_tune is not None
    with new_folder(destination, error=CheckpointError) as folder:
        model = fill_model(checkpoint, dtype)
        save_native(model, checkpoint.processor, folder / "model")
        (folder / "adapter").mkdir()
        write_adapter(checkpoint.fine_tune, checkpoint.config, folder / "adapter")
        write_record(folder / "adapter", model)


def _write_hugging_face(checkpoint: Checkpoint, entries: Iterable[Entry], dtype: torch.dtype, folder: Path) -> None:
    shards: list[list[Entry]] = [[]]
    room, shapes = _SHARD_BYTES, empty_model(checkpoint.config).state_dict()
    for entry in sorted(entries, key=lambda entry: entry.source):
        size = entry.to_source(shapes).numel() * dtype.itemsize
        if size > room and shards[-1]:
            shards.append([])
            room = _SHARD_BYTES
        shards[-1].append(entry)
        room -= size
    weight_map, total = {}, 0
    with checkpoint.weights.files.progress(f"Writing {HUGGING_FACE.name} layout") as progress:
        for i, shard in enumerate(shards, start=1):
            name = f"pytorch_model-{i:05}-of-{len(shards):05}.bin"
            tensors = {}
            for key, tensor in _stored(checkpoint, shard, dtype):
                tensors[key] = tensor
                weight_map[key] = name
                total += tensor.nbytes
                progress.update(tensor.nbytes)
            torch.save(tensors, folder / name)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    write_json(folder / "tokenizer_config.json", _TOKENIZER_CONFIG)
    shutil.copyfile(checkpoint.processor.tokenizer.vocab_file, folder / VOCAB_FILE)


def _write_sat(checkpoint: Checkpoint, entries: Iterable[Entry], dtype: torch.dtype, folder: Path) -> None:
    write_text(folder / "latest", _ITERATION)
    (folder / _ITERATION).mkdir()
    with checkpoint.weights.files.progress(f"Writing {SAT.name} layout") as progress:
        tensors = {}
        for key, tensor in _stored(checkpoint, entries, dtype):
            tensors[key] = tensor
            progress.update(tensor.nbytes)
        torch.save({"module": tensors}, folder / _ITERATION / "mp_rank_00_model_states.pt")


def _stored(checkpoint: Checkpoint, entries: Iterable[Entry], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """The tensors of an original layout by key, in one type, each with a storage of exactly its size."""
    for entry in entries:
        tensor = entry.to_source({name: checkpoint.weights[name] for name in entry.native}).to(dtype).contiguous()
        # torch.save writes whole storages, and a tensor that is mapped from a safetensors file has all of that file's.
        exact = torch.from_numpy(tensor.view(torch.uint8).numpy())
        yield entry.source, exact.view(dtype)
