import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import compare_all
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import DataError
from vglm.evaluation.messages import as_plain
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, write_evaluation, write_predictions
from vglm.evaluation.score.baselines import read_baselines
from vglm.evaluation.score.comparison import (
    compare,
    compare_folder,
    judge,
)
from vglm.evaluation.score.image_use import read_visual_gains
from vglm.evaluation.score.metrics import ALL_METRICS, METRICS
from vglm.evaluation.score.scoring import score_folder
from vglm.evaluation.score.statistics import compare_paired


def record(name: str, prediction: str, *, split: str = "test", kind: str | None = None, **values: str) -> Prediction:
    """A record whose right answer is 对."""
    fields = {"question": "?", "reference": "对"} | values
    return Prediction(
        id=name, group=name, split=split, kind=kind, language="zh", history=(), prediction=prediction, image=None,
        image_sha256=None, error=values.get("error"), **{key: fields[key] for key in ("question", "reference")},
    )  # fmt: skip


BEFORE = [
    record("a", "错", kind="colour"),
    record("b", "对", kind="count"),
    record("c", "错", kind="count"),
    record("d", " 对\n", kind="count"),
    record("p", "对", split="retention"),
    record("q", "对", split="retention"),
]
AFTER = [
    record("a", "对", kind="colour"),
    record("b", "错", kind="count"),
    record("c", "错了", kind="count"),
    record("d", "对", kind="count"),
    record("p", "错", split="retention"),
    record("q", "对", split="retention"),
]


def test_scores_flips_and_what_was_forgotten() -> None:
    comparison = compare(BEFORE, AFTER)
    test, retention = comparison.splits["test"], comparison.splits["retention"]
    assert list(comparison.splits) == ["test", "retention"]
    assert (test.n, retention.n) == (4, 2)
    assert test.scores["exact_match"] == (0.5, 0.5)
    assert test.scores["rouge_l_characters"] == (0.5, 0.5)
    assert [pair.candidate.id for pair in test.flips(False, True)] == ["a"]
    assert [pair.candidate.id for pair in test.flips(True, False)] == ["b"]
    assert [pair.candidate.id for pair in test.pairs if pair.is_changed] == ["a", "b", "c"]  # d: only white space
    assert {kind: (part.n, part.points()) for kind, part in test.kinds.items()} == {
        "colour": (1, 100.0),
        "count": (3, pytest.approx(-100 / 3)),
    }
    assert comparison.retention_loss_points == pytest.approx(50.0)


def test_the_order_of_the_baseline_does_not_matter() -> None:
    assert compare(BEFORE[::-1], AFTER).as_dict() == compare(BEFORE, AFTER).as_dict()


def test_metrics_json_names_the_arms_as_they_are_called() -> None:
    content = json.loads(json.dumps(compare(BEFORE, AFTER, labels=("shuffled", "true")).as_dict()))
    assert content["arms"] == {"baseline": "shuffled", "candidate": "true"}
    exact = content["splits"]["test"]["scores"]["exact_match"]
    assert exact["values"] == {"shuffled": 0.5, "true": 0.5}
    assert (exact["points"], exact["n"], exact["groups"]) == (0.0, 4, 4)
    # mid-p: of four ways in which two samples flip, two are what was observed, and count by half
    assert (exact["p_value"], exact["p_value_exact"], exact["flips"]) == (0.75, 1.0, {"gained": 1, "lost": 1})
    assert exact["p_value_holm"] == 1.0
    assert exact["test"] == {"key": "test.mcnemar", "values": {}}
    assert exact["interval"][0] < 0 < exact["interval"][1]
    assert "before" not in exact
    assert content["splits"]["test"]["wrong_to_right"] == ["a"]
    assert content["splits"]["test"]["kinds"]["count"]["n"] == 3
    assert content["retention_loss_points"] == pytest.approx(50.0)
    assert set(content["metrics"]) == {"exact_match", "rouge_l_characters"}
    assert compare(BEFORE[:4], AFTER[:4]).as_dict()["retention_loss_points"] is None


def test_samples_without_an_answer_count_in_neither_arm_and_are_counted() -> None:
    failed = record("a", "", error="a.png is truncated")
    before = [record("a", "对"), record("b", "对")]
    summary = compare(before, [failed, record("b", "错")]).splits["test"]
    assert (summary.n, summary.errors, summary.scores["exact_match"]) == (1, 1, (1.0, 0.0))
    assert [pair.candidate.id for pair in summary.missing] == ["a"]
    nothing = compare(before[:1], [failed]).splits["test"]  # without one answer, all are wrong
    assert (nothing.n, nothing.errors, nothing.scores["exact_match"]) == (1, 1, (1.0, 0.0))


@given(st.lists(st.tuples(st.sampled_from("对错"), st.sampled_from("对错")), min_size=1, max_size=12))
def test_gain_is_the_balance_of_the_flips(answers: list[tuple[str, str]]) -> None:
    before = [record(str(row), answer) for row, (answer, _) in enumerate(answers)]
    after = [record(str(row), answer) for row, (_, answer) in enumerate(answers)]
    summary = compare(before, after).splits["test"]
    gained, lost = len(summary.flips(False, True)), len(summary.flips(True, False))
    assert summary.points() == pytest.approx(100 * (gained - lost) / len(answers))
    assert summary.changed == gained + lost
    assert sum(len(summary.flips(was, now)) for was in (False, True) for now in (False, True)) == summary.n


def test_arms_about_other_samples_are_refused() -> None:
    with pytest.raises(DataError, match=r"before and after are not about the same samples: 1 differ .*'d' is only in"):
        compare(BEFORE, [*AFTER[:3], *AFTER[4:]])
    with pytest.raises(DataError, match="retention 'p' is only in after"):
        compare(BEFORE[:4], AFTER)
    with pytest.raises(DataError, match="'a' has another question or reference"):
        compare(BEFORE, [replace(AFTER[0], reference="错"), *AFTER[1:]])
    with pytest.raises(DataError, match="nothing to compare"):
        compare([], [])


def many(right: int, n: int, **values: str) -> list[Prediction]:
    """So many records, the first ones right."""
    truth = ["是" if row % 2 else "对" for row in range(n)]
    return [
        record(f"{row:03}", label if row < right else "错", **{"reference": label, **values})
        for row, label in enumerate(truth)
    ]


def test_every_metric_has_its_statistics_and_holm_counts_them_all() -> None:
    before, after = many(10, 40), many(24, 40)
    comparison = compare(before, after, metrics=["chrf", "contains"])
    split = comparison.as_dict()["splits"]["test"]
    test = split["scores"]
    names = ["chrf", "contains", "exact_match", "rouge_l_characters"]
    expected = compare_all(before, after, names)
    for name in names:
        assert test[name]["p_value_holm"] == pytest.approx(expected[name][1])
        assert test[name]["p_value_holm"] >= test[name]["p_value"]
        assert test[name]["interval"] == pytest.approx(list(expected[name][0].interval))
        assert test[name]["signature"] == ALL_METRICS[name].signature
    assert test["exact_match"]["p_value_exact"] == pytest.approx(2 / 2**14)  # 14 gains and no loss
    assert test["exact_match"]["p_value"] == pytest.approx(1 / 2**14)
    assert test["answer_length"]["p_value_holm"] is None
    assert split["power_line"] == as_plain(comparison.splits["test"].power_line)
    assert str(comparison.splits["test"].power_line).startswith("With 40 test items a true difference under")


def test_samples_of_one_group_do_not_count_as_independent() -> None:
    before, after = many(0, 40), many(20, 40)
    grouped = [
        [replace(original, group=f"study{int(original.id) // 4}") for original in arm] for arm in (before, after)
    ]
    alone = compare(before, after).splits["test"].primary
    result = compare(*grouped).splits["test"].primary
    assert (result.n, result.groups) == (40, 10)
    assert result.difference == alone.difference == 0.5
    assert result.interval.high - result.interval.low > 1.5 * (alone.interval.high - alone.interval.low)
    assert result.p_value > alone.p_value


@pytest.mark.parametrize(
    ("before", "after", "n", "finding"),
    [(5, 30, 40, "better"), (30, 5, 40, "worse"), (20, 22, 40, "open"), (0, 8, 8, "too few")],
)
def test_the_verdict_says_what_the_data_allow(before: int, after: int, n: int, finding: str) -> None:
    assert compare(many(before, n), many(after, n)).verdict.finding == finding


def test_of_errors_less_is_better() -> None:
    result = compare_paired([0.5 + row / 100 for row in range(20)], [row / 100 for row in range(20)][::-1])
    assert judge(result, replace(METRICS[0], higher_is_better=False)).finding == "better"
    assert judge(result, METRICS[0]).finding == "worse"


def test_metrics_that_do_not_apply_are_named_and_the_others_stay() -> None:
    before = [replace(original, reference=f"对{row}") for row, original in enumerate(many(0, 120))]
    comparison = compare(before, before, metrics=["accuracy", "exact_match"])
    test = comparison.splits["test"]
    assert list(test.not_computed) == ["accuracy"]
    assert "they are no classes" in str(test.not_computed["accuracy"])
    assert test.primary_metric.name == "exact_match"
    assert comparison.confusion == {}


def test_classes_have_a_confusion_matrix() -> None:
    before = [replace(original, reference="对" if row % 2 else "错") for row, original in enumerate(many(0, 20))]
    comparison = compare(
        before, [replace(original, prediction=original.reference) for original in before], metrics=["accuracy"]
    )
    assert comparison.confusion["before"]["confusion"] == [[0, 10, 0], [0, 10, 0]] or comparison.confusion["before"][
        "confusion"
    ] == [[10, 0, 0], [10, 0, 0]]
    assert sorted(map(max, comparison.confusion["after"]["confusion"])) == [10, 10]
    assert comparison.verdict.metric.name == "accuracy"


def test_slices_by_kind_and_language() -> None:
    rows = [
        replace(original, kind=["a", "b"][row % 2], language="en" if row < 5 else "zh")
        for row, original in enumerate(many(0, 20))
    ]
    slices = compare(rows, [replace(original, prediction="对") for original in rows]).as_dict()["splits"]["test"][
        "slices"
    ]
    assert {name: {value: part["n"] for value, part in parts.items()} for name, parts in slices.items()} == {
        "kind": {"a": 10, "b": 10},
        "language": {"en": 5, "zh": 15},
    }
    assert slices["kind"]["a"]["scores"]["exact_match"]["points"] == 100.0


EVALUATION = Evaluation(
    title="t", summary="s", purpose="tuning", baseline=Arm(label="before", meaning="b"),
    candidate=Arm(label="after", meaning="a"), facts={}, decoding={}, command="", versions={}, created="",
    config="metrics: {names: [chrf], labels: null, convention: sacrebleu}\n",
)  # fmt: skip


def test_a_folder_with_controls_and_baselines(tmp_path: Path) -> None:
    write_evaluation(EVALUATION, tmp_path)
    arms = {"before": 12, "after": 36, "before-shuffled": 12, "after-shuffled": 10, "after-blank": 8, "before-blank": 9}
    for label, right in arms.items():
        write_predictions(many(right, 40), tmp_path / label / "predictions.jsonl")
    baselines = [{"name": "constant", "meaning": "always 对", "scores": {"exact_match": 0.5, "chrf": {"value": 0.4}}}]
    (tmp_path / "baselines.json").write_text(json.dumps(baselines), encoding="utf-8")
    comparison = compare_folder(tmp_path, EVALUATION)
    assert comparison.splits["test"].primary_metric.name == "chrf"
    gains = read_visual_gains(tmp_path, EVALUATION, comparison)
    assert [(gain.control, gain.arm) for gain in gains] == [
        ("shuffled", "before"), ("shuffled", "after"), ("blank", "before"), ("blank", "after"),
    ]  # fmt: skip
    assert [gain.result.difference for gain in gains] == pytest.approx([0, 26 / 40, 3 / 40, 28 / 40])
    assert read_baselines(tmp_path)[0].scores == {"exact_match": 0.5, "chrf": 0.4}
    assert list(score_folder(tmp_path).conventions) == ["sacrebleu"]
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["primary"] == "chrf"

    write_predictions([*many(9, 39), record("x", "")], tmp_path / "after-blank/predictions.jsonl")
    with pytest.raises(DataError, match="not about the samples of after"):
        read_visual_gains(tmp_path, EVALUATION, comparison)
    (tmp_path / "baselines.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(DataError, match="expected a list of name, meaning and scores"):
        read_baselines(tmp_path)


def test_scoring_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, vglm.evaluation.report, vglm.evaluation.score.comparison; print('torch' in sys.modules)"
    source = Path(__file__).parents[1] / "src"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert result.stdout.strip() == "False"


# --- several draws of an answer --------------------------------------------------------------------------------------

ANSWERS = st.lists(st.tuples(*[st.lists(st.booleans(), min_size=3, max_size=3)] * 2), min_size=2, max_size=8)


def drawn(arm: int, answers: list[tuple[list[bool], list[bool]]]) -> list[Prediction]:
    """Three draws of each sample, right or wrong."""
    return [
        replace(record(f"s{index}", "对" if is_right else "错"), draw=draw)
        for index, arms in enumerate(answers)
        for draw, is_right in enumerate(arms[arm])
    ]


@given(answers=ANSWERS)
def test_draws_are_paired_and_a_sample_counts_once_with_their_mean(
    answers: list[tuple[list[bool], list[bool]]],
) -> None:
    before, after = drawn(0, answers), drawn(1, answers)
    comparison = compare(before[::-1], after, metrics=["exact_match", "answer_length", "contains"])
    part = comparison.splits["test"]
    means = [[sum(arms[arm]) / 3 for arms in answers] for arm in (0, 1)]
    expected = compare_paired(*means)
    for name in ("exact_match", "contains"):
        actual = part.paired[name][0]
        assert repr(replace(actual, flips=None)) == repr(replace(expected, flips=None))  # NaN is what no == says it is
    assert (part.n, part.primary.n, part.primary.groups) == (len(answers),) * 3
    assert part.changed == sum(arms[0] != arms[1] for arms in answers)
    assert len(part.flips(False, True)) == sum(not a and b for arms in answers for a, b in zip(*arms, strict=True))

    content = json.loads(json.dumps(comparison.as_dict()))["draws"]
    columns = {
        label: [sum(arms[arm][draw] for arms in answers) / len(answers) for draw in range(3)]
        for arm, label in enumerate(("before", "after"))
    }
    assert (content["n"], content["metric"]) == (3, "exact_match")
    for label, column in columns.items():
        mean = sum(column) / 3
        assert content["scores"][label] == pytest.approx(column)
        assert content["mean"][label] == pytest.approx(mean)
        assert content["sd"][label] == pytest.approx(
            (sum((value - mean) ** 2 for value in column) / 2) ** 0.5, abs=1e-9
        )


def test_an_answer_drawn_again_and_again_proves_no_more_than_once() -> None:
    names = ["exact_match", "bleu_char", "accuracy", "macro_f1"]
    once = compare(BEFORE, AFTER, metrics=names, classes=["对", "错"])
    thrice = compare(
        *([replace(original, draw=draw) for original in arm for draw in range(3)] for arm in (BEFORE, AFTER)),
        metrics=names,
        classes=["对", "错"],
    )
    first, second = once.splits["test"], thrice.splits["test"]
    assert (first.n, first.errors, first.changed) == (second.n, second.errors, second.changed)
    for name, (result, p_value) in first.paired.items():
        again, p_again = second.paired[name]
        assert again.interval == pytest.approx(result.interval, nan_ok=True)
        assert (again.n, again.groups, again.p_value, p_again) == (result.n, result.groups, result.p_value, p_value)
    assert repr(second.primary) == repr(first.primary)  # McNemar's test, on samples
    assert thrice.confusion == once.confusion
    assert {name: part.n for name, part in second.kinds.items()} == {name: part.n for name, part in first.kinds.items()}
    assert str(second.power_line) == f"{first.power_line} Each item was answered 3 times and counts once."
    content = thrice.as_dict()
    assert content["splits"]["test"]["wrong_to_right"] == ["a (draw 0)", "a (draw 1)", "a (draw 2)"]
    assert content["draws"]["sd"] == {"before": 0.0, "after": 0.0}
    assert once.as_dict()["draws"] == {
        "n": 1, "metric": "exact_match", "scores": {"before": [0.5], "after": [0.5]},
        "mean": {"before": 0.5, "after": 0.5}, "sd": {"before": None, "after": None},
    }  # fmt: skip


def test_arms_with_other_draws_are_refused() -> None:
    more = [*AFTER, replace(AFTER[0], draw=1)]
    with pytest.raises(DataError, match=r"1 differ \(first: test 'a', draw 1, is only in after\)"):
        compare(BEFORE, more)


def yes_no(name: str, prediction: str, reference: str, **values: object) -> Prediction:
    return replace(record(name, prediction, reference=reference), language="en", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names", [["pope_accuracy"], ["pope_f1", "pope_accuracy"], ["accuracy"], ["macro_f1", "accuracy"]]
)
def test_right_and_wrong_go_by_the_primary_metric_or_its_accuracy(names: list[str]) -> None:
    before = [yes_no("a", "No.", "no"), yes_no("b", "No.", "yes"), yes_no("c", "yes", "yes", kind="x")]
    after = [yes_no("a", "no", "no"), yes_no("b", "Yes, it is.", "yes"), yes_no("c", "No", "yes", kind="x")]
    part = compare(before, after, metrics=names).splits["test"]
    assert [pair.right for pair in part.pairs] == [(True, True), (False, True), (True, False)]
    assert part.decisive.name == names[-1]
    result = part.paired[names[-1]][0]
    assert part.right == pytest.approx((result.before, result.after))
    content = compare(before, after, metrics=names).as_dict()["splits"]["test"]
    assert (content["right_by"], content["wrong_to_right"], content["right_to_wrong"]) == (names[-1], ["b"], ["c"])
    assert part.part([part.pairs[2]]).flips(True, False) == [part.pairs[2]]  # a slice goes by the same


@pytest.mark.parametrize(
    "names", [[], ["bleu_zh"], ["pope_f1"], ["findings_micro_f1"], ["rouge_l_characters", "contains"]]
)
def test_exact_match_decides_where_nothing_asked_for_calls_each_answer_right_or_wrong(names: list[str]) -> None:
    before = [yes_no("a", "No.", "no"), yes_no("b", "yes", "yes")]
    part = compare(before, [yes_no("a", "no", "no"), yes_no("b", "Yes!", "yes")], metrics=names).splits["test"]
    assert part.decisive.name == "exact_match"
    assert [pair.right for pair in part.pairs] == [(False, True), (True, False)]


def test_an_answer_that_failed_is_wrong_and_the_retention_set_goes_by_exact_match() -> None:
    before = [yes_no("a", "", "no", error="no picture"), yes_no("p", "No.", "no", split="retention")]
    after = [yes_no("a", "No.", "no"), yes_no("p", "no", "no", split="retention")]
    splits = compare(before, after, metrics=["pope_accuracy"]).splits
    assert [pair.right for pair in splits["test"].pairs] == [(False, True)]
    assert splits["test"].right == (0.0, 1.0)
    assert (splits["retention"].decisive.name, splits["retention"].right) == ("exact_match", (0.0, 1.0))


def test_findings_count_samples_not_draws() -> None:
    reports = [record("a", "右侧气胸。", reference="右侧气胸。"), record("b", "双肺清晰。", reference="心影增大。")]
    drawn_twice = [replace(report, draw=draw) for report in reports for draw in (0, 1)]
    findings = compare(drawn_twice, drawn_twice, metrics=["findings_micro_f1"]).as_dict()["splits"]["test"]["findings"]
    assert findings["after"]["Pneumothorax"]["n"] == findings["after"]["Pneumothorax"]["named"] == 1
    assert (findings["before"]["Cardiomegaly"]["n"], findings["before"]["Cardiomegaly"]["named"]) == (1, 0)


def test_a_score_of_pairs_leaves_right_and_wrong_to_the_accuracy_beside_it() -> None:
    meta = {"category": "count", "pair": "1.jpg"}
    before = [yes_no("a", "No", "no", meta=meta), yes_no("b", "No.", "yes", meta=meta)]
    after = [replace(original, prediction="Yes.") for original in before]
    part = compare(before, after, metrics=["mme_score", "mme_accuracy"]).splits["test"]
    assert part.primary_metric.name == "mme_score"
    assert part.decisive.name == "mme_accuracy"
    assert [pair.right for pair in part.pairs] == [(True, False), (False, True)]
