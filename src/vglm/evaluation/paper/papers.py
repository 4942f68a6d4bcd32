"""An evaluation, or methods compared, as the files of a paper.

Paper.of_evaluation(Path("outputs/xray/qlora/<time>/evaluation")).write(Path("paper"), "latex", "en")
Paper.of_methods(runs).printed("markdown", "zh")
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vglm.evaluation.paper.checklist import write_checklist
from vglm.evaluation.paper.figures import method_figures, score_figures
from vglm.evaluation.paper.formats import FORMATS, write_sections, write_table
from vglm.evaluation.paper.methods import Account, Source, say
from vglm.evaluation.paper.tables import PaperTable, method_table, pair_table, score_table
from vglm.evaluation.predictions import read_evaluation
from vglm.evaluation.report.section import Scored
from vglm.evaluation.score.comparison import compare_folder
from vglm.evaluation.score.scoring import read_comparison, run_of
from vglm.evaluation.score.side_by_side import compare_methods, name_methods, tabulate
from vglm.files import new_folder, write_text
from vglm.runs import Run
from vglm.text.messages import Text
from vglm.text.prompt import Language


@dataclass(frozen=True)
class Paper:
    """What a paper says of an evaluation, or of methods compared.

    Attributes:
        tables: One or two.
        account: What the records say.
        figures: From a language to file name -> SVG.
    """

    tables: Sequence[PaperTable]
    account: Account
    figures: Callable[[Language], dict[str, str]]

    @classmethod
    def of_evaluation(cls, folder: Path) -> "Paper":
        """One evaluation: before and after.

        Args:
            folder: The evaluation folder; nothing in it is changed.

        Raises:
            ConfigError: The evaluation's config names an unknown metric.
            DataError: A file is missing or damaged.
        """
        scored = Scored(folder, read_evaluation(folder), read_comparison(folder))
        account = Account.of([Source(scored.evaluation.title, scored, run_of(folder))])
        return cls([score_table(scored)], account, lambda language: score_figures(scored, language))

    @classmethod
    def of_methods(cls, runs: Sequence[Run]) -> "Paper":
        """Methods side by side, see `vglm.evaluation.score.side_by_side`.

        Args:
            runs: Evaluated ones.

        Raises:
            DataError: They cannot stand side by side, or a file is damaged.
        """
        rows, tests = tabulate(runs), compare_methods(runs)
        sources = [Source(name, _scored(run), run) for name, run in zip(name_methods(runs), runs, strict=True)]
        account = Account.of(sources)
        tables = [method_table(rows, account.sentences.get("stamps", ())), *([pair_table(tests)] if tests else [])]
        return cls(tables, account, lambda language: method_figures(rows, language))

    def printed(self, format: str, language: Language) -> str:
        """The tables alone, under each other.

        Args:
            format: One of `FORMATS`.
            language: Of titles and notes.
        """
        return "\n".join(write_table(table, format, language) for table in self.tables)

    def write(self, folder: Path, format: str, language: Language) -> list[str]:
        """Write tables, figures, the methods section and the checklist into a new folder.

        Args:
            folder: Must not exist or be empty, for authors edit what was written.
            format: One of `FORMATS`; the methods section is in Markdown, and in LaTeX for LaTeX.
            language: Of all texts.

        Returns:
            The names of the files.

        Raises:
            DataError: The folder holds something, or cannot be written.
        """
        files = {f"{table.name}.{FORMATS[format]}": write_table(table, format, language) for table in self.tables}
        names = list(files)
        files |= self.figures(language)
        sections = self.account.sections()
        if format == "latex":
            files["methods.tex"] = write_sections(sections, format, language)
        title: Text = say("methods")
        files["methods.md"] = f"# {getattr(title, language)}\n\n{write_sections(sections, 'markdown', language)}"
        files["checklist.md"] = write_checklist(self.account, names, language)
        with new_folder(folder) as new:
            for name, content in files.items():
                write_text(new / name, content)
        return list(files)


def _scored(run: Run) -> Scored:
    evaluation = read_evaluation(run.evaluation)
    return Scored(run.evaluation, evaluation, compare_folder(run.evaluation, evaluation))
