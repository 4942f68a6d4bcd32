"""Does a score rest on the image? It is compared with the score on the same questions with other images, or none.

The questions with other images are the controls of `vglm.evaluation.predict.controls`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
from vglm.evaluation.score.metrics import compare_arms
from vglm.evaluation.score.statistics import PairedComparison
from vglm.text.normalisation import normalise

if TYPE_CHECKING:
    from vglm.evaluation.score.comparison import Comparison

CONTROLS = ("shuffled", "blank", "neighbour", TEXT_ONLY)


@dataclass(frozen=True)
class VisualGain:
    """How much of an arm's score on the main split rests on the image: its own image minus another one.

    Attributes:
        arm: The arm, as `after`.
        control: The other image: `shuffled`, `blank` or `neighbour`; `text-only` for none.
        label: The folder of the control's predictions.
        meaning: What the control stands for; empty where `evaluation.json` does not say.
        result: `before` is the score with the other image, `after` with the true one.
        changed: Questions that are answered otherwise with the other image; with none, the image plays no role.
    """

    arm: str
    control: str
    label: str
    meaning: Sentence
    result: PairedComparison
    changed: int


def read_visual_gains(folder: Path, evaluation: Evaluation, comparison: "Comparison") -> list[VisualGain]:
    """Compare both arms with their control arms, by the primary metric.

    A control is a folder with predictions beside the arms, whose name holds the sort of image and the arm's label:
    `before-shuffled`, `after-blank`. A name without an arm's label belongs to the candidate.

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
    arms = {comparison.baseline: [each.baseline for each in part.pairs]}
    arms[comparison.candidate] = [each.candidate for each in part.pairs]
    missing = {pair.candidate.key for pair in part.missing}
    meanings = {each.label: each.meaning for each in evaluation.controls}
    gains = []
    if evaluation.purpose == "image use":
        result = part.primary
        label, meaning = comparison.baseline, evaluation.baseline.meaning
        gains.append(VisualGain(comparison.candidate, label, label, meaning, result, part.changed))
    for path in sorted(folder.glob(f"*/{PREDICTIONS_FILE}")):
        label = path.parent.name
        control = next((name for name in CONTROLS if name in label), None)
        if label in arms or control is None:
            continue
        arm = next((name for name in arms if name in label.replace(control, "")), comparison.candidate)
        answers = {each.key: each for each in read_predictions(predictions_file(folder, label))}
        answers = {key: each for key, each in answers.items() if each.split == comparison.main and key not in missing}
        truth = [each for each in arms[arm] if each.key in answers]
        if not truth:
            continue
        others = [answers[each.key] for each in truth]
        if len(others) != len(answers) or any(
            (one.question, one.reference) != (two.question, two.reference)
            for one, two in zip(truth, others, strict=True)
        ):
            raise DataError(f"{path} is not about the samples of {arm}. Evaluate again, or remove the folder.")
        try:
            result = compare_arms(part.primary_metric, others, truth)
        except DataError:  # a part of the samples without all classes
            continue
        changed = sum(_differ(*pair) for pair in zip(others, truth, strict=True))
        gains.append(VisualGain(arm, control, label, meanings.get(label, ""), result, changed))
    rank = {name: index for index, name in enumerate(CONTROLS)}
    return sorted(gains, key=lambda gain: (rank.get(gain.control, -1), list(arms).index(gain.arm)))


def _differ(one: Prediction, other: Prediction) -> bool:
    """Whether two answers differ after normalisation."""
    return normalise(one.prediction) != normalise(other.prediction)
