"""A section of a report: a package that says what it shows of a scored evaluation, with its templates and its words.

    my_section/
      __init__.py        say = section_texts(__file__)
                         def show(scored: Scored) -> Mapping[str, Any] | None      values of its templates
                         def lines(scored: Scored) -> Sequence[Line]               sentences of the summary
                         def printed(scored: Scored) -> Sequence[Line | Table]     what the terminal shows
                         def record(scored: Scored) -> Mapping[str, Any]           what it adds to report.json
                         def files(scored: Scored) -> Mapping[str, str]            files beside the page, by name
      section.html.j2    its part of index.html
      section.md.j2      its part of report.md
      section.js         a script of its own for the page
      messages.yaml      its words in English and Chinese, see `vglm.text.messages`

All but `__init__.py` may be missing, and of its functions those that a section does not need; all of them are pure.
Without `printed` the terminal shows the section's lines but notes. In the templates `t("key")` stands for the section's
words; every `Text` comes out in the language of the file, on the page in both. Texts are escaped; what stands between
Markdown's fences takes the filter `code`. The package's name, in `vglm.evaluation.report.sections.SECTIONS`, makes the
section a part of every report.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, TypeVar

from vglm.evaluation.predictions import Evaluation
from vglm.evaluation.report.formatting import section_texts
from vglm.evaluation.score.comparison import Comparison
from vglm.text.messages import Text, Texts

T = TypeVar("T")
Result = TypeVar("Result")
Cell = Text | str
"""A text in both languages, a name or number, or markup."""


@dataclass(frozen=True)
class Scored:
    """A scored evaluation, all that a section may look at.

    Attributes:
        folder: The evaluation folder, for what else is kept in it.
        evaluation: What was evaluated.
        comparison: Of its arms.
    """

    folder: Path
    evaluation: Evaluation
    comparison: Comparison
    _results: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, compute: "Callable[[Scored], Result]") -> Result:
        """What a function makes of this evaluation; it is called at the first request only."""
        if compute not in self._results:
            self._results[compute] = compute(self)
        result: Result = self._results[compute]
        return result


class Line(NamedTuple):
    """A sentence that a section adds to the summary.

    Attributes:
        text: The sentence.
        tone: `worse` is set off as a warning; a `note` is not printed in the terminal; `verdict` and `stamp` are for
            the terminal.
    """

    text: Text
    tone: Literal["", "worse", "note", "verdict", "stamp"] = ""


@dataclass(frozen=True)
class Table:
    """A table for page, Markdown and terminal; `table(...)` shows it in the templates.

    Attributes:
        header: The columns' titles; the first column names the rows.
        rows: The cells. A row with fewer cells than the header has a last one that takes the rest of the width.
        title: Above the table, in the terminal.
        styles: Classes of the columns' cells on the page, such as `soft` and `strong`; none behind the last one.
        first: Class of the first row on the page.
    """

    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    title: Cell = ""
    styles: Sequence[str] = field(default=())
    first: str = ""


@dataclass(frozen=True)
class Section:
    """A section's package, see the module's description."""

    module: ModuleType

    @classmethod
    def load(cls, name: str) -> "Section":
        """Import a section by its package's name."""
        return cls(importlib.import_module(name))

    @property
    def texts(self) -> Texts:
        """Its words."""
        return section_texts(str(self.module.__file__))

    def source(self, name: str) -> str:
        """The text of one of its files, such as `section.html.j2`; empty where it has none."""
        path = Path(str(self.module.__file__)).with_name(name)
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def show(self, scored: Scored) -> Mapping[str, Any] | None:
        """Values of its templates; None where there is nothing to show."""
        return self._call("show", scored, {})

    def lines(self, scored: Scored) -> Sequence[Line]:
        """Its sentences for the summary."""
        return self._call("lines", scored, ())

    def printed(self, scored: Scored) -> Sequence[Line | Table]:
        """What the terminal shows of it."""
        own: Sequence[Line | Table] | None = self._call("printed", scored, None)
        return [line for line in self.lines(scored) if line.tone != "note"] if own is None else own

    def record(self, scored: Scored) -> Mapping[str, Any]:
        """What it adds to `report.json`."""
        return self._call("record", scored, {})

    def files(self, scored: Scored) -> Mapping[str, str]:
        """Files beside the page: name -> content."""
        return self._call("files", scored, {})

    def _call(self, name: str, scored: Scored, default: T) -> T:
        function: Callable[[Scored], T] | None = getattr(self.module, name, None)
        return default if function is None else function(scored)
