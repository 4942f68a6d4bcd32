"""A served application, and headless Chromium to use it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from test_report_browser import Browser


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def served(app: FastAPI, port: int | None = None) -> Iterator[str]:
    """Serve an application; yields its address."""
    port = port or free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def wait_until(is_so: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (value := is_so()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


class Visitor(Browser):
    """Somebody in front of a page."""

    def visit(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def until(self, script: str) -> Any:
        return wait_until(lambda: self.run(script))

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def click(self, selector: str) -> None:
        """Click as soon as it can be clicked: an element that is disabled takes no click."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{element}?.checkVisibility() && !{element}.disabled && ({element}.click(), true)")

    def write(self, selector: str, text: str) -> None:
        """Put a text into a field, in place of what is in it."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{field} !== null")
        self.run(f"{field}.focus(); {field}.select()")
        self.call("Input.insertText", text=text)
        for _ in range(2):  # until the page's own copy of the field has it
            self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 20)))")

    def press(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def upload(self, selector: str, path: Path) -> None:
        self.until(f"document.querySelector({json.dumps(selector)}) !== null")
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def strange_requests(self, address: str) -> list[str]:
        """What was asked of anybody else."""
        return [url for url in self.requests() if not url.startswith((address, "blob:", "about:"))]
