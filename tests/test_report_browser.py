"""The report in a real browser: it filters, searches, speaks Chinese, fits a phone, prints no error, loads nothing."""

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_report import EVALUATION, answers, record
from test_report_curves import write

from vglm.evaluation.messages import Message
from vglm.evaluation.predictions import Arm, Evaluation, Prediction, Stamp, write_evaluation, write_predictions
from vglm.evaluation.report import render, write_report
from vglm.evaluation.score.baselines import write_baselines
from vglm.evaluation.score.comparison import Baseline, Comparison, Pair, Summary


def find_chromium() -> str | None:
    """The first that starts: some systems have a command of this name that only says how to install one."""
    for path in filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")


class Browser:
    """Headless Chromium, spoken to through its DevTools pipe: one JSON message after another, each closed by a zero."""

    def __init__(self, profile: Path) -> None:
        there, self._writer = os.pipe()
        self._reader, back = os.pipe()

        def connect() -> None:
            for number, end in ((3, fcntl.fcntl(there, fcntl.F_DUPFD, 30)), (4, fcntl.fcntl(back, fcntl.F_DUPFD, 30))):
                os.dup2(end, number)

        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, *flags, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=connect, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(there)
        os.close(back)
        self._buffer, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._reader, 1 << 20)
            assert part, "Chromium went away"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path) -> None:
        """Load a page and wait until it is shown."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")

    def run(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def requests(self) -> list[str]:
        """What was asked for, besides what is written in the page."""
        urls = [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[dict[str, Any]]:
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event["method"] in names]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._writer)
        os.close(self._reader)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def make_page(tmp_path: Path) -> Callable[[int], Path]:
    def make(n: int) -> Path:
        """So many samples: every second one right before, all but every fifth right after."""
        kinds = ["colour", "count", "place"]
        before: list[Prediction] = []
        for row in range(n):
            before.append(
                record(
                    f"row{row}", "沙滩。" if row % 2 else "森林里的猫。", kind=kinds[row % 3],
                    language="zh" if row % 4 else "en",
                    question=f"第{row}张图片的背景里有什么？",
                )
            )  # fmt: skip
        after = [
            replace(original, prediction="雪山。" if row % 5 == 0 else "沙滩。") for row, original in enumerate(before)
        ]
        write_evaluation(replace(EVALUATION, stamps=()), tmp_path)
        write_predictions(before, tmp_path / "before/predictions.jsonl")
        write_predictions(after, tmp_path / "after/predictions.jsonl")
        return render(tmp_path)

    return make


def full_page(folder: Path, evaluation: Evaluation) -> Path:
    """A report with everything in it: curves, controls, baselines, slices, classes, a retention set, stamps."""
    config = "metrics: {names: [accuracy, macro_f1, bleu_13a, rouge_l_characters], labels: null, convention: null}"
    kinds = {
        name: [replace(original, kind="ab"[row % 2]) for row, original in enumerate(rows)]
        for name, rows in (
            ("before", answers(4, 40) + answers(38, 40, split="retention")),
            ("after", answers(30, 40) + answers(10, 40, split="retention")),
            ("before-shuffled", answers(4, 40)),
            ("after-shuffled", answers(6, 40)),
            ("after-text-only", answers(2, 40)),
        )
    }
    for name, rows in kinds.items():
        write_predictions(rows, folder / name / "predictions.jsonl")
    controls = (
        Arm(
            label="after-shuffled",
            meaning=Message("control_meaning.after", {"meaning": Message("control_meaning.shuffled")}),
        ),
    )
    write_evaluation(replace(evaluation, config=config, controls=controls), folder)
    write_baselines([Baseline("random training answer", Message("random", {"n": 20}), {"accuracy": 0.8})], folder)
    return render(write(folder))


def test_it_filters_searches_and_loads_nothing(browser: Browser, make_page: Callable[[int], Path]) -> None:
    page = make_page(60)
    browser.open(page)
    count = "document.querySelector('.count').textContent"
    cards = "document.querySelectorAll('article').length"
    assert (browser.run(count), browser.run(cards)) == ("24 of 60 shown", 24)
    browser.run("document.querySelector('[data-show=flip1]').click()")
    assert browser.run(count) == "6 of 6 shown"  # odd rows that 5 divides
    assert browser.run(
        "[...document.querySelectorAll('article .flip')].every((e) => e.textContent === 'right → wrong')"
    )
    assert browser.run("document.querySelector('article mark').textContent") == "雪山"
    browser.run("document.querySelector('[data-show=all]').click()")
    browser.run(
        "{const s = [...document.querySelectorAll('.tools select')].find((e) => [...e.options].some((o) => o.value ==="
        " 'count')); s.value = 'count'; s.dispatchEvent(new Event('input'));}"
    )
    assert browser.run(count) == "20 of 20 shown"
    browser.run("{const i = document.querySelector('input'); i.value = '第7张'; i.dispatchEvent(new Event('input'));}")
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run(count) == "1 of 1 shown"
    assert browser.run("document.querySelector('article .id').textContent") == "row7"
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


def test_it_speaks_chinese(browser: Browser, make_page: Callable[[int], Path]) -> None:
    browser.open(make_page(30))
    shown = "document.querySelector('.verdict').innerText"
    assert browser.run(shown).startswith("No skill can be shown: all 30 references are the same")
    browser.run("document.getElementById('switch').click()")
    assert "完全匹配由 50.0% 变为 80.0%" in browser.run(shown)
    assert browser.run("document.documentElement.lang") == "zh-Hans"
    assert browser.run("document.querySelector('.count').textContent") == "显示 24 / 30"
    assert not browser.run("/Show more|wrong →|Configuration/.test(document.body.innerText)")
    assert browser.complaints() == []


def test_the_chinese_page_has_no_english_sentence(browser: Browser, tmp_path: Path) -> None:
    """Three lower-case words in a row are one, but for those of the data, of code and of paths."""
    leaks = (Message("leak.groups", {"n": 1, "total": 60}),)
    stamp = Stamp(text="LEAKED", detail=Message("leaked", {"leaks": leaks}))
    training = {"steps": 5, "batch": 8, "rate": 0.1, "seed": 1}
    facts = {
        "base model": "tiny",
        "training": Message("training", training),
        "code": Message("code.sources", {"sha256": "0"}),
    }
    tuned = Message("summary.tuned", {"model": "tiny", "method": "LoraConfig", "n": 20, "data": "scenes"})
    counts = (Message("samples.test", {"n": 40}), Message("samples.retention", {"n": 40}))
    summary = Message("summary.scored", {"what": tuned, "counts": counts, "draws": 1})
    evaluation = replace(
        EVALUATION,
        baseline=Arm(label="before", meaning=Message("meaning.untuned", {"model": "tiny"})),
        candidate=Arm(label="after", meaning=Message("meaning.adapter")),
    )
    page = full_page(tmp_path, replace(evaluation, summary=summary, stamps=(stamp,), facts=facts))
    browser.open(page)
    assert len(browser.run("document.body.innerText.match(/[a-z]+ [a-z]+ [a-z]+/g)")) > 50
    browser.run("document.getElementById('switch').click()")
    assert (
        browser.run(
            "document.querySelectorAll('code, .asked, .answers').forEach((e) => e.remove());"
            " document.body.innerText.match(/.*[a-z]+ [a-z]+ [a-z]+.*/g)"
        )
        is None
    )
    spoken = browser.run(
        "[...document.querySelectorAll('title, desc, [title], [aria-label]')].map((e) => e.getAttribute('title') ||"
        " e.getAttribute('aria-label') || e.textContent)"
    )
    assert len(spoken) > 8
    assert not [text for text in spoken if re.search("[a-z]+ [a-z]+ [a-z]+", text)]
    assert browser.complaints() == []


def test_curves_are_drawn_and_their_numbers_unfold(browser: Browser, tmp_path: Path) -> None:
    page = full_page(tmp_path, EVALUATION)
    browser.open(page)
    assert browser.run("document.querySelectorAll('svg.plot').length") == 3
    shown = (
        "[...document.querySelectorAll('.plot text')].filter((e) => e.getBBox().width > 0).map((e) => e.textContent)"
    )
    assert "budget: 5" in browser.run(shown)
    assert "预算：5" not in browser.run(shown)
    inside = (
        "[...document.querySelectorAll('.plot text')].every((e) => {const t = e.getBoundingClientRect(), f ="
        " e.closest('figure').getBoundingClientRect(); return !t.width || (t.left >= f.left && t.right <= f.right);})"
    )
    assert browser.run(inside)
    browser.run("document.querySelector('.plots summary').click()")
    assert browser.run("document.querySelector('.plots details').innerText").split()[-3:] == ["100", "+90.0", "+40.0"]
    browser.run("document.getElementById('switch').click()")
    assert "预算：5" in browser.run(shown)
    assert browser.run("document.querySelector('svg.plot title').textContent") == "领域增益与通用能力损失"
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []


def test_draws_of_a_sample_stand_together(browser: Browser, tmp_path: Path) -> None:
    """Three draws of two samples: the first flips in one draw, the second is always right."""
    pairs = [
        Pair(
            replace(record(name, "猫。" if name == "a" else "沙滩。"), draw=draw),
            replace(record(name, answer), draw=draw),
        )
        for draw in range(3)
        for name, answer in (("a", "沙滩。" if draw == 1 else "狗。"), ("b", "沙滩。"))
    ]
    comparison = Comparison("before", "after", {"test": Summary(tuple(pairs))})
    write_evaluation(replace(EVALUATION, stamps=()), tmp_path)
    write_report(tmp_path, comparison)
    browser.open(tmp_path / "report" / "index.html")
    assert browser.run("document.querySelectorAll('article').length") == 2
    assert browser.run("document.querySelector('.count').textContent") == "2 of 2 shown"
    first = "document.querySelector('article')"
    assert browser.run(f"{first}.querySelectorAll('.answer').length") == 6
    assert browser.run(f"[...{first}.querySelectorAll('.arm')].map((e) => e.firstChild.textContent)")[3] == (
        "after · draw 2 of 3"
    )
    assert browser.run(f"[...{first}.querySelectorAll('.flip')].map((e) => e.textContent)") == [
        "wrong in both",
        "wrong → right",
    ]
    browser.run("document.querySelector('[data-show=flip0]').click()")
    assert browser.run("document.querySelector('.count').textContent") == "1 of 1 shown"
    assert browser.complaints() == []


def test_it_fits_a_phone_and_follows_the_dark_scheme(browser: Browser, make_page: Callable[[int], Path]) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    try:
        browser.open(make_page(30))
        assert browser.run("document.scrollingElement.scrollWidth") <= 400
        colours = browser.run(
            "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
        )
        light, dark = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
        assert light > 600 > 100 > dark
    finally:
        browser.call("Emulation.clearDeviceMetricsOverride")
        browser.call("Emulation.setEmulatedMedia", features=[])


def test_a_permalink_opens_its_sample_whatever_is_filtered(browser: Browser, make_page: Callable[[int], Path]) -> None:
    page = make_page(60)
    browser.open(page)
    first = "document.querySelector('article')"
    browser.run("document.querySelector('[data-show=flip1]').click()")
    assert browser.run(f"{first}.querySelector('.id').textContent") == "row5"
    last = browser.run("[...document.querySelectorAll('.id')].at(-1).getAttribute('href')")
    assert last == "#sample-test-row55"
    browser.run("location.hash = '#sample-test-row41'; new Promise((done) => setTimeout(done, 200))")
    assert browser.run(f"[{first}.className, {first}.querySelector('.id').textContent]") == ["pinned", "row41"]
    assert browser.run("document.querySelectorAll('.pinned').length") == 1
    top = browser.run(f"{first}.getBoundingClientRect().top")
    assert 0 <= top < browser.run("innerHeight")
    browser.open(page)
    browser.call("Page.navigate", url=page.as_uri() + "#sample-test-row41")
    browser.run("new Promise((done) => setTimeout(done, 200))")
    assert browser.run(f"{first}.querySelector('.id').textContent") == "row41"
    browser.run("location.hash = '#sample-test-%E0'; new Promise((done) => setTimeout(done, 100))")
    assert browser.complaints() == []


def test_a_picture_opens_in_its_own_size(browser: Browser, tmp_path: Path) -> None:
    sha256 = "cd" * 32
    (tmp_path / "images").mkdir()
    Image.new("L", (1024, 600), 90).save(tmp_path / "images" / f"{sha256}.webp")
    rows = [record("a", "猫。", image="chest.png", image_sha256=sha256)]
    write_evaluation(replace(EVALUATION, stamps=()), tmp_path)
    for arm in ("before", "after"):
        write_predictions(rows, tmp_path / arm / "predictions.jsonl")
    browser.open(render(tmp_path))
    shown = "[document.querySelector('dialog').open, document.querySelector('dialog .caption').textContent]"
    assert browser.run(shown) == [False, ""]
    browser.run("document.querySelector('article .zoom').click(); new Promise((done) => setTimeout(done, 100))")
    assert browser.run(shown) == [True, "chest.png"]
    assert browser.run("document.querySelector('dialog img').clientWidth") == 1024
    browser.run("document.querySelector('dialog button').click()")
    assert browser.run(shown)[0] is False
    assert browser.complaints() == []


def test_a_table_that_is_too_wide_says_so(browser: Browser, tmp_path: Path) -> None:
    page = full_page(tmp_path, EVALUATION)
    hint = "getComputedStyle(document.querySelector('#scores .scroll'), '::before').content"
    for width, is_wide in ((1280, False), (400, True)):
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        try:
            browser.open(page)
            assert ("scroll sideways" in browser.run(hint)) is is_wide
            browser.run("document.getElementById('switch').click()")
            assert ("左右滑动" in browser.run(hint)) is is_wide
        finally:
            browser.call("Emulation.clearDeviceMetricsOverride")


def test_it_prints(browser: Browser, make_page: Callable[[int], Path]) -> None:
    browser.open(make_page(60))
    pdf = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")
    assert browser.run("document.querySelectorAll('article').length") == 60  # all are on paper
    assert browser.run("document.querySelector('#scores details').open")


def test_what_a_browser_draws_does_not_grow_with_the_answers(
    browser: Browser, make_page: Callable[[int], Path]
) -> None:
    """Opened and filtered, two thousand answers take the elements and the changes that three hundred take."""
    drawn = []
    for n, shown in ((300, "24 of 120 shown"), (2_000, "24 of 800 shown")):
        browser.open(make_page(n))
        elements = "document.querySelectorAll('*').length"
        opened = browser.run(elements)
        changes = browser.run(
            "new Promise((done) => {const watch = new MutationObserver((all) => done(all.length));"
            " watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});"
            " document.querySelector('[data-show=flip0]').click();})"
        )
        assert browser.run("document.querySelector('.count').textContent") == shown
        assert browser.run("document.querySelectorAll('article').length") == 24
        drawn.append((opened, changes, browser.run(elements)))
    assert drawn[0] == drawn[1]
