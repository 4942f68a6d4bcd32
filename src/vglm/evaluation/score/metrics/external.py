"""Scores that need more than the two texts: model weights, an endpoint, or another program.

They cannot be recomputed whenever a report is rendered. So each is computed once, when a model is evaluated or by `vglm
score`, and its numbers are stored in the evaluation folder. From then on it is a metric like any other, with intervals,
paired tests and slices. The config selects them; by default none is computed:

```
metrics.external.bert_score.model=<folder of a BERT or RoBERTa>                    bert_score
metrics.external.chexbert.weights=<chexbert.pth> .tokenizer=<bert-base-uncased>    chexbert_micro_f1, chexbert_macro_f1
                                                                                   and both as …_5, of five findings
metrics.external.judge.base_url=http://localhost:8000/v1 .model=<name there>       judge
metrics.external.radeval.scorers=[radgraph,ratescore]                             radeval_radgraph_partial, …
metrics.external.<name>.scores=<file with {arm}> .signature=<how it was made>      <name>, such as green or radgraph
```

These are short for components, see `vglm.evaluation.score.settings`; any subclass of `ExternalMetric` can be one.

All of them follow the metrics of `metrics.names`; one that is named there stands where it is named, the first of all
being the primary metric. The last kind reads numbers that another program computed, one answer a line:

    {"id": "2882_1", "split": "test", "score": 0.75}

The folder gets, for each arm, `<arm>/scores.jsonl` with the additive numbers of `vglm.evaluation.score.metrics.base`,
and `external.json` with what they are:

    {"split": "test", "id": "2882_1", "draw": 0, "key": "9f86d081884c7d65", "bert_score": [0.83, 1.0]}
    {"metrics": [{"name": "bert_score", "title": "BERTScore", "rows": "bert_score", …}], "sha256": "1f0c…"}

`key` is a hash of the answer that was scored: an answer that changed since has no score, rather than a wrong one.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from vglm.errors import DataError, brief
from vglm.evaluation.predictions import MAX_ERRORS_SHOWN, Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.metrics.findings import FINDINGS, FIVE, macro_f1, micro_f1
from vglm.evaluation.score.statistics import Statistic, mean_of_sums
from vglm.evaluation.seals import DESCRIPTION_FILE, SCORES_FILE, SEALS_FILE, scores_digest
from vglm.files import inside, read_json, read_record, read_text, write_json, write_text

Compute = Callable[[Sequence[Prediction]], Rows]
"""Records -> their additive numbers in the same order, shape (n, k)."""
Arms = Mapping[str, Sequence[Prediction]]
"""An arm's name -> its records."""

STATISTICS: dict[str, Statistic] = {
    "mean": mean_of_sums,
    "micro_f1": micro_f1,
    "macro_f1": macro_f1,
    "micro_f1_5": partial(micro_f1, names=FIVE),
    "macro_f1_5": partial(macro_f1, names=FIVE),
}
"""From sums of stored numbers to a score, by the name in `external.json`."""

_ELSEWHERE = (
    "Compute it in an environment of its own and give its numbers:"
    " metrics.external.{name}.scores=<file> metrics.external.{name}.signature=<how> (recipes/xray/README.md)."
)
WHY_NOT = {
    "radgraph": "RadGraph is a scorer of RadEval: metrics.external.radeval.scorers=[radgraph]. "
    + _ELSEWHERE.format(name="radgraph"),
    "green": "GREEN is a scorer of RadEval, with a language model of 7B: metrics.external.radeval.scorers=[green]. "
    + _ELSEWHERE.format(name="green"),
}
"""Metrics that people look for under another name: what to do."""


def why_unknown(name: str, names: Sequence[str]) -> str:
    """Why settings without scores are of no metric, and what to do."""
    return f"no metric of ours; known: {', '.join(names)}. {_ELSEWHERE.format(name=name)}"


CHEXBERT_NAMES = ("chexbert_micro_f1", "chexbert_macro_f1", "chexbert_micro_f1_5", "chexbert_macro_f1_5")
EXTERNAL_NAMES = {"bert_score": "bert_score", "judge": "judge", **dict.fromkeys(CHEXBERT_NAMES, "chexbert")}
"""Name of a metric -> the settings that it needs."""


# --- components ------------------------------------------------------------------------------------------------------


class ExternalMetric(ABC):
    """A component of `metrics.external`: its scores are computed once, and stored.

    Attributes:
        NAMED_ANEW: Keys that open a connection, a file or an environment variable, and so count only where a command
            names them: an evaluation's description may come from a stranger.
        takes_any_answer: Whether it can score the controls' answers too.
    """

    NAMED_ANEW: ClassVar[tuple[str, ...]] = ()
    takes_any_answer: ClassVar[bool] = True

    def names(self, key: str) -> tuple[str, ...]:
        """The names of its metrics.

        Args:
            key: Its own in `metrics.external`.
        """
        return (key,)

    def problems(self) -> Iterable[str]:
        """What is wrong with the values, files that are not there included."""
        return ()

    @abstractmethod
    def score(self, key: str, arms: Arms, folder: Path, store: "Store") -> None:
        """Put the scores of arms into a store.

        Args:
            key: As in `names`.
            arms: Whose answers are scored.
            folder: The evaluation folder.
            store: Gets the numbers and what they are; what it knows by the same signature need not be computed again.

        Raises:
            ConfigError: The settings are wrong.
            CheckpointError: A model's weights cannot be used.
            DataError: Scores do not fit the answers, or an endpoint failed.
        """


class ComputedMetric(ExternalMetric):
    """An external metric that is computed here, answer by answer; only new answers are."""

    @abstractmethod
    def open(self, key: str, folder: Path) -> "tuple[list[StoredMetric], Compute]":
        """What the metrics are, and how to compute their numbers; weights are loaded here, see `score`."""

    def score(self, key: str, arms: Arms, folder: Path, store: "Store") -> None:
        """See `ExternalMetric`."""
        described, compute = self.open(key, folder)
        earlier = [store.metrics.get(metric.name) for metric in described]
        is_same = described == [metric and replace(metric, unscored=None) for metric in earlier]
        store.rows[key] = complete(store.rows.get(key, {}) if is_same else {}, arms, compute)
        store.metrics.update({metric.name: with_gaps(metric, store.rows[key], arms) for metric in described})


def complete(stored: Mapping[str, list[float]], arms: Arms, compute: Compute) -> dict[str, list[float]]:
    """The numbers of every answer; only those that are not known are computed, equal answers once."""
    records = {key_of(record): record for arm in arms.values() for record in arm}
    missing = {key: record for key, record in records.items() if key not in stored}
    fresh = dict(zip(missing, compute(list(missing.values())).tolist(), strict=True)) if missing else {}
    return {key: stored[key] for key in records if key in stored} | fresh


def with_gaps(metric: "StoredMetric", rows: Mapping[str, Sequence[float]], arms: Arms) -> "StoredMetric":
    """Say how many answers of each arm are left out of the mean."""
    if metric.statistic != "mean":
        return metric
    gaps = {arm: sum(rows[key_of(record)][1] == 0 for record in records) for arm, records in arms.items()}
    return replace(metric, unscored={arm: count for arm, count in gaps.items() if count} or None)


# --- metrics of stored numbers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMetric:
    """What the numbers of a file are, as `external.json` holds it.

    Attributes:
        name: As in `Metric`, like the other fields that it has too.
        title: See there.
        title_zh: See there.
        signature: See there.
        rows: The key of its numbers in `scores.jsonl`, which several metrics may share.
        statistic: Of `STATISTICS`.
        is_share: Whether it is from 0.0 to 1.0.
        higher_is_better: See there; older files call it `is_better_higher`.
        unscored: Arm -> answers that got no score and are left out of the mean.
    """

    name: str
    title: str
    signature: str
    rows: str
    title_zh: str | None = None
    statistic: str = "mean"
    is_share: bool = True
    higher_is_better: bool = True
    unscored: Mapping[str, int] | None = None

    def bound(self, rows: Mapping[str, Sequence[float]]) -> Metric:
        """The metric that looks answers up.

        Args:
            rows: `key_of` an answer -> its numbers.
        """
        return Metric(
            self.name,
            self.title,
            self.signature,
            table=lambda records: look_up(self.rows, rows, records),
            statistic=STATISTICS[self.statistic],
            unit="%" if self.is_share else "",
            higher_is_better=self.higher_is_better,
            title_zh=self.title_zh,
        )


def key_of(record: Prediction) -> str:
    """A hash of all that a score of an answer may depend on."""
    content = [record.split, record.id, record.draw, record.question, record.history, record.reference]
    answer = [record.prediction, record.error is not None, record.image_sha256]
    return hashlib.sha256(json.dumps([*content, *answer], ensure_ascii=False).encode()).hexdigest()[:16]


def look_up(name: str, numbers: Mapping[str, Sequence[float]], records: Sequence[Prediction]) -> Rows:
    """The stored numbers of records, shape (n, k).

    Raises:
        DataError: A record has none.
    """
    rows = [numbers.get(key_of(record)) for record in records]
    missing = [record for record, row in zip(records, rows, strict=True) if row is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(records)} answers have no {name} in {SCORES_FILE} (first: {missing[0].split}"
            f" {missing[0].id!r}). Run: vglm score <evaluation folder>"
        )
    return np.array(rows, dtype=np.float64)


def declare(external: Mapping[str, ExternalMetric | None] | None) -> dict[str, Metric]:
    """The metrics of components, by name, before anything was scored; their rows raise a DataError."""
    names = [name for key, value in (external or {}).items() if value is not None for name in value.names(key)]
    return {name: StoredMetric(name=name, title=name, signature="not computed", rows=name).bound({}) for name in names}


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Store:
    """All stored scores of an evaluation.

    Attributes:
        metrics: What they are, by name.
        rows: Name of numbers -> `key_of` an answer -> its numbers.
    """

    metrics: dict[str, StoredMetric]
    rows: dict[str, dict[str, list[float]]]


def read_store(folder: Path) -> Store:
    """Read the scores in an evaluation folder; nothing where none were stored, or what was stored was edited since.

    Raises:
        DataError: A file is damaged; the first bad lines are named.
    """
    path = inside(folder, DESCRIPTION_FILE)
    if not path.exists():
        return Store({}, {})
    advice = f"Remove it and run: vglm score {folder}"
    description = read_record(path, _Description, advice=advice)
    described = [metric.current for metric in description.metrics]
    if unknown := [metric.statistic for metric in described if metric.statistic not in STATISTICS]:
        raise DataError(f"{path} is damaged: there is no statistic {brief(ValueError(unknown[0]))!r}. {advice}")
    names = {metric.rows for metric in described}
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for file in sorted(folder.glob(f"*/{SCORES_FILE}")):
        problems = []
        text = read_text(inside(folder, file.parent.name, SCORES_FILE), advice=f"Run: vglm score {folder}")
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                for name in names & values.keys():
                    rows[name][str(values["key"])] = [float(value) for value in values[name]]
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                problems.append(f"line {number}: {brief(ValueError(repr(error)), 80)}")
        if problems:
            shown = "; ".join(problems[:MAX_ERRORS_SHOWN])
            raise DataError(f"{file}: {len(problems)} lines are no scores ({shown}). Run: vglm score {folder}")
    is_sealed = description.sha256 is not None or (folder / SEALS_FILE).is_file()  # older ones are not
    if is_sealed and description.sha256 != scores_digest(read_json(path)["metrics"], folder):
        return Store({}, {})
    return Store({metric.name: metric for metric in described}, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described(StoredMetric):
    """As a file holds it: an older one says `is_better_higher`."""

    is_better_higher: bool = True

    @property
    def current(self) -> StoredMetric:
        values = {field.name: getattr(self, field.name) for field in fields(StoredMetric)}
        return StoredMetric(**values | {"higher_is_better": self.higher_is_better and self.is_better_higher})


@dataclass(frozen=True, slots=True)
class _Description:
    """What `external.json` holds."""

    metrics: tuple[_Described, ...]
    sha256: str | None = None


def write_store(store: Store, arms: Mapping[str, Sequence[Prediction]], folder: Path) -> None:
    """Write the scores of arms, and then what they are.

    Args:
        store: What is known.
        arms: The arm's name -> its records; a score of any other answer is dropped.
        folder: The evaluation folder.
    """
    for arm, records in arms.items():
        lines = []
        for record in records:
            key = key_of(record)
            numbers = {name: row[key] for name, row in store.rows.items() if key in row}
            if numbers:
                entry = {"split": record.split, "id": record.id, "draw": record.draw, "key": key}
                lines.append(json.dumps(entry | numbers, ensure_ascii=False) + "\n")
        write_text(inside(folder, arm, SCORES_FILE), "".join(lines), error=DataError)
    described = [asdict(metric) for metric in store.metrics.values()]
    content = {"metrics": described, "sha256": scores_digest(described, folder)}
    write_json(folder / DESCRIPTION_FILE, content, error=DataError)


def stored_metrics(folder: Path, external: Mapping[str, ExternalMetric | None] | None) -> dict[str, Metric]:
    """The metrics of components, with the numbers in an evaluation folder.

    Args:
        folder: The evaluation folder.
        external: What is asked for; what the folder has not is there too, and raises a DataError when it is used, so
            that a report can say so.

    Raises:
        DataError: A file is damaged.
    """
    metrics = declare(external)
    if not metrics:
        return {}
    store = read_store(folder)
    stored = {name: metric for name, metric in store.metrics.items() if name in metrics}
    for metric in stored.values():
        width = 2 if metric.statistic == "mean" else 3 * len(FINDINGS)
        if any(len(row) != width for row in store.rows[metric.rows].values()):
            raise DataError(f"{folder}: its {SCORES_FILE} are no scores of {metric.name}. Run: vglm score {folder}")
    return metrics | {name: value.bound(store.rows[value.rows]) for name, value in stored.items()}
