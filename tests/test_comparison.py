import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.errors import DataError
from vglm.evaluation.comparison import compare
from vglm.evaluation.predictions import Prediction


def record(name: str, prediction: str, *, split: str = "test", kind: str | None = None, **values: str) -> Prediction:
    """A record whose right answer is 对."""
    fields = {"question": "?", "reference": "对"} | values
    return Prediction(
        id=name, group=name, split=split, kind=kind, english=False, history=(), prediction=prediction, image=None,
        image_sha256=None, error=values.get("error"), **{key: fields[key] for key in ("question", "reference")},
    )  # fmt: skip


BEFORE = [
    record("a", "错", kind="colour"),
    record("b", "对", kind="count"),
    record("c", "错", kind="count"),
    record("d", " 对\n", kind="count"),
    record("p", "对", split="probe"),
    record("q", "对", split="probe"),
]
AFTER = [
    record("a", "对", kind="colour"),
    record("b", "错", kind="count"),
    record("c", "错了", kind="count"),
    record("d", "对", kind="count"),
    record("p", "错", split="probe"),
    record("q", "对", split="probe"),
]


def test_scores_flips_and_what_was_forgotten() -> None:
    comparison = compare(BEFORE, AFTER)
    test, probe = comparison.splits["test"], comparison.splits["probe"]
    assert list(comparison.splits) == ["test", "probe"]
    assert (test.n, probe.n) == (4, 2)
    assert test.scores["exact_match"] == (0.5, 0.5)
    assert test.scores["rouge_l_characters"] == (0.5, 0.5)
    assert [pair.candidate.id for pair in test.flips(False, True)] == ["a"]
    assert [pair.candidate.id for pair in test.flips(True, False)] == ["b"]
    assert [pair.candidate.id for pair in test.pairs if pair.is_changed] == ["a", "b", "c"]  # d: only white space
    assert {kind: (part.n, part.points()) for kind, part in test.kinds.items()} == {
        "colour": (1, 100.0),
        "count": (3, pytest.approx(-100 / 3)),
    }
    assert comparison.probe_loss_points == pytest.approx(50.0)


def test_the_order_of_the_baseline_does_not_matter() -> None:
    assert compare(BEFORE[::-1], AFTER).as_dict() == compare(BEFORE, AFTER).as_dict()


def test_metrics_json_names_the_arms_as_they_are_called() -> None:
    content = json.loads(json.dumps(compare(BEFORE, AFTER, labels=("shuffled", "true")).as_dict()))
    assert content["arms"] == {"baseline": "shuffled", "candidate": "true"}
    assert content["splits"]["test"]["exact_match"] == {"shuffled": 0.5, "true": 0.5, "points": 0.0}
    assert content["splits"]["test"]["wrong_to_right"] == ["a"]
    assert content["splits"]["test"]["kinds"]["count"]["n"] == 3
    assert content["probe_loss_points"] == pytest.approx(50.0)
    assert set(content["metrics"]) == {"exact_match", "rouge_l_characters"}
    assert compare(BEFORE[:4], AFTER[:4]).as_dict()["probe_loss_points"] is None


def test_errors_count_as_wrong_and_are_counted() -> None:
    summary = compare([record("a", "对")], [record("a", "", error="a.png is truncated")]).splits["test"]
    assert (summary.n, summary.errors, summary.scores["exact_match"]) == (1, 1, (1.0, 0.0))


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
    with pytest.raises(DataError, match="probe 'p' is only in after"):
        compare(BEFORE[:4], AFTER)
    with pytest.raises(DataError, match="'a' has another question or reference"):
        compare(BEFORE, [replace(AFTER[0], reference="错"), *AFTER[1:]])
    with pytest.raises(DataError, match="nothing to compare"):
        compare([], [])


def test_scoring_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, vglm.evaluation.report, vglm.evaluation.comparison; print('torch' in sys.modules)"
    source = Path(__file__).parents[1] / "src"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(source)}
    )
    assert result.stdout.strip() == "False"
