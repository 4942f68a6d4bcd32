"""The functions whose parameters are the keys of `conf/train.yaml` and `conf/evaluate.yaml`.

Each config has the parameters of one function as its keys, and a few more that only the entry point reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vglm.config.signatures import Signature, read_signature

FUNCTIONS: Mapping[str, str] = {
    "train": "vglm.tuning.train.train",
    "evaluate": "vglm.evaluation.pipeline.evaluate",
}
"""By the name of the config: the function that it configures."""

_MORE: Mapping[str, str] = {"train": "vglm.config.settings.Sweep", "evaluate": "vglm.config.settings.Tracking"}
_NOT_KEYS = {"config"}
"""Parameters that no config sets."""


def signature_of(config_name: str) -> Signature:
    """The keys that a config may have, with their types."""
    both = read_signature(FUNCTIONS[config_name]).parameters | read_signature(_MORE[config_name]).parameters
    return Signature({name: value for name, value in both.items() if name not in _NOT_KEYS})


@dataclass(frozen=True)
class Sweep:
    """What the sweeps of `conf/protocol/` read of `conf/train.yaml`."""

    shots: int | None
    seeds: int | None
    folds: int | None


@dataclass(frozen=True)
class Tracking:
    """Where `evaluate.py` puts its report besides."""

    tracker: Mapping[str, Any]
