"""Load a model that can be talked to in one line.

>>> model, processor = load_pretrained("latest")               # the newest run; or its folder, or a checkpoint's
>>> model.chat("photo.jpg", "图中有什么？")
'一只猫。'
>>> model.chat("photo.jpg", "What colour is it?", history=[("图中有什么？", "一只猫。")])
"""

import re
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import torch
from PIL import Image

from vglm.data.images import open_image
from vglm.errors import ConfigError, DataError
from vglm.model.loading import load_pretrained as load
from vglm.text.prompt import Language

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)


def load_pretrained(path_or_id: str | PathLike[str], **options: Any) -> tuple[Any, Any]:
    """Load a model and its processor, and give the model a method `chat`, see `Chat`.

    Args:
        path_or_id: A run's folder or `latest`: its base with its adapter; or a checkpoint.
        options: Those of `vglm.model.loading.load_pretrained`, whose errors are raised.

    Returns:
        The model in evaluation mode, and the processor.
    """
    model: Any
    model, processor = load(path_or_id, **options)
    model.chat = Chat(model, processor)
    return model, processor


class Chat:
    """Answers questions about a picture, as `model.chat(image, question)`.

    Args:
        model: A VisualGLM, or a `PeftModel` of one.
        processor: Its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._parts = (model, processor)  # in a tuple, so that a model does not become a part of itself

    def __call__(
        self,
        image: str | PathLike[str] | Image.Image | None,
        question: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        language: Language | None = None,
        max_new_tokens: int = 256,
        **settings: Any,
    ) -> str:
        """Answer one question, greedily unless `settings` say otherwise.

        Args:
            image: A picture's file, a picture in memory, or None for a dialogue without one.
            question: The question.
            history: Earlier (question, answer) pairs of the dialogue, oldest first.
            language: Of the prompt, `zh` or `en`; inferred from the question's characters if None.
            max_new_tokens: Longest answer, in tokens.
            settings: Of `generate`, such as `do_sample=True, temperature=0.8`.

        Raises:
            ConfigError: The language is neither.
            DataError: The picture cannot be opened, or is named by a web address, which is not fetched here.
        """
        if language not in ("zh", "en", None):
            raise ConfigError(f"language must be zh or en, got {language!r}.")
        model, processor = self._parts
        picture = None if image is None else _open(image)
        language = language or ("en" if is_english(question) else "zh")
        inputs = processor(
            images=picture, text=question, history=list(history) or None, language=language, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(**inputs, **{"do_sample": False, "max_new_tokens": max_new_tokens, **settings})
        answer: str = processor.decode(output[0, inputs["input_ids"].shape[1] :])
        return answer


def is_english(text: str) -> bool:
    """Whether a text has letters and no Chinese characters."""
    return _CHINESE.search(text) is None and any(character.isalpha() for character in text)


def _open(image: str | PathLike[str] | Image.Image) -> Image.Image:
    if isinstance(image, str) and _ADDRESS.match(image):
        raise DataError(
            f"{image[:200]}: pictures are not fetched from addresses here. Download it and pass the file, or use"
            " `vglm chat --image <address>`, which lets no address lead into your own network unseen."
        )
    return open_image(image if isinstance(image, Image.Image) else fspath(image))
