"""What was computed from files is remembered for as long as they stay as they are, and no longer."""

import json
import os
import time
from pathlib import Path

import pytest

from vglm.caching import VARIABLE, cache_folder, remembered


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was last changed an hour ago, and an empty cache."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    path = tmp_path / "file"
    _write(path, "content")
    return path


def _write(path: Path, text: str, age_seconds: float = 3600) -> None:
    path.write_text(text)
    then = time.time() - age_seconds
    os.utime(path, (then, then))


class Counting:
    """Reads a file, and how often it did."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, 0

    def __call__(self) -> dict[str, str]:
        self.times += 1
        return {"text": self.path.read_text()}

    def ask(self, facts: object = 0) -> str:
        return remembered("identities", [self.path], facts, self)["text"]


def test_computed_once(file: Path) -> None:
    reader = Counting(file)
    assert [reader.ask() for _ in range(3)] == ["content"] * 3
    assert reader.times == 1
    assert reader.ask(facts="others") == "content"
    assert reader.times == 2


def test_a_change_of_the_file_is_seen(file: Path) -> None:
    reader = Counting(file)
    reader.ask()
    before = file.stat()
    file.write_text("CONTENT")  # as long as before, and its time set back
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reader.ask() == "CONTENT"
    (file.parent / "other").write_text("another")
    os.utime(file.parent / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    (file.parent / "other").replace(file)
    assert reader.ask() == "another"
    link = file.parent / "link"
    link.symlink_to(file)
    assert Counting(link).ask() == "another"


def test_a_file_that_may_change_again_unseen_is_not_remembered(file: Path) -> None:
    reader = Counting(file)
    _write(file, "young", age_seconds=0)
    assert [reader.ask(), reader.ask()] == ["young"] * 2
    assert reader.times == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"value": {"text": "forged"}}', "\0" * 50])
def test_a_damaged_entry_is_made_again(file: Path, damage: str) -> None:
    reader = Counting(file)
    reader.ask()
    (entry,) = cache_folder("identities").glob("*.json")
    entry.write_text(damage)
    assert reader.ask() == "content"
    assert reader.times == 2
    assert json.loads(entry.read_text())["value"] == {"text": "content"}
    assert reader.ask() == "content"
    assert reader.times == 2


def test_a_cache_that_cannot_be_written_costs_time_only(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(file / "below a file"))
    reader = Counting(file)
    assert [reader.ask(), reader.ask()] == ["content"] * 2
