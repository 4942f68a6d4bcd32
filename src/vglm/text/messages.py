"""Texts for users in English and Chinese, kept in a `messages.yaml` beside the code that uses them.

    meaning:
      untuned: {en: "{model} as it was", zh: "原始的 {model}"}
    rows:
      one: {en: "{n:,} row", zh: "{n:,} 行"}
      other: {en: "{n:,} rows", zh: "{n:,} 行"}

    say = Texts(Path(__file__).with_name("messages.yaml"))
    say("meaning.untuned", model="visualglm_tiny")      Text(en="visualglm_tiny as it was", zh="原始的 visualglm_tiny")
    say.counted("rows", 3)                              Text(en="3 rows", zh="3 行")

A field in braces takes a format, as `{n:,}`; a list of values is joined by commas, `{parts:and}` and `{parts:;}` join
by "and" and by semicolons. Values of type `Text` are inserted in the language of the message.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vglm.text.prompt import Language

LANGUAGES: tuple[Language, ...] = ("en", "zh")
LANGUAGE_VARIABLE = "VGLM_LANG"
"""Environment variable: the language of terminal and pages, `zh` or `en`."""

SEPARATORS: Mapping[str, dict[Language, str]] = {
    "": {"en": ", ", "zh": "、"},
    "and": {"en": " and ", "zh": "、"},
    ";": {"en": "; ", "zh": "；"},
}
"""Format of a list's field -> what stands between its parts."""

_SIDES: tuple[Language, ...] = ("en", "zh")
"""The fields of `Text`."""


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


class Worded(ABC):
    """A value that has words of its own in either language."""

    __slots__ = ()

    @abstractmethod
    def words(self) -> Text:
        """The words."""


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
            KeyError: There is no such key, or a field has no value.
        """
        words = self.get(key)
        if words is None:
            raise KeyError(f"{self.path} has no {key!r}")
        return Text(*(_fill(getattr(words, side), values, side) for side in _SIDES))

    def counted(self, key: str, n: int, /, **values: Any) -> Text:
        """The words of `key.one` for one thing, else of `key.other`, with `{n}` among their places."""
        return self(f"{key}.{'one' if n == 1 else 'other'}", n=n, **values)

    def name(self, kind: str, name: str) -> Text:
        """The title of one of our own names, such as the arm `before`; other names are their own titles."""
        return self.get(f"{kind}.{name}") or Text.of(name)


def join(texts: Iterable[Text], separator: str = "") -> Text:
    """Texts in a row, in each language by its own separator, see `SEPARATORS`."""
    parts = list(texts)
    return Text(*(SEPARATORS[separator][side].join(getattr(part, side) for part in parts) for side in _SIDES))


def in_language(value: Any, language: Language) -> str:
    """A text in one language, a list of them with what separates them; anything else as it is written."""
    return str(format(_form(value, language), ""))


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
    if isinstance(value, Worded):
        value = value.words()
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
