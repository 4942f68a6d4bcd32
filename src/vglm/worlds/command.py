"""The command lines of the synthetic worlds, made from the signatures of the functions that write their sets."""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from vglm.errors import WorkbenchError
from vglm.files import write_text
from vglm.worlds import MARKER


def write_set(
    write: Callable[..., None],
    arguments: Sequence[str] | None,
    *,
    example: str,
    least: Mapping[str, int],
) -> int:
    """Write a set from the command line.

    Args:
        write: Writes the set. It takes `folder`, `seed`, and other whole numbers and choices (`Literal`); their
            descriptions are those of its docstring.
        arguments: Without the program's name; the process's own if None.
        example: Arguments for the help text.
        least: The smallest value of numbers, where that is not 1.

    Returns:
        The exit code: 0, or 2 with a message on stderr.
    """
    spec = write.__globals__.get("__spec__")  # also where it is `__main__`; None where a file was run
    module = write.__module__ if spec is None else spec.name
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=(write.__doc__ or "").partition("\n")[0],
        epilog=f"Example: python -m {module} {example}",
    )
    for parameter in inspect.signature(write, eval_str=True).parameters.values():
        _add(parser, parameter, _description(write, parameter.name))
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    for name, value in options.items():
        if isinstance(value, int) and value < (smallest := least.get(name, 1)):
            parser.error(f"--{name.replace('_', '-')} must be at least {smallest}, got {value}.")
    try:
        write(**options)
        write_text(options["folder"] / MARKER, f"{parser.prog}, seed {options['seed']}\n")
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options['folder']}: written with seed {options['seed']}.")
    return 0


def _add(parser: argparse.ArgumentParser, parameter: inspect.Parameter, description: str) -> None:
    if parameter.annotation is Path:
        parser.add_argument(parameter.name, type=Path, help=description)
        return
    has_default = parameter.default is not parameter.empty
    parser.add_argument(
        f"--{parameter.name.replace('_', '-')}",
        type=int if parameter.annotation is int else str,
        choices=get_args(parameter.annotation) or None,
        required=not has_default,
        default=parameter.default if has_default else None,
        help=f"{description} (default: %(default)s)" if has_default else description,
    )


def _description(write: Callable[..., None], name: str) -> str:
    """What a docstring says of an argument."""
    match = re.search(rf"^ +{name}: (.*(?:\n {{12}}.*)*)", inspect.getdoc(write) or "", re.MULTILINE)
    return "" if match is None else " ".join(match[1].split()).rstrip(".").replace("%", "%%")
