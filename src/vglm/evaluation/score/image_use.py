"""Does a score depend on the image? It is compared with the score on the same questions with other images, or none.

The questions with other images are the controls of `vglm.evaluation.predict.controls`.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.messages import Sentence
from vglm.evaluation.predictions import (
    PREDICTIONS_FILE,
    TEXT_ONLY,
    Evaluation,
    Prediction,
    predictions_file,
    read_predictions,
)
from vglm.evaluation.score.metrics import Metric, compare_arms
from vglm.evaluation.score.metrics.base import Rows, join_draws
from vglm.evaluation.score.statistics import PairedComparison, compare_paired
from vglm.text.normalisation import normalise

if TYPE_CHECKING:
    from vglm.evaluation.score.comparison import Comparison

CONTROLS = ("shuffled", "blank", "neighbour", TEXT_ONLY)


@dataclass(frozen=True)
class VisualGain:
    """How much of an arm's score on the main split depends on the image: own image minus another one.

    Attributes:
        arm: The arm, as `after`.
        control: The other image: `shuffled`, `blank` or `neighbour`; `text-only` for none.
        label: The folder of the control's predictions.
        meaning: What the control is; empty where `evaluation.json` does not say.
        result: `before` is the score with the other image, `after` with the true one.
        changed: Questions that are answered otherwise with the other image; with none, the image plays no role.
        answers: The records with the other image, and those with the true one, in the same order.
    """

    arm: str
    control: str
    label: str
    meaning: Sentence
    result: PairedComparison
    changed: int
    answers: tuple[Sequence[Prediction], Sequence[Prediction]] = field(default=((), ()), repr=False, compare=False)

    def is_at_floor(self, metric: Metric) -> bool:
        """Whether the arm scores nothing with any image, so that the metric cannot show whether it uses images."""
        return metric.higher_is_better is not False and self.result.before == self.result.after == 0


@dataclass(frozen=True)
class GainChange:
    """What tuning changed of the use of images, by one control.

    Attributes:
        control: See `VisualGain`.
        result: `before` is the visual gain of the baseline, `after` that of the candidate, on the same questions.
        at_floor: The arms that score nothing with any image; with one of them the change is unknown.
    """

    control: str
    result: PairedComparison
    at_floor: tuple[str, ...]


def compare_gains(baseline: VisualGain, candidate: VisualGain, metric: Metric) -> GainChange | None:
    """Compare the visual gains of two arms over the same control, question by question.

    Args:
        baseline: The gain of the arm to compare with.
        candidate: That of the arm that is judged.
        metric: What both were scored by.

    Returns:
        The difference of the gains with its interval; None where the arms share no question.
    """
    common = {answer.key for answer in baseline.answers[1]} & {answer.key for answer in candidate.answers[1]}
    if not common:
        return None
    first, samples = _gain_rows(baseline, common, metric)
    second, _ = _gain_rows(candidate, common, metric)
    width = first.shape[1] // 2
    counted = np.concatenate([first, second], axis=1).any(axis=1)
    selected = np.asarray(counted if counted.any() else ~counted)

    def gain(sums: Rows) -> Rows:
        return np.asarray(metric.statistic(sums[..., width:]) - metric.statistic(sums[..., :width]))

    with np.errstate(invalid="ignore", divide="ignore"):
        result = compare_paired(
            first[selected],
            second[selected],
            groups=[(sample.split, sample.group) for sample, is_kept in zip(samples, selected, strict=True) if is_kept],
            statistic=gain,
            bound=2.0 if metric.is_share else math.inf,
        )
    return GainChange(
        candidate.control,
        result,
        tuple(gain_of_arm.arm for gain_of_arm in (baseline, candidate) if gain_of_arm.is_at_floor(metric)),
    )


def _gain_rows(gain: VisualGain, keys: set[tuple[str, str, int]], metric: Metric) -> tuple[Rows, list[Prediction]]:
    """The metric's numbers with the other image, then with the true one, shape (n, 2 k); and the samples, by key."""
    others, truth = (sorted((record for record in arm if record.key in keys), key=_key) for arm in gain.answers)
    rows = [join_draws(metric.rows(records), truth) for records in (others, truth)]
    return np.concatenate([numbers for numbers, _ in rows], axis=1), rows[0][1]


def _key(record: Prediction) -> tuple[str, str, int]:
    return record.key


def read_visual_gains(folder: Path, evaluation: Evaluation, comparison: "Comparison") -> list[VisualGain]:
    """Compare both arms with their control arms, by the primary metric.

    A control is a folder with predictions beside the arms, whose name holds the sort of image and the arm's label:
    `before-shuffled`, `after-blank`. A name without an arm's label belongs to the candidate.

    Of shuffled images only those count that ask for another answer: with the image of another beach, "beach" stays
    right, and a model that looks would seem not to.

    Args:
        folder: The evaluation folder.
        evaluation: Its description.
        comparison: Of its arms.

    Returns:
        The gains, shuffled images first; empty without controls. An evaluation of image use is such a gain itself.

    Raises:
        DataError: A control's predictions are damaged or not about samples of the arm.
    """
    part = comparison.splits[comparison.main]
    arms = {comparison.baseline: [pair.baseline for pair in part.pairs]}
    arms[comparison.candidate] = [pair.candidate for pair in part.pairs]
    missing = {pair.candidate.key for pair in part.missing}
    meanings = {control.label: control.meaning for control in evaluation.controls}
    gains = []
    if evaluation.purpose == "image use":
        label, meaning = comparison.baseline, evaluation.baseline.meaning
        both = _with_other_references(arms[comparison.baseline], arms[comparison.candidate], arms[comparison.candidate])
        if both[1]:
            result, changed = compare_arms(part.primary_metric, *both), _count_changed(*both)
            gains.append(VisualGain(comparison.candidate, label, label, meaning, result, changed, both))
    for path in sorted(folder.glob(f"*/{PREDICTIONS_FILE}")):
        label = path.parent.name
        control = next((name for name in CONTROLS if name in label), None)
        if label in arms or control is None:
            continue
        arm = next((name for name in arms if name in label.replace(control, "")), comparison.candidate)
        answers = {prediction.key: prediction for prediction in read_predictions(predictions_file(folder, label))}
        answers = {
            key: answer for key, answer in answers.items() if answer.split == comparison.main and key not in missing
        }
        truth = [record for record in arms[arm] if record.key in answers]
        if not truth:
            continue
        others = [answers[record.key] for record in truth]
        if len(others) != len(answers) or any(
            (one.question, one.reference) != (two.question, two.reference)
            for one, two in zip(truth, others, strict=True)
        ):
            raise DataError(f"{path} is not about the samples of {arm}. Evaluate again, or remove the folder.")
        if control == "shuffled":
            others, truth = _with_other_references(others, truth, arms[comparison.candidate])
            if not truth:
                continue
        try:
            result = compare_arms(part.primary_metric, others, truth)
        except DataError:  # a part of the samples without all classes
            continue
        changed = _count_changed(others, truth)
        gains.append(VisualGain(arm, control, label, meanings.get(label, ""), result, changed, (others, truth)))
    rank = {name: index for index, name in enumerate(CONTROLS)}
    return sorted(gains, key=lambda gain: (rank.get(gain.control, -1), list(arms).index(gain.arm)))


def _with_other_references(
    others: Sequence[Prediction], truth: Sequence[Prediction], questions: Sequence[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    """The pairs whose other image requires another answer, according to the split's questions about it.

    Args:
        others: The records with the other image.
        truth: Those with the true one.
        questions: Records with the right answers about each image.
    """
    references: dict[tuple[str | None, str], set[str]] = defaultdict(set)
    for record in questions:
        references[record.image_sha256, _question_key(record)].add(normalise(record.reference))
    pairs = [
        (one, other)
        for one, other in zip(others, truth, strict=True)
        if one.image_sha256 is None
        or normalise(other.reference) not in references.get((one.image_sha256, _question_key(one)), ())
    ]
    return [one for one, _ in pairs], [other for _, other in pairs]


def _question_key(record: Prediction) -> str:
    """What sort of question it is: its kind where the data names one, else its words."""
    return record.kind or normalise(record.question)


def _count_changed(others: Sequence[Prediction], truth: Sequence[Prediction]) -> int:
    """How many answers differ after normalisation."""
    pairs = zip(others, truth, strict=True)
    return sum(normalise(one.prediction) != normalise(two.prediction) for one, two in pairs)
