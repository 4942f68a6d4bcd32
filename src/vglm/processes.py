"""The processes of one command: one, or as many as `torchrun` or `accelerate launch` started.

    processes = Processes()                            before any model loads, since it chooses each process's device
    folder = processes.broadcast(choose_folder())      the main process's value, in all of them
    todo = processes.shard(items)                      items rank, rank + world_size, rank + 2 world_size, ...
    processes.barrier()                                waits until all processes have reached it

A process that fails ends at once, and the launcher ends the others. What went wrong is printed once: by the main
process, or by another after `GRACE_SECONDS` in which the launcher would have ended it had the main process failed too.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from vglm.errors import DataError, WorkbenchError
from vglm.files import explained, resumable_folder

T = TypeVar("T")

BACKEND = "gloo"
"""Little is sent, and no tensors; unlike NCCL it notices at once when a process has ended, and lets two share a GPU."""
PATIENCE = timedelta(days=30)
"""How long processes wait for each other; half an hour by default, which is less than some samples take."""
GRACE_SECONDS = 15.0
"""How long a process that failed second waits for the first to end, which takes seconds on a busy machine, and for the
launcher to end it then."""


def is_one_of_several() -> bool:
    """Whether `torchrun` or `accelerate launch` started several processes, of which this is one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def wait_for_main() -> None:
    """Before a process prints why it failed: let the main one print first, where it failed too."""
    if not is_main():
        time.sleep(GRACE_SECONDS)


class Processes:
    """All processes of one command, as one of them sees them.

    They join a group of their own, or that which `transformers.TrainingArguments` has made before.

    Attributes:
        rank: Which of them this is, from 0.
        world_size: How many there are.
    """

    def __init__(self) -> None:
        self.rank, self.world_size = 0, 1
        if is_one_of_several():
            import torch
            from accelerate import PartialState

            has_gpu = torch.cuda.is_available()
            state = _together(lambda: PartialState(cpu=not has_gpu, backend=BACKEND, timeout=PATIENCE))
            self.rank, self.world_size = state.process_index, state.num_processes

    @classmethod
    def alone(cls) -> "Processes":
        """One process that shares its work with none, whatever started it."""
        processes = object.__new__(cls)
        processes.rank, processes.world_size = 0, 1
        return processes

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes, prints and shows progress."""
        return self.rank == 0

    def broadcast(self, value: T | None) -> T:
        """Give all processes the main process's value.

        Args:
            value: Any that pickles; that of other processes is ignored.

        Raises:
            WorkbenchError: Another process ended.
        """
        values: list[T | None] = [value]
        if self.world_size > 1:
            from accelerate.utils import broadcast_object_list

            _together(lambda: broadcast_object_list(values))
        (shared,) = values
        return shared  # type: ignore[return-value]  # the main process has one

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order.

        Args:
            value: This process's; must pickle.

        Raises:
            WorkbenchError: Another process ended.
        """
        if self.world_size == 1:
            return [value]
        from accelerate.utils import gather_object

        values: list[T] = _together(lambda: gather_object([value]))
        return values

    def on_main(self, act: Callable[[], T]) -> T:
        """Have the main process do something, and the others get its result, or fail with it.

        Args:
            act: Its result must pickle.

        Raises:
            WorkbenchError: As the main process.
        """
        outcome: Any = None
        if self.is_main:
            try:
                outcome = act()
            except WorkbenchError as error:
                outcome = error
        outcome = self.broadcast(outcome)
        if isinstance(outcome, WorkbenchError):
            raise outcome
        result: T = outcome
        return result

    def barrier(self) -> None:
        """Wait until all processes are here.

        Raises:
            WorkbenchError: Another process ended.
        """
        if self.world_size > 1:
            import torch

            _together(torch.distributed.barrier)

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's shard of a list, taken in turns, so that sorted lists are divided evenly."""
        return items[self.rank :: self.world_size]

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
                yield self.broadcast(work)
        else:
            with explained(path, error=DataError):
                yield self.broadcast(None)


def _together(act: Callable[[], T]) -> T:
    """Do what needs all processes."""
    try:
        return act()
    except RuntimeError as error:  # that of torch.distributed, and its subclasses
        time.sleep(GRACE_SECONDS)  # the launcher ends this process, after the other has printed why it failed
        raise WorkbenchError(
            f"another process of this command ended or cannot be reached ({str(error).partition('. ')[0]}). If it said"
            " why, that stands above. The same command goes on where this one was."
        ) from error
