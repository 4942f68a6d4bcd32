"""How much of a score depends on the words of the question: the same samples asked in several wordings.

The other wordings are the controls of `vglm.evaluation.predict.paraphrases`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vglm.errors import DataError
from vglm.evaluation.messages import Message, Sentence
from vglm.evaluation.predictions import PARAPHRASE, Evaluation, Prediction, predictions_file, read_predictions
from vglm.evaluation.score.comparison import Comparison, right_answers
from vglm.evaluation.score.metrics import Metric
from vglm.evaluation.score.statistics import Interval, wilson_interval

_LABEL = re.compile(rf"(?:(?P<arm>.+)-)?{PARAPHRASE}-(?P<number>\d+)")


@dataclass(frozen=True)
class ArmSpread:
    """One arm's answers to the same samples in several wordings.

    Attributes:
        scores: By the primary metric, in the order of `PromptSpread.templates`; NaN where it cannot be computed.
        flipped: Samples that are right in some wordings and wrong in others; None where no metric calls answers right.
        n: Number of samples.
    """

    scores: tuple[float, ...]
    flipped: int | None
    n: int

    @property
    def spread(self) -> float:
        """Highest minus lowest score; NaN where there are none."""
        finite = [score for score in self.scores if not math.isnan(score)]
        return max(finite) - min(finite) if finite else math.nan

    @property
    def mean(self) -> float:
        """The mean score; NaN where one of them is."""
        return fmean(self.scores)

    @property
    def flip_interval(self) -> Interval | None:
        """Of the share of flipped samples, with 95 % confidence (Wilson)."""
        return None if self.flipped is None else wilson_interval(self.flipped, self.n)


@dataclass(frozen=True)
class PromptSpread:
    """Both arms in all wordings.

    Attributes:
        templates: The wordings; the first one, `{question}`, is the original wording.
        metric: The primary metric of the main split.
        arms: Arm -> its scores; only those with paraphrases.
    """

    templates: tuple[str, ...]
    metric: Metric
    arms: Mapping[str, ArmSpread]


def read_prompt_spread(folder: Path, evaluation: Evaluation, comparison: Comparison) -> PromptSpread | None:
    """Score the answers to other wordings beside those to the first one, on the same samples.

    Args:
        folder: The evaluation folder.
        evaluation: Its description; its controls say which wordings there are.
        comparison: Of its arms.

    Returns:
        None where there was one wording only.

    Raises:
        DataError: Answers are missing, damaged or not about samples of the arm.
    """
    part = comparison.splits[comparison.main]
    arms = {comparison.baseline: [pair.baseline for pair in part.pairs]}
    arms[comparison.candidate] = [pair.candidate for pair in part.pairs]
    templates: dict[int, str] = {}
    answers: dict[str, dict[int, list[Prediction]]] = {}
    for control in evaluation.controls:
        if (match := _LABEL.fullmatch(control.label)) is None:
            continue
        arm, number = match["arm"] or comparison.candidate, int(match["number"])
        if arm in arms:
            templates[number] = _template(control.meaning)
            answers.setdefault(arm, {})[number] = read_predictions(predictions_file(folder, control.label))
    spreads = {
        arm: _spread(arms[arm], [own[number] for number in sorted(own)], part.primary_metric, part.decisive, arm)
        for arm, own in answers.items()
    }
    wordings = ("{question}", *(templates[number] for number in sorted(templates)))
    if any(len(spread.scores) != len(wordings) for spread in spreads.values()):
        raise DataError(f"{folder} is damaged: an arm lacks answers to some wordings. Evaluate again.")
    return PromptSpread(wordings, part.primary_metric, spreads) if spreads else None


def _template(meaning: Sentence) -> str:
    """The wording that a control's meaning names, however deep."""
    while isinstance(meaning, Message):
        if "template" in meaning.values:
            return str(meaning.values["template"])
        inner = meaning.values.get("meaning")
        meaning = inner if isinstance(inner, Message | str) else ""
    return meaning


def _spread(
    own: Sequence[Prediction], others: Sequence[Sequence[Prediction]], primary: Metric, decisive: Metric, arm: str
) -> ArmSpread:
    by_key = {record.key: record for record in own}
    keys = [record.key for record in others[0]]
    if any([record.key for record in rows] != keys for rows in others) or not by_key.keys() >= set(keys):
        raise DataError(f"the answers of {arm} to other wordings are not about its samples. Evaluate again.")
    wordings = [[by_key[key] for key in keys], *others]
    rights = [right_answers(decisive, rows) for rows in wordings]
    flipped = None
    if all(right is not None for right in rights):
        columns = zip(*(right for right in rights if right is not None), strict=True)
        flipped = sum(len(set(column)) > 1 for column, key in zip(columns, keys, strict=True) if key[2] == 0)
    n = sum(draw == 0 for *_, draw in keys)
    return ArmSpread(tuple(_score(primary, rows) for rows in wordings), flipped, n)


def _score(metric: Metric, records: Sequence[Prediction]) -> float:
    try:
        return metric.score(records)
    except DataError:  # these answers have no such score
        return math.nan
