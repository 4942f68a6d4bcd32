"""Keys of LLaMA-Factory's and ms-swift's YAML files, and what they are called here.

lora_rank: 8              method.r=8
finetuning_type: lora     method=lora
learning_rate: 1e-4       trainer.learning_rate=1e-4      every field of transformers.TrainingArguments
"""

import shlex
from collections.abc import Mapping
from typing import Any

from vglm.config.overrides import top_level_keys
from vglm.config.signatures import read_signature
from vglm.errors import ConfigError, typed

_NOTHING = ""
TRANSLATIONS: Mapping[str, str] = {
    "adapter_name_or_path": _NOTHING,
    "adapters": _NOTHING,
    "cutoff_len": "max_length",
    "dataset": "dataset=own dataset.path",
    "dataset_dir": "dataset.path",
    "do_eval": _NOTHING,
    "do_predict": _NOTHING,
    "do_train": _NOTHING,
    "eval_dataset": "dataset.test",
    "finetuning_type": "method",
    "freeze_aligner": "method=components method.projection=frozen",
    "freeze_llm": "method=components method.language_model=frozen",
    "freeze_vision_tower": "method=components method.vision=frozen",
    "freeze_vit": "method=components method.vision=frozen",
    "image_folder": "dataset.image_dir",
    "load_in_4bit": "model.quantization=nf4",
    "load_in_8bit": "model.quantization=int8",
    "lora_alpha": "method.lora_alpha",
    "lora_dropout": "method.lora_dropout",
    "lora_rank": "method.r",
    "lora_target": "method.target_modules",
    "max_samples": "limit",
    "media_dir": "dataset.image_dir",
    "model": "model=visualglm_6b model.path_or_id",
    "model_name_or_path": "model=visualglm_6b model.path_or_id",
    "model_type": _NOTHING,
    "packing": "packing",
    "pissa_init": "method=pissa",
    "pref_beta": _NOTHING,
    "preprocessing_num_workers": _NOTHING,
    "dataset_num_proc": _NOTHING,
    "quant_bits": "model.quantization",
    "quantization_bit": "model.quantization",
    "split_dataset_ratio": "dataset.division.fractions",
    "stage": _NOTHING,
    "target_modules": "method.target_modules",
    "template": _NOTHING,
    "torch_dtype": "model.dtype",
    "train_type": "method",
    "tuner_type": "method",
    "use_dora": "method=dora",
    "use_rslora": "method=rslora",
    "val_size": "dataset.division.fractions",
    "loraplus_lr_ratio": "method=lora_plus",
}
"""Their key -> ours: a key, choices before a key, or nothing where none is needed."""

_SURE = frozenset(
    {"cutoff_len", "dataset_dir", "do_train", "finetuning_type", "freeze_aligner", "freeze_llm", "freeze_vit"}
    | {"lora_alpha", "lora_dropout", "lora_rank", "lora_target", "model_name_or_path", "model_type", "stage"}
    | {
        "quant_bits",
        "quantization_bit",
        "split_dataset_ratio",
        "target_modules",
        "template",
        "train_type",
        "tuner_type",
    }
    | {"learning_rate", "num_train_epochs", "per_device_train_batch_size"}
)
"""Keys that no file of ours has at its top."""
_UNFROZEN = {
    "freeze_aligner": "method=components method.projection=full",
    "freeze_vision_tower": "method=components method.vision=lora",
    "freeze_vit": "method=components method.vision=lora",
}
"""What is frozen here unless it is named: their key -> what it means where it is false."""
_VALUES = {"full": "full", "freeze": "components", "lora": "lora", "4": "nf4", "8": "int8"}


def translate(key: str) -> str | None:
    """Our name of one of their keys: empty where it is not needed, None where there is no equivalent."""
    ours = TRANSLATIONS.get(key)
    is_trainers = ours is None and key in read_signature("transformers.TrainingArguments").parameters
    return f"trainer.{key}" if is_trainers else ours


def refuse_foreign(values: Mapping[str, Any], source: str, config_name: str) -> None:
    """Refuse a file of another program's, with all its keys in our words and the command that says the same.

    Args:
        values: Its content.
        source: What messages call it.
        config_name: Of the entry point.

    Raises:
        ConfigError: It is one.
    """
    if not _SURE & set(values):
        return
    keys = top_level_keys(config_name)
    lines: list[str] = []
    same: list[str] = []
    command = [*typed(config_name).split(), "~recipes"]
    left: dict[str, list[str]] = {"not needed": [], "there is no such thing here": []}
    for key, value in values.items():
        ours = key if key == "output_dir" else translate(key)
        ours = key if ours is None and key in keys else ours
        if key in _UNFROZEN:
            ours = _UNFROZEN[key] if value is False else _NOTHING
        elif ours and (value is None or (_is_whole(ours) and not value)):  # switched off, or left to the default
            ours = _NOTHING
        if not ours:
            left["not needed" if ours is not None else "there is no such thing here"].append(key)
            continue
        if ours.removeprefix("trainer.") == key:
            same.append(ours)
        else:
            lines.append(f"\n  {key} -> {ours}")
        command += [part for part in _with_value(ours, key, value) if part not in command]
    unchanged = {
        "below trainer, by the same name": [
            name.removeprefix("trainer.") for name in same if name.startswith("trainer.")
        ],
        "the same": [name for name in same if not name.startswith("trainer.")],
    }
    lines += [f"\n  {how}: {', '.join(names)}" for how, names in unchanged.items() if names]
    lines += [f"\n  {why}: {', '.join(names)}" for why, names in left.items() if names]
    if values.get("num_train_epochs") and "max_steps" not in values:  # which comes first where both are set
        command.append("trainer.max_steps=-1")
    *others, last = [part for part in command if part.startswith("method=")] or [""]
    command = [part for part in command if part not in others or part == last]
    raise ConfigError(
        f"{source} has the keys of LLaMA-Factory or ms-swift. Here they are called{''.join(lines)}\nThe same command:"
        f" {shlex.join(command)}"
    )


def _is_whole(ours: str) -> bool:
    """Whether a translation says a value too."""
    return "=" in ours.rpartition(" ")[2]


def _with_value(ours: str, key: str, value: Any) -> list[str]:
    """The overrides that say a key with its value."""
    if _is_whole(ours):
        return ours.split()
    if ours.endswith("dataset.path"):
        return f"{ours}=FILE".split()
    if ours == "method.target_modules" and value == "all":  # the default of methods
        return []
    *choices, ours = ours.split()
    if ours == "dataset.division.fractions" and isinstance(value, float):
        held_out = {"validation": value, "test": value} if key == "val_size" else {"test": value}
        parts = {"train": round(1 - sum(held_out.values()), 6), **held_out}
        value = f"{{{','.join(f'{name}:{part}' for name, part in parts.items())}}}"
    elif isinstance(value, list):
        value = f"[{','.join(map(str, value))}]"
    renamed = _VALUES if ours in ("method", "model.quantization") else {}
    return [*choices, f"{ours}={renamed.get(str(value), value)}"]
