"""The resolvers that `conf/` and `recipes/` use."""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from vglm.config.aliases import CHOICES
from vglm.config.places import repo_root
from vglm.config.targets import build

_OTHER_DRIVERS = (Path("/dev/kfd"), Path("/dev/dxg"))
"""Signs of an AMD GPU, and of Windows' own driver below Linux: only torch can say whether it can use them."""


def recipe_name() -> str:
    """The chosen recipe."""
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return choices.get("recipes") or "custom"


def _runs_root() -> str:
    """Where runs go: `outputs`, or in a sweep (`-m`) the sweep's own folder there."""
    if not HydraConfig.initialized() or HydraConfig.get().mode is not RunMode.MULTIRUN:
        return "outputs"
    return str(HydraConfig.get().sweep.dir)


def _timestamp() -> str:
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]


def _share_of(share: float, whole: int) -> int:
    return int(share * whole)


def _cuda_available() -> bool:
    """Whether there is a GPU to train on; on Linux detected by its driver, without importing torch."""
    if "torch" not in sys.modules and sys.platform == "linux" and not any(driver.exists() for driver in _OTHER_DRIVERS):
        is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
        has_driver = any(Path("/proc/driver/nvidia/gpus").glob("*"))
        return has_driver and not is_hidden and not metadata.version("torch").endswith("+cpu")
    import torch

    return torch.cuda.is_available()


def _numbers(first: int, count: int) -> str:
    return ",".join(map(str, range(first, first + count)))


def _result_of(target: str, component: DictConfig) -> Any:
    requested = component.copy()
    with open_dict(requested):
        requested["_target_"] = target
    return build(requested)


def register_resolvers() -> None:
    """Make the resolvers of `conf/` known to OmegaConf; calling it again changes nothing.

    `${repo_root:}` is the checkout, `${recipe_name:}` the chosen recipe, `${runs_root:}` where runs go, `${timestamp:}`
    now (the same wherever one config uses it), `${cuda_available:}` whether there is a GPU to train on,
    `${share_of:0.2,<n>}` a fifth of n in whole numbers. For the sweeps of `conf/protocol/`: `${numbers:1,3}` is `1,2,3`
    (the first, and how many), and `${result_of:<function>,${dataset}}` what a function says of a component when it is
    called with the component's own arguments; it must be a target that may be built.

    The files of `conf/` that have other names now can be chosen by their former ones too, see `aliases.CHOICES`.
    """
    for (group, former), name in CHOICES.items():
        ConfigStore.instance().store(group=group, name=former, node={"defaults": [name]})
    resolvers: dict[str, tuple[Callable[..., Any], bool]] = {
        "repo_root": (lambda: str(repo_root()), False),
        "recipe_name": (recipe_name, False),
        "runs_root": (_runs_root, False),
        "timestamp": (_timestamp, True),
        "cuda_available": (_cuda_available, False),
        "numbers": (_numbers, False),
        "result_of": (_result_of, False),
        "share_of": (_share_of, False),
    }
    for name, (resolver, use_cache) in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, use_cache=use_cache, replace=True)
