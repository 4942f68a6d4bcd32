"""What documents say of the code is there."""

import ast
import re
import shlex

import pytest

from vglm.cli import command_line
from vglm.config import repo_root


def test_every_promise_of_security_names_a_test_that_is_there() -> None:
    text = (repo_root() / "SECURITY.md").read_text(encoding="utf-8")
    promises = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert promises
    for line in promises:
        named = re.findall(r"`(tests/\w+\.py)::(\w+)`", line)
        assert named, f"no test shows: {line}"
        for file, name in named:
            tree = ast.parse((repo_root() / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                f"{file} has no {name}"
            )


def test_every_command_about_serving_is_one() -> None:
    text = (repo_root() / "docs" / "serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"`(?:torchrun [^`]* -m )?vglm ([^`]+)`", text) + re.findall(r"^vglm (.+)$", text, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        try:
            command_line().parse_args(shlex.split(line, comments=True))
        except SystemExit:
            pytest.fail(f"vglm {line}: no such command or option")
