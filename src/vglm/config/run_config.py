"""The config saved with a run, and the parts of it that an evaluation reuses.

It was written with everything resolved, and it may come from anyone. An interpolation in it could read the environment
or call a function, so interpolations are refused. Only the command line decides where results are written.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vglm.config.aliases import rename
from vglm.config.places import repo_root
from vglm.config.targets import interpolation_in
from vglm.errors import ConfigError, brief, typed
from vglm.files import parse_yaml, read_text

_MOST_BYTES = 1_000_000
_COMPONENTS = ("trainer", "model", "dataset", "method", "checkpoint_selection", "tracker")
_REQUIRED = ("recipe", "seed")
_BEFORE: Mapping[str, Any] = {
    "answers": "last",
    "max_length": 2048,
    "packing": None,
    "feature_cache": True,
    "allow_leakage": False,
    "learning_rates": {},
    "metrics": None,
    "tracker": {"_target_": "vglm.tuning.tracker.Tracker", "report_to": "none"},
    "checkpoint_selection": {
        "_target_": "vglm.evaluation.checkpoint_selection.CheckpointSelection",
        "score_checkpoints": False,
    },
}
"""Keys that older runs lack -> the value with which such a run behaves as before."""
_TRACKER_SETTINGS = "wandb/settings"
_TO_BE_NAMED = ("torch_compile", "torch_compile_backend", "torch_compile_mode", "deepspeed")
"""Fields of the trainer that run other programs: a run's config has them only where the command line does too."""
_ELSEWHERE = ("output_dir", "resume", "trainer.output_dir", "tracker", "trainer.report_to", "allow_leakage", "metrics")
"""Keys that may be changed when a run is resumed."""


def read_run_values(path: Path) -> dict[str, Any]:
    """The `config.yaml` of a run as plain values: nothing in it is resolved, imported or called.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, is not a mapping, or has interpolations or YAML anchors in it.
    """
    advice = "Train again, or restore the file."
    text = read_text(path, error=ConfigError, advice=advice, limit=_MOST_BYTES)
    parse_yaml(text, str(path), error=ConfigError, advice=advice)  # no aliases, and no deep nesting
    try:
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:  # of OmegaConf, each its own
        raise ConfigError(f"{path} is damaged: {brief(error)}. {advice}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} is no config of train.py: it has no `trainer`. Restore the file.")
    if interpolation := interpolation_in(values):
        raise ConfigError(
            f"{path}: {interpolation[:200]!r} asks to be replaced by something else. A run's config is written with"
            " everything in place, so this is none, or it was changed. Restore the file."
        )
    return rename({str(key): value for key, value in values.items()}, str(path))


def load_run_config(run_folder: object, command_line: DictConfig | None = None) -> DictConfig:
    """The config that a run was started with, with `output_dir` set to its current folder.

    Args:
        run_folder: `outputs/<recipe>/<time>/`, or `latest` for the interrupted run that was begun last; what the
            command line said, so it is checked.
        command_line: What was composed from it: its tracker counts where it names one.

    Raises:
        ConfigError: The folder holds no readable and whole `config.yaml`, the command line asks for changes that a
            resumed run cannot have, or the config would do what only a command line may ask for.
    """
    if not isinstance(run_folder, str | Path):
        raise ConfigError(f"resume: expected the folder of a run, outputs/<recipe>/<time>, got {run_folder!r}.")
    run_folder = _newest_interrupted(Path("outputs")) if str(run_folder) == "latest" else Path(run_folder)
    path = run_folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{run_folder} has no config.yaml, so no run was begun there. Pass a folder as outputs/<recipe>/<time>, or"
            " give the training's first command again."
        )
    from hydra.core.hydra_config import HydraConfig  # reading a config needs no Hydra

    overrides = (
        [override.lstrip("+") for override in HydraConfig.get().overrides.task] if HydraConfig.initialized() else []
    )
    allowed = ("resume=", "tracker", "allow_leakage=", *(f"trainer.{name}=" for name in _TO_BE_NAMED))
    if others := [override for override in overrides if not override.startswith(allowed)]:
        raise ConfigError(f"resume= continues a run exactly as it was configured. Leave out {' '.join(others)}.")
    values = read_run_values(path)
    if absent := {name: value for name, value in _BEFORE.items() if name not in values}:
        shown = ", ".join(f"{name}={value}" for name, value in absent.items() if not isinstance(value, Mapping))
        if shown and "trainer" in values:
            print(f"note: {path} is of an earlier version; the run goes on as it was, with {shown}", file=sys.stderr)
        values |= absent
    parts = {name: values.get(name) for name in _COMPONENTS}
    lacking = [name for name, part in parts.items() if not isinstance(part, dict) or "_target_" not in part]
    lacking += [name for name in _REQUIRED if name not in values]
    if lacking:
        raise ConfigError(f"{path} is no config of train.py: it has no `{lacking[0]}`. Restore the file.")
    own: Any = {} if command_line is None else OmegaConf.to_container(command_line, resolve=True)
    named = own.get("tracker") or {}
    if named.get("report_to", "none") != "none" or any(override.startswith("tracker") for override in overrides):
        values["tracker"] = named
        values["trainer"]["report_to"] = named.get("report_to")
    values["allow_leakage"] = own.get("allow_leakage") is True or values["allow_leakage"]
    _refuse_connections(values, own, run_folder)
    cfg = OmegaConf.create(values)
    cfg.output_dir = cfg.trainer.output_dir = cfg.resume = str(run_folder)
    return cfg


def _newest_interrupted(outputs: Path) -> Path:
    """The run below a folder that was begun last of those that have a checkpoint and no result."""
    folders = [path.parent for path in outputs.rglob("config.yaml") if any(path.parent.glob("checkpoint-*"))]
    unfinished = [folder for folder in folders if not ((folder / "adapter").is_dir() or (folder / "model").is_dir())]
    if not unfinished:
        raise ConfigError(f"resume=latest: {outputs} holds no interrupted run with a checkpoint. Name a run's folder.")
    return max(unfinished, key=lambda folder: (folder / "config.yaml").stat().st_mtime)


def uploads(tracker: object) -> bool:
    """Whether a run's tracker would send something over the network."""
    if not isinstance(tracker, Mapping) or tracker.get("report_to") in ("none", "tensorboard", "trackio", None):
        return False
    return tracker.get("mode") not in ("offline", "disabled")


def _refuse_connections(values: Mapping[str, Any], command_line: Mapping[str, Any], run_folder: Path) -> None:
    """Let no run folder say where results and keys of this user go, or which programs run.

    Raises:
        ConfigError: It would, and the command line does not name it.
    """
    path, trainer = run_folder / "config.yaml", values["trainer"]
    requested = [key for key, value in trainer.items() if key.startswith(("push_to_hub", "hub_", "trackio_")) and value]
    if requested:
        raise ConfigError(
            f"{path}: trainer.{requested[0]} would upload with your account, which only your own command line may ask"
            " for. Take it out, and upload the result afterwards."
        )
    if (run_folder / _TRACKER_SETTINGS).exists():  # where Weights & Biases reads which server to connect to
        raise ConfigError(
            f"{run_folder / _TRACKER_SETTINGS} could send your key elsewhere. Remove that file if it is yours."
        )
    command = f"{typed('train')} resume={run_folder}"
    if uploads(values["tracker"]) and values["tracker"] != command_line.get("tracker"):
        name = values["tracker"]["report_to"]
        raise ConfigError(
            f"{path}: tracker.report_to={name} would upload with your account, which only your own command line may ask"
            f" for. Say which: {command} tracker={name}, or tracker=none."
        )
    own = command_line.get("trainer") or {}
    for key in _TO_BE_NAMED:
        if trainer.get(key) and trainer[key] != own.get(key):
            raise ConfigError(
                f"{path}: trainer.{key}={str(trainer[key])[:100]} has other programs run, which only your own command"
                f" line may ask for. If you trust it: {command} trainer.{key}={str(trainer[key])[:100]}"
            )


def refuse_changes(config: Mapping[str, Any], run_folder: Path) -> None:
    """Refuse to resume a run with another configuration.

    Args:
        config: What it is to be resumed with, plain values.
        run_folder: Where it lies.

    Raises:
        ConfigError: Names the first difference.
    """
    was = {**_BEFORE, **read_run_values(run_folder / "config.yaml")}
    changed = [(key, one, other) for key, one, other in _differences(was, config) if not key.startswith(_ELSEWHERE)]
    for key, one, other in changed[:1]:
        raise ConfigError(
            f"{run_folder}: {key} was {str(one)[:100]} and is {str(other)[:100]} now. A run is resumed exactly as it"
            " was configured; start a new one for another setting."
        )


def _differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() & other.keys() if not path else {**one, **other}:
            yield from _differences(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif one != other:
        yield path, one, other


def metrics_of_run(trained: Mapping[str, object]) -> dict[str, Any] | None:
    """The metrics that a run is scored by.

    Args:
        trained: The run's config.

    Returns:
        Its `metrics`; None where it names none.

    Raises:
        ConfigError: They are not metrics, or open files or connections, which only a command line may ask for.
    """
    metrics = trained.get("metrics")
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ConfigError(
            f"the run's metrics: expected names and labels, got {str(metrics)[:100]!r}. Restore the file."
        )
    if metrics and any((metrics.get("external") or {}).values()):
        raise ConfigError(
            "the run's config asks for metrics.external, which may open files or send answers elsewhere, so only your"
            " own command line may ask for it. Name the metrics there: metrics=<file of conf/metrics/> and"
            " metrics.external.<name>.<key>=<value>."
        )
    return None if metrics is None else {str(key): value for key, value in metrics.items()}


def take_from_run(cfg: DictConfig, trained: Mapping[str, object]) -> None:
    """Evaluate the run's model on the run's data by the run's metrics, except for what the command line says of them.

    Args:
        cfg: The config of evaluate.py, which is changed.
        trained: The run's config, with `model` and `dataset`; empty without a run.

    Raises:
        ConfigError: Neither names a model, or data.
    """
    if interpolation := interpolation_in(trained):
        raise ConfigError(
            f"the run's config: {interpolation[:200]!r} asks to be replaced by something else. Restore the file."
        )
    with open_dict(cfg):
        for name in ("model", "dataset"):
            component = cfg.get(name) or {}
            if not isinstance(component, Mapping | DictConfig) or not isinstance(trained.get(name, {}), Mapping):
                actual = str(component or trained[name])[:100]
                raise ConfigError(f"{name}: expected a component with its keys, got {actual!r}.")
            if "_target_" not in component and name in trained:
                cfg[name] = OmegaConf.merge(trained[name], component)
            if "_target_" not in (cfg.get(name) or {}):
                raise ConfigError(f"there is no {name}: pass run=<run folder>, or model=<name> and dataset=<name>.")
        metrics = cfg.get("metrics") or {}
        if not isinstance(metrics, Mapping | DictConfig):
            raise ConfigError(f"metrics: expected names and labels, got {str(metrics)[:100]!r}.")
        if "_target_" not in metrics:
            usual = OmegaConf.load(repo_root() / "conf" / "metrics" / "caption.yaml")
            cfg.metrics = OmegaConf.merge(metrics_of_run(trained) or usual, metrics)


def as_text(config: Mapping[str, Any]) -> str:
    """A run's config as `config.yaml` has it."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def anchor_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the paths of existing models and data made absolute, so that a run can be used from any directory.

    Args:
        config: Plain values.
    """
    cfg = OmegaConf.create(dict(config))
    datasets = OmegaConf.select(cfg, "dataset.datasets")
    mixed = [f"dataset.datasets.{name}.path" for name in datasets or {}]
    for name in ("model.path_or_id", "model.tokenizer", "dataset.path", "checkpoint_selection.retention.path", *mixed):
        value = OmegaConf.select(cfg, name)
        if isinstance(value, str) and os.path.exists(value):
            OmegaConf.update(cfg, name, os.path.abspath(value))
    values = OmegaConf.to_container(cfg)
    return {str(key): value for key, value in values.items()}  # type: ignore[union-attr]


def arguments_of(cfg: DictConfig, config_name: str) -> dict[str, Any]:
    """The arguments that a config passes to its function: all but the keys that only sweeps read.

    Args:
        cfg: Checked by `check_config`.
        config_name: Of the entry point.
    """
    from vglm.config.settings import FUNCTIONS
    from vglm.config.signatures import read_signature

    values: Any = OmegaConf.to_container(cfg, resolve=True)
    return {name: values[name] for name in read_signature(FUNCTIONS[config_name]).parameters if name in values}
