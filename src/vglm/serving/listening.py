"""Limits for untrusted clients: time and size of a request's head, and the host names a server accepts.

    uvicorn.Config(LocalHosts(app), http=PatientProtocol, ws="none")

uvicorn waits for the head of a request without a timeout and, with httptools, without a size limit. With DNS rebinding,
a page of another site can reach a server on this machine: its host name resolves to 127.0.0.1 the second time. The
header Host then still has that name.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 20.0
"""How long a client may take to send the head of a request, or to begin its first one."""
HEAD_BYTES = 65_536
"""Largest head of a request."""
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class PatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, which closes the connection where the head of a request is too late or too large."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._head = 0
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        before, is_body = self.cycle, self.cycle is not None and self.cycle.more_body
        super().data_received(data)
        if self.cycle is not before:
            self._head = 0
            self._stop_waiting()
            return
        self._head += 0 if is_body else len(data)
        if self._head > HEAD_BYTES:
            self.transport.close()
        elif before is None or before.response_complete:  # also after a body that was refused
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LocalHosts:
    """An application that answers under the names of this machine alone.

    Args:
        app: The application.
        others: Further names by which it is reached, through a proxy for example.
    """

    def __init__(self, app: ASGIApp, others: Sequence[str] = ()) -> None:
        self.app, self.names = app, {*LOCAL_HOSTS, *map(_host_name, others)} - {""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with 421."""
        if scope["type"] != "http" or (host := _host_name(Headers(scope=scope).get("host", ""))) in self.names:
            await self.app(scope, receive, send)
            return
        text = f"this server is reached as localhost, not as {host[:100]!r}. Start it with --allowed-host NAME."
        error = {"message": text, "type": "invalid_request_error", "param": None, "code": None}
        await JSONResponse({"error": error}, 421)(scope, receive, send)


def _host_name(header: str) -> str:
    """The host of a Host header, without its port; empty where it is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:
        return ""
