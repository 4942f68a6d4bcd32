"""Agreement among several references: each annotator's answer scored against the others' is a ceiling for the model."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.comparison import Summary
from vglm.evaluation.score.metrics import EXACT_MATCH, Metric, Score, measure
from vglm.evaluation.score.metrics.labels import VQA_ACCURACY, human_answers
from vglm.text.normalisation import normalise


@dataclass(frozen=True)
class Agreement:
    """Agreement of the annotators, where questions have several references.

    Attributes:
        metric: By which they are scored: VQA accuracy where requested, else `EXACT_MATCH`.
        n: Samples with two references or more.
        references: Mean number of references to these.
        by_sample: Sample's id -> share of pairs of its references that are equal after normalisation.
        alpha: Krippendorff's alpha of the references after normalisation, each text a class of its own: 1.0 is full
            agreement, 0.0 that of chance. None where all of them are equal.
        people: Each reference scored against the others, a mean over samples.
        arms: Both arms on the same samples, against all references.
    """

    metric: Metric
    n: int
    references: float
    by_sample: dict[str, float]
    alpha: float | None
    people: Score
    arms: tuple[Score, Score]

    @property
    def mean(self) -> float:
        """The share of equal pairs, a mean over samples."""
        return fmean(self.by_sample.values())

    @property
    def unanimous(self) -> int:
        """Samples whose references are all equal."""
        return sum(share == 1 for share in self.by_sample.values())

    @property
    def disputed(self) -> int:
        """Samples of whose references no two are equal."""
        return sum(share == 0 for share in self.by_sample.values())


def measure_agreement(part: Summary) -> Agreement | None:
    """How well the references to each question agree.

    Args:
        part: A split.

    Returns:
        None where no question has two references, or the metric cannot be computed on them.
    """
    pairs = [pair for pair in part.pairs if len(human_answers(pair.candidate)) > 1]
    firsts = {pair.candidate.id: pair.candidate for pair in pairs}
    if not firsts:
        return None
    metric = VQA_ACCURACY if VQA_ACCURACY.name in {metric.name for metric in part.metrics} else EXACT_MATCH
    answers = {name: human_answers(record) for name, record in firsts.items()}
    people = [person for record in firsts.values() for person in _people(record)]
    try:
        scores = [
            measure(metric, rows)
            for rows in (
                people,
                [_listed(pair.baseline) for pair in pairs],
                [_listed(pair.candidate) for pair in pairs],
            )
        ]
    except DataError:
        return None
    return Agreement(
        metric=metric,
        n=len(firsts),
        references=fmean(map(len, answers.values())),
        by_sample={name: _agreement(answer) for name, answer in answers.items()},
        alpha=_alpha([*answers.values()]),
        people=scores[0],
        arms=(scores[1], scores[2]),
    )


def _agreement(answers: Sequence[str]) -> float:
    return fmean(one == other for one, other in combinations(map(normalise, answers), 2))


def _alpha(answers: Sequence[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for nominal data, each sample with two answers or more.

    The same as `nltk.metrics.agreement`, which needs the square of the number of different texts in steps.

    Source: Krippendorff 2004, "Content analysis", chapter 11.
    """
    counts = Counter(normalise(answer) for listed in answers for answer in listed)
    n = counts.total()
    expected = 1 - sum(count * (count - 1) for count in counts.values()) / (n * (n - 1))
    observed = sum(len(listed) * (1 - _agreement(listed)) for listed in answers) / n
    return 1 - observed / expected if expected else None


def _listed(record: Prediction) -> Prediction:
    """The record with all of its references in one list."""
    return _judged_by(record, human_answers(record))


def _judged_by(record: Prediction, answers: Sequence[str]) -> Prediction:
    meta = {name: value for name, value in record.meta.items() if name != "answers"}
    return replace(record, reference=json.dumps([*answers], ensure_ascii=False), meta=meta)


def _people(record: Prediction) -> list[Prediction]:
    """Each reference as an answer, against the others; as draws of one sample, so that it counts once."""
    answers = human_answers(record)
    return [
        replace(
            _judged_by(record, [*answers[:index], *answers[index + 1 :]]), prediction=answer, error=None, draw=index
        )
        for index, answer in enumerate(answers)
    ]
