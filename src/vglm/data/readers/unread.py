"""Refuse rows of which a reader would silently drop a part: unread question keys, image marks, empty texts.

{"question": "Which?", "options": ["a cat", "a dog"], "answer": "B"}     -> a bad row: 'options' would be lost
"""

import re
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.marks import settle_marks
from vglm.data.readers.rows import RowCheck, is_blank, quote
from vglm.data.sample import Sample, Turn

KEPT = "kept"
"""A row may name here those of its keys that are not part of the question; they stay in `Sample.meta`."""

_QUESTION_KEYS = frozenset(
    (
        *("system", "system_prompt", "input", "inputs", "context", "contexts", "passage", "paragraph", "hint", "hints"),
        *("lecture", "options", "choices", "multiple_choices", "candidates", "history", "tools", "functions"),
        *("video", "videos", "audio", "audios", "系统", "输入", "上下文", "提示", "选项", "历史"),
    )
)
_OPTION = re.compile(r"[A-H]|(?:option|choice|选项)s?[ _-]?(?:[a-hA-H]|\d)", re.IGNORECASE)


def refuse_unread(row: Sample | BadRow, keep: Collection[str]) -> Sample | BadRow:
    """Check the sample that a reader made of a row.

    Args:
        row: A sample, or a bad row, which passes through.
        keep: Keys that belong into `meta` and are not part of the question.

    Returns:
        The sample, with marks for its picture taken out of its questions, or what is wrong with it.
    """
    if isinstance(row, BadRow):
        return row
    meta = row.meta
    unread = [key for key in meta if affects_question(key) and _is_unread(key, row, keep)] if meta else []
    if not unread:
        for turn in row.turns:
            if "<" in turn.question or "[" in turn.question or is_blank(turn.question) or is_blank(turn.answer):
                break
        else:
            return row
    number = row.id.rpartition("#")[2]
    check = RowCheck(int(number) if number.isdecimal() else number)
    if unread:
        names = ", ".join(map(quote, unread))
        check.fail(
            "keys that are known",
            f"{names}, which may be part of what is asked",
            f"write it into the question, or set dataset.options.keep=[{','.join(unread)}] if it is no part of it",
        )
    answers = [turn.answer for turn in row.turns]
    images = [] if row.image is None else [row.image]
    questions, pictures = settle_marks(check, [turn.question for turn in row.turns], answers, images)
    if len(pictures) > len(images):
        check.fail("pictures in a field of their own", quote(str(pictures[0])), "name the picture there")
    return check.outcome(replace(row, turns=tuple(map(Turn, questions, answers))))


@lru_cache(maxsize=4096)
def affects_question(key: str) -> bool:
    """Whether a key of this name is likely to hold a part of the question."""
    return key.lower() in _QUESTION_KEYS or _OPTION.fullmatch(key) is not None


def _is_unread(key: str, row: Sample, keep: Collection[str]) -> bool:
    """Whether a key holds something that neither the reader uses nor the row excludes."""
    is_known = key in keep or key in row.meta.get(KEPT, ()) or row.meta[key] in (None, "", [], {})
    return not is_known and not _is_offered(key, row)


def _is_offered(key: str, row: Sample) -> bool:
    """Whether these are the texts one of which is the answer, for a model that chooses by likelihood."""
    values: Any = row.meta[key]
    return key == "choices" and isinstance(values, list) and row.answer in values
