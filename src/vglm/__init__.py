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
    "Metric": "evaluation.score.metrics",
    "Run": "runs",
    "Sample": "data.sample",
    **dict.fromkeys(("compare", "evaluate", "score"), "evaluation.pipeline"),
    "load_dataset": "data.loading",
    "load_pretrained": "chatting",
    "merge": "evaluation.certificate",
    "open_image": "data.images",
    "read_attention": "model.attention",
    "read_samples": "data.readers",
    "train": "tuning.train",
}
"""Name -> its module; all others come from `model`."""

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
    return getattr(import_module(f"vglm.{_HOMES.get(name, 'model')}"), "merge_runs" if name == "merge" else name)


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("visualglm-workbench")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
