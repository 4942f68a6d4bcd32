"""Duplicate rows and pictures, and questions that have several answers."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vglm.data.doctor.checks.common import (
    NOTE,
    RETENTION,
    WARNING,
    about,
    examples,
    in_split,
    picture_example,
    rows_of,
)
from vglm.data.doctor.finding import EXAMPLES, SAY, Finding
from vglm.data.doctor.pictures import READABLE
from vglm.data.doctor.survey import Survey

_SEVERAL_REFERENCES = 3


def duplicate_rows(survey: Survey) -> Iterator[Finding]:
    """Rows with the same picture, the same words and the same answer."""
    yield from about(survey, repeated_rows(survey), "duplicate_rows")


def repeated_rows(survey: Survey) -> NDArray[np.intp]:
    """The rows outside the retention set with the split, picture, words and answer of an earlier one."""
    is_repeated = survey.table.duplicated(["input", "answer", "split"])
    return np.flatnonzero(is_repeated & ~in_split(survey, RETENTION))


def conflicting_answers(survey: Survey) -> Iterator[Finding]:
    """Rows that ask the same about the same picture and are answered differently."""
    table = survey.table
    answers = table.groupby("input")["answer"].nunique()
    conflicts = answers[answers > 1]
    if conflicts.empty:
        return
    members = table[table["input"].isin(conflicts.index)]
    if (answers >= _SEVERAL_REFERENCES).sum() > 0.5 * len(answers):
        yield Finding(
            NOTE,
            SAY("conflicts.several", mean=answers.mean()),
            SAY("conflicts.several_detail"),
            examples(survey, members.index),
        )
        return
    yield Finding(
        WARNING,
        SAY.counted("conflicts.title", len(conflicts), rows=rows_of(len(members))),
        SAY("conflicts.detail"),
        examples(survey, members.sort_values("input", kind="stable").index),
    )


def duplicate_pictures(survey: Survey) -> Iterator[Finding]:
    """Files of different names with the same pixels."""
    readable = np.flatnonzero(survey.pictures["status"] == READABLE)
    pixels = pd.DataFrame(survey.pictures["pixels"][readable], index=readable, columns=["first", "second"])
    copies = int(pixels.duplicated().sum())
    if not copies:
        return
    sets = pixels[pixels.duplicated(keep=False)].groupby(["first", "second"]).groups.values()
    pictures = [picture for alike in sets for picture in alike[:2]]
    yield Finding(
        WARNING,
        SAY.counted("duplicate_pictures", copies),
        SAY("duplicate_pictures.detail"),
        tuple(picture_example(survey, int(picture)) for picture in pictures[:EXAMPLES]),
    )


def look_alikes(survey: Survey) -> Iterator[Finding]:
    """Pictures that differ in their pixels, but hardly to the eye."""
    sets = survey.look_alikes
    if not sets:
        return
    count = sum(map(len, sets))
    group_of = survey.rows["group"][survey.images]
    is_apart = [len(set(group_of[pictures].tolist())) > 1 for pictures in sets]
    ordered = sorted(zip(is_apart, sets, strict=True), reverse=True)
    shown = [picture for _, pictures in ordered for picture in pictures[:2]]
    yield Finding(
        WARNING if any(is_apart) else NOTE,
        SAY("look_alikes.title", pictures=SAY.counted("n.pictures", count), sets=SAY.counted("n.sets", len(sets))),
        SAY("look_alikes.detail"),
        tuple(picture_example(survey, picture) for picture in shown[:EXAMPLES]),
    )
