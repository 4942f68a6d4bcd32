"""Split texts into SentencePiece pieces as VisualGLM's tokenizer does.

    >>> counter = PieceCounter.open(Path("data/visualglm_tiny"))
    >>> counter.count("你好"), counter.num_image_tokens, counter.max_length
    (2, 16, 512)

Line breaks, tabs and runs of 2 to 80 blanks, which SentencePiece would merge into one blank, have pieces of their own.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vglm.errors import WorkbenchError
from vglm.files import read_json

VOCAB_FILE = "ice_text.model"
WHITE_SPACE_PIECES = {"<n>": "\n", "<|tab|>": "\t"} | {f"<|blank_{length}|>": " " * length for length in range(2, 81)}
"""What SentencePiece would merge into one blank, by the piece that stands for it."""

_PIECE_OF = {text: piece for piece, text in WHITE_SPACE_PIECES.items()}
_WHITE_SPACE = re.compile("\n|\t| {2,80}")


def to_pieces(sentencepiece: Any, text: str) -> list[str]:
    """Cut a text into pieces.

    Args:
        sentencepiece: The `SentencePieceProcessor`.
        text: Any text; lone surrogates (broken JSON escapes) count as question marks.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate has no UTF-8 form
    text = _WHITE_SPACE.sub(lambda match: _PIECE_OF[match.group()], text)
    pieces: list[str] = sentencepiece.encode(text, out_type=str)
    return pieces


@dataclass(frozen=True)
class PieceCounter:
    """Counts tokens as a model does, from a few files of its native folder.

    Attributes:
        vocabulary: The SentencePiece model.
        num_image_tokens: Slots of an image.
        max_length: Tokens of the model's context.
    """

    vocabulary: Path
    num_image_tokens: int
    max_length: int

    @classmethod
    def open(cls, folder: Path) -> "PieceCounter | None":
        """The counter of a native folder; None where its files do not say all that is needed."""
        try:
            config = read_json(folder / "config.json")
            slots = read_json(folder / "processor_config.json")["num_image_tokens"]
            length = config["text_config"]["max_position_embeddings"]
            is_native = config["model_type"] == "visualglm"
        except (WorkbenchError, KeyError, TypeError):
            return None
        vocabulary = folder / VOCAB_FILE
        if not is_native or type(slots) is not int or type(length) is not int or not vocabulary.is_file():
            return None
        counter = cls(vocabulary, slots, length)
        try:
            counter.count("")
        except (OSError, RuntimeError):  # no SentencePiece model; the tokenizer has the words for it
            return None
        return counter

    @cached_property
    def _sentencepiece(self) -> Any:
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_file=str(self.vocabulary))

    def count(self, text: str) -> int:
        """How many tokens a text becomes, whatever it spells."""
        return len(to_pieces(self._sentencepiece, text))
