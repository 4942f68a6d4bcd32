import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from vglm.errors import DataError
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, Stamp, write_evaluation, write_predictions
from vglm.evaluation.report import print_summary, render

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`|{{ 7 * 7 }}"
STAMP = Stamp(text="EVALUATED ON TRAINING IMAGES", detail="1 of 3 test images were trained on.")
EVALUATION = Evaluation(
    title="background/lora",
    summary="visualglm_tiny tuned with LoraConfig on 20 samples. Scored on 3 test samples, 2 probe samples.",
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
    fields = {"split": "test", "kind": None, "english": False, "question": "背景里有什么？", "reference": "沙滩。"}
    fields |= {"image": None, "image_sha256": None, "history": (), **values}
    return Prediction(id=name, group=name, prediction=prediction, **fields)  # type: ignore[arg-type]


BEFORE = [
    record("same", "沙滩。"),
    record("gain", "一只猫。", image="beach.png", image_sha256="abc"),
    record("error", "", error="image broken.png is damaged"),
    record("kept", "Two.", split="probe", kind="count", english=True, question="How many?", reference="Two."),
    record("lost", "Red.", split="probe", kind="colour", english=True, question="What colour?", reference="Red."),
]
AFTER = [
    replace(each, prediction={"gain": "沙滩。", "lost": "沙滩。"}.get(each.id, each.prediction)) for each in BEFORE
]


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(
        before: list[Prediction] = BEFORE, after: list[Prediction] = AFTER, evaluation: Evaluation = EVALUATION
    ) -> Path:
        folder = tmp_path / "evaluation"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "gold").save(folder / "images" / "abc.webp")
        write_evaluation(evaluation, folder)
        write_predictions(before, folder / evaluation.baseline.label / "predictions.jsonl")
        write_predictions(after, folder / evaluation.candidate.label / "predictions.jsonl")
        return folder

    return make


class Page(HTMLParser):
    """The page as a browser reads it: its tags, and the text of its cards."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cards: list[str] = []
        self.text = ""
        self._in_card = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "article":
            self.cards.append("")
            self._in_card = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "article":
            self._in_card = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_card:
            self.cards[-1] = " ".join((self.cards[-1] + " " + data).split())


def test_the_page_says_what_changed(make_folder: Callable[..., Path]) -> None:
    path = render(make_folder())
    assert path.name == "index.html"
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert (
        "On 3 test samples, exact match went from 33.3% before to 66.7% after: 1 answer became right, 0 became" in text
    )
    assert (
        "from 100.0% before to 50.0% after: 0 answers became right, 1 became wrong; 50.0 points were forgotten." in text
    )
    assert "EVALUATED ON TRAINING IMAGES 1 of 3 test images were trained on." in text
    assert "1 could not be answered and count as wrong" in text
    assert "python evaluate.py run=outputs/background/lora/1" in text
    assert "the same model with the run's adapter" in text


def test_changed_answers_come_first_and_in_the_probe_those_that_were_lost(make_folder: Callable[..., Path]) -> None:
    cards = Page(render(make_folder()).read_text(encoding="utf-8")).cards
    assert [re.search(r"gain|error|same|lost|kept", card)[0] for card in cards] == [  # type: ignore[index]
        "gain", "error", "same", "lost", "kept",
    ]  # fmt: skip
    assert "reference 沙滩。 before ✗ wrong 一只猫。 after ✓ right 沙滩。" in cards[0]
    assert "no answer: image broken.png is damaged" in cards[1]
    assert "before ✓ right Red. after ✗ wrong 沙滩。" in cards[3]


def test_the_page_loads_nothing(make_folder: Callable[..., Path]) -> None:
    page = Page(render(make_folder()).read_text(encoding="utf-8"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources
    assert all(str(source).startswith("data:image/webp;base64,") for source in sources)
    policies = [attributes["content"] for tag, attributes in page.tags if tag == "meta" and "http-equiv" in attributes]
    assert str(policies[0]).startswith("default-src 'none'; img-src data:;")


def test_text_stays_text(make_folder: Callable[..., Path]) -> None:
    values = dict.fromkeys(("question", "reference", "kind", "image"), ATTACK)
    before = [record(ATTACK, ATTACK, image_sha256="abc", **values), record("b", "b", kind="b")]
    after = [replace(before[0], prediction=ATTACK + "!"), before[1]]
    evaluation = replace(
        EVALUATION, title=ATTACK, summary=ATTACK, facts={ATTACK: ATTACK}, config=ATTACK, command=ATTACK,
        stamps=(Stamp(text=ATTACK, detail=ATTACK),), candidate=Arm(label="after", meaning=ATTACK),
    )  # fmt: skip
    path = render(make_folder(before, after, evaluation))
    page = Page(path.read_text(encoding="utf-8"))
    harmless = Page(render(make_folder()).read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in harmless.tags].count("script") == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(ATTACK) >= 10
    markdown = (path.parent / "report.md").read_text(encoding="utf-8").partition("```")[0]
    assert "<script" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and "b" in line]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (6, 10) for row in rows)


def test_markdown_is_a_table_and_a_few_changed_examples(make_folder: Callable[..., Path]) -> None:
    many = [record(f"{row}", "猫") for row in range(9)]
    path = render(make_folder(many, [replace(each, prediction="沙滩。") for each in many]))
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
    text = render(make_folder(BEFORE[:3], AFTER[:3], evaluation)).read_text(encoding="utf-8")
    assert (
        "Of 3 test samples, 33.3% are answered right with shuffled images and 66.7% with true ones: "
        "looking at the image is worth 33.3 points." in text
    )
    assert "forgotten" not in text
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
        ["after", "before", "evaluation.json", "images", "metrics.json", "report"]
    )


def test_the_terminal_table_fits_80_columns(make_folder: Callable[..., Path]) -> None:
    kinds = ["颜色颜色的问题很长很长", "b", "c", "d", "e"]
    before = [replace(each, kind=kind) for each, kind in zip(BEFORE, kinds, strict=True)]
    after = [replace(each, kind=kind) for each, kind in zip(AFTER, kinds, strict=True)]
    output = StringIO()
    print_summary(make_folder(before, after), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert any("Test set" in line and "33.3 → 66.7" in line and "+33.3" in line for line in lines)
    assert any("颜色颜色的问题很长很长" in line for line in lines)
    assert all(cell_len(line) <= 80 for line in lines if not line.startswith("Report: "))
    assert lines[-1].startswith("Report: ")
    assert lines[-1].endswith("index.html")
    table = [line for line in lines if line.startswith("│")]
    assert len({cell_len(line) for line in table}) == 1
