"""Training steps on this machine with random weights: of thin models to predict the time, of the planned to compare."""

import copy
import gc
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from vglm.errors import ConfigError, WorkbenchError
from vglm.model.configuration import VisualGlmConfig
from vglm.model.loading import assign, default_device, empty_model
from vglm.model.quantization import is_quantizable, make_quantizable, mark_quantized, quantization_config
from vglm.planning.budget import bytes_of_weights, set_dtype, without_values
from vglm.planning.plan import TRAINING, Plan, is_checkpointed
from vglm.planning.schedule import Rate
from vglm.planning.setting import Setting
from vglm.tuning.adalora import is_adalora
from vglm.tuning.methods import attach

_STEPS, _SECONDS = 3, 1.0
"""A step is timed at least so often, and for at least so long."""
_THIN = (1, 2)
"""Layers of the models by which the time of a step is predicted."""
_LONGEST = 5.0
"""Seconds of a step, at best, beyond which it is not tried out for a prediction."""
_SPREAD = 0.035


@dataclass(frozen=True)
class Comparison:
    """Prediction and measurement.

    Attributes:
        device: Where it was measured.
        predicted: Bytes of `weights`, `adapter`, `optimizer`, `gradients` and of the `peak`, all together.
        measured: Likewise.
        predicted_seconds: Of an optimizer step on batches of the longest rows.
        measured_seconds: Likewise.
        training_seconds: Of the whole training: steps as measured, the encoding of its pictures as predicted.
    """

    device: str
    predicted: dict[str, int]
    measured: dict[str, int]
    predicted_seconds: float
    measured_seconds: float
    training_seconds: float


def random_model(
    config: VisualGlmConfig,
    device: torch.device,
    dtype: torch.dtype,
    quantization: str | None = None,
    quantization_parts: Any = None,
) -> Any:
    """Make a model with random weights, tensor by tensor on the device, each quantised before the next is made.

    Args:
        config: The architecture; its types are set.
        device: Where to put it.
        dtype: Of what is not quantised.
        quantization: As in `load_pretrained`.
        quantization_parts: Likewise.
    """
    set_dtype(config, dtype)
    model = empty_model(config)
    if quantization is not None:
        tied = config.tie_word_embeddings
        make_quantizable(model, quantization_config(quantization, dtype, quantization_parts, is_head_tied=tied))
    torch.manual_seed(0)
    for name, form in list(model.named_parameters()):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        path, _, parameter = name.rpartition(".")
        value = torch.empty(form.shape, dtype=dtype, device=device)
        if form.ndim == 1:
            value.fill_(parameter == "weight")  # the norms
        else:
            value.uniform_(-_SPREAD, _SPREAD)
        module = model.get_submodule(path)
        if parameter == "weight" and is_quantizable(module):
            assign(model, name, value, device, dtype)
        else:
            setattr(module, parameter, nn.Parameter(value))
        del value
    model.tie_weights()
    if quantization is not None:
        mark_quantized(model)
    return model.eval()


@dataclass
class _Training:
    """A model with random weights that can be trained by a step, on the batch of the longest rows."""

    weights: dict[str, int]
    adapter: int
    tuned: Any
    optimizer: torch.optim.Optimizer
    step: Callable[[], int]


def _training(setting: Setting, device: torch.device, *, is_cached: bool, has_vision: bool) -> _Training:
    """Make what a setting asks for; a step returns the bytes of its gradients."""
    arguments = setting.arguments
    model = random_model(setting.config, device, setting.dtype, setting.quantization, setting.quantization_parts)
    weights, own = bytes_of_weights(model), {id(parameter) for parameter in model.parameters()}
    method = without_values(setting.method, setting.dtype)
    tuned: Any = attach(model, method)
    if not has_vision:
        model.model.drop_vision()
        gc.collect()
    tuned.train()
    if is_checkpointed(arguments):
        model.activation_checkpointing_enable()
    trained = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, None)
    optimizer = kind(trained, **options)
    batch = setting.batch(arguments.per_device_train_batch_size, is_cached=is_cached)
    inputs = {name: value.to(device) for name, value in batch.items()}

    def step() -> int:
        for _ in range(arguments.gradient_accumulation_steps):
            context = nullcontext() if setting.autocast is None else torch.autocast(device.type, setting.autocast)
            with context:
                loss = tuned(**inputs, use_cache=False).loss
            loss.backward()
        gradients: int = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
        optimizer.step()
        if is_adalora(tuned):
            tuned.base_model.update_and_allocate(1)
        optimizer.zero_grad()
        loss.item()  # waits for the device
        return gradients

    adapter = sum(parameter.nbytes for parameter in tuned.parameters() if id(parameter) not in own)
    return _Training(weights, adapter, tuned, optimizer, step)


def rate_of_thin_models(plan: Plan) -> Rate | None:
    """How fast this CPU computes the planned steps, by steps of models with few of the layers, each layer alike.

    Returns:
        None where these steps would take long, or fail: a layer that the method names, or a kernel, is missing.
    """
    setting, layers = plan.setting, plan.setting.config.text_config.num_hidden_layers
    expected = plan.schedule.rate.seconds(plan.step) * setting.arguments.gradient_accumulation_steps
    if layers <= max(_THIN) or expected * max(_THIN) / layers > _LONGEST:
        return None
    (few, more), least = _THIN, []
    try:
        for count in _THIN:
            training = _training(_thin(setting, count), default_device(), **_parts(plan))
            training.step()  # makes the optimizer's states
            least.append(_least_seconds(training.step))
    except (WorkbenchError, ValueError, LookupError, RuntimeError):
        return None
    first, second = least
    seconds = first + (layers - few) * max(second - first, 0.0) / (more - few)
    flops = plan.step.flops * setting.arguments.gradient_accumulation_steps / seconds
    return Rate(flops, 0.0, f"by steps of {few} and {more} of {layers} layers, just measured")


def _thin(setting: Setting, layers: int) -> Setting:
    """The same with few layers of the language model."""
    config = copy.deepcopy(setting.config)
    config.text_config.num_hidden_layers = layers
    return replace(setting, config=config)


def _parts(plan: Plan) -> dict[str, bool]:
    return {"is_cached": plan.is_cached, "has_vision": bool(plan.stages[TRAINING]["vision"])}


def measure(plan: Plan) -> Comparison:
    """Train some steps of the planned batch on this machine.

    Args:
        plan: One for this machine.

    Raises:
        ConfigError: It is for another, or does not fit.
    """
    setting = plan.setting
    if not plan.machine.is_here or plan.processes > 1:
        raise ConfigError("--measure trains on this machine, in one process; leave out --gpu and --gpus.")
    if not plan.fits:
        raise ConfigError("--measure: the run does not fit on this machine. Change it as suggested, then measure.")
    device = default_device()
    training = _training(setting, device, **_parts(plan))
    tuned, weights = training.tuned, training.weights
    gradients = training.step()  # makes the optimizer's states
    states = sum(
        value.nbytes
        for state in training.optimizer.state.values()
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and not name.startswith("qmap")
    )
    if is_adalora(tuned):
        allocator = tuned.base_model.rankallocator
        averages = (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc)
        states += sum(tensor.nbytes for average in averages for tensor in average.values())
    stage = plan.stages[TRAINING]
    weight_bytes = sum(n for name, n in weights.items() if stage[name])
    peak, seconds = _watch(training.step, device, weight_bytes + training.adapter + states)
    outside = ("CUDA context", "Python and libraries")
    predicted = {
        "weights": sum(stage[name] for name in weights),
        **{name: stage[name] for name in ("adapter", "optimizer", "gradients")},
        "peak": sum(size for name, size in stage.items() if name not in outside),
    }
    measured = {
        "weights": weight_bytes,
        "adapter": training.adapter,
        "optimizer": states,
        "gradients": gradients,
        "peak": peak,
    }
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
    schedule = plan.schedule
    whole = replace(schedule, step_seconds=seconds * schedule.share).seconds
    return Comparison(where, predicted, measured, schedule.step_seconds / schedule.share, seconds, whole)


def _watch(step: Callable[[], object], device: torch.device, before: int) -> tuple[int, float]:
    """The highest memory of a step, and the seconds of one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = before + _allocated(step)
    return peak, _least_seconds(step)


def _least_seconds(step: Callable[[], object]) -> float:
    """The least seconds of some steps, which other work on the machine disturbs least."""
    times: list[float] = []
    while len(times) < _STEPS or sum(times) < _SECONDS:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def _allocated(step: Callable[[], object]) -> int:
    """The most that PyTorch's allocator on the CPU held at one time, beyond what it held before."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it logs when it starts and stops
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = most = 0
    for event in sorted(events, key=lambda allocation: allocation.start_ns()):
        current += event.nbytes()
        most = max(most, current)
    return most
