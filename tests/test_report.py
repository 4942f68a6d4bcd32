import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from vglm.data.astronomy.questions import TYPES
from vglm.errors import LONGEST_MESSAGE, ConfigError, DataError
from vglm.evaluation.predict.provenance import code_state
from vglm.evaluation.predictions import (
    Arm,
    Evaluation,
    Prediction,
    Stamp,
    read_evaluation,
    write_evaluation,
    write_predictions,
)
from vglm.evaluation.report import print_summary, render
from vglm.evaluation.report.formatting import SHARED
from vglm.evaluation.report.sections import answers as answers_section
from vglm.evaluation.score.scoring import read_comparison, rescore
from vglm.evaluation.seals import write_seals
from vglm.files import claimed
from vglm.worlds.radiograph_studies import describe
from vglm.worlds.radiographs import sample_chest
from vglm.worlds.scenes import NEW_PLACES, PLACES

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`|{{ 7 * 7 }}"
STAMP = Stamp(text="EVALUATED ON TRAINING IMAGES", detail="1 of 3 test images were trained on.")
EVALUATION = Evaluation(
    title="background/lora",
    summary="visualglm_tiny tuned with LoraConfig on 20 samples. Scored on 3 test samples, 2 retention samples.",
    purpose="tuning",
    baseline=Arm(label="before", meaning="visualglm_tiny as it was"),
    candidate=Arm(label="after", meaning="the same model with the run's adapter"),
    facts={"run": "outputs/background/lora/1"},
    decoding={"max_new_tokens": 64},
    command="python evaluate.py run=outputs/background/lora/1",
    versions={"torch": "2.13.0"},
    config="seed: 1\n",
    created="2026-01-01T00:00:00+00:00",
    stamps=(STAMP,),
)


def record(name: str, prediction: str, **values: object) -> Prediction:
    fields = {"split": "test", "kind": None, "language": "zh", "question": "背景里有什么？", "reference": "沙滩。"}
    fields |= {"image": None, "image_sha256": None, "history": (), **values}
    return Prediction(id=name, group=name, prediction=prediction, **fields)  # type: ignore[arg-type]


BEFORE = [
    record("same", "沙滩。"),
    record("gain", "一只猫。", image="beach.png", image_sha256="ab" * 32),
    record("error", "", error="image broken.png is damaged"),
    record("kept", "Two.", split="retention", kind="count", language="en", question="How many?", reference="Two."),
    record("lost", "Red.", split="retention", kind="colour", language="en", question="What colour?", reference="Red."),
]
AFTER = [
    replace(original, prediction={"gain": "沙滩。", "lost": "沙滩。"}.get(original.id, original.prediction))
    for original in BEFORE
]


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(
        before: list[Prediction] = BEFORE, after: list[Prediction] = AFTER, evaluation: Evaluation = EVALUATION
    ) -> Path:
        folder = tmp_path / "evaluation"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "gold").save(folder / "images" / f"{'ab' * 32}.webp")
        write_predictions(before, folder / evaluation.baseline.label / "predictions.jsonl")
        write_predictions(after, folder / evaluation.candidate.label / "predictions.jsonl")
        write_evaluation(replace(evaluation, sealed=write_seals(folder)), folder)
        return folder

    return make


def summarise(folder: Path, console: Console | None = None) -> None:
    print_summary(folder, read_comparison(folder), console)


class Page(HTMLParser):
    """The page as a browser reads it: its tags, the English text that is shown, and the data of its script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw = ""
        self._is_chinese = False
        self.feed(text)
        self.data = json.loads(self.raw)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._is_chinese = dict(attributes).get("lang") == "zh-Hans"

    def handle_endtag(self, tag: str) -> None:
        self._is_chinese = False

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "script" and attributes.get("type") == "application/json" and not self.raw:
            self.raw = data
        elif not self._is_chinese:
            self.text += data


def test_the_page_says_what_changed(make_folder: Callable[..., Path]) -> None:
    path = render(make_folder())
    assert path.name == "index.html"
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert (
        "On 2 test samples, exact match went from 50.0% before to 100.0% after: 1 answer became right, 0 became" in text
    )
    assert (
        "from 100.0% before to 50.0% after: 0 answers became right, 1 became wrong; too few questions to judge what was"
        in text
    )
    assert "EVALUATED ON TRAINING IMAGES 1 of 3 test images were trained on." in text
    assert "1 could not be answered and count in neither arm" in text
    assert "python evaluate.py run=outputs/background/lora/1" in text
    assert "the same model with the run's adapter" in text


def test_failures_come_first_and_among_them_changed_answers(make_folder: Callable[..., Path]) -> None:
    data = Page(render(make_folder()).read_text(encoding="utf-8")).data
    assert [row[1] for row in data["rows"]] == ["error", "gain", "same", "lost", "kept"]
    assert data["rows"][1][3:6] == ["沙滩。", "一只猫。", "沙滩。"]
    assert data["rows"][0][6:8] == ["image broken.png is damaged"] * 2
    assert [row[8] for row in data["rows"]] == [2, 0, 3, 1, 3]  # as in FLIP_TITLES
    assert data["rows"][1][11] == 0
    assert data["images"][0].startswith("data:image/webp;base64,")


def test_the_page_loads_nothing(make_folder: Callable[..., Path]) -> None:
    page = Page(render(make_folder()).read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    assert not [attributes for _, attributes in page.tags if "src" in attributes or "href" in attributes]
    assert page.data["images"]
    assert all(source.startswith("data:image/webp;base64,") for source in page.data["images"])
    policies = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert str(policies[0]).startswith("default-src 'none'; img-src data:;")


def test_images_beyond_the_limit_stay_beside_the_page(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    path = folder / "images" / f"{'ab' * 32}.webp"
    monkeypatch.setattr(answers_section, "MAX_IMAGE_BYTES", path.stat().st_size)
    assert "images are in this page" not in render(folder).read_text(encoding="utf-8").partition("<script")[0]
    monkeypatch.setattr(answers_section, "MAX_IMAGE_BYTES", path.stat().st_size - 1)
    page = Page(render(folder).read_text(encoding="utf-8"))
    assert page.data["images"] == []
    assert page.data["rows"][1][11] == -2
    assert "Of 1 images 0 are in this page, which would be too large with all" in page.text


def test_answers_beyond_the_limit_are_in_a_file_beside_the_page(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    path = render(folder)
    rows = Page(path.read_text(encoding="utf-8")).data["rows"]
    beside = path.with_name(answers_section.ALL_ANSWERS)
    assert not beside.exists()
    monkeypatch.setattr(answers_section, "MAX_ROWS_BYTES", 500)
    page = Page(render(folder).read_text(encoding="utf-8"))
    shown = page.data["rows"]
    assert f"Of {len(rows)} samples {len(shown)} are in this page" in page.text
    assert 0 < len(shown) < len(rows)
    assert [row for row in rows if row[1] in [line[1] for line in shown]] == shown
    assert "lost" in [row[1] for row in shown]  # right before, wrong after: first of all
    lines = [json.loads(line) for line in beside.read_text(encoding="utf-8").splitlines()]
    assert {line["id"] for line in lines} == {row[1] for row in rows}
    gain = next(line for line in lines if line["id"] == "gain")
    assert (gain["before"], gain["after"], gain["right_before"], gain["right_after"]) == (
        "一只猫。",
        "沙滩。",
        False,
        True,
    )


def test_an_image_is_kept_large_and_reduced_where_the_page_would_be_too_large(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    path = folder / "images" / f"{'ab' * 32}.webp"
    Image.effect_noise((1024, 800), 80).convert("RGB").save(path)
    for limit, side in ((2 * path.stat().st_size, 1024), (path.stat().st_size, 224)):
        monkeypatch.setattr(answers_section, "MAX_IMAGE_BYTES", limit)
        page = Page(render(folder).read_text(encoding="utf-8"))
        (uri,) = page.data["images"]
        content = base64.b64decode(uri.partition(",")[2])
        assert max(Image.open(io.BytesIO(content)).size) == side
        assert ("1 of them in reduced size" in page.text) is (side == 224)


def test_intervals_stand_under_an_axis(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(answers(20, 40), answers(23, 40), replace(EVALUATION, stamps=()))
    text = render(folder).read_text(encoding="utf-8")
    low, high = json.loads((folder / "metrics.json").read_text("utf-8"))["splits"]["test"]["scores"]["exact_match"][
        "interval"
    ]
    scores = text.partition('id="scores"')[2].partition("</section>")[0]
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", scores)[:3]
    end = float(labels[2].removeprefix("+"))
    assert labels == [f"−{end:.0f}", "0", f"+{end:.0f}"]
    assert max(abs(low), abs(high)) * 100 <= end < 100
    left, right = re.findall(r'x1="([\d.]+)" x2="([\d.]+)" y1="7"', scores)[0]
    assert float(left) == pytest.approx(66 + 52 * 100 * low / end, abs=0.06)
    assert float(right) == pytest.approx(66 + 52 * 100 * high / end, abs=0.06)


def test_text_stays_text(make_folder: Callable[..., Path]) -> None:
    values = dict.fromkeys(("question", "reference", "kind", "image"), ATTACK)
    before = [record(ATTACK, ATTACK, image_sha256="ab" * 32, **values), record("b", "b", kind="b")]
    after = [replace(before[0], prediction=ATTACK + "!"), before[1]]
    evaluation = replace(
        EVALUATION, title=ATTACK, summary=ATTACK, facts={ATTACK: ATTACK}, config=ATTACK, command=ATTACK,
        stamps=(Stamp(text=ATTACK, detail=ATTACK),), candidate=Arm(label="after", meaning=ATTACK),
    )  # fmt: skip
    path = render(make_folder(before, after, evaluation))
    page = Page(path.read_text(encoding="utf-8"))
    harmless = Page(render(make_folder()).read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in harmless.tags].count("script") == 2
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(ATTACK) >= 6
    assert "<" not in page.raw
    assert page.data["rows"][0][1:4] == [ATTACK] * 3


MARKS = "# <b>x</b> [a](http://b) ![c](d) **e** _f_ `g` | h\n\n- i\n```\n1. j &amp; ~~k~~"


def test_text_stays_text_in_markdown(make_folder: Callable[..., Path]) -> None:
    hostile, harmless = (_written(make_folder, text) for text in (MARKS, "words"))
    assert [token.type for token in hostile] == [token.type for token in harmless]
    assert [token.tag for token in hostile] == [token.tag for token in harmless]
    written = " ".join(token.content for token in hostile if token.type == "text")
    assert written.count(" ".join(MARKS.split())) >= 9


def _written(make_folder: Callable[..., Path], text: str) -> list[Any]:
    """The tokens of `report.md`, with a text wherever data can have one."""
    values = dict.fromkeys(("question", "reference", "kind", "image"), text)
    worse = [record(f"{row}", text, **values) for row in range(40)]
    same = [record(f"b{row}", "b", reference="b", kind="b") for row in range(40)]
    before, after = [*worse, *same], [*(replace(original, prediction=text + "!") for original in worse), *same]
    evaluation = replace(
        EVALUATION, title=text, summary=text, facts={text: text}, command=text,
        stamps=(Stamp(text=text, detail=text),), candidate=Arm(label="after", meaning=text),
    )  # fmt: skip
    folder = make_folder(before, after, evaluation)
    rule = {"name": text, "meaning": text, "scores": {"exact_match": 0.5}}
    (folder / "baselines.json").write_text(json.dumps([rule]), encoding="utf-8")
    markdown = (render(folder).parent / "report.md").read_text(encoding="utf-8")
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return [token for block in tokens for token in (block, *(block.children or ()))]


def test_markdown_is_a_table_and_a_few_changed_examples(make_folder: Callable[..., Path]) -> None:
    many = [record(f"{row}", "猫") for row in range(9)]
    path = render(make_folder(many, [replace(original, prediction="沙滩。") for original in many]))
    text = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "| **Test set** | 9 | 0.0% | 100.0% | +100.0 |" in text
    assert text.count("| wrong → right |\n") == 5
    assert "> **EVALUATED ON TRAINING IMAGES**" in text


def test_labels_and_purpose_are_data(make_folder: Callable[..., Path]) -> None:
    evaluation = replace(
        EVALUATION,
        purpose="image use",
        baseline=Arm(label="shuffled", meaning="another image"),
        candidate=Arm(label="true", meaning="its own image"),
        stamps=(),
    )
    shuffled = [
        replace(original, image_sha256="0" * 64) for original in BEFORE[:3]
    ]  # of which nobody knows what is right
    text = render(make_folder(shuffled, AFTER[:3], evaluation)).read_text(encoding="utf-8")
    assert (
        "Of 2 test samples, 50.0% are answered right with shuffled images and 100.0% with true ones, "
        "a difference of +50.0 points." in text
    )
    assert "Too few samples to judge: Exact match is 100.0% with the true image, 50.0% with another sample" in text
    assert "forgotten" not in Page(text).text
    assert 'class="stamp"' not in text


def test_rendering_again_replaces_and_a_failure_leaves_the_old_report(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    first = render(folder).read_text(encoding="utf-8")
    assert render(folder).read_text(encoding="utf-8") == first
    write_predictions(AFTER[:2], folder / "after" / "predictions.jsonl")
    with pytest.raises(DataError, match="not about the same samples"):
        render(folder)
    assert (folder / "report" / "index.html").read_text(encoding="utf-8") == first
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["after", "before", "evaluation.json", "images", "metrics.json", "report", "seals.json"]
    )


def test_the_terminal_table_fits_80_columns(make_folder: Callable[..., Path]) -> None:
    kinds = ["颜色颜色的问题很长很长", "b", "c", "d", "e"]
    before = [replace(original, kind=kind) for original, kind in zip(BEFORE, kinds, strict=True)]
    after = [replace(original, kind=kind) for original, kind in zip(AFTER, kinds, strict=True)]
    output = StringIO()
    summarise(make_folder(before, after), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert any("Test set" in line and "50.0 → 100.0" in line and "+50.0" in line for line in lines)
    assert any("颜色颜色的问题很长很长" in line for line in lines)
    assert all(cell_len(line) <= 80 for line in lines if not line.startswith("Report: "))
    assert lines[-1].startswith("Report: ")
    assert lines[-1].endswith("index.html")
    inside = "".join("│" if line.startswith("│") else " " for line in lines)
    tables = [lines[match.start() : match.end()] for match in re.finditer("│+", inside)]
    assert len(tables) == 2
    assert all(len({cell_len(line) for line in table}) == 1 for table in tables)


@pytest.mark.parametrize("kind", ["[/b]", "[red]", "[link=file:///x]y", ":smile:", "\\"])
def test_a_name_is_printed_as_it_is(make_folder: Callable[..., Path], kind: str) -> None:
    output = StringIO()
    kinds = [kind, *"bcde"]
    arms = (
        [replace(original, kind=name) for original, name in zip(arm, kinds, strict=True)] for arm in (BEFORE, AFTER)
    )
    summarise(make_folder(*arms), Console(file=output, width=80))
    assert f"  {kind[:8]}" in output.getvalue()


def answers(right: int, n: int, **values: object) -> list[Prediction]:
    backgrounds = ["沙滩。" if row % 2 else "雪地。" for row in range(n)]
    return [
        record(f"{row:03}", background if row < right else "猫。", **{"reference": background, **values})
        for row, background in enumerate(backgrounds)
    ]


@pytest.mark.parametrize(
    ("before", "after", "n", "expected"),
    [
        (4, 30, 40, "Better: Exact match went from 10.0% to 75.0%, +65.0 points (95% interval +4"),
        (30, 4, 40, "Worse: Exact match went from 75.0% to 10.0%, −65.0 points (95% interval −"),
        (20, 21, 40, "No difference is shown: Exact match went from 50.0% to 52.5%, +2.5 points (95% interval −"),
        (0, 4, 4, "Too few samples to judge: Exact match went from 0.0% to 100.0% on 4 samples."),
    ],
)
def test_the_verdict_claims_no_more_than_the_data(
    make_folder: Callable[..., Path], before: int, after: int, n: int, expected: str
) -> None:
    folder = make_folder(answers(before, n), answers(after, n), replace(EVALUATION, stamps=()))
    report = json.loads((render(folder).parent / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["en"].startswith(expected)
    if "No difference" in expected:
        assert "with 40 items whose differences vary as these do, a true difference under" in report["verdict"]["en"]
    text = (folder / "report/report.md").read_text(encoding="utf-8")
    assert f"**{expected[:30]}" in text


def test_cut_answers_are_counted_for_each_arm(
    make_folder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = answers(4, 40), [replace(answer, finish="eos") for answer in answers(30, 40)]
    cut = [replace(original, finish="length" if index < 7 else None) for index, original in enumerate(before)]
    for arm, is_stated in ((cut, True), (before, False)):
        folder = make_folder(arm, after, replace(EVALUATION, stamps=(), decoding={"max_new_tokens": 5}))
        text = " ".join(Page(render(folder).read_text(encoding="utf-8")).text.split())
        sentence = "of 40 answers an arm, 7 (before) and 0 (after) reached max_new_tokens = 5 and were cut there."
        summarise(folder)
        shown = " ".join(capsys.readouterr().out.split())
        for where in (text, (folder / "report/report.md").read_text(encoding="utf-8"), shown):
            assert (sentence in where) is is_stated
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["splits"]["test"]["cut"] == {"before": 7 if is_stated else 0, "after": 0}


def test_a_stamp_is_part_of_the_verdict(make_folder: Callable[..., Path]) -> None:
    report = render(make_folder(answers(4, 40), answers(30, 40))).parent / "report.json"
    verdict = json.loads(report.read_text(encoding="utf-8"))["verdict"]
    assert verdict["en"].endswith("But see the warning: EVALUATED ON TRAINING IMAGES.")
    assert verdict["zh"].endswith("但请注意警告：用训练图像评测。")


def test_a_model_that_ignores_its_image_is_told_so(make_folder: Callable[..., Path]) -> None:
    """The blind arm answers the same whatever the image is; the other one is right with its own image alone."""
    before, after = answers(20, 40), answers(36, 40)
    folder = make_folder(before, after, replace(EVALUATION, stamps=()))
    write_predictions(before, folder / "before-shuffled/predictions.jsonl")
    write_predictions(answers(3, 40), folder / "after-shuffled/predictions.jsonl")
    baselines = [{"name": "majority class", "meaning": "the commonest label", "scores": {"exact_match": 0.55}}]
    (folder / "baselines.json").write_text(json.dumps(baselines), encoding="utf-8")
    path = render(folder)
    text = " ".join(Page(path.read_text(encoding="utf-8")).text.split())
    same = "Image use, before: the answers do not rest on the image; with another sample's image all 40 stay the same."
    assert same in text
    assert "Image use, after: the true image is worth +82.5 points over another sample's image" in text
    assert "majority classthe commonest label" in text
    assert "55.0%" in text
    report = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
    assert [(entry["arm"], entry["finding"]) for entry in report["image_use"]] == [
        ("before", "open"),
        ("after", "better"),
    ]
    assert [entry["changed"] for entry in report["image_use"]] == [0, 33]
    assert report["image_use"][1]["true_image"] == 0.9
    assert report["baselines"][0]["scores"] == {"exact_match": 0.55}


def test_one_unchanged_answer_is_no_proof_that_the_image_is_ignored(make_folder: Callable[..., Path]) -> None:
    before, after = answers(20, 40), answers(36, 40)
    folder = make_folder(before, after, replace(EVALUATION, stamps=()))
    write_predictions(before[:1], folder / "before-shuffled/predictions.jsonl")
    text = Page(render(folder).read_text(encoding="utf-8")).text
    assert "Image use, before: too few samples to judge the gain over another sample's image" in " ".join(text.split())


def test_a_verdict_by_another_metric_than_the_one_asked_for_says_so(make_folder: Callable[..., Path]) -> None:
    config = "metrics: {names: [likelihood_accuracy], labels: null, convention: null}"
    path = render(make_folder(answers(20, 40), answers(36, 40), replace(EVALUATION, config=config, stamps=())))
    verdict = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))["verdict"]["en"]
    assert "Better: Exact match went from 50.0% to 90.0%" in verdict
    assert "Accuracy by likelihood was asked for first, but does not apply to these answers" in verdict


def test_a_gain_that_owes_nothing_to_the_image_and_a_rule_that_does_as_well_are_part_of_the_verdict(
    make_folder: Callable[..., Path],
) -> None:
    after = answers(36, 40)
    folder = make_folder(answers(4, 40), after, replace(EVALUATION, stamps=()))
    write_predictions(after, folder / "after-shuffled/predictions.jsonl")
    baselines = [{"name": "constant answer", "meaning": "", "scores": {"exact_match": 0.95}}]
    (folder / "baselines.json").write_text(json.dumps(baselines), encoding="utf-8")
    write_evaluation(replace(EVALUATION, stamps=(), sealed=write_seals(folder)), folder)
    report = json.loads((render(folder).parent / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["en"].endswith(
        "on 40 samples. It is not shown to come from the image. A simple rule scores higher: constant answer, 95.0%."
    )
    output = StringIO()
    summarise(folder, Console(file=output, width=80))
    assert "A simple rule scores higher" in " ".join(output.getvalue().split())
    write_predictions(answers(4, 40), folder / "after-shuffled/predictions.jsonl")
    (folder / "baselines.json").unlink()
    write_evaluation(replace(EVALUATION, stamps=(), sealed=write_seals(folder)), folder)
    report = json.loads((render(folder).parent / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["en"].endswith("on 40 samples.")


def test_what_was_not_measured_is_said(make_folder: Callable[..., Path]) -> None:
    text = Page(render(make_folder(answers(4, 40), answers(30, 40))).read_text(encoding="utf-8")).text
    assert text.count("Not measured") == 2  # image use and forgetting
    assert "There are no baselines in this evaluation" in text


def test_forgetting_that_is_told_from_chance(make_folder: Callable[..., Path]) -> None:
    before = answers(4, 40) + answers(38, 40, split="retention")
    after = answers(30, 40) + answers(10, 40, split="retention")
    text = Page(render(make_folder(before, after)).read_text(encoding="utf-8")).text
    assert "70.0 points were forgotten (95% interval −8" in text
    assert "on 40 samples. General ability was lost: −70.0 points on the retention set." in text


def test_a_classification_shows_its_confusion(make_folder: Callable[..., Path]) -> None:
    before = [
        record(f"{row}", "wolf", reference="cat" if row % 2 else "dog", kind="ab"[row % 2], language="en")
        for row in range(24)
    ]
    after = [replace(original, prediction=original.reference) for original in before]
    config = "metrics: {names: [accuracy, macro_f1], labels: null, convention: null}"
    path = render(make_folder(before, after, replace(EVALUATION, config=config, stamps=())))
    page = Page(path.read_text(encoding="utf-8"))
    assert len([attributes for _, attributes in page.tags if attributes.get("class") == "heat hit"]) == 4
    report = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
    assert report["confusion"]["after"]["confusion"] == [[12, 0, 0], [0, 12, 0]]
    assert report["confusion"]["before"]["unparsed"] == 24
    assert report["primary"] == "accuracy"
    row = page.text[page.text.index("F195% interval") :].split("dog", 2)[1]
    assert "120.0–0.00.0 to 39.0" in row  # n 12, recall 0, no precision, F1 0: F* of 0 of 12, carried over
    text = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "| cat | 12 | 0.0 | 0.0 to 39.0 | 100.0 | 86.2 to 100.0 |" in text
    assert "Better: Accuracy went from 0.0% to 100.0%" in report["verdict"]["en"]
    assert report["splits"]["test"]["slices"]["kind"]["a"]["scores"]["accuracy"]["n"] == 12


def test_slices_to_which_the_primary_metric_does_not_apply_are_by_another_one_which_is_named(
    make_folder: Callable[..., Path],
) -> None:
    choices = {"kind": "yes_no", "meta": {"choices": '["Yes.", "No."]'}, "reference": "Yes.", "language": "en"}
    before = [record(f"{row}", "No.", **choices) for row in range(12)]
    before += [record(f"c{row}", "A cat.", kind="caption", reference="A dog.", language="en") for row in range(15)]
    after = [replace(row, prediction=row.reference) for row in before]
    config = "metrics: {names: [choice_accuracy], labels: null, convention: null}"
    path = render(make_folder(before, after, replace(EVALUATION, config=config, stamps=())))
    text = " ".join(Page(path.read_text(encoding="utf-8")).text.split())
    assert "caption Exact match" in text
    assert "+100.0 points (95% interval +51.5 to +100.0) on 12 of 27 samples." in text
    assert "yes_no Exact match" not in text
    markdown = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "| Accuracy \\(choices\\), n = 12 | 0.0% | 100.0% |" in markdown
    assert "| Exact match | 0.0% | 100.0% |" in markdown


def test_slices_of_our_worlds_have_chinese_names_and_those_of_others_their_own(
    make_folder: Callable[..., Path],
) -> None:
    bodies, cars = ("moon", "volcano"), ("hybrid", "diesel")
    before = [
        record(f"{row}", "a", meta={"place": bodies[row % 2], "type": cars[row % 2]}, language="en")
        for row in range(12)
    ]
    after = [replace(original, prediction=original.reference) for original in before]
    page = render(make_folder(before, after)).read_text(encoding="utf-8")
    assert ">月球<" in page
    assert ">火山<" in page
    assert "混合型脉动变星" not in page  # a hybrid car is no star
    assert "diesel" in page


def test_all_values_of_our_worlds_have_chinese_names() -> None:
    rng = np.random.default_rng(1)
    chests = [describe(sample_chest(rng)) for _ in range(400)]
    values = {name: {str(chest[name]) for chest in chests} for name in chests[0] if name != "cardiothoracic_ratio"}
    values |= {"place": {*PLACES, *NEW_PLACES}, "type": {*TYPES}}
    for field, some in values.items():
        for value in some:
            assert SHARED.name(f"value.{field}", value).zh != value, (field, value)


def test_examples_are_drawn_of_all_changed_samples_one_draw_each(make_folder: Callable[..., Path]) -> None:
    before = [record(name, "一只猫。", draw=draw) for name in "abcdef" for draw in range(3)]
    after = [replace(original, prediction=f"沙滩{original.id}{original.draw}。") for original in before]
    markdown = (render(make_folder(before, after)).parent / "report.md").read_text(encoding="utf-8")
    drawn = [name for name in "abcdef" for draw in range(3) if f"沙滩{name}{draw}。" in markdown]
    assert len(drawn) == len(set(drawn)) == 5
    assert "Of 6 samples whose answers changed, 5, drawn with seed 1; wrong answers first:" in markdown


def test_stored_answers_are_scored_again_without_torch(make_folder: Callable[..., Path]) -> None:
    """In a process of its own, in which no heavy library can be imported."""
    config = "metrics: {names: [exact_match, bleu_zh], labels: null, convention: null}"
    folder = make_folder(answers(4, 40), answers(30, 40), replace(EVALUATION, config=config))
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'peft', 'accelerate', 'hydra'):\n"
        "            raise ImportError('refused: ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from vglm.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "report", str(folder)]
    again = [sys.executable, "-c", script, "score", str(folder), "metrics.names=[exact_match,chrf,bleu_zh]"]
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Better: Exact match went from 10.0% to 75.0%" in " ".join(done.stdout.split())
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["primary"] == "exact_match"  # chosen before anyone saw a score
    assert report["metrics_added_later"] == ["chrf"]
    chrf = report["splits"]["test"]["scores"]["chrf"]["values"]
    assert 0.1 < chrf["before"] < chrf["after"] < 1
    text = Page((folder / "report" / "index.html").read_text(encoding="utf-8")).text
    assert "chrF2 was added when the stored answers were scored again" in text
    assert "BLEU (zh) was added" not in text
    strange = subprocess.run([*command, str(folder / "images")], capture_output=True, text=True, check=False)
    assert strange.returncode == 2
    assert "is no evaluation folder: it has no evaluation.json" in strange.stderr


def test_a_primary_metric_that_is_chosen_afterwards_is_stamped(make_folder: Callable[..., Path]) -> None:
    """Also where none was named before, so that the verdict rested on exact match."""
    for names in ("[exact_match, chrf]", "[]"):
        config = f"metrics: {{names: {names}, labels: null, convention: null}}"
        folder = make_folder(evaluation=replace(EVALUATION, config=config, stamps=()))
        for setting in ("[]", "[exact_match]", "[chrf]", "[chrf, exact_match]", "[exact_match, bleu_zh]"):
            rescore(folder, [f"metrics.names={setting}"])
            stamps = [(stamp.text, str(stamp.detail)) for stamp in read_evaluation(folder).stamps]
            detail = "The verdict rests on chrf; before anyone saw an answer it was to rest on exact_match."
            assert stamps == ([("PRIMARY METRIC CHOSEN AFTERWARDS", detail)] if "[chrf" in setting else [])


def test_metrics_that_are_no_list_are_refused(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"metrics.names must be a list, such as \[chrf\], got 'chrf'"):
        rescore(make_folder(), ["metrics.names=chrf"])


def test_the_page_says_how_each_p_value_was_made(make_folder: Callable[..., Path]) -> None:
    text = Page(render(make_folder(answers(4, 40), answers(30, 40))).read_text(encoding="utf-8")).text
    assert "Exact match: mid-p McNemar test, two-sided; Tango's score interval of paired proportions" in text
    assert "ROUGE-L (characters): mid-p paired randomisation test, two-sided, or Gaffke's bound where larger" in text
    assert "Holm corrects over the 2 tests of this table; the verdict rests on the primary metric's own p" in text
    assert "One training run: the intervals are over test samples, not over training seeds." in text


def test_code_that_scores_again_is_told_from_the_code_that_answered(make_folder: Callable[..., Path]) -> None:
    for code, count in ((code_state(), 0), ("sources sha256 0123456789abcdef", 1)):
        folder = make_folder(evaluation=replace(EVALUATION, facts={"code": code}))
        text = Page(render(folder).read_text(encoding="utf-8")).text
        assert str(code) in text
        assert text.count(f"scored again with code{code_state()}") == count


def test_the_plot_is_a_file_of_its_own(make_folder: Callable[..., Path]) -> None:
    evaluation = replace(EVALUATION, title=ATTACK)
    plot = (render(make_folder(answers(4, 40), answers(30, 40), evaluation)).parent / "scores.svg").read_text("utf-8")
    root = ElementTree.fromstring(plot)
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == f"{ATTACK}: after − before, points, 95% interval, n = 40"
    assert texts[texts.index("Exact match") + 1] == "+65.0"
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert float(circles[0].attrib["cx"]) == pytest.approx(360 + 160 * 0.65)


def test_findings_of_reports_stand_side_by_side_and_one_that_is_never_named_is_said(
    make_folder: Callable[..., Path],
) -> None:
    effusion, opacity, normal = "右侧胸腔积液。", "右肺中野见片状阴影。", "心影不大，双肺清晰。"
    references = [effusion] * 12 + [opacity] * 5 + [normal] * 13
    before = [record(f"{row:03}", normal, reference=text) for row, text in enumerate(references)]
    after = [replace(original, prediction=effusion if row < 9 else normal) for row, original in enumerate(before)]
    config = "metrics: {names: [findings_micro_f1], labels: null, convention: null}"
    path = render(make_folder(before, after, replace(EVALUATION, config=config, stamps=())))
    page = path.read_text(encoding="utf-8")
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", page[page.index('id="findings"') :], re.DOTALL)
    rows = [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows[:3]]
    assert rows[0].startswith("No Finding 未见异常 13 30 43.3 27.4 to 60.8 27.4 至 60.8 100.0")  # Wilson of 13 of 30
    assert rows[1].startswith("Lung Opacity 肺部阴影 5 never 从未 – 0.0 0.0 to 43.4")
    assert rows[2].startswith(
        "Pleural Effusion 胸腔积液 12 never 从未 – 0.0 0.0 to 24.2 0.0 至 24.2 0.0 – 9 100.0 70.1"
    )
    sentence = "Test set, after: never named in any answer, though in references: Lung Opacity (n = 5)."
    assert sentence in Page(page).text
    assert "In no reference and no answer: Enlarged Cardiomediastinum, Cardiomegaly, Lung Lesion, Edema" in page
    report = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
    assert report["never_named"][0]["en"] == sentence
    effusion_row = report["splits"]["test"]["findings"]["after"]["Pleural Effusion"]
    assert (effusion_row["n"], effusion_row["named"], effusion_row["precision"], effusion_row["recall"]) == (
        12,
        9,
        1.0,
        0.75,
    )
    text = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "| Lung Opacity | 5 | **never** | – | 0.0 | 0.0 | – | **never** | – | 0.0 | 0.0 | – |" in text
    assert f"- {sentence}" in text
    output = StringIO()
    summarise(path.parents[1], Console(file=output, width=80))
    assert sentence in " ".join(output.getvalue().split())


def test_reports_that_name_everything_are_warned_of(make_folder: Callable[..., Path]) -> None:
    effusion, normal = "Right pleural effusion.", "The lungs are clear."
    everything = "Pleural effusion, pneumothorax, consolidation, cardiomegaly, edema, fracture and pneumonia."
    before = [record(f"{row:03}", normal, reference=effusion if row < 20 else normal) for row in range(30)]
    after = [replace(original, prediction=everything) for original in before]
    config = "metrics: {names: [abnormal_recall], labels: null, convention: null}"
    evaluation = replace(EVALUATION, config=config, stamps=())
    report = render(make_folder(before, after, evaluation)).parent / "report.json"
    content = json.loads(report.read_text(encoding="utf-8"))
    assert "But its answers are 4.1 times as long as the references" in content["verdict"]["en"]
    assert any("after: the answers are 4.1 times as long" in line["en"] for line in content["findings"])
    alike = [replace(original, prediction=effusion) for original in before]
    report = render(make_folder(before, alike, evaluation)).parent / "report.json"
    assert "times as long" not in report.read_text(encoding="utf-8")


def test_samples_that_share_pixels_are_one_group(make_folder: Callable[..., Path]) -> None:
    arms = [
        [replace(answer, image_sha256=f"{index // 5:064x}") for index, answer in enumerate(answers(right, 40))]
        for right in (4, 30)
    ]
    result = read_comparison(make_folder(*arms)).splits["test"].primary
    assert (result.n, result.groups) == (40, 8)
    apart = [[replace(original, image_sha256=None) for original in arm] for arm in arms]
    assert read_comparison(make_folder(*apart)).splits["test"].primary.groups == 40


def test_without_findings_there_is_no_such_section(make_folder: Callable[..., Path]) -> None:
    assert 'id="findings"' not in render(make_folder()).read_text(encoding="utf-8")


def test_page_and_terminal_call_right_what_the_primary_metric_does(make_folder: Callable[..., Path]) -> None:
    before = [record(f"{row:03}", "No.", reference="yes" if row % 2 else "no", language="en") for row in range(40)]
    after = [replace(original, prediction="Yes." if original.reference == "yes" else "No.") for original in before]
    config = "metrics: {names: [pope_accuracy], labels: null, convention: null}"
    folder = make_folder(before, after, replace(EVALUATION, config=config, stamps=()))
    path = render(folder)
    page = Page(path.read_text(encoding="utf-8"))
    assert (
        "On 40 test samples, POPE accuracy went from 50.0% before to 100.0% after: 20 answers became right" in page.text
    )
    assert "Right or wrong goes by POPE accuracy." in page.text
    assert "20 wrong → right, 0 right → wrong." in page.text
    assert "Right means an exact match" not in page.text
    assert [row[8] for row in page.data["rows"]] == [0] * 20 + [3] * 20
    text = (path.parent / "report.md").read_text(encoding="utf-8")
    assert "| **Test set** | 40 | 50.0% | 100.0% | +50.0 |" in text
    assert "Right or wrong goes by POPE accuracy." in text
    output = StringIO()
    summarise(folder, Console(file=output, width=80))
    assert "POPE accuracy" in output.getvalue()
    assert "50.0 → 100.0" in output.getvalue()
    assert "Right or wrong goes by POPE accuracy." in output.getvalue()


def test_rules_stand_with_their_intervals_and_another_n(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(answers(4, 40), answers(30, 40), replace(EVALUATION, stamps=()))
    rules = [
        {"name": "majority class", "meaning": "often", "scores": {"exact_match": 0.4}, "n": 40}
        | {"intervals": {"exact_match": [0.26, 0.55]}},
        {"name": "text only", "meaning": "blind", "scores": {"exact_match": 0.3}, "n": 20},
        {"name": "nearest neighbour", "meaning": "near", "scores": {"exact_match": 0.2}},  # as older files have it
    ]
    (folder / "baselines.json").write_text(json.dumps(rules), encoding="utf-8")
    text = (render(folder).parent / "report.md").read_text(encoding="utf-8")
    rows = [
        line.split(" | ")[1:]
        for line in text.splitlines()
        if re.match(r"\| (after|maj|text|nearest|before):? ?.*%", line)
    ]
    assert rows == [["75.0%", "59.8 to 85.8 |"], ["40.0%", "26.0 to 55.0 |"], ["30.0%", "n = 20 |"], ["20.0%", "– |"],
                    ["10.0%", "4.0 to 23.1 |"]]  # Wilson of 30 and of 4 of 40  # fmt: skip
    page = Page((folder / "report/index.html").read_text(encoding="utf-8"))
    assert "40.0%26.0 to 55.0" in page.text


def test_a_report_and_its_figures_appear_together_or_the_earlier_ones_stay(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder()
    render(folder)
    names = ("metrics.json", "report/index.html", "report/report.md", "report/report.json")
    before = [(folder / name).read_bytes() for name in names]
    make_folder(after=[replace(original, prediction=original.reference) for original in AFTER])
    (folder / ".report.0a1b2c3d.partial").mkdir()  # of a process that was killed
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[render.__module__], "_markdown", _fill_the_disk)
        with pytest.raises(DataError, match="cannot be written: No space left"):
            render(folder)
    assert [(folder / name).read_bytes() for name in names] == before
    assert [path.name for path in folder.parent.iterdir()] == ["evaluation"]
    render(folder)
    assert all((folder / name).read_bytes() != old for name, old in zip(names, before, strict=True))
    assert not list(folder.glob(".*"))


def _fill_the_disk(*_: object) -> str:
    raise OSError(28, "No space left on device")


def test_a_report_is_written_by_one_process_at_a_time(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    with claimed(folder), pytest.raises(DataError, match="evaluation is being written by another process right now"):
        render(folder)
    render(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["evaluation"]


def test_a_report_through_a_link_is_written_where_the_evaluation_is(make_folder: Callable[..., Path]) -> None:
    folder = make_folder()
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert render(link) == link / "report" / "index.html"
    assert link.is_symlink()
    assert (folder / "report" / "index.html").is_file()


@pytest.mark.parametrize("name", ["images", "after", "evaluation.json", "curves.json", "baselines.json"])
def test_what_leads_out_of_an_evaluation_is_not_shown(make_folder: Callable[..., Path], name: str) -> None:
    folder = make_folder()
    outside = folder.parent / "outside"
    (folder / name).rename(outside) if (folder / name).exists() else outside.write_text("[]")
    (folder / name).symlink_to(outside)
    with pytest.raises(DataError, match=rf"'{name}.*' leads out of this folder"):
        render(folder)


def test_names_with_markup_are_printed_as_they_are(make_folder: Callable[..., Path]) -> None:
    records = (
        [replace(original, kind="[/b]") for original in BEFORE],
        [replace(original, kind="[/b]") for original in AFTER],
    )
    folder = make_folder(*records, replace(EVALUATION, title="[red]x[/b]"))
    output = StringIO()
    summarise(folder, Console(file=output, width=80))
    printed = output.getvalue()
    assert "[/b]" in printed
    assert "[red]x[/b]" in printed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("baselines.json", b"\xff"),
        ("baselines.json", b'[{"name": 5}]'),
        ("baselines.json", b'[{"name": "a", "meaning": "b", "scores": {"exact_match": "high"}}]'),
        ("baselines.json", b'[{"name": "a", "meaning": "b", "scores": {}, "intervals": {"exact_match": [1]}}]'),
        ("curves.json", b"[" * 9999),
        ("curves.json", b'{"learning": 5}'),
        ("curves.json", b'{"learning": [{"step": -1}]}'),
        ("curves.json", b'{"budget_points": 1e999}'),
        ("evaluation.json", b"\xff"),
        ("evaluation.json", b"{}"),
    ],
)
def test_damaged_files_of_an_evaluation_are_one_message(
    make_folder: Callable[..., Path], name: str, content: bytes
) -> None:
    folder = make_folder()
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")) as caught:
        render(folder)
    assert len(str(caught.value)) < LONGEST_MESSAGE


@pytest.mark.parametrize(
    "config", ["[", "a: &x 1\nb: *x", "metrics: 5", "metrics: {names: 5}", "metrics: {external: 5}"]
)
def test_a_damaged_config_of_an_evaluation_is_one_message(make_folder: Callable[..., Path], config: str) -> None:
    with pytest.raises(DataError, match=r"config in evaluation\.json") as caught:
        render(make_folder(evaluation=replace(EVALUATION, config=config)))
    assert len(str(caught.value)) < LONGEST_MESSAGE
