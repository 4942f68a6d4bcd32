"""The `vglm` command. Each subcommand imports what it needs when it runs, so `--help` answers at once."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from vglm.errors import WorkbenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name; the process's own by default.

    Returns:
        The exit code: 0, 2 when something in the input is wrong, which one message on stderr explains, or 130 after
        Ctrl-C.
    """
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = parsed.command
    try:
        command(parsed)
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vglm",
        description="VisualGLM Workbench. Training and evaluation are `python train.py` and `python evaluate.py`.",
        epilog="example: vglm convert visualglm-6b visualglm-6b-native --dtype float16",
    )
    parser.add_argument("--version", action="version", version=f"vglm {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)

    convert = commands.add_parser(
        "convert",
        help="turn a checkpoint into another layout",
        description="Read a VisualGLM in any layout (native, original Hugging Face or SAT) and write it in another. A"
        " fine-tune made with SAT, LoRA or p-tuning, becomes DST/model (its base) and DST/adapter (a peft adapter).",
        epilog="example: vglm convert sat/visualglm-6b native-6b --tokenizer visualglm-6b",
    )
    add = convert.add_argument
    add("source", metavar="SRC", help="checkpoint to read: a folder, which is not changed, or an id on the hub")
    add("destination", metavar="DST", type=Path, help="folder to write; must not exist or be empty")
    add("--to", choices=["native", "hf", "sat"], default="native", help="layout to write (default: %(default)s)")
    add("--dtype", choices=["float32", "float16", "bfloat16"], help="type of the tensors (default: the source's)")
    add("--tokenizer", metavar="DIR", type=Path, help="folder with ice_text.model, which the SAT layout lacks")
    convert.set_defaults(command=_convert)
    return parser


def _version() -> str:
    try:
        return metadata.version("visualglm-workbench")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _convert(parsed: argparse.Namespace) -> None:
    from vglm.model.export import convert

    written = convert(parsed.source, parsed.destination, to=parsed.to, dtype=parsed.dtype, tokenizer=parsed.tokenizer)
    is_fine_tune = (written / "adapter").is_dir()
    print(f"wrote {written / 'model'} and {written / 'adapter'}" if is_fine_tune else f"wrote {written}")
