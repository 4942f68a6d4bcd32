"""The plots of the curves: SVG with a title, a description and its numbers in a table beside it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from markupsafe import Markup

from vglm.evaluation.report.formatting import section_texts, signed, split_title, title
from vglm.evaluation.report.section import Table
from vglm.evaluation.score.curves import Curves, interval
from vglm.evaluation.score.metrics import ALL_METRICS, EXACT_MATCH
from vglm.text.messages import Text
from vglm.text.prompt import Language

say = section_texts(__file__)
MAX_TABLE_ROWS = 200
"""Of more logged steps, this many are in the table under the plot, evenly; the plot has them all."""
WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 18, 50


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        name: For ids in the page.
        title: What is drawn.
        about: How to read it.
        shapes: What is inside the `<svg>` element, by the language of its texts.
        header: Of its table.
        rows: Of its table.
        note: What the table leaves out.
    """

    name: str
    title: Text
    about: Text
    shapes: Callable[[Language | None], str]
    header: tuple[Text, ...]
    rows: Sequence[tuple[str, ...]]
    note: Text | None = None

    @property
    def table(self) -> Table:
        """Its numbers."""
        return Table(self.header, self.rows)

    def inline(self) -> Markup:
        """As an element of the page, styled by its style sheet; texts in both languages, shown by the switch."""
        names = f"{self.name}-title", f"{self.name}-about"
        return Markup(
            f'<svg class="plot" role="img" aria-labelledby="{names[0]} {names[1]}" viewBox="0 0 {WIDTH} {HEIGHT}">'
            f"{_spoken('title', names[0], self.title)}{_spoken('desc', names[1], self.about)}{self.shapes(None)}</svg>"
        )


def plots(curves: Curves) -> list[Plot]:
    """The plots for which there are numbers: loss, scores over steps, gain against loss."""
    drawn = []
    if any(not math.isnan(loss) for _, loss in curves.learning):
        drawn.append(_learning(curves))
    if len(curves.forgetting) > 1:
        drawn = [_path(curves), _scores(curves), *drawn]
    return drawn


def as_file(curves: Curves, title: str) -> str:
    """All plots under each other, in English, as an SVG file for slides and papers; empty without any."""
    drawn = plots(curves)
    if not drawn:
        return ""
    height = 40 + len(drawn) * (HEIGHT + 34)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="system-ui, sans-serif">',
        f"<title>{escape(title)}</title><desc>{escape(' '.join(plot.about.en for plot in drawn))}</desc>",
        f"<style>{FILE_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="14" y="26" class="head">{escape(title)}</text>',
    ]
    for index, plot in enumerate(drawn):
        top = 40 + index * (HEIGHT + 34)
        parts.append(f'<text x="14" y="{top + 18}" class="head">{escape(plot.title.en)}</text>')
        parts.append(f'<g transform="translate(0 {top + 24})">{plot.shapes("en")}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


FILE_STYLE = (
    "text{font-size:12px;fill:#555;paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".head{font-size:14px;font-weight:600;fill:#111}.grid{stroke:#ddd}"
    ".zero{stroke:#777}.line{fill:none;stroke:#1f5f8b;stroke-width:2}.dot{fill:#1f5f8b}.whisker{stroke:#1f5f8b}"
    ".lost.line,.lost.whisker{stroke:#a83a24}.lost.dot{fill:#a83a24}.over{fill:#a83a24;opacity:.12}"
    ".budget{stroke:#a83a24;stroke-dasharray:5 4;stroke-width:1.5}.bad{fill:#a83a24;font-weight:600}"
    ".chosen{fill:none;stroke:#111;stroke-width:2}.mark{fill:#111;font-weight:600}.dashed{stroke-dasharray:6 4}"
)
"""How the plots look in a file."""


def _learning(curves: Curves) -> Plot:
    steps = [step for step, _ in curves.learning]
    losses = [loss for _, loss in curves.learning if not math.isnan(loss)]
    axes = _Axes((0, max(steps)), (0, 1.05 * max(losses)))

    def shapes(language: Language | None) -> str:
        runs: list[list[str]] = [[]]
        for step, loss in curves.learning:
            if math.isnan(loss):
                runs.append([])
            else:
                runs[-1].append(f"{axes.across(step):.1f},{axes.up(loss):.1f}")
        parts = [axes.frame(say("step"), say("loss"), language)]
        parts += [f'<polyline class="line" points="{" ".join(run)}"/>' for run in runs if len(run) > 1]
        parts += [f'<circle class="dot" r="2.5" cx="{x}" cy="{y}"/>' for (x, y) in _singles(runs)]
        if curves.chosen_step is not None:
            parts.append(_chosen_line(axes, curves.chosen_step, language))
        return "".join(parts)

    count = len(curves.learning)
    rows_kept = min(count, MAX_TABLE_ROWS)
    shown = [curves.learning[round(index * (count - 1) / max(1, rows_kept - 1))] for index in range(rows_kept)]
    rows = [(f"{step:,}", "–" if math.isnan(loss) else f"{loss:.4g}") for step, loss in shown]
    values = {"n": f"{count:,}", "first": f"{losses[0]:.3g}", "last": f"{losses[-1]:.3g}"}
    return Plot(
        "plot-learning",
        say("learning_title"),
        say("learning_about", **values),
        shapes,
        (say("step"), say("loss")),
        rows,
        say("thinned", shown=rows_kept, n=count) if rows_kept < count else None,
    )


def _scores(curves: Curves) -> Plot:
    axes = _Axes((0, curves.forgetting[-1].step), (0, 1), percent=True)
    title, other = _metric(curves.metric), _metric(curves.retention_metric)
    columns: tuple[tuple[str, str, Text], ...] = (
        ("domain", "", split_title(curves.domain_split)),
        ("retention", " lost dashed", split_title("retention")),
    )

    def shapes(language: Language | None) -> str:
        parts = [axes.frame(say("step"), title if title == other else say("score"), language)]
        ends = []
        for index, (name, kind, label) in enumerate(columns):
            values = [(point.step, getattr(point, name), getattr(point, f"{name}_n")) for point in curves.forgetting]
            for step, score, n in values:
                x, (low, high) = axes.across(step) + 2 * index, (axes.up(end) for end in interval(score, n))
                css = f"whisker{kind.replace(' dashed', '')}"
                parts.append(f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
                dot = f"dot{kind.replace(' dashed', '')}"
                parts.append(f'<circle class="{dot}" r="3.5" cx="{x:.1f}" cy="{axes.up(score):.1f}"/>')
            points = " ".join(f"{axes.across(step) + 2 * index:.1f},{axes.up(score):.1f}" for step, score, _ in values)
            parts.append(f'<polyline class="line{kind}" points="{points}"/>')
            ends.append((axes.up(values[-1][1]), label, "bad" if kind else "mark"))
        (one, _, _), (two, _, _) = ends
        apart = 0 if abs(one - two) > 15 else (15 - abs(one - two)) / 2
        inside = max(0.0, TOP + apart + 3 - min(one, two))  # labels of full marks stay below the edge
        for y, label, css in ends:
            y += inside + (apart if y >= max(one, two) and (one != two or css == "bad") else -apart)
            parts.append(_text(WIDTH - RIGHT - 6, y - 8, label, language, "end", css))
        if curves.chosen_step is not None:
            parts.append(_chosen_line(axes, curves.chosen_step, language))
        return "".join(parts)

    about = say("scores_curve_about", metric=title, other=other, split=split_title(curves.domain_split))
    domain_title = split_title(curves.domain_split)
    header: tuple[Text, ...] = (say("step"), domain_title, Text.of("n"), split_title("retention"), Text.of("n"))
    rows: list[tuple[str, ...]] = [
        (f"{point.step:,}", *_share(point.domain, point.domain_n), *_share(point.retention, point.retention_n))
        for point in curves.forgetting
    ]
    if curves.metric != EXACT_MATCH.name and any(point.domain_exact_match is not None for point in curves.forgetting):
        header = (*header, say("domain_by", split=domain_title, metric=_metric(EXACT_MATCH.name)))
        exact = [point.domain_exact_match for point in curves.forgetting]
        rows = [
            (*row, "–" if score is None else _share(score, point.domain_n)[0])
            for row, score, point in zip(rows, exact, curves.forgetting, strict=True)
        ]
    return Plot("plot-scores", say("scores_curve_title"), about, shapes, header, rows)


def _path(curves: Curves) -> Plot:
    budget = curves.budget_points
    points = [(curves.loss(point), curves.gain(point), point) for point in curves.forgetting]
    losses, gains = [loss for loss, _, _ in points], [gain for _, gain, _ in points]
    right = max(*losses, 5.0, 1.2 * (budget or 0))
    axes = _Axes((min(*losses, 0.0) - 0.03 * right, 1.08 * right), (min(*gains, 0.0), 1.06 * max(*gains, 5.0)))

    def shapes(language: Language | None) -> str:
        parts = [axes.frame(say("ability_lost"), say("domain_gain"), language)]
        if budget is not None:
            x, high = axes.across(budget), HEIGHT - TOP - BOTTOM
            wide = WIDTH - RIGHT - x
            parts.append(f'<rect class="over" x="{x:.1f}" y="{TOP}" width="{wide:.1f}" height="{high}"/>')
            parts.append(f'<line class="budget" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + high}"/>')
            is_left = x > WIDTH / 2
            label = say("budget_label", budget=f"{budget:g}")
            end = "end" if is_left else "start"
            parts.append(_text(x + (-6 if is_left else 6), HEIGHT - BOTTOM - 8, label, language, end, "bad"))
        at = [(axes.across(loss), axes.up(gain), point) for loss, gain, point in points]
        for (x1, y1, _), (x2, y2, point) in pairwise(at):
            kind = " lost" if curves.is_forgetful(point) else ""
            parts.append(f'<line class="line{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
        result = curves.result
        for x, y, point in at:
            kind = " lost" if curves.is_forgetful(point) else ""
            parts.append(f'<circle class="dot{kind}" r="4.5" cx="{x:.1f}" cy="{y:.1f}"/>')
            if curves.chosen_step is not None and point == result:
                parts.append(f'<circle class="chosen" r="8.5" cx="{x:.1f}" cy="{y:.1f}"/>')
        first = [row for row in at if row[2] is result] + [at[0], at[-1]]
        taken: list[tuple[float, float]] = []
        for x, y, point in [*first, *at]:
            if any(abs(x - left) < 46 and abs(y - top) < 15 for left, top in taken):
                continue
            taken.append((x, y))
            is_chosen = point is result and curves.chosen_step is not None
            step = f"{point.step:,}"
            label = say("step_chosen", step=step) if is_chosen else Text.of(step)
            end, side = ("end", -11) if x > WIDTH - 120 else ("start", 11)
            below = y < TOP + 20
            parts.append(_text(x + side, y + (14 if below else -5), label, language, end, "mark" if is_chosen else ""))
        return "".join(parts)

    key = "path_about_budget" if budget is not None else "path_about"
    metrics = {"metric": _metric(curves.metric), "other": _metric(curves.retention_metric)}
    about = say(key, **metrics, split=split_title(curves.domain_split), budget=f"{budget or 0:g}")
    header = (say("step"), say("domain_gain"), say("ability_lost"), Text.of(""))
    rows = [
        (
            f"{point.step:,}",
            signed(gain),
            signed(loss),
            "●" if point is curves.result and curves.chosen_step is not None else "",
        )
        for loss, gain, point in points
    ]
    return Plot("plot-path", say("path_title"), about, shapes, header, rows)


def _singles(runs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Points with no neighbour to draw a line to."""
    return [run[0].split(",") for run in runs if len(run) == 1]


def _share(score: float, n: int) -> tuple[str, str]:
    low, high = (100 * end for end in interval(score, n))
    return f"{100 * score:.1f}% ({low:.1f}–{high:.1f})", f"{n:,}"


def _metric(name: str) -> Text:
    metric = ALL_METRICS.get(name)
    return Text.of(name) if metric is None else title(metric)


def _chosen_line(axes: "_Axes", step: int, language: Language | None) -> str:
    x = axes.across(step)
    end, side = ("end", -6) if x > WIDTH / 2 else ("start", 6)
    return (
        f'<line class="zero" stroke-dasharray="2 3" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        + _text(x + side, TOP + 12, say("step_chosen", step=f"{step:,}"), language, end, "mark")
    )


class _Axes:
    """Places numbers on the plot.

    Args:
        x: Least and largest number across.
        y: Likewise upwards.
        percent: Whether `y` is shown in percent.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], *, percent: bool = False) -> None:
        self._x, self._y = ((low, high if high > low else low + 1) for low, high in (x, y))
        self._percent = percent

    def across(self, value: float) -> float:
        low, high = self._x
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)

    def up(self, value: float) -> float:
        low, high = self._y
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def frame(self, across: Text, up: Text, language: Language | None) -> str:
        """Grid, numbers and names of the axes."""
        parts = []
        left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
        for tick in ticks(*self._x):
            x, css = self.across(tick), "zero" if tick == 0 else "grid"
            parts.append(f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{plain(tick)}</text>')
        for tick in ticks(*self._y):
            y, css = self.up(tick), "zero" if tick == 0 else "grid"
            text = f"{100 * tick:.0f}%" if self._percent else plain(tick)
            parts.append(f'<line class="{css}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        parts.append(_text((left + right) / 2, HEIGHT - 12, across, language, "middle"))
        middle = (top + bottom) / 2
        parts.append(_text(10, middle, up, language, "middle", extra=f' transform="rotate(-90 10 {middle:.0f})"'))
        return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.999)
    return [
        round(step * index, 10) for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def plain(value: float) -> str:
    """A number of an axis."""
    return f"{value:,.10g}".replace("-", "−")


def _text(
    x: float, y: float, text: Text, language: Language | None, anchor: str = "start", css: str = "", extra: str = ""
) -> str:
    """A text in one language, or in both for the page's switch."""
    attributes = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}'
    if language is not None or text.en == text.zh:
        return f'<text {attributes} class="{css}">{escape(text.zh if language == "zh" else text.en)}</text>'
    return "".join(
        f'<text {attributes} class="{css} {name}" lang="{tag}">{escape(words)}</text>'
        for name, tag, words in (("en", "en", text.en), ("zh", "zh-Hans", text.zh))
    )


def _spoken(tag: str, name: str, text: Text) -> str:
    """A title or description, which the page's script puts into the language that is chosen."""
    return f'<{tag} id="{name}" data-en="{escape(text.en)}" data-zh="{escape(text.zh)}">{escape(text.en)}</{tag}>'
