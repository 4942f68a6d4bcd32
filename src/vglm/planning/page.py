"""A plan as one table of 80 columns."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vglm.planning.budget import PARTS
from vglm.planning.machine import free_disk
from vglm.planning.measurement import Comparison
from vglm.planning.plan import TRAINING, Plan
from vglm.planning.suggestions import Suggestion, as_text

WIDTH = 80
_NAMES = {
    "vision": "vision transformer",
    "qformer": "Q-Former",
    "language_model": "language model",
    "embeddings": "word embeddings",
    "head": "output head",
    "activations": "kept activations",
    "logits": "logits and loss",
    "optimizer": "optimizer states",
}


def print_plan(plan: Plan, console: Console) -> None:
    """Print what each stage takes, and what else there is to know."""
    unit, digits, name = (10**9, 3, "GB") if plan.total >= 10**9 else (10**6, 1, "MB")
    title = f"{plan.setting.recipe} on {plan.machine.name}: {name} of each stage"
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    for column in ("parameters", *plan.stages):
        table.add_column(column, justify="right", no_wrap=True)
    rows = list(dict.fromkeys(part for stage in plan.stages.values() for part in stage))
    for part in rows:
        sizes = [stage.get(part, 0) for stage in plan.stages.values()]
        count = _parameters(plan, part)
        if any(sizes) or count:
            table.add_row(
                _NAMES.get(part, part), count, *(f"{size / unit:,.{digits}f}" if size else "" for size in sizes)
            )
    table.add_section()
    totals = [f"{plan.total_of(stage) / unit:,.{digits}f}" for stage in plan.stages]
    table.add_row("total", f"{sum(plan.parameters.values()):,}", *totals, style="bold")
    console.print(table)
    console.print(f"[bold]{verdict(plan)}[/bold]")
    for line in _facts(plan):
        console.print(line, markup=False, highlight=False)


def verdict(plan: Plan) -> str:
    """Whether it fits, in one line: `fits, 2.1 GB free`."""
    unit, name = (10**9, "GB") if plan.machine.memory >= 10**9 else (10**6, "MB")
    digits = 1 if abs(plan.machine.memory - plan.total) >= 0.1 * unit else 3
    needed, there = plan.total / unit, plan.machine.memory / unit
    if plan.fits:
        return f"fits, {there - needed:.{digits}f} {name} free"
    return f"does not fit: needs {needed:.{digits}f} {name} of {there:.{digits}f}"


def _parameters(plan: Plan, part: str) -> str:
    if part in PARTS:
        return f"{plan.parameters[part]:,}" if plan.parameters[part] else ""
    return f"{plan.trainable:,}" if part == "gradients" else ""


def _facts(plan: Plan) -> list[str]:
    setting, schedule, arguments = plan.setting, plan.schedule, plan.setting.arguments
    batch = f"{arguments.per_device_train_batch_size} x {arguments.gradient_accumulation_steps}"
    processes = f" x {plan.processes} GPUs" if plan.processes > 1 else ""
    share = plan.trainable / (sum(plan.parameters.values()) or 1)
    rows = setting.rows
    sizes = ", ".join(f"{name} {_size(size)}" for name, size in plan.disk.items())
    lines = [
        f"trains: {plan.trainable:,} parameters, {share:.2%} of the model",
        f"sizes: {setting.sizes_from}",
        f"rows: {setting.lengths_from}; up to {rows[0].tokens} tokens, {setting.longest_answer} learned",
        f"steps: {schedule.steps:,} of {batch}{processes}, {schedule.epochs:.2f} epochs of {setting.sequences:,} rows",
        f"time: {_time(schedule.seconds)}, {schedule.step_seconds:.3g} s a step; {schedule.rate.source}",
        f"host memory while loading: {_size(plan.host)}",
        f"disk: {sizes}; {_size(free_disk(Path(str(arguments.output_dir))))} free",
    ]
    if plan.paged:
        lines.append(f"paged optimizer states, in host memory where the GPU is full: {_size(plan.paged)}")
    return lines


def print_suggestions(suggestions: Sequence[Suggestion], console: Console) -> None:
    """Print what would make it fit, with the exact overrides to type."""
    if not suggestions[0].plan.fits:
        console.print(f"nothing fits; the least, {_size(suggestions[0].plan.total)}, with:")
    else:
        console.print("would fit, the cheapest first:" if len(suggestions) > 1 else "would fit:")
    for suggestion in suggestions:
        if suggestion.change.overrides:
            console.print(f"  {_size(suggestion.plan.total)}: {suggestion.change.cost}", markup=False)
            text = as_text(suggestion.change.overrides)
            typed = textwrap.wrap(text, WIDTH - 8, break_long_words=False, break_on_hyphens=False)
            console.print("\n".join(f"      {line}" for line in typed), markup=False, soft_wrap=True)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print prediction and measurement side by side."""
    unit, name = (10**9, "GB") if comparison.predicted["peak"] >= 10**9 else (10**6, "MB")
    table = Table(title=f"{name} of {TRAINING}, on {comparison.device}", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("", "predicted", "measured", "difference"):
        table.add_column(column, justify="right" if column else "left")
    for part, predicted in comparison.predicted.items():
        measured = comparison.measured[part]
        difference = f"{predicted / measured - 1:+.1%}" if measured else ""
        table.add_row(_NAMES.get(part, part), f"{predicted / unit:,.3f}", f"{measured / unit:,.3f}", difference)
    console.print(table)
    console.print(
        f"seconds a step: {comparison.predicted_seconds:.3g} predicted, {comparison.measured_seconds:.3g} measured\n"
        f"time at the measured rate: {_time(comparison.training_seconds)}"
    )


def _size(size: float) -> str:
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1000:.0f} kB"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
