"""A user's own YAML file in place of overrides: `python train.py my.yaml seed=2`.

    model: visualglm_6b                     a file of conf/model/, or
    model: {path_or_id: visualglm-6b}       fields over the default
    method: qlora
    dataset: {path: data/mine.json}         with a path of its own: dataset=own
    trainer: {max_steps: 200}
    seed: 3

Its content becomes overrides; those on the command line are applied after them.
Paths are relative to where the command is run. A recipe (a file with `defaults:`) and a run's `config.yaml` can be
given as well; without `recipes:` no recipe is used, and the run is named after the file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vglm.config.commands import WITH_VALUE
from vglm.config.foreign import refuse_foreign
from vglm.config.overrides import loosen, top_level_keys
from vglm.config.places import repo_root
from vglm.errors import ConfigError
from vglm.files import parse_yaml, read_text

_SUFFIXES = (".yaml", ".yml")
_OVERRIDE = re.compile(r"(?:override )?/?(\w+)")


def take_file(arguments: Sequence[str], config_name: str) -> list[str]:
    """The arguments as Hydra gets them, with the content of a file among them in its place.

    Args:
        arguments: As typed.
        config_name: Name of the config in `conf/`, without suffix.

    Raises:
        ConfigError: The file is missing, none of ours, or says what cannot be; or see `loosen`.
    """
    positions = [
        index for index, argument in enumerate(arguments) if _is_file(argument, arguments[index - 1] if index else "")
    ]
    if not positions:
        return loosen(arguments, config_name)
    path = Path(arguments[positions[0]])
    if len(positions) > 1:
        raise ConfigError(f"{arguments[positions[1]]}: one file is read, and {path} is one already.")
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file. Pass a YAML file, or overrides such as method.r=16.")
    values = parse_yaml(read_text(path, error=ConfigError), str(path), error=ConfigError)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: expected keys and values, such as `method: qlora`, found {type(values).__name__}.")
    refuse_foreign(values, str(path), config_name)
    typed = [argument for index, argument in enumerate(arguments) if index != positions[0]]
    own = list(_overrides(values, path, config_name))
    keys = {argument.partition("=")[0].lstrip("+~") for argument in typed}
    named = (
        [f"++recipe={path.stem}"] if config_name == "train" and not {"recipe", "recipes"} & (keys | {*values}) else []
    )
    options = [
        argument for index, argument in enumerate(typed) if _is_of_option(argument, typed[index - 1] if index else "")
    ]
    overrides = [
        argument
        for index, argument in enumerate(typed)
        if not _is_of_option(argument, typed[index - 1] if index else "")
    ]
    return [*options, *named, *loosen([*own, *overrides], config_name)]  # Hydra takes no option between overrides


def _is_file(argument: str, before: str) -> bool:
    """Whether an argument is a file rather than an override, an option or its value."""
    is_plain = "=" not in argument and not argument.startswith(("-", "+", "~")) and before not in WITH_VALUE
    return is_plain and argument.lower().endswith(_SUFFIXES)


def _is_of_option(argument: str, before: str) -> bool:
    """Whether an argument is an option of Hydra's, or the value of one."""
    return argument.startswith("-") or before in WITH_VALUE


def _overrides(values: Mapping[str, Any], path: Path, config_name: str) -> Iterator[str]:
    groups = {path.name for path in (repo_root() / "conf").iterdir() if path.is_dir()} | {"recipes"}
    values = dict(values)
    chosen: dict[str, Any] = dict(_defaults(values.pop("defaults", []), path))
    chosen |= {name: values.pop(name) for name in list(values) if name in groups and not isinstance(values[name], dict)}
    if config_name == "train":
        chosen.setdefault("recipes", None)
    allowed = top_level_keys(config_name)
    dataset = values.get("dataset")
    if isinstance(dataset, dict) and "path" in dataset and "_target_" not in dataset and "dataset" in allowed:
        chosen.setdefault("dataset", "own")
    for group, choice in chosen.items():
        yield "~recipes" if group == "recipes" and choice is None else f"{group}={_written(choice)}"
    for key, value in _flat(values, ""):
        yield f"++{key}={_written(value)}"


def _defaults(entries: Any, path: Path) -> Iterator[tuple[str, str]]:
    """The choices in the `defaults` of a recipe."""
    for entry in entries if isinstance(entries, list) else [entries]:
        if entry == "_self_":
            continue
        if isinstance(entry, str):
            yield "recipes", entry.strip("/").removeprefix("recipes/")
        elif isinstance(entry, dict) and len(entry) == 1 and (match := _OVERRIDE.fullmatch(str(next(iter(entry))))):
            yield match[1], next(iter(entry.values()))
        else:
            raise ConfigError(
                f"{path}: defaults: expected the name of a recipe or `override /<group>: <file>`, found {entry!r}."
            )


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat({str(name): item for name, item in value.items()}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _written(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_written(str(key))}:{_written(item)}' for key, item in value.items())}}}"
    text = str(value)
    if re.fullmatch(r"[\w/.-]*[A-Za-z_/][\w/.-]*", text, re.ASCII) and text.lower() not in (
        "null",
        "true",
        "false",
        "nan",
        "inf",
    ):
        return text
    escaped = text.replace("\\'", "\\\\'").replace("'", "\\'")
    return f"'{escaped}{chr(92) if escaped.endswith(chr(92)) else ''}'"
