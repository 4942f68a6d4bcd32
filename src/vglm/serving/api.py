"""The HTTP API of the engine: the original's contract, the OpenAI chat interface, health checks and metrics.

    POST /                      as the original's API: one question, one answer
    POST /v1/chat/completions   as OpenAI's, streaming or not; GET /v1/models names base and adapters
    GET  /healthz, /readyz      whether the process lives, whether it answers
    GET  /metrics               for Prometheus

No part of a request is written to disk or to a log. When a client disconnects, its answer is cancelled.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from openai.types import CompletionUsage, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from PIL import Image
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vglm.errors import AdapterError, BusyError, WorkbenchError, message_of
from vglm.serving.engine import Answer, Engine, pieces_of
from vglm.serving.keys import is_known
from vglm.serving.remote_images import fetch_picture
from vglm.serving.requests import ChatRequest, Limits, OriginalRequest, decode_picture, read_picture

OPEN_PATHS = ("/healthz", "/readyz")
"""What needs no key."""
PAGE_PATHS = ("/", "/favicon.ico", "/manifest.json")
"""What leads to the page that is mounted on the application, without a key; browsers ask for the latter two here."""

BODY_SECONDS = 60.0
"""How long a client may take to send a request."""

RETRY_SECONDS = 2
_PIECE = "<piece>"  # placeholder of a piece of text in an event
_DECODERS = 4  # pictures that are decoded at once


@dataclass(frozen=True)
class ApiSettings:
    """How a server behaves.

    Attributes:
        limits: What it takes of one request.
        key_hashes: Of the keys that it asks for; none where it is open.
        allow_remote_images: Whether pictures may be fetched from public web addresses.
        page: Path of a page that is mounted on the application, asks for its own password if any, and is what `/` leads
            to; None without one.
    """

    limits: Limits = field(default_factory=Limits)
    key_hashes: Sequence[str] = ()
    allow_remote_images: bool = False
    page: str | None = None


class _TimedOut(WorkbenchError):
    """The answer took longer than the server allows."""


class _Gone(Exception):
    """The client went away."""


def make_app(engine: Engine, settings: ApiSettings | None = None) -> FastAPI:
    """The web application.

    Args:
        engine: Answers; closed when the application shuts down, after what runs has been answered.
        settings: How it behaves.
    """
    settings = settings or ApiSettings()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(engine.close)

    app = FastAPI(
        title="VisualGLM Workbench",
        description="Questions about pictures, to a VisualGLM and its adapters.",
        lifespan=lifespan,
        max_body_size=settings.limits.body_bytes,
        telemetry={"tracing": False, "logs": False, "metrics": False, "auto_configure": False},
        responses={code: {"description": text} for code, text in _ERRORS.items()},
    )
    registry = CollectorRegistry()
    service = _Service(engine, settings, registry)
    app.post("/", summary="One question, as in the original")(service.original)
    stream = {"description": "The answer; with `stream`, as server-sent events", "content": {"text/event-stream": {}}}
    chat = app.post(
        "/v1/chat/completions", summary="A dialogue, as at OpenAI", response_model=None, responses={200: stream}
    )
    chat(service.chat)
    app.get("/v1/models", summary="The base and its adapters")(service.models)
    app.get("/healthz", summary="The process lives")(service.health)
    app.get("/readyz", summary="Questions are answered", response_model=None)(service.ready)
    for kind in (WorkbenchError, RequestValidationError, HTTPException, _Gone):
        app.add_exception_handler(kind, _answer_error)
    _add_metrics(app, engine, registry)
    if (page := settings.page) is not None:

        def lead(request: Request) -> RedirectResponse:
            return RedirectResponse(f"{page}{request.url.path}")

        for path in PAGE_PATHS:
            app.get(path, include_in_schema=False)(lead)
    app.add_middleware(_Gate, key_hashes=settings.key_hashes, page=page)
    return app


_ERRORS = {
    400: "Something in the request cannot be used; the message says what",
    401: "No known key",
    404: "No such model",
    408: "It took too long",
    413: "The request is too large",
    421: "The server is not reached by this name",
    422: "The request does not have the right form",
    429: "Too many questions wait",
}


class _Service:
    """What the paths do."""

    def __init__(self, engine: Engine, settings: ApiSettings, registry: CollectorRegistry) -> None:
        self.engine, self.settings, self.limits = engine, settings, settings.limits
        self.decoders = asyncio.Semaphore(_DECODERS)
        self.first_token = Histogram(
            "vglm_first_token_seconds", "From the request to its first token", registry=registry
        ).observe

    async def original(self, body: OriginalRequest, request: Request) -> dict[str, Any]:
        """Answer one question; the history comes back with this turn at its end."""
        sampling = body.sampling()
        async with self.decoders:
            question = await run_in_threadpool(body.question, self.limits)
        answer = await self._ask(question, body.model, sampling)
        await self._finished(request, [answer])
        return {
            "result": answer.text,  # as the original's code calls it
            "response": answer.text,  # as its README calls it
            "history": [*(body.history or ()), [body.text, answer.text]],
            "status": 200,
            "time": datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        }

    async def chat(self, body: ChatRequest, request: Request) -> StreamingResponse | dict[str, Any]:
        """Answer the last message of a dialogue, whole or as server-sent events."""
        body.check(self.limits)
        samplings = [body.sampling(index) for index in range(body.n or 1)]
        picture = await self._picture(body.picture_url())
        question = await run_in_threadpool(body.question, picture, self.limits)
        answers: list[Answer] = []
        try:
            for sampling in samplings:
                answers.append(await self._ask(question, body.model, sampling))
        except WorkbenchError:
            _cancel(answers)
            raise
        head: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": body.model,
        }
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            events = self._events(answers, head, with_usage)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        await self._finished(request, answers)
        choices = [
            Choice(
                index=index,
                message=ChatCompletionMessage(role="assistant", content=answer.text),
                finish_reason=_reason(answer),
            )
            for index, answer in enumerate(answers)
        ]
        completion = ChatCompletion(object="chat.completion", choices=choices, usage=_usage(answers), **head)
        return completion.model_dump(mode="json")

    async def models(self) -> dict[str, Any]:
        """List what can answer."""
        rows = [Model(id=name, created=0, object="model", owned_by="vglm") for name in self.engine.names]
        return {"object": "list", "data": [row.model_dump() for row in rows]}

    async def health(self) -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    async def ready(self) -> JSONResponse:
        """Say whether questions are answered."""
        is_ready = self.engine.is_alive
        return JSONResponse({"status": "ready" if is_ready else "closing"}, 200 if is_ready else 503)

    async def _ask(self, question: Any, model: str, sampling: Any) -> Answer:
        return await run_in_threadpool(self.engine.ask, question, adapter=model, sampling=sampling)

    async def _picture(self, url: str | None) -> Image.Image | None:
        if url is None:
            return None
        if url.lower().startswith(("http://", "https://")) and self.settings.allow_remote_images:
            content = await fetch_picture(url, max_bytes=self.limits.body_bytes, timeout_seconds=10)
            async with self.decoders:
                return await run_in_threadpool(read_picture, content, self.limits)
        async with self.decoders:
            return await run_in_threadpool(decode_picture, url, self.limits)

    async def _finished(self, request: Request, answers: Sequence[Answer]) -> None:
        """Wait for all answers, as long as the client does."""
        waiting = asyncio.create_task(self._all(answers))
        leaving = asyncio.create_task(_left(request))
        try:
            done, _ = await asyncio.wait(
                (waiting, leaving), timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting not in done:
                if done:
                    raise _Gone
                raise _TimedOut(f"the answer took longer than {self.limits.seconds:g} s.")
            waiting.result()
        finally:
            _cancel(answers)
            for task in (waiting, leaving):
                task.cancel()
            await asyncio.gather(waiting, leaving, return_exceptions=True)

    async def _all(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            async for _ in answer:
                pass
            if answer.seconds_to_first_token is not None:
                self.first_token(answer.seconds_to_first_token)

    async def _events(self, answers: Sequence[Answer], head: Mapping[str, Any], with_usage: bool) -> AsyncIterator[str]:
        """The pieces of all answers as they come, in OpenAI's form."""

        def event(choices: list[ChunkChoice], usage: CompletionUsage | None = None) -> str:
            chunk = ChatCompletionChunk(object="chat.completion.chunk", choices=choices, usage=usage, **head)
            return f"data: {chunk.model_dump_json(exclude_unset=True)}\n\n"

        def choice(index: int, reason: Any = None, **delta: Any) -> list[ChunkChoice]:
            return [ChunkChoice(index=index, delta=ChoiceDelta(**delta), finish_reason=reason)]

        # Written once: to make and check an object for each piece takes longer than a step of a small model.
        around = [event(choice(index, content=_PIECE)).split(f'"{_PIECE}"', 1) for index in range(len(answers))]
        try:
            async with asyncio.timeout(self.limits.seconds):
                for index in range(len(answers)):
                    yield event(choice(index, role="assistant", content=""))
                async for index, piece in pieces_of(answers):
                    if piece is not None:
                        before, after = around[index]
                        yield f"{before}{json.dumps(piece, ensure_ascii=False)}{after}"
                        continue
                    if (seconds := answers[index].seconds_to_first_token) is not None:
                        self.first_token(seconds)
                    yield event(choice(index, _reason(answers[index])))
            if with_usage:
                yield event([], _usage(answers))
            yield "data: [DONE]\n\n"
        except TimeoutError:
            yield f"data: {json.dumps(_described('the answer took too long.', 'timeout'))}\n\n"
        except WorkbenchError as error:
            yield f"data: {json.dumps(_described(message_of(error), 'server_error'))}\n\n"
        finally:
            _cancel(answers)


async def _left(request: Request) -> None:
    """Return when the client has disconnected."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.1)


def _cancel(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.finish_reason is None:
            answer.cancel()


def _reason(answer: Answer) -> Any:
    return "length" if answer.finish_reason == "length" else "stop"


def _usage(answers: Sequence[Answer]) -> CompletionUsage:
    prompt, completion = answers[0].prompt_tokens, sum(len(answer.token_ids) for answer in answers)
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


# --- errors -----------------------------------------------------------------------------------------------------------


def _described(message: str, kind: str, parameter: str | None = None) -> dict[str, Any]:
    texts = {"message": message, "type": kind, "param": parameter, "code": None}
    return {"error": {name: text and text.encode("utf-8", "replace").decode() for name, text in texts.items()}}


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    """One JSON form for everything that went wrong."""
    headers = {}
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        location = ".".join(str(part)[:40] for part in first["loc"] if part != "body") or "body"
        return JSONResponse(_described(f"{location}: {first['msg']}"[:300], "invalid_request_error", location), 422)
    if isinstance(error, HTTPException):
        return JSONResponse(_described(str(error.detail), "invalid_request_error"), error.status_code, error.headers)
    if isinstance(error, _Gone):
        return JSONResponse(_described("the client went away.", "cancelled"), 499)
    code, kind = 400, "invalid_request_error"
    if isinstance(error, AdapterError):
        code = 404
    elif isinstance(error, BusyError):
        code, kind, headers = 429, "rate_limit_error", {"Retry-After": str(RETRY_SECONDS)}
    elif isinstance(error, _TimedOut):
        code, kind = 408, "timeout"
    elif type(error) is WorkbenchError:
        code, kind = 500, "server_error"
    return JSONResponse(_described(message_of(error), kind), code, headers)


class _Gate:
    """Checks the key before a request is parsed, with a timeout."""

    def __init__(self, app: ASGIApp, key_hashes: Sequence[str], page: str | None) -> None:
        self.app, self.key_hashes, self.page = app, key_hashes, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.key_hashes and not self._is_open(scope):
            shown = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
            if not is_known(shown, self.key_hashes):
                body = _described("no known key. Send the header Authorization: Bearer <key>.", "authentication_error")
                await JSONResponse(body, 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        deadline: float | None = time.monotonic() + BODY_SECONDS

        async def receive_in_time() -> Message:
            nonlocal deadline
            if deadline is None:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise HTTPException(408, f"the request was not sent within {BODY_SECONDS:g} s.") from None
            if not message.get("more_body", False):
                deadline = None
            return message

        await self.app(scope, receive_in_time, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        if self.page is not None and (
            f"{path}/".startswith(f"{self.page}/") or (path in PAGE_PATHS and scope["method"] == "GET")
        ):
            return True
        return path in OPEN_PATHS


# --- metrics ----------------------------------------------------------------------------------------------------------


class _EngineMetrics:
    """The engine's metrics, read when Prometheus scrapes them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def collect(self) -> Any:
        """Yield the families of metrics."""
        load = self.engine.load
        yield GaugeMetricFamily("vglm_waiting", "Questions that wait", value=load.waiting)
        yield GaugeMetricFamily("vglm_running", "Questions that are being answered", value=load.running)
        yield CounterMetricFamily("vglm_answers", "Answers that ended", value=load.answered)
        yield CounterMetricFamily("vglm_tokens", "Tokens of answers", value=load.generated_tokens)
        yield CounterMetricFamily("vglm_steps", "Decoding steps; tokens by steps is the mean batch", value=load.steps)


def _add_metrics(app: FastAPI, engine: Engine, registry: CollectorRegistry) -> None:
    registry.register(_EngineMetrics(engine))
    Instrumentator(registry=registry).instrument(app).expose(app, include_in_schema=False)
