"""Scores of one answer against its reference: pure functions on text, with a signature each.

```
exact_match("这张图片的背景是沙滩。", " 这张图片的背景是沙滩。") == 1.0
rouge_l_characters("蓝色的海", "蓝色的天空") == 2 * 3 / (4 + 5)
```
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from rouge_score.rouge_scorer import RougeScorer

from vglm.evaluation.predictions import Prediction


def normalise(text: str) -> str:
    """Bring a text into the form in which answers are compared.

    Unicode NFKC (full-width signs and letters become half-width); white space is dropped at the ends and made one blank
    inside. Case, accents and punctuation count.
    """
    return " ".join(unicodedata.normalize("NFKC", text).split())


def exact_match(prediction: str, reference: str) -> float:
    """1.0 where the two texts are equal after `normalise`, else 0.0."""
    return float(normalise(prediction) == normalise(reference))


class CharacterTokenizer:
    """Tokens for `rouge_score`: every character of the normalised text except white space, in any script."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text into characters."""
        return [character for character in normalise(text) if not character.isspace()]


_ROUGE_L = RougeScorer(["rougeL"], tokenizer=CharacterTokenizer())


def rouge_l_characters(prediction: str, reference: str) -> float:
    """ROUGE-L on characters: the F1 of the longest common subsequence, from 0.0 to 1.0.

    With L the length of the longest common subsequence, P = L / len(prediction), R = L / len(reference) and
    F1 = 2 P R / (P + R). An empty text scores 0.

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", as google-research's `rouge_score`
    computes it; its own tokenizer drops everything but a-z and 0-9, so Chinese would always score 0.
    """
    return float(_ROUGE_L.score(target=reference, prediction=prediction)["rougeL"].fmeasure)


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of one answer.

    Attributes:
        name: Its key in `metrics.json`.
        title: Its name in a report.
        signature: How exactly it is computed, so that two reports can be compared.
        function: (prediction, reference) -> 0.0 to 1.0, higher is better.
    """

    name: str
    title: str
    signature: str
    function: Callable[[str, str], float]


EXACT_MATCH = Metric("exact_match", "Exact match", "nfkc|strip|one blank|case kept", exact_match)
ROUGE_L = Metric(
    "rouge_l_characters",
    "ROUGE-L (characters)",
    "rouge-score|F1|characters without blanks|nfkc|case kept",
    rouge_l_characters,
)
METRICS = (EXACT_MATCH, ROUGE_L)


def score(record: Prediction) -> dict[str, float]:
    """Score one record by every metric; a record with an error scores 0.

    Returns:
        Metric name -> score, 0.0 to 1.0.
    """
    if record.error is not None:
        return {metric.name: 0.0 for metric in METRICS}
    return {metric.name: metric.function(record.prediction, record.reference) for metric in METRICS}
