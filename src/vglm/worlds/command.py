"""The command lines of the synthetic worlds: check the numbers, write the set, say what went wrong in one line."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vglm.errors import WorkbenchError
from vglm.worlds import MARKER


def write_set(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    least: Mapping[str, int],
    write: Callable[..., None],
) -> int:
    """Run one command line.

    Args:
        parser: Its options are the arguments of `write`, `folder` and `seed` among them.
        arguments: Without the program's name; the process's own if None.
        least: The smallest value of each number.
        write: Writes the set.

    Returns:
        The exit code: 0, or 2 with a message on stderr.
    """
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    for name, smallest in least.items():
        if options[name] < smallest:
            parser.error(f"--{name.replace('_', '-')} must be at least {smallest}, got {options[name]}.")
    try:
        write(**options)
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (Path(options["folder"]) / MARKER).write_text(f"{parser.prog}, seed {options['seed']}\n", encoding="utf-8")
    print(f"{options['folder']}: written with seed {options['seed']}.")
    return 0
