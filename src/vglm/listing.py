"""Listings of available recipes, components and formats, and of finished runs: `vglm list recipes`, `vglm runs`.

Each line comes from its source: the first comment of the recipe's or config's file, a format's schema, a metric's
title.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.cells import cell_len, chop_cells

from vglm.config import repo_root
from vglm.errors import ConfigError, WorkbenchError, brief
from vglm.files import read_json
from vglm.runs import RECORD_FILE, Run

WIDTH = 80
_METRICS_FILE = "metrics.json"
_COMMENT = re.compile(r"^#\s*(?![@\s])(.+)$", re.MULTILINE)


def list_kind(kind: str) -> list[str]:
    """What can be chosen of a kind, a line of at most `WIDTH` terminal columns each: its name and what it is.

    Args:
        kind: One of `KINDS`.
    """
    descriptions = dict(KINDS[kind]())
    width = min(max(map(cell_len, descriptions)), WIDTH // 3)
    return [_cut(f"{_padded(name, width)}  {text}") for name, text in descriptions.items()]


def choices(group: str) -> dict[str, str]:
    """The files of a group of `conf/`, or the recipes, with their first comment.

    Args:
        group: `recipes`, or the name of a folder in `conf/`.
    """
    folder = repo_root() / ("recipes" if group == "recipes" else f"conf/{group}")
    return {
        path.relative_to(folder).with_suffix("").as_posix(): _first_comment(path)
        for path in sorted(folder.rglob("*.yaml"))
    }


def _first_comment(path: Path) -> str:
    """The sentence that a config file begins with, where it stands on one line."""
    match = _COMMENT.search(path.read_text(encoding="utf-8"))
    text = "" if match is None else match[1].removeprefix(f"recipes/{path.parent.name}/{path.name}: ")
    return re.split(r"(?<=[.?!]) (?=[A-Z])", text)[0]


def _metrics() -> Iterator[tuple[str, str]]:
    """Sets of metrics, for `metrics=`; then single ones, for `metrics.names=[...]`."""
    from vglm.evaluation.score.metrics import ALL_METRICS

    yield from choices("metrics").items()
    for name, metric in ALL_METRICS.items():
        yield f"names=[{name}]", metric.title


def _formats() -> Iterator[tuple[str, str]]:
    from vglm.data.readers import formats

    for name, reader in formats().items():
        yield name, reader.SCHEMA


KINDS: Mapping[str, Callable[[], Mapping[str, str] | Iterator[tuple[str, str]]]] = {
    "recipes": lambda: choices("recipes"),
    "methods": lambda: choices("method"),
    "datasets": lambda: choices("dataset"),
    "metrics": _metrics,
    "tasks": lambda: choices("task"),
    "formats": _formats,
}
"""What `vglm list` lists."""


def list_runs(folder: Path) -> list[str]:
    """The finished runs below a folder, the newest last: recipe, data and score, and where each lies.

    Args:
        folder: Searched at any depth.

    Raises:
        ConfigError: There is no such folder, or no finished run below it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder. Pass one with runs below it, or train one: vglm train")
    runs: list[tuple[str, list[str], str]] = []
    for path in folder.rglob(RECORD_FILE):
        run = Run(path.parent)
        try:
            if run.result is not None:
                row = [run.record.recipe, _data_of(run.config["dataset"]), _score_of(run)]
                runs.append((f"{run.started:%Y-%m-%d %H:%M:%S}", row, str(run.folder)))
        except WorkbenchError as error:
            runs.append(("?", ["?", "?", brief(error, 30)], str(run.folder)))
    if not runs:
        raise ConfigError(f"{folder} holds no finished run. Train one first: vglm train")
    runs.sort(key=lambda run: (run[0] != "?", run))
    rows = [["recipe", "data", "score"], *(row for _, row, _ in runs)]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    head, *lines = ("  ".join(map(_padded, row, widths)).rstrip() for row in rows)
    pairs = ((line, f"  {started[:16]:<16}  {where}") for line, (started, _, where) in zip(lines, runs, strict=True))
    return [head, f"  {'started (UTC)':<16}  folder", *(line for pair in pairs for line in pair)]


def _data_of(dataset: Mapping[str, Any]) -> str:
    """The name of a data set's file or folder, of a mixture those of its parts, else of what makes it."""
    parts = dataset.get("datasets")
    if isinstance(parts, Mapping):
        return " + ".join(_data_of(part) for part in parts.values())
    return Path(str(dataset["path"])).name if dataset.get("path") else str(dataset["_target_"]).rpartition(".")[2]


def _score_of(run: Run) -> str:
    """Its evaluation's primary score before and after, as `metrics.json` has it."""
    path = run.evaluation / _METRICS_FILE
    if not path.is_file():
        return "not evaluated"
    content = read_json(path)
    try:
        name, arms = content["primary"], content["arms"]
        score = content["splits"]["test"]["scores"][name]["values"]
        shown = [score[arms[side]] for side in ("baseline", "candidate")]
        is_share = content["metrics"][name]["unit"] == "%"
    except (KeyError, TypeError):
        return "evaluated, without a test score"
    return f"{name} {' → '.join(f'{100 * score:.1f}' if is_share else f'{score:.3g}' for score in shown)}"


def _padded(text: str, width: int) -> str:
    """A text with blanks up to a number of terminal columns, of which a Chinese character takes two."""
    return text + " " * (width - cell_len(text))


def _cut(line: str) -> str:
    line = line.rstrip()
    if cell_len(line) <= WIDTH:
        return line
    head = chop_cells(line, WIDTH - 3)[0]
    if f"{head[-1]}{line[len(head)]}".isascii():  # within an English word; Chinese may end anywhere
        head = head.rpartition(" ")[0]
    return f"{head.rstrip(' ,:;，：；')}..."
