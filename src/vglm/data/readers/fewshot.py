"""Read the format of VisualGLM's own few-shot example: a JSON list of `{"img", "prompt", "label"}`.

    [
        {"img": "fewshot-data/2p.png", "prompt": "这张图片的背景里有什么内容？", "label": "这张图片的背景是蒙蒙细雨。"},
        ...
    ]

`img` lies beside the file or under `image_dir`; the published prefix `fewshot-data/` may stand before it. Beyond the
original, a row may leave `img` out or set it to null (text only), set `"english": true`, have a
`"history": [[question, answer], ...]` and a `"system"` text, which comes before the first question, and carry any other
key, such as `"kind"`, which goes into `Sample.meta`.

Source: THUDM/VisualGLM-6B:fewshot-data/dataset.json and finetune_visualglm.py (FewShotDataset).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.dialogue import optional_text, read_history
from vglm.data.readers.image_names import plain
from vglm.data.readers.json_files import iterate_list, peek_json
from vglm.data.readers.marks import settle_marks
from vglm.data.readers.rows import IMAGE_SUFFIXES, ImageFolders, RowCheck, kind_of, not_an_object, quote
from vglm.data.sample import Sample, Turn

NAME = "fewshot"
SCHEMA = '[{"img", "prompt", "label"}], the few-shot example of VisualGLM-6B'

PUBLISHED_PREFIX = "fewshot-data/"

_ROW = '{"img", "prompt", "label"}'
_KNOWN_KEYS = ("img", "prompt", "label", "english", "history", "system")


def recognises(path: Path) -> bool:
    """Whether the file is a JSON list, with a row that has a prompt and a label."""
    peek = peek_json(path)
    return peek.kind == "list" and any("prompt" in row and "label" in row for row in peek.objects)


def read(path: Path, *, image_dir: Path | None = None, name: str) -> Iterator[Sample | BadRow]:
    """Read a few-shot file.

    Args:
        path: The JSON file.
        image_dir: Where the pictures lie; the file's own folder if None.
        name: What sample ids begin with, `<name>#<row>` with rows counting from 1.

    Yields:
        One sample a row; rows about the same picture share a group. A row is bad if it lacks a key, holds a wrong type
        or an empty text, or names a missing picture or one outside the data set's folders.

    Raises:
        DataError: The file is not a JSON list with something in it, or `image_dir` is not a folder.
    """
    folders = ImageFolders(path.parent, image_dir)
    for number, row in enumerate(iterate_list(path, _ROW), start=1):
        yield _read_row(row, number, folders, f"{name}#{number}")


def _read_row(row: Any, number: int, folders: ImageFolders, identity: str) -> Sample | BadRow:
    if not isinstance(row, dict):
        return not_an_object(number, row, _ROW)
    check = RowCheck(number)
    question, answer = check.text(row, "prompt"), check.text(row, "label")
    history = read_history(check, row.get("history"))
    pictures = [] if row.get("img") is None else [row["img"]]
    answers = [*(turn.answer for turn in history), answer]
    questions, named = settle_marks(check, [*(turn.question for turn in history), question], answers, pictures)
    image: Path | None = None
    written = ""
    if len(named) > 1:
        check.fail("one image, as the model takes no more", f"{len(named)}", "keep one")
    elif named and (written := check.value(named[0], "'img'")):
        image = check.image(folders, *dict.fromkeys((written, written.removeprefix(PUBLISHED_PREFIX))))
    elif not named and "img" not in row:
        for key, value in row.items():
            if key not in _KNOWN_KEYS and isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES):
                check.fail("'img' for the picture", f"{quote(key)}: {quote(value)}", "call the key 'img'")
    english = row.get("english", False)
    if not isinstance(english, bool):
        check.fail("'english' to be true or false", kind_of(english), "write true or false without quotes")
    if system := optional_text(check, row, "system"):
        questions[0] = f"{system}\n{questions[0]}"
    turns = map(Turn, questions, answers)
    meta = check.meta({key: value for key, value in row.items() if key not in _KNOWN_KEYS})
    return check.outcome(
        Sample(
            id=identity,
            group=os.path.normpath(plain(written).removeprefix(PUBLISHED_PREFIX)) if written else identity,
            image=image,
            turns=tuple(turns),
            language="en" if english else "zh",
            meta=meta,
        )
    )
