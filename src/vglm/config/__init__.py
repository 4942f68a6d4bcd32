"""What the entry points need around Hydra, and the one place where components are built.

    app             `entry_point`: the command line, with errors a user can read
    overrides       `compose`, and what an override may look like
    resolvers       `${repo_root:}` and the others that `conf/` uses
    check           `check_config`: every mistake of a config at once, before anything heavy is imported
    settings        which function each config is bound to
    signatures      what a `_target_` takes, read from its source
    aliases         names that have changed, as older runs have them
    components      what a caller gives as a component, and how a run's config describes it
    targets         which `_target_`s may be built, and `build`
    run_config      the config saved with a run
    places          the checkout

A component of the config is a node with a `_target_`; its other keys are that callable's own keyword arguments.
Importing this package is quick; Hydra loads with the first name that needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vglm.config.app import INTERRUPTED, announce, entry_point, quiet_libraries
    from vglm.config.check import check_component, check_config
    from vglm.config.overrides import compose, loosen, top_level_keys
    from vglm.config.places import repo_root
    from vglm.config.resolvers import register_resolvers
    from vglm.config.run_config import anchor_paths, arguments_of, load_run_config, read_run_values, take_from_run
    from vglm.config.targets import allow_targets, build, is_ours, locate

_HOMES = {
    "app": ("INTERRUPTED", "announce", "entry_point", "quiet_libraries"),
    "check": ("check_component", "check_config"),
    "overrides": ("compose", "loosen", "top_level_keys"),
    "places": ("repo_root",),
    "resolvers": ("register_resolvers",),
    "run_config": ("anchor_paths", "arguments_of", "load_run_config", "read_run_values", "take_from_run"),
    "targets": ("allow_targets", "build", "is_ours", "locate"),
}

__all__ = [
    "INTERRUPTED",
    "allow_targets",
    "anchor_paths",
    "announce",
    "arguments_of",
    "build",
    "check_component",
    "check_config",
    "compose",
    "entry_point",
    "is_ours",
    "load_run_config",
    "locate",
    "loosen",
    "quiet_libraries",
    "read_run_values",
    "register_resolvers",
    "repo_root",
    "take_from_run",
    "top_level_keys",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"vglm.config.{module}"), name)
    raise AttributeError(f"module 'vglm.config' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
