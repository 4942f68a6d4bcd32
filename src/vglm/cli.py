"""The `vglm` command. Each subcommand imports what it needs when it runs, so `--help` answers at once.

`vglm train` and `vglm evaluate` are `train.py` and `evaluate.py`, whatever folder they are called from.
"""

import argparse
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import vglm
from vglm.config.commands import QUIET, Commands, add_allow_target
from vglm.console import be_quiet
from vglm.errors import WorkbenchError, message_of, typed
from vglm.planning.command import add_command as add_plan
from vglm.serving.command import add_commands as add_serving

if TYPE_CHECKING:
    from vglm.data.doctor import Lengths
    from vglm.data.sample import Sample
    from vglm.runs import Run
    from vglm.text.messages import Text
    from vglm.text.prompt import Language


PIPE_CLOSED = 141
"""Exit code for a closed pipe, as shells count signals."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name; the process's own by default.

    Returns:
        The exit code: 0; 1 when a result did not pass its check and was not published; 2 when something in the input is
        wrong, which one message on stderr explains; 130 when the command was interrupted.
    """
    typed = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:  # a process of its own
        from vglm.config.app import announce, prepare_process

        prepare_process()
    if (words := [argument for argument in typed if argument not in QUIET]) and words[0] in SCRIPTS:
        return _run_script(words[0], [argument for argument in typed if argument is not words[0]])
    parsed = command_line().parse_args(typed)
    if parsed.quiet:
        be_quiet()
    if arguments is None and parsed.doing:
        announce(f"vglm {parsed.name}: {parsed.doing}")
    command: Callable[[argparse.Namespace], int | None] = parsed.command
    with _stopping_cleanly() as was_stopped:
        try:
            if packages := getattr(parsed, "allow_target", None):
                from vglm.config import allow_targets

                allow_targets(*packages)
            return command(parsed) or 0
        except WorkbenchError as error:
            if not was_stopped.is_set():  # some libraries make an error of their own of an interruption
                print(f"error: {message_of(error)}", file=sys.stderr)
                return 2
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:  # of `vglm list recipes | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return PIPE_CLOSED
    print("interrupted: nothing was written", file=sys.stderr)
    return 130


def _run_script(name: str, arguments: Sequence[str]) -> int:
    """Run `train.py` or `evaluate.py` as if it had been called itself."""
    from vglm.config import repo_root

    before = sys.argv
    sys.argv = [str(repo_root() / f"{name}.py"), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


@contextmanager
def _stopping_cleanly() -> Iterator[threading.Event]:
    """Let Ctrl-C and a request to terminate end the command through its clean-up; the event says that one came."""
    was_stopped = threading.Event()

    def stop(*_: object) -> None:
        was_stopped.set()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals cannot be handled in this thread
        yield was_stopped
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield was_stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_line() -> argparse.ArgumentParser:
    """The parser of the command line; each command names the function that it calls."""
    parser = argparse.ArgumentParser(
        prog="vglm",
        description="VisualGLM Workbench: fine-tune VisualGLM and see what changed. `vglm <command> --help` says more.",
        epilog="example: vglm convert visualglm-6b visualglm-6b-native --dtype float16",
    )
    parser.add_argument("--version", action="version", version=f"vglm {vglm.__version__}")
    parser.add_argument(*QUIET, action="store_true", help="only results, warnings and errors")
    commands = Commands(parser)
    for name, (help, example) in SCRIPTS.items():
        script = commands.add(
            name,
            lambda parsed: _run_script(parsed.name, parsed.overrides),
            doing="",
            help=help,
            description=f"The same as `python {name}.py`; `vglm {name} --help` shows what it takes.",
            example=example,
        )
        overrides = script.add_argument(
            "overrides", metavar="OVERRIDE", nargs="*", help="<key>=<value>, or a YAML file"
        )
        overrides.complete = dict.fromkeys(("bash", "zsh"), f"_vglm_{name}_overrides")  # type: ignore[attr-defined]

    convert = commands.add(
        "convert",
        _convert,
        doing="reading the checkpoint",
        help="turn a checkpoint into another layout",
        description="Read a VisualGLM in any layout (native, original Hugging Face or SAT) and write it in another. A"
        " fine-tune made with SAT, LoRA or p-tuning, becomes DST/model (its base) and DST/adapter (a peft adapter).",
        example="vglm convert sat/visualglm-6b native-6b --tokenizer visualglm-6b",
    )
    add = convert.add_argument
    add("source", metavar="SRC", help="checkpoint to read: a folder, which is not changed, or an id on the hub")
    add("destination", metavar="DST", type=Path, help="folder to write; must not exist or be empty")
    add("--to", choices=["native", "hf", "sat"], default="native", help="layout to write (default: %(default)s)")
    add("--dtype", choices=["float32", "float16", "bfloat16"], help="type of the tensors (default: the source's)")
    add("--tokenizer", metavar="DIR", type=Path, help="folder with ice_text.model, which the SAT layout lacks")

    export = commands.add(
        "export",
        _export,
        doing="reading the run",
        help="make of a run a folder that can be published",
        description="Write what a run trained, or plain weights, with a model card: base, data hashes, the scores"
        " before and after with their intervals, and the report. The report shows pictures and answers of the test set:"
        " look at it first.",
        example="vglm export outputs/background/lora/<time> --to hub --output background-lora",
    )
    add = export.add_argument
    add("run", metavar="RUN", help="run folder with its evaluation, which is not changed; or `latest`")
    add("--to", metavar="FORM", default="hub", help="hub: as trained; native, hf, sat: plain weights (default: hub)")
    add("--output", metavar="DIR", type=Path, help="folder to write (default: <RUN>-<FORM>)")
    add("--dtype", choices=["float32", "float16", "bfloat16"], help="type of plain weights (default: the base's)")
    add_allow_target(add)

    runs = commands.add(
        "runs",
        _runs,
        doing="looking into the runs",
        help="list the finished runs: recipe, data, score",
        description="List the finished runs below a folder, the newest last: recipe, data, the evaluation's primary"
        " score before and after, when it was started, and its folder.",
        example="vglm runs outputs/sweeps",
    )
    runs.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=Path("outputs"), help="(default: outputs)")

    listing = commands.add(
        "list",
        _list,
        doing="",
        help="list recipes, methods, datasets, metrics, tasks or formats",
        description="List what a config can name, a line each: recipes=<name>, method=<name>, dataset=<name>,"
        " metrics=<name>, task=<name>, dataset.format=<name>.",
        example="vglm list recipes",
    )
    kinds = ["recipes", "methods", "datasets", "metrics", "tasks", "formats"]
    listing.add_argument("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))

    completion = commands.add(
        "completion",
        _completion,
        doing="",
        help="print the completion script for a shell",
        description="Print a script that lets a shell complete commands, options, recipes and other choices.",
        example='eval "$(vglm completion bash)"; vglm completion zsh > "${fpath[1]}/_vglm"',
    )
    completion.add_argument("shell", choices=["bash", "zsh"], help="which shell")

    cache = commands.add(
        "cache",
        _cache,
        doing="looking into the cache",
        help="list or clear what training and evaluation keep: features of pictures, answers, tables",
        description="Frozen vision parts look at each picture once; what they made of it is kept in ~/.cache/vglm, or"
        " where the environment variable VGLM_CACHE says. So are tables of the data, the answers of untuned models"
        " with their questions and references, and what the X-ray recipe learned first. Clearing it costs time only.",
        example="vglm cache --clear",
    )
    cache.add_argument("--clear", action="store_true", help="remove it")

    merge = commands.add(
        "merge",
        _merge,
        doing="reading the runs",
        help="put adapters into plain weights, with a certificate",
        description="Merge the adapter of a run into the base it was trained on (a quantised base is dequantised) and"
        " publish the plain model only if it proves to answer as base and adapter do. Virtual tokens (P-tuning, prompt"
        " tuning) cannot be merged; they are exported beside their base.",
        example="vglm merge outputs/background/qlora/<time> --output merged --dtype float16",
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
    add_allow_target(add)

    protocol = commands.add(
        "protocol",
        _protocol,
        doing="reading the runs",
        help="take the runs of a few-shot curve or a cross-validation together",
        description="Score what `train.py protocol=few_shot` (or k_fold, leave_one_out) has left behind, as one result."
        " Folds are scored together, each sample by the run that did not learn from it. Runs without an evaluation are"
        " evaluated first.",
        example="vglm protocol outputs/background/lora/few_shot/<time>",
    )
    protocol.add_argument(
        "folder", metavar="DIR", type=Path, help="the folder with the runs; `latest`: the newest run's"
    )
    add_allow_target(protocol.add_argument)

    report = commands.add(
        "report",
        _report,
        doing="reading the stored answers",
        help="compare runs, method by method; make an evaluation's report again; tables and figures for a paper",
        description="Put finished runs side by side, one row for each method with its seeds together: held-out score"
        " with interval, what was forgotten, memory, seconds and size; and each method tested against each other on the"
        " same samples. Runs without an evaluation are evaluated first. Given evaluation folders instead, write their"
        " reports again from the stored answers, without model or torch. With --format print the table for a paper"
        " instead, of one evaluation or of the methods; with --output write it with figures, methods and a checklist.",
        example="vglm report outputs/sweeps/<time>; vglm report outputs/background/lora/<time>/evaluation"
        " --format latex --output paper",
    )
    add = report.add_argument
    add("runs", metavar="RUN", nargs="+", type=Path, help="run folders, folders with runs, `latest`; or an evaluation")
    add("--format", choices=["latex", "csv", "markdown"], help="print the table in this form (with --output: markdown)")
    add("--output", metavar="DIR", type=Path, help="folder for table, figures, methods and checklist; must be new")
    add("--language", choices=["en", "zh"], help="of what is written (default: that of VGLM_LANG, else en)")
    add("--markdown", metavar="FILE", type=Path, help=argparse.SUPPRESS)  # as written before --format
    add_allow_target(add)

    score = commands.add(
        "score",
        _score,
        doing="reading the stored answers",
        help="score an evaluation's stored answers again",
        description="Score the answers in an evaluation folder by other metrics than it was made with, or by scores"
        " that another program has given them since, and make its report anew. No answer is generated.",
        example="vglm score outputs/xray/lora/<time>/evaluation"
        " metrics.external.green.scores='green/{arm}.jsonl' metrics.external.green.signature='GREEN-RadLlama2-7b'",
    )
    add = score.add_argument
    add("folder", metavar="DIR", type=Path, help="the evaluation folder, a run with one, or `latest`")
    add("settings", metavar="SETTING", nargs="*", help="metrics.<key>=<value>; see conf/metrics/")
    add_allow_target(add)

    doctor = commands.add(
        "doctor",
        _doctor,
        doing="reading the data",
        help="look a data set over before any training",
        description="Read a data set in any known format and report what it holds, what is wrong with it and what would"
        " spoil a score, in the terminal and as a page. Exit code 0: clean; 1: warnings; 2: unusable.",
        example="vglm doctor data/openi/openi-zh.json --image-dir data/openi/images --fix data/openi_cleaned",
    )
    add = doctor.add_argument
    add("data", metavar="DATA", help="file, folder or hf://owner/name, which is not changed")
    add("--format", metavar="NAME", help="name of the format (default: detected from the content)")
    add("--option", metavar="KEY=VALUE", action="append", default=[], help="option of the format, repeatable")
    add(
        "--columns",
        metavar="PART=NAME,...",
        help="a table's own column names: image=Bild,question=Frage,answer=Antwort",
    )
    add("--image-dir", metavar="DIR", type=Path, help="where the pictures lie (default: beside the file)")
    add("--beside", metavar="DATA", nargs="+", default=[], help="other data for the same model, to compare questions")
    add("--output", metavar="DIR", type=Path, help="where the pages go (default: outputs/doctor/<name of DATA>)")
    add("--fix", metavar="DIR", type=Path, help="write a cleaned copy and the list of changes there; must not exist")
    add("--model", metavar="DIR", type=Path, help="whose tokens to count (default: the tiny model's)")
    add("--max-length", metavar="TOKENS", type=int, help="what a sample may have (default: the model's context)")
    add("--no-images", action="store_true", help="check only what the rows say; no picture is decoded")
    add("--workers", metavar="N", type=int, help="processes that decode pictures (default: one a core)")
    add("--lang", choices=["en", "zh"], help="language of what is said (default: that of VGLM_LANG, else en)")
    add_plan(commands)
    add_serving(commands)
    return parser


SCRIPTS = {
    "train": ("fine-tune a model", "vglm train recipes=background/lora method.r=16; vglm train my.yaml"),
    "evaluate": ("compare before and after a run, or score a model", "vglm evaluate run=latest"),
}
"""The commands that are scripts of the repository: help, and an example."""


def _convert(parsed: argparse.Namespace) -> None:
    from vglm.config import quiet_libraries

    quiet_libraries()
    from vglm.model.export import convert

    written = convert(parsed.source, parsed.destination, to=parsed.to, dtype=parsed.dtype, tokenizer=parsed.tokenizer)
    is_fine_tune = (written / "adapter").is_dir()
    print(f"wrote {written / 'model'} and {written / 'adapter'}" if is_fine_tune else f"wrote {written}")


def _export(parsed: argparse.Namespace) -> None:
    from vglm.config import quiet_libraries

    quiet_libraries()
    from vglm.evaluation.publish import publish
    from vglm.runs import Run

    run = Run.open(parsed.run)
    output = parsed.output or run.folder.with_name(f"{run.folder.resolve().name}-{parsed.to}")
    print(f"wrote {publish(run, output, to=parsed.to, dtype=parsed.dtype)}; its report shows the test set's pictures")


def _runs(parsed: argparse.Namespace) -> None:
    from vglm.listing import list_runs

    print("\n".join(list_runs(parsed.folder)))


def _list(parsed: argparse.Namespace) -> None:
    from vglm.listing import list_kind

    print("\n".join(list_kind(parsed.kind)))


def _completion(parsed: argparse.Namespace) -> None:
    from vglm.completion import script

    print(script(command_line(), parsed.shell))


def _cache(parsed: argparse.Namespace) -> None:
    from vglm.caching import cache_folder, clear_folder, folder_bytes
    from vglm.data.feature_cache import clear_cache, list_cache

    features, others = (
        cache_folder("features"),
        [cache_folder(name) for name in ("tables", "pictures", "lightcurves", "identities", "answers", "findings")],
    )
    if parsed.clear:
        freed = clear_cache(features) + sum(map(clear_folder, others))
        print(f"{cache_folder()}: {freed / 1e6:,.1f} MB freed")
        return
    parts = list_cache(features)
    for part in parts:
        encoder = part.encoder
        weights = encoder.get("weights_xxh3", encoder.get("weights_sha256"))
        dtypes = encoder.get("dtypes")
        made_by = f"{encoder.get('name') or 'unnamed'} (weights {str(weights)[:12]})"
        made_by += f", {'/'.join(map(str, dtypes)) if isinstance(dtypes, list) else dtypes}, {encoder.get('device')}"
        made_by += "" if part.is_read else " (of an earlier version, no longer read)"
        print(f"{part.size_bytes / 1e6:10,.1f} MB {part.pictures:9,} pictures  {made_by}")
    sizes = {folder.name: folder_bytes(folder) for folder in others}
    for name, size in sizes.items():
        if size:
            print(f"{size / 1e6:10,.1f} MB {name}")
    total = sum(part.size_bytes for part in parts) + sum(sizes.values())
    print(f"{cache_folder()}: {total / 1e6:,.1f} MB in all")


def _merge(parsed: argparse.Namespace) -> int:
    from vglm.config import quiet_libraries

    quiet_libraries()  # some speak when they are imported
    from vglm.evaluation.certificate import merge_runs, unverified
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
    if certificate.passed:
        print(f"wrote {parsed.output}")
    else:
        print(
            f"nothing was published; what was merged is kept in {unverified(parsed.output)}, with its certificate. Look"
            f" at it: {typed('evaluate')} model.path_or_id={unverified(parsed.output)} dataset=<data>, or remove it."
        )
    return 0 if certificate.passed else 1


def _protocol(parsed: argparse.Namespace) -> None:
    from vglm.evaluation.score.side_by_side import collect_protocol, unevaluated_runs
    from vglm.runs import LATEST, run_folder

    folder = run_folder(parsed.folder).parent if str(parsed.folder) == LATEST else parsed.folder
    if missing := unevaluated_runs(folder):
        _evaluate(missing, parsed.allow_target)
    print(collect_protocol(folder))


def _report(parsed: argparse.Namespace) -> None:
    from vglm.files import recover, write_text
    from vglm.runs import run_folder

    parsed.runs = [run_folder(folder) for folder in parsed.runs]
    for folder in parsed.runs:
        recover(folder)  # another report may have been killed
    is_paper = parsed.format is not None or parsed.output is not None
    if any((folder / "evaluation.json").is_file() for folder in parsed.runs):
        _check_evaluations(parsed.runs)
        if is_paper:
            _write_paper(parsed)
        else:
            _render_again(parsed.runs, parsed.language)
        return
    from vglm.evaluation.score.side_by_side import as_markdown, compare_methods, print_rows, tabulate
    from vglm.runs import Run

    runs = Run.find(parsed.runs)
    if missing := [run.folder for run in runs if not run.is_evaluated]:
        _evaluate(missing, parsed.allow_target)
    if is_paper:
        _write_paper(parsed, runs)
        return
    rows, tests = tabulate(runs), compare_methods(runs)
    print_rows(rows, tests=tests)
    if parsed.markdown is not None:
        write_text(parsed.markdown, as_markdown(rows, tests))


def _evaluate(runs: Sequence[Path], allowed: Sequence[str]) -> None:
    """Evaluate runs in turn, in one other process: it loads the libraries once, and its memory ends with it."""
    from vglm.runs import Run

    print("\n".join(f"evaluating {run}" for run in runs), file=sys.stderr)
    escaped = (run.as_posix().replace("'", "\\'") for run in runs)
    with tempfile.TemporaryDirectory(prefix="vglm-report-") as folder:  # for what Hydra writes of a sweep
        command = [sys.executable, "-m", "vglm", "evaluate", "-m", "run=" + ",".join(f"'{run}'" for run in escaped)]
        command += [f"hydra.sweep.dir='{folder}'", *(f"--allow-target={name}" for name in allowed)]
        is_failed = bool(subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode)
    if is_failed:
        left = [run.as_posix() for run in runs if not Run(run).is_evaluated]
        raise WorkbenchError(f"{', '.join(left)}: not evaluated; the message of the first stands above.")


def _write_paper(parsed: argparse.Namespace, runs: "Sequence[Run] | None" = None) -> None:
    """What a paper needs of one evaluation, that of a single run too, or of the methods of several runs."""
    from vglm.errors import ConfigError
    from vglm.evaluation.paper import Paper
    from vglm.text.messages import terminal_language

    if runs is None and len(parsed.runs) > 1:
        raise ConfigError(
            f"--format: a table is of one evaluation, got {len(parsed.runs)}. Call it once for each, or pass the runs"
            " to compare them."
        )
    is_sweep = runs is not None and len(runs) > 1
    folder = parsed.runs[0] if runs is None else runs[0].evaluation
    paper = Paper.of_methods(runs) if runs is not None and is_sweep else Paper.of_evaluation(folder)
    format, language = parsed.format or "markdown", parsed.language or terminal_language()
    if parsed.output is None:
        print(paper.printed(format, language), end="")
    else:
        print(f"wrote {parsed.output}: {', '.join(paper.write(parsed.output, format, language))}")


def _score(parsed: argparse.Namespace) -> None:
    from vglm.evaluation.report import print_summary, write_report
    from vglm.evaluation.score.scoring import rescore
    from vglm.files import recover
    from vglm.runs import evaluation_folder

    parsed.folder = evaluation_folder(parsed.folder)
    recover(parsed.folder)
    _check_evaluations([parsed.folder])
    print_summary(parsed.folder, rescore(parsed.folder, parsed.settings, write_report))


def _render_again(folders: Sequence[Path], language: "Language | None") -> None:
    """Write reports again, from the files alone."""
    from vglm.evaluation.report import print_summary, write_report
    from vglm.evaluation.score.scoring import refresh

    for folder in folders:
        print_summary(folder, refresh(folder, write_report), language=language)


def _check_evaluations(folders: Sequence[Path]) -> None:
    from vglm.errors import ConfigError

    if strangers := [str(folder) for folder in folders if not (folder / "evaluation.json").is_file()]:
        raise ConfigError(
            f"{strangers[0]} is no evaluation folder: it has no evaluation.json. Pass folders that evaluate.py wrote"
            " (<run>/evaluation), or runs alone."
        )


def _doctor(parsed: argparse.Namespace) -> int:
    from vglm.config import quiet_libraries
    from vglm.data.doctor import SAY, examine, print_diagnosis, write_cleaned_copy, write_report
    from vglm.text.messages import LANGUAGE_VARIABLE, in_language, terminal_language

    quiet_libraries()
    if parsed.lang is not None:
        os.environ[LANGUAGE_VARIABLE] = parsed.lang  # for the progress bars too
    count_tokens, max_length, model = _token_counter(parsed.model)
    with examine(
        parsed.data,
        format=parsed.format,
        image_dir=parsed.image_dir,
        options=_options([*parsed.option, *_columns(parsed.columns)]),
        other_tasks=parsed.beside,
        count_tokens=count_tokens,
        counted_with=model,
        max_length=parsed.max_length or max_length,
        with_pictures=not parsed.no_images,
        workers=parsed.workers,
    ) as diagnosis:
        print_diagnosis(diagnosis)
        name = Path(parsed.data.rstrip("/")).stem or "data"
        page = write_report(diagnosis, parsed.output or Path("outputs") / "doctor" / name)
        print(in_language(SAY("frame.report", path=page), terminal_language()))
        if parsed.fix is not None:
            counts = sorted(write_cleaned_copy(diagnosis, parsed.fix).items())
            changes = [SAY(f"change.{change}", n=count) for change, count in counts] or SAY("frame.no_change")
            print(in_language(SAY("frame.cleaned", path=parsed.fix, changes=changes), terminal_language()))
        return int(diagnosis.severity)


def _options(pairs: Sequence[str]) -> dict[str, object]:
    """`key=value` as written on the command line; values are read as in a config."""
    from omegaconf import OmegaConf

    from vglm.errors import ConfigError, brief

    for pair in pairs:
        if not pair.partition("=")[1]:
            raise ConfigError(f"--option {pair}: expected key=value, such as --option several_images=first.")
    try:
        options = OmegaConf.to_container(OmegaConf.from_dotlist(list(pairs)))
    except Exception as error:  # of YAML and OmegaConf, each its own
        raise ConfigError(f"--option {' '.join(pairs)[:200]}: {brief(error)}. Expected key=value.") from error
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


def _columns(written: str | None) -> list[str]:
    """`image=Bild,question=Frage` as options."""
    from vglm.errors import ConfigError

    pairs = [pair.strip() for pair in (written or "").split(",") if pair.strip()]
    if not all(pair.partition("=")[2] for pair in pairs):
        raise ConfigError(f"--columns {written}: expected part=name, such as --columns image=Bild,question=Frage.")
    return [f"columns.{pair}" for pair in pairs]


def _token_counter(folder: Path | None) -> "tuple[Callable[[Sample], Lengths], int, Text]":
    """How to count a sample's tokens as a model does, how many its context holds, and the model's name."""
    from functools import lru_cache

    from vglm.config import repo_root
    from vglm.data.doctor import SAY, Lengths
    from vglm.text.messages import Text
    from vglm.text.pieces import PieceCounter
    from vglm.text.prompt import Prompt

    name = SAY("frame.tiny_model") if folder is None else Text.of(folder)
    folder = folder or repo_root() / "data" / "visualglm_tiny"
    if (light := PieceCounter.open(folder)) is not None:
        length, slots, max_length, special = light.count, light.num_image_tokens, light.max_length, 2  # [gMASK] <sop>
    else:
        from vglm.model.configuration import VisualGlmConfig
        from vglm.model.processing import VisualGlmProcessor

        processor = VisualGlmProcessor.from_pretrained(folder)
        tokenizer, slots = processor.tokenizer, processor.num_image_tokens
        max_length = VisualGlmConfig.from_pretrained(folder).text_config.max_position_embeddings
        special = len(tokenizer.build_inputs_with_special_tokens([]))

        def length(text: str) -> int:
            return len(tokenizer.tokenize(text, split_special_tokens=True))

    count = lru_cache(1024)(length)  # most questions, and what stands before the image, come again and again

    def count_tokens(sample: "Sample") -> Lengths:
        has_image = sample.image is not None
        bare, full = (
            Prompt(sample.question, history, has_image, sample.language) for history in ((), tuple(sample.history))
        )
        prompt = count(bare.after_image)
        history = count(full.after_image) - prompt if sample.history else 0
        image = slots + count(bare.before_image) if has_image else 0
        return Lengths(prompt + image + special, history, count(sample.answer) + 1)

    return count_tokens, max_length, name
