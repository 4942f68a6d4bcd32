"""Build components from their `_target_`, and decide which targets are allowed.

A config comes from anyone: a colleague's recipe, the `config.yaml` of a downloaded run. Its `_target_`s can name any
importable callable, and importing a module runs its code. So only these are built, and they are checked by name before
any import: the components that `conf/` itself names, peft's configs, and what the user names on the command line
(`--allow-target my_package`).
"""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from vglm.config.places import repo_root
from vglm.errors import ConfigError

OPTION = "--allow-target"
"""On the command line: what configs may build besides, a package or one name in it; can be given several times."""

UNRECORDED = "vglm.unrecorded"
"""Target of a component that was given as an object which no config describes, see `vglm.config.components`."""

_PACKAGES = ("vglm", "peft", "transformers")
_PEFT_CONFIG = re.compile(r"peft\.[A-Za-z0-9]+Config")
_NAMED = re.compile(r"(?:_target_:\s*|\$\{result_of:)([\w.]+)")
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")

_allowed: set[str] = set()


def allow_targets(*names: str) -> None:
    """Allow configs to build objects of these packages, modules or classes, until the process ends.

    Raises:
        ConfigError: A name is not one of Python's.
    """
    for name in names:
        if _NAME.fullmatch(f"{name}.x") is None:
            raise ConfigError(f"{OPTION} {name}: expected the name of a package, such as my_package.")
    _allowed.update(names)


@lru_cache(1)
def known_targets() -> frozenset[str]:
    """The components that the files of `conf/` name."""
    texts = (path.read_text(encoding="utf-8") for path in (repo_root() / "conf").rglob("*.yaml"))
    named = {name for text in texts for name in _NAMED.findall(text)}
    return frozenset(name for name in named if name.partition(".")[0] in _PACKAGES)


def is_ours(target: str) -> bool:
    """Whether a name belongs to the workbench or a library whose components it uses, wherever in it."""
    return target.partition(".")[0] in _PACKAGES


def refusal(target: object) -> str | None:
    """Why a target must not be built, or None where it may; nothing is imported."""
    if target == UNRECORDED:
        return "it was an object in Python, which no config describes; name it on the command line, or give it again"
    if not isinstance(target, str) or _NAME.fullmatch(target) is None:
        return f"{str(target)[:80]!r} is no name of a component, such as vglm.data.loading.load_dataset"
    if any(target == name or target.startswith(f"{name}.") for name in _allowed):
        return None
    if target in known_targets() or _PEFT_CONFIG.fullmatch(target):
        return None
    package = target.partition(".")[0]
    return (
        f"{target[:200]} may not be built: it is no component of conf/ and no peft config. If you trust it, add"
        f" {OPTION} {target[:200] if is_ours(target) else package[:200]}"
    )


def check_targets(config: Any) -> None:
    """Refuse a config that would build other targets, at any depth.

    Args:
        config: A config, or plain values.

    Raises:
        ConfigError: Names the first target that may not be built.
    """
    values = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    for target in targets_in(values):
        if reason := refusal(target):
            raise ConfigError(f"_target_: {reason}.")
        locate(str(target))


def targets_in(values: Any) -> Iterator[object]:
    """Every `_target_` of a config or of plain values, at any depth."""
    if isinstance(values, DictConfig | ListConfig):
        values = OmegaConf.to_container(values, resolve=True)
    if isinstance(values, Mapping):
        if "_target_" in values:
            yield values["_target_"]
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from targets_in(value)


def interpolation_in(values: object) -> str | None:
    """The first text in plain values that OmegaConf would replace: by a variable of the environment, by a call."""
    if isinstance(values, str):
        return values if "${" in values else None
    if isinstance(values, Mapping):
        values = [*values, *values.values()]
    if isinstance(values, list | tuple):
        return next((interpolation for value in values if (interpolation := interpolation_in(value))), None)
    return None


def locate(target: str) -> Any:
    """The object that a dotted name refers to: in a module, or in a class in a module, of its own package.

    Args:
        target: A name that `refusal` allows.

    Raises:
        ConfigError: The name leads out of its package, as `my_package.os.system` does.
        ImportError: There is no such module, or it cannot be imported.
        AttributeError: The module has nothing of that name.
    """
    package = target.partition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin is None:  # a folder that happens to be on the path
        raise ModuleNotFoundError(f"{package} is a folder without __init__.py, so it is no package", name=package)
    component = _walk(target, package)
    if not callable(component) or _home_of(component) != package:
        raise ConfigError(f"_target_: {target} is nothing of {package}'s own that can be called.")
    return component


def _walk(name: str, package: str) -> Any:
    """A module, or what it holds under a dotted name; other packages' modules are not walked through."""
    owner_name, _, attribute = name.rpartition(".")
    if not owner_name:
        return importlib.import_module(name)
    owner = _walk(owner_name, package)
    if inspect.ismodule(owner) and owner.__name__.partition(".")[0] != package:
        raise ConfigError(f"_target_: {name} leads into {owner.__name__}, which is not {package}'s.")
    try:
        return getattr(owner, attribute)
    except AttributeError:
        if not inspect.ismodule(owner) or not hasattr(owner, "__path__"):
            raise
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        raise


def _home_of(component: Any) -> str:
    """The package that a function or class is from."""
    module = getattr(component, "__module__", None)
    return str(module).partition(".")[0]


def build(component: Mapping[str, Any] | DictConfig, **keys: Any) -> Any:
    """Call a component's `_target_` with its keys and these, as `hydra.utils.instantiate`; exceptions are its own.

    Building is safe for untrusted configs: only what `refusal` allows is imported or called.

    Raises:
        ConfigError: A target, at any depth, may not be built; or plain values, as of a run, have an interpolation.
    """
    if not OmegaConf.is_config(component) and (interpolation := interpolation_in(component)):
        raise ConfigError(
            f"{interpolation[:200]!r} asks to be replaced by something else, which the config of a run never does."
        )
    check_targets(component)
    check_targets(keys)
    import hydra.utils
    from hydra.errors import InstantiationException

    try:
        return hydra.utils.instantiate(component, **keys)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None
