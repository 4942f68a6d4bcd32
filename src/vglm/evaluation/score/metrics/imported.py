"""Numbers that another program computed: `metrics.external.<name>.scores=<file with {arm}> .signature=<how>`."""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vglm.config.aliases import SPLITS
from vglm.errors import DataError, brief
from vglm.evaluation.predictions import MAX_ERRORS_SHOWN, Prediction
from vglm.evaluation.score.metrics.external import Arms, ExternalMetric, Store, StoredMetric, key_of
from vglm.files import read_text

ARM = "{arm}"
"""Stands for the arm's name in the path of a file of scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedMetric(ExternalMetric):
    """`metrics.external.<name>`: numbers that another program computed.

    Attributes:
        scores: A JSON-lines file of id, score and, where they differ, split (default test), draw (0) and arm; `{arm}`
            in its path stands for the arm's name, such as before and after.
        signature: How it was computed: program, version, weights, settings.
        title: Its name in a report.
        is_share: Whether it is from 0 to 1.
        higher_is_better: False for errors.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("scores",)
    takes_any_answer: ClassVar[bool] = False

    scores: str
    signature: str
    title: str | None = None
    is_share: bool = True
    higher_is_better: bool = True

    def problems(self) -> Iterable[str]:
        """What is wrong with the values."""
        if not self.signature.strip():
            yield "signature must say how the scores were computed"
        path = Path(self.scores)
        if ARM not in self.scores and not path.is_file():
            yield f"scores {self.scores!r} is no file"
        if ARM in path.name and not list(path.parent.glob(path.name.replace(ARM, "*"))):
            yield f"scores {self.scores!r}: there is no file of such a name"

    def score(self, key: str, arms: Arms, folder: Path, store: Store) -> None:
        """Read the scores, see `import_scores`."""
        store.rows[key] = import_scores(self, arms)
        store.metrics[key] = StoredMetric(
            name=key,
            title=self.title or key,
            signature=f"computed elsewhere|{self.signature}",
            rows=key,
            is_share=self.is_share,
            higher_is_better=self.higher_is_better,
        )


def import_scores(settings: ImportedMetric, arms: Mapping[str, Sequence[Prediction]]) -> dict[str, list[float]]:
    """Read the scores that another program gave to answers.

    Args:
        settings: Where they are, and what.
        arms: The arm's name -> the records that need one; those with an error score 0 unless they have one.

    Returns:
        `key_of` a record -> (score, 1).

    Raises:
        DataError: The file cannot be read, or rows are wrong, missing, double or of unknown answers; or two arms have
            different scores for the same answer. All problems of a file are counted and the first ones named.
    """
    files = {arm: Path(settings.scores.replace(ARM, arm)) for arm in arms}
    is_shared = len(set(files.values())) == 1 and len(arms) > 1
    rows: dict[str, list[float]] = {}
    for arm, records in arms.items():
        by_key = {(record.split, record.id, record.draw): record for record in records}
        scores, problems = _read_scores(files[arm], arm if is_shared else None, settings.is_share, arms)
        problems += [f"{_named(key)} is no answer of {arm}" for key in scores.keys() - by_key.keys()]
        splits = {split for split, _, _ in scores}
        for answer_key, record in by_key.items():
            if record.split not in splits and splits:
                continue  # a whole split without scores is another matter than a gap
            if answer_key not in scores and record.error is None:
                problems.append(f"{_named(answer_key)} has no score")
                continue
            row, key = [scores.get(answer_key, 0.0), 1.0], key_of(record)
            if not math.isclose(rows.setdefault(key, row)[0], row[0], abs_tol=1e-6):
                problems.append(f"{_named(answer_key)} has another score in another arm, though the answer is the same")
        if problems:
            shown = "; ".join(problems[:MAX_ERRORS_SHOWN])
            raise DataError(
                f"{files[arm]}: {len(problems)} problems with the scores of {arm} ({shown}). Expected one line"
                f' {{"id": …, "split": …, "score": …}} for each answer in {arm}/predictions.jsonl.'
            )
    return rows


def _named(key: tuple[str, str, int]) -> str:
    split, name, draw = key
    return f"{split} {name!r}" + (f" draw {draw}" if draw else "")


def _read_scores(
    path: Path, arm: str | None, is_share: bool, arms: Collection[str]
) -> tuple[dict[tuple[str, str, int], float], list[str]]:
    """(split, id, draw) -> score, of one arm where lines name theirs; and what is wrong with the lines."""
    lines = read_text(path, advice="Pass a file of scores.").split("\n")
    scores: dict[tuple[str, str, int], float] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            key, owner, score = _parse_score(json.loads(line), is_share)
        except (ValueError, OverflowError, RecursionError) as error:
            problems.append(f"line {number}: {brief(error)}")
            continue
        if arm is not None and owner not in arms:
            problems.append(f"line {number}: `arm` must be one of {', '.join(arms)}, found {owner!r}")
        elif arm is None or owner == arm:
            if key in scores:
                problems.append(f"line {number}: {_named(key)} appears twice")
            scores[key] = score
    return scores, problems


def _parse_score(values: Any, is_share: bool) -> tuple[tuple[str, str, int], object, float]:
    if not isinstance(values, dict) or "id" not in values or "score" not in values:
        raise ValueError("expected an object with id and score")
    score, split, draw = values["score"], values.get("split", "test"), values.get("draw", 0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"score must be a number, found {score!r}")
    if is_share and not 0 <= score <= 1:
        raise ValueError(f"score must be from 0 to 1, found {score}; of another scale, set is_share=false")
    if not isinstance(split, str) or isinstance(draw, bool) or not isinstance(draw, int):
        raise ValueError("split must be text and draw a whole number")
    return (SPLITS.get(split, split), str(values["id"]), draw), values.get("arm"), float(score)
