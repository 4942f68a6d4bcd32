"""Scores of answers against references, each a pure function with a signature; no torch needed.

```
measure(ALL_METRICS["bleu_zh"], records)              Score(value=0.43, interval=…, n=120)
compare_arms(ALL_METRICS["bleu_zh"], before, after)   PairedComparison(difference=0.31, p_value=…)
score_conventions(records)                            the same predictions, as other projects count
```

| module | metrics |
|---|---|
| `text` | matches, BLEU, chrF, ROUGE-L, CIDEr-D, METEOR, lengths |
| `labels` | accuracy, macro-F1, confusion, intervals of classes; VQA accuracy |
| `parsing` | which label, choice, yes or no an answer names |
| `choices` | multiple choice by what the answer takes, rotations together (MMBench) |
| `likelihood` | choices by likelihood, calibration |
| `findings` | 14 findings in chest radiographs; `labeller` reads them by rules, `finding_words` names them |
| `lightcurves` | period and amplitude |
| `external` | scores that are computed once and read from files, off by default |
| `bert_score`, `chexbert` | by weights of the user's |
| `radeval_radgraph_partial` and others | by the package RadEval |
| `judge` | a language model behind an endpoint of the user's |
| `imported` | other programs' scores |
| `benchmarks` | MME, POPE |
| `conventions` | LLaMA-Factory, ms-swift, R2Gen, pycocoevalcap, sacrebleu |

A config file in conf/metrics/ lists names. A metric carries its kind, direction, unit and titles itself: a new one is a
`Metric` in `ALL_METRICS`, or what a package of the user's gives, see `vglm.evaluation.score.settings`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence

from vglm.errors import ConfigError
from vglm.evaluation.score.metrics.base import Metric, Score, compare_arms, measure
from vglm.evaluation.score.metrics.benchmarks import BENCHMARK_METRICS
from vglm.evaluation.score.metrics.choices import CHOICE_METRICS
from vglm.evaluation.score.metrics.conventions import CONVENTIONS, score_conventions
from vglm.evaluation.score.metrics.external import EXTERNAL_NAMES, WHY_NOT
from vglm.evaluation.score.metrics.findings import (
    ABNORMAL_RECALL,
    FINDINGS_MACRO_F1,
    FINDINGS_MICRO_F1,
    FINDINGS_READABLE,
    NORMAL_RECALL,
)
from vglm.evaluation.score.metrics.labels import (
    VQA_ACCURACY,
    as_table,
    class_f1_intervals,
    classification_metrics,
    classify,
    vqa_accuracy,
)
from vglm.evaluation.score.metrics.lightcurves import AMPLITUDE_ERROR, AMPLITUDE_WITHIN, PERIOD_ERROR, PERIOD_WITHIN
from vglm.evaluation.score.metrics.likelihood import LIKELIHOOD_METRICS, calibrate, calibration
from vglm.evaluation.score.metrics.parsing import Labels
from vglm.evaluation.score.metrics.text import (
    ANSWER_LENGTH,
    BLEU_13A,
    BLEU_CHAR,
    BLEU_ZH,
    CHRF,
    CIDER_D,
    CONTAINS,
    EXACT_MATCH,
    LENGTH_RATIO,
    METEOR,
    NORMALISED_MATCH,
    ROUGE_L,
    ROUGE_L_WORDS,
    CharacterTokenizer,
    exact_match,
    rouge_l_characters,
    rouge_l_words,
)
from vglm.evaluation.score.statistics import PairedComparison, holm
from vglm.text.labeller import label_report

__all__ = [
    "ALL_METRICS",
    "CONVENTIONS",
    "EXACT_MATCH",
    "METRICS",
    "ROUGE_L",
    "CharacterTokenizer",
    "Labels",
    "Metric",
    "Score",
    "adjust",
    "as_table",
    "calibrate",
    "calibration",
    "class_f1_intervals",
    "classify",
    "compare_arms",
    "exact_match",
    "label_report",
    "measure",
    "rouge_l_characters",
    "rouge_l_words",
    "score_conventions",
    "select_metrics",
    "vqa_accuracy",
]

METRICS = (EXACT_MATCH, ROUGE_L)
"""What every report shows."""

ALL_METRICS = {
    metric.name: metric
    for metric in (
        EXACT_MATCH,
        NORMALISED_MATCH,
        CONTAINS,
        BLEU_ZH,
        BLEU_CHAR,
        BLEU_13A,
        CHRF,
        ROUGE_L,
        ROUGE_L_WORDS,
        CIDER_D,
        METEOR,
        VQA_ACCURACY,
        *classification_metrics(),
        *CHOICE_METRICS,
        *LIKELIHOOD_METRICS,
        FINDINGS_MICRO_F1,
        FINDINGS_MACRO_F1,
        ABNORMAL_RECALL,
        NORMAL_RECALL,
        FINDINGS_READABLE,
        PERIOD_ERROR,
        PERIOD_WITHIN,
        AMPLITUDE_ERROR,
        AMPLITUDE_WITHIN,
        *BENCHMARK_METRICS,
        ANSWER_LENGTH,
        LENGTH_RATIO,
    )
}
"""By name; those of a closed set take the references as its labels, unless `select_metrics` gets them."""


def select_metrics(
    names: Sequence[str], labels: Labels | None = None, external: Mapping[str, Metric] | None = None
) -> tuple[Metric, ...]:
    """The metrics of a list of names, with the answer's length beside n-gram scores, which depend on it.

    Args:
        names: Of `ALL_METRICS` and `external`.
        labels: The closed set of classes for accuracy and its like, as a mapping with other words for each; None for
            the different references.
        external: Metrics of `.external` by name; those that are not named follow the others.

    Raises:
        ConfigError: Names are unknown; all of them are named. Or labels are not texts, or mean the same, or an external
            metric has the name of another.
    """
    _check_labels(labels)
    if isinstance(names, str):
        raise ConfigError(f"metrics.names must be a list, such as [{names}], got {names!r}.")
    available = ALL_METRICS | (
        {} if labels is None else {metric.name: metric for metric in classification_metrics(labels)}
    )
    external = external or {}
    if taken := available.keys() & external.keys():
        raise ConfigError(f"metrics.external: {', '.join(sorted(taken))} is a metric of the workbench; name it anew.")
    available |= external
    problems = []
    for name in names:
        if name in WHY_NOT and name not in available:
            problems.append(f"{name!r}: {WHY_NOT[name]}")
        elif name in EXTERNAL_NAMES and name not in available:
            problems.append(f"{name!r} without metrics.external.{EXTERNAL_NAMES[name]}")
        elif name not in available:
            near = difflib.get_close_matches(name, available, n=1)
            problems.append(f"{name!r}{f' (did you mean {near[0]!r}?)' if near else ''}")
    if problems:
        raise ConfigError(f"metrics.names: there is no {', '.join(problems)}. Known: {', '.join(available)}.")
    return _with_lengths(available[name] for name in (*names, *external))


def _check_labels(labels: object) -> None:
    """Refuse what is neither a list of texts nor label -> list of texts."""
    lists = [list(labels), *labels.values()] if isinstance(labels, Mapping) else [labels]
    if labels is None or all(
        isinstance(list, Sequence) and not isinstance(list, str) and all(isinstance(word, str) for word in list)
        for list in lists
    ):
        return
    raise ConfigError(
        "metrics.labels must be a list of texts such as [beach, meadow], or label: [other words for it] such as"
        f" {{beach: [沙滩], meadow: [草地]}}; got {labels!r}. In YAML put yes, no and numbers into quotes."
    )


def adjust(
    comparisons: Mapping[str, PairedComparison], metrics: Sequence[Metric]
) -> dict[str, tuple[PairedComparison, float | None]]:
    """Put beside each comparison its p-value by Holm over all of them; None for lengths, which are not tested.

    Args:
        comparisons: Metric name -> comparison.
        metrics: Of these names, and maybe others.
    """
    tested = [metric.name for metric in metrics if metric.name in comparisons and metric.higher_is_better is not None]
    adjusted = holm({name: comparisons[name].p_value for name in tested})
    return {name: (result, adjusted.get(name)) for name, result in comparisons.items()}


def _with_lengths(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    """Each metric once, and behind n-gram scores the answer's length."""
    chosen = {metric.name: metric for metric in metrics}
    if any(metric.kind == "ngrams" for metric in chosen.values()):
        chosen |= {ANSWER_LENGTH.name: ANSWER_LENGTH, LENGTH_RATIO.name: LENGTH_RATIO}
    return tuple(chosen.values())
