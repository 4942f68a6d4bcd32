"""The API over a real socket: the original's contract, the official OpenAI client, and what strangers send."""

import asyncio
import base64
import contextlib
import io
import json
import random
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from openai import BadRequestError, NotFoundError, RateLimitError
from PIL import Image
from programs import Program

from tests.servers import Server, messages, moved_adapter, picture
from vglm.errors import ConfigError, DataError
from vglm.model.loading import load_pretrained
from vglm.serving import listening
from vglm.serving.api import ApiSettings
from vglm.serving.engine import Engine, Question
from vglm.serving.keys import add_key, is_known, read_keys
from vglm.serving.remote_images import fetch_picture, is_public
from vglm.serving.requests import Limits
from vglm.serving.sampling import Sampling

LIMITS = Limits(body_bytes=300_000, pixels=1_000_000, history_turns=5, text_characters=2000, answers=3)


@pytest.fixture(scope="module")
def adapter(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moved_adapter(random_model_folder, tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def server(random_model_folder: Path, adapter: Path) -> Iterator[Server]:
    engine = Engine(*load_pretrained(random_model_folder), adapters={"tuned": adapter})
    server = Server(engine, ApiSettings(limits=LIMITS))
    yield server
    server.close()


DRAWN = {"temperature": 1.5, "top_p": 1.0, "seed": 3, "max_tokens": 12, "extra_body": {"top_k": 0}}


# --- the original's contract ------------------------------------------------------------------------------------------


def test_the_original_request_gets_the_original_answer(server: Server) -> None:
    body = {"image": picture(), "text": "描述这张图片。", "history": [["你好", "你好。"]], "seed": 1, "max_length": 60}
    reply = server.http.post("/", json=body)
    assert reply.status_code == 200
    answer = reply.json()
    assert set(answer) == {"result", "response", "history", "status", "time"}
    assert answer["result"] == answer["response"]
    assert answer["history"] == [["你好", "你好。"], ["描述这张图片。", answer["response"]]]
    assert answer["status"] == 200
    question = Question(body["text"], Image.linear_gradient("L").convert("RGB"), [("你好", "你好。")])
    assert answer["response"] == server.engine.ask(question, sampling=Sampling(seed=1, max_length=60)).wait().text


def test_without_history_or_image_and_with_an_adapter(server: Server) -> None:
    answers = {
        model: server.http.post("/", json={"text": "你好", "model": model, "temperature": 0, "max_length": 40}).json()
        for model in ("base", "tuned")
    }
    assert answers["base"]["history"] == [["你好", answers["base"]["result"]]]
    assert answers["base"]["result"] != answers["tuned"]["result"]


# --- OpenAI's client, unchanged ---------------------------------------------------------------------------------------


def test_models_are_the_base_and_its_adapters(server: Server) -> None:
    assert [model.id for model in server.openai.models.list()] == ["base", "tuned"]


def test_a_completion_says_what_openai_says(server: Server) -> None:
    reply = server.openai.chat.completions.create(model="tuned", messages=messages(image=picture()), n=2, **DRAWN)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].message.content != reply.choices[1].message.content
    assert {choice.finish_reason for choice in reply.choices} <= {"stop", "length"}
    assert reply.usage is not None
    assert reply.usage.completion_tokens <= 24
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.model == "tuned"
    again = server.openai.chat.completions.create(model="tuned", messages=messages(image=picture()), n=2, **DRAWN)
    assert [choice.message.content for choice in again.choices] == [choice.message.content for choice in reply.choices]


def test_a_stream_is_the_completion_in_pieces(server: Server) -> None:
    request = {"model": "base", "messages": messages(), "n": 2, **DRAWN}
    whole = server.openai.chat.completions.create(**request)
    texts, reasons, usage = ["", ""], ["", ""], None
    for chunk in server.openai.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
        usage = chunk.usage or usage
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_stop_max_tokens_and_history_count(server: Server) -> None:
    create = server.openai.chat.completions.create
    whole = create(model="base", messages=messages(), **DRAWN).choices[0]
    text = whole.message.content or ""
    stop = text[len(text) // 2 :][:1]
    cut = create(model="base", messages=messages(), stop=stop, **DRAWN).choices[0]
    assert cut.message.content == text[: text.find(stop)]
    assert cut.finish_reason == "stop"
    one = create(model="base", messages=messages(), **{**DRAWN, "max_tokens": 1})
    assert one.choices[0].finish_reason == "length"
    turns = [*messages(), {"role": "assistant", "content": "猫。"}, *messages("什么颜色？")]
    with_history = create(model="base", messages=[{"role": "system", "content": "请简短。"}, *turns], **DRAWN)
    assert with_history.usage is not None
    assert one.usage is not None
    assert with_history.usage.prompt_tokens > one.usage.prompt_tokens


def test_neighbouring_messages_of_one_role_are_one_turn(server: Server) -> None:
    image, text = messages("图中有什么？", picture())[0]["content"][::-1]
    parts = [{"role": "user", "content": [part]} for part in (image, text)]
    create = server.openai.chat.completions.create
    apart, together = (
        create(model="base", messages=sent, **DRAWN) for sent in (parts, [{"role": "user", "content": [image, text]}])
    )
    assert apart.choices == together.choices
    assert apart.usage == together.usage


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 9}, "n must be from 1 to 3"),
        ({"temperature": 7}, "temperature"),
        ({"stop": ["a"] * 9}, "stop"),
        ({"messages": []}, "messages must be"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages must be"),
        ({"messages": [*messages(), {"role": "assistant", "content": "a"}]}, "messages must be"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "input_audio"),
        (
            {
                "messages": [
                    *messages(image=picture()),
                    {"role": "assistant", "content": "a"},
                    *messages(image=picture()),
                ]
            },
            "2 pictures",
        ),
        ({"messages": messages("长" * 3000)}, "characters"),
        ({"messages": messages("ﷺ" * 200)}, "3,600 characters"),  # as many as the tokenizer makes of them
        ({"messages": messages("a") * 1001}, "2,002 messages and parts"),
        ({"messages": messages(" ")}, "empty"),
        ({"extra_body": {"best_of": 3}}, "best_of"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(server: Server, change: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequestError, match=named):
        server.openai.chat.completions.create(**{"model": "base", "messages": messages(), **change})


def test_neutral_settings_are_taken(server: Server) -> None:
    neutral = {"frequency_penalty": 0, "logprobs": False, "tools": [], "user": "u", "response_format": {"type": "text"}}
    server.openai.chat.completions.create(model="base", messages=messages(), max_tokens=2, **neutral)


def test_an_unknown_model_is_not_found(server: Server) -> None:
    with pytest.raises(NotFoundError, match="there is no adapter 'gpt-4'; there are base, tuned"):
        server.openai.chat.completions.create(model="gpt-4", messages=messages())


# --- strangers --------------------------------------------------------------------------------------------------------


def _png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def _animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "cannot be read"),
        (_png(50_000, 50_000), "pixels"),
        (_png(300, 300), "damaged"),
        (_animated(), "frames"),
        (base64.b64decode(picture())[:100], "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_bytes_that_are_no_still_picture_are_refused(server: Server, content: bytes, message: str) -> None:
    reply = server.http.post(
        "/", json={"text": "你好", "image": "data:image/png;base64," + base64.b64encode(content).decode()}
    )
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "address",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/a.png",
        "https://example.org/a.png",
        "a\0b",
        "!!!!",
        "../x.png",
    ],
)
def test_nothing_is_opened_or_fetched(server: Server, address: str) -> None:
    for body, path in (
        ({"text": "你好", "image": address}, "/"),
        (
            {
                "model": "base",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": address}},
                            {"type": "text", "text": "a"},
                        ],
                    }
                ],
            },
            "/v1/chat/completions",
        ),
    ):
        reply = server.http.post(path, json=body)
        assert reply.status_code == 400
        assert "no base64" in reply.json()["error"]["message"]


def test_malformed_requests_get_a_4xx_with_json(server: Server) -> None:
    chance = random.Random(0)
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1e308,
        "",
        "x" * 3000,
        [],
        {},
        [[]],
        {"a": {}},
        "\ud800",
        "\0",
        2**70,
        ["a", 1],
    ]
    bodies: list[bytes] = [b"", b"{", b"[" * 5000, b"null", b"\xff\xfe", b'{"text": NaN}', b"9" * 5000]
    for _ in range(250):
        body: dict[str, Any] = {"text": "a", "max_length": 30}
        chat: dict[str, Any] = {"model": "base", "messages": messages("a"), "max_tokens": 1}
        for one in (body, chat):
            name = chance.choice([*one, "history", "image", "temperature", "stop", "n", "seed", "stream", "\ud800"])
            one[name] = chance.choice(values)
        bodies += [json.dumps(body).encode(), json.dumps(chat).encode()]
    for index, content in enumerate(bodies):
        path = ("/", "/v1/chat/completions")[index % 2]
        reply = server.http.post(path, content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code < 500, (path, content)
        if reply.status_code != 200:
            assert len(reply.json()["error"]["message"]) < 1000
    for path, kind in (("/", "text/plain"), ("/v1/chat/completions", "multipart/form-data; boundary=x")):
        assert 400 <= server.http.post(path, content=b"{}", headers={"Content-Type": kind}).status_code < 500
    assert server.http.get("/none").status_code == 404
    assert server.http.put("/").status_code == 405
    assert server.http.get("/readyz").json() == {"status": "ready"}


def test_a_body_that_is_too_large_is_refused(server: Server) -> None:
    assert server.http.post("/", content=b"x" * 400_000).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 10_000

    reply = server.http.post("/", content=pieces(), headers={"Content-Type": "application/json"})  # without a length
    assert reply.status_code == 413


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 100,
        b"\r\n" * 50,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_what_is_no_request_at_all_leaves_the_server_well(server: Server, content: bytes) -> None:
    address = ("127.0.0.1", server.port)
    with contextlib.suppress(ConnectionError), socket.create_connection(address, timeout=60) as connection:
        connection.sendall(content)
        with contextlib.suppress(OSError):  # it may be closed by now
            connection.shutdown(socket.SHUT_WR)
        reply = connection.recv(1000)
        assert not reply or reply.startswith(b"HTTP/1.1 4")
    assert server.http.get("/readyz").json() == {"status": "ready"}


def test_a_head_that_does_not_come_or_does_not_end_closes_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(content: bytes) -> bytes:
        received = b""
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(60)
            connection.sendall(content)
            while piece := connection.recv(1000):
                received += piece
        return received

    assert left(b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000) == b""
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.05)
    assert left(b"") == left(b"GET / HTTP/1.1\r\n") == b""
    monkeypatch.setattr(listening, "HEAD_SECONDS", 2.0)  # long enough for what is sent at once
    assert left(whole + b"GET / HTTP/1.1\r\n").count(b"200 OK") == 1
    large = {"text": "你好", "max_length": 60, "temperature": 0, "image": "x" * 200_000}
    assert server.http.post("/", json=large).status_code == 400  # a body may be larger, and an answer take longer
    assert server.http.post("/", json={"text": "你好", "max_length": 400, "temperature": 5}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("LOCALHOST", 200),
        ("[::1]:8080", 200),
        ("proxy.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8080", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_only_names_of_this_machine_and_allowed_ones_are_answered(server: Server, host: str, status: int) -> None:
    app = listening.LocalHosts(server.uvicorn.config.app, ["Proxy.example"])  # type: ignore[arg-type]

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
            return await client.get("/healthz", headers={"Host": host})

    reply = asyncio.run(ask())
    assert reply.status_code == status
    assert status == 200 or "--allowed-host" in reply.json()["error"]["message"]


def test_a_client_that_goes_away_ends_its_answer(server: Server) -> None:
    for stream in (True, False):
        before = server.engine.load.answered
        body = json.dumps(
            {
                "model": "base",
                "messages": messages("你好"),
                "stream": stream,
                "temperature": 0,
                "repetition_penalty": 1.0,
            }
        ).encode()
        connection = socket.create_connection(("127.0.0.1", server.port))
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        connection.sendall(head.encode() + body)
        while not (server.engine.load.running or server.engine.load.answered > before):
            time.sleep(0.01)
        connection.close()
        while server.engine.load.running or server.engine.load.waiting:
            time.sleep(0.01)
        assert server.engine.load.answered == before + 1


def test_more_than_may_wait_is_told_to_come_back(random_model_folder: Path) -> None:
    engine = Engine(*load_pretrained(random_model_folder), max_rows=1, max_waiting=1)
    server = Server(engine, ApiSettings())
    try:
        long = Sampling(temperature=0.0, min_new_tokens=400, max_new_tokens=400)
        running = engine.ask(Question("你好"), sampling=long)
        while running.seconds_to_first_token is None:
            time.sleep(0.01)
        waiting = engine.ask(Question("你好"), sampling=long)
        with pytest.raises(RateLimitError) as caught:
            server.openai.chat.completions.create(model="base", messages=messages())
        assert caught.value.response.headers["retry-after"].isdigit()
    finally:
        server.close()  # what runs and what waits is answered first
    assert [running.finish_reason, waiting.finish_reason] == ["length", "length"]


def test_keys_are_asked_for_and_kept_as_hashes(random_model_folder: Path, tmp_path: Path) -> None:
    key, other = add_key(tmp_path / "keys"), add_key(tmp_path / "keys")
    text = (tmp_path / "keys").read_text()
    assert key not in text
    assert len(read_keys(tmp_path / "keys")) == 2
    server = Server(Engine(*load_pretrained(random_model_folder)), ApiSettings(key_hashes=read_keys(tmp_path / "keys")))
    try:
        assert server.http.get("/healthz").status_code == 200
        for header in ({}, {"Authorization": "Bearer no"}, {"Authorization": key}, {"Authorization": f"Basic {key}"}):
            for path in ("/v1/models", "/metrics", "/docs", "/openapi.json"):
                assert server.http.get(path, headers=header).status_code == 401
        for one in (key, other):
            assert server.http.get("/v1/models", headers={"Authorization": f"Bearer {one}"}).status_code == 200
    finally:
        server.close()
    assert not is_known(None, read_keys(tmp_path / "keys"))
    (tmp_path / "keys").write_text("secret\n")
    with pytest.raises(ConfigError, match="must hold SHA-256 hashes"):
        read_keys(tmp_path / "keys")


def test_metrics_tell_queue_batch_tokens_and_first_token_time(server: Server) -> None:
    server.openai.chat.completions.create(model="base", messages=messages(), max_tokens=2)
    text = server.http.get("/metrics").text
    for name in (
        "vglm_waiting",
        "vglm_running",
        "vglm_tokens_total",
        "vglm_steps_total",
        "vglm_first_token_seconds_count",
    ):
        assert name in text
    assert 'handler="/v1/chat/completions"' in text


# --- pictures from web addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
        "64:ff9b:1::7f00:1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "::",
    ],
)
def test_addresses_of_this_network_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_public_addresses_are_public() -> None:
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1:248:1893:25c8:1946")


@given(st.ip_addresses(v=4))
def test_an_address_inside_ipv6_counts_as_itself(address: Any) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address)) == is_public(f"64:ff9b::{address}")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a",
        "http://localhost/a",
        "http://[::1]/a",
        "http://2130706433/a",
        "http://0x7f.1/a",
        "ftp://a/b",
        "http://user:pw@example.org/",
        "http:///a",
        "http://169.254.169.254/latest/meta-data",
        "http://[",
        "http://a:99999/",
    ],
)
def test_addresses_that_lead_inside_are_refused(url: str) -> None:
    with pytest.raises(DataError, match="image"):
        asyncio.run(fetch_picture(url, max_bytes=1000, timeout_seconds=5))


def test_a_trusted_address_is_fetched_with_its_redirects_and_bounds(tmp_path: Path) -> None:
    class Pages(uvicorn.Server):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers, status, body = [], 200, b"picture"
        if scope["path"] == "/moved":
            status, headers = 302, [(b"location", b"/picture")]
        elif scope["path"] == "/loop":
            status, headers = 302, [(b"location", b"/loop")]
        elif scope["path"] == "/nowhere":
            status = 304
        elif scope["path"] == "/large":
            body = b"x" * 5000
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    pages = Pages(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=pages.run)
    thread.start()
    while not pages.started:
        assert thread.is_alive()
    url = f"http://127.0.0.1:{pages.servers[0].sockets[0].getsockname()[1]}"

    def fetch(path: str) -> bytes:
        return asyncio.run(fetch_picture(url + path, max_bytes=1000, timeout_seconds=30, is_trusted=True))

    try:
        assert fetch("/picture") == fetch("/moved") == b"picture"
        with pytest.raises(DataError, match="answered with status 304"):
            fetch("/nowhere")
        with pytest.raises(DataError, match="larger than 1,000 bytes"):
            fetch("/large")
        with pytest.raises(DataError, match="leads on more than 3 times"):
            fetch("/loop")
    finally:
        pages.should_exit = True
        thread.join()


def test_a_server_that_is_asked_to_end_ends_well(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reply = None
    with (tmp_path / "said").open("w") as log, Program("-m", "vglm", "api", f"--port={port}", stderr=log) as program:
        while reply is None:
            assert program.poll() is None
            time.sleep(0.05)
            with contextlib.suppress(httpx.ConnectError):
                reply = httpx.post(f"http://127.0.0.1:{port}/", json={"text": "你好", "seed": 1}, timeout=120)
        other = httpx.get(f"http://127.0.0.1:{port}/readyz", headers={"Host": "evil.example"})
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    assert (tmp_path / "said").read_text(encoding="utf-8").splitlines()[-1] == "stopped"
    assert other.status_code == 421
    assert reply.status_code == 200
