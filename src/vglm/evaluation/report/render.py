"""Turn an evaluation folder into `report/index.html`, `report.md`, `report.json` and a table for the terminal.

    python -c "from vglm.evaluation.report import render; print(render('outputs/…/evaluation'))"

No torch is needed. The page holds its images and answers and needs no network: a policy in its head lets it load
nothing and run only its own script, which builds the answers' cards as they are asked for.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text as Printed

from vglm.evaluation.predict.provenance import code_state
from vglm.evaluation.predictions import (
    IMAGES_FOLDER,
    Evaluation,
    read_evaluation,
)
from vglm.evaluation.report.curves import Curves, describe_curves, plots, read_curves
from vglm.evaluation.report.curves import as_file as curves_as_file
from vglm.evaluation.report.strings import (
    ARM_TITLES,
    LANGUAGES,
    STRINGS,
    Text,
    both,
    finding_title,
    say,
    signed,
    split_title,
)
from vglm.evaluation.report.translation import translate
from vglm.evaluation.score.baselines import Baseline
from vglm.evaluation.score.comparison import (
    PROBE,
    Comparison,
    Pair,
    Summary,
    has_interval,
    judge,
    slice_values,
)
from vglm.evaluation.score.image_use import VisualGain
from vglm.evaluation.score.metrics import EXACT_MATCH, METRICS, ROUGE_L, Metric, measure
from vglm.evaluation.score.scoring import refresh
from vglm.evaluation.score.settings import read_settings
from vglm.evaluation.score.statistics import PairedComparison
from vglm.files import inside, replaced_folder, write_text

CURVES_PLOT = "curves.svg"
MAX_IMAGE_BYTES = 20_000_000
"""So much of the images is in the page, those of changed answers first, so that it opens in seconds."""
MAX_EXAMPLES = 5
FLIP_TITLES = {
    (False, True): "wrong → right",
    (True, False): "right → wrong",
    (False, False): "wrong in both",
    (True, True): "right in both",
}


def render(folder: Path | str) -> Path:
    """Make the report of an evaluation folder from the files in it; a report that is there is replaced.

    Args:
        folder: What `evaluate.py` wrote: `evaluation.json`, both arms' `predictions.jsonl`, `images/`.

    Returns:
        The page's path, `<folder>/report/index.html`; `metrics.json`, `report/report.md`, `report/report.json` and the
        plots `report/scores.svg` and, where there is a `curves.json`, `report/curves.svg` are written too.

    Raises:
        ConfigError: The evaluation's config names an unknown metric or convention.
        DataError: A file of the folder is missing or damaged, the report cannot be written, or another process is
            writing it.
    """
    folder = Path(folder)
    refresh(folder, write_report)
    return folder / "report" / "index.html"


def write_report(folder: Path, comparison: Comparison) -> None:
    """Show what was scored, in an evaluation folder that is being made and that nobody reads yet.

    Args:
        folder: The evaluation folder.
        comparison: See `vglm.evaluation.score.scoring.score_folder`.

    Raises:
        ConfigError: The evaluation's config names an unknown metric.
        DataError: A file of the folder is missing or damaged, or the report cannot be written.
    """
    evaluation = read_evaluation(folder)
    settings = read_settings(evaluation)
    asked = {*(settings.names if settings.asked_first is None else settings.asked_first)}
    content = _Content(
        evaluation,
        comparison,
        comparison.gains,
        comparison.baselines,
        dict(comparison.conventions),
        read_curves(folder),
        tuple(name for name in settings.names if name not in asked | {metric.name for metric in METRICS}),
    )
    with replaced_folder(folder / "report", marker="index.html") as report:
        write_text(report / "index.html", _html(content, folder / IMAGES_FOLDER))
        write_text(report / "report.md", _markdown(content))
        write_text(report / "report.json", _json(content))
        write_text(report / "scores.svg", _plot(content))
        if content.curves is not None and (drawn := curves_as_file(content.curves, evaluation.title)):
            write_text(report / CURVES_PLOT, drawn)


@dataclass(frozen=True)
class _Content:
    """All that a report shows."""

    evaluation: Evaluation
    comparison: Comparison
    gains: Sequence[VisualGain] = ()
    baselines: Sequence[Baseline] = ()
    conventions: dict[str, Any] | None = None
    curves: Curves | None = None
    added_metrics: tuple[str, ...] = ()


def print_summary(
    folder: Path | str, comparison: Comparison, console: Console | None = None, *, tracked: str | None = None
) -> None:
    """Print an evaluation's scores, what they say in words, its stamps and where the report lies.

    Args:
        folder: An evaluation folder.
        comparison: See `vglm.evaluation.score.scoring.score_folder`.
        console: Where to print; 80 columns of standard output if not given.
        tracked: Where the evaluation was uploaded, see `vglm.evaluation.tracking`.

    Raises:
        DataError: A file of the folder is missing or damaged.
    """
    folder = Path(folder)
    console = console or Console(width=80, highlight=False)
    evaluation = read_evaluation(folder)
    title = Printed(f"{evaluation.title}: {comparison.baseline} → {comparison.candidate}", "table.title")
    table = Table(title=title, title_justify="left")
    table.add_column("samples", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column(Printed(_right_title(comparison).en), justify="right", overflow="fold")
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("ROUGE-L (char.)", justify="right", no_wrap=True)
    for split, kind, summary in _rows(comparison):
        right, rouge = ([_percent(value) for value in each] for each in (summary.right, summary.scores[ROUGE_L.name]))
        name = Printed(f"  {kind}") if kind else Printed(split_title(split).en, "bold")
        table.add_row(name, str(summary.n), " → ".join(right), signed(_points(summary)), " → ".join(rouge))
    console.print(table)
    if (how := _right_by(comparison)) is not None:
        console.print(how.en, markup=False)
    for stamp in evaluation.stamps:
        console.print(f"{stamp.text}: {stamp.detail}", style="bold yellow", markup=False)
    gains = comparison.gains
    console.print(verdict(evaluation, comparison, gains, comparison.baselines).en, style="bold", markup=False)
    curves = read_curves(folder)
    said = [] if curves is None else [text for text, _ in describe_curves(curves)]
    for sentence in [*findings(evaluation, comparison), *never_named(comparison), *said]:
        console.print(sentence.en, markup=False)
    if evaluation.purpose == "tuning":
        for gain in _foremost(gains):
            console.print(_gain_sentence(gain, comparison.verdict.metric).en, markup=False)
    if tracked is not None:
        console.print(f"Tracked: {tracked}", soft_wrap=True, markup=False)
    console.print(f"Report: {folder / 'report' / 'index.html'}", soft_wrap=True, markup=False)


def verdict(
    evaluation: Evaluation,
    comparison: Comparison,
    gains: Sequence[VisualGain] = (),
    baselines: Sequence[Baseline] = (),
) -> Text:
    """What the primary metric shows, claiming no more than its interval and power allow, and what takes from it.

    Args:
        evaluation: What was evaluated.
        comparison: Of its arms.
        gains: A gain in score without one over shuffled images is not of seeing, which is said.
        baselines: A simple rule that scores as well as the candidate is named.
    """
    found = comparison.verdict
    result, metric = found.result, found.metric
    key = f"verdict_{found.finding}"
    if evaluation.purpose == "image use":
        key = f"image_{_use(found.finding, comparison.splits[comparison.main].changed)}"
    sentence = say(
        key,
        metric=_title(metric),
        control=_control(comparison.baseline),
        before=_value(result.before, metric),
        after=_value(result.after, metric),
        diff=_difference(result.difference, metric),
        interval=_interval(result, metric),
        n=_counted(result, comparison.splits[comparison.main]),
        grouped=_grouped(result),
        power=_power(result, metric),
    )
    parts = [sentence]
    if evaluation.purpose == "tuning" and found.finding == "better":
        shuffled = [each for each in gains if each.arm == comparison.candidate and each.control == "shuffled"]
        if shuffled and judge(shuffled[0].result, metric).finding != "better":
            parts.append(STRINGS["not_seeing"])
    if evaluation.purpose == "tuning" and PROBE in comparison.splits and comparison.main != PROBE:
        probe = comparison.splits[PROBE]
        if judge(probe.primary, probe.primary_metric).finding == "worse":
            parts.append(say("but_forgot", diff=_difference(probe.primary.difference, probe.primary_metric)))
    rules = [each for each in baselines if metric.name in each.scores]
    sign = -1 if metric.higher_is_better is False else 1
    if rules:
        best = max(rules, key=lambda rule: sign * rule.scores[metric.name])
        if sign * best.scores[metric.name] >= sign * result.after:
            is_better = sign * best.scores[metric.name] > sign * result.after
            parts.append(
                say(
                    "rule_better" if is_better else "rule_as_good",
                    name=translate(best.name),
                    score=_value(best.scores[metric.name], metric),
                )
            )
    if (asked := comparison.splits[comparison.main].metrics[0]) is not metric:
        parts.append(say("not_asked", asked=_title(asked), metric=_title(metric)))
    if evaluation.stamps:
        stamps = [translate(stamp.text) for stamp in evaluation.stamps]
        names = Text(", ".join(each.en for each in stamps), "、".join(each.zh for each in stamps))
        parts.append(say("stamped", stamps=names))
    return Text("".join(part.en for part in parts), "".join(part.zh for part in parts))


def _foremost(gains: Sequence[VisualGain]) -> list[VisualGain]:
    """Both arms' gains over the first control, shuffled images where there are any; a table shows the others."""
    return [gain for gain in gains if gain.control == gains[0].control]


def _use(finding: str, changed: int) -> str:
    """What a gain over other images shows: `none` where no answer changes with the image, or as `judge` says."""
    return "none" if changed == 0 and finding != "too few" else finding


def _gain_sentence(gain: VisualGain, metric: Metric) -> Text:
    found = _use(judge(gain.result, metric).finding, gain.changed)
    difference = _difference(gain.result.difference, metric)
    interval, control = _interval(gain.result, metric), _control(gain.control)
    n = f"{gain.result.n:,}"
    return say(f"gain_{found}", arm=_arm(gain.arm), diff=difference, interval=interval, control=control, n=n)


def _arm(label: str) -> Text:
    return ARM_TITLES.get(label, Text(label, label))


def _control(name: str) -> Text:
    return STRINGS.get(name, Text(name, name))


def _effect(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _spoken(attribute: str, text: Text) -> Markup:
    """An attribute of a tag, which the page's script puts into the language that is chosen."""
    return Markup('{}="{}" data-attribute="{}" data-en="{}" data-zh="{}"').format(
        attribute, text.en, attribute, text.en, text.zh
    )


def _title(metric: Metric) -> Text:
    return Text(*metric.titles.values())


def _value(value: float, metric: Metric) -> str:
    """A score with its unit: percent, or as its signature says."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}%" if metric.is_share else f"{value:.3g}"


def _number(value: float, metric: Metric) -> str:
    """A difference without unit."""
    if math.isnan(value):
        return "–"
    return signed(100 * value) if metric.is_share else f"{value:+.3g}".replace("-", "−")


def _difference(value: float, metric: Metric) -> Text:
    unit = STRINGS["points"] if metric.is_share else Text("", "")
    return Text(*(f"{_number(value, metric)}{each}" for each in unit))


def _ends(result: PairedComparison, metric: Metric) -> Text:
    if not has_interval(result):
        return Text("–", "–")
    low, high = (_number(end, metric) for end in result.interval)
    return say("range", low=low, high=high)


def _interval(result: PairedComparison, metric: Metric) -> Text:
    return Text(*(f"{name} {ends}" for name, ends in zip(STRINGS["interval"], _ends(result, metric), strict=True)))


def _counted(result: PairedComparison, summary: Summary) -> Text:
    """How many samples a metric counts, of how many."""
    if result.n == summary.n:
        return Text(f"{result.n:,}", f"{result.n:,}")
    return say("counted", n=f"{result.n:,}", all=f"{summary.n:,}")


def _grouped(result: PairedComparison) -> Text:
    return Text("", "") if result.groups == result.n else say("grouped", groups=f"{result.groups:,}")


def _power(result: PairedComparison, metric: Metric) -> Text:
    if math.isnan(result.detectable):
        return STRINGS["power_unknown"]
    least = _difference(result.detectable, metric)
    least = Text(*(each.removeprefix("+") for each in least))
    return say("power", n=f"{result.n:,}", grouped=_grouped(result), least=least)


def _p(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def findings(evaluation: Evaluation, comparison: Comparison) -> list[Text]:
    """Say in a sentence per split what the answers say, no more."""
    return [
        sentence
        for name in comparison.splits
        for sentence in (_finding(evaluation, comparison, name), _cut(evaluation, comparison, name))
        if sentence is not None
    ]


def _cut(evaluation: Evaluation, comparison: Comparison, split: str) -> Text | None:
    """How many answers of each arm were cut; None where none was."""
    summary = comparison.splits[split]
    if not any(summary.cut):
        return None
    before, after = (f"{count:,}" for count in summary.cut)
    arms = [_arm(label) for label in (comparison.baseline, comparison.candidate)]
    return say(
        "cut",
        split=split_title(split),
        n=f"{len(summary.pairs):,}",
        limit=str(evaluation.decoding.get("max_new_tokens", "max_new_tokens")),
        before=before,
        after=after,
        baseline=arms[0],
        candidate=arms[1],
    )


def _finding(evaluation: Evaluation, comparison: Comparison, split: str) -> Text:
    summary = comparison.splits[split]
    baseline, candidate = (_percent(value) for value in summary.right)
    metric, points = _in_sentence(summary.decisive), signed(_points(summary))
    samples = f"{summary.n} {'general questions' if split == PROBE else f'{split} samples'}"
    where = f"{split_title(split).zh}（{summary.n} 条）"
    if evaluation.purpose == "image use":
        arms = [_arm(label).zh for label in (comparison.baseline, comparison.candidate)]
        return Text(
            f"Of {samples}, {baseline}% are answered right with {comparison.baseline} images and {candidate}% with "
            f"{comparison.candidate} ones, a difference of {points} points.",
            f"{where}中，{arms[0]}下答对 {baseline}%，{arms[1]}下答对 {candidate}%：相差 {points} 个百分点。",
        )
    gained, lost = len(summary.flips(False, True)), len(summary.flips(True, False))
    drawn, drawn_zh = "", ""
    if len(summary.pairs) > summary.n:
        drawn, drawn_zh = f" of {len(summary.pairs)} drawn ones", f"（共抽取 {len(summary.pairs)} 条回答）"
    sentence = (
        f"On {samples}, {metric.en} went from {baseline}% {comparison.baseline} to {candidate}% "
        f"{comparison.candidate}: {gained} {_answers(gained)} became right, {lost} became wrong{drawn}"
    )
    chinese = f"{where}：{metric.zh}由 {baseline}% 变为 {candidate}%；{gained} 条变对，{lost} 条变错{drawn_zh}"
    if split != PROBE:
        return Text(f"{sentence}.", f"{chinese}。")
    forgotten = _forgotten(summary)
    return Text(f"{sentence}; {forgotten.en}.", f"{chinese}；{forgotten.zh}。")


def never_named(comparison: Comparison) -> list[Text]:
    """Say of each split which findings of its references the candidate's reports never name, by the rules."""
    said = []
    for split, arms in _finding_tables(comparison).items():
        missed = [
            (finding_title(name), facts["n"])
            for name, facts in arms[comparison.candidate].items()
            if facts["n"] and not facts["named"]
        ]
        if missed:
            names = Text(
                ", ".join(f"{title.en} (n = {n:,})" for title, n in missed),
                "、".join(f"{title.zh}（n = {n:,}）" for title, n in missed),
            )
            said.append(say("never_named", arm=_arm(comparison.candidate), split=split_title(split), names=names))
    return said


def _finding_tables(comparison: Comparison) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Split -> arm -> finding -> its counts and scores, as in `metrics.json`; only where findings were asked for."""
    splits = comparison.as_dict()["splits"]
    return {name: part["findings"] for name, part in splits.items() if part["findings"]}


def _absent(arms: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Text | None:
    """The findings that neither references nor answers of a split have; None where there are all."""
    names = [
        name
        for name in next(iter(arms.values()))
        if not any(arm[name]["n"] + arm[name]["named"] for arm in arms.values())
    ]
    titles = [finding_title(name) for name in names]
    return Text(", ".join(each.en for each in titles), "、".join(each.zh for each in titles)) if titles else None


def _span(ends: Sequence[float | None]) -> Text:
    """An interval of a share, in percent."""
    low, high = ends
    return (
        Text("–", "–")
        if low is None or high is None or not low < high
        else say("range", low=_percent(low), high=_percent(high))
    )


def _points(summary: Summary) -> float:
    """Share of right answers, candidate minus baseline, in points."""
    before, after = summary.right
    return 100 * (after - before)


def _in_sentence(metric: Metric) -> Text:
    """A metric's name inside a sentence, where only names and abbreviations begin with a capital."""
    title = _title(metric)
    is_word = title.en[1:2].islower()
    return Text(title.en[:1].lower() + title.en[1:] if is_word else title.en, title.zh)


def _right_title(comparison: Comparison) -> Text:
    """What a column of shares of right answers is called: by the metric, where it is the same for all splits."""
    decisive = {part.decisive for part in comparison.splits.values()}
    return _in_sentence(decisive.pop()) if len(decisive) == 1 else STRINGS["right_share"]


def _right_by(comparison: Comparison, *, beside_primary: bool = False) -> Text | None:
    """Say which metric calls an answer right; None where it is exact match, or the primary metric, throughout."""
    parts = comparison.splits.values()
    if all(part.decisive is (part.primary_metric if beside_primary else EXACT_MATCH) for part in parts):
        return None
    names = [(split_title(name), _in_sentence(part.decisive)) for name, part in comparison.splits.items()]
    if len({metric for _, metric in names}) == 1:
        return say("right_by", metric=names[0][1])
    metrics = Text(
        ", ".join(f"{metric.en} ({split.en})" for split, metric in names),
        "、".join(f"{metric.zh}（{split.zh}）" for split, metric in names),
    )
    return say("right_by", metric=metrics)


def _answers(count: int) -> str:
    return "answer" if count == 1 else "answers"


def _forgotten(probe: Summary) -> Text:
    """What the probe's loss is called; only a loss that is told from chance is forgetting."""
    if probe.scores[EXACT_MATCH.name][0] == 0:
        return STRINGS["nothing_to_forget"]
    found = judge(probe.primary, probe.primary_metric)
    change = signed(100 * found.result.difference)
    interval = _interval(found.result, found.metric)
    return say(f"forgot_{found.finding}", change=change, loss=change.lstrip("−+"), interval=interval)


def _rows(comparison: Comparison) -> list[tuple[str, str | None, Summary]]:
    """The rows of the tables: each split, and under it its kinds where there is more than one."""
    rows: list[tuple[str, str | None, Summary]] = []
    for split, summary in comparison.splits.items():
        rows.append((split, None, summary))
        if len(summary.kinds) > 1:
            rows += [(split, kind, part) for kind, part in summary.kinds.items()]
    return rows


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _ordered(pairs: Sequence[Pair], *, losses_first: bool) -> list[list[Pair]]:
    """Samples, each with its draws: changed answers first, among them the flips; then what stayed wrong, then right."""
    rank = {(False, True): 1, (True, False): 0 if losses_first else 2, (False, False): 3, (True, True): 4}
    samples: dict[str, list[Pair]] = {}
    for pair in pairs:
        samples.setdefault(pair.candidate.id, []).append(pair)
    draws = [sorted(each, key=lambda pair: pair.candidate.draw) for each in samples.values()]
    return sorted(draws, key=lambda each: min((not pair.is_changed, rank[pair.right]) for pair in each))


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("vglm.evaluation.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": _percent,
        "signed": signed,
        "cell": _markdown_cell,
        "both": both,
        "p": _p,
        "effect": _effect,
    }
    environment.globals |= {
        "arm": _arm,
        "tr": translate,
        "spoken": lambda attribute, key: _spoken(attribute, STRINGS[key]),
        "hover": lambda text: _spoken("title", text),
        "t": lambda key, **values: both(say(key, **values)),
        "value": _value,
        "number": _number,
        "ends": _ends,
        "title": _title,
        "split_title": split_title,
        "control": _control,
        "field": lambda name: STRINGS.get(name, Text(name, name)),
    }
    return environment


def _context(content: _Content) -> dict[str, Any]:
    """What both templates show."""
    evaluation, comparison = content.evaluation, content.comparison
    primary = comparison.verdict
    probe = comparison.splits.get(PROBE) if comparison.main != PROBE else None
    return {
        "evaluation": evaluation,
        "comparison": comparison,
        "verdict": verdict(evaluation, comparison, content.gains, content.baselines),
        "found": primary.finding,
        "findings": findings(evaluation, comparison),
        "never_named": never_named(comparison),
        "finding_tables": _finding_tables(comparison),
        "confusion": comparison.confusion,
        "right_by": _right_by(comparison),
        "flips_by": _right_by(comparison, beside_primary=True),
        "right_title": _right_title(comparison),
        "points": _points,
        "share": lambda value: "–" if value is None else f"{100 * value:.1f}",
        "span": _span,
        "absent_findings": {name: _absent(arms) for name, arms in _finding_tables(comparison).items()},
        "finding_title": finding_title,
        "gain_sentences": [_gain_sentence(gain, primary.metric) for gain in _foremost(content.gains)],
        "gains": content.gains,
        "baselines": _bars(content),
        "conventions": content.conventions or {},
        "curves": content.curves,
        "curve_sentences": [] if content.curves is None else describe_curves(content.curves),
        "plots": [] if content.curves is None else plots(content.curves),
        "added_metrics": [_title(metric) for metric in comparison.metrics if metric.name in content.added_metrics],
        "judge": judge,
        "scored_by": code_state(),
        "draws": _draws(comparison),
        "languages": LANGUAGES,
        "strings": STRINGS,
        "methods": {name: _methods(part.paired, part.metrics) for name, part in comparison.splits.items()},
        "tests": {
            name: sum(adjusted is not None for _, adjusted in part.paired.values())
            for name, part in comparison.splits.items()
        },
        "gain_methods": _grouped_methods([(gain.result, _control(gain.control)) for gain in content.gains]),
        "primary": primary,
        "power": _power(primary.result, primary.metric),
        "probe": probe,
        "forgotten": _forgotten(probe) if probe is not None else None,
        "splits": {name: split_title(name) for name in comparison.splits},
        "metrics": {metric.name: metric for metric in comparison.metrics},
        "rouge_l": ROUGE_L,
        "rows": [(split_title(split).en, kind, summary) for split, kind, summary in _rows(comparison)],
        "flip_titles": FLIP_TITLES,
        "forest": _forest,
    }


def _draws(comparison: Comparison) -> Text | None:
    """How far single draws of the answers lie apart; None where each question was answered once."""
    draws = comparison.draws
    if draws["n"] < 2:
        return None
    metric = next(metric for metric in comparison.metrics if metric.name == draws["metric"])
    arms = []
    for label in (comparison.baseline, comparison.candidate):
        mean, spread = (math.nan if (end := each[label]) is None else end for each in (draws["mean"], draws["sd"]))
        arms.append(say("draws_arm", arm=_arm(label), mean=_value(mean, metric), sd=_value(spread, metric)))
    names = Text("; ".join(each.en for each in arms), "；".join(each.zh for each in arms))
    return say("draws_about", n=draws["n"], metric=_title(metric), arms=names)


def _methods(
    paired: Mapping[str, tuple[PairedComparison, float | None]], metrics: Sequence[Metric]
) -> list[tuple[Text, Text]]:
    titles = {metric.name: _title(metric) for metric in metrics}
    return _grouped_methods([(result, titles[name]) for name, (result, _) in paired.items()])


def _grouped_methods(results: Sequence[tuple[PairedComparison, Text]]) -> list[tuple[Text, Text]]:
    """(how p-value and interval were made, what of), each way once."""
    ways: dict[tuple[str, str], list[Text]] = {}
    for result, title in results:
        names = ways.setdefault((result.test, result.interval_method), [])
        names += [title] if title not in names else []
    found = []
    for way, names in ways.items():
        test, interval = map(translate, way)
        how = Text(f"{test.en}; {interval.en}", f"{test.zh}；{interval.zh}")
        found.append((how, Text(", ".join(each.en for each in names), "、".join(each.zh for each in names))))
    return found


def _bars(content: _Content) -> list[tuple[Text, Text, float, str, str, Text | None]]:
    """(name, meaning, score, score as text, class, interval) of the baselines and both arms, best first."""
    found = content.comparison.verdict
    if not content.baselines or not found.metric.is_share:
        return []
    rows = [
        (translate(each.name), translate(each.meaning), each.scores[found.metric.name], "rule", _doubt(content, each))
        for each in content.baselines
        if found.metric.name in each.scores
    ]
    if not rows:
        return []
    arms = content.evaluation.baseline, content.evaluation.candidate
    pairs = content.comparison.splits[content.comparison.main].pairs
    ends = [
        _span(measure(found.metric, records).interval)
        for records in ([pair.baseline for pair in pairs], [pair.candidate for pair in pairs])
    ]
    rows += [(_arm(arms[0].label), translate(arms[0].meaning), found.result.before, "before", ends[0])]
    rows += [(_arm(arms[1].label), translate(arms[1].meaning), found.result.after, "after", ends[1])]
    rows.sort(key=lambda row: -row[2])
    return [(*row[:3], _value(row[2], found.metric), *row[3:]) for row in rows]


def _doubt(content: _Content, baseline: Baseline) -> Text | None:
    """A baseline's interval, and its n where that is another one than the arms'; None where neither is known."""
    found = content.comparison.verdict
    ends = baseline.intervals.get(found.metric.name)
    span = None if ends is None else _span(ends)
    if baseline.n in (None, found.result.n):
        return span
    n = f"n = {baseline.n:,}"
    return Text(n, n) if span is None else Text(f"{span.en}, {n}", f"{span.zh}，{n}")


def _forest(result: PairedComparison, reach: float) -> Markup:
    """An interval around its difference, drawn against zero; `reach` is the largest absolute end."""
    low, high = result.interval
    if not has_interval(result) or reach == 0:
        return Markup("")
    left, right, dot = (60 + 56 * end / reach for end in (low, high, result.difference))
    return Markup(
        '<svg class="forest" viewBox="0 0 120 14" width="100" height="12" aria-hidden="true">'
        '<line x1="60" x2="60" y1="0" y2="14" class="zero"/>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="7" y2="7"/><circle cx="{dot:.1f}" cy="7" r="3.5"/></svg>'
    )


def _html(content: _Content, images: Path) -> str:
    environment = _environment(autoescape=True)
    script = _source(environment, "report.js")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data, embedded, total = _data(content, images)
    reaches = {}
    for name, summary in content.comparison.splits.items():
        ends = [
            abs(end)
            for metric, (result, _) in summary.paired.items()
            for end in result.interval
            if _is_share(summary, metric) and not math.isnan(end)
        ]
        reaches[name] = max(ends, default=0.0)
    return environment.get_template("index.html.j2").render(
        **_context(content),
        reaches=reaches,
        embedded=embedded,
        total_images=total,
        data=Markup(data),
        style=Markup(_source(environment, "report.css")),
        script=Markup(script),
        script_hash=script_hash,
    )


def _is_share(summary: Summary, name: str) -> bool:
    return next(metric.is_share for metric in summary.metrics if metric.name == name)


def _draw(pair: Pair) -> list[Any]:
    """A further draw of a sample: both answers or why there are none, whether they are right, whether they differ."""
    texts = [pair.baseline.prediction, pair.candidate.prediction, pair.baseline.error, pair.candidate.error]
    return [*texts, list(FLIP_TITLES).index(pair.right), int(pair.is_changed)]


def _data(content: _Content, images: Path) -> tuple[str, int, int]:
    """The answers as JSON for the script, changed ones first; how many images are in it, and how many there are."""
    comparison = content.comparison
    places: dict[str, int] = {}
    uris: list[str] = []
    room = MAX_IMAGE_BYTES

    def place(sha256: str | None) -> int:
        """Of the image in the page: -1 for none, -2 for one that is not embedded."""
        nonlocal room
        if sha256 is None or not (path := inside(images.parent, images.name, f"{sha256}.webp")).is_file():
            return -1
        if sha256 not in places:
            room -= path.stat().st_size
            places[sha256] = len(uris) if room >= 0 else -2
            if room >= 0:
                uris.append("data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode())
        return places[sha256]

    fields = list(dict.fromkeys(name for part in comparison.splits.values() for name in part.slices))
    rows: list[list[Any]] = []
    words: set[str] = set()
    flips = list(FLIP_TITLES)
    for number, (split, summary) in enumerate(comparison.splits.items()):
        study = {
            pair.candidate.id: value for value, part in summary.slices.get("study", {}).items() for pair in part.pairs
        }
        for pair, *more in _ordered(summary.pairs, losses_first=split == PROBE):
            record, other = pair.candidate, pair.baseline
            values = slice_values(record) | ({"study": study[record.id]} if record.id in study else {})
            words |= set(values.values())
            first = place(record.image_sha256)
            rows.append(
                [
                    number,
                    record.id,
                    record.question,
                    record.reference,
                    other.prediction,
                    record.prediction,
                    other.error,
                    record.error,
                    flips.index(pair.right),
                    int(pair.is_changed),
                    int(record.english),
                    first,
                    place(other.image_sha256) if other.image_sha256 != record.image_sha256 else None,
                    record.history,
                    record.image or record.id,
                    [values.get(name, "") for name in fields],
                    *([[_draw(each) for each in more]] if more else []),
                ]
            )
    data = {
        "labels": [_arm(comparison.baseline), _arm(comparison.candidate)],
        "words": LANGUAGES | {value: translate(value) for value in sorted(words) if translate(value).zh != value},
        "splits": [split_title(name) for name in comparison.splits],
        "fields": fields,
        "strings": STRINGS,
        "images": uris,
        "rows": rows,
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"), len(uris), len(places)


def _plot(content: _Content) -> str:
    """The main split's differences with their intervals, from -100 to 100 points, as a file for slides and papers."""
    part = content.comparison.splits[content.comparison.main]
    metrics = {metric.name: metric for metric in part.metrics}
    rows = [(metrics[name], result) for name, (result, _) in part.paired.items() if metrics[name].is_share]
    height = 26 * len(rows) + 70
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{height}" viewBox="0 0 640 {height}"'
        ' font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="640" height="{height}" fill="#fff"/>',
        f'<text x="14" y="24" font-weight="600">{escape(content.evaluation.title)}:'
        f" {escape(content.comparison.candidate)} − {escape(content.comparison.baseline)}, points,"
        f" 95% interval, n = {part.n:,}</text>",
    ]
    for points in (-100, -50, 0, 50, 100):
        x = 360 + 1.6 * points
        lines.append(
            f'<line x1="{x}" x2="{x}" y1="36" y2="{height - 26}" stroke="{"#777" if points == 0 else "#ddd"}"/>'
        )
        lines.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle" fill="#555">{points}</text>')
    for place, (metric, result) in enumerate(rows):
        y = 52 + 26 * place
        lines.append(f'<text x="14" y="{y + 4}">{escape(metric.title)}</text>')
        lines.append(f'<text x="626" y="{y + 4}" text-anchor="end">{_number(result.difference, metric)}</text>')
        if has_interval(result):
            low, high = (360 + 160 * end for end in result.interval)
            lines.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="#1f5f8b" stroke-width="2"/>')
        if not math.isnan(result.difference):
            lines.append(f'<circle cx="{360 + 160 * result.difference:.1f}" cy="{y}" r="4" fill="#1f5f8b"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _markdown(content: _Content) -> str:
    changed: dict[tuple[str, str], Pair] = {}  # one draw of each sample
    for part in content.comparison.splits.values():
        for pair in part.pairs:
            if pair.is_changed:
                changed.setdefault(pair.sample, pair)
    examples = list(changed.values())[:MAX_EXAMPLES]
    environment = _environment(autoescape=False)
    return environment.get_template("report.md.j2").render(**_context(content), examples=examples)


def _json(content: _Content) -> str:
    """`report.json`: what `metrics.json` holds, and what was said of it."""
    evaluation, comparison = content.evaluation, content.comparison
    text = verdict(evaluation, comparison, content.gains, content.baselines)
    report = {
        "evaluation": asdict(evaluation),
        "verdict": {"finding": comparison.verdict.finding, "en": text.en, "zh": text.zh},
        "findings": [{"en": each.en, "zh": each.zh} for each in findings(evaluation, comparison)],
        "never_named": [{"en": each.en, "zh": each.zh} for each in never_named(comparison)],
        **comparison.as_dict(),
        "baselines": [asdict(each) for each in content.baselines],
        "confusion": comparison.confusion,
        "curves": [] if content.curves is None else [text._asdict() for text, _ in describe_curves(content.curves)],
        "metrics_added_later": list(content.added_metrics),
    }
    return json.dumps(report, ensure_ascii=False, indent=2, default=dict) + "\n"


def _markdown_cell(text: str) -> str:
    """Make any text one harmless table cell."""
    escaped = "".join(f"\\{character}" if character in r"\`*_{}[]()#!|~" else character for character in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split()) or "(empty)"
