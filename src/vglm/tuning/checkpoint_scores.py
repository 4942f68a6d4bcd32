"""Scores a model before training and at every saved checkpoint, and keeps the checkpoint that forgets little enough.

    scores = CheckpointScores(folder / "forgetting.jsonl", score, budget_points=5, patience=2)
    trainer = WorkbenchTrainer(model, arguments, sequences, collate, learning_rates, scores)

`score` is any function of the model. Training goes on as if nobody had looked: the adapter is the same bit for bit.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from vglm.errors import CheckpointError
from vglm.runs import CheckpointScore, read_scores
from vglm.tuning.forgetting import Choice, choose, is_lost, write_scores
from vglm.tuning.methods import untuned
from vglm.tuning.stopping import stopping_at_once

Score = Callable[[Any], Mapping[str, Any]]
"""A model -> `CheckpointScore` without its step."""


class CheckpointScores(TrainerCallback):
    """Scores checkpoints as they are saved, and remembers which of them is to be kept.

    A run that is resumed drops the lines behind its checkpoint, as the log does, and scores the checkpoint itself if a
    kill came between the two. On several processes all of them score and the main one's figures count.

    Args:
        path: The file of scores.
        score: Scores the model.
        budget_points: Hundredths that may be lost on the probe: choose by them. None keeps the last state.
        patience: Stop once so many checkpoints in a row lost more; None goes on.
        about: What was scored, for run.json.
    """

    def __init__(
        self,
        path: Path,
        score: Score,
        budget_points: float | None = None,
        patience: int | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.score = score
        self.budget_points = budget_points
        self.patience = patience
        self.about = dict(about or {})
        self.scores: list[CheckpointScore] = []
        self.seconds = 0.0
        """How long scoring took in this process."""
        self.is_stopped = False
        """Whether training was stopped because too much was forgotten."""

    @property
    def choice(self) -> Choice | None:
        """The checkpoint to keep; None without a budget."""
        return None if self.budget_points is None else choose(self.scores, self.budget_points)

    def as_dict(self) -> dict[str, Any]:
        """For run.json: what was scored, and what was chosen and why."""
        facts = {**self.about, "budget_points": self.budget_points, "chosen_step": None, "stopped_early": False}
        if (choice := self.choice) is not None:
            facts |= {
                "chosen_step": choice.step,
                "lost_points": choice.lost_points,
                "warning": choice.warning,
                "reason": str(choice),
                "choice": asdict(choice),
                "stopped_early": self.is_stopped,
            }
        return facts

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the model as it was, or take up where a resumed run was.

        Raises:
            CheckpointError: The scores of a resumed run are lost.
        """
        found = read_scores(self.path) if state.global_step > 0 else []
        self.scores = [each for each in found if each.step <= state.global_step]
        if state.global_step > 0 and (not self.scores or self.scores[0].step > 0):
            raise CheckpointError(
                f"{self.path} has no score of the model before training, so nobody can tell what was forgotten. Restore"
                " the file, or start a new run."
            )
        if not self.scores or (self.scores[-1].step < state.global_step and _is_due(args, state)):
            self._score(model, state)
        elif state.is_world_process_zero:
            write_scores(self.path, self.scores)
        self._decide(args, state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the checkpoint that was just saved, except where training was asked to terminate between two."""
        if not self.is_stopped and _is_due(args, state):
            self._score(model, state)
            self._decide(args, state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score the last state where no checkpoint is saved of it."""
        if not self.is_stopped and self.scores[-1].step < state.global_step >= state.max_steps:
            self._score(model, state)

    def _score(self, model: Any, state: TrainerState) -> None:
        started = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(stopping_at_once())  # nothing is lost: a resumed run does it again
            stack.enter_context(undisturbed(model))
            if state.global_step == 0:
                stack.enter_context(untuned(model))
            values = broadcast_object_list([dict(self.score(model))])[0]
        self.scores.append(CheckpointScore(step=state.global_step, **values))
        if state.is_world_process_zero:
            write_scores(self.path, self.scores)
        self.seconds += time.perf_counter() - started

    def _decide(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Keep the chosen checkpoint from being rotated away, and stop where training on is of no use."""
        if self.budget_points is None:
            return
        if (choice := self.choice) is not None:
            state.best_global_step = choice.step
            state.best_model_checkpoint = str(Path(str(args.output_dir)) / f"checkpoint-{choice.step}")
        if state.global_step < state.max_steps and is_lost(self.scores, self.budget_points, self.patience):
            self.is_stopped = control.should_training_stop = True


def _is_due(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether a checkpoint of this step is one that every run has, not only one that was asked to terminate."""
    if state.global_step >= state.max_steps:
        return True
    if args.save_strategy == SaveStrategy.EPOCH:
        return float(state.epoch or 0).is_integer()
    return args.save_strategy == SaveStrategy.STEPS and state.global_step % max(1, int(state.save_steps)) == 0


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Use a model in the middle of its training: random states, modes and what trains are afterwards as before."""
    modes = {module: module.training for module in model.modules()}
    trains = {parameter: parameter.requires_grad for parameter in model.parameters()}
    states = random.getstate(), np.random.get_state()
    gpus = {parameter.device.index for parameter in trains if parameter.device.type == "cuda"}
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, is_training in modes.items():
            module.training = is_training
        for parameter, is_trained in trains.items():
            parameter.requires_grad_(is_trained)
