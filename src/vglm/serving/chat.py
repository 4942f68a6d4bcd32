"""`vglm chat`: a dialogue in the terminal, about a picture or text only.

    请输入图像路径或URL（回车进入纯文本对话）： cat.png
    VisualGLM-6B：一只猫。
    用户：它是什么颜色的？                     clear starts over, stop ends; /help lists the other commands

Typed lines go through prompt-toolkit, which provides editing and history; input from a pipe is answered line by line.
"""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from PIL import Image

from vglm.errors import ConfigError, DataError, WorkbenchError, message_of
from vglm.files import write_json
from vglm.serving.adapters import BASE
from vglm.serving.engine import Answer, Engine, Question
from vglm.serving.remote_images import fetch_picture
from vglm.serving.requests import Limits, read_picture
from vglm.serving.sampling import Sampling, language_of
from vglm.serving.texts import chat_texts
from vglm.text.prompt import Language

PROMPTS = {"zh": "描述这张图片。", "en": "Describe the image."}

_CONTROLS = re.compile(r"[^\n\t\x20-\x7e\xa0-\U0010ffff]")
COMMANDS = ("image", "adapter", "before", "after", "both", "save", "help")
"""What may follow a slash."""


@dataclass
class Dialogue:
    """The turns so far, and the model that answers the next question.

    Attributes:
        engine: Answers.
        sampling: How.
        adapter: The adapter that `/after` and `/both` mean; `base` where there is none.
        arms: Who answers: the base, the adapter, or both.
        image: The picture, None for a dialogue without one.
        image_name: Where it came from.
        histories: Turns so far, for each arm its own.
    """

    engine: Engine
    sampling: Sampling
    adapter: str = BASE
    arms: tuple[str, ...] = (BASE,)
    image: Image.Image | None = None
    image_name: str | None = None
    histories: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def begin(self, image: str | None = None) -> None:
        """Clear the turns.

        Args:
            image: Path or address of the picture that the new dialogue is about; None for none.

        Raises:
            DataError: It cannot be had; then nothing is forgotten.
        """
        picture = None if image is None else open_picture(image)
        self.image, self.image_name, self.histories = picture, image, {}

    def ask(self, text: str) -> dict[str, Answer]:
        """Put a question to each arm; `keep` takes their answers into the dialogue."""
        language = "en" if self.sampling.bars_chinese else language_of(text)
        return {
            arm: self.engine.ask(
                Question(text, self.image, self.histories.get(arm, []), language), adapter=arm, sampling=self.sampling
            )
            for arm in self.arms
        }

    def keep(self, text: str, answers: dict[str, Answer]) -> None:
        """Store a turn."""
        for arm, answer in answers.items():
            self.histories.setdefault(arm, []).append((text, answer.text))

    def choose(self, command: str, name: str = "") -> None:
        """Change which model answers.

        Args:
            command: `adapter`, `before`, `after` or `both`.
            name: Of an adapter.

        Raises:
            ConfigError: There is no such adapter, or none at all.
        """
        if command == "adapter":
            if name not in self.engine.names:
                raise ConfigError(f"there is no adapter {name!r}; there are {', '.join(self.engine.names)}.")
            self.adapter, self.arms = self.adapter if name == BASE else name, (name,)
        elif command != "before" and self.adapter == BASE:
            raise ConfigError("there is no adapter to compare with. Start with --adapter <run folder>.")
        else:
            self.arms = {"before": (BASE,), "after": (self.adapter,), "both": (BASE, self.adapter)}[command]

    def record(self) -> dict[str, Any]:
        """What `/save` writes."""
        return {
            "image": self.image_name,
            "sampling": {name: getattr(self.sampling, name) for name in Sampling.__slots__},
            "dialogues": {
                arm: [{"question": question, "answer": answer} for question, answer in turns]
                for arm, turns in self.histories.items()
            },
        }


def open_picture(address: str) -> Image.Image:
    """A picture from a path or a web address.

    Raises:
        DataError: It cannot be read, or is not a picture.
    """
    limits = Limits(pixels=100_000_000, body_bytes=200 * 2**20)
    if address.lower().startswith(("http://", "https://")):
        return read_picture(
            asyncio.run(fetch_picture(address, max_bytes=limits.body_bytes, timeout_seconds=30, is_trusted=True)),
            limits,
        )
    from vglm.data.images import open_image

    try:
        return open_image(_path(address))
    except ValueError as error:
        raise DataError(f"{address!r} is no path of a picture: {error}.") from error


class Terminal:
    """The dialogue on a screen or in a pipe.

    Args:
        dialogue: What is talked about.
        language: Of the words around the dialogue, "zh" or "en".
        first_question: The first question about a new picture.
        as_json: Whether each turn is printed as a line of JSON.
        output: Where to print; standard output if not given.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        language: Language,
        first_question: str,
        as_json: bool = False,
        output: TextIO | None = None,
    ) -> None:
        self.dialogue, self.words, self.first_question = dialogue, chat_texts(language), first_question
        self.as_json, self.output = as_json, output or sys.stdout

    def run(self, read: Callable[[str], str]) -> None:
        """Talk until `stop` or the end of the input, beginning with the first question if there is a picture.

        Args:
            read: Shows a prompt and returns a line; raises EOFError at the end and KeyboardInterrupt on Ctrl-C.
        """
        self._print(self.words["welcome"])
        begins = self.dialogue.image is None
        if not begins:
            self.take(self.first_question)
        while True:
            try:
                if begins:
                    begins = not self._begin(read(self.words["image"]).strip())
                else:
                    begins = not self.take(read(self.words["user"]).strip())
            except KeyboardInterrupt:
                self._print(self.words["leave"])
            except (EOFError, _Stop):
                return

    def _begin(self, text: str) -> bool:
        """Start a dialogue; whether it was. Commands are understood here too."""
        if text in ("stop", "clear") or (text.startswith("/") and _split(text[1:])[0] in COMMANDS):
            return self.take(text) and self.dialogue.image is not None
        try:
            self.dialogue.begin(text.strip("'\"") or None)
        except WorkbenchError as error:
            self._print(f"error: {message_of(error)}")
            return False
        if text:
            self.answer(self.first_question)
        return True

    def take(self, line: str) -> bool:
        """Answer a line or carry out a command; False where a new dialogue is to begin."""
        if line == "stop":
            raise _Stop
        if line == "clear":
            self.dialogue.begin()
            return False
        try:
            if line.startswith("/"):
                self._command(*_split(line[1:]))
            elif line:
                self.answer(line)
        except (WorkbenchError, OSError) as error:
            self._print(f"error: {message_of(error)}")
        return True

    def _command(self, name: str, *rest: str) -> None:
        argument = " ".join(rest)
        if name == "image" and argument:
            self.dialogue.begin(argument)
            self.answer(self.first_question)
        elif name == "adapter" and not argument:
            self._print(", ".join(self.dialogue.engine.names))
        elif name in ("adapter", "before", "after", "both"):
            self.dialogue.choose(name, argument)
            self._print(" + ".join(self.dialogue.arms))
        elif name == "save" and argument:
            write_json(_path(argument), self.dialogue.record())
            self._print(argument)
        else:
            self._print(self.words["help"])

    def answer(self, text: str) -> bool:
        """Print the answers to a question as they come; False if Ctrl-C stopped them."""
        answers = self.dialogue.ask(text)
        with _stoppable(answers.values()):
            for arm, answer in answers.items():
                if self.as_json:
                    turn = describe(text, self.dialogue.image_name, arm, answer.wait())
                    print(json.dumps(turn, ensure_ascii=False), file=self.output, flush=True)
                else:
                    self._type(self._heading(arm, len(answers)), answer)
        self.dialogue.keep(text, answers)
        return not any(answer.finish_reason == "cancelled" for answer in answers.values())

    def _heading(self, arm: str, arms: int) -> str:
        if arms == 1:
            return self.words["model"]
        return self.words["before"] if arm == BASE else self.words["after"]

    def _type(self, heading: str, answer: Answer) -> None:
        print(heading, end="", file=self.output, flush=True)
        for piece in answer:
            print(visible(piece), end="", file=self.output, flush=True)
        self._print(self.words.get(f"ended.{answer.finish_reason}", ""))

    def _print(self, text: str) -> None:
        if not self.as_json:
            print(text, file=self.output, flush=True)


class _Stop(Exception):
    """The user ends the program."""


@contextmanager
def _stoppable(answers: Iterable[Answer]) -> Iterator[None]:
    """Let Ctrl-C cancel these answers rather than the program; none of them continues afterwards."""

    def stop(*_: object) -> None:
        for answer in answers:
            answer.cancel()
        signal.signal(signal.SIGINT, before)  # the next Ctrl-C does not wait for them

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        stop()


def visible(text: str) -> str:
    """An answer as a terminal may show it: no character of it moves the cursor, rings the bell or changes a colour."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def describe(question: str, image: str | None, adapter: str, answer: Answer) -> dict[str, Any]:
    """One turn, as `--json` prints it."""
    return {
        "question": question,
        "image": image,
        "adapter": adapter,
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": len(answer.token_ids),
        "seconds": None if answer.seconds is None else round(answer.seconds, 3),
    }


def line_reader() -> Callable[[str], str]:
    """What reads a typed line, with editing and history; plain lines where the input is not a terminal."""
    if not sys.stdin.isatty():
        return _read_plain
    from prompt_toolkit import PromptSession

    session: Any = PromptSession()

    def read(prompt: str) -> str:
        line: str = session.prompt(prompt)
        return line

    return read


def _read_plain(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))  # Path.expanduser fails where there is no such user


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text) or [""]
    except ValueError:  # a quote that is not closed
        return text.split() or [""]


def in_language(sampling: Sampling, language: Language) -> Sampling:
    """The settings of a dialogue in a language; answers in English hold no Chinese characters."""
    return replace(sampling, bars_chinese=True) if language == "en" else sampling


def first_question(language: Language, prompt_zh: str | None, prompt_en: str | None) -> str:
    """The first question about a new picture."""
    return (prompt_en if language == "en" else prompt_zh) or PROMPTS[language]
