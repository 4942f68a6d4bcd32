"""AdaLoRA in the training loop: ranks are reallocated after each step, and the allocation is saved in checkpoints.

Source: Zhang et al. 2023, "AdaLoRA: adaptive budget allocation for parameter-efficient fine-tuning", as peft's
`AdaLoraModel.update_and_allocate` implements it.
"""

from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from vglm.errors import CheckpointError
from vglm.files import read_json, write_json

_IMPORTANCE_NAME = "rank_importance.safetensors"
_PATTERN_NAME = "rank_pattern.json"
_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def is_adalora(model: Any) -> bool:
    """Whether a model has an AdaLoRA adapter."""
    return isinstance(model, PeftModel) and isinstance(model.base_model, AdaLoraModel)


class RankAllocation(TrainerCallback):
    """Lets AdaLoRA look at the gradients of each step before they are cleared."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Update importances, and mask the ranks that are over the step's budget.

        A step that was left out says nothing of importance: it has no gradients, or, where float16 overflowed, infinite
        ones, which the running averages would never lose.
        """
        config = model.active_peft_config
        if _has_gradients(model) or state.global_step >= config.total_step - config.tfinal:  # then only masks are set
            model.base_model.update_and_allocate(state.global_step)


def _has_gradients(model: Any) -> bool:
    """Whether all that trains has a gradient of finite numbers."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    are_there = all(gradient is not None for gradient in gradients)
    return are_there and all(bool(gradient.isfinite().all()) for gradient in gradients)


def keep_counters_fixed(model: Any) -> None:
    """Keep AdaLoRA's counters of ranks from training, which peft lets them where it widens them to float32.

    Args:
        model: As from `get_peft_model`, of any method.
    """
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


def save_allocation(model: Any, folder: Path) -> None:
    """Write the running importances of all matrices and the ranks kept so far into a checkpoint."""
    allocator = model.base_model.rankallocator
    tensors = {
        f"{average}|{name}": value.detach().cpu().contiguous()
        for average in _AVERAGES
        for name, value in getattr(allocator, average).items()
    }
    save_file(tensors, folder / _IMPORTANCE_NAME)
    pattern = model.active_peft_config.rank_pattern
    write_json(folder / _PATTERN_NAME, pattern or {}, error=CheckpointError)


def load_allocation(model: Any, folder: Path) -> None:
    """Put back what `save_allocation` wrote."""
    allocator = model.base_model.rankallocator
    allocator.reset_ipt()
    for key, tensor in load_file(folder / _IMPORTANCE_NAME, device=str(model.device)).items():
        average, _, name = key.partition("|")
        getattr(allocator, average)[name] = tensor
    model.active_peft_config.rank_pattern = read_json(folder / _PATTERN_NAME, error=CheckpointError) or None
