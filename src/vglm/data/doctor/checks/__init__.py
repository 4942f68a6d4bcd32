"""The checks, a module for each subject, and the list of them.

A check looks at a survey and yields what it finds: notes state facts, warnings need a decision or a fix.
A new check is a function in one of the modules, its texts in `messages.yaml`, and a line in `CHECKS`.
"""

from vglm.data.doctor.checks.answers import answers_to_look_at, languages
from vglm.data.doctor.checks.classes import classes
from vglm.data.doctor.checks.common import RETENTION, Check
from vglm.data.doctor.checks.domain import dicom_beside, dicom_headers, reported_findings, stars, views
from vglm.data.doctor.checks.duplicates import (
    conflicting_answers,
    duplicate_pictures,
    duplicate_rows,
    look_alikes,
    repeated_rows,
)
from vglm.data.doctor.checks.lengths import lengths, truncation
from vglm.data.doctor.checks.pictures import broken_pictures, missing_pictures, sizes_and_modes, unreadable_rows
from vglm.data.doctor.checks.questions import questions
from vglm.data.doctor.checks.splits import groups, leaks, splits

__all__ = ["CHECKS", "RETENTION", "Check", "leaks", "repeated_rows", "truncation"]

CHECKS: tuple[Check, ...] = (
    Check("unreadable_rows", unreadable_rows),
    Check("missing_pictures", missing_pictures),
    Check("dicom_beside", dicom_beside),
    Check("broken_pictures", broken_pictures, needs="pictures"),
    Check("sizes_and_modes", sizes_and_modes, needs="pictures"),
    Check("dicom_headers", dicom_headers),
    Check("views", views),
    Check("reported_findings", reported_findings),
    Check("stars", stars),
    Check("duplicate_rows", duplicate_rows),
    Check("conflicting_answers", conflicting_answers),
    Check("duplicate_pictures", duplicate_pictures, needs="pictures"),
    Check("look_alikes", look_alikes, needs="pictures"),
    Check("answers_to_look_at", answers_to_look_at),
    Check("languages", languages),
    Check("lengths", lengths, needs="tokens"),
    Check("classes", classes),
    Check("groups", groups),
    Check("splits", splits),
    Check("questions", questions),
)
"""All checks in the order of the report; `examine` adds `truncation` for the length given."""
