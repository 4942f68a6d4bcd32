"""The `vglm` command. Each subcommand imports what it needs when it runs, so `--help` answers at once."""

import argparse
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from vglm.errors import WorkbenchError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name; the process's own by default.

    Returns:
        The exit code: 0; 1 when a result did not pass its check and was not published; 2 when something in the input is
        wrong, which one message on stderr explains; 130 when the command was interrupted.
    """
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = parsed.command
    with _stopping_cleanly() as was_stopped:
        try:
            return command(parsed) or 0
        except WorkbenchError as error:
            if not was_stopped.is_set():  # some libraries make an error of their own of an interruption
                print(f"error: {error}", file=sys.stderr)
                return 2
        except KeyboardInterrupt:
            pass
    print("interrupted: nothing was written", file=sys.stderr)
    return 130


@contextmanager
def _stopping_cleanly() -> Iterator[threading.Event]:
    """Let Ctrl-C and a request to terminate end the command through its clean-up; the event says that one came."""
    was_stopped = threading.Event()

    def stop(*_: object) -> None:
        was_stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are none of this thread's business
        yield was_stopped
        return
    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield was_stopped
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


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

    merge = commands.add_parser(
        "merge",
        help="put adapters into plain weights, with a certificate",
        description="Merge the adapter of a run into the base it was trained on (a quantised base is dequantised) and"
        " publish the plain model only if it proves to answer as base and adapter do. Virtual tokens (P-tuning, prompt"
        " tuning) cannot be merged; they are exported beside their base.",
        epilog="example: vglm merge outputs/background/qlora/<time> --output merged --dtype float16",
    )
    add = merge.add_argument
    add(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="run folders, which are not changed, or `latest`; an imported fine-tune (model/ and adapter/) as well",
    )
    add("--output", metavar="DIR", type=Path, required=True, help="folder to write; must not exist or be empty")
    add("--dtype", choices=["float32", "float16", "bfloat16"], help="type of the weights (default: the base's)")
    add("--weights", metavar="W", nargs="+", type=float, default=[], help="of several runs, one number each")
    add(
        "--combine",
        choices=["linear", "cat", "ties", "dare_linear", "dare_ties", "svd"],
        default="cat",
        help="how peft combines several adapters (default: cat, the exact weighted sum)",
    )
    add("--density", metavar="SHARE", type=float, default=0.5, help="of ties and dare: values kept (default: 0.5)")
    add("--seed", type=int, default=1, help="of dare (default: 1)")
    add("--force", action="store_true", help="publish though the base is another or rounding erases the update")
    merge.set_defaults(command=_merge)

    report = commands.add_parser(
        "report",
        help="compare runs, method by method",
        description="Put finished runs side by side, one row for each method with its seeds together: held-out score"
        " with interval, what was forgotten, memory, seconds and size; and each method tested against each other on the"
        " same samples. Runs without an evaluation are evaluated first.",
        epilog="example: vglm report outputs/sweeps/<time> --markdown table.md",
    )
    add = report.add_argument
    add("runs", metavar="RUN", nargs="+", type=Path, help="run folders, or folders with runs below, as of a sweep")
    add("--markdown", metavar="FILE", type=Path, help="write the table to this file as well")
    report.set_defaults(command=_report)
    return parser


def _version() -> str:
    try:
        return metadata.version("visualglm-workbench")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _convert(parsed: argparse.Namespace) -> None:
    from vglm.config import quiet_libraries

    quiet_libraries()
    from vglm.model.export import convert

    written = convert(parsed.source, parsed.destination, to=parsed.to, dtype=parsed.dtype, tokenizer=parsed.tokenizer)
    is_fine_tune = (written / "adapter").is_dir()
    print(f"wrote {written / 'model'} and {written / 'adapter'}" if is_fine_tune else f"wrote {written}")


def _merge(parsed: argparse.Namespace) -> int:
    from vglm.config import quiet_libraries

    quiet_libraries()  # some speak when they are imported
    from vglm.evaluation.certificate import merge_runs
    from vglm.tuning.merge import Combination

    combination = Combination(parsed.weights, parsed.combine, parsed.density, parsed.seed)
    certificate = merge_runs(
        parsed.runs,
        parsed.output,
        dtype=parsed.dtype,
        combination=combination if parsed.weights else None,
        force=parsed.force,
    )
    print(certificate)
    for warning in certificate.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in certificate.problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"wrote {parsed.output}" if certificate.passed else "nothing was published")
    return 0 if certificate.passed else 1


def _report(parsed: argparse.Namespace) -> None:
    from vglm.config import repo_root
    from vglm.evaluation.predictions import write_text
    from vglm.evaluation.sweep import as_markdown, compare_methods, find_runs, print_rows, tabulate

    runs = find_runs(parsed.runs)
    for run in runs:
        if not run.is_evaluated:  # each in a process of its own, so that memory is given back
            print(f"evaluating {run.folder}", file=sys.stderr)
            command = [sys.executable, str(repo_root() / "evaluate.py"), f"run={run.folder}"]
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                raise WorkbenchError(f"{run.folder} could not be evaluated; its own message stands above.")
    rows, tests = tabulate(runs), compare_methods(runs)
    print_rows(rows, tests=tests)
    if parsed.markdown is not None:
        write_text(parsed.markdown, as_markdown(rows, tests))
