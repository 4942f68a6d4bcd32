import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import builders
import pytest

from vglm.errors import DataError
from vglm.evaluation.predictions import Prediction
from vglm.evaluation.score.metrics.judge import ATTEMPTS, Judge, find_prompt_problem


class Grader(BaseHTTPRequestHandler):
    """Gives 10 to an answer that equals its reference and 3 to others; says nothing useful about `mute`."""

    requests: list[dict[str, Any]] = []
    failures: list[int] = []
    """Status codes to reply with first."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        about = {"key": self.headers["Authorization"], "path": self.path}
        self.requests.append(body | about | {"organisation": self.headers["OpenAI-Organization"]})
        if self.failures:
            self.send_error(self.failures.pop(0))
            return
        content = body["messages"][0]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        lines = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        reply = f"Score: {10 if lines['Answer'] == lines['Reference'] else 3}"
        reply = "I would rather not." if lines["Answer"] == "mute" else reply
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    Grader.requests.clear()
    Grader.failures.clear()
    with HTTPServer(("127.0.0.1", 0), Grader) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def arm(*pairs: tuple[str, str | None], image: str | None = None) -> list[Prediction]:
    return builders.arm(*pairs, question="what is it?", image_sha256=image)


def test_a_judge_scores_each_different_answer_once(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "of another endpoint")
    monkeypatch.setenv("OPENAI_API_KEY", "of another endpoint")
    judge = Judge(base_url=endpoint, model="grader-1", api_key="secret")
    records = arm(("cat", "cat"), ("cat", "{reference}"), ("cat", "cat"), ("cat", None))
    assert judge.scores(records, tmp_path / "verdicts.jsonl") == [1.0, 0.3, 1.0, 0.0]
    assert [(request["model"], request["temperature"], request["path"]) for request in Grader.requests] == 2 * [
        ("grader-1", 0, "/v1/chat/completions")
    ]
    assert [(request["key"], request["organisation"]) for request in Grader.requests] == 2 * [("Bearer secret", None)]
    assert "grader-1" in judge.signature
    assert "You grade an answer" in judge.signature
    verdicts = (tmp_path / "verdicts.jsonl").read_text(encoding="utf-8")
    assert "secret" not in judge.signature + verdicts + repr(judge)


def test_a_judging_that_was_stopped_goes_on(endpoint: str, tmp_path: Path) -> None:
    judge, verdicts = Judge(base_url=endpoint, model="grader-1"), tmp_path / "verdicts.jsonl"
    records = arm(("cat", "cat"), ("cat", "dog"), ("cat", "a\u2028cat"))
    scores = judge.scores(records, verdicts)
    with verdicts.open("a", encoding="utf-8") as file:
        file.write('{"key": "cut o')
    Grader.requests.clear()
    assert judge.scores(records, verdicts) == scores == [1.0, 0.3, 0.3]
    assert Grader.requests == []
    assert [json.loads(line)["id"] for line in verdicts.read_text("utf-8").split("\n") if line] == ["0", "1", "2"]
    other = Judge(base_url=endpoint, model="grader-1", prompt=judge.prompt + " Be strict.")
    other.scores(records[:1], verdicts)
    assert len(Grader.requests) == 1  # another prompt is another judge


def test_the_image_is_sent_where_it_is_wanted(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "abc.webp").write_bytes(b"picture")
    seeing = Judge(base_url=endpoint, model="grader-1", images=tmp_path)
    assert seeing.scores(arm(("cat", "cat"), image="abc"), tmp_path / "verdicts.jsonl") == [1.0]
    parts = Grader.requests[0]["messages"][0]["content"]
    uri = "data:image/webp;base64," + base64.b64encode(b"picture").decode()
    assert parts[1] == {"type": "image_url", "image_url": {"url": uri}}
    blind = Judge(base_url=endpoint, model="grader-1")
    blind.scores(arm(("cat", "cat"), image="abc"), tmp_path / "verdicts.jsonl")
    assert isinstance(Grader.requests[1]["messages"][0]["content"], str)
    assert seeing.signature != blind.signature


def test_a_request_that_failed_for_the_moment_is_made_again(endpoint: str, tmp_path: Path) -> None:
    judge = Judge(base_url=endpoint, model="grader-1")
    Grader.failures[:] = [503, 429]
    assert judge.scores(arm(("cat", "cat")), tmp_path / "verdicts.jsonl") == [1.0]
    assert len(Grader.requests) == ATTEMPTS
    Grader.failures[:] = [401, 503]
    with pytest.raises(DataError, match=r"did not answer for 1 answers.*test '0': Error code: 401"):
        judge.scores(arm(("cat", "dog")), tmp_path / "verdicts.jsonl")
    assert Grader.failures == [503]  # a wrong key stays wrong


def test_replies_without_a_score_are_none_and_few(endpoint: str, tmp_path: Path) -> None:
    judge, verdicts = Judge(base_url=endpoint, model="grader-1"), tmp_path / "verdicts.jsonl"
    assert judge.scores(arm(*[("cat", "cat")] * 9, ("cat", "mute")), verdicts) == [1.0] * 9 + [None]
    with pytest.raises(DataError, match=r"1 of 2 replies of the judge 'grader-1' hold no \"Score"):
        judge.scores(arm(("cat", "cat"), ("cat", "mute")), verdicts)
    assert "I would rather not." in verdicts.read_text(encoding="utf-8")


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    judge = Judge(base_url="http://127.0.0.1:9/v1", model="x", timeout_seconds=2)
    with pytest.raises(DataError, match=r"the judge 'x' did not answer.*goes on where it stopped"):
        judge.scores(arm(("cat", "cat")), tmp_path / "verdicts.jsonl")


def test_a_prompt_without_the_answer_is_none() -> None:
    assert find_prompt_problem("{prediction} {reference}") is None
    assert find_prompt_problem("{prediction}") == "the judge's prompt lacks {reference}"
