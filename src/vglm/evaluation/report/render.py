"""Turn an evaluation folder into `report/index.html`, `report/report.md` and a table for the terminal, without torch.

    python -c "from vglm.evaluation.report import render; print(render('outputs/…/evaluation'))"

The page holds its images and needs no network: a policy in its head lets it load nothing and run only its own script.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from vglm.evaluation.comparison import PROBE, Comparison, Pair, Summary, compare_folder, write_metrics
from vglm.evaluation.metrics import EXACT_MATCH, METRICS, ROUGE_L
from vglm.evaluation.predictions import (
    IMAGES_FOLDER,
    Evaluation,
    Prediction,
    read_evaluation,
    replaced_folder,
)

MAX_CARDS = 600
MAX_EXAMPLES = 5
SPLIT_TITLES = {"test": "Test set", PROBE: "General probe"}
FLIP_TITLES = {
    (False, True): "wrong → right",
    (True, False): "right → wrong",
    (False, False): "wrong in both",
    (True, True): "right in both",
}


def render(folder: Path | str) -> Path:
    """Make the report of an evaluation folder from the files in it; a report that is there is replaced.

    Args:
        folder: What `evaluate.py` wrote: `evaluation.json`, both arms' `predictions.jsonl`, `images/`.

    Returns:
        The page's path, `<folder>/report/index.html`; `metrics.json` and `report/report.md` are written too.

    Raises:
        DataError: A file of the folder is missing or damaged, or the report cannot be written.
    """
    folder = Path(folder)
    evaluation = read_evaluation(folder)
    comparison = compare_folder(folder, evaluation)
    write_metrics(comparison, folder)
    with replaced_folder(folder / "report", marker="index.html") as report:
        (report / "index.html").write_text(_html(evaluation, comparison, folder / IMAGES_FOLDER), encoding="utf-8")
        (report / "report.md").write_text(_markdown(evaluation, comparison), encoding="utf-8")
    return folder / "report" / "index.html"


def print_summary(folder: Path | str, console: Console | None = None) -> None:
    """Print an evaluation's scores, what they say in words, its stamps and where the report lies.

    Args:
        folder: An evaluation folder.
        console: Where to print; 80 columns of standard output if not given.

    Raises:
        DataError: A file of the folder is missing or damaged.
    """
    folder = Path(folder)
    console = console or Console(width=80, highlight=False)
    evaluation = read_evaluation(folder)
    comparison = compare_folder(folder, evaluation)
    table = Table(title=f"{evaluation.title}: {comparison.baseline} → {comparison.candidate}", title_justify="left")
    table.add_column("samples", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("exact match", justify="right", no_wrap=True)
    table.add_column("points", justify="right", no_wrap=True)
    table.add_column("ROUGE-L (char.)", justify="right", no_wrap=True)
    for split, kind, summary in _rows(comparison):
        exact, rouge = ([_percent(value) for value in summary.scores[name.name]] for name in (EXACT_MATCH, ROUGE_L))
        name = f"  {kind}" if kind else f"[bold]{_split_title(split)}[/bold]"
        table.add_row(name, str(summary.n), " → ".join(exact), _signed(summary.points()), " → ".join(rouge))
    console.print(table)
    for stamp in evaluation.stamps:
        console.print(f"{stamp.text}: {stamp.detail}", style="bold yellow", markup=False)
    for sentence in findings(evaluation, comparison):
        console.print(sentence, markup=False)
    console.print(f"Report: {folder / 'report' / 'index.html'}", soft_wrap=True, markup=False)


def findings(evaluation: Evaluation, comparison: Comparison) -> list[str]:
    """Say in a sentence per split what the numbers say, no more."""
    return [_finding(evaluation, comparison, name) for name in comparison.splits]


def _finding(evaluation: Evaluation, comparison: Comparison, split: str) -> str:
    summary = comparison.splits[split]
    baseline, candidate = (_percent(value) for value in summary.scores[EXACT_MATCH.name])
    samples = f"{summary.n} {'general questions' if split == PROBE else f'{split} samples'}"
    if evaluation.purpose == "image use":
        return (
            f"Of {samples}, {baseline}% are answered right with {comparison.baseline} images and {candidate}% with "
            f"{comparison.candidate} ones: looking at the image is worth {summary.points():.1f} points."
        )
    gained, lost = len(summary.flips(False, True)), len(summary.flips(True, False))
    sentence = (
        f"On {samples}, exact match went from {baseline}% {comparison.baseline} to {candidate}% "
        f"{comparison.candidate}: {gained} {_answers(gained)} became right, {lost} became wrong"
    )
    if split != PROBE:
        return f"{sentence}."
    return f"{sentence}; {_forgotten(summary)}."


def _answers(count: int) -> str:
    return "answer" if count == 1 else "answers"


def _forgotten(probe: Summary) -> str:
    """What the probe's loss is called; only a loss is forgetting."""
    if probe.scores[EXACT_MATCH.name][0] == 0:
        return "there was nothing to forget"
    loss = -probe.points()
    return f"{loss:.1f} points were forgotten" if loss > 0.05 else "on balance nothing was forgotten"


def _rows(comparison: Comparison) -> list[tuple[str, str | None, Summary]]:
    """The rows of the tables: each split, and under it its kinds where there is more than one."""
    rows: list[tuple[str, str | None, Summary]] = []
    for split, summary in comparison.splits.items():
        rows.append((split, None, summary))
        if len(summary.kinds) > 1:
            rows += [(split, kind, part) for kind, part in summary.kinds.items()]
    return rows


def _split_title(split: str) -> str:
    return SPLIT_TITLES.get(split, split.capitalize())


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _signed(points: float) -> str:
    """Points with a sign that is as wide as a plus, and none before zero."""
    text = f"{points:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _ordered(pairs: Sequence[Pair], *, losses_first: bool) -> list[Pair]:
    """Changed answers first, among them the flips; then what stayed wrong, then what stayed right."""
    rank = {(False, True): 1, (True, False): 0 if losses_first else 2, (False, False): 3, (True, True): 4}
    return sorted(pairs, key=lambda pair: (not pair.is_changed, rank[pair.right]))


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("vglm.evaluation.report"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": _percent, "signed": _signed, "cell": _markdown_cell}
    return environment


def _context(evaluation: Evaluation, comparison: Comparison) -> dict[str, Any]:
    """What both templates show."""
    return {
        "evaluation": evaluation,
        "comparison": comparison,
        "findings": findings(evaluation, comparison),
        "metrics": METRICS,
        "exact_match": EXACT_MATCH,
        "rouge_l": ROUGE_L,
        "rows": [(_split_title(split), kind, summary) for split, kind, summary in _rows(comparison)],
        "flip_titles": FLIP_TITLES,
    }


def _html(evaluation: Evaluation, comparison: Comparison, images: Path) -> str:
    environment = _environment(autoescape=True)
    script = _source(environment, "report.js")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    @cache
    def image_uri(sha256: str | None) -> str | None:
        path = images / f"{sha256}.webp"
        if sha256 is None or not path.is_file():
            return None
        return "data:image/webp;base64," + base64.b64encode(path.read_bytes()).decode()

    sections = []
    for split, summary in comparison.splits.items():
        pairs = _ordered(summary.pairs, losses_first=split == PROBE)
        sections.append(
            {
                "id": split,
                "title": _split_title(split),
                "is_probe": split == PROBE,
                "summary": summary,
                "kinds": list(summary.kinds),
                "pairs": pairs[:MAX_CARDS],
                "left_out": max(0, len(pairs) - MAX_CARDS),
                "forgotten": _forgotten(summary) if split == PROBE and evaluation.purpose == "tuning" else None,
            }
        )
    return environment.get_template("index.html.j2").render(
        **_context(evaluation, comparison),
        sections=sections,
        image_uri=image_uri,
        language=_language,
        style=Markup(_source(environment, "report.css")),
        script=Markup(script),
        script_hash=script_hash,
    )


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _language(record: Prediction) -> str:
    """The language that chooses between the Chinese, Japanese and Latin forms of a character."""
    return "en" if record.english else "zh-Hans"


def _markdown(evaluation: Evaluation, comparison: Comparison) -> str:
    pairs = [pair for summary in comparison.splits.values() for pair in summary.pairs if pair.is_changed]
    return (
        _environment(autoescape=False)
        .get_template("report.md.j2")
        .render(**_context(evaluation, comparison), examples=pairs[:MAX_EXAMPLES])
    )


def _markdown_cell(text: str) -> str:
    """Make any text one harmless table cell."""
    escaped = "".join(f"\\{character}" if character in r"\`*_{}[]()#!|~" else character for character in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split()) or "(empty)"
