"""The web page: base and adapted model side by side in a real browser, and what a stranger gets of it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI
from openai import OpenAI
from pages import Visitor, free_port, served, wait_until
from PIL import ExifTags, Image
from programs import Program
from test_report import EVALUATION, record
from test_report_browser import CHROMIUM

from vglm.cli import main
from vglm.config import build, compose
from vglm.data.images import image_sha256
from vglm.evaluation.predictions import write_evaluation, write_predictions
from vglm.model.identity import hash_weights
from vglm.model.loading import load_pretrained
from vglm.serving.adapters import BASE
from vglm.serving.api import ApiSettings, make_app
from vglm.serving.engine import Answer, Engine, Question
from vglm.serving.keys import new_key
from vglm.serving.sampling import Sampling, is_chinese
from vglm.serving.web import PATH, PageSettings, mount_page
from vglm.tuning.methods import attach, save

HOW = Sampling(temperature=0.8, top_p=0.4, top_k=100, repetition_penalty=1.2, seed=1, max_new_tokens=150)
QUESTION = "这张图片的背景里有什么内容？"
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # in Gradio's queue
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")


class Recorder(Engine):
    """An engine that remembers what it was asked for, and can hold answers in the middle."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.answers: list[Answer] = []
        self.is_holding = False
        super().__init__(*arguments, **options)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let no answer grow beyond its first tokens, unless it is cancelled."""
        self.is_holding = True
        try:
            yield
        finally:
            self.is_holding = False

    def _advance(self, name: str) -> None:
        answers = [row.answer for row in self._rows[name]]
        if self.is_holding and not any(answer.is_cancelled or len(answer.token_ids) < 20 for answer in answers):
            time.sleep(0.01)
        else:
            super()._advance(name)

    def ask_all(self, *arguments: Any, **options: Any) -> list[Answer]:
        answers = super().ask_all(*arguments, **options)
        self.answers += answers
        return answers


@pytest.fixture(scope="module")
def engine(random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    torch.manual_seed(0)
    cfg = compose(overrides=["method=lora", f"model.path_or_id={random_model_folder}"])
    model, processor = build(cfg.model)
    tuned = attach(model, build(cfg.method))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter)
    adapter = save(tuned, processor, tmp_path_factory.mktemp("lora"))
    engine = Recorder(*load_pretrained(random_model_folder), adapters={"tuned": adapter})
    yield engine
    engine.close(cancel=True)


def write_samples(folder: Path) -> Path:
    """An evaluation of three samples: the original picture is there, is another one now, is lost."""
    (folder / "images").mkdir(parents=True)
    records = []
    for name, colour in (("there", "gold"), ("other", "navy"), ("lost", "green")):
        image = Image.new("RGB", (40, 30), colour)
        path = folder / f"{name}.png"
        image.save(path)
        image.resize((20, 15)).save(folder / "images" / f"{image_sha256(image)}.webp")
        records.append(
            record(name, "猫。", question=f"{name}？", reference=f"{colour}。", image=str(path),
                   image_sha256=image_sha256(image), history=(("你好", "您好。"),))
        )  # fmt: skip
    Image.new("RGB", (40, 30), "red").save(folder / "other.png")
    (folder / "lost.png").unlink()
    write_evaluation(replace(EVALUATION, stamps=()), folder)
    for arm in ("before", "after"):
        write_predictions(records, folder / arm / "predictions.jsonl")
    return folder


def make_page(engine: Engine, folder: Path, port: int, **changes: Any) -> FastAPI:
    key, key_hash = new_key()
    settings = PageSettings(
        folder=folder, names=engine.names, base_hash=hash_weights(engine.base), api_key=key, **changes
    )
    api = ApiSettings(settings.limits, [key_hash] if settings.auth else [], page=PATH)
    return mount_page(make_app(engine, api), settings, f"http://127.0.0.1:{port}/v1")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(engine: Recorder, uploads: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, samples = free_port(), write_samples(tmp_path_factory.mktemp("run") / "evaluation")
    app = make_page(engine, uploads, port, evaluation=samples, language="en")
    with served(app, port) as url:
        yield url


@pytest.fixture(scope="module")
def visitor(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:  # leaves before the server
    visitor = Visitor(tmp_path_factory.mktemp("profile"))
    yield visitor
    visitor.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture that viewers turn, and the model does not."""
    path, exif = tmp_path / "photo.png", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").convert("RGB").save(path, exif=exif)
    return path


def open_page(visitor: Visitor, address: str, *, max_tokens: int = 512) -> None:
    visitor.visit(f"{address}/")
    visitor.click("#settings button")
    visitor.write("#max_tokens input[type=number]", str(max_tokens))


def ask(visitor: Visitor, engine: Recorder, question: str, *, answers: int) -> list[Answer]:
    """Ask when the page takes a question; the answers that the engine was asked for."""
    before = len(engine.answers)
    visitor.until("!document.querySelector('#ask').disabled")
    visitor.write("#question textarea", question)
    visitor.click("#ask")
    wait_until(lambda: len(engine.answers) >= before + answers)
    return engine.answers[before:]


def shown(answer: Answer) -> str:
    """What the page makes of an answer, without blanks and control characters, which a browser folds and drops."""
    return squeezed(answer.text + (" … (cut at the length limit)" if answer.finish_reason == "length" else ""))


def squeezed(text: str) -> str:
    return "".join(character for character in text if character.isprintable() and not character.isspace())


RESPONSE = "Network.responseReceived"
BOTH_GROW = "['before', 'after'].every(name => document.querySelector(`#${name}-chat .bot`)?.textContent.trim())"


@needs_browser
def test_one_question_goes_to_both_and_both_columns_stream(
    visitor: Visitor, address: str, engine: Recorder, photo: Path
) -> None:
    open_page(visitor, address, max_tokens=150)
    visitor.upload("#image input[type=file]", photo)
    visitor.until("document.querySelector('#image img') !== null")
    with engine.holding():
        answers = ask(visitor, engine, QUESTION, answers=2)
        visitor.until(BOTH_GROW)
        assert not any(answer.finish_reason for answer in answers)  # both columns stream, at the same time
    image = Image.open(photo).convert("RGB")
    alone = [engine.ask(Question(QUESTION, image), adapter=name, sampling=HOW).wait() for name in (BASE, "tuned")]
    before, after = map(shown, alone)
    assert before != after
    wait_until(lambda: squeezed(visitor.text("#before-chat .bot")) == before)
    wait_until(lambda: squeezed(visitor.text("#after-chat .bot")) == after)
    assert "adapter off" in visitor.text("#before")
    assert hash_weights(engine.base)[:16] in visitor.text("#before")
    assert "adapter tuned" in visitor.text("#after")
    assert visitor.strange_requests(address) == []
    responses = [event["params"]["response"] for event in visitor.events if event["method"] == RESPONSE]
    assert [(response["status"], response["url"]) for response in responses if response["status"] >= 400] == []


@needs_browser
def test_a_question_that_fails_comes_back(visitor: Visitor, address: str, engine: Recorder) -> None:
    open_page(visitor, address)
    waiting, engine.max_waiting = engine.max_waiting, 0
    try:
        visitor.write("#question textarea", QUESTION)
        visitor.click("#ask")
        for name in ("before", "after"):
            wait_until(lambda name=name: "No answer: 0 questions wait already" in visitor.text(f"#{name}-problem"))
        visitor.until(f"document.querySelector('#question textarea').value === '{QUESTION}'")
        assert visitor.run("document.querySelector('.user') === null")
    finally:
        engine.max_waiting = waiting
    visitor.click("#ask")  # as it is
    visitor.until(BOTH_GROW)
    visitor.until("!document.querySelector('#ask').disabled && !document.querySelector('[role=alert]')")
    assert visitor.run("document.querySelector('#question textarea').value") == ""


@needs_browser
def test_on_a_phone_the_answers_come_into_sight(visitor: Visitor, address: str, engine: Recorder) -> None:
    visitor.call("Emulation.setDeviceMetricsOverride", width=400, height=850, deviceScaleFactor=1, mobile=True)
    try:
        open_page(visitor, address, max_tokens=20)
        ask(visitor, engine, QUESTION, answers=2)
        visitor.until("document.querySelector('#before-chat .user')?.getBoundingClientRect().bottom < innerHeight")
        assert visitor.run("document.documentElement.scrollWidth <= innerWidth")
        assert "processing" not in visitor.text("body")
    finally:
        visitor.call("Emulation.clearDeviceMetricsOverride")


@needs_browser
def test_a_second_question_knows_the_first(visitor: Visitor, address: str, engine: Recorder) -> None:
    open_page(visitor, address, max_tokens=150)
    visitor.click("#show input[value=before]")
    visitor.until("!document.querySelector('#after')?.checkVisibility()")
    for question in ("你好", "再见"):
        (answer,) = ask(visitor, engine, question, answers=1)
        wait_until(lambda answer=answer: answer.finish_reason)
        wait_until(lambda answer=answer: squeezed(visitor.text("#before-chat")).endswith(shown(answer)))
    first, second = engine.answers[-2:]
    history = [("你好", first.text)]
    assert second.text == engine.ask(Question("再见", None, history), sampling=HOW).wait().text
    assert not visitor.run("document.querySelector('#after-chat .user')?.checkVisibility()")


@needs_browser
def test_no_question_is_lost_while_an_answer_comes(visitor: Visitor, address: str, engine: Recorder) -> None:
    open_page(visitor, address, max_tokens=2000)
    with engine.holding():
        ask(visitor, engine, QUESTION, answers=2)
        visitor.until(BOTH_GROW)
        visitor.write("#question textarea", "再见")
        visitor.press("Enter")
        visitor.run("document.querySelector('#ask').click()")
        assert visitor.run("document.querySelector('#ask').disabled")
        visitor.click("#stop")
        visitor.until("!document.querySelector('#ask').disabled")
        assert visitor.run("document.querySelector('#question textarea').value") == "再见"
        visitor.click("#ask")
        visitor.until("document.querySelectorAll('#before-chat .user').length === 2")
        visitor.click("#stop")


@needs_browser
def test_an_emptied_dialogue_stays_empty(visitor: Visitor, address: str, engine: Recorder) -> None:
    open_page(visitor, address, max_tokens=2000)
    with engine.holding():
        answers = ask(visitor, engine, QUESTION, answers=2)
        visitor.until(BOTH_GROW)
        visitor.click("#clear")
        wait_until(lambda: all(answer.finish_reason for answer in answers))
        assert {answer.finish_reason for answer in answers} == {"cancelled"}
        visitor.until(
            "!document.querySelector('#ask').disabled && document.querySelector('#before-chat .bot') === null"
        )


@needs_browser
def test_stop_ends_both_answers(visitor: Visitor, address: str, engine: Recorder) -> None:
    open_page(visitor, address, max_tokens=2000)
    with engine.holding():
        answers = ask(visitor, engine, QUESTION, answers=2)
        visitor.until(BOTH_GROW)
        visitor.click("#stop")
        wait_until(lambda: all(answer.finish_reason for answer in answers))
    assert {answer.finish_reason for answer in answers} == {"cancelled"}


@needs_browser
def test_a_file_that_is_no_picture_is_refused_in_words(
    visitor: Visitor, address: str, uploads: Path, tmp_path: Path, photo: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"<script>alert(1)</script>")
    visitor.visit(f"{address}/")
    visitor.upload("#image input[type=file]", bad)
    visitor.until("document.querySelector('[role=alert]') !== null")
    assert visitor.text("[role=alert]").startswith("This file cannot be used: the image cannot be read as one of PNG,")
    assert not list(uploads.rglob("bad.png"))
    visitor.upload("#image input[type=file]", photo)
    visitor.until("document.querySelector('#image img') !== null && !document.querySelector('[role=alert]')")


@needs_browser
def test_what_was_uploaded_goes_with_the_visitor(
    visitor: Visitor, address: str, engine: Recorder, uploads: Path, photo: Path
) -> None:
    mine = photo.rename(photo.with_name("mine.png"))
    visitor.visit(f"{address}/")
    visitor.upload("#image input[type=file]", mine)
    visitor.until("document.querySelector('#image img') !== null")
    answers = ask(visitor, engine, QUESTION, answers=2)
    wait_until(lambda: all(answer.finish_reason for answer in answers))
    assert list(uploads.rglob("mine.png"))
    visitor.visit("about:blank")
    wait_until(lambda: not list(uploads.rglob("mine.png")))


@needs_browser
@pytest.mark.parametrize(("row", "note"), [(0, ""), (1, "small copy"), (2, "small copy")])
def test_a_sample_opens_with_its_true_answer(visitor: Visitor, address: str, row: int, note: str) -> None:
    visitor.visit(f"{address}/")
    visitor.until("document.querySelectorAll('#samples tbody tr').length === 3")
    visitor.run(f"document.querySelectorAll('#samples tbody tr')[{row}].click()")
    visitor.until("document.querySelector('#reference textarea') !== null")
    name, colour = (("there", "gold"), ("other", "navy"), ("lost", "green"))[row]
    visitor.until(f"document.querySelector('#question textarea').value === '{name}？'")
    assert visitor.run("document.querySelector('#reference textarea').value") == f"{colour}。"
    visitor.until("document.querySelector('#after-chat .bot')?.innerText.trim() === '您好。'")
    assert ("small copy" in visitor.text("body")) == bool(note)
    wide = "document.querySelector('#image img').naturalWidth"
    visitor.until(f"{wide} > 0")
    assert visitor.run(wide) == (20 if note else 40)


@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(Path(__file__).resolve()), "http://example.com/a.png", "{run}/there.png"]
)
def test_only_the_small_copies_and_uploads_are_served(address: str, path: str, tmp_path_factory: Any) -> None:
    path = path.format(run=next(tmp_path_factory.getbasetemp().glob("run*/evaluation")))
    assert httpx.get(f"{address}{PATH}/gradio_api/file={path}").status_code == 403


def test_a_page_with_a_password_closes_the_api_too(random_model_folder: Path, tmp_path: Path) -> None:
    port, engine = free_port(), Engine(*load_pretrained(random_model_folder))
    app = make_page(engine, tmp_path, port, auth=("anna", "secret"))
    with served(app, port) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/favicon.ico", "/manifest.json"):
            assert client.get(path).headers["location"] == f"{PATH}{path}"
        assert client.get(f"{PATH}/config").status_code == 401
        assert client.get("/v1/models").status_code == 401
        assert client.post("/", json={"text": "你好"}).status_code == 401
        assert client.post(f"{PATH}/login", data={"username": "anna", "password": "wrong"}).status_code == 400
        assert client.post(f"{PATH}/login", data={"username": "anna", "password": "secret"}).status_code == 200
        config = client.get(f"{PATH}/config").json()
        assert (config["analytics_enabled"], config["run_history"]) == (False, False)
        assert client.get("/v1/models").status_code == 401
        assert client.get("/healthz").status_code == 200


def test_without_the_relay_a_shared_page_is_served_here_and_says_so(random_model_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "vglm", "web", "--share", "--auth", "anna:secret", "--port", str(port)]
    command += ["--from_pretrained", str(random_model_folder)]
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
    with (tmp_path / "said").open("w+", encoding="utf-8") as log:
        with Program(*command, stderr=log, env=environment, cwd=tmp_path) as program:
            wait_until(lambda: program.poll() is not None or "served here" in (tmp_path / "said").read_text())
            assert httpx.get(f"http://127.0.0.1:{port}{PATH}/").status_code == 200
            assert httpx.get(f"http://127.0.0.1:{port}{PATH}/config").status_code == 401
            program.send_signal(signal.SIGTERM)
            assert program.wait() == 0
        lines = (tmp_path / "said").read_text(encoding="utf-8").splitlines()
    (warning,) = [line for line in lines if "warning" in line]
    assert warning.startswith("warning: no public link: Could not get share link")
    assert warning.endswith("The page is served here all the same.")


@pytest.mark.parametrize("bits", ["4", "8"])
def test_the_page_of_a_quantised_model_answers(bits: str, random_model_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "vglm", "web", "--quant", bits, "--port", str(port), "--from_pretrained", str(random_model_folder)]
    file = tmp_path / "messages"
    with file.open("w", encoding="utf-8") as messages, Program(*command, stderr=messages, cwd=tmp_path) as program:
        wait_until(lambda: program.poll() is not None or "open http" in file.read_text())
        assert httpx.get(f"http://127.0.0.1:{port}{PATH}/").status_code == 200
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:
            question: Any = [{"role": "user", "content": "你好"}]
            reply = client.chat.completions.create(model="base", messages=question, max_tokens=5, temperature=0)
        assert reply.usage is not None
        assert reply.usage.completion_tokens
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_the_language_of_an_answer_can_be_chosen(address: str) -> None:
    settings = {"en": {"language": "en"}, "as before": {"english": True}, "zh": {"language": "zh"}}
    with OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        answers = {
            name: client.chat.completions.create(
                model="tuned", messages=[{"role": "user", "content": "你好"}], max_tokens=40, seed=1,
                temperature=1.5, top_p=1.0, extra_body={**body, "top_k": 0},
            ).choices[0].message.content or ""
            for name, body in settings.items()
        }  # fmt: skip
    assert answers["as before"] == answers["en"]
    assert not any(map(is_chinese, answers["en"]))
    assert any(map(is_chinese, answers["zh"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo"], "holds no finished run"),
        (["web", "--auth", "anna"], "--auth must be NAME:PASSWORD"),
        (["web", "--adapter", "nowhere"], "names no adapter"),
    ],
)
def test_mistakes_are_said_before_a_model_loads(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
