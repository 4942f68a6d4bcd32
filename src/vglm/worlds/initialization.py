"""Make a VisualGLM with random weights, for pre-training from scratch."""

from pathlib import Path
from typing import Any

import torch

from vglm.model.configuration import VisualGlmConfig
from vglm.model.image_processing import VisualGlmImageProcessor
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.model.tokenization import VisualGlmTokenizer


def initialize_model(
    tokenizer: str | Path,
    *,
    text_config: dict[str, Any],
    vision_config: dict[str, Any],
    qformer_config: dict[str, Any],
    num_image_tokens: int,
    seed: int = 0,
) -> tuple[VisualGlmForConditionalGeneration, VisualGlmProcessor]:
    """Build a model and its processor around an existing tokenizer.

    Args:
        tokenizer: Folder with `ice_text.model`; it decides the vocabulary size and the special ids.
        text_config: Sizes of the language model, see `VisualGlmTextConfig`.
        vision_config: Sizes of the vision transformer, see `VisualGlmVisionConfig`.
        qformer_config: Sizes of the Q-Former, see `VisualGlmQFormerConfig`.
        num_image_tokens: Query tokens of the Q-Former.
        seed: Seed of the weights.

    Returns:
        The float32 model and its processor.
    """
    text = VisualGlmTokenizer.from_pretrained(tokenizer)
    config = VisualGlmConfig(
        text_config={
            "vocab_size": len(text),
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
            "mask_token_id": text.mask_token_id,
            "gmask_token_id": text.gmask_token_id,
            **text_config,
        },
        vision_config=vision_config,
        qformer_config=qformer_config,
        num_image_tokens=num_image_tokens,
        image_token_id=text.unk_token_id,
    )
    pixels = config.vision_config.image_size
    torch.manual_seed(seed)
    model = VisualGlmForConditionalGeneration(config)
    processor = VisualGlmProcessor(
        image_processor=VisualGlmImageProcessor(size={"height": pixels, "width": pixels}),
        tokenizer=text,
        num_image_tokens=num_image_tokens,
    )
    return model, processor
