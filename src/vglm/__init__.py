"""VisualGLM Workbench: fine-tune VisualGLM, and see what changed.

    >>> import vglm
    >>> model, processor = vglm.load_pretrained("data/visualglm_tiny")
    >>> inputs = processor(images=image, text="图中有什么？", return_tensors="pt")
    >>> processor.decode(model.generate(**inputs, max_new_tokens=32)[0])

Importing `vglm` is quick; torch and transformers load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vglm.model import (
        VisualGlmConfig,
        VisualGlmForConditionalGeneration,
        VisualGlmImageProcessor,
        VisualGlmModel,
        VisualGlmProcessor,
        VisualGlmTokenizer,
    )
    from vglm.model.loading import load_pretrained

__all__ = [
    "VisualGlmConfig",
    "VisualGlmForConditionalGeneration",
    "VisualGlmImageProcessor",
    "VisualGlmModel",
    "VisualGlmProcessor",
    "VisualGlmTokenizer",
    "load_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vglm' has no attribute {name!r}")
    return getattr(import_module("vglm.model.loading" if name == "load_pretrained" else "vglm.model"), name)


def __dir__() -> list[str]:
    return __all__
