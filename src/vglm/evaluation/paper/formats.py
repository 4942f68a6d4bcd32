r"""Tables and sections as LaTeX, Markdown and CSV.

LaTeX needs the package booktabs alone. Chinese, which metrics' signatures may hold in an English text too, needs
XeLaTeX with xeCJK, or ctex; each file that has some says so in its first line.
"""

import csv
import io
import math
import re
from collections.abc import Sequence

from vglm.evaluation.paper.tables import PaperTable
from vglm.evaluation.report.markdown import as_cell, as_words
from vglm.text.messages import Text
from vglm.text.prompt import Language

FORMATS = {"latex": "tex", "csv": "csv", "markdown": "md"}
"""Format of a table -> how its file ends."""
_ESCAPES = {
    **{character: rf"\{character}" for character in "%_&#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}\allowbreak{}",
    "/": r"/\allowbreak{}",
    "=": r"=\allowbreak{}",
    '"': r"\char34{}",
    "−": r"\ensuremath{-}",
    "→": r"\ensuremath{\rightarrow}",
    "≥": r"\ensuremath{\geq}",
    "≤": r"\ensuremath{\leq}",
    "±": r"\ensuremath{\pm}",
    "–": "--",
    "—": "---",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
}
_MOST_COLUMNS = 7
"""With more of them a table is set more tightly."""
_FONTS = (
    "% xeCJK takes the Fandol fonts of texlive-lang-chinese; others, such as Google's:"
    r" \setCJKmainfont{Noto Serif CJK SC}; a Chinese caption: \renewcommand{\tablename}{表}"
)
"""The second line of a file with Chinese in it."""
_CHINESE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def latex(text: str) -> str:
    """Any text as words of LaTeX, never as commands; long signatures may be broken at their separators."""
    return "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))


def preamble(body: str, *packages: str) -> str:
    """LaTeX with a first line that names the packages its document must load."""
    needs = [rf"\usepackage{{{name}}}" for name in packages]
    if _CHINESE.search(body):
        needs.append(r"\usepackage{xeCJK} with XeLaTeX (or \usepackage{ctex}), for the Chinese in it")
        body = f"{_FONTS}\n{body}"
    return f"% needs {', '.join(needs)}\n{body}" if needs else body


# --- tables -----------------------------------------------------------------------------------------------------------


def write_table(table: PaperTable, format: str, language: Language) -> str:
    """A table as a file of its own.

    Args:
        table: The table.
        format: One of `FORMATS`.
        language: Of titles and notes; CSV has neither.
    """
    if format == "csv":
        return _csv(table)
    return _latex(table, language) if format == "latex" else _markdown(table, language)


def _latex(table: PaperTable, language: Language) -> str:
    width = len(table.header)

    def write(text: Text) -> str:
        return latex(getattr(text, language))

    def row(cells: Sequence[Text]) -> str:
        if len(cells) == 2 < width:
            return rf"{write(cells[0])} & \multicolumn{{{width - 1}}}{{l}}{{{write(cells[1])}}} \\"
        return " & ".join(map(write, cells)) + r" \\"

    size = r"\small" if width <= _MOST_COLUMNS else r"\footnotesize\setlength{\tabcolsep}{3pt}"
    lines = [r"\begin{table*}[tbp]", rf"\centering{size}", rf"\caption{{{write(table.caption)}}}"]
    lines += [rf"\label{{tab:{table.name}}}", rf"\begin{{tabular}}{{@{{}}l{'r' * (width - 1)}@{{}}}}", r"\toprule"]
    lines += [row(table.header)]
    for heading, rows in table.groups:
        lines.append(r"\midrule")
        if heading is not None:
            lines.append(rf"\multicolumn{{{width}}}{{@{{}}l}}{{\textit{{{write(heading)}}}}} \\")
        lines += map(row, rows)
    lines += [r"\bottomrule", r"\end{tabular}", r"\par\smallskip"]
    lines += [r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
    lines += [rf"{write(note)}\par" for note in table.notes]
    return preamble("\n".join([*lines, r"\end{minipage}", r"\end{table*}"]) + "\n", "booktabs")


def _markdown(table: PaperTable, language: Language) -> str:
    width = len(table.header)

    def row(cells: Sequence[Text]) -> str:
        texts = [as_cell(getattr(cell, language), empty="") for cell in cells]
        return f"| {' | '.join([*texts, *[''] * (width - len(texts))])} |"

    lines = [f"**{as_words(getattr(table.caption, language))}**", "", row(table.header)]
    lines.append("| --- |" + " ---: |" * (width - 1))
    for heading, rows in table.groups:
        if heading is not None:
            lines.append(row([Text(*(f"{words}:" for words in heading))]))
        lines += map(row, rows)
    return "\n".join([*lines, "", *(f"{as_words(getattr(note, language))}  " for note in table.notes)]) + "\n"


def _csv(table: PaperTable) -> str:
    """The numbers as they were computed; an empty cell for what is not defined."""
    written = io.StringIO()
    writer = csv.DictWriter(written, list(table.records[0]), lineterminator="\n")
    writer.writeheader()
    for record in table.records:
        writer.writerow({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()})
    return written.getvalue()


# --- sections ---------------------------------------------------------------------------------------------------------


def write_sections(sections: Sequence[tuple[Text, Text, Sequence[Text]]], format: str, language: Language) -> str:
    """Paragraphs with a title each.

    Args:
        sections: (title, its sentences, a list below them).
        format: `latex`; else Markdown.
        language: Of the text.
    """

    def pick(text: Text) -> str:
        return str(getattr(text, language))

    lines = []
    for title, text, items in sections:
        if format == "latex":
            lines += [rf"\paragraph{{{latex(pick(title))}}} {latex(pick(text))}".rstrip()]
            if items:
                listed = (rf"\item {latex(pick(item))}" for item in items)
                lines += [r"\begin{itemize}", *listed, r"\end{itemize}"]
        else:
            lines += [f"**{as_words(pick(title))}** {as_words(pick(text))}".rstrip()]
            lines += ["", *(f"- {as_words(pick(item))}" for item in items)] if items else []
        lines.append("")
    body = "\n".join(lines)
    return preamble(body) if format == "latex" else body
