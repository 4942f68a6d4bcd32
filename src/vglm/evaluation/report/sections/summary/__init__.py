"""The ten-second summary: the verdict, what changed, whether the image was used, what was forgotten."""

from collections.abc import Mapping
from typing import Any

from vglm.errors import DataError
from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.comparison import RETENTION, TRAIN, Comparison, Summary, judge, judge_gain
from vglm.evaluation.score.metrics import EXACT_MATCH, ROUGE_L, Metric
from vglm.text.messages import Text, join

say = section_texts(__file__)
LONG = 3.0
"""Answers that are this many times as long as the references may name everything."""


def show(scored: Scored) -> Mapping[str, Any]:
    """The verdict and the tiles."""
    comparison, judged = scored.comparison, scored.comparison.verdict
    gains = [gain for gain in scored.comparison.gains if gain.arm == comparison.candidate] or scored.comparison.gains
    return {
        "verdict": verdict(scored),
        "finding": judged.finding,
        "metric": judged.metric,
        "result": judged.result,
        "main": fmt.split_title(comparison.main),
        "gain": next(iter(gains), None),
        "retention": comparison.splits.get(RETENTION) if comparison.main != RETENTION else None,
        "judge": judge,
        "judge_gain": judge_gain,
    }


def lines(scored: Scored) -> list[Line]:
    """The result of each split, and how many answers were cut."""
    splits = scored.comparison.splits
    answered = [Line(text) for split in splits for text in (_finding(scored, split), *_cut(scored, split))]
    return answered + [Line(text, "worse") for split in splits for text in _long(scored, split)]


def printed(scored: Scored) -> list[Line | Table]:
    """Right answers by split and kind, stamps and verdict."""
    how = fmt.right_by(scored.comparison)
    stamps = [(fmt.named("stamp", stamp.text), stamp.detail) for stamp in scored.evaluation.stamps]
    return [
        _overview(scored),
        *([] if how is None else [Line(how)]),
        *(Line(say("stamp_line", stamp=stamp, detail=detail), "stamp") for stamp, detail in stamps),
        Line(verdict(scored), "verdict"),
        *lines(scored),
    ]


def record(scored: Scored) -> Mapping[str, Any]:
    """The verdict and the sentences."""
    return {
        "verdict": {"finding": scored.comparison.verdict.finding, **verdict(scored)._asdict()},
        "findings": [line.text._asdict() for line in lines(scored)],
    }


def verdict(scored: Scored) -> Text:
    """What the primary metric shows, claiming no more than its interval and power allow, and what takes from it."""
    parts = [_judgement(scored), *([say("on_training")] if scored.comparison.main == TRAIN else [])]
    if scored.evaluation.purpose == "tuning":
        parts += [*_not_seeing(scored), *_but_forgot(scored.comparison)]
    parts += [*_rule(scored), *_not_evaluated(scored.comparison)]
    ratio = scored.once(_length_ratios)[scored.comparison.main][1]
    if scored.comparison.verdict.metric.rewards_naming and ratio > LONG:
        parts.append(say("long_verdict", ratio=ratio))
    if scored.evaluation.stamps:
        parts.append(say("stamped", stamps=join(fmt.named("stamp", stamp.text) for stamp in scored.evaluation.stamps)))
    return Text("".join(part.en for part in parts), "".join(part.zh for part in parts))


def _judgement(scored: Scored) -> Text:
    comparison, judged = scored.comparison, scored.comparison.verdict
    result, metric, part = judged.result, judged.metric, comparison.splits[comparison.main]
    key = f"verdict_{judged.finding}"
    if scored.evaluation.purpose == "image use":
        is_same = part.changed == 0 and judged.finding != "too few"
        is_floor = any(gain.is_at_floor(metric) for gain in comparison.gains if gain.result is result)
        key = "image_none" if is_same else "image_floor" if is_floor else f"image_{judged.finding}"
    return say(
        key,
        metric=fmt.title(metric),
        control=fmt.control(comparison.baseline),
        before=fmt.value(result.before, metric),
        after=fmt.value(result.after, metric),
        diff=fmt.difference(result.difference, metric),
        interval=fmt.interval(result, metric),
        n=fmt.counted(result, part),
        grouped=fmt.grouped(result),
        power=fmt.power(result, metric),
        reference=part.pairs[0].candidate.reference[:60],
    )


def _not_seeing(scored: Scored) -> list[Text]:
    """That a gain in score without one over shuffled images is not of seeing."""
    judged, candidate = scored.comparison.verdict, scored.comparison.candidate
    shuffled = [gain for gain in scored.comparison.gains if gain.arm == candidate and gain.control == "shuffled"]
    if judged.finding != "better" or not shuffled:
        return []
    return [] if judge(shuffled[0].result, judged.metric).finding == "better" else [say("not_seeing")]


def _but_forgot(comparison: Comparison) -> list[Text]:
    if RETENTION not in comparison.splits or comparison.main == RETENTION:
        return []
    retention = comparison.splits[RETENTION]
    result, metric = retention.primary, retention.primary_metric
    is_lost = judge(result, metric).finding == "worse"
    return [say("but_forgot", diff=fmt.difference(result.difference, metric))] if is_lost else []


def _rule(scored: Scored) -> list[Text]:
    """The best simple rule, where it scores as well as the candidate."""
    comparison = scored.comparison
    metric, result = comparison.verdict.metric, comparison.splits[comparison.main].primary
    sign = -1 if metric.higher_is_better is False else 1
    rules = [rule for rule in comparison.baselines if metric.name in rule.scores]
    best = max(rules, key=lambda rule: sign * rule.scores[metric.name], default=None)
    if best is None or sign * best.scores[metric.name] < sign * result.after:
        return []
    score = best.scores[metric.name]
    key = "rule_as_good" if score == result.after else "rule_better"
    return [say(key, name=fmt.named("baseline", best.name), score=fmt.value(score, metric))]


def _not_evaluated(comparison: Comparison) -> list[Text]:
    """That the metric that was requested first could not be computed."""
    metric, first = comparison.verdict.metric, comparison.splits[comparison.main].metrics[0]
    return [] if first is metric else [say("not_applicable", requested=fmt.title(first), metric=fmt.title(metric))]


def _cut(scored: Scored, split: str) -> list[Text]:
    """How many answers of each arm were cut; nothing where none was."""
    comparison, summary = scored.comparison, scored.comparison.splits[split]
    if not any(summary.cut):
        return []
    text = say(
        "cut",
        split=fmt.split_title(split),
        n=len(summary.pairs),
        limit=scored.evaluation.decoding.get("max_new_tokens", "max_new_tokens"),
        before=summary.cut[0],
        after=summary.cut[1],
        baseline=fmt.arm(comparison.baseline),
        candidate=fmt.arm(comparison.candidate),
    )
    return [text]


def _length_ratios(scored: Scored) -> dict[str, tuple[float, float]]:
    """Split -> characters of all (baseline, candidate) answers for one of their references, blanks at ends aside.

    References without a character count as one.
    """
    ratios = {}
    for split, part in scored.comparison.splits.items():
        reference = max(sum(len(pair.candidate.reference.strip()) for pair in part.pairs), 1)
        before = sum(len(pair.baseline.prediction.strip()) for pair in part.pairs)
        after = sum(len(pair.candidate.prediction.strip()) for pair in part.pairs)
        ratios[split] = before / reference, after / reference
    return ratios


def _long(scored: Scored, split: str) -> list[Text]:
    """That an arm's answers are so long that metrics which look for what they name cannot be trusted."""
    comparison, part = scored.comparison, scored.comparison.splits[split]
    named = [fmt.title(metric) for metric in part.metrics if metric.rewards_naming]
    labels = (comparison.baseline, comparison.candidate)
    return [
        say("long", split=fmt.split_title(split), arm=fmt.arm(label), ratio=ratio, metrics=join(named))
        for label, ratio in zip(labels, scored.once(_length_ratios)[split], strict=True)
        if named and ratio > LONG
    ]


def _finding(scored: Scored, split: str) -> Text:
    comparison, summary = scored.comparison, scored.comparison.splits[split]
    key = "of_questions" if split == RETENTION else "of_samples"
    values: dict[str, Any] = {
        "samples": say(key, n=summary.n, split=Text(split, fmt.split_title(split).zh)),
        "metric": fmt.in_sentence(summary.decisive),
        "before": fmt.percent(summary.right[0]),
        "after": fmt.percent(summary.right[1]),
        "baseline": Text(comparison.baseline, fmt.arm(comparison.baseline).zh),
        "candidate": Text(comparison.candidate, fmt.arm(comparison.candidate).zh),
    }
    if scored.evaluation.purpose == "image use":
        return say("images", points=fmt.signed(fmt.points(summary)), **values)
    gained, lost = len(summary.flips(False, True)), len(summary.flips(True, False))
    drawn = say("drawn", n=len(summary.pairs)) if len(summary.pairs) > summary.n else Text.of("")
    right = say("one_answer") if gained == 1 else say("answers", n=gained)
    text = say("went", gained=right, lost=lost, drawn=drawn, **values)
    return say("full", text=join([text, _forgotten(summary)], ";") if split == RETENTION else text)


def _forgotten(retention: Summary) -> Text:
    """What the retention set's loss is called; only a significant loss is called forgetting."""
    if retention.scores[EXACT_MATCH.name][0] == 0:
        return say("nothing_to_forget")
    judged = judge(retention.primary, retention.primary_metric)
    change = fmt.signed(100 * judged.result.difference)
    about = {"change": change, "loss": change.lstrip("−+"), "interval": fmt.interval(judged.result, judged.metric)}
    return say(f"forgot_{judged.finding}", **about)


def _overview(scored: Scored) -> Table:
    """The terminal's table: right answers, and the primary metric where that counts no right answers, else ROUGE-L."""
    comparison, primary = scored.comparison, scored.comparison.verdict.metric
    is_right = primary.name in {part.decisive.name for part in comparison.splits.values()}
    rows: list[list[Cell]] = []
    for name, is_kind, summary in fmt.kind_rows(comparison):
        right = " → ".join(map(fmt.percent, summary.right))
        scores = summary.scores[ROUGE_L.name] if is_right else _primary(summary, primary, is_kind)
        values = [fmt.value(score, ROUGE_L if is_right else primary).rstrip("%") for score in scores]
        cells = [str(summary.n), right, fmt.signed(fmt.points(summary)), " → ".join(values) or fmt.NONE]
        rows.append([Text.of(f"  {name.en}") if is_kind else name, *cells])
    heading = f"{scored.evaluation.title}: {comparison.baseline} → {comparison.candidate}"
    column = say("rouge") if is_right else fmt.title(primary)
    return Table([say("samples"), "n", fmt.right_title(comparison), say("points_column"), column], rows, title=heading)


def _primary(summary: Summary, metric: Metric, is_kind: bool) -> tuple[float, ...]:
    """The (baseline, candidate) scores by the primary metric; none where it judges not, or cannot be computed."""
    try:
        if (summary.metrics[0] if is_kind else summary.primary_metric).name != metric.name:
            return ()
        if not is_kind:
            return summary.primary.before, summary.primary.after
        arms = zip(*((pair.baseline, pair.candidate) for pair in summary.pairs), strict=True)
        return tuple(map(metric.score, arms))
    except DataError:
        return ()
