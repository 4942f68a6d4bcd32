"""Questions that another task asks too."""

from collections.abc import Iterator

import numpy as np

from vglm.data.doctor.checks.common import (
    NOTE,
    RETENTION,
    about,
    count_classes,
    in_split,
    rows_of,
    short,
)
from vglm.data.doctor.finding import SAY, Finding, Table
from vglm.data.doctor.survey import Survey, hash_text
from vglm.data.doctor.texts import normalise

GENERAL_QUESTIONS = (
    "描述这张图片。",
    "描述一下这张图片。",
    "请描述这张图片。",
    "描述这张图片的内容。",
    "这张图片里有什么？",
    "图片里有什么？",
    "图中有什么？",
    "这张图片的内容是什么？",
    "这是什么？",
    "为这张照片写一个标题。",
    "Describe this image.",
    "Describe the image.",
    "Describe this picture.",
    "Can you describe the image?",
    "What is in the picture?",
    "What is in this image?",
    "What do you see?",
    "What is this?",
)
"""Questions that a VisualGLM answers before any tuning, about whatever picture."""


def questions(survey: Survey) -> Iterator[Finding]:
    """Questions that belong to another task too."""
    table = survey.table
    if table.empty:
        return
    texts = table["question"]
    counts = count_classes(texts)
    yield Finding(
        NOTE,
        SAY.counted("questions.title", len(counts), rows=rows_of(len(table))),
        table=Table(
            (SAY("questions.question"), SAY("classes.rows")),
            [(short(survey.sample(row.first).question, 60), f"{row.rows:,}") for row in counts[:5].itertuples()],
        ),
    )
    trained = texts[in_split(survey, "train")] if "train" in survey.splits else texts
    general = [hash_text(normalise(question)) for question in GENERAL_QUESTIONS]
    is_retention = in_split(survey, RETENTION)
    taken = np.flatnonzero(texts.isin(general) & texts.isin(trained) & ~is_retention)
    yield from about(survey, taken, "questions.general")
    if RETENTION in survey.splits:
        shared = np.flatnonzero(texts.isin(texts[is_retention]) & ~is_retention)
        yield from about(survey, shared, "questions.retention")
    for path, hashes in survey.other_tasks.items():
        shared = np.flatnonzero(texts.isin(hashes))
        yield from about(survey, shared, "questions.beside", path=path)
    is_named = table["kind"] != (survey.kinds.index("") if "" in survey.kinds else -1)
    pairs = table[is_named & ~is_retention].drop_duplicates(["question", "kind"]).sort_values(["question", "kind"])
    several = pairs[pairs["question"].duplicated(keep=False)]
    yield from about(survey, several.index, "questions.several", count=several["question"].nunique())
