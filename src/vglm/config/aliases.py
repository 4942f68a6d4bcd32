"""Former names of keys, components and choices, as older runs, recipes and commands still use them.

    training: {...}                                 checkpoint_selection: {...}
    _target_: vglm.data.synthetic.*                 _target_: vglm.worlds.*
    dataset: {fractions: ..., protocol: k_fold}     dataset: {division: {_target_: vglm.data.division.KFold, ...}}

One table for each kind of name. They are read wherever a config comes from: a run's `config.yaml`, a composed config,
the command line. A note on stderr says which ones were used.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

KEYS: Mapping[str, str] = {"training": "checkpoint_selection", "draws": "repeats"}
"""Keys of `conf/train.yaml` and `conf/evaluate.yaml`."""

ARGUMENTS: Mapping[str, str] = {"probe": "retention", "auto_batch": "auto_find_batch_size"}
"""Keys of components, and of the options of a data format."""

SPLITS: Mapping[str, str] = {"probe": "retention"}
"""Names of splits."""

FIELDS: Mapping[str, str] = {
    "probe": "retention",
    "probe_n": "retention_n",
    "probe_sha256": "retention_sha256",
}
"""Keys of the files that runs and evaluations consist of."""

VALUES: Mapping[str, Callable[[Any], Any]] = {
    "splits": lambda names: (
        [SPLITS.get(name, name) for name in names]
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
        else SPLITS.get(names, names)
        if isinstance(names, str)
        else names
    )
}
"""Current name of a key -> how its value is converted, for top-level and renamed keys."""

TARGETS: Mapping[str, str] = {
    "vglm.data.loading.load_splits": "vglm.data.loading.load_dataset",
    "vglm.data.synthetic.probe.probe_splits": "vglm.worlds.general_ability.retention_splits",
    "vglm.data.synthetic": "vglm.worlds",
    "vglm.evaluation.forgetting.CheckpointScoring": "vglm.evaluation.checkpoint_selection.CheckpointSelection",
    "vglm.evaluation.score.forgetting.CheckpointScoring": "vglm.evaluation.checkpoint_selection.CheckpointSelection",
    "vglm.evaluation.task": "vglm.evaluation.predict.task",
    "vglm.model.initialization": "vglm.worlds.initialization",
    "vglm.tuning.finding_pretraining": "vglm.worlds.finding_pretraining",
    "vglm.tuning.trainer.Tracker": "vglm.tuning.tracker.Tracker",
    "vglm.tuning.vision_pretraining": "vglm.worlds.vision_pretraining",
    "vglm.worlds.probe.probe_splits": "vglm.worlds.general_ability.retention_splits",
}
"""Beginnings of `_target_`s, whole names up to a dot: modules, or one thing in a module."""

CHOICES: Mapping[tuple[str, str], str] = {
    ("task", "general_probe"): "general_ability",
    ("dataset", "general_probe"): "general_ability",
    ("metrics", "general_probe"): "general_ability",
}
"""(group, file) -> the file's name now."""

_LOAD = "vglm.data.loading.load_dataset"
_BY_GROUP = ("fractions", "group", "stratify", "seed")
_DIVISIONS: Mapping[str | None, tuple[str, tuple[str, ...]]] = {
    None: ("ByGroup", _BY_GROUP),
    "few_shot": ("FewShot", (*_BY_GROUP, "shots", "shot_seed")),
    "k_fold": ("KFold", (*_BY_GROUP, "folds", "fold")),
    "leave_one_out": ("LeaveOneOut", (*_BY_GROUP, "fold")),
}
"""Former `dataset.protocol` -> its class in `vglm.data.division`, and the keys that stood beside the data's path."""


@dataclass
class _Renaming:
    """Reads one config, and keeps what it renamed.

    Attributes:
        overridden: Dotted keys that the command line names, which count more than an older name in a file.
        notes: Old name -> new name.
    """

    overridden: Collection[str] = ()
    notes: dict[str, str] = field(default_factory=dict)

    def node(self, values: Mapping[str, Any], path: str, names: Mapping[str, str]) -> dict[str, Any]:
        """A node and those below it.

        Args:
            values: Its content.
            path: Its dotted name, with a dot at the end.
            names: Old -> new of its keys.
        """
        renamed: dict[str, Any] = {}
        for key, value in sorted(values.items(), key=lambda item: item[0] in names):  # older names last: they count
            new = names.get(key, key)
            value = self.value(new, value, f"{path}{new}", may_change=new != key or not path)
            if new != key:
                self.notes[f"{path}{key}"] = f"{path}{new}"
            renamed[new] = self.merged(renamed[new], value, f"{path}{new}") if new in renamed else value
        if renamed.get("_target_") == _LOAD:
            renamed = self.divided(renamed, path)
        return renamed

    def value(self, key: str, value: Any, path: str, *, may_change: bool = False) -> Any:
        """A value, or the values in it."""
        if key == "_target_" and isinstance(value, str) and (new := current_target(value)) != value:
            self.notes[value] = new
            return new
        if isinstance(value, Mapping):
            is_component = "_target_" in value or key == "options"
            return self.node(value, f"{path}.", ARGUMENTS if is_component else {})
        if may_change and key in VALUES and (new := VALUES[key](value)) != value:
            self.notes[f"{path}={value}"] = f"{path}={new}"
            return new
        if isinstance(value, list):
            return [self.value("", item, f"{path}[{index}]") for index, item in enumerate(value)]
        return value

    def merged(self, new: Any, old: Any, path: str) -> Any:
        """What stands under an older name, over what stands under the new one, but below the command line."""
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            return {**new, **{key: self.merged(new.get(key), value, f"{path}.{key}") for key, value in old.items()}}
        return new if path in self.overridden else old

    def divided(self, values: dict[str, Any], path: str) -> dict[str, Any]:
        """A data set whose division stood in keys of its own."""
        former = {key for _, keys in _DIVISIONS.values() for key in keys} | {"protocol"}
        moved = {key: value for key, value in values.items() if key in former}
        if not moved:
            return values
        kind, keys = _DIVISIONS.get(moved.get("protocol"), _DIVISIONS[None])
        division = {"_target_": f"vglm.data.division.{kind}", **(values.get("division") or {})}
        if moved.get("protocol") is not None:
            division["_target_"] = f"vglm.data.division.{kind}"
        division |= {key: value for key, value in moved.items() if key in keys}
        self.notes |= {f"{path}{key}": f"{path}division.{key}" for key in moved if key in keys}
        return {**{key: value for key, value in values.items() if key not in moved}, "division": division}


def current_target(target: str) -> str:
    """Where a component is now."""
    for old, new in TARGETS.items():
        if target == old or target.startswith(f"{old}."):
            return new + target[len(old) :]
    return target


def rename(values: Mapping[str, Any], source: str, overridden: Collection[str] = ()) -> dict[str, Any]:
    """A config in today's names, with a note on stderr where it had others.

    Args:
        values: Plain values, not resolved.
        source: Where they come from, for the note.
        overridden: Dotted keys (today's names) that the command line names.
    """
    renaming = _Renaming(overridden)
    renamed = renaming.node(values, "", KEYS)
    note(source, renaming.notes)
    return renamed


def rename_override(argument: str) -> str:
    """An argument of a command line in today's names, as far as Hydra must know them: a key, a package, a choice."""
    left, equals, value = argument.partition("=")
    key = left.lstrip("+~")
    group, at, package = key.partition("@")
    first, dot, rest = (package or group).partition(".")
    path = KEYS.get(first, first) + dot
    path += ".".join(ARGUMENTS.get(part, part) for part in rest.split(".")) if at else rest
    value = ",".join(CHOICES.get((group, part), part) for part in value.split(","))
    return f"{left[: len(left) - len(key)]}{f'{group}@{path}' if at else path}{equals}{value}"


def note(source: str, renamed: Mapping[str, str]) -> None:
    """Say on stderr which older names were read, of each source once."""
    if renamed:
        _say(source, ", ".join(f"{old} -> {new}" for old, new in renamed.items()))


@cache
def _say(source: str, pairs: str) -> None:
    print(f"note: {source}: names of an earlier version were read as today's: {pairs}", file=sys.stderr)
