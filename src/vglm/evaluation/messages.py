"""Messages in an evaluation's files: a key with values, which a report renders in both languages.

    meaning = Message("meaning.untuned", {"model": "visualglm_tiny"})
    translate(meaning)       Text(en="visualglm_tiny as it was", zh="原始的 visualglm_tiny")
    translate("a name")      Text(en="a name", zh="a name"): data, and the English sentences in files of older versions

A file holds `{"key": "meaning.untuned", "values": {"model": "visualglm_tiny"}}`; `messages.yaml` beside this module has
the words, in the form of `vglm.text.messages`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Union

from vglm.errors import DataError
from vglm.text.messages import Text, Texts, Worded

Value = Union[str, int, float, None, "Message", tuple[Union[str, "Message"], ...]]


@dataclass(frozen=True, slots=True)
class Message(Worded):
    """A sentence as files keep it.

    Attributes:
        key: Of the words in `messages.yaml`.
        values: The values of their fields, by name; messages among them are translated too, other texts stay.
    """

    key: str
    values: Mapping[str, Value] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """In English."""
        return translate(self).en

    def words(self) -> Text:
        """In both languages."""
        return translate(self)


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


FILE_TEXTS = Texts(Path(__file__).with_name("messages.yaml"))
"""The words of messages in files."""
