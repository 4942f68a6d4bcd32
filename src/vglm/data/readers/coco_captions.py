"""Read COCO captions: one file with `images` and `annotations`, and a folder of pictures.

    {
        "info": {...}, "licenses": [...],
        "images": [{"license": 5, "file_name": "000000057870.jpg", "height": 480, "width": 640, "id": 57870}, ...],
        "annotations": [{"image_id": 57870, "id": 787980, "caption": "A restaurant has modern wooden tables."}, ...]
    }

Every caption (five a picture, usually) makes a sample; captions of one picture share its group. White space around
captions, which the published files have in places, is removed.

Source: https://cocodataset.org/#format-data, "Image Captioning".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from vglm.data.ids import ids_in
from vglm.data.problems import BadRow
from vglm.data.readers.columns import CAPTION_QUESTIONS
from vglm.data.readers.json_files import load_json, peek_json
from vglm.data.readers.prompts import FixedQuestion, QuestionOptions
from vglm.data.readers.rows import ImageFolders, Joined, RowCheck, group_in, kind_of, not_an_object
from vglm.data.sample import Sample, Turn
from vglm.errors import DataError

NAME = "coco_captions"
SCHEMA = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, COCO captions'

_ROW = '{"image_id", "id", "caption"}'


def recognises(path: Path) -> bool:
    """Whether the file is an object with `images` that have a file name, or `annotations` with COCO's three keys."""
    peek = peek_json(path)
    if peek.kind != "object":
        return False
    return ("images" in peek.keys and any("file_name" in row and "id" in row for row in peek.objects)) or (
        "annotations" in peek.keys and any({"id", "image_id", "caption"} <= row.keys() for row in peek.objects)
    )


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[QuestionOptions]
) -> Iterator[Sample | BadRow]:
    """Read COCO captions, see `vglm.data.readers.Reader`; options are those of `QuestionOptions`.

    `Sample.meta` holds an annotation's `id` and `image_id`.
    """
    questions = FixedQuestion(CAPTION_QUESTIONS, **options)
    folders = ImageFolders(path.parent, image_dir)
    annotations, images = _load(path)
    joined = Joined("id", "annotation")
    for number, row in enumerate(annotations, start=1):
        if not isinstance(row, dict):
            yield not_an_object(number, row, _ROW)
            continue
        check = RowCheck(number)
        caption = check.text(row, "caption").strip()
        entry = _find_image(check, row.get("image_id"), images)
        name = "" if entry is None else check.value(entry.get("file_name"), f"'file_name' of image {row['image_id']}")
        image = check.image(folders, name) if name else None
        joined.add(check, row.get("id"), row, number)
        ids = {} if entry is None else {id_.source: entry[id_.source] for id_ in ids_in(entry)}
        meta = check.meta(ids | {key: value for key, value in row.items() if key != "caption"})
        language, question = questions.about(caption)
        yield check.outcome(
            Sample(
                id=f"{name}#{number}",
                group=group_in(meta) or str(row.get("image_id")),
                image=image,
                turns=(Turn(question, caption),),
                language=language,
                meta=meta,
            )
        )


def _load(path: Path) -> tuple[list[Any], Joined]:
    """The annotations, and the pictures' entries by id."""
    content = load_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object, found {kind_of(content)}. Pass COCO's caption file.")
    lists: list[list[Any]] = []
    for key in ("images", "annotations"):
        rows = content.get(key)
        if not isinstance(rows, list) or not rows:
            actual = "an empty list" if rows == [] else kind_of(rows) if key in content else "no such key"
            raise DataError(f"{path}: expected {key!r} to be a list, found {actual}. Pass COCO's caption file.")
        lists.append(rows)
    images, annotations = lists
    return annotations, Joined.of(images, "id", "entry of 'images'")


def _find_image(check: RowCheck, image_id: Any, images: Joined) -> dict[str, Any] | None:
    if isinstance(image_id, int | str) and image_id in images:
        return images.find(check, image_id)
    actual = repr(image_id) if isinstance(image_id, int | str) else kind_of(image_id)
    check.fail("'image_id' to be the 'id' of an entry of 'images'", actual, "add the entry, or take the row out")
    return None
