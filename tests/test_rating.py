"""Blinded rating: what a rater sees and does not see, what is kept of it, and what the report says."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pages import Visitor, served, wait_until
from PIL import Image
from test_report import EVALUATION, record
from test_report_browser import CHROMIUM

from vglm.cli import main
from vglm.data.images import image_sha256
from vglm.errors import ConfigError, DataError
from vglm.evaluation.predictions import Arm, Prediction, write_evaluation, write_predictions
from vglm.evaluation.score.rating_files import keep_ratings, read_ratings, summarise_folder
from vglm.files import locked
from vglm.serving.rating import Study, Submission, make_rating_app

RIGHT, WRONG = "心影增大，未见气胸。", "心肺未见异常。"
ARMS = {"baseline": Arm(label="vanilla", meaning="as it was"), "candidate": Arm(label="finetuned", meaning="tuned")}
WORDS = ("vanilla", "finetuned", "baseline", "candidate", "before", "after", "adapter")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve samples whose answers differ, one with the same, one without an answer, one of the retention set."""
    folder = tmp_path / "evaluation"
    (folder / "images").mkdir(parents=True)
    picture = Image.linear_gradient("L").convert("RGB")
    picture.save(folder / "images" / f"{image_sha256(picture)}.webp", lossless=True)
    values = {"reference": RIGHT, "image_sha256": image_sha256(picture), "question": "描述这张胸片。"}
    vanilla = [record(f"s{row}", WRONG, **values) for row in range(13)]
    vanilla += [record("broken", "", error="no picture"), record("general", "一。", split="retention")]
    finetuned = [
        replace(original, prediction=RIGHT if original.prediction == WRONG else "二。") for original in vanilla
    ]
    finetuned[12] = vanilla[12]
    finetuned[13] = vanilla[13]
    write_evaluation(replace(EVALUATION, stamps=(), **ARMS), folder)
    write_predictions(vanilla, folder / "vanilla" / "predictions.jsonl")
    write_predictions(finetuned, folder / "finetuned" / "predictions.jsonl")
    return folder


@pytest.fixture
def client(folder: Path) -> Iterator[httpx.Client]:
    app = make_rating_app(Study.open(folder), language="en", by_finding=True)
    with served(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def rate(client: httpx.Client, rater: str, better: str | None, number: int = 100) -> None:
    """Go on rating: which answer is called better, if not both are equal."""
    for _ in range(number):
        sample = client.get("/sample", params={"rater": rater}).json()
        if sample["position"] == sample["total"]:
            return
        choice = "equal" if better is None else "left" if sample["left"] == better else "right"
        body = {"rater": rater, "position": sample["position"], "choice": choice}
        assert client.post("/rating", json=body).status_code == 200


def test_nothing_that_is_sent_names_an_arm(client: httpx.Client) -> None:
    rate(client, "anna", RIGHT, 6)
    replies = [client.get("/"), client.get("/study"), client.get("/rating.js")]
    replies += [client.get("/sample", params={"rater": "anna", "position": index}) for index in range(12)]
    for reply in replies:
        assert reply.status_code == 200
        if "javascript" not in reply.headers["content-type"] and "html" not in reply.headers["content-type"]:
            assert not [word for word in WORDS if word in reply.text]
    assert client.get("/picture/3").headers["content-type"] == "image/png"
    sample = client.get("/sample", params={"rater": "ben"}).json()
    assert set(sample) == {"done", "total", "position", "question", "history", "picture", "left", "right", "findings"}


def test_the_sides_are_drawn_for_each_rater_and_sample_and_kept(client: httpx.Client, folder: Path) -> None:
    sides = {
        rater: [client.get("/sample", params={"rater": rater, "position": n}).json()["left"] for n in range(12)]
        for rater in ("anna", "ben")
    }
    assert sides["anna"] != sides["ben"]
    assert all(set(texts) == {RIGHT, WRONG} for texts in sides.values())
    rate(client, "anna", RIGHT)
    ratings = {rating.id: rating for rating in read_ratings(folder)["anna"]}
    order = [contest.candidate.id for contest in Study.open(folder).contests]
    assert [ratings[name].left == "finetuned" for name in order] == [text == RIGHT for text in sides["anna"]]
    assert {rating.verdict for rating in ratings.values()} == {"better"}


def test_identical_answers_errors_and_the_retention_set_are_not_asked_about(folder: Path) -> None:
    study = Study.open(folder)
    assert sorted(contest.candidate.id for contest in study.contests) == sorted(f"s{row}" for row in range(12))
    assert study.identical == 1


def test_whoever_stopped_goes_on_and_may_change_their_mind(folder: Path) -> None:
    for number, better in ((5, RIGHT), (100, None)):  # a server of its own each time
        app = make_rating_app(Study.open(folder), language="zh")
        with served(app) as url, httpx.Client(base_url=url) as client:
            rate(client, "李雷", better, number)
    verdicts = [rating.verdict for rating in read_ratings(folder)["李雷"]]
    assert verdicts == ["better"] * 5 + ["equal"] * 7
    study = Study.open(folder)
    side = "left" if study.texts("李雷", study.contests[0])[0] == WRONG else "right"
    study.rate(Submission(rater="李雷", position=0, choice=side))
    assert [rating.verdict for rating in read_ratings(folder)["李雷"]] == ["worse", *verdicts[1:]]


def test_findings_are_judged_one_by_one(client: httpx.Client, folder: Path) -> None:
    sample = client.get("/sample", params={"rater": "anna"}).json()
    assert sample["findings"] == ["Cardiomegaly", "Pneumothorax"]
    right = "left" if sample["left"] == RIGHT else "right"
    findings = {"Cardiomegaly": right, "Pneumothorax": "equal"}
    body = {"rater": "anna", "position": 0, "choice": "equal", "findings": findings}
    assert client.post("/rating", json=body).status_code == 200
    assert read_ratings(folder)["anna"][0].findings == {"Cardiomegaly": "better", "Pneumothorax": "equal"}
    assert client.get("/sample", params={"rater": "anna", "position": 0}).json()["chosen"] == findings
    result = summarise_folder(folder, replace(EVALUATION, **ARMS))
    assert result is not None
    assert {name: tally.wins for name, tally in result.findings.items()} == {"Cardiomegaly": 1, "Pneumothorax": 0}


@pytest.mark.parametrize(
    "change",
    [
        {"rater": "../anna"}, {"rater": ""}, {"rater": "a/b"}, {"rater": "a\0"}, {"rater": "a" * 41}, {"position": 12},
        {"position": -1}, {"choice": "finetuned"}, {"findings": {"Bones": "left"}}, {"verdict": "better"},
        {"seconds": -1},
    ],
)  # fmt: skip
def test_a_rating_that_cannot_be_is_refused_and_nothing_is_written(
    client: httpx.Client, folder: Path, change: dict[str, Any]
) -> None:
    reply = client.post("/rating", json={"rater": "anna", "position": 0, "choice": "left", **change})
    assert reply.status_code in (400, 422)
    assert not (folder / "ratings").exists()


def test_the_report_and_the_summary_say_what_was_rated(
    client: httpx.Client, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rate", str(folder), "--summary", "--lang", "en"]) == 0
    assert "nobody has rated these answers yet" in capsys.readouterr().out
    assert main(["rate", str(folder), "--summary", "--lang", "zh"]) == 0
    assert "还没有人为这些回答评分" in capsys.readouterr().out
    rate(client, "anna", RIGHT)
    rate(client, "ben", RIGHT, 4)
    rate(client, "ben", WRONG)
    assert main(["rate", str(folder), "--summary", "--lang", "en"]) == 0
    printed = capsys.readouterr().out
    assert (
        "2 people rated 12 samples blinded: finetuned was better than vanilla in 4, equal in 8, worse in 0" in printed
    )
    assert "exact sign test, p = 0.125" in printed
    assert main(["report", str(folder)]) == 0
    written = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))["ratings"]
    assert (written["wins"], written["ties"], written["losses"], written["raters"]) == (4, 8, 0, 2)
    assert written["by_rater"]["ben"]["losses"] == 8
    assert written["alpha_nominal"] == pytest.approx(1 - (16 / 24) / (2 * 16 * 8 / (24 * 23)))
    page = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Rated by people" in page
    assert "人工盲评" in page


def test_ratings_stay_where_an_evaluation_is_repeated_and_count_for_the_same_answers_alone(
    client: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    rate(client, "anna", RIGHT)
    new = tmp_path / "new"
    new.mkdir()
    keep_ratings(folder, new)
    for label in ("vanilla", "finetuned"):
        rows = (folder / label / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        records = [Prediction(**json.loads(row)) for row in rows]
        if label == "finetuned":
            records[0] = replace(records[0], prediction="另一个回答。")
        write_predictions(records, new / label / "predictions.jsonl")
    result = summarise_folder(new, replace(EVALUATION, **ARMS))
    assert result is not None
    assert (result.summary.wins, result.contests) == (11, 12)


def test_a_damaged_file_of_ratings_is_named(folder: Path) -> None:
    (folder / "ratings").mkdir()
    (folder / "ratings" / "anna.jsonl").write_text('{"rater": "anna"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"anna\.jsonl, line 1 is no rating"):
        Study.open(folder)


def test_a_study_with_nothing_to_rate_is_refused(folder: Path) -> None:
    write_predictions([record("s0", "花。"), record("s1", "草。")], folder / "vanilla" / "predictions.jsonl")
    write_predictions([record("s0", "花。"), record("s1", "树。")], folder / "finetuned" / "predictions.jsonl")
    study = Study.open(folder)
    study.check()
    with pytest.raises(ConfigError, match="no answer speaks of a finding"):
        study.check(by_finding=True)
    write_predictions([record("s0", "花。")], folder / "finetuned" / "predictions.jsonl")
    with pytest.raises(ConfigError, match="nothing to rate"):
        Study.open(folder).check()


def test_one_server_rates_an_evaluation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ratings").mkdir()
    with locked(folder / "ratings", "taken"):
        assert main(["rate", str(folder)]) == 2
    assert "another `vglm rate` serves this evaluation" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not on this machine")
def test_two_people_rate_by_mouse_and_keys(folder: Path, tmp_path: Path) -> None:
    app = make_rating_app(Study.open(folder), language="zh", by_finding=True)
    visitor = Visitor(tmp_path / "profile")
    with served(app) as url:
        try:
            _rate_by_hand(visitor, url, "anna", by_keys=False)
            _rate_by_hand(visitor, url, "ben", by_keys=True)
            assert visitor.strange_requests(url) == []
            assert visitor.complaints() == []
        finally:
            visitor.close()
    result = summarise_folder(folder, replace(EVALUATION, **ARMS))
    assert result is not None
    assert (result.summary.wins, result.summary.losses) == (12, 0)
    assert list(result.raters) == ["anna", "ben"]
    assert result.findings["Cardiomegaly"].wins == 12


def _rate_by_hand(visitor: Visitor, url: str, name: str, *, by_keys: bool) -> None:
    visitor.visit(url)
    visitor.until("!document.querySelector('#name').hidden")
    visitor.write("#name input", name)
    visitor.click("#name button")
    for done in range(12):
        visitor.until(f"document.querySelector('#progress').textContent === '已评 {done} / 12'")
        side = "left" if visitor.text("#left") == RIGHT else "right"
        if by_keys:
            visitor.press("1" if side == "left" else "3")
        else:
            visitor.click(f"[data-finding=Cardiomegaly] [data-choice={side}]")
            visitor.click(f".choices [data-choice={side}]")
    wait_until(lambda: "全部样本已评完" in visitor.text("#end"))
