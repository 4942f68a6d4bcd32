"""Scores of answers that name one of a closed set of labels, and of short answers to questions.

```
accuracy, labels {"沙滩": ["beach"]}            "沙滩上有四只猫。" and "a beach" name 沙滩; one that names two is wrong
classify(records).as_dict()["confusion"]        rows are the true labels, the last column is "unparsed", which is wrong
class_f1_intervals(records)["cepheid"]          (0.67, (0.21, 0.92), 4): F1, its interval, how many are of the class
vqa_accuracy("two cats", ["2 cats"] * 4 + ["cats"] * 6) == 1.0
```
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.messages import Message, Unsuitable
from vglm.evaluation.predictions import Prediction, listed_answers, reference_answers
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.choices import own_choices, taken_choice
from vglm.evaluation.score.metrics.parsing import Labels, label_words, parse_label
from vglm.evaluation.score.metrics.text import OWN
from vglm.evaluation.score.statistics import Interval, Statistic, bootstrap_interval, wilson_interval

UNPARSED = "unparsed"
"""The class of answers that name no label, or several."""

MAX_LABELS = 100
"""More different references than this are no closed set of labels."""


# --- classification --------------------------------------------------------------------------------------------------


def collect_labels(records: Sequence[Prediction]) -> tuple[str, ...]:
    """The different references, or the choices of questions that have their own, sorted, as the closed set of labels.

    Raises:
        Unsuitable: There are more than `MAX_LABELS`, so the references are not labels.
    """
    labels = tuple(
        sorted({choice for record in records for choice in own_choices(record) or reference_answers(record.reference)})
    )
    if len(labels) > MAX_LABELS:
        raise Unsuitable(Message("labels.too_many", {"n": len(labels), "first": repr(labels[0])}))
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

    def as_dict(self) -> dict[str, Any]:
        """Per class: n, precision and recall with Wilson's intervals, F1; and the confusion matrix. JSON-able."""
        rows = {}
        for index, label in enumerate(self.labels):
            hits, n = int(self.confusion[index, index]), int(self.confusion[index].sum())
            named = int(self.confusion[:, index].sum())
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


def classify(records: Sequence[Prediction], labels: Labels | None = None) -> Classes:
    """Count which label was true and which was named.

    A sample has one true label, whatever was answered: of several references the most frequent one, of equally
    frequent ones the first.

    Args:
        records: Predictions with references.
        labels: The closed set; None for the different references.

    Raises:
        Unsuitable: References name no label, or there are too many different ones.
    """
    pairs, names = _parsed(records, labels)
    confusion = np.zeros((len(names), len(names) + 1), dtype=np.int64)
    labelled = pairs[pairs[:, 0] >= 0]
    np.add.at(confusion, (labelled[:, 0], labelled[:, 1]), 1)
    return Classes(names, confusion)


def _parsed(
    records: Sequence[Prediction], labels: Labels | None
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], tuple[str, ...]]:
    """(n, 2) places of the true and the named label; both are -1 for questions of other kinds (`_read_references`).

    The named label is `len(labels)` where none could be parsed.
    """
    names = collect_labels(records) if labels is None else tuple(labels)
    indices = {name: index for index, name in enumerate(names)}
    pairs = np.full((len(records), 2), -1, dtype=np.int64)
    for row, record, true in zip(pairs, records, _read_references(records, labels, names), strict=True):
        if true:
            named = _read_answer(record, labels, names)
            row[:] = indices[_most_frequent(true)], len(names) if named is None else indices[named]
    return pairs, names


def _read_answer(record: Prediction, labels: Labels | None, names: Sequence[str]) -> str | None:
    """The label that an answer names."""
    return None if record.error is not None else _read(record.prediction, record, labels, names)


def _most_frequent(labels: Sequence[str]) -> str:
    """Of equally frequent ones the first."""
    return Counter(labels).most_common(1)[0][0]


def _right_rows(records: Sequence[Prediction], labels: Labels | None) -> Rows:
    """Whether an answer names one of its references' labels, and whether it was asked for one, shape (n, 2)."""
    names = collect_labels(records) if labels is None else tuple(labels)
    read = zip(records, _read_references(records, labels, names), strict=True)
    return np.array([(_read_answer(record, labels, names) in true, bool(true)) for record, true in read], np.float64)


def _read_references(records: Sequence[Prediction], labels: Labels | None, names: Sequence[str]) -> list[list[str]]:
    """The true labels of each record, several where it lists several references; none for another kind of question.

    A kind none of whose references names a label asks for something else, as for a star's period beside its type.

    Raises:
        Unsuitable: References name no label, though they are the only kind or others of their kind do.
    """
    read = [
        [_read(answer, record, labels, names) for answer in reference_answers(record.reference)] for record in records
    ]
    true = [[label for label in parsed if label is not None] for parsed in read]
    kinds = {record.kind for record, labels_of in zip(records, true, strict=True) if labels_of}
    problems = [
        f"{record.split} {record.id!r}: {record.reference!r}"
        for record, labels_of in zip(records, true, strict=True)
        if not labels_of and (not kinds or record.kind in kinds)
    ]
    if problems:
        counts = {"n": len(problems), "total": len(records), "count": len(names)}
        raise Unsuitable(
            Message("labels.unclear", {**counts, "labels": tuple(names[:5]), "first": tuple(problems[:3])})
        )
    return true


def _read(text: str, record: Prediction, labels: Labels | None, names: Sequence[str]) -> str | None:
    """The label that an answer or a reference names: of the question's own choices, or else of the closed set."""
    if labels is None and (choices := own_choices(record)):
        return taken_choice(text, record, choices)
    return text if text in names else parse_label(text, names if labels is None else labels)


def _class_rows(records: Sequence[Prediction], labels: Labels | None) -> Rows:
    """For each of C labels (is true, is named, both), shape (n, 3 C)."""
    pairs, names = _parsed(records, labels)
    is_true, is_named = (pairs[:, [side]] == np.arange(len(names)) for side in (0, 1))
    return np.concatenate([is_true, is_named, is_true & is_named], axis=1).astype(np.float64)


def _parts(sums: Rows) -> tuple[Rows, Rows, Rows]:
    """(true, named, both), each of shape (..., C)."""
    count = sums.shape[-1] // 3
    return sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count :]


def _over_classes(values: Rows, true: Rows) -> Rows:
    """The mean over the classes that occur in the references."""
    return np.asarray(np.where(true > 0, values, 0.0).sum(axis=-1) / (true > 0).sum(axis=-1))


def _balanced_accuracy(sums: Rows) -> Rows:
    true, _, both = _parts(sums)
    return _over_classes(both / np.maximum(true, 1), true)


def _averaged(records: Sequence[Prediction], labels: Labels | None) -> list[str]:
    """The classes that balanced accuracy and macro-F1 are means over: those that occur in the references."""
    pairs, names = _parsed(records, labels)
    return [names[index] for index in sorted(set(pairs[:, 0].tolist()) - {-1})]


def _macro_f1(sums: Rows) -> Rows:
    true, named, both = _parts(sums)
    return _over_classes(2 * both / np.maximum(true + named, 1), true)


def _parsed_share(records: Sequence[Prediction], labels: Labels | None) -> Rows:
    pairs, names = _parsed(records, labels)
    is_asked = pairs[:, 0] >= 0
    return np.stack([is_asked & (pairs[:, 1] < len(names)), is_asked], axis=1).astype(np.float64)


def classification_metrics(labels: Labels | None = None) -> tuple[Metric, ...]:
    """Accuracy, balanced accuracy, macro-F1 and the share of answers that name a label.

    Balanced accuracy is the mean recall, macro-F1 the mean F1, of the classes that occur in the references, which are
    the same in both arms and which the signature names; an unparsed answer is a miss of its class and a hit of none.
    They equal scikit-learn's `balanced_accuracy_score` and `f1_score(average="macro", labels=<classes of the
    references>)`.

    Where a sample has several references, accuracy takes an answer that names any of them for right, as exact match
    does. The other two need one class of each sample: the most frequent reference, of equally frequent ones the first.
    It does not depend on the answer, so an answer that only the minority gave is a miss of that class.

    Args:
        labels: The closed set, maybe with other words for each label; None for the different references of the records
            that are scored. Questions of a kind whose references name none of these labels are not counted.

    Raises:
        ConfigError: One word means two labels.
    """
    if labels is not None:
        label_words(labels)
    how = _signature(labels)

    def signed(records: Sequence[Prediction]) -> str:
        return _signature(labels, records)

    def with_any(records: Sequence[Prediction]) -> str:
        return ("any of several references|" if _has_several(records) else "") + signed(records)

    def with_classes(records: Sequence[Prediction]) -> str:
        try:
            averaged = _averaged(records, labels)
        except DataError:  # scoring these records says so
            return signed(records)
        one = "of several references the most frequent, else the first|" if _has_several(records) else ""
        return f"mean over {len(averaged)} classes of the references: {'/'.join(averaged)}|{one}{signed(records)}"

    def mean_over_classes(name: str, title: str, title_zh: str, statistic: Statistic) -> Metric:
        return Metric(
            name,
            title,
            how,
            table=lambda records: _class_rows(records, labels),
            statistic=statistic,
            kind="classes",
            title_zh=title_zh,
            signature_of=with_classes,
        )

    return (
        Metric(
            "accuracy",
            "Accuracy",
            how,
            table=lambda records: _right_rows(records, labels),
            kind="classes",
            decides=True,
            title_zh="准确率",
            signature_of=with_any,
        ),
        mean_over_classes("balanced_accuracy", "Balanced accuracy", "平衡准确率", _balanced_accuracy),
        mean_over_classes("macro_f1", "Macro-F1", "宏平均 F1", _macro_f1),
        Metric(
            "parsed",
            "Answers that name a label",
            how,
            table=lambda records: _parsed_share(records, labels),
            title_zh="可解析的回答",
            signature_of=signed,
        ),
    )


def _has_several(records: Sequence[Prediction]) -> bool:
    return any(len(reference_answers(record.reference)) > 1 for record in records)


def _signature(labels: Labels | None, records: Sequence[Prediction] = ()) -> str:
    """How labels are read, and of what kinds of questions."""
    if labels is None:
        closed_set = "the references, or own choices"
    elif isinstance(labels, Mapping):
        closed_set = "/".join("=".join((label, *aliases)) for label, aliases in labels.items())
    else:
        closed_set = "/".join(labels)
    kinds = _classified_kinds(records, labels)
    return (
        f"labels: {closed_set}|equal, or the only one named and not denied|unparsed wrong|lower case|not cut|"
        + (f"only questions of kind {', '.join(kinds)}|" if kinds else "")
        + OWN
    )


def _classified_kinds(records: Sequence[Prediction], labels: Labels | None) -> list[str]:
    """The kinds of questions whose answers are classified, where there are others; else none."""
    try:
        pairs, _ = _parsed(records, labels)
    except Unsuitable:
        return []
    kinds = {str(record.kind) for record, row in zip(records, pairs, strict=True) if row[0] >= 0}
    return sorted(kinds) if (pairs < 0).any() else []


def class_f1_intervals(
    records: Sequence[Prediction], labels: Labels | None = None, *, confidence: float = 0.95
) -> dict[str, tuple[float, Interval, int]]:
    """The F1 of each class with an interval: for rare classes, whose figures are based on few samples.

    Args:
        records: Predictions with references.
        labels: The closed set; None for the different references.
        confidence: Of the intervals.

    Returns:
        Label -> (F1, interval, how many references are of the class). The interval is `f1_interval` where each sample
        is a group of its own, else the bootstrap's by group: NaN where that sees no spread, and only indicative with
        fewer than 10 groups that have the class. F1 is NaN where a class was neither true nor named.
    """
    rows, names = _class_rows(records, labels), collect_labels(records) if labels is None else tuple(labels)
    groups = [(record.split, record.group) for record in records]
    intervals = {}
    for index, name in enumerate(names):
        columns = rows[:, [index, index + len(names), index + 2 * len(names)]]
        n, named, hits = (int(count) for count in columns.sum(axis=0))
        if len(set(groups)) == len(groups):
            interval = f1_interval(hits, n, named, confidence)
        else:
            interval = bootstrap_interval(columns, groups=groups, statistic=_f1, confidence=confidence)
            if not interval.low < interval.high:
                interval = Interval(math.nan, math.nan)
        intervals[name] = float(_f1(columns.sum(axis=0))), interval, n
    return intervals


def f1_interval(hits: int, n: int, named: int, confidence: float = 0.95) -> Interval:
    """The interval of one class's F1 for independent samples.

    F1 = 2 F* / (1 + F*) with F* = hits / (n + named - hits), which is a proportion of those samples that are of the
    class, are called so, or both; Wilson's interval of that proportion, transformed, is an interval of F1. Unlike the
    bootstrap's it keeps its coverage for few samples and for an F1 of 0 or 1.

    Args:
        hits: How many samples of the class were called so.
        n: How many samples are of the class.
        named: How many samples were called so.
        confidence: How often such intervals hold the truth.

    Source: Hand, Christen & Kirielle 2021, "F*: an interpretable transformation of the F-measure".
    """
    low, high = wilson_interval(hits, n + named - hits, confidence)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high))


def as_table(
    classes: Mapping[str, Mapping[str, Any]], f1: Mapping[str, tuple[float, Interval, int]]
) -> list[dict[str, Any]]:
    """Per class n, precision, recall and F1 with its interval, JSON-able, the rarest class first.

    Args:
        classes: `classes` of `Classes.as_dict`.
        f1: From `class_f1_intervals`, of the same records.
    """
    rows = []
    for label, facts in sorted(classes.items(), key=lambda item: int(item[1]["n"])):
        ends = [None if math.isnan(end) else end for end in f1[label][1]]
        row = {name: facts[name] for name in ("n", "named", "precision", "recall", "f1")}
        rows.append({"label": label, **row, "interval": ends})
    return rows


def _f1(sums: Rows) -> Rows:
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * sums[..., 2] / (sums[..., 0] + sums[..., 1]))


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
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> list[str]:
    """The word without each one of its apostrophes."""
    return [word[:index] + word[index + 1 :] for index, character in enumerate(word) if character == "'"]


# The official table mends nothing with a capital I, for it is asked in lower case, and has one entry that takes away.
_MENDED = {typed: word for word in _CONTRACTIONS.split() for typed in _without_one(word)} | {"somebody'd": "somebodyd"}


def normalise_vqa(text: str) -> str:
    """The normal form of answers of VQA: lower case, numerals, no articles, no punctuation, apostrophes restored.

    A sign of punctuation vanishes where it stands beside a blank, or where the text has a number like 1,000; elsewhere
    it becomes a blank. A point stays before a digit only; from the 33rd on, points stay too, as in the original.

    Source: `processPunctuation` and `processDigitArticle` of
    GT-Vision-Lab/VQA:PythonEvaluationTools/vqaEvaluation/vqaEval.py.
    """
    source = _one_line(text)
    has_thousands = re.search(r"\d,\d", source) is not None
    result = source
    for sign in _PUNCTUATION:
        beside_blank = f"{sign} " in source or f" {sign}" in source
        result = result.replace(sign, "" if beside_blank or has_thousands else " ")
    result = re.sub(r"\.(?!\d)", "", result, count=32)
    named = (_NUMBERS.get(word, word) for word in result.lower().split())
    return " ".join(_MENDED.get(word, word) for word in named if word not in ("a", "an", "the"))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The soft accuracy of VQA: an answer that 3 of 10 people gave is right, averaged over leaving one person out.

    With four answers or more it is the official figure: where people differ, all texts are brought to the normal form
    of VQA; where all answers are the same, the prediction must be exactly that. With two or three answers, one that all
    the others gave is right. A single answer is not a vote: it is right or wrong, in the normal form.

    Args:
        prediction: The answer.
        answers: What people answered, each as often as it was given.

    Returns:
        The mean over persons of min(1, matches among the others / min(3, number of others)), 0.0 to 1.0.

    Source: Antol et al. 2015, "VQA: visual question answering", and the evaluation code named at `normalise_vqa`.
    """
    if len(answers) == 1:
        return float(normalise_vqa(prediction) == normalise_vqa(answers[0]))
    answer, references = _one_line(prediction), [_one_line(answer) for answer in answers]
    if len(set(references)) > 1:
        answer, references = normalise_vqa(answer), [normalise_vqa(reference) for reference in references]
    matches = sum(reference == answer for reference in references)
    needed = min(3, len(references) - 1)
    shares = [min(1.0, (matches - (reference == answer)) / needed) for reference in references]
    return math.fsum(shares) / len(shares) if shares else 0.0


def human_answers(record: Prediction) -> list[str]:
    """All answers that people gave: those that the data lists beside the reference, else those in the reference."""
    return listed_answers(record.meta.get("answers")) or reference_answers(record.reference)


def _vqa_rows(records: Sequence[Prediction]) -> Rows:
    scores = [
        0.0 if record.error is not None else vqa_accuracy(record.prediction, human_answers(record))
        for record in records
    ]
    return np.stack([np.array(scores), np.ones(len(scores))], axis=1)


_VQA = "vqaEval normal form on both sides unless all people agree|lower case|not cut"


def _vqa_signature(records: Sequence[Prediction]) -> str:
    """What the predictions are compared with: votes of many, plain matches with one answer, or some of each."""
    counts = Counter(len(human_answers(record)) for record in records)
    several = sorted(set(counts) - {1})
    sizes = "-".join(map(str, dict.fromkeys((*several[:1], *several[-1:]))))
    votes = f"soft, min(1, matches/3), one person left out|{sizes} answers a sample"
    few = "|with 2 or 3 answers matches/others" if several and several[0] < 4 else ""
    plain = "plain match with the one answer that the data has, no vote|vqaEval normal form|lower case|not cut"
    if not several:
        return f"{plain}|{OWN}"
    mixed = "" if 1 not in counts else f"|{counts[1]} of {len(records)} samples: plain match with their one answer"
    return f"{votes}{few}{mixed}|{_VQA}|{OWN}"


VQA_ACCURACY = Metric(
    "vqa_accuracy",
    "VQA accuracy",
    f"soft, min(1, matches/3), one person left out, of all listed answers; plain match where there is one|{_VQA}|{OWN}",
    table=_vqa_rows,
    title_zh="VQA 准确率",
    signature_of=_vqa_signature,
)
