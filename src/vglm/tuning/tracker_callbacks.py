"""Callbacks for trackers; a failing tracker neither ends nor delays training.

    trackers = take_trackers(trainer)       # TensorBoard, Weights & Biases or Trackio, if they can be reached

A tracker that fails is removed with a warning; `log.jsonl` and `forgetting.jsonl` hold the same values.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback

from vglm.errors import brief
from vglm.runs import read_scores

_NAMES = {WandbCallback: "Weights & Biases", TensorBoardCallback: "TensorBoard", TrackioCallback: "Trackio"}
_EVENTS = [name for name in dir(TrainerCallback) if name.startswith("on_")]

logger = logging.getLogger(__name__)


def take_trackers(trainer: Any) -> list[TrainerCallback]:
    """Take a trainer's trackers off it, and make them such as may fail without ending it.

    Args:
        trainer: A `transformers.Trainer`.

    Returns:
        What to add in their place.
    """
    trackers = [callback for callback in trainer.callback_handler.callbacks if type(callback) in _NAMES]
    for tracker in trackers:
        trainer.remove_callback(tracker)
    return [_Patient(tracker) for tracker in trackers]


class _Patient(TrainerCallback):
    """A tracker, until it fails."""

    def __init__(self, tracker: TrainerCallback) -> None:
        self.tracker = tracker
        self.is_lost = False


def _passing(event: str) -> Callable[..., Any]:
    def passed(self: _Patient, *args: Any, **options: Any) -> Any:
        if self.is_lost:
            return None
        try:
            return getattr(self.tracker, event)(*args, **options)
        except Exception as error:  # any failure of the tracker
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
        """Pass on what was scored of the model before training; what a resumed run passed on already is left out."""
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
                for tracker in self.trackers:
                    tracker.on_log(args, state, control, **{**options, "logs": logs})
