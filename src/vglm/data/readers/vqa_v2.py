"""Read VQA v2: a file of questions, a file of annotations with the answers beside it, and COCO's pictures.

    v2_OpenEnded_mscoco_train2014_questions.json
        {"task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": "train2014", "questions": [
            {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000}]}
    v2_mscoco_train2014_annotations.json
        {"annotations": [{"question_id": 458752000, "image_id": 458752, "question_type": "what is this",
            "answer_type": "other", "multiple_choice_answer": "net",
            "answers": [{"answer": "net", "answer_confidence": "maybe", "answer_id": 1}, ...]}]}
    train2014/COCO_train2014_000000458752.jpg

The answer is `multiple_choice_answer`, the one most people gave; all ten are in `Sample.meta["answers"]`, for the VQA
accuracy. `answer_type` (yes/no, number, other) becomes the `kind`. Questions about one picture share its group.

Source: https://visualqa.org/download.html ("Input Questions Format", "Annotation Format").
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.json_files import load_json, peek_json
from vglm.data.readers.rows import (
    ImageFolders,
    Joined,
    RowCheck,
    kind_of,
    language_of,
    not_an_object,
    quote,
    read_answers,
    split_name,
)
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.text.prompt import Language

NAME = "vqa_v2"
SCHEMA = '{"questions": [{"image_id", "question", "question_id"}]} and the annotations beside it, VQA v2'

_ROW = '{"image_id", "question", "question_id"}'
_SUBTYPE = re.compile(r"(?:train|val|test)(?:-dev)?\d{4}")


def recognises(path: Path) -> bool:
    """Whether the file has VQA's `questions`."""
    return _holds(path, "questions")


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    annotations: str | None = None,
    language: Language | None = None,
) -> Iterator[Sample | BadRow]:
    """Read VQA v2.

    Args:
        path: The file of questions.
        image_dir: Where the pictures lie, directly or in a folder such as `train2014`; the file's own folder if None.
        name: What sample ids begin with, `<name>#<row>` with questions counting from 1.
        annotations: The file of annotations, relative to that of the questions; found beside it if None.
        language: Of the prompts; by each question if None.

    Yields:
        One sample a question, with the file's split if it is named train..., val... or test...

    Raises:
        DataError: A file is missing or no VQA file, or `image_dir` is not a folder.
    """
    folders = ImageFolders(path.parent, image_dir)
    content = _load(path, "questions")
    joined = Joined("question_id", "question")
    answers = _load_answers(path.parent / annotations if annotations else _find_annotations(path))
    subtype = content.get("data_subtype")
    source = content.get("data_type")
    naming = (source if isinstance(source, str) else "", subtype if isinstance(subtype, str) else "")
    for number, row in enumerate(content["questions"], start=1):
        if not isinstance(row, dict):
            yield not_an_object(number, row, _ROW)
            continue
        check = RowCheck(number)
        question = check.text(row, "question")
        answer, rest = _find_answer(check, row, answers)
        image_id = row.get("image_id")
        image: Path | None = None
        if isinstance(image_id, int) and not isinstance(image_id, bool):
            image = check.image(folders, *_image_names(image_id, *naming))
        else:
            check.fail("'image_id' to be a whole number", kind_of(image_id), "write the picture's number")
        if image is not None:  # else that is what is wrong
            joined.add(check, row.get("question_id"), row, number)
            if rest.pop("image_id", image_id) != image_id:
                fix = "take the annotations that belong to these questions"
                check.fail(f"'image_id' {image_id} in the annotation too", "another picture's", fix)
        split = split_name(naming[1].rstrip("0123456789").removesuffix("-dev"))
        meta = check.meta(
            {key: value for key, value in row.items() if key != "question"} | rest | ({"split": split} if split else {})
        )
        yield check.outcome(
            Sample(
                id=f"{name}#{number}",
                group=str(image_id),
                image=image,
                turns=(Turn(question, answer),),
                language=language or language_of(question, answer),
                meta=meta,
            )
        )


def _holds(path: Path, key: str) -> bool:
    peek = peek_json(path)
    return peek.kind == "object" and key in peek.keys and any("question_id" in row for row in peek.objects)


def _load(path: Path, key: str) -> dict[str, Any]:
    """A VQA file; its list is there and not empty."""
    content = load_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
        actual = f"the keys {', '.join(map(quote, content))}" if isinstance(content, dict) else kind_of(content)
        raise DataError(f"{path}: expected an object with a list {key!r}, found {actual}. Pass VQA's file of {key}.")
    return content


def _find_annotations(path: Path) -> Path:
    """The one file beside the questions that holds annotations, of the same split if there are several."""
    files = [file for file in sorted(path.parent.glob("*.json")) if file != path and _holds(file, "annotations")]
    if len(files) > 1:
        subtype = _SUBTYPE.search(path.name)
        files = [file for file in files if subtype and subtype[0] in file.name]
    if len(files) == 1:
        return files[0]
    raise DataError(
        f"{path}: expected the file of its annotations beside it, found {len(files)}. Name it in "
        "dataset.options.annotations; VQA's test questions come without answers and cannot be used."
    )


def _load_answers(path: Path) -> Joined:
    """Of every annotation what is needed, by question; the rest of a large file is let go."""
    answers: list[dict[str, Any]] = []
    for row in _load(path, "annotations")["annotations"]:
        if not isinstance(row, dict) or not isinstance(row.get("question_id"), int | str):
            continue  # the question that lacks its answer gets the fault
        votes = row.get("answers")
        if isinstance(votes, list):
            votes = [answer.get("answer") if isinstance(answer, dict) else answer for answer in votes]
        rest: dict[str, Any] = {"question_id": row["question_id"], "answer": row.get("multiple_choice_answer")}
        rest |= {"answers": votes} if votes not in (None, []) else {}
        rest |= {"kind": row["answer_type"]} if isinstance(row.get("answer_type"), str) else {}
        rest |= {"question_type": row["question_type"]} if isinstance(row.get("question_type"), str) else {}
        rest |= {"image_id": row["image_id"]} if isinstance(row.get("image_id"), int | str) else {}
        answers.append(rest)
    return Joined.of(answers, "question_id", "annotation")


def _find_answer(check: RowCheck, row: dict[str, Any], answers: Joined) -> tuple[str, dict[str, Any]]:
    question_id = row.get("question_id")
    if not isinstance(question_id, int | str) or question_id not in answers:
        absent = quote(str(question_id)) if isinstance(question_id, int | str) else kind_of(question_id)
        check.fail("'question_id' to be that of an annotation", absent, "add the annotation, or take the question out")
        return "", {}
    entry = answers.find(check, question_id)
    if entry is None:
        return "", {}
    rest = {key: entry[key] for key in ("answers", "kind", "question_type", "image_id") if key in entry}
    if "answers" in rest:
        rest["answers"] = read_answers(check, rest["answers"], "'answers' of its annotation")
    return check.value(entry["answer"], "'multiple_choice_answer' of its annotation"), rest


def _image_names(image_id: int, source: str, subtype: str) -> list[str]:
    """COCO's names of 2014 and of 2017, and the abstract scenes', directly or in the split's folder."""
    subtype = subtype.replace("-dev", "")
    number = f"{image_id:012d}"
    if source and source != "mscoco":
        names = [f"{source}_{subtype}_{number}.png"]
    else:
        names = [f"COCO_{subtype}_{number}.jpg", f"{number}.jpg"]
    return [*names, *(f"{subtype}/{name}" for name in names)] if subtype and "/" not in subtype else names
