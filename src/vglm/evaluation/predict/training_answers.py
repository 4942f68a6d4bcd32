"""Answers that need no model: labels and majorities of the training samples, for baselines."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

from vglm.data.sample import Sample
from vglm.evaluation.predictions import Prediction, reference_answers
from vglm.text.normalisation import normalise


def draw(train: Sequence[Sample], count: int, generator: random.Random) -> list[Sample]:
    """A random sample of at most `count` samples, in order."""
    if len(train) <= count:
        return list(train)
    return [train[index] for index in sorted(generator.sample(range(len(train)), count))]


def label_of(sample: Sample) -> str:
    """What a sample teaches to answer: the most frequent one where the reference lists several answers."""
    return Counter(reference_answers(sample.answer)).most_common(1)[0][0]


def majority_answer(train: Sequence[Sample]) -> Callable[[Prediction], str]:
    """A record's most frequent training answer: to its question, else to any."""
    overall: Counter[str] = Counter()
    by_question: dict[str, Counter[str]] = {}
    for sample in train:
        answer = label_of(sample)
        overall[answer] += 1
        by_question.setdefault(normalise(sample.question), Counter())[answer] += 1
    return lambda record: by_question.get(normalise(record.question), overall).most_common(1)[0][0]
