"""Read COCO captions: one file with `images` and `annotations`, and a folder of pictures.

    {
        "info": {...}, "licenses": [...],
        "images": [{"license": 5, "file_name": "000000057870.jpg", "height": 480, "width": 640, "id": 57870}, ...],
        "annotations": [{"image_id": 57870, "id": 787980, "caption": "A restaurant has modern wooden tables."}, ...]
    }

Every caption (five a picture, usually) makes a sample; captions of one picture share its group. White space around
captions, of which the published files have some, is taken off.

Source: https://cocodataset.org/#format-data, "Image Captioning".
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vglm.data.ids import ids_in
from vglm.data.problems import BadRow
from vglm.data.readers.columns import caption_question
from vglm.data.readers.json_files import load_json, peek_json
from vglm.data.readers.rows import ImageFolders, Joined, RowCheck, group_in, kind_of, language_of, not_an_object
from vglm.data.sample import Language, Sample, Turn
from vglm.errors import DataError

NAME = "coco_captions"
SHAPE = '{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, COCO captions'

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
    path: Path,
    *,
    image_dir: Path | None = None,
    name: str,
    question: str | None = None,
    language: Language | None = None,
) -> Iterator[Sample | BadRow]:
    """Read COCO captions.

    Args:
        path: The JSON file, such as `captions_train2017.json`.
        image_dir: Where the pictures lie, such as `train2017`; the file's own folder if None.
        name: What sample ids begin with, `<name>#<row>` with annotations counting from 1.
        question: What is asked about every picture; a plain request to describe it if None.
        language: Of the prompts; by each caption if None.

    Yields:
        One sample an annotation; `Sample.meta` holds its `id` and `image_id`.

    Raises:
        DataError: The file is not such an object, or `image_dir` is not a folder.
    """
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
        told = {} if entry is None else {each.source: entry[each.source] for each in ids_in(entry)}
        meta = check.meta(told | {key: value for key, value in row.items() if key != "caption"})
        prompt_language = language or language_of(caption)
        yield check.outcome(
            Sample(
                id=f"{name}#{number}",
                group=group_in(meta) or str(row.get("image_id")),
                image=image,
                turns=(Turn(question or caption_question(prompt_language), caption),),
                language=prompt_language,
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
            found = "an empty list" if rows == [] else kind_of(rows) if key in content else "no such key"
            raise DataError(f"{path}: expected {key!r} to be a list, found {found}. Pass COCO's caption file.")
        lists.append(rows)
    images, annotations = lists
    return annotations, Joined.of(images, "id", "entry of 'images'")


def _find_image(check: RowCheck, image_id: Any, images: Joined) -> dict[str, Any] | None:
    if isinstance(image_id, int | str) and image_id in images:
        return images.find(check, image_id)
    found = repr(image_id) if isinstance(image_id, int | str) else kind_of(image_id)
    check.fail("'image_id' to be the 'id' of an entry of 'images'", found, "add the entry, or take the row out")
    return None
