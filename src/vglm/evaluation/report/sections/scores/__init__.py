"""Every metric of every split, with its interval and tests."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from vglm.evaluation.messages import translate
from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.comparison import Comparison, Summary, has_interval
from vglm.evaluation.score.metrics import METRICS
from vglm.evaluation.score.settings import read_settings
from vglm.text.messages import Text, join

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any]:
    """A table for each split, and how each score is computed."""
    comparison = scored.comparison
    metrics = {metric.name: metric for metric in comparison.metrics}
    return {
        "tables": {split: _table(comparison, part) for split, part in comparison.splits.items()},
        "methods": {
            split: fmt.methods((result, fmt.title(metrics[name])) for name, (result, _) in part.paired.items())
            for split, part in comparison.splits.items()
        },
        "tests": {
            split: sum(adjusted is not None for _, adjusted in part.paired.values())
            for split, part in comparison.splits.items()
        },
        "metrics": metrics,
        "added": [fmt.title(metrics[name]) for name in added_later(scored) if name in metrics],
    }


def lines(scored: Scored) -> list[Line]:
    """How far the samples, the draws and the training can be generalised from."""
    verdict, spread = scored.comparison.verdict, _draws(scored.comparison)
    notes = [say("power_line", power=fmt.power(verdict.result, verdict.metric))]
    notes += [] if spread is None else [spread]
    notes += [say("one_seed")] if scored.evaluation.purpose == "tuning" else []
    return [Line(note, "note") for note in notes]


def record(scored: Scored) -> Mapping[str, Any]:
    """The metrics that were added after the scores had been seen."""
    return {"metrics_added_later": added_later(scored)}


def files(scored: Scored) -> Mapping[str, str]:
    """The main split's differences as a plot."""
    return {"scores.svg": _plot(scored)}


def added_later(scored: Scored) -> list[str]:
    """Names of the metrics that were requested after the scores had been seen."""
    settings = read_settings(scored.evaluation)
    first = settings.names if settings.asked_first is None else settings.asked_first
    return [name for name in settings.names if name not in {*first, *(metric.name for metric in METRICS)}]


def _table(comparison: Comparison, part: Summary) -> Table:
    metrics = {metric.name: metric for metric in part.metrics}
    reach = fmt.reach_of((result, metrics[name]) for name, (result, _) in part.paired.items())
    rows: list[list[Cell]] = []
    for name, (result, adjusted) in part.paired.items():
        metric = metrics[name]
        rows.append(
            [
                fmt.title(metric),
                fmt.value(result.before, metric),
                fmt.value(result.after, metric),
                fmt.number(result.difference, metric),
                fmt.ends(result, metric),
                fmt.forest(result, metric, reach),
                fmt.p_value(result.p_value),
                fmt.p_value(adjusted),
                fmt.effect(result.effect_size),
                f"{result.n:,}",
                f"{result.groups:,}",
            ]
        )
    for name, reason in part.not_computed.items():
        rows.append([fmt.title(metrics[name]), say("not_computed", reason=translate(reason))])
    arms = [fmt.arm(comparison.baseline), fmt.arm(comparison.candidate)]
    header: list[Cell] = [say("metric"), *arms, say("difference"), say("interval")]
    header += [fmt.axis(reach), say("p"), say("p_holm"), say("effect"), Text.of("n"), say("groups")]
    return Table(header, rows, styles=("", "soft", "strong"), first="split")


def _draws(comparison: Comparison) -> Text | None:
    """The spread between single draws of the answers; None where each question was answered once."""
    draws = comparison.draws
    if draws["n"] < 2:
        return None
    metric = next(metric for metric in comparison.metrics if metric.name == draws["metric"])
    arms = []
    for label in (comparison.baseline, comparison.candidate):
        mean, spread = (math.nan if (end := value[label]) is None else end for value in (draws["mean"], draws["sd"]))
        arms.append(say("draws_arm", arm=fmt.arm(label), mean=fmt.value(mean, metric), sd=fmt.value(spread, metric)))
    return say("draws_about", n=draws["n"], metric=fmt.title(metric), arms=join(arms, ";"))


def _plot(scored: Scored) -> str:
    """The main split's differences with their intervals, from -100 to 100 points, as a file for slides and papers."""
    comparison = scored.comparison
    part = comparison.splits[comparison.main]
    metrics = {metric.name: metric for metric in part.metrics}
    rows = [(metrics[name], result) for name, (result, _) in part.paired.items() if metrics[name].is_share]
    height = 26 * len(rows) + 70
    labels = {"baseline": comparison.baseline, "candidate": comparison.candidate}
    heading = say("plot", title=scored.evaluation.title, n=part.n, **labels).en
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" viewBox="0 0 640 {height}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="640" height="{height}" fill="#fff"/>',
        f'<text x="14" y="24" font-weight="600">{escape(heading)}</text>',
    ]
    for points in (-100, -50, 0, 50, 100):
        x, colour = 360 + 1.6 * points, "#777" if points == 0 else "#ddd"
        lines.append(f'<line x1="{x}" x2="{x}" y1="36" y2="{height - 26}" stroke="{colour}"/>')
        lines.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle" fill="#555">{points}</text>')
    for index, (metric, result) in enumerate(rows):
        y = 52 + 26 * index
        lines.append(f'<text x="14" y="{y + 4}">{escape(metric.title)}</text>')
        lines.append(f'<text x="626" y="{y + 4}" text-anchor="end">{fmt.number(result.difference, metric)}</text>')
        if has_interval(result):
            low, high = (360 + 160 * end for end in result.interval)
            lines.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#1f5f8b" stroke-width="2"/>')
        if not math.isnan(result.difference):
            lines.append(f'<circle cx="{360 + 160 * result.difference:.1f}" cy="{y}" r="4" fill="#1f5f8b"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"
