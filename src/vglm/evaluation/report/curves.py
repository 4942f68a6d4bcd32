"""The curves of a training: its loss, and what was gained in the domain against what was lost in general ability.

`curves.json`, which need not be there, beside `evaluation.json`:

    {"learning": [{"step": 5, "loss": 1.2, "learning_rate": 0.001}, …],
     "forgetting": [{"step": 0, "domain": 0.0, "probe": 0.827, "domain_n": 64, "probe_n": 160}, {"step": 50, …}, …],
     "metric": "exact_match", "domain_split": "validation", "budget_points": 5.0, "chosen_step": 100,
     "stopped_early": false}

Step 0 is the model before training; scores are from 0 to 1, `budget_points` and `chosen_step` may be null. Every plot
is SVG with a title, a description and its numbers in a table beside it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from vglm.errors import DataError
from vglm.evaluation.report.strings import STRINGS, Text, say, signed, split_title
from vglm.evaluation.score.metrics import ALL_METRICS
from vglm.evaluation.score.statistics import wilson_interval
from vglm.files import inside, read_record

CURVES_FILE = "curves.json"
_BROKEN_LOSS = 1e30
MAX_TABLE_ROWS = 200
"""Of more logged steps, so many are in the table under the plot, evenly; the plot has them all."""
WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 18, 50

Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Checkpoint:
    """A saved step, scored on the domain's data and on the general probe.

    Attributes:
        step: Optimizer steps so far; 0 is the model before training.
        domain: Score on the domain's split, 0.0 to 1.0.
        probe: Score on the general probe, likewise.
        domain_n: Samples behind `domain`.
        probe_n: Questions behind `probe`.
    """

    step: int
    domain: float
    probe: float
    domain_n: int
    probe_n: int


@dataclass(frozen=True)
class Curves:
    """The content of `curves.json`, see the module's description.

    Attributes:
        learning: (step, loss) of each logged step; a loss that is no finite number is NaN.
        forgetting: The checkpoints by step, the model before training first.
        metric: Name of the score.
        domain_split: Where the domain was scored.
        budget_points: How many points of general ability may go; None without a budget.
        chosen_step: The checkpoint that became the result; None where it is the last one.
        stopped_early: Whether the budget ended the training.
    """

    learning: tuple[tuple[int, float], ...]
    forgetting: tuple[Checkpoint, ...]
    metric: str
    domain_split: str
    budget_points: float | None
    chosen_step: int | None
    stopped_early: bool

    @property
    def result(self) -> Checkpoint | None:
        """The checkpoint that became the result: the chosen one, else the last; None without a training step."""
        later = [each for each in self.forgetting if each.step]
        return next((each for each in self.forgetting if each.step == self.chosen_step), later[-1] if later else None)

    def gain(self, point: Checkpoint) -> float:
        """Points won in the domain since step 0."""
        return 100 * (point.domain - self.forgetting[0].domain)

    def loss(self, point: Checkpoint) -> float:
        """Points of general ability lost since step 0; negative where some were won."""
        return 100 * (self.forgetting[0].probe - point.probe)

    def is_forgetful(self, point: Checkpoint) -> bool:
        """Whether more was lost than the budget allows, or, without one, more than chance explains.

        Chance is judged with caution: the intervals of both scores, taken as of unpaired samples, do not overlap.
        """
        if self.budget_points is not None:
            return self.loss(point) > self.budget_points + 1e-9
        first = self.forgetting[0]
        return _interval(point.probe, point.probe_n)[1] < _interval(first.probe, first.probe_n)[0]


def read_curves(folder: Path) -> Curves | None:
    """Read an evaluation folder's `curves.json`.

    Returns:
        The curves; None where there is no such file.

    Raises:
        DataError: The file is damaged.
    """
    path = inside(folder, CURVES_FILE)
    if not path.exists():
        return None
    advice = "Evaluate again, or remove it."
    stored = read_record(path, _Stored, advice=advice)
    points = stored.forgetting or ()
    counts = [*(each.step for each in stored.learning or ()), *(each.step for each in points)]
    counts += [n for each in points for n in (each.domain_n, each.probe_n)]
    budget = stored.budget_points
    if not all(0 <= each < 2**53 for each in counts) or not (budget is None or 0 <= budget <= 100):
        raise DataError(f"{path} is damaged: expected steps and counts from 0, and a budget of 0 to 100. {advice}")
    learning = [(each.step, _number(each.loss)) for each in stored.learning or ()]
    forgetting = [
        Checkpoint(each.step, each.domain, each.probe, each.domain_n, each.probe_n)
        for each in sorted(points, key=lambda each: each.step)
        if each.domain is not None and each.probe is not None and 0 <= each.domain <= 1 and 0 <= each.probe <= 1
    ]
    return Curves(
        learning=tuple(sorted(learning)),
        forgetting=tuple(forgetting) if forgetting and forgetting[0].step == 0 else (),
        metric=stored.metric or "exact_match",
        domain_split=stored.domain_split or "validation",
        budget_points=budget,
        chosen_step=stored.chosen_step,
        stopped_early=stored.stopped_early,
    )


@dataclass(frozen=True, slots=True)
class _StoredStep:
    """A logged step."""

    step: int
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class _StoredCheckpoint:
    """A `Checkpoint`; a score that could not be computed is null, or NaN."""

    step: int
    domain: float | None
    probe: float | None
    domain_n: int
    probe_n: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """What `curves.json` holds, see the module's description."""

    learning: tuple[_StoredStep, ...] | None = None
    forgetting: tuple[_StoredCheckpoint, ...] | None = None
    metric: str | None = None
    domain_split: str | None = None
    budget_points: float | None = None
    chosen_step: int | None = None
    stopped_early: bool = False


def _number(value: float | None) -> float:
    return value if value is not None and abs(value) < _BROKEN_LOSS else math.nan


def _interval(score: float, n: int) -> tuple[float, float]:
    """Wilson's interval; for a mean of scores between 0 and 1 that are no mere right or wrong it is too wide."""
    return wilson_interval(min(max(score, 0.0), 1.0) * n, n)


# --- in words --------------------------------------------------------------------------------------------------------


def describe_curves(curves: Curves) -> list[tuple[Text, str]]:
    """What the curves show, a sentence each with its class: `worse` for what must not be overlooked, else nothing."""
    said = []
    if broken := [step for step, loss in curves.learning if math.isnan(loss)]:
        said.append((say("loss_broken", n=f"{len(broken):,}", total=f"{len(curves.learning):,}"), "worse"))
    point = curves.result
    if point is None or not curves.forgetting:
        return said
    first, loss = curves.forgetting[0], curves.loss(point)
    values = {
        "step": f"{point.step:,}",
        "domain": signed(curves.gain(point)),
        "loss": f"{loss:.1f}",
        "change": signed(-loss),
        "before": f"{100 * first.probe:.1f}%",
        "after": f"{100 * point.probe:.1f}%",
        "n": f"{point.probe_n:,}",
        "split": Text(split_title(curves.domain_split).en.lower(), split_title(curves.domain_split).zh),
        "domain_n": f"{point.domain_n:,}",
        "budget": "" if curves.budget_points is None else f"{curves.budget_points:g}",
    }
    if curves.budget_points is not None:
        key = "curve_over" if curves.is_forgetful(point) else "curve_within"
    else:
        key = "curve_forgot" if curves.is_forgetful(point) else "curve_open"
    said.append((say(key, **values), "worse" if curves.is_forgetful(point) else ""))
    worst = max(curves.forgetting, key=curves.loss)
    if curves.is_forgetful(worst) and not curves.is_forgetful(point):
        after, loss = f"{100 * worst.probe:.1f}%", curves.loss(worst)
        said.append((say("curve_other", step=f"{worst.step:,}", after=after, loss=f"{loss:.1f}"), "worse"))
    if curves.domain_split == "train":
        said.append((STRINGS["curve_memorised"], ""))
    if curves.stopped_early:
        said.append((STRINGS["curve_stopped"], ""))
    return said


# --- plots -----------------------------------------------------------------------------------------------------------


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
    """

    name: str
    title: Text
    about: Text
    shapes: Callable[[Language | None], str]
    header: tuple[Text, ...]
    rows: Sequence[tuple[str, ...]]

    def inline(self) -> Markup:
        """As an element of the page, styled by its style sheet; texts in both languages, shown by the switch."""
        names = f"{self.name}-title", f"{self.name}-about"
        return Markup(
            f'<svg class="plot" role="img" aria-labelledby="{names[0]} {names[1]}" viewBox="0 0 {WIDTH} {HEIGHT}">'
            f"{_spoken('title', names[0], self.title)}{_spoken('desc', names[1], self.about)}{self.shapes(None)}</svg>"
        )


def plots(curves: Curves) -> list[Plot]:
    """The plots for which there are numbers: loss, scores over steps, gain against loss."""
    found = []
    if any(not math.isnan(loss) for _, loss in curves.learning):
        found.append(_learning(curves))
    if len(curves.forgetting) > 1:
        found = [_path(curves), _scores(curves), *found]
    return found


def as_file(curves: Curves, title: str) -> str:
    """All plots under each other, in English, as an SVG file for slides and papers; empty without any."""
    drawn = plots(curves)
    if not drawn:
        return ""
    height = 40 + len(drawn) * (HEIGHT + 34)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="system-ui, sans-serif">',
        f"<title>{escape(title)}</title><desc>{escape(' '.join(each.about.en for each in drawn))}</desc>",
        f"<style>{_FILE_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="14" y="26" class="head">{escape(title)}</text>',
    ]
    for place, plot in enumerate(drawn):
        top = 40 + place * (HEIGHT + 34)
        parts.append(f'<text x="14" y="{top + 18}" class="head">{escape(plot.title.en)}</text>')
        parts.append(f'<g transform="translate(0 {top + 24})">{plot.shapes("en")}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


_FILE_STYLE = (
    "text{font-size:12px;fill:#555;paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ".head{font-size:14px;font-weight:600;fill:#111}.grid{stroke:#ddd}"
    ".zero{stroke:#777}.line{fill:none;stroke:#1f5f8b;stroke-width:2}.dot{fill:#1f5f8b}.whisker{stroke:#1f5f8b}"
    ".lost.line,.lost.whisker{stroke:#a83a24}.lost.dot{fill:#a83a24}.over{fill:#a83a24;opacity:.12}"
    ".budget{stroke:#a83a24;stroke-dasharray:5 4;stroke-width:1.5}.bad{fill:#a83a24;font-weight:600}"
    ".chosen{fill:none;stroke:#111;stroke-width:2}.mark{fill:#111;font-weight:600}.dashed{stroke-dasharray:6 4}"
)


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
        parts = [axes.frame(STRINGS["step"], STRINGS["loss"], language)]
        parts += [f'<polyline class="line" points="{" ".join(run)}"/>' for run in runs if len(run) > 1]
        parts += [f'<circle class="dot" r="2.5" cx="{x}" cy="{y}"/>' for (x, y) in _singles(runs)]
        if curves.chosen_step is not None:
            parts.append(_chosen_line(axes, curves.chosen_step, language))
        return "".join(parts)

    count = len(curves.learning)
    kept = min(count, MAX_TABLE_ROWS)
    shown = [curves.learning[round(place * (count - 1) / max(1, kept - 1))] for place in range(kept)]
    rows = [(f"{step:,}", "–" if math.isnan(loss) else f"{loss:.4g}") for step, loss in shown]
    values = {"n": f"{count:,}", "first": f"{losses[0]:.3g}", "last": f"{losses[-1]:.3g}"}
    return Plot(
        "plot-learning",
        STRINGS["learning_title"],
        say("learning_about", **values),
        shapes,
        (STRINGS["step"], STRINGS["loss"]),
        rows,
    )


def _scores(curves: Curves) -> Plot:
    axes = _Axes((0, curves.forgetting[-1].step), (0, 1), percent=True)
    title = _metric(curves)
    columns: tuple[tuple[str, str, Text], ...] = (
        ("domain", "", split_title(curves.domain_split)),
        ("probe", " lost dashed", STRINGS["probe"]),
    )

    def shapes(language: Language | None) -> str:
        parts = [axes.frame(STRINGS["step"], title, language)]
        ends = []
        for place, (name, kind, label) in enumerate(columns):
            values = [(each.step, getattr(each, name), getattr(each, f"{name}_n")) for each in curves.forgetting]
            for step, score, n in values:
                x, (low, high) = axes.across(step) + 2 * place, (axes.up(end) for end in _interval(score, n))
                css = f"whisker{kind.replace(' dashed', '')}"
                parts.append(f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
                dot = f"dot{kind.replace(' dashed', '')}"
                parts.append(f'<circle class="{dot}" r="3.5" cx="{x:.1f}" cy="{axes.up(score):.1f}"/>')
            points = " ".join(f"{axes.across(step) + 2 * place:.1f},{axes.up(score):.1f}" for step, score, _ in values)
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

    about = say("scores_curve_about", metric=title, split=split_title(curves.domain_split))
    header = (STRINGS["step"], split_title(curves.domain_split), Text("n", "n"), STRINGS["probe"], Text("n", "n"))
    rows = [
        (f"{each.step:,}", *_share(each.domain, each.domain_n), *_share(each.probe, each.probe_n))
        for each in curves.forgetting
    ]
    return Plot("plot-scores", STRINGS["scores_curve_title"], about, shapes, header, rows)


def _path(curves: Curves) -> Plot:
    budget = curves.budget_points
    points = [(curves.loss(each), curves.gain(each), each) for each in curves.forgetting]
    losses, gains = [loss for loss, _, _ in points], [gain for _, gain, _ in points]
    right = max(*losses, 5.0, 1.2 * (budget or 0))
    axes = _Axes((min(*losses, 0.0) - 0.03 * right, 1.08 * right), (min(*gains, 0.0), 1.06 * max(*gains, 5.0)))

    def shapes(language: Language | None) -> str:
        parts = [axes.frame(STRINGS["ability_lost"], STRINGS["domain_gain"], language)]
        if budget is not None:
            x, high = axes.across(budget), HEIGHT - TOP - BOTTOM
            wide = WIDTH - RIGHT - x
            parts.append(f'<rect class="over" x="{x:.1f}" y="{TOP}" width="{wide:.1f}" height="{high}"/>')
            parts.append(f'<line class="budget" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + high}"/>')
            is_left = x > WIDTH / 2
            label = say("budget_label", budget=f"{budget:g}")
            end = "end" if is_left else "start"
            parts.append(_text(x + (-6 if is_left else 6), HEIGHT - BOTTOM - 8, label, language, end, "bad"))
        at = [(axes.across(loss), axes.up(gain), each) for loss, gain, each in points]
        for (x1, y1, _), (x2, y2, each) in pairwise(at):
            kind = " lost" if curves.is_forgetful(each) else ""
            parts.append(f'<line class="line{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
        result = curves.result
        for x, y, each in at:
            kind = " lost" if curves.is_forgetful(each) else ""
            parts.append(f'<circle class="dot{kind}" r="4.5" cx="{x:.1f}" cy="{y:.1f}"/>')
            if curves.chosen_step is not None and each == result:
                parts.append(f'<circle class="chosen" r="8.5" cx="{x:.1f}" cy="{y:.1f}"/>')
        first = [row for row in at if row[2] is result] + [at[0], at[-1]]
        taken: list[tuple[float, float]] = []
        for x, y, each in [*first, *at]:
            if any(abs(x - left) < 46 and abs(y - top) < 15 for left, top in taken):
                continue
            taken.append((x, y))
            is_chosen = each is result and curves.chosen_step is not None
            label = say("step_chosen" if is_chosen else "step_label", step=f"{each.step:,}")
            end, side = ("end", -11) if x > WIDTH - 120 else ("start", 11)
            below = y < TOP + 20
            parts.append(_text(x + side, y + (14 if below else -5), label, language, end, "mark" if is_chosen else ""))
        return "".join(parts)

    key = "path_about_budget" if budget is not None else "path_about"
    about = say(key, metric=_metric(curves), split=split_title(curves.domain_split), budget=f"{budget or 0:g}")
    header = (STRINGS["step"], STRINGS["domain_gain"], STRINGS["ability_lost"], Text("", ""))
    rows = [
        (
            f"{each.step:,}",
            signed(gain),
            signed(loss),
            "●" if each is curves.result and curves.chosen_step is not None else "",
        )
        for loss, gain, each in points
    ]
    return Plot("plot-path", STRINGS["path_title"], about, shapes, header, rows)


def _singles(runs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Points with no neighbour to draw a line to."""
    return [run[0].split(",") for run in runs if len(run) == 1]


def _share(score: float, n: int) -> tuple[str, str]:
    low, high = (100 * end for end in _interval(score, n))
    return f"{100 * score:.1f}% ({low:.1f}–{high:.1f})", f"{n:,}"


def _metric(curves: Curves) -> Text:
    found = ALL_METRICS.get(curves.metric)
    return Text(curves.metric, curves.metric) if found is None else Text(*found.titles.values())


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
        for tick in _ticks(*self._x):
            x, css = self.across(tick), "zero" if tick == 0 else "grid"
            parts.append(f'<line class="{css}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{_plain(tick)}</text>')
        for tick in _ticks(*self._y):
            y, css = self.up(tick), "zero" if tick == 0 else "grid"
            text = f"{100 * tick:.0f}%" if self._percent else _plain(tick)
            parts.append(f'<line class="{css}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        parts.append(_text((left + right) / 2, HEIGHT - 12, across, language, "middle"))
        middle = (top + bottom) / 2
        parts.append(_text(14, middle, up, language, "middle", extra=f' transform="rotate(-90 14 {middle:.0f})"'))
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * each for each in (1, 2, 2.5, 5, 10) if size * each >= rough * 0.999)
    return [
        round(step * place, 10) for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _plain(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−")


def _text(
    x: float, y: float, text: Text, language: Language | None, anchor: str = "start", css: str = "", extra: str = ""
) -> str:
    """A text in one language, or in both for the page's switch."""
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}'
    if language is not None or text.en == text.zh:
        return f'<text {place} class="{css}">{escape(text.zh if language == "zh" else text.en)}</text>'
    return "".join(
        f'<text {place} class="{css} {name}" lang="{tag}">{escape(each)}</text>'
        for name, tag, each in (("en", "en", text.en), ("zh", "zh-Hans", text.zh))
    )


def _spoken(tag: str, name: str, text: Text) -> str:
    """A title or description, which the page's script puts into the language that is chosen."""
    return f'<{tag} id="{name}" data-en="{escape(text.en)}" data-zh="{escape(text.zh)}">{escape(text.en)}</{tag}>'
