"""How a subcommand of `vglm` is declared, wherever it lives.

    chat = commands.add("chat", _chat, doing="loading the model", help=..., description=..., example="vglm chat ...")
    chat.add_argument("--image", ...)

`_chat(parsed)` returns an exit code, or None for 0, and imports what it needs when it runs.
"""

import argparse
from collections.abc import Callable
from typing import Any

QUIET = ("-q", "--quiet")
"""Options that leave out progress bars and remarks, of every command."""

WITH_VALUE = ("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p", "--cfg", "-c")
"""Hydra's options that are followed by a value."""

Run = Callable[[argparse.Namespace], int | None]


def add_allow_target(add: Callable[..., object]) -> None:
    """Add the option by which a command builds components of packages of the user's, see `allow_targets`."""
    add(
        "--allow-target",
        metavar="PACKAGE",
        action="append",
        default=[],
        help="a package of yours whose components and metrics may be named, repeatable; what others name is not built",
    )


class Commands:
    """The subcommands of a parser.

    Args:
        parser: The program's.
    """

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._commands: Any = parser.add_subparsers(title="commands", metavar="<command>", required=True)

    def add(
        self, name: str, run: Run, *, doing: str, help: str, description: str, example: str
    ) -> argparse.ArgumentParser:
        """Declare one.

        Args:
            name: As it is typed.
            run: What it calls.
            doing: Printed on stderr after the name, before libraries load.
            help: One line for the list of commands.
            description: For its own help.
            example: Command lines, separated by semicolons.

        Returns:
            Its parser, for its options; the namespace has `command`, `name` and `doing`.
        """
        label = "examples" if ";" in example else "example"
        parser: argparse.ArgumentParser = self._commands.add_parser(
            name, help=help, description=description, epilog=f"{label}: {example}"
        )
        parser.add_argument(
            *QUIET, action="store_true", default=argparse.SUPPRESS, help="only results, warnings and errors"
        )
        parser.set_defaults(command=run, name=name, doing=doing)
        return parser
