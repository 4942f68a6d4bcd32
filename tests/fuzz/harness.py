"""Worker processes with limits on time and memory, and what counts as a finding.

A case is a copy of a good input with a change. A worker reads it and answers

    ok          it was accepted
    refused     with one WorkbenchError whose message has at most 1,000 characters
    <finding>   another exception (its name), LONG, LEFT (half-written files), CHANGED (the input), OUTSIDE (a write, a
                process, a connection), EXECUTED (code of the input), MEMORY; and where it did not answer: HANG, CRASH
"""

import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vglm.errors import LONGEST_MESSAGE, WorkbenchError, message_of

from .areas import AREAS
from .inputs import settle
from .mutations import copy_folder, mutate_folder

SECONDS = 20.0
"""Of the processor, for one input."""

PATIENCE_SECONDS = 120.0
"""By the clock, until a worker counts as hanging: much more than any input takes, on a machine with other work too."""

MEMORY_BYTES = 1500 << 20
"""What reading one small input may take."""

_ADDRESS_SPACE_BYTES = 8 << 30
_PRELOADED = ["vglm.data.loading", "vglm.data.feature_cache", "torch"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.rename": (0, 2), "os.remove": (0, 1), "os.mkdir": (0, 1), "os.rmdir": (0, 1), "os.symlink": (1, 2)}
_OTHERS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")


@dataclass(frozen=True)
class Case:
    """One changed input.

    Attributes:
        area: Its name in `AREAS`.
        seed: Of the change, and of how it is read.
        change: What was done.
    """

    area: str
    seed: str
    change: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a case; see the module."""

    case: Case
    outcome: str
    where: str = ""
    text: str = ""
    seconds: float = 0.0

    @property
    def is_finding(self) -> bool:
        return self.outcome not in ("ok", "refused")


class Watch:
    """What a case does beyond its own folder, told by Python's audit events."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.executable: str = "\0"
        self.seen: list[tuple[str, str]] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.allowed:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITES:
                self._check(os.fsdecode(path))
        elif event in _CHANGES:
            for path in arguments[slice(*_CHANGES[event])]:
                if isinstance(path, str | bytes) and arguments[-1] == -1:  # else relative to a folder that is open
                    self._check(os.fsdecode(path))
        elif event in _OTHERS and arguments[0] != "git":  # which says what code this is
            self.seen.append(("OUTSIDE", f"{event} {arguments[:2]!r}"[:300]))
        elif event == "exec" and str(getattr(arguments[0], "co_filename", "")).startswith(self.executable):
            self.seen.append(("EXECUTED", str(arguments[0].co_filename)))

    def _check(self, path: str) -> None:
        absolute = os.path.abspath(path)
        if not absolute.startswith((*self.allowed, "/dev/", "/proc/")):
            self.seen.append(("OUTSIDE", absolute))


def serve(connection: Connection, sandbox: Path) -> None:
    """A worker's loop: read the case that lies in the sandbox, answer, wait for the next."""
    settle(sandbox)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft = _status("VmSize") + _ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    watch = Watch()
    while (case := connection.recv()) is not None:
        connection.send(_read(case, sandbox, watch))


def _read(case: Case, sandbox: Path, watch: Watch) -> Result:
    area = AREAS[case.area]
    folder = sandbox / "d"
    os.environ["VGLM_CACHE"] = str(sandbox / "cache")
    before, names = _snapshot(folder), _names(sandbox)
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is counted from here
    memory = _status("VmRSS")
    watch.seen, watch.executable, watch.allowed = [], str(folder), (str(sandbox), tempfile.gettempdir())
    start, outcome, where, text = time.process_time(), "ok", "", ""
    try:
        area.read(folder, random.Random(case.seed))
    except WorkbenchError as error:
        outcome, text = "refused", message_of(error)
        if len(text) > LONGEST_MESSAGE + 10 or not text.strip():
            outcome = "LONG"
    except BaseException as error:
        outcome, text, where = type(error).__name__, str(error)[:500], _frames_of(error)
    watch.allowed = ()
    seconds = time.process_time() - start
    if outcome in ("ok", "refused"):
        left = [name for name in _names(sandbox) - names if name.endswith((".partial", ".part", ".tmp"))]
        if watch.seen:
            outcome, where = watch.seen[0]
        elif seconds > SECONDS:
            outcome = "HANG"
        elif (grown := _status("VmHWM") - memory) > MEMORY_BYTES:
            outcome, where = "MEMORY", f"{grown >> 20} MB"
        elif left:
            outcome, where = "LEFT", left[0]
        elif not area.changes_input and _snapshot(folder) != before:
            outcome = "CHANGED"
    return Result(case, outcome, where, text, round(seconds, 2))


def _frames_of(error: BaseException) -> str:
    """Where in the workbench an exception came from, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/src/vglm/" in frame.filename] or frames
    shown = {f"{Path(frame.filename).name}:{frame.lineno} {frame.name}": None for frame in (ours[-1], frames[-1])}
    return " < ".join(shown)


def _names(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    states = {path: path.lstat() for path in folder.rglob("*")}
    return {
        str(path): (state.st_mode, state.st_size, state.st_mtime_ns)
        for path, state in states.items()
        if not path.is_dir()
    }


def _status(field: str) -> int:
    """A figure of this process in bytes."""
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(f"{field}:"))


class Worker:
    """A worker process; another takes its place when it hangs or ends."""

    def __init__(self, sandbox: Path) -> None:
        self.context: Any = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(_PRELOADED)  # each worker is a fork of a process that has them
        self.sandbox = sandbox
        self.process: Any = None

    def ask(self, case: Case) -> Result:
        if self.process is None:
            self.connection, theirs = self.context.Pipe()
            self.process = self.context.Process(target=serve, args=(theirs, self.sandbox), daemon=True)
            self.process.start()
            theirs.close()
        self.connection.send(case)
        try:
            if self.connection.poll(PATIENCE_SECONDS):
                result: Result = self.connection.recv()
                return result
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            self.process = None
            return Result(case, "CRASH", f"exit code {code}")
        self.close()
        return Result(case, "HANG", f"no answer in {PATIENCE_SECONDS:.0f} s")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def cases(areas: Iterable[str], number: int, seed: int) -> Iterator[Case]:
    """So many cases of the areas in turn."""
    names = list(areas)
    for index in range(number):
        yield Case(names[index % len(names)], f"{seed}.{index}")


def fuzz(areas: Iterable[str], number: int, seed: int, findings: Path | None = None) -> list[Result]:
    """Make so many cases and read them.

    Args:
        areas: Names in `AREAS`.
        number: How many cases.
        seed: Another seed makes others.
        findings: Where to keep the inputs that were findings, one folder each; nowhere if None.

    Returns:
        What became of each.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="vglm-fuzz-", ignore_cleanup_errors=True) as temporary:
        root = Path(temporary).resolve()
        worker = Worker(root / "case")
        good: dict[str, Path] = {}
        try:
            for case in cases(areas, number, seed):
                if case.area not in good:
                    good[case.area] = root / "good" / case.area
                    good[case.area].mkdir(parents=True)
                    AREAS[case.area].make(good[case.area])
                shutil.rmtree(worker.sandbox, ignore_errors=True)
                folder = worker.sandbox / "d"
                copy_folder(good[case.area], folder)
                area = AREAS[case.area]
                rng = random.Random(case.seed)
                case = replace(case, change=mutate_folder(rng, folder) if area.is_mutated else "")
                copy = root / "kept"
                copy_folder(folder, copy)
                results.append(worker.ask(case))
                if results[-1].is_finding and findings is not None:
                    keep(results[-1], copy, findings)
        finally:
            worker.close()
    return results


def keep(result: Result, folder: Path, findings: Path) -> Path:
    """Write a finding's input and what happened to a folder of its own."""
    area = findings / result.case.area.replace("/", "-")
    number = len(list(area.iterdir())) if area.is_dir() else 0
    target = area / f"{number:02d}-{result.outcome}"
    copy_folder(folder, target / "d")
    (target / "case.json").write_text(json.dumps(asdict(result.case), ensure_ascii=True, indent=1))
    record = asdict(result) | {"case": result.case.change}
    (target / "FINDING.txt").write_text(json.dumps(record, ensure_ascii=True, indent=1) + "\n")
    return target


def replay(case_dir: Path) -> Result:
    """Read a kept input again."""
    case = Case(**json.loads((case_dir / "case.json").read_text()))
    with tempfile.TemporaryDirectory(prefix="vglm-fuzz-", ignore_cleanup_errors=True) as root:
        worker = Worker(Path(root).resolve() / "case")
        copy_folder(case_dir / "d", worker.sandbox / "d")
        try:
            return worker.ask(case)
        finally:
            worker.close()


def tabulate(results: Iterable[Result]) -> str:
    """Counts of outcomes, one line an area."""
    results = list(results)
    lines = []
    for area in dict.fromkeys(result.case.area for result in results):
        counts = Counter(result.outcome for result in results if result.case.area == area)
        lines.append(f"{area:28} " + ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))
    return "\n".join(lines)
