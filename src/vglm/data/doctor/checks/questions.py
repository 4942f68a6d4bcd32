"""Questions that belong to another task too."""

from collections.abc import Iterator

import numpy as np

from vglm.data.doctor.checks.common import (
    NOTE,
    RETENTION,
    about,
    count_classes,
    count_of,
    in_split,
    rows_of,
    short,
    verb,
)
from vglm.data.doctor.finding import Finding, Table
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
        f"{count_of(len(counts), 'different question')} in {rows_of(len(table))}",
        table=Table(
            ("question", "rows"),
            [(short(survey.sample(row.first).question, 60), f"{row.rows:,}") for row in counts[:5].itertuples()],
        ),
    )
    trained = texts[in_split(survey, "train")] if "train" in survey.splits else texts
    general = [hash_text(normalise(question)) for question in GENERAL_QUESTIONS]
    is_retention = in_split(survey, RETENTION)
    taken = np.flatnonzero(texts.isin(general) & texts.isin(trained) & ~is_retention)
    yield from about(
        survey,
        taken,
        f"{rows_of(len(taken))} {verb('ask', len(taken))} what the model answers already about any picture",
        "After tuning it would give such answers to every picture. Ask in words that belong to this task alone.",
    )
    if RETENTION in survey.splits:
        shared = np.flatnonzero(texts.isin(texts[is_retention]) & ~is_retention)
        yield from about(
            survey,
            shared,
            f"{rows_of(len(shared))} {verb('ask', len(shared))} a question of the retention set",
            "The retention set is to show what is forgotten of other tasks. Reword the question of this task.",
        )
    for path, hashes in survey.other_tasks.items():
        shared = np.flatnonzero(texts.isin(hashes))
        yield from about(
            survey,
            shared,
            f"{rows_of(len(shared))} {verb('ask', len(shared))} a question of {path} too",
            "One model cannot tell which of the two tasks is meant. Reword one of them.",
        )
    is_named = table["kind"] != (survey.kinds.index("") if "" in survey.kinds else -1)
    pairs = table[is_named & ~is_retention].drop_duplicates(["question", "kind"]).sort_values(["question", "kind"])
    several = pairs[pairs["question"].duplicated(keep=False)]
    yield from about(
        survey,
        several.index,
        f"{count_of(several['question'].nunique(), 'question')} asked for more than one kind of answer",
        "The same words mean different tasks. Reword them, so that the model can tell what is wanted.",
    )
