"""`curves.json`: the loss of a training, and what was gained in the domain against what was lost in general ability.

`curves.json`, which need not be there, beside `evaluation.json`:

    {"learning": [{"step": 5, "loss": 1.2, "learning_rate": 0.001}, …],
     "forgetting": [{"step": 0, "domain": 0.0, "retention": 0.827, "domain_n": 64, "retention_n": 160,
                     "domain_exact_match": 0.0}, …],
     "metric": "accuracy", "retention_metric": "exact_match", "domain_split": "validation", "budget_points": 5.0,
     "chosen_step": 100, "stopped_early": false}

Step 0 is the model before training; scores are from 0 to 1, `budget_points` and `chosen_step` may be null.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from vglm.config.aliases import FIELDS
from vglm.errors import DataError
from vglm.evaluation.predictions import CURVES_FILE
from vglm.evaluation.score.statistics import wilson_interval
from vglm.files import inside, read_record

_BROKEN_LOSS = 1e30


@dataclass(frozen=True)
class Checkpoint:
    """A saved step, scored on the domain's data and on the retention set.

    Attributes:
        step: Optimizer steps so far; 0 is the model before training.
        domain: Score on the domain's split, 0.0 to 1.0.
        retention: Score on the retention set, likewise.
        domain_n: Samples behind `domain`.
        retention_n: Questions behind `retention`.
        domain_exact_match: Exact match on the domain's split; None in older files.
    """

    step: int
    domain: float
    retention: float
    domain_n: int
    retention_n: int
    domain_exact_match: float | None = None


@dataclass(frozen=True)
class Curves:
    """The content of `curves.json`, see the module's description.

    Attributes:
        learning: (step, loss) of each logged step; a loss that is not a finite number is NaN.
        forgetting: The checkpoints by step, the model before training first.
        metric: Name of the score of the domain.
        retention_metric: Name of that of the retention set.
        domain_split: Where the domain was scored.
        budget_points: How many points of general ability may go; None without a budget.
        chosen_step: The checkpoint that became the result; None where it is the last one.
        stopped_early: Whether the budget ended the training.
    """

    learning: tuple[tuple[int, float], ...]
    forgetting: tuple[Checkpoint, ...]
    metric: str
    retention_metric: str
    domain_split: str
    budget_points: float | None
    chosen_step: int | None
    stopped_early: bool

    @property
    def result(self) -> Checkpoint | None:
        """The checkpoint that became the result: the chosen one, else the last; None without a training step."""
        later = [point for point in self.forgetting if point.step]
        return next(
            (point for point in self.forgetting if point.step == self.chosen_step), later[-1] if later else None
        )

    def gain(self, point: Checkpoint) -> float:
        """Points won in the domain since step 0."""
        return 100 * (point.domain - self.forgetting[0].domain)

    def loss(self, point: Checkpoint) -> float:
        """Points of general ability lost since step 0; negative where some were won."""
        return 100 * (self.forgetting[0].retention - point.retention)

    def is_forgetful(self, point: Checkpoint) -> bool:
        """Whether more was lost than the budget allows, or, without one, more than chance explains.

        Chance is judged by Newcombe's interval of the difference (Statistics in Medicine 17, 1998, 873, method 10), as
        of unpaired samples: which question was answered rightly is not kept. It is wider than a paired one.
        """
        if self.budget_points is not None:
            return self.loss(point) > self.budget_points + 1e-9
        first = self.forgetting[0]
        low, high = interval(first.retention, first.retention_n)[0], interval(point.retention, point.retention_n)[1]
        loss = first.retention - point.retention
        return loss > math.hypot(first.retention - low, high - point.retention)


def read_curves(folder: Path) -> Curves | None:
    """Read an evaluation folder's `curves.json`.

    Returns:
        The curves; None where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = inside(folder, CURVES_FILE)
    if not path.exists():
        return None
    advice = "Evaluate again, or remove it."
    stored = read_record(path, _Stored, advice=advice, former=FIELDS)
    points = stored.forgetting or ()
    counts = [*(row.step for row in stored.learning or ()), *(point.step for point in points)]
    counts += [n for point in points for n in (point.domain_n, point.retention_n)]
    budget = stored.budget_points
    if not all(0 <= count < 2**53 for count in counts) or not (budget is None or 0 <= budget <= 100):
        raise DataError(f"{path} is damaged: expected steps and counts from 0, and a budget of 0 to 100. {advice}")
    learning = [(row.step, _number(row.loss)) for row in stored.learning or ()]
    forgetting = [
        Checkpoint(
            point.step, point.domain, point.retention, point.domain_n, point.retention_n, point.domain_exact_match
        )
        for point in sorted(points, key=lambda point: point.step)
        if point.domain is not None
        and point.retention is not None
        and 0 <= point.domain <= 1
        and 0 <= point.retention <= 1
    ]
    return Curves(
        learning=tuple(sorted(learning)),
        forgetting=tuple(forgetting) if forgetting and forgetting[0].step == 0 else (),
        metric=stored.metric or "exact_match",
        retention_metric=stored.retention_metric or stored.metric or "exact_match",
        domain_split=stored.domain_split or "validation",
        budget_points=budget,
        chosen_step=stored.chosen_step,
        stopped_early=stored.stopped_early,
    )


@dataclass(frozen=True, slots=True)
class _StoredStep:
    """A logged step."""

    step: int
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class _StoredCheckpoint:
    """A `Checkpoint`; a score that could not be computed is null, or NaN."""

    step: int
    domain: float | None
    retention: float | None
    domain_n: int
    retention_n: int
    domain_exact_match: float | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """What `curves.json` holds, see the module's description."""

    learning: tuple[_StoredStep, ...] | None = None
    forgetting: tuple[_StoredCheckpoint, ...] | None = None
    metric: str | None = None
    retention_metric: str | None = None
    domain_split: str | None = None
    budget_points: float | None = None
    chosen_step: int | None = None
    stopped_early: bool = False


def _number(value: float | None) -> float:
    return value if value is not None and abs(value) < _BROKEN_LOSS else math.nan


def interval(score: float, n: int) -> tuple[float, float]:
    """Wilson's interval; for a mean of scores between 0 and 1 that are no mere right or wrong it is too wide."""
    return wilson_interval(min(max(score, 0.0), 1.0) * n, n)
