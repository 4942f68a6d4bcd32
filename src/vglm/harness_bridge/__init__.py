"""A VisualGLM, with or without an adapter, as a model of a public evaluation harness, whose tasks then run on it.

Where this package and lmms-eval (0.6 or newer) are installed together, lmms-eval finds `manifest` through the entry
point group `lmms_eval.models` and knows the model as `vglm`:

    python -m lmms_eval eval --model vglm --model_args pretrained=visualglm-6b,adapter=<run folder>/adapter --tasks pope

`lmms_eval` holds the model class, `answering` its implementation: it passes a harness's questions to this package's
generation and likelihoods, so the numbers are the same.
"""

from typing import Any


def manifest() -> Any:
    """The manifest by which lmms-eval finds the model class; nothing heavy is imported yet.

    Returns:
        A `lmms_eval.models.registry_v2.ModelManifest`.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="vglm", simple_class_path="vglm.harness_bridge.lmms_eval.VisualGlm", aliases=("visualglm",)
    )
