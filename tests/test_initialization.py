"""A model made from sizes alone, and the configuration's own checks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vglm.errors import ConfigError
from vglm.model.configuration import VisualGlmConfig
from vglm.worlds.initialization import initialize_model

SIZES: dict[str, Any] = {
    "num_image_tokens": 3,
    "text_config": {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2},
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 20,
        "patch_size": 10,
    },
    "qformer_config": {"hidden_size": 12, "intermediate_size": 14, "num_hidden_layers": 2, "num_attention_heads": 3},
}


def test_sizes_and_ids_come_from_the_arguments_and_the_tokenizer(reference: Path) -> None:
    model, processor = initialize_model(reference / "hf_layout", **SIZES)
    text = model.config.text_config
    assert (text.bos_token_id, text.gmask_token_id, text.vocab_size) == (1004, 1001, len(processor.tokenizer))
    inputs = processor(images=Image.new("RGB", (9, 30)), text="几个人？", answer="三个。", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 20, 20)
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 3
    assert model(**inputs).loss.isfinite()


def test_seed_decides_the_weights(reference: Path) -> None:
    first, second, third = (initialize_model(reference / "hf_layout", seed=seed, **SIZES)[0] for seed in (1, 1, 2))
    weights = [torch.nn.utils.parameters_to_vector(model.parameters()) for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_defaults_are_visualglm_6b() -> None:
    config = VisualGlmConfig()
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (4096, 28)
    assert (config.vision_config.hidden_size, config.vision_config.num_hidden_layers) == (1408, 39)
    assert config.qformer_config.encoder_hidden_size == 1408


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"vision_config": {"hidden_size": 50, "num_attention_heads": 4}},
            "vision_config: hidden_size 50 is not a mul",
        ),
        ({"text_config": {"hidden_size": 12, "num_attention_heads": 2}}, "must be a multiple of 4, .* got 12 / 2"),
    ],
)
def test_sizes_that_cannot_work_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VisualGlmConfig(**sizes)
