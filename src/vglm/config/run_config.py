"""The config that a run has left behind, and what an evaluation takes from it.

It was written with everything resolved, and it may come from anyone: an interpolation in it could read the environment
or call a function, so it is refused.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from vglm.config.targets import interpolation_in
from vglm.errors import ConfigError, brief
from vglm.files import parse_yaml, read_text

_MOST_BYTES = 1_000_000
_COMPONENTS = ("trainer", "model", "dataset", "method", "training", "tracker")
_PLAIN = ("recipe", "seed", "answers", "max_length", "packing", "feature_cache", "allow_leakage", "learning_rates")
_TRACKER_SETTINGS = "wandb/settings"
_SCORING = "vglm.evaluation.checkpoint_selection.CheckpointSelection"


def read_run_values(path: Path) -> dict[str, Any]:
    """The `config.yaml` of a run as plain values: nothing in it is resolved, imported or called.

    Args:
        path: The file.

    Raises:
        ConfigError: It cannot be read, is no mapping, or has interpolations or YAML anchors in it.
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
    if found := interpolation_in(values):
        raise ConfigError(
            f"{path}: {found[:200]!r} asks to be replaced by something else. A run's config is written with everything"
            " in place, so this is none, or it was changed. Restore the file."
        )
    return {str(key): value for key, value in values.items()}


def load_run_config(run_folder: object) -> DictConfig:
    """The config a run was started with, its `output_dir` set to where the run lies now.

    Args:
        run_folder: `outputs/<recipe>/<time>/`; what the command line said, so it is checked.

    Raises:
        ConfigError: The folder holds no readable and whole `config.yaml`, or the command line asks for other
            changes besides.
    """
    if not isinstance(run_folder, str | Path):
        raise ConfigError(f"resume: expected the folder of a run, outputs/<recipe>/<time>, got {run_folder!r}.")
    run_folder = Path(run_folder)
    path = run_folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{run_folder} has no config.yaml, so no run was begun there. Pass a folder as outputs/<recipe>/<time>, or"
            " give the training's first command again."
        )
    from hydra.core.hydra_config import HydraConfig  # reading a config needs no Hydra

    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    others = [each.lstrip("+") for each in given if not each.lstrip("+").startswith("resume=")]
    if others:
        raise ConfigError(f"resume= continues a run exactly as it was configured. Leave out {' '.join(others)}.")
    values = read_run_values(path)
    # absent where the run was begun before checkpoints were scored
    values.setdefault("training", {"_target_": _SCORING, "score_checkpoints": False})
    parts = {name: values.get(name) for name in _COMPONENTS}
    absent = [name for name, part in parts.items() if not isinstance(part, dict) or "_target_" not in part]
    absent += [name for name in _PLAIN if name not in values]
    if absent:
        raise ConfigError(f"{path} is no config of train.py: it has no `{absent[0]}`. Restore the file.")
    _refuse_connections(values["trainer"], run_folder)
    cfg = OmegaConf.create(values)
    cfg.output_dir = cfg.trainer.output_dir = cfg.resume = str(run_folder)
    return cfg


def _refuse_connections(trainer: Mapping[str, Any], run_folder: Path) -> None:
    """Let no run folder say where results and keys of this user go.

    Raises:
        ConfigError: It would upload to a hub, or has settings of a tracker that name a server.
    """
    asked = [key for key, value in trainer.items() if key.startswith(("push_to_hub", "hub_")) and value]
    if asked:
        raise ConfigError(
            f"{run_folder / 'config.yaml'}: trainer.{asked[0]} would upload with your account, which only your own"
            " command line may ask for. Take it out, and upload the result afterwards."
        )
    if (run_folder / _TRACKER_SETTINGS).exists():  # where Weights & Biases reads which server to connect to
        raise ConfigError(
            f"{run_folder / _TRACKER_SETTINGS} could send your key elsewhere. Remove that file if it is yours."
        )


def take_from_run(cfg: DictConfig, trained: Mapping[str, object]) -> None:
    """Evaluate the run's model on the run's data, except for what the command line says of them.

    Args:
        cfg: The config of evaluate.py, which is changed.
        trained: The run's config, with `model` and `dataset`; empty without a run.

    Raises:
        ConfigError: Neither names a model, or data.
    """
    if found := interpolation_in(trained):
        raise ConfigError(f"the run's config: {found[:200]!r} asks to be replaced by something else. Restore the file.")
    with open_dict(cfg):
        for name in ("model", "dataset"):
            given = cfg.get(name) or {}
            if not isinstance(given, Mapping | DictConfig) or not isinstance(trained.get(name, {}), Mapping):
                found = str(given or trained[name])[:100]
                raise ConfigError(f"{name}: expected a component with its keys, got {found!r}.")
            if "_target_" not in given and name in trained:
                cfg[name] = OmegaConf.merge(trained[name], given)
            if "_target_" not in (cfg.get(name) or {}):
                raise ConfigError(f"there is no {name}: pass run=<run folder>, or model=<name> and dataset=<name>.")


def anchor_paths(cfg: DictConfig) -> None:
    """Make the paths of existing models and data absolute, so that a run can be evaluated from any directory."""
    datasets = OmegaConf.select(cfg, "dataset.datasets")
    mixed = [f"dataset.datasets.{name}.path" for name in datasets or {}]
    for name in ("model.path_or_id", "model.tokenizer", "dataset.path", "training.probe.path", *mixed):
        value = OmegaConf.select(cfg, name)
        if isinstance(value, str) and os.path.exists(value):
            OmegaConf.update(cfg, name, os.path.abspath(value))
