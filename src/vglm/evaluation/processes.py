"""The processes that answer together: one, or as many as `torchrun` or `accelerate launch` started.

    processes = Processes()                            before any model loads, for it chooses each process's device
    with processes.folder(output, marker="evaluation.json", key=...) as work:
        todo = processes.share(plan() if processes.is_main else None)       the main process's value, in all of them
        ...                                            each does its part and writes a file of its own
        processes.wait()                               until all have

A process that fails ends at once, and the launcher ends the others; one that waits for it meanwhile ends by itself.
What went wrong is said once, see `vglm.config.entry_point`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch

from vglm.config import is_one_of_several
from vglm.errors import DataError, WorkbenchError
from vglm.files import explained, resumable_folder

T = TypeVar("T")

BACKEND = "gloo"
"""Little is sent, and no tensors; unlike NCCL it notices at once when a process has ended, and lets two share a GPU."""
PATIENCE = timedelta(days=30)
"""How long processes wait for each other; half an hour by default, which is less than some samples take."""


class Processes:
    """All processes of one command, as one of them sees them.

    Attributes:
        rank: Which of them this is, from 0.
        count: How many there are.
    """

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        if is_one_of_several():
            from accelerate import PartialState

            has_gpu = torch.cuda.is_available()
            state = _together(lambda: PartialState(cpu=not has_gpu, backend=BACKEND, timeout=PATIENCE))
            self.rank, self.count = state.process_index, state.num_processes

    @classmethod
    def alone(cls) -> "Processes":
        """One process that shares its work with none, whatever started it."""
        processes = object.__new__(cls)
        processes.rank, processes.count = 0, 1
        return processes

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes, prints and shows progress."""
        return self.rank == 0

    def share(self, value: T | None) -> T:
        """Give all processes the main process's value.

        Args:
            value: Any that pickles; of the others nothing is taken.

        Raises:
            WorkbenchError: Another process ended.
        """
        values: list[T | None] = [value]
        if self.count > 1:
            from accelerate.utils import broadcast_object_list

            _together(lambda: broadcast_object_list(values))
        (shared,) = values
        return shared  # type: ignore[return-value]  # the main process has one

    def wait(self) -> None:
        """Wait until all processes are here.

        Raises:
            WorkbenchError: Another process ended.
        """
        if self.count > 1:
            _together(torch.distributed.barrier)

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list: every so-manieth, so that sorted lists are divided evenly."""
        return items[self.rank :: self.count]

    @contextmanager
    def folder(self, path: Path, *, marker: str, key: object) -> Iterator[Path]:
        """Make or replace a folder together, see `resumable_folder`; the main process puts it in place.

        Args:
            path: The folder.
            marker: A file that every such folder holds.
            key: All that the content depends on.

        Yields:
            The folder to write into, the same in all processes.

        Raises:
            DataError: See `resumable_folder`.
            WorkbenchError: Another process ended.
        """
        if self.is_main:
            with resumable_folder(path, marker=marker, key=key) as work:
                yield self.share(work)
        else:
            with explained(path, error=DataError):
                yield self.share(None)


def _together(act: Callable[[], T]) -> T:
    """Do what needs all processes."""
    try:
        return act()
    except RuntimeError as error:  # that of torch.distributed, and its subclasses
        raise WorkbenchError(
            f"another process of this command ended or cannot be reached ({str(error).partition('. ')[0]}). If it said"
            " why, that stands above. The same command goes on where this one was."
        ) from error
