"""Composing `conf/`, a recipe and the overrides of a command line; what an override may look like.

Overrides of fields need no `+`: whatever a component's class takes can be given (`method.use_dora=true`), and a name
that it does not take reaches `check_config`, which reports it together with every other problem.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from vglm.config.aliases import CHOICES, note, rename, rename_override
from vglm.config.places import repo_root
from vglm.config.resolvers import register_resolvers
from vglm.errors import ConfigError, brief

_MOST_CHARACTERS = 20_000
_LONGEST_KEY = 200
_DEEPEST = 32
_NONE: Mapping[str, str] = MappingProxyType({})
_PLUGINS = (
    "hydra._internal.core_plugins.",
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
    "optuna.samplers.",
)
"""What Hydra may build: itself, and the plugins that docs/howto/clusters.md names."""


def compose(config_name: str = "train", overrides: Sequence[str] = ()) -> DictConfig:
    """The config that `python <config_name>.py <overrides>` would run, for tests and notebooks.

    Args:
        config_name: Name of the config in `conf/`, without suffix.
        overrides: As on the command line, such as `["recipes=background/lora", "method.r=16"]`.

    Returns:
        The composed config.

    Raises:
        ConfigError: Hydra cannot compose it; the message is Hydra's own.
    """
    cfg = _composed(config_name, loosen(overrides, config_name), RunMode.RUN)
    with open_dict(cfg):
        if OmegaConf.is_interpolation(cfg, "recipe"):  # ${recipe_name:} asks a running Hydra, and here none is
            cfg.recipe = cfg.hydra.runtime.choices.get("recipes") or "custom"
        choices = cfg.hydra.runtime.choices
        del cfg["hydra"]
    return in_todays_names(cfg, overrides, choices)


def in_todays_names(cfg: DictConfig, overrides: Sequence[str], choices: Mapping[str, str] = _NONE) -> DictConfig:
    """A composed config with the older names in a user's recipe, or other file, read as today's; see `aliases`.

    Args:
        cfg: As composed, interpolations in place.
        overrides: Those of the command line.
        choices: Group -> the file that was chosen there, by whatever name.
    """
    former = {
        f"{group}={name}": f"{group}={CHOICES[group, name]}"
        for group, name in choices.items()
        if (group, name) in CHOICES
    }
    note("the config", former)
    values = OmegaConf.to_container(cfg)
    assert isinstance(values, dict)
    overridden = {rename_override(override).lstrip("+~").partition("=")[0] for override in overrides}
    renamed = rename({str(key): value for key, value in values.items()}, "the config", overridden)
    return cfg if renamed == values else OmegaConf.create(renamed)


def check_composable(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose before Hydra does, and report what cannot be composed or would make Hydra build unintended objects.

    Args:
        config_name: Name of the config in `conf/`, without suffix.
        overrides: As given to Hydra: from `loosen`, without options.

    Returns:
        The config; of a sweep, that of no single run.

    Raises:
        ConfigError: With the reason.
    """
    cfg = _composed(config_name, overrides, RunMode.MULTIRUN)
    own = OmegaConf.to_container(cfg.hydra, resolve=False)
    search_space = OmegaConf.select(cfg, "hydra.sweeper.custom_search_space")  # Optuna's: a function to call
    named = [*_targets_of(own), *([search_space] if search_space else [])]
    if strange := [name for name in named if not str(name).startswith(_PLUGINS)]:
        raise ConfigError(
            f"hydra: {str(strange[0])[:200]} may not be built: only Hydra's own plugins, and those for Ray and Optuna."
        )
    return cfg


def runs_of_sweep(params: Mapping[str, Any], overrides: Sequence[str]) -> int:
    """How many runs a sweep has.

    Args:
        params: What the config itself varies, as `hydra.sweeper.params`.
        overrides: Of the command line, as given to Hydra.
    """
    counts: dict[str, int] = {}
    for override in OverridesParser.create().parse_overrides(
        [*(f"{key}={value}" for key, value in params.items()), *overrides]
    ):
        counts[override.get_key_element()] = (
            len(list(override.sweep_string_iterator())) if override.is_sweep_override() else 1
        )
    return math.prod(counts.values())


def _targets_of(values: object) -> list[object]:
    if isinstance(values, dict):
        own = [values["_target_"]] if "_target_" in values else []
        return own + [name for value in values.values() for name in _targets_of(value)]
    return [name for value in values for name in _targets_of(value)] if isinstance(values, list) else []


def _composed(config_name: str, overrides: Sequence[str], mode: RunMode) -> DictConfig:
    register_resolvers()
    outer = GlobalHydra.instance().hydra  # of a command line, ours or a user's own, from within which this is called
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(repo_root() / "conf")):
            return GlobalHydra.instance().hydra.compose_config(  # type: ignore[union-attr]
                config_name, list(overrides), run_mode=mode, from_shell=False, with_log_configuration=False
            )
    except ConfigError:
        raise
    except Exception as error:  # Hydra, OmegaConf, YAML and the file system each have their own
        raise ConfigError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra = outer


def explain(error: Exception) -> str:
    """Hydra's complaint, with the cause where Hydra keeps it apart and without its search path."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).partition("/")
        if choices := _choices_of(group):
            from vglm.config.check import did_you_mean

            same = [choice for choice in choices if choice.partition("/")[2] == name]  # without its folder
            close = f"; did you mean `{'` or `'.join(same)}`?" if same else did_you_mean(name, choices)
            return f"{group}={name[:100]}: no such choice{close} There are {', '.join(choices)}."
    if not isinstance(error, HydraException) or len(str(error)) > _MOST_CHARACTERS:
        return f"the config cannot be composed: {brief(error)}. Look for the mistake in the overrides or the recipe."
    message = str(error)
    cause = str(error.__cause__ or "").partition("\n")[0]
    return message if cause in message else f"{message}\n{cause}"


def _choices_of(group: str) -> list[str]:
    """The files that a group can be set to."""
    folder = repo_root() / ("recipes" if group == "recipes" else f"conf/{group}")
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


@cache
def top_level_keys(config_name: str) -> frozenset[str]:
    """The keys a config composed from `conf/<config_name>.yaml` may have: its groups and its own."""
    primary = OmegaConf.load(repo_root() / "conf" / f"{config_name}.yaml")
    assert isinstance(primary, DictConfig)
    groups = {str(group) for entry in primary.get("defaults", []) if isinstance(entry, DictConfig) for group in entry}
    own = {key.removeprefix("override ") for key in groups if key != "recipes" and "hydra" not in key} | {
        str(key) for key in primary if key not in ("defaults", "hydra")
    }
    return frozenset(own)


def loosen(arguments: Sequence[str], config_name: str) -> list[str]:
    """Turn overrides of fields into `++` overrides, so that Hydra leaves unknown names to `check_config`.

    Args:
        arguments: Command line arguments. Options (`-m`), group choices (`model=...`), Hydra's own fields
            (`hydra.verbose=...`) and overrides with a sign (`+`, `~`) keep their sign. Values that Hydra's grammar has
            no room for, such as paths with Chinese characters, are quoted.
        config_name: Name of the config in `conf/`, without suffix.

    Raises:
        ConfigError: An argument is beyond what any setting needs, a group is set to no file of its folder, or the
            recipe's name to a recipe.
    """
    allowed = top_level_keys(config_name) | {"recipes", "hydra"}

    def is_field(argument: str) -> bool:
        key, equals, value = argument.partition("=")
        if not equals or argument.startswith(("-", "+", "~")) or "/" in key or "@" in key or key.startswith("hydra."):
            return False
        return "." in key or key not in allowed or value.startswith("{")

    for argument in arguments:
        _check_shape(argument)
    renamed = [argument if argument.startswith("-") else rename_override(argument) for argument in arguments]
    note("the command line", {old: new for old, new in zip(arguments, renamed, strict=True) if new != old})
    arguments = renamed
    for argument in arguments:
        _check_choice(argument, allowed)
    return [_quoted(f"++{argument}" if is_field(argument) else argument) for argument in arguments]


def _check_shape(argument: str) -> None:
    """Refuse input that cannot be a setting and on which Hydra's parser would take minutes or overflow the stack."""
    shown = ascii(argument[:60])[1:-1]
    if any("\ud800" <= character <= "\udfff" for character in argument):
        raise ConfigError(f"{shown}: this argument is no valid text. Type it in UTF-8.")
    key = argument.partition("=")[0]
    if len(argument) > _MOST_CHARACTERS or len(key) > _LONGEST_KEY:
        raise ConfigError(
            f"{shown}...: {len(argument):,} characters are more than any setting needs: {_LONGEST_KEY} for the key, and"
            f" {_MOST_CHARACTERS:,} with its value."
        )
    depth = deepest = 0
    for character in argument:
        depth += (character in "[{(") - (character in ")}]")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise ConfigError(f"{shown}...: {deepest} brackets in each other, and no setting takes more than {_DEEPEST}.")


def _check_choice(argument: str, allowed: Collection[str]) -> None:
    """Refuse a group that is set to what can be no file, and a recipe that would only lend its name."""
    group, equals, value = argument.lstrip("+").partition("=")
    if not equals:
        return
    if group == "recipe" and value and (recipe := _recipe_of(value)):
        raise ConfigError(
            f"recipe={value[:200]} would only name the run; did you mean recipes={recipe[:200]}? A name of your own"
            " must not begin with a folder of recipes/, nor be the name of a file there."
        )
    if re.fullmatch(r"\w+", group) and group not in allowed and (repo_root() / group).is_dir():  # Hydra sees a group
        from vglm.config.check import did_you_mean

        raise ConfigError(f"{argument[:200]}: no such key{did_you_mean(group, allowed)}")
    if re.fullmatch(r"\w+", group) is None or not (group == "recipes" or (repo_root() / "conf" / group).is_dir()):
        return
    if group != "recipes" and value in ("", "null"):
        raise ConfigError(f"{argument}: name one of the files in conf/{group}/, or leave it out.")
    try:
        parsed = OverridesParser.create().parse_override(argument)
        names = parsed.value() if not parsed.is_sweep_override() else ""
    except HydraException:
        return  # reported by Hydra
    if not isinstance(names, str | list | type(None)):
        folder = "recipes" if group == "recipes" else f"conf/{group}"
        raise ConfigError(f"{argument[:200]}: name one of the files in {folder}/: {', '.join(_choices_of(group))}.")


def _recipe_of(name: str) -> str | None:
    """The recipe that a run of this name may have been meant to use."""
    recipes = _choices_of("recipes")
    if name.partition("/")[0] in {recipe.partition("/")[0] for recipe in recipes}:
        return name
    return next((recipe for recipe in recipes if recipe.partition("/")[2] == name), None)


_ITEM = re.compile(r"""(?<=[\[,:])(\s*)([^\[\]{},:'"]*[^\x00-\x7f][^\[\]{},:'"]*?)(?=\s*[,\]}])""")
"""An item of a list or a value of a mapping in a script that Hydra's grammar has no letters for, without quotes."""


def _quoted(argument: str) -> str:
    """An override whose value is in quotes if Hydra could not read it without them; as it was if that is no help."""
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-") or _is_readable(argument):
        return argument
    is_prompt = re.match(r"\{\w+\}", value) is not None  # such as task.prompt={question} Answer in one word.
    if value[:1] in ("[", "{") and not is_prompt:
        quoted = f"{key}={_ITEM.sub(lambda match: match[1] + _in_quotes(match[2]), value)}"
    else:
        quoted = f"{key}={_in_quotes(value)}"
    return quoted if value[:1] not in "'\"$" and _is_readable(quoted) else argument


def _in_quotes(text: str) -> str:
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def _is_readable(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True
