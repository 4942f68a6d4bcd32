"""Put what `vglm` reads besides its code into a wheel, so that it works without a checkout.

All else about the package is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONTENT = ("conf", "recipes", "data/visualglm_tiny", "data/background_synthetic", "train.py", "evaluate.py")
"""As in a checkout; a wheel has them below vglm/checkout/, see `vglm.config.places`."""


class BuildWithContent(build_py):
    """Builds the package with `CONTENT` in it; an editable installation reads the checkout itself."""

    def run(self) -> None:
        """Copy the files after the modules."""
        super().run()
        if self.editable_mode:
            return
        for name in CONTENT:
            source, target = Path(name), Path(self.build_lib, "vglm", "checkout", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", ".*")
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
            else:
                shutil.copy2(source, target)


setup(cmdclass={"build_py": BuildWithContent})
