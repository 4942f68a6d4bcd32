"""`vglm web`: the web page, a thin client of the server's own `/v1`. Base and adapted model answer side by side.

    app = mount_page(make_app(engine, settings), PageSettings(...), base_url="http://127.0.0.1:7860/v1")

Gradio renders the page. The page makes no external requests: no analytics, no external fonts, no address that a visitor
enters. An upload is kept in a folder of the page until the visitor opens another picture, leaves, or the server ends.
"""

import asyncio
import base64
import mimetypes
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False")  # read when Gradio is imported

import gradio as gr
import safehttpx
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from gradio import processing_utils
from openai import APIConnectionError, APIError, AsyncOpenAI, DefaultAsyncHttpxClient

from vglm.errors import DataError, message_of
from vglm.evaluation.predictions import (
    IMAGES_FOLDER,
    Evaluation,
    Prediction,
    predictions_file,
    read_evaluation,
    read_predictions,
)
from vglm.files import inside, read_bytes
from vglm.serving.adapters import BASE
from vglm.serving.requests import Limits, read_picture
from vglm.serving.samples import picture_of
from vglm.serving.texts import web_texts
from vglm.text.prompt import Language

PATH = "/web"
"""Where the page is on the application."""
MAX_SAMPLES = 200
"""Samples of an evaluation that the page offers."""
_KEPT_SECONDS = 86_400
"""Pictures of a page that stays open are kept so long."""
_FONTS = ("system-ui", "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif")
_CSS = """
.problem { padding: 8px 12px; border: 1.5px solid; border-radius: 8px; color: #c0392b; overflow-wrap: anywhere; }
.dark .problem { color: #ef9a85; }
.heading { min-height: 76px; } .heading h3 { margin: 0 !important; }
.heading p { margin: 2px 0 0 !important; color: var(--block-label-text-color); overflow-wrap: anywhere; }
.heading p { font-size: 14px; line-height: 1.4; }
#image img { width: 100%; height: 100%; object-fit: contain; }
footer, [data-testid=status-tracker].hide, #before-chat .top-panel, #after-chat .top-panel { display: none !important; }
@media (max-width: 700px) { .heading { min-height: 0; } }
"""
_SHOW_ANSWERS = """(...values) => {
  const isSent = document.querySelector("#question textarea").value.trim() && innerWidth <= 700;
  const columns = [...document.querySelectorAll("#before, #after")].filter((column) => column.checkVisibility());
  if (isSent) columns[0].scrollIntoView({behavior: "smooth"});
  return values;
}"""
"""On a phone the answers are below the question."""

Message = dict[str, Any]


def _path_of(_: gr.Image, payload: Any) -> str | None:
    return None if payload is None else str(payload.path)


# The file as it is: Gradio would turn it by its EXIF orientation, which the model does not. Of the class, for Gradio
# makes a new component for each visitor.
gr.Image.preprocess = _path_of  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class PageSettings:
    """What the page shows.

    Attributes:
        folder: Where pictures lie while they are shown; only for this page, and emptied by its creator.
        names: Who can answer, the base first.
        base_hash: Identity of the base's weights.
        evaluation: Folder of an evaluation whose samples are offered.
        language: "zh" or "en".
        limits: What the server takes of a picture.
        api_key: What the server asks for.
        auth: Name and password that a visitor must know.
    """

    folder: Path
    names: Sequence[str]
    base_hash: str
    evaluation: Path | None = None
    language: Language = "en"
    limits: Limits = field(default_factory=Limits)
    api_key: str = "none"
    auth: tuple[str, str] | None = None


def mount_page(app: FastAPI, settings: PageSettings, base_url: str) -> FastAPI:
    """Put the page on the application that it is a client of.

    Args:
        app: The API, see `make_app`.
        settings: What the page shows.
        base_url: Where this application will answer, with `/v1`.

    Raises:
        DataError: The evaluation cannot be read.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(settings.folder)  # read when components are made
    _open_no_address()
    client = AsyncOpenAI(
        base_url=base_url,
        api_key=settings.api_key,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(trust_env=False),  # to this machine, never through a proxy
    )
    return asyncio.run(_mount(app, _Page(settings, client)))  # outside a loop, Gradio makes some that it never closes


async def _mount(app: FastAPI, page: "_Page") -> FastAPI:
    settings, blocks = page.settings, page.build()
    blocks.queue(default_concurrency_limit=None)
    shown = [] if settings.evaluation is None else [str((settings.evaluation / IMAGES_FOLDER).resolve())]
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        blocks,
        PATH,
        auth=settings.auth,
        allowed_paths=shown,
        max_file_size=settings.limits.body_bytes,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        theme=gr.themes.Default(
            primary_hue="blue", font=[gr.themes.Font(name) for name in _FONTS], font_mono=gr.themes.Font("monospace")
        ),
        css=_CSS,
    )
    return mounted


def _open_no_address() -> None:
    """Gradio fetches addresses that a visitor names where it expects a file; here it is to fetch none."""

    async def refuse(address: str) -> Any:
        raise ValueError(f"addresses are not opened: {address}")

    for module, name in ((safehttpx, "async_validate_url"), (processing_utils, "async_ssrf_protected_get")):
        setattr(module, name, refuse)


@dataclass(frozen=True)
class _Samples:
    """The samples of an evaluation that the page offers."""

    folder: Path
    evaluation: Evaluation
    records: Sequence[Prediction]

    @classmethod
    def open(cls, folder: Path) -> "_Samples":
        evaluation = read_evaluation(folder)
        records = read_predictions(predictions_file(folder, evaluation.candidate.label))
        return cls(folder, evaluation, [record for record in records if record.split == "test" and not record.draw])

    @property
    def rows(self) -> list[list[Any]]:
        """Small picture, question and true answer of each."""
        return [[self._copy(record), record.question, record.reference] for record in self.records[:MAX_SAMPLES]]

    def _copy(self, record: Prediction) -> str | None:
        path = inside(self.folder, IMAGES_FOLDER, f"{record.image_sha256}.webp")
        return str(path.resolve()) if path.is_file() else None


class _Page:
    """The components and what they do."""

    def __init__(self, settings: PageSettings, client: AsyncOpenAI) -> None:
        self.settings, self.client = settings, client
        self.texts = web_texts(settings.language)
        self.samples = None if settings.evaluation is None else _Samples.open(settings.evaluation)
        self.has_adapter = len(settings.names) > 1
        self.uploads: dict[str, set[Path]] = defaultdict(set)

    def build(self) -> gr.Blocks:
        """Build the layout of the page."""
        page: gr.Blocks = gr.Blocks(
            title=self.texts["title"],
            analytics_enabled=False,
            fill_width=True,
            delete_cache=(3600, _KEPT_SECONDS),
        )
        with page:
            gr.Markdown(f"# {self.texts['title']}")
            with gr.Row():
                with gr.Column(scale=2, min_width=300):
                    self._lay_out_question()
                with gr.Column(scale=5, min_width=320):
                    self._lay_out_answers()
            if self.samples is not None:
                self._lay_out_samples(self.samples)
            self._connect()
            page.unload(self.forget)
        return page

    def _lay_out_question(self) -> None:
        texts = self.texts
        self.image = gr.Image(
            label=texts["image"],
            type="filepath",
            format="png",
            sources=["upload", "clipboard"],
            height=300,
            buttons=["fullscreen"],
            placeholder=texts["drop"],
            elem_id="image",
        )
        self.problem = gr.HTML(visible=False, elem_id="problem")
        self.note = gr.Markdown(visible=False)
        self.reference = gr.Textbox(label=texts["reference"], visible=False, interactive=False, elem_id="reference")
        self.question = gr.Textbox(
            label=texts["question"], placeholder=texts["placeholder"], lines=2, max_lines=6, elem_id="question"
        )
        self.unanswered = gr.State("")
        with gr.Row():
            self.ask = gr.Button(texts["ask"], variant="primary", min_width=80, elem_id="ask")
            self.stop = gr.Button(texts["stop"], min_width=80, elem_id="stop")
            self.clear = gr.Button(texts["clear"], min_width=80, elem_id="clear")
        choices = [(texts["both"], "both"), (texts["before"], "before"), (texts["after"], "after")]
        value = "both" if self.has_adapter else "before"
        self.shown = gr.Radio(choices, value=value, label=texts["show"], visible=self.has_adapter, elem_id="show")
        adapters = list(self.settings.names[1:])
        self.adapter = gr.Dropdown(
            adapters, value=next(iter(adapters), None), label=texts["adapter"], visible=len(adapters) > 1
        )
        with gr.Accordion(texts["settings"], open=False, elem_id="settings"):
            self.sampling = self._lay_out_sampling()

    def _lay_out_sampling(self) -> list[Any]:
        """In the order of `_sampling`."""
        texts = self.texts
        languages = [(texts["auto"], "auto"), (texts["zh"], "zh"), (texts["en"], "en")]
        return [
            gr.Slider(1, 2048, value=512, step=1, label=texts["max_tokens"], elem_id="max_tokens"),
            gr.Slider(0, 2, value=0.8, step=0.05, label=texts["temperature"], elem_id="temperature"),
            gr.Slider(0.05, 1, value=0.4, step=0.05, label=texts["top_p"]),
            gr.Slider(0, 200, value=100, step=1, label=texts["top_k"]),
            gr.Slider(1, 2, value=1.2, step=0.05, label=texts["repetition_penalty"]),
            gr.Number(value=1, precision=0, label=texts["seed"], elem_id="seed"),
            gr.Radio(languages, value="auto", label=texts["language"]),
        ]

    def _lay_out_answers(self) -> None:
        texts, settings = self.texts, self.settings
        with gr.Row():
            with gr.Column(min_width=300, elem_id="before") as self.before_column:
                self._heading(texts["before"], texts["base"].format(hash=settings.base_hash[:16]))
                self.before, self.before_problem = self._dialogue("before")
            with gr.Column(min_width=300, visible=self.has_adapter, elem_id="after") as self.after_column:
                self.after_heading = self._heading(texts["after"], self._tuned(settings.names[-1]))
                self.after, self.after_problem = self._dialogue("after")
        if not self.has_adapter:
            gr.Markdown(texts["no_adapter"])

    def _tuned(self, name: str) -> str:
        return self.texts["tuned"].format(hash=self.settings.base_hash[:16], name=name)

    def _heading(self, title: str, text: str) -> gr.Markdown:
        return gr.Markdown(f"### {title}\n{text}", elem_classes=["heading"])

    def _dialogue(self, name: str) -> tuple[gr.Chatbot, gr.HTML]:
        chat = gr.Chatbot(
            show_label=False,
            height="auto",
            min_height=280,
            max_height=560,
            render_markdown=False,  # the answer as the model wrote it
            feedback_options=None,
            buttons=[],
            elem_id=f"{name}-chat",
        )
        return chat, gr.HTML(visible=False, elem_id=f"{name}-problem")

    def _lay_out_samples(self, samples: _Samples) -> None:
        texts = self.texts
        self.dataset = gr.Dataset(
            components=[gr.Image(render=False), gr.Textbox(render=False), gr.Textbox(render=False)],
            headers=[texts["image"], texts["question"], texts["reference"]],
            samples=samples.rows,
            type="index",
            samples_per_page=6,
            label=texts["samples"].format(title=samples.evaluation.title),
            elem_id="samples",
        )

    def _connect(self) -> None:
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        chats = [self.before, self.after]
        problems = [self.problem, self.before_problem, self.after_problem]
        fresh = [self.note, self.reference, *chats]
        # One event for question and answers: while it runs, the browser drops further ones, with what they would send.
        submitted = gr.on(
            [self.ask.click, self.question.submit],
            self.answer,
            [self.question, self.shown, self.adapter, *chats, self.image, *self.sampling],
            [self.question, self.ask, *chats, *problems, self.unanswered],
            js=_SHOW_ANSWERS,
            **private,
        )
        for event in (submitted.then, submitted.failure):  # also when it was cancelled
            fields = [self.question, self.unanswered]
            event(self.settle, fields, [self.ask, *fields], queue=False, **private)
        self.stop.click(None, cancels=submitted, **private)

        def anew(event: Any, act: Any, inputs: Any, outputs: list[Any]) -> None:
            """Cancel the answers first, since an answer cannot continue in a removed dialogue."""
            event(None, cancels=submitted, **private).then(act, inputs, outputs, **private)

        anew(self.image.upload, self.open_upload, [self.image], [self.image, self.problem, *fresh])
        anew(self.image.clear, self.begin, None, [self.problem, *fresh])
        anew(self.clear.click, lambda: ([], []), None, chats)
        anew(self.adapter.change, self.choose, [self.adapter], [self.after_heading, *chats])
        self.shown.change(self.show, [self.shown], [self.before_column, self.after_column], **private)
        if self.samples is not None:
            anew(
                self.dataset.click, self.open_sample, [self.dataset], [self.image, self.question, self.problem, *fresh]
            )

    # --- pictures -----------------------------------------------------------------------------------------------------

    def open_upload(self, path: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Take a picture up and begin a new dialogue about it, or say why it cannot be used."""
        if path is None:
            return (None, *self.begin())
        file, session = Path(path), str(request.session_hash)
        self._remove(session, but=file)
        self.uploads[session].add(file)
        try:
            self._read(file)
        except DataError as error:
            self._remove(session)
            return (None, self._bad_image(error), *self.begin()[1:])
        return (gr.skip(), *self.begin())

    def _read(self, file: Path) -> str:
        """A picture as a data URL."""
        content = read_bytes(file, limit=self.settings.limits.body_bytes)
        read_picture(content, self.settings.limits)
        return f"data:{mimetypes.guess_type(file.name)[0] or 'image/png'};base64,{base64.b64encode(content).decode()}"

    def _bad_image(self, error: DataError) -> Any:
        limits = self.settings.limits
        size = f"{limits.body_bytes / 2**20:.0f}"
        return self._alert("bad_image", error=message_of(error), pixels=f"{limits.pixels:,}", size=size)

    def begin(self) -> tuple[Any, ...]:
        """No problem, no note, no true answer, empty dialogues."""
        return _hidden(), _hidden(), _hidden(), [], []

    def forget(self, request: gr.Request) -> None:
        """Remove what a visitor who left had uploaded."""
        self._remove(str(request.session_hash))

    def _remove(self, session: str, but: Path | None = None) -> None:
        for file in self.uploads.pop(session, set()) - {but}:
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def open_sample(self, index: int) -> tuple[Any, ...]:
        """Show a sample of the evaluation: picture, question, earlier turns and the true answer."""
        assert self.samples is not None
        record = self.samples.records[index]
        image, is_original = picture_of(record, self.samples.folder)
        note = "small_lost" if image is None and record.image_sha256 else "" if is_original else "small_copy"
        turns = [_message(role, text) for turn in record.history for role, text in zip(_ROLES, turn, strict=True)]
        return (
            image,
            record.question,
            _hidden(),
            gr.update(visible=bool(note), value=self.texts.get(note, "")),
            gr.update(visible=True, value=record.reference),
            turns,
            turns,
        )

    # --- questions ----------------------------------------------------------------------------------------------------

    def show(self, shown: str) -> tuple[Any, Any]:
        """Choose the columns."""
        return gr.update(visible=shown != "after"), gr.update(visible=shown != "before")

    def choose(self, adapter: str) -> tuple[Any, ...]:
        """Choose the adapter; the dialogues start over."""
        return f"### {self.texts['after']}\n{self._tuned(adapter)}", [], []

    async def answer(
        self,
        question: str,
        shown: str,
        adapter: str | None,
        before: list[Message],
        after: list[Message],
        image: str | None,
        *sampling: Any,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Put a question to those who are to answer, and show both answers as they grow.

        Yields:
            The question's field, the button, the dialogues, the problems of question and answers, a question that
            got no answer.
        """
        if not question.strip():
            yield (*(gr.skip() for _ in range(4)), self._alert("empty"), *(gr.skip() for _ in range(3)))
            return
        try:
            picture = None if image is None else await run_in_threadpool(self._read, Path(image))
        except DataError as error:
            yield (*(gr.skip() for _ in range(4)), self._bad_image(error), *(gr.skip() for _ in range(3)))
            return
        columns = [_Column(BASE, _answered(before)), _Column(adapter or "", _answered(after))]
        answering = [column for column, other in zip(columns, ("after", "before"), strict=True) if shown != other]
        for column in answering:
            column.turns.append(_message("user", question))
        yield ("", gr.update(interactive=False), *self._shown(columns), "")
        news = asyncio.Event()
        tasks = [asyncio.create_task(self._follow(column, news, picture, _sampling(*sampling))) for column in answering]
        try:
            is_growing = True
            while is_growing:
                await news.wait()
                news.clear()
                is_growing = not all(task.done() for task in tasks)  # asked before what may be the last showing
                unanswered = question if any(column.problem for column in columns) else ""
                yield (gr.skip(), gr.skip(), *self._shown(columns), unanswered)
            for task in tasks:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def settle(self, typed: str, unanswered: str) -> tuple[Any, ...]:
        """Accept questions again; a question without an answer is restored, unless another one is being typed."""
        return gr.update(interactive=True), unanswered if unanswered and not typed else gr.skip(), ""

    def _shown(self, columns: Sequence["_Column"]) -> tuple[Any, ...]:
        """The dialogues and the problems."""
        problems = [self._alert("failed", error=column.problem) if column.problem else _hidden() for column in columns]
        return (*(list(column.turns) for column in columns), _hidden(), *problems)

    async def _follow(
        self, column: "_Column", news: asyncio.Event, picture: str | None, sampling: Mapping[str, Any]
    ) -> None:
        """Get one answer, and say so whenever there is more of it."""
        cut = self.texts["cut"]
        try:
            stream = await self.client.chat.completions.create(
                model=column.model, messages=_with_picture(column.turns, picture, cut), stream=True, **sampling
            )
            column.turns.append(_message("assistant", ""))
            async with stream:
                async for chunk in stream:
                    for choice in chunk.choices:
                        column.turns[-1]["content"] += choice.delta.content or ""
                        column.turns[-1]["content"] += cut if choice.finish_reason == "length" else ""
                    news.set()
        except APIConnectionError as error:
            column.fail(str(error.__cause__ or error))
        except APIError as error:
            details = error.body if isinstance(error.body, dict) else {}
            column.fail(str(details.get("message", error.message)))
        finally:
            news.set()

    def _alert(self, key: str, **values: str) -> Any:
        text = escape(self.texts[key].format(**values))
        return gr.update(visible=True, value=f'<div class="problem" role="alert">{text}</div>')


_ROLES = ("user", "assistant")


@dataclass
class _Column:
    """A dialogue, who answers in it, and why an answer failed."""

    model: str
    turns: list[Message]
    problem: str = ""

    def fail(self, problem: str) -> None:
        """Take the question back."""
        while self.turns.pop()["role"] != "user":
            pass
        self.problem = problem


def _sampling(
    max_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    seed: int,
    language: str,
) -> dict[str, Any]:
    """The settings as the `openai` client takes them."""
    extra: Mapping[str, Any] = {"top_k": int(top_k), "repetition_penalty": repetition_penalty}
    return {
        "max_tokens": int(max_tokens),
        "temperature": temperature,
        "top_p": top_p,
        "seed": None if seed < 0 else int(seed),
        "extra_body": {**extra, **({} if language == "auto" else {"language": language})},
    }


def _hidden() -> Any:
    return gr.update(visible=False, value="")


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def _plain(messages: Sequence[Message]) -> list[Message]:
    """Roles and texts alone, whatever else a visitor's page sends."""
    return [_message(str(message["role"]), _text(message["content"])) for message in messages or ()]


def _answered(messages: Sequence[Message]) -> list[Message]:
    """The same without a last question that was stopped before its answer began."""
    turns = _plain(messages)
    return turns[:-1] if turns and turns[-1]["role"] == "user" else turns


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _with_picture(turns: Sequence[Message], picture: str | None, cut: str) -> list[Any]:
    """The dialogue as the API takes it: the picture goes with the first question; no answer says that it was cut."""
    spoken = [_message(turn["role"], turn["content"].removesuffix(cut)) for turn in turns]
    if picture is None:
        return spoken
    parts = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": spoken[0]["content"]}]
    return [{"role": "user", "content": parts}, *spoken[1:]]
