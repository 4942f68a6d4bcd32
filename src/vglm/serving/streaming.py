r"""Incremental detokenisation: emit the part of an answer's text that is final, and stop at a stop text.

    text = GrowingText(AnswerDecoder(processor), stop=["\n问："])
    for token in tokens:
        text.take(token)                 costs nothing
        piece = text.grow()              what is new, whenever it is to be shown; "" where nothing can be shown yet
        if text.is_stopped: break
    piece = text.close()                 the rest; all pieces together are `decoder.decode(tokens)`

Decoding is not additive: bytes join to characters, blanks before punctuation vanish, half-width punctuation beside
Chinese characters becomes full-width. So the end of the text is held back while the next token may still change it.
"""

import re
from collections.abc import Sequence
from typing import Protocol

_MAY_CHANGE = re.compile(
    r"(?:[\s,!:;?.'\ufffd]+(?:[a-z]{1,2}'?)?"  # blanks vanish before punctuation, 's, n't, 've; punctuation turns wide
    r"|\[\[?训?练?时?间?\]?)\Z"  # a mark that the original replaces
)

_TAIL = 32
"""Characters at the end of a text that are looked at first for what may change."""
_WINDOW = 12
"""Tokens at the end of a text that are always decoded together: more than any rule looks at."""
_TRIES = 4
"""Places at which a text may be cut that are tried."""


class Decoder(Protocol):
    """What turns ids into text; `AnswerDecoder` and `VisualGlmProcessor` do."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Turn one answer's ids into its text."""


class GrowingText:
    """The text of one answer.

    Args:
        decoder: Decodes it.
        stop: Texts before whose first appearance it ends.

    Attributes:
        tokens: What was added.
        shown: What was given out.
        is_stopped: Whether a stop text was found.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = ()) -> None:
        self.decoder = decoder
        self.stop = tuple(stop)
        self.tokens: list[int] = []
        self.shown = ""
        self.is_stopped = False
        self._settled_text, self._settled_tokens = "", 0  # what no later token changes, and how many tokens it is
        self._next_settling = 2 * _WINDOW  # at so many tokens

    def take(self, token: int) -> None:
        """Take a token."""
        self.tokens.append(token)

    def grow(self) -> str:
        """What can be shown of the answer beyond what was."""
        text = self._until_stop(self._decode())
        return self._show(text if self.is_stopped else text[: self._settled(text)])

    def close(self) -> str:
        """The rest of the text, when no token follows."""
        return self._show(self._until_stop(self.decoder.decode(self.tokens)))

    def _decode(self) -> str:
        """The text of all tokens, for which only the last ones are decoded."""
        text = self._settled_text + self.decoder.decode(self.tokens[self._settled_tokens :])
        if len(self.tokens) >= self._next_settling:  # not at every token, where it cannot be cut
            self._settle(text)
            self._next_settling = len(self.tokens) + _WINDOW
        return text

    def _settle(self, text: str) -> None:
        """Settle the beginning of the text, if it can be cut so that its parts decode to what the whole does."""
        begin, last = self._settled_tokens, len(self.tokens) - _WINDOW
        for end in range(last, last - _TRIES, -1):
            head = self._settled_text + self.decoder.decode(self.tokens[begin:end])
            tail = self.decoder.decode(self.tokens[end:])
            for between in ("", " "):
                if head[-1:].isalnum() and tail[:1].isalnum() and head + between + tail == text:
                    self._settled_text, self._settled_tokens = head + between, end
                    return

    def _until_stop(self, text: str) -> str:
        starts = [start for stop in self.stop if (start := text.find(stop)) >= 0]
        self.is_stopped = bool(starts)
        return text[: min(starts)] if starts else text

    def _settled(self, text: str) -> int:
        """How much of a text no later token can change, and no stop text can begin in."""
        tail = max(0, len(text) - _TAIL)
        match = _MAY_CHANGE.search(text, tail)
        if match is not None and match.start() == tail:  # it may begin before
            match = _MAY_CHANGE.search(text)
        end = settled = len(text) if match is None else match.start()
        for stop in self.stop:
            for whole in (text, text[:settled]):  # what is held back may yet become the end of a stop text
                for length in range(min(len(stop) - 1, len(whole)), 0, -1):
                    if whole.endswith(stop[:length]):
                        end = min(end, len(whole) - length)
                        break
        return end

    def _show(self, text: str) -> str:
        if not text.startswith(self.shown):
            return ""  # a later token changed what was shown: nothing can be taken back
        piece = text[len(self.shown) :]
        self.shown += piece
        return piece
