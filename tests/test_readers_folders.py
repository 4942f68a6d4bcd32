"""Folders of classes, and files that LLaMA-Factory's dataset_info.json describes."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vglm.data.doctor import examine
from vglm.data.loading import load_dataset
from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples, recognise
from vglm.data.sample import Turn
from vglm.errors import DataError


def pictures(folder: Path, *names: str) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (index * 9 % 256, 0, 0)).save(folder / name)
    return folder


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    path = pictures(tmp_path / "scenes", "beach/1.jpg", "beach/2.JPG", "forest/1.png", "forest/.hidden.png")
    (path / "README.md").touch()
    assert recognise(path).NAME == "class_folders"
    first, second, third = read_samples(path)
    assert first.turns == (Turn("Which of these does the picture show: beach, forest?", "beach"),)
    assert (first.id, first.image, first.meta) == (
        "scenes#beach/1.jpg",
        path / "beach/1.jpg",
        {"choices": ["beach", "forest"]},
    )
    assert (second.answer, third.answer, third.language) == ("beach", "forest", "en")
    sample = next(iter(read_samples(path, question="这是哪里？")))
    assert (sample.question, sample.language) == ("这是哪里？", "zh")


def test_chinese_classes_are_asked_for_in_chinese(tmp_path: Path) -> None:
    sample = next(iter(read_samples(pictures(tmp_path / "景", "森林/1.jpg", "海滩/1.jpg"))))
    assert (sample.question, sample.answer) == ("这张图片属于哪一类：森林、海滩？", "森林")


def test_classes_below_splits(tmp_path: Path) -> None:
    path = pictures(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "test/b/3.jpg")
    splits = load_dataset(path)
    assert [len(samples) for samples in (splits.train, splits.validation, splits.test)] == [2, 1, 1]
    with examine(path, workers=1) as diagnosis:
        assert (diagnosis.usable, diagnosis.survey.source.format) == (4, "class_folders")


def test_another_picture_makes_another_data_set(tmp_path: Path) -> None:
    path = pictures(tmp_path, "a/1.jpg", "b/1.jpg")
    before = load_dataset(path).files
    pictures(path, "b/2.jpg")
    assert load_dataset(path).files["."] != before["."]


@pytest.mark.parametrize(
    "names",
    [
        ("images/1.png", "masks/1.png"),
        ("patient00001/1.png", "patient00002/1.png"),
        ("a/1.png",),
        ("a/1.png", "b/deeper/1.png"),
    ],
)
def test_what_may_be_no_class_is_not_guessed(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="expected one of the known formats, found a folder with"):
        recognise(pictures(tmp_path, *names))


@pytest.mark.parametrize("file", ["labels.csv", "a/1.txt", "b/info.json"])
def test_data_beside_the_pictures_is_not_passed_over(tmp_path: Path, file: str) -> None:
    pictures(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / file).touch()
    with pytest.raises(DataError, match="expected one of the known formats"):
        recognise(tmp_path)


def test_files_that_are_no_pictures_and_empty_classes(tmp_path: Path) -> None:
    pictures(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a/2.heic").touch()
    (tmp_path / "c").mkdir()
    faults = {row.row: row.fault for row in read(tmp_path, format="class_folders") if isinstance(row, BadRow)}
    assert faults == {
        "a/2.heic": "expected a picture, found '2.heic'; fix: convert it, or take it out",
        "c": "expected pictures in the folder, found none; fix: add some, or remove the folder",
    }
    with pytest.raises(DataError, match="expected folders of two classes or more, found none"):
        list(read(tmp_path / "a", format="class_folders"))


# --- dataset_info.json ------------------------------------------------------------------------------------------------

TAGS = {"role_tag": "who", "content_tag": "text", "user_tag": "me", "assistant_tag": "it", "system_tag": "rule"}
DIALOGUE = {
    "talk": [
        {"who": "rule", "text": "Be brief."},
        {"who": "me", "text": "<image>Who?"},
        {"who": "it", "text": "A cat."},
    ],
    "photos": ["a.png"],
}
ALPACA = {"ask": "<image>Who?", "more": "Now.", "say": "A cat.", "photos": ["a.png"], "past": [["Hi", "Hello"]]}
INFO: dict[str, Any] = {
    "talks": {
        "file_name": "talks.json",
        "formatting": "sharegpt",
        "columns": {"messages": "talk", "images": "photos"},
        "tags": TAGS,
    },
    "asked": {
        "file_name": "asked.json",
        "columns": {"prompt": "ask", "query": "more", "response": "say", "images": "photos", "history": "past"},
    },
}


@pytest.fixture
def described(tmp_path: Path) -> Path:
    pictures(tmp_path, "a.png")
    for name, content in (("dataset_info", INFO), ("talks", [DIALOGUE]), ("asked", [ALPACA])):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_dialogues_as_dataset_info_describes_them(described: Path) -> None:
    assert recognise(described / "talks.json").NAME == "llama_factory"
    (sample,) = read_samples(described / "talks.json")
    assert sample.turns == (Turn("Be brief.\nWho?", "A cat."),)
    assert (sample.image, sample.meta) == (described / "a.png", {})


def test_a_table_as_dataset_info_describes_it(described: Path) -> None:
    (sample,) = read_samples(described / "asked.json")
    assert sample.turns == (Turn("Hi", "Hello"), Turn("Who?\nNow.", "A cat."))
    assert (sample.image, sample.meta) == (described / "a.png", {})
    assert load_dataset(described / "asked.json").train[0].answer == "A cat."


def test_llama_factorys_defaults(described: Path) -> None:
    (described / "dataset_info.json").write_text('{"plain": {"file_name": "plain.json"}}')
    row = {"instruction": "Who?", "input": "", "output": "A cat.", "system": "Be brief."}
    (described / "plain.json").write_text(json.dumps([row]))
    (sample,) = read_samples(described / "plain.json")
    assert sample.turns == (Turn("Be brief.\nWho?", "A cat."),)


def test_a_file_that_is_not_described_is_read_as_ever(described: Path) -> None:
    (described / "own.jsonl").write_text('{"image": "a.png", "question": "Who?", "answer": "A cat."}\n')
    assert recognise(described / "own.jsonl").NAME == "jsonl"


def test_of_several_entries_one_is_chosen(described: Path) -> None:
    with pytest.raises(DataError, match=r"expected one entry in dataset_info\.json, found talks, asked\. Choose with"):
        list(read(described))
    (sample,) = read_samples(described, entry="asked")
    assert sample.answer == "A cat."
    with pytest.raises(DataError, match=r"has no entry 'x' for it\. Its entries are talks, asked\."):
        list(read(described, entry="x"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"columns": {"prompt": "asked"}},
            r"names the columns 'asked' \(asked\), found 'ask', 'more', 'say', .*Correct",
        ),
        ({"formatting": "openai"}, r"asked: expected formatting alpaca or sharegpt, found formatting 'openai'"),
        ({"ranking": True}, r"asked: expected formatting alpaca or sharegpt, found preferences \(ranking\)"),
        ({"columns": {"prompt": 3}}, r"asked: expected 'columns' to be an object of names\. Correct it"),
    ],
)
def test_an_entry_that_does_not_fit(described: Path, change: dict[str, Any], message: str) -> None:
    (described / "dataset_info.json").write_text(json.dumps({"asked": {**INFO["asked"], **change}}))
    with pytest.raises(DataError, match=message):
        list(read(described / "asked.json"))


def test_tools_and_other_roles_are_refused(described: Path) -> None:
    info = {**INFO}
    info["asked"] = {**INFO["asked"], "columns": {**INFO["asked"]["columns"], "tools": "kit"}}
    (described / "dataset_info.json").write_text(json.dumps(info))
    (described / "asked.json").write_text(json.dumps([{**ALPACA, "kit": "[1]"}]))
    (bad,) = read(described / "asked.json")
    assert isinstance(bad, BadRow)
    assert bad.fault == "expected texts and images, found 'kit'; fix: take the row out"
    called = [*DIALOGUE["talk"][:2], {"who": "observation", "text": "42"}, DIALOGUE["talk"][2]]
    (described / "talks.json").write_text(json.dumps([{**DIALOGUE, "talk": called}]))
    (bad,) = read(described / "talks.json")
    assert isinstance(bad, BadRow)
    assert "'role' of a message to be system, user or assistant, found 'observation'" in bad.fault
