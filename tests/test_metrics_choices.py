import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import builders
import numpy as np
import pytest
from builders import score_all

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import ALL_METRICS, classify
from vglm.evaluation.score.metrics.choices import CHOICE_METRICS, taken_choice

OPTIONS = "A. a cat\nB. a dog\nC. vitamin D"
LETTERS = ("A", "B", "C")


def record(prediction: str, reference: str, *, id: str = "1", error: str | None = None, **meta: Any) -> Prediction:
    group = str(meta.get("question_index", id))
    return builders.record(prediction, reference, id, group=group, error=error, meta=meta)


def of_letters(prediction: str, reference: str, *, options: str = OPTIONS, **values: object) -> Prediction:
    """A question of MMBench or ScienceQA, as their readers make it."""
    return record(prediction, reference, options=options, choices=json.dumps(LETTERS), **values)  # type: ignore[arg-type]


def value(name: str, records: Sequence[Prediction]) -> float:
    return ALL_METRICS[name].score(records)


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(B)", "B"),
        ("A. a cat", "A"),
        ("a dog", "B"),
        ("A dog.", "B"),
        ("vitamin D", "C"),
        ("It shows a dog.", "B"),
        ("It is a horse, not a cow.", None),
        ("A and B", None),
        ("A is right", "A"),
        ("", None),
        ("a horse", None),
    ],
)
def test_an_option_is_taken_by_letter_or_by_text(prediction: str, letter: str | None) -> None:
    assert taken_choice(prediction, of_letters("", "A"), LETTERS) == letter


def test_letters_are_read_where_options_do_not_fit_them() -> None:
    for options in ("a cat", "A. a cat", "(A) a cat\n(B) a dog\n(C) vitamin D", "B. a cat\nA. a dog\nC. vitamin D"):
        odd = of_letters("", "A", options=options)
        assert [taken_choice(text, odd, LETTERS) for text in ("(B)", "a dog")] == ["B", None]


def test_an_answer_that_takes_two_is_unparsed() -> None:
    assert taken_choice("(B), that is a cat", of_letters("", "A"), LETTERS) is None
    assert taken_choice("(B), that is a dog", of_letters("", "A"), LETTERS) == "B"


def test_accuracy_and_classes_read_answers_alike() -> None:
    answers = ["B", "It shows a dog.", "a cat", "a horse"]
    records = [of_letters(answer, "B", id=answer) for answer in answers]
    assert (value("choice_accuracy", records), value("choice_parsed", records)) == (2 / 4, 3 / 4)
    assert classify(records).as_dict()["confusion"][1] == [1, 2, 0, 1]
    assert value("accuracy", records) == 2 / 4
    failed = [*records, of_letters("B", "B", id="e", error="unreadable")]
    assert (value("choice_accuracy", failed), value("choice_parsed", failed)) == (2 / 5, 3 / 5)


def test_circular_accuracy_wants_all_rotations() -> None:
    rows = [("B", "B", 3), ("A", "B", 4), ("A", "A", 3), ("B", "B", 4), ("C", "C", 5)]
    records = [
        of_letters(answer, right, id=str(index), question_index=question)
        for index, (answer, right, question) in enumerate(rows)
    ]
    assert value("choice_accuracy", records) == 4 / 5
    assert value("circular_accuracy", records) == 2 / 3
    scores = score_all(records, ["circular_accuracy"])
    assert scores["circular_accuracy"].interval_method == "Wilson score interval"  # a question counts once
    failed = [*records[:-1], of_letters("", "C", id="4", error="unreadable", question_index=5)]
    assert value("circular_accuracy", failed) == 1 / 3


def test_circular_accuracy_against_a_brute_force_twin() -> None:
    generator = np.random.default_rng(1)
    records = []
    for index in range(200):
        right, answer = generator.choice(list("ABC"), 2)
        records.append(of_letters(str(answer), str(right), id=str(index), question_index=index % 60))
    questions = defaultdict(list)
    for prediction in records:
        questions[prediction.meta["question_index"]].append(prediction.prediction == prediction.reference)
    expected = sum(all(hits) for hits in questions.values()) / len(questions)
    assert value("circular_accuracy", records) == pytest.approx(expected)


def test_what_has_no_choices_or_rotations_says_so() -> None:
    for metric in CHOICE_METRICS:
        with pytest.raises(DataError, match="none of 1 questions has choices"):
            metric.score([record("A", "A")])
        with pytest.raises(DataError, match=r"1 of 1 questions have no right choice .* 'D' is none of A/B/C"):
            metric.score([of_letters("A", "D")])
    alone = [of_letters("A", "A", id=str(index), question_index=index) for index in range(3)]
    with pytest.raises(DataError, match="no question comes with its options rotated"):
        value("circular_accuracy", alone)
