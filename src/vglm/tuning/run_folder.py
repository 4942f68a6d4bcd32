"""The folder of a training run, `outputs/<recipe>/<time>/`.

    config.yaml         the resolved config; `resume=` and evaluations start from it
    run.json            versions, seed, command, hashes of data and base weights, what was trained on
    log.jsonl           a line per logged step
    checkpoint-<step>/  to resume from; complete once it holds trainer_state.json
    adapter/            the result (model/ after full tuning); there once it was compared with what was trained
    adapter.unverified/ the same until then, and for good if the comparison failed

A run that fails or is stopped keeps its folder if it has a complete checkpoint to resume from, or a result; otherwise
the folder is removed. One process trains in it at a time.
"""

import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vglm.data.splits import Splits
from vglm.errors import ConfigError, WorkbenchError, brief, typed
from vglm.files import explained, is_write_failure, locked, read_json, sweep_inside, write_json, write_text
from vglm.processes import Processes
from vglm.runs import CONFIG_FILE, RECORD_VERSION, RESULTS, UNVERIFIED, installed_version
from vglm.tuning.stopping import stopping_at_once

_PACKAGES = (
    "visualglm-workbench",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "sentencepiece",
    "numpy",
    "pillow",
)
_CHECKPOINT = re.compile(r"checkpoint-(\d{1,12})")
_LEFT = re.compile(r"\.(adapter|model|run\.json|config\.yaml|splits\.json|log\.jsonl)\.\d+")
"""What earlier versions wrote to, named after their process, where they were killed."""
_NOT_BEGUN = re.compile(r"\.lock|\.config\.yaml\..*")
"""All that a run leaves that was killed before its config.yaml was there."""


@contextmanager
def open_run(
    path: Path,
    files: Mapping[str, str | Callable[[], Mapping[str, Any]]] = MappingProxyType({}),
    *,
    resume: bool = False,
    processes: Processes | None = None,
) -> Iterator[Path]:
    """Make a run folder, or reopen an interrupted one, and clean up after a failure.

    A request to terminate (SIGTERM) ends the block as Ctrl-C does, with another exit code. Of several processes the
    main one makes the folder and writes the files, and all of them go on or none.

    Args:
        path: The folder; a new run needs a name that is not taken, or an empty folder, as a run leaves it that was
            killed before it began.
        files: What to write there first, by name: a text, or what makes a value for JSON, which is not held.
        resume: Whether to continue the run that lies there.
        processes: Which train together; this one alone if not given.

    Yields:
        The folder.

    Raises:
        ConfigError: The name is taken, the run to resume has finished, or another process trains there.
        WorkbenchError: The folder cannot be written: no space, no permission.
    """
    processes = processes or Processes.alone()
    missing = [path, *(parent for parent in path.parents if not parent.exists())]
    with ExitStack() as stack:
        processes.on_main(partial(_claim, path, resume, stack))
        try:
            with stopping_at_once():
                processes.on_main(partial(_write_first, path, files))
                yield path
        except BaseException as error:
            if processes.is_main:
                _tidy(path, error, [] if resume else missing)
            if isinstance(error, Exception) and not isinstance(error, WorkbenchError) and is_write_failure(error):
                raise _unwritable(path, error) from error
            raise


def _claim(path: Path, resume: bool, stack: ExitStack) -> None:
    """Have the folder to oneself until the stack is closed."""
    is_taken = f"{path} is being trained by another process right now. Wait until that one is done, or stop it first."
    try:
        if resume:
            _refuse_finished(path)
            stack.enter_context(locked(path, is_taken, error=ConfigError))
            _refuse_finished(path)
            for left in (entry for entry in path.iterdir() if _LEFT.fullmatch(entry.name)):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        else:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_taken(path)
            stack.enter_context(locked(path, is_taken, error=ConfigError))
            _refuse_taken(path)
        sweep_inside(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _write_first(path: Path, files: Mapping[str, str | Callable[[], Mapping[str, Any]]]) -> None:
    for name, content in files.items():
        if isinstance(content, str):
            write_text(path / name, content)
        else:
            write_json(path / name, content())


def _refuse_taken(path: Path) -> None:
    match = sorted(entry.name for entry in path.iterdir() if not _NOT_BEGUN.fullmatch(entry.name))
    if CONFIG_FILE in match:
        raise ConfigError(f"output_dir {path} is taken. Choose another, or continue that run with {_command(path)}.")
    if match:
        raise ConfigError(f"output_dir {path} is taken: it holds {brief(ValueError(match[0]))}. Choose another.")


def _refuse_finished(path: Path) -> None:
    if done := [name for name in RESULTS if (path / name).is_dir()]:
        raise ConfigError(f"{path} has finished: it holds {done[0]}/. There is nothing to resume.")


def _unwritable(path: Path, error: Exception) -> WorkbenchError:
    return WorkbenchError(f"cannot write to {path}: {brief(error)}. Free some space, or choose another output_dir.")


def _tidy(path: Path, error: BaseException, made: list[Path]) -> None:
    """Print how to continue if that is possible; else remove the folder and those that were made for it."""
    has_result = any((path / f"{name}{end}").is_dir() for name in RESULTS for end in ("", UNVERIFIED))
    if newest_checkpoint(path) is not None:
        if not isinstance(error, WorkbenchError) or is_write_failure(error.__cause__ or error):
            print(f"Stopped. Continue with: {typed('train')} {_command(path)}", file=sys.stderr)
    elif made and not has_result:
        shutil.rmtree(path, ignore_errors=True)
        for parent in made[1:]:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _command(path: Path) -> str:
    return shlex.quote(f"resume={path}")


def publish(result: Path) -> Path:
    """Give a result that proved to be what was trained its name: the run has finished.

    Args:
        result: `adapter.unverified/` or `model.unverified/`.

    Returns:
        `adapter/` or `model/`.
    """
    final = result.with_name(result.name.removesuffix(UNVERIFIED))
    with explained(final):
        return result.rename(final)


def newest_checkpoint(run_folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None; one cut short by a crash lacks its trainer_state.json."""
    match = [(int(name[1]), path) for path in run_folder.glob("*") if (name := _CHECKPOINT.fullmatch(path.name))]
    return max(((step, folder) for step, folder in match if _is_complete(folder)), default=(0, None))[1]


def describe_run(*, seed: int, recipe: str, base_weights: str, splits: Splits) -> dict[str, Any]:
    """The facts for run.json: what was run, with which versions, on which data and weights.

    Args:
        seed: The run's seed.
        recipe: The recipe's name.
        base_weights: `hash_weights` of the base model.
        splits: The data.
    """
    return {
        "version": RECORD_VERSION,
        "recipe": recipe,
        "seed": seed,
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "command": sys.argv,
        "versions": {"python": platform.python_version()} | {name: installed_version(name) for name in _PACKAGES},
        "base_weights_xxh3": base_weights,
        "data": describe_data(splits),
    }


def describe_data(splits: Splits) -> dict[str, Any]:
    """How much data there is, how it was divided, its hashes, and which pictures are trained on.

    Args:
        splits: As read, or generated; `train_images` and `trained_on_test` are None where pictures were not hashed.

    Returns:
        For run.json: an evaluation on other data compares `train_images` (sorted `image_sha256`) with its own pictures,
        and is stamped if there is `leakage`, what each split shares with training.
    """
    hashes = splits.image_hashes
    is_hashed = isinstance(splits.train, list) and all(
        sample.image is None or (isinstance(sample.image, Path) and sample.image in hashes) for sample in splits.train
    )
    return {
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "retention": len(splits.retention),
        "sha256": splits.data_hash,
        "files": dict(splits.files),
        "plan": dict(splits.plan),
        "leakage": [asdict(leak) for leak in splits.leakage],
        "train_images": sorted({digest for digest in splits.hash_images(splits.train) if digest})
        if is_hashed
        else None,
        "trained_on_test": len(splits.trained_on_test()) if is_hashed else None,
    }


def _is_complete(checkpoint: Path) -> bool:
    try:
        read_json(checkpoint / "trainer_state.json")
    except WorkbenchError:
        return False
    return True
