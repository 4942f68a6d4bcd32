"""LLaVA's conversations and the chat format: every turn, one picture, system messages, and bad rows told."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vglm.data.problems import BadRow
from vglm.data.readers import read, read_samples
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError

# The first record of LLaVA-Instruct-150K, shortened.
LLAVA = {
    "id": "000000033471",
    "image": "coco/train2017/000000033471.jpg",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat are the colors of the bus in the image?"},
        {"from": "gpt", "value": "The bus in the image is white and red."},
        {"from": "human", "value": "What feature can be seen on the back of the bus?"},
        {"from": "gpt", "value": "The back of the bus features an advertisement."},
    ],
}
# TRL's vision data set, with its system message.
CHAT = {
    "images": ["sky.jpg"],
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Answer in one word."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is the sky?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Blue."}]},
        {"role": "user", "content": "And the sun?"},
        {"role": "assistant", "content": "Yellow."},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chats")
    for name in ("coco/train2017/000000033471.jpg", "sky.jpg", "sea.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


Write = Callable[..., Path]


@pytest.fixture(scope="module")
def write(folder: Path) -> Write:
    def write_rows(*rows: Any, as_lines: bool = False) -> Path:
        path = folder / "data.json"
        path.write_text("\n".join(map(json.dumps, rows)) if as_lines else json.dumps(rows), encoding="utf-8")
        return path

    return write_rows


def only(path: Path, **options: Any) -> Sample:
    (row,) = read_samples(path, **options)
    return row


def fault_of(path: Path, **options: Any) -> str:
    (row,) = read(path, **options)
    assert isinstance(row, BadRow)
    return row.fault


def chat(*messages: tuple[str, Any], **rest: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages], **rest}


@pytest.mark.parametrize("as_lines", [False, True])
def test_llava(write: Write, folder: Path, as_lines: bool) -> None:
    text_only = {"id": "t1", "model": "", "conversations": LLAVA["conversations"][2:]}
    first, second = read_samples(write(LLAVA, text_only, as_lines=as_lines))
    assert first.id == "data.json#1"
    assert first.image == folder / "coco/train2017/000000033471.jpg"
    assert first.group == "coco/train2017/000000033471.jpg"
    assert first.language == "en"
    assert first.history == [
        ("What are the colors of the bus in the image?", "The bus in the image is white and red."),
    ]
    assert first.question == "What feature can be seen on the back of the bus?"
    assert first.meta == {"id": "000000033471"}
    assert second.image is None
    assert second.group == "data.json#2"
    assert second.meta == {"id": "t1", "model": ""}


@pytest.mark.parametrize("as_lines", [False, True])
def test_the_chat_format(write: Write, folder: Path, as_lines: bool) -> None:
    first, second = read_samples(write(CHAT, CHAT | {"split": "dev", "study_id": 7}, as_lines=as_lines))
    assert first.image == folder / "sky.jpg"
    assert first.turns == (
        Turn("Answer in one word.\nWhat color is the sky?", "Blue."),
        Turn("And the sun?", "Yellow."),
    )
    assert first.group == "sky.jpg"
    assert second.group == "7"
    assert second.meta == {"split": "validation", "study_id": 7}


def test_where_a_system_message_goes(write: Write) -> None:
    sample = only(write(CHAT), system="meta")
    assert sample.turns[0] == Turn("What color is the sky?", "Blue.")
    assert sample.meta == {"system": "Answer in one word."}


@pytest.mark.parametrize(
    "row",
    [
        chat(("user", "<image>What?"), ("assistant", "Sky."), images=["sky.jpg"]),
        chat(("user", "What?\n<image>"), ("assistant", "Sky."), image="sky.jpg"),
        chat(("user", "What?"), ("assistant", "Sky."), images=[{"path": "sky.jpg", "bytes": None}]),
        chat(
            ("user", [{"type": "image", "path": "sky.jpg"}, {"type": "text", "text": "What?"}]), ("assistant", "Sky.")
        ),
        chat(
            ("user", [{"type": "image_url", "image_url": {"url": "sky.jpg"}}, {"type": "text", "text": "What?"}]),
            ("assistant", "Sky."),
            images=None,
        ),
        {
            "prompt": [{"role": "user", "content": "<image>\nWhat?"}],
            "completion": [{"role": "assistant", "content": "Sky."}],
            "images": ["./sky.jpg"],
        },
    ],
)
def test_the_ways_to_name_a_picture(write: Write, folder: Path, row: dict[str, Any]) -> None:
    sample = only(write(row))
    assert sample.turns == (Turn("What?", "Sky."),)
    assert sample.image == folder / "sky.jpg"
    assert sample.group == "sky.jpg"
    assert sample.meta == {}


def test_several_pictures(write: Write, folder: Path) -> None:
    path = write(chat(("user", "<image><image>Which?"), ("assistant", "Both."), images=["sky.jpg", "sea.jpg"]))
    expected = "expected one image, as the model takes no more, found 2; fix: keep one, or set dataset.options.several"
    assert fault_of(path).startswith(expected)
    assert only(path, several_images="first").image == folder / "sky.jpg"
    first, second = read_samples(path, several_images="each")
    assert (first.id, second.id) == ("data.json#1.1", "data.json#1.2")
    assert (first.image, second.image) == (folder / "sky.jpg", folder / "sea.jpg")
    assert first.group == second.group == "sky.jpg"
    assert first.turns == second.turns == (Turn("Which?", "Both."),)


def test_the_language_is_that_of_the_words_or_told(write: Write) -> None:
    path = write(chat(("user", "What?"), ("assistant", "天空。")))
    assert only(path).language == "zh"
    assert only(path, language="en").language == "en"


USER, ANSWER = ("user", "What?"), ("assistant", "Sky.")
BROKEN: dict[str, tuple[Any, str]] = {
    "no object": ("hello", r"expected an object .*, found a text; fix: write the row as an object"),
    "no messages": ({"messages": None}, r"expected 'messages' to be a list of messages, found null"),
    "no message": ({"messages": []}, r"expected 'messages' to be a list of messages, found an empty list"),
    "message of another type": (
        {"messages": ["hello", {"role": "user", "content": "What?"}]},
        r"expected message 1 of 'messages' to be an object, found a text",
    ),
    "a tool": (chat(USER, ("tool", "42"), ANSWER), r"expected 'role' .* to be system, user or assistant, found 'tool'"),
    "no role": ({"messages": [{"content": "What?"}]}, r"expected 'role' of a message .*, found no such key"),
    "no content": ({"messages": [{"role": "user"}]}, r"expected 'content' of a message to be text, found null"),
    "no answer": (
        chat(USER),
        r"expected questions and answers in turn .*, found user; fix: join .* end with an answer",
    ),
    "no question": (chat(ANSWER), r"expected questions and answers in turn .*, found assistant;"),
    "two questions": (chat(USER, USER, ANSWER), r"expected questions and answers .*, found user, user, assistant;"),
    "only system": (chat(("system", "Be brief.")), r"expected questions and answers in turn .*, found none of them"),
    "system later": (
        chat(USER, ANSWER, ("system", "Hm."), USER, ANSWER),
        r"expected a system message only at the start",
    ),
    "empty answer": (chat(USER, ("assistant", " ")), r"expected 'content' of a message to say something"),
    "only a picture": (
        chat(("user", "<image>"), ANSWER, images=["sky.jpg"]),
        r"expected a question beside <image>, found none; fix: write what is asked",
    ),
    "mark without picture": (
        chat(("user", "<image>What?"), ANSWER),
        r"expected an image for each <image>, found 1 of these and 0 images; fix: name the image",
    ),
    "entry without picture": (
        chat(("user", [{"type": "image"}, {"type": "text", "text": "What?"}]), ANSWER),
        r"expected 1 images in 'images', found 0; fix: add them",
    ),
    "pictures in both places": (
        chat(
            ("user", [{"type": "image", "path": "sea.jpg"}, {"type": "text", "text": "?"}]), ANSWER, images=["sky.jpg"]
        ),
        r"expected pictures in 'images' or in the messages, found both",
    ),
    "a video": (chat(("user", [{"type": "video"}]), ANSWER), r"expected .* of type text or image, found type 'video'"),
    "address": (
        chat(USER, ANSWER, images=["https://example.org/a.png"]),
        r"expected the name of an image file, found 'https://example\.org/a\.png'; fix: save the image",
    ),
    "picture of another type": (
        chat(USER, ANSWER, images=[3]),
        r"expected the image's name to be text, found a number",
    ),
    "picture above": (chat(USER, ANSWER, image="../a.png"), r"expected an image in .*, found the path '\.\./a\.png'"),
    "unknown split": (
        chat(USER, ANSWER, split="extra"),
        r"expected 'split' to be train, validation or test, found 'ex",
    ),
    "missing picture": (chat(USER, ANSWER, image="moon.jpg"), r"expected image 'moon\.jpg' in .*, found no such file"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_bad_chat_row_is_named(write: Write, broken: str) -> None:
    row, message = BROKEN[broken]
    good, bad = read(write(CHAT, row))
    assert isinstance(good, Sample)
    assert isinstance(bad, BadRow)
    assert bad.row == 2
    assert re.match(message, bad.fault), bad.fault
    assert bad.is_missing_image == (broken == "missing picture")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": {}}, "expected 'conversations' to be a list of messages, found an object"),
        ({"conversations": [{"from": "human"}]}, "expected 'value' of a message to be text, found null"),
        (
            {"conversations": [{"value": "What?"}]},
            "expected 'from' of a message to be system, user or .*, found no such",
        ),
        ({"image": "bus.jpg"}, "expected image 'bus.jpg' in .*, found no such file"),
        ({"image": ["a.jpg", "b.jpg"]}, "expected one image, as the model takes no more, found 2"),
        ({"image": None}, "expected an image for each <image>, found 1 of these and 0 images"),
    ],
)
def test_a_bad_llava_row_is_named(write: Write, change: dict[str, Any], message: str) -> None:
    _, bad = read(write(LLAVA, LLAVA | change))
    assert isinstance(bad, BadRow)
    assert re.match(message, bad.fault), bad.fault


def test_all_bad_rows_of_lines_are_told_with_their_lines(folder: Path) -> None:
    path = folder / "lines.jsonl"
    path.write_text(f'{json.dumps(CHAT)}\n\n{{"messages": \n{json.dumps(chat(USER))}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(read_samples(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: 2 of 3 rows cannot be used")
    assert (
        f'  {path}:3: expected {{"messages", "images"}} on one line, found text that is not valid JSON at column'
        in message
    )
    assert f"  {path}:4: expected questions and answers in turn" in message
