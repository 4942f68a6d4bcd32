"""What `metrics.json` holds, version 2; `report.json` holds the same and the sentences of the report.

Names of metrics, of arms and of values are keys of separate dictionaries, so that they cannot collide. The file is
written once, when an evaluation is scored. No code reads older versions, because the file can be rebuilt from the
predictions beside it. Values that are not finite are None.
"""

from pathlib import Path
from typing import Any, Final, TypedDict

from vglm.errors import DataError
from vglm.files import write_json

VERSION: Final = 2
METRICS_FILE = "metrics.json"

Plain = str | dict[str, Any]
"""A sentence, or the key and values of one, see `vglm.evaluation.messages`."""


class MetricFacts(TypedDict):
    """What a metric is, see `vglm.evaluation.score.metrics.base.Metric`."""

    title: dict[str, str]
    """Language, `en` or `zh`, -> name."""
    signature: str
    kind: str
    unit: str
    higher_is_better: bool | None


class FlipCounts(TypedDict):
    """Samples that became right, and that became wrong."""

    gained: int
    lost: int


class MetricScore(TypedDict):
    """A metric on a set of samples, see `PairedComparison`."""

    values: dict[str, float | None]
    """Arm -> score."""
    difference: float | None
    points: float | None
    """Hundredths; None for what is not a share."""
    interval: list[float | None]
    """Of the difference; two None where it says nothing."""
    confidence: float
    p_value: float | None
    p_value_exact: float | None
    p_value_holm: float | None
    """Corrected over the metrics of a split; None for lengths, which are not tested."""
    effect_size: float | None
    detectable: float | None
    n: int
    groups: int
    least_groups: int
    flips: FlipCounts | None
    power_line: Plain
    test: Plain
    interval_method: Plain
    signature: str


class SetScores(TypedDict):
    """Counts and scores of a set of samples."""

    n: int
    errors: int
    changed: int
    cut: dict[str, int]
    """Arm -> answers that reached `max_new_tokens`."""
    scores: dict[str, MetricScore]
    """Metric -> score."""


class SplitScores(SetScores):
    """Those of a split, and of its parts."""

    right_by: str
    """The metric that calls an answer right or wrong."""
    changes: dict[str, int]
    """Kind of change by content and form -> number of answers, see `vglm.evaluation.score.changes`."""
    forgetting: dict[str, Any]
    """What was right and is wrong, and the reverse, see `GrossForgetting`."""
    wrong_to_right: list[str]
    right_to_wrong: list[str]
    power_line: Plain
    not_computed: dict[str, Plain]
    """Metric -> why not."""
    kinds: dict[str, SetScores]
    slices: dict[str, dict[str, SetScores]]
    """Field -> value -> scores."""
    findings: dict[str, dict[str, dict[str, object]]]
    """Arm -> finding -> see `finding_table`; empty without such a metric."""
    classes: dict[str, list[dict[str, Any]]]
    """Arm -> see `as_table`; of the main split."""
    calibration: dict[str, dict[str, Any]]
    """Arm -> see `calibration`; of the main split, where there are likelihoods."""


class DrawScores(TypedDict):
    """The main split's primary metric in each draw alone."""

    n: int
    metric: str
    scores: dict[str, list[float | None]]
    mean: dict[str, float | None]
    sd: dict[str, float | None]


class GainScores(TypedDict):
    """How much of an arm's score depends on its images, see `vglm.evaluation.score.image_use`."""

    arm: str
    control: str
    label: str
    meaning: Plain
    changed: int
    metric: str
    finding: str
    other_image: float | None
    true_image: float | None
    difference: float | None
    interval: list[float | None]
    confidence: float
    p_value: float | None
    p_value_exact: float | None
    effect_size: float | None
    detectable: float | None
    n: int
    groups: int
    least_groups: int
    power_line: Plain
    test: Plain
    interval_method: Plain


class GainChangeScores(TypedDict):
    """What tuning changed of the use of images, see `vglm.evaluation.score.image_use.GainChange`."""

    control: str
    metric: str
    finding: str
    at_floor: list[str]
    gains: dict[str, float | None]
    """Arm -> visual gain."""
    difference: float | None
    interval: list[float | None]
    confidence: float
    p_value: float | None
    n: int
    groups: int


class WorseSliceScores(TypedDict):
    """A slice of the main split that got worse, with Holm's correction over all its slices."""

    field: str
    value: str
    metric: str
    p_value_holm: float
    difference: float | None
    interval: list[float | None]
    n: int
    groups: int


class ArmLabels(TypedDict):
    """Which arm is which."""

    baseline: str
    candidate: str


class MetricsFile(TypedDict):
    """The whole file."""

    version: int
    arms: ArmLabels
    primary: str
    metrics: dict[str, MetricFacts]
    splits: dict[str, SplitScores]
    draws: DrawScores
    retention_loss_points: float | None
    within_budget: dict[str, Any] | None
    """Whether retention lost no more than the run's forgetting budget, see `NonInferiority`; None without a budget."""
    image_use: list[GainScores]
    image_use_change: list[GainChangeScores]
    worse_slices: list[WorseSliceScores]
    conventions: dict[str, Any]
    """Convention -> its scores; empty where none was requested."""


def write_metrics(content: MetricsFile, folder: Path) -> None:
    """Write `metrics.json` into the evaluation folder."""
    write_json(folder / METRICS_FILE, content, error=DataError)
