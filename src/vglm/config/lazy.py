"""Defer optional imports of libraries: packages that they import only because those are installed.

    defer()
    import peft, transformers.trainer        without datasets, pandas and torch's compiler, four seconds of importing

A deferred package counts as installed, and is imported when an attribute of it is first used.

datasets (with pandas)      imported by transformers' Trainer, to tell whether a training set is one of its tables
wandb                       as datasets, where it is not asked for
scipy.optimize              imported by transformers' losses, for object detection
bitsandbytes                imported by peft; it compiles some functions on the way, for which torch loads its compiler.
                            They are compiled when they are first called

transformers scans the 1,600 files of its models twice at import. Here it scans them once, which saves half a second.

While the large libraries load, Python's garbage collector is off: it would scan all their objects again and again,
which takes a tenth of the time.
"""

import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_PUT_OFF = {"datasets": ("Dataset",), "wandb": (), "scipy.optimize": ("linear_sum_assignment",)}
"""What runs when something of it is used, and its names that others only compare with, or keep."""

_LARGE = ("peft", "torch", "transformers", "transformers.trainer")

_COMPILE_LATER = "bitsandbytes"

_SCANNING = "transformers.utils.import_utils"


def defer() -> None:
    """Put off what was not imported before; calling it again changes nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        library = next((name for name in _PUT_OFF if fullname.startswith(f"{name}.")), None)
        if library is not None:  # a part: the library itself runs first, and may bring it
            _run(sys.modules[library])
            loaded = sys.modules.pop(fullname, None)  # or the import system would take its own loader and run it again
            return None if loaded is None else importlib.util.spec_from_loader(fullname, _LoadedLoader(loaded))
        loader = _LOADERS.get(fullname)
        if loader is None:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = loader(spec.loader)
        return spec


class _Loader(Loader):
    """Another loader, with something before it."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


# --- modules that run when they are used ------------------------------------------------------------------------------


class _PutOff(ModuleType):
    """A module that has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":  # what the import system and inspections look for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name in _PUT_OFF[self.__name__]:
            return _Unmade(name, (), {"module": self})
        _run(self)
        return getattr(self, name)


class _Unmade(type):
    """A class of a module that has not run: nothing can be an instance of it yet."""

    module: ModuleType

    def __instancecheck__(cls, instance: object) -> bool:
        return not isinstance(cls.module, _PutOff) and isinstance(instance, getattr(cls.module, cls.__name__))

    def __getattr__(cls, name: str) -> Any:
        _run(cls.module)
        return getattr(getattr(cls.module, cls.__name__), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        _run(cls.module)
        return getattr(cls.module, cls.__name__)(*args, **kwargs)


class _PutOffLoader(_Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PutOff(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing yet."""


class _LoadedLoader(Loader):
    """Of a part that came with its library."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has run."""
        module.__spec__ = self.spec


def _run(module: ModuleType) -> None:
    """Run a module that was put off."""
    if isinstance(module, _PutOff):
        module.__class__ = ModuleType  # type: ignore[assignment]
        spec: Any = module.__spec__
        spec.loader = module.__loader__ = spec.loader.loader
        try:
            spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(module.__name__, None)  # as a failed import leaves it
            raise


# --- functions that are compiled when they are called -----------------------------------------------------------------


class _CompileLaterLoader(_Loader):
    def exec_module(self, module: ModuleType) -> None:
        """Run the module; what it compiles meanwhile is compiled at its first call."""
        import torch

        compile_now = torch.compile
        torch.compile = _later(compile_now)
        try:
            self.loader.exec_module(module)
        finally:
            torch.compile = compile_now


def _later(compile_now: Callable[..., Any]) -> Callable[..., Any]:
    def compile_later(model: Any = None, **settings: Any) -> Any:
        if model is None:
            return functools.partial(compile_later, **settings)

        @functools.cache
        def compiled() -> Any:
            return compile_now(model, **settings)

        @functools.wraps(model)
        def call(*args: Any, **kwargs: Any) -> Any:
            return compiled()(*args, **kwargs)

        return call

    return compile_later


# --- what transformers finds in its own files -------------------------------------------------------------------------


class _ScanOnceLoader(_Loader):
    def exec_module(self, module: ModuleType) -> None:
        """Run the module; what it makes of a folder is kept, whether that is named by a path, a text or its first file.

        Its own memory holds 128 folders, and there are 550.
        """
        self.loader.exec_module(module)
        part: Any = module
        original = part.create_import_structure_from_path
        scan = functools.cache(getattr(original, "__wrapped__", original))

        def structure_of(path: Any) -> Any:
            return scan(os.path.dirname(path) if os.path.isfile(path) else str(path))

        part.create_import_structure_from_path = structure_of


# --- libraries that load without pauses -------------------------------------------------------------------------------


class _WithoutCollection(_Loader):
    def exec_module(self, module: ModuleType) -> None:
        """Run the module while no garbage is collected."""
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            self.loader.exec_module(module)
        finally:
            if was_enabled:
                gc.freeze()  # what a library made stays
                gc.enable()


_LOADERS: dict[str, type[_Loader]] = {
    **dict.fromkeys(_PUT_OFF, _PutOffLoader),
    **dict.fromkeys(_LARGE, _WithoutCollection),
    _COMPILE_LATER: _CompileLaterLoader,
    _SCANNING: _ScanOnceLoader,
}
