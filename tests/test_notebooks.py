"""Every notebook runs from top to bottom, and is stored without outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

from vglm.config import repo_root
from vglm.worlds.questions import answer_to

NOTEBOOKS = sorted((repo_root() / "notebooks").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def execute(notebook: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for cell in code_cells(notebook):
        exec("".join(cell["source"]), names)
    return names


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(notebook: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code_cells(notebook))


def test_first_look_answers_about_its_picture() -> None:
    names = execute(repo_root() / "notebooks" / "01_first_look.ipynb")
    assert names["caption"] == answer_to(names["scene"], "caption", language="zh")
    assert names["colour"] == answer_to(names["scene"], "colour", language="zh")
