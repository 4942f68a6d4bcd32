"""Baselines: scores of simple rules on the test split, to read a model's score against.

One of `baselines.json`:

    {"name": "majority class", "meaning": {"key": "majority", "values": {"n": "20"}},
     "scores": {"exact_match": 0.1, "rouge_l_characters": 0.71}, "n": 120, "intervals": {"exact_match": [0.06, 0.17]}}

| baseline | answers with | what a model that is no better has learned |
|---|---|---|
| constant answer | for each metric, the training answer that scores best on the training split | a form of words |
| majority class | the most frequent training answer to the same question | which answers are common |
| random training answer | the answer of a training sample drawn at random | the range of answers |
| nearest neighbour | the answer of the training sample whose image looks most alike to the untuned model | to look up |
| text only | what the tuned model answers without the image | what questions give away |
| k-shot in context | what the untuned model answers after k training examples | what showing examples brings, untuned |
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean

from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.evaluation.messages import Message, Sentence
from vglm.evaluation.predict.answers import Answers
from vglm.evaluation.predict.training_answers import draw, label_of, majority_answer
from vglm.evaluation.predictions import Prediction, unanswered
from vglm.evaluation.score.metrics import METRICS, Metric
from vglm.evaluation.score.metrics.base import measure
from vglm.files import inside, read_record, write_json

BASELINES_FILE = "baselines.json"
MAX_CONSTANTS = 20
"""Training answers, the most frequent ones, that are tried as the constant answer."""
MAX_TRAIN = 200
"""Training samples that a constant answer is scored on; of more, this many are drawn at random."""
DRAWS = 20
MAX_DRAWN = 5000
"""The random answers are drawn `DRAWS` times, but for no more than this many answers, and at least once."""
MAX_COUNTED = 5000
"""Training samples whose answers are counted; of more, which may be generated on demand, a random sample."""


@dataclass(frozen=True)
class Baseline:
    """What a simple rule scores on the main split.

    Attributes:
        name: As `majority class`.
        meaning: How it answers.
        scores: Metric name -> score, of those that are defined.
        n: Number of samples that the primary metric counts; None where not recorded.
        intervals: Metric name -> 95 % interval of the score; of the primary metric only, and not of a mean over draws.
    """

    name: Sentence
    meaning: Sentence
    scores: Mapping[str, float]
    n: int | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def read_baselines(folder: Path) -> list[Baseline]:
    """The baselines in `baselines.json`; none where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = inside(folder, BASELINES_FILE)
    if not path.exists():
        return []
    fault = "is damaged, expected a list of name, meaning and scores"
    rows = read_record(path, list[_StoredBaseline], fault=fault, advice="Evaluate again, or remove it.")
    return [Baseline(row.name, row.meaning, _plain_scores(row.scores), row.n, row.intervals) for row in rows]


@dataclass(frozen=True, slots=True)
class _StoredScore:
    """A score as older files have it."""

    value: float | None


@dataclass(frozen=True, slots=True)
class _StoredBaseline:
    """A row of `baselines.json`, see `Baseline`."""

    name: Sentence
    meaning: Sentence
    scores: Mapping[str, float | _StoredScore | None]
    n: int | None = None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def _plain_scores(scores: Mapping[str, float | _StoredScore | None]) -> dict[str, float]:
    plain = {name: score.value if isinstance(score, _StoredScore) else score for name, score in scores.items()}
    return {name: value for name, value in plain.items() if value is not None}


def write_baselines(baselines: Iterable[Baseline], folder: Path) -> None:
    """Write `baselines.json` into the evaluation folder."""
    write_json(folder / BASELINES_FILE, [asdict(baseline) for baseline in baselines], error=DataError)


def collect_baselines(
    train: Sequence[Sample], answers: Answers, metrics: Sequence[Metric] = METRICS, *, seed: int = 1
) -> list[Baseline]:
    """Score every baseline for which there is what it needs.

    Args:
        train: The training split; without samples there is no baseline that learns from it.
        answers: The candidate's records of the test split give questions and references.
        metrics: Of texts, the primary one first, see `MetricSettings.of_texts`.
        seed: Of the draws.

    Returns:
        The baselines, in the order of the module's description; none without a test split.
    """
    test = [record for record in answers.candidate if record.split == "test" and record.draw == 0]
    if not test:
        return []
    score = _Scorer(metrics)
    baselines = []
    if len(train):
        generator = random.Random(seed)
        baselines.append(_constant_answer(draw(train, MAX_TRAIN, generator), test, score))
        counted = draw(train, MAX_COUNTED, generator)
        size = f"{len(counted):,}" + (f"/{len(train):,}" if len(counted) < len(train) else "")
        meaning = Message("majority", {"n": size})
        baselines.append(score.judge("majority class", meaning, _answer_with(test, majority_answer(counted))))
        baselines.append(_random_answer(train, test, score, generator))
    for name, meaning, predicted in (
        ("nearest neighbour", Message("nearest"), answers.nearest),
        ("features + random forest", Message("forest"), answers.forest),
    ):
        if predicted:
            rows = [
                replace(record, prediction=answer, error=None, likelihoods={}, finish=None, tokens=None)
                for record, answer in zip(test, predicted, strict=True)
            ]
            baselines.append(score.judge(name, meaning, rows))
    if answers.text_only:
        baselines.append(score.judge("text only", Message("text_only"), answers.text_only))
    if answers.shots is not None:
        title = Message("baseline.shots", {"n": answers.shots.count or "k"})
        how, shown = answers.shots.arm.meaning, answers.in_context
        baselines.append(score.judge(title, how, shown) if shown else Baseline(title, how, {}))
    return baselines


class _Scorer:
    """Scores records by some metrics; equal answers to equal references are looked at once."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = {metric.name: metric for metric in metrics}
        self._scored: dict[tuple[str, str, str], float] = {}

    def __call__(self, records: Sequence[Prediction]) -> dict[str, float | None]:
        """Metric -> score; None where it is undefined."""
        return {name: self.score(metric, records) for name, metric in self.metrics.items()}

    def judge(self, name: Sentence, meaning: Sentence, records: Sequence[Prediction]) -> Baseline:
        """A rule by its answers."""
        return Baseline(name, meaning, _defined(self(records)), *self.doubt(records))

    def doubt(self, records: Sequence[Prediction]) -> tuple[int, dict[str, tuple[float, float]]]:
        """How many samples the primary metric counts, and its interval where there is one."""
        primary = next(iter(self.metrics.values()), None)
        if primary is None:
            return len(records), {}
        try:
            measured = measure(primary, records)
        except DataError:  # the references are not labels
            return len(records), {}
        low, high = measured.interval
        return measured.n, {primary.name: (float(low), float(high))} if low < high else {}

    def score(self, metric: Metric, records: Sequence[Prediction]) -> float | None:
        """One metric's score."""
        try:
            if metric.function is None or metric.table is not None:
                value = metric.score(records)
            else:
                value = fmean(self._row(metric, metric.function, record) for record in records)
        except DataError:  # the references are not labels
            return None
        return value if math.isfinite(value) else None

    def _row(self, metric: Metric, function: Callable[[str, str], float], record: Prediction) -> float:
        if record.error is not None:
            return 0.0
        key = (metric.name, record.prediction, record.reference)
        if key not in self._scored:
            self._scored[key] = function(record.prediction, record.reference)
        return self._scored[key]


def _answer_with(test: Sequence[Prediction], answer: Callable[[Prediction], str]) -> list[Prediction]:
    return [
        replace(record, prediction=answer(record), error=None, likelihoods={}, finish=None, tokens=None)
        for record in test
    ]


def _always(test: Sequence[Prediction], answer: str) -> list[Prediction]:
    return _answer_with(test, lambda _: answer)


def _defined(scores: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if value is not None}


def _constant_answer(train: Sequence[Sample], test: Sequence[Prediction], score: _Scorer) -> Baseline:
    """For each metric the answer that scores best where it was found, which is not where it is judged."""
    labels = [answer for answer, _ in Counter(map(label_of, train)).most_common(MAX_CONSTANTS)]
    records = [unanswered(sample, "train") for sample in train]
    constants = {answer: _always(records, answer) for answer in labels}
    scores: dict[str, float | None] = {}
    chosen: dict[str, str] = {}
    for name, metric in score.metrics.items():
        if metric.higher_is_better is None:
            continue  # a length is neither good nor bad
        sign = 1 if metric.higher_is_better else -1
        scores_by_answer = {answer: score.score(metric, rows) for answer, rows in constants.items()}
        values = {answer: -math.inf if value is None else sign * value for answer, value in scores_by_answer.items()}
        chosen[name] = max(labels, key=values.__getitem__)  # of equal ones the more frequent
        scores[name] = score.score(metric, _always(test, chosen[name]))
    answers = tuple(f"{name}: {answer}" for name, answer in chosen.items())
    if len(set(chosen.values())) == 1:
        answers = (next(iter(chosen.values())),)
    meaning = Message("constant", {"n": len(train), "answers": answers})
    primary = next(iter(score.metrics), None)
    doubt = score.doubt(_always(test, chosen[primary])) if primary in chosen else (len(test), {})
    return Baseline("constant answer", meaning, _defined(scores), *doubt)


def _random_answer(
    train: Sequence[Sample], test: Sequence[Prediction], score: _Scorer, generator: random.Random
) -> Baseline:
    count = max(1, min(DRAWS, MAX_DRAWN // len(test)))
    draws = [
        score(_answer_with(test, lambda _: label_of(train[generator.randrange(len(train))]))) for _ in range(count)
    ]
    columns = {name: [draw[name] for draw in draws] for name in score.metrics}
    means = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return Baseline(
        name="random training answer",
        meaning=Message("random", {"n": count}),
        scores={name: fmean(values) for name, values in means.items() if values},
        n=len(test),
    )
