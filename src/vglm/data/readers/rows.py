"""Validation of one row, shared by all readers: typed fields, an existing picture, all faults in one message.

check = RowCheck(4)
caption = check.text(row, "caption")                        # "" if it cannot be used
image = check.image(folders, row.get("image"))              # None if there is none or it cannot be used
yield check.outcome(Sample(...))
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, get_args

from vglm.data.ids import id_columns, ids_in
from vglm.data.problems import BadRow
from vglm.data.readers.image_names import Alike, Listings, explain, find_alike, plain
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.errors import ConfigError, DataError
from vglm.text.prompt import Language

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

SeveralImages = Literal["refuse", "first", "each"]
"""What to make of a row with several pictures: a bad row, a sample with the first, or a sample with each."""

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# What pandas and spreadsheets write for a missing value.
NO_VALUES = frozenset(("nan", "NaN", "<NA>", "NaT", "#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#DIV/0!"))
LONGEST_NO_VALUE = 20  # with blanks
_MAX_NAMES = 1 << 14
_NO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff \t\r\n"
_PLAIN = re.compile(r"\w[\w./ -]*\Z")
# CJK ideographs with extension A and the compatibility block
_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class ImageFolders:
    """Where the pictures of a file may lie: beside it, or in the folder that is named; nowhere else.

    The check is on the path as written: a link inside a folder may point elsewhere.

    Attributes:
        beside: The file's own folder.
        image_dir: The folder in which names are looked up, if it is not that one.

    Raises:
        DataError: `image_dir` is not a folder.
    """

    beside: Path
    image_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.image_dir is not None and not self.image_dir.is_dir():
            raise DataError(
                f"{self.beside}: image_dir {self.image_dir} is not a folder. Pass the folder that holds the pictures."
            )
        roots = (self.beside,) if self.image_dir is None else (self.beside, self.image_dir)
        prefixes = tuple(os.path.abspath(root).rstrip(os.sep) + os.sep for root in roots)
        object.__setattr__(self, "_allowed", prefixes)
        object.__setattr__(self, "_root", str(self.root))
        object.__setattr__(self, "_listings", {})
        object.__setattr__(self, "_there", {})

    @property
    def root(self) -> Path:
        """The folder from which names start."""
        return self.image_dir or self.beside

    def inside(self, name: str) -> Path | None:
        """The path for a name; None if that leaves the folders."""
        path = os.path.join(self._root, name)  # type: ignore[attr-defined]
        if _PLAIN.match(name) and ".." not in name:  # nearly all: surely inside
            return Path(path)
        absolute = os.path.abspath(path) if "\0" not in name else ""
        allowed: tuple[str, ...] = self._allowed  # type: ignore[attr-defined]
        return Path(path) if absolute.startswith(allowed) else None

    def existing(self, name: str) -> Path | None:
        """The file of a name that stands inside the folders; of names that come again the file system is asked once."""
        there: dict[str, Path] = self._there  # type: ignore[attr-defined]
        if (remembered_path := there.get(name)) is not None:
            return remembered_path
        path = self.inside(name)
        if path is None or not os.path.isfile(path):  # unlike Path.is_file it answers for over-long names too
            return None
        if len(there) >= _MAX_NAMES:
            there.clear()
        return there.setdefault(name, path)

    def alike(self, name: str) -> Alike | None:
        """The file that a name means though it is not written so."""
        listings: Listings = self._listings  # type: ignore[attr-defined]
        return find_alike(self.root, name, listings)

    def __str__(self) -> str:
        return str(self.root)


class RowCheck:
    """One row under examination: reads its parts and collects what is wrong.

    Attributes:
        row: The row's number or name.
    """

    __slots__ = ("_absences", "_absent", "_faults", "row")

    def __init__(self, row: int | str) -> None:
        self.row = row
        self._faults: list[str] = []
        self._absences: list[str] = []
        self._absent: Path | None = None

    def fail(self, expected: str, actual: str, fix: str) -> None:
        """Note a fault."""
        self._faults.append(fault(expected, actual, fix))

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong so far but a picture that is not there."""
        return not self._faults

    def bad_row(self) -> BadRow | None:
        """The row's faults in one, or None if there are none."""
        if not self._faults and not self._absences:
            return None
        return BadRow(self.row, "; also ".join(self._faults + self._absences), is_missing_image=not self._faults)

    def outcome(self, sample: Sample) -> Sample | BadRow:
        """The sample, or what is wrong with it; where that is its picture alone, with the sample as it would be."""
        bad = self.bad_row()
        if bad is None:
            return sample
        return replace(bad, sample=replace(sample, image=self._absent)) if bad.is_missing_image else bad

    def text(self, row: Mapping[str, Any], key: str) -> str:
        """A text that must be there; empty if it cannot be used."""
        if key not in row:
            keys = ", ".join(quote(column) for column in row)
            self.fail(repr(key), f"only {keys}" if keys else "no keys at all", "add it")
            return ""
        return self.value(row[key], repr(key))

    def value(self, value: Any, label: str) -> str:
        """A value that must be a text with something in it; empty if it cannot be used."""
        if not isinstance(value, str):
            self.fail(f"{label} to be text", kind_of(value), "write a text in quotes")
        elif is_blank(value):
            self.fail(f"{label} to say something", "an empty text", "write it or take the row out")
        elif len(value) < LONGEST_NO_VALUE and value.strip() in NO_VALUES:
            self.fail(f"{label} to say something", f"{value.strip()}, no value", "write it or take the row out")
        elif half := half_character(value):
            self.fail(f"{label} to be whole characters", half, "write the text anew")
        else:
            return value
        return ""

    def image(self, folders: ImageFolders, *names: str) -> Path | None:
        """The first of a picture's possible places that exists; None, and a fault, if none does.

        Args:
            folders: Where to look.
            names: The name as the row gives it, then what else to try.

        Returns:
            The file; also one whose name is the same but for backslashes, letters composed otherwise, or blanks.
        """
        for name in names:
            if (path := folders.existing(name)) is not None:
                return path
        inside = [path for path in map(folders.inside, names) if path is not None]
        if (reason := explain(names[0])) is not None:
            self.fail("the name of an image file", ", ".join(filter(None, (quote(names[0]), reason[0]))), reason[1])
            return None
        alike = [alike_file for name in dict.fromkeys(names) if (alike_file := folders.alike(name)) is not None]
        if alike and alike[0].is_same:
            return alike[0].path
        if alike:
            there = f"{quote(os.path.relpath(alike[0].path, folders.root))}, in other upper and lower case"
            self.fail(f"image {quote(names[0])} in {folders}", there, "write it as the file has it, or rename the file")
            return None
        if inside and folders.inside(plain(names[0])) is not None:
            self._absent = inside[0]
            self._absences.append(fault(f"image {quote(names[0])} in {folders}", "no such file", "add the file"))
        else:
            allowed = " or ".join(dict.fromkeys(map(str, filter(None, (folders.beside, folders.image_dir)))))
            self.fail(f"an image in {allowed}", f"the path {quote(names[0])}, which leaves it", "name a file inside")
        return None

    def meta(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata of a row: values that JSON can hold, with `kind` a text and `split` one of our names."""
        if not values:
            return {}
        if "kind" in values and not isinstance(values["kind"], str):
            self.fail("'kind' to be text", kind_of(values["kind"]), "name the sort of question, or take the key out")
        try:
            values = {key: _as_json(value) for key, value in values.items()}
            if values.get("split") is not None:
                values["split"] = self.split(values["split"], "split")
            written = json.dumps(values, ensure_ascii=False)
        except (RecursionError, TypeError, ValueError) as error:
            self.fail("further keys that JSON can hold", str(error), "take them out")
            return {}
        if half := half_character(written):
            self.fail("whole characters", half, "write the text anew")
        return values

    def split(self, value: Any, key: str) -> str | None:
        """Our word for a split."""
        split = split_name(value)
        if split is None:
            actual = quote(value) if isinstance(value, str) else kind_of(value)
            self.fail(f"{key!r} to be train, validation or test", actual, "name one of these")
        return split


class Joined:
    """Entries that rows refer to by an id, as pictures and annotations do, checked for conflicting ids.

    Args:
        key: What holds the id in an entry.
        what: What an entry is called in messages.
    """

    def __init__(self, key: str, what: str) -> None:
        self.key = key
        self.what = what
        self._entries: dict[Any, tuple[Any, int]] = {}
        self._others: dict[Any, tuple[Any, int]] = {}

    @classmethod
    def of(cls, entries: Sequence[Any], key: str, what: str) -> "Joined":
        """All entries of a list that are objects with an id; the row that needs a missing one gets a fault."""
        joined = cls(key, what)
        for index, entry in enumerate(entries, start=1):
            if isinstance(entry, dict) and isinstance(entry.get(key), int | str):
                joined._put(entry[key], entry, index)
        return joined

    def _put(self, identity: Any, entry: Any, number: int) -> bool:
        first, _ = self._entries.setdefault(identity, (entry, number))
        if first != entry:
            self._others.setdefault(identity, (entry, number))
        return bool(first == entry)

    def add(self, check: "RowCheck", identity: Any, entry: Any, number: int) -> None:
        """Add a row under its own id; a fault if an earlier row has it with other content."""
        if isinstance(identity, int | str) and not self._put(identity, entry, number):
            self._fail(check, identity, entry, number)

    def __contains__(self, identity: object) -> bool:
        return identity in self._entries

    def find(self, check: "RowCheck", identity: Any) -> Any | None:
        """The one entry of an id that there is; None, and a fault, where there are several that differ."""
        if identity in self._others:
            self._fail(check, identity, *self._others[identity])
            return None
        return self._entries[identity][0]

    def _fail(self, check: "RowCheck", identity: Any, other: Any, number: int) -> None:
        first, earlier = self._entries[identity]
        check.fail(
            f"one {self.what} with {self.key!r} {identity!r}",
            f"{_difference(first, other)} (numbers {earlier} and {number})",
            "give the entries of files that were put together new numbers, or read each file by itself",
        )


def _difference(first: Any, other: Any) -> str:
    """How two entries of one id differ, by the first key in which they do."""
    if isinstance(first, dict) and isinstance(other, dict):
        key = next(key for key in (*first, *other) if first.get(key) != other.get(key))
        first, other = first.get(key), other.get(key)
    return f"{quote(str(first))} and {quote(str(other))}"


def _as_json(value: Any) -> Any:
    """What JSON can hold: further pictures of a row become their paths, not-a-number becomes null."""
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, ImageSlice | Path) else value


def not_an_object(number: int | str, row: Any, shape: str) -> BadRow:
    """The bad row for what should be a JSON object and is none; a line that could not be read is one already."""
    if isinstance(row, BadRow):
        return row
    return BadRow(number, fault(f"an object {shape}", kind_of(row), "write the row as an object"))


def fault(expected: str, actual: str, fix: str) -> str:
    """The message about a bad row, in the form that all readers use."""
    return f"expected {expected}, found {actual}; fix: {fix}"


def quote(text: str) -> str:
    """A text from a file, short and unambiguous enough for a message."""
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def kind_of(value: Any) -> str:
    """A JSON value's kind in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if value != value:
        return "NaN (no value)"
    return names.get(type(value), "a number")


def is_blank(text: str) -> bool:
    """Whether a text says nothing, nor would if its characters without width were left out."""
    return not text[:1].isalnum() and not text.strip().strip(_NO_WIDTH)


def half_character(text: str) -> str | None:
    r"""Name the first unpaired surrogate, which JSON can write (`\ud83d`) and no file can store."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"half a character (an unpaired \\u{ord(text[error.start]):x})"
    return None


def refuse_half_characters(row: Sample | BadRow) -> Sample | BadRow:
    """A sample whose id and group can be stored, or what is wrong with them; names in archives need be no text."""
    if isinstance(row, BadRow) or (row.id.isascii() and row.group.isascii()):
        return row
    if half := half_character(row.id + row.group):
        number = row.id.rpartition("#")[2].encode(errors="replace").decode()
        return BadRow(number, fault("a name of whole characters", half, "rename it"))
    return row


def language_of(*texts: str) -> Language:
    """English where there is no Chinese character in any of the texts."""
    for text in texts:
        if not text.isascii() and _CHINESE.search(text):
            return "zh"
    return "en"


def split_name(value: Any) -> str | None:
    """Our name of a split: train, validation or test; None if the value is not one of their usual names."""
    return _SPLITS.get(value.strip().lower()) if isinstance(value, str) else None


def group_in(row: Mapping[str, Any]) -> str | None:
    """What a row itself says about belonging together, under one of the usual names."""
    return next((id_.name for id_ in ids_in(row)), None)


def read_answers(check: RowCheck, votes: Any, label: str) -> list[str]:
    """The answers of several people to one question: a list of texts, or of objects with `answer`, as in VQA.

    Args:
        check: Takes up what is wrong.
        votes: The list.
        label: Its name in messages.

    Returns:
        The answers, each as often as it was given; empty if they cannot be used.
    """
    if not isinstance(votes, list) or not votes:
        actual = "an empty list" if votes == [] else kind_of(votes)
        check.fail(f"{label} to be a list of answers", actual, "list what people answered")
        return []
    answers = [answer.get("answer") if isinstance(answer, Mapping) else answer for answer in votes]
    return [
        str(answer)
        if isinstance(answer, int | float) and not isinstance(answer, bool)
        else check.value(answer, f"{label}, {n}")
        for n, answer in enumerate(answers, start=1)
    ]


def read_group(check: RowCheck, row: Mapping[str, Any]) -> str | None:
    """As `group_in`; an id that is a list or an object is a fault."""
    for key in id_columns(tuple(row)):
        if isinstance(row[key], list | dict):
            check.fail(f"{key!r} to be text or a number", kind_of(row[key]), "write one value")
    return group_in(row)


def list_options(options: Sequence[str]) -> str:
    """Options as a question shows them, one a line: `A. a cat`, `B. a dog`.

    Args:
        options: At most 26 texts without line breaks.
    """
    return "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False))


def check_choice(option: str, value: str, choices: Any) -> None:
    """Refuse a value that is not in an option's Literal.

    Args:
        option: The option's name.
        value: What was given.
        choices: The Literal type.

    Raises:
        ConfigError: The value is not one of the choices.
    """
    if value not in get_args(choices):
        raise ConfigError(f"dataset.options.{option} must be one of {', '.join(get_args(choices))}, got {value!r}.")


def spread_images(
    sample: Sample, images: Sequence[Path | ImageSlice], several_images: SeveralImages
) -> Iterator[Sample]:
    """Give a row's sample its picture or pictures; a row with several was let through by `refuse_several`.

    Args:
        sample: The row without its picture.
        images: The row's pictures.
        several_images: `each` makes one sample of every picture, with ids `<id>.1`, `<id>.2` and one group.

    Yields:
        One sample; under `each` as many as there are pictures.
    """
    if several_images == "each" and len(images) > 1:
        for number, image in enumerate(images, start=1):
            yield replace(sample, id=f"{sample.id}.{number}", image=image)
    elif sample.image is (first := images[0] if images else None):
        yield sample
    else:
        yield replace(sample, image=first)


def refuse_several(check: RowCheck, count: int, several_images: SeveralImages) -> None:
    """Note a fault if a row has more pictures than the model can take, and no option says what to do."""
    if count > 1 and several_images == "refuse":
        check.fail(
            "one image, as the model takes no more",
            f"{count}",
            "keep one, or set dataset.options.several_images=first (or each, for a sample with each)",
        )
