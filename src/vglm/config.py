"""What the entry points need around Hydra: the repository's place, the configs' resolvers, and `check_config`.

    check_config(cfg)     imports every `_target_`, binds its keys to the signature and reports all problems at once:

        2 problems in the config:
          method.rr: peft.LoraConfig takes no `rr`; did you mean `r`?
          trainer.max_steps: expected int, got 'many'

A component of the config is a node with a `_target_`; its other keys are that callable's own keyword arguments. A
`_target_` can name any importable callable, so a config from elsewhere deserves a read before it is run.
"""

import dataclasses
import difflib
import functools
import importlib
import inspect
import itertools
import logging
import os
import re
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vglm.errors import ConfigError, WorkbenchError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells count signals."""

_HYDRA_KEYS = ("_target_", "_convert_", "_recursive_", "_partial_", "_args_")


def _positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _positive_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _step_count(value: object) -> bool:
    return value == -1 or _positive_integer(value)


def _random_seed(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def _probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


# What an annotation cannot say about a field, wherever the field appears.
_LIMITS: dict[str, tuple[Callable[[object], bool], str]] = {
    "r": (_positive_integer, "a positive integer"),
    "lora_alpha": (_positive_number, "a positive number"),
    "lora_dropout": (_probability, "a number from 0 to below 1"),
    "num_virtual_tokens": (_positive_integer, "a positive integer"),
    "learning_rate": (_positive_number, "a positive number"),
    "per_device_train_batch_size": (_positive_integer, "a positive integer"),
    "gradient_accumulation_steps": (_positive_integer, "a positive integer"),
    "max_steps": (_step_count, "a positive integer, or -1 to count in num_train_epochs"),
    "logging_steps": (_positive_number, "a positive number"),
    "save_steps": (_positive_number, "a positive number"),
    "seed": (_random_seed, "an integer from 0 to 4294967295"),
}


# --- places and resolvers ---------------------------------------------------------------------------------------------


def repo_root() -> Path:
    """The folder that holds `conf/`, `recipes/` and `data/`.

    Raises:
        ConfigError: The package is not installed from a checkout (`pip install -e .`), so there is no such folder.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "conf").is_dir():
        raise ConfigError(f"{root} has no conf/: this needs a checkout of the repository and pip install -e .")
    return root


def _recipe_name() -> str:
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return choices.get("recipes") or "custom"


def _runs_root() -> str:
    """Where runs go: `outputs`, or in a sweep (`-m`) the sweep's own folder there."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return "outputs"
    return str(HydraConfig.get().sweep.dir)


_moments = itertools.count()
"""Numbers the timestamps of this process."""


def _timestamp() -> str:
    """Now; of several processes all get the main one's, for they write to one folder."""
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    if not is_one_of_several():
        return now
    key = f"vglm/timestamp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_moments)}"
    try:
        store = _launchers_store()
        if os.environ["RANK"] == "0":
            store.set(key, now)
        return str(store.get(key).decode())  # waits until it is there
    except (LookupError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the processes that torchrun started cannot agree on a run folder ({error}). Name it: output_dir=<folder>."
        ) from error


def _share_of(share: float, whole: int) -> int:
    return int(share * whole)


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()


def _numbers(first: int, count: int) -> str:
    return ",".join(map(str, range(first, first + count)))


def _result_of(target: str, component: DictConfig) -> Any:
    asked = component.copy()
    with open_dict(asked):
        asked["_target_"] = target
    return build(asked)


def register_resolvers() -> None:
    """Make the resolvers of `conf/` known to OmegaConf; calling it again changes nothing.

    `${repo_root:}` is the checkout, `${recipe_name:}` the chosen recipe, `${runs_root:}` where runs go, `${timestamp:}`
    now (the same wherever one config uses it), `${cuda_available:}` whether there is a GPU to train on,
    `${share_of:0.2,<n>}` a fifth of n in whole numbers. For the sweeps of `conf/protocol/`: `${numbers:1,3}` is `1,2,3`
    (the first, and how many), and `${result_of:<function>,${dataset}}` what a function says of a component when it is
    called with the component's own arguments.
    """
    resolvers: dict[str, tuple[Callable[..., Any], bool]] = {
        "repo_root": (lambda: str(repo_root()), False),
        "recipe_name": (_recipe_name, False),
        "runs_root": (_runs_root, False),
        "timestamp": (_timestamp, True),
        "cuda_available": (_cuda_available, False),
        "numbers": (_numbers, False),
        "result_of": (_result_of, False),
        "share_of": (_share_of, False),
    }
    for name, (resolver, use_cache) in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, use_cache=use_cache, replace=True)


# --- entry points -----------------------------------------------------------------------------------------------------


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """`@hydra.main` on `conf/<config_name>.yaml`, with errors a user can read: one message, exit code 2.

    Overrides of fields need no `+`: whatever a component's class takes can be given (`method.use_dora=true`), and a
    name that it does not take reaches `check_config`, which reports it together with every other problem. Programming
    mistakes keep their traceback. Of the processes that `torchrun` starts, one prints for all.

    Args:
        config_name: Name of the config in `conf/`, without suffix.

    Returns:
        A decorator that turns `main(cfg)` into a `main()` that reads the command line.
    """
    arguments: list[str] = []

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def guarded(cfg: DictConfig) -> Any:
            sys.argv[1:] = arguments  # as typed, for the run's record
            try:
                return task(cfg)
            except WorkbenchError as error:
                _exit(error)

        @functools.wraps(task)
        def main() -> None:
            try:
                register_resolvers()
                conf = repo_root() / "conf"
                quiet_libraries()
                _quiet_other_processes()
                arguments[:] = sys.argv[1:]
                sys.argv[1:] = loosen(arguments, config_name)
                os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's own errors come through to here
                hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)(guarded)()
            except (WorkbenchError, HydraException, OmegaConfBaseException) as error:
                _exit(error)
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                raise SystemExit(INTERRUPTED) from None

        return main

    return decorate


def quiet_libraries() -> None:
    """Silence notes that no user of the workbench can act on."""
    for name in ("bitsandbytes", "transformers.integrations.bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _exit(error: Exception) -> typing.NoReturn:
    """Print one message and leave with 2."""
    if _is_first_to_fail():
        print(f"error: {error if isinstance(error, WorkbenchError) else _explain(error)}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def is_one_of_several() -> bool:
    """Whether `torchrun` or `accelerate launch` started several processes, of which this is one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def _quiet_other_processes() -> None:
    """Let one of several processes speak for all: in the others nothing is printed but what makes them fail."""
    if is_one_of_several() and os.environ["RANK"] != "0":
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported, later
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)


def _is_first_to_fail() -> bool:
    """Whether no other of several processes said already what went wrong; most mistakes are met by all at once."""
    if not is_one_of_several():
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        return bool(_launchers_store().add(f"vglm/failures/{attempt}", 1) == 1)
    except (LookupError, ValueError, RuntimeError):
        return os.environ["RANK"] == "0"


def _launchers_store() -> Any:
    """What the launcher lets its processes find each other by."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented all the same

    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*address, timeout=timedelta(seconds=10), wait_for_workers=False)


def _explain(error: Exception) -> str:
    """Hydra's complaint, with the cause where Hydra keeps it apart and without its search path."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.partition("/")
        folder = repo_root() / ("recipes" if group == "recipes" else f"conf/{group}")
        choices = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
        if choices:
            return f"{group}={name}: no such choice{_did_you_mean(name, choices)} There are {', '.join(choices)}."
    message = str(error)
    cause = str(error.__cause__ or "").partition("\n")[0]
    return message if cause in message else f"{message}\n{cause}"


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
    register_resolvers()
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(repo_root() / "conf")):
            cfg = hydra.compose(config_name, overrides=loosen(overrides, config_name), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    with open_dict(cfg):
        if "recipe" in cfg:  # ${recipe_name:} asks a running Hydra, and here none is
            cfg.recipe = cfg.hydra.runtime.choices.get("recipes") or "custom"
        del cfg["hydra"]
    return cfg


def loosen(arguments: Sequence[str], config_name: str) -> list[str]:
    """Turn overrides of fields into `++` overrides, so that Hydra leaves unknown names to `check_config`.

    Args:
        arguments: Command line arguments. Options (`-m`), group choices (`model=...`), Hydra's own fields
            (`hydra.verbose=...`) and overrides with a sign (`+`, `~`) keep their sign. Values that Hydra's grammar has
            no room for, such as paths with Chinese characters, are quoted.
        config_name: Name of the config in `conf/`, without suffix.

    Raises:
        ConfigError: A group is set to null or to nothing.
    """
    known = top_level_keys(config_name) | {"recipes", "hydra"}

    def is_field(argument: str) -> bool:
        key, equals, value = argument.partition("=")
        if not equals or argument.startswith(("-", "+", "~")) or "/" in key or "@" in key or key.startswith("hydra."):
            return False
        return "." in key or key not in known or value.startswith("{")

    for argument in arguments:
        group, _, value = argument.partition("=")
        if value in ("", "null") and "=" in argument and (repo_root() / "conf" / group).is_dir():
            raise ConfigError(f"{argument}: name one of the files in conf/{group}/, or leave it out.")
    return [_quoted(f"++{argument}" if is_field(argument) else argument) for argument in arguments]


def _quoted(argument: str) -> str:
    """An override whose value is in quotes if Hydra could not read it without them; as it was if that is no help."""
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-") or _is_readable(argument):
        return argument
    escaped = value.replace("'", "\\'")
    quoted = f"{key}='{escaped}'"
    is_prompt = re.match(r"\{\w+\}", value) is not None  # such as task.prompt={question} Answer in one word.
    return quoted if (is_prompt or value[:1] not in "[{'\"$") and _is_readable(quoted) else argument


def _is_readable(argument: str) -> bool:
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    return True


def build(component: Mapping[str, Any] | DictConfig, **keys: Any) -> Any:
    """Call a component's `_target_` with its keys and these, as `hydra.utils.instantiate`; exceptions are its own."""
    try:
        return hydra.utils.instantiate(component, **keys)
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


def top_level_keys(config_name: str) -> set[str]:
    """The keys a config composed from `conf/<config_name>.yaml` may have: its groups and its own."""
    primary = OmegaConf.load(repo_root() / "conf" / f"{config_name}.yaml")
    assert isinstance(primary, DictConfig)
    groups = {str(group) for entry in primary.get("defaults", []) if isinstance(entry, DictConfig) for group in entry}
    return {key.removeprefix("override ") for key in groups if key != "recipes" and "hydra" not in key} | {
        str(key) for key in primary if key not in ("defaults", "hydra")
    }


def load_run_config(run_folder: Path) -> DictConfig:
    """The config a run was started with, its `output_dir` set to where the run lies now.

    Args:
        run_folder: `outputs/<recipe>/<time>/`.

    Raises:
        ConfigError: The folder holds no readable `config.yaml`, or the command line asks for other changes besides.
    """
    path = run_folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{run_folder} has no config.yaml, so it is no run. Pass a folder as outputs/<recipe>/<time>."
        )
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    others = [each.lstrip("+") for each in given if not each.lstrip("+").startswith("resume=")]
    if others:
        raise ConfigError(f"resume= continues a run exactly as it was configured. Leave out {' '.join(others)}.")
    try:
        cfg = OmegaConf.load(path)
    except Exception as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(cfg, DictConfig) or not isinstance(cfg.get("trainer"), DictConfig):
        raise ConfigError(f"{path} is no config of train.py: it has no `trainer`. Restore the file.")
    if "training" not in cfg:  # begun before checkpoints were scored
        cfg.training = {"_target_": "vglm.evaluation.forgetting.CheckpointScoring", "score_checkpoints": False}
    cfg.output_dir = cfg.trainer.output_dir = cfg.resume = str(run_folder)
    return cfg


def take_from_run(cfg: DictConfig, trained: Mapping[str, object]) -> None:
    """Evaluate the run's model on the run's data, except for what the command line says of them.

    Args:
        cfg: The config of evaluate.py, which is changed.
        trained: The run's config, with `model` and `dataset`; empty without a run.

    Raises:
        ConfigError: Neither names a model, or data.
    """
    with open_dict(cfg):
        for name in ("model", "dataset"):
            given = cfg.get(name) or {}
            if "_target_" not in given and name in trained:
                cfg[name] = OmegaConf.merge(trained[name], given)
            if "_target_" not in (cfg.get(name) or {}):
                raise ConfigError(f"there is no {name}: pass run=<run folder>, or model=<name> and dataset=<name>.")


def anchor_paths(cfg: DictConfig) -> None:
    """Make the paths of existing models and data absolute, so that a run can be evaluated from any directory."""
    datasets = OmegaConf.select(cfg, "dataset.datasets") or {}
    mixed = [f"dataset.datasets.{name}.path" for name in datasets]
    for name in ("model.path_or_id", "model.tokenizer", "dataset.path", "training.probe.path", *mixed):
        value = OmegaConf.select(cfg, name)
        if isinstance(value, str) and Path(value).exists():
            OmegaConf.update(cfg, name, os.path.abspath(value))


# --- check_config -----------------------------------------------------------------------------------------------------


def check_config(cfg: DictConfig, config_name: str = "train") -> None:
    """Find every mistake in a config before any weights are loaded.

    Checked are the top-level names, required values and interpolations, and of each component that its `_target_` can
    be imported, that it takes these keys and gets those it requires, and that plain values have the annotated type and
    a possible size. Components that are dataclasses are then built once: their `__post_init__` has its say too.

    Args:
        cfg: The composed config.
        config_name: The entry point's config in `conf/`, whose keys are the allowed ones.

    Raises:
        ConfigError: Lists all problems, one a line, each with the key's full name.
    """
    known = top_level_keys(config_name)
    problems = [f"{key}: no such key{_did_you_mean(key, known)}" for key in map(str, cfg) if key not in known]
    problems += _problems(cfg, "")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ConfigError(f"{count} in the config:{lines}\nSee the whole config with --cfg job.")


def _problems(node: DictConfig, path: str) -> Iterator[str]:
    """All problems of a node and those below it."""
    values: dict[str, Any] = {}
    found = False
    for key in node:
        name = str(key)
        where = f"{path}{name}"
        if OmegaConf.is_missing(node, key):
            yield f"{where}: a value is required; give it as {where}=<value>"
            found = True
            continue
        try:
            values[name] = node[key]
        except OmegaConfBaseException as error:
            yield f"{where}: {str(error).splitlines()[0]}"
            found = True
            continue
        if isinstance(values[name], DictConfig):
            below = list(_problems(values[name], f"{where}."))
            found = found or bool(below)
            yield from below
        elif OmegaConf.is_interpolation(node, name):  # said of the value it stands for
            continue
        elif name in _LIMITS and not _LIMITS[name][0](values[name]):
            yield f"{where} must be {_LIMITS[name][1]}, got {values[name]!r}"
            found = True
    if "_target_" in node:
        missing = {str(key) for key in node} - set(values)
        yield from _component_problems(values, missing, path.removesuffix("."), is_buildable=not found)


def _component_problems(
    values: Mapping[str, Any], missing: set[str], path: str, *, is_buildable: bool
) -> Iterator[str]:
    """Problems of one component: import, names, types, and where it is a plain value object, its construction."""
    target = str(values.get("_target_"))
    try:
        component = _locate(target)
    except (ImportError, AttributeError, ValueError) as error:
        yield f"{path}._target_: {_cannot_import(target, error)}"
        return
    parameters = inspect.signature(component).parameters
    named = {name for name, each in parameters.items() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    hints = _type_hints(component)
    found = False
    for name, value in values.items():
        if name in _HYDRA_KEYS:
            continue
        problem = None
        if name not in named:
            if not takes_any:
                problem = f"{path}.{name}: {target} takes no `{name}`{_did_you_mean(name, named)}"
        elif value is None and parameters[name].default is None:
            pass
        elif name in hints and not _fits(value, hints[name]) and name not in _LIMITS:
            close = _did_you_mean(str(value), _choices(hints[name]))
            problem = f"{path}.{name}: expected {_describe(hints[name])}, got {_plain(value)!r}{close}"
        if problem is not None:
            found = True
            yield problem
    if not values.get("_partial_"):
        for name in sorted(named - set(values) - missing):
            if parameters[name].default is inspect.Parameter.empty:
                found = True
                yield f"{path}.{name}: {target} requires it; give it as {path}.{name}=<value>"
    if is_buildable and not found and dataclasses.is_dataclass(component):
        try:
            hydra.utils.instantiate({**values, "_convert_": "all"})
        except Exception as error:
            reason = error.__cause__ or error
            yield f"{path}: {str(reason).strip()}"


def _locate(target: str) -> Any:
    """The object a dotted name stands for: something in a module, or in a class in a module."""
    owner_name, _, name = target.rpartition(".")
    try:
        owner = importlib.import_module(owner_name)
    except ModuleNotFoundError as error:
        if "." not in owner_name or error.name != owner_name:
            raise
        owner = _locate(owner_name)
    return getattr(owner, name)


def _cannot_import(target: str, error: Exception) -> str:
    """Why a `_target_` cannot be imported, with a guess at the name that was meant."""
    if not isinstance(error, AttributeError):
        return f"cannot import {target}: {error}"
    owner_name, _, name = target.rpartition(".")
    owner = _locate(owner_name) if "." in owner_name else importlib.import_module(owner_name)
    return f"{owner_name} has no `{name}`{_did_you_mean(name, dir(owner))}"


def _did_you_mean(name: str, candidates: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(candidates), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _type_hints(component: Any) -> dict[str, Any]:
    is_plain_class = isinstance(component, type) and not dataclasses.is_dataclass(component)
    try:
        return typing.get_type_hints(component.__init__ if is_plain_class else component)
    except Exception:  # annotations that only resolve for a type checker: then nothing is known
        return {}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a config value can be an argument of this type; True for types that a config cannot spell."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in _without_spelling(arguments))
    if origin is Literal:
        return value in arguments
    if isinstance(value, DictConfig) and "_target_" in value:
        return True
    kind = origin or annotation
    if kind in (types.NoneType, None):
        return value is None
    if not isinstance(kind, type):
        return True
    if issubclass(kind, Enum):
        return value in [each.value for each in kind]
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
        items = [each for each in arguments if each is not Ellipsis]
        return isinstance(value, ListConfig) and (len(items) != 1 or all(_fits(each, items[0]) for each in value))
    return True


def _choices(annotation: Any) -> list[str]:
    """The values that an annotation lists by name; none where it is open."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return [str(each) for each in arguments]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(each.value) for each in annotation]
    return [choice for each in arguments for choice in _choices(each)]


def _describe(annotation: Any) -> str:
    """An annotation as a user would write it: `int`, `list[str] | str`, `'none', 'wandb' or 'tensorboard'`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_describe(each) for each in _without_spelling(arguments))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if annotation is types.NoneType:
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"one of {', '.join(repr(each.value) for each in annotation)}"
    if isinstance(annotation, type) and not arguments:
        return annotation.__name__
    return re.sub(r"(\w+\.)+", "", str(annotation))


def _without_spelling(alternatives: tuple[Any, ...]) -> list[Any]:
    """`SaveStrategy | str` means the names of a strategy, not any text."""
    has_names = any(isinstance(each, type) and issubclass(each, Enum) for each in alternatives)
    return [each for each in alternatives if not (has_names and each is str)]
