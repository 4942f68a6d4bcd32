"""Names that have changed: as older runs, and users' own recipes and commands, still have them.

    training: {probe: ...}              checkpoint_selection: {retention: ...}
    draws=5                             repeats=5
    _target_: vglm.data.synthetic.*     vglm.worlds.*

One table for each kind of name. They are read wherever a config comes from: a run's `config.yaml`, a composed config,
the command line. A note on stderr says which ones were used.
"""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

KEYS: Mapping[str, str] = {"training": "checkpoint_selection"}
"""Keys of `conf/train.yaml` and `conf/evaluate.yaml`."""

ARGUMENTS: Mapping[str, str] = {}
"""Keys of components, and of the options of a data format."""


def _language(value: Any) -> Any:
    return {"true": "en", "false": "zh"}.get(str(value).lower(), value)


def _splits(value: Any) -> Any:
    if isinstance(value, list):
        return ["retention" if each == "probe" else each for each in value]
    return re.sub(r"\bprobe\b", "retention", value) if isinstance(value, str) else value


VALUES: Mapping[str, Callable[[Any], Any]] = {}
"""By a key's name now: what becomes of its value."""

TARGETS: Mapping[str, str] = {
    "vglm.data.synthetic": "vglm.worlds",
    "vglm.evaluation.forgetting": "vglm.evaluation.score.forgetting",
    "vglm.evaluation.task": "vglm.evaluation.predict.task",
    "vglm.model.initialization": "vglm.worlds.initialization",
    "vglm.tuning.finding_pretraining": "vglm.worlds.finding_pretraining",
    "vglm.tuning.vision_pretraining": "vglm.worlds.vision_pretraining",
}
"""Beginnings of `_target_`s, whole names up to a dot: modules, or one thing in a module."""

CHOICES: Mapping[tuple[str, str], str] = {}
"""(group, file) -> the file's name now."""

_RENAMED_IN = ("dataset", "checkpoint_selection")
"""Components whose arguments are renamed on the command line, where no `_target_` stands beside them."""


@dataclass
class _Renaming:
    """Reads one config, and keeps what it renamed.

    Attributes:
        given: Dotted keys that the command line names, which count more than an older name in a file.
        notes: Old name -> new name.
    """

    given: Collection[str] = ()
    notes: dict[str, str] = field(default_factory=dict)

    def top(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The whole config."""
        renamed = self.node({name: each for name, each in values.items() if name not in KEYS}, "")
        for old, new in KEYS.items():
            if old in values:
                self.notes[old] = new
                (value,) = self.node({new: values[old]}, "").values()
                renamed[new] = self.merged(renamed.get(new), value, new)
        return renamed

    def node(self, values: Mapping[str, Any], path: str) -> dict[str, Any]:
        """One node and those below it."""
        is_component = "_target_" in values or path.endswith(".options.")
        renamed: dict[str, Any] = {}
        for key, value in values.items():
            new = ARGUMENTS.get(key, key) if is_component else key
            if new != key:
                self.notes[f"{path}{key}"] = f"{path}{new}"
            renamed[new] = self.value(new, value, f"{path}{new}", is_renamed=new != key or not path)
        return renamed

    def value(self, key: str, value: Any, path: str, *, is_renamed: bool) -> Any:
        """A value, or the values in it."""
        if key == "_target_" and isinstance(value, str) and (new := current_target(value)) != value:
            self.notes[value] = new
            return new
        if isinstance(value, Mapping):
            return self.node(value, f"{path}.")
        if is_renamed and key in VALUES and (new := VALUES[key](value)) != value:
            self.notes[f"{key}: {value}"] = f"{new}"
            return new
        if isinstance(value, list):
            return [self.value("", each, f"{path}[{index}]", is_renamed=False) for index, each in enumerate(value)]
        return value

    def merged(self, new: Any, old: Any, path: str) -> Any:
        """What stands under an older name, over what stands under the new one, but below the command line."""
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            return {**new, **{key: self.merged(new.get(key), each, f"{path}.{key}") for key, each in old.items()}}
        return new if path in self.given else old


def current_target(target: str) -> str:
    """Where a component is now."""
    for old, new in TARGETS.items():
        if target == old or target.startswith(f"{old}."):
            return new + target[len(old) :]
    return target


def rename(values: Mapping[str, Any], source: str, given: Collection[str] = ()) -> dict[str, Any]:
    """A config in today's names, with a note on stderr where it had others.

    Args:
        values: Plain values, not resolved.
        source: Where they come from, for the note.
        given: Dotted keys (today's names) that the command line names.
    """
    renaming = _Renaming(given)
    renamed = renaming.top(values)
    note(source, renaming.notes)
    return renamed


def rename_override(argument: str) -> str:
    """An argument of a command line in today's names: of a key, a package (`dataset@training.probe=...`), a choice."""
    sign = argument[: len(argument) - len(argument.lstrip("+~"))]
    left, equals, value = argument[len(sign) :].partition("=")
    if argument.startswith("-") or not left:
        return argument
    group, at, package = left.partition("@")
    if at:
        left = f"{group}@{_renamed_path(package)}"
    else:
        group, left = left, _renamed_path(left)
    value = ",".join(CHOICES.get((group, each), each) for each in value.split(","))
    key = left.rpartition(".")[2]
    if not at and (left == "splits" or left != group) and key in VALUES:
        value = VALUES[key](value)
    return f"{sign}{left}{equals}{value}"


def _renamed_path(path: str) -> str:
    first, *rest = path.split(".")
    first = KEYS.get(first, first)
    return ".".join([first, *(ARGUMENTS.get(each, each) if first in _RENAMED_IN else each for each in rest)])


def note(source: str, renamed: Mapping[str, str]) -> None:
    """Say on stderr which older names were read."""
    if renamed:
        pairs = ", ".join(f"{old} -> {new}" for old, new in renamed.items())
        print(f"note: {source}: names of an earlier version were read as today's: {pairs}", file=sys.stderr)
