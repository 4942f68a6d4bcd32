"""The fixed question of formats that have pictures and texts, but no questions.

questions = FixedQuestion({"zh": "描述这张图片。", "en": "Describe this image."}, language=None)
questions.about("A cat.")        ("en", "Describe this image.")
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from vglm.data.readers.rows import language_of
from vglm.text.prompt import Language


class QuestionOptions(TypedDict, total=False):
    """Options of these formats.

    Attributes:
        question: The question about every picture; the format's own question if None.
        language: Of the prompts; by the words of each row if None.
    """

    question: str | None
    language: Language | None


@dataclass(frozen=True)
class FixedQuestion:
    """One question for all pictures.

    Attributes:
        own: The format's own question in both languages.
        question: As in `QuestionOptions`, and so is `language`.
        language: See there.
    """

    own: Mapping[Language, str]
    question: str | None = None
    language: Language | None = None

    def about(self, *texts: str) -> tuple[Language, str]:
        """The language and the question for a row with these texts."""
        language = self.language or language_of(*texts)
        return language, self.question or self.own[language]
