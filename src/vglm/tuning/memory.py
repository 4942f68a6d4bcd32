"""Peak memory: of the accelerator if there is one, else of the process."""

from pathlib import Path

import psutil
import torch

from vglm.model.loading import default_device

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak_memory() -> None:
    """Forget the peak so far. Where the system cannot do that for a process (not Linux), the peak is of its life."""
    if default_device().type != "cpu":
        torch.accelerator.reset_peak_memory_stats()
    elif _RESET.exists():
        _RESET.write_text("5")  # the reset of the peak resident set, see proc_pid_clear_refs(5)


def peak_memory() -> int:
    """Bytes at the peak: allocated on the accelerator, or resident in memory with everything the process holds."""
    if default_device().type != "cpu":
        return torch.accelerator.max_memory_allocated()
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))  # Windows keeps the peak; elsewhere what is held now
