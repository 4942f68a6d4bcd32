"""The `tracker` component: where metrics go besides the run's own log. No torch, since checking a config imports it."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vglm.errors import brief

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = {"WANDB_INIT_TIMEOUT": 5, "WANDB_FINISH_TIMEOUT": 60}
"""How long Weights & Biases may take to begin, and to send the rest at the end; the environment can say otherwise."""


@dataclass(frozen=True)
class Tracker:
    """Where the curves of a run go besides its own log.

    Attributes:
        report_to: As in `TrainingArguments`.
        project: Name of the project at Weights & Biases or Trackio.
        mode: Of Weights & Biases: `offline` writes a local run and needs no account; `disabled` turns it off.
    """

    report_to: Literal["none", "tensorboard", "wandb", "trackio"]
    project: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None

    @contextmanager
    def writing_to(self, run_folder: Path) -> Iterator[None]:
        """Have the tracker keep its files in the run folder, through the environment variables that it reads."""
        variables = {
            "TENSORBOARD_LOGGING_DIR": str(run_folder / "tensorboard"),
            "TRACKIO_DIR": str(run_folder / "trackio"),
            "WANDB_DIR": str(run_folder),
            "WANDB_PROJECT": self.project,
            "WANDB_MODE": self.mode,
        }
        before = {name: os.environ.get(name) for name in variables}
        before |= {name: os.environ.get(name) for name in PATIENCE_SECONDS}
        variables |= {name: before[name] or str(seconds) for name, seconds in PATIENCE_SECONDS.items()}
        _set_environment(variables | {name: before[name] for name, value in variables.items() if value is None})
        try:
            yield
        finally:
            if self.report_to == "wandb":
                _close_wandb()
            _set_environment(before)


def _close_wandb() -> None:
    """End the run of Weights & Biases, so that the next one of this process reads the environment again."""
    import wandb

    try:
        wandb.finish()
        wandb.teardown()
    except Exception as error:  # whatever is the matter there, the run is not lost for it
        logger.warning("tracker: Weights & Biases did not finish (%s).", brief(error))


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
