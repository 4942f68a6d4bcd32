"""Calibration: each arm's confidence in its choices, by likelihood, against how often they are right."""

from collections.abc import Mapping
from typing import Any

from vglm.evaluation.report.formatting import percent, section_texts
from vglm.evaluation.report.section import Cell, Scored, Table
from vglm.text.messages import Text

say = section_texts(__file__)


def show(scored: Scored) -> Mapping[str, Any] | None:
    """Arm -> its diagram, table and figures; None where no likelihoods were scored."""
    calibration = scored.comparison.calibration
    if not calibration:
        return None
    return {"arms": [(label, counts, _facts(counts), _table(counts)) for label, counts in calibration.items()]}


def _facts(counts: Mapping[str, Any]) -> Text:
    return say(
        "calibration_facts",
        right=percent(counts["accuracy"]),
        confidence=percent(counts["mean_confidence"]),
        error=percent(counts["expected_calibration_error"]),
        brier=f"{counts['brier_score']:.3f}",
    )


def _table(counts: Mapping[str, Any]) -> Table:
    header = [say("confidence_percent"), Text.of("n"), say("mean_confidence"), say("share_right"), say("interval")]
    rows: list[list[Cell]] = [
        [
            f"{100 * part['from']:.0f}–{100 * part['to']:.0f}",
            f"{part['n']:,}",
            percent(part["confidence"]),
            percent(part["right"]),
            say("range", low=percent(part["interval"][0]), high=percent(part["interval"][1])),
        ]
        for part in counts["bins"]
    ]
    return Table(header, rows, styles=("", "", "", "strong"))
