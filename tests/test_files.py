"""Files appear whole, what was killed is swept up, what is read is checked first."""

import errno
import json
import multiprocessing
import os
import signal
import stat
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from vglm.errors import LONGEST_MESSAGE, CheckpointError, ConfigError, DataError, WorkbenchError, brief, message_of
from vglm.files import (
    LOCK_FILE,
    changed_folder,
    claimed,
    explained,
    file_sha256,
    inside,
    locked,
    new_folder,
    parse_yaml,
    read_json,
    read_record,
    read_text,
    replaced_folder,
    resumable_folder,
    whole_file,
    write_json,
    write_json_lines,
    write_text,
)


def _write_and_fail(path: Path) -> None:
    path.write_text("half")
    raise KeyError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_json_and_json_lines_are_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "deep/er/a.txt", "一\n")
    write_json(tmp_path / "b.json", {"键": 1})
    write_json_lines(tmp_path / "c.jsonl", [{"a": 1}, [2]])
    assert (tmp_path / "deep/er/a.txt").read_bytes() == "一\n".encode()
    assert read_json(tmp_path / "b.json") == {"键": 1}
    assert [json.loads(line) for line in read_text(tmp_path / "c.jsonl").splitlines()] == [{"a": 1}, [2]]
    assert names(tmp_path) == ["b.json", "c.jsonl", "deep"]


def test_a_file_is_as_it_was_after_an_exception_and_new_after_success(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    with pytest.raises(KeyError), whole_file(path) as partial:
        _write_and_fail(partial)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_file_has_the_rights_of_any_new_file_whatever_its_writer_gave_it(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as partial:
        partial.write_text("x")
        partial.chmod(0o600)
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_a_write_failure_names_the_place_and_other_exceptions_stay_their_own(tmp_path: Path) -> None:
    for failure, reason in (
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), r"No space left on device\. Make room"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "PytorchStreamWriter failed"),
    ):
        writing = explained(tmp_path / "x", error=CheckpointError)
        with pytest.raises(CheckpointError, match=f"x cannot be written: {reason}"), writing:
            raise failure
    with pytest.raises(RuntimeError, match="another"), explained(tmp_path / "x"):
        raise RuntimeError("another")
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="cannot be written"):
        write_text(tmp_path / "file/below", "x")


@pytest.mark.parametrize("folder_of", [new_folder, lambda path: replaced_folder(path, marker="m")])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, folder_of) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(KeyError), folder_of(tmp_path / "f") as new:
        _write_and_fail(new / "m")
    assert names(tmp_path) == []
    with folder_of(tmp_path / "f") as new:
        (new / "m").write_text("whole")
        assert not (tmp_path / "f").exists()
    assert names(tmp_path) == ["f"]
    assert names(tmp_path / "f") == ["m"]


def test_a_new_folder_takes_no_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/x").write_text("")
    taken = new_folder(tmp_path / "f", error=ConfigError)
    with pytest.raises(ConfigError, match="f exists already and is not an empty folder"), taken:
        raise AssertionError
    (tmp_path / "f/x").unlink()
    with new_folder(tmp_path / "f"):
        pass


def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/x").write_text("mine")
    for folder in (replaced_folder(tmp_path / "f", marker="m"), resumable_folder(tmp_path / "f", marker="m", key=1)):
        with pytest.raises(DataError, match="holds other files and no m"), folder:
            raise AssertionError
    assert names(tmp_path / "f") == ["x"]


def _fill_and_wait(path: Path, started: Path) -> None:
    with new_folder(path) as new:
        (new / "half").write_text("")
        started.write_text("")
        time.sleep(600)


def _in_background(path: Path, started: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=_fill_and_wait, args=(path, started))
    process.start()
    while not started.exists():
        time.sleep(0.01)
    return process


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    process = _in_background(tmp_path / "f", tmp_path / "started")
    with new_folder(tmp_path / "f") as new:  # beside the other
        (new / "a").write_text("")
        assert len(list(tmp_path.glob(".f.*.partial"))) == 2
    assert len(list(tmp_path.glob(".f.*.partial"))) == 1
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (tmp_path / "f/a").unlink()
    with new_folder(tmp_path / "f"):
        pass
    assert names(tmp_path) == ["f", "started"]


def test_half_an_exchange_of_folders_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".f.old").mkdir()
    (tmp_path / ".f.old/m").write_text("earlier")
    with pytest.raises(KeyError), replaced_folder(tmp_path / "f", marker="m"):
        raise KeyError
    assert (tmp_path / "f/m").read_text() == "earlier"


def test_what_was_written_before_an_exception_is_there_again_for_the_same_key(tmp_path: Path) -> None:
    with pytest.raises(KeyError), resumable_folder(tmp_path / "f", marker="m", key=[1]) as work:
        _write_and_fail(work / "a.jsonl")
    with resumable_folder(tmp_path / "f", marker="m", key=[2]) as work:
        assert names(work) == [LOCK_FILE]
        second = resumable_folder(tmp_path / "f", marker="m", key=[2])
        with pytest.raises(DataError, match="being made by another process"), second:
            raise AssertionError
        (work / "m").write_text("")
    assert names(tmp_path) == ["f"]  # the work of the other key is gone


def test_a_lock_is_held_by_one_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        locked(tmp_path, "busy"),
        pytest.raises(ConfigError, match="busy"),
        locked(tmp_path, "busy", error=ConfigError),
    ):
        raise AssertionError
    with locked(tmp_path, "busy"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff{}", "byte 0 is no UTF-8"),
        (b"{" * 100_000, "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[1]", "must hold a JSON object, found list"),
        (b"{}{}", "is damaged: Extra data"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is damaged"),
    ],
)
def test_a_damaged_object_is_refused_with_its_file_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"a\.json .*{message}.* Do this\.") as caught:
        read_json(tmp_path / "a.json", error=ConfigError, advice="Do this.")
    assert len(str(caught.value)) < LONGEST_MESSAGE


def test_pipes_devices_and_missing_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(DataError, match=f"{name} is no regular file"):
            read_text(tmp_path / name)
    with pytest.raises(DataError, match="none cannot be read: No such file"):
        read_text(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read: embedded null"):
        read_text(tmp_path / "a\0b")
    write_text(tmp_path / "large", "12345")
    with pytest.raises(DataError, match="has 5 bytes; at most 4 were expected"):
        read_text(tmp_path / "large", limit=4)


def test_messages_are_short_and_printable() -> None:
    text = message_of(ConfigError("a\x1b[31m\ud83d\n" + "x" * 50_000 + "\nMend the file."))
    assert len(text) == LONGEST_MESSAGE
    assert text.endswith("\nMend the file.")
    assert "(50,0" in text
    assert "\x1b" not in text
    text.encode()
    assert len(brief(ValueError("x" * 1000))) < 220
    assert brief(ValueError()) == "ValueError"


def test_a_file_is_hashed_by_its_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")


def _change_and_fail(copy: Path) -> None:
    write_text(copy / "m", "new")
    (copy / "deep" / "a").unlink()
    raise KeyError


def _replace_folder(path: Path) -> None:
    with replaced_folder(path, marker="m") as other:
        (other / "m").write_text("theirs")


def test_changes_to_a_folder_appear_together_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write_text(folder / "m", "old")
    write_text(folder / "deep" / "a", "old")
    (folder / "link").symlink_to("m")
    with pytest.raises(KeyError), changed_folder(folder, marker="m") as copy:
        _change_and_fail(copy)
    assert (read_text(folder / "m"), read_text(folder / "deep" / "a")) == ("old", "old")
    assert names(folder) == ["deep", "link", "m"]
    with changed_folder(folder, marker="m") as copy:
        write_text(copy / "deep" / "a", "new")
        assert read_text(folder / "deep" / "a") == "old"
    assert (read_text(folder / "m"), read_text(folder / "deep" / "a")) == ("old", "new")
    assert (folder / "link").is_symlink()
    assert names(tmp_path) == ["f"]
    with pytest.raises(DataError, match="has no other"), changed_folder(folder, marker="other"):
        raise AssertionError


def test_changes_are_not_put_over_what_another_process_has_put_there(tmp_path: Path) -> None:
    write_text(tmp_path / "f" / "m", "old")
    with (
        pytest.raises(DataError, match="was replaced by another process"),
        changed_folder(tmp_path / "f", marker="m"),
    ):
        _replace_folder(tmp_path / "f")
    assert read_text(tmp_path / "f" / "m") == "theirs"
    assert names(tmp_path) == ["f"]


def test_a_place_is_claimed_by_one_process_and_swept_when_that_was_killed(tmp_path: Path) -> None:
    with (
        claimed(tmp_path / "f") as claim,
        pytest.raises(ConfigError, match="f is being written by another process right now"),
        claimed(tmp_path / "f", error=ConfigError),
    ):
        raise AssertionError
    assert not claim.exists()
    write_text(claim / "half", "")
    (claim / "link").symlink_to(tmp_path)
    with claimed(tmp_path / "f") as claim:
        assert names(claim) == [LOCK_FILE]
    assert names(tmp_path) == []


def test_names_from_elsewhere_stay_inside(tmp_path: Path) -> None:
    write_text(tmp_path / "f" / "deep" / "a", "")
    (tmp_path / "f" / "out").symlink_to(tmp_path)
    (tmp_path / "f" / "in").symlink_to("deep")
    (tmp_path / "f" / "loop").symlink_to("loop")
    for good in (("deep", "a"), ("in", "a"), ("deep", "not there"), ("deep/../deep/a",)):
        assert inside(tmp_path / "f", *good) == (tmp_path / "f").joinpath(*good)
    for bad in (("..", "f2"), ("out",), ("out", "x"), ("/etc/passwd",), ("deep", "../../x"), ("a\0b",), ("loop", "x")):
        with pytest.raises(ConfigError, match="leads out of this folder") as caught:
            inside(tmp_path / "f", *bad, error=ConfigError)
        assert len(str(caught.value)) < LONGEST_MESSAGE


@dataclass(frozen=True)
class _Part:
    number: int
    pairs: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class _Whole:
    part: _Part
    name: str | None = None


def test_json_becomes_a_dataclass_or_one_message(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, '{"part": {"number": 1, "pairs": [["a", 2]], "more": 0}}')
    assert read_record(path, _Whole) == _Whole(_Part(1, (("a", 2.0),)))
    for content, message in {
        '{"part": {"number": "1"}}': r"part\.number: Input should be a valid integer",
        '{"part": {"number": true}}': r"part\.number: Input should be a valid integer",
        '{"part": {"number": 1, "pairs": [["a"]]}}': r"part\.pairs\.0\.1: Field required",
        '{"name": 5}': r"part: Field required; name: Input should be a valid string",
        "{": "Invalid JSON",
        "[" * 9999: "Invalid JSON",
        '{"part": {"number": 1, "pairs": [' + "5," * 9999 + "5]}}": "and 9,997 more",
        '{"part": {"number": ' + "1" * 9999 + "}}": "Invalid JSON",
    }.items():
        write_text(path, content)
        with pytest.raises(ConfigError, match=rf"a\.json is damaged: .*{message}.* Do this\.") as caught:
            read_record(path, _Whole, error=ConfigError, advice="Do this.")
        assert len(str(caught.value)) < LONGEST_MESSAGE


def test_yaml_with_references_is_refused() -> None:
    assert parse_yaml("a: [1, {b: c}]", "here") == {"a": [1, {"b": "c"}]}
    laughs = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghij"))
    for text in (f"a: &a [x]\n{laughs}", "[", "a: 2026-99-99", "{" * 9999, "!!python/name:os.system"):
        with pytest.raises(ConfigError, match=r"here is damaged: .* Do this\.") as caught:
            parse_yaml(text, "here", error=ConfigError, advice="Do this.")
        assert len(str(caught.value)) < LONGEST_MESSAGE
