import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import builders
import numpy as np
import pytest
from builders import compare_all
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import ALL_METRICS, select_metrics
from vglm.evaluation.score.metrics.base import Metric
from vglm.evaluation.score.metrics.benchmarks import (
    BENCHMARK_METRICS,
    COGNITION,
    PERCEPTION,
    read_as_mme,
    read_as_pope,
)
from vglm.evaluation.score.metrics.parsing import parse_label


def record(prediction: str, reference: str, *, id: str = "1", error: str | None = None, **meta: Any) -> Prediction:
    group = str(meta.get("pair", id))
    return builders.record(prediction, reference, id, group=group, error=error, meta=meta)


def value(name: str, records: Sequence[Prediction]) -> float:
    return ALL_METRICS[name].score(records)


def test_all_are_selectable_and_signed() -> None:
    names = [metric.name for metric in BENCHMARK_METRICS]
    assert [metric.name for metric in select_metrics(names)] == names
    assert all(metric.signature for metric in BENCHMARK_METRICS)
    assert len(PERCEPTION) + len(COGNITION) == 14


@pytest.mark.parametrize(
    "metric", [metric for metric in BENCHMARK_METRICS if metric.name != "yes_no_parsed"], ids=lambda metric: metric.name
)
def test_a_record_with_an_error_is_a_wrong_answer(metric: Metric) -> None:
    category = "color" if metric.name == "mme_perception" else "code_reasoning"
    meta = {"category": category, "pair": "1"}
    first = record("yes", "yes", id="1", **meta)
    with_error = [first, record("yes", "yes", id="2", error="unreadable", **meta)]
    assert metric.score(with_error) == metric.score([first, record("no", "yes", id="2", **meta)])
    assert metric.score([first, first]) != metric.score(with_error) or metric.name == "pope_precision"


# --- POPE -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_pope_equals_its_own_tool(rows: list[tuple[bool, bool]]) -> None:
    """Counts and formulas of RUCAIBox/POPE:evaluate.py, for answers that are just yes or no."""
    words = {True: "yes", False: "no"}
    records = [record(words[answer], words[right], id=str(index)) for index, (answer, right) in enumerate(rows)]
    both, claimed, true = (sum(column) for column in zip(*((g and r, g, r) for g, r in rows), strict=True))
    precision, recall = (both / n if n else math.nan for n in (claimed, true))
    assert value("pope_accuracy", records) == pytest.approx(sum(g == r for g, r in rows) / len(rows))
    assert value("pope_yes_ratio", records) == pytest.approx(claimed / len(rows))
    assert value("pope_precision", records) == pytest.approx(precision, nan_ok=True)
    assert value("pope_recall", records) == pytest.approx(recall, nan_ok=True)
    if both:
        assert value("pope_f1", records) == pytest.approx(2 * precision * recall / (precision + recall))


def test_pope_takes_what_is_not_no_for_yes_as_its_own_tool_does() -> None:
    records = [record(text, "yes", id=text) for text in ("Yes, there is.", "Perhaps.", "No.")]
    assert [value(f"pope_{name}", records) for name in ("accuracy", "recall", "yes_ratio")] == [2 / 3] * 3
    assert [value(f"yes_no_{name}", records) for name in ("accuracy", "parsed")] == [1 / 3, 2 / 3]
    assert value("pope_precision", records) == 1.0
    with pytest.raises(DataError, match="1 of 1 references are neither yes nor no"):
        value("pope_f1", [record("yes", "a dog")])


# --- MME --------------------------------------------------------------------------------------------------------------


def mme(category: str, pair: int, answers: tuple[str, str]) -> list[Prediction]:
    return [
        record(answer, right, id=f"{category}{pair}{right}", category=category, pair=f"{category}/{pair}")
        for answer, right in zip(answers, ("Yes", "No"), strict=True)
    ]


def test_mme_by_hand() -> None:
    """color: 3 of 4 right, 1 of 2 pairs -> 75 + 50; OCR: 1 of 2, 0 of 1 -> 50 + 0; code_reasoning: all -> 200."""
    records = [
        *mme("color", 1, ("Yes", "No")),
        *mme("color", 2, ("yes.", "Yes")),
        *mme("OCR", 1, ("It is.", "no")),
        *mme("code_reasoning", 1, ("Yes", "No")),
    ]
    assert value("mme_score", records) == 125 + 50 + 200
    assert value("mme_perception", records) == 175
    assert value("mme_cognition", records) == 200
    assert value("mme_accuracy", records) == 6 / 8
    assert value("mme_accuracy_plus", records) == 2 / 4
    with pytest.raises(DataError, match="no sample is of the categories commonsense_reasoning"):
        value("mme_cognition", records[:4])
    with pytest.raises(DataError, match="have no category and pair"):
        value("mme_score", [record("yes", "yes")])


def official_mme(records: Sequence[Prediction]) -> float:
    """The sum of scores as eval_tool/calculation.py has it, question by question."""
    by_category = defaultdict(list)
    for prediction in records:
        by_category[prediction.meta["category"]].append(prediction)
    total = 0.0
    for rows in by_category.values():
        chunks = list(zip(rows[::2], rows[1::2], strict=True))
        right = [
            [prediction.prediction.lower() == prediction.reference.lower() for prediction in chunk] for chunk in chunks
        ]
        total += 100 * (sum(map(sum, right)) / len(rows) + sum(map(all, right)) / len(chunks))
    return total


@given(
    st.lists(
        st.tuples(st.sampled_from(["color", "count", "OCR"]), *[st.sampled_from(["Yes", "No", "other"])] * 2),
        min_size=1,
        max_size=12,
    )
)
def test_mme_equals_its_own_tool(rows: list[tuple[str, str, str]]) -> None:
    records = [
        prediction
        for index, (category, *answers) in enumerate(rows)
        for prediction in mme(category, index, (answers[0], answers[1]))
    ]
    assert value("mme_score", records) == pytest.approx(official_mme(records))


def test_mme_arms_are_compared_by_picture() -> None:
    before = [prediction for pair in range(20) for prediction in mme("color", pair, ("No", "No"))]
    after = [
        prediction
        for pair in range(20)
        for prediction in mme("color", pair, ("Yes", "No") if pair % 2 else ("No", "No"))
    ]
    result, adjusted = compare_all(before, after, ["mme_score"])["mme_score"]
    assert (result.before, result.after, result.groups) == (50.0, 125.0, 20)
    assert result.interval[0] > 0
    assert adjusted is not None
    assert adjusted < 0.05


def test_a_resample_without_a_category_is_scaled_up() -> None:
    sums = np.array([[3.0, 4, 1, 2, 0, 0, 0, 0], [3.0, 4, 1, 2, 2, 2, 1, 1]])
    assert list(ALL_METRICS["mme_score"].statistic(sums)) == [250.0, 325.0]


@pytest.mark.parametrize(
    ("text", "mme", "pope", "read"),
    [
        ("Yes", "yes", "yes", "yes"),
        ("No.", "no", "no", "no"),
        ("I cannot view images.", None, "yes", None),
        ("There is no dog.", None, "no", "no"),
        ("Not really.", "no", "yes", "no"),
        ("Yes. There is not only a dog", "yes", "yes", "yes"),
        ("none", "no", "yes", "no"),
        ("no,there is", "no", "yes", "no"),  # POPE's tool takes the comma out and finds no word "no"
        ("NO", "no", "yes", "no"),
        ("A: yes", None, "yes", "yes"),
        ("", None, "yes", None),
        ("I know it: yes", None, "yes", "yes"),
    ],
)
def test_each_tool_reads_in_its_own_way(text: str, mme: str | None, pope: str, read: str | None) -> None:
    assert (read_as_mme(text), read_as_pope(text), parse_label(text, ("yes", "no"))) == (mme, pope, read)
