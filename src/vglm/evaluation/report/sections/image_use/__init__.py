"""Does the score rest on the image? The gain of the true image over every control."""

from collections.abc import Mapping, Sequence
from typing import Any

from vglm.evaluation.messages import Text
from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.comparison import judge
from vglm.evaluation.score.image_use import VisualGain
from vglm.evaluation.score.metrics import Metric

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each arm and control; None without controls."""
    if not scored.comparison.gains:
        return None
    metric = scored.comparison.verdict.metric
    return {
        "gains": _table(scored.comparison.gains, metric),
        "methods": fmt.methods((gain.result, fmt.control(gain.control)) for gain in scored.comparison.gains),
    }


def lines(scored: Scored) -> list[Line]:
    """Both arms' gains over the first control, shuffled images where there are any."""
    if scored.evaluation.purpose != "tuning":
        return []
    foremost = [gain for gain in scored.comparison.gains if gain.control == scored.comparison.gains[0].control]
    return [Line(_sentence(gain, scored.comparison.verdict.metric)) for gain in foremost]


def _sentence(gain: VisualGain, metric: Metric) -> Text:
    finding = judge(gain.result, metric).finding
    if gain.changed == 0 and finding != "too few":
        finding = "none"  # no answer changes with the image
    return say(
        f"gain_{finding}",
        arm=fmt.arm(gain.arm),
        diff=fmt.difference(gain.result.difference, metric),
        interval=fmt.interval(gain.result, metric),
        control=fmt.control(gain.control),
        n=f"{gain.result.n:,}",
    )


def _table(gains: Sequence[VisualGain], metric: Metric) -> Table:
    header = [say("arm"), say("other_image"), say("with_other", metric=fmt.title(metric)), say("true_image")]
    header += [say("visual_gain"), say("interval"), say("p"), Text.of("n"), say("groups")]
    rows: list[list[Cell]] = [
        [
            fmt.arm(gain.arm),
            fmt.control(gain.control),
            fmt.value(gain.result.before, metric),
            fmt.value(gain.result.after, metric),
            fmt.number(gain.result.difference, metric),
            fmt.ends(gain.result, metric),
            fmt.p_value(gain.result.p_value),
            f"{gain.result.n:,}",
            f"{gain.result.groups:,}",
        ]
        for gain in gains
    ]
    return Table(header, rows, styles=("", "", "", "", "strong"))
