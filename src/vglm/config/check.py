"""Every mistake of a config at once, before anything heavy is imported.

    check_config(cfg)     binds the keys of every component to its signature and reports all problems:

        2 problems in the config:
          method.rr: peft.LoraConfig takes no `rr`; did you mean `r`?
          trainer.max_steps: expected int, got 'many'

Signatures are read from the source, see `vglm.config.signatures`. Only when nothing is wrong with any name or type are
components imported, and those that are dataclasses built once, so that their `__post_init__` checks them too.
"""

import difflib
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vglm.config.settings import FUNCTIONS, signature_of
from vglm.config.signatures import NoSuchName, Signature, missing_name, read_signature
from vglm.config.targets import build, interpolation_in, is_ours, refusal, targets_in
from vglm.errors import ConfigError, brief

_HYDRA_KEYS = ("_target_", "_convert_", "_recursive_", "_partial_", "_args_")
_HYDRA_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "_convert_": (lambda value: value in ("none", "partial", "object", "all"), "none, partial, object or all"),
    "_recursive_": (lambda value: isinstance(value, bool), "true or false"),
    "_partial_": (lambda value: isinstance(value, bool), "true or false"),
    "_args_": (lambda value: isinstance(value, list | ListConfig), "a list"),
}
_ITEMS_DEEP = 32
"""Depth of lists and nodes in each other; no component takes more."""
_MOST_STEPS = 100_000_000
"""Upper limit of a number of steps; no training makes more."""
_SHOWN = 100
"""Characters of a wrong value that a message repeats."""


def _positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _positive_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _step_count(value: object) -> bool:
    return value == -1 or (_positive_integer(value) and value <= _MOST_STEPS)  # type: ignore[operator]


def _epoch_count(value: object) -> bool:
    return _positive_number(value) and value <= _MOST_STEPS  # type: ignore[operator]


def _random_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _or_null(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


# What an annotation cannot say about a field, wherever the field appears.
_LIMITS: dict[str, tuple[Callable[[object], bool], str]] = {
    "r": (_positive_integer, "a positive integer"),
    "lora_alpha": (_positive_number, "a positive number"),
    "lora_dropout": (_probability, "a number from 0 to below 1"),
    "num_virtual_tokens": (_positive_integer, "a positive integer"),
    "learning_rate": (_positive_number, "a positive number"),
    "per_device_train_batch_size": (_positive_integer, "a positive integer"),
    "gradient_accumulation_steps": (_positive_integer, "a positive integer"),
    "max_steps": (_step_count, f"a positive integer up to {_MOST_STEPS:,}, or -1 to count in num_train_epochs"),
    "num_train_epochs": (_epoch_count, f"a positive number up to {_MOST_STEPS:,}"),
    "logging_steps": (_positive_number, "a positive number"),
    "save_steps": (_positive_number, "a positive number"),
    "seed": (_random_seed, "an integer from 0 to 4294967295"),
    "fsdp": (_or_null(lambda value: isinstance(value, bool | str)), "true, or null to leave the model whole"),
    "max_length": (_positive_integer, "a positive integer"),
    "packing": (_or_null(_positive_integer), "a positive integer, or null for no packing"),
    "limit": (_or_null(_positive_integer), "a positive integer, or null for all samples"),
    "batch_size": (_or_null(_positive_integer), "a positive integer"),
    "max_new_tokens": (_positive_integer, "a positive integer"),
    "temperature": (_or_null(_positive_number), "a number above 0, or null for greedy answers"),
    "top_p": (_or_null(_positive_number), "a number above 0 up to 1, or null for all tokens"),
    "top_k": (_or_null(_positive_integer), "a positive integer, or null for all tokens"),
    "repeats": (_positive_integer, "a positive integer"),
    "image_use_samples": (_positive_integer, "a positive integer"),
    "training_loss_samples": (_count, "a positive integer, or 0 for none"),
    "shots_in_context": (_count, "a positive integer, or 0 for none"),
}


def check_config(cfg: DictConfig | Mapping[str, Any], config_name: str = "train") -> None:
    """Find every mistake in a config before any weights are loaded.

    Checked are the top-level names and their values, required values and interpolations, and of each component that its
    `_target_` may be built, that it takes these keys and gets those it requires, and that plain values have the
    annotated type and a possible size. Components that are dataclasses are then built once, if all else is right.

    Args:
        cfg: The composed config, or plain values.
        config_name: The entry point's config in `conf/`, whose keys are the allowed ones.

    Raises:
        ConfigError: Lists all problems, one a line, each with the key's full name.
    """
    from vglm.config.overrides import top_level_keys  # with Hydra, which a single component needs not

    cfg = cfg if isinstance(cfg, DictConfig) else OmegaConf.create(dict(cfg))
    keys = top_level_keys(config_name)
    problems = [f"{key[:_SHOWN]}: no such key{_hint(key, keys)}" for key in map(str, cfg) if key not in keys]
    components: list[tuple[str, DictConfig]] = []
    problems += _problems(cfg, "", components)
    own = signature_of(config_name)
    values = {str(key): cfg[key] for key in cfg if str(key) in own.parameters and _is_plain(cfg, str(key))}
    problems += _value_problems(values, own, "", FUNCTIONS[config_name])
    if not problems:
        problems += [problem for path, node in components for problem in _construction_problems(node, path)]
    if problems:
        raise ConfigError(f"{_listed(problems, 'the config')}\nSee the whole config with --cfg job.")


def check_component(component: Mapping[str, Any], path: str) -> None:
    """Find every mistake in the names and types of one component, of plain values, and in those below it.

    Args:
        component: With its `_target_`.
        path: What messages call it, such as `metrics`.

    Raises:
        ConfigError: Lists all problems, one a line; or a value asks to be replaced by something else.
    """
    if interpolation := interpolation_in(component):
        raise ConfigError(f"{path}: {interpolation[:_SHOWN]!r} asks to be replaced by something else.")
    try:
        node = OmegaConf.create(dict(component))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {brief(error)}") from error
    if problems := list(_problems(node, f"{path}.", [])):
        raise ConfigError(_listed(problems, path))


def _listed(problems: list[str], where: str) -> str:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{count} in {where}:" + "".join(f"\n  {problem}" for problem in problems)


def _is_plain(node: DictConfig, key: str) -> bool:
    """Whether a key has a value of its own to check, rather than an interpolation."""
    return not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)


def _problems(node: DictConfig, path: str, components: list[tuple[str, DictConfig]]) -> Iterator[str]:
    """All problems of a node and those below it; the components without any are added to a list."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    if path.count(".") > _ITEMS_DEEP:
        yield f"{path[:100]}...: deeper than any component takes"
        return
    for key in node:
        name = str(key)
        where = f"{path}{name}"
        if OmegaConf.is_missing(node, key):
            problems.append(f"{where}: a value is required; give it as {where}=<value>")
            continue
        try:
            values[name] = node[key]
        except (OmegaConfBaseException, ConfigError) as error:
            problems.append(f"{where}: {brief(error)}")
            continue
        if isinstance(values[name], DictConfig):
            problems += _problems(values[name], f"{where}.", components)
        elif isinstance(values[name], ListConfig):
            problems += _item_problems(values[name], where, components)
        elif OmegaConf.is_interpolation(node, name):  # reported for the value it refers to
            continue
        elif name in _LIMITS and not _LIMITS[name][0](values[name]):
            problems.append(f"{where} must be {_LIMITS[name][1]}, got {_show(values[name])}")
    if "_target_" in node:
        missing = {str(key) for key in node} - set(values)
        problems += _component_problems(values, missing, path.removesuffix("."))
        if not problems:
            components.append((path.removesuffix("."), node))
    yield from problems


def _item_problems(items: ListConfig, path: str, components: list[tuple[str, DictConfig]]) -> Iterator[str]:
    """Problems of the nodes in a list."""
    for index in range(len(items)):
        try:
            item = items[index]
        except OmegaConfBaseException as error:
            yield f"{path}[{index}]: {brief(error)}"
            continue
        if isinstance(item, DictConfig):
            yield from _problems(item, f"{path}[{index}].", components)
        elif isinstance(item, ListConfig):
            yield from _item_problems(item, f"{path}[{index}]", components)


def _component_problems(values: Mapping[str, Any], missing: set[str], path: str) -> Iterator[str]:
    """Problems of one component: its target, names and types."""
    target = values.get("_target_")
    reason = refusal(target)
    if reason is not None and is_ours(str(target)) and (absent := missing_name(str(target))):  # a slip
        reason = _absent(absent)
    if reason is not None:
        yield f"{path}._target_: {reason}"
        return
    try:
        signature = read_signature(str(target))
    except NoSuchName as error:
        yield f"{path}._target_: {_absent(error)}"
        return
    except ConfigError as error:
        yield f"{path}: {error}"
        return
    except ImportError as error:
        yield f"{path}._target_: cannot import {target}: {brief(error)}"
        return
    for name in values.keys() & _HYDRA_KINDS.keys():
        is_right, expected = _HYDRA_KINDS[name]
        if not is_right(values[name]):
            yield f"{path}.{name} must be {expected}, got {str(values[name])[:80]!r}"
    if values.get("_partial_") and "." not in path:
        yield f"{path}._partial_: the whole component is needed; leave it out"
    arguments = {name: value for name, value in values.items() if name not in _HYDRA_KEYS}
    yield from _value_problems(arguments, signature, f"{path}.", str(target))
    if not values.get("_partial_"):
        for name, parameter in sorted(signature.parameters.items()):
            if parameter.is_required and name not in {*values, *missing}:
                yield f"{path}.{name}: {target} requires it; give it as {path}.{name}=<value>"


def _value_problems(values: Mapping[str, Any], signature: Signature, path: str, target: str) -> Iterator[str]:
    """Problems of values that are given by name: names that are not taken, values of another type."""
    for name, value in values.items():
        parameter = signature.parameters.get(name)
        if parameter is None:
            if not signature.takes_any:
                yield f"{path}{name}: {target} takes no `{name}`{did_you_mean(name, signature.parameters)}"
        elif (value is None and parameter.is_optional) or name in _LIMITS or _is_component(value):
            continue
        elif parameter.annotation is not None and not _fits(value, parameter.annotation):
            close = did_you_mean(str(value), _choices(parameter.annotation))
            yield f"{path}{name}: expected {_describe(parameter.annotation)}, got {_show(_plain(value))}{close}"


_constructed: set[str] = set()
"""Components, as their values are written, that were constructed without a complaint."""


def _construction_problems(component: DictConfig, path: str) -> Iterator[str]:
    """The problems that a dataclass component finds in its values; others, which may be slow, are not built."""
    try:
        target = str(component["_target_"])
        if not read_signature(target).is_dataclass:
            return
        values = OmegaConf.to_container(component, resolve=True)
        if (written := repr(values)) in _constructed:
            return
        build(component, _convert_="all")
        if all(is_ours(str(name)) for name in targets_in(values)):
            _constructed.add(written)
    except Exception as error:
        reason = error if isinstance(error, ConfigError) else error.__cause__ or error
        yield f"{path}: {str(reason).strip()}"


def _absent(error: NoSuchName) -> str:
    return f"{error.owner} has no `{error.name}`{did_you_mean(error.name, error.names)}"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The closest of some names as the end of a message, or nothing where none is close."""
    names = sorted(candidates)
    close = difflib.get_close_matches(name[:200], names, n=1) or [
        candidate for candidate in names if name and candidate.startswith(name)
    ]
    return f"; did you mean `{close[0]}`?" if close else ""


def _hint(key: str, allowed: Collection[str]) -> str:
    """What an unknown top-level key may have been meant to be."""
    from vglm.config.foreign import translate

    ours = translate(key)
    return f"; LLaMA-Factory's or ms-swift's `{key}` is {ours} here" if ours else did_you_mean(key, allowed)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value


def _is_component(value: object) -> bool:
    return isinstance(value, DictConfig) and "_target_" in value


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a config value can be an argument of this type; True for types that a config cannot spell."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _fits_one(value, _without_spelling(arguments))
    if origin is Literal:
        return value in arguments
    if _is_component(value):
        return True
    kind = origin or annotation
    if kind in (types.NoneType, None):
        return value is None
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Enum):
        return value in [member.value for member in kind]
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if issubclass(kind, str | os.PathLike) or kind is Path:
        return isinstance(value, str)
    if issubclass(kind, Mapping):
        return isinstance(value, DictConfig)
    if issubclass(kind, Iterable):
        items = [argument for argument in arguments if argument is not Ellipsis]
        return isinstance(value, ListConfig) and (len(items) != 1 or all(_fits(item, items[0]) for item in value))
    return True


def _fits_one(value: Any, alternatives: list[Any]) -> bool:
    """Whether a value can be one of several types; a plain value is not a class's where it could be something else."""
    spelled = [alternative for alternative in alternatives if _is_spelled(alternative)]
    is_open = len(spelled) < len(alternatives) and (isinstance(value, DictConfig) or not set(spelled) - {type(None)})
    return is_open or any(_fits(value, kind) for kind in spelled)


def _is_spelled(annotation: Any) -> bool:
    """Whether a config can hold values of this type: of Python's own, and enumerations."""
    kind = typing.get_origin(annotation) or annotation
    plain = (Enum, bool, int, float, str, os.PathLike, types.NoneType, Mapping, Iterable)
    return not isinstance(kind, type) or issubclass(kind, plain)


def _choices(annotation: Any) -> list[str]:
    """The values that an annotation lists by name; none where it is open."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return [str(argument) for argument in arguments]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return [choice for argument in arguments for choice in _choices(argument)]


def _describe(annotation: Any) -> str:
    """An annotation as a user would write it: `int`, `list[str] | str`, `'none', 'wandb' or 'tensorboard'`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_describe(argument) for argument in _without_spelling(arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (list, Sequence) and typing.get_origin(arguments[0]) is Literal:
        return f"a list of {', '.join(map(repr, typing.get_args(arguments[0])))}"
    if annotation is types.NoneType:
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"one of {', '.join(repr(member.value) for member in annotation)}"
    if isinstance(annotation, type) and not arguments:
        return annotation.__name__
    return re.sub(r"(\w+\.)+", "", str(annotation))


def _without_spelling(alternatives: tuple[Any, ...]) -> list[Any]:
    """`SaveStrategy | str` means the names of a strategy, not any text."""
    has_names = any(isinstance(alternative, type) and issubclass(alternative, Enum) for alternative in alternatives)
    return [alternative for alternative in alternatives if not (has_names and alternative is str)]
