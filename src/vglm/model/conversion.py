"""Names of configuration keys and tensors in the original checkpoints, mapped to ours and back.

VisualGLM-6B was published in two layouts. Both hold the same tensors and differ in prefixes and in the row order of the
language model's fused attention projection:

    transformer.layers.3.attention.dense.bias              language model, both layouts
    image_encoder.vit.transformer.layers.3.mlp. ...        vision, Hugging Face layout
    mixins.eva.model.vit.transformer.layers.3.mlp. ...     vision, SwissArmyTransformer (SAT) layout

`key_map` expands one table of rules into an entry for every stored tensor: its name, the native tensors that hold the
same numbers, and an operation that can be run forwards (loading) and backwards (exporting).

Source: THUDM/VisualGLM-6B:model/visualglm.py, model/blip2.py; THUDM/SwissArmyTransformer:sat/transformer_defaults.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from vglm.errors import CheckpointError
from vglm.model.configuration import VisualGlmConfig

EMBEDDINGS, HEAD = "model.language_model.word_embeddings.weight", "lm_head.weight"
"""Native names of the two tensors that may be one."""

_LARGEST_INTEGER = 2**20  # no size or token id comes near it
_LONGEST_VALUE = 60  # characters that are quoted in a message
_SHOWN_PROBLEMS = 6
_ROPE_THETA = 10000.0  # the originals know no other
_FINAL_VISION_EPSILON = 1e-5  # `ln_vision` has PyTorch's default, whatever the configuration says


# --- layouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceLayout:
    """How one kind of original checkpoint names and orders its tensors.

    Attributes:
        name: For messages.
        config_file: Name of its configuration file.
        vision_section: Key of the vision transformer's section in that file.
        qformer_section: Key of the Q-Former's section.
        head: Module of the output head.
        image_encoder: Module that holds vision transformer, Q-Former and projection.
        inverse_frequencies: Key of the stored rotary frequencies; with `{i}` there is one for each layer.
        is_head_first: Whether the language model's fused rows run [head][q, k, v], as in the native model, or
            [q, k, v][head].
    """

    name: str
    config_file: str
    vision_section: str
    qformer_section: str
    head: str
    image_encoder: str
    inverse_frequencies: str
    is_head_first: bool


HUGGING_FACE = SourceLayout(
    name="Hugging Face",
    config_file="config.json",
    vision_section="eva_config",
    qformer_section="qformer_config",
    head="lm_head",
    image_encoder="image_encoder",
    inverse_frequencies="transformer.layers.{i}.attention.rotary_emb.inv_freq",
    is_head_first=True,
)
SAT = SourceLayout(
    name="SAT",
    config_file="model_config.json",
    vision_section="eva_args",
    qformer_section="qformer_args",
    head="mixins.chatglm-final.lm_head",
    image_encoder="mixins.eva.model",
    inverse_frequencies="mixins.chatglm-attn.rotary_emb.inv_freq",
    is_head_first=False,
)


def sat_layout(raw: Mapping[str, Any]) -> SourceLayout:
    """The SAT layout of a `model_config.json`: files without `pad_token_id`, from before July 2023, are head first."""
    return SAT if "pad_token_id" in raw else replace(SAT, is_head_first=True)


# --- operations on tensors -------------------------------------------------------------------------------------------


class Operation(Protocol):
    """A rearrangement of numbers that loses nothing; works on meta tensors too."""

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """From the stored tensor to the native ones; may return views."""

    def inverse(self, native: Sequence[Tensor]) -> Tensor:
        """From the native tensors to the stored one; may return a view."""


@dataclass(frozen=True)
class Keep:
    """One tensor, unchanged."""

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """The tensor itself."""
        return (source,)

    def inverse(self, native: Sequence[Tensor]) -> Tensor:
        """The tensor itself."""
        return native[0]


@dataclass(frozen=True)
class AddBatchAxis:
    """A table (N, D) that the native model holds as (1, N, D)."""

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """(N, D) to (1, N, D)."""
        return (source[None],)

    def inverse(self, native: Sequence[Tensor]) -> Tensor:
        """(1, N, D) to (N, D)."""
        return native[0][0]


@dataclass(frozen=True)
class SplitRows:
    """A fused projection (parts * N, ...) that the native model holds as separate ones (N, ...)."""

    parts: int

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """Cut into equal parts."""
        return source.tensor_split(self.parts)

    def inverse(self, native: Sequence[Tensor]) -> Tensor:
        """Put the parts below one another."""
        return torch.cat(tuple(native))


@dataclass(frozen=True)
class RegroupHeads:
    """Fused rows stored as [q, k, v][head][head size], in the native model [head][q, k, v][head size]."""

    heads: int

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """To head-first rows."""
        return (self._swap(source, (3, self.heads)),)

    def inverse(self, native: Sequence[Tensor]) -> Tensor:
        """To rows that start with all queries."""
        return self._swap(native[0], (self.heads, 3))

    def _swap(self, rows: Tensor, groups: tuple[int, int]) -> Tensor:
        return rows.reshape(*groups, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


@dataclass(frozen=True)
class Derive:
    """Numbers that the native model computes from its configuration and so does not read."""

    values: tuple[float, ...]

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    def inverse(self, native: Sequence[Tensor]) -> Tensor:
        """The numbers as the original rounds them, shape (len(values),), float16."""
        return torch.tensor(self.values, dtype=torch.float16)


# --- key map ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """Rules that share prefixes. `*` stands for weight and for bias, {i} counts layers, {next} is i + 1."""

    layers: str
    source: str
    native: str
    rules: Mapping[str, str | tuple[str, ...]]
    operation: str = "keep"


_LANGUAGE_MODEL = (
    _Block(
        "once",
        "transformer.",
        "model.language_model.",
        {"word_embeddings.weight": "word_embeddings.weight", "final_layernorm.*": "final_layernorm.*"},
    ),
    _Block("once", "{head}.", "lm_head.", {"weight": "weight"}),
    _Block(
        "text",
        "transformer.layers.{i}.",
        "model.language_model.layers.{i}.",
        {
            "input_layernorm.*": "input_layernorm.*",
            "attention.dense.*": "attention.dense.*",
            "post_attention_layernorm.*": "post_attention_layernorm.*",
            "mlp.dense_h_to_4h.*": "mlp.dense_h_to_4h.*",
            "mlp.dense_4h_to_h.*": "mlp.dense_4h_to_h.*",
        },
    ),
    _Block(
        "text",
        "transformer.layers.{i}.attention.",
        "model.language_model.layers.{i}.attention.",
        {"query_key_value.*": "query_key_value.*"},
        operation="regroup",
    ),
)
_VISION = (
    _Block(
        "once",
        "{image}.vit.mixins.",
        "model.vision_model.",
        {"patch_embedding.proj.*": "embeddings.patch_embedding.*", "cls.ln_vision.*": "post_layernorm.*"},
    ),
    _Block(
        "once",
        "{image}.vit.transformer.",
        "model.vision_model.embeddings.",
        {"word_embeddings.weight": "class_embedding", "position_embeddings.weight": "position_embedding"},
        operation="batch",
    ),
    _Block(
        "vision",
        "{image}.vit.transformer.layers.{i}.",
        "model.vision_model.encoder.layers.{i}.",
        {
            "input_layernorm.*": "layer_norm1.*",
            "attention.query_key_value.*": "self_attn.qkv.*",
            "attention.dense.*": "self_attn.projection.*",
            "post_attention_layernorm.*": "layer_norm2.*",
            "mlp.dense_h_to_4h.*": "mlp.fc1.*",
            "mlp.dense_4h_to_h.*": "mlp.fc2.*",
        },
    ),
)
# The original's Q-Former layers begin with a layer norm, transformers' end with one: every norm moves to the layer
# before, the first one to the queries.
_QFORMER = (
    _Block("once", "{image}.", "model.", {"glm_proj.*": "language_projection.*"}),
    _Block("once", "{image}.qformer.transformer.", "model.", {"word_embeddings.weight": "query_tokens"}, "batch"),
    _Block("once", "{image}.qformer.transformer.layers.0.", "model.qformer.", {"input_layernorm.*": "layernorm.*"}),
    _Block(
        "qformer",
        "{image}.qformer.transformer.layers.{i}.",
        "model.qformer.encoder.layer.{i}.",
        {
            "attention.dense.*": "attention.output.dense.*",
            "post_attention_layernorm.*": "attention.output.LayerNorm.*",
            "mlp.dense_h_to_4h.*": "intermediate_query.dense.*",
            "mlp.dense_4h_to_h.*": "output_query.dense.*",
        },
    ),
    _Block(
        "qformer",
        "{image}.qformer.transformer.layers.{i}.attention.",
        "model.qformer.encoder.layer.{i}.attention.attention.",
        {"query_key_value.*": ("query.*", "key.*", "value.*")},
        operation="thirds",
    ),
    _Block(
        "cross attention",
        "{image}.qformer.transformer.layers.{i}.",
        "model.qformer.encoder.layer.{i}.crossattention.",
        {
            "cross_attention.query.*": "attention.query.*",
            "cross_attention.dense.*": "output.dense.*",
            "post_cross_attention_layernorm.*": "output.LayerNorm.*",
        },
    ),
    _Block(
        "cross attention",
        "{image}.qformer.transformer.layers.{i}.cross_attention.",
        "model.qformer.encoder.layer.{i}.crossattention.attention.",
        {"key_value.*": ("key.*", "value.*")},
        operation="halves",
    ),
    _Block(
        "qformer but last",
        "{image}.qformer.transformer.layers.{next}.",
        "model.qformer.encoder.layer.{i}.output_query.",
        {"input_layernorm.*": "LayerNorm.*"},
    ),
    _Block(
        "qformer last",
        "{image}.qformer.transformer.",
        "model.qformer.encoder.layer.{i}.output_query.",
        {"final_layernorm.*": "LayerNorm.*"},
    ),
)


@dataclass(frozen=True)
class Entry:
    """One stored tensor and the native tensors that hold the same numbers.

    Attributes:
        source: Key in the original checkpoint.
        native: Names in the native model's state dict; none where the model derives the numbers.
        operation: From one to the other and back.
    """

    source: str
    native: tuple[str, ...]
    operation: Operation

    @property
    def is_optional(self) -> bool:
        """Whether a checkpoint may lack this tensor."""
        return not self.native

    def to_native(self, tensor: Tensor) -> dict[str, Tensor]:
        """Native tensors by name, possibly views of the stored one."""
        return dict(zip(self.native, self.operation.forward(tensor), strict=True))

    def to_source(self, state: Mapping[str, Tensor]) -> Tensor:
        """The stored tensor, from a native state dict that holds at least `native`."""
        return self.operation.inverse([state[name] for name in self.native])


def key_map(config: VisualGlmConfig, layout: SourceLayout) -> tuple[Entry, ...]:
    """List every tensor of an original checkpoint beside its native counterparts.

    Args:
        config: Sizes of the model; nothing else decides which layers there are.
        layout: The original layout.

    Returns:
        One entry for each stored tensor; every native tensor occurs exactly once.
    """
    text, qformer = config.text_config, config.qformer_config
    operations: dict[str, Operation] = {
        "keep": Keep(),
        "batch": AddBatchAxis(),
        "thirds": SplitRows(3),
        "halves": SplitRows(2),
        "regroup": Keep() if layout.is_head_first else RegroupHeads(text.num_attention_heads),
    }
    layers = {
        "once": range(1),
        "text": range(text.num_hidden_layers),
        "vision": range(config.vision_config.num_hidden_layers),
        "qformer": range(qformer.num_hidden_layers),
        "qformer but last": range(qformer.num_hidden_layers - 1),
        "qformer last": range(qformer.num_hidden_layers - 1, qformer.num_hidden_layers),
        "cross attention": range(0, qformer.num_hidden_layers, qformer.cross_attention_frequency),
    }
    entries = []
    for block in (*_LANGUAGE_MODEL, *_VISION, *_QFORMER):
        for i in layers[block.layers]:
            names = {"head": layout.head, "image": layout.image_encoder, "i": i, "next": i + 1}
            for stored, native in block.rules.items():
                source = (block.source + stored).format_map(names)
                targets = [(block.native + name).format_map(names) for name in _as_tuple(native)]
                for parameter in ("weight", "bias") if "*" in source else ("",):
                    entries.append(
                        Entry(
                            source.replace("*", parameter),
                            tuple(target.replace("*", parameter) for target in targets),
                            operations[block.operation],
                        )
                    )
    frequencies = dict.fromkeys(layout.inverse_frequencies.format(i=i) for i in layers["text"])
    return *entries, *(Entry(key, (), Derive(_inverse_frequencies(config))) for key in frequencies)


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _inverse_frequencies(config: VisualGlmConfig) -> tuple[float, ...]:
    half_head = config.text_config.hidden_size // config.text_config.num_attention_heads // 2
    exponents = torch.arange(0, half_head, 2, dtype=torch.float32) / half_head
    return tuple((1.0 / config.text_config.rope_theta**exponents).tolist())


# --- configuration ---------------------------------------------------------------------------------------------------


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


class _Section:
    """One section of an original configuration file, which notes what is wrong with it instead of raising at once."""

    def __init__(self, values: Any, where: str, problems: list[str]) -> None:
        self.values: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
        self.where = where
        self.problems = problems
        if not isinstance(values, Mapping):
            problems.append(f"{where} must be a mapping, got {_short(values)}")

    def section(self, key: str) -> "_Section":
        """A nested section."""
        return _Section(self.values.get(key), f"{self.where}: {key}", self.problems)

    def integer(self, key: str, default: int | None = None, at_least: int = 1) -> int:
        """An integer; `default` stands in for an absent key or null."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= _LARGEST_INTEGER:
            return value
        self.reject(key, f"an integer >= {at_least}")
        return at_least

    def epsilon(self) -> float:
        """The epsilon of the layer norms, which the originals take for 1e-5 where it is absent."""
        value = self.values.get("layernorm_epsilon", 1e-5)
        if isinstance(value, float | int) and not isinstance(value, bool) and value > 0:
            return float(value)
        self.reject("layernorm_epsilon", "a positive number")
        return 1e-5

    def heads(self, hidden_size: int, multiple: int = 1) -> int:
        """The number of attention heads, whose size must be a multiple of `multiple`."""
        heads = self.integer("num_attention_heads")
        if hidden_size % (heads * multiple):
            self.reject("num_attention_heads", f"a divisor of hidden_size {hidden_size} / {multiple}")
        self.expect(hidden_size_per_attention_head=hidden_size // heads)
        return heads

    def expect(self, **fixed: Any) -> None:
        """Settings that the native model knows only one value of; an absent key and null stand for that value."""
        for key, value in fixed.items():
            if self.values.get(key) not in (None, value):
                self.reject(key, f"{value!r}, all that the native model knows")

    def reject(self, key: str, expected: str) -> None:
        """Note that a key's value is not what it must be."""
        actual = f"got {_short(self.values[key])}" if key in self.values else "but the key is missing"
        self.problems.append(f"{self.where}: {key} must be {expected}, {actual}")


def read_config(
    raw: Mapping[str, Any], layout: SourceLayout, *, eos_token_id: int | None = None, pad_token_id: int | None = None
) -> VisualGlmConfig:
    """Translate the configuration of an original checkpoint.

    Whether head and embeddings are tied is not in the file: the caller sets `tie_word_embeddings` from the tensors.

    Args:
        raw: Content of `config.json` (Hugging Face) or `model_config.json` (SAT).
        layout: Which of the two it is.
        eos_token_id: `<eop>`, where the file does not name it (SAT). None: the id behind `<sop>`, as in the published
            vocabulary.
        pad_token_id: `<pad>`, where the file does not name it (SAT before July 2023). None: 3, as in the published
            vocabulary.

    Returns:
        The native configuration.

    Raises:
        CheckpointError: Keys are missing or malformed, or the native model has no counterpart for a setting; names all.
    """
    problems: list[str] = []
    root = _Section(raw, layout.config_file, problems)
    text = _read_text(root, eos_token_id, 3 if pad_token_id is None else pad_token_id)
    if layout.config_file == HUGGING_FACE.config_file:
        root.expect(position_encoding_2d=True, quantization_bit=0, pre_seq_len=0)
    vision = _read_vision(root.section(layout.vision_section))
    qformer_section = root.section(layout.qformer_section)
    qformer = _read_qformer(qformer_section, vision["hidden_size"])
    num_image_tokens = qformer_section.integer("vocab_size")  # the Q-Former's "words" are its queries
    root.expect(image_length=num_image_tokens)
    image_token_id = root.integer("unk_token_id", default=0, at_least=0)
    if problems:
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise CheckpointError(f"{'; '.join(problems[:_SHOWN_PROBLEMS])}{more}.")
    return VisualGlmConfig(
        text_config=text,
        vision_config=vision,
        qformer_config=qformer,
        num_image_tokens=num_image_tokens,
        image_token_id=image_token_id,
    )


def _read_text(section: _Section, eos_token_id: int | None, pad_token_id: int) -> dict[str, Any]:
    hidden_size = section.integer("hidden_size")
    bos_token_id = section.integer("bos_token_id", at_least=0)
    return {
        "vocab_size": section.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": section.integer("inner_hidden_size", default=4 * hidden_size),
        "num_hidden_layers": section.integer("num_layers"),
        "num_attention_heads": section.heads(hidden_size, multiple=4),  # two rotary halves, each of channel pairs
        "layer_norm_eps": section.epsilon(),
        "max_position_embeddings": section.integer("max_sequence_length"),
        "bos_token_id": bos_token_id,
        "eos_token_id": section.integer("eos_token_id", bos_token_id + 1 if eos_token_id is None else eos_token_id),
        "pad_token_id": section.integer("pad_token_id", pad_token_id, at_least=0),
        "mask_token_id": section.integer("mask_token_id", at_least=0),
        "gmask_token_id": section.integer("gmask_token_id", at_least=0),
    }


def _read_vision(section: _Section) -> dict[str, Any]:
    section.expect(layernorm_order="pre", use_final_layernorm=False, num_classes=0)
    section.expect(in_channels=3, pre_len=1, post_len=0)
    hidden_size = section.integer("hidden_size")
    image_size = section.values.get("image_size")
    if isinstance(image_size, list) and image_size and image_size.count(image_size[0]) == len(image_size):
        image_size = image_size[0]
    if not isinstance(image_size, int) or isinstance(image_size, bool) or not 1 <= image_size <= _LARGEST_INTEGER:
        section.reject("image_size", "one size or two equal ones: images are square")
        image_size = 1
    return {
        "hidden_size": hidden_size,
        "intermediate_size": section.integer("inner_hidden_size", default=4 * hidden_size),
        "num_hidden_layers": section.integer("num_layers"),
        "num_attention_heads": section.heads(hidden_size),
        "image_size": image_size,
        "patch_size": section.integer("patch_size"),
        "layer_norm_eps": section.epsilon(),
        "final_layer_norm_eps": _FINAL_VISION_EPSILON,
        "hidden_act": "gelu",
    }


def _read_qformer(section: _Section, vision_hidden_size: int) -> dict[str, Any]:
    section.expect(layernorm_order="post", use_final_layernorm=True, cross_attn_hidden_size=vision_hidden_size)
    hidden_size, num_layers = section.integer("hidden_size"), section.integer("num_layers")
    is_decoder = section.values.get("is_decoder")
    if isinstance(is_decoder, list):
        frequency = is_decoder.index(True, 1) if True in is_decoder[1:] else num_layers
        is_regular = is_decoder == [i % frequency == 0 for i in range(len(is_decoder))]
        is_regular &= len(is_decoder) == num_layers
    else:
        frequency, is_regular = 1, bool(is_decoder)
    if not is_regular:
        section.reject("is_decoder", f"true for every n-th of {num_layers} layers from the first on, false elsewhere")
    return {
        "hidden_size": hidden_size,
        "intermediate_size": section.integer("inner_hidden_size", default=4 * hidden_size),
        "num_hidden_layers": num_layers,
        "num_attention_heads": section.heads(hidden_size),
        "cross_attention_frequency": frequency,
        "layer_norm_eps": section.epsilon(),
        "hidden_act": "gelu",
    }


def write_config(config: VisualGlmConfig, layout: SourceLayout, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Translate a native configuration back, the inverse of `read_config`.

    Args:
        config: The native configuration.
        layout: `HUGGING_FACE` or `SAT`.
        dtype: Type of the stored tensors, which the Hugging Face layout names.

    Returns:
        The content of `config.json` or `model_config.json`, with the keys of the published files.

    Raises:
        CheckpointError: The original has no counterpart for a setting; names all.
    """
    fixed = _fixed_settings(config)
    if problems := [
        f"{key} must be {only!r}, got {actual!r}" for key, (actual, only) in fixed.items() if actual != only
    ]:
        raise CheckpointError(f"The original {layout.name} layout cannot express this model: {'; '.join(problems)}.")
    text, sizes = config.text_config, _sizes(config, layout)
    if layout.config_file == SAT.config_file:
        return {**_SAT_SETTINGS, **sizes, **_unless(1e-5, layernorm_epsilon=text.layer_norm_eps)}
    own = {"eos_token_id": text.eos_token_id, "layernorm_epsilon": text.layer_norm_eps}
    return {**_HUGGING_FACE_SETTINGS, **sizes, **own, "torch_dtype": str(dtype).removeprefix("torch.")}


def describe_architecture(config: VisualGlmConfig) -> dict[str, Any]:
    """All settings that decide what a model computes, whatever its layout, precision and settings of training."""
    text, fixed = config.text_config, _fixed_settings(config)
    return {
        **_sizes(config, HUGGING_FACE),
        **{key: value for key, (value, _) in fixed.items()},
        "eos_token_id": text.eos_token_id,
        "layernorm_epsilon": text.layer_norm_eps,
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def _fixed_settings(config: VisualGlmConfig) -> dict[str, tuple[Any, Any]]:
    """Settings that the originals know only one value of, beside that value."""
    text, vision, qformer = config.text_config, config.vision_config, config.qformer_config
    return {
        "text_config.rope_theta": (text.rope_theta, _ROPE_THETA),
        "vision_config.final_layer_norm_eps": (vision.final_layer_norm_eps, _FINAL_VISION_EPSILON),
        "vision_config.hidden_act": (vision.hidden_act, "gelu"),
        "vision_config.qkv_bias": (vision.qkv_bias, True),
        "qformer_config.hidden_act": (qformer.hidden_act, "gelu"),
    }


def _sizes(config: VisualGlmConfig, layout: SourceLayout) -> dict[str, Any]:
    """What both original files say, under their keys."""
    text, vision, qformer = config.text_config, config.vision_config, config.qformer_config
    return {
        "num_layers": text.num_hidden_layers,
        "hidden_size": text.hidden_size,
        "num_attention_heads": text.num_attention_heads,
        "vocab_size": text.vocab_size,
        "max_sequence_length": text.max_position_embeddings,
        "inner_hidden_size": text.intermediate_size,
        "image_length": config.num_image_tokens,
        layout.vision_section: {
            "num_layers": vision.num_hidden_layers,
            "hidden_size": vision.hidden_size,
            "num_attention_heads": vision.num_attention_heads,
            "vocab_size": 1,
            "layernorm_order": "pre",
            "model_parallel_size": 1,
            "max_sequence_length": (vision.image_size // vision.patch_size) ** 2 + 1,
            "inner_hidden_size": vision.intermediate_size,
            "use_final_layernorm": False,
            "layernorm_epsilon": vision.layer_norm_eps,
            "image_size": [vision.image_size, vision.image_size],
            "pre_len": 1,
            "post_len": 0,
            "in_channels": 3,
            "num_classes": 0,
            "patch_size": vision.patch_size,
        },
        layout.qformer_section: {
            "num_layers": qformer.num_hidden_layers,
            "hidden_size": qformer.hidden_size,
            "num_attention_heads": qformer.num_attention_heads,
            "vocab_size": config.num_image_tokens,
            "layernorm_order": "post",
            "model_parallel_size": 1,
            "max_sequence_length": 0,
            "is_decoder": [i % qformer.cross_attention_frequency == 0 for i in range(qformer.num_hidden_layers)],
            "cross_attn_hidden_size": vision.hidden_size,
            "layernorm_epsilon": qformer.layer_norm_eps,
            **_unless(4 * qformer.hidden_size, inner_hidden_size=qformer.intermediate_size),
        },
        "bos_token_id": text.bos_token_id,
        "mask_token_id": text.mask_token_id,
        "gmask_token_id": text.gmask_token_id,
        "pad_token_id": text.pad_token_id,
        **_unless(0, unk_token_id=config.image_token_id),
    }


_SAT_SETTINGS: dict[str, Any] = {
    "model_class": "VisualGLMModel",
    "tokenizer_type": "THUDM/chatglm-6b",
    "layernorm_order": "post",
    "model_parallel_size": 1,
}
_HUGGING_FACE_SETTINGS: dict[str, Any] = {
    "_name_or_path": "THUDM/visualglm-6b",
    "architectures": ["ChatGLMModel"],
    "auto_map": {
        "AutoConfig": "configuration_chatglm.ChatGLMConfig",
        "AutoModel": "modeling_chatglm.ChatGLMForConditionalGenerationWithImage",
        "AutoModelForSeq2SeqLM": "modeling_chatglm.ChatGLMForConditionalGenerationWithImage",
    },
    "model_type": "chatglm",
    "position_encoding_2d": True,
    "transformers_version": "4.27.1",
    "use_cache": True,
}


def _unless(default: Any, **setting: Any) -> dict[str, Any]:
    """A setting that the published files leave out where it has its default."""
    return {key: value for key, value in setting.items() if value != default}
