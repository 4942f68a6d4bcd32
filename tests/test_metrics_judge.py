import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from vglm.errors import ConfigError, DataError
from vglm.evaluation.metrics import score_all
from vglm.evaluation.metrics.judge import judge
from vglm.evaluation.predictions import Prediction


class Grader(BaseHTTPRequestHandler):
    """Gives 10 to an answer that equals its reference and 3 to others; says nothing useful about `mute`."""

    asked: list[dict[str, object]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body | {"key": self.headers["Authorization"], "path": self.path})
        lines = dict(line.split(": ", 1) for line in body["messages"][0]["content"].splitlines() if ": " in line)
        reply = f"Score: {10 if lines['Answer'] == lines['Reference'] else 3}"
        content = "I would rather not." if lines["Answer"] == "mute" else reply
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": content}}]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    Grader.asked.clear()
    with HTTPServer(("127.0.0.1", 0), Grader) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def arm(*pairs: tuple[str, str | None]) -> list[Prediction]:
    """Records of (reference, prediction); no prediction is an error."""
    return [
        Prediction(
            id=str(place), group=str(place), split="test", kind=None, english=True, question="what is it?", history=(),
            reference=reference, prediction=prediction or "", image=None, image_sha256=None,
            error="unreadable" if prediction is None else None,
        )
        for place, (reference, prediction) in enumerate(pairs)
    ]  # fmt: skip


def test_a_judge_scores_each_different_answer_once(endpoint: str) -> None:
    metric = judge(endpoint, "grader-1", api_key="secret")
    found = score_all(arm(("cat", "cat"), ("cat", "{reference}"), ("cat", "cat"), ("cat", None)), [metric])["judge"]
    assert found.value == pytest.approx((1 + 0.3 + 1 + 0) / 4)
    assert [(each["model"], each["temperature"], each["path"]) for each in Grader.asked] == 2 * [
        ("grader-1", 0, "/v1/chat/completions")
    ]
    assert Grader.asked[0]["key"] == "Bearer secret"
    assert "grader-1" in metric.signature
    assert "You grade an answer" in metric.signature
    assert "secret" not in metric.signature


def test_an_answer_without_a_score_is_an_error(endpoint: str) -> None:
    with pytest.raises(DataError, match=r"no score for 1 answers.*test '1': no score in the reply 'I would"):
        judge(endpoint, "grader-1").score(arm(("cat", "cat"), ("cat", "mute")))


def test_an_endpoint_that_is_not_there() -> None:
    with pytest.raises(DataError, match="the judge 'x' gave no score"):
        judge("http://127.0.0.1:9/v1", "x", timeout_seconds=2).score(arm(("cat", "cat")))
    with pytest.raises(ConfigError, match="http://"):
        judge("localhost", "x")
    with pytest.raises(ConfigError, match=r"lacks \{reference\}"):
        judge("http://localhost", "x", prompt="{prediction}")
