import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import sample
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from vglm.cli import main
from vglm.data.doctor import (
    SAY,
    Finding,
    Lengths,
    Severity,
    examine,
    print_diagnosis,
    write_cleaned_copy,
    write_report,
)
from vglm.data.doctor.pictures import BROKEN, MISSING, READABLE, decode_pictures, look_at
from vglm.data.doctor.similarity import find_look_alikes, look_alike, shrink
from vglm.data.doctor.texts import Mark, Script, language_of, marks_of, unresolved_in
from vglm.data.images import image_sha256
from vglm.data.readers import read
from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.text.messages import Text

QUESTION = "这张胸片显示了什么？"
BACKGROUND = Path(__file__).parents[1] / "data" / "background_synthetic"


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A picture like no other: a few random patches, enlarged smoothly."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows of the few-shot format, with a picture of its own for each `img` that is named `p<number>.png`."""

    def write_rows(rows: Sequence[dict[str, Any]], name: str = "dataset.json") -> Path:
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        for row in rows:
            number = re.fullmatch(r"p(\d+)\.png", row.get("img") or "")
            if number and not (folder / row["img"]).exists():
                picture(int(number[1])).save(folder / row["img"])
        (folder / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        return folder / name

    return write_rows


def row(number: int, answer: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"img": f"p{number}.png", "prompt": QUESTION, "label": answer or f"第{number}号胸片未见异常。"} | changes


@contextmanager
def findings(path: Path, **options: Any) -> Iterator[list[Finding]]:
    with examine(path, workers=1, **options) as diagnosis:
        yield [finding for finding in diagnosis.findings if finding.severity is not Severity.NOTE]


def titles(path: Path, **options: Any) -> list[str]:
    """The warnings of a set."""
    with findings(path, **options) as reported:
        return [finding.title.en for finding in reported]


def test_a_clean_set(write: Callable[..., Path]) -> None:
    with examine(write([row(index) for index in range(6)]), workers=1) as diagnosis:
        assert diagnosis.severity is Severity.NOTE
        facts = {name.en: value.en for name, value in diagnosis.facts.items()}
        assert facts == {"format": "fewshot", "rows": "6", "usable rows": "6", "pictures": "6"}
        assert {check.en: why.en for check, why in diagnosis.left_out.items()} == {
            "token lengths": "tokens were not counted"
        }
        assert "duplicate rows" in [check.en for check in diagnosis.clean]


def test_the_ids_taken_are_told_and_the_rows_without_them(write: Callable[..., Path]) -> None:
    rows = [row(index, f"第{index}张。", patient_id=index // 2 or None) for index in range(8)]
    with examine(write(rows), workers=1) as diagnosis:
        titles = {finding.title.en: finding for finding in diagnosis.findings}
        assert "Grouped by patient_id: 5 groups in 8 rows, up to 2 rows each" in titles
        assert titles["2 rows have no id in patient_id, and the others do"].severity is Severity.WARNING
        assert [record.group for record in diagnosis.survey.samples()][2:] == ["1", "1", "2", "2", "3", "3"]


def test_what_the_rows_are_grouped_by_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    def grouping(path: Path, **options: Any) -> str:
        with examine(path, workers=1, **options) as diagnosis:
            (title,) = (finding.title.en for finding in diagnosis.findings if finding.title.en.startswith("Grouped by"))
        return title

    assert grouping(write([row(1), row(2)])) == "Grouped by nothing, each picture alone: 2 groups in 2 rows"
    table = tmp_path / "set" / "table.csv"
    table.write_text("image,caption,case of\np1.png,a,7\np2.png,b,7\n", encoding="utf-8")
    named = {"columns": {"group": "case of"}}
    assert grouping(table, options=named) == "Grouped by case of: 1 group in 2 rows, up to 2 rows each"
    views = [{"image_id": f"{index // 2}_{index % 2}", "caption": "双肺清晰。"} for index in range(4)]
    openi = table.with_name("openi.json")
    openi.write_text(json.dumps({"annotations": views}), encoding="utf-8")
    title = "Grouped by the pictures' names up to the first _: 2 groups in 4 rows, up to 2 rows each"
    assert grouping(openi) == title


def test_findings_of_reports_are_counted(write: Callable[..., Path]) -> None:
    reports = ["心影增大。无胸腔积液。", "心脏大小正常，双肺清晰。", "右侧胸腔积液可能。", "气胸。心影增大。"]
    with examine(write([row(index, text) for index, text in enumerate(reports)]), workers=1) as diagnosis:
        (reports_finding,) = (finding for finding in diagnosis.findings if "looked at" in finding.title.en)
    assert reports_finding.title.en == "4 reports looked at: 1 without a finding but devices, 3 with"
    assert "right about 25% of them" in reports_finding.detail.en
    assert reports_finding.table is not None
    assert reports_finding.table.rows[0] == ("Cardiomegaly", "2", "0", "1")
    assert ("Pleural Effusion", "0", "1", "1") in reports_finding.table.rows
    with examine(write([row(index, "一片沙滩。") for index in range(4)], "other.json"), workers=1) as diagnosis:
        assert not [finding for finding in diagnosis.findings if "looked at" in finding.title.en]


def test_tokenised_captions_are_noted(write: Callable[..., Path]) -> None:
    path = write([row(1, "the heart is normal ."), row(2, "It is, isn't it?"), row(3, "心影\ufeff增大。")])
    with examine(path, workers=1) as diagnosis:
        (blanks_finding,) = (finding for finding in diagnosis.findings if "before punctuation" in finding.title.en)
    assert blanks_finding.title.en.startswith("2 answers have blanks before punctuation, as tokenised captions do")
    assert blanks_finding.severity is Severity.NOTE
    assert len(blanks_finding.examples) == 2


def test_the_set_that_ships_is_clean() -> None:
    with examine(BACKGROUND, workers=1) as diagnosis:
        assert [finding.title.en for finding in diagnosis.findings if finding.severity is not Severity.NOTE] == []
        assert diagnosis.survey.splits == ["retention", "test", "train", "validation"]
        assert len(diagnosis.survey) == 342


def test_rows_that_cannot_be_used(write: Callable[..., Path]) -> None:
    rows = [
        row(1),
        row(2, label=""),
        row(3, img="lost.png"),
        row(4),
        row(5),
        row(5, "另一个问题的回答。", prompt="肺部如何？"),
    ]
    path = write(rows)
    (path.parent / "p4.png").write_bytes(b"no picture")
    (path.parent / "p5.png").write_bytes((path.parent / "p1.png").read_bytes()[:300])
    with findings(path) as problems:
        assert [finding.title.en for finding in problems] == [
            "1 row cannot be read",
            "1 of 6 rows names a picture that is not there",
            "2 pictures of 3 rows cannot be decoded",
        ]
        assert [example.where for finding in problems for example in finding.examples] == [
            "dataset.json:2",
            "dataset.json#3",
            "dataset.json#4",
            "dataset.json#5",
        ]
        assert "lost.png" in problems[1].examples[0].text


def test_nothing_left_is_unusable(write: Callable[..., Path]) -> None:
    with examine(write([row(1, img="lost.png"), row(2, img="gone.png")]), workers=1) as diagnosis:
        assert diagnosis.severity is Severity.UNUSABLE
        assert diagnosis.usable == 0
        assert diagnosis.verdict.en == "Unusable: no row is left to train on."


@pytest.mark.parametrize("with_pictures", [True, False])
def test_texts_of_rows_without_their_picture_are_looked_at_too(write: Callable[..., Path], with_pictures: bool) -> None:
    path = write([row(1), row(2, "XXXX", img="lost.png"), row(3, "无异常。", img="gone.png")])
    with examine(path, with_pictures=with_pictures, workers=1) as diagnosis:
        assert (len(diagnosis.survey), diagnosis.usable) == (3, 1)
        assert diagnosis.facts[SAY("fact.pictures")].en.startswith("1")
        titles = [finding.title.en for finding in diagnosis.findings]
    assert "2 of 3 rows name a picture that is not there" in titles
    assert any("unresolved" in title for title in titles)


def test_repeated_rows_and_conflicts_go_by_pixels(write: Callable[..., Path]) -> None:
    rows = [
        row(1, "心影增大。"),
        row(2, "心影增大。", img="copy.jpg.png"),
        row(3, "肺野清晰。"),
        row(3, "双肺有阴影。"),
    ]
    path = write(rows)
    picture(1).save(path.parent / "copy.jpg.png", compress_level=0)
    assert (path.parent / "copy.jpg.png").read_bytes() != (path.parent / "p1.png").read_bytes()
    with findings(path) as problems:
        assert [finding.title.en for finding in problems] == [
            "1 row repeats an earlier one: same picture, same question, same answer",
            "1 picture and question have different answers, 2 rows in all",
            "1 picture has the pixels of another one under another name",
        ]
        assert [example.where for example in problems[0].examples] == ["dataset.json#2"]
        assert {example.where for example in problems[1].examples} == {"dataset.json#3", "dataset.json#4"}
    assert titles(path, with_pictures=False) == ["1 picture and question have different answers, 2 rows in all"]


def test_several_captions_are_no_conflict(write: Callable[..., Path]) -> None:
    rows = [row(index, f"第{index}张图的第{caption}种写法。") for index in range(4) for caption in range(5)]
    assert titles(write(rows)) == []


def test_small_large_plain_and_turned_pictures(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write([row(index, img=f"{index}.png") for index in range(5)] + [row(5, img="5.jpg")])
    folder = path.parent
    picture(0, (20, 40)).save(folder / "0.png")
    picture(1, (300, 40)).save(folder / "1.png")
    Image.new("RGB", (40, 40), "red").save(folder / "2.png")
    picture(3).convert("RGBA").save(folder / "3.png")
    Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)).save(folder / "4.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(5, (60, 40)).save(folder / "5.jpg", exif=exif)
    with examine(path, workers=1) as diagnosis:
        headings = [finding.title.en for finding in diagnosis.findings]
        assert "1 picture is less than 32 pixels wide or high" in headings
        assert "1 picture is more than 4 times as long as wide" in headings
        assert "1 picture is of one colour" in headings
        assert "1 picture is partly transparent" in headings
        assert "1 picture is grey of more than 8 bits" in headings
        assert "1 picture is turned by an EXIF tag" in headings
        assert list(diagnosis.survey.pictures["mode"]) == ["RGB", "RGB", "RGB", "RGBA", "I;16", "RGB"]
        write_cleaned_copy(diagnosis, tmp_path / "cleaned")
        with Image.open(tmp_path / "cleaned" / "images" / "5.png") as upright:
            assert upright.size == (40, 60)


def test_a_recompressed_copy_looks_alike(write: Callable[..., Path]) -> None:
    path = write([row(index) for index in range(8)] + [row(8, img="small.jpg")])
    picture(3, (480, 400)).save(path.parent / "p3.png")
    picture(3, (480, 400)).resize((240, 200)).save(path.parent / "small.jpg", quality=60)
    with findings(path) as problems:
        assert [finding.title.en for finding in problems] == ["2 pictures look almost like another one, in 1 set"]
        assert [example.where for example in problems[0].examples] == ["dataset.json#4", "dataset.json#9"]


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(0, 3))
def test_look_alikes_are_those_of_brute_force(seed: int, count: int, border: int) -> None:
    """Random pictures, some of them noisy copies; a border of equal cells crowds the bands."""
    random = np.random.default_rng(seed)
    originals = random.integers(0, 256, (max(1, count // 3), 9, 9, 3))
    cells = originals[random.integers(0, len(originals), count)] + random.integers(-6, 7, (count, 9, 9, 3))
    cells[:, :border] = 0
    small = np.clip(cells, 0, 255).astype(np.uint8)
    group = np.arange(count)
    first, second = np.triu_indices(count, 1)
    for one, other in np.stack([first, second], 1)[look_alike(small, first, second)]:
        group[group == group[other]] = group[one]
    expected = sorted(
        np.flatnonzero(group == label).tolist() for label in np.unique(group) if (group == label).sum() > 1
    )
    assert find_look_alikes(small) == expected


def test_ten_thousand_pictures_with_a_black_border() -> None:
    random = np.random.default_rng(1)
    originals = random.integers(0, 256, (2_000, 9, 9, 3))
    cells = np.repeat(originals, 5, axis=0) + random.integers(-2, 3, (10_000, 9, 9, 3))
    cells[:, :3] = 0
    groups = find_look_alikes(np.clip(cells, 0, 255).astype(np.uint8))
    assert groups == [list(range(5 * index, 5 * index + 5)) for index in range(2_000)]


def test_shrinking_forgets_the_size() -> None:
    assert np.abs(shrink(picture(1, (900, 900))).astype(int) - shrink(picture(1, (450, 450)))).max() <= 3


def test_pictures_are_decoded_in_processes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(130)]
    for number, path in enumerate(paths[:-1]):
        picture(number, (12, 10)).save(path)
    paths[17].write_bytes(b"no picture")
    samples = [sample(str(path), image=path) for path in paths]
    records, faults = decode_pictures(samples.__getitem__, len(samples), workers=2)
    assert np.flatnonzero(records["status"] == BROKEN).tolist() == [17]
    assert np.flatnonzero(records["status"] == MISSING).tolist() == [129]
    assert set(faults) == {17, 129}
    alone = look_at(samples[77])
    assert alone["status"] == READABLE
    assert records[77] == alone
    assert alone["pixels"].tobytes().hex() == image_sha256(paths[77])[:32]


MARKED = {
    "As an AI language model, I cannot see the image.": Mark.BOILERPLATE,
    "I'm sorry, but I can't help with that.": Mark.BOILERPLATE,
    "作为一个人工智能语言模型，我无法查看图片。": Mark.BOILERPLATE,
    "抱歉，我无法提供诊断。": Mark.BOILERPLATE,
    "There is XXXX opacity in the left base.": Mark.UNRESOLVED,
    "Seen by Dr. ___ today.": Mark.UNRESOLVED,
    "Report for [**Name**].": Mark.UNRESOLVED,
    "<unk> of the lung": Mark.UNRESOLVED,
    "The period is {period} days.": Mark.UNRESOLVED,
    "...": Mark.EMPTY,
    "N/A": Mark.EMPTY,
    "nan": Mark.EMPTY,
    "None": Mark.EMPTY,
    "caf\ufffd": Mark.GARBLED,
    "a &amp; b": Mark.GARBLED,
    "As an AI model, XXXX": Mark.BOILERPLATE | Mark.UNRESOLVED,
    "心脏大小正常，肺野清晰。": Mark(0),
    "no effusion . it 's normal": Mark.DETACHED,
    "心影\u200b增大。": Mark.DETACHED,
    "It's 3.5 mm, isn't it?": Mark(0),
    "No.": Mark(0),
    "none": Mark(0),
    "3": Mark(0),
    "XXL and XX chromosomes, X-ray": Mark(0),
    "I am sorry for the delay of this report.": Mark(0),
    "Sure sign of an effusion, here on the left.": Mark(0),
}


@pytest.mark.parametrize("answer", MARKED)
def test_marks(answer: str) -> None:
    assert marks_of(answer) == MARKED[answer]


@given(st.text())
def test_no_text_breaks_the_marks(text: str) -> None:
    marks_of(text)
    unresolved_in(text)
    assert language_of(text + "心脏大小正常肺野清晰" * (len(text) + 1)) is Script.CHINESE


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("X光片显示心脏大小正常。", Script.CHINESE),
        ("Normal heart size.", Script.LATIN),
        ("正常 normal heart", Script.MIXED),
        ("Сердце в норме", Script.OTHER),
        ("心臓の大きさは正常です", Script.OTHER),
        ("12 %", Script.NONE),
    ],
)
def test_languages(text: str, language: Script) -> None:
    assert language_of(text) is language


def test_texts_are_looked_at(write: Callable[..., Path]) -> None:
    rows = [
        row(1, "As an AI language model, I cannot diagnose."),
        row(2, "There is XXXX opacity in the left base."),
        row(3, "-"),
        row(4, prompt="{name}\n这是什么片子？"),
        row(5, prompt="What does this chest X-ray show us?", english=False, label="The heart is of normal size."),
        row(6, prompt="What does this chest X-ray show us?", english=True, label="心脏大小正常，肺野清晰。"),
        row(7, prompt="描述这张图片"),
    ]
    assert titles(write(rows)) == [
        "1 answer has no answer, such as N/A or a dash",
        "1 answer has phrases of a language model, such as an apology",
        "1 answer has unresolved tokens, such as XXXX or <image>",
        "1 question holds an unresolved token",
        "3 answers in another language than the question",
        "1 question in the frame of the other language",
        "1 row asks what the model answers already about any picture",
    ]


def test_lengths_and_what_would_be_cut(write: Callable[..., Path]) -> None:
    def count(sample: Sample) -> Lengths:
        history = sum(len(question) + len(answer) for question, answer in sample.history)
        return Lengths(len(sample.question), history, len(sample.answer))

    rows = [row(1, "短。"), row(2, "长" * 40), row(3, "短。", history=[["问" * 10, "答" * 10]])]
    path = write(rows)
    with examine(path, workers=1, count_tokens=count, max_length=30, counted_with=Text.of("letters")) as diagnosis:
        tables = [
            finding for finding in diagnosis.findings if finding.table and finding.table.columns[0].en == "tokens"
        ]
        assert [[name.en, *figures] for name, *figures in tables[0].table.rows] == [
            ["prompt", "10", "30", "30", "30"],
            ["answer", "2", "40", "40", "40"],
            ["both", "32", "50", "50", "50"],
        ]
        warnings = [finding for finding in diagnosis.findings if finding.severity is Severity.WARNING]
        assert [finding.title.en for finding in warnings] == [
            "1 dialogue would lose turns at 30 tokens",
            "1 row has more than 30 tokens even without history",
        ]
        assert [finding.examples[0].where for finding in warnings] == ["dataset.json#3", "dataset.json#2"]


def test_class_balance(write: Callable[..., Path]) -> None:
    assert titles(write([row(index, "有") for index in range(12)])) == ["All 12 rows have the same answer"]
    assert titles(write([row(index, "有" if index else "无") for index in range(24)])) == [
        "2 classes: 1 to 23 rows each"
    ]
    assert titles(write([row(index, "有" if index % 2 else "无") for index in range(24)])) == []


def test_leakage_between_splits(write: Callable[..., Path], tmp_path: Path) -> None:
    answers = "甲乙丙丁"
    write([row(index, f"第{answers[index % 4]}类。") for index in range(12)], "train.json")
    write(
        [row(index, f"第{answers[index % 4]}类。") for index in range(11, 20)] + [row(20, img="copy.png")], "test.json"
    )
    folder = tmp_path / "set"
    picture(0).save(folder / "copy.png")
    with examine(folder, workers=1) as diagnosis:
        warnings = [finding.title.en for finding in diagnosis.findings if finding.severity is Severity.WARNING]
        assert "1 row of test shares a group with 1 row of train" in warnings
        assert "2 rows of test share a picture with 2 rows of train" in warnings
        write_cleaned_copy(diagnosis, tmp_path / "cleaned")
    rows = [json.loads(line) for line in (tmp_path / "cleaned" / "data.jsonl").read_text("utf-8").splitlines()]
    assert sum(cleaned_row["split"] == "train" for cleaned_row in rows) == 10
    assert sum(cleaned_row["split"] == "test" for cleaned_row in rows) == 10


def test_studies_told_by_their_names(write: Callable[..., Path]) -> None:
    rows = [row(index, img=f"{index // 2}_{index % 2 + 1}.png") for index in range(12)]
    path = write(rows)
    for index in range(12):
        picture(index).save(path.parent / f"{index // 2}_{index % 2 + 1}.png")
    title = "Pictures seem to be named <study>_<view>: 6 studies, up to 2 pictures each"
    with examine(path, workers=1) as diagnosis:
        assert title in [finding.title.en for finding in diagnosis.findings]
        assert diagnosis.severity is Severity.NOTE
    write(rows[:5], "train.json")
    write(rows[5:], "test.json")
    with findings(path.parent) as problems:
        assert [finding.title.en for finding in problems] == [title]
        assert problems[0].detail.en.startswith("1 study lies in several splits")


def test_questions_of_other_tasks(write: Callable[..., Path]) -> None:
    other = write([row(1, prompt="心脏大吗？")], "other.json")
    path = write([row(1, prompt="心脏大吗"), row(2, kind="report"), row(3, kind="finding")])
    assert titles(path, other_tasks=[other]) == [
        f"1 row asks a question of {other} too",
        "1 question asked for more than one kind of answer",
    ]


def test_the_cleaned_copy_is_clean_and_the_source_untouched(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = [row(index, kind="report") for index in range(1, 7)]
    rows += [
        row(1, kind="report"),
        row(7, "XXXX"),
        row(8, img="lost.png"),
        row(9, img="copy.png", kind="report"),
        row(10, " 正常。 "),
    ]
    path = write([*rows, {"img": "p1.png", "prompt": QUESTION, "label": ""}])
    picture(2).save(path.parent / "copy.png", compress_level=0)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(path.parent.iterdir())}
    with examine(path, workers=1) as diagnosis:
        counts = write_cleaned_copy(diagnosis, tmp_path / "cleaned")
        with pytest.raises(DataError, match=r"cleaned exists already and is not an empty folder"):
            write_cleaned_copy(diagnosis, tmp_path / "cleaned")
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(path.parent.iterdir())} == before
    assert counts == {"left out": 4, "picture replaced": 1, "group changed": 1, "white space cut": 1}
    changes = [json.loads(line) for line in (tmp_path / "cleaned" / "changes.jsonl").read_text("utf-8").splitlines()]
    assert [change["row"] for change in changes if change["change"] == "left out"] == [
        "dataset.json:12",
        "dataset.json#7",
        "dataset.json#8",
        "dataset.json#9",
    ]
    samples = [
        read_sample for read_sample in read(tmp_path / "cleaned" / "data.jsonl") if isinstance(read_sample, Sample)
    ]
    originals = {read_sample.id: read_sample for read_sample in read(path) if isinstance(read_sample, Sample)}
    ids = [f"dataset.json#{number}" for number in (1, 2, 3, 4, 5, 6, 10, 11)]
    assert [read_sample.question for read_sample in samples] == [originals[name].question for name in ids]
    assert [read_sample.answer for read_sample in samples] == [originals[name].answer.strip() for name in ids]
    assert [read_sample.meta.get("kind") for read_sample in samples] == ["report"] * 7 + [None]
    assert samples[6].group == samples[1].group == "p2.png"
    assert samples[6].image == samples[1].image
    assert titles(tmp_path / "cleaned" / "data.jsonl") == [
        "1 picture and question have different answers, 2 rows in all"
    ]


def test_a_folder_with_one_data_file_or_several(write: Callable[..., Path]) -> None:
    folder = write([row(1)], "hearts.json").parent
    with examine(folder, workers=1) as diagnosis:
        assert diagnosis.survey.sample(0).id == "hearts.json#1"
    write([row(2)], "lungs.json")
    with pytest.raises(DataError, match=r"several data sets: hearts\.json, lungs\.json\. Pass one"), examine(folder):
        pass


def test_a_copy_never_lies_in_the_source(write: Callable[..., Path]) -> None:
    folder = write([row(1)], "train.json").parent
    with examine(folder, workers=1) as diagnosis, pytest.raises(DataError, match="is not to be touched"):
        write_cleaned_copy(diagnosis, folder / "cleaned")
    assert not (folder / "cleaned").exists()


def test_pages_hold_everything_and_escape_texts(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write([row(1, "<script>alert(1)</script> XXXX"), row(2, "[bold]正常[/bold] XXXX")])
    with examine(path, workers=1) as diagnosis:
        index = write_report(diagnosis, tmp_path / "report")
        console = Console(width=80, record=True, file=(tmp_path / "terminal.txt").open("w", encoding="utf-8"))
        print_diagnosis(diagnosis, console)
        text = console.export_text()
        console.file.close()
    page, sheet = index.read_text("utf-8"), (tmp_path / "report" / "thumbnails.html").read_text("utf-8")
    for html in (page, sheet):
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert not re.search(r"""(?:src|href)=["'](?!data:|thumbnails\.html|index\.html)""", html)
    assert sheet.count("<img") == 2
    assert '<html lang="en">' in page
    assert "2 answers have unresolved tokens" in page
    assert "[bold]正常[/bold]" in text
    assert max(map(len, text.splitlines()[1:])) <= 80  # the first line is the path


def test_in_chinese_only_what_is_the_datas_own_is_english(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(index, "左肺有阴影。", kind="report") for index in range(11)]
    rows += [row(1, "I'm sorry, but I cannot see."), row(12, "XXXX"), row(13, "N/A"), row(14, img="lost.png")]
    rows += [row(15, "心脏 &amp; 肺", prompt="描述 {name}")]
    path = write([*rows, rows[0]])
    Image.new("RGBA", (20, 20), (9, 9, 9, 9)).save(path.parent / "p3.png")
    monkeypatch.setenv("VGLM_LANG", "zh_CN.UTF-8")
    arguments = ["doctor", str(path), "--output", str(tmp_path / "pages"), "--workers", "1"]
    assert main([*arguments, "--fix", str(tmp_path / "cleaned")]) == 1
    printed = capsys.readouterr().out
    assert "条警告：数据可用，但训练前请先看警告。" in printed
    assert "1 行与前面的行重复：图像、问题、答案都相同" in printed
    own = printed.replace("I'm sorry, but I cannot see.", "").replace(str(tmp_path), "")
    english = [line for line in own.splitlines() if re.search(r"[a-z]+ [a-z]+ [a-z]+", line)]
    assert [line for line in english if "dataset.json" not in line] == []  # an example's own words
    page = (tmp_path / "pages" / "index.html").read_text("utf-8")
    assert '<html lang="zh-CN">' in page
    assert "需要修改或决定" in page
    assert main([*arguments, "--lang", "en"]) == 1
    assert "usable, but read them before you train" in capsys.readouterr().out


def test_the_command(write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write([row(index) for index in range(3)])
    arguments = ["doctor", str(path), "--output", str(tmp_path / "pages"), "--workers", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "Clean: nothing to mend." in printed
    assert "Samples have" in printed
    assert (tmp_path / "pages" / "index.html").is_file()
    write([row(1), row(2, "XXXX")])
    assert main([*arguments, "--fix", str(tmp_path / "cleaned")]) == 1
    assert "left out 1" in capsys.readouterr().out
    write([row(1, img="lost.png")])
    assert main(arguments) == 2
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["openi-zh.json", "openi-en.json"])
def test_openi_without_most_of_its_pictures(real_data: Path, name: str) -> None:
    with examine(real_data / "openi-sample" / name, workers=1) as diagnosis:
        assert diagnosis.facts[SAY("fact.rows")].en == "405"
        assert (diagnosis.usable, len(diagnosis.survey.absent), diagnosis.survey.bad_rows) == (5, 400, 0)
        assert diagnosis.severity is Severity.WARNING
        assert diagnosis.findings[0].title.en == "400 of 405 rows name a picture that is not there"


def test_dicom_headers_say_what_they_hold_of_the_patient(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    tags = {"ViewPosition": "PA", "WindowCenter": 2048, "WindowWidth": 4096}
    _write_dicom(tmp_path / "a.dcm", PatientName="Doe^Jane", PatientBirthDate="19700101", **tags)
    _write_dicom(tmp_path / "b.dcm", PatientName="Anonymous", PatientID="17", PatientIdentityRemoved="YES", **tags)
    rows = [{"img": name, "prompt": QUESTION, "label": f"第{name}号。"} for name in ("a.dcm", "b.dcm", "c.png")]
    _write_dicom(tmp_path / "c.dcm", PatientName="Roe^Richard")  # which no row names
    (tmp_path / "dataset.json").write_text(json.dumps(rows), encoding="utf-8")
    with examine(tmp_path / "dataset.json", workers=1) as diagnosis:
        by_title = {finding.title.en: finding for finding in diagnosis.findings}
    personal = next(finding for title, finding in by_title.items() if "personal data" in title)
    assert personal.title.en == "1 of 2 DICOM files holds personal data: PatientBirthDate, PatientName"
    assert "Doe" not in str(personal)
    assert "2 DICOM files looked at: 2 of 12 bits; 2 MONOCHROME2" in by_title
    assert "Views by the DICOM headers: 2 PA" in by_title
    assert "1 of 1 missing picture lies there as DICOM" in by_title


def test_patients_of_dicom_headers_that_the_rows_divide_are_told(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    for number in range(3):
        _write_dicom(tmp_path / f"{number}.dcm", PatientID="7" if number < 2 else "8")

    def titles(**patients: list[str]) -> list[str]:
        rows = [
            {"img": f"{number}.dcm", "prompt": QUESTION, "label": f"第{number}号。"}
            | {key: values[number] for key, values in patients.items()}
            for number in range(3)
        ]
        (tmp_path / "dataset.json").write_text(json.dumps(rows), encoding="utf-8")
        with examine(tmp_path / "dataset.json", workers=1) as diagnosis:
            return [finding.title.en for finding in diagnosis.findings]

    assert "1 patient of the DICOM headers lies in several groups" in titles()
    assert not [title for title in titles(patient_id=["7", "7", "8"]) if "several groups" in title]


def _write_dicom(path: Path, **tags: object) -> None:
    from test_windowing import write_dicom

    write_dicom(path, np.arange(64, dtype=np.uint16).reshape(8, 8), BitsStored=12, HighBit=11, **tags)


def test_light_curves_are_described_star_by_star(tmp_path: Path) -> None:
    lines = ["star,file,type"]
    for number in range(5):
        days = [index / 10 for index in range(100)] + [30.0]
        curve = "".join(f"{day},{1 + 0.1 * np.sin((3 + number) * day):.6f}\n" for day in days)
        (tmp_path / f"{number}.csv").write_text(f"time,flux\n{curve}", encoding="utf-8")
        lines.append(f"star {number},{number}.csv,{'RRAB' if number else 'DSCT'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    with examine(tmp_path, workers=1) as diagnosis:
        by_title = {finding.title.en: finding for finding in diagnosis.findings}
    stars = by_title["5 stars of 2 types"]
    assert stars.severity is Severity.WARNING
    assert stars.table is not None
    assert list(stars.table.rows) == [("rr_lyrae", "4"), ("delta_scuti", "1")]
    curves = by_title["5 light curves looked at"].table
    assert curves is not None
    assert next(iter(curves.rows)) == (SAY("curves.points"), "101", "101", "101")
    assert list(curves.rows)[2][0] == SAY("curves.gap")
    assert list(curves.rows)[2][1:] == ("20.1", "20.1", "20.1")
    assert "Grouped by star: 5 groups in 10 rows, up to 2 rows each" in by_title


def test_light_curves_without_names_of_columns_are_described_as_the_options_say(tmp_path: Path) -> None:
    for number in range(2):
        lines = (f"{2450455.5 + 3.1 * index} {18 + 0.3 * np.sin((1 + number) * index):.3f} 0.03" for index in range(80))
        (tmp_path / f"OGLE-{number}.dat").write_text("\n".join(lines), encoding="utf-8")
    table = "file,type\nOGLE-{}.dat,RRab\n"
    (tmp_path / "train.csv").write_text(table.format(0), encoding="utf-8")
    (tmp_path / "test.csv").write_text(table.format(1), encoding="utf-8")
    with examine(tmp_path, workers=1) as diagnosis:
        assert diagnosis.usable == 0
        assert "magnitudes=true" in diagnosis.findings[1].examples[0].text
    with examine(tmp_path, workers=1, options={"magnitudes": True}) as diagnosis:
        by_title = {finding.title.en: finding for finding in diagnosis.findings}
    table = by_title["2 light curves looked at"].table
    assert table is not None
    assert next(iter(table.rows)) == (SAY("curves.points"), "80", "80", "80")
