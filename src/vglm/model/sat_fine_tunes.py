"""Fine-tunes made with the original's own tools, as peft adapters.

SwissArmyTransformer (SAT) keeps what it trained among the weights of the base model:

    transformer.layers.0.attention.query_key_value.original.weight    LoRA: the base's weight
    transformer.layers.0.attention.query_key_value.matrix_A.2         ... and low-rank pairs 0, 1, 2 for q, k, v
    mixins.ptuning.prefix.0                                           p-tuning v2: keys and values of layer 0

`split` takes the two apart; `write_adapter` writes the second as the same function in peft.

**LoRA.** The original gives the fused projection three separate pairs of rank r, each with scale 1 / r (alpha is 1).
peft has a single pair for a module, so the three become one of rank 3r: A = [A_q; A_k; A_v], and B holds B_q, B_k and
B_v in disjoint columns and in the native rows, [head][q, k, v][head size]. With alpha 3 the scale stays 3 / 3r = 1 / r,
so the update is exactly the original's. The zeros of B are ordinary parameters, so training on may fill them. The
attention's output projection has one pair of rank r with alpha 1. The rows of B_q, B_k and B_v are [head][head size]
whichever way the fused rows of the checkpoint run, so checkpoints from before July 2023 need nothing more.

**p-tuning v2.** A tensor [key, value][head][prefix][head size] for each layer becomes peft's table
[prefix][layer][key, value][head][head size]. Neither rotates prefix keys.

Source: THUDM/SwissArmyTransformer:sat/model/finetune/lora2.py, sat/model/finetune/ptuning_v2.py.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vglm.errors import CheckpointError
from vglm.model.checkpoint import WeightFiles, read_tensors
from vglm.model.configuration import VisualGlmConfig

_ORIGINAL = re.compile(r"^(transformer\.layers\.\d+\.attention\.\w+)\.original(\.weight|\.bias)$")
_PAIR = re.compile(r"^transformer\.(?P<module>layers\.\d+\.attention\.\w+)\.matrix_(?P<side>[AB])\.(?P<i>\d+)$")
_PREFIX = re.compile(r"^mixins\.ptuning\.prefix\.(?P<layer>\d+)$")
_PARTS = {"query_key_value": 3, "dense": 1}
_NATIVE = "model.language_model."


@dataclass(frozen=True)
class FineTune:
    """What a SAT checkpoint holds beyond a base model.

    Attributes:
        method: How it was trained.
        weights: Its own tensors.
    """

    method: Literal["LoRA", "p-tuning"]
    weights: WeightFiles

    def __str__(self) -> str:
        return f"a {self.method} fine-tune ({next(iter(self.weights.tensors))!r})"


def split(weights: WeightFiles) -> tuple[WeightFiles, FineTune | None]:
    """Separate the base from what the original's fine-tuning adds to a checkpoint.

    Args:
        weights: The files of a SAT checkpoint.

    Returns:
        The base model's tensors under the names of a plain checkpoint, and the rest, None where there is none.

    Raises:
        CheckpointError: The checkpoint holds both LoRA and p-tuning, which peft cannot combine.
    """
    own: dict[Literal["LoRA", "p-tuning"], list[str]] = {"LoRA": [], "p-tuning": []}
    base = {}
    for key in weights.tensors:
        if _PAIR.match(key):
            own["LoRA"].append(key)
        elif _PREFIX.match(key):
            own["p-tuning"].append(key)
        else:
            base[_ORIGINAL.sub(r"\1\2", key)] = key
    fine_tunes = [FineTune(method, weights.select({key: key for key in keys})) for method, keys in own.items() if keys]
    if len(fine_tunes) > 1:
        raise CheckpointError(
            f"{weights.folder} holds both {fine_tunes[0]} and {fine_tunes[1]}; one model cannot carry both adapters."
            " Merge the LoRA with the original's tools first."
        )
    return weights.select(base), fine_tunes[0] if fine_tunes else None


def write_adapter(fine_tune: FineTune, config: VisualGlmConfig, folder: Path) -> None:
    """Write a fine-tune as a peft adapter of the native base model.

    Args:
        fine_tune: From `split`.
        config: The base model's configuration.
        folder: An existing, empty folder; gets `adapter_config.json` and `adapter_model.safetensors` (float32).

    Raises:
        CheckpointError: Tensors are missing, or their shapes do not fit the model.
    """
    from peft import LoraConfig, PeftConfig, PrefixTuningConfig, TaskType  # takes seconds to import

    files = fine_tune.weights
    tensors = {name: read_tensors(stored.file)[stored.key].float() for name, stored in files.tensors.items()}
    text = config.text_config
    adapter: PeftConfig
    if fine_tune.method == "LoRA":
        state, rank = _lora_state(tensors, config, files.folder)
        adapter = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            inference_mode=True,
            r=rank,
            lora_alpha=1,
            target_modules=sorted({name.rpartition(".lora_")[0] for name in state}),
            rank_pattern={kind: parts * rank for kind, parts in _PARTS.items() if parts > 1},
            alpha_pattern={kind: parts for kind, parts in _PARTS.items() if parts > 1},
        )
        state = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
    else:
        table = _prefix_table(tensors, config, files.folder)
        state = {"prompt_embeddings": table}
        adapter = PrefixTuningConfig(
            task_type=TaskType.CAUSAL_LM,
            inference_mode=True,
            num_virtual_tokens=len(table),
            num_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            token_dim=text.hidden_size,
            num_transformer_submodules=1,
        )
    adapter.save_pretrained(str(folder))
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _lora_state(tensors: Mapping[str, Tensor], config: VisualGlmConfig, folder: Path) -> tuple[dict[str, Tensor], int]:
    """One pair (A, B) for each tuned module, under peft's names without its prefix, and the rank of the original's."""
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _PAIR.match(key)
        assert match is not None  # `split` chose the keys
        modules.setdefault(match["module"], {})[match["side"] + match["i"]] = tensor
    width, heads = config.text_config.hidden_size, config.text_config.num_attention_heads
    rank = min(tensors[min(tensors)].shape)
    state, problems = {}, []
    for module, pairs in modules.items():
        parts = _PARTS.get(module.rpartition(".")[2], 0)
        expected = {f"A{i}": (rank, width) for i in range(parts)} | {f"B{i}": (width, rank) for i in range(parts)}
        shapes = {name: tuple(tensor.shape) for name, tensor in pairs.items()}
        if shapes != expected or int(module.split(".")[1]) >= config.text_config.num_hidden_layers:
            problems.append(f"transformer.{module} has the matrices {shapes}, expected {expected}")
            continue
        state[f"{_NATIVE}{module}.lora_A.weight"] = torch.cat([pairs[f"A{i}"] for i in range(parts)])
        # Block (part, row) x (part, rank), then rows to [head][part][head size].
        blocks = torch.block_diag(*(pairs[f"B{i}"] for i in range(parts)))
        rows = blocks.reshape(parts, heads, -1, parts * rank).transpose(0, 1)
        state[f"{_NATIVE}{module}.lora_B.weight"] = rows.reshape(parts * width, -1).contiguous()
    if problems:
        raise CheckpointError(f"{folder} is not a complete LoRA of this model: {'; '.join(problems)}.")
    return state, rank


def _prefix_table(tensors: Mapping[str, Tensor], config: VisualGlmConfig, folder: Path) -> Tensor:
    """The table of peft, shape (prefix, layers * 2 * hidden)."""
    text = config.text_config
    names = [f"mixins.ptuning.prefix.{i}" for i in range(text.num_hidden_layers)]
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    length = next(iter(shapes))[2:3] or (0,)
    expected = (2, text.num_attention_heads, *length, text.hidden_size // text.num_attention_heads)
    if set(names) != set(tensors) or shapes != {expected}:
        raise CheckpointError(
            f"{folder} is not a complete p-tuning of this model: expected {names[0]!r} to {names[-1]!r}, each of shape"
            f" {expected}, found {len(tensors)} of shape {', '.join(map(str, sorted(shapes)))}."
        )
    stacked = torch.stack([tensors[name] for name in names])  # (layer, key and value, head, prefix, head size)
    return stacked.permute(3, 0, 1, 2, 4).reshape(*length, -1).contiguous()
