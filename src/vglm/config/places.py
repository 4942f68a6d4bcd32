"""Where the checkout is."""

from pathlib import Path

from vglm.errors import ConfigError


def repo_root() -> Path:
    """The folder that holds `conf/`, `recipes/` and `data/`.

    Raises:
        ConfigError: The package is not installed from a checkout (`pip install -e .`), so there is no such folder.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "conf").is_dir():
        raise ConfigError(f"{root} has no conf/: this needs a checkout of the repository and pip install -e .")
    return root
