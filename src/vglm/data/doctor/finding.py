"""What a check of the doctor says.

Finding(
    Severity.WARNING,
    "3 answers hold unresolved tokens",
    "The model would learn to write them. Complete these answers, or let --fix leave the rows out.",
    examples=(Example("openi-en.json#17", "There is XXXX opacity in the left base."),),
)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from vglm.data.sample import Sample

EXAMPLES = 5
"""How many examples a finding shows at most."""


class Severity(IntEnum):
    """How much a finding matters; the greatest of a report is the exit code of `vglm doctor`."""

    NOTE = 0
    WARNING = 1
    UNUSABLE = 2


@dataclass(frozen=True, slots=True)
class Example:
    """One row or picture that shows a finding.

    Attributes:
        where: The sample's id, or the row of the file.
        text: What is to be seen there; empty where the picture says it all.
        sample: The row whose picture is to be shown, if it has one that can be opened.
    """

    where: str
    text: str = ""
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of a finding; the first column names what the others count."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        severity: A fact to know, something to mend or decide, or the reason why nothing can be trained.
        title: One line with the figure.
        detail: What follows from it and what to do; may be empty.
        examples: Up to `EXAMPLES` rows or pictures.
        table: Figures, where one line is not enough.
    """

    severity: Severity
    title: str
    detail: str = ""
    examples: tuple[Example, ...] = ()
    table: Table | None = None
