"""The components of a VisualGLM: which of them train, by which method, and at what learning rate.

ComponentTuning(projection="full")                                  one part trains itself
ComponentTuning(language_model="lora", lora=LoraConfig(r=8))        one part has an adapter
learning_rate_of("model.language_projection.weight", 1e-3, {"projection": "0.1x"})         1e-4
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from peft import LoraConfig

from vglm.errors import ConfigError

COMPONENTS: dict[str, tuple[str, ...]] = {
    "vision": ("model.vision_model.",),
    "qformer": ("model.qformer.", "model.query_tokens"),
    "projection": ("model.language_projection.",),
    "language_model": ("model.language_model.layers.", "model.language_model.final_layernorm."),
    "embeddings": ("model.language_model.word_embeddings.", "lm_head."),
}
"""The parts of a VisualGLM by the prefixes of their parameters; together they cover every parameter."""


_LINEAR_LAYERS = {
    "vision": r"vision_model\.encoder\.layers\.\d+\.(self_attn\.(qkv|projection)|mlp\.(fc1|fc2))",
    "qformer": r"qformer\.encoder\.layer\.\d+\..*\.(query|key|value|dense)",
    "projection": r"language_projection",
    "language_model": r"language_model\.layers\.\d+\."
    r"(attention\.(query_key_value|dense)|mlp\.(dense_h_to_4h|dense_4h_to_h))",
    "embeddings": r"(language_model\.word_embeddings|lm_head)",
}
"""The modules that LoRA adapts in each component: its linear layers and embeddings, as the end of a module's name."""

ADAPTER_PARTS = ("lora_A", "lora_B")
"""The two matrices of LoRA, which can have learning rates of their own (LoRA+)."""

Part = Literal["frozen", "lora", "full"]


@dataclass(frozen=True)
class ComponentTuning:
    """What trains, component by component: `frozen`, `lora` (an adapter on its linear layers) or `full`.

    Where no component has LoRA, the model itself is tuned and saved as a whole. Beside LoRA, a component that trains in
    full is a copy in the adapter, so that the base stays what it was; its query tokens, which belong to no module that
    peft could copy, then stay frozen.

    Attributes:
        vision: The vision transformer.
        qformer: The Q-Former and, without LoRA, its query tokens.
        projection: From Q-Former to language model.
        language_model: The layers and the final norm.
        embeddings: Word embeddings and output head.
        lora: r, lora_alpha and so on for the components with LoRA; which modules follows from the components.
    """

    vision: Part = "frozen"
    qformer: Part = "frozen"
    projection: Part = "frozen"
    language_model: Part = "frozen"
    embeddings: Part = "frozen"
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        if not self.that_are("lora") and not self.that_are("full"):
            raise ConfigError(f"nothing would train: every component is frozen. Set one of {', '.join(COMPONENTS)}.")
        if self.that_are("lora") and self.lora is None:
            raise ConfigError(f"{self.that_are('lora')[0]}: lora, but `lora` (r, lora_alpha, ...) is not given.")
        if self.lora is not None and (self.lora.target_modules or self.lora.modules_to_save):
            raise ConfigError("lora: target_modules and modules_to_save follow from the components; leave them out.")

    def that_are(self, part: Part) -> list[str]:
        """The components of one kind."""
        return [name for name in COMPONENTS if getattr(self, name) == part]

    def adapter(self, layers: int, *, is_tied: bool) -> LoraConfig:
        """The peft config for these components.

        Args:
            layers: Number of layers of the language model.
            is_tied: Whether word embeddings and output head are one matrix.

        Raises:
            ConfigError: They are, and are to train: an adapter would part them.
        """
        if is_tied and self.embeddings != "frozen":
            raise ConfigError(
                "method.embeddings: this model's word embeddings and output head are one matrix, which an adapter would"
                " part. Leave them frozen, or tune without LoRA."
            )
        assert self.lora is not None
        language_model = ["language_model.final_layernorm", *(f"language_model.layers.{i}" for i in range(layers))]
        whole = {
            "vision": ["vision_model"],
            "qformer": ["qformer"],
            "projection": ["language_projection"],
            "language_model": language_model,
            "embeddings": ["word_embeddings", "lm_head"],
        }
        targets = "|".join(_LINEAR_LAYERS[name] for name in self.that_are("lora"))
        copies = [module for name in self.that_are("full") for module in whole[name]]
        return replace(self.lora, target_modules=rf".*\b({targets})", modules_to_save=copies or None)


def learning_rate_of(parameter: str, default: float, learning_rates: Mapping[str, float | str]) -> float:
    """The learning rate of one parameter.

    Args:
        parameter: Its name.
        default: The trainer's rate.
        learning_rates: A component of `COMPONENTS`, or `lora_A` or `lora_B` -> a rate, or a factor such as `16x`. What
            is said of LoRA's matrices comes after what is said of their component.

    Raises:
        ConfigError: A name or a value is not of this kind.

    Source: of different rates for A and B, Hayou et al. 2024, "LoRA+: efficient low rank adaptation of large models".
    """
    rate = default
    for name in sorted(learning_rates, key=lambda part: part in ADAPTER_PARTS):
        if name not in COMPONENTS and name not in ADAPTER_PARTS:
            raise ConfigError(
                f"learning_rates: no such part `{name}`; there are {', '.join([*COMPONENTS, *ADAPTER_PARTS])}."
            )
        value = learning_rates[name]
        factor = value.removesuffix("x") if isinstance(value, str) and value.endswith("x") else None
        try:
            number = float(value if factor is None else factor)
        except ValueError:
            number = 0.0
        if not number > 0:
            raise ConfigError(
                f"learning_rates.{name} must be a positive number, or a factor such as 16x, got {value!r}."
            )
        if f".{name}." in parameter if name in ADAPTER_PARTS else belongs_to(parameter, name):
            rate = number if factor is None else rate * number
    return rate


def belongs_to(parameter: str, *components: str) -> bool:
    """Whether a parameter, also one of an adapter, is part of one of these components."""
    return any(f".{prefix}" in f".{parameter}" for name in components for prefix in COMPONENTS[name])
