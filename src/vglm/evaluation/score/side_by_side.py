"""Several runs side by side, by the primary metric of their evaluations: sweeps, few-shot curves and folds.

    runs = Run.find([Path("outputs/sweeps/2026-11-22_20-00-00")])
    rows = tabulate(runs)           # every run needs its evaluation
    tests = compare_methods(runs)   # every method with every other, on the same samples
    print(as_markdown(rows, tests))
    print(collect_protocol(Path("outputs/background/lora/few_shot/2026-11-22_20-00-00")))

    few_shot, exact_match on the test split, mean over seeds (lowest to highest)
    5 shots    before 0.0%    after 31.7% (25.0% to 40.8%)   5 seeds
    20 shots   before 0.0%    after 88.2% (81.7% to 93.3%)   5 seeds

Runs belong together when their configs differ in nothing but the seed. A row has the mean over the seeds, with an
interval that says what other seeds and other samples would do to it, and beside it how much the seeds vary and how much
the samples (`vglm.evaluation.score.statistics.over_seeds`). The variation between seeds of a method with one seed is
unknown; its interval covers other samples only. Two methods are compared sample by sample, each sample with its mean
over the method's seeds; the p-values are Holm-corrected for all pairs of methods. Where both have two seeds or more,
their difference has an interval over other seeds, too, paired where the seeds are the same; without it no two methods
are said to differ.

In k-fold and leave-one-out every sample is tested by the one run that did not learn from it. The folds' predictions are
put together and scored as one test; the scores of single folds, of one sample perhaps, are not averaged.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vglm.errors import ConfigError, DataError, typed
from vglm.evaluation.messages import translate
from vglm.evaluation.predictions import Prediction, read_evaluation
from vglm.evaluation.score.comparison import LEVEL, RETENTION, Comparison, Summary, compare_folder, has_interval
from vglm.evaluation.score.metrics import EXACT_MATCH, Metric
from vglm.evaluation.score.metrics.base import join_draws
from vglm.evaluation.score.statistics import (
    Interval,
    PairedComparison,
    SeedDifference,
    SeedSummary,
    Statistic,
    bootstrap_interval,
    compare_paired,
    compare_seeds,
    holm,
    mean_of_sums,
    over_seeds,
    wilson_interval,
)
from vglm.runs import EVALUATION_FILE, RECORD_FILE, ProtocolPlan, Run

_NOT_SETTINGS = (
    *("seed", "output_dir", "resume", "trainer.output_dir", "trainer.seed", "trainer.run_name"),
    *("seeds", "dataset.shot_seed", "dataset.division.shot_seed"),
    *("tracker._target_", "tracker.report_to", "tracker.project", "tracker.mode", "trainer.report_to"),
)
"""What may differ between runs of one row."""
_FOLD = "dataset.fold"


@dataclass(frozen=True)
class Row:
    """The runs of one method.

    Attributes:
        name: The recipe, and what distinguishes these settings from others of the recipe.
        seeds: Of the runs, in order.
        before: Score on the test split before tuning by the primary metric, mean over the runs.
        after: Likewise after.
        interval: 95% interval of `after`: for other seeds and other samples; for other samples alone where `seed_sd` is
            None.
        by_seed: `after` of each run.
        seed_sd: Standard deviation of `after` between seeds, without what the choice of samples does to it; None for
            one seed.
        sample_se: Standard error of `after` that is due to the finite test set, for these seeds; NaN where it cannot be
            estimated: all answered alike, or all of one group.
        forgotten: Exact match lost on the retention set, in points, mean over the runs; None without a retention set.
        samples: Number of test samples.
        seconds: Of training, mean.
        peak_memory: Bytes, the largest.
        size: Bytes of the result's weights, the largest.
        metric: The primary metric.
        stamps: What the reports of the runs are stamped with, such as LEAKED, without repeats.
    """

    name: str
    seeds: tuple[int, ...]
    before: float
    after: float
    interval: Interval
    by_seed: tuple[float, ...]
    seed_sd: float | None
    sample_se: float
    forgotten: float | None
    samples: int
    seconds: float
    peak_memory: int | None
    size: int
    metric: Metric = EXACT_MATCH
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodTest:
    """Two methods on the same samples.

    Attributes:
        first: Name of a row.
        second: Name of another; the difference is its score minus the first's.
        result: By the primary metric on the test split, each sample's mean over the seeds.
        p_value: Corrected by Holm for all pairs of methods.
        over_seeds: Of the difference, other seeds and other samples counted; None unless both methods have two seeds
            or more.
        metric: The primary metric.
    """

    first: str
    second: str
    result: PairedComparison
    p_value: float
    over_seeds: SeedDifference | None
    metric: Metric = EXACT_MATCH


@dataclass(frozen=True)
class SideBySide:
    """Runs compared.

    Attributes:
        rows: One for each method.
        tests: One for each pair of methods.
    """

    rows: tuple[Row, ...]
    tests: tuple[MethodTest, ...]

    def __str__(self) -> str:
        """The tables, as Markdown."""
        return as_markdown(self.rows, self.tests)


def compare_evaluations(paths: Sequence[Run | str | Path]) -> SideBySide:
    """Put runs side by side.

    Args:
        paths: Runs that were evaluated, their evaluation folders, or folders with runs at any depth.

    Raises:
        ConfigError: A folder holds no finished run, or a run is not evaluated.
        DataError: As `tabulate`.
    """
    runs: dict[Path, Run] = {}
    for path in paths:
        folder = path.folder if isinstance(path, Run) else Path(path)
        folder = folder.parent if (folder / EVALUATION_FILE).is_file() else folder
        runs |= {run.folder: run for run in Run.find([folder])}
    if missing := [run.folder.as_posix() for run in runs.values() if not run.is_evaluated]:
        raise ConfigError(f"{missing[0]} is not evaluated yet. Evaluate it: {typed('evaluate')} run={missing[0]}")
    chosen = list(runs.values())
    return SideBySide(tuple(tabulate(chosen)), tuple(compare_methods(chosen)))


# --- what is compared -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unit:
    """One test of a method: a run, or all folds of a cross-validation with one seed."""

    runs: tuple[Run, ...]
    comparison: Comparison

    @property
    def seed(self) -> int:
        return self.runs[0].record.seed


def _units(runs: Sequence[Run]) -> list[_Unit]:
    """What the runs make up; a DataError where they cannot stand side by side."""
    groups: dict[object, list[Run]] = {}
    for run in runs:
        plan = run.record.data.plan.protocol
        is_fold = plan is not None and plan.fold is not None
        groups.setdefault((*_method_of(run), run.record.seed) if is_fold else run.folder, []).append(run)
    units = [_Unit(tuple(group), _join(group)) for group in groups.values()]
    comparisons = {unit.runs[0].folder: unit.comparison for unit in units}
    _primary(comparisons)
    _check_same_samples(comparisons)
    return units


def _join(runs: Sequence[Run]) -> Comparison:
    plans = [plan for run in runs if (plan := run.record.data.plan.protocol) is not None and plan.fold is not None]
    comparisons = [_comparison(run) for run in runs]
    if not plans:
        return comparisons[0]
    _check_folds(runs[0].folder.parent, plans)
    return join_folds(comparisons)


def join_folds(comparisons: Sequence[Comparison]) -> Comparison:
    """Put the test predictions of several folds together.

    Args:
        comparisons: One of each fold.

    Returns:
        One comparison on all test samples.

    Raises:
        DataError: Two folds were tested on the same sample.
    """
    first = comparisons[0].splits["test"]
    pairs = tuple(pair for comparison in comparisons for pair in comparison.splits["test"].pairs)
    missing = tuple(pair for comparison in comparisons for pair in comparison.splits["test"].missing)
    ids = [pair.candidate.id for pair in pairs if pair.candidate.draw == 0]
    if twice := [name for name in ids if ids.count(name) > 1] if len(set(ids)) < len(ids) else []:
        raise DataError(f"{twice[0]} was tested in more than one fold. Pass the runs of one cross-validation.")
    return replace(comparisons[0], splits={"test": Summary(pairs, first.metrics, first.decisive, missing)})


def _comparison(run: Run) -> Comparison:
    folder = run.evaluation
    evaluation = read_evaluation(folder)
    if evaluation.is_changed:
        raise DataError(f"{folder}: {evaluation.stamps[0].text}. {evaluation.stamps[0].detail}")
    comparison = compare_folder(folder, evaluation)
    if "test" not in comparison.splits:
        raise DataError(f"{folder} has no test split. Evaluate again, with splits=[test].")
    return comparison


def _primary(comparisons: Mapping[Path, Comparison]) -> Metric:
    """The primary metric of all; a DataError where they were judged by different ones."""
    return _common({path: comparison.splits["test"].primary_metric for path, comparison in comparisons.items()})


def _common(metrics: Mapping[Path, Metric]) -> Metric:
    """The metric by which all were, or were to be, judged; a DataError where there are several."""
    (first, metric), *others = metrics.items()
    for path, other in others:
        if other.name != metric.name:
            raise DataError(
                f"{first} is judged by {metric.name}, {path} by {other.name}. Score the answers again by the same"
                f" metric: vglm score {path / 'evaluation'} metrics.names=[{metric.name}]"
            )
    return metric


def _check_same_samples(comparisons: Mapping[Path, Comparison]) -> None:
    def content(comparison: Comparison, split: str) -> Any:
        pairs = comparison.splits[split].pairs if split in comparison.splits else ()
        return sorted(
            (pair.candidate.id, pair.candidate.image_sha256 or "", pair.candidate.reference) for pair in pairs
        )

    (first, reference), *others = comparisons.items()
    for folder, comparison in others:
        for split in ("test", RETENTION):
            if content(comparison, split) != content(reference, split):
                raise DataError(
                    f"{folder} and {first} were evaluated on other {split} samples, so their scores cannot stand side"
                    " by side. Evaluate them on the same data."
                )


def _methods(units: Sequence[_Unit]) -> dict[str, list[_Unit]]:
    """Name -> the units of each method, in order."""
    groups: dict[object, list[_Unit]] = {}
    for unit in units:
        groups.setdefault(_method_of(unit.runs[0]), []).append(unit)
    return dict(zip(_names([group[0].runs[0] for group in groups.values()]), groups.values(), strict=True))


def _method_of(run: Run) -> tuple[str, str]:
    settings = {name: value for name, value in _settings(run).items() if name not in (*_NOT_SETTINGS, _FOLD)}
    return run.record.recipe, repr(sorted(settings.items()))


def name_methods(runs: Sequence[Run]) -> list[str]:
    """What the method of each run is called in the tables.

    Args:
        runs: Those that are put side by side.
    """
    methods = {_method_of(run): run for run in runs}
    names = dict(zip(methods, _names(list(methods.values())), strict=True))
    return [names[_method_of(run)] for run in runs]


def _names(runs: Sequence[Run]) -> Iterable[str]:
    """The recipe of each method's run; where several share one, with the settings in which they differ."""
    described = [(run.record.recipe, _settings(run)) for run in runs]
    for recipe, settings in described:
        alike = [other for name, other in described if name == recipe]
        keys = sorted({key for other in alike for key in other} - {*_NOT_SETTINGS, _FOLD})
        differing = [key for key in keys if len({str(other.get(key)) for other in alike}) > 1]
        yield " ".join([recipe, *(f"{key}={settings.get(key)}" for key in differing)])


def _settings(run: Run) -> dict[str, Any]:
    """Its config, flat: `method.r` -> 8."""
    return dict(_flatten(run.config))


def _seconds(run: Run) -> float:
    """Of training, without what scoring the checkpoints took."""
    training = run.record.training
    if training is None:
        raise DataError(f"{run.folder / RECORD_FILE} does not say how long training took. Restore the file.")
    return training.train_runtime - training.scoring_seconds


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# --- their scores -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scores:
    """A method's test samples by the primary metric.

    Attributes:
        metric: The metric.
        table: For each seed the samples' scores, shape (seeds, n), where the metric is their mean; else the additive
            numbers, shape (seeds, n, k).
        groups: The group of each sample.
    """

    metric: Metric
    table: NDArray[np.float64]
    groups: list[str]

    @classmethod
    def of(cls, comparisons: Sequence[Comparison]) -> "_Scores":
        metric = comparisons[0].splits["test"].primary_metric
        tables, samples = [], list[Prediction]()
        for comparison in comparisons:
            records = sorted(
                (pair.candidate for pair in comparison.splits["test"].pairs), key=_position(comparisons[0])
            )
            rows, samples = join_draws(metric.rows(records), records)
            tables.append(rows)
        table = np.stack(tables)
        if metric.statistic is mean_of_sums and table.shape[2] == 2 and (table[..., 1] == 1).all():
            table = table[..., 0]
        return cls(metric, table, [sample.group or sample.id for sample in samples])

    @property
    def is_mean(self) -> bool:
        """Whether the score is the mean of the samples'."""
        return self.table.ndim == 2

    @property
    def by_seed(self) -> tuple[float, ...]:
        """The score of each seed."""
        if self.is_mean:
            return tuple(self.table.mean(axis=1).tolist())
        with np.errstate(invalid="ignore", divide="ignore"):
            return tuple(float(self.metric.statistic(rows.sum(axis=0))) for rows in self.table)

    def rows(self, seeds: int) -> NDArray[np.float64]:
        """The seeds together: each sample's mean score, shape (n,); or their numbers side by side, (n, seeds k)."""
        if self.is_mean:
            return np.asarray(self.table.mean(axis=0))
        table = np.concatenate([self.table] * (seeds // len(self.table)))
        return np.concatenate(list(table), axis=1)

    @property
    def statistic(self) -> Statistic | None:
        """From sums of `rows` to the mean over the seeds; None where that is their mean."""
        if self.is_mean:
            return None
        width, statistic = self.table.shape[2], self.metric.statistic

        def mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(invalid="ignore", divide="ignore"):
                scores = np.asarray(statistic(sums.reshape(*sums.shape[:-1], -1, width)))
            return np.asarray(scores.mean(axis=-1))

        return mean

    def over_seeds(self) -> SeedSummary | None:
        """What other seeds and other samples would do; None where unknown."""
        if len(self.table) < 2 or len(set(self.groups)) < 2:
            return None
        return over_seeds(self.table, groups=self.groups, statistic=None if self.is_mean else self.metric.statistic)

    def interval(self, summary: SeedSummary | None) -> Interval:
        """Of the mean; where all answers are right, or all wrong, Wilson's method, for no other sees a doubt there."""
        count = len(set(self.groups))
        if self.is_mean and self.metric.is_share and np.ptp(self.table) == 0 and self.table.flat[0] in (0, 1):
            return wilson_interval(float(self.table.flat[0]) * count, count)
        if summary is None:
            return bootstrap_interval(self.rows(len(self.table)), groups=self.groups, statistic=self.statistic)
        low, high = summary.interval
        return Interval(max(0.0, low), min(1.0, high)) if self.metric.is_share else summary.interval

    def standard_error(self) -> float:
        """Of the mean over the seeds for other samples, by the jackknife over groups; NaN where nothing varies."""
        rows, index = self.rows(len(self.table)), np.unique(self.groups, return_inverse=True)[1]
        count = int(index.max()) + 1
        if count < 2 or np.ptp(self.table) == 0:
            return math.nan
        if self.is_mean:
            sums = np.bincount(index, weights=rows - rows.mean())
            return math.sqrt(float(np.sum(sums**2)) * count / (count - 1)) / len(rows)
        clusters = np.zeros((count, rows.shape[1]))
        np.add.at(clusters, index, rows)
        assert self.statistic is not None
        without = self.statistic(rows.sum(axis=0) - clusters)
        return math.sqrt(float(np.sum((without - without.mean()) ** 2)) * (count - 1) / count)


def _position(comparison: Comparison) -> Any:
    """The order of another comparison's samples, for those of folds come in another."""
    indices = {pair.candidate.key: index for index, pair in enumerate(comparison.splits["test"].pairs)}
    return lambda record: indices[record.key]


def _scores(comparison: Comparison, metric: Metric) -> tuple[float, float]:
    """Of the test split: baseline, candidate."""
    pairs = comparison.splits["test"].pairs
    return metric.score([pair.baseline for pair in pairs]), metric.score([pair.candidate for pair in pairs])


def tabulate(runs: Sequence[Run]) -> list[Row]:
    """Score runs that were evaluated, method by method.

    Args:
        runs: At least one; all with their evaluation.

    Returns:
        A row for each method, in the order of the runs.

    Raises:
        DataError: The runs were not tested on the same samples, or judged by the same metric, or a run is there twice
            with one seed.
    """
    rows = []
    for name, units in _methods(_units(runs)).items():
        seeds = [unit.seed for unit in units]
        if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
            folders = ", ".join(unit.runs[0].folder.as_posix() for unit in units if unit.seed in twice)
            raise DataError(f"{name} was run more than once with seed {min(twice)}: {folders}. Pass one of them.")
        rows.append(_row(name, units))
    return rows


def _row(name: str, units: Sequence[_Unit]) -> Row:
    comparisons = [unit.comparison for unit in units]
    runs = [run for unit in units for run in unit.runs]
    scores = _Scores.of(comparisons)
    summary = scores.over_seeds()
    losses = [loss for comparison in comparisons if (loss := comparison.retention_loss_points) is not None]
    peaks = [run.record.training.peak_memory_bytes for run in runs if run.record.training is not None]
    return Row(
        name=name,
        seeds=tuple(unit.seed for unit in units),
        before=fmean(_scores(comparison, scores.metric)[0] for comparison in comparisons),
        after=fmean(scores.by_seed),
        interval=scores.interval(summary),
        by_seed=scores.by_seed,
        seed_sd=None if summary is None else summary.seed_sd,
        sample_se=scores.standard_error(),
        forgotten=fmean(losses) if losses else None,
        samples=comparisons[0].splits["test"].n,
        seconds=fmean(map(_seconds, runs)),
        peak_memory=max((peak for peak in peaks if peak is not None), default=None),
        size=max(run.size for run in runs),
        metric=scores.metric,
        stamps=tuple(dict.fromkeys(stamp.text for run in runs for stamp in read_evaluation(run.evaluation).stamps)),
    )


def compare_methods(runs: Sequence[Run]) -> list[MethodTest]:
    """Test every method against every other.

    Args:
        runs: As for `tabulate`.

    Returns:
        A test for each pair, in the order of the methods; none for a single method.

    Raises:
        DataError: As `tabulate`.
    """
    methods = _methods(_units(runs))
    reference = next(iter(methods.values()))[0].comparison
    scores = {name: _Scores.of([reference, *(unit.comparison for unit in units)]) for name, units in methods.items()}
    scores = {name: replace(score, table=score.table[1:]) for name, score in scores.items()}  # all in the same order
    results, summaries = {}, {}
    for pair in combinations(scores, 2):
        one, two = (scores[name] for name in pair)
        seeds = math.lcm(len(one.table), len(two.table))
        results[pair] = compare_paired(one.rows(seeds), two.rows(seeds), groups=one.groups, statistic=one.statistic)
        first, second = ({unit.seed: row for unit, row in zip(methods[n], scores[n].table, strict=True)} for n in pair)
        if min(len(first), len(second)) > 1 and len(set(one.groups)) > 1:
            is_paired = first.keys() == second.keys()
            tables = list(first.values()), [second[seed] for seed in (first if is_paired else second)]
            summaries[pair] = compare_seeds(
                *tables, is_paired=is_paired, groups=one.groups, statistic=None if one.is_mean else one.metric.statistic
            )
    keys = {f"{index}": pair for index, pair in enumerate(results)}
    adjusted = holm({key: results[pair].p_value for key, pair in keys.items()})
    metric = next(iter(scores.values())).metric
    return [MethodTest(*pair, results[pair], adjusted[key], summaries.get(pair), metric) for key, pair in keys.items()]


# --- protocols --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProtocolRow:
    """Runs that differ only in what the protocol averages over.

    Attributes:
        shots: Training samples of each run; None for folds.
        runs: Number of runs: seeds, or folds.
        samples: Test samples of one seed, or of all folds together.
        before: Score of the base model, mean over seeds or over all folds' samples.
        after: Likewise of the tuned model.
        by_run: `after` of each run; empty for folds.
    """

    shots: int | None
    runs: int
    samples: int
    before: float
    after: float
    by_run: tuple[float, ...]


@dataclass(frozen=True)
class ProtocolResult:
    """The outcome of a protocol.

    Attributes:
        name: `few_shot`, `k_fold` or `leave_one_out`.
        metric: The primary metric of the evaluations; of folds the first that can be computed on all samples.
        rows: By number of shots, ascending; one row for folds.
        stamps: What reports of the runs are stamped with, and how many of them.
        note: Why it is not the metric that was requested; empty where it is.
    """

    name: str
    metric: Metric
    rows: tuple[ProtocolRow, ...]
    stamps: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def __str__(self) -> str:
        """The table above."""
        if self.name == "few_shot":
            title = f"few_shot, {self.metric.name} on the test split, mean over seeds (lowest to highest)"
        else:
            title = f"{self.name}, {self.metric.name} on every sample by the run that did not learn from it"
        total = sum(row.runs for row in self.rows)
        stamped = (f"{stamp}: {n} of {total} runs; see their reports" for stamp, n in self.stamps.items())
        note = [self.note] if self.note else []
        return "\n".join([title, *(_line(row, self.metric) for row in self.rows), *note, *stamped])


def unevaluated_runs(folder: Path) -> list[Path]:
    """The runs of a whole protocol that have no evaluation yet.

    Args:
        folder: The folder that the protocol wrote its runs to.

    Raises:
        ConfigError: It holds no runs of a protocol, those of several, or unfinished ones.
        AdapterError: A run's description is damaged.
        DataError: Folds are missing.
    """
    plans = _read_plans(folder)
    if unfinished := [run.folder for run in plans if run.result is None and not run.is_evaluated]:
        raise ConfigError(
            f"{len(unfinished)} of {len(plans)} runs are not finished. Continue them, the first by:\n"
            f"  {typed('train')} {shlex.quote(f'resume={unfinished[0].as_posix()}')}"
        )
    if all(plan.fold is not None for plan in plans.values()):
        _check_folds(folder, list(plans.values()))
    return [run.folder for run in plans if not run.is_evaluated]


def _read_plans(folder: Path) -> dict[Run, ProtocolPlan]:
    """The runs of one protocol, in the order of their folders."""
    runs = [Run(path.parent) for path in sorted(folder.rglob(RECORD_FILE))]
    plans = {run: plan for run in runs if (plan := run.record.data.plan.protocol) is not None}
    if not plans:
        raise ConfigError(f"{folder} holds no run of a protocol. Run one: {typed('train')} protocol=few_shot")
    if len(names := {plan.name for plan in plans.values()}) > 1:
        raise ConfigError(f"{folder} holds runs of {' and '.join(sorted(names))}. Pass the folder of one protocol.")
    return plans


def collect_protocol(folder: Path) -> ProtocolResult:
    """Score a protocol's runs together.

    Args:
        folder: The folder that the sweep wrote its runs to; each of them evaluated.

    Returns:
        The result.

    Raises:
        ConfigError: The folder holds no runs of a protocol, or runs that are not evaluated yet; the message has the
            command that evaluates them.
        AdapterError: A run's description is damaged.
        DataError: Folds are missing, or were tested on each other's samples; or an evaluation is damaged.
    """
    plans = _read_plans(folder)
    name = next(iter(plans.values())).name
    if missing := [run.folder for run in plans if not run.is_evaluated]:
        listed = ",".join(path.as_posix() for path in missing)
        raise ConfigError(
            f"{len(missing)} of {len(plans)} runs are not evaluated yet. Evaluate them:\n"
            f"  {typed('evaluate')} -m {shlex.quote(f'run={listed}')}"
        )
    comparisons = {run.folder: _comparison(run) for run in plans}
    note = ""
    if name == "few_shot":
        metric = _primary(comparisons)
        shots = sorted({plan.shots for plan in plans.values() if plan.shots is not None})
        rows = [
            _seeds(number, [comparisons[run.folder] for run, plan in plans.items() if plan.shots == number], metric)
            for number in shots
        ]
    else:
        _check_folds(folder, list(plans.values()))
        requested = _common({path: comparison.splits["test"].metrics[0] for path, comparison in comparisons.items()})
        joined = join_folds(list(comparisons.values()))
        metric = joined.splits["test"].primary_metric  # what a fold's few samples lack, all of them may have
        if metric.name != requested.name:
            reason = translate(joined.splits["test"].not_computed[requested.name])
            note = f"{requested.name}, which was requested first, is not computed: {reason.en}"
        rows = [ProtocolRow(None, len(plans), joined.splits["test"].n, *_scores(joined, metric), ())]
    stamps = Counter(
        text for run in plans for text in dict.fromkeys(stamp.text for stamp in read_evaluation(run.evaluation).stamps)
    )
    return ProtocolResult(name, metric, tuple(rows), stamps, note)


def _check_folds(folder: Path, plans: Sequence[ProtocolPlan]) -> None:
    folds = sorted(-1 if plan.fold is None else plan.fold for plan in plans)
    count = plans[0].folds or 0
    if count != len(folds) or folds != list(range(len(folds))):
        raise DataError(f"{folder} should hold folds 0 to {count - 1} once each, and holds {folds}. Train the others.")


def _seeds(shots: int, comparisons: Sequence[Comparison], metric: Metric) -> ProtocolRow:
    scores = [_scores(comparison, metric) for comparison in comparisons]
    return ProtocolRow(
        shots=shots,
        runs=len(scores),
        samples=comparisons[0].splits["test"].n,
        before=fmean(before for before, _ in scores),
        after=fmean(after for _, after in scores),
        by_run=tuple(after for _, after in scores),
    )


def _line(row: ProtocolRow, metric: Metric) -> str:
    before, after = (_with_unit(score, metric) for score in (row.before, row.after))
    if row.shots is None:
        return f"{row.samples} samples in {row.runs} folds   before {before}   after {after}"
    spread = f"({_with_unit(min(row.by_run), metric)} to {_with_unit(max(row.by_run), metric)})"
    return f"{row.shots} shots   before {before}   after {after} {spread}   {row.runs} seeds"


# --- tables -----------------------------------------------------------------------------------------------------------


def as_markdown(rows: Sequence[Row], tests: Sequence[MethodTest] = ()) -> str:
    """The tables for a README or a pull request, each with a line that says how to read it."""
    text = f"{_markdown_table(*_cells(rows))}\n\n{_legend(rows)}\n"
    return f"{text}\n{_markdown_table(*_test_cells(tests))}\n\n{_test_legend(tests)}\n" if tests else text


def print_rows(rows: Sequence[Row], console: Console | None = None, tests: Sequence[MethodTest] = ()) -> None:
    """Print the tables on the terminal."""
    console = console or Console()
    _print_table(console, *_cells(rows))
    console.print(_legend(rows), style="dim", markup=False)
    if tests:
        console.print()
        _print_table(console, *_test_cells(tests))
        console.print(_test_legend(tests), style="dim", markup=False)


def _markdown_table(header: list[str], cells: list[list[str]]) -> str:
    lines = [[" ".join(text.split()).replace("|", "\\|") for text in line] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def _print_table(console: Console, header: list[str], cells: list[list[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    columns = [list(column) for column in zip(header, *cells, strict=True)]
    least = [max(len(word) for text in column for word in text.split() or [""]) for column in columns]
    least[0] = min(least[0], 16)  # the name of a method may be broken, a figure may not
    widths = [max(map(len, column)) for column in columns]
    while sum(widths) + len(widths) > console.width and widths != least:
        widest = max(range(len(widths)), key=lambda index: widths[index] - least[index])
        widths[widest] -= 1
    for index, (name, width) in enumerate(zip(header, widths, strict=True)):
        table.add_column(name, justify="right" if index else "left", overflow="fold", width=width)
    for line in cells:
        table.add_row(*map(Text, line))
    console.print(table)


def _test_cells(tests: Sequence[MethodTest]) -> tuple[list[str], list[list[str]]]:
    points = "points" if all(test.metric.is_share for test in tests) else "difference"
    header = ["methods", points, "95% interval", "seeds too", "p", "p, Holm", "effect", ""]
    shared = shared_prefix(name for test in tests for name in (test.first, test.second))
    cells = []
    for test in tests:
        result = test.result
        low, high = (_shown(end, test.metric, sign="+") for end in within_range(result.interval, test.metric))
        cells.append(
            [
                f"{test.second.removeprefix(shared)} − {test.first.removeprefix(shared)}",
                _shown(result.difference, test.metric, sign="+"),
                f"{low} to {high}" if has_interval(result) else "-",
                "-" if test.over_seeds is None else _over_seeds(test.over_seeds, test.metric),
                _p(result.p_value),
                _p(test.p_value),
                "-" if math.isnan(result.effect_size) else f"{result.effect_size:.2f}",
                finding(test),
            ]
        )
    return header, cells


def finding(test: MethodTest) -> str:
    """The verdict on two methods: the fewer seeds, the weaker."""
    if not test.p_value < LEVEL or test.result.groups < test.result.least_groups:
        return "not told apart"
    return "differ" if test.over_seeds is not None and test.over_seeds.excludes_zero else "in these seeds"


def _test_legend(tests: Sequence[MethodTest]) -> str:
    result = tests[0].result
    groups = "" if result.groups == result.n else f" in {result.groups} independent groups"
    return (
        f"{_in_words(tests[0].metric)} of two methods on the same {result.n} samples{groups}, each sample with its mean"
        " over the seeds;"
        f" p, Holm: corrected for the number of pairs, {len(tests)};"
        " effect: the difference in standard deviations. Methods that are not told apart are not shown to be"
        f" equal. 95% interval and p ({result.test}): what other samples would do, the seeds as they are; seeds too:"
        " the interval of the difference for other seeds and other samples, - where a method has a single seed, so that"
        " the seeds' part is unknown; differ: this interval excludes 0, too; in these seeds: the runs differ, but with"
        " other seeds the methods might not."
    )


def within_range(interval: Interval, metric: Metric) -> tuple[float, ...]:
    """No further than a difference can go."""
    return (max(-1.0, interval.low), min(1.0, interval.high)) if metric.is_share else tuple(interval)


def _over_seeds(summary: SeedDifference, metric: Metric) -> str:
    low, high = (_shown(end, metric, sign="+") for end in within_range(summary.interval, metric))
    return f"{low} to {high}"


def _shown(value: float, metric: Metric, sign: str = "") -> str:
    """A score or a difference: hundredths of a share, else with its own digits."""
    if math.isnan(value):
        return "-"
    return f"{100 * value:{sign}.1f}" if metric.is_share else f"{value:{sign}.3g}"


def _with_unit(value: float, metric: Metric) -> str:
    return f"{_shown(value, metric)}%" if metric.is_share else _shown(value, metric)


def _in_words(metric: Metric) -> str:
    """A metric's name inside a sentence, where only names and abbreviations begin with a capital."""
    return metric.title[:1].lower() + metric.title[1:] if metric.title[1:2].islower() else metric.title


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def shared_prefix(names: Iterable[str]) -> str:
    """The domain that all names begin with."""
    domains = {name.partition("/")[0] for name in names}
    return f"{domains.pop()}/" if len(domains) == 1 else ""


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    header = ["method", "seeds", "before", "after", "95% interval", "seed sd", "sample se"]
    header += ["forgot", "MB", "s", "size MB"]
    shared = shared_prefix(row.name for row in rows)
    cells = [
        [
            row.name.removeprefix(shared),
            str(len(row.seeds)),
            _shown(row.before, row.metric),
            _shown(row.after, row.metric),
            "-".join(_shown(end, row.metric) for end in row.interval) if all(map(math.isfinite, row.interval)) else "-",
            "?" if row.seed_sd is None else _shown(row.seed_sd, row.metric),
            _shown(row.sample_se, row.metric),
            "-" if row.forgotten is None else f"{row.forgotten:.1f}",
            "-" if row.peak_memory is None else f"{row.peak_memory / 1e6:.0f}",
            f"{row.seconds:.0f}",
            f"{row.size / 1e6:.2f}",
        ]
        for row in rows
    ]
    return header, cells


def _legend(rows: Sequence[Row]) -> str:
    alone, metric = [row for row in rows if len(row.seeds) == 1], rows[0].metric
    percent = " in percent" if metric.is_share else ""
    order = " (less is better)" if metric.higher_is_better is False else ""
    seeds = (
        "95% interval: what other seeds and other samples would do to the mean; seed sd: standard deviation between"
        " seeds beyond what the choice of samples explains; sample se: standard error of the mean from the finite test"
        " set;"
    )
    if len(alone) == len(rows):
        seeds = (
            "one seed each, so what another seed would do is unknown (seed sd: ?); 95% interval and sample se, its"
            " standard error: what other samples would do;"
        )
    elif alone:
        seeds += " ?: one seed, so what another would do is unknown, and the interval is of other samples alone;"
    elif any(row.seed_sd is None for row in rows):
        seeds += " ?: cannot be told from so few samples;"
    best = (
        f" Whichever of the {len(rows)} is best by this table is the best of {len(rows)} by test score, and other"
        " samples will show it a little worse: choose by validation scores, or test the chosen one on new samples."
        if len(rows) > 1
        else ""
    )
    stamped = dict[str, list[str]]()
    for row in rows:
        for stamp in row.stamps:
            stamped.setdefault(stamp, []).append(row.name)
    warnings = [
        f" {stamp}: {'all of them' if len(names) == len(rows) else ', '.join(names)}; see the reports."
        for stamp, names in stamped.items()
    ]
    return (
        f"before, after: {_in_words(metric)} on {rows[0].samples} held-out samples{percent}{order}, mean over the"
        f" seeds; {seeds}"
        " forgot: points of exact match lost on the retention set; MB and s: peak memory and seconds of training;"
        f" size: of the trained weights on disk.{best}{''.join(warnings)}"
    )
