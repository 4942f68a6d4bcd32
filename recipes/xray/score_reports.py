"""Score an evaluation's reports on the synthetic chest world: who was called abnormal, and which findings were named.

python recipes/xray/score_reports.py outputs/xray/synthetic/<time>/evaluation

Beside the evaluation's two arms stands the constant report, "normal chest" whatever the picture. Only reports in this
world's wording can be scored: `vglm.worlds.radiograph_reports.read_report` knows its words.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vglm.errors import DataError, WorkbenchError
from vglm.evaluation.predictions import PREDICTIONS_FILE, Prediction, read_predictions
from vglm.worlds.radiograph_reports import FINDINGS, NORMAL_REPORTS, ReportedFindings, read_report

CONSTANT = "constant normal"


@dataclass(frozen=True)
class Counts:
    """Calls on cases that are abnormal (or have a finding) and on cases that are not.

    Attributes:
        hits: Abnormal cases called so.
        abnormal: Abnormal cases.
        alarms: Normal cases called abnormal.
        normal: Normal cases.
    """

    hits: int
    abnormal: int
    alarms: int
    normal: int

    @property
    def recall(self) -> float | None:
        """Share of the abnormal cases called so; None if there are none."""
        return self.hits / self.abnormal if self.abnormal else None

    @property
    def specificity(self) -> float | None:
        """Share of the normal cases called normal; None if there are none."""
        return 1 - self.alarms / self.normal if self.normal else None

    def __str__(self) -> str:
        shown = [
            "     -          " if share is None else f"{share:6.1%} ({part}/{whole})".ljust(16)
            for share, part, whole in (
                (self.recall, self.hits, self.abnormal),
                (self.specificity, self.normal - self.alarms, self.normal),
            )
        ]
        return "  ".join(shown)


def count(calls: Iterable[tuple[bool, bool]]) -> Counts:
    """Count (is abnormal, is called abnormal) pairs."""
    pairs = list(calls)
    positive = [called for is_abnormal, called in pairs if is_abnormal]
    negative = [called for is_abnormal, called in pairs if not is_abnormal]
    return Counts(sum(positive), len(positive), sum(negative), len(negative))


def score(records: Sequence[Prediction], answers: Sequence[str]) -> dict[str, Counts]:
    """Score one arm.

    Args:
        records: The test split's records, whose references tell the truth.
        answers: One report for each.

    Returns:
        "studies" (a study is called abnormal if the report on any of its pictures, in the language in question, calls
        it so), "pictures", each view, and each finding over all pictures.
    """
    truths = [read_report(record.reference) for record in records]
    calls = [read_report(answer) for answer in answers]
    studies: dict[tuple[str, str], tuple[bool, bool]] = {}
    for record, truth, call in zip(records, truths, calls, strict=True):
        key = record.group, record.language
        is_abnormal, is_called = studies.get(key, (False, False))
        studies[key] = is_abnormal or truth.is_abnormal, is_called or call.is_abnormal
    rows = {"studies": count(studies.values()), "pictures": count(_abnormal(truths, calls))}
    for view in sorted({record.kind for record in records if record.kind is not None}):
        chosen = [i for i, record in enumerate(records) if record.kind == view]
        rows[f"  {view}"] = count(_abnormal([truths[i] for i in chosen], [calls[i] for i in chosen]))
    for name in (*FINDINGS, "device"):
        rows[name] = count(
            (truth.stated.get(name, False), call.stated.get(name, False))
            for truth, call in zip(truths, calls, strict=True)
        )
    return rows


def _abnormal(truths: Sequence[ReportedFindings], calls: Sequence[ReportedFindings]) -> Iterable[tuple[bool, bool]]:
    return ((truth.is_abnormal, call.is_abnormal) for truth, call in zip(truths, calls, strict=True))


def main() -> int:
    """Print a table for each arm; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an evaluation folder, as evaluate.py wrote it")
    parser.add_argument("--json", action="store_true", help="print recall and specificity as JSON instead of a table")
    parsed = parser.parse_args()
    try:
        arms = {
            file.parent.name: [record for record in read_predictions(file) if record.split == "test"]
            for file in sorted(
                parsed.folder.glob(f"*/{PREDICTIONS_FILE}"), key=lambda file: file.parent.name != "before"
            )
        }
        if not arms or not all(arms.values()):
            raise DataError(f"{parsed.folder} has no {PREDICTIONS_FILE} of a test split. Run evaluate.py first.")
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    records = next(iter(arms.values()))
    tables = {CONSTANT: score(records, [NORMAL_REPORTS[record.language] for record in records])}
    tables |= {label: score(rows, [record.prediction for record in rows]) for label, rows in arms.items()}
    if parsed.json:
        shown = {
            label: {
                row.strip(): {"recall": counts.recall, "specificity": counts.specificity}
                for row, counts in rows.items()
            }
            for label, rows in tables.items()
        }
        print(json.dumps(shown, indent=2))
        return 0
    for label, rows in tables.items():
        print(f"{label:<16}  recall            specificity")
        for row, counts in rows.items():
            print(f"  {row:<14}  {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
