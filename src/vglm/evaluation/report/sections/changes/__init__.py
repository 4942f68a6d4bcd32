"""Answers that changed: in content, or in wording only."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report import formatting as fmt
from vglm.evaluation.report.formatting import NONE, section_texts
from vglm.evaluation.report.section import Cell, Line, Scored, Table
from vglm.evaluation.score.changes import CHANGES, Change
from vglm.evaluation.score.comparison import Comparison, Summary
from vglm.evaluation.score.metrics import EXACT_MATCH
from vglm.text.messages import Text

say = section_texts(__file__)
_OF_WORDING = ("right before, other wording", "right now, other wording")


def show(scored: Scored) -> Mapping[str, Any] | None:
    """A row for each change, a column for each split; None where the arms are one model with other images."""
    if scored.evaluation.purpose != "tuning":
        return None
    by_form = [fmt.split_title(name) for name, part in scored.comparison.splits.items() if _is_by_form(part)]
    return {"changes": _table(scored.comparison), "by_form": by_form}


def lines(scored: Scored) -> list[Line]:
    """How many of the answers that gained or lost the reference's wording did not change in content."""
    if scored.evaluation.purpose != "tuning":
        return []
    counted = []
    for name, part in scored.comparison.splits.items():
        values = {"split": fmt.split_title(name), "metric": fmt.in_sentence(part.decisive), "total": len(part.pairs)}
        keys: dict[Change, str] = {
            "right before, other wording": "reworded",
            "right now, other wording": "worded_otherwise",
            "punctuation only": "punctuation",
        }
        counted += [Line(say(key, n=part.changes[name], **values)) for name, key in keys.items() if part.changes[name]]
    return counted


def printed(scored: Scored) -> list[Line | Table]:
    """The table, where some answer changed, and the sentences."""
    parts = scored.comparison.splits.values()
    unchanged = {"right in both", "wrong in both"}
    is_changed = any(n for part in parts for name, n in part.changes.items() if name not in unchanged)
    is_shown = scored.evaluation.purpose == "tuning" and is_changed
    return [*([_table(scored.comparison)] if is_shown else []), *lines(scored)]


def record(scored: Scored) -> Mapping[str, Any]:
    """The counts, with the metrics of content and of form."""
    return {
        "changes": {
            name: {"content": part.decisive.name, "form": EXACT_MATCH.name, "counts": dict(part.changes)}
            for name, part in scored.comparison.splits.items()
        }
    }


def _is_by_form(part: Summary) -> bool:
    """Whether the decisive metric judges the wording alone (exact match)."""
    return part.decisive is EXACT_MATCH


def _table(comparison: Comparison) -> Table:
    parts = comparison.splits
    rows: list[list[Cell]] = [
        [say.name("change", name), *(_count(part, name) for part in parts.values())] for name in CHANGES
    ]
    header = [say("answers"), *map(fmt.split_title, parts)]
    return Table(header, rows, title=say("title"), styles=("", *["strong"] * len(parts)))


def _count(part: Summary, name: Change) -> str | Text:
    """How many; a dash where wording and content cannot be separated."""
    return NONE if _is_by_form(part) and name in _OF_WORDING else f"{part.changes[name]:,}"
