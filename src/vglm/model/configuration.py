"""Sizes and conventions of a VisualGLM, as three sub-configurations: vision transformer, Q-Former, language model."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.models.blip_2.configuration_blip_2 import Blip2QFormerConfig, Blip2VisionConfig

from vglm.errors import ConfigError

_POSITIVE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "image_size",
    "patch_size",
    "cross_attention_frequency",
)


@strict
class VisualGlmTextConfig(PreTrainedConfig):
    """The ChatGLM-6B (v1) language model.

    Attributes:
        vocab_size: Rows of the word embeddings; may exceed the tokenizer's pieces.
        hidden_size: Width D of the residual stream.
        intermediate_size: Width of the feed-forward layer.
        num_hidden_layers: Number of layers; also sets the residual factor sqrt(2 * num_hidden_layers).
        num_attention_heads: Heads; each half of a head carries one of the two rotary positions.
        layer_norm_eps: Epsilon of every layer norm of the language model.
        max_position_embeddings: Longest sequence the model was trained on, in tokens.
        rope_theta: Base of the rotary frequencies.
        attention_dropout: Dropout of the attention weights in training.
        hidden_dropout: Dropout of the attention and feed-forward outputs in training.
        initializer_range: Standard deviation of freshly made weights.
        bos_token_id: `<sop>`: the answer starts behind it.
        eos_token_id: `<eop>`: ends an answer.
        pad_token_id: `<pad>`.
        mask_token_id: `[MASK]`.
        gmask_token_id: `[gMASK]`: last token of every prompt; answer tokens keep its position.
    """

    model_type = "visualglm_text"
    base_config_key = "text_config"
    base_model_tp_plan = {
        "layers.*.attention.query_key_value": "colwise",  # its rows are ordered by head
        "layers.*.attention.dense": "rowwise",
        "layers.*.mlp.dense_h_to_4h": "colwise",
        "layers.*.mlp.dense_4h_to_h": "rowwise",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    intermediate_size: int = 16384
    num_hidden_layers: int = 28
    num_attention_heads: int = 32
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 2048
    rope_theta: float = 10000.0
    attention_dropout: float = 0.0
    hidden_dropout: float = 0.0
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 130004
    eos_token_id: int | list[int] | None = 130005
    pad_token_id: int | None = 3
    mask_token_id: int = 130000
    gmask_token_id: int = 130001


@strict
class VisualGlmVisionConfig(Blip2VisionConfig):
    """The EVA-CLIP vision transformer, in BLIP-2's form.

    Attributes:
        final_layer_norm_eps: Epsilon of the closing layer norm, which the original keeps apart from `layer_norm_eps`.
        initializer_range: Standard deviation of freshly made weights (BLIP-2's own default, 1e-10, hides the image).
    """

    model_type = "visualglm_vision"
    base_config_key = "vision_config"

    final_layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02


@strict
class VisualGlmQFormerConfig(Blip2QFormerConfig):
    """BLIP-2's Q-Former, by default without dropout."""

    model_type = "visualglm_qformer"
    base_config_key = "qformer_config"

    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0


@strict
class VisualGlmConfig(PreTrainedConfig):
    """A whole VisualGLM; the defaults are VisualGLM-6B.

    Attributes:
        text_config: The language model.
        vision_config: The vision transformer.
        qformer_config: The Q-Former; its `encoder_hidden_size` follows the vision transformer.
        num_image_tokens: Query tokens, and so slots that one image fills in the prompt.
        image_token_id: Token id that marks a slot: `<unk>`, as in the original's chat.
        tie_word_embeddings: Whether the output head shares the word embeddings.

    Raises:
        ConfigError: A size is not positive, or the heads do not divide a width.
    """

    model_type = "visualglm"
    sub_configs = {
        "text_config": VisualGlmTextConfig,
        "vision_config": VisualGlmVisionConfig,
        "qformer_config": VisualGlmQFormerConfig,
    }

    text_config: Any = None
    vision_config: Any = None
    qformer_config: Any = None
    num_image_tokens: int = 32
    image_token_id: int = 0
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if not isinstance(value, PreTrainedConfig):
                setattr(self, name, config_class(**(value or {})))
        self.qformer_config.encoder_hidden_size = self.vision_config.hidden_size
        self.text_config.tie_word_embeddings = self.tie_word_embeddings
        for name in self.sub_configs:
            part = getattr(self, name)
            for size in _POSITIVE:
                if getattr(part, size, 1) < 1:
                    raise ConfigError(f"{name}: {size} must be at least 1, got {getattr(part, size)}.")
            if part.hidden_size % part.num_attention_heads:
                raise ConfigError(
                    f"{name}: hidden_size {part.hidden_size} is not a multiple of"
                    f" num_attention_heads {part.num_attention_heads}."
                )
        if self.text_config.hidden_size // self.text_config.num_attention_heads % 4:
            raise ConfigError(
                "text_config: hidden_size / num_attention_heads must be a multiple of 4, since two positions rotate"
                f" channels in pairs, got {self.text_config.hidden_size} / {self.text_config.num_attention_heads}."
            )
        super().__post_init__(**kwargs)

    @property
    def num_layers(self) -> int:
        """Layers of all parts together."""
        return sum(int(getattr(self, name).num_hidden_layers) for name in self.sub_configs)
