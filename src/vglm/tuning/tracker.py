"""The `tracker` component: where metrics go besides the run's own log. No torch: checking a config imports this."""

import logging
import os
import ssl
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError

from vglm.errors import brief
from vglm.processes import is_main

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = {"WANDB_INIT_TIMEOUT": 5, "WANDB_FINISH_TIMEOUT": 60}
"""How long Weights & Biases may take to begin, and to send the rest at the end; the environment can say otherwise."""


PROBE_SECONDS = 4
"""After how long without any answer of its server a run is recorded offline; WANDB_INIT_TIMEOUT can say otherwise."""


_TRACKIO_FOLDERS = {"TRACKIO_DIR": ".", "MEDIA_DIR": "media", "ARTIFACTS_DIR": "artifacts"}


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
        _move_trackio(run_folder / "trackio")
        if self.report_to == "wandb" and is_main():
            _stay_offline_without_server(run_folder, before["WANDB_INIT_TIMEOUT"])
        try:
            yield
        finally:
            if self.report_to == "wandb":
                _close_wandb()
            _set_environment(before)


def _stay_offline_without_server(run_folder: Path, patience: str | None) -> None:
    """Have Weights & Biases record a run offline whose server does not answer: to wait would hold it up twice."""
    import wandb

    try:
        settings = wandb.setup().settings
        seconds = float(patience or PROBE_SECONDS)
        reason = _unreachable(settings.base_url, seconds) if settings.mode in (None, "online", "shared") else None
        if reason is not None:
            os.environ["WANDB_MODE"] = "offline"
            wandb.teardown()  # the next start reads it
            logger.warning(
                "tracker: Weights & Biases at %s cannot be reached (%s); recorded in %s, wandb sync uploads it.",
                settings.base_url,
                reason,
                run_folder / "wandb",
            )
    except Exception as error:  # what is wrong with its settings it will say itself
        logger.debug("tracker: %s", error)


def _unreachable(url: str, seconds: float) -> str | None:
    """Why no answer came from an address; None where one came, whatever it says."""
    outcome: list[str | None] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(url, timeout=seconds):
                outcome.append(None)
        except HTTPError:
            outcome.append(None)
        except Exception as error:  # no name, no route, refused; no address at all, or an answer that is not HTTP
            cause = error.reason if isinstance(error, URLError) else error
            if isinstance(cause, ssl.SSLError):  # it is there; wandb knows certificates of its own
                outcome.append(None)
            elif not isinstance(cause, TimeoutError):
                outcome.append(cause if isinstance(cause, str) else brief(cause))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name has no limit of its own
    thread.start()
    thread.join(seconds)
    return outcome[-1]


def _move_trackio(folder: Path) -> None:
    """Trackio reads where to write when it is imported, and a process may train more than once."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "trackio":
            for variable in _TRACKIO_FOLDERS.keys() & vars(module).keys():
                setattr(module, variable, folder / _TRACKIO_FOLDERS[variable])


def _close_wandb() -> None:
    """End the run of Weights & Biases, so that the next one of this process reads the environment again."""
    import wandb

    try:
        wandb.finish()
        wandb.teardown()
    except Exception as error:  # a failure there must not end the run
        logger.warning("tracker: Weights & Biases did not finish (%s).", brief(error))


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
