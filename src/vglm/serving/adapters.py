"""Several adapters on one base model, each switched in and out quickly; the base stays unchanged.

    shelf = AdapterShelf(model)
    shelf.add("xray", Path("outputs/xray/lora/<time>/adapter"))
    with shelf.using("xray") as tuned: tuned(**inputs)
    with shelf.using(BASE) as base: base(**inputs)           bit for bit what a freshly loaded base computes

peft puts an adapter on a model by replacing some of its modules with wrappers around them. Here each adapter is
attached to the unchanged base, and its wrappers are removed again and kept; using the adapter means inserting them. So
adapters of different kinds can be combined without side effects, and the base's weights exist once.

peft also freezes the base's parameters, and PyTorch picks another kernel for frozen parameters, which rounds
differently. So `requires_grad` is switched too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from vglm.errors import AdapterError
from vglm.model.decoding import virtual_tokens
from vglm.model.lean_lora import make_lean
from vglm.model.loading import attach_adapter
from vglm.model.modeling import ENCODER_PARTS, VisualGlmForConditionalGeneration

BASE = "base"
"""The name of the model without any adapter."""


@dataclass(frozen=True)
class _Shelved:
    """An adapter that is not in use.

    Attributes:
        model: What to call for the first step: a `PeftModel`, which brings virtual tokens, or the base itself.
        wrappers: Name of a module of the base -> the wrapper that replaces it.
        folder: Where the adapter came from.
    """

    model: Any
    wrappers: dict[str, nn.Module] = field(default_factory=dict)
    folder: Path | None = None


class AdapterShelf:
    """A base model and the adapters that may be put on it.

    Args:
        base: The model, without adapters; only this shelf changes it from now on.
    """

    def __init__(self, base: VisualGlmForConditionalGeneration) -> None:
        self.base = base
        self._shelved: dict[str, _Shelved] = {BASE: _Shelved(base)}
        self._originals: dict[str, nn.Module] = {}
        self._unfrozen = [parameter for parameter in base.parameters() if parameter.requires_grad]
        self._active = BASE

    @property
    def names(self) -> list[str]:
        """What can be used, the base first."""
        return list(self._shelved)

    def folder(self, name: str) -> Path | None:
        """Where an adapter came from; None for the base."""
        return self._shelved[name].folder

    def virtual_tokens(self, name: str) -> int:
        """Tokens that an adapter puts before every prompt; 0 for most and for the base."""
        return virtual_tokens(self._shelved[name].model)

    def changes_vision(self, name: str) -> bool:
        """Whether pictures look otherwise with an adapter than with the base."""
        parts = [f"model.{part}." for part in ENCODER_PARTS]
        modules = [f"{module}." for module in self._shelved[name].wrappers]
        return any(module.startswith(part) or part.startswith(module) for module in modules for part in parts)

    def add(self, name: str, folder: Path, *, is_checked: bool = True) -> None:
        """Read an adapter.

        Args:
            name: What it is called from now on.
            folder: A peft adapter of any kind.
            is_checked: Whether to refuse an adapter that was made for another base.

        Raises:
            AdapterError: The name is taken, or the adapter cannot be put on this base.
        """
        if name in self._shelved:
            raise AdapterError(
                f"adapter {name!r} is there already; there are {', '.join(self.names)}. Name it otherwise."
            )
        self._activate(BASE)
        before = dict(self.base.named_modules())
        try:
            tuned = attach_adapter(self.base, folder, is_checked=is_checked).eval()
        finally:
            wrappers = self._take_off(before)
        for wrapper in wrappers.values():
            make_lean(wrapper)
        is_prompt = bool(getattr(tuned.active_peft_config, "is_prompt_learning", False))
        self._shelved[name] = _Shelved(tuned if is_prompt else self.base, wrappers, folder)

    @contextmanager
    def using(self, name: str) -> Iterator[Any]:
        """Use an adapter, or the base without any.

        Args:
            name: One of `names`.

        Yields:
            What to call with a prompt's inputs: the base, or around it a `PeftModel` that brings virtual tokens.

        Raises:
            AdapterError: There is no such adapter.
        """
        if name not in self._shelved:
            raise AdapterError(f"there is no adapter {name!r}; there are {', '.join(self.names)}.")
        self._activate(name)
        yield self._shelved[name].model

    def _activate(self, name: str) -> None:
        if name == self._active:
            return
        for path in self._shelved[self._active].wrappers:
            self._hang(path, self._originals[path])
        for path, wrapper in self._shelved[name].wrappers.items():
            self._hang(path, wrapper)
        self._freeze(name != BASE)
        self._active = name

    def _take_off(self, before: dict[str, nn.Module]) -> dict[str, nn.Module]:
        """Restore the base; returns the outermost modules that had come into it."""
        wrappers: dict[str, nn.Module] = {}
        for path, module in list(self.base.named_modules()):
            if path in before and before[path] is not module:
                wrappers[path] = module
        for path in wrappers:
            self._originals[path] = before[path]
            self._hang(path, before[path])
        if hasattr(self.base, "peft_config"):
            del self.base.peft_config
        self._freeze(False)
        return wrappers

    def _freeze(self, is_frozen: bool) -> None:
        for parameter in self._unfrozen:
            parameter.requires_grad_(not is_frozen)

    def _hang(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(self.base.get_submodule(parent), name, module)
