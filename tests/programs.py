"""Programs in processes of their own that begin with the large libraries loaded.

    done = run_program("-m", "vglm", "chat", "--ask", "你好")          as subprocess.run([sys.executable, ...]) would
    done = run_processes("train.py", "trainer.max_steps=4")            as torchrun --nproc_per_node=2 would
    with Program("-c", "...", stdout=file) as program: ...             as subprocess.Popen([sys.executable, ...]) would

A process that begins with nothing imports PyTorch, transformers and peft for 5 to 10 CPU seconds. Here one process
imports them for all tests of a worker, and each program is a fork of it: with its own folder, environment, files,
random numbers, signals and exit code. What libraries read from the environment when they are imported is that of the
first process, and so is the order of sets of texts. Tests of what a program imports, or of Python's own start, use
`subprocess`. `torchrun` itself starts train.py in test_batch_cutting and `vglm` in test_serving_parallel.
"""

import atexit
import multiprocessing.forkserver
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pytest
import torch

PATIENCE_SECONDS = 900
Completed = subprocess.CompletedProcess[str]
File = IO[Any] | int


class Program:
    """A running program.

    Args:
        command: What follows `python`: a file, `-m` and a module or `-c` and code, and arguments.
        stdin, stdout, stderr: Open files; nothing by default.
        cwd: Its working directory; that of the test by default.
        env: Its environment; that of the test by default.
        is_on_terminal: `stdin` is the terminal that it is to be controlled by.
    """

    def __init__(
        self,
        *command: str,
        stdin: File | None = None,
        stdout: File | None = None,
        stderr: File | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        is_on_terminal: bool = False,
    ) -> None:
        with open(os.devnull, "r+b") as null:
            files = _Files([null if file is None else file for file in (stdin, stdout, stderr)])
            directory, variables = str(cwd or Path.cwd()), dict(os.environ if env is None else env)
            self._process = _context().Process(
                target=_play, args=(command, files, directory, variables, is_on_terminal)
            )
            self._process.start()
        self.sentinel = self._process.sentinel

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """The exit code, at the end; a program that hangs is killed."""
        self._process.join(PATIENCE_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self._process.pid is not None:
            with suppress(ProcessLookupError):  # the server knows of its end before this process does
                os.kill(self._process.pid, number)


def run_program(
    *command: str, stdin: str = "", cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program to its end; what it printed."""
    with tempfile.TemporaryFile() as input_file, _Printed() as printed:
        input_file.write(stdin.encode())
        input_file.seek(0)
        with Program(*command, stdin=input_file, stdout=printed.out, stderr=printed.err, cwd=cwd, env=env) as program:
            return printed.of(command, program.wait())


def run_processes(
    *command: str, nodes: int = 1, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Completed:
    """Run a program as two processes that know of each other; where one fails, its exit code, and the other is ended.

    Args:
        command: See `Program`.
        nodes: 1 for two processes on one machine, 2 for one on each of two.
        cwd: See `Program`.
        env: See `Program`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    rendezvous |= dict(os.environ if env is None else env) | rendezvous | {"LOCAL_WORLD_SIZE": str(2 // nodes)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank if nodes == 1 else 0)} for rank in range(2)]
    with _Printed() as printed:
        programs: list[Program] = []
        try:
            for rank in ranks:
                programs.append(
                    Program(*command, stdout=printed.out, stderr=printed.err, cwd=cwd, env=rendezvous | rank)
                )
            wait([program.sentinel for program in programs])
            failed = next(filter(None, (program.poll() for program in programs)), 0)
            if failed:
                for program in programs:
                    program.send_signal(signal.SIGTERM)
            codes = [program.wait() for program in programs]
        finally:
            for program in programs:
                program.send_signal(signal.SIGKILL)
        return printed.of(command, failed or max(codes, key=abs))


class _Printed:
    """Two files for what programs print."""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self._paths = [Path(self._folder.name, name) for name in ("out", "err")]
        self.out, self.err = (path.open("ab") for path in self._paths)  # several programs write at the end
        return self

    def __exit__(self, *_: object) -> None:
        self.out.close()
        self.err.close()
        self._folder.cleanup()

    def of(self, command: Sequence[str], code: int) -> Completed:
        out, err = (path.read_text(encoding="utf-8", errors="replace") for path in self._paths)
        return subprocess.CompletedProcess(command, code, out, err)


# --- the process that programs are forked of --------------------------------------------------------------------------


@cache
def _context() -> Any:
    """The server of forks, which imports what this process can import."""
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(os.path.abspath, sys.path)))
        multiprocessing.forkserver.ensure_running()
    return context


class _Files:
    """Open files on their way to another process."""

    def __init__(self, files: Sequence[File]) -> None:
        self.numbers = [file if isinstance(file, int) else file.fileno() for file in files]

    def __getstate__(self) -> list[Any]:
        from multiprocessing.reduction import DupFd

        return [DupFd(number) for number in self.numbers]

    def __setstate__(self, sent: list[Any]) -> None:
        self.numbers = [one.detach() for one in sent]


def _play(command: Sequence[str], files: _Files, cwd: str, env: Mapping[str, str], is_on_terminal: bool) -> None:
    """Be the program, in the new process."""
    assert "preloaded" in sys.modules
    if is_on_terminal:
        os.login_tty(os.dup(files.numbers[0]))
    for number, file in enumerate(files.numbers):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering, encoding="utf-8", closefd=False)
        for number, (mode, buffering) in enumerate((("r", -1), ("w", -1), ("w", 1)))
    )
    random.seed()
    np.random.seed()
    torch.seed()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    try:
        _run(*command)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _run(first: str, *rest: str) -> None:
    """What Python's own main does with its arguments."""
    if first == "-m":
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:] = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[:] = [first, *rest]
        runpy.run_path(first, run_name="__main__")
