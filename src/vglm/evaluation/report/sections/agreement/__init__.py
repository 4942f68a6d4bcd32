"""Agreement among the people who wrote several references to each question: a ceiling for any score."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Line, Scored, Table
from vglm.evaluation.score.agreement import Agreement, measure_agreement

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """People and both arms by one metric; None where no question of the main split has several references."""
    agreement = scored.once(_measure)
    return None if agreement is None else {"agreement": _table(agreement, scored), "about": _about(agreement)}


def lines(scored: Scored) -> list[Line]:
    """The annotators' scores against one another."""
    agreement = scored.once(_measure)
    if agreement is None:
        return []
    score = fmt.value(agreement.people.value, agreement.metric)
    return [Line(say("line", n=agreement.n, metric=fmt.in_sentence(agreement.metric), score=score), "note")]


def record(scored: Scored) -> Mapping[str, Any]:
    """The share of equal pairs of each sample, and the people's score."""
    agreement = scored.once(_measure)
    if agreement is None:
        return {}
    people = {"metric": agreement.metric.name, **agreement.people.as_dict()}
    return {
        "agreement": {
            "mean": agreement.mean,
            "alpha": agreement.alpha,
            "people": people,
            "samples": agreement.by_sample,
        }
    }


def _measure(scored: Scored) -> Agreement | None:
    return measure_agreement(scored.comparison.splits[scored.comparison.main])


def _about(agreement: Agreement) -> Any:
    return say(
        "about",
        n=agreement.n,
        references=f"{agreement.references:.1f}",
        agreement=fmt.percent(agreement.mean),
        alpha=fmt.NONE if agreement.alpha is None else f"{agreement.alpha:.2f}",
        unanimous=agreement.unanimous,
        disputed=agreement.disputed,
    )


def _table(agreement: Agreement, scored: Scored) -> Table:
    names = [say("people"), fmt.arm(scored.comparison.baseline), fmt.arm(scored.comparison.candidate)]
    rows = [
        [
            name,
            fmt.value(score.value, agreement.metric),
            fmt.span(score.interval) if agreement.metric.is_share else fmt.NONE,
        ]
        for name, score in zip(names, (agreement.people, *agreement.arms), strict=True)
    ]
    return Table([say("who"), fmt.title(agreement.metric), say("interval")], rows, styles=("", "strong"))
