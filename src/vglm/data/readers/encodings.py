r"""Name the encoding of a text file that is not UTF-8, so that a user can save it again as UTF-8.

name_encoding(b"\xff\xfei\x00m\x00")                       "UTF-16"
name_encoding("图片,问题".encode("gbk"))                    "probably GBK"
"""

import codecs
import os
import re
from pathlib import Path

from vglm.errors import DataError

_HEAD_BYTES = 1 << 16
_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# A common Chinese character or sign of GBK has two bytes from 0xA1 on; Latin letters with accents stand alone mostly.
_PAIRS = re.compile(rb"[\xa1-\xf7][\xa1-\xfe]")
_HIGH = re.compile(rb"[\x80-\xff]")
_ENOUGH = 0.9


def name_encoding(content: bytes) -> str | None:
    """Name the encoding of a text that is not UTF-8.

    Args:
        content: The beginning of a file, or all of it.

    Returns:
        Such as `UTF-16`, or `probably GBK` where it is a guess; None if it is UTF-8 or no text.
    """
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            return name
    even, odd = content[::2], content[1::2]
    if min(even.count(0), odd.count(0)) * 8 < max(even.count(0), odd.count(0)) > len(even) // 4:
        return "probably UTF-16"  # every other byte is zero where a text is mostly Latin
    if _CONTROLS.search(content):
        return None
    try:
        codecs.getincrementaldecoder("utf-8-sig")().decode(content)
    except UnicodeDecodeError:
        high = len(_HIGH.findall(content))
        is_chinese = 2 * len(_PAIRS.findall(content)) >= _ENOUGH * high
        return "probably GBK" if is_chinese else "probably Latin-1 (Windows-1252)"
    return None


def refuse_other_encodings(path: Path) -> None:
    """Refuse a text file that is not in UTF-8, by its first bytes.

    Raises:
        DataError: It is in another encoding; the message names it.
    """
    if not os.path.isfile(path):
        return  # likewise
    try:
        with path.open("rb") as file:
            name = name_encoding(file.read(_HEAD_BYTES))
    except OSError:
        return  # reported by the reader
    if name is not None:
        raise DataError(f"{path}: not UTF-8: it is {name}. Save the file as UTF-8.")


def not_utf8(path: Path, error: UnicodeDecodeError, where: str = "") -> DataError:
    """What to raise where reading came upon bytes that are not UTF-8, and that begin at `where`, `byte 7 is `."""
    try:
        with path.open("rb") as file:
            name = name_encoding(file.read())
    except (OSError, MemoryError):
        name = None
    reason = f"it is {name}" if name else error.reason
    return DataError(f"{path}: {where}not UTF-8: {reason}. Save the file as UTF-8.")
