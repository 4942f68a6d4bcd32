"""One training or test example, as every reader returns it.

Sample(
    id="dataset.json#3",
    group="dataset.json#3",
    image=Path("data/background_synthetic/images/test_003.png"),
    turns=(Turn("这张图片的背景里有什么内容？", "这张图片的背景是金色的沙滩。"),),
    english=False,
    meta={"kind": "background"},
)
"""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vglm.errors import DataError

LARGEST_ENCODED_BYTES = 1 << 30
"""A picture with more bytes than that, before it is decoded, is none."""


@dataclass(frozen=True, slots=True)
class ImageSlice:
    """An encoded picture inside a larger file (a tar shard, an Arrow table, a cell of a TSV), left where it lies.

    Attributes:
        file: The larger file.
        offset: Where in it the picture's first byte is.
        size: How many bytes the picture has there.
        is_base64: Whether these bytes are the picture written in base64.
    """

    file: Path
    offset: int
    size: int
    is_base64: bool = False

    def read_bytes(self) -> bytes:
        """Read the encoded picture.

        Returns:
            The `size` bytes; if they are base64, what they stand for.

        Raises:
            DataError: The file cannot be read, or ends before the picture does, or the bytes are no base64.
        """
        if not 0 <= self.size <= LARGEST_ENCODED_BYTES or self.offset < 0:
            raise DataError(f"image {self} cannot be one: it has {self.size:,} bytes. Restore {self.file}.")
        if os.path.exists(self.file) and not os.path.isfile(self.file):
            raise DataError(f"image {self} cannot be read: {self.file} is no regular file. Restore it.")
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DataError(f"image {self} cannot be read: {error.strerror}. Restore {self.file}.") from error
        if len(content) < self.size:
            raise DataError(f"image {self} is cut off: {self.file} is shorter than when it was read first. Restore it.")
        if not self.is_base64:
            return content
        try:
            return base64.b64decode(content, validate=True)
        except ValueError as error:
            raise DataError(f"image {self} is not base64: {error}. Restore {self.file}.") from error

    def __str__(self) -> str:
        return f"{self.file}[{self.offset}:{self.offset + self.size}]"


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Sample:
    r"""One image (or none) and the dialogue about it.

    Attributes:
        id: Unique in its dataset; stable between runs.
        group: What must not be split between train and test: a study, a patient, a star; the id if nothing is known.
        image: Where the picture lies, as a file of its own or inside a larger one, or the picture itself if it was made
            in memory; None for a text-only sample.
        turns: At least one. The last answer is learned and scored; the turns before it are history.
        english: Whether the prompt is written as `Q:...\nA:` rather than `问：...\\n答：`.
        meta: Whatever else is known, for slices of a report (`kind` names the sort of question).
    """

    id: str
    group: str
    image: Path | ImageSlice | Image.Image | None
    turns: tuple[Turn, ...]
    english: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last question."""
        return self.turns[-1].question

    @property
    def answer(self) -> str:
        """The last answer: the reference."""
        return self.turns[-1].answer

    @property
    def history(self) -> list[tuple[str, str]]:
        """The turns before the last, as (question, answer) pairs."""
        return [(turn.question, turn.answer) for turn in self.turns[:-1]]
