r"""Read a file as LLaMA-Factory's `dataset_info.json` beside it says.

    dataset_info.json   {"pets": {"file_name": "pets.json", "formatting": "sharegpt",
                                  "columns": {"messages": "dialogue", "images": "photos"},
                                  "tags": {"role_tag": "who", "content_tag": "text", "user_tag": "me", ...}}}
    pets.json           [{"dialogue": [{"who": "me", "text": "<image>Who?"}, {"who": "it", "text": "A cat."}],
                          "photos": ["cat.jpg"]}]

`alpaca` names a table's columns (`prompt`, `query`, `response`, `system`, `history`, `images`), `sharegpt` those of
dialogues and the words in them; what is left out has LLaMA-Factory's own defaults. `query` goes on with the prompt, and
`system` comes before the first question. Pictures lie beside the file. Tools, preferences, video and sound are refused.

Source: hiyouga/LLaMA-Factory:data/README.md and src/llamafactory/data/parser.py, converter.py.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.columns import ColumnOptions, TableReader
from vglm.data.readers.csv_table import iterate_csv
from vglm.data.readers.json_files import iterate_rows, load_json, peek_json
from vglm.data.readers.rows import ImageFolders, fault, not_an_object, quote
from vglm.data.sample import Sample
from vglm.errors import DataError

NAME = "llama_factory"
SCHEMA = "a JSON file that dataset_info.json beside it describes, LLaMA-Factory"

INFO = "dataset_info.json"

_PARTS = {"prompt": "question", "query": "input", "response": "answer", "system": "system", "images": "image"}
_DEFAULTS = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
}
_ROLES = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
_UNREAD = ("tools", "videos", "audios", "chosen", "rejected", "kto_tag")
_ROW = "with the columns that dataset_info.json names"


def recognises(path: Path) -> bool:
    """Whether `dataset_info.json` has entries for the file, or for files of the folder."""
    try:
        return path.name != INFO and bool(_entries(path))
    except DataError:
        return False


def read(
    path: Path, *, image_dir: Path | None = None, name: str, entry: str | None = None, **options: Unpack[ColumnOptions]
) -> Iterator[Sample | BadRow]:
    """Read the file row by row.

    Args:
        path: The file, JSON, JSON Lines or CSV; or the folder with `dataset_info.json`.
        image_dir: Where the pictures lie; the file's own folder if None.
        name: What sample ids begin with, `<name>#<row>`.
        entry: Which entry of `dataset_info.json` to take, where there are several.
        **options: See `ColumnOptions`.

    Yields:
        One sample a row (or one for each picture, on request).

    Raises:
        ConfigError: An option has a value that it cannot have.
        DataError: There is no such entry or there are several, or the file cannot be read or has other columns.
    """
    label, info = _choose(path, entry)
    file = path / info["file_name"] if path.is_dir() else path
    kind = info.get("formatting", "alpaca")
    if kind not in _DEFAULTS or info.get("ranking"):
        actual = "preferences (ranking)" if kind in _DEFAULTS else f"formatting {kind!r}"
        raise DataError(f"{file.parent / INFO}: {label}: expected formatting alpaca or sharegpt, found {actual}.")
    named = _texts(file, label, info, "columns")
    columns = _DEFAULTS[kind] | named
    tags = _TAGS | _texts(file, label, info, "tags")
    unread = [columns[part] for part in _UNREAD if part in columns]
    names, rows = _rows(file)
    absent = [column for part, column in columns.items() if column not in names and part in ("messages", *named)]
    if absent and names:
        actual = ", ".join(map(quote, names))
        raise DataError(
            f"{file}: {INFO} names the columns {', '.join(map(quote, absent))} ({label}), found {actual}. Correct it."
        )
    parts = {ours: columns[part] for part, ours in _PARTS.items() if columns.get(part) in names}
    if kind == "sharegpt":
        names, parts = ["messages"], {}
    chosen: Any = {"columns": parts, **options}
    table = TableReader.start(file, ImageFolders(file.parent, image_dir), name, names, **chosen)
    for number, row in rows:
        if not isinstance(row, dict):
            yield not_an_object(number, row, _ROW)
        elif lost := [key for key in unread if row.get(key)]:
            yield BadRow(number, fault("texts and images", quote(lost[0]), "take the row out"))
        else:
            yield from table.read(number, _renamed(row, columns, tags, kind))


def _renamed(row: dict[str, Any], columns: Mapping[str, str], tags: Mapping[str, str], kind: str) -> dict[str, Any]:
    """A row with the keys and roles by which other readers know them."""
    ours = {"history": "history", "system": "system"}
    if kind == "sharegpt":
        ours |= {"messages": "messages", "images": "images"}
    names = {columns[part]: name for part, name in ours.items() if part in columns}
    renamed = {names.get(key, key): value for key, value in row.items()}
    if isinstance(messages := renamed.get("messages"), list) and kind == "sharegpt":
        renamed["messages"] = [
            _message(message, tags) if isinstance(message, dict) else message for message in messages
        ]
    return renamed


def _message(message: dict[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    roles = {tags[tag]: role for tag, role in _ROLES.items()}
    role, content = message.get(tags["role_tag"]), message.get(tags["content_tag"])
    rest = {key: value for key, value in message.items() if key not in (tags["role_tag"], tags["content_tag"])}
    return {**rest, "role": roles.get(role, role) if isinstance(role, str) else role, "content": content}


def _rows(file: Path) -> tuple[list[str], Iterator[tuple[int, Any]]]:
    """The columns that the first rows have, and the rows."""
    peek = peek_json(file)
    if peek.kind == "other":
        rows = iterate_csv(file)
        return next(rows)[1], rows
    return list(dict.fromkeys(key for row in peek.objects for key in row)), iterate_rows(file, _ROW)


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """The entries for a file, or for the files that a folder holds."""
    folder = path if path.is_dir() else path.parent
    content = load_json(folder / INFO) if (folder / INFO).is_file() else {}
    entries = content.items() if isinstance(content, dict) else ()
    return {
        label: info
        for label, info in entries
        if isinstance(info, dict)
        and isinstance(name := info.get("file_name"), str)
        and (name == path.name if path != folder else (folder / name).is_file())
    }


def _choose(path: Path, entry: str | None) -> tuple[str, dict[str, Any]]:
    entries = _entries(path)
    names = ", ".join(entries) or "none"
    if entry is not None and entry not in entries:
        raise DataError(f"{path}: {INFO} has no entry {quote(entry)} for it. Its entries are {names}.")
    matches = {entry: entries[entry]} if entry is not None else entries
    distinct = {repr(sorted(info.items(), key=str)) for info in matches.values()}
    if len(distinct) != 1:
        raise DataError(
            f"{path}: expected one entry in {INFO}, found {names}. Choose with dataset.options.entry=<name>, or pass"
            " dataset.format=<name> to go without."
        )
    return next(iter(matches.items()))


def _texts(file: Path, label: str, info: dict[str, Any], key: str) -> dict[str, str]:
    """The columns or tags of an entry."""
    texts = info.get(key) or {}
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise DataError(f"{file.parent / INFO}: {label}: expected {key!r} to be an object of names. Correct it.")
    return texts
