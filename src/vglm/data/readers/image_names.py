r"""Picture file names in data files: resolve spellings of other systems, and explain values that are no file name.

explain("/9j/4AAQSkZJRg...")                             ("the picture itself in base64", "save the image ...")
find_alike(Path("pets"), "images\\Cat.png ", {})       Alike(pets/images/Cat.png, is_same=True)

Windows separates folders by backslashes, macOS may compose letters of two characters (NFD), spreadsheets leave blanks:
such a name still means one file. File names are case-sensitive here, so a name that differs in case is only suggested.
"""

import contextlib
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SAVE = "save the image as a file and name it"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_BYTES = re.compile(r"""\{?\s*(?:['"]bytes['"]\s*:\s*)?b['"]""")
_BASE64 = re.compile(r"(?=\S*[A-Z])(?=\S*[a-z])(?=\S*\d)[A-Za-z0-9+/_-]{40,}(?:\r?\n[A-Za-z0-9+/_-]+)*={0,2}\s*")
_BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk0", "SUkq", "TU0AK", "AAAA")
_LONGEST_NAME = 255

Listings = dict[str, Mapping[str, list[str]]]
"""The content of folders that were listed so far."""


@dataclass(frozen=True, slots=True)
class Alike:
    """A file whose name is nearly the one that was written.

    Attributes:
        path: The file.
        is_same: The names are the same but for separators, composed letters and blanks; else upper and lower case
            differ too.
    """

    path: Path
    is_same: bool


def explain(name: str) -> tuple[str, str] | None:
    """Explain a text that cannot be the name of a file in the data set's folders.

    Args:
        name: The text, for which no file was found.

    Returns:
        What it is, if that is not obvious, and what to do; None if it may be a file's name.
    """
    if name.lower().startswith("file:"):
        return "an address of a file", "write its name without file://"
    if name.lower().startswith("data:") or _BYTES.match(name):
        return "the picture itself as text", SAVE
    if _ADDRESS.match(name):
        return "", SAVE
    start = name[: 4 * _LONGEST_NAME]
    if "." not in start and _BASE64.match(start) and (name.startswith(_BASE64_STARTS) or len(name) > _LONGEST_NAME):
        return "the picture itself in base64", SAVE
    if name.lstrip().startswith(("[", "{")):
        return "a list or an object as text", "write one file name"
    if _DRIVE.match(name):
        return "a path of another machine", "write it from the data set's folder on"
    return None


def plain(name: str) -> str:
    """A name with slashes, composed letters and no blanks around its parts: equal for spellings of one file."""
    if "\\" in name:
        name = name.replace("\\", "/")
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    return "/".join(part.strip() for part in name.split("/")) if " " in name or not name.isprintable() else name


def find_alike(root: Path, name: str, listings: Listings) -> Alike | None:
    """Find the file that a name means although it is spelt differently.

    Args:
        root: The folder from which the name starts.
        name: As the row gives it.
        listings: What folders hold; filled as they are looked into.

    Returns:
        The file, if there is just one.
    """
    parts = [part for part in plain(name).split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        return None
    folder, is_same = str(root), True
    for part in parts:
        if os.path.exists(exact := os.path.join(folder, part)):
            folder = exact
            continue
        matches = _list(folder, listings).get(part.casefold(), [])
        same = [name for name in matches if plain(name) == part]
        is_same = is_same and bool(same)
        matches = same or matches
        if len(matches) != 1:
            return None
        folder = os.path.join(folder, matches[0])
    return Alike(Path(folder), is_same) if os.path.isfile(folder) else None


def _list(folder: str, listings: Listings) -> Mapping[str, list[str]]:
    """The names in a folder by their plain form in lower case."""
    if folder not in listings:
        names: dict[str, list[str]] = {}
        with contextlib.suppress(OSError, ValueError):  # no folder, or one that may be entered but not listed
            for name in os.listdir(folder):
                names.setdefault(plain(name).casefold(), []).append(name)
        listings[folder] = names
    return listings[folder]
