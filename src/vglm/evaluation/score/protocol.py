"""Take the runs of a protocol together: what `train.py protocol=few_shot` or `protocol=leave_one_out` has left behind.

    curve = collect_protocol(Path("outputs/background/lora/few_shot/2026-11-22_20-00-00"))
    print(curve)

    few_shot, exact_match on the test split, mean over seeds (lowest to highest)
    5 shots    before 0.0%    after 31.7% (25.0% to 40.8%)   5 seeds
    20 shots   before 0.0%    after 88.2% (81.7% to 93.3%)   5 seeds

In k-fold and leave-one-out every sample is tested by the one run that did not learn from it. Their predictions are put
together and scored as one test; the scores of single folds, of one sample perhaps, are not averaged.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from vglm.errors import ConfigError, DataError
from vglm.evaluation.predictions import read_evaluation
from vglm.evaluation.score.comparison import Comparison, compare, compare_folder
from vglm.evaluation.score.metrics import EXACT_MATCH
from vglm.runs import RECORD_FILE, ProtocolPlan, Run


@dataclass(frozen=True)
class ProtocolRow:
    """Runs that differ in nothing but what the protocol averages over.

    Attributes:
        shots: Training samples of each run; None for folds.
        runs: Number of runs: seeds, or folds.
        samples: Test samples of one seed, or of all folds together.
        before: Score of the base model, 0.0 to 1.0, mean over seeds or over all folds' samples.
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
        metric: What was scored.
        rows: By number of shots, ascending; one row for folds.
    """

    name: str
    metric: str
    rows: tuple[ProtocolRow, ...]

    def __str__(self) -> str:
        """The table above."""
        if self.name == "few_shot":
            title = f"few_shot, {self.metric} on the test split, mean over seeds (lowest to highest)"
        else:
            title = f"{self.name}, {self.metric} on every sample by the run that did not learn from it"
        return "\n".join([title, *map(_line, self.rows)])


def collect_protocol(folder: Path, metric: str = EXACT_MATCH.name) -> ProtocolResult:
    """Score a protocol's runs together.

    Args:
        folder: The folder that the sweep wrote its runs to; each of them evaluated.
        metric: What to score.

    Returns:
        The result.

    Raises:
        ConfigError: The folder holds no runs of a protocol, or runs that are not evaluated yet; the message has the
            command that evaluates them.
        AdapterError: A run's description is damaged.
        DataError: Folds are missing, or were tested on each other's samples; or an evaluation is damaged.
    """
    runs = {path.parent: Run(path.parent) for path in sorted(folder.rglob(RECORD_FILE))}
    plans = {path: plan for path, run in runs.items() if (plan := run.record.data.plan.protocol) is not None}
    if not plans:
        raise ConfigError(f"{folder} holds no run of a protocol. Run one: python train.py protocol=few_shot")
    if len(names := {plan.name for plan in plans.values()}) > 1:
        raise ConfigError(f"{folder} holds runs of {' and '.join(sorted(names))}. Pass the folder of one protocol.")
    if missing := [path for path in plans if not runs[path].is_evaluated]:
        listed = ",".join(path.as_posix() for path in missing)
        raise ConfigError(
            f"{len(missing)} of {len(plans)} runs are not evaluated yet. Evaluate them:\n"
            f"  python evaluate.py -m {shlex.quote(f'run={listed}')}"
        )
    comparisons = {path: _comparison(runs[path]) for path in plans}
    if names == {"few_shot"}:
        shots = sorted({plan.shots for plan in plans.values() if plan.shots is not None})
        rows = [
            _seeds(number, [comparisons[path] for path, plan in plans.items() if plan.shots == number], metric)
            for number in shots
        ]
    else:
        _check_folds(folder, list(plans.values()))
        before, after = join_folds(list(comparisons.values())).splits["test"].scores[metric]
        samples = sum(each.splits["test"].n for each in comparisons.values())
        rows = [ProtocolRow(None, len(plans), samples, before, after, ())]
    return ProtocolResult(names.pop(), metric, tuple(rows))


def join_folds(comparisons: Sequence[Comparison]) -> Comparison:
    """Put the test predictions of several folds together.

    Args:
        comparisons: One of each fold.

    Returns:
        One comparison on all test samples.

    Raises:
        DataError: Two folds were tested on the same sample.
    """
    pairs = [pair for each in comparisons for pair in each.splits["test"].pairs]
    ids = [pair.candidate.id for pair in pairs if pair.candidate.draw == 0]
    if twice := [name for name in ids if ids.count(name) > 1] if len(set(ids)) < len(ids) else []:
        raise DataError(f"{twice[0]} was tested in more than one fold. Pass the runs of one cross-validation.")
    return compare([pair.baseline for pair in pairs], [pair.candidate for pair in pairs])


def _comparison(run: Run) -> Comparison:
    folder = run.evaluation
    comparison = compare_folder(folder, read_evaluation(folder))
    if "test" not in comparison.splits:
        raise DataError(f"{folder} has no test split. Evaluate again, with splits=[test].")
    return comparison


def _check_folds(folder: Path, plans: Sequence[ProtocolPlan]) -> None:
    found = sorted(-1 if plan.fold is None else plan.fold for plan in plans)
    count = plans[0].folds or 0
    if count != len(found) or found != list(range(len(found))):
        raise DataError(f"{folder} should hold folds 0 to {count - 1} once each, and holds {found}. Train the others.")


def _seeds(shots: int, comparisons: Sequence[Comparison], metric: str) -> ProtocolRow:
    scores = [each.splits["test"].scores[metric] for each in comparisons]
    return ProtocolRow(
        shots=shots,
        runs=len(scores),
        samples=comparisons[0].splits["test"].n,
        before=fmean(before for before, _ in scores),
        after=fmean(after for _, after in scores),
        by_run=tuple(after for _, after in scores),
    )


def _line(row: ProtocolRow) -> str:
    if row.shots is None:
        return f"{row.samples} samples in {row.runs} folds   before {row.before:.1%}   after {row.after:.1%}"
    spread = f"({min(row.by_run):.1%} to {max(row.by_run):.1%})"
    return f"{row.shots} shots   before {row.before:.1%}   after {row.after:.1%} {spread}   {row.runs} seeds"
