r"""Image placeholders in a row's texts, read in the same way for all formats.

settle_marks(check, ["<image>\nWho?"], ["Ann."], ["a.png"])              ["Who?"], ["a.png"]
settle_marks(check, ["Picture 1: <img>a.png</img>\nWho?"], ["Ann."], []) ["Who?"], ["a.png"]

The model takes its picture before all text, so a mark is taken out where the row has its picture; a name inside a mark
is the picture of a row that has no other. Whatever else a mark may mean makes a bad row.

Sources: LLaVA, LLaMA-Factory and ms-swift (`<image>`), Qwen-VL (`Picture 1: <img>path</img>`), Qwen2-VL
(`<|vision_start|><|image_pad|><|vision_end|>`), Phi-3-Vision (`<|image_1|>`), MMMU (`<image 1>`), MiniCPM-V
(`<image>./</image>`, `<image_00>`), InternLM-XComposer (`<ImageHere>`), DeepSeek-VL (`<image_placeholder>`), Gemma 3
(`<start_of_image>`), Pixtral (`[IMG]`).
"""

import re
from collections.abc import Sequence
from typing import Any

from vglm.data.readers.rows import RowCheck, is_blank, quote

IMAGE_TOKEN = "<image>"

_INSIDE = (
    r"img>([^<>\n]*)</img>|image>([^<>\n]+)</image>|image>(?:\./)?</image>|\|?image(?:[ _-]?\d+)?\|?>"
    r"|\|vision_start\|>(?:<\|image_pad\|>)+<\|vision_end\|>|\|image_pad\|>(?:<\|image_pad\|>)*"
    r"|image_placeholder>|ImageHere>|start_of_image>"
)
_MARK = re.compile(rf"<(?:{_INSIDE}|img>)|\[IMG\]", re.IGNORECASE)
_LABELLED = re.compile(rf"(?:(?:Picture|Image|图片|图像)[ -]?\d+ *[:：]\s*)?(?:{_MARK.pattern})", re.IGNORECASE)
_RARE = re.compile(r"[\[:：]")
_IN_ANSWER = re.compile(rf"<(?:{_INSIDE})|\[IMG\]", re.IGNORECASE)
_UNKNOWN = re.compile(r"<\|?(?:video|audio)(?:_pad|_placeholder|[ _-]?\d+)?\|?>|<bbox>|<ref-object>", re.IGNORECASE)


def settle_marks(
    check: RowCheck, questions: Sequence[str], answers: Sequence[str], images: Sequence[Any]
) -> tuple[list[str], list[Any]]:
    """Remove the marks from a row's questions, and check that no text becomes empty.

    Args:
        check: Takes up what is wrong.
        questions: The row's questions, oldest first, as they are written.
        answers: Their answers.
        images: The pictures that the row has beside its texts: names, paths or slices.

    Returns:
        The questions without marks, and the pictures: those given, or else those that marks name.
    """
    images = list(images)
    for text in (*questions, *answers):
        if "<" in text or "[" in text:
            questions, images = _take_out(check, questions, answers, images)
            break
    if check.is_good:
        if not all(questions):
            beside = f" beside {IMAGE_TOKEN}" if images else ""
            check.fail(f"a question{beside}", "none", "write what is asked")
        if not all(answers):
            check.fail("an answer", "an empty text", "write it, or take the row out")
    return list(questions), images


def _take_out(
    check: RowCheck, questions: Sequence[str], answers: Sequence[str], images: list[Any]
) -> tuple[list[str], list[Any]]:
    marks: list[str] = []
    named: list[str] = []

    def take(match: re.Match[str]) -> str:
        name = (match[1] or match[2] or "").strip()
        if name and name != "./":
            named.append(name)
        else:
            marks.append(match[0])
        return ""

    left = []
    for question in questions:
        if question.count("<") == question.count(IMAGE_TOKEN) and not _RARE.search(question):  # nearly all: quicker
            marks += [IMAGE_TOKEN] * question.count(IMAGE_TOKEN)
            text = question.replace(IMAGE_TOKEN, "")
        else:
            text = _LABELLED.sub(take, question)
        left.append(text if text == question else "" if is_blank(text) else text.strip())
    if other := next(filter(None, map(_UNKNOWN.search, (text for text in (*left, *answers) if "<" in text))), None):
        check.fail("words and marks for pictures", f"the mark {quote(other[0])}", "write what it stands for")
    distinct = list(dict.fromkeys(named))
    if named and images and not set(named) <= set(map(str, images)):
        check.fail(
            "pictures in a field of their own or in the texts",
            f"both, {quote(str(images[0]))} and {quote(named[0])}",
            "name them in one place",
        )
        return left, images
    pictures = images or distinct
    count = len(marks) + len(distinct)
    if count > len(pictures):
        actual = f"{count} of these and {len(pictures)} images"
        check.fail(f"an image for each {marks[0].strip()}", actual, "name the image, or take the mark out")
    elif 0 < count < len(pictures):
        check.fail(
            "a mark for each image, or none", f"{count} and {len(pictures)} images", "add the mark, or take both out"
        )
    if pictures and (match := next(filter(None, map(_IN_ANSWER.search, answers)), None)):
        check.fail("answers of words alone", f"the mark {quote(match[0])} in one", "take it out")
    return left, pictures
