"""VisualGLM for transformers: importing this package registers its classes with the Auto classes."""

import logging

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from vglm.model.configuration import VisualGlmConfig
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.modeling import VisualGlmForConditionalGeneration, VisualGlmModel
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer

# An optional kernel that bitsandbytes looks for on the hub; a user cannot act on the message.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__all__ = [
    "VisualGlmConfig",
    "VisualGlmForConditionalGeneration",
    "VisualGlmImageProcessor",
    "VisualGlmModel",
    "VisualGlmProcessor",
    "VisualGlmTokenizer",
]

AutoConfig.register(VisualGlmConfig.model_type, VisualGlmConfig)
AutoModel.register(VisualGlmConfig, VisualGlmModel)
AutoModelForImageTextToText.register(VisualGlmConfig, VisualGlmForConditionalGeneration)
AutoTokenizer.register(VisualGlmConfig, tokenizer_class=VisualGlmTokenizer)
AutoImageProcessor.register(VisualGlmConfig, image_processor_classes={"pil": VisualGlmImageProcessor})
AutoProcessor.register(VisualGlmConfig, VisualGlmProcessor)
