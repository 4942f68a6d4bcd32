"""Write a copy of a data set, with all problems fixed that a rule can fix, and a list of the changes.

The source is not changed.

    cleaned/
      data.jsonl       the rows that are left, in the format `jsonl`, each with its group and, where known, its split
      images/          their pictures, all of them decoded and found good
      changes.jsonl    one line a change: {"row": "train.json#4", "change": "left out", "why": "..."}

A line of `data.jsonl`:

    {"image": "images/2_1.png", "question": "诊断？", "answer": "心脏大小正常。", "group": "2", "split": "train"}
"""

import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from vglm.data.doctor.checks import leaks, repeated_rows
from vglm.data.doctor.diagnosis import Diagnosis
from vglm.data.doctor.finding import progress_title
from vglm.data.doctor.survey import Survey
from vglm.data.doctor.texts import Mark
from vglm.data.readers.unread import KEPT, affects_question
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.windowing import WINDOW_KEY
from vglm.errors import DataError
from vglm.files import check_vacant, new_folder

DATA_FILE = "data.jsonl"
CHANGES_FILE = "changes.jsonl"

_MARKS = {
    Mark.EMPTY: "an answer is empty",
    Mark.BOILERPLATE: "an answer holds boilerplate of a language model",
    Mark.UNRESOLVED: "an answer holds an unresolved token",
    Mark.GARBLED: "an answer holds garbled characters",
}
# Columns of the format that `Sample.meta` must not seem to fill.
_TAKEN = re.compile(
    "images?|img|image_path|image_file|file_?names?|picture|question|prompt|query|instruction|answer|label|response|output"
    "|completion|multiple_choice_answer|caption|text|txt|description|report|split|group|history|english|messages"
    "|conversations|system|system_prompt"
)
_SUFFIXES = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}


def write_cleaned_copy(diagnosis: Diagnosis, folder: Path) -> dict[str, int]:
    """Write the cleaned copy.

    Left out are rows that cannot be read, whose picture is missing or broken, whose answers are empty, boilerplate,
    unresolved or garbled, that repeat an earlier row, and rows of a split trained on that share a group, a picture or a
    text with one tested on. Pictures of equal pixels become one file with one group, pictures turned by EXIF are stored
    upright, white space around texts goes. Conflicting answers, look-alikes, languages and classes need a human.

    Args:
        diagnosis: What `examine` yielded, while it lasts.
        folder: Where to write; it must not exist or be empty, and holds all of the copy or nothing afterwards.

    Returns:
        How often each sort of change was made.

    Raises:
        DataError: The pictures were not decoded, no row would be left, or `folder` holds something already, lies in the
            source or cannot be written.
    """
    survey = diagnosis.survey
    if not survey.was_decoded:
        raise DataError("--fix has to see the pictures. Run it without --no-images.")
    check_vacant(folder)
    source = Path(survey.source.path)
    if source.is_dir() and Path(os.path.abspath(folder)).is_relative_to(os.path.abspath(source)):
        raise DataError(f"{folder} lies in {source}, which is not to be touched. Choose another folder.")
    reasons = _reasons_to_leave_out(survey)
    if len(reasons) == len(survey):
        raise DataError(f"{source}: no row would be left, so nothing was written.")
    with new_folder(folder) as staging:
        return _write(survey, reasons, staging)


def _reasons_to_leave_out(survey: Survey) -> dict[int, str]:
    """Why rows that could be read are left out all the same."""
    reasons: dict[int, str] = {}

    def leave_out(rows: NDArray[np.intp], why: str) -> None:
        for row in rows.tolist():
            reasons.setdefault(row, why)

    if survey.faults:
        faulty = np.isin(survey.image_of_row, np.fromiter(survey.faults, np.intp))
        for row in np.flatnonzero(faulty).tolist():
            reasons[row] = survey.faults[int(survey.image_of_row[row])]
    for mark, why in _MARKS.items():
        leave_out(np.flatnonzero(survey.rows["marks"] & mark), why)
    leave_out(repeated_rows(survey), "picture, question and answer are those of an earlier row")
    for leak in leaks(survey):
        if leak.is_certain:
            leave_out(leak.train_rows, f"{leak.train} shares {leak.shared} with {leak.tested}")
    return reasons


def _write(survey: Survey, reasons: Mapping[int, str], staging: Path) -> dict[str, int]:
    (staging / "images").mkdir()
    with (
        (staging / DATA_FILE).open("w", encoding="utf-8") as data,
        (staging / CHANGES_FILE).open("w", encoding="utf-8") as file,
    ):
        changes = _Changes(file)
        for name, bad in survey.bad():
            changes.note(f"{name}:{bad.row}", "left out", bad.fault)
        pictures = _Pictures(survey, staging, changes)
        samples = tqdm(survey.samples(), desc=progress_title("writing"), total=len(survey), unit="row", delay=2)
        for row, sample in enumerate(samples):
            if row in reasons:
                changes.note(sample.id, "left out", reasons[row])
                continue
            record = _record(sample, changes)
            if sample.image is not None:
                record |= pictures.use(row, sample)
            print(json.dumps(record, ensure_ascii=False), file=data)
    return dict(changes.counts)


class _Changes:
    """The list of changes, written as they are made."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.counts: Counter[str] = Counter()

    def note(self, row: str, change: str, why: str) -> None:
        """Write one line."""
        self.counts[change] += 1
        print(json.dumps({"row": row, "change": change, "why": why}, ensure_ascii=False), file=self._file)


class _Pictures:
    """Copies each distinct picture when a row needs it first."""

    def __init__(self, survey: Survey, staging: Path, changes: _Changes) -> None:
        self._survey = survey
        self._staging = staging
        self._changes = changes
        self._used: set[str] = set()
        self._first: dict[int, tuple[str, str, str]] = {}  # content -> file, group, where it was

    def use(self, row: int, sample: Sample) -> dict[str, str]:
        """The columns `image` and `group` of a row."""
        content = int(self._survey.content_of_row[row])
        if content not in self._first:
            self._first[content] = self._copy(row, sample), sample.group, str(sample.image)
        file, group, origin = self._first[content]
        if origin != str(sample.image):
            self._changes.note(sample.id, "picture replaced", f"{sample.image} has the pixels of {origin}")
        if group != sample.group:
            self._changes.note(sample.id, "group changed", f"{sample.group} shows a picture of {group}")
        return {"image": file, "group": group}

    def _copy(self, row: int, sample: Sample) -> str:
        record = self._survey.pictures[self._survey.image_of_row[row]]
        image = sample.image
        assert isinstance(image, Path | ImageSlice)
        if isinstance(image, Path):
            stem, suffix = image.stem, image.suffix
        else:
            stem, suffix = f"{row}", _SUFFIXES.get(str(record["format"]), f".{str(record['format']).lower()}")
        if record["is_turned"]:
            suffix = ".png"
        name = f"{stem}{suffix}"
        if name.lower() in self._used:
            name = f"{stem}-{row}{suffix}"
        self._used.add(name.lower())
        target = self._staging / "images" / name
        if record["is_turned"]:
            with Image.open(image if isinstance(image, Path) else io.BytesIO(image.read_bytes())) as picture:
                upright = ImageOps.exif_transpose(picture)
                (upright if upright.mode in ("L", "RGB", "RGBA") else upright.convert("RGB")).save(target)
            self._changes.note(sample.id, "picture turned", f"{image} is stored upright, its EXIF orientation applied")
        elif isinstance(image, Path):
            shutil.copyfile(image, target)
        else:
            target.write_bytes(image.read_bytes())
        return f"images/{name}"


def _record(sample: Sample, changes: _Changes) -> dict[str, Any]:
    """A row of the copy, its picture aside."""
    turns = [[turn.question.strip(), turn.answer.strip()] for turn in sample.turns]
    if turns != [[turn.question, turn.answer] for turn in sample.turns]:
        changes.note(sample.id, "white space cut", "a text began or ended with white space")
    record: dict[str, Any] = {"question": turns[-1][0], "answer": turns[-1][1]}
    if len(turns) > 1:
        record["history"] = turns[:-1]
    record |= {"english": sample.language == "en", "group": sample.group}
    if isinstance(split := sample.meta.get("split"), str):
        record["split"] = split
    for key, value in sample.meta.items():
        if key not in ("split", "group"):
            record[f"meta_{key}" if _TAKEN.fullmatch(key) else key] = value
    if sample.window is not None:
        record[WINDOW_KEY] = sample.window.record()
    if keys := [key for key in record if key not in ("question", "answer", "history") and affects_question(key)]:
        record[KEPT] = keys
    return record
