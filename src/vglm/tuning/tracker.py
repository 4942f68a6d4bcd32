"""Where the curves of a run go besides its own log: TensorBoard, Weights & Biases or Trackio, if they can be reached.

    with tracker.writing_to(folder):        # they keep their files there
        take_trackers(trainer)              # none of them ends a training, or holds it up

A tracker that fails is let go of with a warning; `log.jsonl` and `forgetting.jsonl` have all that it would have had.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback

from vglm.errors import brief
from vglm.runs import read_scores

PATIENCE_SECONDS = 5
"""How long Weights & Biases may take to begin, and to end, before it is left; the environment can name another time."""

_NAMES = {WandbCallback: "Weights & Biases", TensorBoardCallback: "TensorBoard", TrackioCallback: "Trackio"}
_EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]

logger = logging.getLogger(__name__)


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
        waits = ("WANDB_INIT_TIMEOUT", "WANDB_FINISH_TIMEOUT")
        before |= {name: os.environ.get(name) for name in waits}
        variables |= {name: before[name] or str(PATIENCE_SECONDS) for name in waits}
        _set_environment(variables | {name: before[name] for name, value in variables.items() if value is None})
        try:
            yield
        finally:
            if self.report_to == "wandb":
                _close_wandb()
            _set_environment(before)


def take_trackers(trainer: Any) -> list[TrainerCallback]:
    """Take a trainer's trackers off it, and make them such as may fail without ending it.

    Args:
        trainer: A `transformers.Trainer`.

    Returns:
        What to add in their place.
    """
    trackers = [each for each in trainer.callback_handler.callbacks if type(each) in _NAMES]
    for each in trackers:
        trainer.remove_callback(each)
    return [_Patient(each) for each in trackers]


class _Patient(TrainerCallback):
    """A tracker, until it fails."""

    def __init__(self, tracker: TrainerCallback) -> None:
        self.tracker = tracker
        self.is_lost = False


def _passing(event: str) -> Callable[..., Any]:
    def passed(self: _Patient, *given: Any, **options: Any) -> Any:
        if self.is_lost:
            return None
        try:
            return getattr(self.tracker, event)(*given, **options)
        except Exception as error:  # whatever is the matter there
            self.is_lost = True
            name = _NAMES[type(self.tracker)]
            local = "; tracker.mode=offline keeps a local copy for it as well" if name == "Weights & Biases" else ""
            logger.warning("tracker: %s cannot be used (%s). The curves are in log.jsonl%s.", name, brief(error), local)
            return None

    return passed


for _event in _EVENTS:
    setattr(_Patient, _event, _passing(_event))


class TrackedScores(TrainerCallback):
    """Passes each new score of a checkpoint on to trackers, as `eval/domain` and `eval/retention`.

    Args:
        path: The run's `forgetting.jsonl`.
        trackers: As from `take_trackers`.
    """

    def __init__(self, path: Path, trackers: Sequence[TrainerCallback]) -> None:
        self.path = path
        self.trackers = trackers
        self.last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Pass on what was scored of the model before training; not anew what a resumed run has."""
        self._pass(args, state, control, options)

    def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Pass on the score of the checkpoint that was just saved."""
        self._pass(args, state, control, options)

    def on_train_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        """Pass on the score of a last state that is not saved."""
        self._pass(args, state, control, options)

    def _pass(self, args: Any, state: Any, control: Any, options: Mapping[str, Any]) -> None:
        if not state.is_world_process_zero:
            return
        for score in read_scores(self.path):
            if self.last < score.step == state.global_step:
                self.last = score.step
                values = {"eval_domain": score.domain, "eval_retention": score.retention}
                logs = {name: value for name, value in values.items() if value is not None}
                for each in self.trackers:
                    each.on_log(args, state, control, **{**options, "logs": logs})


def _close_wandb() -> None:
    """End the run of Weights & Biases, so that the next one of this process reads the environment anew."""
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
