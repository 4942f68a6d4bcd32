"""A plan: the memory, disk space and time that each stage of a run takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from peft import PeftModel
from transformers import Trainer

from vglm.data.feature_cache import bytes_of_a_picture
from vglm.errors import ConfigError, brief
from vglm.planning.budget import (
    BLAS_WORKSPACE,
    HEAD,
    PARTS,
    States,
    Step,
    attach_shapes,
    bytes_of_weights,
    count_parameters,
    optimizer_states,
    rehearse_answering,
    rehearse_encoding,
    rehearse_training,
    shape_model,
)
from vglm.planning.machine import CUDA_CONTEXT, Machine, own_memory
from vglm.planning.schedule import Rate, Schedule, count_steps
from vglm.planning.setting import SPARE_TOKENS, Setting
from vglm.tuning.components import belongs_to
from vglm.tuning.features import features_shape
from vglm.tuning.methods import CHANGES_BASE, NOT_SCORED_IN_SHARDS, check_shards

ENCODING, TRAINING, SCORING = "encoding", "training", "scoring"
OVERLAP = "never at one time"
"""What of the parts, each at its own most, is not held when most is held; negative."""
OWN = ("adapter", "gradients", "optimizer", "activations", "keys and values", "logits", "working memory", OVERLAP)
_ENCODED_AT_ONCE = 8
_DROPOUTS = ("attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        setting: What is asked for.
        machine: Where it is to run.
        processes: How many train together.
        parameters: Number by part of the model, without the adapter.
        trainable: Number of parameters that train.
        stages: Bytes by stage and by what they are for.
        host: Bytes of the host's memory while the model is loaded.
        paged: Bytes of optimizer states that the driver keeps in the host's memory when the GPU is full.
        disk: Bytes by what they are for.
        schedule: Steps and time.
        is_cached: Whether pictures are encoded once.
        step: The rehearsed training step.
        encoding: The rehearsed encoding of pictures; None where they are not cached.
    """

    setting: Setting
    machine: Machine
    processes: int
    parameters: dict[str, int]
    trainable: int
    stages: dict[str, dict[str, int]]
    host: int
    paged: int
    disk: dict[str, int]
    schedule: Schedule
    is_cached: bool
    step: Step = field(repr=False)
    encoding: Step | None = field(repr=False)

    def at(self, rate: Rate) -> "Plan":
        """The same at another rate."""
        schedule = _schedule(self.setting, self.step, self.encoding, rate, self.processes)
        return replace(self, schedule=schedule)

    @property
    def total(self) -> int:
        """Bytes of the stage that takes most."""
        return max(map(self.total_of, self.stages))

    def total_of(self, stage: str) -> int:
        """Bytes of one stage."""
        return sum(self.stages[stage].values())

    @property
    def fits(self) -> bool:
        """Whether the machine has so much memory."""
        return self.total <= self.machine.memory

    def as_dict(self) -> dict[str, Any]:
        """For scripts; all sizes in bytes, all times in seconds."""
        schedule = {name: value for name, value in vars(self.schedule).items() if name != "rate"}
        return {
            "recipe": self.setting.recipe,
            "machine": self.machine.name,
            "memory": self.machine.memory,
            "fits": self.fits,
            "total": self.total,
            "totals": {stage: self.total_of(stage) for stage in self.stages},
            "stages": self.stages,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "sizes_from": self.setting.sizes_from,
            "lengths_from": self.setting.lengths_from,
            "host": self.host,
            "paged": self.paged,
            "disk": self.disk,
            "processes": self.processes,
            "feature_cache": self.is_cached,
            "schedule": {**schedule, "seconds": self.schedule.seconds, "source": self.schedule.rate.source},
        }


_encodings: dict[tuple[Any, ...], Step] = {}
"""By all that they depend on: the changes that a plan weighs leave them as they are."""


def _encoding(base: Any, setting: Setting, fused_attention: bool) -> Step:
    parts = tuple(setting.quantization_parts or ())
    key = (setting.config.to_json_string(), setting.dtype, setting.quantization, parts, fused_attention)
    if key not in _encodings:
        _encodings[key] = rehearse_encoding(base, _ENCODED_AT_ONCE, fused_attention=fused_attention)
    return _encodings[key]


@dataclass(frozen=True)
class _Form:
    """All that the shapes of a model with its adapter depend on; many changes that a plan weighs leave them alone."""

    key: tuple[Any, ...]
    setting: Setting = field(compare=False)

    @classmethod
    def of(cls, setting: Setting) -> "_Form":
        parts = tuple(setting.quantization_parts or ())
        key = (setting.config.to_json_string(), setting.dtype, setting.quantization, parts, repr(setting.method))
        return cls(key, setting)


@dataclass(frozen=True)
class _Model:
    """A model of shapes and what is counted of it: the base's bytes and numbers by part, the adapter's bytes."""

    base: Any
    tuned: Any
    weights: dict[str, int]
    parameters: dict[str, int]
    largest_tensor: int
    adapter: int


@lru_cache(4)
def _model_of(form: _Form) -> _Model:
    setting = form.setting
    base: Any = shape_model(setting.config, setting.dtype, setting.quantization, setting.quantization_parts)
    weights, parameters = bytes_of_weights(base), count_parameters(base)
    largest_tensor = max(parameter.numel() for parameter in base.parameters()) * setting.dtype.itemsize
    own = {id(parameter) for parameter in base.parameters()}
    tuned: Any = attach_shapes(base, setting.method)
    adapter = sum(parameter.nbytes for parameter in tuned.parameters() if id(parameter) not in own)
    return _Model(base, tuned, weights, parameters, largest_tensor, adapter)


def make_plan(setting: Setting, machine: Machine, rate: Rate, processes: int = 1) -> Plan:
    """Rehearse the stages of a run.

    Args:
        setting: What is asked for.
        machine: Where it is to run; with several processes each has one such.
        rate: How fast it computes.
        processes: How many train together.

    Raises:
        ConfigError: It cannot be: the method does not fit the model, or FSDP cannot divide it.
    """
    arguments = setting.arguments
    if setting.fsdp:
        _refuse_division(setting, processes)
    model = _model_of(_Form.of(setting))
    base, tuned, weights, adapter = model.base, model.tuned, model.weights, model.adapter
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    try:
        optimizer = Trainer.get_optimizer_cls_and_kwargs(arguments, None)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"trainer.optim={arguments.optim}: {brief(error)}") from error
    states = optimizer_states(tuned, *optimizer, setting.method)
    fused = machine.is_gpu

    around = _surroundings(machine)
    stages: dict[str, dict[str, int]] = {}
    is_cached = setting.feature_cache and _can_be_cached(tuned, setting)
    encoded = None
    if is_cached:
        tuned.eval()  # a kept model may have been rehearsed in training
        encoded = _encoding(base, setting, fused)
        stages[ENCODING] = _stage(weights, {"adapter": adapter}, encoded, around)
        if isinstance(tuned, PeftModel) and setting.is_from_checkpoint:
            weights = {name: 0 if name in ("vision", "qformer") else n for name, n in weights.items()}
    step = rehearse_training(
        tuned,
        setting.batch(arguments.per_device_train_batch_size, is_cached=is_cached),
        autocast=setting.autocast,
        is_checkpointed=is_checkpointed(arguments),
        keeps_gradients=arguments.gradient_accumulation_steps > 1,
        fused_attention=fused,
    )
    stages[TRAINING] = _training(weights, adapter, states, step, around, setting, processes)
    if setting.scored:
        questions = min(arguments.per_device_eval_batch_size, setting.scored)
        batch = setting.batch(questions, with_answers=False, is_cached=is_cached)
        answering = rehearse_answering(tuned, batch, setting.longest_answer + SPARE_TOKENS, fused_attention=fused)
        stages[SCORING] = _stage(weights, {"adapter": adapter, "optimizer": states.on_device}, answering, around)
    if setting.fsdp:
        layers = setting.config.text_config.num_hidden_layers
        stages = {name: _divided(stage, layers, processes) for name, stage in stages.items()}
    schedule = _schedule(setting, step, encoded, rate, processes)
    trained_bytes = sum(parameter.nbytes for parameter in trained)
    return Plan(
        setting,
        machine,
        processes,
        model.parameters,
        sum(parameter.numel() for parameter in trained),
        stages,
        host=own_memory() + (model.largest_tensor if machine.is_gpu else sum(weights.values())),
        paged=states.paged,
        disk=_disk(setting, schedule, trained_bytes, states, is_cached, tuned, adapter, weights),
        schedule=schedule,
        is_cached=is_cached,
        step=step,
        encoding=encoded,
    )


def _refuse_division(setting: Setting, processes: int) -> None:
    """FSDP: it divides what is a float, among several, and what is divided is not asked while it trains."""
    check_shards(setting.method, setting.quantization)
    if setting.scored:
        raise ConfigError(NOT_SCORED_IN_SHARDS)
    if processes < 2:
        raise ConfigError("trainer.fsdp divides a model among several GPUs; say how many: --gpus 8.")


def is_checkpointed(arguments: Any) -> bool:
    """Whether a trainer computes layers again in the backward pass."""
    return bool(
        getattr(arguments, "activation_checkpointing", False) or getattr(arguments, "gradient_checkpointing", False)
    )


def _can_be_cached(tuned: Any, setting: Setting) -> bool:
    """Whether nothing between pixels and projection changes while it trains, see `vglm.tuning.features`."""
    if hasattr(setting.samples, "dialogues"):
        return False
    configs = (setting.config.vision_config, setting.config.qformer_config)
    if any(getattr(config, name, 0) for config in configs for name in _DROPOUTS):
        return False
    parts = ("vision", "qformer")
    return not any(parameter.requires_grad for name, parameter in tuned.named_parameters() if belongs_to(name, *parts))


def _surroundings(machine: Machine) -> dict[str, int]:
    if machine.is_gpu:
        return {"cuBLAS workspace": BLAS_WORKSPACE, "CUDA context": CUDA_CONTEXT}
    return {"Python and libraries": own_memory()}


def _stage(
    weights: Mapping[str, int], resident: Mapping[str, int], step: Step, around: Mapping[str, int]
) -> dict[str, int]:
    """The bytes of a stage: weights, what is held all the time, what comes and goes, and what is around it."""
    parts = {**dict.fromkeys(OWN, 0), **resident, **step.parts}
    parts[OVERLAP] = step.peak - sum(step.parts.values())
    return {**{name: weights[name] for name in PARTS}, **parts, **around}


def _training(
    weights: Mapping[str, int],
    adapter: int,
    states: States,
    step: Step,
    around: Mapping[str, int],
    setting: Setting,
    processes: int,
) -> dict[str, int]:
    """The training stage; of several processes one's share."""
    gradients = step.parts["gradients"]
    is_spelled_out = setting.arguments.optim == "adamw_torch" and "CUDA context" in around
    at_update = gradients * (2 if is_spelled_out else 1)  # each operation on all parameters, or one kernel
    step = Step(step.parts, max(step.peak, at_update), step.flops, step.operations)
    stage = _stage(weights, {"adapter": adapter, "optimizer": states.on_device}, step, around)
    if processes > 1 and not setting.fsdp:
        stage["reduction buckets"] = gradients  # a copy, see `DistributedDataParallel`
    return stage


def _divided(stage: dict[str, int], layers: int, processes: int) -> dict[str, int]:
    """A stage under FSDP: one's share, and what is gathered for the layer that computes; at most, see `OVERLAP`."""
    shared = {name: -(-stage[name] // processes) for name in (*PARTS, "adapter", "gradients", "optimizer")}
    gathered = 2 * (stage["language_model"] // layers) + stage["embeddings"] + stage[HEAD]  # and the next layer
    return {**stage, **shared, "gathered layers": gathered, OVERLAP: 0}


def _disk(
    setting: Setting,
    schedule: Schedule,
    trained: int,
    states: States,
    is_cached: bool,
    tuned: Any,
    adapter: int,
    weights: Mapping[str, int],
) -> dict[str, int]:
    arguments = setting.arguments
    checkpoint = trained + states.on_device + states.paged
    saved = 0
    if arguments.save_strategy == "steps":
        every = arguments.save_steps if arguments.save_steps >= 1 else arguments.save_steps * schedule.steps
        saved = int(schedule.steps // max(every, 1))
    elif arguments.save_strategy == "epoch":
        saved = round(schedule.epochs)
    count = min(saved, arguments.save_total_limit + 1) if arguments.save_total_limit else saved
    is_doubled = str(getattr(setting.method, "init_lora_weights", "")).lower().startswith(CHANGES_BASE)
    result = adapter * (2 if is_doubled else 1) if isinstance(tuned, PeftModel) else sum(weights.values())
    sizes = {"checkpoints": count * checkpoint, "result": result}
    if is_cached:
        sizes["feature cache"] = setting.pictures * bytes_of_a_picture(features_shape(setting.config), setting.dtype)
    return sizes


def _schedule(setting: Setting, step: Step, encoded: Step | None, rate: Rate, processes: int) -> Schedule:
    arguments = setting.arguments
    size, accumulated = arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps
    a_batch = setting.tokens_of_a_step(size)
    worst = setting.batch(size, is_cached=True)["input_ids"].numel()
    steps, epochs = count_steps(
        setting.sequences, size * accumulated * processes, arguments.max_steps, arguments.num_train_epochs
    )
    share = min(a_batch / worst, 1.0)
    seconds = accumulated * rate.seconds(step, share)
    encoding = 0.0
    if encoded is not None:
        encoding = setting.pictures / _ENCODED_AT_ONCE * rate.seconds(encoded, with_gradients=False) / processes
    return Schedule(steps, epochs, a_batch * accumulated * processes, seconds, share, encoding, rate)
