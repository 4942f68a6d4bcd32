"""The files of an evaluation folder: what was evaluated, and what the model answered.

```
evaluation/
  evaluation.json                what was compared with what: arms, decoding, versions, command, stamps
  <baseline>/predictions.jsonl   one record per sample and draw, e.g. before/ or shuffled/
  <candidate>/predictions.jsonl  the same samples, e.g. after/ or true/
  <control>/predictions.jsonl    with other images or none: before-blank/, after-text-only/; see `image_use`
  baselines.json                 what answers without a tuned model are worth on the test split; see `baselines`
  <arm>/scores.jsonl             what its answers score by `metrics.external`, computed once; external.json says how
  verdicts.jsonl                 with `metrics.external.judge`: what the judge was asked and said
  images/<sha256>.webp           a small copy of every image, so that the report can be rebuilt anywhere
  curves.json                    of a run: its loss by step, what each checkpoint gained and forgot; see `forgetting`
  metrics.json  report/          made from the files above by `vglm.evaluation.comparison` and `vglm.evaluation.report`
```

A record, on one line:

    {"id": "test.json#3", "group": "test.json#3", "split": "test", "kind": "background", "english": false,
     "question": "这张图片的背景里有什么内容？", "history": [], "reference": "这张图片的背景是金色的沙滩。",
     "prediction": "这张图片的背景是沙滩。", "image": "data/background_synthetic/images/test_003.png",
     "image_sha256": "9f86d081…", "error": null, "meta": {"kind": "background", "place": "beach"},
     "draw": 0, "likelihoods": {}, "finish": "eos"}

While an arm is answering, each process adds its records to a part of its own, `predictions.<rank>.jsonl`, and what it
scores by likelihood to `likelihoods.<rank>.jsonl`; when all are done the parts become `predictions.jsonl`, in the order
of the samples.
"""

import errno
import glob
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from vglm.data.sample import Sample
from vglm.errors import DataError

EVALUATION_FILE = "evaluation.json"
PREDICTIONS_FILE = "predictions.jsonl"
CURVES_FILE = "curves.json"
IMAGES_FOLDER = "images"
LOCK_FILE = ".lock"
"""In a work folder; the system lets go of it when its process ends, however it ends."""
MAX_ERRORS_SHOWN = 5
ENDED, CUT = "eos", "length"
"""How an answer can end, see `Prediction.finish`."""
CANNOT_WRITE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOTDIR,
    errno.EEXIST,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    r"""One sample and the answer a model gave to it.

    Attributes:
        id: The sample's id, unique within its split.
        group: The sample's group (study, patient, star), for statistics that must not count it twice.
        split: Which list of samples it comes from: `test`, or `probe` for general questions.
        kind: The sort of question, where the data tells.
        english: Whether the prompt was written as `Q:…\nA:` rather than `问：…\n答：`.
        question: The last question of the dialogue.
        history: The turns before it, as (question, answer) pairs.
        reference: The answer that counts as right.
        prediction: The model's answer; empty where `error` is set.
        image: Where the image was read from; None for text-only samples and images made in memory.
        image_sha256: Hash of the image's content; None for text-only samples and images that cannot be read.
        error: Why there is no prediction; None where there is one.
        meta: What else the data tells of the sample in texts, whole numbers and yes or no, for slices. `choices` are
            the answers that its question offers, as a JSON list of texts.
        draw: Which of several sampled answers to the same question this is, from 0; 0 for greedy ones.
        likelihoods: Given answer, such as "yes" -> natural logarithm of the probability that the model says exactly
            this and ends; empty where none were scored.
        finish: Why the answer ends: `eos` where the model ended it, `length` where `max_new_tokens` cut it; None where
            nobody noted it, or there is no answer of a model.
    """

    id: str
    group: str
    split: str
    kind: str | None
    english: bool
    question: str
    history: tuple[tuple[str, str], ...]
    reference: str
    prediction: str
    image: str | None
    image_sha256: str | None
    error: str | None = None
    meta: Mapping[str, str | int | bool] = field(default_factory=dict, hash=False)
    draw: int = 0
    likelihoods: Mapping[str, float] = field(default_factory=dict, hash=False)
    finish: str | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the model would have gone on."""
        return self.finish == CUT

    @property
    def key(self) -> tuple[str, str, int]:
        """What no two records of an arm share: split, id and draw."""
        return self.split, self.id, self.draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side of the comparison.

    Attributes:
        label: Its name in tables and its folder's name, e.g. `before`.
        meaning: What it stands for, e.g. "the base model, adapter off".
    """

    label: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Something a reader must know before believing a score, e.g. "EVALUATED ON TRAINING IMAGES"."""

    text: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was evaluated and how, as `evaluation.json` holds it.

    Attributes:
        title: The name of the run or model.
        summary: One sentence: what was tuned, on what, scored on what.
        purpose: What the difference between the arms shows: the effect of `tuning`, or how much rests on `image use`.
        baseline: The arm to compare with.
        candidate: The arm that is judged.
        facts: What to show of the configuration, in order: name -> value.
        decoding: The settings of generation, the same for both arms.
        command: The command line that repeats the evaluation.
        versions: Package -> version.
        config: The resolved configuration, as YAML.
        created: When, as ISO 8601.
        stamps: Warnings on the front page.
        controls: Arms that answer test questions with other images or none, see `vglm.evaluation.image_use`.
    """

    title: str
    summary: str
    purpose: Literal["tuning", "image use"]
    baseline: Arm
    candidate: Arm
    facts: Mapping[str, str]
    decoding: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    config: str
    created: str
    stamps: tuple[Stamp, ...] = field(default=())
    controls: tuple[Arm, ...] = field(default=())


def write_evaluation(evaluation: Evaluation, folder: Path, curves: Mapping[str, Any] | None = None) -> None:
    """Write `evaluation.json` and, of a run, `curves.json` into the evaluation folder."""
    if curves is not None:
        write_text(folder / CURVES_FILE, json.dumps(curves, ensure_ascii=False, indent=1) + "\n")
    write_text(folder / EVALUATION_FILE, json.dumps(asdict(evaluation), ensure_ascii=False, indent=2) + "\n")


def read_evaluation(folder: Path) -> Evaluation:
    """Read `evaluation.json` of an evaluation folder.

    Raises:
        DataError: The file is missing or not what `write_evaluation` writes.
    """
    path = folder / EVALUATION_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values |= {name: Arm(**values[name]) for name in ("baseline", "candidate")}
        values["stamps"] = tuple(Stamp(**stamp) for stamp in values["stamps"])
        values["controls"] = tuple(Arm(**arm) for arm in values.get("controls", ()))  # older files have none
        return Evaluation(**values)
    except FileNotFoundError as error:
        raise DataError(f"{folder} has no {EVALUATION_FILE}: pass the folder that evaluate.py wrote.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is not an evaluation's description ({error}). Run evaluate.py again.") from error


def unanswered(sample: Sample, split: str) -> Prediction:
    """The record of a sample that nobody has answered yet, and whose image nobody has opened.

    Args:
        sample: A sample.
        split: The list of samples it comes from.
    """
    return Prediction(
        id=sample.id,
        group=sample.group,
        split=split,
        kind=sample.meta.get("kind"),
        english=sample.english,
        question=sample.question,
        history=tuple((question, answer) for question, answer in sample.history),
        reference=sample.answer,
        prediction="",
        image=_shown(sample.image) if isinstance(sample.image, Path) else None,
        image_sha256=None,
        meta=_plain_meta(sample.meta),
    )


def _plain_meta(meta: Mapping[str, Any]) -> dict[str, str | int | bool]:
    plain: dict[str, str | int | bool] = {
        str(name): value for name, value in meta.items() if isinstance(value, str | int)
    }
    for name in ("choices", "answers"):
        if isinstance(meta.get(name), list | tuple) and meta[name]:
            plain[name] = json.dumps(meta[name], ensure_ascii=False)
    return plain


def _shown(path: Path) -> str:
    """The path as a reader of the records can follow it: from the working directory where it lies below that."""
    resolved = path.resolve()
    return (resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else resolved).as_posix()


def append_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Add records to a file that `recover_predictions` can read even if this is killed half-way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(_line(record) for record in predictions))


def recover_predictions(path: Path) -> list[Prediction]:
    """Read what an interrupted generation has written; a line that was cut off is taken out of the file.

    Args:
        path: Filled by `append_predictions`; it need not exist.

    Raises:
        DataError: Whole lines are not records.
    """
    if not path.is_file():
        return []
    with path.open("rb+") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
    return read_predictions(path)


def part_file(path: Path, rank: int) -> Path:
    """Where one of several processes adds its records of what will be `path`."""
    return path.with_name(f"{path.stem}.{rank}{path.suffix}")


def recover_parts(path: Path) -> dict[tuple[str, str, int], Prediction]:
    """Read what interrupted generations have written, by one process or several.

    Args:
        path: The file that the parts are to become; what is in it counts too. None of them need exist.

    Returns:
        The records by their keys.

    Raises:
        DataError: Whole lines are not records.
    """
    return {record.key: record for part in (*_parts(path), path) for record in recover_predictions(part)}


def merge_parts(predictions: Iterable[Prediction], path: Path) -> None:
    """Put the records of all parts into one file, and remove the parts."""
    write_predictions(predictions, path)
    for part in _parts(path):
        part.unlink()


def _parts(path: Path) -> list[Path]:
    return [each for each in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")) if each.is_file()]


def _line(record: Prediction) -> str:
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Write one record a line; the file appears under its name only when it is whole."""
    write_text(path, "".join(map(_line, predictions)))


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of records.

    Args:
        path: A `predictions.jsonl`.

    Returns:
        The records in the file's order.

    Raises:
        DataError: The file is missing, or rows are not records or repeat an id; all such rows are named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Run evaluate.py, or pass the evaluation folder it wrote.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}).") from error
    predictions: list[Prediction] = []
    problems: list[str] = []
    seen: set[tuple[str, str, int]] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _parse(json.loads(line))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if record.key in seen:
            draw = f" as draw {record.draw}" if record.draw else ""
            problems.append(f"line {number}: id {record.id!r} appears twice in split {record.split!r}{draw}")
        seen.add(record.key)
        predictions.append(record)
    if problems:
        shown = "; ".join(problems[:MAX_ERRORS_SHOWN])
        more = f"; and {len(problems) - MAX_ERRORS_SHOWN} more" if len(problems) > MAX_ERRORS_SHOWN else ""
        raise DataError(f"{path}: {len(problems)} of {len(lines)} lines are no prediction records ({shown}{more}).")
    return predictions


def _parse(values: Any) -> Prediction:
    """Check one record's keys and types; a ValueError says what is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"expected an object, found {type(values).__name__}")
    names = {item.name for item in fields(Prediction)}
    if missing := names - values.keys() - {"meta", "draw", "likelihoods", "finish"}:  # older files have none
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    if unknown := values.keys() - names:
        raise ValueError(f"has unknown {', '.join(sorted(unknown))}")
    for name in ("id", "group", "split", "question", "reference", "prediction"):
        if not isinstance(values[name], str):
            raise ValueError(f"{name} must be text, found {type(values[name]).__name__}")
    for name in ("kind", "image", "image_sha256", "error", "finish"):
        if not isinstance(values.get(name), str | None):
            raise ValueError(f"{name} must be text or null, found {type(values[name]).__name__}")
    if not isinstance(values["english"], bool):
        raise ValueError(f"english must be true or false, found {values['english']!r}")
    meta = values.get("meta", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str | int) for value in meta.values()):
        raise ValueError("meta must be an object of texts, whole numbers, true and false")
    if not isinstance(values.get("draw", 0), int):
        raise ValueError(f"draw must be a whole number, found {values['draw']!r}")
    likelihoods = values.get("likelihoods", {})
    if not isinstance(likelihoods, dict) or not all(isinstance(value, float | int) for value in likelihoods.values()):
        raise ValueError("likelihoods must be an object of numbers")
    try:
        history = tuple((str(question), str(answer)) for question, answer in values["history"])
    except (TypeError, ValueError) as error:
        raise ValueError("history must be a list of [question, answer] pairs") from error
    return Prediction(**{**values, "history": history})


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that a file that exists is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


@contextmanager
def replaced_folder(path: Path, *, marker: str) -> Iterator[Path]:
    """Fill a folder under a temporary name beside `path`, then put it in the place of `path`.

    Args:
        path: The folder to make or to replace. On an exception it stays as it was.
        marker: A file that every such folder holds; a folder with other things in it is never replaced.

    Yields:
        The temporary folder to write into.

    Raises:
        DataError: `path` is a file or a folder of other things, or its place cannot be written to.
    """
    _check_replaceable(path, marker)
    partial = None
    try:
        with writing(path):
            partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
            partial.chmod(0o755)
            yield partial
            _put_in_place(partial, path)
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumable_folder(path: Path, *, marker: str, key: object) -> Iterator[Path]:
    """As `replaced_folder`, but what was answered before an exception or a kill is there again at the next try.

    The folder to write into is `.<name>.<hash of key>.work` beside `path`. After an exception it stays if it holds
    records. It is locked for as long as it is written to. Once one is complete, those left by other keys are removed,
    except where another process is writing to them.

    Args:
        path: The folder to make or to replace.
        marker: A file that every such folder holds.
        key: All that the content depends on, JSON-able: only a try with an equal key finds the work of an earlier one.

    Yields:
        The folder to write into: empty but for its lock, or as an earlier try left it.

    Raises:
        DataError: As `replaced_folder`; or another process is making the same folder with an equal key right now.
    """
    _check_replaceable(path, marker)
    digest = hashlib.sha256(json.dumps(key, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()
    work = path.with_name(f".{path.name}.{digest[:16]}.work")
    with writing(path):
        lock = _lock(work)
    if lock is None:
        raise DataError(
            f"{path} is being made by another process right now, with the same settings. Wait until that one is done,"
            " or pass another folder. (Several processes share the work if one torchrun starts them.)"
        )
    try:
        with writing(path):
            yield work
            _put_in_place(work, path)
            (path / LOCK_FILE).unlink(missing_ok=True)
    except BaseException:
        if not any(work.rglob("*.jsonl")):
            shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        lock.release()
    for stale in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 16}.work"):
        if (other := _lock(stale)) is not None:
            shutil.rmtree(stale, ignore_errors=True)
            other.release()


def _lock(folder: Path) -> FileLock | None:
    """Make a folder and lock it; None where another process has."""
    while True:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except FileNotFoundError:  # another process finished meanwhile and took the folder away
            continue
        return lock


def _check_replaceable(path: Path, marker: str) -> None:
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; the output must be a folder. Pass another folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise DataError(f"{path} holds other files and no {marker}, so it is not replaced. Pass a new folder.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}: {path.parent}). Pass another folder.") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which folder it is that cannot be written.

    Args:
        path: The folder as the user knows it.

    Raises:
        DataError: In place of an OSError that says so.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise DataError(f"{path} cannot be written ({error.strerror}). Make room, or pass another folder.") from error


def _put_in_place(new: Path, path: Path) -> None:
    old = new.with_suffix(".old")
    if path.exists():
        path.replace(old)
    new.replace(path)
    shutil.rmtree(old, ignore_errors=True)
