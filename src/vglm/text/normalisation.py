"""Unicode normalisation of texts before they are compared."""

import re
import unicodedata
from functools import lru_cache

_DROPPED = re.compile("[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]")  # control characters
_BLANKS = re.compile("[\u061c\u200b\u200c\u200e\u200f\u2581\ufeff\ufffd]")
_BEFORE_SIGN = re.compile(r" (?=[.,?!])")
_BEFORE_SHORT = re.compile(r" (?=n't|'(?:m|s|ve|re))")


def normalise(text: str) -> str:
    """Bring a text into the form in which answers are compared.

    Unicode NFKC (full-width signs and letters become half-width); white space is dropped at the ends and made one blank
    inside. Case, accents and punctuation count.

    Beyond that, texts are equal if the model says the same for them, token by token: decoding drops the blank before
    `.`, `,`, `?`, `!`, `n't`, `'m`, `'s`, `'ve`, `'re` and those around a lone `'`, as tokenised captions have them;
    characters without width become blanks, and control characters vanish.
    """
    return _normalised(text)


@lru_cache(2**16)  # used by every metric
def _normalised(text: str) -> str:
    """The same; full of texts of 300 Chinese characters that all change, what is remembered takes 94 MB."""
    original = text
    text = " ".join(_BLANKS.sub(" ", unicodedata.normalize("NFKC", _DROPPED.sub("", text))).split())
    while " " in text:  # as transformers' clean_up_tokenization, until nothing changes
        shorter = _BEFORE_SHORT.sub("", _BEFORE_SIGN.sub("", text).replace(" ' ", "'"))
        if shorter == text:
            break
        text = shorter
    return original if text == original else text  # one object where both are the same
