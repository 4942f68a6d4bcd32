r"""Read MME: a folder for each category with pictures, and beside each picture a text file with questions on it.

    MME_Benchmark/color/000000006040.jpg
    MME_Benchmark/color/000000006040.txt         Is there a red train in the image? Please answer yes or no.<TAB>Yes
                                                 Is there a black train in the image? Please answer yes or no.<TAB>No
    MME_Benchmark/artwork/images/10002.jpg       or pictures and questions in folders of their own
    MME_Benchmark/artwork/questions_answers_YN/10002.txt

    -> answer "Yes", meta {"category": "color", "pair": "color/000000006040", "choices": ["Yes", "No"]}

The category is the folder's name. `meta["pair"]` joins the questions about one picture, which accuracy+ counts
together.

Source: BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation (MME's release and eval_tool).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from vglm.data.problems import BadRow
from vglm.data.readers.class_folders import subfolders
from vglm.data.readers.rows import IMAGE_SUFFIXES, ImageFolders, RowCheck, language_of, quote
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.files import LARGEST_TEXT_BYTES, check_regular
from vglm.text.prompt import Language

NAME = "mme"
KEPT = ("choices",)
SCHEMA = "a folder for each category with pictures and .txt files of questions, a tab, and Yes or No, MME"

_QUESTIONS, _IMAGES = "questions_answers_YN", "images"
_ANSWERS = {"yes": "Yes", "no": "No"}
_LOOKED_AT = 20
_HEAD_BYTES = 1 << 12


def recognises(path: Path) -> bool:
    """Whether it is a folder of categories (or one category) whose first questions end in a tab and yes or no."""
    try:
        if not path.is_dir():
            return False
        for folder in [*subfolders(path)[:_LOOKED_AT], path]:
            if files := _question_files(folder):
                with files[0].open("rb") as file:
                    head = file.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
                line = next((line for line in head.splitlines() if line.strip()), "")
                return "\t" in line and line.rpartition("\t")[2].strip().lower() in _ANSWERS
    except OSError:
        pass
    return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, language: Language | None = None
) -> Iterator[Sample | BadRow]:
    """Read MME, category by category.

    Args:
        path: The folder of the categories, or of one.
        image_dir: Where the categories' pictures lie, if they are apart: `<image_dir>/<category>/<name>.jpg`, or with
            `images/` between.
        name: What sample ids begin with, `<name>#<category>/<file>.txt:<line>`.
        language: Of the prompts; by each question if None.

    Yields:
        One sample a line. A line is bad if it is not a question, a tab, and Yes or No, or if the picture is missing.

    Raises:
        DataError: There are no such folders, a file is not UTF-8, or `image_dir` is not a folder.
    """
    folders = _categories(path)
    if not folders:
        raise DataError(
            f"{path}: expected folders with .txt files of questions, directly or in {_QUESTIONS}/, found none. Pass "
            "the folder that holds MME's categories."
        )
    for folder in folders:
        category = os.path.basename(os.path.abspath(folder))
        beside = folder / _IMAGES if (folder / _IMAGES).is_dir() else folder
        apart = None if image_dir is None else image_dir / category
        image_folders = ImageFolders(beside, apart / _IMAGES if apart and (apart / _IMAGES).is_dir() else apart)
        for file in _question_files(folder):
            names = [f"{file.stem}{suffix}" for ending in IMAGE_SUFFIXES for suffix in (ending, ending.upper())]
            for number, line in _lines(file):
                row = f"{category}/{file.name}:{number}"
                check = RowCheck(row)
                question, tab, answer = line.rpartition("\t")
                word = answer.strip().lower()
                if not tab or not question.strip() or word not in _ANSWERS:
                    check.fail("a question, a tab, and Yes or No", quote(line), "correct the line")
                image = check.image(image_folders, *names)
                meta = {"category": category, "pair": f"{category}/{file.stem}", "choices": [*_ANSWERS.values()]}
                yield check.outcome(
                    Sample(
                        id=f"{name}#{row}",
                        group=f"{category}/{file.stem}",
                        image=image,
                        turns=(Turn(question.strip(), _ANSWERS.get(word, "")),),
                        language=language or language_of(question),
                        meta=check.meta(meta),
                    )
                )


def _categories(path: Path) -> list[Path]:
    """The folders with questions: those below the path, or else the path itself."""
    if not path.is_dir():
        return []
    return [folder for folder in subfolders(path) if _question_files(folder)] or (
        [path] if _question_files(path) else []
    )


def _question_files(folder: Path) -> list[Path]:
    directory = folder / _QUESTIONS if (folder / _QUESTIONS).is_dir() else folder
    return sorted(path for path in directory.glob("*.txt") if path.is_file() and not path.name.startswith("."))


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines with something on them, counting from 1."""
    check_regular(file, advice="Expected a text file.", limit=LARGEST_TEXT_BYTES)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8: {error.reason}. Save the file as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}. Expected a text file.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")
