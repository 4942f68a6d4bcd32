import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import arm, score_all
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vglm.config import repo_root
from vglm.data.astronomy.questions import TYPES
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics import ALL_METRICS, select_metrics
from vglm.evaluation.score.metrics.labels import (
    as_table,
    class_f1_intervals,
    classify,
    f1_interval,
    normalise_vqa,
    reference_answers,
    vqa_accuracy,
)
from vglm.evaluation.score.metrics.parsing import parse_label
from vglm.evaluation.score.statistics import wilson_interval

# Three classes: a with 4, b with 3 and c with 1 reference; worked by hand.
#   a: 3 right, 1 called b; b: 1 right, 1 called a, 1 unparsed; c: an error
PAIRS = (
    ("a", "a"), ("a", "A."), ("a", "it is a"), ("a", "b"),
    ("b", "b"), ("b", "a"), ("b", "a or b"),
    ("c", None),
)  # fmt: skip


def test_classification_by_hand() -> None:
    scores = {
        name: ALL_METRICS[name].score(arm(*PAIRS)) for name in ("accuracy", "balanced_accuracy", "macro_f1", "parsed")
    }
    assert scores["accuracy"] == 4 / 8
    assert scores["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert scores["macro_f1"] == pytest.approx((2 * 3 / (4 + 4) + 2 * 1 / (3 + 2) + 0) / 3)
    assert scores["parsed"] == 6 / 8


def test_confusion_and_classes() -> None:
    table = classify(arm(*PAIRS)).as_dict()
    assert table["columns"] == ["a", "b", "c", "unparsed"]
    assert table["confusion"] == [[3, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]]
    assert table["unparsed"] == 2
    assert table["classes"]["b"] == {  # type: ignore[index]
        "n": 3,
        "named": 2,
        "precision": 1 / 2,
        "precision_interval": list(wilson_interval(1, 2)),
        "recall": 1 / 3,
        "recall_interval": list(wilson_interval(1, 3)),
        "f1": 2 / 5,
    }


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "?"])), min_size=1, max_size=12))
def test_macro_f1_equals_the_definition(pairs: list[tuple[str, str]]) -> None:
    scores = []
    for label in {true for true, _ in pairs}:
        hits = sum(true == named == label for true, named in pairs)
        precision = hits / max(1, sum(named == label for _, named in pairs))
        recall = hits / sum(true == label for true, _ in pairs)
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    (metric,) = select_metrics(["macro_f1"], labels=["a", "b", "c"])
    assert metric.score(arm(*pairs)) == pytest.approx(sum(scores) / len(scores))


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1"])
def test_a_mean_over_classes_names_them(name: str) -> None:
    (metric,) = select_metrics([name], labels=["a", "b", "c", "d"])[:1]
    assert metric.signed(arm(*PAIRS)).signature.startswith(
        "mean over 3 classes of the references: a/b/c|labels: a/b/c/d"
    )
    assert metric.signed(arm(("x", "a"))).signature == metric.signature


def test_the_class_of_several_references_does_not_follow_the_answer() -> None:
    crowd = (json.dumps(["a", "b", "b"]), json.dumps(["b", "a"]))  # of class b by majority; b, the first of two
    pairs = [(crowd[0], "a"), (crowd[1], "a"), ("a", "a"), ("b", "b")]
    scores = score_all(arm(*pairs), ["accuracy", "balanced_accuracy", "macro_f1"])
    assert classify(arm(*pairs)).confusion.tolist() == [[1, 0, 0], [2, 1, 0]]
    assert scores["accuracy"].value == 1.0  # each answer is one of the references
    assert scores["balanced_accuracy"].value == pytest.approx((1 + 1 / 3) / 2)
    assert scores["macro_f1"].value == pytest.approx((2 * 1 / (1 + 3) + 2 * 1 / (3 + 1)) / 2)
    assert {name: row.metric.signature.split("|")[0] for name, row in scores.items()}["accuracy"] == (
        "any of several references"
    )
    assert "of several references the most frequent, else the first" in scores["macro_f1"].metric.signature
    other = classify(arm((crowd[0], "b"), (crowd[1], "b"), *pairs[2:])).confusion
    assert other.sum(axis=1).tolist() == [1, 3]  # so many are of each class, whatever is answered


def test_one_outcome_has_one_interval_whatever_the_metric() -> None:
    records = arm(("a", "a"), ("b", "b"), ("a", "a"), ("b", "b"), ("a", "b"))
    scores = score_all(records, ["exact_match", "accuracy"])
    assert scores["accuracy"].interval == scores["exact_match"].interval == wilson_interval(4, 5)


def test_references_can_be_sentences_where_labels_are_named() -> None:
    (metric,) = select_metrics(["accuracy"], labels=["沙滩", "草地"])
    pairs = [("背景是沙滩。", "沙滩"), ("背景是草地。", "是沙滩")]
    assert metric.score(arm(*pairs)) == 0.5
    with pytest.raises(DataError, match=r"1 of 1 references name none, or several, of the 2 labels .*'背景是海。'"):
        metric.score(arm(("背景是海。", "沙滩")))


def test_free_text_is_no_closed_set() -> None:
    with pytest.raises(DataError, match=r"101 different texts.*metrics\.labels"):
        classify(arm(*((f"text {index}", "x") for index in range(101))))


def test_class_f1_intervals_are_wide_where_a_class_is_rare() -> None:
    pairs = [("common", "common" if index % 5 else "rare") for index in range(200)]
    pairs += [("rare", "rare" if index % 3 else "common") for index in range(12)]
    intervals = class_f1_intervals(arm(*pairs))
    value, interval, n = intervals["rare"]
    assert n == 12
    assert interval.low < value < interval.high
    assert interval.high - interval.low > 2 * (intervals["common"][1].high - intervals["common"][1].low)
    rows = as_table(classify(arm(*pairs)).as_dict()["classes"], intervals)
    assert [row["label"] for row in rows] == ["rare", "common"]
    assert rows[0]["f1"] == pytest.approx(value)
    assert rows[0]["interval"] == list(interval)


def test_f1_interval_holds_the_truth_for_rare_classes() -> None:
    generator = np.random.default_rng(1)
    for shares in ((0.04, 0.02, 0.03, 0.91), (0.06, 0.0, 0.005, 0.935), (0.3, 0.1, 0.1, 0.5)):  # hit, missed, false
        truth = 2 * shares[0] / (2 * shares[0] + shares[1] + shares[2])
        draws = generator.multinomial(100, shares, size=1000)
        ends = [f1_interval(hit, hit + missed, hit + false) for hit, missed, false, _ in draws.tolist()]
        assert 0.93 <= np.mean([low <= truth <= high for low, high in ends]) <= 0.99
    assert f1_interval(0, 3, 0).high > 0.5  # none of three says little
    assert f1_interval(0, 0, 0) == (0.0, 1.0)


def test_intervals_of_classes_know_groups() -> None:
    records = arm(*[("a", "a"), ("b", "a"), ("a", "b"), ("b", "b")] * 10)
    clustered = [replace(record, group=str(index % 4)) for index, record in enumerate(records)]
    alone, grouped = class_f1_intervals(records)["a"], class_f1_intervals(clustered)["a"]
    assert alone[0] == grouped[0] == 0.5
    assert grouped[1].high - grouped[1].low > 1.5 * (alone[1].high - alone[1].low)
    perfect = class_f1_intervals([replace(record, prediction=record.reference) for record in clustered])["a"]
    assert all(map(math.isnan, perfect[1]))  # four groups that are all right show no spread


def test_questions_with_their_own_choices_are_parsed_against_these() -> None:
    choices = {"zh": '["是的。", "不是。"]', "en": '["Yes.", "No."]'}
    pairs = [
        ("是的。", "对，图中有猫。", "zh"),
        ("不是。", "图中没有猫。", "zh"),
        ("No.", "不知道", "en"),
        ("Yes.", "yes", "en"),
    ]
    records = [
        replace(record, meta={"choices": choices[language]})
        for record, (_, _, language) in zip(arm(*(pair[:2] for pair in pairs)), pairs, strict=True)
    ]
    table = classify(records)
    assert table.labels == ("No.", "Yes.", "不是。", "是的。")
    assert np.diag(table.confusion).tolist() == [0, 1, 1, 1]
    assert table.confusion[0, -1] == 1
    assert ALL_METRICS["accuracy"].score(records) == 0.75


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two cats.", "2 cats"),
        ("The dog's bowl", "dog's bowl"),
        ("1,000", "1000"),
        ("red,blue", "red blue"),
        ("red, blue", "red blue"),
        ("dont know", "don't know"),
        ("3.5 m", "3.5 m"),
        ("none", "0"),
        ("shouldnt've", "shouldn't've"),
        ("couldntve", "couldntve"),  # as the official table, which mends one apostrophe at a time
        ("Im, somebody'd", "im somebodyd"),  # likewise
        (". " * 40, ". . . . . . . ."),  # likewise: 32 points vanish
    ],
)
def test_normalise_vqa(text: str, expected: str) -> None:
    assert normalise_vqa(text) == expected


@pytest.mark.parametrize("matches", range(11))
def test_vqa_accuracy_is_the_mean_over_nine_of_ten(matches: int) -> None:
    answers = ["yes"] * matches + ["no"] * (10 - matches)
    expected = [min(1, subset.count("yes") / 3) for subset in itertools.combinations(answers, 9)]
    assert vqa_accuracy("yes", answers) == pytest.approx(math.fsum(expected) / 10)
    is_letter_by_letter = matches == 10  # the official code normalises nothing where all people agree
    assert vqa_accuracy("Yes.", answers) == pytest.approx(0 if is_letter_by_letter else math.fsum(expected) / 10)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["Red."], 1),
        (["red", "red"], 1),
        (["red", "blue"], 0.5),
        (["red", "red", "blue"], 2 / 3),
        (["red"] * 2 + ["blue"] * 10, 2 / 3 * 10 / 12 + 1 / 3 * 2 / 12),
        (["blue"] * 4, 0),
        ([], 0),
    ],
)
def test_vqa_accuracy_of_more_or_fewer_answers_than_ten(answers: list[str], expected: float) -> None:
    assert vqa_accuracy("red", answers) == pytest.approx(expected)


def test_vqa_compares_with_what_people_said_and_the_signature_tells_it() -> None:
    metric, ten = ALL_METRICS["vqa_accuracy"], json.dumps(["red"] * 3 + ["blue"] * 7)
    plain, listed, other = arm(("red", "blue"), ("blue", "Red."), ("red", "red"))
    listed = replace(listed, meta={"answers": ten})
    assert metric.score([plain, listed]) == pytest.approx(0.45)  # three of ten, one of them left out: 0.9
    two = replace(other, meta={"answers": '["red", "blue"]'})
    no_list = replace(other, meta={"answers": "blue"})
    assert metric.score([no_list]) == 1  # a field of that name with something else
    signatures = [
        score_all(records, ["vqa_accuracy"])["vqa_accuracy"].metric.signature
        for records in ([plain, other], [listed], [two, listed], [plain, listed])
    ]
    assert signatures[0].startswith("plain match with the one answer that the data has, no vote|")
    assert signatures[1].startswith("soft, min(1, matches/3), one person left out|10 answers a sample|vqaEval")
    assert "|2-10 answers a sample|with 2 or 3 answers matches/others|vqaEval" in signatures[2]
    assert "|10 answers a sample|1 of 2 samples: plain match with their one answer|" in signatures[3]


def test_vqa_references() -> None:
    assert reference_answers('["red", "dark red"]') == ["red", "dark red"]
    assert reference_answers("[red]") == ["[red]"]
    assert ALL_METRICS["vqa_accuracy"].score(arm(("red", "Red"), ('["red", "red", "red", "red"]', "red"))) == 1.0


PLACES = {"沙滩": ["beach", "海滩"], "草地": ["grass", "meadow"], "雪地": []}


@pytest.mark.parametrize(
    ("answer", "is_right", "is_parsed"),
    [
        ("沙滩上有四只黄色的猫。", 1, 1),
        ("There are four yellow cats on a beach.", 1, 1),
        ("在beach上，也就是海滩。", 1, 1),
        ("A beachhead.", 0, 0),
        ("草地", 0, 1),
        ("沙滩或者草地。", 0, 0),
        ("a beach, not a meadow", 1, 1),
        ("不是沙滩。", 0, 0),
        ("四只黄色的猫。", 0, 0),
    ],
)
def test_labels_may_have_other_words(answer: str, is_right: int, is_parsed: int) -> None:
    accuracy, parsed = select_metrics(["accuracy", "parsed"], labels=PLACES)
    for reference in ("背景是沙滩。", "beach"):
        assert accuracy.score(arm((reference, answer))) == is_right
        assert parsed.score(arm((reference, answer))) == is_parsed
    assert "labels: 沙滩=beach=海滩/草地=grass=meadow/雪地|" in accuracy.signature


@given(
    st.sampled_from(sorted(PLACES)), st.sampled_from(sorted(PLACES)), st.sampled_from(["背景是{}。", "It is {}!", "{}"])
)
def test_every_word_for_a_label_names_it(label: str, other: str, sentence: str) -> None:
    for word in (label, *PLACES[label]):
        assert parse_label(sentence.format(word), PLACES) == label
        if other != label:
            assert parse_label(sentence.format(f"{word}, {other}"), PLACES) is None


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ({"a": ["x"], "b": ["X."]}, "'X.' means both 'a' and 'b'"),
        ({"a": ["b"], "b": []}, "'b' means both 'a' and 'b'"),
        ({"a": "x"}, "must be a list of texts"),
        ({"a": None}, "must be a list of texts"),
        ({"a": [True]}, "must be a list of texts"),
        (["a", 1], "must be a list of texts"),
        ("ab", "must be a list of texts"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(labels: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        select_metrics(["accuracy"], labels=labels)


def of_kinds(*rows: tuple[str, str, str]) -> list[Prediction]:
    """Records of (kind, reference, prediction)."""
    records = arm(*(row[1:] for row in rows))
    return [replace(record, kind=kind) for record, (kind, *_) in zip(records, rows, strict=True)]


STARS = OmegaConf.load(repo_root() / "conf" / "metrics" / "lightcurves.yaml")


def test_star_types_are_classified_alone_in_both_languages() -> None:
    """RR Lyrae 2 of 3 right and 1 false alarm, hybrid 1 of 2, Cepheid never; two periods of three within 10%."""
    records = of_kinds(
        ("type", "天琴座RR型变星。", "天琴座RR型变星。"),
        ("type", "RR Lyrae star.", "It is an RR Lyrae star."),
        ("type", "RR Lyrae star.", "Hybrid pulsator."),
        ("type", "Hybrid pulsator.", "混合型脉动变星"),
        ("type", "混合型脉动变星。", "天琴座RR型变星。"),
        ("type", "Type II Cepheid.", "E."),
        ("period", "约5天。", "约5天。"),
        ("period", "约5天。", "About 4.8 days."),
        ("period", "About 5 days.", "About 10 days."),
        ("amplitude", "约1星等。", "Eclipsing binary."),
    )
    scores = score_all(records, list(STARS.names), labels=STARS.labels)
    assert scores["accuracy"].value == 3 / 6
    assert scores["accuracy"].n == scores["parsed"].n == 6
    assert scores["parsed"].value == 5 / 6
    assert scores["macro_f1"].value == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert scores["period_within_10_percent"].value == pytest.approx(2 / 3)
    assert "|only questions of kind type|" in scores["accuracy"].metric.signature
    assert classify(records, STARS.labels).confusion.sum() == 6
    assert set(STARS.labels) == {star_type.english for star_type in TYPES.values()}
    assert [list(spellings) for spellings in STARS.labels.values()] == [
        [star_type.chinese] for star_type in TYPES.values()
    ]


def test_a_kind_that_names_labels_must_name_them_always() -> None:
    with pytest.raises(DataError, match=r"1 of 3 references name none.*'约5天。'"):
        score_all(
            of_kinds(("type", "a", "a"), ("type", "约5天。", "a"), ("size", "1", "1")), ["accuracy"], labels=["a"]
        )
