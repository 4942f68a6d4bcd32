"""Read the format of VisualGLM's own few-shot example: a JSON list of `{"img", "prompt", "label"}`.

    [
        {"img": "fewshot-data/2p.png", "prompt": "这张图片的背景里有什么内容？", "label": "这张图片的背景是蒙蒙细雨。"},
        ...
    ]

`img` lies beside the file or under `image_dir`; the published prefix `fewshot-data/` may stand before it. Beyond the
original, a row may leave `img` out or set it to null (text only), say `"english": true`, bring
`"history": [[question, answer], ...]`, and carry any other key, such as `"kind"`, which goes into `Sample.meta`.

Source: THUDM/VisualGLM-6B:fewshot-data/dataset.json and finetune_visualglm.py (FewShotDataset).
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from vglm.data.problems import report_bad_rows
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError

PUBLISHED_PREFIX = "fewshot-data/"

_KNOWN_KEYS = ("img", "prompt", "label", "english", "history")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

logger = logging.getLogger(__name__)


def read_fewshot(
    path: Path, *, image_dir: Path | None = None, skip_missing: bool = False, name: str | None = None
) -> list[Sample]:
    """Read a few-shot file, all of it or nothing.

    Args:
        path: The JSON file.
        image_dir: Where the pictures lie; the file's own folder if None.
        skip_missing: Leave out rows whose picture is missing, with one warning that counts them.
        name: What sample ids begin with, `<name>#<row>` with rows counting from 1; the file's name if None.

    Returns:
        One sample a row. Rows about the same picture share a group. Pictures are found, but not opened.

    Raises:
        DataError: The file is not a JSON list of objects; rows lack a key, hold a wrong type or an empty text, or name
            a missing picture or one outside the data set's folders (all such rows in one message); or no row is left.
    """
    rows = _load_rows(path)
    if image_dir is not None and not image_dir.is_dir():
        raise DataError(f"{path}: image_dir {image_dir} is not a folder. Pass the folder that holds the pictures.")
    samples: list[Sample] = []
    problems: dict[int, str] = {}
    missing: dict[int, str] = {}
    for number, row in enumerate(rows, start=1):
        faults = _faults(row)
        image: Path | None = None
        if isinstance(row, dict) and isinstance(row.get("img"), str) and row["img"].strip():
            image = _find_image(row["img"], path.parent, image_dir)
            if image is None:
                folders = " or ".join(str(folder) for folder in (path.parent, image_dir) if folder is not None)
                faults.append(f"image path {_quote(row['img'])} leaves {folders}")
            elif not os.path.isfile(image):  # unlike Path.is_file it answers for over-long names too
                missing[number] = f"image {_quote(row['img'])} is missing"
        if faults:
            problems[number] = "; ".join(faults)
        elif number not in missing:
            samples.append(_build_sample(row, f"{name or path.name}#{number}", image))

    if skip_missing:
        report_bad_rows(path, problems, len(rows))
        if missing:
            logger.warning("%s: left out %d of %d rows, whose image is missing", path, len(missing), len(rows))
        if not samples:
            raise DataError(
                f"{path}: every row's image is missing from {image_dir or path.parent}. Set dataset.image_dir."
            )
        return samples
    advice = "Correct these rows."
    if missing:
        place = f"Looked for images in {image_dir or path.parent}: set dataset.image_dir if they lie elsewhere"
        advice += f" {place}, or dataset.skip_missing=true to leave such rows out."
    for number, absence in missing.items():
        problems[number] = f"{problems[number]}; {absence}" if number in problems else absence
    report_bad_rows(path, problems, len(rows), advice)
    return samples


def _load_rows(path: Path) -> list[Any]:
    """The file's list; its entries are still unchecked."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: not valid JSON at {place}: {error.msg}. Correct the file there.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not usable JSON: {error}. Expected a list of objects.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}. Expected a JSON file.") from error
    if not isinstance(rows, list):
        raise DataError(
            f'{path}: expected a list of {{"img", "prompt", "label"}}, found {_kind(rows)}. Put the rows into a list.'
        )
    if not rows:
        raise DataError(f"{path}: the list is empty. Expected at least one row.")
    return rows


def _faults(row: Any) -> list[str]:
    """What is wrong with a row's keys and values, wherever its picture may be."""
    if not isinstance(row, dict):
        return [f"expected an object, found {_kind(row)}"]
    faults = [
        f"no {key!r} (keys: {', '.join(map(repr, row)) or 'none'})" for key in ("prompt", "label") if key not in row
    ]
    faults += [fault for key in ("prompt", "label") if key in row for fault in _text_faults(repr(key), row[key])]
    if row.get("img") is not None:
        faults += _text_faults("'img'", row["img"])
    elif "img" not in row:
        faults += [
            f"no 'img', but {key!r} names a picture: {_quote(value)}"
            for key, value in row.items()
            if key not in _KNOWN_KEYS and isinstance(value, str) and value.lower().endswith(_IMAGE_SUFFIXES)
        ]
    if not isinstance(row.get("english", False), bool):
        faults.append(f"'english' must be true or false, found {_kind(row['english'])}")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        faults.append(f"half a character (an unpaired \\u{ord(error.object[error.start]):x})")
    if not isinstance(row.get("kind", ""), str):
        faults.append(f"'kind' must be text, found {_kind(row['kind'])}")
    return faults + _history_faults(row.get("history"))


def _history_faults(history: Any) -> list[str]:
    if history is None:
        return []
    if not isinstance(history, list) or any(not isinstance(turn, list) or len(turn) != 2 for turn in history):
        return ["'history' must be a list of [question, answer] pairs"]
    return [fault for turn in history for text in turn for fault in _text_faults("a text in 'history'", text)]


def _text_faults(name: str, value: Any) -> list[str]:
    if not isinstance(value, str):
        return [f"{name} must be text, found {_kind(value)}"]
    if not value.strip():
        return [f"{name} is empty"]
    return []


def _find_image(name: str, folder: Path, image_dir: Path | None) -> Path | None:
    """Where a row's picture lies, as named or without the published prefix; None if that leaves the allowed folders.

    The check is on the path as written: a link inside the folder may point elsewhere.
    """
    allowed = [Path(os.path.abspath(place)) for place in (folder, image_dir) if place is not None]
    names = [name, name.removeprefix(PUBLISHED_PREFIX)] if name.startswith(PUBLISHED_PREFIX) else [name]
    root = image_dir or folder
    candidates = [root / each for each in names]
    inside = [
        each for each in candidates if any(Path(os.path.abspath(each)).is_relative_to(place) for place in allowed)
    ]
    return next((each for each in inside if os.path.isfile(each)), inside[-1] if inside else None)


def _build_sample(row: dict[str, Any], identity: str, image: Path | None) -> Sample:
    turns = [*(row.get("history") or []), (row["prompt"], row["label"])]
    return Sample(
        id=identity,
        group=identity if image is None else os.path.normpath(row["img"].removeprefix(PUBLISHED_PREFIX)),
        image=image,
        turns=tuple(Turn(question, answer) for question, answer in turns),
        english=row.get("english", False),
        meta={key: value for key, value in row.items() if key not in _KNOWN_KEYS},
    )


def _quote(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _kind(value: Any) -> str:
    """A JSON value's kind in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
