"""Unicode normalisation of texts before they are compared."""

import re
import unicodedata
from functools import lru_cache

_DROPPED = dict.fromkeys([*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F])  # control characters
_BLANKS = dict.fromkeys(map(ord, "\u061c\u200b\u200c\u200e\u200f\u2581\ufeff\ufffd"), " ")
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


@lru_cache(20_000)  # used by every metric
def _normalised(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", text.translate(_DROPPED)).translate(_BLANKS).split())
    while " " in text:  # as transformers' clean_up_tokenization, until nothing changes
        shorter = _BEFORE_SHORT.sub("", _BEFORE_SIGN.sub("", text).replace(" ' ", "'"))
        if shorter == text:
            break
        text = shorter
    return text
