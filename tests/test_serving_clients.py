"""Programs of other people talk to the API unchanged; each is tried where it is installed, in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.servers import Server
from vglm.model.loading import load_pretrained
from vglm.serving.api import ApiSettings
from vglm.serving.engine import Engine, Question
from vglm.serving.sampling import Sampling

HOW = Sampling(temperature=0.5, seed=1, max_new_tokens=8)

GRADIO = """
import sys
import gradio

url, photo = sys.argv[1:]
chat = gradio.load_chat(f"{url}/v1", model="base", token="none", file_types="image", streaming=True)
for text, files in (("图中有什么？", [photo]), ("你好", [])):
    history = [{"role": role, "content": [{"type": "text", "text": "你好"}]} for role in ("user", "assistant")]
    shown = list(chat.fn({"text": text, "files": files}, history if not files else []))
    assert all(later.startswith(earlier) for earlier, later in zip(shown, shown[1:])), shown
    print(len(shown[-1]))
"""

INSPECT = """
import os, sys
import inspect_ai
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

url, photo, provider = sys.argv[1:]
os.environ.update(VGLM_BASE_URL=f"{url}/v1", VGLM_API_KEY="none")
if provider == "openai":  # whose own choice, the Responses interface, is not served
    model = get_model("openai/base", base_url=f"{url}/v1", api_key="none", responses_api=False)
else:
    model = get_model("openai-api/vglm/base")
content = [ContentImage(image=photo), ContentText(text="图中有什么？")]
dataset = [Sample(input=[ChatMessageUser(content=content)], target="x")]
task = inspect_ai.Task(dataset=dataset, solver=generate(), scorer=includes())
(log,) = inspect_ai.eval(task, model=model, display="none", log_dir="logs", max_tokens=8, temperature=0.5, seed=1)
assert log.status == "success", log.error
output = log.samples[0].output
print(output.usage.output_tokens, output.completion.strip())
"""


@pytest.fixture(scope="module")
def server(random_model_folder: Path) -> Iterator[Server]:
    server = Server(Engine(*load_pretrained(random_model_folder), max_cached_tokens=128), ApiSettings())
    yield server
    server.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def _run(package: str, arguments: list[str], folder: Path) -> str:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, encoding="utf-8", cwd=folder, env=environment
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_gradio_load_chat_shows_the_answers(server: Server, photo: Path, tmp_path: Path) -> None:
    lengths = _run("gradio", ["-c", GRADIO, server.url, str(photo)], tmp_path).split()
    assert len(lengths) == 2
    assert min(map(int, lengths)) > 0


@pytest.mark.parametrize("provider", ["openai", "openai-api"])
def test_inspect_evaluates_the_model(server: Server, photo: Path, provider: str, tmp_path: Path) -> None:
    # The provider `openai` takes a name that OpenAI does not have for a model to come, and sends no temperature.
    how = HOW if provider == "openai-api" else replace(HOW, temperature=Sampling().temperature)
    alone = server.engine.ask(Question("图中有什么？", Image.open(photo)), sampling=how).wait()
    printed = _run("inspect_ai", ["-c", INSPECT, server.url, str(photo), provider], tmp_path)
    assert printed.strip() == f"{len(alone.token_ids)} {alone.text}"


def test_schemathesis_finds_nothing_in_the_openapi_document(server: Server, tmp_path: Path) -> None:
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = ["-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--max-examples", "30", "--seed", "1"]
    command += ["--request-timeout", "300"]
    _run("schemathesis", [*command, "--checks", f"{checks},negative_data_rejection,unsupported_method"], tmp_path)
    assert server.http.get("/readyz").json() == {"status": "ready"}
