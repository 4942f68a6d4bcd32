"""Every notebook runs from top to bottom on a CPU, leaves nothing in the repository, and is stored without outputs.

Trainings are of a tenth of the steps here; `make notebooks` takes them all.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vglm.config import repo_root
from vglm.worlds.questions import answer_to

NOTEBOOKS = sorted((repo_root() / "notebooks").glob("*.ipynb"))
Names = dict[str, Any]


def cells_of(notebook: Path, kind: str) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def shortened(code: str) -> str:
    return re.sub(r'"(max|save)_steps": (\d+)0\b', r'"\1_steps": \2', code)


def execute(notebook: Path) -> Names:
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    names: Names = {}
    for cell in cells_of(notebook, "code"):
        try:
            exec(compile(shortened("".join(cell["source"])), f"{notebook.name}, {cell['id']}", "exec"), names)
        finally:
            pyplot.close("all")  # as a notebook does after each cell
    return names


def check_before_and_after(names: Names) -> None:
    assert names["caption"] == answer_to(names["scene"], "caption", language="zh")
    assert names["colour"] == answer_to(names["scene"], "colour", language="zh")
    assert names["evaluation"].report.is_file()


def check_data(names: Names) -> None:
    assert names["trained"] & names["tested"]  # what a division by picture does
    studies = [{row.group for row in rows} for rows in names["parts"].values()]
    assert sum(map(len, studies)) == len(set.union(*studies))
    first = names["parts"]["test"][0].id, names["parts"]["train"][0].id, "flipped"
    assert first in {(pair.tested.id, pair.learned.id, pair.how) for pair in names["again"].look_alikes}


def check_scores(names: Names) -> None:
    assert {"before", "after", "constant answer"} <= set(names["table"])
    assert names["evaluation"].report.is_file()


def check_comparison(names: Names) -> None:
    assert [row.seeds for row in names["side_by_side"].rows] == [(1, 2), (1, 2)]
    assert len(names["side_by_side"].tests) == 1


def check_inside(names: Names) -> None:
    assert names["certificate"].passed
    assert len(names["before"].answer_tokens) == len(names["after"].of_answer())
    assert (names["before"].patches == names["after"].patches).all()


def check_served(names: Names) -> None:
    assert names["certificate"].passed
    assert names["answers"]["merged"] == names["answers"]["converted"]
    assert names["ratings"].summary.samples == names["first"]["total"] > 0


CHECKS: dict[str, Callable[[Names], None]] = {
    "01_before_and_after": check_before_and_after,
    "02_your_data": check_data,
    "03_xray": check_scores,
    "04_variable_stars": check_scores,
    "05_comparing_methods": check_comparison,
    "06_inside": check_inside,
    "07_merge_serve_rate": check_served,
}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(notebook: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells_of(notebook, "code"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = sorted(path.name for path in notebook.parent.iterdir())
    CHECKS[notebook.stem](execute(notebook))
    assert sorted(path.name for path in notebook.parent.iterdir()) == there
    assert {path.name for path in tmp_path.iterdir()} <= {"outputs"}
