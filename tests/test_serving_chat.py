"""The terminal: dialogue, commands, stopping an answer, pipes and JSON."""

import io
import json
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image
from programs import Completed, Program, run_program
from prompt_toolkit.utils import get_cwidth

from tests.servers import moved_adapter
from vglm.errors import AdapterError, ConfigError, DataError
from vglm.model.loading import load_pretrained
from vglm.serving.adapters import BASE
from vglm.serving.chat import Dialogue, Terminal, first_question, in_language, open_picture, visible
from vglm.serving.engine import Engine
from vglm.serving.loading import name_adapter
from vglm.serving.sampling import Sampling
from vglm.serving.texts import chat_texts

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
    assert all(visible(answer) in output for _, answer in dialogue.histories[BASE])
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


def test_english_bars_chinese_and_asks_in_english() -> None:
    assert in_language(HOW, "en").bars_chinese
    assert in_language(HOW, "zh") == HOW
    assert first_question("en", None, None) == "Describe the image."
    assert first_question("zh", "看。", None) == "看。"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    for path in ("a\0b", str(tmp_path), "", "http://127.0.0.1:1/a.png"):
        with pytest.raises(DataError):
            open_picture(path)


def test_adapters_are_named_by_the_user_or_by_their_folders(tmp_path: Path) -> None:
    adapter = tmp_path / "background/lora/2026-01-02/adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    assert name_adapter(f"x={adapter.parent}") == ("x", adapter)
    assert name_adapter(str(adapter.parent)) == ("background-lora-2026-01-02", adapter)
    assert name_adapter(str(adapter)) == ("adapter", adapter)
    with pytest.raises(AdapterError, match=r"names no adapter: .* has no adapter_config\.json"):
        name_adapter(str(tmp_path))


def chat(*arguments: str, stdin: str = "") -> Completed:
    return run_program("-m", "vglm", "chat", *arguments, stdin=stdin)


HOLDING = """
import sys, time
from dataclasses import replace
from vglm.cli import main
from vglm.serving.engine import Engine

def ask(self, question, *, adapter, sampling, ask=Engine.ask):
    return ask(self, question, adapter=adapter, sampling=replace(sampling, max_new_tokens=8))

def advance(self, name, advance=Engine._advance):
    is_held = self._answered == number and not any(
        row.answer.is_cancelled or len(row.answer.token_ids) < 5 for row in self._rows[name]
    )
    time.sleep(0.01) if is_held else advance(self, name)

number, Engine.ask, Engine._advance = int(sys.argv[1]), ask, advance
sys.exit(main(["chat", *sys.argv[2:]]))
"""
"""`vglm chat` with short answers; that of a given number, from 0 on, stays in the middle until it is cancelled."""


class Reader:
    """What a program prints, as it comes."""

    def __init__(self, source: int) -> None:
        self.source, self.content, self.position = source, b"", 0

    def until(self, pattern: str) -> str:
        """Read on to a pattern; its first group."""
        while not (match := re.compile(pattern, re.DOTALL).search(self.text, self.position)):
            assert select.select([self.source], [], [], 120)[0], f"waited in vain after {self.text!r}"
            part = os.read(self.source, 1 << 16)
            assert part, f"ended after {self.text!r}"
            self.content += part
        self.position = match.end()
        return match[1]

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", errors="ignore").replace("\r\n", "\n")


class Screen(Reader):
    """A pseudo terminal of 80 columns and the program in it, which prompts between two marks."""

    def __init__(self, control: int, program: Program) -> None:
        super().__init__(control)
        self.program = program

    def press(self, keys: str) -> None:
        os.write(self.source, keys.encode())

    def enter(self, line: str) -> str:
        """Type a line; what is printed until the next prompt."""
        self.press(f"{line}\r")
        return self.until(r"\x1b\[\?2004l(.*?)\x1b\[\?2004h")


@contextmanager
def on_screen(*command: str) -> Iterator[Screen]:
    import pty
    import termios

    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}  # nobody answers where the cursor is
    screen = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "is_on_terminal": True}
    with open(control, "rb", closefd=True), Program(*command, env=environment, **screen) as program:
        os.close(terminal)
        yield Screen(control, program)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_a_dialogue_is_typed_on_a_screen(random_model_folder: Path, picture: Path, tmp_path: Path) -> None:
    adapter, saved = moved_adapter(random_model_folder, tmp_path / "lora"), tmp_path / "saved.json"
    model = ["--from_pretrained", str(random_model_folder), "--adapter", f"tuned={adapter}"]
    long = "很" * 45  # wider than the screen
    with on_screen("-c", HOLDING, "1", *model, "--seed", "1") as screen:
        screen.until(r"欢迎(.*?)\x1b\[\?2004h")
        assert "/both" in screen.enter("/help")  # where a picture is asked for as well
        assert screen.enter(str(picture)).startswith("VisualGLM-6B：")
        screen.press(f"{long}长\x1b[D\x1b[3~\r")  # one step back, and what stands there is deleted
        screen.until(r"\x1b\[\?2004l(VisualGLM-6B：.)")
        screen.press("\x03")
        assert "（已停止）" in screen.until(r"(.*?)\x1b\[\?2004h")
        assert screen.enter("/both") == "base + tuned\n"
        both = screen.enter("\x1b[A\x1b[A？")  # the question before the command, with a mark
        assert both.index("微调前：") < both.index("微调后：")
        assert screen.enter(f"/save {saved}") == f"{saved}\n"
        content = json.loads(saved.read_text(encoding="utf-8"))
        questions = {arm: [turn["question"] for turn in turns] for arm, turns in content["dialogues"].items()}
        assert questions == {"tuned": ["描述这张图片。", long, f"{long}？"], BASE: [f"{long}？"]}
        assert all(visible(turn["answer"]) in screen.text for turns in content["dialogues"].values() for turn in turns)
        chosen = [screen.enter(line) for line in ("/before", "/after", "/adapter base", "/after", "/adapter x")]
        assert chosen[:4] == ["base\n", "tuned\n", "base\n", "tuned\n"]
        assert chosen[4] == "error: there is no adapter 'x'; there are base, tuned.\n"
        screen.press("\x03")
        assert "stop 终止程序。" in screen.until(r"\x1b\[\?2004l(.*?)\x1b\[\?2004h")
        assert "error" in screen.enter("/image missing.png")
        assert screen.enter(f"/image '{picture}'").startswith("VisualGLM-6B：")
        assert screen.enter("clear") == ""
        assert "error" in screen.enter("/save /dev/null/x")
        screen.press("stop\r")
        assert screen.program.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_a_request_to_terminate_ends_the_dialogue(random_model_folder: Path) -> None:
    with on_screen("-m", "vglm", "chat", "--from_pretrained", str(random_model_folder)) as screen:
        screen.until(r"欢迎(.*?)\x1b\[\?2004h")
        screen.program.send_signal(signal.SIGTERM)
        assert screen.program.wait() == 128 + signal.SIGTERM


def test_interrupting_a_script_ends_it_and_asks_nothing_more() -> None:
    source, printed = os.pipe()
    with open(source, "rb"), Program("-c", HOLDING, "0", "--ask", "你好", "--ask", "再见", stdout=printed) as program:
        os.close(printed)
        reader = Reader(source)
        reader.until("(VisualGLM-6B：.)")
        program.send_signal(signal.SIGINT)
        assert program.wait() == 130
        reader.until("（已停止）\n()$")
        assert os.read(source, 1) == b""


def test_each_line_of_a_pipe_is_answered_at_once() -> None:
    (lines, keys), (source, printed) = os.pipe(), os.pipe()
    with open(source, "rb"), Program("-m", "vglm", "chat", "--json", stdin=lines, stdout=printed) as program:
        os.close(lines)
        os.close(printed)
        reader = Reader(source)
        for question in ("你好", "再见"):
            os.write(keys, f"{question}\n".encode())
            assert json.loads(reader.until("(.*?)\n"))["question"] == question
        os.close(keys)
        assert program.wait() == 0


def test_no_answer_commands_the_terminal() -> None:
    assert visible("一\x1b[2J\r\x07\x9b二\u3000👩\u200d🔬\t\n") == "一\ufffd[2J\ufffd\ufffd\ufffd二\u3000👩\u200d🔬\t\n"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_line_is_wider_than_80_columns(language: Literal["zh", "en"]) -> None:
    lines = [line for text in chat_texts(language).values() for line in text.splitlines()]
    assert max(map(get_cwidth, lines)) < 80


def test_questions_come_from_the_command_line_or_a_pipe(picture: Path) -> None:
    done = run_program(
        "-m",
        "vglm",
        "chat",
        "--image",
        str(picture),
        "--ask",
        "图中有什么？",
        "--ask",
        "还有呢？",
        "--json",
        "--seed",
        "1",
    )
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [turn["question"] for turn in turns] == ["图中有什么？", "还有呢？"]
    assert turns[0]["finish_reason"] == "stop"
    assert turns[1]["prompt_tokens"] > turns[0]["prompt_tokens"]
    piped = run_program(
        "-m", "vglm", "chat", "--image", str(picture), "--json", "--seed", "1", stdin="图中有什么？\n\n还有呢？\n"
    )
    answers = [json.loads(line)["answer"] for line in piped.stdout.splitlines()]
    assert answers == [turn["answer"] for turn in turns]
    plain = chat("--image", str(picture), "--seed", "1", stdin="图中有什么？\n")
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
    done = chat(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dialogue_without_an_adapter_has_nothing_to_compare(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="no adapter to compare"):
        Dialogue(engine, HOW).choose("both")
