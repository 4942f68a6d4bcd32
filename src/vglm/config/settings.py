"""The keys of `conf/train.yaml` and `conf/evaluate.yaml` that belong to no component, with their types.

`check_config` binds a config to them as it binds a component's keys to its class; the values and what they mean stand
in those files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SETTINGS = {"train": "vglm.config.settings.TrainSettings", "evaluate": "vglm.config.settings.EvaluateSettings"}
"""By the name of the config: what its own keys are bound to."""

Split = Literal["test", "probe", "validation", "train"]


@dataclass(frozen=True)
class TrainSettings:
    """The keys of `conf/train.yaml`."""

    recipe: str
    seed: int
    output_dir: str
    resume: str | None
    answers: Literal["every", "last"]
    max_length: int
    packing: int | None
    feature_cache: bool
    allow_leakage: bool
    shots: int | None
    seeds: int | None
    folds: int | None
    learning_rates: Mapping[str, float | str]


@dataclass(frozen=True)
class EvaluateSettings:
    """The keys of `conf/evaluate.yaml`."""

    run: str | None
    unverified: bool
    output_dir: str | None
    splits: list[Split] | Split
    batch_size: int
    max_new_tokens: int
    temperature: float | None
    top_p: float | None
    top_k: int | None
    draws: int
    choices: list[str] | str | None
    feature_cache: bool
    seed: int
    image_use: bool
    image_use_samples: int
    baselines: bool
    shots_in_context: int
