"""What the keys of `conf/train.yaml` and `conf/evaluate.yaml` are bound to, as a component's keys to its class.

Each config is that of a function, whose parameters its keys are; `conf/train.yaml` has some more, which only the sweeps
of `conf/protocol/` read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vglm.config.signatures import Signature, read_signature

FUNCTIONS: Mapping[str, str] = {
    "train": "vglm.tuning.train.train",
    "evaluate": "vglm.config.settings.EvaluateSettings",
}
"""By the name of the config: the function that it configures."""

_SWEEPS: Mapping[str, str] = {"train": "vglm.config.settings.Sweep"}

Split = Literal["test", "probe", "validation", "train"]


def signature_of(config_name: str) -> Signature:
    """The keys that a config may have, with their types."""
    signature = read_signature(FUNCTIONS[config_name])
    more = read_signature(_SWEEPS[config_name]).parameters if config_name in _SWEEPS else {}
    return Signature({**signature.parameters, **more})


@dataclass(frozen=True)
class Sweep:
    """What the sweeps of `conf/protocol/` read of `conf/train.yaml`."""

    shots: int | None
    seeds: int | None
    folds: int | None


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
