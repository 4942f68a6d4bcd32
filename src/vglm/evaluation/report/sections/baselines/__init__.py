"""Both arms beside the baselines."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vglm.evaluation.messages import translate
from vglm.evaluation.report.formatting import arm, named, section_texts, span, value
from vglm.evaluation.report.section import Scored
from vglm.evaluation.score.baselines import Baseline
from vglm.text.messages import Text

say = section_texts(__file__)
Bar = tuple[Text, Text, float, str, str, Text | None]
"""(name, meaning, score, score as text, class, interval)."""


def show(scored: Scored) -> Mapping[str, Any]:
    """The bars, best first."""
    verdict, main = scored.comparison.verdict, scored.comparison.splits[scored.comparison.main]
    return {
        "bars": _bars(scored),
        "metric": verdict.metric,
        "n": verdict.result.n,
        "is_all": verdict.result.n == main.n,
    }


def record(scored: Scored) -> Mapping[str, Any]:
    """The baselines as they are stored."""
    return {"baselines": [asdict(baseline) for baseline in scored.comparison.baselines]}


def _bars(scored: Scored) -> list[Bar]:
    metric = scored.comparison.verdict.metric
    rules = [rule for rule in scored.comparison.baselines if metric.name in rule.scores and metric.is_share]
    bars = [
        (*_about(rule), rule.scores[metric.name], value(rule.scores[metric.name], metric), "rule", _doubt(scored, rule))
        for rule in rules
    ]
    return sorted([*bars, *_arms(scored)], key=lambda bar: -bar[2]) if bars else []


def _about(rule: Baseline) -> tuple[Text, Text]:
    return named("baseline", rule.name), translate(rule.meaning)


def _arms(scored: Scored) -> list[Bar]:
    comparison, evaluation = scored.comparison, scored.evaluation
    result, metric = comparison.splits[comparison.main].primary, comparison.verdict.metric  # of all that rules answer
    arms = [(evaluation.baseline, result.before, "before"), (evaluation.candidate, result.after, "after")]
    spans = [span(comparison.arm_intervals[arm.label]) for arm, *_ in arms]
    return [
        (arm(described.label), translate(described.meaning), score, value(score, metric), kind, interval)
        for (described, score, kind), interval in zip(arms, spans, strict=True)
    ]


def _doubt(scored: Scored, rule: Baseline) -> Text | None:
    """A baseline's interval, and its n where that is another one than the arms'; None where neither is known."""
    comparison = scored.comparison
    ends = rule.intervals.get(comparison.verdict.metric.name)
    if rule.n in (None, comparison.splits[comparison.main].primary.n):
        return None if ends is None else span(ends)
    n = say("another_n", n=rule.n)
    return n if ends is None else say("doubt", span=span(ends), n=n)
