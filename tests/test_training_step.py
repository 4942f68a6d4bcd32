"""A training step waits for nothing on the way, and computes no gradient that nobody asked for."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback, TrainingArguments, set_seed

from benchmarks.training_step import count_step
from vglm.config import build, compose
from vglm.data.collator import Collator
from vglm.data.loading import load_dataset
from vglm.model.loading import load_pretrained
from vglm.model.modeling import LARGEST_LOGITS, summed_loss
from vglm.tuning.methods import attach
from vglm.tuning.trainer import WorkbenchTrainer

WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique_consecutive", "_unique2"}
"""Operations after which an accelerator's host knows a number, or a shape, that the device computed."""


@pytest.fixture
def make_trainer(random_model_folder: Path, few_shot_folder: Path, tmp_path: Path):
    def make(*overrides: str, packing: int | None = None, **options: Any) -> WorkbenchTrainer:
        set_seed(3)
        model, processor = load_pretrained(random_model_folder)
        fixed: dict[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 2, "logging_steps": 99}
        fixed |= {"save_strategy": "no", "use_cpu": True, "remove_unused_columns": False, "label_names": ["labels"]}
        fixed |= {"dataloader_pin_memory": False, "disable_tqdm": True, "report_to": []}
        arguments = TrainingArguments(output_dir=str(tmp_path), **(fixed | options))
        method = build(compose(overrides=list(overrides)).method)
        samples = load_dataset(few_shot_folder).train
        return WorkbenchTrainer(attach(model, method), arguments, samples, Collator(processor, packing=packing))

    return make


class _Watch(TrainerCallback):
    """Counts what the host waits for, step by step."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.steps: list[dict[str, int]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.counts.clear()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append(dict(self.counts))

    def run(self, trainer: WorkbenchTrainer) -> None:
        counts = self.counts

        class Operations(TorchDispatchMode):
            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                name = function.overloadpacket.__name__
                by_mask = name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple)
                if name in WAITS or (
                    by_mask and any(argument is not None and argument.dtype == torch.bool for argument in args[1])
                ):
                    counts[name] += 1
                return function(*args, **(kwargs or {}))

        class Conversions(TorchFunctionMode):
            def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if getattr(function, "__name__", "") in ("tolist", "numpy"):
                    counts[function.__name__] += 1
                return function(*args, **(kwargs or {}))

        trainer.add_callback(self)
        with Conversions(), Operations():
            trainer.train()


@pytest.mark.parametrize("overrides", [[], ["method=p_tuning"], ["method=p_tuning_v2"]])
def test_a_step_waits_once_for_all_that_came_of_it(make_trainer, overrides: list[str]) -> None:
    watch = _Watch()
    watch.run(make_trainer(*overrides, gradient_accumulation_steps=2))
    assert watch.steps == [{"tolist": 1}] * 3


def test_a_step_of_packed_rows_waits_once_more(make_trainer) -> None:
    watch = _Watch()
    watch.run(make_trainer(packing=64))
    assert watch.steps == [{"tolist": 1, "_local_scalar_dense": 1}] * 3  # transformers asks whether they are packed


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_no_gradient_is_computed_below_the_lowest_layer_that_trains(make_trainer, is_checkpointed: bool) -> None:
    lora = ["method.layers_to_transform=[1]", "method.target_modules=[attention.query_key_value]"]
    trainer = make_trainer(*lora, activation_checkpointing=is_checkpointed)
    model = trainer.model.get_base_model().model
    needed: dict[str, list[bool]] = {"below": [], "above": []}
    layers = model.language_model.layers
    layers[0].register_forward_hook(lambda *arguments: needed["below"].append(arguments[2].requires_grad))
    layers[1].register_forward_hook(lambda *arguments: needed["above"].append(arguments[2].requires_grad))
    gradients: set[str] = set()

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            gradients.update(name for name, parameter in trainer.model.named_parameters() if parameter.grad is not None)

    trainer.add_callback(Look())
    trainer.train()
    assert not any(needed["below"])
    assert all(needed["above"])
    assert gradients == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert all(".layers.1." in name for name in gradients)


@pytest.mark.parametrize(("dtype", "rounding", "share"), [(torch.float32, 1e-6, 1e-6), (torch.bfloat16, 1e-3, 1e-2)])
def test_a_loss_made_in_parts_is_the_loss(dtype: torch.dtype, rounding: float, share: float) -> None:
    torch.manual_seed(1)
    head = nn.Linear(16, 130_528, bias=False).to(dtype)
    states = torch.randn(300, 16, dtype=dtype)
    assert len(states) * head.out_features > LARGEST_LOGITS
    targets = torch.randint(head.out_features, (300,))
    results = []
    for loss_of in (summed_loss, lambda x, to, y: F.cross_entropy(to(x).float(), y, reduction="sum")):
        x = states.clone().requires_grad_()
        head.weight.grad = None
        loss = loss_of(x, head, targets)
        loss.backward()
        results.append((loss.detach(), x.grad, head.weight.grad))
    (loss, of_states, of_weight), expected = results
    assert loss.dtype == torch.float32
    assert abs(loss - expected[0]) <= rounding * expected[0]
    assert (of_states.float() - expected[1].float()).norm() <= share * expected[1].float().norm()
    assert (of_weight.float() - expected[2].float()).norm() <= share * expected[2].float().norm()


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyOptions"), reason="PyTorch before 2.13 makes all logits at once")
def test_logits_are_not_all_made_at_once() -> None:
    head = nn.Linear(16, 130_528, bias=False).requires_grad_(False)
    states = torch.randn(600, 16, requires_grad=True)
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest[0] = max(largest[0], result.numel())
            return result

    with Watch():
        summed_loss(states, head, torch.zeros(600, dtype=torch.int64)).backward()
    assert largest[0] <= LARGEST_LOGITS


def test_a_layer_of_the_full_size_launches_and_keeps_no_more_than_it_did() -> None:
    tokens = 4096
    one, two = (count_step(8, tokens // 8, layers=layers) for layers in (1, 2))
    layer = two - one
    assert layer.kernels <= 96
    assert layer.saved_bytes / tokens <= 149_000
    assert layer.moved / tokens <= 1_940_000
