import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vglm.data.readers import read_samples
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError

QUESTION = "这张图片的背景里有什么内容？"


def read_fewshot(path: Path, **arguments: Any) -> list[Sample]:
    return list(read_samples(path, format="fewshot", **arguments))


def row(**changes: Any) -> dict[str, Any]:
    return {"img": "cat.png", "prompt": QUESTION, "label": "蓝天。"} | changes


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in row().items() if name != key}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set's folder with two pictures; the reader only looks whether they are there."""
    root = tmp_path_factory.mktemp("pets")
    for name in ("cat.png", "pictures/dog.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root.parent / "outside.png").touch()
    return root


@pytest.fixture(scope="module")
def write(folder: Path) -> Callable[[Any], Path]:
    def write_rows(rows: Any) -> Path:
        path = folder / "train.json"
        path.write_text(json.dumps(rows), encoding="utf-8")
        return path

    return write_rows


def test_a_row_becomes_a_sample(folder: Path, write: Callable[[Any], Path]) -> None:
    (sample,) = read_fewshot(write([row(img="pictures/dog.png", kind="background", source="me")]))
    assert sample.id == "train.json#1"
    assert sample.group == "pictures/dog.png"
    assert sample.image == folder / "pictures/dog.png"
    assert sample.turns == (Turn(QUESTION, "蓝天。"),)
    assert sample.language == "zh"
    assert sample.meta == {"kind": "background", "source": "me"}


def test_text_only_english_and_history(write: Callable[[Any], Path]) -> None:
    rows = [without("img"), row(img=None, english=True, history=[["Hi", "Hello"], ["Who?", "A cat"]])]
    first, second = read_fewshot(write(rows), name="a/train.json")
    assert first.image is second.image is None
    assert (first.id, first.group) == ("a/train.json#1", "a/train.json#1")
    assert second.language == "en"
    assert second.history == [("Hi", "Hello"), ("Who?", "A cat")]
    assert second.question == QUESTION


def test_rows_about_one_picture_share_a_group(write: Callable[[Any], Path]) -> None:
    samples = read_fewshot(write([row(), row(img="fewshot-data/cat.png"), row(img="pictures/dog.png")]))
    assert [sample.group for sample in samples] == ["cat.png", "cat.png", "pictures/dog.png"]


def test_the_published_prefix_may_be_there_or_not(tmp_path: Path) -> None:
    for directory, names in {
        "beside": ["cat.png"],
        "below": ["fewshot-data/cat.png"],
        "both": ["cat.png", "fewshot-data/cat.png"],
    }.items():
        for name in names:
            (tmp_path / directory / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / directory / name).touch()
        (tmp_path / directory / "dataset.json").write_text(json.dumps([row(img="fewshot-data/cat.png")]))
        (sample,) = read_fewshot(tmp_path / directory / "dataset.json")
        assert sample.image == tmp_path / directory / names[-1]


def test_image_dir(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    names = ["cat.png", "fewshot-data/cat.png", "pictures/../cat.png", str(folder / "cat.png")]
    path.write_text(json.dumps([row(img=name) for name in names]))
    samples = read_fewshot(path, image_dir=folder)
    assert all(sample.image is not None and sample.image.samefile(folder / "cat.png") for sample in samples)
    with pytest.raises(DataError, match=r"image_dir .*nowhere is not a folder"):
        read_fewshot(path, image_dir=folder / "nowhere")


def test_a_linked_picture_is_inside(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(folder / "cat.png")
    (tmp_path / "train.json").write_text(json.dumps([row(img="link.png")]))
    assert read_fewshot(tmp_path / "train.json")[0].image == tmp_path / "link.png"


BROKEN: dict[str, tuple[Any, str]] = {
    "not an object": (["cat.png"], r"expected an object \{.*\}, found a list; fix: write the row as an object"),
    "no prompt": (without("prompt"), "expected 'prompt', found only 'img', 'label'; fix: add it"),
    "no label": (without("label"), "expected 'label', found only 'img', 'prompt'; fix: add it"),
    "empty object": ({}, "expected 'prompt', found no keys at all; fix: add it; also expected 'label', found no keys"),
    "empty label": (row(label=" \n"), "expected 'label' to say something, found an empty text; fix: write it or"),
    "empty prompt": (row(prompt=""), "expected 'prompt' to say something, found an empty text"),
    "empty image": (row(img=""), "expected 'img' to say something, found an empty text"),
    "label of another type": (row(label=3), "expected 'label' to be text, found a number; fix: write a text in quotes"),
    "prompt of another type": (row(prompt=["?"]), "expected 'prompt' to be text, found a list"),
    "image of another type": (row(img=False), "expected 'img' to be text, found true or false"),
    "image under another key": (
        without("img") | {"image": "cat.PNG"},
        "expected 'img' for the picture, found 'image': 'cat.PNG'; fix: call the key 'img'",
    ),
    "english of another type": (row(english="yes"), "expected 'english' to be true or false, found a text"),
    "kind of another type": (row(kind=None), "expected 'kind' to be text, found null"),
    "history of another shape": (
        row(history=[["Hi"]]),
        r"expected 'history' to be a list of \[question, answer\] pairs, found another shape",
    ),
    "history with an empty text": (row(history=[["Hi", ""]]), "expected a text in 'history' to say something"),
    "half a character": (
        row(label="\ud83d"),
        r"expected 'label' to be whole characters, found half a character \(an unpaired \\ud83d\)",
    ),
    "half a character elsewhere": (row(note="\ud83d"), r"expected whole characters, found half .*\\ud83d\)"),
    "missing image": (row(img="bird.png"), r"expected image 'bird\.png' in .*pets\d, found no such file; fix: add"),
    "over-long image": (row(img="x" * 5000), r"expected image 'x{80}\.\.\.' in .*pets\d, found no such file"),
    "folder as image": (row(img="pictures"), "expected image 'pictures' in .*, found no such file"),
    "image above": (row(img="../outside.png"), r"expected an image in .*, found the path '\.\./outside\.png', which"),
    "image above, prefixed": (
        row(img="fewshot-data/../../outside.png"),
        r"expected an image in .*, found the path 'fewshot-data/\.\./\.\./outside\.png', which leaves it",
    ),
    "image elsewhere": (row(img="/etc/hostname"), "expected an image in .*, found the path '/etc/hostname', which"),
    "image with a null byte": (row(img="cat\0.png"), r"expected an image in .*, found the path 'cat\\x00\.png'"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_bad_row_is_named(write: Callable[[Any], Path], broken: str) -> None:
    bad, message = BROKEN[broken]
    path = write([row(), bad])
    with pytest.raises(
        DataError,
        match=rf"(?s)^{re.escape(str(path))}: 1 of 2 rows cannot.*\n  {re.escape(str(path))}:2: {message}.*\nCorrect",
    ):
        read_fewshot(path)


@given(st.lists(st.sampled_from(["good", *BROKEN]), min_size=1, max_size=12))
def test_all_bad_rows_are_told_at_once(write: Callable[[Any], Path], kinds: list[str]) -> None:
    path = write([row() if kind == "good" else BROKEN[kind][0] for kind in kinds])
    bad = [number for number, kind in enumerate(kinds, start=1) if kind != "good"]
    if not bad:
        assert [sample.id for sample in read_fewshot(path)] == [
            f"train.json#{number + 1}" for number in range(len(kinds))
        ]
        return
    with pytest.raises(DataError) as caught:
        read_fewshot(path)
    message = str(caught.value)
    assert f"{len(bad)} of {len(kinds)} rows cannot be used" in message
    assert [int(number) for number in re.findall(r"^  \S+train\.json:(\d+): ", message, re.MULTILINE)] == bad[:5]
    assert (f"... and {len(bad) - 5} more" in message) == (len(bad) > 5)
    for number in bad[:5]:
        assert re.search(rf"^  \S+train\.json:{number}: {BROKEN[kinds[number - 1]][1]}", message, re.MULTILINE)


def test_a_row_wrong_in_two_ways_says_both(write: Callable[[Any], Path]) -> None:
    with pytest.raises(
        DataError, match=r"json:1: expected 'label' to say .*; fix: .*; also expected image 'bird\.png' in .*; fix: add"
    ):
        read_fewshot(write([row(label="", img="bird.png")]))


def test_missing_images_say_what_to_do(folder: Path, write: Callable[[Any], Path]) -> None:
    path = write([row(img="bird.png")])
    problem = rf"'bird\.png' in {re.escape(str(folder))}, found no such file; fix: add the file"
    advice = rf"(?s){problem}.*Set dataset\.image_dir .*dataset\.skip_missing=true"
    with pytest.raises(DataError, match=advice):
        read_fewshot(path)


def test_skip_missing_drops_only_missing_images(write: Callable[[Any], Path], caplog: pytest.LogCaptureFixture) -> None:
    path = write([row(img="bird.png"), row(), row(img="fish.png"), without("img")])
    assert [sample.id for sample in read_fewshot(path, skip_missing=True)] == ["train.json#2", "train.json#4"]
    assert "left out 2 of 4 rows, whose image is missing" in caplog.text
    with pytest.raises(DataError, match=r"(?s)1 of 2 rows.*:2: expected 'label' to say"):
        read_fewshot(write([row(img="bird.png"), row(label="")]), skip_missing=True)
    with pytest.raises(DataError, match="every row's image is missing"):
        read_fewshot(write([row(img="bird.png")]), skip_missing=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"img": "cat.png",\n "prompt" "?"}]', "not valid JSON at line 2, column 11: Expecting ':' delimiter"),
        (b"", "not valid JSON at line 1, column 1"),
        (b'{"img": "cat.png"}', "expected a list of .*, found an object"),
        (b"3", "expected a list of .*, found a number"),
        (b"[]", "the list is empty"),
        ('[{"label": "蓝"}]'.encode("gb18030"), "byte 12 is not UTF-8"),
        (b"[" * 100_000, "not usable JSON"),
        (b"[" + b"9" * 5000 + b"]", "not usable JSON"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.json: {message}"):
        read_fewshot(tmp_path / "train.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json does not exist\. Expected data in the format fewshot"):
        read_fewshot(tmp_path / "none.json")


def test_a_byte_order_mark_is_no_matter(folder: Path) -> None:
    (folder / "bom.json").write_text(json.dumps([row()], ensure_ascii=False), encoding="utf-8-sig")
    assert read_fewshot(folder / "bom.json")[0].question == QUESTION


@pytest.mark.real_data
def test_the_published_set(real_data: Path) -> None:
    samples = read_fewshot(real_data / "fewshot-background" / "dataset.json")
    assert len(samples) == len({sample.group for sample in samples}) == 20
    assert {sample.question for sample in samples} == {QUESTION}
    assert samples[0].turns == (Turn(QUESTION, "这张图片的背景是蒙蒙细雨。"),)
