"""What a run shows before it reports success: the saved result is the trained model, and the training moved it.

    expected = answer_logits(model, batch)
    report = check_saved(folder / "adapter", load_base, batch, expected, device)
    print(report)       |dW|/|W| of 16 modules: 1.1e-02 to 4.0e-02, median 2.3e-02 ...

The result is put on the base once more, as any later user does, so a method whose adapters do not survive saving, or a
base that is not the same twice, is found here. What trains at all is asserted in `vglm.tuning.methods.attach`.
"""

import gc
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vglm.errors import AdapterError
from vglm.model.loading import attach_adapter, load_pretrained
from vglm.model.modeling import IGNORE_INDEX, VisualGlmForConditionalGeneration
from vglm.tuning.components import COMPONENTS
from vglm.tuning.merge import Updates, is_prompt_adapter, merge_adapter, summarise
from vglm.tuning.methods import Tuned

RELOAD_TOLERANCE = 1e-4
"""Largest relative difference of logits between the trained and the reloaded model."""

TOO_SMALL = 1e-3
"""|dW|/|W| of the tuned components as a whole below which answers hardly change."""


@dataclass(frozen=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        reload_difference: Relative difference of the logits, see `relative_difference`.
        updates: What happened to each module; empty for prompt methods, which leave the weights alone, and after full
            tuning, which keeps no base to compare with.
        overall: |dW|/|W| over all weights of the components that were tuned, untouched modules included; None likewise.
    """

    reload_difference: float
    updates: Updates
    overall: float | None

    @property
    def is_too_small(self) -> bool:
        """Whether the weights hardly moved."""
        return self.overall is not None and self.overall < TOO_SMALL

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        facts: dict[str, Any] = {"reload_difference": self.reload_difference}
        if self.overall is not None:
            facts["relative_update"] = {"overall": self.overall, **summarise(self.updates)}
        return facts

    def __str__(self) -> str:
        lines = [f"saved and reloaded: logits differ by {self.reload_difference:.1e}"]
        if self.overall is not None:
            facts = summarise(self.updates)
            largest = ", ".join(f"{name} {value:.1e}" for name, value in facts["largest"].items())
            lines += [
                f"|dW|/|W| of {facts['modules']} modules: {facts['min']:.1e} to {facts['max']:.1e},"
                f" median {facts['median']:.1e}; {self.overall:.1e} over the tuned components",
                f"moved most: {largest}",
            ]
        if self.is_too_small:
            lines.append(
                f"warning: the weights moved by less than {TOO_SMALL:.0e} of their size, so the answers will hardly"
                " change. Raise the learning rate, the number of steps, lora_alpha / r, or tune more layers."
            )
        return "\n".join(lines)


@torch.no_grad()
def answer_logits(model: Tuned, batch: Mapping[str, Tensor]) -> Tensor:
    """The logits from which the tokens of the answers are chosen.

    Args:
        model: With or without an adapter; put into evaluation mode.
        batch: From the collator, with `labels`.

    Returns:
        Shape (labelled tokens of the batch, V), float32, on the CPU.
    """
    model.eval()
    labels = batch["labels"]
    inputs = {name: each.to(model.device) for name, each in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits[:, -labels.shape[1] :]  # virtual tokens stand before the others
    predicts = F.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:] != IGNORE_INDEX
    return logits[predicts.to(logits.device)].float().cpu()


def relative_difference(logits: Tensor, reference: Tensor) -> float:
    """Size of the difference by size of the reference, both without each position's mean, which softmax ignores.

    Args:
        logits: Shape (positions, V).
        reference: Likewise.
    """
    difference, reference = (each - each.mean(-1, keepdim=True) for each in (logits - reference, reference))
    return float(difference.norm() / reference.norm().clamp(min=torch.finfo(reference.dtype).tiny))


def check_saved(
    result: Path,
    load_base: Callable[[], tuple[VisualGlmForConditionalGeneration, Any]],
    batch: Mapping[str, Tensor],
    expected: Tensor,
    device: torch.device,
) -> TrainingReport:
    """Load what a run saved, as a later user will, and compare it with what was trained.

    Args:
        result: The run's adapter/ or model/; removed if it is not what was trained.
        load_base: Loads the base as the run did; called for an adapter.
        batch: Samples to compare on, from the collator.
        expected: `answer_logits` of the trained model on them.
        device: Where that model was.

    Returns:
        The differences.

    Raises:
        AdapterError: The reloaded result gives other logits.
    """
    gc.collect()  # the trained model may still lie in a cycle, and there should be room for the base
    try:
        is_adapter = (result / "adapter_config.json").is_file()
        reloaded: Any
        if is_adapter:
            base, _ = load_base()
            reloaded = attach_adapter(base, result)
        else:
            reloaded, _ = load_pretrained(result, dtype="auto")
        if reloaded.device != device:
            reloaded.to(device)
        difference = relative_difference(answer_logits(reloaded, batch), expected)
        if not difference <= RELOAD_TOLERANCE:
            raise AdapterError(
                f"{result} gives other answers than the trained model: its logits differ by {difference:.1e},"
                f" at most {RELOAD_TOLERANCE:.0e} is allowed. It was removed; the method cannot be saved and reloaded."
            )
    except AdapterError:
        shutil.rmtree(result, ignore_errors=True)
        raise
    if not is_adapter or is_prompt_adapter(reloaded):
        return TrainingReport(difference, {}, None)
    reloaded, updates = merge_adapter(reloaded, result)
    return TrainingReport(difference, updates, _overall(reloaded, updates))


def _overall(model: VisualGlmForConditionalGeneration, updates: Updates) -> float:
    """|dW|/|W| over all matrices of the components in which anything was to move."""
    tuned = [prefixes for prefixes in COMPONENTS.values() if any(f"{name}.".startswith(prefixes) for name in updates)]
    weights = [
        parameter.detach().float().norm()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name.startswith(tuple(prefix for prefixes in tuned for prefix in prefixes))
    ]
    moved = torch.tensor([each.update for each in updates.values()]).norm()
    return (moved / torch.stack(weights).norm()).item() if weights else 0.0
