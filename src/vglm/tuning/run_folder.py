"""The folder one training run leaves behind, `outputs/<recipe>/<time>/`.

    config.yaml         the resolved config; `resume=` and evaluations start from it
    run.json            versions, seed, command, hashes of data and base weights, what was trained on
    log.jsonl           a line per logged step
    checkpoint-<step>/  to resume from; complete once it holds trainer_state.json
    adapter/            the result (model/ after full tuning); there once training has finished

A run that fails or is stopped keeps its folder if it has a complete checkpoint to resume from; otherwise the folder is
removed. What would mislead when half written is written under another name and renamed.
"""

import errno
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vglm.data.loading import Splits
from vglm.errors import ConfigError, WorkbenchError
from vglm.runs import RECORD_VERSION, RESULTS

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
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
_WRITE_MESSAGES = ("No space left", "File too large", "file write failed", "PytorchStreamWriter", "iostream error")


@contextmanager
def open_run(path: Path, *, resume: bool = False) -> Iterator[Path]:
    """Make a run folder, or reopen an interrupted one, and keep what a failure leaves behind tidy.

    Args:
        path: The folder; a new run needs a name that is not taken.
        resume: Whether to continue the run that lies there.

    Yields:
        The folder.

    Raises:
        ConfigError: The name is taken, or the run to resume has finished.
        WorkbenchError: The folder cannot be written: no space, no permission.
    """
    if resume:
        done = [name for name in RESULTS if (path / name).is_dir()]
        if done:
            raise ConfigError(f"{path} has finished: it holds {done[0]}/. There is nothing to resume.")
    elif path.exists():
        raise ConfigError(f"output_dir {path} is taken. Choose another, or continue that run with resume={path}.")
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield path
    except BaseException as error:
        if newest_checkpoint(path) is not None:
            print(f"Stopped. Continue with: python train.py resume={path}", file=sys.stderr)
        elif not resume:
            shutil.rmtree(path, ignore_errors=True)
            for parent in missing[1:]:
                if parent.is_dir() and not any(parent.iterdir()):
                    parent.rmdir()
        if isinstance(error, Exception) and _is_write_failure(error):
            advice = "Free some space, or choose another output_dir."
            raise WorkbenchError(f"cannot write to {path}: {error}. {advice}") from error
        raise


def newest_checkpoint(run_folder: Path) -> Path | None:
    """The complete checkpoint with the highest step, or None; one cut short by a crash lacks its trainer_state.json."""
    complete = [each for each in run_folder.glob("checkpoint-*") if _is_complete(each)]
    return max(complete, key=lambda each: int(each.name.split("-")[1]), default=None)


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
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "base_weights_sha256": base_weights,
        "data": describe_data(splits),
    }


def describe_data(splits: Splits) -> dict[str, Any]:
    """How much data there is, how it was divided, its hashes, and which pictures are trained on.

    Args:
        splits: As read, or generated; `train_images` and `trained_on_test` are None where pictures were not hashed.

    Returns:
        For run.json: an evaluation on other data compares `train_images` (sorted `image_sha256`) with its own pictures,
        and is stamped if there is `leakage`, one sentence for each split that shares groups or pictures with training.
    """
    known = splits.image_hashes
    is_hashed = isinstance(splits.train, list) and all(
        each.image is None or (isinstance(each.image, Path) and each.image in known) for each in splits.train
    )
    return {
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "probe": len(splits.probe),
        "sha256": splits.data_hash,
        "files": dict(splits.files),
        "plan": dict(splits.plan),
        "leakage": [str(each) for each in splits.leakage],
        "train_images": sorted({digest for digest in splits.hash_images(splits.train) if digest})
        if is_hashed
        else None,
        "trained_on_test": len(splits.trained_on_test()) if is_hashed else None,
    }


def write_text(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that it is whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON as `write_text` does, indented, with characters beyond ASCII as they are."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under another name and rename it at the end; after an error neither is there.

    Yields:
        The temporary folder to write to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _is_write_failure(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _WRITE_ERRORS:
        return True
    return any(text in str(error) for text in _WRITE_MESSAGES)
