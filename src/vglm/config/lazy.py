"""Libraries that others import only because they are installed load when something of them is used.

    defer()
    import peft                 imports bitsandbytes by itself, which would take two seconds; here it is put off
    bitsandbytes.nn             the first name that is asked of it loads it

Nothing is hidden: a library that is put off counts as installed, has its version, and is the same module once loaded.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

PUT_OFF = ("bitsandbytes", "datasets", "wandb")
"""bitsandbytes compiles functions when it is imported, and loads torch's compiler for that; datasets loads pandas."""


class _PutOff(ModuleType):
    """A module that has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # what the import system and inspections look for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        _load(self)
        return getattr(self, name)


def _load(module: ModuleType) -> None:
    """Run a module that was put off."""
    if isinstance(module, _PutOff):
        module.__class__ = ModuleType
        try:
            module.__spec__.loader.run(module)  # type: ignore[union-attr]
        except BaseException:
            sys.modules.pop(module.__name__, None)  # as a failed import leaves it
            raise


class _PutOffLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PutOff(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing yet."""

    def run(self, module: ModuleType) -> None:
        """Run the module."""
        self.loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _LoadedLoader(Loader):
    """Of a part that came with its library."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it has run."""


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        library = fullname.partition(".")[0]
        if library not in PUT_OFF:
            return None
        if fullname != library:  # a part of a library: the library itself runs first, and may bring it
            _load(sys.modules[library])
            loaded = sys.modules.get(fullname)
            return None if loaded is None else importlib.util.spec_from_loader(fullname, _LoadedLoader())
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _PutOffLoader(spec.loader)
        return spec


def defer() -> None:
    """Put off what was not imported before; calling it again changes nothing."""
    if not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
