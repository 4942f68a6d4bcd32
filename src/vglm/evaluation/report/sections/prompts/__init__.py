"""How much the scores depend on the words of the question."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vglm.evaluation.messages import join
from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.prompt_spread import ArmSpread, PromptSpread, read_prompt_spread

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each wording, and below them what differs among them; None where there was one wording."""
    found = _read(scored)
    if found is None:
        return None
    n = next(iter(found.arms.values())).n
    return {"prompts": _table(found), "about": say("about", n=n, metric=fmt.title(found.metric))}


def lines(scored: Scored) -> list[Line]:
    """The range of the scores and how many samples flip, by arm; a warning where the sign of the change depends."""
    found = _read(scored)
    if found is None:
        return []
    arms = [
        say("range_of", arm=fmt.arm(arm), low=fmt.value(min(each.scores), found.metric), high=_high(each, found))
        for arm, each in found.arms.items()
    ]
    flips = [
        say("flips_of", arm=fmt.arm(arm), share=fmt.percent(each.flipped / each.n))
        for arm, each in found.arms.items()
        if each.flipped is not None
    ]
    n = next(iter(found.arms.values())).n
    sentence = say("line", count=len(found.templates), n=n, metric=fmt.in_sentence(found.metric), arms=join(arms, ";"))
    lines = [Line(sentence)] if all(not math.isnan(each.spread) for each in found.arms.values()) else []
    lines += [Line(say("flips_line", arms=join(flips, ";")))] if flips else []
    changes = _changes(found)
    if changes and min(changes) < 0 < max(changes):
        low, high = (fmt.difference(end, found.metric) for end in (min(changes), max(changes)))
        lines.append(Line(say("sign_depends", low=low, high=high), "worse"))
    return lines


def record(scored: Scored) -> Mapping[str, Any]:
    """Every wording's scores."""
    found = _read(scored)
    if found is None:
        return {}
    arms = {
        arm: {
            "scores": [None if math.isnan(score) else score for score in each.scores],
            "spread": None if math.isnan(each.spread) else each.spread,
            "flipped": each.flipped,
            "flip_interval": each.flip_interval,
            "n": each.n,
        }
        for arm, each in found.arms.items()
    }
    return {"prompts": {"templates": list(found.templates), "metric": found.metric.name, "arms": arms}}


def _read(scored: Scored) -> PromptSpread | None:
    return read_prompt_spread(scored.folder, scored.evaluation, scored.comparison)


def _high(each: ArmSpread, found: PromptSpread) -> str:
    return fmt.value(max(each.scores), found.metric)


def _changes(found: PromptSpread) -> list[float]:
    """In each wording the candidate's score minus the baseline's; nothing with one arm."""
    if len(found.arms) < 2:
        return []
    before, after = (each.scores for each in found.arms.values())
    return [new - old for old, new in zip(before, after, strict=True)]


def _table(found: PromptSpread) -> Table:
    metric, arms, changes = found.metric, found.arms, _changes(found)
    rows: list[Sequence[Cell]] = []
    for index, template in enumerate(found.templates):
        row: list[Cell] = [say("as_asked") if index == 0 else template]
        row += [fmt.value(each.scores[index], metric) for each in arms.values()]
        rows.append([*row, *([fmt.number(changes[index], metric)] if changes else [])])
    spread = max(changes) - min(changes) if changes else math.nan
    rows.append(
        [
            say("spread"),
            *(fmt.number(each.spread, metric).removeprefix("+") for each in arms.values()),
            *([fmt.number(spread, metric).removeprefix("+")] if changes else []),
        ]
    )
    rows.append([say("flipped"), *map(_flips, arms.values()), *([""] if changes else [])])
    header = [say("wording"), *map(fmt.arm, arms), *([say("difference")] if changes else [])]
    return Table(header, rows, styles=("", *([""] * len(arms)), "strong"))


def _flips(each: ArmSpread) -> Cell:
    if each.flipped is None or each.flip_interval is None:
        return fmt.NONE
    return say("flips", share=fmt.percent(each.flipped / each.n), span=fmt.span(each.flip_interval))
