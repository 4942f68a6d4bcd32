r"""Which of its question's choices an answer selects: multiple choice (MMBench, ScienceQA, ...), yes and no.

```
meta {"choices": '["A", "B"]', "options": "A. a cat\nB. a dog"}, reference "B"
"B", "(B)", "a dog", "It is a dog."     right: the choice by its letter, or by what the letter stands for
"A and B", "a horse"                    unparsed, which is wrong

choice_accuracy     the choice that the answer takes is the right one
choice_parsed       it takes one at all
circular_accuracy   right in all rotations of the question's options
```

Where the data names no choices, those that were scored by likelihood count. Questions without any are left out.
"""

import json
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.parsing import parse_choice
from vglm.evaluation.score.metrics.text import OWN


def own_choices(record: Prediction) -> tuple[str, ...]:
    """The answers that a record's own question offers, `Sample.meta["choices"]`; none where the data names none."""
    try:
        choices = json.loads(str(record.meta.get("choices", "")))
    except ValueError:
        return ()
    return tuple(choices) if isinstance(choices, list) and all(isinstance(choice, str) for choice in choices) else ()


def taken_choice(text: str, record: Prediction, choices: Sequence[str]) -> str | None:
    """The choice that a text selects, by its name, its letter or the text of the letter, see `parse_choice`.

    Args:
        text: An answer, or the reference.
        record: Whose question it is; its `meta["options"]`, as the readers write them, say what letters stand for.
        choices: What the question offers.
    """
    return text if text in choices else _parse(text, tuple(choices), str(record.meta.get("options", "")))


@lru_cache(maxsize=1 << 16)  # used by all metrics, arms and slices
def _parse(text: str, choices: tuple[str, ...], options: str) -> str | None:
    lines = [line.partition(". ") for line in options.split("\n")]
    meanings = [meaning for _, _, meaning in lines] if [letter for letter, _, _ in lines] == list(choices) else []
    return parse_choice(text, choices, meanings)


def index_of_reference(record: Prediction, choices: Sequence[str]) -> int | None:
    """The index of the choice that the reference is or names."""
    true = taken_choice(record.reference, record, choices)
    return None if true is None else choices.index(true)


def _taken(records: Sequence[Prediction]) -> Rows:
    """(the right choice is taken, some choice is, the question has choices), shape (n, 3)."""
    rows, problems = np.zeros((len(records), 3)), []
    for row, record in zip(rows, records, strict=True):
        choices = own_choices(record) or tuple(record.likelihoods)
        if not choices:
            continue
        true = index_of_reference(record, choices)
        if true is None:
            problems.append(f"{record.split} {record.id!r}: {record.reference!r} is none of {'/'.join(choices)}")
            continue
        taken = None if record.error is not None else taken_choice(record.prediction, record, choices)
        row[:] = taken == choices[true], taken is not None, 1
    if problems:
        raise DataError(
            f"{len(problems)} of {len(records)} questions have no right choice (first: {'; '.join(problems[:3])})."
            " Correct the choices or the references."
        )
    if not rows[:, 2].any():
        raise DataError(
            f"none of {len(records)} questions has choices. Choose other metrics, or name choices in the data or with"
            " choices=[...]."
        )
    return rows


def _circular_rows(records: Sequence[Prediction]) -> Rows:
    """(all rotations right, 1) at each question's first record and zeros at its others, shape (n, 2)."""
    rows = _taken(records)
    questions = [(record.split, record.meta.get("question_index", record.id)) for record in records]
    if len(set(questions)) == len(questions):
        raise DataError("no question comes with its options rotated, so there is no circular evaluation.")
    return all_right(rows[:, 0], questions) * rows[:, [2]]


def all_right(hits: Rows, keys: Sequence[object]) -> Rows:
    """(all hits of a key are 1, 1) at the key's first row and zeros at its others, shape (n, 2)."""
    first: dict[object, int] = {}
    rows = np.zeros((len(hits), 2))
    for index, (key, hit) in enumerate(zip(keys, hits, strict=True)):
        start = first.setdefault(key, index)
        rows[start] = (rows[start, 0] * hit, 1) if start != index else (hit, 1)
    return rows


_HOW = (
    f"own choices, or those scored by likelihood|by name or letter, not denied|unparsed wrong|lower case|not cut|{OWN}"
)
CHOICE_ACCURACY = Metric(
    "choice_accuracy",
    "Accuracy (choices)",
    _HOW,
    table=lambda records: _taken(records)[:, [0, 2]],
    decides=True,
    title_zh="所选答案的准确率",
)
CHOICE_PARSED = Metric(
    "choice_parsed",
    "Answers that take a choice",
    _HOW,
    table=lambda records: _taken(records)[:, [1, 2]],
    title_zh="选出选项的回答",
)
CIRCULAR_ACCURACY = Metric(
    "circular_accuracy", "Circular accuracy", f"{_HOW}|right in all rotations of a question", table=_circular_rows
)
"""Source: Liu et al. 2023, "MMBench: is your multi-modal model an all-around player?", section 4.1, and
open-compass/VLMEvalKit:vlmeval/dataset/utils/multiple_choice.py (`mcq_circular_eval`)."""
CHOICE_METRICS = (CHOICE_ACCURACY, CHOICE_PARSED, CIRCULAR_ACCURACY)
