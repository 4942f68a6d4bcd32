"""Many clients at once: nobody's answer depends on the others, on those who leave, or on a server that was killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from programs import Program

from tests.servers import Server, messages, moved_adapter, picture
from vglm.model.loading import load_pretrained
from vglm.serving.api import ApiSettings
from vglm.serving.engine import Engine

DRAWN = {"temperature": 1.5, "top_p": 1.0, "top_k": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def adapters(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: moved_adapter(random_model_folder, tmp_path_factory.mktemp(name), seed, method)
        for seed, (name, method) in enumerate([("first", "lora"), ("second", "p_tuning_v2")])
    }


def _request(number: int, model: str) -> dict[str, Any]:
    image = picture() if number % 3 else None
    return {"model": model, "messages": messages(f"图中有什么？{number % 4}", image), "seed": number, **DRAWN}


def _ask(url: str, body: dict[str, Any]) -> str:
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


@contextlib.contextmanager
def _server(folder: Path, adapters: dict[str, Path], **settings: Any) -> Iterator[Server]:
    server = Server(Engine(*load_pretrained(folder), adapters=adapters, **settings), ApiSettings())
    try:
        yield server
    finally:
        server.close()


def test_eight_clients_of_two_adapters_and_the_base_get_the_answers_of_one(
    random_model_folder: Path, adapters: dict[str, Path]
) -> None:
    names = ["base", *adapters]
    bodies = [_request(number, names[number % 3]) for number in range(48)]
    alone: dict[int, str] = {}
    for name in names:  # each with nothing but itself in its server
        with _server(random_model_folder, {name: adapters[name]} if name in adapters else {}) as server:
            alone |= {n: _ask(server.url, body) for n, body in enumerate(bodies) if body["model"] == name}
    assert len(set(alone.values())) > 40  # so they can be told apart
    with _server(random_model_folder, adapters) as server, ThreadPoolExecutor(8) as clients:
        together = list(clients.map(lambda body: _ask(server.url, body), bodies))
    assert together == [alone[number] for number in range(48)]


def test_clients_that_drop_in_mid_stream_change_nothing_for_the_others(random_model_folder: Path) -> None:
    async def storm(url: str) -> list[str]:
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            return await asyncio.gather(*(stays(client, n) if n % 2 else leaves(client, n) for n in range(60)))

    async def stays(client: httpx.AsyncClient, number: int) -> str:
        reply = await client.post("/v1/chat/completions", json=_request(number, "base"))
        return str(reply.json()["choices"][0]["message"]["content"])

    async def leaves(client: httpx.AsyncClient, number: int) -> str:
        body = {**_request(number, "base"), "stream": True, "max_tokens": 400}
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            async for _ in reply.aiter_lines():
                return ""
        return ""

    with _server(random_model_folder, {}, max_rows=8) as server:
        alone = [_ask(server.url, _request(number, "base")) for number in range(1, 60, 2)]
        assert asyncio.run(storm(server.url))[1::2] == alone
        while server.engine.load.running or server.engine.load.waiting:
            time.sleep(0.01)
        assert server.http.get("/readyz").json() == {"status": "ready"}


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _wait_until_open(process: "subprocess.Popen[str] | Program", port: int) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise AssertionError("it has ended")


def test_a_server_killed_under_load_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    secret = "一个秘密的问题"
    (tmp_path / "tmp").mkdir()
    source = Path(__file__).parents[1] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = ["-m", "vglm", "api", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    _wait_until_open(process, port)
    before = _files(tmp_path)
    begun = threading.Semaphore(0)

    def stream() -> None:
        body = {"model": "base", "messages": messages(secret, picture()), "stream": True, "temperature": 5, "top_p": 1}
        with contextlib.suppress(httpx.TransportError):
            while True:
                with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as reply:
                    for _ in reply.iter_lines():
                        begun.release()

    clients = [threading.Thread(target=stream) for _ in range(6)]
    for client in clients:
        client.start()
    for _ in range(30):
        begun.acquire()
    process.kill()
    _, errors = process.communicate()
    for client in clients:
        client.join()
    assert _files(tmp_path) == before
    assert secret not in errors
    with Program(*command, cwd=tmp_path, env=environment) as again:
        _wait_until_open(again, port)
        body = {"model": "base", "messages": messages("你好"), "seed": 1}
        assert _ask(url, body) == _ask(url, body)
        again.send_signal(signal.SIGTERM)
        assert again.wait() == 0
