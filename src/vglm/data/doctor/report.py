"""Show a diagnosis in the terminal and as two pages: `index.html` with the findings, `thumbnails.html` with pictures.

The pages hold their images and need no network: a policy in their heads lets them load and run nothing.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text
from tqdm.auto import tqdm

from vglm.data.doctor.diagnosis import Diagnosis
from vglm.data.doctor.finding import SAY, Example, Finding, Severity, progress_title
from vglm.data.doctor.pictures import READABLE
from vglm.data.sample import Sample
from vglm.errors import DataError
from vglm.files import write_text
from vglm.text.messages import Text as Words
from vglm.text.messages import in_language, terminal_language
from vglm.text.prompt import Language

THUMBNAILS = 240
"""Maximum number of pictures on the page of thumbnails, spread evenly over the data set."""

_THUMBNAIL_SIDE = 144
_EXAMPLE_WIDTH = 230
_STYLES = {Severity.NOTE: "dim", Severity.WARNING: "bold yellow", Severity.UNUSABLE: "bold red"}
_SIGNS = {Severity.NOTE: "·", Severity.WARNING: "!", Severity.UNUSABLE: "✗"}


def print_diagnosis(diagnosis: Diagnosis, console: Console | None = None, language: Language | None = None) -> None:
    """Print the findings, warnings first.

    Args:
        diagnosis: What `examine` yielded.
        console: Where to print; 80 columns of standard output if not given.
        language: Of the words; that of `VGLM_LANG` if not given. The data's own words stay as they are.
    """
    console = console or Console(width=80, highlight=False, force_jupyter=False)
    say = _Voice(language or terminal_language())
    console.print(f"[bold]{escape(diagnosis.survey.source.path)}[/bold]", soft_wrap=True)
    facts = (f"{say(name)} {escape(say(value))}" for name, value in diagnosis.facts.items())
    console.print(Padding(" · ".join(facts), (0, 0, 1, 0)))
    for finding in _worst_first(diagnosis):
        _print_finding(finding, console, say)
    console.print()
    if diagnosis.clean:
        console.print(Text(say(SAY("frame.clean")), "green").append(say(list(diagnosis.clean)), "default"))
    for reason in dict.fromkeys(diagnosis.left_out.values()):
        titles = [title for title, why in diagnosis.left_out.items() if why == reason]
        console.print(say(SAY("frame.left_out", reason=reason, checks=titles)), markup=False)
    if diagnosis.counted_with:
        console.print(say(SAY("frame.tokens_of", model=diagnosis.counted_with)), markup=False)
    console.print(Text(say(diagnosis.verdict), "bold"))


def write_report(diagnosis: Diagnosis, folder: Path, language: Language | None = None) -> Path:
    """Write both pages; those of an earlier run are replaced.

    Args:
        diagnosis: What `examine` yielded, while it lasts.
        folder: Where to write; made if it is not there.
        language: Of the words; that of `VGLM_LANG` if not given.

    Returns:
        The path of `index.html`.

    Raises:
        DataError: The folder cannot be written.
    """
    language = language or terminal_language()
    environment = Environment(
        loader=PackageLoader("vglm.data.doctor"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    assert environment.loader is not None
    context: dict[str, Any] = {
        "diagnosis": diagnosis,
        "name": Path(diagnosis.survey.source.path).name,
        "language": language,
        "say": _Voice(language),
        "words": SAY,
        "classes": {severity: severity.name.lower() for severity in Severity},
        "style": Markup(environment.loader.get_source(environment, "doctor.css")[0]),
    }
    findings = [(finding, [_shown(example) for example in finding.examples]) for finding in _worst_first(diagnosis)]
    index = environment.get_template("index.html.j2").render(**context, findings=findings)
    thumbnails, total = _thumbnails(diagnosis)
    contact_sheet = environment.get_template("thumbnails.html.j2").render(**context, thumbnails=thumbnails, total=total)
    for name, page in (("thumbnails.html", contact_sheet), ("index.html", index)):
        write_text(folder / name, page, error=DataError)
    return folder / "index.html"


class _Voice:
    """Translates texts, and lists of them, into one language; other values are unchanged."""

    def __init__(self, language: Language) -> None:
        self._language = language

    def __call__(self, value: str | Words | list[Words]) -> str:
        return in_language(value, self._language)


def _worst_first(diagnosis: Diagnosis) -> list[Finding]:
    return sorted(diagnosis.findings, key=lambda finding: -finding.severity)


def _print_finding(finding: Finding, console: Console, say: _Voice) -> None:
    style = _STYLES[finding.severity]
    line = RichTable.grid(padding=(0, 1), expand=True)
    line.add_column(width=1)
    line.add_column(ratio=1)
    title = Text(say(finding.title), "default" if finding.severity is Severity.NOTE else style)
    line.add_row(Text(_SIGNS[finding.severity], style), title)
    if finding.detail:
        line.add_row("", Text(say(finding.detail), "default"))
    for example in finding.examples[: 3 if finding.severity > Severity.NOTE else 0]:
        text = f"{example.where}  {say(example.text)}"
        line.add_row("", Text(text if len(text) <= _EXAMPLE_WIDTH else f"{text[: _EXAMPLE_WIDTH - 1]}…", "dim"))
    console.print(line)
    if finding.table is not None:
        table = RichTable(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for index, column in enumerate(finding.table.columns):
            table.add_column(say(column), justify="left" if index == 0 else "right", overflow="fold")
        for row in finding.table.rows:
            table.add_row(*(escape(say(cell)) for cell in row))
        console.print(Padding(table, (0, 0, 0, 2)))


def _shown(example: Example) -> tuple[Example, str | None]:
    return example, None if example.sample is None else _thumbnail(example.sample)


def _thumbnail(sample: Sample) -> str | None:
    """A small copy of its picture as a data URI; None if there is none, or it cannot be opened."""
    try:
        picture = sample.open_image()
    except DataError:
        return None
    if picture is None:
        return None
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _thumbnails(diagnosis: Diagnosis) -> tuple[list[dict[str, str]], int]:
    """Pictures for the page, evenly spread over those that can be shown, and how many these are."""
    survey = diagnosis.survey
    can_show = np.flatnonzero(survey.pictures["status"] == READABLE)
    if not survey.was_decoded:
        can_show = np.arange(len(survey.images))
    indices = np.unique(np.linspace(0, max(0, len(can_show) - 1), min(THUMBNAILS, len(can_show))).round().astype(int))
    shown = []
    for picture in tqdm(can_show[indices], desc=progress_title("thumbnails"), unit="image", delay=2):
        sample = survey.sample_of_picture(int(picture))
        uri = _thumbnail(sample)
        if uri is not None:
            size = ""
            if survey.was_decoded:
                record = survey.pictures[picture]
                size = f"{record['width']} x {record['height']} {record['mode']}"
            shown.append(
                {"uri": uri, "id": sample.id, "size": size, "question": sample.question, "answer": sample.answer}
            )
    return shown, len(can_show)
