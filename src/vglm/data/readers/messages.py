"""Read the chat format of TRL and the hub: `{"messages": [{"role", "content"}], "images": [...]}`, lines or a list.

    {
        "images": ["sky.jpg"],
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Answer in one sentence."}]},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What color is the sky?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "It is blue."}]}
        ]
    }

`content` may be plain text, in which `<image>` may mark the picture; a picture may also be named in its own part,
`{"type": "image", "path": "sky.jpg"}`; `prompt` and `completion` (two lists of messages) may stand for `messages`. A
row without pictures is text only. All turns are kept; every other key goes into `Sample.meta`.

Source: huggingface/trl:docs/source/dataset_formats.md (conversational and vision data sets).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.dialogue import DialogueOptions, DialogueReader
from vglm.data.readers.json_files import iterate_rows, peek_json
from vglm.data.readers.rows import ImageFolders
from vglm.data.sample import Sample

NAME = "messages"
SCHEMA = '{"messages": [{"role", "content"}], "images": [...]}, the chat format of TRL and the hub, lines or list'


def recognises(path: Path) -> bool:
    """Whether a first row has `messages`, or a `prompt` and a `completion` made of messages."""
    peek = peek_json(path)
    if peek.kind == "object":
        return "messages" in peek.keys
    return peek.kind in ("list", "lines") and any(
        isinstance(row.get("messages"), list)
        or (isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list))
        for row in peek.objects
    )


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[DialogueOptions]
) -> Iterator[Sample | BadRow]:
    """Read the chat format, see `vglm.data.readers.Reader`; options are those of `DialogueOptions`.

    Rows about the same first picture share a group.
    """
    reader = DialogueReader(ImageFolders(path.parent, image_dir), name, **options)
    for number, row in iterate_rows(path, '{"messages", "images"}'):
        yield from reader.read_messages(number, row)
