r"""Read LLaVA's instruction format: `{"image", "conversations": [{"from", "value"}]}`, a JSON list or JSON Lines.

    {
        "id": "000000033471",
        "image": "coco/train2017/000000033471.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat are the colors of the bus in the image?"},
            {"from": "gpt", "value": "The bus in the image is white and red."},
            {"from": "human", "value": "What feature can be seen on the back of the bus?"},
            {"from": "gpt", "value": "The back of the bus features an advertisement."}
        ]
    }

A row without `image` is text only. `from` may also say `user`, `assistant` and `system`. The mark `<image>` is taken
out of the questions, as the picture always comes first. All turns are kept; every other key goes into `Sample.meta`.

Source: haotian-liu/LLaVA:docs/Finetune_Custom_Data.md and llava/train/train.py (preprocess_multimodal).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.dialogue import DialogueOptions, DialogueReader
from vglm.data.readers.json_files import iterate_rows, peek_json
from vglm.data.readers.rows import ImageFolders
from vglm.data.sample import Sample

NAME = "llava"
SCHEMA = '[{"image", "conversations": [{"from", "value"}]}], LLaVA\'s instruction data, list or lines'


def recognises(path: Path) -> bool:
    """Whether a first row has `conversations`."""
    peek = peek_json(path)
    return (peek.kind in ("list", "lines") and any("conversations" in row for row in peek.objects)) or (
        peek.kind == "object" and "conversations" in peek.keys
    )


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[DialogueOptions]
) -> Iterator[Sample | BadRow]:
    """Read LLaVA's format, see `vglm.data.readers.Reader`; options are those of `DialogueOptions`.

    Rows about the same first picture share a group.
    """
    reader = DialogueReader(ImageFolders(path.parent, image_dir), name, **options)
    for number, row in iterate_rows(path, '{"image", "conversations"}'):
        yield from reader.read_llava(number, row)
