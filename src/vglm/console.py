"""Record terminal output as `console.log` in the run folder.

    with recording():                    a process of the workbench: its output is recorded from here on
        keep_in(folder)                  and goes to folder/console.log, with what was printed before

The file has whole lines without colours; progress bars, which overwrite themselves, are left out. Where nothing is
recorded, as in a notebook, `keep_in` has no effect.
"""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOG_FILE = "console.log"
QUIET = "VGLM_QUIET"
"""Environment variable: only results, warnings and errors are printed."""

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def is_quiet() -> bool:
    """Whether remarks and progress bars are left out."""
    return os.environ.get(QUIET, "") not in ("", "0")


def be_quiet() -> None:
    """Leave out remarks and progress bars, in this process and those it starts."""
    os.environ[QUIET] = os.environ["TQDM_DISABLE"] = "1"  # the latter is read when tqdm is imported, later


class _Log:
    """Lines on their way to a file."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._waiting: list[str] = []

    def add(self, text: str) -> None:
        """Write lines, or keep them until there is a file for them."""
        self._waiting.append(text)
        self.flush()

    def flush(self) -> None:
        """Write buffered lines; a removed run folder or a full disk does not stop the process."""
        if self.path is not None and self._waiting and self.path.parent.is_dir():
            with suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
                file.write("".join(self._waiting))
            self._waiting = []

    def begin(self) -> None:
        """Let what comes now belong to another run, whose folder is not known yet."""
        self.path, self._waiting = None, []


class _Tee:
    """A stream whose lines go to a log as well."""

    def __init__(self, stream: Any, log: _Log) -> None:
        self._stream, self._log = stream, log
        self._line = ""
        self._is_after_bar = False

    def write(self, text: str) -> int:
        """Write to the stream, and whole lines to the log."""
        written: int = self._stream.write(text)
        plain = _CODES.sub("", text)
        if plain.startswith("\r"):  # a bar that overwrites itself
            self._is_after_bar = True
        elif not (self._is_after_bar and not plain.strip()):
            self._is_after_bar = False
            *lines, self._line = (self._line + plain).split("\n")
            for line in lines:
                self._log.add(f"{line}\n")
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_log: _Log | None = None


@contextmanager
def recording() -> Iterator[None]:
    """Record what this process prints until the block ends, including the traceback of an exception."""
    global _log
    before, streams = _log, (sys.stdout, sys.stderr)
    _log = _Log()
    sys.stdout, sys.stderr = (_Tee(stream, _log) for stream in streams)
    try:
        yield
    except Exception:
        _log.add(traceback.format_exc())
        raise
    finally:
        sys.stdout, sys.stderr = streams
        _log = before


def begin() -> None:
    """Say that another run begins in this process, as in a sweep."""
    if _log is not None:
        _log.begin()


def keep_in(folder: Path) -> None:
    """Append the recorded output, and all further output, to the folder's `console.log`."""
    if _log is not None:
        _log.path = folder / LOG_FILE
        _log.flush()
