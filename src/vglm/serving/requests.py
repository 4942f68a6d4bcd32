r"""The schemas of requests, their validation, and the questions made of them.

    POST /                      {"image": "<base64>", "text": "描述这张图片。", "history": [], "temperature": 0.8}
    POST /v1/chat/completions   {"model": "base", "messages": [{"role": "user", "content": [
                                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}},
                                    {"type": "text", "text": "Describe the image."}]}], "stream": true}

An unsupported field is refused by its name. A picture is a data URL, or base64; a path on this machine is never opened.

Source: the original's contract is that of THUDM/VisualGLM-6B:api.py, api_hf.py and README.md.
"""

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Annotated, Any, Literal
from unicodedata import normalize

from annotated_types import Len
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vglm.data.dicom import quiet_decoders
from vglm.errors import ConfigError, DataError
from vglm.serving.engine import Question
from vglm.serving.sampling import Sampling, language_of
from vglm.text.prompt import Language

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_SHRINKING = 4  # characters that the tokenizer's normal form may make into one
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.IGNORECASE)

# Fields of the OpenAI interface that may be there as long as they ask for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}


@dataclass(frozen=True)
class Limits:
    """What a server takes of one request.

    Attributes:
        body_bytes: Size of the request.
        pixels: Width x height of a picture.
        history_turns: Questions and answers before the last question.
        text_characters: All texts together, in Unicode's form NFKC.
        seconds: From the request to the end of the answer.
        answers: Answers to one question, `n`.
        messages: Messages of a dialogue in the OpenAI form, and parts of them, together.
    """

    body_bytes: int = 20 * 2**20
    pixels: int = 25_000_000
    history_turns: int = 100
    text_characters: int = 100_000
    seconds: float = 600.0
    answers: int = 8
    messages: int = 1_000


class OriginalRequest(BaseModel):
    """The original's request; settings that are left out are those of its demos."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(description="The question.", examples=["描述这张图片。"])
    image: str | None = Field(None, description="The picture, base64 or a data URL; none for a dialogue without one.")
    history: list[Annotated[list[str], Len(2, 2)]] | None = Field(None, description="Earlier [question, answer] pairs.")
    model: str = Field("base", description="`base`, or the name of an adapter.")
    max_length: int = Field(2048, description="Most tokens of question and answer together.")
    temperature: float = Field(0.8, description="0: greedy.")
    top_p: float = Field(0.4, description="Only the likeliest tokens that together have this probability.")
    top_k: int = Field(100, description="Sample only from this many of the likeliest tokens.")
    repetition_penalty: float = Field(1.2, description="What the logit of a token in the answer is divided by.")
    num_beams: Literal[1] = Field(1, description="Beam search is not supported.")
    seed: int | None = Field(None, description="Of the draws.")

    def sampling(self) -> Sampling:
        """Its settings.

        Raises:
            ConfigError: One of them is not possible.
        """
        return Sampling(
            max_length=self.max_length,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )

    def question(self, limits: Limits) -> Question:
        """What is asked; the prompt is English where the text has no Chinese character.

        Raises:
            ConfigError: The texts are too many or too long, or the question is empty.
            DataError: The picture cannot be used.
        """
        history = [(question, answer) for question, answer in self.history or ()]
        check_texts(self.text, history, limits)
        image = decode_picture(self.image, limits) if self.image else None
        return Question(self.text, image, history, language_of(self.text))


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request in the OpenAI form; settings that are left out are those of the original's demos."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str = Field(description="`base`, or the name of an adapter.", examples=["base"])
    messages: list[dict[str, Any]] = Field(
        description="Turns of `user` and `assistant`, the last one a user's; a `system` message goes before the first"
        " question, and neighbouring messages of one role are one turn. One picture in all, as an image_url part with a"
        " data URL.",
        examples=[[{"role": "user", "content": "你好"}]],
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    user: str | None = Field(None, description="Taken and not used.")
    top_k: int | None = Field(
        None, description="Not in OpenAI's API: sample only from this many of the likeliest tokens."
    )
    repetition_penalty: float | None = Field(None, description="Not of OpenAI, as in the original.")
    max_length: int | None = Field(None, description="Not of OpenAI: most tokens of question and answer together.")
    language: Language | None = Field(
        None,
        description="Not of OpenAI: of the prompt; with `en` the answer has no Chinese characters. By default the"
        " prompt follows the question, and no character is barred.",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_english(cls, values: Any) -> Any:
        """Take `english`, as earlier versions have it, for `language`."""
        if isinstance(values, dict) and isinstance(values.get("english"), bool):
            rest = {name: value for name, value in values.items() if name != "english"}
            return {"language": "en" if values["english"] else "zh"} | rest
        return values

    def check(self, limits: Limits) -> None:
        """Refuse what is not supported.

        Raises:
            ConfigError: Names the first such field.
        """
        for name, value in (self.model_extra or {}).items():
            if value is not None and value not in _NEUTRAL.get(name, ()):
                raise ConfigError(f"{name} is not supported. Leave it out.")
        parts = (len(content) for message in self.messages if isinstance(content := message.get("content"), list))
        if (count := len(self.messages) + sum(parts)) > limits.messages:
            raise ConfigError(
                f"there are {count:,} messages and parts of messages, at most {limits.messages:,} are taken."
            )
        if self.n is not None and not 1 <= self.n <= limits.answers:
            raise ConfigError(f"n must be from 1 to {limits.answers}, got {self.n}.")
        if self.stream_options is not None and not self.stream:
            raise ConfigError("stream_options goes with stream=true only. Leave it out.")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ConfigError("max_tokens and max_completion_tokens name the same limit. Leave one of them out.")

    def sampling(self, index: int = 0) -> Sampling:
        """The settings of one of its `n` answers.

        Args:
            index: Which of them; each has a seed of its own.

        Raises:
            ConfigError: One of them is not possible.
        """
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        limit = self.max_completion_tokens if self.max_tokens is None else self.max_tokens
        fields = {
            "max_new_tokens": limit,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "max_length": self.max_length,
            "seed": None if self.seed is None else self.seed + index,
            "bars_chinese": self.language == "en" or None,
        }
        return Sampling(**{name: value for name, value in fields.items() if value is not None}, stop=stop)  # type: ignore[arg-type]

    def picture_url(self) -> str | None:
        """Where its picture is; None without one.

        Raises:
            ConfigError: There are several, or a message has no known form.
        """
        urls = [url for message in self.messages for url in _parts(message)[1]]
        if len(urls) > 1:
            raise ConfigError(f"messages hold {len(urls)} pictures; the model sees one. Send one picture.")
        return urls[0] if urls else None

    def question(self, picture: Image.Image | None, limits: Limits) -> Question:
        """The question; by default the prompt is English where the last text has no Chinese character.

        Args:
            picture: That of `picture_url`.
            limits: What is taken.

        Raises:
            ConfigError: The messages are no dialogue that ends with a question, or too long.
        """
        system = [_parts(message)[0] for message in self.messages if message.get("role") in ("system", "developer")]
        rest = [message for message in self.messages if message.get("role") not in ("system", "developer")]
        turns = [(role, [_parts(message)[0] for message in group]) for role, group in groupby(rest, key=_role)]
        roles = [role for role, _ in turns]
        if not turns or roles != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
            actual = ", ".join(str(role)[:20] for role in roles[:6]) or "none"
            raise ConfigError(
                f"messages must be a user's and an assistant's in turn, the last one a user's; found {actual}."
            )
        texts = ["\n".join(filter(None, parts)) for _, parts in turns]
        texts[0] = "\n".join([*filter(None, system), texts[0]])
        history = list(zip(texts[:-1:2], texts[1::2], strict=True))
        check_texts(texts[-1], history, limits)
        return Question(texts[-1], picture, history, self.language or language_of(texts[-1]))


def check_texts(text: str, history: Sequence[tuple[str, str]], limits: Limits) -> None:
    """Refuse a dialogue that is empty or too long.

    Raises:
        ConfigError: It is.
    """
    if not text.strip():
        raise ConfigError("the question is empty. Ask something.")
    if len(history) > limits.history_turns:
        raise ConfigError(f"the history has {len(history)} turns, at most {limits.history_turns} are taken.")
    parts = (text, *chain(*history))
    if (length := sum(map(len, parts))) > _LONGEST_SHRINKING * limits.text_characters:
        raise ConfigError(f"the texts have {length:,} characters, at most {limits.text_characters:,} are taken.")
    if any("\ud800" <= character <= "\udfff" for part in parts for character in part):
        raise ConfigError("the texts hold half a surrogate pair, which is no character. Send valid Unicode.")
    # As the tokenizer normalises them: one character becomes up to 18.
    length = sum(len(normalize("NFKC", part)) for part in parts)
    if length > limits.text_characters:
        raise ConfigError(f"the texts have {length:,} characters, at most {limits.text_characters:,} are taken.")


def decode_picture(text: str, limits: Limits) -> Image.Image:
    """The picture of a data URL or of plain base64.

    Args:
        text: Either.
        limits: What is taken.

    Returns:
        Mode RGB, decoded.

    Raises:
        DataError: It is neither, or no still picture, damaged, or too large.
    """
    match = _DATA_URL.match(text)
    encoded = text[match.end() :] if match else text
    try:
        content = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(
            "the image is no base64. Send the picture's bytes, data:image/png;base64,...; paths and addresses are not"
            " opened."
        ) from error
    return read_picture(content, limits)


def read_picture(content: bytes, limits: Limits) -> Image.Image:
    """Decode a picture that came from outside.

    Args:
        content: A file's bytes.
        limits: What is taken.

    Returns:
        Mode RGB, decoded.

    Raises:
        DataError: No still picture, damaged, or too large.
    """
    quiet_decoders()  # what Pillow warns of is checked below
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > limits.pixels:
            raise DataError(
                f"the image has {image.width} x {image.height} pixels, at most {limits.pixels:,} are taken. Scale"
                " it down."
            )
        if getattr(image, "is_animated", False):  # to count the frames would take long for many
            raise DataError("the image has several frames; send one still picture.")
        return image.convert("RGB")
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"the image has far more pixels than the {limits.pixels:,} that are taken.") from error
    except Exception as error:  # Pillow raises many kinds for damaged data
        raise DataError(f"the image cannot be read as one of {', '.join(FORMATS)}, or is damaged.") from error


def _role(message: Mapping[str, Any]) -> str:
    return str(message.get("role"))


def _parts(message: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A message's text and the addresses of its pictures."""
    content = message.get("content")
    if unknown := set(message) - {"role", "content", "name", "refusal", "annotations"}:
        raise ConfigError(f"messages: {sorted(map(str, unknown))[0][:40]} is not supported. Leave it out.")
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise ConfigError("messages: content must be a text, or a list of text and image_url parts.")
    texts, urls = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url" and message.get("role") == "user":
            source = part.get("image_url")
            url = source.get("url") if isinstance(source, dict) else source
            if not isinstance(url, str) or (isinstance(source, dict) and set(source) - {"url", "detail"}):
                raise ConfigError("messages: image_url must be {url: data:image/...;base64,...}.")
            urls.append(url)
        else:
            raise ConfigError(f"messages: a part of type {str(kind)[:40]!r} is not supported; send text and image_url.")
    return "\n".join(texts), urls
