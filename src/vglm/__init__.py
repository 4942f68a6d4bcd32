"""VisualGLM Workbench: fine-tune VisualGLM, and see what changed.

    >>> import vglm
    >>> run = vglm.train(vglm.load_dataset("data/background_synthetic"), trainer={"max_steps": 50})
    >>> model, processor = vglm.load_pretrained(run.folder)          # or "latest"
    >>> model.chat("photo.jpg", "图中有什么？")
    >>> vglm.evaluate(run).frame()                                   # every answer, as a pandas DataFrame

Importing `vglm` is quick; torch and transformers load with the first name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vglm.chatting import load_pretrained
    from vglm.data.images import open_image
    from vglm.data.loading import load_dataset
    from vglm.data.readers import read_samples
    from vglm.data.sample import Sample
    from vglm.evaluation.certificate import merge_runs as merge
    from vglm.evaluation.pipeline import compare, evaluate, score
    from vglm.evaluation.score.metrics import Metric
    from vglm.model import (
        VisualGlmConfig,
        VisualGlmForConditionalGeneration,
        VisualGlmImageProcessor,
        VisualGlmModel,
        VisualGlmProcessor,
        VisualGlmTokenizer,
    )
    from vglm.model.attention import read_attention
    from vglm.runs import Run
    from vglm.tuning.train import train

_HOMES = {
    "chatting": {"load_pretrained": "load_pretrained"},
    "data.images": {"open_image": "open_image"},
    "data.loading": {"load_dataset": "load_dataset"},
    "data.readers": {"read_samples": "read_samples"},
    "data.sample": {"Sample": "Sample"},
    "evaluation.certificate": {"merge": "merge_runs"},
    "evaluation.pipeline": {"compare": "compare", "evaluate": "evaluate", "score": "score"},
    "evaluation.score.metrics": {"Metric": "Metric"},
    "model.attention": {"read_attention": "read_attention"},
    "runs": {"Run": "Run"},
    "tuning.train": {"train": "train"},
}
"""Module -> what comes from it, and what that is called there; all that is not listed comes from `model`."""

__all__ = [
    "Metric",
    "Run",
    "Sample",
    "VisualGlmConfig",
    "VisualGlmForConditionalGeneration",
    "VisualGlmImageProcessor",
    "VisualGlmModel",
    "VisualGlmProcessor",
    "VisualGlmTokenizer",
    "__version__",
    "compare",
    "evaluate",
    "load_dataset",
    "load_pretrained",
    "merge",
    "open_image",
    "read_attention",
    "read_samples",
    "score",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module 'vglm' has no attribute {name!r}")
    module, own_name = next(((home, names[name]) for home, names in _HOMES.items() if name in names), ("model", name))
    return getattr(import_module(f"vglm.{module}"), own_name)


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("visualglm-workbench")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
