"""The files of an evaluation folder: what was evaluated, and what the model answered.

```
evaluation/
  evaluation.json                what was compared with what: arms, decoding, versions, command, stamps, history
  seals.json                     hashes of the answers and of all that was made with them, see `seals`
  answers.json                   what was noted while the models were loaded, so that all can be scored again
  <baseline>/predictions.jsonl   one record per sample and draw, e.g. before/ or shuffled/
  <candidate>/predictions.jsonl  the same samples, e.g. after/ or true/
  <control>/predictions.jsonl    other images or wordings: before-blank/, after-text-only/, after-prompt-1/
  baselines.json                 what answers without a tuned model are worth on the test split; see `baselines`
  <arm>/seconds.<rank>.jsonl     how long its batches took in each process
  <arm>/scores.jsonl             what its answers score by `metrics.external`, computed once; external.json says how
  verdicts.jsonl                 with `metrics.external.judge`: the judge's requests and replies
  images/<sha256>.webp           a copy of every image, so that the report can be rebuilt anywhere
  leaks.json                     test pictures that were trained on, or are made from one that was, if there are any
  training_loss.json             of a run: what the tuned model's loss is on training samples, highest first
  curves.json                    of a run: its loss by step, what each checkpoint gained and forgot; see `forgetting`
  metrics.json  report/          made from the files above by `vglm.evaluation.score` and `vglm.evaluation.report`
  report-<metric>/               an earlier report, whose primary metric was another one
```

A record, on one line:

    {"id": "test.json#3", "group": "test.json#3", "split": "test", "kind": "background", "language": "zh",
     "question": "这张图片的背景里有什么内容？", "history": [], "reference": "这张图片的背景是金色的沙滩。",
     "prediction": "这张图片的背景是沙滩。", "image": "data/background_synthetic/images/test_003.png",
     "image_sha256": "9f86d081…", "error": null, "meta": {"kind": "background", "place": "beach"},
     "draw": 0, "likelihoods": {}, "finish": "eos", "tokens": 9}

While an arm is answering, each process adds its records to a part of its own, `predictions.<rank>.jsonl`, and what it
scores by likelihood to `likelihoods.<rank>.jsonl`; when all are done the parts become `predictions.jsonl`, in the order
of the samples.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from vglm.config.aliases import SPLITS
from vglm.data.grouping import merge_groups
from vglm.data.sample import Sample
from vglm.errors import DataError, brief
from vglm.evaluation.messages import Message, Sentence
from vglm.evaluation.seals import digest_of, find_changes
from vglm.files import (
    append_json_lines,
    inside,
    parse_json_object,
    parse_record,
    read_record,
    read_text,
    recover,
    whole_lines,
    write_json,
    write_json_lines,
)
from vglm.runs import EVALUATION_FILE, EvaluationEvent
from vglm.text.prompt import LANGUAGES, Language

PREDICTIONS_FILE = "predictions.jsonl"
CURVES_FILE = "curves.json"
LEAKS_FILE = "leaks.json"
LOSSES_FILE = "training_loss.json"
CHANGED_STAMP, UNSEALED_STAMP = "ANSWERS CHANGED", "ANSWERS NOT SEALED"
IMAGES_FOLDER = "images"
MAX_ERRORS_SHOWN = 5
TEXT_ONLY = "text-only"
"""The control in which questions have no image."""
PARAPHRASE = "prompt"
"""Controls in which questions have other words are `prompt-1`, `prompt-2`, ..."""
ENDED, CUT = "eos", "length"
"""How an answer can end, see `Prediction.finish`."""
Choices = Sequence[str] | Literal["sample"] | None
"""The answers to score by likelihood, in every question; or `sample` for each question's own; None for none."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
"""An arm's label, which is a folder's name."""
_NOT_RECORDED = ("light_curve",)
"""Of a sample's `meta`: where a file lies on this machine."""
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    r"""One sample and the answer a model gave to it.

    Attributes:
        id: The sample's id, unique within its split.
        group: The sample's group (study, patient, star), for statistics that must not count it twice.
        split: Which list of samples it comes from: `test`, or `retention` for general questions.
        kind: The kind of question, where the data has it.
        language: Of the prompt, which reads `问：…\n答：` in Chinese (`zh`) and `Q:…\nA:` in English (`en`).
        question: The last question of the dialogue.
        history: The turns before it, as (question, answer) pairs.
        reference: The answer that counts as right.
        prediction: The model's answer; empty where `error` is set.
        image: Where the image was read from; None for text-only samples and images made in memory.
        image_sha256: Hash of the image's content; None for text-only samples and images that cannot be read.
        error: Why there is no prediction; None where there is one.
        meta: Further fields of the sample that are texts, integers or booleans, for slices. `choices` are
            the answers that its question offers, as a JSON list of texts.
        draw: Which of several sampled answers to the same question this is, from 0; 0 for greedy ones.
        likelihoods: Given answer, such as "yes" -> natural logarithm of the probability that the model says exactly
            this and ends; empty where none were scored.
        finish: Why the answer ends: `eos` where the model ended it, `length` where `max_new_tokens` cut it; None where
            it was not recorded, or there is no answer of a model.
        tokens: How many tokens the model wrote, without the one that ends the answer; None likewise.
    """

    id: str
    group: str
    split: str
    kind: str | None
    language: Language
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
    tokens: int | None = None

    @classmethod
    def of_texts(cls, prediction: str, reference: str, id: str = "") -> "Prediction":
        """Two texts to score, of which nothing else is known."""
        return cls(
            id=id,
            group=id,
            split="test",
            kind=None,
            language="en",
            question="",
            history=(),
            reference=reference,
            prediction=prediction,
            image=None,
            image_sha256=None,
        )

    @property
    def is_cut(self) -> bool:
        """Whether the answer was cut at the token limit."""
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
    meaning: Sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Something a reader must know before believing a score.

    Attributes:
        text: Its name, e.g. "EVALUATED ON TRAINING IMAGES"; of our own ones a report has titles in both languages.
        detail: What it says.
    """

    text: str
    detail: Sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was evaluated and how, as `evaluation.json` holds it.

    Attributes:
        title: The name of the run or model.
        summary: One sentence: what was tuned, on what, scored on what.
        purpose: What the difference between the arms shows: the effect of `tuning`, or how much rests on `image use`.
        baseline: The arm to compare with.
        candidate: The arm that is judged.
        facts: What to show of the configuration, in order: name -> value. Of our own names a report has titles.
        decoding: The settings of generation, the same for both arms.
        command: The command line that repeats the evaluation.
        versions: Package -> version.
        config: The resolved configuration, as YAML.
        created: When, as ISO 8601.
        stamps: Warnings on the front page.
        controls: Arms that answer test questions with other images or none, see `vglm.evaluation.predict.image_use`.
        data: Split -> hash of its questions and answers, see `vglm.data.splits.fingerprint`.
        sealed: Hash of `seals.json`, see `vglm.evaluation.seals`; None in older files.
        answered_with: Hash of all that the answers depend on; None where they cannot be used for another evaluation.
        history: The evaluations of these test samples as far as known, in order, this one last.
    """

    title: str
    summary: Sentence
    purpose: Literal["tuning", "image use"]
    baseline: Arm
    candidate: Arm
    facts: Mapping[str, Sentence]
    decoding: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    config: str
    created: str
    stamps: tuple[Stamp, ...] = field(default=())
    controls: tuple[Arm, ...] = field(default=())
    data: Mapping[str, str] = field(default_factory=dict)
    sealed: str | None = None
    answered_with: str | None = None
    history: tuple[EvaluationEvent, ...] = field(default=())

    @property
    def is_changed(self) -> bool:
        """Whether files were changed since the answers were generated."""
        return any(stamp.text == CHANGED_STAMP for stamp in self.stamps)


def write_curves(curves: Mapping[str, Any] | None, folder: Path) -> None:
    """Write `curves.json` into the evaluation folder of a run."""
    if curves is not None:
        write_json(folder / CURVES_FILE, curves, error=DataError)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `evaluation.json` into the evaluation folder, sealed by a hash over itself."""
    content = asdict(evaluation)
    write_json(folder / EVALUATION_FILE, content | {"sha256": digest_of(content)}, error=DataError)


def read_evaluation(folder: Path) -> Evaluation:
    """Read `evaluation.json` of an evaluation folder.

    It gets a stamp where files were altered since, and where no hash would show it, see `seals`.

    Raises:
        DataError: The file is missing or not what `write_evaluation` writes.
    """
    recover(folder)
    path = inside(folder, EVALUATION_FILE)
    if not path.exists():
        raise DataError(f"{folder} has no {EVALUATION_FILE}: pass the folder that evaluate.py wrote.")
    fault = "is not an evaluation's description"
    advice = "Run evaluate.py again."
    text = read_text(path, advice=advice)
    evaluation = parse_record(text, Evaluation, str(path), fault=fault, advice=advice)
    for arm in (evaluation.baseline, evaluation.candidate, *evaluation.controls):
        if LABEL.fullmatch(arm.label) is None:
            raise DataError(
                f"{path} is damaged: {brief(ValueError(arm.label))!r} is no label of an arm; expected letters, digits,"
                " dots, blanks and hyphens. Run evaluate.py again."
            )
    content = parse_json_object(text, str(path))
    written = content.pop("sha256", None)
    is_edited = written != digest_of(content) if written is not None else evaluation.sealed is not None
    return _with_changes(evaluation, folder, is_edited)


def _with_changes(evaluation: Evaluation, folder: Path, is_edited: bool) -> Evaluation:
    """The description with a stamp that says what is not as it was written; an edited description never loses it."""
    earlier = [stamp.detail for stamp in evaluation.stamps if stamp.text == CHANGED_STAMP]
    edited = Message("change.description", {"file": EVALUATION_FILE})
    is_edited = is_edited or any(edited in _changes(record) for record in earlier)
    changes = (*((edited,) if is_edited else ()), *find_changes(folder, evaluation.sealed))
    stamps = tuple(stamp for stamp in evaluation.stamps if stamp.text not in (CHANGED_STAMP, UNSEALED_STAMP))
    if evaluation.sealed is None:
        stamps = (Stamp(text=UNSEALED_STAMP, detail=Message("unsealed")), *stamps)
    if changes:
        stamps = (Stamp(text=CHANGED_STAMP, detail=Message("changed", {"changes": changes})), *stamps)
    return replace(evaluation, stamps=stamps)


def _changes(detail: Sentence) -> tuple[Sentence, ...]:
    changes = detail.values.get("changes") if isinstance(detail, Message) else ()
    return changes if isinstance(changes, tuple) else ()


def predictions_file(folder: Path, label: str) -> Path:
    """Where the records of an arm of an evaluation folder are, see `vglm.files.inside`."""
    return inside(folder, label, PREDICTIONS_FILE)


def read_arms(folder: Path) -> dict[str, list[Prediction]]:
    """The records of all arms of an evaluation folder, by label.

    Raises:
        DataError: See `read_predictions`; or an arm is a link that leads out of the folder.
    """
    labels = sorted(path.parent.name for path in folder.glob(f"*/{PREDICTIONS_FILE}"))
    return {label: read_predictions(predictions_file(folder, label)) for label in labels}


def unanswered(sample: Sample, split: str) -> Prediction:
    """The record of a sample before it is answered and before its image is opened.

    Args:
        sample: A sample.
        split: The list of samples it comes from.
    """
    return Prediction(
        id=sample.id,
        group=sample.group,
        split=split,
        kind=sample.meta.get("kind"),
        language=sample.language,
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
        str(name): value for name, value in meta.items() if isinstance(value, str | int) and name not in _NOT_RECORDED
    }
    for name in ("choices", "answers"):
        if isinstance(meta.get(name), list | tuple) and meta[name]:
            plain[name] = json.dumps(meta[name], ensure_ascii=False)
    return plain


def _shown(path: Path) -> str:
    """The path as shown in the records: relative to the working directory where it is below it."""
    resolved = path.resolve()
    return (resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else resolved).as_posix()


def append_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Add records to a file that `recover_predictions` can read even if this is killed half-way."""
    append_json_lines(path, map(asdict, predictions))


def join_groups(
    baseline: Sequence[Prediction], candidate: Sequence[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    """Two arms' records in which samples that show one picture, by its pixels, are of one group.

    Args:
        baseline: The arm to compare with.
        candidate: The arm that is judged, which saw the samples' own pictures.
    """
    pictures = [record.image_sha256 and (record.split, record.image_sha256) for record in candidate]
    groups = merge_groups([(record.split, record.group) for record in candidate], pictures)
    joined = {(record.split, record.id): group for record, (_, group) in zip(candidate, groups, strict=True)}

    def regrouped(record: Prediction) -> Prediction:
        group = joined.get((record.split, record.id), record.group)
        return record if group == record.group else replace(record, group=group)

    return list(map(regrouped, baseline)), list(map(regrouped, candidate))


def append_seconds(answers: int, seconds: float, path: Path, rank: int) -> None:
    """Record beside an arm's predictions the seconds that a process took for some answers, pictures opened included."""
    batch = {"answers": answers, "seconds": round(seconds, 4)}
    append_json_lines(path.with_name(f"seconds.{rank}.jsonl"), [batch])


def read_seconds(folder: Path, label: str) -> float | None:
    """Seconds per answer of an arm in one process, the mean over its batches; None where not recorded.

    Raises:
        DataError: A line is something else; half a line, as a kill leaves it, is passed over.
    """
    answers, seconds = 0, 0.0
    for path in sorted((folder / label).glob("seconds.*.jsonl")):
        text = read_text(inside(folder, label, path.name))
        for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
            batch = parse_record(line, _Batch, f"{path}, line {number}", advice="Remove the file.")
            answers, seconds = answers + batch.answers, seconds + batch.seconds
    return seconds / answers if answers else None


@dataclass(frozen=True, slots=True)
class _Batch:
    """A line of `seconds.<rank>.jsonl`."""

    answers: int
    seconds: float


def recover_predictions(path: Path) -> list[Prediction]:
    """Read what an interrupted generation has written; an incomplete line is removed from the file.

    Args:
        path: Filled by `append_predictions`; it need not exist.

    Raises:
        DataError: Whole lines are not records.
    """
    if not path.is_file():
        return []
    with suppress(UnicodeDecodeError):  # which `read_predictions` reports
        whole_lines(path)
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
    return [file for file in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")) if file.is_file()]


def write_predictions(predictions: Iterable[Prediction], path: Path) -> None:
    """Write one record a line; the file appears under its name only when it is whole."""
    write_json_lines(path, map(asdict, predictions), error=DataError)


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of records.

    Args:
        path: A `predictions.jsonl`.

    Returns:
        The records in the file's order.

    Raises:
        DataError: The file is missing, or rows are not records or repeat an id; all such rows are named.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist. Run evaluate.py, or pass the evaluation folder it wrote.")
    lines = read_text(path, advice="Run evaluate.py again.").split("\n")
    predictions: list[Prediction] = []
    problems: list[str] = []
    seen: set[tuple[str, str, int]] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if "\\u" in line:  # else no half of a character, which no file of text can hold
                json.dumps(values, ensure_ascii=False).encode()
            record = _parse(values)
        except (ValueError, RecursionError) as error:
            problems.append(f"line {number}: {brief(error, 120)}")
            continue
        if record.key in seen:
            draw = f" as draw {record.draw}" if record.draw else ""
            problems.append(f"line {number}: id {record.id[:80]!r} appears twice in split {record.split!r}{draw}")
        seen.add(record.key)
        predictions.append(record)
    if problems:
        shown = "; ".join(problems[:MAX_ERRORS_SHOWN])
        more = f"; and {len(problems) - MAX_ERRORS_SHOWN} more" if len(problems) > MAX_ERRORS_SHOWN else ""
        raise DataError(f"{path}: {len(problems)} of {len(lines)} lines are no prediction records ({shown}{more}).")
    return predictions


_NAMES = frozenset(item.name for item in fields(Prediction))
_NEEDED = _NAMES - {"meta", "draw", "likelihoods", "finish", "tokens"}  # which older files have not
_TEXT_OR_NULL = str | None  # made once, not at every field


def _parse(values: Any) -> Prediction:
    """Check one record's keys and types; a ValueError says what is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"expected an object, found {type(values).__name__}")
    if isinstance(values.get("english"), bool):  # as older files have it
        values = {"language": "en" if values["english"] else "zh"} | values
        del values["english"]
    if missing := _NEEDED - values.keys():
        raise ValueError(f"lacks {', '.join(sorted(missing))}")
    if unknown := values.keys() - _NAMES:
        raise ValueError(f"has unknown {', '.join(sorted(unknown))}")
    for name in ("id", "group", "split", "question", "reference", "prediction"):
        if not isinstance(values[name], str):
            raise ValueError(f"{name} must be text, found {type(values[name]).__name__}")
    for name in ("kind", "image", "image_sha256", "error", "finish"):
        if not isinstance(values.get(name), _TEXT_OR_NULL):
            raise ValueError(f"{name} must be text or null, found {type(values[name]).__name__}")
    if values["language"] not in LANGUAGES:
        raise ValueError(f"language must be zh or en, found {values['language']!r}")
    meta = values.get("meta", {})
    if not isinstance(meta, dict) or not all(isinstance(value, str | int) for value in meta.values()):
        raise ValueError("meta must be an object of texts, whole numbers, true and false")
    draw = values.get("draw", 0)
    if not isinstance(draw, int) or isinstance(draw, bool) or draw < 0:
        raise ValueError(f"draw must be a whole number from 0, found {draw!r}")
    tokens = values.get("tokens")
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0):
        raise ValueError(f"tokens must be a whole number from 0 or null, found {tokens!r}")
    likelihoods = values.get("likelihoods", {})
    if not isinstance(likelihoods, dict) or not all(map(_is_number, likelihoods.values())):
        raise ValueError("likelihoods must be an object of numbers")
    history = values["history"]
    if not isinstance(history, list) or not all(map(_is_turn, history)):
        raise ValueError("history must be a list of [question, answer] pairs")
    if values["image_sha256"] is not None and _SHA256.fullmatch(values["image_sha256"]) is None:
        raise ValueError(f"image_sha256 must be 64 hexadecimal digits, found {values['image_sha256']!r}")
    split = SPLITS.get(values["split"], values["split"])
    return Prediction(**{**values, "split": split, "history": tuple(map(tuple, history))})


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < sys.float_info.max


def _is_turn(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(item, str) for item in value)


# --- training samples ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SampleLoss:
    """A training sample and the tuned model's loss on its answer.

    Attributes:
        id: The sample's id.
        question: Its last question.
        reference: The answer that was trained on.
        loss: Mean negative log-likelihood of the answer's tokens, the end included, in nats.
        tokens: How many tokens these are.
        image: Where the image was read from; None for none, or one made in memory.
        image_sha256: Of the copy that the folder keeps; None where it keeps none.
    """

    id: str
    question: str
    reference: str
    loss: float
    tokens: int
    image: str | None = None
    image_sha256: str | None = None


def write_losses(losses: Sequence[SampleLoss], folder: Path) -> None:
    """Write `training_loss.json` into the evaluation folder."""
    write_json(folder / LOSSES_FILE, [asdict(loss) for loss in losses], error=DataError)


def read_losses(folder: Path) -> list[SampleLoss]:
    """Those in `training_loss.json`, highest first; none where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = inside(folder, LOSSES_FILE)
    if not path.exists():
        return []
    losses = read_record(
        path, list[SampleLoss], fault="is damaged, expected a list of samples", advice="Evaluate again, or remove it."
    )
    return sorted(losses, key=lambda loss: -loss.loss)


# --- references ------------------------------------------------------------------------------------------------------


def reference_answers(reference: str) -> list[str]:
    """The answers of a reference: a JSON list of texts, or one answer."""
    return listed_answers(reference) or [reference]


def listed_answers(text: object) -> list[str]:
    """The texts of a JSON list; none where it is something else."""
    if not isinstance(text, str) or not text.lstrip().startswith("["):
        return []
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return values if isinstance(values, list) and all(isinstance(value, str) for value in values) else []
