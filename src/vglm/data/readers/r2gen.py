"""Read R2Gen's `annotation.json`: radiology reports with given splits and one or several pictures a study.

    {"train": [{"id": "CXR2384_IM-0942", "report": "The heart size and pulmonary vascularity appear within normal ...",
                "image_path": ["CXR2384_IM-0942/0.png", "CXR2384_IM-0942/1.png"], "split": "train"}, ...],
     "val": [...], "test": [...]}

This is the form in which IU X-Ray and MIMIC-CXR are used by R2Gen and the report generators after it; MIMIC-CXR's rows
have `study_id` and `subject_id` besides. Pictures lie in `images/` beside the file, or under `image_dir`. The split
goes into `meta["split"]`; a patient's or study's rows share a group. Rows count from 1 within their split: `train:17`.

Source: cuhksz-nlp/R2Gen:modules/datasets.py (BaseDataset, IuxrayMultiImageDataset, MimiccxrSingleImageDataset).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vglm.data.ids import group_name
from vglm.data.problems import BadRow
from vglm.data.readers.json_files import load_json, peek_json
from vglm.data.readers.prompts import FixedQuestion
from vglm.data.readers.rows import (
    ImageFolders,
    RowCheck,
    SeveralImages,
    check_choice,
    kind_of,
    not_an_object,
    read_group,
    refuse_several,
    split_name,
    spread_images,
)
from vglm.data.readers.xrayglm import ENGLISH_QUESTION, QUESTION
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError
from vglm.text.prompt import Language

NAME = "r2gen"
WINDOW = "auto"
SCHEMA = '{"train": [{"id", "report", "image_path": [...], "split"}], "val": [...], "test": [...]}'
_IMAGES = "images"
_KNOWN_KEYS = ("id", "report", "image_path", "split", "study_id", "subject_id")


def recognises(path: Path) -> bool:
    """Whether a file is a JSON object of splits whose first rows have `report` and `image_path`."""
    peek = peek_json(path)
    return (
        peek.kind == "object"
        and bool(peek.keys)
        and all(split_name(key) for key in peek.keys)
        and any({"report", "image_path"} <= set(row) for row in peek.objects)
    )


def read(
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    several_images: SeveralImages = "each",
    question: str | None = None,
    language: Language | None = None,
) -> Iterator[Sample | BadRow]:
    """Read the file split by split.

    Args:
        path: The JSON file.
        image_dir: Where pictures lie; the file's `images` folder, or its own if there is none, by default.
        name: What sample ids begin with: `<name>#<split>:<row>`.
        several_images: What to make of a study with several pictures: `each` makes a sample of every one, `first` of
            the first, `refuse` a bad row.
        question: The question; XrayGLM's question in the report's language by default.
        language: Of the prompts; by the report's words if None.

    Yields:
        A sample for each picture of a good row, and a `BadRow` for another.

    Raises:
        DataError: The file is not a JSON object of lists, or a split has a name that is not known.
    """
    check_choice("several_images", several_images, SeveralImages)
    content = load_json(path)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: expected {SCHEMA}, found {kind_of(content)}. Put the rows below their split.")
    for key, rows in content.items():
        if split_name(key) is None or not isinstance(rows, list):
            raise DataError(f"{path}: expected train, val and test, each a list, found {key!r}: {kind_of(rows)}.")
    folders = ImageFolders(path.parent, image_dir or _default_folder(path.parent))
    questions = FixedQuestion({"zh": QUESTION, "en": ENGLISH_QUESTION}, question, language)
    for key, rows in content.items():
        for number, row in enumerate(rows, start=1):
            row_name = f"{key}:{number}"
            if not isinstance(row, dict):
                yield not_an_object(row_name, row, '{"id", "report", "image_path"}')
                continue
            check = RowCheck(row_name)
            report = check.text(row, "report")
            names = _image_names(check, row)
            refuse_several(check, len(names), several_images)
            taken = names if several_images == "each" else names[:1]
            images = [check.image(folders, image_name) for image_name in taken]
            split = split_name(key)
            if "split" in row and split_name(row["split"]) != split:
                check.fail(f"'split' {key!r} as the list it stands in", repr(row["split"]), "move the row or mend it")
            meta = check.meta({key: value for key, value in row.items() if key not in _KNOWN_KEYS})
            if bad := check.bad_row():
                yield bad
                continue
            prompt_language, prompt = questions.about(report)
            sample = Sample(
                id=f"{name}#{row_name}",
                group=read_group(check, row) or group_name(row.get("id")) or f"{name}#{row_name}",
                image=None,
                turns=(Turn(prompt, report.strip()),),
                language=prompt_language,
                meta={"split": split, "study": str(row.get("study_id") or row.get("id") or row_name), **meta},
            )
            yield from spread_images(sample, [image for image in images if image is not None], several_images)


def _default_folder(folder: Path) -> Path | None:
    """R2Gen keeps the pictures in `images`, beside the file."""
    return folder / _IMAGES if (folder / _IMAGES).is_dir() else None


def _image_names(check: RowCheck, row: dict[str, Any]) -> list[str]:
    """The row's pictures; a single one may stand without its list."""
    value = row.get("image_path")
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        actual = "none" if "image_path" not in row else "an empty list" if names == [] else kind_of(value)
        check.fail("'image_path' to be a list of file names", actual, "name the study's pictures")
        return []
    return names
