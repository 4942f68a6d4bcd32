"""How a report writes scores, differences, intervals and names; texts are in both languages."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from markupsafe import Markup, escape

from vglm.evaluation.messages import FILE_TEXTS, Sentence, translate
from vglm.evaluation.score.comparison import Comparison, Summary, has_interval
from vglm.evaluation.score.metrics import EXACT_MATCH, Metric
from vglm.evaluation.score.statistics import PairedComparison
from vglm.text.messages import Text, Texts, join

SHARED = Texts(Path(__file__).with_name("messages.yaml"), FILE_TEXTS)
"""The words that several sections use, and those of messages in files."""
NONE = "–"
FLIPS = ((False, True), (True, False), (False, False), (True, True))
"""(Right before, right after), in the order of the titles `flip.0` to `flip.3`."""


@cache
def section_texts(module_file: str) -> Texts:
    """The words of a section, whose `messages.yaml` may lie beside its module, and behind them the shared ones."""
    path = Path(module_file).with_name("messages.yaml")
    return Texts(path, SHARED) if path.is_file() else SHARED


# --- names ------------------------------------------------------------------------------------------------------------


def title(metric: Metric) -> Text:
    """A metric's name, which in Chinese too may be its own."""
    return Text(*metric.titles.values())


def in_sentence(metric: Metric) -> Text:
    """A metric's name inside a sentence, where only names and abbreviations begin with a capital."""
    name = title(metric)
    return Text(name.en[:1].lower() + name.en[1:] if name.en[1:2].islower() else name.en, name.zh)


def arm(label: str) -> Text:
    """An arm's title."""
    return SHARED.name("arm", label)


def control(name: str) -> Text:
    """What an arm saw in place of the true image."""
    return SHARED.name("control", name)


def split_title(split: str) -> Text:
    """What a list of samples is called."""
    return SHARED.get(f"split.{split}") or Text(split.capitalize(), split)


def named(kind: str, name: Sentence) -> Text:
    """The title of one of our own names (`stamp`, `fact`, `baseline`), or a message's words."""
    return SHARED.name(kind, name) if isinstance(name, str) else translate(name)


# --- numbers ----------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share in percent, without the sign."""
    return f"{100 * share:.1f}"


def share(value: float | None) -> str:
    """As `percent`; a dash for what is not defined."""
    return NONE if value is None else percent(value)


def signed(points: float) -> str:
    """Points with a sign that is as wide as a plus, and none before zero."""
    text = f"{points:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text.replace("-", "−")


def value(score: float, metric: Metric) -> str:
    """A score with its unit: percent, or as its signature says."""
    if math.isnan(score):
        return NONE
    return f"{percent(score)}%" if metric.is_share else f"{score:.3g}"


def number(difference: float, metric: Metric) -> str:
    """A difference without unit."""
    if math.isnan(difference):
        return NONE
    return signed(100 * difference) if metric.is_share else f"{difference:+.3g}".replace("-", "−")


def difference(amount: float, metric: Metric) -> Text:
    """A difference with its unit."""
    unit = SHARED("points") if metric.is_share else Text.of("")
    return Text(*(f"{number(amount, metric)}{words}" for words in unit))


def ends(result: PairedComparison, metric: Metric) -> Text:
    """The two ends of an interval; a dash where it says nothing."""
    if not has_interval(result):
        return Text.of(NONE)
    low, high = (number(end, metric) for end in result.interval)
    return SHARED("range", low=low, high=high)


def interval(result: PairedComparison, metric: Metric) -> Text:
    """As `ends`, with the name before them."""
    return SHARED("named_interval", ends=ends(result, metric))


def span(pair: Sequence[float | None]) -> Text:
    """An interval of a share, in percent."""
    low, high = pair
    if low is None or high is None or not low < high:
        return Text.of(NONE)
    return SHARED("range", low=percent(low), high=percent(high))


def counted(result: PairedComparison, summary: Summary) -> Text:
    """How many samples a metric counts, of how many."""
    if result.n == summary.n:
        return Text.of(f"{result.n:,}")
    return SHARED("counted", n=result.n, all=summary.n)


def grouped(result: PairedComparison) -> Text:
    """In how many independent groups the samples lie; nothing where every one is its own."""
    return Text.of("") if result.groups == result.n else SHARED("grouped", groups=result.groups)


def power(result: PairedComparison, metric: Metric) -> Text:
    """Which difference these samples could show."""
    if math.isnan(result.detectable):
        return SHARED("power_unknown")
    least = Text(*(words.removeprefix("+") for words in difference(result.detectable, metric)))
    return SHARED("power", n=result.n, grouped=grouped(result), least=least)


def p_value(p: float | None) -> str:
    """A p-value of three digits."""
    if p is None or math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def effect(size: float) -> str:
    """An effect size of two digits."""
    return NONE if math.isnan(size) else f"{size:.2f}".replace("-0.00", "0.00").replace("-", "−")


def methods(results: Iterable[tuple[PairedComparison, Text]]) -> list[tuple[Text, Text]]:
    """(what of, how p-value and interval were made), each way once."""
    ways: dict[tuple[str, str], tuple[PairedComparison, list[Text]]] = {}
    for result, name in results:
        _, names = ways.setdefault((str(result.test), str(result.interval_method)), (result, []))
        names += [name] if name not in names else []
    return [
        (join(names), join([translate(first.test), translate(first.interval_method)], ";"))
        for first, names in ways.values()
    ]


# --- what counts as right ---------------------------------------------------------------------------------------------


def points(summary: Summary) -> float:
    """Share of right answers, candidate minus baseline, in points."""
    before, after = summary.right
    return 100 * (after - before)


def right_title(comparison: Comparison) -> Text:
    """What a column of shares of right answers is called: by the metric, where it is the same for all splits."""
    decisive = {part.decisive for part in comparison.splits.values()}
    return in_sentence(decisive.pop()) if len(decisive) == 1 else SHARED("right.share")


def right_by(comparison: Comparison, *, beside_primary: bool = False) -> Text | None:
    """Say which metric calls an answer right; None where it is exact match, or the primary metric, throughout."""
    parts = comparison.splits.values()
    if all(part.decisive is (part.primary_metric if beside_primary else EXACT_MATCH) for part in parts):
        return None
    names = [(in_sentence(part.decisive), split_title(name)) for name, part in comparison.splits.items()]
    if len({metric for metric, _ in names}) == 1:
        return SHARED("right_by", metric=names[0][0])
    return SHARED("right_by", metric=join(SHARED("beside", what=metric, of=split) for metric, split in names))


def kind_rows(comparison: Comparison) -> list[tuple[Text, bool, Summary]]:
    """(title, whether it is a kind, summary) of each split, and under it of its kinds where there is more than one."""
    rows = []
    for split, summary in comparison.splits.items():
        rows.append((split_title(split), False, summary))
        if len(summary.kinds) > 1:
            rows += [(SHARED.name("value.kind", kind), True, part) for kind, part in summary.kinds.items()]
    return rows


# --- markup -----------------------------------------------------------------------------------------------------------


def both(text: Text) -> Markup:
    """A text as markup that shows one language, by the page's switch."""
    if text.en == text.zh:
        return escape(text.en)
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-Hans">{}</span>').format(*text)


def spoken(attribute: str, text: Text) -> Markup:
    """An attribute of a tag, which the page's script puts into the language that is chosen."""
    words = Markup('{}="{}" data-attribute="{}" data-en="{}" data-zh="{}"')
    return words.format(attribute, text.en, attribute, text.en, text.zh)


REACHES = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Where the axis of a column of intervals may end."""


def reach_of(results: Iterable[tuple[PairedComparison, Metric]]) -> float:
    """The end of the axis that all of these intervals of shares fit on."""
    ends = [
        abs(end) for result, metric in results if metric.is_share and has_interval(result) for end in result.interval
    ]
    return next((reach for reach in REACHES if max(ends, default=1.0) <= reach), REACHES[-1])


def _drawing(content: Markup) -> Markup:
    return Markup('<svg class="forest" viewBox="0 0 132 14" height="14" aria-hidden="true">{}</svg>').format(content)


def axis(reach: float) -> Markup:
    """The axis above a column of `forest`: its ends and zero, in points."""
    labels = [(-reach, 14), (0.0, 66), (reach, 118)]
    tick = Markup('<text x="{}" y="11">{}</text>')
    return _drawing(
        Markup("").join(tick.format(x, f"{100 * end:+.0f}".replace("-", "−") if end else "0") for end, x in labels)
    )


def forest(result: PairedComparison, metric: Metric, reach: float = 1.0) -> Markup:
    """An interval around its difference, drawn against zero and both ends of the axis."""
    if not metric.is_share or not has_interval(result):
        return Markup("")
    left, right, dot = (66 + 52 * max(-1.2, min(end / reach, 1.2)) for end in (*result.interval, result.difference))
    rules = Markup("").join(
        Markup('<line x1="{0}" x2="{0}" y1="0" y2="14" class="{1}"/>').format(x, kind)
        for x, kind in ((14, "end"), (66, "zero"), (118, "end"))
    )
    bar = Markup('<line x1="{:.1f}" x2="{:.1f}" y1="7" y2="7"/><circle cx="{:.1f}" cy="7" r="3.5"/>')
    return _drawing(rules + bar.format(left, right, dot))
