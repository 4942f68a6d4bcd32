"""Two arms of predictions on the same samples, side by side: scores, differences and the answers that flipped.

`metrics.json`, for one split:

    {"arms": {"baseline": "before", "candidate": "after"},
     "metrics": {"exact_match": "nfkc|strip|one blank|case kept", …},
     "splits": {"test": {"n": 120, "errors": 0, "changed": 118,
                         "exact_match": {"before": 0.0, "after": 0.925, "points": 92.5}, …,
                         "wrong_to_right": ["test.json#0", …], "right_to_wrong": [],
                         "kinds": {"background": {"n": 120, …}}}},
     "probe_loss_points": 1.5}
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from vglm.errors import DataError
from vglm.evaluation.metrics import EXACT_MATCH, METRICS, normalise, score
from vglm.evaluation.predictions import PREDICTIONS_FILE, Evaluation, Prediction, read_predictions, write_text

METRICS_FILE = "metrics.json"
PROBE = "probe"


@dataclass(frozen=True)
class Pair:
    """One sample's answers in both arms."""

    baseline: Prediction
    candidate: Prediction

    @cached_property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Metric name -> (baseline, candidate), 0.0 to 1.0."""
        baseline, candidate = score(self.baseline), score(self.candidate)
        return {name: (baseline[name], candidate[name]) for name in baseline}

    @property
    def right(self) -> tuple[bool, bool]:
        """Whether the (baseline, candidate) answers match exactly."""
        baseline, candidate = self.scores[EXACT_MATCH.name]
        return baseline == 1.0, candidate == 1.0

    @property
    def is_changed(self) -> bool:
        """Whether the two answers differ after normalisation."""
        return normalise(self.baseline.prediction) != normalise(self.candidate.prediction)

    @property
    def has_error(self) -> bool:
        """Whether an arm has no answer."""
        return self.baseline.error is not None or self.candidate.error is not None


@dataclass(frozen=True)
class Summary:
    """Scores of a set of pairs, at least one.

    Attributes:
        pairs: The pairs, in the order of the predictions.
    """

    pairs: tuple[Pair, ...]

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.pairs)

    @property
    def errors(self) -> int:
        """Samples without an answer in one of the arms; they count as wrong."""
        return sum(pair.has_error for pair in self.pairs)

    @property
    def changed(self) -> int:
        """Samples whose answers differ."""
        return sum(pair.is_changed for pair in self.pairs)

    @cached_property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Metric name -> mean (baseline, candidate), 0.0 to 1.0."""
        means: dict[str, tuple[float, float]] = {}
        for metric in METRICS:
            columns = list(zip(*(pair.scores[metric.name] for pair in self.pairs), strict=True))
            means[metric.name] = (fmean(columns[0]), fmean(columns[1]))
        return means

    def points(self, metric: str = EXACT_MATCH.name) -> float:
        """Candidate minus baseline, in points (hundredths)."""
        baseline, candidate = self.scores[metric]
        return 100 * (candidate - baseline)

    def flips(self, was_right: bool, is_right: bool) -> list[Pair]:
        """The pairs that went from `was_right` in the baseline to `is_right` in the candidate."""
        return [pair for pair in self.pairs if pair.right == (was_right, is_right)]

    @property
    def kinds(self) -> dict[str, "Summary"]:
        """The same for each kind of question, by name; empty where the data names no kinds."""
        names = sorted({pair.candidate.kind for pair in self.pairs if pair.candidate.kind is not None})
        return {name: Summary(tuple(pair for pair in self.pairs if pair.candidate.kind == name)) for name in names}


@dataclass(frozen=True)
class Comparison:
    """The whole comparison.

    Attributes:
        baseline: Label of the arm to compare with.
        candidate: Label of the arm that is judged.
        splits: Split name -> its pairs' summary, in the order of the predictions.
    """

    baseline: str
    candidate: str
    splits: dict[str, Summary]

    @property
    def probe_loss_points(self) -> float | None:
        """Exact match lost on the general probe, in points; negative where it gained, None where there is no probe."""
        return -self.splits[PROBE].points() if PROBE in self.splits else None

    def as_dict(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        splits = {
            name: {
                **self._row(summary),
                "wrong_to_right": [pair.candidate.id for pair in summary.flips(False, True)],
                "right_to_wrong": [pair.candidate.id for pair in summary.flips(True, False)],
                "kinds": {kind: self._row(part) for kind, part in summary.kinds.items()},
            }
            for name, summary in self.splits.items()
        }
        return {
            "arms": {"baseline": self.baseline, "candidate": self.candidate},
            "metrics": {metric.name: metric.signature for metric in METRICS},
            "splits": splits,
            "probe_loss_points": self.probe_loss_points,
        }

    def _row(self, summary: Summary) -> dict[str, Any]:
        """Counts and scores of one row of the tables."""
        scores = {
            name: {self.baseline: baseline, self.candidate: candidate, "points": summary.points(name)}
            for name, (baseline, candidate) in summary.scores.items()
        }
        return {"n": summary.n, "errors": summary.errors, "changed": summary.changed, **scores}


def compare(
    baseline: Sequence[Prediction], candidate: Sequence[Prediction], *, labels: tuple[str, str] = ("before", "after")
) -> Comparison:
    """Join two arms of predictions by split and id.

    Args:
        baseline: The records to compare with.
        candidate: The records of the same samples that are judged; their order is kept.
        labels: The arms' names, two different ones.

    Returns:
        The comparison, with at least one pair.

    Raises:
        DataError: The arms are empty, or are not about the same questions and references.
    """
    if not candidate and not baseline:
        raise DataError(f"{labels[0]} and {labels[1]} hold no predictions; there is nothing to compare.")
    before = {(record.split, record.id): record for record in baseline}
    after = {(record.split, record.id): record for record in candidate}
    problems = [f"{split} {name!r} is only in {labels[0]}" for split, name in before if (split, name) not in after]
    problems += [f"{split} {name!r} is only in {labels[1]}" for split, name in after if (split, name) not in before]
    for key in after.keys() & before.keys():
        if (before[key].question, before[key].reference) != (after[key].question, after[key].reference):
            problems.append(f"{key[0]} {key[1]!r} has another question or reference")
    if problems:
        raise DataError(
            f"{labels[0]} and {labels[1]} are not about the same samples: {len(problems)} differ "
            f"(first: {'; '.join(problems[:3])}). Evaluate both arms on the same data."
        )
    pairs = [Pair(before[key], record) for key, record in after.items()]
    splits = dict.fromkeys(pair.candidate.split for pair in pairs)
    return Comparison(
        *labels, {name: Summary(tuple(pair for pair in pairs if pair.candidate.split == name)) for name in splits}
    )


def compare_folder(folder: Path, evaluation: Evaluation) -> Comparison:
    """Compare the two arms' `predictions.jsonl` of an evaluation folder.

    Raises:
        DataError: The predictions are missing, damaged, or not about the same samples.
    """
    labels = evaluation.baseline.label, evaluation.candidate.label
    baseline, candidate = (read_predictions(folder / label / PREDICTIONS_FILE) for label in labels)
    return compare(baseline, candidate, labels=labels)


def write_metrics(comparison: Comparison, folder: Path) -> None:
    """Write `metrics.json` into the evaluation folder."""
    write_text(folder / METRICS_FILE, json.dumps(comparison.as_dict(), ensure_ascii=False, indent=2) + "\n")
