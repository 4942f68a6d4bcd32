"""Read a file or folder in any known format, detected by its content, into samples and bad rows.

    read("data/openi/openi-zh.json")            yields a Sample for a good row and a BadRow for another
    read_samples("data/openi/openi-zh.json")    yields samples, and reports all bad rows in one DataError at the end

A format is one module of this package with the four names of `Reader`; a new module is found without being registered.
"""

import difflib
import importlib
import inspect
import os
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast, get_args, get_type_hints

from vglm.data.images import choose_window
from vglm.data.problems import BadRow, only_samples
from vglm.data.readers import csv_table, llama_factory
from vglm.data.readers.encodings import refuse_other_encodings
from vglm.data.readers.json_files import load_json, peek_json
from vglm.data.readers.rows import check_choice, quote, refuse_half_characters
from vglm.data.readers.unread import refuse_unread
from vglm.data.sample import Sample
from vglm.data.slices import ImageSlice
from vglm.data.windowing import WINDOW_KEY, Window, WindowRule, check_rule
from vglm.errors import ConfigError, DataError
from vglm.files import check_regular
from vglm.text.prompt import Language

HUB_PREFIX = "hf://"
_OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WINDOW, _KEEP, _COLUMNS = "window", "keep", "columns"


class Reader(Protocol):
    """What a format's module offers.

    Attributes:
        NAME: What `dataset.format` says.
        SCHEMA: The format's rows in one line, for messages that list the formats.

    A module of X-ray formats also has `WINDOW = "auto"`: how pictures of more than 8 bits are shown if no option says.
    A module that writes keys such as `options` into `Sample.meta` for a task's prompt names them in `KEPT`.
    """

    NAME: str
    SCHEMA: str

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder is surely of this format: a cheap look at its first bytes; never an exception."""

    def read(self, path: Path, *, image_dir: Path | None = None, name: str) -> Iterator[Sample | BadRow]:
        """Read it row by row; the module may have further keyword arguments, its options.

        Args:
            path: The file or folder.
            image_dir: Where pictures lie that rows only name; the file's own folder if None.
            name: What sample ids begin with, `<name>#<row>`; rows are elements of a list, lines or rows of a table,
                counting from 1.

        Yields:
            One sample a row (or one for each picture, on request), or a `BadRow`.

        Raises:
            ConfigError: An option has a value that it cannot have.
            DataError: The file as a whole cannot be read, or `image_dir` is not a folder.
        """


@cache
def formats() -> dict[str, Reader]:
    """All known formats.

    Returns:
        The modules of this package that are readers, by name, sorted.
    """
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    readers = {module.NAME: cast(Reader, module) for module in modules if hasattr(module, "NAME")}
    return dict(sorted(readers.items()))


def recognise(path: str | Path, columns: Mapping[str, Any] | None = None) -> Reader:
    """Recognise the format of a file or folder by its content.

    Args:
        path: A file, a folder, or `hf://owner/name` for a data set of the Hugging Face hub.
        columns: What the columns of a table are called, where the user says it: then a file is a table.

    Returns:
        The one reader that recognises it.

    Raises:
        DataError: Nothing is there, or no format or several recognise it; the message lists the formats.
    """
    if is_hub_name(path):
        return formats()["hub"]
    path = Path(path)
    if not os.path.exists(path):
        raise DataError(
            f"{path} does not exist. Pass a file or a folder, or {HUB_PREFIX}owner/name for a data set of the hub."
        )
    _check_kind(path)
    readers = dict(formats())
    described = readers.pop(llama_factory.NAME)
    if described.recognises(path) and not columns:
        return described
    matches = [reader for reader in readers.values() if reader.recognises(path)]
    if columns and path.is_file() and not any(_COLUMNS in _options_of(reader) for reader in matches):
        matches = [formats()["jsonl" if peek_json(path).kind != "other" else "csv"]]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = " and ".join(reader.NAME for reader in matches)
        raise DataError(f"{path}: could be {names}. Choose with dataset.format=<name>.")
    if peek_json(path).kind in ("list", "object"):
        load_json(path)  # a file that is not even JSON should hear that
    if path.is_file():
        refuse_other_encodings(path)
    raise DataError(
        f"{path}: expected one of the known formats, found {_describe(path)}. Correct it, name a table's columns with "
        "dataset.columns={image: <name>, question: <name>, answer: <name>}, or name its format with "
        f"dataset.format=<name>:\n{_list_formats()}"
    )


def read(
    path: str | Path,
    *,
    format: str | None = None,
    image_dir: str | Path | None = None,
    name: str | None = None,
    **options: Any,
) -> Iterator[Sample | BadRow]:
    """Read a file or folder row by row.

    Args:
        path: As for `recognise`.
        format: The format's name; recognised by the content if None.
        image_dir: Where pictures lie, for formats that name files; beside the file if None.
        name: What sample ids begin with, `<name>#<row>`; the name of the file if None.
        **options: The format's own options, as its module describes them; and two that every format has: `window`, how
            pictures of more than 8 bits are shown, see `vglm.data.windowing`; and `keep`, keys of rows that are no part
            of the question though their names sound so (`context`, `options`, ...).

    Returns:
        What the format's reader yields: a sample for a good row and a `BadRow` for another, in order.

    Raises:
        ConfigError: There is no such format, or it has no such option.
        DataError: As `recognise`; while reading: the file as a whole cannot be used.
    """
    reader = recognise(path, options.get(_COLUMNS)) if format is None else _named(format)
    if format is not None and not is_hub_name(path) and not os.path.exists(path):
        raise DataError(f"{path} does not exist. Expected data in the format {format}: {reader.SCHEMA}.")
    _rename_english(options)
    _check_options(reader, options)
    source = Path(path)
    if not is_hub_name(path):
        _check_kind(source)
    rule = options.pop(_WINDOW, getattr(reader, "WINDOW", None))
    keep = {*_names(options.pop(_KEEP, None)), *getattr(reader, "KEPT", ()), *_own_keys(options)}
    rows = reader.read(
        source, image_dir=None if image_dir is None else Path(image_dir), name=name or source.name, **options
    )
    if rule is not None:
        check_rule(rule)

    def looked_over(row: Sample | BadRow) -> Sample | BadRow:
        row = refuse_half_characters(refuse_unread(row, keep))
        return row if isinstance(row, BadRow) else add_window(row, rule)

    return map(looked_over, rows)


def add_window(sample: Sample, rule: WindowRule | None = "auto") -> Sample | BadRow:
    """Set the window through which a sample's picture is shown.

    Args:
        sample: As a reader made it. A picture of 8 bits, and a sample without picture, are left as they are.
        rule: See `vglm.data.windowing`; None takes the window that the row itself brings, if any.

    Returns:
        The sample, or a bad row if the picture cannot be opened, or the row's window is none.

    Raises:
        ConfigError: `rule` is none.
    """
    if (rule is None and WINDOW_KEY not in sample.meta) or not isinstance(sample.image, Path | ImageSlice):
        return sample
    meta = {key: value for key, value in sample.meta.items() if key != WINDOW_KEY}
    try:
        if rule is None:
            window: Window | None = Window.recorded(sample.meta[WINDOW_KEY], f"image {sample.image}")
        else:
            window = choose_window(sample.image, rule)
    except DataError as error:
        return BadRow(sample.id.rpartition("#")[2], f"expected a picture that can be shown, found: {error}")
    return replace(sample, meta=meta, window=window)


def read_samples(
    path: str | Path,
    *,
    format: str | None = None,
    image_dir: str | Path | None = None,
    name: str | None = None,
    skip_missing: bool = False,
    **options: Any,
) -> Iterator[Sample]:
    """Read a file or folder of which every row must be good.

    Args:
        path: As for `read`, and so are `format`, `image_dir`, `name` and `options`.
        format: See there.
        image_dir: See there.
        name: See there.
        skip_missing: Leave out rows whose picture is missing, with one warning that counts them.
        **options: See there.

    Returns:
        An iterator over the samples, which raises at its end if there were bad rows.

    Raises:
        ConfigError: As `read`.
        DataError: As `read`; after the last row: there were bad rows, all in one message, or no sample is left.
    """
    rows = read(path, format=format, image_dir=image_dir, name=name, **options)
    return only_samples(path, rows, skip_missing=skip_missing)


def is_hub_name(path: str | Path) -> bool:
    """Whether it is `hf://owner/name`, also after `pathlib` has taken a slash out."""
    return str(path).startswith((HUB_PREFIX, HUB_PREFIX[:-1]))


def _check_kind(path: Path) -> None:
    if not path.is_dir():
        check_regular(path, advice="Pass a file or a folder.")


def _named(name: str) -> Reader:
    if name not in formats():
        close = difflib.get_close_matches(name, formats(), n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"dataset.format: there is no format {quote(name)}.{hint} Choose from:\n{_list_formats()}")
    return formats()[name]


def _rename_english(options: dict[str, Any]) -> None:
    """Take the option `english: true` of earlier versions for `language: en`; refuse other languages."""
    if (english := options.pop("english", None)) is not None:
        if not isinstance(english, bool):
            raise ConfigError(f"dataset.options.english must be true or false, got {english!r}.")
        options.setdefault("language", "en" if english else "zh")
    if options.get("language") is not None:
        check_choice("language", options["language"], Language)


def _check_options(reader: Reader, options: dict[str, Any]) -> None:
    allowed = [*_options_of(reader), _WINDOW, _KEEP]
    for option in options:
        if option not in allowed:
            close = difflib.get_close_matches(option, allowed, n=1)
            hint = f"did you mean {close[0]}?" if close else f"its options: {', '.join(allowed) or 'none'}."
            raise ConfigError(f"dataset.options.{option}: the format {reader.NAME} has no such option; {hint}")


def _names(keep: Any) -> list[str]:
    """The keys that the option `keep` lists."""
    keys = [] if keep is None else [keep] if isinstance(keep, str) else keep
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise ConfigError(f"dataset.options.keep must be a list of keys, got {keep!r}.")
    return list(keys)


def _own_keys(options: dict[str, Any]) -> list[str]:
    """Keys that the format's options declare as no part of the question."""
    return ["system"] if options.get("system") == "meta" else []


def _options_of(reader: Reader) -> list[str]:
    """The keyword arguments of a format's `read`, also those it takes as a typed dictionary."""
    names: list[str] = []
    for name, parameter in inspect.signature(reader.read).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names += (hint for typed in get_args(parameter.annotation) for hint in get_type_hints(typed))
        elif name not in ("path", "image_dir", "name"):
            names.append(name)
    return names


def _list_formats() -> str:
    width = max(map(len, formats()))
    return "\n".join(f"  {name:<{width}}  {reader.SCHEMA}" for name, reader in formats().items())


def _describe(path: Path) -> str:
    """What there is instead of a known format."""
    if path.is_dir():
        names = sorted(os.listdir(path))
        return (
            f"a folder with {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "an empty folder"
        )
    peek = peek_json(path)
    if peek.kind != "other":
        what = {"list": "a JSON list", "object": "a JSON object", "lines": "JSON Lines"}[peek.kind]
        keys = peek.keys if peek.kind == "object" else tuple(peek.objects[0]) if peek.objects else ()
        of = "with" if peek.kind == "object" else "whose first row has"
        return f"{what} {of} the keys {', '.join(map(quote, keys[:12]))}" if keys else f"{what} without objects"
    if len(names := csv_table.read_names(path)) > 1:
        return f"a table with the columns {', '.join(map(quote, names[:12]))}"
    with path.open("rb") as file:
        head = file.read(60)
    if head.startswith(_OLD_EXCEL):
        return "a spreadsheet of Excel's old kind (.xls; save it as .xlsx or as CSV UTF-8)"
    return f"a file that begins with {head!r}" if head else "an empty file"
