"""What was forgotten of the retention set, gross as well as net, held against the run's budget."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.comparison import RETENTION, Comparison
from vglm.evaluation.score.statistics import GrossForgetting
from vglm.text.messages import Text

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """What was known and what was not, and how much of it flipped; None without a retention set."""
    gross = _gross(scored)
    return None if gross is None else {"forgetting": _table(gross), "budget": _budget(scored.comparison)}


def lines(scored: Scored) -> list[Line]:
    """Both directions of change, and the verdict on the budget."""
    gross = _gross(scored)
    if gross is None:
        return []
    values = {"forgotten": gross.forgotten, "known": gross.known, "learned": gross.learned, "unknown": gross.unknown}
    spans = {"of_known": _span(gross.forgotten_interval, gross.known)}
    spans["of_unknown"] = _span(gross.learned_interval, gross.unknown)
    budget, finding = _budget(scored.comparison), scored.comparison.within_budget
    is_lost = finding is not None and finding.finding == "refuted"
    return [
        Line(say("gross", **values, **spans)),
        *([] if budget is None else [Line(budget, "worse" if is_lost else "")]),
    ]


def _gross(scored: Scored) -> GrossForgetting | None:
    """Of the retention set, where something was tuned and it is beside what was learned."""
    comparison = scored.comparison
    if scored.evaluation.purpose != "tuning" or RETENTION not in comparison.splits or comparison.main == RETENTION:
        return None
    return comparison.splits[RETENTION].forgetting


def _budget(comparison: Comparison) -> Text | None:
    """Whether retention lost no more than the run's budget; None without one."""
    budget = comparison.within_budget
    if budget is None:
        return None
    low, high = (fmt.signed(100 * end) for end in budget.interval)
    loss = fmt.signed(100 * budget.loss)
    ends = say("range", low=low, high=high)
    return say(f"budget.{budget.finding}", points=f"{100 * budget.margin:g}", loss=loss, ends=ends)


def _span(interval: tuple[float, float], n: int) -> Text:
    return fmt.span(interval if n else (None, None))


def _table(gross: GrossForgetting) -> Table:
    header = [say("questions"), Text.of("n"), say("flipped"), say("share"), say("interval")]
    rows: list[list[Cell]] = [
        _row(say("known"), gross.known, gross.forgotten, gross.forgotten_interval),
        _row(say("unknown"), gross.unknown, gross.learned, gross.learned_interval),
    ]
    return Table(header, rows, styles=("", "", "strong"))


def _row(name: Text, n: int, flipped: int, interval: tuple[float, float]) -> list[Cell]:
    share = fmt.percent(flipped / n) + "%" if n else fmt.NONE
    return [name, f"{n:,}", f"{flipped:,}", share, _span(interval, n)]
