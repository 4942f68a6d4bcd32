"""Components as a caller passes them: an object, the name of a file in `conf/`, or the content of such a file.

    component("method")                        that of conf/train.yaml: conf/method/lora.yaml
    component("method", "p_tuning")            conf/method/p_tuning.yaml
    component("trainer", {"max_steps": 20})    the default with another value
    component("method", peft.LoraConfig())     the object

    describe(peft.LoraConfig(r=4))             {"_target_": "peft.LoraConfig", "_convert_": "all", "r": 4}

The result of `describe` is saved in a run's `config.yaml`, from which the command line resumes the run.
"""

import dataclasses
import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from enum import Enum
from functools import cache
from typing import Any, ParamSpec, TypeVar

from vglm.config.places import repo_root
from vglm.config.targets import UNRECORDED, refusal
from vglm.errors import ConfigError

Component = Mapping[str, Any]
"""A `_target_` and its arguments, as a file of `conf/` holds them."""

P = ParamSpec("P")
T = TypeVar("T")

_COMPONENT = "_component"
"""Attribute of an object that records how it was made."""


def component(group: str, value: Any = None) -> Any:
    """A value as a component, with what was left out filled in from `conf/`.

    Args:
        group: A key of `conf/train.yaml` that holds a component.
        value: None for the default; the name of a file in `conf/<group>/`; keys and values to put over the default; a
            whole component, with a `_target_`. Anything else is an object, and is returned.

    Raises:
        ConfigError: There is no such file, or it lacks a value that must be given.
    """
    if value is None or isinstance(value, str):
        return deepcopy(_from_conf(group, value))
    if isinstance(value, Mapping) and "_target_" not in value:
        return {**_from_conf(group, None), **value}
    return value


def is_file_of(group: str, name: str) -> bool:
    """Whether a group of `conf/` has a file of that name."""
    return re.fullmatch(r"[\w-]+", name) is not None and (repo_root() / "conf" / group / f"{name}.yaml").is_file()


@cache
def _from_conf(group: str, name: str | None) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vglm.config.overrides import compose

    cfg = compose("train", ["~recipes", *([] if name is None else [f"{group}={name}"])])
    try:
        values = OmegaConf.to_container(cfg[group], resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{group}: {str(error).splitlines()[0]}. Give it as a mapping, with that value.") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def recorded(make: Callable[P, T]) -> Callable[P, T]:
    """Note on what a function makes how to make it again, for `describe`; of a tuple on its first item."""

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        result = make(*args, **kwargs)
        arguments = inspect.signature(make).bind(*args, **kwargs).arguments
        try:
            plain = {name: _plain(value) for name, value in arguments.items()}
        except TypeError:
            return result
        owner = result[0] if isinstance(result, tuple) else result
        if _COMPONENT not in vars(owner):  # by a function within this one
            object.__setattr__(owner, _COMPONENT, {"_target_": f"{make.__module__}.{make.__qualname__}", **plain})
        return result

    return made


def describe(value: Any) -> dict[str, Any]:
    """How a component could be made again.

    Args:
        value: A component, which describes itself; what a function marked as `recorded` has made; or a dataclass, such
            as a config of peft or `TrainingArguments`, of which all that is not the default is taken.

    Returns:
        A component. Of any other object one that is refused when it is built, with the reason.
    """
    owner = value[0] if isinstance(value, tuple) and value else value
    try:
        if isinstance(value, Mapping):
            return {str(key): _plain(item) for key, item in value.items()}
        if isinstance(made := vars(owner).get(_COMPONENT), Mapping):
            return dict(made)
        return _describe_object(value)
    except TypeError:
        return {"_target_": UNRECORDED, "type": f"{type(owner).__module__}.{type(owner).__qualname__}"}


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of no component, as YAML has them.

    Raises:
        ConfigError: One is an object.
    """
    plain = {}
    for name, value in values.items():
        try:
            plain[name] = _plain(value)
        except TypeError as error:
            raise ConfigError(f"{name}: expected a plain value, got {value!r:.100}.") from error
    return plain


def is_recorded(values: object) -> bool:
    """Whether plain values hold only components that can be built again."""
    if isinstance(values, Mapping):
        return values.get("_target_") != UNRECORDED and all(map(is_recorded, values.values()))
    return not isinstance(values, list) or all(map(is_recorded, values))


def _describe_object(value: Any) -> dict[str, Any]:
    """A dataclass, or a function with some of its arguments.

    Raises:
        TypeError: It is something else, or may not be built.
    """
    if isinstance(value, functools.partial) and not value.args:
        arguments = {name: _plain(keyword) for name, keyword in value.keywords.items()}
        return {"_target_": _public_name(value.func), "_partial_": True, **arguments}
    if inspect.isfunction(value):
        return {"_target_": _public_name(value), "_partial_": True}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"{type(value)} has no fields")
    names = [field.name for field in dataclasses.fields(value) if field.init and hasattr(value, field.name)]
    try:
        defaults = vars(type(value)())
    except Exception:  # one that requires some of its fields, or refuses their defaults
        defaults = {field.name: field.default for field in dataclasses.fields(value)}
    changed = [name for name in names if name not in defaults or getattr(value, name) != defaults[name]]
    target = _public_name(type(value))
    return {"_target_": target, "_convert_": "all", **{name: _plain(getattr(value, name)) for name in changed}}


def _public_name(thing: Any) -> str:
    """The shortest name that a class or function is imported by: `peft.LoraConfig`, where its package offers it.

    Raises:
        TypeError: What it names may not be built.
    """
    package = str(thing.__module__).partition(".")[0]
    is_offered = getattr(sys.modules.get(package), thing.__qualname__, None) is thing
    name = f"{package if is_offered else thing.__module__}.{thing.__qualname__}"
    if refusal(name) is not None:
        raise TypeError(f"{name} may not be built")
    return name


def _plain(value: Any) -> Any:
    """A value as YAML has it.

    Raises:
        TypeError: There is no such form.
    """
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=str)
    if isinstance(value, Sequence):
        return list(map(_plain, value))
    if str(type(value)) in ("<class 'torch.dtype'>", "<class 'torch.device'>"):
        return str(value).removeprefix("torch.")
    return _describe_object(value)
