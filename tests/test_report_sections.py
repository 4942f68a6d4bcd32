"""A section is a folder and a line in the list: it appears in every file and in the terminal, in both languages."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from nltk.metrics.agreement import AnnotationTask
from rich.console import Console
from test_report import AFTER, BEFORE, EVALUATION, Page, answers, make_folder, record  # noqa: F401

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction, SampleLoss, read_evaluation, write_losses
from vglm.evaluation.report import print_summary, render, sections
from vglm.evaluation.report.section import Scored, Table
from vglm.evaluation.report.sections import answers as answers_section
from vglm.evaluation.report.sections import summary as summary_section
from vglm.evaluation.score.scoring import read_comparison
from vglm.text.prompt import LANGUAGES

FILES = {
    "__init__.py": """
from vglm.text.messages import Text
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Line, Scored, Table

say = section_texts(__file__)


def _table(scored):
    rows = [[Text.of(name), str(part.n), say("many")] for name, part in scored.comparison.splits.items()]
    return Table([say("split"), Text.of("n"), say("size")], rows, title=say("title"), styles=("", "strong"))


def show(scored: Scored):
    ratings = scored.folder / "ratings.txt"
    return {"sizes": _table(scored)} if ratings.is_file() else None


def lines(scored):
    return [Line(say("line", n=len(scored.comparison.splits)), "worse")]


def printed(scored):
    return [_table(scored), *lines(scored)]


def record(scored):
    return {"sizes": {name: part.n for name, part in scored.comparison.splits.items()}}


def files(scored):
    return {"sizes.txt": "5"}
""",
    "section.html.j2": '<section id="sizes"><h2 class="title">{{ t("title") }}</h2>{{ table(sizes) }}</section>\n',
    "section.md.j2": '\n## {{ t("title") }}\n\n{{ table(sizes) }}',
    "section.js": 'document.addEventListener("language", () => { document.body.dataset.side = side; });\n',
    "messages.yaml": """
title: {en: Sizes of the splits, zh: 各部分的大小}
split: {en: part, zh: 部分}
size: {en: size, zh: 大小}
many: {en: "few | <few>", zh: 少}
line: {en: "There are {n} splits.", zh: "共 {n} 个部分。"}
""",
}


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section in a package of its own, and the list with it."""
    package = tmp_path / "packages" / "split_sizes"
    package.mkdir(parents=True)
    for name, content in FILES.items():
        (package / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(sections, "SECTIONS", [*sections.SECTIONS, "split_sizes"])


@pytest.mark.usefixtures("added")
def test_a_section_is_a_folder_and_a_line(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    folder = make_folder()
    (folder / "ratings.txt").touch()
    report = render(folder).parent
    words = {"en": ("Sizes of the splits", "There are 2 splits."), "zh": ("各部分的大小", "共 2 个部分。")}
    text = (report / "index.html").read_text(encoding="utf-8")
    summary = text.partition('<section class="summary"')[2].partition("</section>")[0]
    section = text.partition('<section id="sizes">')[2].partition("</section>")[0]
    script = Page(text).tags
    for language in LANGUAGES:
        title, line = words[language]
        assert title in section
        assert line in summary
        markdown = (report / {"en": "report.md", "zh": "report.zh.md"}[language]).read_text(encoding="utf-8")
        assert f"## {title}" in markdown
        assert f"- {line}" in markdown
        output = StringIO()
        console = Console(file=output, width=80)
        print_summary(folder, read_comparison(folder), console, language=language)
        assert title in output.getvalue()
        assert line in output.getvalue()
    assert '<td class="strong">2</td>' in section  # one of three has no answer
    assert "few | &lt;few&gt;" in section
    assert "| test | 2 | few \\| &lt;few&gt; |" in (report / "report.md").read_text(encoding="utf-8")
    assert FILES["section.js"].strip() in text
    assert [tag for tag, _ in script].count("script") == 2
    assert json.loads((report / "report.json").read_text(encoding="utf-8"))["sizes"] == {"test": 2, "retention": 2}
    assert (report / "sizes.txt").read_text() == "5"


def test_answers_are_shown_twice_alike(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    folder = make_folder()
    scored = Scored(folder, read_evaluation(folder), read_comparison(folder))
    first = answers_section.show(scored)["data"]
    assert answers_section.show(scored)["data"] == first
    assert "data:image/webp" in first


def test_the_table_has_the_primary_metric_of_kinds(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    chosen = replace(EVALUATION, config="metrics: {names: [answer_length, exact_match]}\n")
    before = [record(str(row), "猫。", kind="shape" if row < 2 else "colour") for row in range(4)]
    before += [record("kept", "Two.", split="retention")]
    longer = {"0": "沙滩。", "1": "一只猫。"}
    after = [replace(original, prediction=longer.get(original.id, original.prediction)) for original in before]
    folder = make_folder(before, after, chosen)
    table = summary_section.printed(Scored(folder, read_evaluation(folder), read_comparison(folder)))[0]
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == ["2 → 2.75", "2 → 2", "2 → 3.5", "–"]
    assert [row[1] for row in table.rows] == ["4", "2", "2", "1"]


@pytest.mark.usefixtures("added")
def test_a_section_with_nothing_to_show_is_left_out(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    report = render(make_folder(BEFORE, AFTER)).parent
    assert 'id="sizes"' not in (report / "index.html").read_text(encoding="utf-8")
    assert "Sizes of the splits" not in (report / "report.md").read_text(encoding="utf-8")


def test_the_hardest_training_samples_are_shown_with_picture_and_loss(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    folder = make_folder()
    samples = [SampleLoss(f"train#{row}", "何处？", f"<b>{row}|</b>", 0.1 * row, 3, None, None) for row in range(30)]
    samples[29] = replace(samples[29], image="beach.png", image_sha256="ab" * 32)
    write_losses(samples, folder)
    report = render(folder).parent
    page = (report / "index.html").read_text(encoding="utf-8").partition('id="hardest"')[2].partition("</section>")[0]
    assert re.findall(r"<small>(.*?)</small>", page) == [f"train#{row}" for row in range(29, 9, -1)]
    assert page.count("<img ") == 1
    assert "&lt;b&gt;29|&lt;/b&gt;" in page
    assert "The 20 of 30 training samples" in page
    assert "the median is 1.45" in page
    assert "| 2.90 | 何处？ | &lt;b&gt;29\\|&lt;/b&gt; | train\\#29 |" in (report / "report.md").read_text(
        encoding="utf-8"
    )
    recorded = json.loads((report / "report.json").read_text(encoding="utf-8"))["training_loss"]
    assert list(recorded) == [f"train#{row}" for row in range(29, -1, -1)]
    (folder / "training_loss.json").write_text('[{"id": 3}]', encoding="utf-8")
    with pytest.raises(DataError, match=r"training_loss\.json is damaged"):
        render(folder)


def test_people_who_wrote_the_references_are_scored_against_one_another(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    def rated(name: str, prediction: str, *references: str) -> Prediction:
        return record(name, prediction, reference=json.dumps(references, ensure_ascii=False))

    rows = [
        rated("all", "猫。", "猫。", "猫。", "猫。"),  # 3 of 3 pairs; each is right by the others
        rated("two", "猫。", "猫。", "狗。", "猫。"),  # 1 of 3 pairs; two are right by the others
        rated("none", "鱼。", "猫。", "狗。", "马。"),  # none
        record("one", "沙滩。"),
    ]
    folder = make_folder([replace(row, prediction="鱼。") for row in rows], rows)
    report = render(folder).parent
    agreement = json.loads((report / "report.json").read_text(encoding="utf-8"))["agreement"]
    assert agreement["samples"] == {"all": 1.0, "two": pytest.approx(1 / 3), "none": 0.0}
    task = AnnotationTask(
        [(index, row.id, text) for row in rows[:3] for index, text in enumerate(json.loads(row.reference))]
    )
    assert agreement["alpha"] == pytest.approx(task.alpha())
    assert agreement["people"]["value"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert agreement["people"]["n"] == 3
    markdown = (report / "report.md").read_text(encoding="utf-8")
    assert (
        "3 test samples have several references, 3.0 each. Of two references to the same question 44.4% are equal"
        in markdown
    )
    assert "all are equal for 1 samples, no two for 1" in markdown
    assert f"alpha of the texts is {task.alpha():.2f}" in markdown
    assert "| one reference, against the others | 55.6% |" in markdown
    assert "| after | 66.7% |" in markdown
    answered = [replace(row, reference="猫。", meta={"answers": row.reference}) for row in rows[:3]]
    again = render(make_folder([replace(row, prediction="鱼。") for row in answered], answered)).parent / "report.json"
    assert json.loads(again.read_text(encoding="utf-8"))["agreement"] == agreement
    without = render(make_folder([rows[3]], [rows[3]]))
    assert 'id="agreement"' not in without.read_text(encoding="utf-8")


def test_the_terminal_speaks_chinese(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    folder, output = make_folder(), StringIO()
    console = Console(file=output, width=80)
    print_summary(folder, read_comparison(folder), console, language="zh")
    printed = output.getvalue()
    assert "样本太少，无法下结论：完全匹配由 50.0% 变为 100.0%" in printed.replace("\n", "")
    assert "测试集" in printed
    assert "Test set" not in printed


def test_how_answers_end_is_counted_for_each_arm(make_folder: Callable[..., Path]) -> None:  # noqa: F811
    before = answers(4, 40)
    after = [replace(original, finish="length" if row < 7 else "eos") for row, original in enumerate(before)]
    after[10:12] = [replace(original, prediction=" ") for original in after[10:12]]
    after[12] = replace(after[12], prediction="", finish=None, error="image x.png is damaged")
    folder = make_folder(before, after)
    report = render(folder).parent
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert content["finishes"]["test"] == {
        "before": {"eos": 0, "length": 0, "empty": 0, "error": 0, "unknown": 40},
        "after": {"eos": 30, "length": 7, "empty": 2, "error": 1, "unknown": 0},
    }
    sentence = "Test set, after: 2 of 40 answers are empty."
    assert sentence in (report / "index.html").read_text(encoding="utf-8").partition("</section>")[0]
    markdown = (report / "report.md").read_text(encoding="utf-8")
    assert "| Test set \\(after\\) | 40 | 30 | 7 | 2 | 1 | 0 |" in markdown
    assert f"- {sentence}" in markdown
    assert 'id="finishes"' not in render(make_folder(before, before)).read_text(encoding="utf-8")
