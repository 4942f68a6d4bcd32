"""Handling of SIGTERM during training, as sent by a scheduler, `docker stop` or `kill`.

with stopping_at_once():                    the block ends as by Ctrl-C, with exit code 143
    with stopping_gently() as request:      but here nothing happens yet:
        ...                                 the loop checks `request.was_made` and saves first
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a command that was asked to terminate and did, as shells count signals."""


@dataclass(eq=False)
class Request:
    """A request to stop.

    Attributes:
        was_made: Whether it came.
    """

    was_made: bool = False


_noting: list[Request] = []
"""The requests that may be made at this moment."""


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Have SIGTERM raise SystemExit, so that everything that cleans up after itself does; one that was noted, too."""
    if any(request.was_made for request in _noting):
        leave()
    with _handling(leave):
        yield


@contextmanager
def stopping_gently() -> Iterator[Request]:
    """Have SIGTERM do no more than to be noted.

    Yields:
        The note.
    """
    request = Request()

    def note() -> None:
        request.was_made = True

    with _handling(note):
        _noting.append(request)
        try:
            yield request
        finally:
            _noting.remove(request)


def leave() -> NoReturn:
    """End the command as one that was asked to terminate.

    Raises:
        SystemExit: Always.
    """
    raise SystemExit(TERMINATED)


@contextmanager
def _handling(act: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals cannot be handled in this thread
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
