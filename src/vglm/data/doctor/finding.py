"""What a check of the doctor says, in English and Chinese.

Finding(
    Severity.WARNING,
    SAY.counted("answers.unresolved", 3),               # the words of messages.yaml
    SAY("answers.unresolved.detail"),
    examples=(Example("openi-en.json#17", "There is XXXX opacity in the left base."),),
)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from vglm.data.sample import Sample
from vglm.text.messages import Text, Texts, in_language, terminal_language

SAY = Texts(Path(__file__).with_name("messages.yaml"))
"""The doctor's words."""


def progress_title(name: str) -> str:
    """What a progress bar says, in the language of `VGLM_LANG`."""
    return in_language(SAY(f"progress.{name}"), terminal_language())


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
        text: What the example shows, mostly a quote from the data; empty where the picture suffices.
        sample: The row whose picture is to be shown, if it has one that can be opened.
    """

    where: str
    text: str | Text = ""
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of a finding; the first column names what the others count."""

    columns: Sequence[Text]
    rows: Sequence[Sequence[str | Text]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        severity: A fact to know, something to mend or decide, or the reason why nothing can be trained.
        title: One line with the figure.
        detail: What follows from it and what to do, if anything.
        examples: Up to `EXAMPLES` rows or pictures.
        table: Figures, where one line is not enough.
    """

    severity: Severity
    title: Text
    detail: Text | None = None
    examples: tuple[Example, ...] = ()
    table: Table | None = None
