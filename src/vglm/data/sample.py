"""One training or test example, as every reader returns it.

Sample(
    id="dataset.json#3",
    group="dataset.json#3",
    image=Path("data/background_synthetic/images/test_003.png"),
    turns=(Turn("这张图片的背景里有什么内容？", "这张图片的背景是金色的沙滩。"),),
    language="zh",
    meta={"kind": "background"},
)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from PIL import Image

from vglm.data.images import image_sha256, open_image
from vglm.data.slices import ImageSlice
from vglm.data.windowing import Window
from vglm.text.prompt import Language


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
            in memory; None for a text-only sample. Look at it with `open_image`.
        turns: At least one. The last answer is learned and scored; the turns before it are history.
        language: Of the prompt: `Q:...\nA:` in English (`en`), `问：...\n答：` in Chinese (`zh`).
        meta: Whatever else is known, for slices of a report (`kind` names the sort of question).
        window: Which grey values of a picture with more than 8 bits are shown; None where the picture has no more, or
            the file decides.
    """

    id: str
    group: str
    image: Path | ImageSlice | Image.Image | None
    turns: tuple[Turn, ...]
    language: Language = "zh"
    meta: Mapping[str, Any] = field(default_factory=dict)
    window: Window | None = None

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

    def open_image(self) -> Image.Image | None:
        """Decode the picture as the model is to see it, through its `window`.

        Returns:
            A new picture, mode RGB, all pixels in memory; None for a text-only sample.

        Raises:
            DataError: As `vglm.data.images.open_image`.
        """
        return None if self.image is None else open_image(self.image, self.window)

    def image_sha256(self) -> str | None:
        """Identify the picture by what the model sees of it, see `vglm.data.images.image_sha256`.

        Raises:
            DataError: As `open_image`.
        """
        image = self.open_image()
        return None if image is None else image_sha256(image)


class SampleSequence(Sequence[Sample]):
    """Samples that are generated on access: a class says how many, and makes the one at an index."""

    def sample(self, index: int) -> Sample:
        """The sample at an index from 0 to `len(self) - 1`."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        picked = range(len(self))[index]
        return self.sample(picked) if isinstance(picked, int) else [self.sample(i) for i in picked]
