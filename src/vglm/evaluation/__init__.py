"""From a model and samples to a report: predict -> score -> report; all but the first step work without torch.

    predict         arms answer questions: generation, likelihoods, other images, examples in the context
    score           answers become numbers: metrics, statistics, comparisons, `metrics.json`
    report          numbers become pages
    pipeline        `evaluate`, `score` and `compare`, which call them in this order

Importing this package is quick; the rest loads with the first name that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vglm.evaluation.pipeline import EvaluationResult, compare, evaluate

__all__ = ["EvaluationResult", "compare", "evaluate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vglm.evaluation' has no attribute {name!r}")
    return getattr(import_module("vglm.evaluation.pipeline"), name)


def __dir__() -> list[str]:
    return __all__
