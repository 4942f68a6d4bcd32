"""VisualGLM as a native transformers model.

    pixel_values -> vision transformer -> Q-Former -> projection -> image slots -> language model -> logits

The vision transformer and the Q-Former are transformers' BLIP-2 modules, which equal the original's. The language model
is ChatGLM-6B (v1): prompt tokens see each other in both directions, answer tokens see what came before, and every token
has two rotary positions. Both follow from `input_ids` and `attention_mask` (see `glm_layout`), so callers never pass
them.

Source: THUDM/VisualGLM-6B:model/visualglm.py, model/blip2.py; THUDM/chatglm-6b:modeling_chatglm.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel, Blip2VisionModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from vglm.model.configuration import (
    VisualGlmConfig,
    VisualGlmQFormerConfig,
    VisualGlmTextConfig,
    VisualGlmVisionConfig,
)

IGNORE_INDEX = -100
"""Label of a token that does not count in the loss."""

LARGEST_LOGITS = 2**25
"""Numbers of logits that a loss makes at once, 134 MB in float32: 257 tokens of the vocabulary of 130,528."""

_CHECKPOINTING = "_gradient_checkpointing_func"

ENCODER_PARTS = ("vision_model", "query_tokens", "qformer")
"""What of a `VisualGlmModel` makes image features."""


def glm_layout(input_ids: Tensor, attention_mask: Tensor | None, config: VisualGlmTextConfig) -> tuple[Tensor, Tensor]:
    """Derive the two positions and the prompt/answer blocks of every token.

    Tokens before the first `<sop>` are context. A context token's positions are (its index, 0); an answer token's are
    (the index of `[gMASK]`, or else of `[MASK]`, and its own index within the answer, from 1).

    Args:
        input_ids: Whole sequences so far, shape (B, L), int64, padded on either side.
        attention_mask: 1 for real tokens, shape (B, >= L); columns beyond the last L (virtual tokens) are ignored.
        config: Names the special ids.

    Returns:
        Positions of shape (B, 2, L), int64, and block ids of shape (B, L), int64: 0 for context, whose tokens see each
        other, -1 for tokens that see only what came before.

    Source: `get_position_ids` and `get_masks` of THUDM/chatglm-6b:modeling_chatglm.py, per row and padding-aware.
    """
    length = input_ids.shape[1]
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -length:].to(input_ids.dtype)
    is_sop: Tensor = input_ids == config.bos_token_id  # type: ignore[assignment]
    answer = (is_sop.to(input_ids.dtype) * mask).cumsum(-1).clamp(max=1)  # (B, L): 1 from the first <sop> on
    context = mask * (1 - answer)  # (B, L): 1 on the tokens before it, 0 on padding
    index = (mask.cumsum(-1) - 1).clamp(min=0)  # (B, L): index among the real tokens

    last = context.sum(-1, keepdim=True) - 1  # (B, 1): the last context token, unless there is a mask token
    for token_id in (config.mask_token_id, config.gmask_token_id):  # [gMASK] wins where a prompt holds both
        is_mask = (input_ids == token_id) & (context == 1)  # (B, L)
        last = torch.where(is_mask.any(-1, keepdim=True), index.gather(1, is_mask.int().argmax(-1, keepdim=True)), last)
    positions = torch.stack((torch.where(answer == 1, last, index), answer.cumsum(-1)), dim=1)  # (B, 2, L)
    return positions, torch.where(context == 1, 0, -1)


def image_slots(input_ids: Tensor, block_ids: Tensor, config: VisualGlmConfig) -> Tensor:
    """Find the slots that image features fill: the first `num_image_tokens` neighbouring placeholders of the context.

    Args:
        input_ids: Shape (B, L), int64.
        block_ids: As from `glm_layout`, shape (B, L).
        config: Names the placeholder and the number of slots.

    Returns:
        Shape (B, L), bool; each row holds `num_image_tokens` true values or none.
    """
    placeholder = (input_ids == config.image_token_id) & (block_ids == 0)
    length, slots = input_ids.shape[1], config.num_image_tokens
    if length < slots:
        return torch.zeros_like(placeholder)
    whole = placeholder.unfold(1, slots, 1).all(-1)  # (B, L - slots + 1): placeholders only, from here on
    start = whole.int().argmax(-1, keepdim=True)  # (B, 1): the first such window
    index = torch.arange(length, device=input_ids.device)  # (L,)
    return whole.any(-1, keepdim=True) & (index >= start) & (index < start + slots)


def check_slots(image_mask: Tensor, images: int, config: VisualGlmConfig, name: str) -> None:
    """Refuse images that do not fit the slots; with a precomputed layout the caller checks this.

    Args:
        image_mask: As from `image_slots`.
        images: How many there are.
        config: Names the number of slots.
        name: What the images are called.

    Raises:
        ValueError: They are not as many as rows (or packed samples) with slots.
    """
    filled = int(image_mask.sum()) // config.num_image_tokens
    if filled != images:
        raise ValueError(
            f"{filled} of {len(image_mask)} rows have {config.num_image_tokens} image slots before <sop>, but {name}"
            f" holds {images} images. Pass one for each such row, in row order."
        )


def find_labels(labels: Tensor) -> Tensor:
    """The labels that count in the loss: all but -100 and the first column, which nothing predicts.

    Args:
        labels: Shape (B, L), int64.

    Returns:
        Their rows, and their columns counted from the end, which virtual tokens before a row do not move; shape (2, N).
    """
    rows, columns = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
    return torch.stack((rows, columns + 1 - labels.shape[1]))


def summed_loss(hidden_states: Tensor, head: nn.Module, targets: Tensor) -> Tensor:
    """Cross-entropy of each target, summed in float32.

    Logits of more than `LARGEST_LOGITS` numbers are made some rows at a time, forward and backward, where PyTorch can
    (2.13 and later) and the head is a plain matrix; else all of them at once.

    Args:
        hidden_states: After the final layer norm, shape (N, D).
        head: The output head.
        targets: Token ids, shape (N,), int64.
    """
    vocabulary = getattr(head, "out_features", 0)
    if len(targets) * vocabulary > LARGEST_LOGITS and _is_plain_head(head, hidden_states):
        size = max(1, LARGEST_LOGITS // vocabulary)
        weight: Any = head.weight
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=size, chunking_method=None)
        losses: Tensor = F.linear_cross_entropy(  # summed by PyTorch, half precision would lose the small ones
            hidden_states, weight, targets, reduction="none", options=options
        )
        return losses.float().sum()
    return F.cross_entropy(head(hidden_states).float(), targets, reduction="sum")


def _is_plain_head(head: nn.Module, hidden_states: Tensor) -> bool:
    """Whether a head is its weight and nothing else: not quantised, adapted, offloaded, in shards, or to be cast."""
    return (
        hasattr(nn, "LinearCrossEntropyOptions")
        and type(head) is nn.Linear
        and type(head.weight) is nn.Parameter
        and head.bias is None
        and not hasattr(head, "_hf_hook")
        and (head.weight.dtype, head.weight.device) == (hidden_states.dtype, hidden_states.device)
        and (hidden_states.is_meta or not torch.is_autocast_enabled(hidden_states.device.type))
    )


class PackedLayout(NamedTuple):
    """Where the tokens of rows stand that hold several samples each; every sample's are those it has alone.

    Attributes:
        positions: As from `glm_layout`, shape (B, 2, L).
        block_ids: The segment where a token is context, else -1, shape (B, L).
        image_mask: As from `image_slots`, shape (B, L).
        offsets: Each token's index in its segment, from 0, shape (B, L).
    """

    positions: Tensor
    block_ids: Tensor
    image_mask: Tensor
    offsets: Tensor


def packed_layout(input_ids: Tensor, segment_ids: Tensor, config: VisualGlmConfig) -> PackedLayout:
    """Derive the layout of packed rows by laying their segments out one by one.

    Args:
        input_ids: Samples one after the other, then padding, shape (B, L), int64.
        segment_ids: Which of its row's samples a token belongs to, counted from 0, -1 on padding; shape (B, L), int64.
        config: Names the special ids and the number of slots.
    """
    rows = torch.arange(len(input_ids), device=input_ids.device)[:, None]  # (B, 1)
    _, sizes = torch.unique_consecutive(
        rows * (input_ids.shape[1] + 1) + segment_ids + 1, return_counts=True
    )  # (S,), tokens of all segments; padding (-1) is a segment of its own
    alone = pad_sequence(list(input_ids.flatten().split(sizes.tolist())), batch_first=True)  # (S, longest)
    offsets = torch.arange(alone.shape[1], device=input_ids.device).expand_as(alone)  # (S, longest)
    is_real = offsets < sizes[:, None]  # (S, longest)
    positions, block_ids = glm_layout(alone, is_real.to(alone.dtype), config.text_config)
    image_mask = image_slots(alone, block_ids, config)

    def packed(values: Tensor) -> Tensor:
        return values[is_real].view_as(input_ids)  # (S, longest) -> (B, L)

    first, second = (packed(rows) for rows in positions.unbind(1))
    blocks = torch.where(packed(block_ids) == 0, segment_ids, -1)
    slots = packed(image_mask) & (segment_ids >= 0)  # padding may be the placeholder's id
    return PackedLayout(torch.stack((first, second), dim=1), blocks, slots, packed(offsets))


def rotary_table(
    positions: Tensor, inverse_frequencies: tuple[float, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of both positions for every channel of a head.

    Args:
        positions: Shape (B, 2, L), int64.
        inverse_frequencies: One value for each channel pair of half a head.
        dtype: Type of the result; the angles are computed in float32.

    Returns:
        Two tensors of shape (B, 1, L, 1, 2, head size / 2), the last but one for the positions: the cosine, and the
        sine with the sign that `apply_rotary` needs it with.
    """
    frequencies = torch.tensor(inverse_frequencies, dtype=torch.float32, device=positions.device)  # (head size / 4,)
    angles = positions.float().transpose(1, 2)[..., None] * frequencies  # (B, L, 2, head size / 4)
    angles = angles[:, None, :, None]  # (B, 1, L, 1, 2, head size / 4)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def apply_rotary(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first half of each head by the first position and the second half by the second.

    Three kernels for queries and keys together; the backward pass keeps no copy of the states.

    Args:
        states: Queries and keys, shape (B, heads, L, 2, head size).
        cos: From `rotary_table`.
        sin: Likewise.

    Returns:
        The rotated states, same shape and dtype.
    """
    halves = states.unflatten(-1, (2, -1))  # (B, heads, L, 2, 2, head size / 2)
    first, second = halves.chunk(2, dim=-1)  # (B, heads, L, 2, 2, head size / 4) each
    return torch.addcmul(halves * cos, torch.cat((second, first), dim=-1), sin).flatten(-2)


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention spelled out; returns the output (B, L, heads, head size) and the weights (B, heads, L, S)."""
    scores = query @ key.transpose(2, 3)  # (B, heads, L, S)
    scores = scores * scaling if attention_mask is None else torch.add(attention_mask, scores, alpha=scaling)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    if dropout and module.training:
        weights = F.dropout(weights, p=dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores for a mask that is true where a column is seen; same shape.

    Rows begin at multiples of 8 numbers, without which PyTorch's kernels on a GPU copy a mask in every layer.
    """
    columns = mask.shape[-1]
    hidden = torch.zeros((*mask.shape[:-1], -(-columns // 8) * 8), dtype=dtype, device=mask.device)[..., :columns]
    return hidden.masked_fill_(~mask, torch.finfo(dtype).min)


class VisualGlmAttention(nn.Module):
    """Self-attention with a fused projection, whose rows are ordered [head][query, key, value][head size]."""

    def __init__(self, config: VisualGlmTextConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = 1
        self.scaling = self.head_dim**-0.5
        self.is_causal = True
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; hidden states (B, L, D) in and out."""
        query, key, value = self.divide(self.query_key_value(hidden_states), position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        if attend is sdpa_attention_forward and query.device.type == "cpu":
            attend = eager_attention  # PyTorch's fused kernel shortens the exponential to 20 bits there
        dropout = self.config.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.dense(output.flatten(2)), weights  # (B, L, heads, head size) -> (B, L, D)

    def divide(self, fused: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries, rotated keys, and values, shape (B, heads, L, head size), of the projection (B, L, 3 D)."""
        parts = fused.unflatten(-1, (-1, 3, self.head_dim)).transpose(1, 2)  # (B, heads, L, 3, head size)
        turning, value = parts.split((2, 1), dim=-2)  # (B, heads, L, 2 and 1, head size)
        query, key = apply_rotary(turning, *position_embeddings).unbind(-2)
        return query, key, value.squeeze(-2)


class VisualGlmMLP(nn.Module):
    """Feed-forward layer with the tanh form of GELU."""

    def __init__(self, config: VisualGlmTextConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN["gelu_pytorch_tanh"]

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Hidden states (B, L, D) in and out."""
        output: Tensor = self.dense_4h_to_h(self.activation(self.dense_h_to_4h(hidden_states)))
        return output


class VisualGlmDecoderLayer(GradientCheckpointingLayer):
    """One layer; each residual is the normalised input times sqrt(2 * layers)."""

    def __init__(self, config: VisualGlmTextConfig, layer_idx: int) -> None:
        super().__init__()
        self.residual_factor = (2 * config.num_hidden_layers) ** 0.5
        self.hidden_dropout = config.hidden_dropout
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = VisualGlmAttention(config, layer_idx)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisualGlmMLP(config)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Hidden states (B, L, D) in and out."""
        residual = self.input_layernorm(hidden_states)
        output, _ = self.attention(residual, position_embeddings, attention_mask, past_key_values, **kwargs)
        residual = self.post_attention_layernorm(self._add(output, residual))
        hidden_states = self._add(self.mlp(residual), residual)
        return hidden_states

    def _add(self, output: Tensor, residual: Tensor) -> Tensor:
        if self.training and self.hidden_dropout:
            output = F.dropout(output, self.hidden_dropout)
        return torch.add(output, residual, alpha=self.residual_factor)


class VisualGlmPreTrainedModel(PreTrainedModel):
    """What all VisualGLM classes share with transformers: initialisation, loading, attention, checkpointing."""

    config: VisualGlmConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["VisualGlmDecoderLayer", "Blip2EncoderLayer", "Blip2QFormerLayer", "Blip2VisionEmbeddings"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": VisualGlmDecoderLayer, "attentions": VisualGlmAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VisualGlmModel) and module.has_vision:
            init.normal_(module.query_tokens, std=self.config.qformer_config.initializer_range)

    def enable_input_require_grads(self) -> None:
        """Have embeddings ask for gradients, which of checkpointing only the reentrant form needs.

        In the other form, the default, every frozen layer below the lowest that trains would be passed through
        backwards for nothing, the vision transformer included.
        """
        ways = [
            checkpointing.keywords
            for part in self.modules()
            if (checkpointing := getattr(part, _CHECKPOINTING, None)) is not None
        ]
        if not ways or any(way.get("use_reentrant", True) for way in ways):
            super().enable_input_require_grads()


class VisualGlmVisionModel(Blip2VisionModel):
    """BLIP-2's vision transformer with the closing epsilon of the original."""

    config: VisualGlmVisionConfig

    def __init__(self, config: VisualGlmVisionConfig) -> None:
        super().__init__(config)
        self.post_layernorm.eps = config.final_layer_norm_eps


class VisualGlmQFormerModel(Blip2QFormerModel):
    """BLIP-2's Q-Former under this model's configuration.

    The original normalises at the start of each layer what BLIP-2 normalises at its end, so the norms shift by one
    place: `layernorm` is the original's `layers.0.input_layernorm`, `encoder.layer.N.output_query.LayerNorm` its
    `layers.N+1.input_layernorm`, or `final_layernorm` behind the last layer, and
    `encoder.layer.N.attention.output.LayerNorm` its `layers.N.post_attention_layernorm`.

    Source: `layer_forward_default` of THUDM/SwissArmyTransformer:sat/transformer_defaults.py, order "post".
    """

    config: VisualGlmQFormerConfig


class VisualGlmTextModel(VisualGlmPreTrainedModel):
    """The language model, from embeddings to final hidden states."""

    config: VisualGlmTextConfig  # type: ignore[assignment]

    def __init__(self, config: VisualGlmTextConfig) -> None:
        super().__init__(config)
        self.word_embeddings: nn.Module = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(VisualGlmDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        half_head = config.hidden_size // config.num_attention_heads // 2
        exponents = torch.arange(0, half_head, 2, dtype=torch.float32, device="cpu") / half_head
        # The released model holds these in half precision and computes with the rounded values.
        self.inverse_frequencies = tuple((1.0 / config.rope_theta**exponents).half().tolist())
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.word_embeddings = value

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        inputs_embeds: Tensor,
        glm_position_ids: Tensor,
        block_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        segment_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the layers.

        Args:
            inputs_embeds: Shape (B, L, D).
            glm_position_ids: Shape (B, 2, L), int64, see `glm_layout`.
            block_ids: Shape (B, L), int64, likewise.
            attention_mask: 1 for real tokens, shape (B, cached + L).
            past_key_values: Keys and values of earlier tokens.
            use_cache: Whether to return a cache.
            segment_positions: For packed rows, each token's index in its segment, shape (B, L); segments then do not
                see each other. Goes without `attention_mask` and cache.
            kwargs: Passed on to the attention function.

        Returns:
            The hidden states after the final layer norm, shape (B, L, D), and the cache.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        cached = past_key_values.get_seq_length() if past_key_values is not None else 0
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=segment_positions,  # the library's way to tell it where packed sequences begin
            block_sequence_ids=F.pad(block_ids, (cached, 0), value=-1),
        )
        if isinstance(mask, Tensor) and mask.dtype == torch.bool:
            mask = additive_mask(mask, inputs_embeds.dtype)  # once, not in every layer
        hidden_states = inputs_embeds
        position_embeddings = rotary_table(glm_position_ids, self.inverse_frequencies, hidden_states.dtype)
        for layer in self.layers:
            hidden_states = layer(hidden_states, position_embeddings, mask, past_key_values=past_key_values, **kwargs)
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(hidden_states),
            past_key_values=past_key_values if use_cache else None,  # a prefix comes in a cache, used on or not
        )


class VisualGlmModel(VisualGlmPreTrainedModel):
    """Vision transformer, Q-Former, projection and language model without the output head.

    Args:
        config: The model's configuration.
        with_vision: False leaves out all that makes image features; images then come as `image_features`, of which the
            projection that stays makes what fills their slots.
    """

    def __init__(self, config: VisualGlmConfig, with_vision: bool = True) -> None:
        super().__init__(config)
        if with_vision:
            self.vision_model = VisualGlmVisionModel._from_config(config.vision_config)
            self.query_tokens = nn.Parameter(torch.zeros(1, config.num_image_tokens, config.qformer_config.hidden_size))
            self.qformer = VisualGlmQFormerModel._from_config(config.qformer_config)
        self.language_projection = nn.Linear(config.qformer_config.hidden_size, config.text_config.hidden_size)
        self.language_model = VisualGlmTextModel._from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        embeddings: nn.Module = self.language_model.word_embeddings
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.language_model.word_embeddings = value

    @property
    def has_vision(self) -> bool:
        """Whether the model can turn images into features itself."""
        return hasattr(self, "vision_model")

    def drop_vision(self) -> None:
        """Let go of vision transformer, query tokens and Q-Former, and of their memory."""
        for name in ENCODER_PARTS:
            if hasattr(self, name):
                delattr(self, name)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Turn images into what the Q-Former makes of them.

        Args:
            pixel_values: Shape (N, 3, H, W), float.

        Returns:
            Shape (N, num_image_tokens, Q-Former width).

        Raises:
            ValueError: The model was loaded without its vision parts, or has let go of them.
        """
        if not self.has_vision:
            raise ValueError("This model has no vision parts. Pass image_features, or load it with them.")
        patches = self.vision_model(pixel_values).last_hidden_state  # (N, 1 + patches, vision width)
        queries = self.query_tokens.expand(len(pixel_values), -1, -1)  # (N, num_image_tokens, Q-Former width)
        features: Tensor = self.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state
        return features

    def get_image_embeds(self, image_features: Tensor) -> Tensor:
        """Project image features to the vectors that fill their slots.

        Args:
            image_features: From `get_image_features`, shape (N, num_image_tokens, Q-Former width).

        Returns:
            Shape (N, num_image_tokens, D).
        """
        embeds: Tensor = self.language_projection(image_features)
        return embeds

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        layout_ids: Tensor | None = None,
        glm_position_ids: Tensor | None = None,
        block_ids: Tensor | None = None,
        image_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        segment_ids: Tensor | None = None,
        segment_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states of the whole model.

        Args:
            input_ids: Shape (B, L), int64.
            attention_mask: 1 for real tokens, shape (B, cached + L); None where nothing is padded.
            pixel_values: One image for each row with image slots, in row order, shape (N, 3, H, W).
            inputs_embeds: In place of `input_ids`, shape (B, V + L, D): V virtual tokens, then the real ones.
            past_key_values: Keys and values of earlier tokens.
            use_cache: Whether to return a cache.
            layout_ids: The L real token ids where `inputs_embeds` stands in for them, shape (B, L).
            glm_position_ids: Shape (B, 2, L); derived from the ids where None.
            block_ids: Shape (B, L); likewise.
            image_mask: Shape (B, L), bool; likewise. Of a layout that is given, slots and images are not counted again.
            image_features: In place of `pixel_values`, what `get_image_features` made of them, shape
                (N, num_image_tokens, Q-Former width).
            segment_ids: For rows that hold several samples one after the other, the number of its sample within the
                row for each token, -1 on padding; shape (B, L), int64. Samples do not see each other. Images then come
                one for each sample with slots, in the order of rows and samples; no cache and no virtual tokens.
            segment_positions: As from `packed_layout`, beside the rest of it in place of `segment_ids`.
            kwargs: Passed on to the attention function; `output_hidden_states`, `output_attentions`.

        Returns:
            `last_hidden_state` (B, V + L, D) and the cache.

        Raises:
            ValueError: No ids at all, images and rows with slots differ in number, images come in both forms, or
                packed rows come with a cache or with virtual tokens.
        """
        ids = layout_ids if layout_ids is not None else input_ids
        is_given = glm_position_ids is not None and block_ids is not None and image_mask is not None
        if segment_ids is not None or segment_positions is not None:
            if past_key_values is not None or inputs_embeds is not None or ids is None:
                raise ValueError("Packed rows (segment_ids) go with input_ids alone: no cache and no virtual tokens.")
            if not is_given:
                if segment_ids is None:
                    raise ValueError("segment_positions come with the rest of a layout, see packed_layout.")
                glm_position_ids, block_ids, image_mask, segment_positions = packed_layout(
                    ids, segment_ids, self.config
                )
            attention_mask, use_cache = None, False
        elif not is_given:
            if ids is None:
                raise ValueError(
                    "Pass input_ids, or layout_ids beside inputs_embeds: positions follow from the token ids."
                )
            glm_position_ids, block_ids = glm_layout(ids, attention_mask, self.config.text_config)
            image_mask = image_slots(ids, block_ids, self.config)
        assert glm_position_ids is not None
        assert block_ids is not None
        assert image_mask is not None
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        virtual = inputs_embeds.shape[1] - block_ids.shape[1]
        if virtual > 0:  # prompt tuning puts learned embeddings first: context, before everything else
            # Only distances between positions matter, so they stand before 0 and the real tokens stay where they are,
            # in this call as in those that continue from its cache.
            front = torch.arange(-virtual, 0, device=block_ids.device).expand(len(block_ids), -1)  # (B, virtual)
            glm_position_ids = torch.cat(
                (torch.stack((front, torch.zeros_like(front)), dim=1), glm_position_ids), dim=-1
            )
            block_ids = F.pad(block_ids, (virtual, 0), value=0)
            image_mask = F.pad(image_mask, (virtual, 0), value=False)
        if pixel_values is not None and image_features is not None:
            raise ValueError("Pass pixel_values or image_features, not both.")
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
        if image_features is not None:
            if not is_given and not torch.compiler.is_compiling():
                name = "image_features" if pixel_values is None else "pixel_values"
                check_slots(image_mask, len(image_features), self.config, name)
            image_embeds = self.get_image_embeds(image_features.to(inputs_embeds.dtype))
            inputs_embeds = inputs_embeds.masked_scatter(image_mask[..., None], image_embeds.to(inputs_embeds))
        output: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds,
            glm_position_ids=glm_position_ids,
            block_ids=block_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            segment_positions=segment_positions,
            **kwargs,
        )
        return output


class VisualGlmForConditionalGeneration(VisualGlmPreTrainedModel, GenerationMixin):
    """VisualGLM with its output head: training loss and `generate()`.

    Args:
        config: The model's configuration.
        with_vision: See `VisualGlmModel`.
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.word_embeddings.weight"}

    def __init__(self, config: VisualGlmConfig, with_vision: bool = True) -> None:
        super().__init__(config)
        self.model = VisualGlmModel(config, with_vision)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        if not with_vision:
            self._keys_to_ignore_on_load_unexpected = [rf"^model\.({'|'.join(ENCODER_PARTS)})"]
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word embeddings."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """See `VisualGlmModel.get_image_features`."""
        features: Tensor = self.model.get_image_features(pixel_values)
        return features

    def get_image_embeds(self, image_features: Tensor) -> Tensor:
        """See `VisualGlmModel.get_image_embeds`."""
        embeds: Tensor = self.model.get_image_embeds(image_features)
        return embeds

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        layout_ids: Tensor | None = None,
        glm_position_ids: Tensor | None = None,
        block_ids: Tensor | None = None,
        image_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        segment_ids: Tensor | None = None,
        segment_positions: Tensor | None = None,
        label_indices: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        skip_logits: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, and with `labels` the training loss.

        Args:
            input_ids: See `VisualGlmModel.forward`, as for the arguments not named here.
            attention_mask: Likewise.
            pixel_values: Likewise.
            labels: Token ids where the token counts in the loss, -100 elsewhere, shape (B, L), int64; not shifted.
            inputs_embeds: See `VisualGlmModel.forward`.
            past_key_values: Likewise.
            use_cache: Likewise.
            layout_ids: Likewise.
            glm_position_ids: Likewise.
            block_ids: Likewise.
            image_mask: Likewise.
            image_features: Likewise.
            segment_ids: Likewise.
            segment_positions: Likewise.
            label_indices: Where labels count, as from `find_labels`; looked for where None.
            logits_to_keep: Compute logits for that many last tokens (0: all), or for the tokens of an index tensor.
            skip_logits: Return a loss without logits, which then are computed only where a label stands; default: in
                training. A vocabulary of 130,528 makes them the largest tensor of a step.
            num_items_in_batch: Divide the summed loss by this number of labels instead of the labels of this call, so
                that accumulated steps weigh every token alike.
            kwargs: Passed on.

        Returns:
            `loss` (), `logits` (B, L, V) and the cache, where requested.
        """
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            layout_ids=layout_ids,
            glm_position_ids=glm_position_ids,
            block_ids=block_ids,
            image_mask=image_mask,
            image_features=image_features,
            segment_ids=segment_ids,
            segment_positions=segment_positions,
            **kwargs,
        )
        hidden_states = output.last_hidden_state
        loss = logits = None
        if labels is not None:
            rows, ends = find_labels(labels) if label_indices is None else label_indices
            indices = rows * hidden_states.shape[1] + hidden_states.shape[1] + ends
            chosen = hidden_states.flatten(0, 1).index_select(0, indices - 1)
            targets = labels[rows, ends].to(chosen.device)
            items = max(1, len(targets)) if num_items_in_batch is None else num_items_in_batch
            loss = summed_loss(chosen, self.lm_head, targets) / items
        if labels is None or not (self.training if skip_logits is None else skip_logits):
            selected = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden_states[:, selected].contiguous())  # else a frozen head multiplies row by row
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _expand_inputs_for_generation(  # type: ignore[override]
        self, *arguments: Any, **keywords: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Beside what transformers does before the first token, keep where the prompts end."""
        expand: Callable[..., tuple[Tensor, dict[str, Any]]] = GenerationMixin._expand_inputs_for_generation
        ids, kwargs = expand(self, *arguments, **keywords)
        mask = kwargs.get("attention_mask")
        if mask is None or mask.ndim == 2:
            positions, _ = glm_layout(ids, mask, self.config.text_config)
            kwargs["prompt_end"] = (positions[..., -1:], ids.shape[1])
        return ids, kwargs

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        prompt_end: tuple[Tensor, int] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Add the layout of the tokens of this step.

        That of a prompt follows from its tokens; a single token behind it has the position of the last plus one.
        """
        prepare: Callable[..., dict[str, Any]] = GenerationMixin.prepare_inputs_for_generation
        inputs = prepare(
            self,
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            **kwargs,
        )
        is_first = bool(kwargs.get("is_first_iteration"))
        if prompt_end is not None and next_sequence_length == 1 and not is_first:
            last, length = prompt_end
            ids = input_ids[:, -1:]
            inputs["glm_position_ids"] = torch.cat((last[:, :1], last[:, 1:] + (input_ids.shape[1] - length)), dim=1)
            inputs["block_ids"] = torch.full_like(ids, -1)
            inputs["image_mask"] = torch.zeros_like(ids, dtype=torch.bool)
        else:
            positions, block_ids = glm_layout(input_ids, attention_mask, self.config.text_config)
            image_mask = image_slots(input_ids, block_ids, self.config)
            for name in ("pixel_values", "image_features"):
                if is_first and inputs.get(name) is not None:
                    check_slots(image_mask, len(inputs[name]), self.config, name)
            length = next_sequence_length or input_ids.shape[1]
            inputs["glm_position_ids"] = positions[..., -length:]
            inputs["block_ids"] = block_ids[:, -length:]
            inputs["image_mask"] = image_mask[:, -length:]
            inputs["attention_mask"] = attention_mask  # two-dimensional: the language model adds the prompt's own block
        if not is_first and kwargs.get("use_cache", True):
            inputs.pop("image_features", None)  # in the cache by now; transformers drops pixel_values itself
        return inputs
