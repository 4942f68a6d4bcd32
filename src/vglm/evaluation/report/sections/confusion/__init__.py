"""Confusion matrices of both arms."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.report.section import Scored

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """Arm -> its counts; None where nothing was to be classified."""
    confusion = scored.comparison.confusion
    return {"confusion": confusion, "classes": next(iter(confusion.values()))["classes"]} if confusion else None


def record(scored: Scored) -> Mapping[str, Any]:
    """The counts."""
    return {"confusion": scored.comparison.confusion}
