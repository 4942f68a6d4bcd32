"""Turn an evaluation folder into `report/index.html`, `report.md`, `report.json` and a table for the terminal.

    python -c "from vglm.evaluation.report import render; print(render('outputs/…/evaluation'))"

What a report shows is in its sections (`vglm.evaluation.report.sections`); the writers here go through them. No torch
is needed. The page holds its images and answers and needs no network: a policy in its head lets it load nothing and run
only its own script.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from rich.console import Console
from rich.table import Table as PrintedTable
from rich.text import Text as Printed

from vglm.evaluation.messages import translate
from vglm.evaluation.predictions import read_evaluation
from vglm.evaluation.report import formatting, sections
from vglm.evaluation.report.markdown import as_cell, as_words
from vglm.evaluation.report.section import Cell, Line, Scored, Section, Table
from vglm.evaluation.score.comparison import Comparison
from vglm.evaluation.score.scoring import refresh
from vglm.files import replaced_folder, write_text
from vglm.text.messages import Text, terminal_language
from vglm.text.prompt import Language

MARKDOWN_FILES: dict[Language, str] = {"en": "report.md", "zh": "report.zh.md"}
_STYLES = {"verdict": "bold", "stamp": "bold yellow"}
"""Tone of a line -> how the terminal prints it."""


def render(folder: Path | str) -> Path:
    """Score an evaluation folder from the files in it and make its report; a report that is there is replaced.

    Args:
        folder: What `evaluate.py` wrote: `evaluation.json`, both arms' `predictions.jsonl`, `images/`.

    Returns:
        The page's path, `<folder>/report/index.html`; `metrics.json`, `report/report.md`, its Chinese form
        `report/report.zh.md`, `report/report.json` and the plots of the sections are written too.

    Raises:
        ConfigError: The evaluation's config names an unknown metric or convention.
        DataError: A file of the folder is missing or damaged, the report cannot be written, or another process is
            writing it.
    """
    folder = Path(folder)
    refresh(folder, write_report)
    return folder / "report" / "index.html"


def write_report(folder: Path, comparison: Comparison) -> None:
    """Write the report of a scored evaluation, into a folder that is not published yet.

    Args:
        folder: The evaluation folder.
        comparison: See `vglm.evaluation.score.scoring.read_comparison`.

    Raises:
        ConfigError: The evaluation's config names an unknown convention.
        DataError: A file of the folder is missing or damaged, or the report cannot be written.
    """
    report = _Report(folder, comparison)
    with replaced_folder(folder / "report", marker="index.html") as new:
        write_text(new / "index.html", _html(report))
        for language, name in MARKDOWN_FILES.items():
            write_text(new / name, _markdown(report, language))
        write_text(new / "report.json", _json(report))
        for section in report.sections:
            for name, content in section.files(report.scored).items():
                write_text(new / name, content)


def print_summary(
    folder: Path | str,
    comparison: Comparison,
    console: Console | None = None,
    *,
    language: Language | None = None,
    tracked: str | None = None,
) -> None:
    """Print an evaluation's scores, its verdict, its stamps and the path of the report.

    Args:
        folder: An evaluation folder.
        comparison: See `vglm.evaluation.score.scoring.read_comparison`.
        console: Where to print; 80 columns of standard output if not given.
        language: Of the words; that of `VGLM_LANG` if not given.
        tracked: Where the evaluation was uploaded, see `vglm.evaluation.tracking`.

    Raises:
        DataError: A file of the folder is missing or damaged.
    """
    console = console or Console(width=80, highlight=False, force_jupyter=False)
    language = language or terminal_language()
    report = _Report(Path(folder), comparison)
    for section in report.sections:
        for item in section.printed(report.scored):
            if isinstance(item, Table):
                console.print(_printed(item, language))
            else:
                console.print(getattr(item.text, language), style=_STYLES.get(item.tone), markup=False)
    if tracked is not None:
        console.print(getattr(formatting.SHARED("tracked", where=tracked), language), soft_wrap=True, markup=False)
    page = formatting.SHARED("report_at", path=Path(folder) / "report" / "index.html")
    console.print(getattr(page, language), soft_wrap=True, markup=False)


def print_table(table: Table, language: Language, console: Console | None = None) -> None:
    """Print one table of a section; 80 columns on standard output by default."""
    (console or Console(width=80, highlight=False, force_jupyter=False)).print(_printed(table, language))


class _Report:
    """A scored evaluation and the sections that show it.

    Args:
        folder: The evaluation folder.
        comparison: See `vglm.evaluation.score.scoring.read_comparison`.
    """

    def __init__(self, folder: Path, comparison: Comparison) -> None:
        self.scored = Scored(folder, read_evaluation(folder), comparison)
        self.sections = [Section.load(name) for name in sections.SECTIONS]
        self._shown: dict[Section, Any] = {}

    @cached_property
    def lines(self) -> list[Line]:
        """The sentences of all sections, notes last."""
        lines = [line for section in self.sections for line in section.lines(self.scored)]
        return sorted(lines, key=lambda line: line.tone == "note")

    def bodies(self, environment: Environment, template: str) -> list[str]:
        """The sections that have something to show, each in its own template and words."""
        scored, lines = self.scored, self.lines
        about = {"evaluation": scored.evaluation, "comparison": scored.comparison, "lines": lines}
        about["labels"] = (scored.comparison.baseline, scored.comparison.candidate)
        rendered = []
        for section in self.sections:
            source = section.source(template)
            if source and (values := self._values(section)) is not None:
                rendered.append(_template(environment, source).render(**about, t=section.texts, **values))
        return rendered

    def _values(self, section: Section) -> Any:
        if section not in self._shown:
            self._shown[section] = section.show(self.scored)
        return self._shown[section]


_FUNCTIONS = (
    "arm", "control", "difference", "effect", "ends", "interval", "named", "number", "p_value", "percent", "points",
    "share", "signed", "span", "split_title", "spoken", "title", "value",
)  # fmt: skip
"""Of `formatting`, what the templates may call."""


def _environment(write: Callable[[Any], Any], *, autoescape: bool) -> Environment:
    """For templates whose texts are written in a way of their own."""
    environment = Environment(
        loader=PackageLoader("vglm.evaluation.report", "page"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=write,
    )
    environment.globals |= {name: getattr(formatting, name) for name in _FUNCTIONS}
    environment.globals |= {"translate": translate, "t": formatting.SHARED}
    return environment


def _html(report: _Report) -> str:
    environment = _environment(lambda cell: formatting.both(cell) if isinstance(cell, Text) else cell, autoescape=True)
    table = _template(environment, _source(environment, "table.html.j2"))
    environment.globals["table"] = lambda content: Markup(table.render(table=content))
    sources = [section.source("section.js") for section in report.sections]
    script = "\n".join([*filter(None, sources), _source(environment, "page.js")])
    return _template(environment, _source(environment, "page.html.j2")).render(
        evaluation=report.scored.evaluation,
        comparison=report.scored.comparison,
        bodies=[Markup(body) for body in report.bodies(environment, "section.html.j2")],
        style=Markup(_source(environment, "page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


_codes: dict[tuple[str, bool], CodeType] = {}
"""Compiled templates by source and escaping: the next report has the same."""


def _template(environment: Environment, source: str) -> Template:
    key = source, bool(environment.autoescape)
    if key not in _codes:
        _codes[key] = environment.compile(source)
    return environment.template_class.from_code(environment, _codes[key], environment.make_globals(None))


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


class _Markdown(str):
    """A text that is Markdown, and not escaped."""


def _markdown(report: _Report, language: Language) -> str:
    def plain(cell: Any) -> Any:
        return getattr(cell, language) if isinstance(cell, Text) else cell

    def write(cell: Any) -> Any:
        text = plain(cell)
        return as_words(text) if isinstance(text, str) and not isinstance(text, _Markdown) else text

    environment = _environment(write, autoescape=False)
    environment.filters["cell"] = lambda cell: _Markdown(as_cell(str(plain(cell))))
    environment.filters["code"] = lambda text: _Markdown(text.replace("```", "` ` `"))
    environment.globals["table"] = lambda table: _Markdown(_markdown_table(table, plain))
    return "".join(report.bodies(environment, "section.md.j2"))


def _markdown_table(table: Table, write: Callable[[Cell], Any]) -> str:
    def row(cells: Sequence[Cell]) -> str:
        filled = [*cells, *[""] * (len(table.header) - len(cells))]
        return f"| {' | '.join(as_cell(str(write(cell)), empty='') for cell in filled)} |"

    rule = "| --- |" + " ---: |" * (len(table.header) - 1)
    return "\n".join([row(table.header), rule, *map(row, table.rows)]) + "\n"


def _json(report: _Report) -> str:
    """`report.json`: what `metrics.json` holds, and what the sections say of it."""
    scored = report.scored
    content = {"evaluation": asdict(scored.evaluation), **scored.comparison.as_dict()}
    for section in report.sections:
        content |= section.record(scored)
    return json.dumps(content, ensure_ascii=False, indent=2, default=dict) + "\n"


def _printed(table: Table, language: Language) -> PrintedTable:
    """A table for the terminal; names may hold what looks like its markup."""

    def write(cell: Cell) -> Printed:
        return Printed(getattr(cell, language) if isinstance(cell, Text) else str(cell))

    title = write(table.title)
    title.stylize("table.title")
    printed = PrintedTable(title=title, title_justify="left")
    for index, name in enumerate(table.header):
        printed.add_column(write(name), justify="right" if index else "left", overflow="fold")
    for row in table.rows:
        printed.add_row(*map(write, row))
    return printed
