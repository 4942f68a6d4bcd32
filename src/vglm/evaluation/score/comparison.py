"""Compare two arms' predictions on the same samples: scores, differences with their uncertainty, flips.

The first metric requested is the primary one: it was named before anyone saw a score, and the verdict uses it. The
p-values are Holm-corrected over all metrics of a split; intervals of slices are not corrected for their number.

Samples without an answer in one arm, for example because a picture cannot be opened, are counted as `errors` and scored
in neither arm; where no sample of a split has both answers, all count as wrong.

`decisive` is the metric that calls an answer right or wrong, and so decides what flipped: the primary one where it is a
share of right answers, else a requested one that decides, else exact match.

Where several answers to each question were drawn, answers are paired draw by draw, and a sample with its mean over the
draws counts as one: `n`, `errors` and `changed` count samples, and draws are never treated as independent. `cut` counts
answers that reached `max_new_tokens`. `draws` has the main split's score of each draw alone, and how far these lie
apart. `as_dict` is what `metrics.json` holds, see `vglm.evaluation.score.schema`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.messages import Message, Sentence, Unsuitable, as_plain
from vglm.evaluation.predictions import (
    Evaluation,
    Prediction,
    join_groups,
    predictions_file,
    read_predictions,
)
from vglm.evaluation.score.baselines import Baseline
from vglm.evaluation.score.changes import Change, count_changes
from vglm.evaluation.score.image_use import GainChange, VisualGain, compare_gains
from vglm.evaluation.score.metrics import (
    EXACT_MATCH,
    METRICS,
    Labels,
    Metric,
    adjust,
    as_table,
    calibration,
    class_f1_intervals,
    classify,
    compare_arms,
    measure,
    select_metrics,
)
from vglm.evaluation.score.metrics.external import stored_metrics
from vglm.evaluation.score.metrics.findings import by_abnormality, finding_table
from vglm.evaluation.score.schema import (
    VERSION,
    DrawScores,
    GainChangeScores,
    GainScores,
    MetricFacts,
    MetricScore,
    MetricsFile,
    SetScores,
    SplitScores,
    WorseSliceScores,
)
from vglm.evaluation.score.settings import MetricSettings, read_settings
from vglm.evaluation.score.statistics import (
    GrossForgetting,
    Interval,
    NonInferiority,
    PairedComparison,
    gross_forgetting,
    holm,
    non_inferiority,
)
from vglm.evaluation.score.statistics.basics import finite
from vglm.runs import EVALUATION_FILE
from vglm.text.normalisation import normalise

RETENTION, TEST, TRAIN = "retention", "test", "train"
MAX_SLICES = 30
"""A field with more different values is no way to slice."""
LEVEL = 0.05


@dataclass(frozen=True)
class Pair:
    """One sample's answers in both arms, of one draw.

    Attributes:
        baseline: The answer to compare with.
        candidate: The answer that is judged.
        judged: Whether the (baseline, candidate) answers are right by another metric than exact match; else None.
    """

    baseline: Prediction
    candidate: Prediction
    judged: tuple[bool, bool] | None = None

    @cached_property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Metric name -> (baseline, candidate), 0.0 to 1.0."""
        return {metric.name: (_score(metric, self.baseline), _score(metric, self.candidate)) for metric in METRICS}

    @cached_property
    def right(self) -> tuple[bool, bool]:
        """Whether the (baseline, candidate) answers are right, by the metric that decides it (`Summary.decisive`)."""
        if self.judged is not None:
            return self.judged
        baseline, candidate = self.scores[EXACT_MATCH.name]
        return baseline == 1.0, candidate == 1.0

    @cached_property
    def is_changed(self) -> bool:
        """Whether the two answers differ after normalisation."""
        return normalise(self.baseline.prediction) != normalise(self.candidate.prediction)

    @property
    def has_error(self) -> bool:
        """Whether an arm has no answer."""
        return self.baseline.error is not None or self.candidate.error is not None

    @property
    def sample(self) -> tuple[str, str]:
        """Which sample it is, whatever the draw."""
        return self.candidate.split, self.candidate.id


def _score(metric: Metric, record: Prediction) -> float:
    """One record by one of the metrics of every report; one with an error scores 0."""
    assert metric.function is not None
    return 0.0 if record.error is not None else metric.function(record.prediction, record.reference)


@dataclass(frozen=True)
class Summary:
    """Scores of a set of pairs, at least one.

    Attributes:
        pairs: The pairs, in the order of the predictions.
        metrics: What `paired` compares, the primary one first.
        decisive: By which metric an answer is right or wrong: the primary one where it is a share of right answers.
        missing: Pairs that an arm has no answer to; they are counted, and play no role in any score.
    """

    pairs: tuple[Pair, ...]
    metrics: tuple[Metric, ...] = METRICS
    decisive: Metric = EXACT_MATCH
    missing: tuple[Pair, ...] = ()

    @property
    def all_pairs(self) -> tuple[Pair, ...]:
        """All pairs, those without an answer last."""
        return self.pairs + self.missing

    @cached_property
    def n(self) -> int:
        """Number of samples."""
        return len({pair.sample for pair in self.pairs})

    @cached_property
    def draws(self) -> tuple[int, ...]:
        """Which draws there are; only 0 for greedy answers."""
        return tuple(sorted({pair.candidate.draw for pair in self.pairs}))

    @property
    def first_draw(self) -> list[Pair]:
        """The pairs of the first draw: one of each sample, where counts need independent answers."""
        return [pair for pair in self.pairs if pair.candidate.draw == self.draws[0]]

    @cached_property
    def errors(self) -> int:
        """Samples without an answer in one of the arms."""
        return len({pair.sample for pair in self.all_pairs if pair.has_error})

    @cached_property
    def changed(self) -> int:
        """Samples whose answers differ, in some draw."""
        return len({pair.sample for pair in self.pairs if pair.is_changed})

    @cached_property
    def cut(self) -> tuple[int, int]:
        """How many (baseline, candidate) answers reached `max_new_tokens`, so that the model was stopped."""
        return sum(pair.baseline.is_cut for pair in self.pairs), sum(pair.candidate.is_cut for pair in self.pairs)

    @cached_property
    def scores(self) -> dict[str, tuple[float, float]]:
        """Metric name -> mean (baseline, candidate), 0.0 to 1.0."""
        columns = {metric.name: [pair.scores[metric.name] for pair in self.pairs] for metric in METRICS}
        return {
            name: (fmean(before for before, _ in scores), fmean(after for _, after in scores))
            for name, scores in columns.items()
        }

    def points(self, metric: str = EXACT_MATCH.name) -> float:
        """Candidate minus baseline, in points (hundredths)."""
        baseline, candidate = self.scores[metric]
        return 100 * (candidate - baseline)

    @cached_property
    def right(self) -> tuple[float, float]:
        """Share of (baseline, candidate) answers that are right by the decisive metric."""
        return fmean(pair.right[0] for pair in self.pairs), fmean(pair.right[1] for pair in self.pairs)

    def flips(self, was_right: bool, is_right: bool) -> list[Pair]:
        """The pairs that went from `was_right` in the baseline to `is_right` in the candidate."""
        return [pair for pair in self.pairs if pair.right == (was_right, is_right)]

    @cached_property
    def changes(self) -> dict[Change, int]:
        """Counts of changed answers by content and by form, see `vglm.evaluation.score.changes`."""
        return count_changes(self.pairs)

    @cached_property
    def forgetting(self) -> GrossForgetting:
        """How many samples' answers were right and are wrong, and the reverse; of several draws the first."""
        pairs = self.first_draw
        before, after = [pair.right[0] for pair in pairs], [pair.right[1] for pair in pairs]
        return gross_forgetting(before, after, groups=[(pair.candidate.split, pair.candidate.group) for pair in pairs])

    @cached_property
    def has_one_reference(self) -> bool:
        """Whether the same answer is right for all of several samples, so that no skill shows in giving it."""
        return self.n > 1 and len({normalise(pair.candidate.reference) for pair in self.pairs}) == 1

    @property
    def power_line(self) -> Message:
        """What these samples can and cannot show by the primary metric, in a sentence or two."""
        if len(self.draws) == 1:
            return self.primary.power_line
        return Message("power.draws", {"power": self.primary.power_line, "draws": len(self.draws)})

    @property
    def primary(self) -> PairedComparison:
        """The comparison by the first metric that could be computed."""
        return self._first[1]

    @property
    def primary_metric(self) -> Metric:
        """The first metric that could be computed."""
        return self._first[0]

    @property
    def paired(self) -> dict[str, tuple[PairedComparison, float | None]]:
        """Metric name -> (its comparison, its p-value by Holm over these metrics; None for lengths)."""
        return adjust(self._comparisons[0], self.metrics)

    @property
    def not_computed(self) -> dict[str, Sentence]:
        """Metric name -> why it does not apply to these answers."""
        return self._comparisons[1]

    @cached_property
    def _first(self) -> tuple[Metric, PairedComparison]:
        for metric in self.metrics:
            with suppress(DataError):
                return metric, self._compare(metric)
        raise DataError("none of the metrics can be computed on these answers; choose others with metrics=<group>.")

    @cached_property
    def _compared(self) -> dict[str, PairedComparison]:
        """What `_compare` has found, for resampling takes long."""
        return {}

    def _compare(self, metric: Metric) -> PairedComparison:
        if metric.name not in self._compared:
            arms = [pair.baseline for pair in self.pairs], [pair.candidate for pair in self.pairs]
            self._compared[metric.name] = compare_arms(metric, *arms)
        return self._compared[metric.name]

    @cached_property
    def _comparisons(self) -> tuple[dict[str, PairedComparison], dict[str, Sentence]]:
        """Metric name -> its comparison, and of those that do not apply why."""
        comparisons: dict[str, PairedComparison] = {}
        reasons: dict[str, Sentence] = {}
        for metric in self.metrics:
            try:
                comparisons[metric.name] = self._compare(metric)
            except DataError as error:
                reasons[metric.name] = error.message if isinstance(error, Unsuitable) else str(error)
        return comparisons, reasons

    @cached_property
    def kinds(self) -> dict[str, "Summary"]:
        """The same for each kind of question, by name; empty where the data names no kinds."""
        names = sorted({pair.candidate.kind for pair in self.pairs if pair.candidate.kind is not None})
        return {name: self.part([pair for pair in self.pairs if pair.candidate.kind == name]) for name in names}

    @cached_property
    def slices(self) -> dict[str, dict[str, "Summary"]]:
        """Field -> value -> the same for the samples with it; fields with 2 to `MAX_SLICES` different values."""
        values: dict[str, dict[str, list[Pair]]] = {}
        for pair in self.pairs:
            for name, value in slice_values(pair.candidate).items():
                values.setdefault(name, {}).setdefault(value, []).append(pair)
        if any(metric.kind == "findings" for metric in self.metrics):
            parts = by_abnormality([pair.candidate for pair in self.pairs])
            pairs = {pair.candidate.key: pair for pair in self.pairs}
            values["study"] = {name: [pairs[row.key] for row in rows] for name, rows in parts.items()}
        return {
            name: self.kinds if name == "kind" else {value: self.part(pairs) for value, pairs in sorted(parts.items())}
            for name, parts in values.items()
            if 2 <= len(parts) <= MAX_SLICES
        }

    def part(self, pairs: Sequence[Pair]) -> "Summary":
        """The same for some of the pairs, by the primary metric and those of every report."""
        metrics = {metric.name: metric for metric in (self.primary_metric, *METRICS)}
        return Summary(tuple(pairs), tuple(metrics.values()), self.decisive)


@dataclass(frozen=True)
class WorseSlice:
    """A part of the main split that got worse, of all its parts.

    Attributes:
        field: What it is sliced by.
        value: Which slice.
        summary: Its pairs.
        p_value: Of the primary metric's comparison there, by Holm over all slices.
    """

    field: str
    value: str
    summary: Summary
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """The whole comparison.

    Attributes:
        baseline: Label of the arm to compare with.
        candidate: Label of the arm that is judged.
        splits: Split name -> its pairs' summary, in the order of the predictions.
        labels: The closed set of classes; None for the different references.
        gains: How much of the score depends on the image; empty without controls.
        baselines: What simple rules score; empty where not computed.
        conventions: The candidate by other projects' conventions; empty where none was requested.
        budget_points: How many points of retention the run was allowed to lose; None without such a budget.
    """

    baseline: str
    candidate: str
    splits: dict[str, Summary]
    labels: Labels | None = None
    gains: tuple[VisualGain, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    conventions: Mapping[str, Any] = field(default_factory=dict)
    budget_points: float | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics of any split."""
        return tuple({metric.name: metric for part in self.splits.values() for metric in part.metrics}.values())

    @property
    def main(self) -> str:
        """The split that is judged: the test split where there is one; else training samples and retention last."""
        return min(self.splits, key=lambda name: (name != TEST, name == RETENTION, name == TRAIN))

    @property
    def verdict(self) -> "Verdict":
        """The verdict by the primary metric on the main split.

        Where the arms are one model with true and with shuffled images, only those samples are judged whose other image
        asks for another answer, see `read_visual_gains`.
        """
        part = self.splits[self.main]
        own = (gain.result for gain in self.gains if gain.label == self.baseline)
        judged = judge(next(own, part.primary), part.primary_metric)
        return replace(judged, finding="no skill") if part.has_one_reference and judged.finding != "too few" else judged

    @cached_property
    def arm_intervals(self) -> dict[str, Interval]:
        """Arm -> the interval of its own score by the primary metric on the main split."""
        metric, arms = self.verdict.metric, self._by_arm(self.splits[self.main].pairs)
        return {label: measure(metric, records).interval for label, records in arms.items()}

    @cached_property
    def gain_changes(self) -> tuple[GainChange, ...]:
        """What tuning changed of the use of images, for each control that both arms answered."""
        metric = self.splits[self.main].primary_metric
        gains = {(gain.control, gain.arm): gain for gain in self.gains}
        pairs = [
            (gains[control, self.baseline], gains[control, self.candidate])
            for control in dict.fromkeys(gain.control for gain in self.gains)
            if {(control, self.baseline), (control, self.candidate)} <= gains.keys()
        ]
        return tuple(change for pair in pairs if (change := compare_gains(*pair, metric)) is not None)

    @cached_property
    def worse_slices(self) -> tuple[WorseSlice, ...]:
        """The slices of the main split that got worse, with p-values by Holm over all its slices."""
        slices = [
            (field, value, part)
            for field, parts in self.splits[self.main].slices.items()
            for value, part in parts.items()
        ]
        corrected = holm({str(index): part.primary.p_value for index, (*_, part) in enumerate(slices)})
        return tuple(
            WorseSlice(field, value, part, p_value)
            for (field, value, part), p_value in zip(slices, corrected.values(), strict=True)
            if judge(part.primary, part.primary_metric).finding == "worse" and p_value < LEVEL
        )

    @cached_property
    def within_budget(self) -> NonInferiority | None:
        """Whether retention lost no more than the run's forgetting budget; None without a budget or a retention set."""
        if self.budget_points is None or RETENTION not in self.splits or self.main == RETENTION:
            return None
        return non_inferiority(self.splits[RETENTION].primary, self.budget_points / 100)

    @cached_property
    def confusion(self) -> dict[str, dict[str, Any]]:
        """Arm -> counts per class of the main split, F1 with intervals; empty where nothing was to be classified."""
        part = self.splits[self.main]
        if not any(metric.kind == "classes" for metric in part.metrics):
            return {}
        try:
            return {label: self._classes(records) for label, records in self._arms.items()}
        except DataError:  # listed in `not_computed`
            return {}

    def _classes(self, records: Sequence[Prediction]) -> dict[str, Any]:
        counts, f1 = classify(records, self.labels).as_dict(), class_f1_intervals(records, self.labels)
        rows = as_table(counts["classes"], f1)
        for row in rows:
            counts["classes"][row["label"]]["f1_interval"] = row["interval"]
        return {**counts, "rows": rows}

    @property
    def _arms(self) -> dict[str, list[Prediction]]:
        """Arm -> its records of the main split; of several draws the first, for counts need independent answers."""
        return self._by_arm(self.splits[self.main].first_draw)

    def _by_arm(self, pairs: Iterable[Pair]) -> dict[str, list[Prediction]]:
        pairs = list(pairs)
        return {
            self.baseline: [pair.baseline for pair in pairs],
            self.candidate: [pair.candidate for pair in pairs],
        }

    @cached_property
    def calibration(self) -> dict[str, dict[str, Any]]:
        """Arm -> how well its likelihoods on the main split are calibrated; empty where none were scored."""
        try:
            return {label: calibration(records) for label, records in self._arms.items()}
        except DataError:
            return {}

    @cached_property
    def draws(self) -> DrawScores:
        """The main split's score in each draw alone by the primary metric, their mean and standard deviation.

        JSON-able; the standard deviation, between draws of all samples, is None where there is only one.
        """
        part = self.splits[self.main]
        metric, labels = part.primary_metric, (self.baseline, self.candidate)
        scores: dict[str, list[float]] = {label: [] for label in labels}
        for draw in part.draws:
            for label, records in self._by_arm(pair for pair in part.pairs if pair.candidate.draw == draw).items():
                scores[label].append(metric.score(records))
        defined = {label: [value for value in values if math.isfinite(value)] for label, values in scores.items()}
        return {
            "n": len(part.draws),
            "metric": metric.name,
            "scores": {name: [finite(score) for score in scores[name]] for name in labels},
            "mean": {name: fmean(values) if values else None for name, values in defined.items()},
            "sd": {name: stdev(values) if len(values) > 1 else None for name, values in defined.items()},
        }

    @property
    def retention_loss_points(self) -> float | None:
        """Exact match lost on the retention set, in points; negative where it gained, None without one."""
        return -self.splits[RETENTION].points() if RETENTION in self.splits else None

    def as_dict(self) -> MetricsFile:
        """The content of `metrics.json`."""
        return self._content

    @cached_property
    def _content(self) -> MetricsFile:
        return {
            "version": VERSION,
            "arms": {"baseline": self.baseline, "candidate": self.candidate},
            "primary": self.splits[self.main].primary_metric.name,
            "metrics": {metric.name: _facts(metric) for metric in self.metrics},
            "splits": {name: self._split(name, summary) for name, summary in self.splits.items()},
            "draws": self.draws,
            "retention_loss_points": self.retention_loss_points,
            "image_use": [self._gain(gain) for gain in self.gains],
            "image_use_change": [self._gain_change(change) for change in self.gain_changes],
            "worse_slices": [_worse(slice) for slice in self.worse_slices],
            "within_budget": None if self.within_budget is None else _finite(asdict(self.within_budget)),
            "conventions": dict(self.conventions),
        }

    def _split(self, name: str, summary: Summary) -> SplitScores:
        is_main = name == self.main
        return {
            **self._set(summary),
            "right_by": summary.decisive.name,
            "changes": {str(name): count for name, count in summary.changes.items()},
            "forgetting": _finite(asdict(summary.forgetting)),
            "wrong_to_right": _names(summary, summary.flips(False, True)),
            "right_to_wrong": _names(summary, summary.flips(True, False)),
            "power_line": as_plain(summary.power_line),
            "not_computed": {metric: as_plain(reason) for metric, reason in summary.not_computed.items()},
            "kinds": {kind: self._set(part) for kind, part in summary.kinds.items()},
            "slices": {
                field: {value: self._set(part) for value, part in parts.items()}
                for field, parts in summary.slices.items()
            },
            "findings": self._findings(summary),
            "classes": {arm: counts["rows"] for arm, counts in self.confusion.items()} if is_main else {},
            "calibration": self.calibration if is_main else {},
        }

    def _findings(self, summary: Summary) -> dict[str, dict[str, dict[str, object]]]:
        """Arm -> finding -> n, precision, recall and F1 with intervals; nothing without such a metric.

        Of several draws the first, for n are samples.
        """
        computed = (metric for metric in summary.metrics if metric.name not in summary.not_computed)
        if not any(metric.kind == "findings" for metric in computed):
            return {}
        return {arm: finding_table(records) for arm, records in self._by_arm(summary.first_draw).items()}

    def _set(self, summary: Summary) -> SetScores:
        """Counts and scores of one row of the tables."""
        metrics = {metric.name: metric for metric in summary.metrics}
        return {
            "n": summary.n,
            "errors": summary.errors,
            "changed": summary.changed,
            "cut": dict(zip((self.baseline, self.candidate), summary.cut, strict=True)),
            "scores": {name: self._score(metrics[name], *value) for name, value in summary.paired.items()},
        }

    def _score(self, metric: Metric, result: PairedComparison, adjusted: float | None) -> MetricScore:
        """All scores of one metric; values that are not finite become None."""
        facts, flips = result.as_dict(), result.flips
        return {
            "values": {self.baseline: facts.pop("before"), self.candidate: facts.pop("after")},
            "points": 100 * result.difference if metric.is_share and math.isfinite(result.difference) else None,
            **facts,  # type: ignore[typeddict-item]  # the fields of `PairedComparison`
            "interval": facts["interval"] if has_interval(result) else [None, None],
            "p_value_holm": None if adjusted is None or math.isnan(adjusted) else adjusted,
            "flips": flips and {"gained": len(flips.wrong_to_right), "lost": len(flips.right_to_wrong)},
            "signature": metric.signature,
        }

    def _gain(self, gain: VisualGain) -> GainScores:
        facts, metric = gain.result.as_dict(), self.splits[self.main].primary_metric
        del facts["flips"]
        return {
            "arm": gain.arm,
            "control": gain.control,
            "label": gain.label,
            "meaning": as_plain(gain.meaning),
            "changed": gain.changed,
            "metric": metric.name,
            "finding": judge_gain(gain, metric),
            "other_image": facts.pop("before"),
            "true_image": facts.pop("after"),
            **facts,  # type: ignore[typeddict-item]  # the fields of `PairedComparison`
        }

    def _gain_change(self, change: GainChange) -> GainChangeScores:
        facts, metric = change.result.as_dict(), self.splits[self.main].primary_metric
        return {
            "control": change.control,
            "metric": metric.name,
            "finding": judge_change(change, metric),
            "at_floor": list(change.at_floor),
            "gains": {self.baseline: facts["before"], self.candidate: facts["after"]},
            **{name: facts[name] for name in ("difference", "interval", "confidence", "p_value", "n", "groups")},  # type: ignore[typeddict-item]
        }


def _worse(worse: WorseSlice) -> WorseSliceScores:
    facts = worse.summary.primary.as_dict()
    names = ("difference", "interval", "n", "groups")
    return {
        "field": worse.field,
        "value": worse.value,
        "metric": worse.summary.primary_metric.name,
        "p_value_holm": worse.p_value,
        **{name: facts[name] for name in names},  # type: ignore[typeddict-item]
    }


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-able: what is not finite becomes None."""
    return {
        name: [finite(part) for part in value] if isinstance(value, tuple) else finite(value)
        for name, value in values.items()
    }


def _facts(metric: Metric) -> MetricFacts:
    return {
        "title": metric.titles,
        "signature": metric.signature,
        "kind": metric.kind,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
    }


def _names(summary: Summary, pairs: Sequence[Pair]) -> list[str]:
    """The samples' ids, with the draw where there are several."""
    if len(summary.draws) == 1:
        return [pair.candidate.id for pair in pairs]
    return [f"{pair.candidate.id} (draw {pair.candidate.draw})" for pair in pairs]


@dataclass(frozen=True)
class Verdict:
    """The conclusion that a comparison supports.

    Attributes:
        finding: `better` or `worse` where the interval excludes no difference and the test agrees; `open` where either
            does not; `too few` where there are fewer than `result.least_groups` independent groups or no interval; of a
            whole comparison `no skill` where all samples have the same reference.
        result: What it rests on.
        metric: Likewise.
    """

    finding: str
    result: PairedComparison
    metric: Metric


def has_interval(result: PairedComparison) -> bool:
    """Whether an interval says anything: resampling groups that all changed alike shows no doubt, but there is some."""
    low, high = result.interval
    return not (math.isnan(low) or math.isnan(high)) and low < high


def judge(result: PairedComparison, metric: Metric) -> Verdict:
    """Say what a paired comparison shows.

    Args:
        result: Of the two arms.
        metric: What was compared; of errors less is better.
    """
    low, high = result.interval
    if result.groups < result.least_groups or math.isnan(result.difference) or math.isnan(low) or math.isnan(high):
        return Verdict("too few", result, metric)
    if low <= 0 <= high or not result.p_value < LEVEL:
        return Verdict("open", result, metric)
    is_better = (result.difference > 0) == (metric.higher_is_better is not False)
    return Verdict("better" if is_better else "worse", result, metric)


def judge_gain(gain: VisualGain, metric: Metric) -> str:
    """As `judge`; `floor` where the arm scores nothing with any image, so that its use of images is unknown."""
    finding = judge(gain.result, metric).finding
    return "floor" if gain.is_at_floor(metric) and finding != "too few" else finding


def judge_change(change: GainChange, metric: Metric) -> str:
    """Whether images are used more (`better`) or less (`worse`); `floor` where an arm's use of them is unknown."""
    finding = judge(change.result, metric).finding
    return "floor" if change.at_floor and finding != "too few" else finding


def slice_values(record: Prediction) -> dict[str, str]:
    """Field -> value of what a record can be sliced by: its kind, the prompt's language, and text of its metadata."""
    values = {} if record.kind is None else {"kind": record.kind}
    values["language"] = record.language
    meta: Mapping[str, Any] = getattr(record, "meta", None) or {}
    return values | {
        str(name): str(value)
        for name, value in meta.items()
        if isinstance(value, str | bool | int) and name not in ("choices", "options", "answers")
    }


def compare(
    baseline: Sequence[Prediction],
    candidate: Sequence[Prediction],
    *,
    labels: tuple[str, str] = ("before", "after"),
    metrics: Sequence[str] = (),
    classes: Labels | None = None,
    external: Mapping[str, Metric] | None = None,
) -> Comparison:
    """Join two arms of predictions by split, id and draw.

    Args:
        baseline: The records to compare with.
        candidate: The records of the same samples that are judged; their order is kept.
        labels: The arms' names, two different ones.
        metrics: Names of metrics for the splits other than the retention set (for that too where it is the only split),
            the primary one first; exact match and ROUGE-L are always there.
        classes: The closed set of labels, where metrics are of a classification; None for the different references.
        external: Further metrics by name, whose numbers were computed before.

    Returns:
        The comparison, with at least one pair.

    Raises:
        ConfigError: There is no such metric.
        DataError: The arms are empty, or are not about the same questions and references.
    """
    return _compare(baseline, candidate, labels, select_metrics(metrics, classes, external), classes)


def _compare(
    baseline: Sequence[Prediction],
    candidate: Sequence[Prediction],
    labels: tuple[str, str],
    metrics: Sequence[Metric],
    classes: Labels | None,
) -> Comparison:
    chosen = {metric.name: metric for metric in (*metrics, *METRICS)}
    if not candidate and not baseline:
        raise DataError(f"{labels[0]} and {labels[1]} hold no predictions; there is nothing to compare.")
    before = {record.key: record for record in baseline}
    after = {record.key: record for record in candidate}
    problems = [f"{_shown(key)} is only in {labels[0]}" for key in before if key not in after]
    problems += [f"{_shown(key)} is only in {labels[1]}" for key in after if key not in before]
    for key in after.keys() & before.keys():
        if (before[key].question, before[key].reference) != (after[key].question, after[key].reference):
            problems.append(f"{_shown(key)} has another question or reference")
    if problems:
        raise DataError(
            f"{labels[0]} and {labels[1]} are not about the same samples: {len(problems)} differ "
            f"(first: {'; '.join(problems[:3])}). Evaluate both arms on the same data."
        )
    splits: dict[str, list[Prediction]] = {}
    for record in after.values():
        splits.setdefault(record.split, []).append(record)
    summaries = {}
    for name, candidates in splits.items():
        records = [
            record for record in candidates if record.error is None and before[record.key].error is None
        ] or candidates
        own = (
            METRICS
            if name == RETENTION and len(splits) > 1
            else tuple(metric.signed(records) for metric in chosen.values())
        )
        others = [before[record.key] for record in records]
        decisive, right = _decide(others, records, own)
        answered = {record.key for record in records}
        missing = tuple(Pair(before[record.key], record) for record in candidates if record.key not in answered)
        summaries[name] = Summary(tuple(map(Pair, others, records, right)), own, decisive, missing)
    return Comparison(*labels, summaries, classes)


def _decide(
    baseline: Sequence[Prediction], candidate: Sequence[Prediction], metrics: Sequence[Metric]
) -> tuple[Metric, list[tuple[bool, bool] | None]]:
    """The metric by which answers are right or wrong, and whether each pair's are; None for exact match.

    It is the primary metric where that is a mean over answers that score 0 or 1 each; else, as for MME's score or an
    F1, the first requested accuracy; else exact match.
    """
    for metric in (metrics[0], *(metric for metric in metrics[1:] if metric.decides)):
        if metric is EXACT_MATCH:
            break
        with suppress(DataError):
            arms = [right_answers(metric, records) for records in (baseline, candidate)]
            if arms[0] is not None and arms[1] is not None:
                return metric, list(zip(*arms, strict=True))
    return EXACT_MATCH, [None] * len(candidate)


def right_answers(metric: Metric, records: Sequence[Prediction]) -> list[bool] | None:
    """Whether each answer is right; None where the metric is not a share of right answers."""
    if not metric.is_share or not metric.higher_is_better:
        return None
    rows = metric.rows(records)
    if not metric.decides and (rows.shape[1] != 2 or not (rows[:, 1] == 1).all()):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        scores, score = metric.statistic(rows), float(metric.statistic(rows.sum(axis=0)))
    if not np.isin(scores, (0, 1)).all() or not math.isclose(fmean(scores), score, abs_tol=1e-9):
        return None
    return [bool(score) for score in scores == 1]


def _shown(key: tuple[str, str, int]) -> str:
    split, name, draw = key
    return f"{split} {name!r}" + (f", draw {draw}," if draw else "")


def compare_folder(folder: Path, evaluation: Evaluation, settings: MetricSettings | None = None) -> Comparison:
    """Compare the two arms' `predictions.jsonl` of an evaluation folder.

    Args:
        folder: The evaluation folder.
        evaluation: Its description.
        settings: What to score by; those of its config if not given.

    Raises:
        ConfigError: The config's metrics are wrong.
        DataError: The predictions are missing, damaged, or not about the same samples.
    """
    labels = evaluation.baseline.label, evaluation.candidate.label
    if labels[0] == labels[1]:
        raise DataError(f"{folder / EVALUATION_FILE} is damaged: both arms are {labels[0]!r}. Run evaluate.py again.")
    baseline, candidate = join_groups(*(read_predictions(predictions_file(folder, label)) for label in labels))
    settings = settings or read_settings(evaluation)
    chosen = settings.select(stored_metrics(folder, settings.external))
    return _compare(baseline, candidate, labels, chosen, settings.labels)
