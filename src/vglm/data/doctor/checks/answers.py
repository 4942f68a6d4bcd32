"""Languages of questions and answers, and text that does not belong in an answer."""

from collections.abc import Iterator

import numpy as np

from vglm.data.doctor.checks.common import (
    NOTE,
    WARNING,
    about,
    example,
    examples,
    head,
    listed,
    rows_of,
)
from vglm.data.doctor.finding import SAY, Finding, Table
from vglm.data.doctor.survey import Survey
from vglm.data.doctor.texts import Mark, Script, evidence, marks_of
from vglm.data.sample import Sample

_STRAY_SHARE = 0.05


def answers_to_look_at(survey: Survey) -> Iterator[Finding]:
    """Answers that are empty or contain phrases and tokens that the model should not learn."""
    for mark in (Mark.EMPTY, Mark.BOILERPLATE, Mark.UNRESOLVED, Mark.GARBLED):
        rows = np.flatnonzero(survey.rows["marks"] & mark)
        if len(rows):
            key = f"answers.{str(mark.name).lower()}"
            yield Finding(
                WARNING,
                SAY.counted(key, len(rows)),
                SAY(f"{key}.detail"),
                tuple(example(survey, row, evidence(_marked_answer(survey.sample(row)))) for row in head(rows)),
            )
    yield from about(survey, np.flatnonzero(survey.rows["marks"] & Mark.DETACHED), "answers.detached", NOTE)
    rows = np.flatnonzero(survey.rows["open_question"])
    if len(rows):
        yield Finding(
            WARNING,
            SAY.counted("open_questions.title", len(rows)),
            SAY("open_questions.detail", placeholder="{name}"),
            tuple(example(survey, row, evidence(survey.sample(row).question)) for row in head(rows)),
        )


def _marked_answer(sample: Sample) -> str:
    return next((turn.answer for turn in sample.turns if marks_of(turn.answer) & ~Mark.DETACHED), sample.answer)


def languages(survey: Survey) -> Iterator[Finding]:
    """What the questions and answers are written in."""
    rows = survey.rows
    if not len(rows):
        return
    question_script, answer_script = rows["question_language"], rows["answer_language"]
    counts = {
        script: (int((question_script == script).sum()), int((answer_script == script).sum())) for script in Script
    }
    present = [script for script in Script if any(counts[script])]
    name = {script: SAY(f"languages.{script.name.lower()}") for script in Script}
    answered = [script for script in present if counts[script][1]]
    yield Finding(
        NOTE,
        SAY(
            "languages.title",
            counts=listed(SAY("languages.count", n=counts[script][1], language=name[script]) for script in answered),
        ),
        table=Table(
            tuple(SAY(f"languages.{column}") for column in ("language", "questions", "answers")),
            [(name[script], f"{counts[script][0]:,}", f"{counts[script][1]:,}") for script in present],
        ),
    )
    clear = (int(Script.CHINESE), int(Script.LATIN))
    crossed = (
        np.isin(question_script, clear)
        & np.isin(answer_script, clear)
        & (question_script != answer_script)
        & rows["is_sentence"]
    )
    yield from about(survey, np.flatnonzero(crossed), "languages.crossed")
    frame = (rows["is_english"] & (question_script == Script.CHINESE)) | (
        ~rows["is_english"] & (question_script == Script.LATIN)
    )
    yield from about(survey, np.flatnonzero(frame), "languages.frame")
    main = max(clear, key=lambda script: counts[Script(script)][1])
    other = clear[1 - clear.index(main)]
    stray = np.flatnonzero((answer_script == other) & rows["is_sentence"] & ~crossed)
    if len(stray) and counts[Script(other)][1] < _STRAY_SHARE * len(rows):
        yield Finding(
            NOTE,
            SAY("languages.stray", rows=rows_of(len(stray)), language=name[Script(other)], all=len(rows)),
            SAY("languages.stray_detail"),
            examples(survey, stray),
        )
