r"""Turn a list of chat messages, as LLaVA or the chat format spell them, into turns and pictures.

[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>Who?"}, {"role": "assistant", ...}]
-> turns=(Turn("Be brief.\nWho?", ...),), one picture

The model knows no system role and takes its one picture at the start, wherever `<image>` stands in the text.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypedDict

from vglm.data.problems import BadRow
from vglm.data.readers.image_names import plain
from vglm.data.readers.marks import settle_marks
from vglm.data.readers.rows import (
    ImageFolders,
    RowCheck,
    SeveralImages,
    check_choice,
    kind_of,
    language_of,
    not_an_object,
    quote,
    read_group,
    refuse_several,
    spread_images,
)
from vglm.data.sample import Sample, Turn
from vglm.data.slices import ImageSlice
from vglm.text.prompt import Language

SystemMessages = Literal["prepend", "meta"]

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}

# What messages of other makers hold besides a role and a text, and what would be lost if it were passed over.
_UNREAD = ("tool_calls", "function_call", "reasoning_content", "image", "images", "video", "videos", "audio", "audios")


class DialogueOptions(TypedDict, total=False):
    """Options of the formats that hold dialogues.

    Attributes:
        several_images: What to make of a row with several pictures, as the model takes one: `refuse` it (the default),
            take the `first`, or make a sample with `each`.
        system: Where a system message goes: `prepend` it to the first question (the default), or into `Sample.meta`.
        language: Of the prompts; by the words of each row if None (the default).
    """

    several_images: SeveralImages
    system: SystemMessages
    language: Language | None


@dataclass(frozen=True)
class DialogueReader:
    """Makes samples of rows that hold messages.

    Attributes:
        folders: Where pictures are looked up.
        name: What sample ids begin with.
        several_images: As in `DialogueOptions`, and so are `system` and `language`.
        system: See there.
        language: See there.
    """

    folders: ImageFolders
    name: str
    several_images: SeveralImages = "refuse"
    system: SystemMessages = "prepend"
    language: Language | None = None

    def __post_init__(self) -> None:
        check_choice("several_images", self.several_images, SeveralImages)
        check_choice("system", self.system, SystemMessages)

    def read_llava(self, number: int | str, row: Any) -> Iterator[Sample | BadRow]:
        """Make the samples of a row `{"image", "conversations": [{"from", "value"}]}`."""
        if not isinstance(row, dict):
            yield not_an_object(number, row, '{"image", "conversations"}')
            return
        check = RowCheck(number)
        messages = [
            (_role(check, message, "from"), _text(check, message, "value"))
            for message in _messages(check, row, "conversations")
        ]
        rest = {key: value for key, value in row.items() if key not in ("image", "images", "conversations")}
        yield from self._build(check, messages, listed(row.get("image")) + listed(row.get("images")), rest)

    def read_messages(self, number: int | str, row: Any) -> Iterator[Sample | BadRow]:
        """Make the samples of a row `{"messages": [{"role", "content"}], "images": [...]}`."""
        if not isinstance(row, dict):
            yield not_an_object(number, row, '{"messages", "images"}')
            return
        check = RowCheck(number)
        keys = ("messages",) if "messages" in row or "completion" not in row else ("prompt", "completion")
        pictures = listed(row.get("image")) + listed(row.get("images"))
        named: list[Any] = []
        slots = 0
        messages = []
        for message in (message for key in keys for message in _messages(check, row, key)):
            role = _role(check, message, "role")
            text, images, count = _content(check, message)
            messages.append((role, text))
            named += images
            slots += count
        if pictures and named:
            check.fail("pictures in 'images' or in the messages", "both", "name them in one place")
        elif slots > len(pictures):
            check.fail(f"{slots} images in 'images'", f"{len(pictures)}", "add them, or take the image entry out")
        rest = {key: value for key, value in row.items() if key not in (*keys, "image", "images")}
        yield from self._build(check, messages, pictures or named, rest)

    def _build(
        self, check: RowCheck, messages: list[tuple[str, str]], images: list[Any], rest: dict[str, Any]
    ) -> Iterator[Sample | BadRow]:
        """Join what a row holds into samples, or into one bad row."""
        questions, answers = _pair(check, messages)
        refuse_several(check, len(images), self.several_images)
        named = images
        questions, images = settle_marks(check, questions, answers, named)
        refuse_several(check, 0 if named else len(images), self.several_images)
        pictures = find_pictures(check, self.folders, images)
        system = [text for role, text in messages if role == "system"]
        if written := optional_text(check, rest, "system"):
            system.insert(0, written)
        rest = {key: value for key, value in rest.items() if key != "system"}
        if system and questions and self.system == "prepend":
            questions[:1] = ["\n".join([*system, *questions[:1]])]
        elif system:
            rest["system"] = "\n".join(system)
        meta = check.meta(rest)
        group = read_group(check, rest)
        bad = check.bad_row()
        if bad is not None:
            yield bad
            return
        identity = f"{self.name}#{check.row}"
        sample = Sample(
            id=identity,
            group=group or (group_of_image(images[0], identity) if images else identity),
            image=pictures[0] if pictures else None,
            turns=tuple(map(Turn, questions, answers)),
            language=self.language or language_of(*questions, *answers),
            meta=meta,
        )
        yield from spread_images(sample, pictures, self.several_images)


def find_pictures(check: RowCheck, folders: ImageFolders, images: list[Any]) -> list[Path | ImageSlice]:
    """The files that a row names; what was found before, in a larger file or a cache, passes through.

    Args:
        check: Takes up what is wrong.
        folders: Where to look.
        images: Names, slices or paths; anything else is a fault.

    Returns:
        Those that were found.
    """
    pictures: list[Path | ImageSlice] = []
    for image in images:
        if isinstance(image, ImageSlice | Path):
            pictures.append(image)
        elif written := check.value(image, "the image's name"):
            picture = check.image(folders, written)
            if picture is not None:
                pictures.append(picture)
    return pictures


def group_of_image(image: Any, identity: str) -> str:
    """Rows about one named picture belong together; a picture inside a larger file has no name to go by."""
    if isinstance(image, Path):
        return image.name  # written to a cache under its content's hash
    return _normal(image) if isinstance(image, str) else identity


@lru_cache(maxsize=4096)
def _normal(name: str) -> str:
    """A name that comes again and again is looked at once."""
    return os.path.normpath(plain(name))


def read_history(check: RowCheck, history: Any) -> list[Turn]:
    """Earlier turns written as `[[question, answer], ...]`; none if there are none or they cannot be used."""
    if history is None:
        return []
    if not isinstance(history, list) or any(not isinstance(turn, list) or len(turn) != 2 for turn in history):
        check.fail(
            "'history' to be a list of [question, answer] pairs", "another shape", "write [[question, answer], ...]"
        )
        return []
    return [Turn(*(check.value(text, "a text in 'history'") for text in turn)) for turn in history]


def optional_text(check: RowCheck, row: Mapping[str, Any], key: str | None) -> str:
    """A text that need not be there; empty if it is not or cannot be used."""
    value = None if key is None else row.get(key)
    is_empty = value is None or value != value or (isinstance(value, str) and not value.strip())
    return "" if is_empty else check.value(value, repr(key))


def listed(images: Any) -> list[Any]:
    """One picture, several or none, as a list."""
    if images is None:
        return []
    return [_name(image) for image in images] if isinstance(images, list) else [_name(images)]


def _name(image: Any) -> Any:
    """A picture's name, also where it is written `{"path": ...}`, as the hub's viewer and pandas do."""
    if isinstance(image, dict) and image.get("bytes") is None:
        return next((image[key] for key in ("path", "image", "url") if isinstance(image.get(key), str)), image)
    return image


def _messages(check: RowCheck, row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The row's messages; those that are not objects are a fault."""
    messages = row.get(key)
    if not isinstance(messages, list) or not messages:
        actual = "an empty list" if messages == [] else kind_of(messages) if key in row else "no such key"
        check.fail(f"{key!r} to be a list of messages", actual, "write the dialogue there")
        return []
    for index, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            check.fail(f"message {index} of {key!r} to be an object", kind_of(message), "write it as an object")
        elif len(message) > 2 and (unread := [key for key in _UNREAD if message.get(key)]):
            check.fail("messages of a role and a text", quote(unread[0]), "write it into the text, or take it out")
    return [message for message in messages if isinstance(message, dict)]


def _role(check: RowCheck, message: Mapping[str, Any], key: str) -> str:
    role = message.get(key)
    if isinstance(role, str) and role.lower() in _ROLES:
        return _ROLES[role.lower()]
    actual = quote(role) if isinstance(role, str) else kind_of(role) if key in message else "no such key"
    check.fail(f"{key!r} of a message to be system, user or assistant", actual, "name one of these roles")
    return ""


def _text(check: RowCheck, message: Mapping[str, Any], key: str) -> str:
    return check.value(message.get(key), f"{key!r} of a message")


def _content(check: RowCheck, message: Mapping[str, Any]) -> tuple[str, list[Any], int]:
    """A message's text, the pictures it names, and how many it announces without a name."""
    content = message.get("content")
    if not isinstance(content, list):
        return _text(check, message, "content"), [], 0
    texts: list[str] = []
    images: list[Any] = []
    slots = 0
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            texts.append(check.value(part.get("text"), "a text in 'content'"))
        elif kind in ("image", "image_url"):
            name = next((part[key] for key in ("image", "path", "url", "image_url") if part.get(key) is not None), None)
            if name is None:
                slots += 1
            else:
                images.append(_name(name))
        else:
            actual = f"type {quote(kind)}" if isinstance(kind, str) else kind_of(part)
            check.fail("a message's parts to be of type text or image", actual, "take the part out")
    return "\n".join(texts), images, slots


def _pair(check: RowCheck, messages: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The questions and their answers; what else there is becomes a fault."""
    if any(not role for role, _ in messages):
        return [], []  # reported already
    dialogue = [(role, text) for role, text in messages if role != "system"]
    first = next((index for index, (role, _) in enumerate(messages) if role != "system"), len(messages))
    if any(role == "system" for role, _ in messages[first:]):
        check.fail("a system message only at the start", "one further on", "move its text into a question")
    roles = [role for role, _ in dialogue]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        order = ", ".join(roles[:8]) + (", ..." if len(roles) > 8 else "")
        check.fail(
            "questions and answers in turn (user, assistant, ...)",
            order or "none of them",
            "join what one side says in a row, and end with an answer",
        )
        return [], []
    return [text for _, text in dialogue[::2]], [text for _, text in dialogue[1::2]]
