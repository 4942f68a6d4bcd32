"""The primary metric by fields of the samples; where it does not apply to a slice, the one that is named there."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.comparison import Comparison, Summary
from vglm.evaluation.score.metrics import EXACT_MATCH, ROUGE_L
from vglm.text.messages import Text

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any]:
    """A table for each field of each split; in Markdown, right answers by kind."""
    comparison = scored.comparison
    return {
        "slices": [
            (split, field_title(field, part), part.primary_metric, _table(comparison, part, field))
            for split, part in comparison.splits.items()
            for field in part.slices
        ],
        "flips_by": fmt.right_by(comparison, beside_primary=True),
        "right_by": fmt.right_by(comparison),
        "right_title": fmt.right_title(comparison),
        "rouge": ROUGE_L,
        "rows": fmt.kind_rows(comparison),
    }


def lines(scored: Scored) -> list[Line]:
    """The slices that got worse, with the correction over all of them."""
    comparison = scored.comparison
    if scored.evaluation.purpose != "tuning" or not comparison.worse_slices:
        return []
    part = comparison.splits[comparison.main]
    named = [
        say(
            "worse_slice",
            field=field_title(slice.field, part),
            value=value_title(slice.field, slice.value, part),
            diff=fmt.difference(slice.summary.primary.difference, slice.summary.primary_metric),
            interval=fmt.interval(slice.summary.primary, slice.summary.primary_metric),
            p=fmt.p_value(slice.p_value),
            n=slice.summary.primary.n,
        )
        for slice in comparison.worse_slices
    ]
    count = sum(map(len, part.slices.values()))
    return [Line(say("worse_slices", split=fmt.split_title(comparison.main), slices=named, n=count), "worse")]


def is_ours(field: str, part: Summary) -> bool:
    """Whether the workbench makes a field, or knows all of its values, as those of its worlds.

    The names and values of other fields are the data's, in no language of ours.
    """
    if field in ("kind", "language"):
        return True
    if field == "study":
        return any(metric.kind == "findings" for metric in part.metrics)
    values = part.slices[field]
    return len(values) > 1 and all(say.get(f"value.{field}.{value}") is not None for value in values)


def field_title(field: str, part: Summary) -> Text:
    """What a field is called."""
    return say.name("field", field) if is_ours(field, part) else Text.of(field)


def value_title(field: str, name: str, part: Summary) -> Text:
    """What a field's value is called."""
    return say.name(f"value.{field}", name) if is_ours(field, part) else Text.of(name)


def _table(comparison: Comparison, whole: Summary, field: str) -> Table:
    arms = [fmt.arm(comparison.baseline), fmt.arm(comparison.candidate)]
    header: list[Cell] = [say("slice"), Text.of("n"), *arms, say("difference")]
    parts = whole.slices[field]
    reach = fmt.reach_of((part.primary, part.primary_metric) for part in parts.values())
    header += [say("interval"), fmt.axis(reach), say("flip.0"), say("flip.1")]
    rows = [_row(whole, field, name, part, reach) for name, part in parts.items()]
    return Table(header, rows, styles=("", "", "soft", "strong"))


def _row(whole: Summary, field: str, name: str, part: Summary, reach: float) -> list[Cell]:
    result, metric = part.primary, part.primary_metric
    head = value_title(field, name, whole)
    shown: Cell = head
    if metric is not whole.primary_metric:
        shown = Markup("{} <small>{}</small>").format(fmt.both(head), fmt.both(fmt.title(metric)))
    return [
        shown,
        f"{result.n:,}",
        fmt.value(result.before, metric),
        fmt.value(result.after, metric),
        fmt.number(result.difference, metric),
        fmt.ends(result, metric),
        fmt.forest(result, metric, reach),
        *_flips(part),
    ]


def _flips(part: Summary) -> list[str]:
    """How many became right and wrong, where that goes by the metric shown."""
    flips = part.primary.flips
    if flips:
        return [str(len(flips.wrong_to_right)), str(len(flips.right_to_wrong))]
    if part.primary_metric is EXACT_MATCH:
        return [str(len(part.flips(False, True))), str(len(part.flips(True, False)))]
    return [fmt.NONE, fmt.NONE]
