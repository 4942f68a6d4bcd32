"""Scores of answers that name one of a closed set of labels, and of short answers to questions.

```
parse_label("It is an RR Lyrae star.", ("rr lyrae", "cepheid")) == "rr lyrae"
parse_label("either a cepheid or an rr lyrae", …) is None      counted as "unparsed", which is wrong
vqa_accuracy("two cats", ["2 cats"] * 4 + ["cats"] * 6) == 1.0
```
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vglm.errors import DataError
from vglm.evaluation.metrics.base import Metric, Rows
from vglm.evaluation.metrics.text import OWN, contains, simplify
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.statistics import Interval, Statistic, bootstrap_interval, wilson_interval

UNPARSED = "unparsed"
"""The class of answers that name no label, or several."""

MAX_LABELS = 100
"""More different references than this are no closed set of labels."""


# --- classification --------------------------------------------------------------------------------------------------


def parse_label(text: str, labels: Sequence[str]) -> str | None:
    """Find the one label that an answer names.

    Args:
        text: The answer.
        labels: The closed set. Case, punctuation and full-width signs do not count.

    Returns:
        The label that the answer equals; else the only one it contains, where a label inside a longer one that is there
        too does not count ("nova" in "supernova" never does, "dwarf nova" hides "nova"); else None. Negation is not
        understood: "not a nova" names a nova.
    """
    answer = simplify(text)
    if exact := [label for label in labels if simplify(label) == answer]:
        return exact[0]
    found = [label for label in labels if contains(answer, label)]
    found = [label for label in found if not any(other != label and contains(other, label) for other in found)]
    return found[0] if len(found) == 1 else None


def collect_labels(records: Sequence[Prediction]) -> tuple[str, ...]:
    """The different references, sorted, as the closed set of labels.

    Raises:
        DataError: There are more than `MAX_LABELS`, so the references are no labels.
    """
    labels = tuple(sorted({record.reference for record in records}))
    if len(labels) > MAX_LABELS:
        raise DataError(
            f"the references are {len(labels)} different texts, so they are no classes (first: {labels[0]!r}). Name the"
            " classes with metrics.labels=[...], or choose metrics for free text."
        )
    return labels


@dataclass(frozen=True, slots=True)
class Classes:
    """What was named and what was right, as counts.

    Attributes:
        labels: The closed set.
        confusion: Shape (C, C + 1), int64: rows are the true labels, columns the named ones, the last one `UNPARSED`.
    """

    labels: tuple[str, ...]
    confusion: np.ndarray[tuple[int, ...], np.dtype[np.int64]]

    def as_dict(self) -> dict[str, object]:
        """Per class: n, precision and recall with Wilson's intervals, F1; and the confusion matrix. JSON-able."""
        rows = {}
        for place, label in enumerate(self.labels):
            hits, n = int(self.confusion[place, place]), int(self.confusion[place].sum())
            named = int(self.confusion[:, place].sum())
            rows[label] = {
                "n": n,
                "named": named,
                "precision": hits / named if named else None,
                "precision_interval": list(wilson_interval(hits, named)),
                "recall": hits / n if n else None,
                "recall_interval": list(wilson_interval(hits, n)),
                "f1": 2 * hits / (n + named) if n + named else None,
            }
        return {
            "classes": rows,
            "columns": [*self.labels, UNPARSED],
            "confusion": self.confusion.tolist(),
            "unparsed": int(self.confusion[:, -1].sum()),
        }


def classify(records: Sequence[Prediction], labels: Sequence[str] | None = None) -> Classes:
    """Count which label was true and which was named.

    Args:
        records: Predictions with references.
        labels: The closed set; None for the different references.

    Raises:
        DataError: References name no label, or there are too many different ones.
    """
    pairs, names = _parsed(records, labels)
    confusion = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    np.add.at(confusion, (pairs[:, 0], pairs[:, 1]), 1)
    return Classes(names, confusion)


def _parsed(
    records: Sequence[Prediction], labels: Sequence[str] | None
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], tuple[str, ...]]:
    """(n, 2) places of the true and the named label, the latter `len(labels)` where none could be parsed."""
    names = collect_labels(records) if labels is None else tuple(labels)
    places = {name: place for place, name in enumerate(names)}
    pairs, problems = np.full((len(records), 2), len(names), dtype=np.int64), []
    for row, record in zip(pairs, records, strict=True):
        true = record.reference if labels is None else parse_label(record.reference, names)
        if true is None:
            problems.append(f"{record.split} {record.id!r}: {record.reference!r}")
            continue
        row[0] = places[true]
        if record.error is None and (named := parse_label(record.prediction, names)) is not None:
            row[1] = places[named]
    if problems:
        raise DataError(
            f"{len(problems)} of {len(records)} references name none, or several, of the {len(names)} labels "
            f"{', '.join(names[:5])}, ... (first: {'; '.join(problems[:3])}). Correct metrics.labels or the data."
        )
    return pairs, names


def _class_rows(records: Sequence[Prediction], labels: Sequence[str] | None) -> Rows:
    """For each of C labels (is true, is named, both), shape (n, 3 C)."""
    pairs, names = _parsed(records, labels)
    is_true, is_named = (pairs[:, [side]] == np.arange(len(names)) for side in (0, 1))
    return np.concatenate([is_true, is_named, is_true & is_named], axis=1).astype(np.float64)


def _parts(sums: Rows) -> tuple[Rows, Rows, Rows]:
    """(true, named, both), each of shape (..., C)."""
    count = sums.shape[-1] // 3
    return sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count :]


def _accuracy(sums: Rows) -> Rows:
    true, _, both = _parts(sums)
    return np.asarray(both.sum(axis=-1) / true.sum(axis=-1))


def _over_classes(values: Rows, true: Rows) -> Rows:
    """The mean over the classes that occur in the references."""
    return np.asarray(np.where(true > 0, values, 0.0).sum(axis=-1) / (true > 0).sum(axis=-1))


def _balanced_accuracy(sums: Rows) -> Rows:
    true, _, both = _parts(sums)
    return _over_classes(both / np.maximum(true, 1), true)


def _macro_f1(sums: Rows) -> Rows:
    true, named, both = _parts(sums)
    return _over_classes(2 * both / np.maximum(true + named, 1), true)


def _parsed_share(records: Sequence[Prediction], labels: Sequence[str] | None) -> Rows:
    pairs, names = _parsed(records, labels)
    return np.stack([pairs[:, 1] < len(names), np.ones(len(pairs))], axis=1).astype(np.float64)


def classification_metrics(labels: Sequence[str] | None = None) -> tuple[Metric, ...]:
    """Accuracy, balanced accuracy, macro-F1 and the share of answers that name a label.

    Balanced accuracy is the mean recall, macro-F1 the mean F1, of the classes that occur in the references; an unparsed
    answer is a miss of its class and a hit of none. They equal scikit-learn's `balanced_accuracy_score` and
    `f1_score(average="macro", labels=<classes of the references>)`.

    Args:
        labels: The closed set; None for the different references of the records that are scored.
    """
    how = (
        f"labels: {'the references' if labels is None else '/'.join(labels)}|equal or the only one named|unparsed wrong"
        f"|lower case|not cut|{OWN}"
    )
    table = lambda records: _class_rows(records, labels)  # noqa: E731 - one line says it
    kinds: list[tuple[str, str, Statistic]] = [
        ("accuracy", "Accuracy", _accuracy),
        ("balanced_accuracy", "Balanced accuracy", _balanced_accuracy),
        ("macro_f1", "Macro-F1", _macro_f1),
    ]
    return (
        *(Metric(name, title, how, table=table, statistic=statistic) for name, title, statistic in kinds),
        Metric("parsed", "Answers that name a label", how, table=lambda records: _parsed_share(records, labels)),
    )


def class_f1_intervals(
    records: Sequence[Prediction], labels: Sequence[str] | None = None, *, confidence: float = 0.95
) -> dict[str, tuple[float, Interval, int]]:
    """The F1 of each class with an interval, by group: for rare classes, whose figures rest on a few samples.

    Args:
        records: Predictions with references.
        labels: The closed set; None for the different references.
        confidence: Of the intervals.

    Returns:
        Label -> (F1, bootstrap interval, how many references are of the class). With fewer than 10 of a class the
        interval is only indicative, and too narrow where F1 is 0 or 1.
    """
    rows, names = _class_rows(records, labels), collect_labels(records) if labels is None else tuple(labels)
    groups = [(record.split, record.group) for record in records]
    found = {}
    for place, name in enumerate(names):
        columns = rows[:, [place, place + len(names), place + 2 * len(names)]]
        interval = bootstrap_interval(columns, groups=groups, statistic=_f1, confidence=confidence)
        found[name] = float(_f1(columns.sum(axis=0))), interval, int(columns[:, 0].sum())
    return found


def _f1(sums: Rows) -> Rows:
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * sums[..., 2] / (sums[..., 0] + sums[..., 1]))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well confidences tell what is right.

    Attributes:
        expected_error: Mean |share right - mean confidence| over bins, weighted by their samples (ECE).
        brier: Mean squared difference of confidence and right (1) or wrong (0).
        bins: (lower edge, n, mean confidence, share right) of each bin with samples.
    """

    expected_error: float
    brier: float
    bins: tuple[tuple[float, int, float, float], ...]


def calibrate(confidences: ArrayLike, is_right: ArrayLike, *, bins: int = 10) -> Calibration:
    """Measure the calibration of answers scored by likelihood.

    Args:
        confidences: Probability of the answer that was given, shape (n,), 0.0 to 1.0.
        is_right: Whether it was right, shape (n,).
        bins: Number of bins of equal width; a confidence on an edge belongs to the bin below, as in the source.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    chance, right = np.asarray(confidences, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    if chance.shape != right.shape or not len(chance) or np.any((chance < 0) | (chance > 1)):
        raise ValueError("calibration needs as many confidences from 0 to 1 as answers, and at least one.")
    place = np.clip(np.ceil(chance * bins).astype(int) - 1, 0, bins - 1)
    rows, error = [], 0.0
    for each in np.unique(place):
        inside = place == each
        confidence, share = float(chance[inside].mean()), float(right[inside].mean())
        rows.append((float(each / bins), int(inside.sum()), confidence, share))
        error += inside.mean() * abs(share - confidence)
    return Calibration(float(error), float(np.mean((chance - right) ** 2)), tuple(rows))


# --- visual question answering ---------------------------------------------------------------------------------------

_NUMBERS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_PUNCTUATION = r""";/[]"{}()=+\_-><@`,?!"""
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> list[str]:
    """The word without all its apostrophes, and without each one of several."""
    marks = [place for place, character in enumerate(word) if character == "'"]
    singly = [word[:place] + word[place + 1 :] for place in marks] if len(marks) > 1 else []
    return [word.replace("'", ""), *singly]


_MENDED = {typed.lower(): word.lower() for word in _CONTRACTIONS.split() for typed in _without_one(word)}


def normalise_vqa(text: str) -> str:
    """The normal form of answers of VQA: lower case, numerals, no articles, no punctuation, apostrophes restored.

    A sign of punctuation vanishes where it stands beside a blank, or where the text has a number like 1,000; elsewhere
    it becomes a blank. A point stays before a digit only.

    Source: `processPunctuation` and `processDigitArticle` of
    GT-Vision-Lab/VQA:PythonEvaluationTools/vqaEvaluation/vqaEval.py, which applies the second to predictions only, for
    its references are in that form already.
    """
    source = text.replace("\n", " ").replace("\t", " ").strip()
    has_thousands = re.search(r"\d,\d", source) is not None
    result = source
    for sign in _PUNCTUATION:
        beside_blank = f"{sign} " in source or f" {sign}" in source
        result = result.replace(sign, "" if beside_blank or has_thousands else " ")
    result = re.sub(r"\.(?!\d)", "", result)
    named = (_NUMBERS.get(word, word) for word in result.lower().split())
    return " ".join(_MENDED.get(word, word) for word in named if word not in ("a", "an", "the"))


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The soft accuracy of VQA: an answer that 3 of 10 people gave is right, averaged over leaving one person out.

    Args:
        prediction: The answer.
        answers: What people answered. One alone is simply right or wrong.

    Returns:
        The mean over persons of min(1, matches among the others / 3), 0.0 to 1.0.

    Source: Antol et al. 2015, "VQA: visual question answering", and the evaluation code named at `normalise_vqa`.
    """
    given, wanted = normalise_vqa(prediction), [normalise_vqa(each) for each in answers]
    if len(wanted) == 1:
        return float(given == wanted[0])
    matches = sum(each == given for each in wanted)
    shares = [min(1.0, (matches - (each == given)) / 3) for each in wanted]
    return math.fsum(shares) / len(shares) if shares else 0.0


def reference_answers(reference: str) -> list[str]:
    """The answers of a reference: a JSON list of texts, or one answer."""
    if reference.lstrip().startswith("["):
        try:
            values = json.loads(reference)
        except ValueError:
            return [reference]
        if isinstance(values, list) and values and all(isinstance(each, str) for each in values):
            return values
    return [reference]


VQA_ACCURACY = Metric(
    "vqa_accuracy",
    "VQA accuracy",
    "soft, min(1, matches/3), one person left out|VQA v2 normal form on both sides, lower case|several answers: a JSON"
    f" list|not cut|{OWN}",
    lambda prediction, reference: vqa_accuracy(prediction, reference_answers(reference)),
)


def as_table(classes: Mapping[str, tuple[float, Interval, int]]) -> list[dict[str, object]]:
    """`class_f1_intervals` as JSON-able rows, the rarest class first."""
    rows = sorted(classes.items(), key=lambda item: item[1][2])
    return [{"class": name, "n": n, "f1": value, "interval": list(ends)} for name, (value, ends, n) in rows]
