"""The hardware of a plan: this machine, or a GPU of a given size."""

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import nn

from vglm.errors import ConfigError
from vglm.model.decoding import free_bytes
from vglm.model.loading import default_device

CUDA_CONTEXT = 500_000_000
"""Bytes that a process takes of a GPU before its first tensor; 0.3 to 0.6 GB, by driver and loaded kernels."""

_UNITS = {"gb": 10**9, "gib": 2**30, "g": 10**9, "": 10**9}
_SIDE = {"cuda": 8192, "cpu": 512}
_TIMES = 5
_LAYERS, _OPERATIONS = 100, 6  # of each: product, activation, activation's gradient, two products, sum over the rows


@dataclass(frozen=True)
class Machine:
    """The machine that a plan is made for.

    Attributes:
        name: For display.
        is_gpu: Whether memory is a GPU's.
        memory: Bytes of it that a run can have.
        is_here: Whether it is this machine.
    """

    name: str
    is_gpu: bool
    memory: int
    is_here: bool


def this_machine() -> Machine:
    """The accelerator if there is one, else the processor; with the memory that is free now."""
    device = default_device()
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device) + CUDA_CONTEXT  # what this process holds, a run can have
        return Machine(torch.cuda.get_device_name(device), True, min(free + own, total), True)
    return Machine("this CPU", False, free_bytes(device) + own_memory(), True)


def read_gpu(size: str) -> Machine:
    """A GPU of a size as it is written on the command line, `8GB` or `16GiB`.

    Raises:
        ConfigError: It is not such a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", size.strip().lower())
    if match is None or match[2] not in _UNITS or not float(match[1]):
        raise ConfigError(f"--gpu {size[:50]}: expected the size of its memory, such as 8GB or 16GiB.")
    return Machine(f"a GPU of {size.strip()}", True, int(float(match[1]) * _UNITS[match[2]]), False)


def own_memory() -> int:
    """Bytes that this process has now: Python and the libraries that a run loads as well."""
    return int(psutil.Process().memory_info().rss)


def free_disk(folder: Path) -> int:
    """Bytes that are free where a folder is, or would be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@torch.no_grad()
def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a matrix product, measured now: the best of some, each of some milliseconds."""
    side = _SIDE["cuda" if device.type == "cuda" else "cpu"]
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / _best_seconds(lambda: left @ right, device)


def operation_seconds(device: torch.device) -> float:
    """How long an operation takes that has next to nothing to do, forward and backward, measured now."""
    layer = nn.Linear(8, 8, device=device)

    def many() -> None:
        states = torch.zeros(8, 8, device=device)
        for _ in range(_LAYERS):
            states = F.gelu(layer(states))
        states.sum().backward()

    return _best_seconds(many, device) / (_LAYERS * _OPERATIONS)


def _best_seconds(work: object, device: torch.device) -> float:
    best = float("inf")
    for _ in range(_TIMES):
        start = time.perf_counter()
        work()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best
