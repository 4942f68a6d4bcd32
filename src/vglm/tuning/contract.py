"""Checks before a run reports success: the saved result equals the trained model, and training changed it.

    report = save_and_check(model, processor, folder, batch)    folder/adapter.unverified
    report.publish()                                            folder/adapter, or an AdapterError
    print(report)           |dW|/|W| of 16 modules: 1.1e-02 to 4.0e-02, median 2.3e-02 ...

The saved tensors are compared with those in memory bit by bit. Then the result is loaded as any later user loads it,
attached to the base in memory, and must give the same outputs as the trained model for the same inputs.
`vglm.tuning.methods.attach` asserts which parameters train.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vglm.errors import AdapterError, CheckpointError, brief, typed
from vglm.model.conversion import HEAD
from vglm.model.loading import attach_adapter, open_checkpoint
from vglm.model.modeling import IGNORE_INDEX, VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.runs import UNVERIFIED
from vglm.tuning.components import COMPONENTS
from vglm.tuning.merge import Updates, is_prompt_adapter, merge_adapter, summarise
from vglm.tuning.methods import Tuned, save, saved_tensors, take_off
from vglm.tuning.run_folder import publish

ROUNDINGS = 16
"""Largest relative difference of logits, in units of the number format's precision.

With equal tensors and equal inputs there is none at all. Where a method is saved in another form than it is trained in
(PiSSA), or where the base's memory lies otherwise, arithmetic rounds otherwise: measured were 4 units in float32, and
1.3 in bfloat16 and float16 for a change in the last place of all image features."""

SHARE_OF_EFFECT = 0.25
"""Largest share of the adapter's own effect on the logits that may be lost, however coarse the format."""

TOO_SMALL = 1e-3
"""|dW|/|W| of the tuned components as a whole below which answers hardly change."""


@dataclass(frozen=True)
class TrainingReport:
    """The result of a training.

    Attributes:
        result: The folder that was compared.
        problems: How it differs from what was trained; empty if it does not.
        reload_difference: Relative difference of the logits, see `relative_difference`; None where none could be had.
        noise: The model's own: how much the same inputs twice in one batch move the logits.
        adapter_effect: How much the adapter moves them; None after full tuning.
        updates: What happened to each module; empty for prompt methods, which leave the weights alone, and after full
            tuning, which keeps no base to compare with.
        overall: |dW|/|W| over all weights of the components that were tuned, untouched modules included; None likewise.
    """

    result: Path
    problems: tuple[str, ...] = ()
    reload_difference: float | None = None
    noise: float | None = None
    adapter_effect: float | None = None
    updates: Updates = field(default_factory=dict)
    overall: float | None = None

    def publish(self) -> Path:
        """Give the result its name, `adapter/` or `model/`, if it is what was trained.

        Raises:
            AdapterError: It is not. Nothing is removed; the message says how to look at it.
        """
        if not self.problems:
            return publish(self.result)
        shown, more = self.problems[0], len(self.problems) - 1
        run = self.result.parent
        raise AdapterError(
            f"{self.result} was saved, but is not what was trained: {shown}{f' (and {more} more)' if more else ''}. It"
            f" keeps that name. Look at it: {typed('evaluate')} {shlex.quote(f'run={run}')} unverified=true."
            f" Save and compare it once more: {typed('train')} {shlex.quote(f'resume={run}')}"
        )

    @property
    def is_too_small(self) -> bool:
        """Whether the weights hardly moved."""
        return self.overall is not None and self.overall < TOO_SMALL

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        names = ("reload_difference", "noise", "adapter_effect")
        facts: dict[str, Any] = {"verified": not self.problems, "problems": list(self.problems)}
        facts |= {name: getattr(self, name) for name in names}
        if self.overall is not None:
            facts["relative_update"] = {"overall": self.overall, **summarise(self.updates)}
        return facts

    def __str__(self) -> str:
        lines = []
        if self.reload_difference is not None:
            lines.append(f"saved, equal bit by bit, and reloaded: logits differ by {self.reload_difference:.1e}")
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
    inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs).logits[:, -labels.shape[1] :]  # virtual tokens stand before the others
    predicts = F.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:] != IGNORE_INDEX
    return logits[predicts.to(logits.device)].float().cpu()


def relative_difference(logits: Tensor, reference: Tensor) -> float:
    """Size of the difference by size of the reference, both without each position's mean, which softmax ignores.

    Args:
        logits: Shape (positions, V).
        reference: Likewise.
    """
    difference, reference = (rows - rows.mean(-1, keepdim=True) for rows in (logits - reference, reference))
    return float(difference.norm() / reference.norm().clamp(min=torch.finfo(reference.dtype).tiny))


def measure_noise(model: Tuned, batch: Mapping[str, Tensor]) -> float:
    """How far a model's logits depend on what should not matter: the inputs alone, and twice in one batch.

    Args:
        model: See `answer_logits`.
        batch: Likewise.

    Returns:
        `relative_difference`.
    """
    alone = answer_logits(model, batch)
    twice = answer_logits(model, {name: torch.cat((value, value)) for name, value in batch.items()})
    return relative_difference(twice[: len(alone)], alone)


def save_and_check(
    model: Tuned, processor: VisualGlmProcessor, run_folder: Path, batch: Mapping[str, Tensor]
) -> TrainingReport:
    """Save what a run trained, see `save`, under a name that says it is unverified, and see `check_saved`."""
    return check_saved(model, save(model, processor, run_folder, UNVERIFIED), batch)


def check_saved(model: Tuned, result: Path, batch: Mapping[str, Tensor]) -> TrainingReport:
    """Compare what a run saved with what it trained.

    Args:
        model: What was trained, in memory; it is used up.
        result: What `save` wrote of it.
        batch: Samples to compare on, from the collator.

    Returns:
        The differences, and the problems if there are any.
    """
    try:
        if isinstance(model, PeftModel):
            return _check_adapter(model, result, batch)
        return _check_model(model, result, batch)
    except (AdapterError, CheckpointError, torch.OutOfMemoryError) as error:
        return TrainingReport(result, (f"it could not be compared ({brief(error, 400)})",))


def _check_adapter(model: PeftModel, result: Path, batch: Mapping[str, Tensor]) -> TrainingReport:
    if problems := [*_unequal(_read(result / SAFETENSORS_WEIGHTS_NAME), saved_tensors(model))]:
        return TrainingReport(result, tuple(problems))
    expected = answer_logits(model, batch)
    noise = measure_noise(model, batch)
    base = take_off(model)
    effect = relative_difference(answer_logits(base, batch), expected)
    reloaded = attach_adapter(base, result)
    difference = relative_difference(answer_logits(reloaded, batch), expected)
    limit = tolerance(base.dtype, noise, effect)
    if not difference <= limit:
        problems.append(
            f"its logits differ by {difference:.1e} of their size, at most {limit:.1e} is allowed (the adapter moves"
            f" them by {effect:.1e}, the model's own noise by {noise:.1e})"
        )
    report = TrainingReport(result, tuple(problems), difference, noise, effect)
    if problems or is_prompt_adapter(reloaded):
        return report
    try:
        merged, updates = merge_adapter(reloaded, result)
    except torch.OutOfMemoryError:  # a quantised base is dequantised for it; what was saved is fine
        return report
    return replace(report, updates=updates, overall=_overall(merged, updates))


def _check_model(model: VisualGlmForConditionalGeneration, result: Path, batch: Mapping[str, Tensor]) -> TrainingReport:
    """After full tuning: tensor by tensor as they stream in, and each put in the place of the one in memory."""
    expected = answer_logits(model, batch)
    checkpoint = open_checkpoint(result)
    own = {name: value for name, value in model.state_dict().items() if name != HEAD or not checkpoint.weights.is_tied}
    problems: list[str] = []
    for name, stored in checkpoint.weights.stream("Comparing"):
        trained = own.pop(name)
        problems += _unequal({name: stored}, {name: trained})
        trained.copy_(stored)
    problems += [f"{name} is missing" for name in own]
    difference = relative_difference(answer_logits(model, batch), expected)
    if not difference <= tolerance(model.dtype):
        problems.append(f"its logits differ by {difference:.1e} of their size")
    return TrainingReport(result, tuple(problems), difference)


def tolerance(dtype: torch.dtype | None, noise: float = 0.0, effect: float | None = None) -> float:
    """How far two ways to compute the same logits may be apart.

    Args:
        dtype: What the model computes in; None for float32.
        noise: What the model's own arithmetic does on these inputs, measured.
        effect: What the adapter does to them, measured; None where there is none.

    Returns:
        A `relative_difference`: some roundings of the format, or twice the noise if that is more, but never a good part
        of the effect, except where the effect itself drowns in the noise.
    """
    precise = torch.finfo(torch.float32).eps
    limit = max(ROUNDINGS * torch.finfo(dtype or torch.float32).eps, 2 * noise)
    return limit if effect is None else min(limit, max(SHARE_OF_EFFECT * effect, noise, ROUNDINGS * precise))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} cannot be read: {brief(error)}") from error


def _unequal(stored: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> Iterator[str]:
    """What is wrong with each tensor that is not the same in both, bit by bit."""
    for name in sorted(stored.keys() ^ trained.keys()):
        yield f"{name} is {'missing' if name in trained else 'one too many'}"
    for name in sorted(stored.keys() & trained.keys()):
        one, other = stored[name], trained[name].detach()
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            forms = [f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in (one, other)]
            yield f"{name} is {forms[0]}, what was trained {forms[1]}"
        elif not torch.equal(one, other.to(one.device)):
            yield f"{name} has other numbers"


def _overall(model: VisualGlmForConditionalGeneration, updates: Updates) -> float:
    """|dW|/|W| over all matrices of the components in which anything was to move."""
    tuned = [prefixes for prefixes in COMPONENTS.values() if any(f"{name}.".startswith(prefixes) for name in updates)]
    weights = [
        parameter.detach().float().norm()
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name.startswith(tuple(prefix for prefixes in tuned for prefix in prefixes))
    ]
    moved = torch.tensor([update.update for update in updates.values()]).norm()
    return (moved / torch.stack(weights).norm()).item() if weights else 0.0
