"""How well the people agree who wrote several references to each question, and the ceiling that sets."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Line, Scored, Table
from vglm.evaluation.score.agreement import Agreement, measure_agreement

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """People and both arms by one metric; None where no question of the main split has several references."""
    found = _measure(scored)
    return None if found is None else {"agreement": _table(found, scored), "about": _about(found)}


def lines(scored: Scored) -> list[Line]:
    """What the people score against one another."""
    found = _measure(scored)
    if found is None:
        return []
    score = fmt.value(found.people.value, found.metric)
    return [Line(say("line", n=found.n, metric=fmt.in_sentence(found.metric), score=score), "note")]


def record(scored: Scored) -> Mapping[str, Any]:
    """The share of equal pairs of each sample, and the people's score."""
    found = _measure(scored)
    if found is None:
        return {}
    people = {"metric": found.metric.name, **found.people.as_dict()}
    return {"agreement": {"mean": found.mean, "alpha": found.alpha, "people": people, "samples": found.by_sample}}


def _measure(scored: Scored) -> Agreement | None:
    return measure_agreement(scored.comparison.splits[scored.comparison.main])


def _about(found: Agreement) -> Any:
    return say(
        "about",
        n=found.n,
        references=f"{found.references:.1f}",
        agreement=fmt.percent(found.mean),
        alpha=fmt.NONE if found.alpha is None else f"{found.alpha:.2f}",
        unanimous=found.unanimous,
        disputed=found.disputed,
    )


def _table(found: Agreement, scored: Scored) -> Table:
    names = [say("people"), fmt.arm(scored.comparison.baseline), fmt.arm(scored.comparison.candidate)]
    rows = [
        [name, fmt.value(score.value, found.metric), fmt.span(score.interval) if found.metric.is_share else fmt.NONE]
        for name, score in zip(names, (found.people, *found.arms), strict=True)
    ]
    return Table([say("who"), fmt.title(found.metric), say("interval")], rows, styles=("", "strong"))
