"""Blinded human ratings of an evaluation's answers: `ratings/<rater>.jsonl` in the evaluation folder.

    {"rater": "anna", "split": "test", "id": "test.json#3", "left": "after", "verdict": "better", "findings": {},
     "answers_sha256": "5b0e…", "seconds": 7.2, "time": "2026-11-27T06:12:03+00:00"}

One line a sample. `verdict` is what the rater's choice means for the candidate arm. `left` records which arm stood on
the left, which the rater did not know. A rating counts for the two answers it was given about, which their hash names.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vglm.errors import ConfigError, DataError
from vglm.evaluation.predictions import (
    Evaluation,
    Prediction,
    join_groups,
    predictions_file,
    read_predictions,
)
from vglm.evaluation.score.ratings import RatingSummary, Verdict, summarise_ratings
from vglm.files import inside, parse_record, read_text, write_json_lines

RATINGS_FOLDER = "ratings"
RATER = re.compile(r"\w(?:[\w.-]{0,38}\w)?")
"""A rater's name, which is a file's name."""


@dataclass(frozen=True, slots=True)
class Rating:
    """One person's rating of one sample.

    Attributes:
        rater: Who.
        split: The sample's list.
        id: The sample's id within it.
        left: The label of the arm whose answer stood on the left.
        verdict: Whether the candidate's answer is better than the baseline's, equal or worse.
        answers_sha256: Of both answers, see `Contest.sha256`.
        findings: Finding -> the same, where the rater judged findings one by one.
        seconds: From the sample's being shown to the rating.
        time: When, as ISO 8601.
    """

    rater: str
    split: str
    id: str
    left: str
    verdict: Verdict
    answers_sha256: str
    findings: Mapping[str, Verdict] = field(default_factory=dict)
    seconds: float | None = None
    time: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Which sample it is about."""
        return self.split, self.id


@dataclass(frozen=True, slots=True)
class Contest:
    """Two answers to one question that a person can compare.

    Attributes:
        baseline: The answer to compare with.
        candidate: The answer that is judged.
    """

    baseline: Prediction
    candidate: Prediction

    @property
    def key(self) -> tuple[str, str]:
        """Which sample it is."""
        return self.candidate.split, self.candidate.id

    @property
    def sha256(self) -> str:
        """SHA-256 over both answers."""
        return hashlib.sha256(f"{self.baseline.prediction}\0{self.candidate.prediction}".encode()).hexdigest()


def read_contests(folder: Path, evaluation: Evaluation) -> tuple[list[Contest], int]:
    """The test samples whose two answers can be compared.

    Args:
        folder: An evaluation folder.
        evaluation: Its description.

    Returns:
        Those whose answers differ, in the file's order; and how many samples have the same answer twice, which are ties
        without asking. Of several draws the first one counts.

    Raises:
        DataError: The predictions are missing or damaged.
    """
    arms = (evaluation.baseline.label, evaluation.candidate.label)
    records = join_groups(*(read_predictions(predictions_file(folder, label)) for label in arms))
    baseline, candidate = ({record.key: record for record in arm if _is_rated(record)} for arm in records)
    contests = [Contest(baseline[key], value) for key, value in candidate.items() if key in baseline]
    different = [
        contest for contest in contests if contest.baseline.prediction.strip() != contest.candidate.prediction.strip()
    ]
    return different, len(contests) - len(different)


def _is_rated(record: Prediction) -> bool:
    return record.split == "test" and record.draw == 0 and record.error is None


def check_rater(name: str) -> str:
    """Refuse a name that cannot name a file.

    Raises:
        ConfigError: It cannot.
    """
    if RATER.fullmatch(name) is None:
        raise ConfigError(
            f"{name[:60]!r} cannot be a rater's name. Use up to 40 letters, digits, dots, hyphens and underscores."
        )
    return name


def read_ratings(folder: Path) -> dict[str, list[Rating]]:
    """The ratings in an evaluation folder, by rater; none where there are no ratings.

    Raises:
        DataError: A line is something else.
    """
    paths = sorted((folder / RATINGS_FOLDER).glob("*.jsonl"))
    return {path.stem: _read(inside(folder, RATINGS_FOLDER, path.name)) for path in paths}


def _read(path: Path) -> list[Rating]:
    lines = read_text(path, advice="Remove the damaged line.").split("\n")
    return [
        parse_record(line, Rating, f"{path}, line {number}", fault="is no rating", advice="Remove it.")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def read_valid_ratings(folder: Path, contests: Sequence[Contest]) -> dict[str, list[Rating]]:
    """The ratings that were given about these very answers, by rater, and no rater without any."""
    answers = {contest.key: contest.sha256 for contest in contests}
    valid = {
        rater: [rating for rating in ratings if answers.get(rating.key) == rating.answers_sha256]
        for rater, ratings in read_ratings(folder).items()
    }
    return {rater: ratings for rater, ratings in valid.items() if ratings}


def write_ratings(folder: Path, rater: str, ratings: Sequence[Rating]) -> None:
    """Write all ratings of one rater; the file is there with all of them, or as it was before.

    Raises:
        DataError: It cannot be written.
    """
    path = inside(folder, RATINGS_FOLDER, f"{check_rater(rater)}.jsonl")
    write_json_lines(path, map(asdict, ratings), error=DataError)


@dataclass(frozen=True)
class RatingResult:
    """All ratings of an evaluation, summarised.

    Attributes:
        summary: Of all raters together, on the samples whose answers differ.
        raters: Rater -> the summary of their ratings.
        findings: Finding -> the summary of its ratings.
        contests: Samples whose answers differ, rated or not.
        identical: Samples with the same answer twice, which were not rated.
        groups: Independent groups among the rated samples.
    """

    summary: RatingSummary
    raters: Mapping[str, RatingSummary]
    findings: Mapping[str, RatingSummary]
    contests: int
    identical: int
    groups: int


def summarise_folder(folder: Path, evaluation: Evaluation) -> RatingResult | None:
    """Summarise the ratings of an evaluation; None where there are no ratings.

    Args:
        folder: The evaluation folder.
        evaluation: Its description.

    Raises:
        DataError: A file is damaged.
    """
    if not (folder / RATINGS_FOLDER).is_dir():
        return None
    contests, identical = read_contests(folder, evaluation)
    by_rater = read_valid_ratings(folder, contests)
    ratings = [row for rows in by_rater.values() for row in rows]
    if not ratings:
        return None
    groups = {contest.key: contest.candidate.group for contest in contests}
    names = sorted({name for rating in ratings for name in rating.findings})
    return RatingResult(
        summary=_summarise(ratings),
        raters={rater: _summarise(rows) for rater, rows in by_rater.items()},
        findings={name: _summarise(ratings, name) for name in names},
        contests=len(contests),
        identical=identical,
        groups=len({groups[rating.key] for rating in ratings}),
    )


def _summarise(ratings: Sequence[Rating], finding: str | None = None) -> RatingSummary:
    """Of the verdicts, or of those about a finding."""
    verdicts = [(rating, rating.verdict if finding is None else rating.findings.get(finding)) for rating in ratings]
    return summarise_ratings((rating.rater, rating.id, verdict) for rating, verdict in verdicts if verdict is not None)


def keep_ratings(old: Path, new: Path) -> None:
    """Take the ratings along into an evaluation folder that is to replace another."""
    if (old / RATINGS_FOLDER).is_dir():
        shutil.copytree(old / RATINGS_FOLDER, new / RATINGS_FOLDER, dirs_exist_ok=True)
