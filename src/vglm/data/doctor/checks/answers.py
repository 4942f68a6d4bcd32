"""Languages of questions and answers, and text that does not belong in an answer."""

from collections.abc import Iterator

import numpy as np

from vglm.data.doctor.checks.common import (
    NOTE,
    WARNING,
    about,
    count_of,
    example,
    examples,
    head,
    listed,
    rows_of,
    verb,
)
from vglm.data.doctor.finding import Finding, Table
from vglm.data.doctor.survey import Survey
from vglm.data.doctor.texts import SCRIPT_NAMES, Mark, Script, evidence, marks_of
from vglm.data.sample import Sample

_STRAY_SHARE = 0.05


def answers_to_look_at(survey: Survey) -> Iterator[Finding]:
    """Answers that are empty or hold phrases and tokens that nobody wants the model to learn."""
    kinds = {
        Mark.EMPTY: ("no answer, such as N/A or a dash", "The model would learn to say nothing."),
        Mark.BOILERPLATE: (
            "phrases of a language model, such as an apology",
            "They come from the program that wrote or translated the answers; the model would learn them.",
        ),
        Mark.UNRESOLVED: (
            "unresolved tokens, such as XXXX or <image>",
            "The model would learn to write them. Complete the answers where you can.",
        ),
        Mark.GARBLED: (
            "garbled characters or HTML entities",
            "A file was read in the wrong encoding or cut out of a web page. Repair it at its source.",
        ),
    }
    for mark, (what, consequence) in kinds.items():
        rows = np.flatnonzero(survey.rows["marks"] & mark)
        if len(rows):
            yield Finding(
                WARNING,
                f"{count_of(len(rows), 'answer')} {'has' if len(rows) == 1 else 'have'} {what}",
                f"{consequence} --fix leaves the rows out.",
                tuple(example(survey, row, evidence(_marked_answer(survey.sample(row)))) for row in head(rows)),
            )
    rows = np.flatnonzero(survey.rows["marks"] & Mark.DETACHED)
    yield from about(
        survey,
        rows,
        f"{count_of(len(rows), 'answer')} {'has' if len(rows) == 1 else 'have'} blanks before punctuation, as"
        " tokenised captions do, or characters without width",
        "The model's answers never have them, for decoding drops them. Exact match compares without them; BLEU and"
        " its like do not. Write the answers as they are to be read.",
        NOTE,
    )
    rows = np.flatnonzero(survey.rows["open_question"])
    if len(rows):
        yield Finding(
            WARNING,
            f"{count_of(len(rows), 'question')} {verb('hold', len(rows))} an unresolved token",
            "Such as {name} or <|user|>, which is ordinary text to VisualGLM. Fill it in, or take it out.",
            tuple(example(survey, row, evidence(survey.sample(row).question)) for row in head(rows)),
        )


def _marked_answer(sample: Sample) -> str:
    return next((turn.answer for turn in sample.turns if marks_of(turn.answer) & ~Mark.DETACHED), sample.answer)


def languages(survey: Survey) -> Iterator[Finding]:
    """What the questions and answers are written in."""
    rows = survey.rows
    if not len(rows):
        return
    asked_in, answered_in = rows["question_language"], rows["answer_language"]
    counts = {script: (int((asked_in == script).sum()), int((answered_in == script).sum())) for script in Script}
    present = [script for script in Script if any(counts[script])]
    yield Finding(
        NOTE,
        "Answers: "
        + listed(f"{counts[script][1]:,} {SCRIPT_NAMES[script]}" for script in present if counts[script][1]),
        table=Table(
            ("language", "questions", "answers"),
            [(SCRIPT_NAMES[script], f"{counts[script][0]:,}", f"{counts[script][1]:,}") for script in present],
        ),
    )
    clear = (int(Script.CHINESE), int(Script.LATIN))
    crossed = np.isin(asked_in, clear) & np.isin(answered_in, clear) & (asked_in != answered_in) & rows["is_sentence"]
    if crossed.any():
        yield Finding(
            WARNING,
            f"{count_of(int(crossed.sum()), 'answer')} in another language than the question",
            "Fine if the question asks for it; else the model learns to mix. Translate one side.",
            examples(survey, np.flatnonzero(crossed)),
        )
    frame = (rows["is_english"] & (asked_in == Script.CHINESE)) | (~rows["is_english"] & (asked_in == Script.LATIN))
    if frame.any():
        yield Finding(
            WARNING,
            f"{count_of(int(frame.sum()), 'question')} in the frame of the other language",
            "A Chinese prompt reads 问：…答：, an English one Q:…A:. Set `english` in the rows, or `language` as"
            " an option.",
            examples(survey, np.flatnonzero(frame)),
        )
    main = max(clear, key=lambda script: counts[Script(script)][1])
    other = clear[1 - clear.index(main)]
    stray = np.flatnonzero((answered_in == other) & rows["is_sentence"] & ~crossed)
    if len(stray) and counts[Script(other)][1] < _STRAY_SHARE * len(rows):
        yield Finding(
            NOTE,
            f"{rows_of(len(stray))} in {SCRIPT_NAMES[Script(other)]} among {len(rows):,}",
            "Too few to learn a language from; check that they belong here.",
            examples(survey, stray),
        )
