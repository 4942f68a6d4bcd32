"""Rows and pictures that are there twice, and questions that have several answers."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vglm.data.doctor.checks.common import (
    NOTE,
    RETENTION,
    WARNING,
    about,
    count_of,
    examples,
    in_split,
    picture_example,
    rows_of,
    verb,
)
from vglm.data.doctor.finding import EXAMPLES, Finding
from vglm.data.doctor.pictures import READABLE
from vglm.data.doctor.survey import Survey

_SEVERAL_REFERENCES = 3


def duplicate_rows(survey: Survey) -> Iterator[Finding]:
    """Rows with the same picture, the same words and the same answer."""
    repeated = repeated_rows(survey)
    yield from about(
        survey,
        repeated,
        f"{rows_of(len(repeated))} {verb('repeat', len(repeated))} an earlier one:"
        " same picture, same question, same answer",
        "They weigh double in training, and a score on them counts them double. --fix keeps the first of each.",
    )


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
            f"Most questions have several answers, {answers.mean():.1f} a picture and question",
            "Such as the five captions of COCO. Training learns from each; a score compares with one at a time.",
            examples(survey, members.index),
        )
        return
    yield Finding(
        WARNING,
        f"{count_of(len(conflicts), 'picture and question', 'pictures and questions')} have different answers,"
        f" {rows_of(len(members))} in all",
        "No model can give all of them. Decide for one answer, or ask what tells them apart. --fix leaves them be.",
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
        f"{count_of(copies, 'picture')} {'has' if copies == 1 else 'have'} the pixels of another one under another"
        " name",
        "Groups made from names cannot know. --fix lets all rows use the first file and gives them one group.",
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
        f"{count_of(count, 'picture')} look almost like another one, in {count_of(len(sets), 'set')}",
        "Copies in another size or compression, or neighbouring frames. Keep one of each, or give them one group,"
        " so that none is tested on what it was trained with.",
        tuple(picture_example(survey, picture) for picture in shown[:EXAMPLES]),
    )
