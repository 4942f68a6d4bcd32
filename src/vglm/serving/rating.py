"""`vglm rate`: people compare the two answers of an evaluation without knowing which model gave which.

    GET  /                 the page
    GET  /study            its texts, and the rater if one was given on the command line
    GET  /sample           ?rater=anna[&position=3]: picture, question, two answers; by default the first unrated one
    GET  /picture/<n>      the picture of a sample
    POST /rating           {"rater": "anna", "position": 3, "choice": "left", "findings": {}, "seconds": 7.2}

Which answer stands on the left is drawn for each rater and sample, and stays on the server: nothing that is sent names
an arm. All raters see the samples in the same shuffled order, so that those who stop early rated the same ones.
"""

import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Literal

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from vglm.errors import ConfigError, WorkbenchError, message_of
from vglm.evaluation.predictions import Evaluation, read_evaluation
from vglm.evaluation.score.rating_files import (
    Contest,
    Rating,
    check_rater,
    read_contests,
    read_valid_ratings,
    write_ratings,
)
from vglm.evaluation.score.ratings import Verdict
from vglm.serving.samples import picture_of
from vglm.serving.texts import rating_texts
from vglm.text.finding_words import NO_FINDING
from vglm.text.labeller import label_report
from vglm.text.prompt import Language

Choice = Literal["left", "equal", "right"]


class Submission(BaseModel):
    """What the page sends of one sample."""

    model_config = ConfigDict(extra="forbid")

    rater: str
    position: int = Field(ge=0)
    choice: Choice
    findings: dict[str, Choice] = Field(default_factory=dict)
    seconds: float | None = Field(None, ge=0)


@dataclass
class Study:
    """The samples of an evaluation and their ratings.

    Attributes:
        folder: The evaluation folder.
        evaluation: Its description.
        contests: What is compared, in the order in which it is shown.
        identical: Samples whose two answers are the same, which are not rated.
        ratings: Rater -> sample -> rating.
    """

    folder: Path
    evaluation: Evaluation
    contests: Sequence[Contest]
    identical: int
    ratings: dict[str, dict[tuple[str, str], Rating]]

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """Read an evaluation folder.

        Raises:
            DataError: It is none, or damaged.
        """
        evaluation = read_evaluation(folder)
        contests, identical = read_contests(folder, evaluation)
        Random(1).shuffle(contests)
        stored = read_valid_ratings(folder, contests)
        ratings = {rater: {row.key: row for row in rows} for rater, rows in stored.items()}
        return cls(folder, evaluation, contests, identical, ratings)

    def check(self, *, by_finding: bool = False) -> None:
        """Refuse a study with nothing to rate.

        Raises:
            ConfigError: No two answers differ, or nothing speaks of a finding though findings are to be judged.
        """
        if not self.contests:
            raise ConfigError(
                f"{self.folder} has nothing to rate: of {self.identical} test samples with two answers, all have"
                " the same one twice."
            )
        if by_finding and not any(map(findings_of, self.contests)):
            raise ConfigError("no answer speaks of a finding in a radiograph. Leave --findings out.")

    def left(self, rater: str, contest: Contest) -> str:
        """The label of the arm on the left: as it was when the sample was rated, else drawn."""
        rating = self.ratings.get(rater, {}).get(contest.key)
        labels = (self.evaluation.baseline.label, self.evaluation.candidate.label)
        return rating.left if rating is not None else Random("\n".join((rater, *contest.key))).choice(labels)

    def texts(self, rater: str, contest: Contest) -> tuple[str, str]:
        """The answers on the left and on the right."""
        answers = contest.baseline.prediction, contest.candidate.prediction
        return answers if self.left(rater, contest) == self.evaluation.baseline.label else answers[::-1]

    def next_position(self, rater: str) -> int:
        """The first sample that a rater has not rated; the number of samples if there is none."""
        done = self.ratings.get(rater, {})
        unrated = (index for index, contest in enumerate(self.contests) if contest.key not in done)
        return next(unrated, len(self.contests))

    def rate(self, submission: Submission) -> None:
        """Keep a rating, in place of an earlier one of the same rater and sample.

        Raises:
            ConfigError: There is no such sample or finding, or the rater's name cannot be used.
            DataError: It cannot be written.
        """
        rater, contest = check_rater(submission.rater), self.contest(submission.position)
        if strangers := set(submission.findings) - set(findings_of(contest)):
            raise ConfigError(f"{sorted(strangers)[0][:60]!r} is no finding of this sample.")
        left = self.left(rater, contest)
        rating = Rating(
            rater,
            *contest.key,
            left,
            self._verdict(submission.choice, left),
            contest.sha256,
            {name: self._verdict(choice, left) for name, choice in submission.findings.items()},
            None if submission.seconds is None else round(submission.seconds, 1),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        rows = {**self.ratings.get(rater, {}), contest.key: rating}
        write_ratings(self.folder, rater, list(rows.values()))
        self.ratings[rater] = rows

    def contest(self, position: int) -> Contest:
        """One sample.

        Raises:
            ConfigError: There is none.
        """
        if not 0 <= position < len(self.contests):
            raise ConfigError(f"there is no sample {position + 1}; there are {len(self.contests)}.")
        return self.contests[position]

    def _verdict(self, choice: Choice, left: str) -> Verdict:
        if choice == "equal":
            return "equal"
        return "better" if (choice == "left") == (left == self.evaluation.candidate.label) else "worse"

    def choice(self, rating: Rating, verdict: Verdict) -> Choice:
        """What the rater had chosen, from the stored verdict."""
        if verdict == "equal":
            return "equal"
        return "left" if (verdict == "better") == (rating.left == self.evaluation.candidate.label) else "right"


def findings_of(contest: Contest) -> list[str]:
    """The findings that the true report or one of the two answers speaks of, in alphabetical order."""
    texts = contest.candidate.reference, contest.baseline.prediction, contest.candidate.prediction
    return sorted({name for text in texts for name in label_report(text)} - {NO_FINDING})


def make_rating_app(study: Study, *, language: Language, rater: str | None = None, by_finding: bool = False) -> FastAPI:
    """The web application.

    Args:
        study: What is rated.
        language: Of the page, "zh" or "en".
        rater: Who rates; the page asks if None.
        by_finding: Whether findings are judged one by one as well.
    """
    app = FastAPI(title="Rating", docs_url=None, redoc_url=None, openapi_url=None)
    writing = threading.Lock()

    @app.get("/study")
    def describe() -> dict[str, Any]:
        return {"texts": rating_texts(language), "language": language, "rater": rater}

    @app.get("/sample")
    def sample(rater: str = Query(), position: int | None = None) -> dict[str, Any]:
        check_rater(rater)
        index = study.next_position(rater) if position is None else position
        done = len(study.ratings.get(rater, {}))
        head = {"done": done, "total": len(study.contests), "position": index}
        return head if index == len(study.contests) else {**head, **_shown(study, rater, index, by_finding)}

    @app.get("/picture/{position}")
    def picture(position: int) -> Response:
        image, _ = picture_of(study.contest(position).candidate, study.folder)
        if image is None:
            return Response(status_code=404)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return Response(buffer.getvalue(), media_type="image/png")

    @app.post("/rating")
    def rate(submission: Submission) -> dict[str, Any]:
        with writing:
            study.rate(submission)
        return {"done": len(study.ratings[submission.rater])}

    @app.exception_handler(WorkbenchError)
    async def explain(_: object, error: Exception) -> JSONResponse:
        return JSONResponse({"error": message_of(error)}, 400)

    @app.middleware("http")
    async def close(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    app.mount("/", StaticFiles(directory=Path(__file__).parent / "pages", html=True))
    return app


_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _shown(study: Study, rater: str, position: int, by_finding: bool) -> dict[str, Any]:
    """One sample as a rater may see it."""
    contest = study.contest(position)
    left, right = study.texts(rater, contest)
    shown = {
        "question": contest.candidate.question,
        "history": contest.candidate.history,
        "picture": contest.candidate.image_sha256 is not None,
        "left": left,
        "right": right,
        "findings": findings_of(contest) if by_finding else [],
    }
    if (rating := study.ratings.get(rater, {}).get(contest.key)) is not None:
        shown["choice"] = study.choice(rating, rating.verdict)
        shown["chosen"] = {name: study.choice(rating, verdict) for name, verdict in rating.findings.items()}
    return shown
