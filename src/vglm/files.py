"""Read, write, lock and hash files: what is written appears whole, what is read is checked first.

    write_json(folder / "run.json", facts)               the file is there with all of it, or as it was before
    append_json_lines(path, [row]); whole_lines(path)    a file that grows line by line, and its lines after a kill
    with whole_file(path) as partial: ...                the same for what some library writes
    with new_folder(path) as partial: ...                a folder that must not exist yet
    with replaced_folder(path, marker="x.json") as partial: ...     a folder that may be there already
    with changed_folder(path, marker="x.json") as copy: ...         all changes to a folder appear together
    with claimed(path) as claim: ...                     a hidden folder to make it in, for one process at a time
    with locked(folder, "another process trains there"): ...
    remove_folder(path)                                  it is there with all of it, or gone
    facts = read_json(path, error=ConfigError)           an object, or one message that names the file
    facts = read_record(path, Record)                    the same as a dataclass, every field of the type it should have
    path = inside(folder, "images", name)                a name from an untrusted file, which may not lead elsewhere

Everything is written below a hidden folder `.<name>.<random>.partial` beside its destination and renamed at the end.
That folder is locked while it is in use, so the leftovers of a killed process can be distinguished from what another
process is writing, and are removed by whoever writes to the same destination next.
"""

import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, AnyStr, TypeVar, cast

import yaml
from filelock import FileLock, Timeout

from vglm.errors import DataError, WorkbenchError, brief

T = TypeVar("T")

LOCK_FILE = ".lock"

LARGEST_TEXT_BYTES = 2**30
"""Text files above this size are refused; none that the workbench writes comes near it."""

LONGEST_LINE = 2**26
"""Characters of a line."""

_CONTENT = "content"
_WRITE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ENAMETOOLONG,
    errno.EIO,
}
_WRITE_MESSAGES = (
    "No space left",
    "File too large",
    "file write failed",
    "PytorchStreamWriter",
    "iostream error",
    "unexpected pos",  # torch.save, where it closes what could not be written
)


# --- writing files ----------------------------------------------------------------------------------------------------


def write_text(path: Path, text: str, *, error: type[WorkbenchError] = WorkbenchError) -> None:
    """Write a text file in UTF-8 with Unix line ends; its folder is made if it is not there.

    Args:
        path: The file; one that is there is replaced.
        text: Its content. Lone surrogates, which UTF-8 cannot hold, become question marks.
        error: What to raise.

    Raises:
        WorkbenchError: Or `error`: the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8", errors="replace"), error=error)


def write_bytes(path: Path, content: bytes, *, error: type[WorkbenchError] = WorkbenchError) -> None:
    """Write a file; see `write_text`."""
    with whole_file(path, error=error) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any, *, error: type[WorkbenchError] = WorkbenchError) -> None:
    """Write a value as indented JSON, characters beyond ASCII as they are; see `write_text`."""
    pieces = json.JSONEncoder(ensure_ascii=False, indent=2).iterencode(value)
    with (
        whole_file(path, error=error) as partial,
        partial.open("w", encoding="utf-8", errors="replace", newline="\n") as file,
    ):
        file.writelines(pieces)
        file.write("\n")


def write_json_lines(path: Path, rows: Iterable[Any], *, error: type[WorkbenchError] = WorkbenchError) -> None:
    """Write values as JSON, one a line; see `write_text`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), error=error)


def append_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Add values as JSON, one a line, to a file that `whole_lines` can read even if this is killed half-way.

    Args:
        path: The file; it and its folder are made if they are not there.
        rows: The values.

    Raises:
        OSError: The file cannot be written; who made the folder, see `resumable_folder`, says so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@contextmanager
def whole_file(path: Path, *, error: type[WorkbenchError] = WorkbenchError) -> Iterator[Path]:
    """Write a file so that it appears only when complete, replacing any file of that name.

    Args:
        path: The file; its folder is made if it is not there.
        error: What to raise.

    Yields:
        Another path to write to, in an empty folder. After an exception nothing of it is left and `path` is as it was.

    Raises:
        WorkbenchError: Or `error`: the file cannot be written.
    """
    with explained(path, error=error), workplace(path) as workspace:
        partial = workspace / path.name
        yield partial
        put_in_place(partial, path)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file that was written whole in a `workplace` its name."""
    _share_as(partial.parent, partial)
    partial.replace(path)


# --- writing folders --------------------------------------------------------------------------------------------------


def check_vacant(path: Path, *, error: type[WorkbenchError] = DataError) -> None:
    """Refuse a path that is not empty; leftovers of killed processes beside it are removed.

    Raises:
        DataError: Or `error`: `path` is a file, or a folder with something in it.
    """
    _sweep(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise error(f"{path} exists already and is not an empty folder. Name a new folder, or remove it first.")


@contextmanager
def new_folder(path: Path, *, error: type[WorkbenchError] = DataError) -> Iterator[Path]:
    """Have a folder appear when it is whole.

    Args:
        path: The folder, which must not exist or be empty; its parents are made.
        error: What to raise.

    Yields:
        The folder to write to; after an exception nothing of it is left.

    Raises:
        DataError: Or `error`: `path` holds something already, or cannot be written.
    """
    check_vacant(path, error=error)
    with explained(path, error=error), workplace(path) as workspace:
        content = workspace / _CONTENT
        content.mkdir()
        yield content
        _share_as(workspace, content)
        check_vacant(path, error=error)  # another process may have been quicker
        if path.exists():
            path.rmdir()
        content.rename(path)


@contextmanager
def replaced_folder(path: Path, *, marker: str, error: type[WorkbenchError] = DataError) -> Iterator[Path]:
    """Make a folder that appears only when complete, replacing an earlier one.

    Args:
        path: The folder to make or to replace.
        marker: A file that every such folder holds; a folder with other things in it is never replaced.
        error: What to raise.

    Yields:
        The folder to write to. After an exception nothing of it is left and `path` is as it was.

    Raises:
        DataError: Or `error`: `path` is a file or a folder of other things, or cannot be written.
    """
    _check_replaceable(path, marker, error)
    with explained(path, error=error), workplace(path) as workspace:
        content = workspace / _CONTENT
        content.mkdir()
        yield content
        _share_as(workspace, content)
        _put_in_place(content, path)


@contextmanager
def resumable_folder(
    path: Path, *, marker: str, key: object, error: type[WorkbenchError] = DataError
) -> Iterator[Path]:
    """As `replaced_folder`, but what was written before an exception or a kill is there again at the next try.

    The folder to write to is `.<name>.<hash of key>.work` beside `path`. After an exception it stays if it holds
    records. It is locked for as long as it is written to. Once one is complete, those left by other keys are removed,
    except where another process is writing to them.

    Args:
        path: The folder to make or to replace.
        marker: A file that every such folder holds.
        key: All that the content depends on, JSON-able: only a try with an equal key finds the work of an earlier one.
        error: What to raise.

    Yields:
        The folder to write to: empty but for its lock, or as an earlier try left it.

    Raises:
        DataError: Or `error`: as `replaced_folder`; or another process is making the same folder with an equal key.
    """
    _check_replaceable(path, marker, error)
    digest = hashlib.sha256(json.dumps(key, ensure_ascii=False, sort_keys=True, default=str).encode()).hexdigest()
    work = path.with_name(f".{path.name}.{digest[:16]}.work")
    with explained(path, error=error):
        lock = _lock(work)
    if lock is None:
        raise error(
            f"{path} is being made by another process right now, with the same settings. Wait until that one is done,"
            " or pass another folder. (Several processes share the work if one torchrun starts them.)"
        )
    try:
        with explained(path, error=error):
            recover(path)
            yield work
            _put_in_place(work, path)
            (path / LOCK_FILE).unlink(missing_ok=True)
    except BaseException:
        if not any(work.rglob("*.jsonl")):
            shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        lock.release()
    for stale in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 16}.work"):
        _remove_unless_locked(stale)


@contextmanager
def changed_folder(path: Path, *, marker: str, error: type[WorkbenchError] = DataError) -> Iterator[Path]:
    """Have all changes to a folder appear together, or none.

    Args:
        path: The folder.
        marker: A file that every such folder holds.
        error: What to raise.

    Yields:
        A copy to change, whose files are links to the originals: write new ones in their place, see `whole_file`.
        After an exception nothing of it is left and `path` is as it was.

    Raises:
        DataError: Or `error`: `path` holds no `marker` or cannot be written, or another process is changing it.
    """
    if not (path / marker).is_file():
        raise error(f"{path} has no {marker}, so it is not changed. Pass the folder that holds it.")
    path = path.resolve()  # of a link, what it stands for
    with claimed(path, error=error) as workspace:
        if not os.access(path, os.W_OK):
            raise error(f"{path} cannot be written: it is read-only. Change its permissions, or copy it.")
        content, before = workspace / _CONTENT, path.stat().st_ino
        _link_folder(path, content)
        yield content
        if not path.exists() or path.stat().st_ino != before:
            raise error(f"{path} was replaced by another process meanwhile. Give the same command again.")
        _put_in_place(content, path)


@contextmanager
def claimed(path: Path, *, error: type[WorkbenchError] = WorkbenchError) -> Iterator[Path]:
    """Keep other processes from making the same file or folder at the same time.

    Args:
        path: What is to be made.
        error: What to raise.

    Yields:
        An empty hidden folder beside `path` to make it in, which is removed afterwards.

    Raises:
        WorkbenchError: Or `error`: another process claims it, or it cannot be written.
    """
    claim = path.with_name(f".{path.name}.claimed")
    with explained(path, error=error):
        lock = _lock(claim)
    if lock is None:
        raise error(f"{path} is being written by another process right now. Wait until it is done, or choose another.")
    try:
        with explained(path, error=error):
            recover(path)
            for left in set(claim.iterdir()) - {claim / LOCK_FILE}:  # by a process that was killed
                _remove(left)
            yield claim
    finally:
        shutil.rmtree(claim, ignore_errors=True)
        lock.release()


def _link_folder(source: Path, target: Path) -> None:
    """Copy a folder; files are hard links where the file system has such, and symbolic links are kept."""
    target.mkdir()
    for path in source.iterdir():
        if path.is_dir() and not path.is_symlink():
            _link_folder(path, target / path.name)
        elif path.name != LOCK_FILE:
            try:
                os.link(path, target / path.name, follow_symlinks=False)
            except OSError:
                shutil.copy2(path, target / path.name, follow_symlinks=False)


@contextmanager
def locked(folder: Path, message: str, *, error: type[WorkbenchError] = WorkbenchError) -> Iterator[None]:
    """Keep other processes from doing the same in a folder at the same time.

    Args:
        folder: An existing folder; it holds the file `.lock` meanwhile.
        message: What to say where another process is at it.
        error: What to raise.

    Raises:
        WorkbenchError: Or `error`, with `message`: another process holds the lock; or the folder cannot be written.
    """
    with explained(folder, error=error):
        lock = _lock(folder)
    if lock is None:
        raise error(message)
    try:
        yield
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)  # while it is held, so that no other process can hold it
        lock.release()


def is_write_failure(error: BaseException) -> bool:
    """Whether an exception says that something cannot be written: no space, no permission."""
    if isinstance(error, OSError) and error.errno in _WRITE_ERRORS:
        return True
    return any(text in str(error) for text in _WRITE_MESSAGES)


@contextmanager
def explained(path: Path, *, error: type[WorkbenchError] = WorkbenchError) -> Iterator[None]:
    """Replace a library's exception by one that names the file or folder that cannot be written.

    Args:
        path: As the user knows it.
        error: What to raise.

    Raises:
        WorkbenchError: Or `error`.
    """
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as failure:
        if not is_write_failure(failure):
            raise
        reason = getattr(failure, "strerror", None) or brief(failure)
        raise error(f"{path} cannot be written: {reason}. Make room, or choose another folder.") from failure


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """A locked folder beside `path` that holds what is not whole yet; what killed processes left there is removed.

    For many small files, which are put in place from one such folder; `whole_file` makes one for each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    _sweep(path)
    lock = None
    while lock is None:  # None: swept away by another process before it was locked
        workspace = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        lock = _lock(workspace)
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        lock.release()


def remove_folder(path: Path, *, error: type[WorkbenchError] = WorkbenchError) -> None:
    """Remove a folder atomically, so that a killed process leaves no part of it under its name.

    Args:
        path: The folder.
        error: What to raise.

    Raises:
        WorkbenchError: Or `error`: it cannot be removed.
    """
    with explained(path, error=error), workplace(path) as workspace:
        path.replace(workspace / _CONTENT)


def sweep_inside(folder: Path) -> None:
    """Remove the temporary folders that killed processes left in a folder."""
    for left in folder.glob(".*.partial"):
        with suppress(OSError):
            _remove_unless_locked(left)


def _share_as(template: Path, content: Path) -> None:
    """Let those read what was written who may read its folder: some libraries make files for their owner alone."""
    mode = stat.S_IMODE(template.stat().st_mode) & 0o666
    for file in content.rglob("*") if content.is_dir() else [content]:
        if file.is_file() and not file.is_symlink():
            file.chmod(mode)


def _lock(folder: Path) -> FileLock | None:
    """Make a folder and lock it; None where another process has."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except FileNotFoundError:  # another process finished meanwhile and took the folder away
            continue
        if (folder / LOCK_FILE).exists():
            return lock
        lock.release()  # of a file that another process removed


def _sweep(path: Path) -> None:
    """Remove what processes that were killed left beside a destination."""
    name = glob.escape(path.name)
    for left in (*path.parent.glob(f".{name}.*.partial"), *path.parent.glob(f".{name}.claimed")):
        with suppress(OSError):  # of a folder that cannot be written, which is reported elsewhere
            _remove_unless_locked(left)


def _remove_unless_locked(folder: Path) -> None:
    if folder.is_dir() and (lock := _lock(folder)) is not None:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _check_replaceable(path: Path, marker: str, error: type[WorkbenchError]) -> None:
    if path.exists() and not path.is_dir():
        raise error(f"{path} is a file; the output must be a folder. Pass another folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise error(f"{path} holds other files and no {marker}, so it is not replaced. Pass a new folder.")
    with explained(path, error=error):
        path.parent.mkdir(parents=True, exist_ok=True)


def _put_in_place(new: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old")
    _remove(old)
    if path.exists():
        path.replace(old)
    new.replace(path)
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def recover(path: Path) -> None:
    """Undo half of an exchange of folders: a process was killed between its two renames."""
    old = path.with_name(f".{path.name}.old")
    if old.is_dir() and not path.exists():
        old.replace(path)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_text(
    path: Path,
    *,
    error: type[WorkbenchError] = DataError,
    advice: str = "Restore the file.",
    limit: int = LARGEST_TEXT_BYTES,
) -> str:
    """Read a text file in UTF-8, with or without byte order mark.

    Args:
        path: The file. Pipes and devices, which may never end, are refused.
        error: What to raise.
        advice: What the message tells the user to do.
        limit: How many bytes it may have.

    Raises:
        DataError: Or `error`: the file is missing, too large, no regular file or no UTF-8.
    """
    try:
        return read_bytes(path, error=error, advice=advice, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise error(f"{path} is damaged: byte {failure.start:,} is no UTF-8 text. {advice}") from failure


def read_bytes(
    path: Path,
    *,
    error: type[WorkbenchError] = DataError,
    advice: str = "Restore the file.",
    limit: int = LARGEST_TEXT_BYTES,
) -> bytes:
    """Read a file whole; see `read_text`.

    Raises:
        DataError: Or `error`: the file is missing, too large or no regular file.
    """
    check_regular(path, error=error, advice=advice, limit=limit)
    try:
        return path.read_bytes()
    except OSError as failure:
        raise error(f"{path} cannot be read: {failure.strerror}. {advice}") from failure


def check_regular(
    path: Path,
    *,
    error: type[WorkbenchError] = DataError,
    advice: str = "Restore the file.",
    limit: int | None = None,
) -> None:
    """Refuse to open what is not a file on a disk: a pipe or a device may let its reader wait for ever.

    Args:
        path: The file.
        error: What to raise.
        advice: What the message tells the user to do.
        limit: How many bytes it may have; any number if None.

    Raises:
        DataError: Or `error`: the file is missing, too large or no regular file.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or brief(failure)
        raise error(f"{path} cannot be read: {reason}. {advice}") from failure
    if not stat.S_ISREG(state.st_mode):
        raise error(f"{path} is no regular file. {advice}")
    if limit is not None and state.st_size > limit:
        raise error(f"{path} has {state.st_size:,} bytes; at most {limit:,} were expected. {advice}")


def lines_of(
    file: IO[AnyStr], path: Path, *, longest: int = LONGEST_LINE, error: type[WorkbenchError] = DataError
) -> Iterator[AnyStr]:
    """Go through an open file line by line, without taking up one that never ends.

    Args:
        file: The file, text or bytes.
        path: Its name, for the message.
        longest: How many characters or bytes a line may have.
        error: What to raise.

    Raises:
        DataError: Or `error`: a line is longer.
    """
    while line := file.readline(longest + 1):
        if len(line) > longest:
            raise error(f"{path} has a line of more than {longest:,} characters. Break it up.")
        yield line


def whole_lines(path: Path, *, repair: bool = True) -> list[str]:
    """The lines of a file that `append_json_lines` fills; one that a kill cut off is no line.

    Args:
        path: The file, in UTF-8.
        repair: Take such a line out of the file, so that it can be filled on.

    Raises:
        UnicodeDecodeError: A whole line is not UTF-8.
    """
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if repair and whole < len(content):
        os.truncate(path, whole)
    return [line for line in content[:whole].decode("utf-8").split("\n") if line]


def read_json(
    path: Path, *, error: type[WorkbenchError] = DataError, advice: str = "Restore the file."
) -> dict[str, Any]:
    """Read a JSON object; see `read_text`.

    Raises:
        DataError: Or `error`: as `read_text`, or it is not JSON, or something else than an object.
    """
    return parse_json_object(read_text(path, error=error, advice=advice), str(path), error=error, advice=advice)


def read_record(
    path: Path,
    kind: type[T],
    *,
    error: type[WorkbenchError] = DataError,
    fault: str = "is damaged",
    advice: str = "Restore the file.",
    former: Mapping[str, str] | None = None,
) -> T:
    """Read JSON into a dataclass, or another annotated type; see `parse_record` and `read_text`."""
    text = read_text(path, error=error, advice=advice)
    return parse_record(text, kind, str(path), error=error, fault=fault, advice=advice, former=former)


def parse_record(
    text: str,
    kind: type[T],
    source: str,
    *,
    error: type[WorkbenchError] = DataError,
    fault: str = "is damaged",
    advice: str = "Restore the file.",
    former: Mapping[str, str] | None = None,
) -> T:
    """Parse JSON into an annotated type.

    Args:
        text: JSON.
        kind: A dataclass, or another type such as `list[Dataclass]`. Keys that it does not have are passed over.
        source: Where it stands, for the message.
        error: What to raise.
        fault: What the message says of the source.
        advice: What it tells the user to do.
        former: Names of keys in older files -> today's, at any depth.

    Raises:
        DataError: Or `error`: it is not JSON, or values are missing or of another type; the first ones are named.
    """
    from pydantic import ValidationError

    try:
        value: T = _adapter(cast(Any, kind)).validate_json(_renamed(text, former or {}), strict=True)
    except ValidationError as failure:
        problems = failure.errors(include_url=False, include_input=False, include_context=False)
        shown = [
            f"{brief(ValueError('.'.join(map(str, problem['loc']))), 80)}: {brief(ValueError(problem['msg']))}"
            if problem["loc"]
            else brief(ValueError(problem["msg"]))
            for problem in problems[:3]
        ]
        more = f"; and {len(problems) - 3:,} more" if len(problems) > 3 else ""
        raise error(f"{source} {fault}: {'; '.join(shown)}{more}. {advice}") from failure
    return value


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """JSON with today's names for its keys; what is not JSON stays."""
    if not any(f'"{name}"' in text for name in names):
        return text
    try:
        return json.dumps(json.loads(text, object_hook=lambda values: {names.get(k, k): values[k] for k in values}))
    except (ValueError, RecursionError):
        return text


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # takes a moment to import

    return TypeAdapter(kind)


class _PlainLoader(yaml.SafeLoader):
    """YAML without references, since a few lines of them can expand to more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("YAML aliases (*name), which the workbench never writes")
        return super().compose_node(parent, index)


def parse_yaml(
    text: str, source: str, *, error: type[WorkbenchError] = DataError, advice: str = "Restore the file."
) -> Any:
    """Parse YAML without references; see `parse_json_object`.

    Raises:
        DataError: Or `error`: it is not YAML, or has references.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as failure:
        raise error(f"{source} is damaged: {brief(failure)}. {advice}") from failure


def inside(folder: Path, *names: str, error: type[WorkbenchError] = DataError) -> Path:
    """A path below a folder that comes from elsewhere, whose names and links may not lead out of it.

    Args:
        folder: The folder.
        names: Of folders and the file below it, as a file in it may have them.
        error: What to raise.

    Raises:
        DataError: Or `error`: the path, which need not exist, lies outside.
    """
    path = folder.joinpath(*names)
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # no possible name, or links in a circle
        is_inside = False
    if not is_inside:
        shown = brief(ValueError("/".join(names)))
        raise error(f"{folder}: {shown!r} leads out of this folder. Put a copy of what it stands for in its place.")
    return path


def parse_json_object(
    text: str, source: str, *, error: type[WorkbenchError] = DataError, advice: str = "Restore the file."
) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        text: JSON.
        source: Where it stands, for the message.
        error: What to raise.
        advice: What the message tells the user to do.

    Raises:
        DataError: Or `error`: it is not JSON, is nested too deeply, or is something else than an object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as failure:
        raise error(f"{source} is damaged: {brief(failure)}. {advice}") from failure
    if not isinstance(value, dict):
        raise error(f"{source} must hold a JSON object, found {type(value).__name__}. {advice}")
    return value


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
