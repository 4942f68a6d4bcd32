"""Scores of published benchmarks, as their own tools count: MME, POPE, and multiple choice (MMBench, ScienceQA).

```
choice_accuracy     the option that an answer takes, by its letter or its text, is the right one
circular_accuracy   ... in all rotations of the question's options
mme_score           sum over categories of 100 x (accuracy + accuracy+), accuracy+ = both questions on a picture right
pope_f1             of "yes", from precision and recall
```

They read what the readers of these formats (`vglm.data.readers`) put into a sample's metadata: `options` and
`question_index`, `category` and `pair`. All are functions of sums over samples, so that intervals and tests resample
whole groups (a picture's questions, a question's rotations). An answer from which no option, or neither yes nor no, can
be read counts as wrong: MME's tool does the same, POPE's takes it for "yes", MMBench's asks a language model first.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.metrics.base import Metric, Rows
from vglm.evaluation.metrics.labels import parse_label
from vglm.evaluation.metrics.text import OWN, simplify
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.statistics import Statistic

YES_NO = ("yes", "no")
PERCEPTION = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
"""MME's categories, as eval_tool/calculation.py sorts them."""

_REMEMBERED = 1 << 16
"""Answers that are read once only, for all metrics, arms and slices."""


_ARTICLE = re.compile(r"\b[Aa]\s+(?=[a-z])(?!(?:and|or|is|was|as|because|since|for)\b)")
"""An article, which is no letter of an option."""


# --- multiple choice -------------------------------------------------------------------------------------------------


def read_options(text: str) -> dict[str, str]:
    """Options as the readers write them, by letter: "A. a cat" and "B. a dog", on two lines, are {"A": "a cat", ...}.

    Raises:
        DataError: A line is no option.
    """
    options = {}
    for line in text.split("\n"):
        letter, point, option = line.partition(". ")
        if not point or len(letter) != 1:
            raise DataError(f"expected options like 'A. a cat', one a line, found {line!r}. Read the data again.")
        options[letter] = option
    return options


@lru_cache(maxsize=_REMEMBERED)
def chosen_option(prediction: str, options: str) -> str | None:
    """The letter of the option that an answer takes.

    Args:
        prediction: The answer.
        options: As for `read_options`.

    Returns:
        The letter of the option whose text the answer equals; else the letter that it names, else that of the only
        option whose text it names, see `parse_label`; else None.
    """
    letters = read_options(options)
    plain = simplify(prediction)
    same = [letter for letter, text in letters.items() if plain and simplify(text) == plain]
    if len(same) == 1:
        return same[0]
    if (letter := parse_label(_ARTICLE.sub("", prediction), tuple(letters))) is not None:
        return letter
    text = parse_label(prediction, tuple(letters.values()))
    named = [letter for letter, option in letters.items() if option == text]
    return named[0] if len(named) == 1 else None


def _choice_hits(records: Sequence[Prediction]) -> Rows:
    """1.0 for each record whose option is the right one, shape (n,)."""
    lacking = [record for record in records if not isinstance(record.meta.get("options"), str)]
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(records)} samples have no options (first: {lacking[0].id!r}); these metrics are"
            " for multiple-choice questions as the readers of mmbench and scienceqa make them."
        )
    return np.array(
        [
            float(
                record.error is None
                and chosen_option(record.prediction, str(record.meta["options"])) == record.reference
            )
            for record in records
        ]
    )


def _choice_rows(records: Sequence[Prediction]) -> Rows:
    hits = _choice_hits(records)
    return np.stack([hits, np.ones(len(hits))], axis=1)


def _circular_rows(records: Sequence[Prediction]) -> Rows:
    """(all rotations right, 1) at each question's first record and zeros at its others, shape (n, 2)."""
    hits = _choice_hits(records)
    questions = [(record.split, record.meta.get("question_index", record.id)) for record in records]
    if len(set(questions)) == len(questions):
        raise DataError("no question comes with its options rotated, so there is no circular evaluation.")
    return _together(hits, questions)


def _together(hits: Rows, keys: Sequence[object]) -> Rows:
    """(all hits of a key are 1, 1) at the key's first row and zeros at its others, shape (n, 2)."""
    first: dict[object, int] = {}
    rows = np.zeros((len(hits), 2))
    for place, (key, hit) in enumerate(zip(keys, hits, strict=True)):
        start = first.setdefault(key, place)
        rows[start] = (rows[start, 0] * hit, 1) if start != place else (hit, 1)
    return rows


_CHOICE = f"letter or text of one option|unparsed wrong|lower case but for letters|not cut|{OWN}"
CHOICE_ACCURACY = Metric("choice_accuracy", "Accuracy (choices)", _CHOICE, table=_choice_rows)
CIRCULAR_ACCURACY = Metric(
    "circular_accuracy",
    "Circular accuracy",
    f"{_CHOICE}|a question counts where all its rotations are right|index modulo 1,000,000",
    table=_circular_rows,
)
"""Source: Liu et al. 2023, "MMBench: is your multi-modal model an all-around player?", section 4.1, and
open-compass/VLMEvalKit:vlmeval/dataset/utils/multiple_choice.py (`mcq_circular_eval`)."""


# --- yes and no ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_REMEMBERED)
def _said(text: str) -> str | None:
    return parse_label(text, YES_NO)


def _yes_no(records: Sequence[Prediction]) -> tuple[Rows, Rows, Rows]:
    """Whether each reference is yes, each answer says yes, each answer says no, shapes (n,)."""
    true = [_said(record.reference) for record in records]
    wrong = [record for record, label in zip(records, true, strict=True) if label is None]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {len(records)} references are neither yes nor no (first: {wrong[0].id!r},"
            f" {wrong[0].reference!r}); these metrics are for yes-or-no questions."
        )
    named = [None if record.error is not None else _said(record.prediction) for record in records]
    return (
        np.array([label == "yes" for label in true], dtype=np.float64),
        np.array([label == "yes" for label in named], dtype=np.float64),
        np.array([label == "no" for label in named], dtype=np.float64),
    )


def _yes_no_hits(records: Sequence[Prediction]) -> Rows:
    true, yes, no = _yes_no(records)
    return np.where(true > 0, yes, no)


def _pope_rows(records: Sequence[Prediction]) -> Rows:
    """(right, yes rightly, yes said, yes true, 1), shape (n, 5)."""
    true, yes, no = _yes_no(records)
    return np.stack([np.where(true > 0, yes, no), true * yes, yes, true, np.ones(len(true))], axis=1)


def _ratio(above: int, below: int) -> Statistic:
    def statistic(sums: Rows) -> Rows:
        return np.asarray(sums[..., above] / sums[..., below])

    return statistic


def _pope_f1(sums: Rows) -> Rows:
    return np.asarray(2 * sums[..., 1] / (sums[..., 2] + sums[..., 3]))


_POPE = f"yes/no in words|unparsed wrong and not yes|lower case|not cut|{OWN}"
POPE_ACCURACY, POPE_PRECISION, POPE_RECALL, POPE_F1 = (
    Metric(f"pope_{name}", f"POPE {title}", f"{_POPE}|{how}", table=_pope_rows, statistic=statistic)
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
    is_better_higher=None,
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
    return [str(each.meta["category"]) for each in records], [(each.split, each.meta["pair"]) for each in records]


def _mme_rows(records: Sequence[Prediction]) -> Rows:
    hits = _yes_no_hits(records)
    return np.stack([hits, np.ones(len(hits))], axis=1)


def _mme_plus_rows(records: Sequence[Prediction]) -> Rows:
    _, pairs = _mme_labels(records)
    return _together(_yes_no_hits(records), pairs)


def _mme_score_rows(records: Sequence[Prediction], wanted: Sequence[str] | None) -> Rows:
    """For each of C categories (right, questions, pairs right, pairs), shape (n, 4 C)."""
    categories, pairs = _mme_labels(records)
    names = sorted(set(categories) if wanted is None else set(categories) & set(wanted))
    if not names:
        raise DataError(f"no sample is of the categories {', '.join(wanted or ())}.")
    hits = _yes_no_hits(records)
    both = _together(hits, pairs)
    rows = np.zeros((len(records), 4 * len(names)))
    for place, category in enumerate(categories):
        if category in names:
            start = 4 * names.index(category)
            rows[place, start : start + 4] = (hits[place], 1, *both[place])
    return rows


def _mme_score(sums: Rows) -> Rows:
    """The sum over categories; in a resample without some of them, as many times the mean of those that are there."""
    parts = sums.reshape(*sums.shape[:-1], -1, 4)
    count = parts.shape[-2]
    is_there = parts[..., 3] > 0
    scores = 100 * (parts[..., 0] / np.maximum(parts[..., 1], 1) + parts[..., 2] / np.maximum(parts[..., 3], 1))
    return np.asarray(count * np.where(is_there, scores, 0).sum(axis=-1) / is_there.sum(axis=-1))


def _mme_table(wanted: Sequence[str] | None) -> Callable[[Sequence[Prediction]], Rows]:
    return lambda records: _mme_score_rows(records, wanted)


_MME = f"yes/no in words|unparsed wrong|lower case|not cut|{OWN}"
MME_ACCURACY = Metric("mme_accuracy", "MME accuracy", f"{_MME}|over all questions", table=_mme_rows)
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
        table=_mme_table(wanted),
        statistic=_mme_score,
        is_share=False,
    )
    for name, title, what, wanted in (
        ("score", "score", "categories", None),
        ("perception", "perception", "the 10 categories of perception", PERCEPTION),
        ("cognition", "cognition", "the 4 categories of cognition", COGNITION),
    )
)
"""Source: Fu et al. 2023, "MME: a comprehensive evaluation benchmark for multimodal large language models", section
2.3, and eval_tool/calculation.py in BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation."""

BENCHMARK_METRICS = (
    CHOICE_ACCURACY,
    CIRCULAR_ACCURACY,
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
)
