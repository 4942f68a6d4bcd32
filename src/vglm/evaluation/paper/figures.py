r"""Figures for one column of a journal: SVG of 85 mm with texts of 7 points and more.

An SVG goes into LaTeX with `\includesvg` of the package svg, or as a PDF that Inkscape or rsvg-convert make of it.
"""

import math
import textwrap
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.section import Scored
from vglm.evaluation.report.sections.curves import read_curves
from vglm.evaluation.report.sections.curves.drawing import FILE_STYLE, HEIGHT, WIDTH, Plot, plain, plots, ticks
from vglm.evaluation.score.comparison import has_interval
from vglm.evaluation.score.side_by_side import Row, shared_prefix
from vglm.text.messages import Text
from vglm.text.prompt import Language

COLUMN_MM = 85
"""Width of a column."""
_POINTS = COLUMN_MM / 25.4 * 72
_FONT, _LEFT, _RIGHT = 7, 8.0, 8.0
_FONTS = "Arial, Helvetica, 'Noto Sans CJK SC', 'PingFang SC', 'Microsoft YaHei', sans-serif"
_COLOUR = "#1f5f8b"
_LABEL_WIDTH = 40
"""Characters of a label in a line, a Chinese one counting twice."""


class _Bar(NamedTuple):
    """A value with its interval, in percent or points, and what stands above it."""

    label: str
    text: str
    value: float
    low: float
    high: float


def score_figures(scored: Scored, language: Language) -> dict[str, str]:
    """The main split's differences with their intervals, and the curves of the training.

    Args:
        scored: The evaluation.
        language: Of the texts.

    Returns:
        File name -> SVG. Metrics that are no share have no place on the axis, nor do differences without an interval.
    """
    comparison = scored.comparison
    part = comparison.splits[comparison.main]
    metrics = {metric.name: metric for metric in part.metrics}
    bars = [
        _Bar(
            getattr(fmt.title(metrics[name]), language),
            f"{fmt.number(result.difference, metrics[name])} ({getattr(fmt.ends(result, metrics[name]), language)})",
            *(100 * share for share in (result.difference, *result.interval)),
        )
        for name, (result, _) in part.paired.items()
        if metrics[name].is_share and has_interval(result)
    ]
    axis = fmt.section_texts(__file__)("axis.difference", n=part.n)
    figures = {"scores.svg": _forest(bars, getattr(axis, language), 0.0)} if bars else {}
    curves = read_curves(scored.folder)
    drawn = [] if curves is None else plots(curves)
    return figures | {f"curve-{plot.name.removeprefix('plot-')}.svg": _column(plot, language) for plot in drawn}


def method_figures(rows: Sequence[Row], language: Language) -> dict[str, str]:
    """Each method's score after tuning with its interval; none where the metric is no share, or no interval is known.

    Args:
        rows: The methods.
        language: Of the texts.
    """
    metric = rows[0].metric
    if not metric.is_share:
        return {}
    shared = shared_prefix(row.name for row in rows)
    bars = []
    for row in rows:
        if not all(map(math.isfinite, row.interval)):
            continue
        low, high = (100 * end for end in row.interval)
        span = getattr(fmt.span(row.interval), language)
        bars.append(
            _Bar(row.name.removeprefix(shared), f"{fmt.percent(row.after)} ({span})", 100 * row.after, low, high)
        )
    axis = fmt.section_texts(__file__)("axis.methods", metric=fmt.title(metric), n=rows[0].samples)
    return {"comparison.svg": _forest(bars, getattr(axis, language), None)} if bars else {}


def _forest(bars: Sequence[_Bar], axis: str, zero: float | None) -> str:
    """Bars of values with their intervals under each other, each below its label."""
    low = min([bar.low for bar in bars] + ([] if zero is None else [zero]))
    high = max([bar.high for bar in bars] + ([] if zero is None else [zero]))
    low, high = (low, high) if high > low else (low - 1, high + 1)

    def across(value: float) -> float:
        return _LEFT + (_POINTS - _LEFT - _RIGHT) * (value - low) / (high - low)

    parts, y = [], 4.0
    for bar in bars:
        lines = _wrapped(bar.label)
        for line in lines:
            y += _FONT + 2
            parts.append(f'<text x="0" y="{y:.1f}">{escape(line)}</text>')
        parts.append(f'<text x="{_POINTS:.1f}" y="{y:.1f}" text-anchor="end">{escape(bar.text)}</text>')
        y += 6
        ends = f'x1="{across(bar.low):.1f}" x2="{across(bar.high):.1f}"'
        parts.append(f'<line {ends} y1="{y:.1f}" y2="{y:.1f}" stroke="{_COLOUR}" stroke-width="1.2"/>')
        parts.append(f'<circle cx="{across(bar.value):.1f}" cy="{y:.1f}" r="2.2" fill="{_COLOUR}"/>')
        y += 4
    rules = []
    for tick in ticks(low, high):
        x, colour = across(tick), "#555" if tick == zero else "#ddd"
        rules.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{y:.1f}" stroke="{colour}" stroke-width="0.5"/>')
        rules.append(f'<text x="{x:.1f}" y="{y + 10:.1f}" text-anchor="middle">{plain(tick)}</text>')
    named = [f'<text x="{_POINTS / 2:.1f}" y="{y + 21:.1f}" text-anchor="middle">{escape(axis)}</text>']
    halo = ".t text{paint-order:stroke;stroke:#fff;stroke-width:2px}"
    body = f'<style>{halo}</style>{"".join(rules)}<g class="t">{"".join(parts)}</g>{"".join(named)}'
    return _svg(_POINTS, y + 26, body, font_size=_FONT)


def _wrapped(label: str) -> list[str]:
    width = _LABEL_WIDTH if label.isascii() else _LABEL_WIDTH // 2
    return textwrap.wrap(label, width) or [label]


def _column(plot: Plot, language: Language) -> str:
    """One of the report's plots, its texts large enough for a column."""
    margin = 10.0  # left of the axis' title
    size = _FONT * (WIDTH + margin) / _POINTS
    style = FILE_STYLE.replace("font-size:12px", f"font-size:{size:.1f}px")
    title: Text = plot.title
    body = f"<title>{escape(getattr(title, language))}</title><style>{style}</style>{plot.shapes(language)}"
    return _svg(WIDTH + margin, HEIGHT, f'<g transform="translate({margin:.0f} 0)">{body}</g>')


def _svg(width: float, height: float, body: str, font_size: float | None = None) -> str:
    size = "" if font_size is None else f' font-size="{font_size}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMN_MM}mm" height="{COLUMN_MM * height / width:.1f}mm"'
        f' viewBox="0 0 {width:.2f} {height:.2f}" font-family="{_FONTS}"{size}>'
        f'<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )
