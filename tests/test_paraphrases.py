"""Questions in other words: which are asked, what the answers score, what the report says of them."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from builders import sample
from rich.console import Console
from test_report import EVALUATION, answers

from vglm.errors import ConfigError, DataError
from vglm.evaluation.messages import Message
from vglm.evaluation.predict.paraphrases import MAX_SAMPLES, make_paraphrases, read_paraphrases
from vglm.evaluation.predictions import Arm, Prediction, write_evaluation, write_predictions
from vglm.evaluation.report import print_summary, render
from vglm.evaluation.score.scoring import read_comparison

TEMPLATES = ("请看图：{question}", "A | <b>{question}</b>")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "{question}\n\n 请看图：{question} \r\nA | <b>{question}</b>\n"),
        ("a.yaml", "- '{question}'\n- '请看图：{question}'\n- 'A | <b>{question}</b>'\n"),
    ],
)
def test_a_file_of_paraphrases_is_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_paraphrases(tmp_path / name) == TEMPLATES
    assert read_paraphrases(None) == ()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n{question}\n", "has 0 paraphrases; expected 1 to 20"),
        ("a.txt", "\n".join(f"{row} {{question}}" for row in range(21)), "has 21 paraphrases"),
        ("a.txt", "Say: {question}\nSay: {question}", "twice"),
        ("a.txt", "Say: {question", "prompts: .* cannot be read"),
        ("a.yaml", "{question: 1}", "must be a YAML list of texts"),
        ("a.yaml", "- {question} please", "is damaged: .*quotes"),
        ("b.txt", None, "prompts=null"),
    ],
)
def test_a_file_that_holds_no_paraphrases_is_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_paraphrases(tmp_path / name)


def test_every_wording_is_asked_of_the_same_samples() -> None:
    test = [sample(f"a#{row}", question=f"{row}?") for row in range(MAX_SAMPLES + 30)]
    first, second = make_paraphrases({"test": test, "probe": test[:3]}, TEMPLATES, seed=1)
    ids = [shown.id for shown in first.samples]
    assert ids == [shown.id for shown in second.samples] == sorted(ids, key=lambda name: int(name[2:]))
    assert len(ids) == MAX_SAMPLES
    assert {shown.question for shown in first.samples} == {f"请看图：{name[2:]}?" for name in ids}
    other = make_paraphrases({"test": test}, TEMPLATES, seed=2)[0]
    assert {shown.id for shown in other.samples} != set(ids)
    with pytest.raises(ConfigError, match=r"prompts: 3 of 3 samples have no \{hint\}"):
        make_paraphrases({"test": test[:3]}, ["{hint} {question}"], seed=1)
    assert make_paraphrases({"probe": test}, TEMPLATES, seed=1) == ()


def _reworded(rows: list[Prediction], template: str, right: set[int]) -> list[Prediction]:
    return [
        replace(
            original,
            question=template.replace("{question}", original.question),
            prediction=original.reference if row in right else "猫。",
        )
        for row, original in enumerate(rows)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of 40 samples 20 are asked in two more wordings."""
    before, after = answers(4, 40), answers(30, 40)
    right = {
        "before": [set(range(10)), {0, 1, 2, 3}],
        "after": [set(range(5)), {*range(18)}],
    }
    controls = []
    for arm, rows in (("before", before), ("after", after)):
        write_predictions(rows, tmp_path / arm / "predictions.jsonl")
        for number, template in enumerate(TEMPLATES, start=1):
            label = f"{arm}-prompt-{number}"
            meaning = Message("control_meaning.prompt", {"template": template})
            controls.append(Arm(label=label, meaning=Message(f"control_meaning.{arm}", {"meaning": meaning})))
            records = _reworded(rows[:20], template, right[arm][number - 1])
            write_predictions(records, tmp_path / label / "predictions.jsonl")
    write_evaluation(replace(EVALUATION, stamps=(), controls=tuple(controls)), tmp_path)
    return tmp_path


def test_the_report_shows_every_wording_and_what_flips(folder: Path) -> None:
    report = render(folder).parent
    prompts = json.loads((report / "report.json").read_text(encoding="utf-8"))["prompts"]
    assert prompts["templates"] == ["{question}", *TEMPLATES]
    assert prompts["metric"] == "exact_match"
    before, after = prompts["arms"]["before"], prompts["arms"]["after"]
    assert (before["scores"], after["scores"]) == ([0.2, 0.5, 0.2], [1.0, 0.25, 0.9])
    assert (before["flipped"], after["flipped"]) == (6, 15)  # 4 to 9 before; 5 to 19 after, of whom two fail twice
    assert (before["n"], after["n"]) == (20, 20)
    assert before["spread"] == pytest.approx(0.3)
    markdown = (report / "report.md").read_text(encoding="utf-8")
    assert "| as everywhere else in this report | 20.0% | 100.0% | +80.0 |" in markdown
    assert "| A \\| &lt;b&gt;\\{question\\}&lt;/b&gt; | 20.0% | 90.0% | +70.0 |" in markdown
    assert "| highest minus lowest | 30.0 | 75.0 | 105.0 |" in markdown
    assert "| samples that flip | 30.0% (14.5 to 51.9) | 75.0% (53.1 to 88.8) |" in markdown.replace(
        "\\(", "("
    ).replace("\\)", ")")
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "A | &lt;b&gt;{question}&lt;/b&gt;" in page
    output = StringIO()
    print_summary(folder, read_comparison(folder), Console(file=output, width=200))
    printed = output.getvalue()
    assert "exact match goes from lowest to highest: before 20.0% to 50.0%; after 25.0% to 100.0%." in printed
    assert "Samples that flip with the wording: 30.0% before; 75.0% after." in printed
    assert "Whether tuning helps depends on the wording: the change goes from −25.0 points to +80.0 points." in printed
    assert "以 3 种问法提问" in (report / "report.zh.md").read_text(encoding="utf-8")


def test_one_wording_has_no_section(folder: Path) -> None:
    write_evaluation(replace(EVALUATION, stamps=()), folder)
    report = render(folder)
    assert 'id="prompts"' not in report.read_text(encoding="utf-8")
    assert "prompts" not in json.loads((report.parent / "report.json").read_text(encoding="utf-8"))


def test_answers_to_other_samples_are_refused(folder: Path) -> None:
    write_predictions(answers(3, 10), folder / "after-prompt-2" / "predictions.jsonl")
    with pytest.raises(DataError, match="answers of after to other wordings are not about its samples"):
        render(folder)
