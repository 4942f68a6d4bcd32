"""Does the score rest on the image? The gain of the true image over every control."""

from collections.abc import Mapping, Sequence
from typing import Any

from vglm.evaluation.messages import Text, as_plain
from vglm.evaluation.report.formatting import (
    arm,
    control,
    difference,
    ends,
    interval,
    methods,
    number,
    p_value,
    section_texts,
    title,
    value,
)
from vglm.evaluation.report.section import Line, Scored, Table
from vglm.evaluation.score.comparison import VisualGain, judge
from vglm.evaluation.score.metrics import Metric

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each arm and control; None without controls."""
    if not scored.gains:
        return None
    metric = scored.comparison.verdict.metric
    return {
        "gains": _table(scored.gains, metric),
        "methods": methods((gain.result, control(gain.control)) for gain in scored.gains),
    }


def lines(scored: Scored) -> list[Line]:
    """Both arms' gains over the first control, shuffled images where there are any."""
    if scored.evaluation.purpose != "tuning":
        return []
    foremost = [gain for gain in scored.gains if gain.control == scored.gains[0].control]
    return [Line(_sentence(gain, scored.comparison.verdict.metric)) for gain in foremost]


def record(scored: Scored) -> Mapping[str, Any]:
    """The gains in numbers."""
    metric = scored.comparison.verdict.metric
    return {"image_use": [_as_dict(gain, metric) for gain in scored.gains]}


def _as_dict(gain: VisualGain, metric: Metric) -> dict[str, Any]:
    names = {"before": "other_image", "after": "true_image"}
    numbers = {names.get(name, name): each for name, each in gain.result.as_dict().items() if name != "flips"}
    return {
        "arm": gain.arm,
        "control": gain.control,
        "label": gain.label,
        "meaning": as_plain(gain.meaning),
        "changed": gain.changed,
        "metric": metric.name,
        "finding": judge(gain.result, metric).finding,
        **numbers,
    }


def _sentence(gain: VisualGain, metric: Metric) -> Text:
    finding = judge(gain.result, metric).finding
    if gain.changed == 0 and finding != "too few":
        finding = "none"  # no answer changes with the image
    return say(
        f"gain_{finding}",
        arm=arm(gain.arm),
        diff=difference(gain.result.difference, metric),
        interval=interval(gain.result, metric),
        control=control(gain.control),
        n=f"{gain.result.n:,}",
    )


def _table(gains: Sequence[VisualGain], metric: Metric) -> Table:
    header = [say("arm"), say("other_image"), say("with_other", metric=title(metric)), say("true_image")]
    header += [say("visual_gain"), say("interval"), say("p"), Text.of("n"), say("groups")]
    rows = [
        [
            arm(gain.arm),
            control(gain.control),
            value(gain.result.before, metric),
            value(gain.result.after, metric),
            number(gain.result.difference, metric),
            ends(gain.result, metric),
            p_value(gain.result.p_value),
            f"{gain.result.n:,}",
            f"{gain.result.groups:,}",
        ]
        for gain in gains
    ]
    return Table(header, rows, styles=("", "", "", "", "strong"))
