"""What trains: a peft adapter beside the frozen base, or chosen parts of the model itself.

    model = attach(model, peft.LoraConfig(r=8, ...))                          a PeftModel; only the adapter trains
    model = attach(model, ComponentTuning(projection="full"))                 the same model; only that component trains
    model = attach(model, ComponentTuning(language_model="lora", projection="full", lora=peft.LoraConfig(r=8)))
    save(model, processor, folder, ending="")           folder/adapter/, or folder/model/ where no adapter is involved

When a method is attached, it is checked that exactly the declared parameters train.
"""

import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import AdaLoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import CONFIG_NAME, ModulesToSaveWrapper
from safetensors.torch import save_file
from transformers import TrainingArguments

from vglm.errors import ConfigError, WorkbenchError
from vglm.files import replaced_folder
from vglm.model.half_lora import HALF, compute_in_type_of_base
from vglm.model.identity import stored_weights, write_record
from vglm.model.loading import save_native
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.model.processing import VisualGlmProcessor
from vglm.tuning.adalora import keep_counters_fixed
from vglm.tuning.components import COMPONENTS, ComponentTuning, belongs_to, learning_rate_of

CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Initialisations of LoRA that take the adapter's start out of the base weights."""

NOT_SCORED_IN_SHARDS = (
    "checkpoints of a model in shards (FSDP, DeepSpeed) are not scored while it trains: each token of an answer would"
    " gather all weights anew. Set checkpoint_selection.score_checkpoints=false; evaluate.py scores the result."
)

_MODULE_NAMES = ("target_modules", "modules_to_save", "feedforward_modules", "trainable_token_indices")
"""What a peft config calls modules by their names in."""

Tuned = VisualGlmForConditionalGeneration | PeftModel
"""What training works on: the model itself, or peft's wrapper with its adapter."""

Method = PeftConfig | ComponentTuning

logger = logging.getLogger(__name__)


def check_method(
    method: Method,
    arguments: TrainingArguments,
    learning_rates: Mapping[str, float | str],
    quantization: str | None,
    dtype: str | None = None,
) -> None:
    """Refuse what cannot go together, before any weights load.

    Args:
        method: What trains.
        arguments: Of the trainer.
        learning_rates: See `learning_rate_of`.
        quantization: Of the base.
        dtype: Of the base, as in `load_pretrained`.

    Raises:
        ConfigError: With the reason.
    """
    _check_machine(arguments, dtype)
    if arguments.fp16 and dtype == "float16" and isinstance(method, ComponentTuning) and method.that_are("full"):
        raise ConfigError(
            "trainer.fp16=true scales gradients, which float16 weights that train themselves cannot have. Load them in"
            " full precision, model.dtype=float32, or train with model.dtype=bfloat16 trainer.bf16=true."
        )
    kind = method.peft_type if isinstance(method, PeftConfig) else None
    adapter = method.lora if isinstance(method, ComponentTuning) else method
    if kind is PeftType.PREFIX_TUNING and (arguments.activation_checkpointing or arguments.gradient_checkpointing):
        raise ConfigError(
            "method: P-tuning v2 does not go with trainer.activation_checkpointing: its keys and values come in"
            " a cache, which checkpointing turns off. It needs little memory; leave checkpointing out."
        )
    if isinstance(method, ComponentTuning) and not method.that_are("lora") and quantization:
        raise ConfigError("method: a quantised model cannot be tuned itself. Use LoRA, or leave out quantization.")
    if arguments.fsdp:
        check_shards(method, quantization)
    if quantization and _changes_base(adapter):
        raise ConfigError(
            f"method: {_initialization(adapter)} takes the adapter's start out of the base's weights, which a quantised"
            " base cannot give. Leave out init_lora_weights or quantization."
        )
    if isinstance(method, AdaLoraConfig) and method.total_step != arguments.max_steps:
        raise ConfigError(
            f"method.total_step is {method.total_step} and trainer.max_steps {arguments.max_steps}: AdaLoRA plans its"
            " ranks over the whole training, so they must be equal."
        )
    for name, rate in learning_rates.items():
        learning_rate_of(f".{name}.", arguments.learning_rate, {name: rate})


def _check_machine(arguments: TrainingArguments, dtype: str | None) -> None:
    """Refuse what this machine, or this number of processes, cannot do."""
    is_cpu = arguments.device.type == "cpu"
    if arguments.fp16 and is_cpu:
        raise ConfigError(
            "trainer.fp16=true needs an accelerator, and training would be on the CPU. Use trainer.bf16=true, or leave"
            " both out."
        )
    if arguments.bf16 and is_cpu and dtype == "float16":
        raise ConfigError(
            "trainer.bf16=true and model.dtype=float16 do not mix on the CPU. Use model.dtype=bfloat16 or float32, or"
            " leave out trainer.bf16."
        )
    if arguments.fsdp and arguments.world_size == 1:
        raise ConfigError(
            "trainer.fsdp divides a model among several processes, and this is one. Leave it out, or start one for each"
            " GPU: torchrun --nproc_per_node <GPUs> train.py"
        )


def check_shards(method: Method, quantization: str | None) -> None:
    """Refuse what FSDP cannot divide.

    Args:
        method: What trains.
        quantization: Of the base.

    Raises:
        ConfigError: With the reason.
    """
    if quantization in ("int8", "int8_fast"):
        raise ConfigError(
            "trainer.fsdp divides floats, which the bytes of 4-bit weights can pass for and int8 cannot. Use"
            " model.quantization=nf4, or leave out trainer.fsdp: with a quantised base each GPU has room for the whole."
        )
    if isinstance(method, AdaLoraConfig):
        raise ConfigError(
            "trainer.fsdp does not go with AdaLoRA, which compares whole matrices in every step. Use method=lora, or"
            " leave out trainer.fsdp."
        )


@dataclass(frozen=True)
class TrainableShare:
    """How much of a model trains.

    Attributes:
        trainable: Number of parameters with gradients.
        total: Number of all parameters, the adapter's included.
        scale: LoRA's, see `lora_scale`.
    """

    trainable: int
    total: int
    scale: str | None = None

    def __str__(self) -> str:
        scale = f", scale alpha/r {self.scale}" if self.scale else ""
        return f"{self.trainable:,} of {self.total:,} parameters train ({self.trainable / self.total:.2%}){scale}"


def attach(model: VisualGlmForConditionalGeneration, method: Method) -> Tuned:
    """Freeze the base and make trainable what the method declares.

    A quantised base stays as it was loaded: peft's own preparation for it turns all half-precision weights into
    float32, at full size 8 GB for the parts that are not quantised, and the base would no longer be the one that is
    evaluated and merged. Adapters are kept in float32 in any case; LoRA beside half-precision weights computes in
    their type, see `vglm.model.half_lora`.

    Args:
        model: The base model.
        method: A peft config, whose adapter is added, or the components that train themselves.

    Returns:
        A `PeftModel` around the base, or the base itself after full tuning's choice.

    Raises:
        ConfigError: The method does not fit the model: no module matches, or what trains is not what was declared.
    """
    base = dict(model.named_parameters())
    if isinstance(method, ComponentTuning) and not method.that_are("lora"):
        if getattr(model, "is_quantized", False):
            raise ConfigError("method: a quantised model cannot be tuned itself. Use LoRA, or leave out quantization.")
        prefixes = tuple(prefix for name in method.that_are("full") for prefix in COMPONENTS[name])
        for name, parameter in base.items():
            parameter.requires_grad_(name.startswith(prefixes))
        declared = {name for name in base if name.startswith(prefixes)}
        tuned: Tuned = model
    else:
        frozen: list[str] = []
        config: PeftConfig
        if isinstance(method, ComponentTuning):
            layers, is_tied = model.config.text_config.num_hidden_layers, model.config.tie_word_embeddings
            config, frozen = method.adapter(layers, is_tied=is_tied), method.that_are("frozen")
        else:
            config = method
        _refuse_absent(model, config)
        try:
            with warnings.catch_warnings():  # peft still asks for a property that transformers has renamed
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                warnings.filterwarnings("ignore", ".*ensure_weight_tying", UserWarning)  # merging parts the two
                tuned = get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(f"method: {type(method).__name__} does not fit this model: {error}") from error
        keep_counters_fixed(tuned)
        compute_in_type_of_base(tuned)
        if _changes_base(config):
            if model.dtype != torch.float32:
                raise ConfigError(
                    f"method: {_initialization(config)} takes the adapter's start out of the base's weights, and what"
                    f" is left of them is rounded to {str(model.dtype).removeprefix('torch.')}. Load the base in full"
                    " precision: model.dtype=float32."
                )
            start = get_peft_model_state_dict(tuned)
            _start_of[tuned] = {name: value.detach().cpu().clone() for name, value in start.items()}
        base_ids = {id(parameter) for parameter in base.values()}
        declared = {
            name
            for name, parameter in tuned.named_parameters()
            if id(parameter) not in base_ids
            and ".base_layer." not in name  # DoRA recreates an int8 weight
            and ".ranknum." not in name  # AdaLoRA's counters
        }
        declared = {name for name in declared if not belongs_to(name, *frozen)}
    training = {name for name, parameter in tuned.named_parameters() if parameter.requires_grad}
    if not declared or training != declared:
        odd = sorted(training ^ declared)
        raise ConfigError(
            f"method: {len(declared)} parameters were declared and {len(training)} would train"
            f" (differing: {', '.join(odd[:3]) or 'none'}). A method trains exactly what it declares."
        )
    return tuned


def warn_of_half_weights(model: Tuned) -> None:
    """Say that weights of half precision lose the small changes that they learn; adapters are float32 in any case.

    Args:
        model: As from `attach`.
    """
    half = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} & set(HALF)
    if half:
        logger.warning(
            "what trains is %s itself, without a copy in float32: a change below 1/%d of a weight is lost to rounding."
            " model.dtype=float32 trainer.bf16=true keeps all of them, for twice the memory of the weights.",
            " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in half)),
            round(2 / max(torch.finfo(dtype).eps for dtype in half)),
        )


def _refuse_absent(model: VisualGlmForConditionalGeneration, config: PeftConfig) -> None:
    """Refuse names of modules that do not exist, which peft ignores."""
    modules = [name for name, _ in model.named_modules() if name]
    ends = {
        ".".join(parts[index:]) for module in modules for parts in [module.split(".")] for index in range(len(parts))
    }
    absent = []
    for key in _MODULE_NAMES:
        names = getattr(config, key, None)
        if isinstance(names, list | set | tuple | dict):  # a text is a pattern, or all-linear
            absent += [(key, name) for name in sorted(filter(_is_text, names)) if name not in ends]
    if absent:
        leaves = sorted({module.rpartition(".")[2] for module in modules if not module.rpartition(".")[2].isdecimal()})
        near = difflib.get_close_matches(absent[0][1].rpartition(".")[2], leaves, n=1)
        raise ConfigError(
            f"method: {type(config).__name__} does not fit this model, which has no module of the name"
            f" {', '.join(f'{name} ({key})' for key, name in absent[:5])}: nothing of it would be trained or saved."
            f" {f'Did you mean {near[0]}? ' if near else ''}Modules are named by their ends, such as lm_head,"
            " word_embeddings, language_projection or layers.0.attention.query_key_value."
        )


def _is_text(name: object) -> bool:
    return isinstance(name, str)


@contextmanager
def untuned(model: Tuned) -> Iterator[None]:
    """Use a model that no step was made with as it was before `attach`.

    An adapter is switched off: not every one starts as nothing, virtual tokens least of all. Where it was taken out of
    the base's weights, only both together are the base.
    """
    if isinstance(model, PeftModel) and model not in _start_of:
        with model.disable_adapter():
            yield
    else:
        yield


def trainable_share(model: Tuned) -> TrainableShare:
    """Count the parameters that train; tied ones count once, quantised ones as stored."""
    parameters = list(model.parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return TrainableShare(trainable, sum(parameter.numel() for parameter in parameters), lora_scale(model))


def lora_scale(model: Tuned) -> str | None:
    """The factor of LoRA's update, alpha / r (for rsLoRA alpha / sqrt(r)): one value, or the range over the modules."""
    scales = {scale for module in model.modules() if isinstance(module, LoraLayer) for scale in module.scaling.values()}
    return None if not scales else "-".join(f"{scale:g}" for scale in sorted({min(scales), max(scales)}))


_start_of: WeakKeyDictionary[PeftModel, dict[str, torch.Tensor]] = WeakKeyDictionary()
"""The adapter's tensors before training, where the base was changed by them; `save` takes them off again."""


def share_start(model: torch.nn.Module, copied: torch.nn.Module) -> None:
    """Have a copy of a model be saved as the model itself is, see `save`."""
    if isinstance(model, PeftModel) and isinstance(copied, PeftModel) and model in _start_of:
        _start_of[copied] = _start_of[model]


def _initialization(config: PeftConfig | None) -> str:
    return str(getattr(config, "init_lora_weights", "")).lower()


def _changes_base(config: PeftConfig | None) -> bool:
    return _initialization(config).startswith(CHANGES_BASE)


def save(model: Tuned, processor: VisualGlmProcessor, run_folder: Path, ending: str = "") -> Path:
    """Write what was trained, whole or not at all.

    PiSSA, OLoRA and their like are saved as plain LoRA of twice the rank, W + BA - B0 A0, which fits the unchanged
    base; so the adapter can be switched off, merged and combined as any other.

    Args:
        model: As returned by `attach`.
        processor: Saved beside a whole model; an adapter uses its base's.
        run_folder: Gets `adapter` (peft's own format, a few MB, with a note of its base model) or, after full tuning,
            `model`.
        ending: Of the folder's name. An earlier one of that name is replaced.

    Returns:
        The folder written.
    """
    kind, marker = ("adapter", CONFIG_NAME) if isinstance(model, PeftModel) else ("model", "config.json")
    result = run_folder / f"{kind}{ending}"
    with replaced_folder(result, marker=marker, error=WorkbenchError) as folder, TemporaryDirectory() as start:
        if not isinstance(model, PeftModel):
            save_native(model, processor, folder)
            return result
        is_changed = model in _start_of
        if is_changed:
            save_file(_start_of[model], Path(start) / "adapter_model.safetensors")
        with warnings.catch_warnings():  # this very conversion is what peft then advises
            warnings.filterwarnings("ignore", ".* changes the base weights of the model", UserWarning)
            model.save_pretrained(
                str(folder),
                save_embedding_layers=False,
                path_initial_model_for_weight_conversion=start if is_changed else None,
            )
        (folder / "README.md").unlink(missing_ok=True)  # peft's unfilled model card
        write_record(folder, model.get_base_model())
    return result


def saved_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """What `save` has to write of an adapter, tensor by tensor, as it is in memory."""
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    for name, start in _start_of.get(model, {}).items():
        if ".lora_A." in name:
            tensors[name] = torch.cat((tensors[name], start.to(tensors[name].device)), dim=0)
        elif ".lora_B." in name:
            tensors[name] = torch.cat((tensors[name], -start.to(tensors[name].device)), dim=1)
    return tensors


@torch.no_grad()
def take_off(model: PeftModel) -> Any:
    """The base as it was before `attach`, in the memory that it has; the adapter is used up."""
    base: Any = model.get_base_model()
    if model.active_peft_config.is_prompt_learning:
        return base
    wrapped = [(name, module) for name, module in base.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    for name, wrapper in wrapped:  # in whose place peft would leave what was trained
        base.set_submodule(name, wrapper.original_module)
    start = _start_of.get(model, {})
    changed: dict[str, Any] = {
        name: module for name, module in base.named_modules() if start and isinstance(module, LoraLayer)
    }
    tuner: Any = model
    tuner.unload()
    for name, layer in changed.items():
        weight = base.get_submodule(name).weight
        if (stored := stored_weights(base)) is not None:
            weight.copy_(stored[f"{name}.weight"])
        else:
            matrix_a, matrix_b = (start[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
            update = layer.scaling["default"] * (matrix_b @ matrix_a).to(weight.device)
            weight += update.T if layer.fan_in_fan_out else update
    return base
