"""A model in two processes, and one spread over devices, answer as one in one process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from programs import run_program

from vglm.cli import main
from vglm.errors import ConfigError
from vglm.serving.engine import Question
from vglm.serving.loading import load_divided_engine, load_engine
from vglm.serving.sampling import Sampling

ARGUMENTS = ["--ask", "图中有什么？", "--ask", "What is in the picture?", "--temperature", "0", "--json"]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def _answers(done: "subprocess.CompletedProcess[str]") -> list[tuple[str, int]]:
    assert done.returncode == 0, done.stderr[-3000:]
    turns = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [(turn["answer"], turn["completion_tokens"]) for turn in turns]


def test_two_processes_answer_as_one(photo: Path) -> None:
    chat = ["vglm", "chat", "--image", str(photo), *ARGUMENTS]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", *chat]
    done = subprocess.run([*two, "--tensor-parallel"], capture_output=True, text=True, encoding="utf-8")
    answers = _answers(done)
    assert len(answers) == 2
    assert answers == _answers(run_program("-m", *chat))


def test_automatic_placement_answers_as_one_device(photo: Path) -> None:
    answers = []
    for device_map in ("auto", "cpu"):
        engine = load_engine(device_map=device_map)
        answers.append(
            engine.ask(Question("图中有什么？", Image.open(photo)), sampling=Sampling(temperature=0)).wait().text
        )
        engine.close()
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "torchrun --nproc_per_node 2"),
        (["--quant", "4"], "--quant does not go with --tensor-parallel"),
        (["--adapter", "ADAPTER"], "can be merged first: vglm merge"),
        (["--device-map", "auto"], "--device-map does not go with --tensor-parallel"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    options = [str(tmp_path) if option == "ADAPTER" else option for option in options]
    assert main(["chat", "--ask", "a", "--tensor-parallel", *options]) == 2
    assert message in capsys.readouterr().err


def test_other_layouts_and_odd_numbers_are_refused(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="4 attention heads do not divide among 3 processes"):
        load_divided_engine(None, dtype=None, refused={})
    with pytest.raises(ConfigError, match="native layout"):
        load_divided_engine(reference / "hf_layout", dtype=None, refused={})
