"""Scores of chest radiographs' reports by the 14 classes of CheXpert, which rules read out of them (`labeller`).

```
findings_micro_f1     F1 of all findings' counts together
findings_readable     the share of answers that speak of a chest at all; one that does not is wrong, and not normal
finding_table(rows)   precision, recall and F1 of each finding, with intervals
```

These are rules, not a clinician and not CheXbert: they miss wordings that are not listed. The signature of every metric
gives their error rate. For comparison with published figures use CheXbert on your copy of its weights
(`metrics.external.chexbert`).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.base import Metric, Rows
from vglm.evaluation.score.statistics import Interval, bootstrap_interval, mean_of_sums, wilson_interval
from vglm.text.finding_words import NO_FINDING, SUPPORT_DEVICES
from vglm.text.labeller import Certainty, label_report

FINDINGS = (
    NO_FINDING,
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Lung Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    SUPPORT_DEVICES,
)
"""CheXpert's 14 classes."""
FIVE = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""Those that CheXpert's leaderboard, and the "5" of published F1 scores, is about."""


def is_there(labels: Mapping[str, Certainty], name: str, uncertain: Certainty = "positive") -> bool:
    """Whether a finding counts as there; uncertain ones count as positive, as in F1-CheXbert, or as negative."""
    return labels.get(name) == "positive" or (labels.get(name) == "uncertain" and uncertain == "positive")


def is_abnormal(report: str) -> bool:
    """Whether a report names a positive or uncertain finding besides devices."""
    labels = label_report(report)
    return any(is_there(labels, name) for name in labels if name not in (NO_FINDING, SUPPORT_DEVICES))


def is_normal(report: str) -> bool:
    """Whether a report can be read and names no finding besides devices."""
    return NO_FINDING in label_report(report)


def count_labels(
    pairs: Sequence[tuple[Mapping[str, Certainty], Mapping[str, Certainty]]], uncertain: Certainty = "positive"
) -> Rows:
    """The additive counts from which every F1 of findings is computed.

    Args:
        pairs: (what the reference says, what the prediction says) of each study.
        uncertain: What uncertain findings count as.

    Returns:
        For each of `FINDINGS` (in the reference), then (in the prediction), then (in both), shape (n, 42).
    """
    rows = np.zeros((len(pairs), 3, len(FINDINGS)))
    for row, (true, named) in zip(rows, pairs, strict=True):
        row[0] = [is_there(true, name, uncertain) for name in FINDINGS]
        row[1] = [is_there(named, name, uncertain) for name in FINDINGS]
        row[2] = row[0] * row[1]
    return rows.reshape(len(pairs), -1)


def finding_rows(records: Sequence[Prediction]) -> Rows:
    """`count_labels` of records by the rules; an error has no findings.

    Raises:
        DataError: No reference speaks of a chest.
    """
    true = _read_references(records)
    answers = [label_report(record.prediction) if record.error is None else {} for record in records]
    is_read = np.array([[bool(labels)] for labels in true])
    return np.where(is_read, count_labels(list(zip(true, answers, strict=True))), 0.0)


def _read_references(records: Sequence[Prediction]) -> list[dict[str, Certainty]]:
    """The labels of the references; unreadable references have none and are not counted.

    Raises:
        DataError: None of them can be read.
    """
    labels = [label_report(record.reference) for record in records]
    if records and not any(labels):
        raise DataError(
            f"none of {len(records)} references speaks of a chest (first: {records[0].id!r},"
            f" {records[0].reference[:80]!r}); these metrics are for reports on chest radiographs."
        )
    return labels


def _parts(sums: Rows, names: Sequence[str] = FINDINGS) -> tuple[Rows, Rows, Rows]:
    """(true, named, both) of some of the findings, each of shape (..., len(names))."""
    columns = [FINDINGS.index(name) for name in names]
    true, named, both = np.split(sums, 3, axis=-1)
    return true[..., columns], named[..., columns], both[..., columns]


def micro_f1(sums: Rows, names: Sequence[str] = FINDINGS) -> Rows:
    """F1 of all findings' counts together; 0 where nothing is there and nothing named."""
    true, named, both = (part.sum(axis=-1) for part in _parts(sums, names))
    return np.asarray(2 * both / np.maximum(true + named, 1))


def macro_f1(sums: Rows, names: Sequence[str] = FINDINGS) -> Rows:
    """The mean F1 over all these classes, 0 for a class that never occurs, as scikit-learn and F1-CheXbert count."""
    true, named, both = _parts(sums, names)
    return np.asarray((2 * both / np.maximum(true + named, 1)).mean(axis=-1))


def _macro_f1_of_references(sums: Rows) -> Rows:
    """Over the classes that references have; a class that only predictions have lowers the micro F1."""
    true, named, both = _parts(sums)
    scores = np.where(true > 0, 2 * both / np.maximum(true + named, 1), 0.0)
    return np.asarray(scores.sum(axis=-1) / np.maximum((true > 0).sum(axis=-1), 1))


def _abnormal_rows(records: Sequence[Prediction]) -> Rows:
    """(abnormal in both, abnormal in the reference), shape (n, 2)."""
    return _recall_rows(records, is_abnormal)


def _normal_rows(records: Sequence[Prediction]) -> Rows:
    """(normal in both, normal in the reference), shape (n, 2)."""
    return _recall_rows(records, is_normal)


def _recall_rows(records: Sequence[Prediction], holds: Callable[[str], bool]) -> Rows:
    _read_references(records)
    true = np.array([holds(record.reference) for record in records], dtype=np.float64)
    named = np.array([record.error is None and holds(record.prediction) for record in records], dtype=np.float64)
    return np.stack([true * named, true], axis=1)


def _readable_rows(records: Sequence[Prediction]) -> Rows:
    """(the answer speaks of a chest, the reference does), shape (n, 2)."""
    true = np.array([bool(labels) for labels in _read_references(records)], dtype=np.float64)
    named = np.array(
        [record.error is None and bool(label_report(record.prediction)) for record in records], dtype=np.float64
    )
    return np.stack([true * named, true], axis=1)


def finding_table(records: Sequence[Prediction]) -> dict[str, dict[str, object]]:
    """How well each finding is reported, by the rules.

    Args:
        records: At least one; their `group` says which of them belong together.

    Returns:
        Finding -> `n` (in references), `named` (in predictions), and `precision`, `recall` and `f1`, each with its
        `…_interval`, 95 %: Wilson's for shares of independent records, else the bootstrap's by group. None where
        undefined, an interval also where all resamples agree, which shows no doubt though there is some. JSON-able.
    """
    rows, groups = finding_rows(records), [(record.split, record.group) for record in records]
    is_independent = len(set(groups)) == len(groups)
    table = {}
    for name in FINDINGS:
        columns = np.stack([part[:, 0] for part in _parts(rows, [name])], axis=1)
        true, named, both = (int(count) for count in columns.sum(axis=0))
        shares = {"precision": ([2, 1], both, named), "recall": ([2, 0], both, true)}
        entry: dict[str, object] = {"n": true, "named": named}
        for share, (used, hits, count) in shares.items():
            entry[share] = hits / count if count else None
            ends = (
                wilson_interval(hits, count)
                if is_independent and count
                else bootstrap_interval(columns[:, used], groups=groups, statistic=mean_of_sums)
            )
            entry[f"{share}_interval"] = _shown(ends) if count else [None, None]
        entry["f1"] = 2 * both / (true + named) if true + named else None
        ends = bootstrap_interval(columns, groups=groups, statistic=_f1)
        entry["f1_interval"] = _shown(ends) if true + named else [None, None]
        table[name] = entry
    return table


def _f1(sums: Rows) -> Rows:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * sums[..., 2] / (sums[..., 0] + sums[..., 1]))


def _shown(ends: Interval) -> list[float | None]:
    return [float(ends.low), float(ends.high)] if ends.low < ends.high else [None, None]


def by_abnormality(records: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    """The slices "normal", "abnormal" and "unreadable", by what the references say; empty ones are left out."""
    slices: dict[str, list[Prediction]] = {"normal": [], "abnormal": [], "unreadable": []}
    for record in records:
        kind = (
            "abnormal" if is_abnormal(record.reference) else "normal" if is_normal(record.reference) else "unreadable"
        )
        slices[kind].append(record)
    return {name: rows for name, rows in slices.items() if rows}


ERRORS = (
    "presence of a finding by hand in 40 OpenI studies after the last change: en precision 0.97, recall 1.00"
    " (33 findings), zh 1.00 and 1.00 (32)"
)
"""How often the labeller errs, see `benchmarks/labeller.py`."""
_HOW = (
    "rule-based labeller 5, zh and en|unreadable answers wrong, unreadable references left out|14 CheXpert classes"
    f"|uncertain counts as positive|any case|not cut|not CheXbert|{ERRORS}"
)
FINDINGS_MICRO_F1 = Metric(
    "findings_micro_f1",
    "Findings, micro-F1",
    _HOW,
    table=finding_rows,
    statistic=micro_f1,
    kind="findings",
    rewards_naming=True,
    title_zh="征象微平均 F1",
)
FINDINGS_MACRO_F1 = Metric(
    "findings_macro_f1",
    "Findings, macro-F1",
    f"{_HOW}|classes of the references",
    table=finding_rows,
    statistic=_macro_f1_of_references,
    kind="findings",
    rewards_naming=True,
    title_zh="征象宏平均 F1",
)
ABNORMAL_RECALL = Metric(
    "abnormal_recall",
    "Abnormal studies found",
    f"{_HOW}|abnormal: any but devices",
    table=_abnormal_rows,
    rewards_naming=True,
    title_zh="异常检出率",
)
NORMAL_RECALL = Metric(
    "normal_recall",
    "Normal studies called normal",
    f"{_HOW}|normal: none but devices",
    table=_normal_rows,
    title_zh="正常识别率",
)
FINDINGS_READABLE = Metric(
    "findings_readable",
    "Reports that speak of a chest",
    f"{_HOW}|any statement on heart, lungs, pleura or the picture as a whole",
    table=_readable_rows,
    title_zh="谈及胸部的报告",
)
