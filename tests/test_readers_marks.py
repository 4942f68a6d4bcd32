"""Marks for pictures, keys that change what is asked, and texts that say nothing: one answer in every format."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.doctor import examine
from vglm.data.loading import load_dataset
from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples
from vglm.data.readers.marks import settle_marks
from vglm.data.readers.rows import RowCheck
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def listed(path: Path, *rows: Any) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def fault_of(path: Path, **options: Any) -> str:
    (row,) = read(path, **options)
    assert isinstance(row, BadRow), row
    assert not row.is_missing_image
    return row.fault


def as_table(question: str, image: str | None) -> dict[str, Any]:
    return {"query": question, "response": "A box.", **({"images": [image]} if image else {})}


def as_llava(question: str, image: str | None) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "A box."}]
    return {"conversations": turns, **({"image": image} if image else {})}


def as_messages(question: str, image: str | None) -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "A box."}]
    return {"messages": turns, **({"images": [image]} if image else {})}


def as_few_shot(question: str, image: str | None) -> dict[str, Any]:
    return {"img": image, "prompt": question, "label": "A box."}


SHAPES = pytest.mark.parametrize("shape", [as_table, as_llava, as_messages, as_few_shot])

MARKS = [
    "<image>",
    "<|image|>",
    "<|image_1|>",
    "<image 1>",
    "<image1>",
    "<image_00>",
    "<image>./</image>",
    "<ImageHere>",
    "<image_placeholder>",
    "<start_of_image>",
    "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>",
    "[IMG]",
    "<img></img>",
    "Picture 1: <image>",
    "图片1：<image>",
]


@SHAPES
@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_taken_out_where_the_row_has_its_picture(folder: Path, shape: Any, mark: str) -> None:
    (sample,) = read_samples(listed(folder / "d.json", shape(f"{mark}\nWhat is it?", "a.png")))
    assert (sample.image, sample.turns) == (folder / "a.png", (Turn("What is it?", "A box."),))


@SHAPES
@pytest.mark.parametrize("mark", ["<img>b.png</img>", "Picture 1: <img>b.png</img>\n", "<image>b.png</image>"])
def test_a_name_in_a_mark_is_the_picture_of_a_row_without(folder: Path, shape: Any, mark: str) -> None:
    (sample,) = read_samples(listed(folder / "d.json", shape(f"{mark}What is it?", None)))
    assert (sample.image, sample.group) == (folder / "b.png", "b.png")
    assert sample.turns == (Turn("What is it?", "A box."),)
    (same,) = read_samples(listed(folder / "d.json", shape(f"{mark}What is it?", "b.png")))
    assert same == sample
    both = fault_of(listed(folder / "d.json", shape(f"{mark}What is it?", "a.png")))
    assert both == (
        "expected pictures in a field of their own or in the texts, found both, 'a.png' and 'b.png'; fix: name them in"
        " one place"
    )


@SHAPES
@pytest.mark.parametrize(
    ("question", "image", "fault"),
    [
        ("<image>What?", None, "expected an image for each <image>, found 1 of these and 0 images; fix: name the"),
        ("<image><image>What?", "a.png", "expected an image for each <image>, found 2 of these and 1 images"),
        ("<image>", "a.png", "expected a question beside <image>, found none; fix: write what is asked"),
        ("<img>a.png</img>\n", None, "expected a question beside <image>, found none; fix: write what is asked"),
        ("<video>What?", "a.png", "expected words and marks for pictures, found the mark '<video>'; fix: write what"),
        ("<ref-object>What?", "a.png", "expected words and marks for pictures, found the mark '<ref-object>'"),
    ],
)
def test_any_other_mark_makes_a_bad_row(folder: Path, shape: Any, question: str, image: str | None, fault: str) -> None:
    assert fault_of(listed(folder / "d.json", shape(question, image))).startswith(fault)


@SHAPES
def test_words_that_only_look_like_marks_stay(folder: Path, shape: Any) -> None:
    question = "What does <b>bold</b> [1] do, and <img src='x.png'>?"
    (sample,) = read_samples(listed(folder / "d.json", shape(question, None)))
    assert sample.question == question


def test_a_mark_in_an_answer_is_not_learned(folder: Path) -> None:
    path = lines(folder / "d.jsonl", {"image": "a.png", "question": "What?", "answer": "<image> a box"})
    assert fault_of(path).startswith("expected answers of words alone, found the mark '<image>' in one; fix: take it")


def test_marks_in_earlier_turns_and_in_other_tables(folder: Path) -> None:
    history = [["<image>Hello", "Hi."]]
    row = {"query": "What is it?", "response": "A box.", "images": ["a.png"], "history": history}
    (sample,) = read_samples(lines(folder / "swift.jsonl", row))
    assert sample.turns == (Turn("Hello", "Hi."), Turn("What is it?", "A box."))
    (folder / "t.csv").write_text("image,prompt,response\na.png,<image>What is it?,A box.\n")
    lines(folder / "metadata.jsonl", {"file_name": "a.png", "question": "<image>What is it?", "answer": "A box."})
    members = {"1.png": b"x", "1.json": b'{"question": "<image>What is it?", "answer": "A box."}'}
    with tarfile.open(folder / "s.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    for path, format in ((folder / "t.csv", "csv"), (folder, "imagefolder"), (folder / "s.tar", "webdataset")):
        (sample,) = read_samples(path, format=format)
        assert (sample.question, sample.image is None) == ("What is it?", False)


def test_pictures_and_marks_are_as_many(folder: Path) -> None:
    row = {"images": ["a.png", "b.png"], "question": "<image>Which?", "answer": "Both."}
    path = lines(folder / "d.jsonl", row)
    fault = fault_of(path, several_images="each")
    assert fault.startswith("expected a mark for each image, or none, found 1 and 2 images; fix: add the mark")
    path = lines(folder / "d.jsonl", {**row, "question": "<image>\n<image>Which?"})
    assert [sample.question for sample in read_samples(path, several_images="each")] == ["Which?"] * 2


# --- nothing said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answered", "fault"),
    [
        ("\u200b", "A box.", "expected 'content' of a message to say something, found an empty text"),
        ([{"type": "image", "image": "a.png"}], "A box.", "expected a question beside <image>, found none"),
        ([{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}], [], "expected an answer, found an"),
        ([], "A box.", "expected a question, found none; fix: write what is asked"),
        ("What?", [], "expected an answer, found an empty text; fix: write it, or take the row out"),
    ],
)
def test_empty_questions_and_answers_in_parts(folder: Path, question: Any, answered: Any, fault: str) -> None:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answered}]
    assert fault_of(listed(folder / "parts.json", {"messages": turns})).startswith(fault)


# --- keys that would be lost ------------------------------------------------------------------------------------------


def test_input_goes_on_with_the_instruction(folder: Path) -> None:
    row = {"instruction": "Describe.", "output": "Clear.", "images": ["a.png"]}
    path = listed(folder / "alpaca.json", {**row, "input": "Only the lungs."}, {**row, "input": ""})
    assert [sample.question for sample in read_samples(path)] == ["Describe.\nOnly the lungs.", "Describe."]
    assert all(not sample.meta for sample in read_samples(path))
    (folder / "t.csv").write_text("image,instruction,input,output\na.png,Describe.,Only the lungs.,Clear.\n")
    (sample,) = read_samples(folder / "t.csv")
    assert (sample.question, sample.meta) == ("Describe.\nOnly the lungs.", {})


@SHAPES
def test_a_system_text_comes_before_the_first_question(folder: Path, shape: Any) -> None:
    row = {**shape("What is it?", "a.png"), "system": "Answer in one word."}
    (sample,) = read_samples(listed(folder / "d.json", row))
    assert (sample.question, sample.meta) == ("Answer in one word.\nWhat is it?", {})
    if shape is not as_few_shot:
        (sample,) = read_samples(listed(folder / "d.json", row), system="meta")
        assert (sample.question, sample.meta) == ("What is it?", {"system": "Answer in one word."})


@SHAPES
@pytest.mark.parametrize("key", ["context", "options", "hint", "tools", "A", "option_b", "选项", "input"])
def test_a_key_that_may_be_asked_is_not_passed_over(folder: Path, shape: Any, key: str) -> None:
    path = listed(folder / "d.json", {**shape("What is it?", "a.png"), key: "an egg"})
    assert fault_of(path) == (
        f"expected keys that are known, found {key!r}, which may be part of what is asked; fix: write it into the"
        f" question, or set dataset.options.keep=[{key}] if it is no part of it"
    )
    (sample,) = read_samples(path, keep=[key])
    assert (sample.question, sample.meta) == ("What is it?", {key: "an egg"})
    (sample,) = read_samples(listed(folder / "d.json", {**shape("What is it?", "a.png"), key: ""}))
    assert sample.question == "What is it?"


def test_choices_are_known_where_the_answer_is_one_of_them(folder: Path) -> None:
    row = {"image": "a.png", "question": "Which?", "choices": ["a cat", "a dog"]}
    (sample,) = read_samples(lines(folder / "d.jsonl", {**row, "answer": "a cat"}))
    assert sample.meta == {"choices": ["a cat", "a dog"]}
    assert "'choices', which may be part" in fault_of(lines(folder / "d.jsonl", {**row, "answer": "B"}))


def test_messages_that_hold_more_than_a_text_are_refused(folder: Path) -> None:
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A.", "tool_calls": [{"id": 1}]}]
    fault = fault_of(listed(folder / "d.json", {"messages": turns}))
    assert fault.startswith("expected messages of a role and a text, found 'tool_calls'; fix: write it into the text")


def test_the_doctor_and_the_training_agree(few_shot_folder: Path, tmp_path: Path) -> None:
    shutil.copy(few_shot_folder / "red.png", tmp_path)
    rows = [
        {"image": "red.png", "question": f"{mark}What?", "answer": f"{n}."} for n, mark in enumerate(("", "<video>"))
    ]
    path = lines(tmp_path / "d.jsonl", *rows)
    with examine(path) as diagnosis:
        assert (diagnosis.usable, diagnosis.survey.bad_rows) == (1, 1)
    with pytest.raises(DataError, match=r"d\.jsonl:2: expected words and marks for pictures, found the mark '<video>'"):
        load_dataset(path)


@given(st.lists(st.sampled_from([*MARKS, "<img>a.png</img>", "word", "<", "\n", "[", "</img>"]), max_size=6))
def test_no_mark_is_left_and_no_word_is_lost(pieces: list[str]) -> None:
    check = RowCheck(1)
    questions, images = settle_marks(check, [" ".join(pieces)], ["A box."], [])
    assert questions[0].count("word") == pieces.count("word")
    assert all(mark not in questions[0] for mark in MARKS if not mark.startswith(("Picture", "图片")))
    assert check.bad_row() is not None or images == (["a.png"] if "<img>a.png</img>" in pieces else [])


def test_a_sample_of_the_readers_is_never_empty(folder: Path) -> None:
    row = {"image": "a.png", "question": "<image>", "answer": "A box."}
    rows = list(read(lines(folder / "d.jsonl", row, {**row, "question": "What?"})))
    assert [isinstance(row_read, Sample) for row_read in rows] == [False, True]
