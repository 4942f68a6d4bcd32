"""The report shows how well likelihoods are calibrated, in the page's text and in a real browser."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_report import EVALUATION, record
from test_report_browser import CHROMIUM, Browser

from vglm.evaluation.predictions import write_evaluation, write_predictions
from vglm.evaluation.report import render


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 questions: before, 95 % sure of yes and right every second time; after, 75 % sure and right in 15 of 20."""
    folder = tmp_path_factory.mktemp("evaluation")
    before, after = [], []
    for row in range(20):
        answer = record(f"row{row}", "yes", reference="yes" if row % 2 else "no")
        before.append(replace(answer, likelihoods={"yes": math.log(0.95), "no": math.log(0.05)}))
        is_yes = (answer.reference == "yes") == (row < 15)
        shares = (0.75, 0.25) if is_yes else (0.25, 0.75)
        after.append(replace(answer, likelihoods=dict(zip(("yes", "no"), map(math.log, shares), strict=True))))
    config = "metrics: {names: [likelihood_accuracy, expected_calibration_error, brier_score], labels: null}"
    write_evaluation(replace(EVALUATION, config=config, stamps=()), folder)
    write_predictions(before, folder / "before/predictions.jsonl")
    write_predictions(after, folder / "after/predictions.jsonl")
    return render(folder)


def test_the_page_says_how_sure_each_arm_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "right 50.0%, mean confidence 95.0%, expected calibration error 45.0%, Brier score 0.905" in text
    assert "right 75.0%, mean confidence 75.0%, expected calibration error 0.0%, Brier score 0.375" in text
    assert text.count('<svg class="reliability"') == 2
    section = text[text.index('id="calibration"') :]
    assert '<h3><span class="en" lang="en">before</span><span class="zh" lang="zh-Hans">调优前</span>' in section
    summary = (page.parent / "report.md").read_text(encoding="utf-8")
    line = "- How sure after is, n = 20: right 75.0%, mean confidence 75.0%, expected calibration error 0.0%, Brier"
    assert line in summary


def test_without_likelihoods_there_is_no_such_section(tmp_path: Path) -> None:
    write_evaluation(replace(EVALUATION, stamps=()), tmp_path)
    for arm in ("before", "after"):
        write_predictions([record("a", "yes"), record("b", "no")], tmp_path / arm / "predictions.jsonl")
    assert 'id="calibration"' not in render(tmp_path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
def test_it_is_drawn_in_both_languages_and_fits_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page)
    dots = "[...document.querySelectorAll('.reliability circle')].map((e) => [e.cx, e.cy].map((v) => v.baseVal.value))"
    assert [coordinate for dot in browser.run(dots) for coordinate in dot] == pytest.approx([190, 100, 150, 50])
    assert browser.run("document.querySelector('#calibration h2').innerText") == "How sure it is"
    browser.run("document.getElementById('switch').click()")
    assert browser.run("document.querySelector('#calibration h2').innerText") == "置信度校准"
    browser.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
    assert browser.run("document.scrollingElement.scrollWidth") <= 400
    browser.call("Emulation.clearDeviceMetricsOverride")
    assert browser.complaints() == []
