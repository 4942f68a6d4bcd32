import base64
import contextlib
import csv
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import (
    HEADER,
    encode,
    mmbench_row,
    mmbench_set,
    mme_set,
    pope_row,
    pope_set,
    problem,
    scienceqa_set,
    write_lines,
    write_mmbench,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vglm.data.division import ByGroup
from vglm.data.images import open_image
from vglm.data.loading import load_dataset
from vglm.data.readers import read_samples, recognise
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.table import write_table
from vglm.errors import DataError

SETS = {"mmbench": mmbench_set, "mme": mme_set, "scienceqa": scienceqa_set, "pope": pope_set}


def samples_of(path: Path, **arguments: Any) -> list[Sample]:
    return list(read_samples(path, **arguments))


def colour_of(sample: Sample) -> tuple[int, ...]:
    assert sample.image is not None
    return open_image(sample.image).getpixel((0, 0))  # type: ignore[return-value]


@pytest.mark.parametrize("name", SETS)
def test_each_format_is_recognised(name: str, tmp_path: Path) -> None:
    assert name == recognise(SETS[name](tmp_path)).NAME


# --- MMBench ----------------------------------------------------------------------------------------------------------


def test_mmbench_rotations_share_a_group_and_a_picture(tmp_path: Path) -> None:
    path = mmbench_set(tmp_path)
    first, second, third, turned, chinese = samples_of(path)
    assert (first.id, first.question, first.answer, first.language) == (
        "mmbench_dev_en.tsv#2",
        "What is it?",
        "A",
        "en",
    )
    assert dict(first.meta) == {
        "options": "A. a cat\nB. a dog",
        "choices": ["A", "B"],
        "hint": "Look closely.",
        "question_index": 3,
        "rotation": 0,
        "category": "object",
        "l2_category": "coarse",
        "source": "x",
    }
    assert (turned.group, turned.meta["question_index"], turned.meta["rotation"]) == (first.group, 3, 1)
    assert (turned.answer, turned.meta["options"]) == ("B", "A. a dog\nB. a cat")
    assert turned.image == first.image
    assert (third.answer, third.meta["choices"], third.meta["hint"]) == ("C", ["A", "B", "C"], "")
    assert chinese.language == "zh"
    assert [colour_of(sample) for sample in (first, second, turned)] == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]


def test_mmbench_pictures_stay_in_the_file(tmp_path: Path) -> None:
    path = mmbench_set(tmp_path)
    image = samples_of(path)[0].image
    assert isinstance(image, ImageSlice)
    assert path.read_bytes()[image.offset : image.offset + image.size] == encode("red").encode()
    assert image.read_bytes() == base64.b64decode(encode("red"))
    with pytest.raises(DataError, match="is not base64"):
        replace(image, offset=image.offset - 3).read_bytes()


def test_mmbench_pictures_survive_a_table(tmp_path: Path) -> None:
    samples = samples_of(mmbench_set(tmp_path))
    table = write_table(tmp_path / "samples.arrow", samples)
    assert list(table) == samples
    assert table[1] == samples[1]
    assert colour_of(table[4]) == (0, 0, 255)


def test_mmbench_a_rotation_may_come_before_its_picture(tmp_path: Path) -> None:
    rows = [mmbench_row(1_000_003, "3", answer="B"), mmbench_row(3, encode("red"))]
    first, second = samples_of(write_mmbench(tmp_path / "a.tsv", rows))
    assert (first.id, second.id) == ("a.tsv#3", "a.tsv#2")
    assert second.image == first.image


def test_mmbench_cells_with_quotes_tabs_and_line_breaks(tmp_path: Path) -> None:
    row = mmbench_row(1, encode("red"), question='Is it "a\tcat"\nor not?', hint="猫，狗")
    other = mmbench_row(2, encode("blue"))
    with (tmp_path / "a.tsv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\r\n")
        table.writerow(HEADER)
        table.writerows([[cells[name] for name in HEADER] for cells in (row, other)])
    first, second = samples_of(tmp_path / "a.tsv")
    assert (first.question, first.meta["hint"]) == ('Is it "a\tcat"\nor not?', "猫，狗")
    assert (second.id, colour_of(first), colour_of(second)) == ("a.tsv#4", (255, 0, 0), (0, 0, 255))


def test_mmbench_all_bad_rows_are_told(tmp_path: Path) -> None:
    good = encode("red")
    rows = [
        mmbench_row(1, good, answer="D"),
        mmbench_row(2, good, B=""),
        mmbench_row(3, good, B="", C="a cow"),
        mmbench_row(4, "99"),
        mmbench_row(5, "") | {"index": "five", "question": " "},
    ]
    with pytest.raises(DataError) as caught:
        samples_of(write_mmbench(tmp_path / "a.tsv", rows))
    message = str(caught.value)
    assert "5 of 5 rows cannot be used" in message
    assert "a.tsv:2: expected 'answer' to be one of A, B, found 'D'" in message
    assert "a.tsv:3: expected two options or more, found 1" in message
    assert "a.tsv:4: expected options without a gap, found A, C" in message
    assert (
        "a.tsv:5: expected 'image' to be a picture in base64, or the index of a row that has one, found '99'" in message
    )
    assert "'question' to say something" in message
    assert "'index' to be a whole number, found 'five'" in message
    assert "'image' to be a picture in base64, found an empty cell" in message


def test_mmbench_a_row_of_another_width_and_a_damaged_picture(tmp_path: Path) -> None:
    path = write_mmbench(tmp_path / "a.tsv", [mmbench_row(1, encode("red"))])
    path.write_text(path.read_text() + "2\tWhat?\n")
    with pytest.raises(DataError, match=r"a\.tsv:3: expected 12 cells as in the header, found 2"):
        samples_of(path)
    write_mmbench(path, [mmbench_row(1, "A" * 400)])
    with pytest.raises(DataError, match=r"a\.tsv:2: image .* is no picture that can be read"):
        load_dataset(path, format="mmbench", division=ByGroup(fractions={"test": 1.0}))


def test_mmbench_without_answers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("index\tquestion\tA\tB\timage\n1\tWhat?\ta\tb\tx\n")
    with pytest.raises(DataError, match=r"no column 'answer'\. MMBench publishes its test files without answers"):
        samples_of(tmp_path / "test.tsv")
    (tmp_path / "open.tsv").write_text('index\tquestion\tA\tB\timage\tanswer\n1\t"What?\ta\tb\tx\tA\n')
    with pytest.raises(DataError, match=r"open\.tsv:2: expected a row of cells"):
        samples_of(tmp_path / "open.tsv")


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS, st.booleans()), min_size=1, max_size=6))
def test_mmbench_any_text_is_read_back_or_refused(rows: list[tuple[str, str, str, bool]]) -> None:
    picture = encode("red", size=2)
    with tempfile.TemporaryDirectory() as folder:
        path, written = Path(folder) / "a.tsv", io.StringIO(newline="")
        table = csv.writer(written, delimiter="\t", lineterminator="\n")
        table.writerow(HEADER)
        for number, (question, hint, option, is_quoted) in enumerate(rows):
            row = mmbench_row(number, picture, question=question, hint=hint, B=option)
            table.writerow([row[name] for name in HEADER]) if not is_quoted else csv.writer(
                written, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL
            ).writerow([row[name] for name in HEADER])
        path.write_text(written.getvalue(), encoding="utf-8", newline="")
        is_good = [bool(question.strip()) and bool(option.split()) for question, _, option, _ in rows]
        if all(is_good):
            samples = samples_of(path, format="mmbench")
            assert [sample.question for sample in samples] == [question for question, _, _, _ in rows]
            assert {colour_of(sample) for sample in samples} == {(255, 0, 0)}
        else:
            with pytest.raises(DataError, match=f"{is_good.count(False)} of {len(rows)} rows"):
                samples_of(path, format="mmbench")


# --- MME --------------------------------------------------------------------------------------------------------------


def test_mme_reads_both_layouts(tmp_path: Path) -> None:
    samples = samples_of(mme_set(tmp_path))
    assert [sample.id for sample in samples] == [
        "MME_Benchmark#artwork/10002.txt:1",
        "MME_Benchmark#artwork/10002.txt:2",
        *(f"MME_Benchmark#color/{name}.txt:{line}" for name in ("0001", "0002") for line in (1, 2)),
    ]
    first = samples[0]
    assert (first.question, first.answer) == ("Is it a painting? Please answer yes or no.", "Yes")
    assert dict(first.meta) == {"category": "artwork", "pair": "artwork/10002", "choices": ["Yes", "No"]}
    assert [sample.group for sample in samples] == [sample.meta["pair"] for sample in samples]
    assert [colour_of(sample)[0] > 200 for sample in samples] == [True, True, True, True, False, False]


def test_mme_one_category_and_pictures_apart(tmp_path: Path) -> None:
    root = mme_set(tmp_path)
    samples = samples_of(root / "color")
    assert {sample.meta["category"] for sample in samples} == {"color"}
    for picture in (root / "color").glob("*.jpg"):
        (tmp_path / "pictures" / "color").mkdir(parents=True, exist_ok=True)
        picture.replace(tmp_path / "pictures" / "color" / picture.name)
    moved = samples_of(root / "color", format="mme", image_dir=tmp_path / "pictures")
    assert [sample.question for sample in moved] == [sample.question for sample in samples]
    with pytest.raises(DataError, match=r"color/0001\.txt:1: expected image '0001\.png' in .*no such file"):
        samples_of(root)
    assert len(samples_of(root, skip_missing=True)) == 2


def test_mme_all_bad_lines_are_told(tmp_path: Path) -> None:
    root = mme_set(tmp_path)
    (root / "color" / "0001.txt").write_text("Is it red? Yes\nIs it blue?\tmaybe\n\tNo\n")
    with pytest.raises(DataError) as caught:
        samples_of(root)
    assert "3 of 7 rows cannot be used" in str(caught.value)
    assert "color/0001.txt:2: expected a question, a tab, and Yes or No, found 'Is it blue?\\tmaybe'" in str(
        caught.value
    )
    with pytest.raises(DataError, match=r"expected folders with \.txt files of questions"):
        samples_of(root / "artwork" / "images", format="mme")
    (root / "color" / "0001.txt").write_bytes("Ist es grün?\tNo\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"0001\.txt: not UTF-8"):
        samples_of(root)


LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12)


@given(st.lists(st.tuples(LINES, st.sampled_from(["Yes", "no ", "maybe", ""])), min_size=1, max_size=5))
def test_mme_any_text_is_read_or_refused(rows: list[tuple[str, str]]) -> None:
    lines = "\n".join(f"{question}\t{answer}" for question, answer in rows).split("\n")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "1.png").touch()
        (Path(folder) / "1.txt").write_text("\n".join(lines), encoding="utf-8", newline="")
        written = [line for line in lines if line.strip()]
        parts = [line.rpartition("\t") for line in written]
        good = [tab != "" and question.strip() and answer.strip() in ("Yes", "no") for question, tab, answer in parts]
        if written and all(good):
            samples = samples_of(Path(folder), format="mme")
            assert [sample.question for sample in samples] == [question.strip() for question, _, _ in parts]
        else:
            with pytest.raises(DataError):
                samples_of(Path(folder), format="mme")


# --- ScienceQA --------------------------------------------------------------------------------------------------------


def test_scienceqa_keeps_its_splits_and_text_only_problems(tmp_path: Path) -> None:
    root = scienceqa_set(tmp_path)
    train, test, text_only, both = samples_of(root)
    assert (test.id, test.question, test.answer) == ("ScienceQA#2", "Which is farthest north?", "B")
    assert test.meta == {
        "options": "A. Ohio\nB. Utah\nC. Iowa",
        "choices": ["A", "B", "C"],
        "hint": "",
        "split": "test",
        "context": "image",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "social science",
        "topic": "geography",
        "category": "Geography",
        "skill": "Read a map",
        "grades": "1-6",
    }
    assert text_only.image is None
    assert (text_only.meta["context"], text_only.meta["grades"]) == ("text", "7-12")
    assert text_only.meta["hint"] == "Mona will print her name. With care."
    assert both.meta["context"] == "text and image"
    assert [colour_of(train), colour_of(both)] == [(255, 0, 0), (0, 128, 0)]
    splits = load_dataset(root, format="scienceqa")
    assert [len(splits.train), len(splits.test)] == [1, 3]
    assert "lecture" not in test.meta
    assert samples_of(root / "problems.json", lecture=True)[0].meta["lecture"] == "Maps have"


def test_scienceqa_all_bad_problems_are_told(tmp_path: Path) -> None:
    root = scienceqa_set(tmp_path)
    problems = {
        "1": problem(answer=3),
        "2": problem(choices=["one"]),
        "3": problem(choices="a, b", split="holdout"),
        "4": problem(question="", image=7, answer="B"),
        "5": [],
    }
    (root / "problems.json").write_text(json.dumps(problems))
    (root / "pid_splits.json").write_text(json.dumps({"train": ["1"], "test": ["2", "4", "5"]}))
    with pytest.raises(DataError) as caught:
        samples_of(root, format="scienceqa")
    message = str(caught.value)
    assert "5 of 5 rows cannot be used" in message
    assert "'answer' to be a number from 0 to 2, found 3" in message
    assert "2 to 26 choices, found 1" in message
    assert "'choices' to be a list, found a text" in message
    assert "'split' to be train, validation or test, found 'holdout'" in message
    assert "'image' to be a file name or null, found a number" in message
    assert "an object" in message
    (root / "pid_splits.json").write_text('{"train": ["1"], "test": ["2", "1"]}')
    with pytest.raises(DataError, match="each problem in one split, found '1' in train and test"):
        samples_of(root, format="scienceqa")
    (root / "pid_splits.json").write_text('{"train": 3}')
    with pytest.raises(DataError, match="expected an object of lists of problems' ids, found 'train'"):
        samples_of(root, format="scienceqa")
    (root / "problems.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object of problems, found a list"):
        samples_of(root, format="scienceqa")


# --- POPE -------------------------------------------------------------------------------------------------------------


def test_pope_finds_cocos_pictures(tmp_path: Path) -> None:
    path = pope_set(tmp_path)
    samples = samples_of(path)
    assert [sample.answer for sample in samples] == ["yes", "no", "yes", "no"]
    assert samples[0].question == "Is there a snowboard in the image?"
    assert samples[0].meta == {"question_id": 0, "sampling": "adversarial", "choices": ["yes", "no"]}
    assert [sample.group for sample in samples[1:3]] == [
        "COCO_val2014_000000310196.jpg",
        "COCO_val2014_000000210789.jpg",
    ]
    assert samples_of(path, image_dir=tmp_path / "val2014")[3].image == samples[3].image


def test_pope_all_bad_lines_are_told(tmp_path: Path) -> None:
    path = pope_set(tmp_path)
    rows = [pope_row(1), pope_row(2, label="maybe"), pope_row(3, image="gone.jpg"), {"text": "Is it?"}, 5]
    write_lines(path, rows)
    with pytest.raises(DataError) as caught:
        samples_of(path)
    message = str(caught.value)
    assert "4 of 5 rows cannot be used" in message
    assert ":2: expected 'label' to be yes or no, found 'maybe'" in message
    assert "expected image 'gone.jpg'" in message
    assert ":4: expected 'image', found only 'text'" in message
    assert ":5: expected an object" in message


# --- all --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mmbench", "mme", "pope"])
def test_benchmarks_are_all_test(name: str, tmp_path: Path) -> None:
    splits = load_dataset(SETS[name](tmp_path), format=name, division=ByGroup(group="reader", fractions={"test": 1.0}))
    assert not len(splits.train)
    assert len(splits.test) >= 4
    assert len({sample.group for sample in splits.test}) < len(splits.test)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["question", "choices", "answer", "image", "text", "label", "split", "question_id"]),
                inner,
                max_size=8,
            )
        ),
        max_leaves=12,
    )
)
def test_anything_in_json_is_read_or_refused(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problems.json"
        path.write_text(json.dumps({"1": value}), encoding="utf-8")
        (Path(folder) / "image.png").touch()
        for format, file in (("scienceqa", path), ("pope", write_lines(Path(folder) / "pope.json", [value, value]))):
            with contextlib.suppress(DataError):
                assert samples_of(file, format=format)


def test_no_picture_is_decoded_while_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(Image, "open", lambda *arguments, **_: opened.append(arguments))
    samples = samples_of(mmbench_set(tmp_path))
    assert len(samples) == 5
    assert opened == []
