"""Messages in an evaluation's files: a key with values, which a report renders in both languages.

    meaning = Message("meaning.untuned", {"model": "visualglm_tiny"})
    translate(meaning)       Text(en="visualglm_tiny as it was", zh="原始的 visualglm_tiny")
    translate("a name")      Text(en="a name", zh="a name"): data, and the English sentences in files of older versions

A file holds `{"key": "meaning.untuned", "values": {"model": "visualglm_tiny"}}`; `messages.yaml` beside this module has
the words. A report section brings a file of the same form, see `Texts`:

    meaning:
      untuned: {en: "{model} as it was", zh: "原始的 {model}"}

A place in braces takes a format, as `{n:,}`; a list of values is joined by commas, `{parts:and}` and `{parts:;}` join
by "and" and by semicolons.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Union

import yaml

from vglm.errors import DataError
from vglm.text.prompt import Language

LANGUAGES: tuple[Language, ...] = ("en", "zh")
LANGUAGE_VARIABLE = "VGLM_LANG"
"""Environment variable: the language of terminal and pages, `zh` or `en`."""

SEPARATORS: Mapping[str, dict[Language, str]] = {
    "": {"en": ", ", "zh": "、"},
    "and": {"en": " and ", "zh": "、"},
    ";": {"en": "; ", "zh": "；"},
}
"""Format of a list's place -> what stands between its parts."""

_SIDES: tuple[Language, ...] = ("en", "zh")
"""The fields of `Text`."""

Value = Union[str, int, float, None, "Message", tuple[Union[str, "Message"], ...]]


def terminal_language() -> Language:
    """That of `VGLM_LANG`, such as `zh` or `zh_CN.UTF-8`; English without."""
    return "zh" if os.environ.get(LANGUAGE_VARIABLE, "").lower().startswith("zh") else "en"


class Text(NamedTuple):
    """The same in both languages of a report."""

    en: str
    zh: str

    @classmethod
    def of(cls, name: object) -> "Text":
        """A name or a number, which is the same in both."""
        return cls(str(name), str(name))


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence as files keep it.

    Attributes:
        key: Of the words in `messages.yaml`.
        values: What fills their places, by name; messages among them are put into words in turn, other texts stay.
    """

    key: str
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """In English."""
        return translate(self).en


Sentence = str | Message
"""A sentence of a file; one that is plain text is shown as it is."""


class Unsuitable(DataError):
    """A metric does not apply to some answers.

    Attributes:
        message: Why.
    """

    def __init__(self, message: Message) -> None:
        self.message = message
        super().__init__(str(message))


class Texts:
    """The words in a file of messages, and behind them those of a more general one.

    Args:
        path: The file.
        base: Where a key is looked for that the file does not have.
    """

    def __init__(self, path: Path, base: "Texts | None" = None) -> None:
        self.path, self._base = path, base

    @cached_property
    def own(self) -> dict[str, Text]:
        """The file's words by their keys; those of nested keys are joined by dots."""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return dict(_leaves(yaml.load(self.path.read_text(encoding="utf-8"), Loader=loader)))

    def get(self, key: str) -> Text | None:
        """The words of a key, their places unfilled; None where there are none."""
        if key in self.own or self._base is None:
            return self.own.get(key)
        return self._base.get(key)

    def __call__(self, key: str, /, **values: Any) -> Text:
        """The words of a key with their places filled, in each language by its own form of the values.

        Raises:
            KeyError: There is no such key, or a place has no value.
        """
        words = self.get(key)
        if words is None:
            raise KeyError(f"{self.path} has no {key!r}")
        return Text(*(_fill(getattr(words, side), values, side) for side in _SIDES))

    def name(self, kind: str, name: str) -> Text:
        """The title of one of our own names, such as the arm `before`; other names are their own titles."""
        return self.get(f"{kind}.{name}") or Text.of(name)


def translate(sentence: Sentence) -> Text:
    """A sentence of a file in both languages.

    Args:
        sentence: Plain text stays as it is. So does the key of a message that this version has no words for, with its
            values.
    """
    if isinstance(sentence, str):
        return Text.of(sentence)
    try:
        return FILE_TEXTS(sentence.key, **sentence.values)
    except (KeyError, ValueError, IndexError, TypeError):  # of a newer version
        return Text.of(
            ": ".join([sentence.key, ", ".join(f"{name} {value}" for name, value in sentence.values.items())])
        )


def as_plain(sentence: Sentence) -> str | dict[str, Any]:
    """A sentence as JSON holds it."""
    return sentence if isinstance(sentence, str) else asdict(sentence)


def join(texts: Iterable[Text], separator: str = "") -> Text:
    """Texts in a row, in each language by its own separator, see `SEPARATORS`."""
    parts = list(texts)
    return Text(*(SEPARATORS[separator][side].join(getattr(part, side) for part in parts) for side in _SIDES))


class _List(list[str]):
    """Parts in one language."""

    def __init__(self, parts: Iterable[str], language: Language) -> None:
        super().__init__(parts)
        self._language = language

    def __format__(self, separator: str) -> str:
        return SEPARATORS[separator][self._language].join(self)


def _fill(words: str, values: Mapping[str, Any], language: Language) -> str:
    return words.format(**{name: _form(value, language) for name, value in values.items()}) if values else words


def _form(value: Any, language: Language) -> Any:
    """A value in one language."""
    if isinstance(value, Message):
        value = translate(value)
    if isinstance(value, Text):
        return getattr(value, language)
    if isinstance(value, list | tuple):
        return _List([str(_form(part, language)) for part in value], language)
    return value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Text]]:
    for name, value in values.items():
        if isinstance(value, str):
            yield f"{prefix}{name}", Text.of(value)
        elif isinstance(value.get("en"), str):
            yield f"{prefix}{name}", Text(**value)
        else:
            yield from _leaves(value, f"{prefix}{name}.")


FILE_TEXTS = Texts(Path(__file__).with_name("messages.yaml"))
"""The words of messages in files."""
