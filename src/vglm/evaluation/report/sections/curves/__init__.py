"""Loss over steps, and what was gained in the domain against what was lost in general ability."""

import math
from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report.formatting import percent, section_texts, signed, split_title
from vglm.evaluation.report.section import Line, Scored
from vglm.evaluation.report.sections.curves.drawing import as_file, plots
from vglm.evaluation.score.curves import Checkpoint, Curves, read_curves
from vglm.text.messages import Text

say = section_texts(__file__)
__all__ = ["describe_curves", "files", "lines", "plots", "read_curves", "record", "show"]


def show(scored: Scored) -> Mapping[str, Any] | None:
    """The plots with their numbers; None where the training left nothing to draw or to say."""
    curves = scored.once(_read)
    if curves is None or not (plots(curves) or describe_curves(curves)):
        return None
    chosen = None
    if curves.chosen_step is not None and len(curves.forgetting) > 1:
        key = "curve_chosen_same" if curves.domain_split == scored.comparison.main else "curve_chosen_by"
        chosen = say(key, split=split_title(curves.domain_split), main=split_title(scored.comparison.main))
    return {"plots": plots(curves), "sentences": describe_curves(curves), "chosen": chosen}


def lines(scored: Scored) -> list[Line]:
    """What the curves show."""
    curves = scored.once(_read)
    return [] if curves is None else describe_curves(curves)


def record(scored: Scored) -> Mapping[str, Any]:
    """The sentences; the numbers are in `curves.json`."""
    return {"curves": [line.text._asdict() for line in lines(scored)]}


def files(scored: Scored) -> Mapping[str, str]:
    """All plots as a file for slides and papers."""
    curves = scored.once(_read)
    drawn = "" if curves is None else as_file(curves, scored.evaluation.title)
    return {"curves.svg": drawn} if drawn else {}


def _read(scored: Scored) -> Curves | None:
    return read_curves(scored.folder)


def describe_curves(curves: Curves) -> list[Line]:
    """What the curves show; `worse` is what must not be overlooked."""
    lines: list[Line] = []
    if broken := [step for step, loss in curves.learning if math.isnan(loss)]:
        lines.append(Line(say("loss_broken", n=f"{len(broken):,}", total=f"{len(curves.learning):,}"), "worse"))
    point = curves.result
    if point is None or not curves.forgetting:
        return lines
    lines.append(_result(curves, point))
    worst = max(curves.forgetting, key=curves.loss)
    if curves.is_forgetful(worst) and not curves.is_forgetful(point):
        about = {
            "step": f"{worst.step:,}",
            "after": f"{percent(worst.retention)}%",
            "loss": f"{curves.loss(worst):.1f}",
        }
        lines.append(Line(say("curve_other", **about), "worse"))
    if curves.domain_split == "train":
        lines.append(Line(say("curve_memorised")))
    if curves.stopped_early:
        lines.append(Line(say("curve_stopped")))
    return lines


def _result(curves: Curves, point: Checkpoint) -> Line:
    """What the checkpoint that became the result gained and lost."""
    loss, is_lost, split = curves.loss(point), curves.is_forgetful(point), split_title(curves.domain_split)
    kinds = ("open", "forgot") if curves.budget_points is None else ("within", "over")
    sentence = say(
        f"curve_{kinds[is_lost]}",
        step=f"{point.step:,}",
        domain=signed(curves.gain(point)),
        loss=f"{loss:.1f}",
        change=signed(-loss),
        before=f"{percent(curves.forgetting[0].retention)}%",
        after=f"{percent(point.retention)}%",
        n=f"{point.retention_n:,}",
        split=Text(split.en.lower(), split.zh),
        domain_n=f"{point.domain_n:,}",
        budget="" if curves.budget_points is None else f"{curves.budget_points:g}",
    )
    return Line(sentence, "worse" if is_lost else "")
