"""What is built to be installed holds all that `vglm` reads besides its code."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from vglm.config import repo_root

ROOT = repo_root()
FOLDERS = ("conf", "recipes", "data/visualglm_tiny", "data/background_synthetic")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
READ = (".j2", ".css", ".js", ".html", ".yaml")
"""Endings of what the package's own modules read."""


def files_below(folder: str) -> set[str]:
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in paths if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from: building writes beside it."""
    folder = tmp_path_factory.mktemp("source") / "checkout"
    unwanted = shutil.ignore_patterns(
        ".*", "__pycache__", "*.egg-info", "outputs", "tests", "docs", "notebooks", "build"
    )
    shutil.copytree(ROOT, folder, ignore=unwanted)
    return folder


def build(hook: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-W", "ignore", "-c", BUILD, hook, str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


def test_a_wheel_works_without_a_checkout(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build("build_wheel", source, tmp_path)) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        assert "vglm = vglm.cli:main" in wheel.read(entry_points).decode()
    content = {name for folder in FOLDERS for name in files_below(folder)} | {"train.py", "evaluate.py"}
    assert "data/visualglm_tiny/model.safetensors" in content
    assert {f"vglm/checkout/{name}" for name in content} <= names
    package = {name.removeprefix("src/") for name in files_below("src/vglm") if name.endswith((".py", *READ))}
    assert package <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "outputs/"))]


def test_a_source_archive_can_be_built_from(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build("build_sdist", source, tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    content = {name for folder in FOLDERS for name in files_below(folder)}
    assert content | {"train.py", "evaluate.py", "setup.py", "pyproject.toml", "constraints.txt", "LICENSE"} <= names
