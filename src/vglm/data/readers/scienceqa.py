r"""Read ScienceQA: school questions with options, some with a picture and some without.

    problems.json           {"1": {"question": "Which of these states is farthest north?",
                                   "choices": ["West Virginia", "Louisiana", "Arizona", "Oklahoma"], "answer": 0,
                                   "hint": "", "image": "image.png", "task": "closed choice", "grade": "grade2",
                                   "subject": "social science", "topic": "geography", "category": "Geography",
                                   "skill": "Read a map: cardinal directions", "lecture": "Maps have four cardinal ...",
                                   "solution": "To find the answer, look at ...", "split": "train"}, "2": ...}
    pid_splits.json         {"train": ["1", "3", ...], "val": [...], "test": [...], "minitrain": [...], ...}
    images/train/1/image.png

    -> answer "A", meta {"options": "A. West Virginia\nB. Louisiana\n...", "choices": ["A", "B", "C", "D"], "hint": "",
       "split": "train", "context": "image", "subject": "social science", "grades": "1-6", ...}

The answer is the option's letter; `meta["options"]` and `meta["hint"]` are for a task's prompt. `context` (text, image,
text and image, none), `subject` and `grades` are the slices of the paper's tables.

Source: lupantech/ScienceQA:README.md, models/base_prompt.py, tools/evaluate_acc.py.
"""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.json_files import load_json, peek_json
from vglm.data.readers.rows import (
    ImageFolders,
    RowCheck,
    kind_of,
    language_of,
    list_options,
    not_an_object,
    quote,
    split_name,
)
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.text.prompt import Language

NAME = "scienceqa"
KEPT = ("options", "choices", "hint", "context", "lecture")
SCHEMA = "problems.json: {id: {question, choices, answer, ...}}, with pid_splits.json and images/, ScienceQA"

_PROBLEMS, _SPLITS = "problems.json", "pid_splits.json"
_ROW = '{"question", "choices", "answer"}'
_FIELDS = ("task", "grade", "subject", "topic", "category", "skill")
_PRIMARY = tuple(f"grade{number}" for number in range(1, 7))


def recognises(path: Path) -> bool:
    """Whether it is, or is a folder with, a file of problems that have choices."""
    peek = peek_json(path / _PROBLEMS if path.is_dir() else path)
    if peek.kind != "object" or not peek.keys or not all(key.isdecimal() for key in peek.keys):
        return False
    file = path / _PROBLEMS if path.is_dir() else path
    try:
        with file.open("rb") as opened:
            head = opened.read(1 << 16)
    except OSError:
        return False
    return b'"choices"' in head and b'"question"' in head


def read(
    path: Path, *, image_dir: Path | None = None, name: str, lecture: bool = False, language: Language | None = None
) -> Iterator[Sample | BadRow]:
    """Read ScienceQA problem by problem.

    Args:
        path: The folder, or its `problems.json`.
        image_dir: Where `<split>/<id>/image.png` lie; `images/` beside the file, or the file's own folder, if None.
        name: What sample ids begin with, `<name>#<problem>`.
        lecture: Whether the lecture goes into `meta`, for a prompt with `{lecture}`.
        language: Of the prompts; by each question if None.

    Yields:
        One sample a problem, with the split that `pid_splits.json` names, or else the problem itself.

    Raises:
        DataError: A file cannot be read, is no such file, or `image_dir` is not a folder.
    """
    file = path / _PROBLEMS if path.is_dir() else path
    problems = load_json(file)
    if not isinstance(problems, dict) or not problems:
        actual = "an empty one" if problems == {} else kind_of(problems)
        raise DataError(f"{file}: expected an object of problems, found {actual}. Pass ScienceQA's {_PROBLEMS}.")
    splits = _read_splits(file.parent / _SPLITS)
    beside = file.parent
    folders = ImageFolders(beside, image_dir or (beside / "images" if (beside / "images").is_dir() else None))
    for pid, row in problems.items():
        if not isinstance(row, dict):
            yield not_an_object(pid, row, _ROW)
            continue
        yield _read_problem(pid, row, splits.get(pid), folders, f"{name}#{pid}", lecture, language)


def _read_problem(
    pid: str,
    row: dict[str, Any],
    split: str | None,
    folders: ImageFolders,
    id: str,
    with_lecture: bool,
    language: Language | None,
) -> Sample | BadRow:
    check = RowCheck(pid)
    question = check.text(row, "question")
    options = _read_options(check, row.get("choices"))
    letters = list(ascii_uppercase[: len(options)])
    answer = row.get("answer")
    right = ""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        right = letters[answer]
    elif options:
        actual = str(answer) if isinstance(answer, int) else kind_of(answer)
        check.fail(f"'answer' to be a number from 0 to {len(options) - 1}", actual, "write the right choice's number")
    split_text = split or row.get("split")
    ours = check.split(split_text, "split") if split_text is not None else None
    image: Path | None = None
    if isinstance(row.get("image"), str) and row["image"]:
        image = check.image(folders, *(f"{part}{row['image']}" for part in (f"{split_text}/{pid}/", f"{pid}/", "")))
    elif row.get("image") not in (None, ""):
        check.fail("'image' to be a file name or null", kind_of(row["image"]), "correct it")
    hint = " ".join(str(row.get("hint") or "").split())
    meta: dict[str, Any] = {"options": list_options(options), "choices": letters, "hint": hint}
    meta |= {} if ours is None else {"split": ours}
    meta["context"] = " and ".join((["text"] if hint else []) + (["image"] if row.get("image") else [])) or "none"
    meta |= {key: row[key] for key in _FIELDS if isinstance(row.get(key), str) and row[key]}
    if "grade" in meta:
        meta["grades"] = "1-6" if meta["grade"] in _PRIMARY else "7-12"
    if with_lecture:
        meta["lecture"] = str(row.get("lecture") or "").strip()
    prompt_language = language or language_of(question, *options)
    return check.outcome(Sample(id, pid, image, (Turn(question, right),), prompt_language, check.meta(meta)))


def _read_options(check: RowCheck, choices: Any) -> list[str]:
    if not isinstance(choices, list):
        check.fail("'choices' to be a list", kind_of(choices), "list the options")
        return []
    options = [" ".join(check.value(choice, f"choice {number}").split()) for number, choice in enumerate(choices)]
    if not 2 <= len(options) <= len(ascii_uppercase):
        check.fail(f"2 to {len(ascii_uppercase)} choices", f"{len(options)}", "list the options")
        return []
    return options


def _read_splits(path: Path) -> dict[str, str]:
    """The split of each problem as the file writes it; empty where there is no such file."""
    if not path.is_file():
        return {}
    content = load_json(path)
    if not isinstance(content, dict) or not all(isinstance(ids, list) for ids in content.values()):
        raise DataError(f"{path}: expected an object of lists of problems' ids, found {_shape(content)}. Correct it.")
    splits: dict[str, str] = {}
    for split, pids in content.items():
        for pid in map(str, pids) if split_name(split) else ():
            if split_name(splits.setdefault(pid, split)) != split_name(split):
                raise DataError(
                    f"{path}: expected each problem in one split, found {quote(pid)} in {splits[pid]} and {split}. Take"
                    " it out of one of them, or give the problems of files that were put together new numbers."
                )
    return splits


def _shape(content: Any) -> str:
    return ", ".join(map(quote, content)) if isinstance(content, dict) else kind_of(content)
