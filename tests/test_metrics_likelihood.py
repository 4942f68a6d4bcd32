import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from builders import compare_all, score_all
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.comparison import compare
from vglm.evaluation.score.metrics import ALL_METRICS, calibrate, calibration
from vglm.evaluation.score.metrics.likelihood import LIKELIHOOD_METRICS, softmax
from vglm.evaluation.score.statistics import wilson_interval

NAMES = ["choice_accuracy", "choice_parsed", *(metric.name for metric in LIKELIHOOD_METRICS)]


def record(
    name: str, reference: str, likelihoods: Mapping[str, float], prediction: str = "", **values: object
) -> Prediction:
    return Prediction(
        id=name, group=name, split="test", kind=None, language="en", question="?", history=(), reference=reference,
        prediction=prediction, image=None, image_sha256=None, likelihoods=likelihoods, **values,  # type: ignore[arg-type]
    )  # fmt: skip


# ln p of three questions: yes by 3 to 1 and right, no by 7 to 2 and wrong, equal and so the first, which is wrong.
BY_HAND = [
    record("a", "yes", {"yes": math.log(0.3), "no": math.log(0.1)}, "Yes, it is."),
    record("b", "yes", {"yes": math.log(0.1), "no": math.log(0.35)}, "Yes and no"),
    record("c", "no", {"yes": math.log(0.2), "no": math.log(0.2)}, "No."),
]


def test_by_hand() -> None:
    scores = {name: ALL_METRICS[name].score(BY_HAND) for name in NAMES}
    assert scores["likelihood_accuracy"] == 1 / 3
    assert scores["choice_accuracy"] == scores["choice_parsed"] == 2 / 3
    # confidences 3/4, right, and 7/9, wrong, in one bin; 1/2, wrong
    assert scores["expected_calibration_error"] == pytest.approx((abs(1 - 3 / 4 - 7 / 9) + 1 / 2) / 3)
    assert scores["brier_score"] == pytest.approx((2 * (1 / 4) ** 2 + 2 * (7 / 9) ** 2 + 2 * (1 / 2) ** 2) / 3)


def test_long_choices_may_be_weighed_by_their_length() -> None:
    records = [record("a", "a very long answer", {"short": -5.0, "a very long answer": -9.0})]
    assert ALL_METRICS["likelihood_accuracy"].score(records) == 0
    assert ALL_METRICS["likelihood_accuracy_per_character"].score(records) == 1  # -9 / 18 against -5 / 5


@given(
    st.lists(st.tuples(st.lists(st.floats(-30, 0), min_size=2, max_size=5), st.integers(0, 1)), min_size=1, max_size=9)
)
def test_every_metric_equals_its_definition(rows: list[tuple[list[float], int]]) -> None:
    records, hits, chances, squares = [], [], [], []
    for index, (values, true) in enumerate(rows):
        names = "ABCDE"[: len(values)]
        records.append(record(str(index), names[true], dict(zip(names, values, strict=True))))
        total = math.fsum(math.exp(value) for value in values)
        shares = [math.exp(value) / total for value in values]
        hits.append(values.index(max(values)) == true)
        assert max(shares) == pytest.approx(softmax(values).max())
        chances.append(softmax(values).max())
        squares.append(math.fsum((share - (label == true)) ** 2 for label, share in enumerate(shares)))
    scores = {name: ALL_METRICS[name].score(records) for name in NAMES}
    assert scores["likelihood_accuracy"] == pytest.approx(np.mean(hits))
    assert scores["brier_score"] == pytest.approx(np.mean(squares))
    result = calibrate(chances, hits)
    assert scores["expected_calibration_error"] == pytest.approx(result.expected_error, abs=1e-9)
    assert sum(row[1] for row in result.bins) == len(rows)


def test_softmax_of_what_is_very_unlikely() -> None:
    assert softmax([-2000.0, -2000.0]).tolist() == [0.5, 0.5]


def test_calibration_by_hand() -> None:
    # bins (0.1, 0.2]: 0.2 wrong; (0.8, 0.9]: 0.9 right, 0.85 wrong; (0.9, 1]: 1.0 right
    result = calibrate([0.2, 0.9, 0.85, 1.0], [False, True, False, True])
    assert result.expected_error == pytest.approx((0.2 + 2 * abs(0.5 - 0.875) + 0) / 4)
    assert [row[:2] for row in result.bins] == [(0.1, 1), (0.8, 2), (0.9, 1)]
    with pytest.raises(ValueError, match="from 0 to 1"):
        calibrate([1.2], [True])


def test_a_calibrated_answerer_has_little_error() -> None:
    generator = np.random.default_rng(1)
    chance = generator.random(20000)
    assert calibrate(chance, generator.random(20000) < chance).expected_error < 0.015
    assert calibrate(chance, generator.random(20000) < chance**3).expected_error > 0.2


def test_the_reliability_table() -> None:
    table = calibration(BY_HAND)
    assert (table["n"], table["accuracy"]) == (3, 1 / 3)
    assert table["mean_confidence"] == pytest.approx((3 / 4 + 7 / 9 + 1 / 2) / 3)
    assert table["expected_calibration_error"] == ALL_METRICS["expected_calibration_error"].score(BY_HAND)
    assert [(row["from"], row["n"], row["right"]) for row in table["bins"]] == [(0.4, 1, 0.0), (0.7, 2, 0.5)]
    assert table["bins"][1]["interval"] == list(wilson_interval(1, 2))
    assert "10 bins" in table["signature"]


def test_questions_without_choices_are_left_out_and_errors_are_wrong() -> None:
    text = record("t", "a cat", {}, "a cat")
    failed = record("e", "yes", {}, error="unreadable")
    scores = score_all([*BY_HAND, text, failed], NAMES)
    assert scores["likelihood_accuracy"].value == 1 / 4
    assert scores["likelihood_accuracy"].n == 4
    assert scores["likelihood_accuracy"].interval == wilson_interval(1, 4)
    assert scores["brier_score"].value == ALL_METRICS["brier_score"].score(BY_HAND)
    assert scores["brier_score"].n == 3
    own = [replace(original, meta={"choices": '["yes", "no"]'}) for original in (*BY_HAND, failed)]
    assert score_all([*own, text], NAMES)["choice_accuracy"].value == 2 / 4
    mixed = [*own[:3], text, replace(failed, id="f", reference="a dog")]  # an error where no choices were offered
    assert score_all(mixed, NAMES)["likelihood_accuracy"].n == 3


def test_paired_comparisons_count_what_was_scored() -> None:
    before = [record(str(row), "yes", {"yes": -2.0, "no": -1.0} if row < 30 else {}) for row in range(40)]
    after = [
        replace(original, likelihoods={"yes": -1.0, "no": -2.0}) if original.likelihoods else original
        for original in before
    ]
    results = {name: result for name, (result, _) in compare_all(before, after, NAMES[2:]).items()}
    accuracy, error = results["likelihood_accuracy"], results["expected_calibration_error"]
    assert (accuracy.n, accuracy.difference, str(accuracy.test)) == (30, 1.0, "mid-p McNemar test, two-sided")
    share = math.exp(1) / (1 + math.exp(1))
    assert (error.n, error.before, error.after) == (30, pytest.approx(share), pytest.approx(1 - share))
    assert error.p_value < 0.05
    summary = compare(before, after, metrics=NAMES)
    assert summary.verdict.metric.name == "choice_accuracy"
    content = summary.as_dict()["splits"]["test"]
    assert {arm: table["n"] for arm, table in content["calibration"].items()} == {"before": 30, "after": 30}


def test_what_cannot_be_computed_is_said() -> None:
    plain = [replace(original, likelihoods={}) for original in BY_HAND]
    for name in NAMES:
        with pytest.raises(DataError, match=r"none of 3 (answers|questions) has (likelihoods|choices)\. .*choices="):
            ALL_METRICS[name].score(plain)
    content = compare(plain, plain, metrics=["likelihood_accuracy", "accuracy"]).as_dict()
    assert content["primary"] == "accuracy"
    assert list(content["splits"]["test"]["not_computed"]) == ["likelihood_accuracy"]
    assert content["splits"]["test"]["calibration"] == {}
    strange = [replace(BY_HAND[0], reference="a cat")]
    for name in NAMES:
        with pytest.raises(
            DataError, match=r"1 of 1 questions have no right choice \(first: test 'a': 'a cat' is none"
        ):
            ALL_METRICS[name].score(strange)
    with pytest.raises(DataError, match="are no likelihoods"):
        ALL_METRICS["brier_score"].score([replace(BY_HAND[0], likelihoods={"yes": math.nan, "no": -1.0})])


def test_classes_of_a_comparison_have_intervals() -> None:
    before = [record(str(row), "ab"[row % 2], {}, "a") for row in range(20)]
    after = [replace(original, prediction=original.reference) for original in before]
    content = compare(before, after, metrics=["accuracy"]).as_dict()["splits"]["test"]["classes"]
    assert [row["label"] for row in content["before"]] == ["a", "b"]
    rare = content["before"][1]
    assert (rare["n"], rare["named"], rare["precision"], rare["recall"], rare["f1"]) == (10, 0, None, 0.0, 0.0)
    assert rare["interval"][0] == 0 < rare["interval"][1] < 0.5
    assert content["after"][0]["interval"][1] == 1
    assert compare(before, after).as_dict()["splits"]["test"]["classes"] == {}
