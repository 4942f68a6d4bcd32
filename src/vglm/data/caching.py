"""Where the workbench keeps what it can make again: image features, tables of long data sets, drawn light curves."""

import os
import shutil
from pathlib import Path

from vglm.config.places import ensure_home

VARIABLE = "VGLM_CACHE"
"""Environment variable that names another folder for all caches than ~/.cache/vglm."""


def cache_folder(kind: str = "") -> Path:
    """`$VGLM_CACHE`, else `vglm` in the user's cache folder, and in it the folder of one kind of content."""
    ensure_home()
    given = os.environ.get(VARIABLE)
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vglm"
    return base.expanduser() / kind


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder, in bytes; 0 where there is none."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())


def clear_folder(folder: Path) -> int:
    """Remove a folder of the cache; returns the bytes that were freed."""
    freed = folder_bytes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return freed
