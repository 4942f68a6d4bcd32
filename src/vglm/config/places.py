"""Locate the repository root, and set a home folder where there is none."""

import os
import tempfile
from pathlib import Path

from vglm.errors import ConfigError


def repo_root() -> Path:
    """The folder that holds `conf/`, `recipes/`, `data/`, train.py and evaluate.py.

    It is the checkout, or where the package was installed from a wheel, the copy in it (`setup.py`).

    Raises:
        ConfigError: There is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package.parents[1], package / "checkout"):
        if (root / "conf" / "train.yaml").is_file():
            return root
    raise ConfigError(f"{package} lies in no checkout and has no checkout/ of its own: install it anew, with pip.")


def ensure_home() -> None:
    """Give a user without HOME whom the system does not know, as containers have them, a private folder for one.

    Many libraries keep their caches in a home folder, and some would make one called `~` where they are.
    """
    if os.path.expanduser("~") != "~":
        return
    user = str(getattr(os, "getuid", lambda: 0)())
    folder = Path(tempfile.gettempdir()) / f"vglm-home-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        is_own = not folder.is_symlink() and str(folder.stat().st_uid) == user
    except OSError:
        is_own = False
    os.environ["HOME"] = str(folder) if is_own else tempfile.mkdtemp(prefix="vglm-home-")
    os.environ.setdefault("USER", user)
