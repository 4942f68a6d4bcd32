"""Does the score rest on the image? The gain of the true image over every control."""

from collections.abc import Mapping, Sequence
from typing import Any

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.comparison import Comparison, judge_change, judge_gain
from vglm.evaluation.score.image_use import GainChange, VisualGain
from vglm.evaluation.score.metrics import Metric
from vglm.evaluation.score.statistics import PairedComparison
from vglm.text.messages import Text

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each arm and control; None without controls."""
    if not scored.comparison.gains:
        return None
    metric = scored.comparison.verdict.metric
    return {
        "gains": _table(scored.comparison.gains, metric),
        "changes": _changes(scored.comparison) if scored.comparison.gain_changes else None,
        "methods": fmt.methods((gain.result, fmt.control(gain.control)) for gain in scored.comparison.gains),
    }


def lines(scored: Scored) -> list[Line]:
    """Both arms' gains over the first control, shuffled images where there are any, and what tuning changed of them."""
    if scored.evaluation.purpose != "tuning":
        return []
    foremost = [gain for gain in scored.comparison.gains if gain.control == scored.comparison.gains[0].control]
    metric = scored.comparison.verdict.metric
    changed = (
        [change for change in scored.comparison.gain_changes if change.control == foremost[0].control]
        if foremost
        else []
    )
    return [
        *(Line(_sentence(gain, metric)) for gain in foremost),
        *(
            Line(_change(change, metric), "worse" if judge_change(change, metric) == "worse" else "")
            for change in changed
        ),
    ]


def _sentence(gain: VisualGain, metric: Metric) -> Text:
    finding = judge_gain(gain, metric)
    if gain.changed == 0 and finding != "too few":
        finding = "none"  # no answer changes with the image
    return say(
        f"gain_{finding}",
        arm=fmt.arm(gain.arm),
        diff=fmt.difference(gain.result.difference, metric),
        interval=fmt.interval(gain.result, metric),
        control=fmt.control(gain.control),
        n=f"{gain.result.n:,}",
        metric=fmt.in_sentence(metric),
    )


def _figures(result: PairedComparison, metric: Metric, *, is_at_floor: bool) -> list[Cell]:
    """The difference, its interval and p-value; dashes where an arm scores nothing with any image."""
    if is_at_floor:
        return [say("cannot_be_told"), fmt.NONE, fmt.NONE]
    return [fmt.number(result.difference, metric), fmt.ends(result, metric), fmt.p_value(result.p_value)]


def _change(change: GainChange, metric: Metric) -> Text:
    result = change.result
    return say(
        f"change_{judge_change(change, metric)}",
        before=fmt.difference(result.before, metric),
        after=fmt.difference(result.after, metric),
        diff=fmt.difference(result.difference, metric),
        interval=fmt.interval(result, metric),
        control=fmt.control(change.control),
        n=f"{result.n:,}",
        arms=tuple(map(fmt.arm, change.at_floor)),
        metric=fmt.in_sentence(metric),
    )


def _changes(comparison: Comparison) -> Table:
    """The visual gains of both arms side by side, and their difference."""
    metric = comparison.verdict.metric
    arms = [say("gain_of", arm=fmt.arm(label)) for label in (comparison.baseline, comparison.candidate)]
    header = [say("other_image"), *arms, say("change"), say("interval"), say("p"), Text.of("n")]
    rows: list[list[Cell]] = [
        [
            fmt.control(change.control),
            fmt.number(change.result.before, metric),
            fmt.number(change.result.after, metric),
            *_figures(change.result, metric, is_at_floor=bool(change.at_floor)),
            f"{change.result.n:,}",
        ]
        for change in comparison.gain_changes
    ]
    return Table(header, rows, styles=("", "", "", "strong"))


def _table(gains: Sequence[VisualGain], metric: Metric) -> Table:
    header = [say("arm"), say("other_image"), say("with_other", metric=fmt.title(metric)), say("true_image")]
    header += [say("visual_gain"), say("interval"), say("p"), Text.of("n"), say("groups")]
    rows: list[list[Cell]] = [
        [
            fmt.arm(gain.arm),
            fmt.control(gain.control),
            fmt.value(gain.result.before, metric),
            fmt.value(gain.result.after, metric),
            *_figures(gain.result, metric, is_at_floor=gain.is_at_floor(metric)),
            f"{gain.result.n:,}",
            f"{gain.result.groups:,}",
        ]
        for gain in gains
    ]
    return Table(header, rows, styles=("", "", "", "", "strong"))
