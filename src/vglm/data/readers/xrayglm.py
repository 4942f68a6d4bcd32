"""Read XrayGLM's format: `{"annotations": [{"image_id", "caption"}]}` and a folder with `<image_id>.png`.

    {"annotations": [{"image_id": "2882_1", "caption": "X光图像显示没有巩固的区域、可疑的骨质不透明或胸腔积液。"}]}

The pictures are those of OpenI, where `2882_1` is picture 1 of study 2882: what stands before the first `_` is the
group, so that no study is split between training and test. The question is XrayGLM's own, or an English one for English
captions.

Source: WangRongsheng/XrayGLM:data/openi-zh.json and data/build_ch_prompt.py.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from vglm.data.problems import BadRow
from vglm.data.readers.json_files import load_list, peek_json
from vglm.data.readers.prompts import FixedQuestion, QuestionOptions
from vglm.data.readers.rows import IMAGE_SUFFIXES, ImageFolders, RowCheck, not_an_object
from vglm.data.sample import Sample, Turn

NAME = "xrayglm"
WINDOW = "auto"
SCHEMA = '{"annotations": [{"image_id", "caption"}]} and <image_id>.png, XrayGLM\'s OpenI files'

QUESTION = "通过这张胸部X光影像可以诊断出什么？"
ENGLISH_QUESTION = "What can be diagnosed from this chest X-ray?"

_ROW = '{"image_id", "caption"}'


def recognises(path: Path) -> bool:
    """Whether the file is an object with `annotations` that have an image's id and a caption, but none of their own."""
    peek = peek_json(path)
    return (
        peek.kind == "object"
        and "annotations" in peek.keys
        and "images" not in peek.keys
        and any("image_id" in row and "caption" in row and "id" not in row for row in peek.objects)
    )


def read(
    path: Path, *, image_dir: Path | None = None, name: str, **options: Unpack[QuestionOptions]
) -> Iterator[Sample | BadRow]:
    """Read XrayGLM's format, see `vglm.data.readers.Reader`; options are those of `QuestionOptions`.

    `Sample.meta` holds the `image_id`.
    """
    questions = FixedQuestion({"zh": QUESTION, "en": ENGLISH_QUESTION}, **options)
    folders = ImageFolders(path.parent, image_dir)
    try:
        present = frozenset(os.listdir(folders.root))
    except OSError:  # a folder that may be entered but not listed
        present = frozenset()
    for number, row in enumerate(load_list(path, _ROW, "annotations"), start=1):
        if not isinstance(row, dict):
            yield not_an_object(number, row, _ROW)
            continue
        check = RowCheck(number)
        image_id, caption = _image_id(check, row), check.text(row, "caption")
        names = [image_id + suffix for ending in IMAGE_SUFFIXES for suffix in (ending, ending.upper())]
        there = names if "/" in image_id else [name for name in names if name in present]  # one look at the disk
        image = check.image(folders, *(there or names[:1])) if image_id else None
        meta = check.meta({key: value for key, value in row.items() if key != "caption"})
        language, question = questions.about(caption)
        yield check.outcome(
            Sample(
                id=f"{name}#{number}",
                group=image_id.partition("_")[0] or image_id,
                image=image,
                turns=(Turn(question, caption),),
                language=language,
                meta=meta,
            )
        )


def _image_id(check: RowCheck, row: dict[str, Any]) -> str:
    """The id as text; some tools write it as a number."""
    value = row.get("image_id")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else check.text(row, "image_id")
