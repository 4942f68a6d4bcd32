"""Scores of radiology reports by the package RadEval: RadGraph, RaTEScore, GREEN and others.

    vglm score <evaluation> metrics.external.radeval.scorers=[radgraph,ratescore]

Each answer gets its own scores, so that arms are compared sample by sample. The scorers download their weights
themselves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import metadata, util
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vglm.errors import DataError, brief
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Rows
from vglm.evaluation.score.metrics.external import Arms, ExternalMetric, Store, StoredMetric, complete, with_gaps

SCORERS: Mapping[str, Mapping[str, str]] = {
    "radgraph": {
        "radgraph_simple": "RadGraph F1, entities",
        "radgraph_partial": "RadGraph F1, entities and whether related",
        "radgraph_complete": "RadGraph F1, entities and relations",
    },
    "ratescore": {"ratescore": "RaTEScore"},
    "green": {"green": "GREEN"},
    "radcliq": {"radcliq_v1": "RadCliQ-v1"},
    "srrbert": {
        "srrbert_weighted_f1": "SRR-BERT F1",
        "srrbert_weighted_precision": "SRR-BERT precision",
        "srrbert_weighted_recall": "SRR-BERT recall",
    },
    "temporal": {"temporal_f1": "temporal F1"},
    "radeval_bertscore": {"radeval_bertscore": "BERTScore by RadEval's encoder"},
    "bertscore": {"bertscore": "BERTScore by RadEval"},
    "bleu": {"bleu": "BLEU-4 by RadEval, mean of answers"},
    "rouge": {"rouge1": "ROUGE-1 by RadEval", "rouge2": "ROUGE-2 by RadEval", "rougeL": "ROUGE-L by RadEval"},
}
"""Scorer -> the name of its numbers -> title. Those of RadEval that send answers to a service are not among them."""

_WITHOUT_WEIGHTS = frozenset({"bleu", "rouge"})
_ERRORS = frozenset({"radcliq_v1"})
"""Numbers of which less is better, without an upper limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadevalMetric(ExternalMetric):
    """`metrics.external.radeval`.

    Attributes:
        scorers: Some of `SCORERS`.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ("scorers",)

    scorers: Sequence[str]

    def names(self, key: str) -> tuple[str, ...]:
        """The names of its metrics, such as `radeval_radgraph_partial`."""
        return tuple(_name(key, number) for scorer in self.scorers for number in SCORERS.get(scorer, ()))

    def problems(self) -> Iterable[str]:
        """What is wrong with the values, the package included."""
        if unknown := [scorer for scorer in self.scorers if scorer not in SCORERS]:
            yield f"scorers: there is no {unknown[0]!r}; choose from {', '.join(SCORERS)}"
        if util.find_spec("radeval") is None:
            yield "the package RadEval is not installed: pip install RadEval"

    def score(self, key: str, arms: Arms, folder: Path, store: Store) -> None:
        """See `ExternalMetric`."""
        for scorer in self.scorers:
            metrics = [_describe(key, scorer, number) for number in SCORERS[scorer]]
            earlier = [store.metrics.get(metric.name) for metric in metrics]
            is_same = metrics == [metric and replace(metric, unscored=None) for metric in earlier]
            columns = [store.rows.get(metric.rows, {}) if is_same else {} for metric in metrics]
            scores = {answer: [*chain.from_iterable(column[answer] for column in columns)] for answer in columns[0]}
            rows = complete(scores, arms, partial(_compute, scorer))
            for index, metric in enumerate(metrics):
                store.rows[metric.rows] = {answer: row[2 * index : 2 * index + 2] for answer, row in rows.items()}
                store.metrics[metric.name] = with_gaps(metric, store.rows[metric.rows], arms)


def _name(key: str, number: str) -> str:
    return number if number.startswith(f"{key}_") else f"{key}_{number}"


def _describe(key: str, scorer: str, number: str) -> StoredMetric:
    return StoredMetric(
        name=_name(key, number),
        title=SCORERS[scorer][number],
        signature=f"RadEval {metadata.version('radeval')}|{scorer}|an answer that is empty or an error counts 0",
        rows=_name(key, number),
        is_share=number not in _ERRORS,
        higher_is_better=number not in _ERRORS,
    )


@cache
def _open(scorer: str) -> Any:
    """RadEval with one scorer, its weights loaded."""
    from radeval import RadEval  # type: ignore[import-not-found, unused-ignore]

    return RadEval(metrics=[scorer], per_sample=True, show_progress=False)


def _advice(scorer: str) -> str:
    """What to do where a scorer fails."""
    elsewhere = (
        "score both arms where it runs and bring the numbers back with metrics.external.<name>.scores=<file>"
        f" (recipes/xray/README.md), or leave {scorer} out of metrics.external.radeval.scorers."
    )
    if scorer in _WITHOUT_WEIGHTS:
        return elsewhere[0].upper() + elsewhere[1:]
    return (
        "It downloads its weights from the Hugging Face hub at its first use: run this where the hub can be reached, or"
        f" set HF_HOME to a cache that holds them. Else {elsewhere}"
    )


def _compute(scorer: str, records: Sequence[Prediction]) -> Rows:
    """(score, 1) of each number side by side, shape (n, 2 * numbers); (0, 0) where an error has no worst score."""
    numbers = list(SCORERS[scorer])
    worst = [(0.0, 0.0 if number in _ERRORS else 1.0) for number in numbers]
    rows = np.tile(np.ravel(worst), (len(records), 1))
    answered = [index for index, record in enumerate(records) if record.error is None and record.prediction.strip()]
    if not answered:
        return rows
    texts = [records[index] for index in answered]
    try:
        computed = _open(scorer)(refs=[text.reference for text in texts], hyps=[text.prediction for text in texts])
        scores = np.array([computed[number] for number in numbers], np.float64).T
    except Exception as error:  # of many packages: weights that cannot be had, answers that one of them cannot take
        raise DataError(f"RadEval's {scorer} failed: {brief(error)}. {_advice(scorer)}") from error
    if scores.shape != (len(texts), len(numbers)) or not np.isfinite(scores).all():
        raise DataError(f"RadEval's {scorer} gave no score for some answers. Leave it out.")
    rows[answered, 0::2], rows[answered, 1::2] = scores, 1.0
    return rows
