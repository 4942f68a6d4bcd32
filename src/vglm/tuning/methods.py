"""What trains: a peft adapter beside the frozen base, or chosen parts of the model itself.

    model = attach(model, peft.LoraConfig(r=8, ...))            a PeftModel; only the adapter's parameters train
    model = attach(model, FullTuning(["projection"]))           the same model; only that component trains
    save(model, processor, folder)                              folder/adapter/, or folder/model/ after full tuning

Both sides of the contract are checked when the method is attached: what is declared trains, and nothing else does.
"""

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peft import PeftConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from vglm.errors import ConfigError
from vglm.model.identity import write_record
from vglm.model.loading import save_native
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.tuning.run_folder import whole_folder

COMPONENTS: dict[str, tuple[str, ...]] = {
    "vision": ("model.vision_model.",),
    "qformer": ("model.qformer.", "model.query_tokens"),
    "projection": ("model.language_projection.",),
    "language_model": ("model.language_model.layers.", "model.language_model.final_layernorm."),
    "embeddings": ("model.language_model.word_embeddings.", "lm_head."),
}
"""The parts of a VisualGLM by the prefixes of their parameters; together they cover every parameter."""


Tuned = VisualGlmForConditionalGeneration | PeftModel
"""What training works on: the model itself, or peft's wrapper with its adapter."""


@dataclass(frozen=True)
class FullTuning:
    """No adapter: the parameters of some components train, the others are frozen.

    Attributes:
        components: Names from `COMPONENTS`.
    """

    components: Sequence[str] = field(default_factory=lambda: list(COMPONENTS))

    def __post_init__(self) -> None:
        if not self.components:
            raise ConfigError(f"components is empty, so nothing would train. Choose from {', '.join(COMPONENTS)}.")
        for name in self.components:
            if name not in COMPONENTS:
                close = difflib.get_close_matches(name, COMPONENTS, n=1)
                hint = f"did you mean `{close[0]}`?" if close else f"choose from {', '.join(COMPONENTS)}."
                raise ConfigError(f"components: there is no `{name}`; {hint}")


@dataclass(frozen=True)
class TrainableShare:
    """How much of a model trains.

    Attributes:
        trainable: Number of parameters with gradients.
        total: Number of all parameters, the adapter's included.
    """

    trainable: int
    total: int

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters train ({self.trainable / self.total:.2%})"


def attach(model: VisualGlmForConditionalGeneration, method: PeftConfig | FullTuning) -> Tuned:
    """Freeze the base and make trainable what the method declares.

    A quantised base stays as it was loaded: peft's own preparation for it turns all half-precision weights into
    float32, at full size 8 GB for the parts that are not quantised, and the base would no longer be the one that is
    evaluated and merged. Adapters are kept in float32 in any case.

    Args:
        model: The base model.
        method: A peft config, whose adapter is added, or the components that train themselves.

    Returns:
        A `PeftModel` around the base, or the base itself after full tuning's choice.

    Raises:
        ConfigError: The method does not fit the model: no module matches, or what trains is not what was declared.
    """
    base = dict(model.named_parameters())
    if isinstance(method, FullTuning):
        if getattr(model, "is_quantized", False):
            raise ConfigError("method: a quantised model cannot be tuned itself. Use LoRA, or leave out quantization.")
        prefixes = tuple(prefix for name in method.components for prefix in COMPONENTS[name])
        for name, parameter in base.items():
            parameter.requires_grad_(name.startswith(prefixes))
        declared = {name for name in base if name.startswith(prefixes)}
        tuned: Tuned = model
    else:
        try:
            with warnings.catch_warnings():  # peft still asks for a property that transformers has renamed
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                tuned = get_peft_model(model, method)
        except ValueError as error:
            raise ConfigError(f"method: {type(method).__name__} does not fit this model: {error}") from error
        base_ids = {id(parameter) for parameter in base.values()}
        declared = {
            name
            for name, parameter in tuned.named_parameters()
            if id(parameter) not in base_ids and ".base_layer." not in name  # DoRA makes an int8 weight anew
        }
    training = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    if not declared or training != declared:
        odd = sorted(training ^ declared)
        raise ConfigError(
            f"method: {len(declared)} parameters were declared and {len(training)} would train"
            f" (differing: {', '.join(odd[:3]) or 'none'}). A method trains exactly what it declares."
        )
    return tuned


def trainable_share(model: Tuned) -> TrainableShare:
    """Count the parameters that train; tied ones count once, quantised ones as stored."""
    parameters = list(model.parameters())
    return TrainableShare(sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters))


def lora_scale(model: Tuned) -> str | None:
    """The factor of LoRA's update, alpha / r (for rsLoRA alpha / sqrt(r)): one value, or the range over the modules."""
    scales = {scale for each in model.modules() if isinstance(each, LoraLayer) for scale in each.scaling.values()}
    return None if not scales else "-".join(f"{scale:g}" for scale in sorted({min(scales), max(scales)}))


def save(model: Tuned, processor: VisualGlmProcessor, run_folder: Path) -> Path:
    """Write what was trained, whole or not at all.

    Args:
        model: As returned by `attach`.
        processor: Saved beside a whole model; an adapter uses its base's.
        run_folder: Gets `adapter/` (peft's own format, a few MB, with a note of its base model) or, after full tuning,
            `model/`.

    Returns:
        The folder written.
    """
    if not isinstance(model, PeftModel):
        save_native(model, processor, run_folder / "model")
        return run_folder / "model"
    with whole_folder(run_folder / "adapter") as folder:
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's unfilled model card
        write_record(folder, model.get_base_model())
    return run_folder / "adapter"
