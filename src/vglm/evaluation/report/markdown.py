"""Any text as harmless Markdown."""

import re

_INSIDE = r"[^\W_]"
"""What an underscore stands between in a name, where it marks nothing."""


def as_words(text: str) -> str:
    """Any text as words of a paragraph, a list or a table, never as marks."""
    text = " ".join(re.sub(rf"[\\`*\[\]|~]|(?<!{_INSIDE})_|_(?!{_INSIDE})", r"\\\g<0>", text).split())
    text = re.sub(r"^(\d*)([#+-]+|[.)])(?=\s|$)", r"\1\\\2", text)  # what would begin a heading or a list
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_cell(text: str, *, empty: str = "(empty)") -> str:
    """Make any text one harmless table cell."""
    escaped = "".join(f"\\{character}" if character in r"\`*_{}[]()#!|~" else character for character in text)
    return " ".join(escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split()) or empty
