"""Merge an adapter into the weights: W + scale * B A for LoRA, and likewise for its variants.

    model = attach_adapter(base, Path("outputs/.../adapter"))
    merged, updates = merge_adapter(model, Path("outputs/.../adapter"), torch.float16)     a plain model, without peft
    str(updates["model.language_model.layers.0.attention.dense"])                          "|dW|/|W| 1.2e-02, ..."

Every module is merged in float64 and rounded once to the requested type, so the error of the update is the rounding of
that type only, and it is measured. A quantised base is dequantised first: in re-quantised 4-bit weights a typical
update vanishes, and the weights before quantisation are not those that the adapter was trained on.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from vglm.errors import AdapterError, ConfigError
from vglm.model.loading import attach_adapter
from vglm.model.modeling import VisualGlmForConditionalGeneration
from vglm.tuning.methods import CHANGES_BASE

_SHOWN_MODULES = 3


@dataclass(frozen=True)
class Combination:
    """How several LoRA adapters become one, see peft's `add_weighted_adapter`.

    Attributes:
        weights: A number for each adapter.
        method: `cat` is the exact weighted sum of the updates; `linear` adds up the matrices A and B apart, a rough
            approximation; the others prune or factorise.
        density: Share of the values that `ties` and `dare` keep.
        seed: Of the values that `dare` drops at random.
    """

    weights: Sequence[float]
    method: Literal["linear", "cat", "ties", "dare_linear", "dare_ties", "svd"] = "cat"
    density: float = 0.5
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ConfigError(f"--density must be above 0 and at most 1, got {self.density}.")


@dataclass(frozen=True)
class Update:
    """What happened to the weights of one module, in Frobenius norms.

    Attributes:
        weight: |W| before.
        update: |dW|, in exact arithmetic.
        rounding: What storing W + dW in the target type adds to or takes from it.
    """

    weight: float
    update: float
    rounding: float = 0.0

    @property
    def relative(self) -> float:
        """|dW| / |W|."""
        return self.update / self.weight if self.weight else float(self.update > 0)

    @property
    def noise(self) -> float:
        """Rounding error / |W|."""
        return self.rounding / self.weight if self.weight else 0.0

    def __str__(self) -> str:
        return f"|dW|/|W| {self.relative:.1e}" + (f", rounding {self.noise:.1e}" if self.rounding else "")


Updates = Mapping[str, Update]
"""Name of a module of the base model -> its update."""


def total(updates: Iterable[Update]) -> Update:
    """The updates taken as one long vector."""
    rows = [(update.weight, update.update, update.rounding) for update in updates]
    columns = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return Update(*columns.norm(dim=0).tolist())


def summarise(updates: Updates) -> dict[str, Any]:
    """The figures to print and for run.json: spread of |dW|/|W| over the modules, and the modules that moved most."""
    relative = sorted(update.relative for update in updates.values()) or [0.0]
    largest = sorted(updates, key=lambda name: updates[name].relative, reverse=True)[:_SHOWN_MODULES]
    return {
        "modules": len(updates),
        "min": relative[0],
        "median": median(relative),
        "max": relative[-1],
        "largest": {name: updates[name].relative for name in largest},
    }


def is_prompt_adapter(model: PeftModel) -> bool:
    """Whether the adapter is made of virtual tokens, which have no place in the weights."""
    return bool(model.active_peft_config.is_prompt_learning)


@torch.no_grad()
def merge_adapter(
    model: PeftModel, adapter: Path, dtype: torch.dtype | None = None
) -> tuple[VisualGlmForConditionalGeneration, dict[str, Update]]:
    """Merge the adapter and drop peft.

    Args:
        model: The base with its adapter; it is used up.
        adapter: Where the adapter lies, to put it on the dequantised base of a quantised model.
        dtype: Type of the result; None for the base's own, of a quantised base the one it computes in.

    Returns:
        The plain model with every parameter in `dtype`, and the update of each merged module.

    Raises:
        AdapterError: The adapter cannot be merged: virtual tokens, or values that are not finite.
    """
    if is_prompt_adapter(model):
        raise AdapterError(
            f"adapter '{adapter}' is made of virtual tokens ({model.active_peft_config.peft_type.value}); they are no"
            " change of the weights, so there is nothing to merge. Use it beside its base:"
            " load_pretrained(base, adapter=...)."
        )
    base: Any = model.get_base_model()
    dtype = dtype or base.config.dtype or torch.float32
    updates = {name: _measure(before, after, dtype) for name, before, after in _tuned_copies(base)}
    if getattr(base, "is_quantized", False):
        model = attach_adapter(model.unload().dequantize(), adapter, is_checked=False)
        base = model.get_base_model()
    _part_head(base)
    layers: list[tuple[str, Any]] = [row for row in base.named_modules() if isinstance(row[1], BaseTunerLayer)]
    for name, layer in layers:
        module = layer.double().get_base_layer()
        before = module.weight.clone()
        try:
            with _without_merge_notes():
                layer.merge(safe_merge=True)
        except ValueError as error:
            raise AdapterError(f"adapter '{adapter}' cannot be merged into {name}: {error}") from error
        updates[name] = _measure(before, module.weight, dtype)
        module.to(dtype)
    merged: VisualGlmForConditionalGeneration = model.unload().to(dtype)
    for part in (merged.config, *(getattr(merged.config, name) for name in merged.config.sub_configs)):
        part.dtype = dtype
    return merged.eval(), updates


def _part_head(base: Any) -> None:
    """Give the output head a matrix of its own where it shares one and an adapter changes one of the two only."""
    head, embeddings = base.lm_head, base.get_input_embeddings()
    if isinstance(head, BaseTunerLayer) or isinstance(embeddings, BaseTunerLayer):
        head, embeddings = _plain(head), _plain(embeddings)
        if getattr(head, "weight", None) is embeddings.weight:
            head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _plain(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _measure(before: Tensor, after: Tensor, dtype: torch.dtype) -> Update:
    """The norms of an update that is given in float64 and will be stored in `dtype`."""
    return Update(
        before.norm().item(), (after - before).norm().item(), (after.to(dtype).double() - after).norm().item()
    )


def _tuned_copies(base: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, weight before and weight after, in float64, of each matrix that trained in full beside an adapter."""
    for name, wrapper in base.named_modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            tuned = dict(wrapper.modules_to_save[wrapper.active_adapters[0]].named_parameters())
            for part, weight in wrapper.original_module.named_parameters():
                if weight.ndim > 1:
                    module = f"{name}.{part}".removesuffix(".weight")
                    yield module, weight.detach().double(), tuned[part].detach().double()


def combine_adapters(
    base: VisualGlmForConditionalGeneration, adapters: Sequence[Path], combination: Combination, into: Path
) -> Path:
    """Make one adapter of several.

    Args:
        base: The model they were trained on; unchanged afterwards.
        adapters: Two or more adapter folders of one kind.
        combination: How.
        into: Folder to make.

    Returns:
        `into`, an adapter like the others.

    Raises:
        ConfigError: There are not as many weights as adapters, or peft cannot combine these adapters this way.
        AdapterError: One of them does not fit the base.
    """
    if len(combination.weights) != len(adapters):
        raise ConfigError(f"--weights: {len(adapters)} adapters need as many, got {len(combination.weights)}.")
    names = [f"adapter_{index}" for index in range(len(adapters))]
    model = attach_adapter(base, adapters[0], name=names[0], is_checked=False)
    if is_prompt_adapter(model):
        raise ConfigError(f"adapter '{adapters[0]}' is made of virtual tokens; only weights can be combined.")
    if str(getattr(model.active_peft_config, "init_lora_weights", "")).lower().startswith(CHANGES_BASE):
        raise ConfigError(f"adapter '{adapters[0]}' changes the base it is put on, so it cannot be combined.")
    method = combination.method
    options = {"density": combination.density} if method.startswith(("ties", "dare")) else {}
    try:
        for name, adapter in zip(names[1:], adapters[1:], strict=True):
            attach_adapter(model, adapter, name=name, is_checked=False)
        with torch.random.fork_rng():
            torch.manual_seed(combination.seed)
            weights = list(combination.weights)
            model.add_weighted_adapter(names, weights, "combined", combination_type=method, **options)
        model.save_pretrained(str(into.parent), selected_adapters=["combined"], save_embedding_layers=False)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        paths = " and ".join(map(str, adapters))
        raise ConfigError(f"{paths} cannot be combined by {method}: {error}") from error
    (into.parent / "combined").rename(into)
    (into.parent / "README.md").unlink(missing_ok=True)  # peft's unfilled model card
    model.unload()
    return into


@contextmanager
def _without_merge_notes() -> Iterator[None]:
    """Silence peft's advice about rounding; here it is measured."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Merge lora module", category=UserWarning)
        yield
