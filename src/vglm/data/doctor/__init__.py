"""Check a data set before training: its content, its errors, and what would bias a score.

with examine("data/background_synthetic") as diagnosis:
    diagnosis.severity             # Severity.NOTE: clean
    print_diagnosis(diagnosis)
    write_report(diagnosis, Path("outputs/doctor/background_synthetic"))
"""

from vglm.data.doctor.cleaning import write_cleaned_copy
from vglm.data.doctor.diagnosis import Diagnosis, examine
from vglm.data.doctor.finding import SAY, Example, Finding, Severity, Table
from vglm.data.doctor.report import print_diagnosis, write_report
from vglm.data.doctor.survey import Lengths

__all__ = [
    "SAY",
    "Diagnosis",
    "Example",
    "Finding",
    "Lengths",
    "Severity",
    "Table",
    "examine",
    "print_diagnosis",
    "write_cleaned_copy",
    "write_report",
]
