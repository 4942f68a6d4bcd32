"""Scores of published benchmarks of yes-or-no questions, as their own tools count: MME and POPE.

```
mme_score           sum over categories of 100 x (accuracy + accuracy+), accuracy+ = both questions on a picture right
pope_f1             of "yes", from precision and recall
```

They read what the readers of these formats (`vglm.data.readers`) put into a sample's metadata: `category` and `pair`.
All are functions of sums over samples, so that intervals and tests resample whole groups (a picture's questions).

Answers are read as each benchmark's own tool reads them: MME's looks for yes and no in the first four characters,
POPE's takes a first sentence without "no" and "not" for "yes", refusals too. `yes_no_accuracy` and `yes_no_parsed`
stand beside them: the same questions, read with care (`parsing`).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.choices import all_right
from vglm.evaluation.score.metrics.parsing import parse_label
from vglm.evaluation.score.metrics.text import OWN
from vglm.evaluation.score.statistics import Statistic

YES_NO = ("yes", "no")
PERCEPTION = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
"""MME's categories, as eval_tool/calculation.py sorts them."""


# --- yes and no ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 16)  # used by all metrics, arms and slices
def _yes_or_no(text: str) -> str | None:
    return parse_label(text, YES_NO)


def read_as_mme(text: str) -> str | None:
    """Yes or no by MME's tool: the whole answer, or what its first four characters hold; None for "other".

    Source: `parse_pred_ans` in eval_tool/calculation.py of BradyFU/Awesome-Multimodal-Large-Language-Models.
    """
    head = text.lower()[:4]
    return "yes" if "yes" in head else "no" if "no" in head else None


def read_as_pope(text: str) -> str:
    """Yes or no by POPE's tool: no where the first sentence has the word "no", "No" or "not", else yes.

    Source: RUCAIBox/POPE:evaluate.py.
    """
    words = text.split(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


Reader = Callable[[str], str | None]


def _yes_no(records: Sequence[Prediction], read: Reader) -> tuple[Rows, Rows, Rows]:
    """Whether each reference is yes, each answer says yes, each answer says no, shapes (n,)."""
    true = [_yes_or_no(record.reference) for record in records]
    wrong = [record for record, label in zip(records, true, strict=True) if label is None]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(records)} references are neither yes nor no (first: {wrong[0].id!r},"
            f" {wrong[0].reference!r}); these metrics are for yes-or-no questions."
        )
    named = [None if record.error is not None else read(record.prediction) for record in records]
    return (
        np.array([label == "yes" for label in true], dtype=np.float64),
        np.array([label == "yes" for label in named], dtype=np.float64),
        np.array([label == "no" for label in named], dtype=np.float64),
    )


def _yes_no_hits(records: Sequence[Prediction], read: Reader = read_as_mme) -> Rows:
    true, yes, no = _yes_no(records, read)
    return np.where(true > 0, yes, no)


def _yes_no_rows(records: Sequence[Prediction]) -> Rows:
    hits = _yes_no_hits(records, _yes_or_no)
    return np.stack([hits, np.ones(len(hits))], axis=1)


def _yes_no_parsed(records: Sequence[Prediction]) -> Rows:
    _, yes, no = _yes_no(records, _yes_or_no)
    return np.stack([yes + no, np.ones(len(yes))], axis=1)


_READ = f"yes/no in words, statements, refusals are no answer|unparsed wrong|lower case|not cut|{OWN}"
YES_NO_ACCURACY = Metric("yes_no_accuracy", "Yes/no accuracy", _READ, table=_yes_no_rows)
YES_NO_PARSED = Metric("yes_no_parsed", "Answers that say yes or no", _READ, table=_yes_no_parsed)


def _pope_rows(records: Sequence[Prediction]) -> Rows:
    """(right, yes rightly, yes said, yes true, 1), shape (n, 5)."""
    true, yes, no = _yes_no(records, read_as_pope)
    return np.stack([np.where(true > 0, yes, no), true * yes, yes, true, np.ones(len(true))], axis=1)


def _ratio(above: int, below: int) -> Statistic:
    def statistic(sums: Rows) -> Rows:
        return np.asarray(sums[..., above] / sums[..., below])

    return statistic


def _pope_f1(sums: Rows) -> Rows:
    return np.asarray(2 * sums[..., 1] / (sums[..., 2] + sums[..., 3]))


_POPE = (
    "POPE evaluate.py: no where the first sentence has no, No or not, else yes|any other case|otherwise not cut|" + OWN
)
POPE_ACCURACY, POPE_PRECISION, POPE_RECALL, POPE_F1 = (
    Metric(
        f"pope_{name}",
        f"POPE {title}",
        f"{_POPE}|{how}",
        table=_pope_rows,
        statistic=statistic,
        decides=name == "accuracy",
    )
    for name, title, how, statistic in (
        ("accuracy", "accuracy", "right answers", _ratio(0, 4)),
        ("precision", "precision of yes", "of the answers that say yes", _ratio(1, 2)),
        ("recall", "recall of yes", "of the questions where yes is right", _ratio(1, 3)),
        ("f1", "F1 of yes", "harmonic mean of precision and recall", _pope_f1),
    )
)
POPE_YES_RATIO = Metric(
    "pope_yes_ratio",
    "POPE share of yes",
    f"{_POPE}|answers that say yes of all; half of them where the set is balanced",
    table=_pope_rows,
    statistic=_ratio(2, 4),
    higher_is_better=None,
)
"""Source: Li et al. 2023, "Evaluating object hallucination in large vision-language models", section 5, and
RUCAIBox/POPE:evaluate.py."""


# --- MME -------------------------------------------------------------------------------------------------------------


def _mme_labels(records: Sequence[Prediction]) -> tuple[list[str], list[object]]:
    """Category and pair of each record."""
    lacking = [record for record in records if not {"category", "pair"} <= set(record.meta)]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(records)} samples have no category and pair (first: {lacking[0].id!r}); these"
            " metrics are for questions as the reader of mme makes them."
        )
    return [str(record.meta["category"]) for record in records], [
        (record.split, record.meta["pair"]) for record in records
    ]


def _mme_rows(records: Sequence[Prediction]) -> Rows:
    hits = _yes_no_hits(records)
    return np.stack([hits, np.ones(len(hits))], axis=1)


def _mme_plus_rows(records: Sequence[Prediction]) -> Rows:
    _, pairs = _mme_labels(records)
    return all_right(_yes_no_hits(records), pairs)


def _mme_score_rows(records: Sequence[Prediction], chosen_categories: Sequence[str] | None) -> Rows:
    """For each of C categories (right, questions, pairs right, pairs), shape (n, 4 C)."""
    categories, pairs = _mme_labels(records)
    names = sorted(set(categories) if chosen_categories is None else set(categories) & set(chosen_categories))
    if not names:
        raise DataError(f"no sample is of the categories {', '.join(chosen_categories or ())}.")
    hits = _yes_no_hits(records)
    both = all_right(hits, pairs)
    rows = np.zeros((len(records), 4 * len(names)))
    for index, category in enumerate(categories):
        if category in names:
            start = 4 * names.index(category)
            rows[index, start : start + 4] = (hits[index], 1, *both[index])
    return rows


def _mme_score(sums: Rows) -> Rows:
    """The sum over categories; in a resample without some of them, as many times the mean of those that are there."""
    parts = sums.reshape(*sums.shape[:-1], -1, 4)
    count = parts.shape[-2]
    is_there = parts[..., 3] > 0
    scores = 100 * (parts[..., 0] / np.maximum(parts[..., 1], 1) + parts[..., 2] / np.maximum(parts[..., 3], 1))
    return np.asarray(count * np.where(is_there, scores, 0).sum(axis=-1) / is_there.sum(axis=-1))


_MME = "MME calculation.py: yes or no in the first four characters, else wrong|lower case|otherwise not cut|" + OWN
MME_ACCURACY = Metric("mme_accuracy", "MME accuracy", f"{_MME}|over all questions", table=_mme_rows, decides=True)
MME_ACCURACY_PLUS = Metric(
    "mme_accuracy_plus",
    "MME accuracy+",
    f"{_MME}|over pictures, all questions on one right",
    table=_mme_plus_rows,
)
MME_SCORE, MME_PERCEPTION, MME_COGNITION = (
    Metric(
        f"mme_{name}",
        f"MME {title}",
        f"{_MME}|sum over {what} of 100 x (accuracy + accuracy+), 0 to 200 each",
        table=partial(_mme_score_rows, chosen_categories=chosen_categories),
        statistic=_mme_score,
        unit="",
    )
    for name, title, what, chosen_categories in (
        ("score", "score", "categories", None),
        ("perception", "perception", "the 10 categories of perception", PERCEPTION),
        ("cognition", "cognition", "the 4 categories of cognition", COGNITION),
    )
)
"""Source: Fu et al. 2023, "MME: a comprehensive evaluation benchmark for multimodal large language models", section
2.3, and eval_tool/calculation.py in BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation."""

BENCHMARK_METRICS = (
    MME_SCORE,
    MME_PERCEPTION,
    MME_COGNITION,
    MME_ACCURACY,
    MME_ACCURACY_PLUS,
    POPE_ACCURACY,
    POPE_PRECISION,
    POPE_RECALL,
    POPE_F1,
    POPE_YES_RATIO,
    YES_NO_ACCURACY,
    YES_NO_PARSED,
)
