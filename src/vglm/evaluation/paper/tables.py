"""The tables of a paper: scores of an evaluation, methods side by side, pairs of methods."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vglm.evaluation.messages import translate
from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Scored
from vglm.evaluation.report.sections.scores import added_later
from vglm.evaluation.score.comparison import Summary, has_interval
from vglm.evaluation.score.metrics import Metric
from vglm.evaluation.score.side_by_side import MethodTest, Row, finding, shared_prefix, within_range
from vglm.evaluation.score.statistics import Interval, PairedComparison
from vglm.text.messages import Text, join

say = section_texts(__file__)
Cells = tuple[Text, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table as it is printed, and the numbers that it was printed from.

    Attributes:
        name: Of its file, and of its label in LaTeX.
        caption: What it shows.
        header: The columns' titles; the first column names the rows.
        groups: (heading, its rows); a single group may be without a heading. A row with two cells has a second one that
            takes the rest of the width.
        notes: Footnotes: how to read it, and what a reader must know before believing it.
        records: A row of CSV each: column -> value, not rounded.
    """

    name: str
    caption: Text
    header: Cells
    groups: Sequence[tuple[Text | None, Sequence[Cells]]]
    notes: Sequence[Text]
    records: Sequence[Mapping[str, Any]]


# --- an evaluation ----------------------------------------------------------------------------------------------------


def score_table(scored: Scored) -> PaperTable:
    """Every metric of every split, before and after, with the difference and its interval.

    Args:
        scored: The evaluation.
    """
    comparison = scored.comparison
    arms = [fmt.arm(comparison.baseline), fmt.arm(comparison.candidate)]
    header = (say("metric"), *arms, say("difference_interval"), Text.of("n"), say("p"), say("p_holm"))
    groups = [(_split_heading(name, part), _score_rows(part)) for name, part in comparison.splits.items()]
    key = "caption.scores" if scored.evaluation.purpose == "tuning" else "caption.scores_image_use"
    caption = say(key, title=scored.evaluation.title, before=arms[0], after=arms[1])
    records = [record for name, part in comparison.splits.items() for record in _score_records(name, part)]
    return PaperTable("scores", caption, header, groups, _score_notes(scored), records)


def _split_heading(name: str, part: Summary) -> Text:
    return say("split_n", split=fmt.split_title(name), n=part.n, grouped=fmt.grouped(part.primary))


def _score_rows(part: Summary) -> list[Cells]:
    metrics = {metric.name: metric for metric in part.metrics}
    rows: list[Cells] = []
    for name, (result, adjusted) in part.paired.items():
        metric = metrics[name]
        change = Text.of(fmt.number(result.difference, metric))
        if has_interval(result):
            change = say("with_interval", value=change, ends=fmt.ends(result, metric))
        values = [Text.of(fmt.value(score, metric)) for score in (result.before, result.after)]
        tests = [Text.of(fmt.p_value(p)) for p in (result.p_value, adjusted)]
        rows.append((fmt.title(metric), *values, change, Text.of(f"{result.n:,}"), *tests))
    for name, reason in part.not_computed.items():
        rows.append((fmt.title(metrics[name]), say("not_computed", reason=translate(reason))))
    return rows


def _score_records(split: str, part: Summary) -> list[dict[str, Any]]:
    """A row of each metric, empty but for the reason where it could not be computed."""
    metrics = {metric.name: metric for metric in part.metrics}
    rows = [_score_record(split, metrics[name], result, p_holm) for name, (result, p_holm) in part.paired.items()]
    return rows + [
        {**_score_record(split, metrics[name], None, None), "not_computed": translate(reason).en}
        for name, reason in part.not_computed.items()
    ]


def _score_record(split: str, metric: Metric, result: PairedComparison | None, p_holm: float | None) -> dict[str, Any]:
    names = ("before", "after", "difference", "confidence", "n", "groups", "p_value")
    values = {name: None if result is None else getattr(result, name) for name in names}
    return {
        "split": split,
        "metric": metric.name,
        **{name: values[name] for name in names[:3]},
        **_ends(result.interval if result is not None and has_interval(result) else None),
        **{name: values[name] for name in names[3:]},
        "p_value_holm": p_holm,
        "unit": "share" if metric.is_share else metric.unit,
        "signature": metric.signature,
        "not_computed": None,
    }


def _score_notes(scored: Scored) -> list[Text]:
    comparison = scored.comparison
    metrics = {metric.name: metric for metric in comparison.metrics}
    primary = comparison.splits[comparison.main].primary_metric
    notes = [say("note.scores", primary=fmt.title(primary)), *method_notes(scored)]
    if scored.evaluation.purpose == "tuning":
        notes.append(say("note.one_seed"))
    else:
        notes.append(say("note.image_use", before=fmt.arm(comparison.baseline), after=fmt.arm(comparison.candidate)))
    if added := [fmt.title(metrics[name]) for name in added_later(scored) if name in metrics]:
        notes.append(say("note.added_later", metrics=join(added)))
    return notes + stamp_notes(scored)


def method_notes(scored: Scored) -> list[Text]:
    """How p-values and intervals of each split were made."""
    metrics = {metric.name: metric for metric in scored.comparison.metrics}
    return [
        say("note.split_method", split=fmt.split_title(split), what=names, how=how)
        for split, part in scored.comparison.splits.items()
        for names, how in fmt.methods((result, fmt.title(metrics[name])) for name, (result, _) in part.paired.items())
    ]


def stamp_notes(scored: Scored) -> list[Text]:
    """What an evaluation is stamped with."""
    return [
        say("note.stamp", stamp=fmt.named("stamp", stamp.text), detail=translate(stamp.detail))
        for stamp in scored.evaluation.stamps
    ]


# --- methods ----------------------------------------------------------------------------------------------------------


def method_table(rows: Sequence[Row], stamps: Sequence[Text]) -> PaperTable:
    """Methods side by side.

    Args:
        rows: At least one.
        stamps: What the evaluations are stamped with.
    """
    metric, shared = rows[0].metric, shared_prefix(row.name for row in rows)
    header = tuple(say(f"column.{name}") for name in _COLUMNS)
    cells = [
        (
            Text.of(row.name.removeprefix(shared)),
            Text.of(len(row.seeds)),
            *(Text.of(fmt.value(score, metric)) for score in (row.before, row.after)),
            _pair(row.interval, metric),
            Text.of(fmt.NONE if row.seed_sd is None else _spread(row.seed_sd, metric)),
            Text.of(fmt.NONE if row.forgotten is None else fmt.signed(row.forgotten)),
            Text.of(fmt.NONE if row.peak_memory is None else f"{row.peak_memory / 1e6:,.0f}"),
            Text.of(f"{row.seconds:,.0f}"),
            Text.of(f"{row.size / 1e6:.2f}"),
        )
        for row in rows
    ]
    caption = say("caption.methods", metric=fmt.in_sentence(metric), n=rows[0].samples)
    notes = [say("note.methods")]
    if any(len(row.seeds) == 1 for row in rows):
        notes.append(say("note.single_seed"))
    if len(rows) > 1:
        notes.append(say("note.best_of", n=len(rows)))
    return PaperTable("comparison", caption, header, [(None, cells)], [*notes, *stamps], [_row_record(r) for r in rows])


_COLUMNS = ("method", "seeds", "before", "after", "interval", "seed_sd", "forgotten", "memory", "seconds", "size")


def _row_record(row: Row) -> dict[str, Any]:
    return {
        "method": row.name,
        "seeds": " ".join(map(str, row.seeds)),
        "metric": row.metric.name,
        "before": row.before,
        "after": row.after,
        **_ends(row.interval),
        "seed_sd": row.seed_sd,
        "sample_se": row.sample_se,
        "forgotten_points": row.forgotten,
        "n": row.samples,
        "peak_memory_bytes": row.peak_memory,
        "train_seconds": row.seconds,
        "weights_bytes": row.size,
        "unit": "share" if row.metric.is_share else row.metric.unit,
        "signature": row.metric.signature,
    }


def pair_table(tests: Sequence[MethodTest]) -> PaperTable:
    """Each method tested against each other.

    Args:
        tests: At least one.
    """
    shared = shared_prefix(name for test in tests for name in (test.first, test.second))
    header = tuple(say(f"column.{name}") for name in ("pair", "difference", "interval", "over_seeds", "p", "p_holm"))
    rows = []
    for test in tests:
        names = (name.removeprefix(shared) for name in (test.second, test.first))
        other = None if test.over_seeds is None else test.over_seeds.interval
        rows.append(
            (
                Text.of(" − ".join(names)),
                Text.of(fmt.number(test.result.difference, test.metric)),
                _change(test.result.interval if has_interval(test.result) else None, test.metric),
                _change(other, test.metric),
                Text.of(fmt.p_value(test.result.p_value)),
                Text.of(fmt.p_value(test.p_value)),
                say(f"finding.{finding(test).replace(' ', '_')}"),
            )
        )
    caption = say("caption.pairs", metric=fmt.in_sentence(tests[0].metric), n=tests[0].result.n)
    notes = [say("note.pairs", pairs=len(tests))]
    results = [(test.result, fmt.title(test.metric)) for test in tests]
    notes += [say("note.method", what=name, how=how) for name, how in fmt.methods(results)]
    records = [_test_record(test) for test in tests]
    return PaperTable("pairs", caption, (*header, say("column.finding")), [(None, rows)], notes, records)


def _test_record(test: MethodTest) -> dict[str, Any]:
    result, other = test.result, test.over_seeds
    return {
        "first": test.first,
        "second": test.second,
        "metric": test.metric.name,
        "difference": result.difference,
        **_ends(result.interval if has_interval(result) else None),
        **_ends(None if other is None else other.interval, "over_seeds_"),
        "n": result.n,
        "groups": result.groups,
        "p_value": result.p_value,
        "p_value_holm": test.p_value,
        "finding": finding(test),
        "unit": "share" if test.metric.is_share else test.metric.unit,
    }


# --- numbers ----------------------------------------------------------------------------------------------------------


def _ends(interval: Interval | None, prefix: str = "") -> dict[str, float | None]:
    low, high = (None, None) if interval is None else interval
    return {f"{prefix}interval_low": low, f"{prefix}interval_high": high}


def _pair(interval: Interval, metric: Metric) -> Text:
    if not all(map(math.isfinite, interval)):
        return Text.of(fmt.NONE)
    low, high = (_plain(end, metric) for end in interval)
    return fmt.SHARED("range", low=low, high=high)


def _change(interval: Interval | None, metric: Metric) -> Text:
    """An interval of a difference, no further than one can go."""
    if interval is None:
        return Text.of(fmt.NONE)
    low, high = (fmt.number(end, metric) for end in within_range(interval, metric))
    return fmt.SHARED("range", low=low, high=high)


def _plain(score: float, metric: Metric) -> str:
    return fmt.value(score, metric).removesuffix("%")


def _spread(deviation: float, metric: Metric) -> str:
    return fmt.percent(deviation) if metric.is_share else f"{deviation:.3g}"
