"""How much the scores depend on the words of the question."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.prompt_spread import ArmSpread, PromptSpread, read_prompt_spread
from vglm.text.messages import join

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each wording, and below them what differs among them; None where there was one wording."""
    spread = scored.once(_read)
    if spread is None:
        return None
    n = next(iter(spread.arms.values())).n
    return {"prompts": _table(spread), "about": say("about", n=n, metric=fmt.title(spread.metric))}


def lines(scored: Scored) -> list[Line]:
    """The range of the scores and how many samples flip, by arm; a warning where the sign of the change depends."""
    spread = scored.once(_read)
    if spread is None:
        return []
    arms = [
        say(
            "range_of",
            arm=fmt.arm(arm),
            low=fmt.value(min(arm_spread.scores), spread.metric),
            high=fmt.value(max(arm_spread.scores), spread.metric),
        )
        for arm, arm_spread in spread.arms.items()
    ]
    flips = [
        say("flips_of", arm=fmt.arm(arm), share=fmt.percent(arm_spread.flipped / arm_spread.n))
        for arm, arm_spread in spread.arms.items()
        if arm_spread.flipped is not None
    ]
    n = next(iter(spread.arms.values())).n
    sentence = say(
        "line", count=len(spread.templates), n=n, metric=fmt.in_sentence(spread.metric), arms=join(arms, ";")
    )
    lines = [Line(sentence)] if all(not math.isnan(arm.spread) for arm in spread.arms.values()) else []
    lines += [Line(say("flips_line", arms=join(flips, ";")))] if flips else []
    changes = _changes(spread)
    if changes and min(changes) < 0 < max(changes):
        low, high = (fmt.difference(end, spread.metric) for end in (min(changes), max(changes)))
        lines.append(Line(say("sign_depends", low=low, high=high), "worse"))
    return lines


def record(scored: Scored) -> Mapping[str, Any]:
    """Every wording's scores."""
    spread = scored.once(_read)
    if spread is None:
        return {}
    arms = {
        arm: {
            "scores": [None if math.isnan(score) else score for score in arm_spread.scores],
            "spread": None if math.isnan(arm_spread.spread) else arm_spread.spread,
            "flipped": arm_spread.flipped,
            "flip_interval": arm_spread.flip_interval,
            "n": arm_spread.n,
        }
        for arm, arm_spread in spread.arms.items()
    }
    return {"prompts": {"templates": list(spread.templates), "metric": spread.metric.name, "arms": arms}}


def _read(scored: Scored) -> PromptSpread | None:
    return read_prompt_spread(scored.folder, scored.evaluation, scored.comparison)


def _changes(spread: PromptSpread) -> list[float]:
    """In each wording the candidate's score minus the baseline's; nothing with one arm."""
    if len(spread.arms) < 2:
        return []
    before, after = (arm.scores for arm in spread.arms.values())
    return [new - old for old, new in zip(before, after, strict=True)]


def _table(prompts: PromptSpread) -> Table:
    metric, arms, changes = prompts.metric, prompts.arms, _changes(prompts)
    rows: list[Sequence[Cell]] = []
    for index, template in enumerate(prompts.templates):
        row: list[Cell] = [say("as_asked") if index == 0 else template]
        row += [fmt.value(arm.scores[index], metric) for arm in arms.values()]
        rows.append([*row, *([fmt.number(changes[index], metric)] if changes else [])])
    spread = max(changes) - min(changes) if changes else math.nan
    rows.append(
        [
            say("spread"),
            *(fmt.number(arm.spread, metric).removeprefix("+") for arm in arms.values()),
            *([fmt.number(spread, metric).removeprefix("+")] if changes else []),
        ]
    )
    rows.append([say("flipped"), *map(_flips, arms.values()), *([""] if changes else [])])
    header = [say("wording"), *map(fmt.arm, arms), *([say("difference")] if changes else [])]
    return Table(header, rows, styles=("", *([""] * len(arms)), "strong"))


def _flips(arm_spread: ArmSpread) -> Cell:
    if arm_spread.flipped is None or arm_spread.flip_interval is None:
        return fmt.NONE
    return say("flips", share=fmt.percent(arm_spread.flipped / arm_spread.n), span=fmt.span(arm_spread.flip_interval))
