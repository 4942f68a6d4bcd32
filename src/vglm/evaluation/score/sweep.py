"""Several runs side by side: one row for each method, its seeds taken together.

    runs = Run.find([Path("outputs/sweeps/2026-11-22_20-00-00")])
    rows = tabulate(runs)           # every run needs its evaluation
    tests = compare_methods(runs)   # every method with every other, on the same samples
    print(as_markdown(rows, tests))

Runs belong together when their configs differ in nothing but the seed. A row has the mean over the seeds, with an
interval that says what other seeds and other samples would do to it, and beside it how much the seeds vary and how much
the samples (`vglm.evaluation.score.statistics.over_seeds`). Of a method with one seed nobody knows what another would
do; its interval is of other samples alone. Two methods are compared sample by sample, each sample with its mean over
the method's seeds; the p-values are Holm-corrected for all pairs of methods. Where both have two seeds or more, their
difference has an interval over other seeds, too, paired where the seeds are the same; without it no two methods are
said to differ.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vglm.errors import DataError
from vglm.evaluation.predictions import read_evaluation
from vglm.evaluation.score.comparison import LEVEL, PROBE, Comparison, compare_folder, has_interval
from vglm.evaluation.score.metrics import EXACT_MATCH
from vglm.evaluation.score.statistics import (
    Interval,
    PairedComparison,
    SeedDifference,
    SeedSummary,
    bootstrap_interval,
    compare_paired,
    compare_seeds,
    holm,
    over_seeds,
    wilson_interval,
)
from vglm.runs import RECORD_FILE, Run

_NOT_SETTINGS = (
    *("seed", "output_dir", "resume", "trainer.output_dir", "trainer.seed", "trainer.run_name"),
    *("seeds", "dataset.shot_seed"),
    *("tracker._target_", "tracker.report_to", "tracker.project", "tracker.mode", "trainer.report_to"),
)
"""What may differ between runs of one row."""


@dataclass(frozen=True)
class Row:
    """The runs of one method, with scores from 0.0 to 1.0.

    Attributes:
        name: The recipe, and what distinguishes these settings from others of the recipe.
        seeds: Of the runs, in order.
        before: Exact match on the test split before tuning, mean over the runs.
        after: Likewise after.
        interval: 95% interval of `after`: for other seeds and other samples; for other samples alone where `seed_sd` is
            None.
        by_seed: `after` of each run.
        seed_sd: Standard deviation of `after` between seeds, without what the choice of samples does to it; None for
            one seed.
        sample_se: Standard error of `after` that comes of the finite test set, seeds as they are; NaN where the samples
            do not tell: all answered alike, or all of one group.
        forgotten: Exact match lost on the probe, in points, mean over the runs; None without a probe.
        samples: Number of test samples.
        seconds: Of training, mean.
        peak_memory: Bytes, the largest.
        size: Bytes of the result's weights, the largest.
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


def tabulate(runs: Sequence[Run]) -> list[Row]:
    """Score runs that were evaluated, method by method.

    Args:
        runs: At least one; all with their evaluation.

    Returns:
        A row for each method, in the order of the runs.

    Raises:
        DataError: The runs were not tested on the same samples, or a run is there twice with one seed.
    """
    comparisons = _comparisons(runs)
    groups = _methods(runs)
    rows = []
    for name, group in zip(_names(groups), groups, strict=True):
        seeds = [run.record.seed for run in group]
        if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
            folders = ", ".join(run.folder.as_posix() for run in group if run.record.seed in twice)
            raise DataError(f"{name} was run more than once with seed {min(twice)}: {folders}. Pass one of them.")
        rows.append(_row(name, group, [comparisons[run.folder] for run in group]))
    return rows


@dataclass(frozen=True)
class MethodTest:
    """Two methods on the same samples.

    Attributes:
        first: Name of a row.
        second: Name of another; the difference is its score minus the first's.
        result: Of exact match on the test split, each sample's mean over the seeds.
        p_value: Corrected by Holm for all pairs of methods.
        over_seeds: Of the difference, other seeds and other samples counted; None unless both methods have two seeds
            or more.
    """

    first: str
    second: str
    result: PairedComparison
    p_value: float
    over_seeds: SeedDifference | None


def compare_methods(runs: Sequence[Run]) -> list[MethodTest]:
    """Test every method against every other.

    Args:
        runs: As for `tabulate`.

    Returns:
        A test for each pair, in the order of the methods; none for a single method.

    Raises:
        DataError: The runs were not tested on the same samples.
    """
    comparisons = _comparisons(runs)
    methods = _methods(runs)
    scores = {
        name: {run.record.seed: _scores(comparisons[run.folder]) for run in group}
        for name, group in zip(_names(methods), methods, strict=True)
    }
    clusters = _clusters(next(iter(comparisons.values())))
    results, summaries = {}, {}
    for first, second in combinations(scores, 2):
        one, two = scores[first], scores[second]
        means = (np.mean(list(each.values()), axis=0) for each in (one, two))
        results[first, second] = compare_paired(*means, groups=clusters)
        if min(len(one), len(two)) > 1 and len(set(clusters)) > 1:
            is_paired = one.keys() == two.keys()
            rows = [two[seed] for seed in (one if is_paired else two)]
            summaries[first, second] = compare_seeds(list(one.values()), rows, is_paired=is_paired, groups=clusters)
    keys = {f"{place}": pair for place, pair in enumerate(results)}
    adjusted = holm({key: results[pair].p_value for key, pair in keys.items()})
    return [MethodTest(*pair, results[pair], adjusted[key], summaries.get(pair)) for key, pair in keys.items()]


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
        widest = max(range(len(widths)), key=lambda place: widths[place] - least[place])
        widths[widest] -= 1
    for index, (name, width) in enumerate(zip(header, widths, strict=True)):
        table.add_column(name, justify="right" if index else "left", overflow="fold", width=width)
    for line in cells:
        table.add_row(*map(Text, line))
    console.print(table)


def _test_cells(tests: Sequence[MethodTest]) -> tuple[list[str], list[list[str]]]:
    header = ["methods", "points", "95% interval", "seeds too", "p", "p, Holm", "effect", ""]
    shared = _shared_prefix(name for test in tests for name in (test.first, test.second))
    cells = []
    for test in tests:
        result = test.result
        low, high = (f"{end:+.1f}" for end in _points(result.interval))
        cells.append(
            [
                f"{test.second.removeprefix(shared)} − {test.first.removeprefix(shared)}",
                f"{100 * result.difference:+.1f}",
                f"{low} to {high}" if has_interval(result) else "-",
                "-" if test.over_seeds is None else "{:+.1f} to {:+.1f}".format(*_points(test.over_seeds.interval)),
                _p(result.p_value),
                _p(test.p_value),
                "-" if math.isnan(result.effect_size) else f"{result.effect_size:.2f}",
                _finding(test),
            ]
        )
    return header, cells


def _finding(test: MethodTest) -> str:
    """What may be said of two methods: the less is known of other seeds, the weaker the word."""
    if not test.p_value < LEVEL or test.result.groups < test.result.least_groups:
        return "not told apart"
    return "differ" if test.over_seeds is not None and test.over_seeds.excludes_zero else "in these seeds"


def _test_legend(tests: Sequence[MethodTest]) -> str:
    result = tests[0].result
    groups = "" if result.groups == result.n else f" in {result.groups} independent groups"
    return (
        f"exact match of two methods on the same {result.n} samples{groups}, each sample with its mean over the seeds;"
        f" p, Holm: corrected for the number of pairs, {len(tests)};"
        " effect: the difference in standard deviations. Methods that are not told apart are not shown to be"
        f" equal. 95% interval and p ({result.test}): what other samples would do, the seeds as they are; seeds too:"
        " the interval of the difference for other seeds and other samples, - where a method has a single seed, so that"
        " the seeds' part is unknown; differ: this interval excludes 0, too; in these seeds: the runs differ, but with"
        " other seeds the methods might not."
    )


def _points(interval: Interval) -> tuple[float, float]:
    """In hundredths, and no further than a difference can go."""
    return max(-100.0, 100 * interval.low), min(100.0, 100 * interval.high)


def _p(value: float) -> str:
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _shared_prefix(names: Iterable[str]) -> str:
    """The domain that all names begin with."""
    domains = {name.partition("/")[0] for name in names}
    return f"{domains.pop()}/" if len(domains) == 1 else ""


def _comparisons(runs: Sequence[Run]) -> dict[Path, Comparison]:
    """By run; a DataError where they are not about the same samples."""
    comparisons = {run.folder: compare_folder(run.evaluation, read_evaluation(run.evaluation)) for run in runs}
    _check_same_samples(comparisons)
    return comparisons


def _methods(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs of each method, in order."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {name: value for name, value in _settings(run).items() if name not in _NOT_SETTINGS}
        groups.setdefault(repr([run.record.recipe, sorted(settings.items())]), []).append(run)
    return list(groups.values())


def _row(name: str, runs: Sequence[Run], comparisons: Sequence[Comparison]) -> Row:
    tests = [each.splits["test"] for each in comparisons]
    table, clusters = np.array([_scores(each) for each in comparisons]), _clusters(comparisons[0])
    summary = over_seeds(table, groups=clusters) if len(table) > 1 and len(set(clusters)) > 1 else None
    losses = [loss for each in comparisons if (loss := each.probe_loss_points) is not None]
    peaks = [run.record.training.peak_memory_bytes for run in runs if run.record.training is not None]
    return Row(
        name=name,
        seeds=tuple(run.record.seed for run in runs),
        before=fmean(test.scores[EXACT_MATCH.name][0] for test in tests),
        after=float(table.mean()),
        interval=_interval(table, clusters, summary),
        by_seed=tuple(table.mean(axis=1).tolist()),
        seed_sd=None if summary is None else summary.seed_sd,
        sample_se=_standard_error(table.mean(axis=0), clusters),
        forgotten=fmean(losses) if losses else None,
        samples=tests[0].n,
        seconds=fmean(map(_seconds, runs)),
        peak_memory=max((each for each in peaks if each is not None), default=None),
        size=max(run.size for run in runs),
    )


def _scores(comparison: Comparison) -> NDArray[np.float64]:
    """Right or wrong of each test sample, as the candidate answered, shape (n,)."""
    return np.array([pair.scores[EXACT_MATCH.name][1] for pair in comparison.splits["test"].pairs])


def _clusters(comparison: Comparison) -> list[str]:
    """The group of each test sample."""
    return [pair.candidate.group or pair.candidate.id for pair in comparison.splits["test"].pairs]


def _interval(table: NDArray[np.float64], clusters: Sequence[str], summary: SeedSummary | None) -> Interval:
    """Of the mean; where all answers are right, or all wrong, Wilson's method, for no other sees a doubt there."""
    count = len(set(clusters))
    if np.ptp(table) == 0:
        return wilson_interval(float(table[0, 0]) * count, count)
    if summary is None:
        return bootstrap_interval(table.mean(axis=0), groups=clusters)
    return Interval(max(0.0, summary.interval.low), min(1.0, summary.interval.high))


def _standard_error(scores: NDArray[np.float64], clusters: Sequence[str]) -> float:
    """Of the mean of scores, shape (n,), from what each group's sum is off by; NaN where nothing varies."""
    index = np.unique(clusters, return_inverse=True)[1]
    sums = np.bincount(index, weights=scores - scores.mean())
    count = len(sums)
    if count < 2 or np.ptp(scores) == 0:
        return math.nan
    return math.sqrt(float(np.sum(sums**2)) * count / (count - 1)) / len(scores)


def _check_same_samples(comparisons: Mapping[Path, Comparison]) -> None:
    def content(comparison: Comparison, split: str) -> Any:
        pairs = comparison.splits[split].pairs if split in comparison.splits else ()
        return [(pair.candidate.id, pair.candidate.image_sha256, pair.candidate.reference) for pair in pairs]

    (first, reference), *others = comparisons.items()
    if "test" not in reference.splits:
        raise DataError(f"{first} was not evaluated on a test split. Evaluate it with splits=[test,probe].")
    for folder, comparison in others:
        for split in ("test", PROBE):
            if content(comparison, split) != content(reference, split):
                raise DataError(
                    f"{folder} and {first} were evaluated on other {split} samples, so their scores cannot stand side"
                    " by side. Evaluate them on the same data."
                )


def _names(groups: Sequence[Sequence[Run]]) -> Iterable[str]:
    """The recipe of each group; where several groups share one, with the settings in which they differ."""
    known = [(group[0].record.recipe, _settings(group[0])) for group in groups]
    for recipe, settings in known:
        alike = [other for name, other in known if name == recipe]
        keys = sorted({key for other in alike for key in other} - set(_NOT_SETTINGS))
        differing = [key for key in keys if len({str(other.get(key)) for other in alike}) > 1]
        yield " ".join([recipe, *(f"{key}={settings.get(key)}" for key in differing)])


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    header = ["method", "seeds", "before", "after", "95% interval", "seed sd", "sample se"]
    header += ["forgot", "MB", "s", "size MB"]
    shared = _shared_prefix(row.name for row in rows)
    cells = [
        [
            row.name.removeprefix(shared),
            str(len(row.seeds)),
            f"{100 * row.before:.1f}",
            f"{100 * row.after:.1f}",
            _range(row.interval),
            "?" if row.seed_sd is None else f"{100 * row.seed_sd:.1f}",
            "-" if math.isnan(row.sample_se) else f"{100 * row.sample_se:.1f}",
            "-" if row.forgotten is None else f"{row.forgotten:.1f}",
            "-" if row.peak_memory is None else f"{row.peak_memory / 1e6:.0f}",
            f"{row.seconds:.0f}",
            f"{row.size / 1e6:.2f}",
        ]
        for row in rows
    ]
    return header, cells


def _range(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.1f}-{100 * ends[1]:.1f}"


def _legend(rows: Sequence[Row]) -> str:
    alone = [row for row in rows if row.seed_sd is None]
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
    return (
        f"before, after: exact match on {rows[0].samples} held-out samples in percent, mean over the seeds; {seeds}"
        " forgot: points of exact match lost on the probe; MB and s: peak memory and seconds of training; size: of the"
        " trained weights on disk."
    )


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
