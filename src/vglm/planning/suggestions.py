"""Changes that make a run fit, the cheapest first; each is planned to get its figures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftType

from vglm.planning.plan import SCORING, TRAINING, Plan
from vglm.tuning.components import ComponentTuning
from vglm.tuning.methods import CHANGES_BASE

Planner = Callable[[tuple[str, ...]], Plan]
"""Plans the same recipe with more overrides."""

_ENOUGH = 2
"""Number of changes that fit which are shown; the search ends there."""
_PLAIN = ("adamw_torch", "adamw_torch_fused")
_WORTH = 0.02
"""The share of all memory from which an optimizer's states are worth a change."""


@dataclass(frozen=True)
class Change:
    """What to type behind the command.

    Attributes:
        overrides: As on the command line.
        cost: What it costs besides memory, as a text for users.
    """

    overrides: tuple[str, ...]
    cost: str


@dataclass(frozen=True)
class Suggestion:
    """A change, and what the run takes with it."""

    change: Change
    plan: Plan


def suggest(plan: Plan, again: Planner) -> list[Suggestion]:
    """Changes that make a run fit.

    Args:
        plan: One that does not.
        again: Plans with changes.

    Returns:
        Up to two single changes, each of which is enough, the cheapest first; where none is, one of several together;
        where they are not enough either, those together all the same, whose plan then does not fit.
    """
    again = lru_cache(maxsize=None)(again)
    suggestions: list[Suggestion] = []
    for changes in filter(None, _choices(plan)):
        most = Suggestion(changes[-1], again(changes[-1].overrides))
        if most.plan.fits:
            suggestions.append(_relaxed(most, [changes], 0, changes, again)[0])
        if len(suggestions) == _ENOUGH:
            break
    return suggestions or [_together(plan, again)]


def _together(plan: Plan, again: Planner) -> Suggestion:
    """The cheapest changes one on top of the other, those left out that save nothing where it does not fit."""
    taken: list[list[Change]] = []
    best = Suggestion(Change((), ""), plan)
    tried: set[str] = set()
    while not best.plan.fits:
        fresh = [choice for choice in _choices(best.plan) if choice and _name(choice) not in tried]
        if not fresh:
            return best
        tried.add(_name(fresh[0]))
        now = _combined([choice[-1] for choice in (*taken, fresh[0])], again)
        if _excess(now.plan) < _excess(best.plan):
            best, taken = now, [*taken, fresh[0]]
    for number, sizes in enumerate(taken):
        best, taken[number] = _relaxed(best, taken, number, sizes, again)
    return best


def _relaxed(
    best: Suggestion, taken: Sequence[list[Change]], number: int, sizes: list[Change], again: Planner
) -> tuple[Suggestion, list[Change]]:
    """The smallest of the changes of one kind with which it still fits, by halving; they save more one by one."""
    low, high = 0, len(sizes) - 1  # the last one fits
    while low < high:
        middle = (low + high) // 2
        changes = [sizes[middle] if index == number else stages[-1] for index, stages in enumerate(taken)]
        now = _combined(changes, again)
        if now.plan.fits:
            best, high = now, middle
        else:
            low = middle + 1
    return best, sizes[: high + 1]


def _combined(changes: Sequence[Change], again: Planner) -> Suggestion:
    """Several changes as one; of a field that two of them set, the later one's value counts."""
    values = {override.partition("=")[0]: override for change in changes for override in change.overrides}
    combined = Change(tuple(values.values()), "; ".join(change.cost for change in changes))
    return Suggestion(combined, again(combined.overrides))


def _excess(plan: Plan) -> int:
    """Bytes that are missing, over all stages: a stage may need a change before another one's does any good."""
    return sum(max(0, plan.total_of(stage) - plan.machine.memory) for stage in plan.stages)


def _name(changes: Sequence[Change]) -> str:
    return changes[-1].overrides[0].partition("=")[0]


def _choices(plan: Plan) -> Iterator[list[Change]]:
    """Changes of one kind after the other, the cheapest kind first; within a kind the smallest change first."""
    setting = plan.setting
    arguments, method = setting.arguments, setting.method
    adapter = method.lora if isinstance(method, ComponentTuning) else method
    takes_start = str(getattr(adapter, "init_lora_weights", "")).lower().startswith(CHANGES_BASE)
    if not setting.feature_cache:
        yield [Change(("feature_cache=true",), "faster: each picture is encoded once")]
    if SCORING in plan.stages and plan.total_of(SCORING) > plan.machine.memory:
        sizes = list(_halves(arguments.per_device_eval_batch_size))
        yield [Change((f"trainer.per_device_eval_batch_size={size}",), "slower scoring") for size in sizes]
    if setting.dtype == torch.float32 and plan.machine.is_gpu and not takes_start:
        yield [Change(("model.dtype=bfloat16",), "half precision")]
    if plan.stages[TRAINING]["optimizer"] > _WORTH * plan.total and arguments.optim in _PLAIN:
        yield [Change(("trainer.optim=adamw_bnb_8bit",), "8-bit optimizer states")]
    sizes = list(_halves(arguments.per_device_train_batch_size))
    whole = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    changes = [
        Change(
            (f"trainer.per_device_train_batch_size={size}", f"trainer.gradient_accumulation_steps={whole // size}"),
            "the same batch in smaller pieces, slower",
        )
        for size in sizes
        if whole % size == 0
    ]
    yield changes
    is_prefix = isinstance(method, PeftConfig) and method.peft_type is PeftType.PREFIX_TUNING
    if not is_prefix and not arguments.activation_checkpointing and not arguments.gradient_checkpointing:
        yield [Change(("trainer.activation_checkpointing=true",), "each layer computed twice")]
    can_quantize = isinstance(adapter, PeftConfig) and not takes_start
    if can_quantize and setting.quantization is None:
        kind = "QLoRA" if isinstance(adapter, LoraConfig) else "a base in 4 bits"
        yield [Change(("model.quantization=nf4",), f"{kind}: the language model in 4 bits")]
    if can_quantize and setting.quantization in ("nf4", "int4") and setting.quantization_parts is None:
        parts = "model.quantization_parts=[vision,qformer,projection,language_model]"
        yield [Change((parts,), "vision parts in 4 bits too, less accurate")]


def _halves(number: int) -> Iterator[int]:
    while number > 1:
        number //= 2
        yield number


def as_text(overrides: Sequence[Any]) -> str:
    """Overrides as they are typed."""
    return " ".join(f"'{override}'" if "[" in override else override for override in overrides)
