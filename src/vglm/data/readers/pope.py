"""Read POPE: yes-or-no questions about objects in COCO's pictures, one JSON object a line.

    coco_pope_adversarial.json
        {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?",
         "label": "yes"}

    -> answer "yes", group "COCO_val2014_000000310196.jpg", meta {"question_id": 1, "sampling": "adversarial",
       "choices": ["yes", "no"]}

Pictures lie beside the file or in `image_dir`, directly or in a folder such as `val2014`. How the absent objects were
drawn (random, popular, adversarial) is inferred from the file's name.

Source: RUCAIBox/POPE, output/coco/coco_pope_random.json; the fields as in AoiDragon/POPE:README.md.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vglm.data.problems import BadRow
from vglm.data.readers.json_files import iterate_rows, peek_json
from vglm.data.readers.rows import ImageFolders, RowCheck, language_of, not_an_object, quote
from vglm.data.sample import Sample, Turn
from vglm.text.prompt import Language

NAME = "pope"
KEPT = ("choices",)
SCHEMA = '{"question_id", "image", "text", "label": "yes" or "no"}, JSON Lines, POPE'

_ROW = '{"question_id", "image", "text", "label"}'
_KEYS = {"question_id", "image", "text", "label"}
_LABELS = ("yes", "no")
_SAMPLING = re.compile("random|popular|adversarial")
_COCO = re.compile(r"COCO_((?:train|val|test)\d{4})_\d+\.\w+")


def recognises(path: Path) -> bool:
    """Whether the first rows have POPE's keys, and labels that are yes or no."""
    peek = peek_json(path)
    return any(set(row) >= _KEYS and row["label"] in _LABELS for row in peek.objects)


def read(
    path: Path, *, image_dir: Path | None = None, name: str, language: Language | None = None
) -> Iterator[Sample | BadRow]:
    """Read a file of POPE.

    Args:
        path: The JSON Lines file; a JSON list is read as well.
        image_dir: Where the pictures lie; the file's own folder if None.
        name: What sample ids begin with, `<name>#<line>`.
        language: Of the prompts; by each question if None.

    Yields:
        One sample a line. A line is bad if it is no such object, its label is neither yes nor no, or its picture is
        missing.

    Raises:
        DataError: The file cannot be read or is not UTF-8, or `image_dir` is not a folder.
    """
    folders = ImageFolders(path.parent, image_dir)
    sampling = _SAMPLING.search(path.stem)
    for number, row in iterate_rows(path, _ROW):
        if not isinstance(row, dict):
            yield not_an_object(number, row, _ROW)
            continue
        check = RowCheck(number)
        question, file, label = (check.text(row, key) for key in ("text", "image", "label"))
        answer = label.strip().lower()
        if label and answer not in _LABELS:
            check.fail("'label' to be yes or no", quote(label), "correct it")
        image = check.image(folders, *_image_names(file)) if file else None
        meta: dict[str, Any] = {key: value for key, value in row.items() if key not in ("text", "image", "label")}
        meta |= {"sampling": sampling[0]} if sampling else {}
        meta["choices"] = list(_LABELS)
        yield check.outcome(
            Sample(
                id=f"{name}#{number}",
                group=file,
                image=image,
                turns=(Turn(question, answer),),
                language=language or language_of(question),
                meta=check.meta(meta),
            )
        )


def _image_names(name: str) -> list[str]:
    """The name as given, and in the folder into which COCO's archives are unpacked."""
    coco = _COCO.fullmatch(name)
    return [name, f"{coco[1]}/{name}"] if coco else [name]
