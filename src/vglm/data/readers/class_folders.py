r"""Read pictures from one folder per class, as `datasets`' imagefolder and torchvision's ImageFolder do.

    scenes/beach/001.jpg        or with splits:     scenes/train/beach/001.jpg
    scenes/forest/001.jpg                           scenes/test/forest/017.jpg

    -> "Which of these does the picture show: beach, forest?", answer "beach", meta {"choices": ["beach", "forest"]}

The folder's name is the answer, the question lists all of them. Folders that are numbered, as those of patients are, or
named after what their files are (`images`, `masks`) are not taken for classes unless `dataset.format=class_folders`.

Source: https://huggingface.co/docs/datasets/image_dataset ("ImageFolder", labels by folder).
"""

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.prompts import FixedQuestion, QuestionOptions
from vglm.data.readers.rows import IMAGE_SUFFIXES, fault, quote, split_name
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.text.prompt import Language

NAME = "class_folders"
SCHEMA = "a folder of pictures for each class, <class>/*.jpg, or below train/ and test/"
KEPT = ("choices",)

QUESTION = "这张图片属于哪一类：{}？"
ENGLISH_QUESTION = "Which of these does the picture show: {}?"

_PICTURES = (*IMAGE_SUFFIXES, ".dcm")
_IGNORED = ("thumbs.db", "desktop.ini")
_NO_CLASSES = re.compile(
    "(?:jpeg)?images?|imgs?|pictures|photos|masks?|labels|annotations|segmentations|depth|files|data"
)
_NUMBERED = re.compile(r"\d{3}")
_LOOKED_AT = 100


def recognises(path: Path) -> bool:
    """Whether it is a folder of two folders of pictures or more, without any file of data beside them."""
    try:
        if not path.is_dir() or any(_is_data(entry) for entry in path.iterdir() if entry.is_file()):
            return False
        class_folders = _class_folders(path)
        names = {folder.name for _, folder in class_folders}
        return (
            len(names) > 1
            and not any(_NO_CLASSES.fullmatch(name.lower()) or _NUMBERED.search(name) for name in names)
            and all(map(_holds_pictures, (folder for _, folder in class_folders)))
        )
    except OSError:
        return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[QuestionOptions]
) -> Iterator[Sample | BadRow]:
    """Read the folders in the order of their names, see `vglm.data.readers.Reader`; options: `QuestionOptions`.

    A question that lists the classes is the format's own. Ids are `<name>#<class>/<file>`; any other visible file is a
    bad row, and so is a class without pictures.

    Raises:
        DataError: There are less than two such folders.
    """
    class_folders = _class_folders(path) if path.is_dir() else []
    classes = sorted({folder.name for _, folder in class_folders})
    if len(classes) < 2:
        actual = ", ".join(classes) or "none"
        raise DataError(f"{path}: expected folders of two classes or more, found {actual}. Pass the folder above them.")
    own: dict[Language, str] = {
        "zh": QUESTION.format("、".join(classes)),
        "en": ENGLISH_QUESTION.format(", ".join(classes)),
    }
    language, question = FixedQuestion(own, **options).about(options.get("question") or "", *classes)
    for split, folder in class_folders:
        class_path = folder.relative_to(path).as_posix()
        files = _files(folder)
        if not files:
            yield BadRow(class_path, fault("pictures in the folder", "none", "add some, or remove the folder"))
        for file in files:
            row = f"{class_path}/{file.name}"
            if not file.name.lower().endswith(_PICTURES):
                yield BadRow(row, fault("a picture", quote(file.name), "convert it, or take it out"))
                continue
            meta = {"choices": classes} | ({"split": split} if split else {})
            yield Sample(f"{name}#{row}", row, file, (Turn(question, folder.name),), language, meta)


def _class_folders(path: Path) -> list[tuple[str | None, Path]]:
    """The classes' folders, each with its split if it lies below one."""
    folders = subfolders(path)
    if folders and all(split_name(folder.name) for folder in folders):
        return [(split_name(above.name), folder) for above in folders for folder in subfolders(above)]
    return [(None, folder) for folder in folders]


def subfolders(path: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones."""
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return [path / name for name in sorted(names)]


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return [folder / name for name in sorted(names) if name.lower() not in _IGNORED]


def _holds_pictures(folder: Path) -> bool:
    """Whether the first entries of a folder are files, mostly pictures."""
    with os.scandir(folder) as entries:
        first = [entry for entry in itertools.islice(entries, _LOOKED_AT) if not entry.name.startswith(".")]
    pictures = [entry for entry in first if entry.name.lower().endswith(_PICTURES)]
    return 2 * len(pictures) > len(first) and not any(entry.is_dir() or _is_data(Path(entry.name)) for entry in first)


def _is_data(file: Path) -> bool:
    """Whether a file may say what the pictures are, so that the folders' names need not."""
    suffixes = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".xml", ".parquet", ".arrow", ".tar", ".xlsx", ".gz", ".xls")
    return file.suffix.lower() in suffixes and not file.name.lower().startswith(("readme", "license"))
