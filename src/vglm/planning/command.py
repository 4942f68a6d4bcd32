"""`vglm plan`: its options and its output. Heavy modules are imported when it runs."""

import argparse
import json
import sys
from typing import Any

from vglm.config.commands import Commands, add_allow_target
from vglm.console import is_quiet
from vglm.errors import ConfigError


def add_command(commands: Commands) -> None:
    """Add the parser of `vglm plan`."""
    plan = commands.add(
        "plan",
        _plan,
        doing="reading the recipe",
        help="predict before a training whether it fits, and how long it takes",
        description="Count what a recipe takes of memory, disk and time, before anything loads: each part of the model,"
        " adapter, gradients, optimizer, activations, logits. The weights need not be there. Where it does not fit, the"
        " cheapest change that does. Exit code 0: fits; 1: does not.",
        example="vglm plan recipes=background/qlora model=visualglm_6b --gpu 8GB",
    )
    add = plan.add_argument
    add("settings", metavar="SETTING", nargs="*", help="as for train.py: recipes=..., model=..., any override")
    add("--gpu", metavar="SIZE", help="memory of the GPU it is for, such as 8GB or 16GiB (default: this machine)")
    add("--gpus", metavar="N", type=int, default=1, help="processes that train together, a GPU each (default: 1)")
    add("--measure", action="store_true", help="train some steps here, and compare with the prediction")
    add("--json", action="store_true", help="print the plan as JSON, sizes in bytes")
    add("--samples", metavar="N", type=int, help="plan without the data: number of rows (default: 10000)")
    add("--tokens", metavar="N", type=int, help="likewise: tokens of a row (default: 512)")
    add("--answer-tokens", metavar="N", type=int, help="likewise: those of them that are learned (default: 256)")
    add_allow_target(add)
    _take_settings_anywhere(plan)


def _take_settings_anywhere(parser: argparse.ArgumentParser) -> None:
    """Accept settings after options too, which argparse does not by default."""
    parse: Any = parser.parse_known_args

    def parse_known_args(arguments: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        parsed, rest = parse(arguments, namespace)
        parsed.settings = [*parsed.settings, *(argument for argument in rest if not argument.startswith("-"))]
        return parsed, [argument for argument in rest if argument.startswith("-")]

    parser.parse_known_args = parse_known_args  # type: ignore[assignment]


def _plan(parsed: argparse.Namespace) -> int:
    from rich.console import Console

    from vglm.config import quiet_libraries

    quiet_libraries()
    from vglm.planning.machine import read_gpu, this_machine
    from vglm.planning.measurement import measure, rate_of_thin_models
    from vglm.planning.page import WIDTH, print_comparison, print_plan, print_suggestions
    from vglm.planning.plan import Plan, make_plan
    from vglm.planning.schedule import rate_of
    from vglm.planning.setting import compose_plan, read_setting
    from vglm.planning.suggestions import as_text, suggest

    if parsed.gpus < 1:
        raise ConfigError(f"--gpus must be a positive integer, got {parsed.gpus}.")
    machine = this_machine() if parsed.gpu is None else read_gpu(parsed.gpu)
    assumed = _assumed(parsed)
    for_gpu = machine.is_gpu
    first = read_setting(compose_plan(parsed.settings, for_gpu=for_gpu), for_gpu=for_gpu, assumed=assumed)
    rate = rate_of(machine, first.dtype)
    plan = make_plan(first, machine, rate, parsed.gpus)
    can_run = machine.is_here and parsed.gpus == 1 and plan.fits
    if can_run and not machine.is_gpu and (measured_rate := rate_of_thin_models(plan)) is not None:
        plan = plan.at(measured_rate)

    def again(overrides: tuple[str, ...]) -> Plan:
        if not is_quiet():
            print(f"trying {as_text(overrides)}", file=sys.stderr, flush=True)
        cfg = compose_plan([*parsed.settings, *overrides], for_gpu=for_gpu)
        setting = read_setting(cfg, for_gpu=for_gpu, assumed=assumed, like=first)
        return make_plan(setting, machine, rate, parsed.gpus)

    suggestions = [] if plan.fits else suggest(plan, again)
    if parsed.measure and can_run and not is_quiet():
        print(f"training some steps, each of {plan.schedule.step_seconds:.3g} s or more", file=sys.stderr, flush=True)
    comparison = measure(plan) if parsed.measure else None
    if parsed.json:
        changes = [
            {"overrides": suggestion.change.overrides, "total": suggestion.plan.total, "fits": suggestion.plan.fits}
            for suggestion in suggestions
        ]
        facts = {**plan.as_dict(), "suggestions": changes}
        print(json.dumps(facts if comparison is None else {**facts, "measured": vars(comparison)}, indent=2))
        return 0 if plan.fits else 1
    console = Console(width=WIDTH, highlight=False)
    print_plan(plan, console)
    if suggestions:
        print_suggestions(suggestions, console)
    if comparison is not None:
        print_comparison(comparison, console)
    return 0 if plan.fits else 1


def _assumed(parsed: argparse.Namespace) -> Any:
    """Rows given on the command line; None if none are."""
    from vglm.planning.setting import Assumed

    options = {"samples": parsed.samples, "tokens": parsed.tokens, "answer_tokens": parsed.answer_tokens}
    chosen = {name: value for name, value in options.items() if value is not None}
    for name, value in chosen.items():
        if value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be a positive integer, got {value}.")
    if "tokens" in chosen and "answer_tokens" not in chosen:
        chosen["answer_tokens"] = chosen["tokens"] // 2
    return Assumed(**chosen) if chosen else None
