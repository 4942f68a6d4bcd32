"""The terminal: dialogue, commands, stopping an answer, pipes and JSON."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from vglm.errors import AdapterError, ConfigError, DataError
from vglm.model.loading import load_pretrained
from vglm.serving.adapters import BASE
from vglm.serving.chat import Dialogue, Terminal, first_question, in_language, open_picture
from vglm.serving.engine import Engine
from vglm.serving.loading import name_adapter
from vglm.serving.sampling import Sampling

HOW = Sampling(temperature=1.5, top_p=1.0, top_k=0, seed=1, max_new_tokens=8)


@pytest.fixture(scope="module")
def engine(random_model_folder: Path) -> Iterator[Engine]:
    engine = Engine(*load_pretrained(random_model_folder))
    yield engine
    engine.close(cancel=True)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "一张 图.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def typed(*lines: str | type[BaseException]) -> Callable[[str], str]:
    """What a user types, key presses among it."""
    queue = iter(lines)

    def read(_: str) -> str:
        line = next(queue, EOFError)
        if isinstance(line, str):
            return line
        raise line

    return read


def talk(engine: Engine, *lines: str | type[BaseException]) -> tuple[str, Dialogue]:
    output = io.StringIO()
    dialogue = Dialogue(engine, HOW)
    Terminal(dialogue, "zh", "描述这张图片。", output=output).run(typed(*lines))
    return output.getvalue(), dialogue


def test_a_picture_is_described_and_talked_about(engine: Engine, picture: Path) -> None:
    output, dialogue = talk(engine, str(picture), "什么颜色？", "stop", "never read")
    assert output.count("VisualGLM-6B：") == 2
    assert [question for question, _ in dialogue.histories[BASE]] == ["描述这张图片。", "什么颜色？"]
    assert all(answer in output for _, answer in dialogue.histories[BASE])
    assert dialogue.image is not None


def test_enter_begins_a_dialogue_without_a_picture_and_clear_another(engine: Engine, picture: Path) -> None:
    output, dialogue = talk(engine, "", "你好", "clear", f"'{picture}'", "stop")
    assert dialogue.image is not None
    assert len(dialogue.histories[BASE]) == 1
    assert output.count("VisualGLM-6B：") == 2


def test_a_picture_that_is_not_there_is_asked_for_again(engine: Engine, picture: Path) -> None:
    output, dialogue = talk(engine, "none.png", str(picture), "/image missing.png", "stop")
    assert output.count("error: image") == 2
    assert dialogue.image is not None


def test_commands_are_explained_and_the_dialogue_is_saved(engine: Engine, tmp_path: Path) -> None:
    saved = tmp_path / "a b.json"
    output, _ = talk(engine, "", "你好", f"/save '{saved}'", "/nothing", "/adapter", "/after", "/adapter x", "stop")
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert content["dialogues"][BASE][0]["question"] == "你好"
    assert "/both" in output
    assert "there is no adapter to compare with" in output
    assert "there is no adapter 'x'; there are base" in output


def test_ctrl_c_at_the_prompt_stays_and_ctrl_d_ends(engine: Engine) -> None:
    output, _ = talk(engine, KeyboardInterrupt, "", KeyboardInterrupt, "你好")
    assert output.count("stop 终止程序。") == 2
    assert "VisualGLM-6B：" in output


def test_ctrl_c_stops_the_answer_and_not_the_program(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    long = Sampling(temperature=0.0, min_new_tokens=400, max_new_tokens=400, repetition_penalty=1.0)
    dialogue = Dialogue(engine, long)
    output = io.StringIO()
    terminal = Terminal(dialogue, "zh", "描述这张图片。", output=output)

    class Pressed:
        def __init__(self) -> None:
            self.count = 0

        def write(self, text: str) -> int:
            self.count += 1
            if self.count == 4:  # in the middle of the answer
                raise KeyboardInterrupt
            return output.write(text)

        def flush(self) -> None: ...

    terminal.output = Pressed()  # type: ignore[assignment]
    assert terminal.take("你好")
    assert "（已停止）" in output.getvalue()
    ((_, answer),) = dialogue.histories[BASE]
    assert len(engine.processor.tokenizer.encode_plain(answer)) < 300


def test_english_bars_chinese_and_asks_in_english() -> None:
    assert in_language(HOW, "en").bars_chinese
    assert in_language(HOW, "zh") == HOW
    assert first_question("en", None, None) == "Describe the image."
    assert first_question("zh", "看。", None) == "看。"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    for place in ("a\0b", str(tmp_path), "", "http://127.0.0.1:1/a.png"):
        with pytest.raises(DataError):
            open_picture(place)


def test_adapters_are_named_by_the_user_or_by_their_folders(tmp_path: Path) -> None:
    adapter = tmp_path / "background/lora/2026-01-02/adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    assert name_adapter(f"x={adapter.parent}") == ("x", adapter)
    assert name_adapter(str(adapter.parent)) == ("background-lora-2026-01-02", adapter)
    assert name_adapter(str(adapter)) == ("adapter", adapter)
    with pytest.raises(AdapterError, match=r"names no adapter: .* has no adapter_config\.json"):
        name_adapter(str(tmp_path))


def _vglm(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vglm", *arguments], input=stdin, capture_output=True, text=True, encoding="utf-8"
    )


def test_questions_come_from_the_command_line_or_a_pipe(picture: Path) -> None:
    done = _vglm("chat", "--image", str(picture), "--ask", "图中有什么？", "--ask", "还有呢？", "--json", "--seed", "1")
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["question"] for turn in turns] == ["图中有什么？", "还有呢？"]
    assert turns[0]["finish_reason"] == "stop"
    assert turns[1]["prompt_tokens"] > turns[0]["prompt_tokens"]
    piped = _vglm("chat", "--image", str(picture), "--json", "--seed", "1", stdin="图中有什么？\n\n还有呢？\n")
    answers = [json.loads(line)["answer"] for line in piped.stdout.splitlines()]
    assert answers == [turn["answer"] for turn in turns]
    plain = _vglm("chat", "--image", str(picture), "--seed", "1", stdin="图中有什么？\n")
    assert turns[0]["answer"] in plain.stdout
    assert "\x1b" not in plain.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ask", "a", "--temperature", "9"], "temperature must be a number from 0 to 5"),
        (["--ask", "a", "--from_pretrained", "nowhere/x"], "nowhere/x"),
        (["--ask", "a", "--adapter", "nowhere"], "names no adapter"),
        (["--ask", "a", "--image", "nowhere.png"], "nowhere.png"),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = _vglm("chat", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dialogue_without_an_adapter_has_nothing_to_compare(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="no adapter to compare"):
        Dialogue(engine, HOW).choose("both")
